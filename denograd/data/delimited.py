"""CSV files as people write them: separators, blanks, marks for gaps, decimal commas."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from denograd._callers import callers_level
from denograd.data.errors import TableError, TableWarning, listing

MISSING = (
    *("", "?", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NULL", "null", "None"),
    *("NaN", "nan", "-NaN", "-nan", "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN"),
)
"""What stands for a missing value in a CSV; ``None`` does not in a target, where it may well be
the name of a class."""

MARKS = (".", "-", "--")
"""What many write for a missing number; among names it may be a name."""

_FEW = 2
"""With no more distinct numbers a column that has marks, too, may well be one of names."""
_QUOTED = re.compile(r'"[^"]*"')
_EUROPEAN = r"[+-]?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+)(?:,\d+)?(?:[eE][+-]?\d+)?"
"""A number with a decimal comma, or points between thousands, or both or neither."""
_THOUSANDS = r"[+-]?[1-9]\d{0,2},\d{3}"
_POINTED = r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?"
_LOOKED_AT = 100
"""Cells by which most columns of another kind are told, before all are looked at."""


def read_csv(path: Path, target: str | None) -> pd.DataFrame:
    """The table of a CSV file, its names and texts without blanks around them.

    The separator is a comma, a semicolon or a tab. Where it is no comma, numbers may have a
    decimal comma, and then points between thousands.

    Args:
        path: of the file, UTF-8.
        target: name of the label's column; None for the last.

    Raises:
        TableError: a name stands in the header twice.
        ValueError: of pandas, or a row has more cells than the header.
    """
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    bare = _QUOTED.sub("", header)
    separator = max(",;\t", key=bare.count)

    def read(**options: Any) -> pd.DataFrame:
        frame: pd.DataFrame = pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            skipinitialspace=True,
            index_col=False,
            keep_default_na=False,
            **options,
        )
        return frame

    with warnings.catch_warnings():
        # Where rows have more cells than the header, pandas would shift or cut them.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            # pandas would call a second column of a name by another one, and one may be the target.
            written = pd.Index(read(header=None, nrows=1, dtype=str).iloc[0]).str.strip()
            check_names(written[written != ""], path)
            names = read(nrows=0).columns
            label = names[-1].strip() if target is None else target
            named = [cell for cell in MISSING if cell != "None"]
            missing = {n: named if n.strip() == label else list(MISSING) for n in names}
            frame = _without_blanks(read(na_values=missing), missing)
        except pd.errors.ParserWarning:
            raise ValueError("its rows have more cells than its header has names") from None
    frame.columns = frame.columns.str.strip()
    decimal = _read_decimal_commas(frame, separator, path)
    if decimal:
        others = [name for name in names if name.strip() not in decimal]
        texts = read(na_values=missing, dtype=str, usecols=others)
        _read_thousands(frame, texts.set_axis(texts.columns.str.strip(), axis=1), path)
    _read_marks(frame, path)
    if label in frame:
        frame[label] = _without_none(frame[label])
    return frame


def check_names(names: pd.Index, path: Path) -> None:
    """Raise a `TableError` if a name of a column stands there twice."""
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise TableError(f"{path}: column {listing(twice)} stands in it twice; rename one")


def _without_blanks(frame: pd.DataFrame, missing: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Text without blanks around it; a gap or a number that they had hidden is one again."""
    for name in frame.columns:
        if pd.api.types.is_numeric_dtype(frame[name]):
            continue
        cells = frame[name].dropna()
        if isinstance(cells.dtype, pd.StringDtype):
            bare = cells.str.strip()
        else:
            bare = cells.map(lambda cell: cell.strip() if isinstance(cell, str) else cell)
        if (bare != cells).any():
            bare = bare.where(~bare.isin(missing[name])).reindex(frame.index)
            numbers = pd.to_numeric(bare, errors="coerce")
            frame[name] = numbers if (numbers.notna() == bare.notna()).all() else bare
    return frame


