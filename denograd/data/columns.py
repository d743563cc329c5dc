"""What each column of a table holds, and which columns are of no use.

Kinds are a matter of the table's schema, so they are decided once from all rows, without
looking at the target. Every number that is estimated (a median, a mean, the categories)
comes from training rows alone; see `denograd.data.encoder`.
"""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from denograd._callers import callers_level
from denograd.data.dates import guess_date_format
from denograd.data.errors import TableError, TableWarning, listing
from denograd.data.table import Table

_ID_NAME = re.compile(r"(^|[_\s.:-])(id|ids|idx|index|key|uuid|guid|nr|no|rownames)$", re.I)
_CAMEL_ID = re.compile(r"[a-z](ID|Id)$")
_PLAIN = (str, bool, int, float, datetime.date)
_FEW_TEXTS = 20
_FEW_GROUPS = 10
_FEW_CODES = 10
_MOSTLY = 0.8
"""Share of a column's values that are numbers, if the others are words for gaps among them."""


@dataclass(frozen=True)
class ColumnPlan:
    """Which columns are used, and as what.

    Attributes:
        numeric: columns of numbers.
        category: columns of text, booleans or categories with few distinct values.
        date: columns of dates, each with the format to read it by (None: already dates).
        dropped: columns that are not used, each with the reason.
    """

    numeric: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    date: Mapping[str, str | None] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)


def plan_columns(table: Table) -> ColumnPlan:
    """Decide the kind of every column, and warn of those that are left out.

    Left out are columns with no value or a single one; identifiers (text that is
    different in every row; whole numbers that are different in every row and count up by
    one, or whose name says so, like ``id``, ``patient_id`` or ``CustomerID``); free text
    (more than 20 distinct values, and in more than half of the rows different ones); and
    types that are neither numbers, text nor dates.

    Args:
        table: all rows of the table.

    Returns:
        the kinds of the columns.

    Raises:
        TableError: no column is left.

    Example:
        >>> frame = pd.DataFrame({"id": range(4), "x": [1.5, 2, 2, 3], "c": list("abab")})
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     plan = plan_columns(Table("toy", frame, pd.Series([0, 1, 0, 1])))
        >>> plan.numeric, plan.category
        (('x',), ('c',))
        >>> print(caught[0].message)
        toy: column 'id' is left out: whole numbers that count the rows, an identifier
    """
    numeric: list[str] = []
    category: list[str] = []
    date: dict[str, str | None] = {}
    dropped: dict[str, str] = {}
    for name in table.features.columns:
        values = table.features[name]
        reason = _useless(name, values)
        if reason is not None:
            dropped[name] = reason
        elif pd.api.types.is_datetime64_any_dtype(values):
            date[name] = None
        elif _is_number(values):
            numeric.append(name)
        elif (guess := guess_date_format(values)) is not None:
            date[name] = guess.format
            for caveat in guess.caveats:
                _warn(f"{table.name}: column {name!r}: {caveat}")
        elif (reason := unusable_text(values)) is not None:
            dropped[name] = numbers_as_text(values) or reason
        else:
            category.append(name)
            if (reason := numbers_as_text(values)) is not None:
                _warn(f"{table.name}: column {name!r} counts as categories: {reason}")
    for reason in dict.fromkeys(dropped.values()):
        names = [name for name in dropped if dropped[name] == reason]
        several = len(names) > 1
        _warn(
            f"{table.name}: column{'s' * several} {listing(names)} "
            f"{'are' if several else 'is'} left out: {reason}"
        )
    if table.groups is None:
        for name in filter(_named_id, table.features.columns):
            values = table.features[name].dropna()
            distinct = values.nunique()
            if _FEW_GROUPS <= distinct < len(values) and not _has_fractions(values):
                _warn(
                    f"{table.name}: column {name!r} has a name like an identifier's, and "
                    f"{distinct} distinct values in {len(values)} rows. If rows of one belong "
                    f"together, say so (group={name!r}, --group), or they stand on both sides of a "
                    "test"
                )
    if not (numeric or category or date):
        raise TableError(
            f"{table.name}: no column can be learned from; all {len(dropped)} are left out "
            f"({listing(f'{name}: {reason}' for name, reason in dropped.items())}). "
            "Give a table with numbers, categories or dates."
        )
    return ColumnPlan(tuple(numeric), tuple(category), date, dropped)


