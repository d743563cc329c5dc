"""How far hidden features are from white: group-wise ZCA (Huang et al. 2018, 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from denograd.penalties._base import Scaler
from denograd.penalties._statistics import correlations, nothing
from denograd.penalties.features import FeaturePenalty


def whitening_distance(
    x: Tensor, group_size: int = 16, shrinkage: float = 0.1, iterations: int | None = None
) -> Tensor:
    """Mean squared distance between standardised features and their ZCA-whitened selves.

    With ``z`` the standardised features of a group and ``R`` their correlations, ZCA
    whitening is ``z R^(-1/2)`` (Huang et al. 2018, "Decorrelated Batch Normalization", arXiv
    1804.08450, which also whitens group by group; here after standardising, so
    that only correlation counts). Of all whitenings it is the nearest to ``z``, and the
    distance is 0 if and only if no two features of a group are correlated. ``R`` is shrunk
    towards the identity first, ``(1 - s) R + s I``, so that fewer rows than features will
    do. The distance is a function of the eigenvalues ``l`` of ``R`` alone, ``sum l (((1 - s)
    l + s)^(-1/2) - 1)^2``, whose gradient is finite where eigenvalues coincide too.

    With ``iterations`` the root comes from Newton-Schulz steps ``P <- (3 P - P^3 S) / 2``
    on ``S = R / tr R`` (Huang et al. 2019, "Iterative Normalization: Beyond Standardization
    towards Efficient Whitening", arXiv 1904.03441, algorithm 1), which needs no eigenvalues.
    The same steps are taken in their coupled form (Higham 2008, "Functions of Matrices",
    equation 6.35), where rounding errors die out instead of growing. With 12 it agrees with
    the exact root to 1e-4 for the default group and shrinkage; the paper's 5 whiten less.

    Args:
        x: rows of features, ``(N, d)``.
        group_size: most features of a group; neighbours make a group.
        shrinkage: ``s``, above 0 and below 1.
        iterations: Newton-Schulz steps; None for eigenvalues, which wait for a GPU.

    Returns:
        0-dim, the mean over features.

    Example:
        >>> x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> bool(whitening_distance(x) < 1e-12), bool(whitening_distance(x[:, [0, 0]]) > 0.05)
        (True, True)
    """
    width = x.shape[1]
    if x.shape[0] < 2 or width < 2:
        return nothing(x)
    whole = width - width % group_size
    total = nothing(x)
    for part, size in ((x[:, :whole], group_size), (x[:, whole:], width - whole)):
        if part.shape[1]:
            groups = part.unflatten(1, (-1, size)).transpose(0, 1)
            total = total + _distances(correlations(groups), shrinkage, iterations)
    return total / width


def _distances(correlation: Tensor, shrinkage: float, iterations: int | None) -> Tensor:
    """Sum over groups and features, from correlations ``(G, k, k)``."""
    identity = torch.eye(correlation.shape[-1], dtype=correlation.dtype, device=correlation.device)
    if iterations is None:
        # The eigenvalues of what is not finite are an error; the answer should be NaN.
        fine = correlation.isfinite().all()
        spectrum = torch.linalg.eigvalsh(torch.where(fine, correlation, identity))
        root = ((1 - shrinkage) * spectrum + shrinkage).rsqrt()
        distance: Tensor = (spectrum * (root - 1).square()).sum()
        return distance * torch.where(fine, 1.0, float("nan"))
    shrunk = (1 - shrinkage) * correlation + shrinkage * identity
    trace = shrunk.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    root, inverse_root = shrunk / trace, identity.expand_as(shrunk)
    for _ in range(iterations):
        step = (3 * identity - inverse_root @ root) / 2
        root, inverse_root = root @ step, step @ inverse_root
    change = inverse_root * trace.rsqrt() - identity
    return ((change @ correlation) * change).sum()


class Whitening(FeaturePenalty):
    """Keep hidden features near their ZCA-whitened selves, group by group.

    Args:
        weight: factor of the penalty in the loss, at least 0.
        modules: modules, or their names, whose outputs are hidden features; None to pick
            (`FeaturePenalty`).
        group_size: most features of a group.
        shrinkage: of the correlations towards the identity, above 0 and below 1.
        iterations: Newton-Schulz steps; None for eigenvalues (`whitening_distance`).
        dim: dimension of the features; None to tell by the module and the shape.
        scaler: the `torch.amp.GradScaler` that scales the loss, if one does.

    Raises:
        ValueError: the weight is below 0 or not finite, a size is not a whole number of at
            least 1 (2 for ``group_size``), or ``shrinkage`` is out of its range.

    Example:
        >>> Whitening(weight=0.1, group_size=8)
        <Whitening(weight=0.1, group_size=8, shrinkage=0.1, iterations=None)>
    """

    def __init__(
        self,
        weight: float,
        modules: Sequence[str | nn.Module] | None = None,
        *,
        group_size: int = 16,
        shrinkage: float = 0.1,
        iterations: int | None = None,
        dim: int | None = None,
        scaler: Scaler | None = None,
    ) -> None:
        super().__init__(weight, modules, dim=dim, scaler=scaler)
        for name, size, least in (("group_size", group_size, 2), ("iterations", iterations, 1)):
            if size is None and name == "iterations":
                continue
            if isinstance(size, bool) or not isinstance(size, int) or size < least:
                raise ValueError(
                    f"Whitening: {name}={size!r}; it must be a whole number of at least {least}"
                )
        number = isinstance(shrinkage, (int, float)) and not isinstance(shrinkage, bool)
        if not number or not 0 < shrinkage < 1:
            raise ValueError(
                f"Whitening: shrinkage={shrinkage!r}; it must be a number above 0 and below 1"
            )
        self.group_size, self.shrinkage, self.iterations = group_size, shrinkage, iterations

    def features_penalty(self, x: Tensor) -> Tensor:
        """`whitening_distance` with this penalty's settings."""
        return whitening_distance(x, self.group_size, self.shrinkage, self.iterations)

    def form(self) -> str:
        """What the penalty is, in words."""
        return f"ZCA whitening distance, groups of {self.group_size},"

    def _options(self) -> dict[str, Any]:
        return {
            "group_size": self.group_size,
            "shrinkage": self.shrinkage,
            "iterations": self.iterations,
        }
