"""The features that a denoiser's net read at a step, computed once more for the record."""

from __future__ import annotations

import torch

from denograd._engine import Run, Work
from denograd.audit import Seen
from denograd.denoisers import Context, Denoiser, WienerDenoiser
from denograd.noise import NoiseCapture, noise_variance
from denograd.statistics import layer_features, update_statistics


def features_seen(
    denoiser: Denoiser, work: Work, capture: NoiseCapture | None, step: int, run: Run
) -> Seen | None:
    """The features of a flat group at this step, as the net read them.

    Between `Engine.denoise` and `Engine.finish` the group still has the statistics from
    before the step, so they come from the same function and the same numbers as the net's
    own. A denoiser need not hand out its features for the sake of a few recorded steps.

    Args:
        denoiser: the optimizer's.
        work: what `Engine.denoise` returned; nothing of it may be written yet.
        capture: where the noise within the batch was measured.
        step: steps done before this one.
        run: what is known about the run.

    Returns:
        names and values; None for a denoiser that reads no features.
    """
    if not isinstance(denoiser, WienerDenoiser):
        return None
    group, parameter, plain = work.group, work.before, work.cleaned.plain
    layout = group.layout
    if capture is None:
        noise = torch.zeros_like(plain)
    else:
        records = capture.records(group.parameters)
        noise, _ = noise_variance(group.flipped(plain), layout, records)
    context = Context(
        layout=layout,
        counts=group.counts,
        noise_known=work.noise_known,
        step=group.scalar(step),
        total_steps=group.scalar(run.total_steps),
        rows=group.scalar(run.dataset_size),
        batch_size=group.scalar(0 if capture is None else capture.rows),
    )
    # As in `clean`: of a layer with numbers that are not finite the denoiser sees zeros.
    marks = layout.sum(plain.square() * 0.0 + noise * 0.0 + parameter.square() * 0.0)
    inside = layout.spread(marks == 0)
    plain, noise, parameter = (torch.where(inside, x, 0.0) for x in (plain, noise, parameter))
    statistics, _ = update_statistics(plain, noise, parameter, group.state, context)
    return Seen(tuple(denoiser.feature_names), layer_features(statistics, context))
