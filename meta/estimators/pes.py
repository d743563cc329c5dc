"""The meta-gradient by persistent evolution strategies: unbiased over truncations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from denograd.denoisers import WienerDenoiser
from denograd.meta.engines import Engine
from denograd.meta.episode import Episode
from denograd.meta.estimators._base import MetaLoss, TaskGradients, check_cuts
from denograd.meta.estimators.es import average
from denograd.meta.estimators.perturb import (
    antithetic,
    check_strategy,
    differences,
    draw,
    generators,
)


@dataclass
class Particles:
    """Inner loops under way, one pair for each task, and the perturbations they have met.

    Attributes:
        step: inner steps done.
        states: of the two loops, perturbed one way and the other.
        met: sum of the perturbations so far, as `TaskGradients.gradients`; the loop
            perturbed the other way has met its opposite.
    """

    step: int
    states: list[Any]
    met: dict[str, Tensor]


class PersistentES:
    """Persistent evolution strategies (Vicol et al. 2021, ICML, algorithm 2, antithetic).

    Each stretch between two cuts draws a new perturbation and goes on from the perturbed
    states. The loss of a stretch is credited to the sum of *all* perturbations that its
    inner loop has met, which removes the bias of truncation (their equation 9)::

        g = sum over stretches k of  xi_k (L_k(+) - L_k(-)) / (2 sigma^2),  xi_k = e_1 + ... + e_k

    `__call__`, which the trainer uses, runs an episode from beginning to end with the same
    weights and costs what `EvolutionStrategies` cost; what it gains is variance, since the
    perturbations of different stretches are independent. `stretch` runs one stretch, for
    those who want to change the weights between stretches, as the paper does.

    Args:
        sigma: standard deviation of the perturbations, in units of the weights.
        pairs: antithetic pairs for each task.

    Raises:
        ValueError: ``sigma`` is not above 0 or ``pairs`` not a whole number of at least 1.
    """

    name = "pes"

    def __init__(self, sigma: float = 0.02, pairs: int = 1) -> None:
        check_strategy("PersistentES", sigma, pairs)
        self.sigma, self.pairs = sigma, pairs

    def begin(self, denoiser: WienerDenoiser, episode: Episode, engine: Engine) -> Particles:
        """Pairs of inner loops before their first step."""
        met = {name: p.new_zeros(len(episode), *p.shape) for name, p in denoiser.named_parameters()}
        return Particles(0, [engine.start(episode, denoiser) for _ in range(2)], met)

    @torch.no_grad()
    def stretch(
        self,
        denoiser: WienerDenoiser,
        episode: Episode,
        loss: MetaLoss,
        particles: Particles,
        *,
        until: int,
        engine: Engine,
        each: Sequence[torch.Generator],
    ) -> TaskGradients:
        """Go on to a number of steps done; the estimate from the losses on the way.

        ``particles`` is changed in place; ``each`` is a generator for each task.
        `TaskGradients.final` is the last loss taken on the way, NaN where none was.
        """
        noise = draw(denoiser, self.sigma, each)
        particles.met = {k: particles.met[k] + v for k, v in noise.items()}
        shares, losses, final = loss.shares(episode.steps), [], []
        for i, weights in enumerate(antithetic(denoiser, noise)):
            state = particles.states[i]
            collected = episode.initial.new_zeros(len(episode))
            held_out = torch.full_like(collected, torch.nan)
            for step in range(particles.step + 1, until + 1):
                state = engine.advance(episode, weights, state, graph=False)
                if step in shares:
                    held_out = engine.held_out_losses(episode, state)
                    collected = collected + shares[step] * loss(held_out, episode.tasks.classes)
            particles.states[i] = state
            losses.append(collected)
            final.append(held_out)
        particles.step = until
        return TaskGradients(
            differences(particles.met, losses[0] - losses[1], self.sigma),
            (losses[0] + losses[1]) / 2,
            (final[0] + final[1]) / 2,
        )

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
        """The estimate for each task; see `Estimator`."""
        check_cuts(cuts, episode.steps)
        each = generators(episode, seed)
        total = []
        for _ in range(self.pairs):
            particles = self.begin(denoiser, episode, engine)
            parts = [
                self.stretch(
                    denoiser,
                    episode,
                    loss,
                    particles,
                    until=end,
                    engine=engine,
                    each=each,
                )
                for end in cuts
            ]
            gradients = {
                k: torch.stack([p.gradients[k] for p in parts]).sum(0) for k in parts[0].gradients
            }
            losses = torch.stack([p.losses for p in parts]).sum(0)
            total.append(TaskGradients(gradients, losses, parts[-1].final))
        return average(total)
