"""Attention over the steps of sequences that are padded."""

from __future__ import annotations

import torch
from torch import Tensor

from denograd.models import TemporalAttention


class PaddedTemporalAttention(TemporalAttention):
    """`TemporalAttention` that takes steps of NaN for padding."""

    def _padded(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        rows = self._check_sequences(x)
        real = ~rows.isnan().any(1)
        return rows.nan_to_num(), None if bool(real.all()) else real

    def forward(
        self,
        x: Tensor,
        feature_mask: Tensor | None = None,
        class_mask: Tensor | None = None,
        step_mask: Tensor | None = None,
    ) -> Tensor:
        """As in `TemporalAttention`; ``step_mask`` overrides what NaN says."""
        rows, found = self._padded(x)
        mask = found if step_mask is None else step_mask
        return super().forward(rows, feature_mask, class_mask, mask)

    def attention(self, x: Tensor, step_mask: Tensor | None = None) -> Tensor:
        """As in `TemporalAttention`; ``step_mask`` overrides what NaN says."""
        rows, found = self._padded(x)
        return super().attention(rows, found if step_mask is None else step_mask)

    @torch.no_grad()
    def feature_importance(self, x: Tensor, step_mask: Tensor | None = None) -> Tensor:
        """As in `TemporalAttention`; ``step_mask`` overrides what NaN says."""
        rows, found = self._padded(x)
        return super().feature_importance(rows, found if step_mask is None else step_mask)
