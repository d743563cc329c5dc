"""Attention weights of steps, handed to the numbers that the steps are made of."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from denograd.explain.own._dispatch import own_attributions
from denograd.models import TemporalAttention


@own_attributions.register
def step_weights(
    model: TemporalAttention, x: Tensor, target: Tensor | None, baseline: Tensor
) -> Tensor:
    """The mean of the heads' weights, ``(n, N * L)``: at least 0, rows sum to 1.

    A step's weight is shared among the ``kernel`` steps and the channels that its token was made
    of, by the magnitude of their weights in the convolution. Padding (NaN) has 0; a row that is
    nothing but padding has 0 everywhere.
    """
    rows = x.reshape(-1, model.n_channels, model.length)
    steps = model.attention(x).mean(dim=1, keepdim=True)
    kernel = model.embed.weight.abs().sum(0, keepdim=True)
    reached = F.conv_transpose1d(steps, kernel, padding=model.kernel // 2)
    reached = torch.where(rows.isnan().all(dim=1, keepdim=True), 0.0, reached).flatten(1)
    total = reached.sum(dim=1, keepdim=True)
    return reached / torch.where(total > 0, total, 1.0)
