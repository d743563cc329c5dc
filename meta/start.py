"""Weights to begin meta-training with, from a denoiser that need not read the same."""

from __future__ import annotations

from torch import Tensor

from denograd.denoisers import WienerDenoiser
from denograd.denoisers.wiener import COEFFICIENTS


def start(denoiser: WienerDenoiser, source: WienerDenoiser) -> None:
    """Give a denoiser the weights of another, so that it does about the same.

    A feature that only the new one reads has weights of 0. Where the new one's decay reaches
    further, its largest values stay about where they were.

    Args:
        denoiser: its weights are replaced.
        source: of the same width, and pooled as the new one is.

    Raises:
        ValueError: the widths differ, one is pooled and the other not, or the source reads a
            feature that the new one does not.

    Example:
        >>> import torch
        >>> old = WienerDenoiser(hidden=4, features=["phase"])
        >>> new = WienerDenoiser(hidden=4)
        >>> start(new, old)
        >>> x = torch.randn(2, len(new.feature_names))
        >>> seen = x[:, [new.feature_names.index("phase")]]
        >>> torch.allclose(new.coefficients(x), old.coefficients(seen))
        True
    """
    lost = [name for name in source.feature_names if name not in denoiser.feature_names]
    if lost or (source.hidden, source.pooled) != (denoiser.hidden, denoiser.pooled):
        raise ValueError(
            f"start: the source has hidden={source.hidden}, pooled={source.pooled} and the "
            f"denoiser hidden={denoiser.hidden}, pooled={denoiser.pooled}; the features {lost} "
            "would be lost; meta-train a denoiser of the same kind"
        )
    weights = dict(source.state_dict())
    weights["first.weight"] = _widened(weights["first.weight"], denoiser, source)
    for name in ("last.weight", "last.bias"):
        weights[name] = weights[name].clone()
        # At the source's largest values its tanh is near 1; the square keeps them in reach.
        weights[name][COEFFICIENTS.index("decay")] *= (
            source.decay_range / denoiser.decay_range
        ) ** 2
    denoiser.load_state_dict(weights)


def _widened(weight: Tensor, denoiser: WienerDenoiser, source: WienerDenoiser) -> Tensor:
    """The first layer's weights ``(hidden, inputs)``, with columns of 0 for new features."""
    halves, hidden = 2 if source.pooled else 1, len(weight)
    wide = weight.new_zeros(hidden, halves, len(denoiser.feature_names))
    places = [denoiser.feature_names.index(name) for name in source.feature_names]
    wide[:, :, places] = weight.reshape(hidden, halves, len(source.feature_names))
    return wide.flatten(1)
