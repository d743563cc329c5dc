"""Perturbed weights, for estimators that compare runs and differentiate nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from denograd.denoisers import WienerDenoiser
from denograd.meta.weights import TaskWeights


def check_strategy(owner: str, sigma: float, pairs: int) -> None:
    """Raise a `ValueError` that names what cannot be used."""
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"{owner}: sigma={sigma!r}; it must be a number above 0")
    if isinstance(pairs, bool) or not isinstance(pairs, int) or pairs < 1:
        raise ValueError(f"{owner}: pairs={pairs!r}; it must be a whole number of at least 1")


def draw(
    denoiser: WienerDenoiser, tasks: int, sigma: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Gaussian perturbations of each weight for each task, ``(T, *shape)``.

    Drawn on the host, so that a seed means the same on every device.
    """
    return {
        name: (sigma * torch.randn(tasks, *p.shape, generator=generator, dtype=p.dtype)).to(
            p.device
        )
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
