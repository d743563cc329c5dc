"""Rows of a DataFrame whose columns hold numbers, text, booleans, dates and gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

Mix: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.bool_]], Any]
"""Numbers of rows ``(m,)``, and which of their values are original, ``(m, F)``, to ``m`` rows."""

_NUMBERS = "numbers"
_KINDS = {
    "floating": _NUMBERS,
    "integer": _NUMBERS,
    "mixed-integer-float": _NUMBERS,
    "string": "text",
    "boolean": "booleans",
    "date": "dates",
    "datetime": "dates",
    "datetime64": "dates",
}
"""What pandas finds in a column, in a user's words; all else is compared as it is."""


def mixing(x: pd.DataFrame, baseline: Any) -> Mix:
    """What makes rows of which some values are those of ``x`` and the others the baseline's.

    Rows have the columns of ``x`` in their own types, save that whole numbers become floats, and
    booleans objects, where the baseline has no place among them.

    Raises:
        ValueError: a column of ``x`` holds infinity, or ``baseline`` does not fit a column.

    Example:
        >>> x = pd.DataFrame({"age": [40, 50], "ward": ["east", "north"]})
        >>> mix = mixing(x, {"age": 45, "ward": "west"})
        >>> mix(np.array([0, 1]), np.array([[True, False], [False, True]])).to_dict("list")
        {'age': [40, 45], 'ward': ['west', 'north']}
    """
    stand_ins = _by_column(x, baseline)
    pools = [
        _pool(x.iloc[:, place], _own_kind(x.iloc[:, place], values))
        for place, values in enumerate(stand_ins)
    ]

    def mix(rows: NDArray[np.int64], original: NDArray[np.bool_]) -> pd.DataFrame:
        places = rows[:, None] + np.where(original, 0, len(x))
        columns = {
            i: pool.iloc[places[:, i]].reset_index(drop=True) for i, pool in enumerate(pools)
        }
        return pd.DataFrame(columns).set_axis(x.columns, axis=1)

    return mix


def numbers_of(x: pd.DataFrame) -> tuple[NDArray[np.float64], Callable[[NDArray[Any]], Any]]:
    """The numbers of a DataFrame, and what puts others in their place.

    Returns:
        ``(n, F)``, NaN where a value is missing or the column holds no numbers; and a function
        from such an array to a DataFrame, in which all columns without numbers are as in ``x``.

    Raises:
        ValueError: no column holds numbers, or one holds infinity.
    """
    numeric = [i for i in range(x.shape[1]) if _kind(x.iloc[:, i]) == _NUMBERS]
    if not numeric:
        raise ValueError(
            f"x: none of its columns, {list(x.columns)!r}, holds numbers, and only numbers can be "
            "changed a little; give rows with at least one column of numbers"
        )
    values = np.full(x.shape, np.nan)
    for i in numeric:
        _check_finite("x", x.iloc[:, i], x.columns[i])
        values[:, i] = x.iloc[:, i].astype("Float64").to_numpy(np.float64, na_value=np.nan)

    def as_given(changed: NDArray[Any]) -> pd.DataFrame:
        columns = {
            i: changed[:, i] if i in numeric else x.iloc[:, i].reset_index(drop=True)
            for i in range(x.shape[1])
        }
        return pd.DataFrame(columns).set_axis(x.columns, axis=1)

    return values, as_given


def _kind(values: pd.Series[Any]) -> str:
    found = str(pd.api.types.infer_dtype(values, skipna=True))
    return _KINDS.get(found, found)


def _check_finite(argument: str, values: pd.Series[Any], column: Any) -> None:
    if _kind(values) == _NUMBERS and np.isinf(values.dropna().to_numpy(np.float64)).any():
        raise ValueError(
            f"{argument}: column {column!r} holds infinite numbers; leave those rows out, or make "
            "the values missing"
        )


def _by_column(x: pd.DataFrame, baseline: Any) -> list[pd.Series[Any]]:
    """For each column the values ``(n,)`` that stand for it, as objects."""
    if isinstance(baseline, (Mapping, pd.Series, pd.DataFrame)):
        given = dict(baseline.items())
        strange = [name for name in given if name not in x.columns]
        lacking = [name for name in x.columns if name not in given]
        if strange or lacking or not x.columns.is_unique:
            raise ValueError(
                f"baseline: it names {list(given)!r}, and the columns of x are "
                f"{list(x.columns)!r}; give a value for each column, and no others"
            )
        each = [
            np.asarray(given[name], dtype=object)
            if isinstance(baseline, pd.DataFrame)
            else _single(given[name])
            for name in x.columns
        ]
        if any(values.shape not in ((), (1,), (len(x),)) for values in each):
            raise ValueError(
                f"baseline: it has {each[0].size} rows, and x {len(x)}; give one row, or one for "
                "each of x"
            )
    else:
        if isinstance(baseline, torch.Tensor):
            baseline = baseline.detach().cpu().numpy()
        array = np.asarray(baseline, dtype=object)
        if array.shape not in ((), x.shape[1:], x.shape):
            raise ValueError(
                f"baseline: it has shape {array.shape}; it must be a value, {x.shape[1:]} or "
                f"{x.shape}, or values by the names of the columns"
            )
        each = list(np.broadcast_to(array, x.shape).T)
    return [pd.Series(np.broadcast_to(values, len(x)), dtype=object) for values in each]


def _single(value: Any) -> NDArray[Any]:
    """A value as an array without dimensions."""
    array = np.empty((), dtype=object)
    array[()] = value
    return array


def _own_kind(column: pd.Series[Any], stand_ins: pd.Series[Any]) -> pd.Series[Any]:
    """Stand-ins that are of the kind of their column, or missing."""
    present = stand_ins.dropna()
    kind, other = _kind(column), _kind(present)
    if isinstance(column.dtype, pd.CategoricalDtype):
        fits = bool(present.isin(column.cat.categories).all())
        kind = f"the categories {column.cat.categories.tolist()!r}"
    elif kind == "booleans" and other == _NUMBERS and present.isin([0, 1]).all():
        return stand_ins.map(lambda value: value if pd.isna(value) else bool(value))
    else:
        fits = len(present) == 0 or kind in (other, "empty") or kind.startswith("mixed")
    if not fits:
        raise ValueError(
            f"baseline: for column {column.name!r}, which holds {kind}, it has "
            f"{present.iloc[0]!r}; give values by the names of the columns, each of its column's "
            "own kind (or None for a missing one), such as those of a row of x"
        )
    _check_finite("baseline", present, column.name)
    return stand_ins


def _pool(column: pd.Series[Any], stand_ins: pd.Series[Any]) -> pd.Series[Any]:
    """A column and behind it its stand-ins, ``(2 n,)``, in one type."""
    _check_finite("x", column, column.name)
    whole = pd.api.types.is_integer_dtype(column.dtype)
    try:
        ready = stand_ins.astype(column.dtype)
        changed = whole and bool((ready != stand_ins).any())
    except (TypeError, ValueError, OverflowError) as error:
        if not whole:
            raise ValueError(
                f"baseline: for column {column.name!r} of type {column.dtype} it has "
                f"{stand_ins.iloc[0]!r} ({error}); give values of the column's own type"
            ) from error
        changed = True
    if changed:
        column = column.astype("Float64" if column.isna().any() else "float64")
    elif column.dtype == np.bool_ and stand_ins.isna().any():
        column = column.astype(object)
    return pd.concat([column, stand_ins.astype(column.dtype)], ignore_index=True)
