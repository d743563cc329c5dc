"""Is a column a class label, or a measured number?"""

from __future__ import annotations

import warnings
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from denograd._callers import callers_level
from denograd.data.errors import TableError, TableWarning, listing

TaskName: TypeAlias = Literal["classification", "regression"]
"""What a table's target is: class labels or measured numbers."""

TaskChoice: TypeAlias = Literal["auto", "classification", "regression"]
"""What may be asked for; ``auto``: what the column looks like."""

TASKS: tuple[TaskChoice, ...] = ("auto", "classification", "regression")
"""The values of `TaskChoice`."""

_FEW_FRACTIONS = 10
_FEW_NUMBERS = 30


def check_task(task: str) -> TaskChoice:
    """The task, if it is one of `TASKS`.

    Raises:
        TableError: it is another.

    Example:
        >>> check_task("auto")
        'auto'
    """
    for known in TASKS:
        if task == known:
            return known
    raise TableError(f"task={task!r} is not known; use one of {listing(TASKS)}")


def task_of(target: pd.Series[Any], task: TaskChoice, where: str) -> TaskName:
    """Whether a column is to be classified or predicted as a number.

    ``auto`` means regression for numbers that look measured: more than 10 distinct ones with
    a fraction, more than 30 distinct whole ones which are also more than one in 20, or more
    than half of them distinct. All else is classification: text, booleans, categories, and
    numbers of which there are few, like grades. `checked_target` and `checked_numbers` say
    whether it will do.

    Args:
        target: the column.
        task: what was asked for.
        where: the file or table, for messages.

    Raises:
        TableError: another task; or, for ``auto``, whole numbers that count the rows.

    Example:
        >>> heights = pd.Series([1.62, 1.7, 1.81, 1.55, 1.9, 1.74, 1.68, 1.77, 1.6, 1.85, 1.71])
        >>> task_of(heights, "auto", "toy.csv"), task_of(heights > 1.7, "auto", "toy.csv")
        ('regression', 'classification')
    """
    known = check_task(task)
    if known != "auto":
        return known
    values = target.dropna()
    distinct = values.nunique()
    measured = _looks_measured(values, distinct)
    if not (measured or (_is_numeric(values) and distinct > max(2, len(values) / 2))):
        return "classification"
    if distinct == len(values) > 3 and float(values.max() - values.min()) == len(values) - 1:
        raise TableError(
            f"{where}: target {target.name!r} has whole numbers that count the rows, so it looks "
            "like an identifier. Name another column as target, or say task='regression'."
        )
    return "regression"


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
            stacklevel=callers_level(),
        )
    counts = labels.value_counts()
    if len(counts) < 2:
        only = f"only the value {_plain(counts.index[0])!r}" if len(counts) else "no value at all"
        raise TableError(
            f"{column} has {only}; classification needs two classes or more. "
            "Name another column as target."
        )
    distinct, rows = len(counts), len(labels)
    if _looks_measured(labels, distinct):
        raise TableError(
            f"{column} has {distinct} distinct numbers in {rows} rows, so it looks measured. "
            "Name a column of class labels, or cut this one into classes; denograd.data, "
            "denograd evaluate and denograd meta-train also predict numbers, with "
            "task='regression' (--task regression)."
        )
    if distinct > rows / 2:
        raise TableError(
            f"{column} has {distinct} distinct values in {rows} rows, so it looks like an "
            "identifier or free text. Name a column of class labels as target."
        )
    single = sorted(map(str, counts.index[counts == 1]))
    if single:
        some = "class" if len(single) == 1 else "each of the classes"
        number = (
            " If it is a measured number, predict it as one: task='regression' (--task regression)."
        )
        raise TableError(
            f"{column}: {some} {listing(single)} has one row, so it cannot be both trained on "
            "and tested. Remove such rows, or merge them into another class."
            f"{number if _is_numeric(labels) else ''}"
        )
    return labels


def _looks_measured(labels: pd.Series[Any], distinct: int) -> bool:
    if not _is_numeric(labels):
        return False
    if bool((labels % 1 != 0).any()):
        return distinct > _FEW_FRACTIONS
    return distinct > _FEW_NUMBERS and distinct > len(labels) / 20


def _is_numeric(values: pd.Series[Any]) -> bool:
    boolean = pd.api.types.is_bool_dtype(values)
    return pd.api.types.is_numeric_dtype(values) and not boolean and values.dtype.kind != "c"


def _plain(value: Any) -> Any:
    """A number of numpy's as Python writes it."""
    return value.item() if isinstance(value, np.generic) else value
