"""From the meta-gradients of single tasks to one step: what explodes is left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from denograd.meta.estimators import TaskGradients


@dataclass(frozen=True)
class Combined:
    """Sums over the tasks that count, so that the parts of several processes add up.

    Attributes:
        gradients: by parameter name, summed over the tasks that were kept.
        norms: ``(T,)``, norm of each task's meta-gradient; infinite where the loss is not
            finite.
        kept: ``(T,)``, boolean, whether a task counts.
        loss: sum of the kept tasks' meta-losses.
        final: sum of the kept tasks' held-out losses at the end, in nats.
    """

    gradients: dict[str, Tensor]
    norms: Tensor
    kept: Tensor
    loss: Tensor
    final: Tensor


def usable(norms: Tensor) -> Tensor:
    """Which norms are those of a gradient that says something."""
    return norms.isfinite() & (norms > 0)


def usual_norm(norms: Tensor) -> float:
    """The median of the usable norms; 0 if there is none."""
    some = norms[usable(norms)]
    return float(some.median()) if len(some) else 0.0


def combine(
    tasks: TaskGradients, reference: float | None, *, explosion: float, clip: float
) -> Combined:
    """Leave out the tasks whose gradient exploded, shorten the rest, and sum.

    One task in chaos would drown all others if gradients were averaged first; its
    gradient points nowhere, however it is scaled, so it is left out and counted. So is a
    task whose gradient is exactly 0: its inner loop diverged so far that all of its losses
    are beyond the clip, and it would only pretend to be a calm one.

    Args:
        tasks: gradients of single tasks.
        reference: what norm is usual, for instance the median of the last meta-steps;
            None if nothing is known yet: then the median of these tasks.
        explosion: a task whose norm exceeds so many times the reference is left out.
        clip: gradients are shortened to so many times the reference.
    """
    norms = torch.where(tasks.losses.isfinite(), tasks.norms(), torch.inf)
    if reference is None:
        reference = usual_norm(norms)
    kept = usable(norms) & (norms <= explosion * reference)
    factor = torch.where(kept, (clip * reference / norms).clamp(max=1.0), 0.0)

    def total(values: Tensor) -> Tensor:
        shape = (-1, *[1] * (values.dim() - 1))
        safe = torch.where(kept.reshape(shape), values, 0.0)
        return (safe * factor.to(values.dtype).reshape(shape)).sum(0)

    return Combined(
        {name: total(gradient) for name, gradient in tasks.gradients.items()},
        norms,
        kept,
        torch.where(kept, tasks.losses, 0.0).sum(),
        torch.where(kept, tasks.final, 0.0).sum(),
    )
