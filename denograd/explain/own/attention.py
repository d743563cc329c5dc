"""Attention weights."""

from __future__ import annotations

from torch import Tensor

from denograd.explain.own._dispatch import own_attributions
from denograd.models import FeatureAttention


@own_attributions.register
def attention_weights(
    model: FeatureAttention, x: Tensor, target: Tensor | None, baseline: Tensor
) -> Tensor:
    """The mean of the heads' weights, ``(n, F)``: at least 0, rows sum to 1.

    They say where the model looked, for whatever class, and not in which direction it was moved.
    """
    return model.attention(x).mean(dim=1)
