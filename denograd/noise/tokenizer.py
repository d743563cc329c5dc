"""Row contributions of `denograd.models.FeatureTokenizer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from denograd.models import FeatureTokenizer
from denograd.noise._rows import Dense, RowGradients
from denograd.noise._rules import register_noise_rule


def tokenizer_rows(
    module: FeatureTokenizer, inputs: tuple[Any, ...], output_gradient: Tensor
) -> Mapping[str, RowGradients]:
    """``c_i = d_i * x_i`` for weights and ``d_i`` for biases.

    Args:
        module: the layer.
        inputs: ``x``, ``(B, F)``.
        output_gradient: ``d``, ``(B, F, width)``.
    """
    if output_gradient.dim() != 3:
        return {}
    return {
        "weight": Dense(output_gradient * inputs[0].unsqueeze(-1)),
        "bias": Dense(output_gradient),
    }


register_noise_rule(FeatureTokenizer, tokenizer_rows)
