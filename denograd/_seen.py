"""The features that a denoiser's net read at a step, computed once more for the record."""

from __future__ import annotations

from denograd._clean import visible
from denograd._engine import Engine, Run, Work
from denograd.audit import Seen
from denograd.denoisers import WienerDenoiser
from denograd.noise import NoiseCapture


def features_seen(
    engine: Engine, work: Work, capture: NoiseCapture | None, run: Run
) -> Seen | None:
    """The features of a flat group at this step, as the net read them.

    Between `Engine.denoise` and `Engine.finish` the group still has the statistics from
    before the step, so they come from the same function and the same numbers as the net's
    own. A denoiser need not hand out its features for the sake of a few recorded steps.

    Args:
        engine: the optimizer's.
        work: what `Engine.denoise` returned; nothing of it may be written yet.
        capture: where the noise within the batch was measured.
        run: what is known about the run.

    Returns:
        names and values; None for a denoiser that reads no features.
    """
    if not isinstance(engine.denoiser, WienerDenoiser):
        return None
    group, plain = work.group, work.cleaned.plain
    noise, context = engine.observe(group, group.flipped(plain), capture, run)
    _, (plain, noise, parameter) = visible(group.layout, plain, noise, work.before)
    features, _, _ = engine.denoiser.observe(plain, noise, parameter, group.state, context)
    return Seen(tuple(engine.denoiser.feature_names), features)
