"""Row contributions of `torch.nn.Linear`, for inputs of any rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from denograd.noise._rows import Dense, Outer, RowGradients
from denograd.noise._rules import register_noise_rule


def linear_rows(
    module: nn.Linear, inputs: tuple[Any, ...], output_gradient: Tensor
) -> Mapping[str, RowGradients]:
    """``c_i = sum_p d_ip a_ip^T`` for weights and ``sum_p d_ip`` for biases.

    Args:
        module: the layer.
        inputs: ``a``, ``(B, ..., I)``.
        output_gradient: ``d``, ``(B, ..., O)``.

    Returns:
        the contributions; none for a single vector, which has no batch.
    """
    activation = inputs[0]
    if activation.dim() < 2:
        return {}
    left = output_gradient.reshape(activation.shape[0], -1, module.out_features)
    right = activation.reshape(activation.shape[0], -1, module.in_features)
    return {"weight": Outer(left, right), "bias": Dense(left.sum(1))}


register_noise_rule(nn.Linear, linear_rows)
