"""Whether two tables are the same, value by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

TOLERANCE = 1e-12
"""Relative to a column's largest value: some bits of rounding, and no more."""


def difference(ours: pd.DataFrame, theirs: pd.DataFrame) -> str | None:
    """How two tables differ: in shape, names, order, kinds, missing values or values.

    Returns:
        One line, or None if they are the same.

    Example:
        >>> difference(pd.DataFrame({"x": [1.0, 2.0]}), pd.DataFrame({"x": [1.0, 3.0]}))
        'x: 1 of 2 values differ, first in row 1: 2.0 and 3.0'
    """
    if ours.shape != theirs.shape:
        return f"the shapes are {ours.shape} and {theirs.shape}"
    if list(ours) != list(theirs):
        unlike = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
        return f"the columns {unlike[0][0]} and {unlike[0][1]} stand at one place"
    for name in ours:
        a, b = ours[name], theirs[name]
        if _kind(a) != _kind(b):
            return f"{name}: holds {_kind(a)} and {_kind(b)}"
        wrong = np.array(a.isna() != b.isna())
        both = (a.notna() & b.notna()).to_numpy()
        if pd.api.types.is_float_dtype(a.dtype):
            x, y = a.to_numpy(np.float64)[both], b.to_numpy(np.float64)[both]
            scale = max(float(np.abs(y).max(initial=0.0)), 1e-300)
            wrong[both] = np.abs(x - y) > TOLERANCE * scale
        else:
            wrong[both] = a.astype(object)[both].to_numpy() != b.astype(object)[both].to_numpy()
        if wrong.any():
            first = int(wrong.argmax())
            return (
                f"{name}: {wrong.sum()} of {len(a)} values differ, "
                f"first in row {first}: {a[first]} and {b[first]}"
            )
    return None


def _kind(column: pd.Series[Any]) -> str:
    if isinstance(column.dtype, pd.CategoricalDtype):
        # pandas takes the same categories in another order for the same.
        return f"categories {list(column.cat.categories)}"
    return str(column.dtype)
