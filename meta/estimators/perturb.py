"""Perturbed weights, for estimators that compare runs and differentiate nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from denograd.denoisers import WienerDenoiser
from denograd.meta.episode import Episode
from denograd.meta.weights import TaskWeights


def check_strategy(owner: str, sigma: float, pairs: int) -> None:
    """Raise a `ValueError` that names what cannot be used."""
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"{owner}: sigma={sigma!r}; it must be a number above 0")
    if isinstance(pairs, bool) or not isinstance(pairs, int) or pairs < 1:
        raise ValueError(f"{owner}: pairs={pairs!r}; it must be a whole number of at least 1")


def generators(episode: Episode, seed: int) -> list[torch.Generator]:
    """One for each task, which depends on the task's number and not on who runs it."""
    numbers = range(episode.offset, episode.offset + len(episode))
    states = [np.random.SeedSequence([seed, number]).generate_state(1) for number in numbers]
    return [torch.Generator().manual_seed(int(state[0])) for state in states]


def draw(
    denoiser: WienerDenoiser, sigma: float, each: Sequence[torch.Generator]
) -> dict[str, Tensor]:
    """Gaussian perturbations of each weight for each task, ``(T, *shape)``.

    Drawn on the host, so that a seed means the same on every device.
    """
    drawn: dict[str, list[Tensor]] = {name: [] for name, _ in denoiser.named_parameters()}
    for generator in each:
        for name, p in denoiser.named_parameters():
            drawn[name].append(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return {
        name: (sigma * torch.stack(drawn[name])).to(p.device)
        for name, p in denoiser.named_parameters()
    }


def antithetic(
    denoiser: WienerDenoiser, noise: Mapping[str, Tensor]
) -> tuple[TaskWeights, TaskWeights]:
    """The weights perturbed one way, and the other way."""
    weights = dict(denoiser.named_parameters())
    return (
        TaskWeights(denoiser, {k: weights[k].detach() + e for k, e in noise.items()}),
        TaskWeights(denoiser, {k: weights[k].detach() - e for k, e in noise.items()}),
    )


def differences(noise: Mapping[str, Tensor], difference: Tensor, sigma: float) -> dict[str, Tensor]:
    """``noise * difference / (2 sigma^2)`` for each task; ``difference`` is ``(T,)``."""
    scale = difference / (2 * sigma**2)
    return {k: e * scale.reshape(-1, *[1] * (e.dim() - 1)).to(e.dtype) for k, e in noise.items()}
