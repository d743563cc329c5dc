"""Sequences as rows, with padding where values are missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from denograd.data.errors import TableError
from denograd.data.numbers import CLIP, LARGEST, check_range


def check_sequences(frame: pd.DataFrame, n_channels: int, where: str) -> None:
    """Raise a `TableError` if rows are no sequences of so many channels, all of one length.

    Args:
        frame: rows, a column a step of a channel.
        n_channels: number of channels, at least 1.
        where: the file or table, for messages.

    Example:
        >>> check_sequences(pd.DataFrame([[1.0, 2.0, 3.0]]), 2, "toy.csv")
        Traceback (most recent call last):
        ...
        denograd.data.errors.TableError: toy.csv: 2 channels do not divide the 3 columns; ...
    """
    if n_channels < 1 or frame.shape[1] % n_channels:
        raise TableError(
            f"{where}: {n_channels} channels do not divide the {frame.shape[1]} columns; rows are "
            "channels times steps, channel by channel, and every other column must go (the target "
            "and the group are none)"
        )
    odd = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    if odd:
        raise TableError(
            f"{where}: column {odd[0]!r} holds no numbers, so rows are no sequences; leave out the "
            "channels, or the column"
        )
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan).reshape(len(frame), n_channels, -1)
    if np.isinf(values).any():
        raise TableError(f"{where}: a column holds infinity; leave the cell empty if it is missing")
    try:
        check_range(values, f"{where}: it holds")
    except ValueError as error:
        raise TableError(str(error)) from None
    padded = int(np.isnan(values).all(axis=1).any(axis=1).sum())
    if padded:
        raise TableError(
            f"{where}: {padded} of {len(frame)} sequences have steps without a value in any "
            "channel. An evaluation takes sequences of one length: cut them, or stretch them "
            "(TemporalAttentionClassifier takes them as they are)"
        )


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
        values = np.clip(values, -LARGEST, LARGEST)
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
