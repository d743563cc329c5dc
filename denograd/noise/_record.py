"""What the backward calls since the last reset of ``p.grad`` told of one parameter."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

UNEXPLAINED = 0.1
"""Largest part of the noise's standard deviation that may go unexplained."""

CANCELLED = 1e-5
"""Rounding that is left of a sum that cancels, relative to what was summed."""


def tolerance(squares: Tensor, floor: Tensor) -> Tensor:
    """Largest ``|p.grad - sum c|^2`` that counts as none, besides relative rounding.

    Args:
        squares: ``(...)``, sum of ``sum c^2`` over the elements.
        floor: ``(...)``, squared rounding error of sums that cancel.
    """
    return UNEXPLAINED**2 * squares + floor


class GradientRecord:
    """Sums over contributions ``c`` to one gradient.

    The contributions are those of rows where rules told them, else those of whole backward
    calls. Both estimate the same variance, rows with more degrees of freedom.

    Args:
        valid: 0-dim boolean tensor, False where the gradient held something unknown before
            the first backward call; None for no doubt.

    Attributes:
        rows: rows seen in backward calls that rules cover, each counted once.
        calls: backward calls that no rule covers.
        squares: ``sum c^2``, of the parameter's shape; None before there is any.
        total: ``sum c``.
        floor: 0-dim, squared error that rounding may leave in ``total``; None for none.
        rounding: relative error of the gradient's precision.
    """

    def __init__(self, valid: Tensor | None = None) -> None:
        self.valid = valid
        self.rows = self.calls = 0
        self._passes: set[int] = set()
        self.squares: Tensor | None = None
        self.total: Tensor | None = None
        self.floor: Tensor | None = None
        self.rounding = 1e-3

    @property
    def count(self) -> int:
        """Number of contributions; fewer than 2 tell nothing, nor does a mixture."""
        return 0 if self.rows and self.calls else max(self.rows, self.calls)

    def add_rows(
        self,
        moments: tuple[Tensor, Tensor],
        rows: int,
        energy: Tensor,
        epsilon: float,
        gradient: Tensor,
        passes: Collection[int] = (),
    ) -> None:
        """Take in one backward call that rules cover.

        A second one through the same forward pass adds to the contributions of rows that were
        told already. They have been summed by then, so what they are now is not known.

        Args:
            moments: ``sum_i c_i^2`` and ``sum_i c_i`` of this call.
            rows: rows of this call.
            energy: 0-dim, sum of the squared output gradients that went into the sums.
            epsilon: precision in which the gradient was computed.
            gradient: ``p.grad`` after this call.
            passes: numbers of the forward passes that used the parameter.
        """
        if not self._passes.isdisjoint(passes):
            self.valid = torch.zeros((), dtype=torch.bool, device=gradient.device)
            return
        self._passes.update(passes)
        floor = energy * CANCELLED**2
        if self.squares is None or self.total is None or self.floor is None:
            (self.squares, self.total), self.floor = moments, floor
        else:
            self.squares, self.total = self.squares + moments[0], self.total + moments[1]
            self.floor = self.floor + floor
        self.rows += rows
        self.rounding = max(self.rounding, 8 * epsilon)
        # A use of the parameter that no rule saw (a functional call, a penalty in the
        # loss, a second derivative) shows as a gradient that the rows don't add up to.
        gradient = gradient.to(self.total.dtype)
        gap = (gradient - self.total).square().sum()
        bound = tolerance(self.squares.sum(), self.floor)
        agrees = gap <= bound + self.rounding**2 * gradient.square().sum()
        self.valid = agrees if self.valid is None else self.valid & agrees

    def add_call(self, contribution: Tensor | None) -> None:
        """Take in one backward call that no rule covers.

        Args:
            contribution: what the call added to ``p.grad``; None for the first call, whose
                contribution is ``p.grad`` itself and is read only if a second call comes
                (`begin_calls`).
        """
        self.calls += 1
        if contribution is not None and self.squares is not None and self.total is not None:
            contribution = contribution.to(self.total.dtype)
            self.squares = self.squares + contribution.square()
            self.total = self.total + contribution

    def begin_calls(self, gradient: Tensor) -> None:
        """Read the first call's contribution, just before the second one is added."""
        self.total = gradient.to(torch.promote_types(gradient.dtype, torch.float32), copy=True)
        self.squares = self.total.square()
