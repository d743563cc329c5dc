"""From raw columns to a finished table, its hash, and its line of the catalogue."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import re
from typing import Any

import numpy as np
import pandas as pd
from _fetch_list import DataSet, entries

RARE = 8
"""Rows of classes with fewer members are left out."""

MOST_ROWS = 20_000
"""Of larger tables, so many random rows stay, chosen with the seed 0, in their order."""

MOST_WINDOWS = 4_000
"""Of longer series, so many windows stay, at even distances."""


def finish(data_set: DataSet, raw: pd.DataFrame) -> pd.DataFrame:
    """The table that a data set becomes.

    Rows without a target and of rare classes go, and columns that the list drops or that hold
    one value only; columns of numbers become float64, the others categories of text; the
    target stands last.

    Args:
        data_set: its line of the list.
        raw: the columns of its files.

    Raises:
        ValueError: a column that the list names does not exist.
    """
    is_series = bool(data_set.shape)
    frame = raw.copy() if is_series and "target" in raw else add_target(raw, data_set.target)
    needed = [*entries(data_set.complete), "target"]
    codes = set(entries(data_set.categories)) | ({"target"} if data_set.has_classes else set())
    if absent := (codes | set(needed)) - set(frame.columns):
        raise ValueError(f"{data_set.name}: no column {', '.join(sorted(absent))}")
    frame = _without(frame[frame[needed].notna().all(axis=1)], data_set)
    frame = pd.DataFrame({name: _typed(frame[name], name in codes) for name in frame})
    if not is_series:
        features = [name for name in frame if name != "target"]
        frame = frame.drop(columns=[name for name in features if _is_constant(frame[name])])
    if data_set.has_classes:
        sizes = frame["target"].map(frame["target"].value_counts()).astype(int)
        frame = frame[sizes >= RARE]
    if data_set.format.startswith("windows") and len(frame) > MOST_WINDOWS:
        frame = frame.iloc[np.linspace(0, len(frame) - 1, MOST_WINDOWS).astype(int)]
    elif len(frame) > MOST_ROWS:
        frame = frame.sample(MOST_ROWS, random_state=0).sort_index()
    frame = frame.reset_index(drop=True)
    for name in frame.columns[[dtype.kind == "O" for dtype in frame.dtypes]]:
        frame[name] = pd.Categorical(frame[name], sorted(frame[name].dropna().unique()))
    return frame


def add_target(raw: pd.DataFrame, rule: str) -> pd.DataFrame:
    """The columns with the target last, and without those that it was made of.

    Args:
        raw: the columns.
        rule: a column's name; ``column > 12`` or ``column == 0``, for the classes yes and no;
            or ``a ~ b ~ c``, for the name of the column that holds a 1.

    Raises:
        ValueError: there is no such column, or a row has no 1 or more than one.

    Example:
        >>> add_target(pd.DataFrame({"x": [1, 2], "hours": [0, 38]}), "hours > 0")
           x target
        0  1     no
        1  2    yes
    """
    compared = re.fullmatch(r"(.+) (>|==) (-?[\d.]+)", rule)
    if compared:
        names = [compared[1]]
    else:
        names = rule.split(" ~ ")
    if absent := [name for name in names if name not in raw]:
        raise ValueError(f"the target {rule!r} needs the column {', '.join(absent)}")
    target: pd.Series[Any]
    if compared:
        values, bound = raw[compared[1]].astype(float), float(compared[3])
        holds = values > bound if compared[2] == ">" else values == bound
        words = ["yes" if hold else "no" for hold in holds]
        target = pd.Series(words, index=raw.index).where(values.notna())
    elif len(names) > 1:
        ones = raw[names].astype(float) == 1
        if not (ones.sum(axis=1) == 1).all():
            raise ValueError(f"the target {rule!r} is not one of these in every row")
        target = ones.idxmax(axis=1).astype(object)
    else:
        target = raw[rule]
    return pd.concat([raw.drop(columns=names), target.rename("target")], axis=1)


def _without(frame: pd.DataFrame, data_set: DataSet) -> pd.DataFrame:
    """The columns that the list keeps.

    Raises:
        ValueError: a pattern fits no column.
    """
    gone: set[str] = set()
    names = [str(name) for name in frame if name != "target"]
    for pattern in entries(data_set.drop):
        fitting = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not fitting:
            raise ValueError(f"{data_set.name}: no column {pattern} to drop")
        gone.update(fitting)
    return frame.drop(columns=sorted(gone))


def _is_constant(column: pd.Series[Any]) -> bool:
    present = column.dropna().to_numpy()
    return bool((present == present[:1]).all())


def _typed(column: pd.Series[Any], is_code: bool) -> pd.Series[Any]:
    """Numbers if all values are, and else text."""
    values = [None if pd.isna(value) else value for value in column]
    if not is_code:
        numbers = [math.nan if value is None else as_number(value) for value in values]
        if None not in numbers:
            return pd.Series(numbers, index=column.index, dtype=np.float64)
    texts = [None if value is None else as_label(value) for value in values]
    return pd.Series(texts, index=column.index, dtype=object)


def as_number(value: object) -> float | None:
    """A cell as a number, or None if it is none."""
    if isinstance(value, str) and not re.fullmatch(r"[-+\d.eE]+", value):
        return None  # Python would take "nan", "inf" and "1_000" too.
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def as_label(value: object) -> str:
    """A cell as a category's name; whole numbers without a decimal point.

    Example:
        >>> as_label(-1.0), as_label("-1.0"), as_label("3+")
        ('-1', '-1', '3+')
    """
    number = as_number(value)
    if number is not None and number.is_integer():
        # Codes such as 01 are texts.
        return str(value) if str(value).isdigit() else str(int(number))
    return str(value)


def digest(frame: pd.DataFrame) -> str:
    """The sha256 of a table's text.

    Column after column: its name, `number` or `category`, and a line for each cell, empty
    where the value is missing. Numbers stand to ten decimals and eight digits, so that the last
    bit of a machine's arithmetic does not matter.
    """
    hasher = hashlib.sha256()
    for name in frame.columns:
        column = frame[name]
        if pd.api.types.is_float_dtype(column.dtype):
            kind = "number"
            rounded = np.round(column.to_numpy(np.float64), 10) + 0.0
            cells = ["" if math.isnan(v) else f"{v:.8g}" for v in rounded.tolist()]
        else:
            kind = "category"
            cells = ["" if pd.isna(v) else json.dumps(v) for v in column.astype(object)]
        text = "\n".join([json.dumps(str(name)), kind, *cells, ""])
        hasher.update(text.encode())
    return hasher.hexdigest()


def describe(data_set: DataSet, frame: pd.DataFrame) -> dict[str, str]:
    """A table's line of the catalogue."""
    features = frame.drop(columns="target")
    numeric = int((features.dtypes == np.float64).sum())
    line = {
        "file": data_set.file,
        "source": data_set.source,
        "task": data_set.task,
        "rows": str(len(frame)),
        "numeric": str(numeric),
        "categorical": str(features.shape[1] - numeric),
        "classes": "",
        "missing": str(int(features.isna().sum().sum())),
        "majority_rate": "",
        "kind": data_set.kind,
        "shape": data_set.shape,
        "auc_of_simple_baselines": data_set.auc_of_simple_baselines,
        "note": data_set.note,
    }
    if data_set.has_classes:
        shares = frame["target"].value_counts(normalize=True)
        line["classes"] = str(len(shares))
        line["majority_rate"] = str(round(float(shares.max()), 3))
    return line
