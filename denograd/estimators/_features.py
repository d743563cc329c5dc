"""From what scikit-learn's users pass as ``X`` to the numbers a model sees.

The encoding itself is `denograd.data.Encoder`'s. What is added here is what an estimator
needs around it: arrays as well as DataFrames, the kind of each column (nothing is left out
because it looks like an identifier, but one is warned of), and the way back from encoded
features to the columns of ``X`` and to their own units.
"""

from __future__ import annotations

import math
import numbers
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from denograd._callers import callers_level
from denograd.data.columns import ColumnPlan, numbers_as_text, unusable_text
from denograd.data.dates import DateFormat, guess_date_format
from denograd.data.encoder import Encoder
from denograd.data.errors import listing
from denograd.data.numbers import CLIP, LARGEST, check_range

_BOOLEAN = (bool, np.bool_)
_MISSING, _OTHER = "(missing)", "(other)"
_INFREQUENT = "infrequent_sklearn"
"""What scikit-learn calls the rare categories of a column."""
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?|True|False")
_FEW_ROWS = 20
"""With fewer rows, texts that all differ may well be categories."""
_INTERNAL = re.compile(r"f(\d+)(.*)", re.DOTALL)


class RowEncoder(Protocol):
    """What turns rows into the numbers of a model.

    Attributes:
        columns: names of the columns of ``X``.
        names: names of the encoded features, in the words of ``columns``.
        sources: for each encoded feature, the number of the column it came from.
        center, scale: an encoded feature is ``(value - center) / scale``, cut off at the ends.
        binary: for each encoded feature, whether its value is 0 or 1.
        notes: what a reader must be told of an encoded feature, by its number.
        stand_ins: what stands for a missing value of a feature, by its number, in its own units.
    """

    columns: list[str]
    names: list[str]
    sources: NDArray[np.int64]
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    binary: NDArray[np.bool_]
    notes: dict[int, str]
    stand_ins: dict[int, float]

    def transform(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """Rows as numbers, ``(rows, columns)`` to ``(rows, features)``."""
        ...


class TableEncoder:
    """Columns of numbers, dates and categories as standardised features.

    Args:
        frame: training rows, in the form that `as_frame` gives them.
        columns: names of its columns.

    Attributes:
        kinds: ``number``, ``category`` or ``date``, for each column. Text that
            `denograd.data.dates.guess_date_format` can read is a date.
        categories: for each column of categories, by its number, what each is called and how
            ``X`` has it (None: missing).
        origins: for each column of dates, by its number, the day that days count from.
        medians: for each column of numbers, by its number, what stands for a missing one.

    Raises:
        ValueError: a column is of a type that cannot be used, or all are constant.

    Example:
        >>> frame = as_frame(pd.DataFrame({"x": [1.0, None, 3.0], "c": ["a", "b", "c"]}))
        >>> encoder = TableEncoder(frame, ["x", "c"])
        >>> encoder.names, encoder.sources.tolist()
        (['x', 'x_missing', 'c=a', 'c=b', 'c=c'], [0, 0, 1, 1, 1])
        >>> encoder.transform(frame).shape
        (3, 5)
    """

    def __init__(self, frame: pd.DataFrame, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        found = [_kind(frame[name], self.columns[i]) for i, name in enumerate(frame.columns)]
        self.kinds = [kind for kind, _ in found]
        self._formats = {
            place: _told_of(guess, self.columns[place])
            for place, (_, guess) in enumerate(found)
            if guess is not None
        }
        #: columns of text that differs from row to row, where it is no wonder if nothing is known
        self._identifiers = {
            place
            for place, kind in enumerate(self.kinds)
            if kind == "category" and _warned_of(frame.iloc[:, place], self.columns[place])
        }
        self._booleans = {
            i: _only_booleans(frame.iloc[:, i])
            for i, kind in enumerate(self.kinds)
            if kind == "category"
        }
        self._known: dict[int, list[str]] = {}
        self.notes: dict[int, str] = {}
        self.categories: dict[int, list[tuple[str, str | None]]] = {}
        self.origins: dict[int, pd.Timestamp] = {}
        self.medians: dict[int, float] = {}
        frame = self._checked(frame)
        for name, column, kind in zip(frame.columns, self.columns, self.kinds, strict=True):
            if kind == "number":
                check_range(frame[name], f"X: column {column!r} holds")
                self.medians[int(name[1:])] = float(frame[name].median())
        by_kind = {
            kind: tuple(n for n, k in zip(frame.columns, self.kinds, strict=True) if k == kind)
            for kind in ("number", "category", "date")
        }
        plan = ColumnPlan(by_kind["number"], by_kind["category"], dict.fromkeys(by_kind["date"]))
        self._encoder = Encoder(plan).fit(frame)
        parts = [_INTERNAL.fullmatch(name) for name in self._encoder.feature_names_]
        self.sources = np.array([int(part[1]) for part in parts if part], dtype=np.int64)
        self.names = [self.columns[int(part[1])] + part[2] for part in parts if part]
        scaler = self._encoder._scale[-1]
        self.center = np.asarray(scaler.mean_, dtype=np.float64)
        self.scale = np.asarray(scaler.scale_, dtype=np.float64)
        self.binary = np.array([bool(part[2][:1] == "=" or part[2].endswith("_missing"))
                                for part in parts if part])  # fmt: skip
        steps = self._encoder._columns[-1].named_transformers_
        if by_kind["category"]:
            one_hot = steps["category"][-1]
            places = [int(name[1:]) for name in by_kind["category"]]
            lists = [found.tolist() for found in one_hot.categories_]
            self._known = dict(zip(places, lists, strict=True))
            rare = getattr(one_hot, "infrequent_categories_", [None] * len(places))
            for place, known, others in zip(places, lists, rare, strict=True):
                if others is None:
                    self.categories[place] = _with_labels(known, [], _OTHER)
                    continue
                label = _OTHER
                while label in known:
                    label = f"({label})"
                self.categories[place] = _with_labels(known, others, label)
                feature = self._encoder.feature_names_.index(f"f{place}={_INFREQUENT}")
                self.names[feature] = f"{self.columns[place]}={label}"
                said = listing(others, limit=len(others))
                self.notes[feature] = (
                    f"{self.names[feature]} stands for {said} and for what training did not see"
                )
        #: the feature of each column of two categories, between which unknown ones lie
        self._halves = {
            place: int(np.flatnonzero(self.sources == place)[0])
            for place, known in self._known.items()
            if len(known) == 2
        }
        if by_kind["date"]:
            for name, first in steps["date"][0].earliest_.items():
                self.origins[int(name[1:])] = first
                label = f"{self.columns[int(name[1:])]}_days"
                if label in self.names:
                    day = first.date() if first == first.normalize() else first.tz_localize(None)
                    self.notes[self.names.index(label)] = f"{label} counts the days since {day}"
        # As they come out of the encoder, rounded, so that thresholds take them as the model does.
        nothing = frame.iloc[:0].reset_index(drop=True).reindex([0])
        empty = self.transform(nothing)[0].astype(np.float64)
        self.stand_ins = {
            feature: float(own_values(empty[feature : feature + 1], self, feature)[0])
            for feature in np.flatnonzero(~self.binary).tolist()
        }

    def transform(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """Rows as numbers, ``(rows, columns)`` to ``(rows, len(names))``.

        Raises:
            ValueError: a column that held numbers or dates holds something else, or one of
                categories holds none that training saw.
        """
        checked = self._checked(frame)
        for name, kind in zip(checked.columns, self.kinds, strict=True):
            if kind == "number":
                # Far beyond where values are cut off, and nothing overflows.
                checked[name] = checked[name].clip(-LARGEST, LARGEST)
        encoded = self._encoder.transform(checked)
        for place, feature in self._halves.items():
            values = checked.iloc[:, place]
            known = values.where(values.notna(), _MISSING).isin(self._known[place])
            encoded[~known.to_numpy(), feature] = 0.0
        return encoded

    def _checked(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Numbers as float64, dates as dates, categories as text."""
        ready = {}
        for place, ((name, values), column, kind) in enumerate(
            zip(frame.items(), self.columns, self.kinds, strict=True)
        ):
            if kind == "number":
                ready[name] = _numbers(values, column)
            elif kind == "category":
                ready[name] = _texts(values, self._booleans[place])
                if place in self._known and place not in self._identifiers:
                    _check_known(values, ready[name], self._known[place], column)
            elif place in self._formats:
                ready[name] = _dates(values, self._formats[place], column)
            elif kind == "date" and not pd.api.types.is_datetime64_any_dtype(values):
                raise ValueError(
                    f"column {column!r} held dates in training and now holds {values.dtype}; "
                    "convert it with pandas.to_datetime"
                )
            else:
                ready[name] = values
        return pd.DataFrame(ready, index=frame.index)


def as_frame(values: pd.DataFrame | NDArray[Any]) -> pd.DataFrame:
    """Rows with the internal column names ``f0``, ``f1``, ..., which no data can clash with."""
    frame = values if isinstance(values, pd.DataFrame) else pd.DataFrame(values)
    return frame.set_axis([f"f{i}" for i in range(frame.shape[1])], axis=1)


def _kind(values: pd.Series[Any], column: str) -> tuple[str, DateFormat | None]:
    """``number``, ``category`` or ``date``, and how to read a date that is written as text."""
    dtype = values.dtype
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "date", None
    if pd.api.types.is_bool_dtype(dtype) or isinstance(dtype, pd.CategoricalDtype):
        return "category", None
    if pd.api.types.is_complex_dtype(dtype):
        raise ValueError(f"Complex data not supported: column {column!r} has type {dtype}")
    if pd.api.types.is_numeric_dtype(dtype):
        return "number", None
    if pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype):
        present = values.dropna()
        numeric = [isinstance(v, numbers.Real) and not isinstance(v, _BOOLEAN) for v in present]
        if numeric and all(numeric):
            return "number", None
        strange = [v for v in present if not isinstance(v, (str, *_BOOLEAN, numbers.Real))]
        if strange:
            raise ValueError(
                f"column {column!r} holds values of type {type(strange[0]).__name__}; give "
                "numbers, text, booleans, categories or dates"
            )
        texts = all(isinstance(v, str) for v in present)
        guess = guess_date_format(present) if texts else None
        return ("category" if guess is None else "date"), guess
    raise ValueError(
        f"column {column!r} has type {dtype}; give numbers, text, booleans, categories or dates"
    )


def _told_of(guess: DateFormat, column: str) -> str:
    """The format that the dates of a column of text are read by; warns if it is a guess."""
    for caveat in guess.caveats:
        warnings.warn(
            f"X: column {column!r}: {caveat}. Convert it with pandas.to_datetime if that is wrong",
            UserWarning,
            stacklevel=callers_level(),
        )
    return guess.format


def _dates(values: pd.Series[Any], date_format: str, column: str) -> pd.Series[Any]:
    """Text as dates, what cannot be read as gaps; dates stay as they are."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return values
    texts = values.astype("string").str.strip()
    found = pd.to_datetime(texts, format=date_format, errors="coerce", utc=True)
    unread = texts[texts.notna() & found.isna()].unique()
    # A word here and there is a gap; dates written in another way are not.
    nothing = len(unread) > 1 and found.isna().all()
    if len(unread) and (nothing or guess_date_format(pd.Series(unread)) is not None):
        raise ValueError(
            f"X: column {column!r} holds dates written as {date_format}, and "
            f"{listing(unread, limit=3)}; write them in the same way, or convert them with "
            "pandas.to_datetime"
        )
    return found


def _warned_of(values: pd.Series[Any], column: str) -> bool:
    """Whether a column of categories looks like an identifier or free text.

    Warns if so, and of numbers that are written as text.
    """
    identifier = unusable_text(values) if values.notna().sum() >= _FEW_ROWS else None
    written = numbers_as_text(values)
    if written is not None:
        told = (
            f"counts as categories: {written} (pandas.to_numeric), or into pandas' type category, "
            "if they are codes"
        )
    elif identifier is not None:
        told = (
            f"has {identifier}. What it says of the training rows it cannot say of others: leave "
            "it out of X"
        )
    else:
        return False
    warnings.warn(f"X: column {column!r} {told}", UserWarning, stacklevel=callers_level())
    return identifier is not None


def _numbers(values: pd.Series[Any], column: str) -> pd.Series[Any]:
    """A column as float64, gaps as NaN; infinities are refused."""
    try:
        ready = values.astype("Float64").astype("float64")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"column {column!r} held numbers in training and now holds {values.dtype} that "
            f"cannot be read as numbers: {error}"
        ) from error
    if np.isinf(ready.to_numpy()).any():
        raise ValueError(
            f"Input X contains infinity in column {column!r}; use NaN for missing values"
        )
    return ready


def _only_booleans(values: pd.Series[Any]) -> bool:
    """Whether a column has booleans, and no other number."""
    kinds = {
        type(v) for v in values.dropna().astype(object) if isinstance(v, numbers.Real | np.bool_)
    }
    return bool(kinds) and kinds <= set(_BOOLEAN)


def _texts(values: pd.Series[Any], booleans: bool) -> pd.Series[Any]:
    """Categories as text; equal numbers have equal text, whatever their type."""

    def text(value: Any) -> str:
        if isinstance(value, (*_BOOLEAN, numbers.Real)) and float(value) % 1 == 0:
            whole = int(value if isinstance(value, numbers.Integral) else float(value))
            return str(bool(whole)) if booleans and whole in (0, 1) else str(whole)
        return str(value)

    gaps = values.isna().to_numpy()
    plain = values.astype(object).to_numpy()
    done = [None if gap else text(value) for value, gap in zip(plain, gaps, strict=True)]
    return pd.Series(done, index=values.index, dtype=object)


def _with_labels(
    known: Sequence[str], rare: Iterable[str], label: str
) -> list[tuple[str, str | None]]:
    """What each category is called, and how ``X`` has it; the rare ones are one, ``label``."""
    rare = set(rare)
    found: list[tuple[str, str | None]] = [
        (name, None if name == _MISSING else name) for name in known if name not in rare
    ]
    return [*found, (label, min(rare - {_MISSING}, default=None))] if rare else found


def _check_known(
    values: pd.Series[Any], texts: pd.Series[Any], known: list[str], column: str
) -> None:
    """Raise a `ValueError` if a column of categories is coded in another way; warn if it may be."""
    present = texts.dropna().unique()
    if len(present) == 0 or set(present) & set(known):
        return
    learned = listing((name for name in known if name != _MISSING), limit=6)
    plain = values.dropna().astype(object)
    other = all(isinstance(value, (*_BOOLEAN, numbers.Real)) for value in plain)
    had_numbers = any(_NUMBER.fullmatch(name) for name in known)
    said = (
        f"X: column {column!r} holds {listing(present, limit=6)}, none of which was among the "
        f"categories of training ({learned})"
    )
    # A few rows of new categories happen; in many, or with numbers for words, it is the coding.
    if (other and not had_numbers) or (len(present) > 1 and len(plain) >= _FEW_ROWS):
        raise ValueError(f"{said}; code the column as it was in training")
    if len(present) > 1:
        warnings.warn(
            f"{said}; if it is coded in another way than in training, code it as it was",
            UserWarning,
            stacklevel=callers_level(),
        )


def in_own_units(x: Tensor, encoder: RowEncoder) -> NDArray[np.float64]:
    """Encoded rows in the units of their columns, gaps filled; 0/1 features as exactly that."""
    encoded = x.numpy()
    units = np.empty(encoded.shape)
    for feature in range(encoded.shape[1]):
        units[:, feature] = own_values(encoded[:, feature], encoder, feature)
    return units


def own_values(
    encoded: NDArray[np.float64], encoder: RowEncoder, feature: int
) -> NDArray[np.float64]:
    """A feature's encoded values ``(n,)`` in its own units.

    Rounded as far as the single precision of encoded values is good for, so that a 3.1 in
    ``X`` is 3.1 again and lies on no side of a threshold of 3.1 but its own.
    """
    if encoder.binary[feature]:
        # A rare 1 was cut off and must not be read as a fraction; only a 1 lies above the mean.
        one: NDArray[np.float64] = (encoded > 0).astype(np.float64)
        return one
    scale = float(encoder.scale[feature])
    places = -math.ceil(math.log10(5e-7 * scale))
    values: NDArray[np.float64] = np.round(encoded * scale + encoder.center[feature], places)
    return values + 0.0  # no negative zeros


def standard_threshold(threshold: float, encoder: RowEncoder, feature: int) -> float:
    """The number that encoded values exceed just when their own values exceed a threshold."""

    def exceeds(encoded: float) -> bool:
        return bool(own_values(np.array([encoded]), encoder, feature)[0] > threshold)

    low, high = -2 * CLIP, 2 * CLIP
    if exceeds(low) or not exceeds(high):
        return low if exceeds(low) else high
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if exceeds(middle) else (middle, high)
    return low
