"""Sequences as rows, with padding where values are missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from denograd.data.encoder import CLIP
from denograd.estimators._features import check_range
from denograd.models import TemporalAttention


class SequenceEncoder:
    """Standardises each channel over all rows and steps.

    A step at which every channel is missing is padding and stays NaN, which
    `PaddedTemporalAttention` leaves out. Where some channels are missing, they get their mean.

    Args:
        frame: training rows, ``channels * steps`` columns of numbers, channel by channel.
        columns: their names.
        n_channels: number of channels.

    Raises:
        ValueError: the columns are not a multiple of the channels, one holds no numbers, or
            no value is present.

    Example:
        >>> frame = pd.DataFrame([[1.0, 3.0, np.nan], [5.0, 3.0, 3.0]])
        >>> SequenceEncoder(frame, ["a", "b", "c"], n_channels=1).transform(frame).round(2)
        array([[-1.58,  0.  ,   nan],
               [ 1.58,  0.  ,  0.  ]], dtype=float32)
    """

    def __init__(self, frame: pd.DataFrame, columns: Sequence[str], n_channels: int) -> None:
        self.columns, self.n_channels = list(columns), n_channels
        if len(columns) % n_channels:
            raise ValueError(
                f"n_channels={n_channels} does not divide the {len(columns)} columns of X; rows "
                "are channels times steps, channel by channel"
            )
        values = self._channels(frame)
        if not np.isfinite(values).any():
            raise ValueError("X holds no value that is not missing")
        check_range(values, "X holds")
        empty = np.isnan(values).all(axis=(0, 2), keepdims=True)
        present = np.where(empty, 0.0, values)
        mean, spread = np.nanmean(present, axis=(0, 2)), np.nanstd(present, axis=(0, 2))
        spread[spread <= 1e-12 * np.maximum(np.abs(mean), 1e-300)] = 1.0
        steps = len(columns) // n_channels
        self.names = list(columns)
        self.sources = np.arange(len(columns), dtype=np.int64)
        self.center, self.scale = mean.repeat(steps), spread.repeat(steps)
        self.binary = np.zeros(len(columns), dtype=bool)
        self.notes: dict[int, str] = {}
        self.stand_ins = dict(enumerate(self.center.tolist()))

    def transform(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """Rows as numbers, ``(rows, channels * steps)``; NaN where a step is padding."""
        values = self._channels(frame)
        padding = np.isnan(values).all(axis=1, keepdims=True)
        values = np.clip(values, -1e100, 1e100)
        flat = (values.reshape(len(frame), -1) - self.center) / self.scale
        cut = np.nan_to_num(np.clip(flat, -CLIP, CLIP)).reshape(values.shape)
        result: NDArray[np.float32] = np.where(padding, np.nan, cut).astype(np.float32)
        return result.reshape(len(frame), -1)

    def _channels(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """``(rows, channels, steps)``."""
        try:
            values = frame.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"X must hold numbers, a column a step of a channel: {error}"
            ) from error
        if np.isinf(values).any():
            raise ValueError("Input X contains infinity; use NaN for missing values and padding")
        return values.reshape(len(frame), self.n_channels, -1)


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