def _read_decimal_commas(frame: pd.DataFrame, separator: str, path: Path) -> list[str]:
    """Turn columns of numbers with a decimal comma into numbers; returns which these are."""
    found, unclear = [], []
    for name in frame.columns:
        if pd.api.types.is_numeric_dtype(frame[name]):
            continue
        numerals = _numerals(frame[name])
        if numerals.empty:
            continue
        commas = numerals[numerals.str.contains(",", regex=False)]
        if commas.empty:
            continue
        if separator == "," or commas.str.fullmatch(_THOUSANDS).all():
            unclear.append(name)
        else:
            _warn_of_marks(frame[name], name, path)
            frame[name] = _from_european(numerals).reindex(frame.index)
            found.append(name)
    if found:
        _warn(path, found, "numbers with a decimal comma, read as such")
    if unclear:
        _warn(
            path,
            unclear,
            "is the comma a decimal one, or between thousands? Read as text; write points, or no "
            "separator of thousands",
        )
    return found


def _read_thousands(frame: pd.DataFrame, texts: pd.DataFrame, path: Path) -> None:
    """Where commas are decimal in a file, points in its numbers stand between thousands."""
    found = []
    for name in texts.columns:
        numerals = _numerals(texts[name].str.strip().replace(list(MISSING), None))
        if numerals.empty:
            continue
        points = numerals[numerals.str.contains(".", regex=False)]
        if not points.empty and points.str.fullmatch(_POINTED).all():
            _warn_of_marks(texts[name], name, path)
            frame[name] = _from_european(numerals).reindex(frame.index)
            found.append(name)
    if found:
        _warn(
            path,
            found,
            "numbers with points, read as those between thousands, because other columns have "
            "decimal commas",
        )


def _read_marks(frame: pd.DataFrame, path: Path) -> None:
    """Turn columns of numbers in which dots or dashes stand for gaps into numbers."""
    for name in frame.columns:
        if pd.api.types.is_numeric_dtype(frame[name]) or not frame[name].isin(MARKS).any():
            continue
        others = frame[name].where(~frame[name].isin(MARKS))
        numbers = pd.to_numeric(others, errors="coerce")
        if (numbers.notna() == others.notna()).all() and numbers.nunique() > _FEW:
            _warn_of_marks(frame[name], name, path)
            frame[name] = numbers


def _numerals(texts: pd.Series[Any]) -> pd.Series[Any]:
    """The cells of a column of numbers as Europe writes them; none if it is no such column."""
    cells = texts.dropna()
    found = cells[~cells.isin([*MARKS, "None"])]
    marked = len(found) < len(cells)
    texts_alone = pd.api.types.infer_dtype(found) == "string"
    for some in (found.head(_LOOKED_AT), found):
        if not texts_alone or not some.str.fullmatch(_EUROPEAN).all():
            return cells.iloc[:0]
    return cells.iloc[:0] if marked and found.nunique() <= _FEW else found


def _from_european(numerals: pd.Series[Any]) -> pd.Series[Any]:
    whole = numerals.str.replace(".", "", regex=False)
    return whole.str.replace(",", ".", regex=False).astype(float)


def _without_none(labels: pd.Series[Any]) -> pd.Series[Any]:
    """``None`` among numbers or booleans is a gap after all."""
    named = labels.dropna()
    others = named[named != "None"]
    if len(others) == len(named):
        return labels
    present = labels.where(labels != "None")
    if others.isin(["True", "False"]).all():
        return present.map({"True": True, "False": False})
    numbers = pd.to_numeric(present, errors="coerce")
    return numbers if numbers.notna().sum() == len(others) else labels


def _warn_of_marks(texts: pd.Series[Any], name: str, path: Path) -> None:
    marks = [mark for mark in MARKS if (texts == mark).any()]
    if marks:
        _warn(path, [name], f"{' and '.join(map(repr, marks))} among numbers, read as missing")


def _warn(path: Path, names: Sequence[str], what: str) -> None:
    message = f"{path}: {listing(names)}: {what}"
    warnings.warn(message, TableWarning, stacklevel=callers_level())
