"""The features that a denoiser's net read at a step, computed once more for the record."""

from __future__ import annotations

from denograd._clean import visible
from denograd._engine import Engine, Work
from denograd.audit import Seen
from denograd.denoisers import WienerDenoiser


def features_seen(engine: Engine, work: Work) -> Seen | None:
    """The features of a flat group at this step, as the net read them.

    Between `Engine.denoise` and `Engine.finish` the group still has the statistics from
    before the step, so they come from the same function and the same numbers as the net's
    own. A denoiser need not hand out its features for the sake of a few recorded steps.

    Args:
        engine: the optimizer's.
        work: what `Engine.denoise` returned; nothing of it may be written yet.

    Returns:
        names and values; None for a denoiser that reads no features.
    """
    if not isinstance(engine.denoiser, WienerDenoiser):
        return None
    group, plain = work.group, work.cleaned.plain
    _, (plain, noise, parameter) = visible(group.layout, plain, work.noise, work.before)
    features, _, _ = engine.denoiser.observe(plain, noise, parameter, group.state, work.context)
    return Seen(tuple(engine.denoiser.feature_names), features)
