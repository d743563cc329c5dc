"""Softmax and its sparse relatives, differentiable any number of times and under `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from entmax import entmax15, sparsemax
from torch import Tensor
from torch.nn import functional as F

Normalizer = Literal["softmax", "sparsemax", "entmax"]
"""How scores become weights that sum to 1."""

_SPARSE: dict[str, Callable[..., Tensor]] = {"sparsemax": sparsemax, "entmax": entmax15}


def check_normalizer(owner: str, normalize: str) -> Normalizer:
    """The name, or a `ValueError` if it is not known."""
    for name in get_args(Normalizer):
        if normalize == name:
            return name  # type: ignore[no-any-return]
    raise ValueError(
        f"{owner}: normalize={normalize!r}; use one of {', '.join(get_args(Normalizer))}"
    )


def normalized(scores: Tensor, normalize: Normalizer) -> Tensor:
    """Weights over the last dimension, at least 0, that sum to 1.

    ``softmax``; ``sparsemax`` (Martins and Astudillo 2016, arXiv 1602.02068, equation 1), the
    Euclidean projection onto the simplex; ``entmax`` (Peters et al. 2019, arXiv 1905.05702,
    equation 5 with alpha = 1.5), which lies between the two. The last two give weights of
    exactly 0.

    The `entmax` package says which weights are above 0. Given that set ``S``, the weights
    are a formula of plain operations, which any transformation of `torch.func` can take:
    ``s_j - (sum_S s - 1) / |S|`` for sparsemax; for entmax, with ``z = s / 2``,
    ``(z_j - t)^2`` where ``t = mean_S z - sqrt((1 - sum_S (z - mean_S z)^2) / |S|)``.

    Args:
        scores: ``(..., n)``.
        normalize: which of the three.

    Example:
        >>> scores = torch.tensor([2.0, 1.5, -1.0])
        >>> normalized(scores, "sparsemax"), normalized(scores, "entmax")
        (tensor([0.7500, 0.2500, 0.0000]), tensor([0.6740, 0.3260, 0.0000]))
    """
    if normalize == "softmax":
        return F.softmax(scores, dim=-1)
    support = _support(scores.detach(), normalize)
    count = support.sum(-1, keepdim=True).to(scores.dtype)
    # What is out of the support may be hugely negative: it must not enter the sums.
    inside = torch.where(support, scores - scores.detach().amax(-1, keepdim=True), 0.0)
    if normalize == "sparsemax":
        weights = inside - (inside.sum(-1, keepdim=True) - 1) / count
        return torch.where(support, weights, 0.0)
    inside = inside / 2
    mean = inside.sum(-1, keepdim=True) / count
    spread = torch.where(support, inside - mean, 0.0).square().sum(-1, keepdim=True)
    threshold = mean - ((1 - spread) / count).clamp_min(1e-12).sqrt()
    return torch.where(support, (inside - threshold).square(), 0.0)


class _Support(torch.autograd.Function):
    """Which weights are above 0; a constant to differentiation."""

    @staticmethod
    def forward(scores: Tensor, normalize: Normalizer) -> Tensor:
        # The package cannot sort NaN; what is computed from the scores is NaN there anyway.
        unknown = scores.isnan().any(-1, keepdim=True)
        return _SPARSE[normalize](torch.where(unknown, 0.0, scores), dim=-1) > 0

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], scores: Tensor, normalize: Normalizer
    ) -> tuple[Tensor, int]:
        # The package's own functions know no vmap; rows of a larger batch are all the same.
        return _support(scores.movedim(in_dims[0], 0), normalize), 0


def _support(scores: Tensor, normalize: Normalizer) -> Tensor:
    support: Tensor = _Support.apply(scores, normalize)  # type: ignore[no-untyped-call]
    return support
