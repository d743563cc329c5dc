"""What is lowered, and what an estimator of its gradient returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from denograd.denoisers import WienerDenoiser
from denograd.meta.engines import Engine
from denograd.meta.episode import Episode

FLOOR_MEASURED = 0.1
"""Of the meta-loss where targets are measured, in their variances."""


@dataclass(frozen=True)
class MetaLoss:
    """What meta-training lowers: the logarithm of the held-out loss, clipped late.

    ``log(min(loss, clip * log C) + floor)``: the logarithm makes it the geometric mean of
    loss ratios, whatever the tasks' scales; the floor keeps tasks that can be learnt almost
    without loss, where ratios range widely, from drowning out those with a weak signal; the
    clip is far above the loss ``log C`` of guessing, so that over-confidence costs. Of measured
    targets, which are standardised, the loss is the mean squared error, and that of guessing 1.

    Args:
        floor: in nats; in variances of the target, where it is measured.
        clip: in units of the loss of guessing.
        linear_above: in the same units; from here on the logarithm goes on along its tangent, so
            that over-confidence costs in proportion to the loss; None: nowhere.
        final: weight of the end of the inner loop; each point along the path weighs 1.
        every: inner steps between points along the path, roughly.

    Raises:
        ValueError: ``linear_above`` is not above 0.
    """

    floor: float = 0.25
    clip: float = 4.0
    linear_above: float | None = None
    final: float = 6.0
    every: int = 30

    def __post_init__(self) -> None:
        if self.linear_above is not None and not self.linear_above > 0:
            raise ValueError(
                f"MetaLoss: linear_above={self.linear_above!r}; it must be above 0, or None"
            )

    def __call__(self, losses: Tensor, classes: Tensor) -> Tensor:
        """``(T,)`` losses to ``(T,)``; ``classes`` are the class counts, 1 if measured."""
        guess = torch.where(classes > 1, torch.log(classes.to(losses.dtype)), 1.0)
        losses = torch.minimum(losses, self.clip * guess)
        if self.linear_above is None:
            return torch.log(losses + self.floor)
        knee = self.linear_above * guess
        below = torch.log(torch.minimum(losses, knee) + self.floor)
        return below + (losses - knee).clamp_min(0) / (knee + self.floor)

    def shares(self, steps: int) -> dict[int, float]:
        """Numbers of steps done at which the loss is taken, and what each weighs; sum 1."""
        points = max(1, round(steps / self.every))
        marks = sorted({max(1, round(steps * (i + 1) / points)) for i in range(points)})
        total = len(marks) - 1 + self.final
        return {mark: (self.final if mark == steps else 1.0) / total for mark in marks}


@dataclass(frozen=True)
class TaskGradients:
    """Meta-gradients, task by task, not yet averaged.

    Attributes:
        gradients: by the names of the denoiser's parameters, ``(T, *shape)``.
        losses: ``(T,)``, the meta-loss of each task, a weighted mean along its path.
        final: ``(T,)``, held-out loss of each task at the end, in nats.
    """

    gradients: dict[str, Tensor]
    losses: Tensor
    final: Tensor

    def norms(self) -> Tensor:
        """Norm of each task's meta-gradient, ``(T,)``."""
        squares = [g.flatten(1).square().sum(1) for g in self.gradients.values()]
        return torch.stack(squares).sum(0).sqrt()


class Estimator(Protocol):
    """Estimates the gradient of the meta-loss in the denoiser's weights."""

    def __call__(
        self,
        denoiser: WienerDenoiser,
        episode: Episode,
        loss: MetaLoss,
        *,
        cuts: list[int],
        engine: Engine,
        seed: int = 0,
    ) -> TaskGradients:
        """Run an episode and estimate the meta-gradient of each of its tasks.

        Args:
            denoiser: whose weights the gradient is of; its ``.grad`` is not touched.
            episode: tasks and inner loop.
            loss: what is lowered.
            cuts: numbers of steps done at which the unroll is cut, the last of them
                ``episode.steps``.
            engine: runs the inner loop.
            seed: of the perturbations, for estimators that draw any.
        """
        ...


def check_cuts(cuts: list[int], steps: int) -> None:
    """Raise a `ValueError` unless cuts rise from at least 1 to the last step."""
    if not cuts or cuts[0] < 1 or cuts[-1] != steps or sorted(set(cuts)) != cuts:
        raise ValueError(
            f"cuts={cuts}; they must rise from at least 1 to the last of {steps} inner steps"
        )
