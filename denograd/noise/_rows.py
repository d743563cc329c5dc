"""What each row of a batch contributed to the gradient of one parameter.

The gradient of a batch is a sum over its rows, ``g = sum_i c_i``. The variance needs
``sum_i c_i^2``, which some layers can give without ever building the ``c_i``: for a
linear layer it is ``(d^2)^T (a^2)`` (Goodfellow 2015, "Efficient Per-Example Gradient
Computations", arXiv 1510.01799; the second moment of BackPACK, Dangel et al. 2020).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

CHUNK = 2**22
"""Most elements of row contributions that are held at once."""


class RowGradients(ABC):
    """Contributions ``c_i`` of ``B`` rows to the gradient of a parameter.

    Args:
        rows: ``B``.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    @abstractmethod
    def dense(self, rows: slice) -> Tensor:
        """The contributions of some rows, ``(len(rows), *parameter.shape)``."""

    def moments(self) -> tuple[Tensor, Tensor]:
        """``sum_i c_i^2`` and ``sum_i c_i``, each of the parameter's shape."""
        return _chunked_moments([self])


class Dense(RowGradients):
    """Contributions that are already there.

    Args:
        values: ``(B, *parameter.shape)``.

    Example:
        >>> import torch
        >>> squares, total = Dense(torch.tensor([[1.0, 2.0], [3.0, -2.0]])).moments()
        >>> squares, total
        (tensor([10.,  8.]), tensor([4., 0.]))
    """

    def __init__(self, values: Tensor) -> None:
        super().__init__(values.shape[0])
        self.values = values

    def dense(self, rows: slice) -> Tensor:
        """A slice of the values."""
        return self.values[rows]

    def moments(self) -> tuple[Tensor, Tensor]:
        """Sums over dimension 0."""
        return self.values.square().sum(0), self.values.sum(0)


class Outer(RowGradients):
    """Sums of outer products: ``c_i = sum_p left_ip right_ip^T``.

    Args:
        left: ``(B, P, O)``, one vector a row and position.
        right: ``(B, P, I)``.

    Example:
        >>> import torch
        >>> left, right = torch.tensor([[[2.0]], [[1.0]]]), torch.tensor([[[3.0]], [[-1.0]]])
        >>> Outer(left, right).moments()
        (tensor([[37.]]), tensor([[5.]]))
    """

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__(left.shape[0])
        self.left, self.right = left, right

    def dense(self, rows: slice) -> Tensor:
        """The products, ``(len(rows), O, I)``."""
        return self.left[rows].mT @ self.right[rows]

    def moments(self) -> tuple[Tensor, Tensor]:
        """Without building the products where there is one position a row."""
        if self.left.shape[1] != 1:
            return super().moments()
        left, right = self.left[:, 0], self.right[:, 0]
        return left.square().T @ right.square(), left.T @ right


def moments_of(calls: Sequence[RowGradients]) -> tuple[Tensor, Tensor] | None:
    """``sum_i c_i^2`` and ``sum_i c_i`` where several uses add up to ``c_i``.

    A parameter that is used more than once in a forward pass (a module called twice, tied
    weights) gets one contribution a use; they belong to the same row, so they are added
    before they are squared.

    Returns:
        the two sums, or None if the uses disagree on the number of rows.
    """
    if len(calls) == 1:
        return calls[0].moments()
    if len({call.rows for call in calls}) > 1:
        return None
    return _chunked_moments(calls)


def _chunked_moments(calls: Sequence[RowGradients]) -> tuple[Tensor, Tensor]:
    first = _added(calls, slice(0, 1))
    squares, total = first.square().sum(0), first.sum(0)
    step = max(1, CHUNK // max(1, total.numel()))
    for start in range(1, calls[0].rows, step):
        part = _added(calls, slice(start, start + step))
        squares, total = squares + part.square().sum(0), total + part.sum(0)
    return squares, total


def _added(calls: Sequence[RowGradients], rows: slice) -> Tensor:
    part = calls[0].dense(rows)
    for call in calls[1:]:
        part = part + call.dense(rows)
    return part
