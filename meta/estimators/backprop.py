"""The meta-gradient by back-propagation through the unroll, full or truncated."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from denograd.denoisers import WienerDenoiser
from denograd.meta.engines import Engine
from denograd.meta.episode import Episode
from denograd.meta.estimators._base import MetaLoss, TaskGradients, check_cuts
from denograd.meta.weights import TaskWeights


class TruncatedBackprop:
    """Back-propagate through stretches of the unroll, one after the other.

    At each cut the graph ends and its memory is freed, so memory grows with the longest
    stretch and not with the horizon. What a weight does to losses beyond the next cut is
    left out, which makes the gradient biased towards what pays soon (Werbos 1990; Wu et
    al. 2018, "Understanding Short-Horizon Bias"). With a single stretch it is exact.
    """

    name = "truncated"

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
        """The meta-gradient of each task; see `Estimator`."""
        check_cuts(cuts, episode.steps)
        shares, weights = loss.shares(episode.steps), TaskWeights.copies(denoiser, len(episode))
        state, begin = engine.start(episode, weights), 0
        losses = episode.initial.new_zeros(len(episode))
        final = losses
        for end in cuts:
            state, _ = engine.cut(state)
            state, stretch, final = _stretch(
                engine, episode, weights, loss, shares, state, begin, end
            )
            if stretch.requires_grad:
                stretch.sum().backward()
            losses, begin = losses + stretch.detach(), end
        return TaskGradients(_collect(weights), losses, final)


class Backprop:
    """Back-propagate through the whole unroll, in bounded memory.

    A first pass without a graph keeps the state at each cut; a second goes backwards,
    runs one stretch again at a time and hands the gradient on through its beginning
    (checkpointing: Griewank and Walther 2000; Chen et al. 2016, arXiv 1604.06174). The
    result is the exact gradient, for one more forward pass, with the memory of the
    longest stretch.
    """

    name = "full"

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
        """The meta-gradient of each task; see `Estimator`."""
        check_cuts(cuts, episode.steps)
        shares, weights = loss.shares(episode.steps), TaskWeights.copies(denoiser, len(episode))
        starts = [engine.start(episode, weights)]
        with torch.no_grad():
            for begin, end in list(pairwise([0, *cuts]))[:-1]:
                state, _ = engine.cut(starts[-1])
                for _ in range(begin, end):
                    state = engine.advance(episode, weights, state, graph=False)
                starts.append(state)
        losses = episode.initial.new_zeros(len(episode))
        final, carried = losses, None
        spans = zip(pairwise([0, *cuts]), starts, strict=True)
        for (begin, end), before in reversed(list(spans)):
            state, pairs = engine.cut(before)
            after, stretch, last = _stretch(
                engine, episode, weights, loss, shares, state, begin, end
            )
            total = stretch.sum()
            if carried is None:
                final = last
            else:
                _, ends = engine.cut(after)
                for (out, _), gradient in zip(ends, carried, strict=True):
                    if gradient is not None and out.requires_grad:
                        total = total + (out * gradient).sum()
            if total.requires_grad:
                total.backward()
            carried = [leaf.grad for _, leaf in pairs]
            losses = losses + stretch.detach()
        return TaskGradients(_collect(weights), losses, final)


def _stretch(
    engine: Engine,
    episode: Episode,
    weights: TaskWeights,
    loss: MetaLoss,
    shares: dict[int, float],
    state: object,
    begin: int,
    end: int,
) -> tuple[object, Tensor, Tensor]:
    """Run from one cut to the next: the state, the meta-losses, the last held-out losses."""
    collected = episode.initial.new_zeros(len(episode))
    final = collected
    for step in range(begin + 1, end + 1):
        state = engine.advance(episode, weights, state, graph=True)
        if step in shares:
            held_out = engine.held_out_losses(episode, state)
            collected = collected + shares[step] * loss(held_out, episode.tasks.classes)
            final = held_out.detach()
    return state, collected, final


def _collect(weights: TaskWeights) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(w) if w.grad is None else w.grad
        for name, w in weights.weights.items()
    }
