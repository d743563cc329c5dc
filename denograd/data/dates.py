"""Dates given as text, and numbers made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

_DAYS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d.%m.%y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p")
_SHARE = 0.95
PARTS = ("days", "year", "month")


_NO_DATE = re.compile(r"\d+\.\d+|\d+-\d")
"""What ISO 8601 would read as a year and a month, and is a number, or two: 1234.5, 1751-7."""


class DateFormat(NamedTuple):
    """How to read a column of dates; ``ambiguous`` if another format reads it as well."""

    format: str
    ambiguous: bool

    @property
    def caveats(self) -> list[str]:
        """What whoever has the dates must be told of this reading."""
        said = []
        if self.ambiguous:
            said.append(f"day and month cannot be told apart; read as {self.format}")
        if "%y" in self.format:
            said.append("years have two digits; read as 1969 to 2068")
        return said


def guess_date_format(values: pd.Series[Any]) -> DateFormat | None:
    """The format that reads at least 95 % of a column of text as dates, or None.

    ISO dates, and the usual ones with slashes, dots, dashes or names of months, with or
    without a time of day. Where day and month cannot be told apart, a slash means month
    first, a dot or dash day first.

    Example:
        >>> guess_date_format(pd.Series(["03/04/2021", "25/12/2021"]))
        DateFormat(format='%d/%m/%Y', ambiguous=False)
        >>> guess_date_format(pd.Series(["red", "green"])) is None
        True
    """
    present = pd.Series(values.dropna().astype(str).str.strip().unique())
    dated = present.str.contains(r"\d{2}") & present.str.contains(r"\D")
    dated &= ~present.str.fullmatch(_NO_DATE)
    if present.empty or dated.mean() < _SHARE:
        return None
    shares: dict[str, float] = {}
    for candidate in ("ISO8601", *(day + time for day in _DAYS for time in _TIMES)):
        # A look at some of them spares a large column most of the parsing.
        if _readable(present.head(100), candidate) > 0 and (
            (share := _readable(present, candidate)) >= _SHARE
        ):
            shares[candidate] = share
    if not shares:
        return None
    best = max(shares, key=lambda name: shares[name])
    rivals = [name for name in shares if shares[name] == shares[best] and name != best]
    return DateFormat(best, any(sorted(name) == sorted(best) for name in rivals))


def _readable(texts: pd.Series[str], date_format: str) -> float:
    parsed = pd.to_datetime(texts, format=date_format, errors="coerce", utc=True)
    return float(parsed.notna().mean())


class DateParts(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Days since the earliest training date, the year and the month, for each column.

    Days carry a trend, months a season, the year what changes with the calendar. A date
    that cannot be read becomes NaN in all three.

    Args:
        formats: for each column the format of its text, None where it holds dates.

    Example:
        >>> frame = pd.DataFrame({"seen": ["2021-03-01", "2021-03-05", None]})
        >>> DateParts({"seen": "ISO8601"}).fit_transform(frame).tolist()
        [[0.0, 2021.0, 3.0], [4.0, 2021.0, 3.0], [nan, nan, nan]]
    """

    def __init__(self, formats: Mapping[str, str | None]) -> None:
        self.formats = formats

    def fit(self, X: pd.DataFrame, y: ArrayLike | None = None) -> Self:
        """Remember each column's earliest date."""
        self.earliest_ = {name: dates.min() for name, dates in self._dates(X).items()}
        return self

    def transform(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Dates ``(rows, columns)`` to numbers ``(rows, 3 * columns)``."""
        parts: list[pd.Series[Any]] = []
        for name, dates in self._dates(X).items():
            parts.append((dates - self.earliest_[name]) / pd.Timedelta(days=1))
            parts.append(dates.dt.year)
            parts.append(dates.dt.month)
        return np.column_stack([part.to_numpy(dtype=np.float64) for part in parts])

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """``column_days``, ``column_year`` and ``column_month`` for each column."""
        return np.array([f"{name}_{part}" for name in self.formats for part in PARTS], object)

    def _dates(self, frame: pd.DataFrame) -> dict[str, pd.Series[Any]]:
        dates: dict[str, pd.Series[Any]] = {}
        for name, date_format in self.formats.items():
            values = frame[name]
            if date_format is not None:
                values = values.astype("string").str.strip()
            dates[name] = pd.to_datetime(values, format=date_format, errors="coerce", utc=True)
        return dates
