"""The meta-gradient: back-propagation through a truncated unroll."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from denograd.denoisers import WienerDenoiser
from denograd.meta.episode import Episode
from denograd.meta.unroll import advance, start, test_loss


@dataclass(frozen=True)
class MetaLoss:
    """What meta-training lowers: the logarithm of the held-out loss, clipped late.

    ``log(min(loss, clip * log C) + floor)``: the logarithm makes it the geometric mean of
    loss ratios, whatever the tasks' scales; the floor keeps tasks that can be learnt almost
    without loss, where ratios range widely, from drowning out those with a weak signal; the
    clip is far above the loss ``log C`` of guessing, so that over-confidence costs.

    Args:
        floor: in nats.
        clip: in units of the loss of guessing.
        final: weight of the end of the inner loop; each point along the path weighs 1.
    """

    floor: float = 0.25
    clip: float = 4.0
    final: float = 6.0

    def __call__(self, losses: Tensor, classes: Tensor) -> Tensor:
        """``(T,)`` losses in nats to ``(T,)``; ``classes`` are the tasks' class counts."""
        limit = self.clip * torch.log(classes.to(losses.dtype))
        return torch.log(torch.minimum(losses, limit) + self.floor)


@dataclass(frozen=True)
class MetaGradient:
    """A meta-gradient, left in the denoiser's ``.grad``, and what it was made of.

    Attributes:
        meta_loss: weighted mean over tasks and points of evaluation.
        final_loss: mean held-out loss at the end, in nats.
        norm: norm of the gradient.
    """

    meta_loss: float
    final_loss: float
    norm: float


def truncated_backprop(
    denoiser: WienerDenoiser,
    episode: Episode,
    loss: MetaLoss,
    *,
    window: int,
    points: int = 3,
) -> MetaGradient:
    """Back-propagate through windows of an unroll, one after the other.

    The inner loop runs to its end. Every ``window`` steps the graph is cut; the held-out
    loss is taken at ``points`` evenly spaced steps of each window and at the very end. A
    window as long as the episode gives the full gradient of those losses.

    Args:
        denoiser: gets the gradient in ``.grad``, added to what is there.
        episode: tasks and inner loop.
        loss: what is lowered.
        window: inner steps between cuts.
        points: evaluations in a window.

    Raises:
        ValueError: ``window`` or ``points`` below 1.
    """
    if window < 1 or points < 1:
        raise ValueError(
            f"truncated_backprop: window={window}, points={points}; both must be at least 1"
        )
    windows = math.ceil(episode.steps / window)
    cuts = [round(episode.steps * (i + 1) / windows) for i in range(windows)]
    weight = windows * points - 1 + loss.final
    state, begin, total = start(episode, denoiser), 0, 0.0
    final = torch.zeros(())
    for end in cuts:
        marks = {begin + round((end - begin) * (i + 1) / points) for i in range(points)}
        collected = torch.zeros((), dtype=episode.initial.dtype)
        for step in range(begin, end):
            state = advance(episode, denoiser, state, graph=True)
            if step + 1 in marks:
                losses = test_loss(episode, state.parameters)
                last = step + 1 == episode.steps
                share = (loss.final if last else 1.0) / weight
                collected = collected + share * loss(losses, episode.tasks.classes).mean()
                final = losses.detach().mean()
        collected.backward()
        total += float(collected.detach())
        state, begin = state.detached(), end
    norm = torch.stack([p.grad.norm() for p in denoiser.parameters() if p.grad is not None]).norm()
    return MetaGradient(total, float(final), float(norm))
