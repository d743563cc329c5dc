"""The meta-gradient by evolution strategies: perturb, run to the end, compare."""

from __future__ import annotations

import torch

from denograd.denoisers import WienerDenoiser
from denograd.meta.engines import Engine
from denograd.meta.episode import Episode
from denograd.meta.estimators._base import MetaLoss, TaskGradients, check_cuts
from denograd.meta.estimators.perturb import (
    antithetic,
    check_strategy,
    differences,
    draw,
    generators,
)


class EvolutionStrategies:
    """Antithetic evolution strategies over whole unrolls.

    Estimates the gradient of the meta-loss smoothed by a Gaussian of standard deviation
    ``sigma``, without bias and without differentiating the unroll (Salimans et al. 2017,
    arXiv 1703.03864, section 2; antithetic pairs: Nesterov and Spokoiny 2017)::

        g = mean over pairs of  e (L(theta + e) - L(theta - e)) / (2 sigma^2),  e ~ N(0, sigma^2)

    Every task gets perturbations of its own, so a batch of ``T`` tasks tries ``T * pairs``
    directions.

    Args:
        sigma: standard deviation of the perturbations, in units of the weights.
        pairs: antithetic pairs for each task.

    Raises:
        ValueError: ``sigma`` is not above 0 or ``pairs`` not a whole number of at least 1.
    """

    name = "es"

    def __init__(self, sigma: float = 0.02, pairs: int = 1) -> None:
        check_strategy("EvolutionStrategies", sigma, pairs)
        self.sigma, self.pairs = sigma, pairs

    @torch.no_grad()
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
        """The estimate for each task; see `Estimator`. The cuts make no difference."""
        check_cuts(cuts, episode.steps)
        each = generators(episode, seed)
        shares, total = loss.shares(episode.steps), []
        for _ in range(self.pairs):
            noise = draw(denoiser, self.sigma, each)
            losses, final = [], []
            for weights in antithetic(denoiser, noise):
                state = engine.start(episode, weights)
                collected = episode.initial.new_zeros(len(episode))
                for step in range(1, episode.steps + 1):
                    state = engine.advance(episode, weights, state, graph=False)
                    if step in shares:
                        held_out = engine.held_out_losses(episode, state)
                        collected += shares[step] * loss(held_out, episode.tasks.classes)
                losses.append(collected)
                final.append(held_out)
            gradients = differences(noise, losses[0] - losses[1], self.sigma)
            total.append(
                TaskGradients(gradients, (losses[0] + losses[1]) / 2, (final[0] + final[1]) / 2)
            )
        return average(total)


def average(parts: list[TaskGradients]) -> TaskGradients:
    """The mean of several estimates for the same tasks."""
    return TaskGradients(
        {k: torch.stack([p.gradients[k] for p in parts]).mean(0) for k in parts[0].gradients},
        torch.stack([p.losses for p in parts]).mean(0),
        torch.stack([p.final for p in parts]).mean(0),
    )
