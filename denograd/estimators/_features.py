"""From what scikit-learn's users pass as ``X`` to the numbers a model sees.

The encoding itself is `denograd.data.Encoder`'s. What is added here is what an estimator
needs around it: arrays as well as DataFrames, the kind of each column from its type alone
(nothing is left out because it looks like an identifier), and the way back from encoded
features to the columns of ``X`` and to their own units.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from denograd.data.columns import ColumnPlan
from denograd.data.encoder import Encoder

_INTERNAL = re.compile(r"f(\d+)(.*)", re.DOTALL)


class RowEncoder(Protocol):
    """What turns rows into the numbers of a model.

    Attributes:
        columns: names of the columns of ``X``.
        names: names of the encoded features, in the words of ``columns``.
        sources: for each encoded feature, the number of the column it came from.
        center, scale: an encoded feature is ``(value - center) / scale``, cut off at the ends.
        binary: for each encoded feature, whether its value is 0 or 1.
    """

    columns: list[str]
    names: list[str]
    sources: NDArray[np.int64]
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    binary: NDArray[np.bool_]

    def transform(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """Rows as numbers, ``(rows, columns)`` to ``(rows, features)``."""
        ...


class TableEncoder:
    """Columns of numbers, dates and categories as standardised features.

    Args:
        frame: training rows, in the form that `as_frame` gives them.
        columns: names of its columns.

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
        self._kinds = [_kind(frame[name], self.columns[i]) for i, name in enumerate(frame.columns)]
        frame = self._checked(frame)
        by_kind = {
            kind: tuple(n for n, k in zip(frame.columns, self._kinds, strict=True) if k == kind)
            for kind in ("number", "category", "date")
        }
        plan = ColumnPlan(by_kind["number"], by_kind["category"], dict.fromkeys(by_kind["date"]))
        self._encoder = Encoder(plan).fit(frame)
        parts = [_INTERNAL.fullmatch(name) for name in self._encoder.feature_names_]
        self.sources = np.array([int(part[1]) for part in parts if part], dtype=np.int64)
        self.names = [
            self.columns[int(part[1])] + part[2].replace("=infrequent_sklearn", "=(other)")
            for part in parts
            if part
        ]
        scaler = self._encoder._scale[-1]
        self.center = np.asarray(scaler.mean_, dtype=np.float64)
        self.scale = np.asarray(scaler.scale_, dtype=np.float64)
        self.binary = np.array([bool(part[2][:1] == "=" or part[2] == "_missing")
                                for part in parts if part])  # fmt: skip

    def transform(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """Rows as numbers, ``(rows, columns)`` to ``(rows, len(names))``.

        Raises:
            ValueError: a column that held numbers or dates holds something else.
        """
        return self._encoder.transform(self._checked(frame))

    def _checked(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Numbers as float64, dates as dates; the rest as it is."""
        ready = {}
        for (name, values), column, kind in zip(
            frame.items(), self.columns, self._kinds, strict=True
        ):
            if kind == "number":
                ready[name] = _numbers(values, column)
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


def _kind(values: pd.Series[Any], column: str) -> str:
    """``number``, ``category`` or ``date``, from a column's type."""
    dtype = values.dtype
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "date"
    if pd.api.types.is_bool_dtype(dtype) or isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if pd.api.types.is_complex_dtype(dtype):
        raise ValueError(f"Complex data not supported: column {column!r} has type {dtype}")
    if pd.api.types.is_numeric_dtype(dtype):
        return "number"
    if pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype):
        present = values.dropna()
        numeric = [isinstance(v, (int, float)) and not isinstance(v, bool) for v in present]
        if numeric and all(numeric):
            return "number"
        strange = [v for v in present if not isinstance(v, (str, bool, int, float))]
        if strange:
            raise ValueError(
                f"column {column!r} holds values of type {type(strange[0]).__name__}; give "
                "numbers, text, booleans, categories or dates"
            )
        return "category"
    raise ValueError(
        f"column {column!r} has type {dtype}; give numbers, text, booleans, categories or dates"
    )


def _numbers(values: pd.Series[Any], column: str) -> pd.Series[Any]:
    """A column as float64, gaps as NaN; infinities are refused."""
    try:
        numbers = values.astype("Float64").astype("float64")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"column {column!r} held numbers in training and now holds {values.dtype} that "
            f"cannot be read as numbers: {error}"
        ) from error
    if np.isinf(numbers.to_numpy()).any():
        raise ValueError(
            f"Input X contains infinity in column {column!r}; use NaN for missing values"
        )
    return numbers
