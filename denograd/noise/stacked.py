"""Row contributions of `denograd.models.layers.StackedLinear`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from denograd.models.layers import StackedLinear
from denograd.noise._rows import Dense, RowGradients
from denograd.noise._rules import register_noise_rule


class StackedOuter(RowGradients):
    """One outer product a group: ``c_i[g] = right_ig left_ig^T``.

    Args:
        left: gradients of the outputs, ``(B, G, O)``.
        right: inputs, ``(B, G, I)``.
    """

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__(left.shape[0])
        self.left, self.right = left, right

    def dense(self, rows: slice) -> Tensor:
        """The products, ``(len(rows), G, I, O)``."""
        return self.right[rows].unsqueeze(-1) * self.left[rows].unsqueeze(-2)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Without building the products: a square of a product is a product of squares."""
        formula = "bgi,bgo->gio"
        squares = torch.einsum(formula, self.right.square(), self.left.square())
        return squares, torch.einsum(formula, self.right, self.left)


def stacked_rows(
    module: StackedLinear, inputs: tuple[Any, ...], output_gradient: Tensor
) -> Mapping[str, RowGradients]:
    """``c_i = a_ig d_ig^T`` for the weights of group ``g`` and ``d_ig`` for its biases.

    Args:
        module: the layer.
        inputs: ``a``, ``(B, G, I)``.
        output_gradient: ``d``, ``(B, G, O)``.
    """
    return {
        "weight": StackedOuter(output_gradient, inputs[0]),
        "bias": Dense(output_gradient),
    }


register_noise_rule(StackedLinear, stacked_rows)
