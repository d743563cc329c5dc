"""Row contributions of `denograd.models.layers.Choice`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from denograd.models.layers import Choice
from denograd.noise._rows import RowGradients
from denograd.noise._rules import register_noise_rule


class ChoiceRows(RowGradients):
    """``c_i[k] = d_ik J_k x_i``, with ``J_k`` the Jacobian of the shares by the weights.

    Softmax, sparsemax and entmax all have ``J = diag(s) - s s^T / sum(s)``, where ``s`` is
    the share to the power ``2 - alpha`` on the support, and 0 off it: the share itself, 1,
    and its root (Peters et al. 2019, arXiv 1905.05702, proposition 2).

    Args:
        gradient: ``d``, ``(B, K)``.
        inputs: ``x``, ``(B, F)``.
        slope: ``s``, ``(K, F)``.
    """

    def __init__(self, gradient: Tensor, inputs: Tensor, slope: Tensor) -> None:
        super().__init__(gradient.shape[0])
        self.gradient, self.inputs, self.slope = gradient, inputs, slope

    def dense(self, rows: slice) -> Tensor:
        """The contributions, ``(len(rows), K, F)``."""
        x = self.inputs[rows]
        mean = (x @ self.slope.T / self.slope.sum(-1)).unsqueeze(-1)
        return self.gradient[rows].unsqueeze(-1) * self.slope * (x.unsqueeze(1) - mean)


def choice_rows(
    module: Choice, inputs: tuple[Any, ...], output_gradient: Tensor
) -> Mapping[str, RowGradients]:
    """Each row's own gradient of the shares, carried back to the weights.

    Args:
        module: the layer.
        inputs: ``x``, ``(B, F)``, and the mask of real features or None.
        output_gradient: ``d``, ``(B, K)``.
    """
    x = inputs[0]
    shares = module.shares(*inputs[1:]).to(x.dtype)
    if module.normalize == "softmax":
        slope = shares
    elif module.normalize == "sparsemax":
        slope = (shares > 0).to(shares.dtype)
    else:
        slope = torch.sqrt(shares)
    return {"weight": ChoiceRows(output_gradient, x, slope)}


register_noise_rule(Choice, choice_rows)
