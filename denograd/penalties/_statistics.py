"""Correlations whose values and gradients stay finite whatever the columns hold."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDING = 64
"""Columns that vary by less than so many roundings of their largest value are constant."""


def nothing(x: Tensor) -> Tensor:
    """A zero that depends on ``x``, with a gradient of zero."""
    return x.flatten()[:0].sum()


def standardized(x: Tensor) -> Tensor:
    """Columns with mean 0 and variance 1 over the rows; constant columns become zeros.

    The variance divides by ``N``. A column that does not vary by more than rounding has no
    correlation with anything, and its gradient is zero.

    Args:
        x: ``(..., N, d)``, columns in the last dimension.

    Example:
        >>> standardized(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        tensor([[-1.,  0.],
                [ 1.,  0.]])
    """
    if x.shape[-2] == 0:
        return x
    centred = x - x.mean(-2, keepdim=True)
    # Correlation knows no scale: divided by a constant first, no square can overflow.
    size = centred.detach().abs().amax(-2, keepdim=True)
    rounding = ROUNDING * torch.finfo(x.dtype).eps * x.detach().abs().amax(-2, keepdim=True)
    constant = size <= rounding
    unit = centred / torch.where(constant, 1.0, size)
    variance = unit.square().mean(-2, keepdim=True)
    return torch.where(constant, 0.0, unit * torch.where(constant, 1.0, variance).rsqrt())


def correlations(x: Tensor) -> Tensor:
    """Correlation of each column with each, ``(..., N, d)`` to ``(..., d, d)``.

    Rows and columns of constant columns are zeros, the diagonal too.
    """
    z = standardized(x)
    return z.mT @ z / max(1, z.shape[-2])


def off_diagonal(square: Tensor) -> Tensor:
    """The matrix with zeros on its diagonal, ``(..., d, d)``."""
    diagonal = torch.eye(square.shape[-1], dtype=torch.bool, device=square.device)
    return square.masked_fill(diagonal, 0.0)


def weighted_square_correlation(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Squared correlation of ``x`` and ``y`` over rows that count by ``weight``.

    Args:
        x: ``(N, ...)``.
        y: ``(N, ...)``.
        weight: ``(N, ...)``, at least 0.

    Returns:
        ``(...)``; 0 where one of the two is constant, or no row counts.

    Example:
        >>> x, y = torch.tensor([0.0, 1.0, 9.0]), torch.tensor([2.0, 1.0, 9.0])
        >>> weighted_square_correlation(x, y, torch.tensor([1.0, 1.0, 0.0]))
        tensor(1.)
    """
    total = weight.sum(0)
    empty = total <= torch.finfo(total.dtype).tiny
    share = weight / torch.where(empty, 1.0, total)
    columns = []
    constant = empty
    for column in (x, y):
        centred = column - (share * column).sum(0)
        deviation = (share * centred.square()).sum(0).detach().sqrt()
        rounding = ROUNDING * torch.finfo(x.dtype).eps * column.detach().abs().amax(0)
        constant = constant | (deviation <= rounding)
        columns.append((centred, deviation))
    first, second = (c / torch.where(constant, 1.0, d) for c, d in columns)
    covariance = (share * first * second).sum(0)
    variances = (share * first.square()).sum(0) * (share * second.square()).sum(0)
    found = covariance.square() / torch.where(constant, 1.0, variances)
    return torch.where(constant, 0.0, found)
