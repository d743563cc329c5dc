"""Values of a column to draw a curve through, and rows that have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from denograd.estimators._features import TableEncoder


@dataclass(frozen=True, eq=False)
class ColumnScale:
    """Values of one column of ``X``.

    Attributes:
        column: its number.
        kind: ``number``, ``date`` or ``category``.
        raw: ``n`` values as ``X`` would have them; None where it is missing.
        labels: the values as text.
        places: ``(n,)``, where they are drawn: numbers, days, or the number of the category.
        gap: whether the last value of a number or date is a missing one, for training had such.
    """

    column: int
    kind: str
    raw: list[Any]
    labels: list[str]
    places: NDArray[np.float64]
    gap: bool = False

    def __len__(self) -> int:
        return len(self.raw)


def column_scale(
    encoder: TableEncoder, column: int, low: float, high: float, points: int
) -> ColumnScale:
    """All categories of a column, or evenly spaced values of it.

    Args:
        encoder: that was fitted on training rows.
        column: number of a column that has features.
        low: first value; of a date, in days since its origin.
        high: last value.
        points: of numbers and dates.
    """
    kind = encoder.kinds[column]
    if kind == "category":
        labels, raw = zip(*encoder.categories[column], strict=True)
        return ColumnScale(column, kind, list(raw), list(labels), np.arange(float(len(raw))))
    places = np.linspace(low, high, points)
    raw_values: list[Any] = places.tolist()
    if kind == "date":
        raw_values = [encoder.origins[column] + pd.Timedelta(days=day) for day in raw_values]
    own = [encoder.names[f] for f in np.flatnonzero(encoder.sources == column)]
    gap = any(name.endswith("_missing") for name in own)
    if gap:
        places, raw_values = np.append(places, np.nan), [*raw_values, None]
    return ColumnScale(column, kind, raw_values, [str(v) for v in raw_values], places, gap)


def probe(encoder: TableEncoder, values: Mapping[int, Sequence[Any]]) -> Tensor:
    """Encoded rows that have given values in some columns; the others are missing.

    Args:
        encoder: that was fitted on training rows.
        values: ``n`` values for each column, by its number.

    Returns:
        ``(n, F)``, in double precision.
    """
    count = len(next(iter(values.values())))
    columns = {}
    for column, kind in enumerate(encoder.kinds):
        given = list(values.get(column, [None] * count))
        if kind == "date":
            columns[f"f{column}"] = pd.Series(pd.to_datetime(pd.Series(given), utc=True))
        else:
            columns[f"f{column}"] = pd.Series(given, dtype=float if kind == "number" else object)
    return torch.from_numpy(encoder.transform(pd.DataFrame(columns))).double()
