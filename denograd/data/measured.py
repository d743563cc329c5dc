"""Targets that are measured: numbers to predict, their units, and strata to split them by."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from denograd._callers import callers_level
from denograd.data.errors import TableError, TableWarning
from denograd.data.numbers import check_range

STRATA = 8
"""Groups of about equal size that a measured target is cut into for splitting."""


def checked_numbers(target: pd.Series[Any], where: str) -> pd.Series[float]:
    """The numbers that are not missing, if they can be predicted, as float64.

    Args:
        target: the column.
        where: the file or table, for messages.

    Raises:
        TableError: it holds text, dates or booleans, an infinite value, fewer than two
            distinct numbers, or numbers whose squares cannot be summed.

    Example:
        >>> checked_numbers(pd.Series([1, 2, 4], name="y"), "toy.csv").tolist()
        [1.0, 2.0, 4.0]
        >>> try:
        ...     checked_numbers(pd.Series(["1,5", "2"], name="y"), "toy.csv")
        ... except TableError as error:
        ...     print(str(error).split(";")[0])
        toy.csv: target 'y' holds '1,5', which is no number
    """
    column = f"{where}: target {target.name!r}"
    missing = target.isna()
    present = target[~missing]
    if pd.api.types.is_bool_dtype(present) or present.dtype.kind in "mMc":
        raise TableError(
            f"{column} holds {present.dtype}, and regression needs real numbers. Turn it into "
            "numbers, or use task='classification'."
        )
    numbers = pd.to_numeric(present.astype(object), errors="coerce").astype(np.float64)
    unreadable = present[numbers.isna()]
    if len(unreadable):
        raise TableError(
            f"{column} holds {str(unreadable.iloc[0])!r}, which is no number; regression needs "
            "numbers, with a point for the decimals. Mend the column, or use "
            "task='classification'."
        )
    infinite = int(np.isinf(numbers).sum())
    if infinite:
        raise TableError(f"{column} has {infinite} infinite values; remove those rows")
    if missing.any() and len(numbers):
        warnings.warn(
            f"{column}: {int(missing.sum())} of {len(target)} rows have no value; left out",
            TableWarning,
            stacklevel=callers_level(),
        )
    if numbers.nunique() < 2:
        only = f"only the value {numbers.iloc[0]:g}" if len(numbers) else "no value at all"
        raise TableError(f"{column} has {only}; there is nothing to predict. Name another column.")
    try:
        check_range(numbers, f"{column} has")
    except ValueError as error:
        raise TableError(str(error)) from None
    return numbers


def quantile_strata(values: ArrayLike, strata: int = STRATA) -> NDArray[np.int64]:
    """Groups of neighbouring values, of about equal size, to split by as if they were classes.

    Equal values are in one group, so that there may be fewer groups than asked for, and
    larger ones. No group has a single row (unless there is one row in all): it could be
    trained on or tested, but not both.

    Args:
        values: ``(rows,)``, finite numbers.
        strata: so many groups at most, and at most half as many as rows.

    Returns:
        ``(rows,)``, the groups from 0, in the order of the values.

    Raises:
        ValueError: the values are not one-dimensional or not finite, or ``strata`` is below 1.

    Example:
        >>> quantile_strata([5.0, 1.0, 9.0, 2.0], strata=2).tolist()
        [1, 0, 1, 0]
        >>> quantile_strata([0, 0, 0, 0, 0, 0, 3, 4], strata=4).tolist()
        [0, 0, 0, 0, 0, 0, 1, 1]
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(
            f"quantile_strata: values have shape {numbers.shape}; they must be (rows,) of finite "
            "numbers"
        )
    if strata < 1:
        raise ValueError(f"quantile_strata: strata={strata}; it must be at least 1")
    if len(numbers) == 0:
        return np.empty(0, dtype=np.int64)
    groups = max(1, min(strata, len(numbers) // 2))
    place = (rankdata(numbers) - 0.5) / len(numbers)
    codes = np.minimum((place * groups).astype(np.int64), groups - 1)
    sizes = np.bincount(codes, minlength=groups)
    for code in np.flatnonzero(sizes == 1):
        # It joins the group below, or the lowest one the group above.
        below, above = np.flatnonzero(sizes[:code]), np.flatnonzero(sizes[code + 1 :])
        if len(below) or len(above):
            other = below[-1] if len(below) else code + 1 + above[0]
            codes[codes == code] = other
            sizes[code], sizes[other] = 0, sizes[other] + 1
    compact: NDArray[np.int64] = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    return compact


@dataclass(frozen=True)
class TargetScale:
    """Between the units of a target and those that a model is trained in.

    A model sees the target less its mean, divided by its standard deviation, both of the
    training rows, as the regressors of `denograd.estimators` do.

    Attributes:
        mean: of the training rows.
        deviation: theirs (divided by n), or 1 if they are all the same.

    Example:
        >>> scale = TargetScale.fit([1.0, 3.0])
        >>> scale.standardise([1.0, 3.0, 5.0]).tolist(), scale.restore([3.0]).tolist()
        ([-1.0, 1.0, 3.0], [5.0])
    """

    mean: float
    deviation: float

    @classmethod
    def fit(cls, values: ArrayLike) -> Self:
        """Mean and deviation of training rows.

        Args:
            values: ``(rows,)``, finite numbers, at least one.

        Raises:
            ValueError: there is none, or one is not finite.
        """
        numbers = np.asarray(values, dtype=np.float64)
        if numbers.ndim != 1 or len(numbers) == 0 or not np.isfinite(numbers).all():
            raise ValueError(
                f"TargetScale.fit: values have shape {numbers.shape}; they must be (rows,) of "
                "finite numbers, at least one"
            )
        deviation = float(numbers.std())
        # Rounding leaves a little of a constant's deviation.
        constant = deviation <= 1e-12 * float(np.abs(numbers).max())
        return cls(float(numbers.mean()), 1.0 if constant else deviation)

    def standardise(self, values: ArrayLike) -> NDArray[np.float32]:
        """Values as a model is trained on them."""
        numbers = np.asarray(values, dtype=np.float64)
        standard: NDArray[np.float32] = ((numbers - self.mean) / self.deviation).astype(np.float32)
        return standard

    def restore(self, standard: ArrayLike) -> NDArray[np.float64]:
        """A model's output in the units of the target."""
        values: NDArray[np.float64] = (
            np.asarray(standard, dtype=np.float64) * self.deviation + self.mean
        )
        return values
