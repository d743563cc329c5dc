"""Is a column a class label?"""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

from denograd.data.errors import TableError, TableWarning, listing

_FEW_FRACTIONS = 10
_FEW_NUMBERS = 30


def checked_target(target: pd.Series[Any], where: str) -> pd.Series[Any]:
    """The labels that are not missing, if they can be classified.

    A class with a single row is refused, not dropped: it can be trained on or tested but
    not both, and only the table's owner knows which other class it belongs to.

    Args:
        target: the column.
        where: the file or table, for messages.

    Raises:
        TableError: fewer than two classes, a class with one row, numbers that look
            measured rather than counted off (more than 10 distinct with a fraction, or
            whole numbers of which more than 30 and more than one in 20 are distinct), or
            more classes than half the rows.

    Example:
        >>> try:
        ...     checked_target(pd.Series(list("aaaab"), name="y"), "toy.csv")
        ... except TableError as error:
        ...     print(str(error).split(",")[0])
        toy.csv: target 'y': class 'b' has one row
    """
    column = f"{where}: target {target.name!r}"
    missing = target.isna()
    labels = target[~missing]
    if isinstance(labels.dtype, pd.CategoricalDtype):
        # Parquet keeps categories that no row has; they would be counted as classes.
        labels = labels.cat.remove_unused_categories()
    if missing.any() and len(labels):
        warnings.warn(
            f"{column}: {int(missing.sum())} of {len(target)} rows have no label; left out",
            TableWarning,
            stacklevel=3,
        )
    counts = labels.value_counts()
    if len(counts) < 2:
        only = f"only the value {counts.index[0]!r}" if len(counts) else "no value at all"
        raise TableError(
            f"{column} has {only}; classification needs two classes or more. "
            "Name another column as target."
        )
    distinct, rows = len(counts), len(labels)
    if _looks_measured(labels, distinct):
        raise TableError(
            f"{column} has {distinct} distinct numbers in {rows} rows, so it looks measured. "
            "Regression is not supported yet: name a column of class labels, or cut this one "
            "into classes."
        )
    if distinct > rows / 2:
        raise TableError(
            f"{column} has {distinct} distinct values in {rows} rows, so it looks like an "
            "identifier or free text. Name a column of class labels as target."
        )
    single = sorted(map(str, counts.index[counts == 1]))
    if single:
        some = "class" if len(single) == 1 else "each of the classes"
        raise TableError(
            f"{column}: {some} {listing(single)} has one row, so it cannot be both trained on "
            "and tested. Remove such rows, or merge them into another class."
        )
    return labels


def _looks_measured(labels: pd.Series[Any], distinct: int) -> bool:
    if pd.api.types.is_bool_dtype(labels) or not pd.api.types.is_numeric_dtype(labels):
        return False
    if bool((labels % 1 != 0).any()):
        return distinct > _FEW_FRACTIONS
    return distinct > _FEW_NUMBERS and distinct > len(labels) / 20
