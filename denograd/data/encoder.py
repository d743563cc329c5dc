"""From a table's columns to the numbers a model sees, by scikit-learn."""

from __future__ import annotations

import warnings
from typing import Any, Self, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from denograd.data.columns import ColumnPlan
from denograd.data.dates import PARTS, DateParts
from denograd.data.errors import TableError
from denograd.data.numbers import CLIP

MAX_CATEGORIES = 12
"""Categories of a column that get a feature of their own; the rarest share the last one."""


class Encoder:
    """Impute, one-hot encode and standardise; everything estimated on training rows.

    Numbers and dates get the median where a value is missing, and one indicator of that
    if it happens in training rows. Categories become 0/1 columns (one for two categories),
    missing values a category of their own, unknown ones the rare categories' column or
    zeros. Columns that are constant in the training rows are left out: their weights
    would stay at random. All columns then are standardised and clipped to ``[-8, 8]``.

    Args:
        plan: kinds of the columns, see `denograd.data.plan_columns`.

    Attributes:
        feature_names_: names of the columns of the output, after `fit`.

    Raises:
        TableError: by `fit`, if every column is constant in the training rows, or two features
            would have the same name.

    Example:
        >>> frame = pd.DataFrame({"x": [1.0, None, 3.0], "c": ["a", "b", "c"]})
        >>> encoder = Encoder(ColumnPlan(numeric=("x",), category=("c",))).fit(frame)
        >>> encoder.feature_names_
        ('x', 'x_missing', 'c=a', 'c=b', 'c=c')
        >>> encoder.transform(frame).shape
        (3, 5)
    """

    def __init__(self, plan: ColumnPlan) -> None:
        self.plan = plan

    def fit(self, frame: pd.DataFrame) -> Self:
        """Estimate medians, categories, means and deviations from training rows."""
        columns = make_pipeline(_column_transformer(self.plan))
        encoded = columns.fit_transform(frame)
        if not (np.ptp(encoded, axis=0) > 0).any():
            raise TableError(
                f"every column is constant in the {len(frame)} training rows; train on more "
                "rows, or give columns that vary"
            )
        scale: Pipeline = make_pipeline(VarianceThreshold(), StandardScaler())
        scale.fit(encoded)
        self._columns, self._scale = columns, scale
        try:
            names = columns.get_feature_names_out()
        except ValueError as error:
            # scikit-learn lists all that it made; what clashes is a name like "x_missing".
            raise TableError(
                "a column has the name of something that is made of another one, such as "
                f"'x_missing', which says where 'x' is missing; rename it ({error})"
            ) from error
        self.feature_names_ = tuple(str(n) for n in scale.get_feature_names_out(names))
        return self

    def transform(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """Rows as numbers, ``(rows, columns)`` to ``(rows, len(feature_names_))``."""
        with warnings.catch_warnings():
            # Unknown categories are expected with few training rows, and handled.
            warnings.filterwarnings("ignore", "Found unknown categories", UserWarning)
            scaled = self._scale.transform(self._columns.transform(frame))
        clipped: NDArray[np.float32] = np.clip(scaled, -CLIP, CLIP).astype(np.float32)
        return clipped


def _column_transformer(plan: ColumnPlan) -> ColumnTransformer:
    parts: list[tuple[str, BaseEstimator, list[str]]] = []
    if plan.numeric:
        numbers = FunctionTransformer(_to_numbers, feature_names_out="one-to-one")
        parts.append(("numeric", make_pipeline(numbers, _filled()), list(plan.numeric)))
    if plan.date:
        dates = make_pipeline(DateParts(dict(plan.date)), _filled(_DateIndicator))
        parts.append(("date", dates, list(plan.date)))
    if plan.category:
        text = FunctionTransformer(_to_text, feature_names_out="one-to-one")
        one_hot = OneHotEncoder(
            drop="if_binary",
            handle_unknown="infrequent_if_exist",
            max_categories=MAX_CATEGORIES,
            sparse_output=False,
            feature_name_combiner=_category_name,
        )
        parts.append(("category", make_pipeline(text, one_hot), list(plan.category)))
    return ColumnTransformer(parts, verbose_feature_names_out=False)


def _filled(indicate: type[_NamedIndicator] | None = None) -> FeatureUnion:
    """The columns with the median in their gaps, and indicators of the gaps."""
    median = SimpleImputer(strategy="median", keep_empty_features=True)
    indicator = (indicate or _NamedIndicator)(features="missing-only", error_on_new=False)
    return FeatureUnion(
        [("value", median), ("missing", indicator)], verbose_feature_names_out=False
    )


class _NamedIndicator(MissingIndicator):  # type: ignore[misc]
    """scikit-learn's indicator, its columns named ``x_missing``."""

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[Any]:
        """Names of the columns that had gaps, each with ``_missing`` behind it."""
        names = self.feature_names_in_ if input_features is None else np.asarray(input_features)
        return np.array([f"{name}_missing" for name in names[self.features_]], object)


class _DateIndicator(_NamedIndicator):
    """One indicator for each date, whose parts are missing together: ``x_missing``."""

    def fit(self, X: NDArray[np.float64], y: ArrayLike | None = None) -> Self:
        """Find the dates with gaps."""
        return cast(Self, super().fit(X[:, :: len(PARTS)], y))

    def transform(self, X: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Where these are missing, ``(rows, dates with gaps)``."""
        return np.asarray(super().transform(X[:, :: len(PARTS)]))

    def fit_transform(self, X: NDArray[np.float64], y: ArrayLike | None = None) -> Any:
        """Both."""
        return self.fit(X, y).transform(X)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[Any]:
        """Names of the dates that had gaps, each with ``_missing`` behind it."""
        parts = [str(name) for name in np.asarray(input_features)[:: len(PARTS)]]
        names = [name.removesuffix(f"_{PARTS[0]}") for name in parts]
        return super().get_feature_names_out(np.array(names, dtype=object))


def _to_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """float64 with infinities as gaps; pandas' nullable numbers become plain ones."""
    numbers: pd.DataFrame = frame.astype("Float64").astype("float64")
    return numbers.replace([np.inf, -np.inf], np.nan)


def _to_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Plain strings, because a column may mix booleans, numbers and text."""
    text = frame.astype(object)
    return text.where(frame.notna(), "(missing)").map(str).astype(object)


def _category_name(column: str, category: object) -> str:
    return f"{column}={category}"