def _warn(message: str) -> None:
    warnings.warn(message, TableWarning, stacklevel=callers_level())


def _is_number(values: pd.Series[Any]) -> bool:
    kind = values.dtype.kind if hasattr(values.dtype, "kind") else "O"
    return kind in "iuf" and not isinstance(values.dtype, pd.CategoricalDtype)


def _has_fractions(values: pd.Series[Any]) -> bool:
    return _is_number(values) and bool((values % 1 != 0).any())


def _named_id(name: str) -> bool:
    return bool(_ID_NAME.search(name) or _CAMEL_ID.search(name))


def _useless(name: str, values: pd.Series[Any]) -> str | None:
    """Why a column says nothing about a row, or None."""
    present = values.dropna()
    if present.empty:
        return "every value is missing"
    if values.dtype.kind in "cmV":
        return f"values of type {values.dtype} are not supported; turn them into numbers"
    if values.dtype == object:
        unusual = [value for value in present if not isinstance(value, _PLAIN)]
        if unusual:
            return f"values of type {type(unusual[0]).__name__} are not supported"
    distinct = present.nunique()
    if distinct == 1 and len(present) == len(values):
        return "the same value in every row"
    whole = _is_number(values) and not _has_fractions(present)
    if whole and distinct == len(present) and len(present) > 3:
        counts_up = int(present.max() - present.min()) == len(present) - 1
        if counts_up:
            return "whole numbers that count the rows, an identifier"
    if _named_id(name) and (whole or not _is_number(values)) and distinct > len(present) / 2:
        return f"{distinct} distinct values and a name like an identifier's"
    return None


def unusable_text(values: pd.Series[Any]) -> str | None:
    """Why a column of text cannot be a category, or None; never one whose type says it is.

    Example:
        >>> unusable_text(pd.Series([f"P{i}" for i in range(40)]))
        '40 distinct texts in 40 rows, an identifier or free text; give it fewer, larger categories'
        >>> unusable_text(pd.Series(["ill", "well"] * 20)) is None
        True
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        return None
    present = values.dropna().astype(str)
    distinct = present.nunique()
    if distinct <= min(_FEW_TEXTS, max(len(present) // 2, 2)) or distinct <= len(present) / 2:
        return None
    words = present.str.count(r"\S+").mean()
    what = "free text" if words >= 3 else "an identifier or free text"
    remedy = "give it fewer, larger categories"
    return f"{distinct} distinct texts in {len(present)} rows, {what}; {remedy}"


def numbers_as_text(values: pd.Series[Any]) -> str | None:
    """What to do about a column of text most of which are numbers, or None.

    A few numbers may be codes: more than ten different ones are not, unless they begin with a 0 or
    are whole and all different, like identifiers. What is typed as a category is one.

    Example:
        >>> print(numbers_as_text(pd.Series([str(i / 2) for i in range(40)] + ["unknown"])))
        40 of 41 texts are numbers, others 'unknown'; turn it into numbers, others into gaps
        >>> numbers_as_text(pd.Series(["1", "2", "3", "2"])) is None
        True
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        return None
    texts = values[values.map(lambda value: isinstance(value, str))]
    read = pd.to_numeric(texts, errors="coerce")
    if read.nunique() <= _FEW_CODES or read.notna().sum() < _MOSTLY * values.notna().sum():
        return None
    whole = read.dropna()
    if texts.str.fullmatch(r"-?0\d+").any() or (whole.is_unique and (whole % 1 == 0).all()):
        return None
    others = texts[read.isna()].unique()
    told = f", others {listing(others, limit=3)}" if len(others) else ""
    remedy = "turn it into numbers" + ", others into gaps" * bool(len(others))
    return f"{read.notna().sum()} of {len(texts)} texts are numbers{told}; {remedy}"
