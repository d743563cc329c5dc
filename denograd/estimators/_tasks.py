"""Classification and regression: what becomes of ``y``, and of the model's output."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite
from torch import Tensor
from torch.nn import functional as F

from denograd.data.numbers import check_range
from denograd.estimators._base import DenoGradEstimator
from denograd.estimators._rows import TrainingRows, class_weights


@dataclass(kw_only=True, eq=False, repr=False)
class DenoGradClassifier(ClassifierMixin, DenoGradEstimator, ABC):  # type: ignore[misc]
    """A model of class labels, trained on the cross entropy.

    Args:
        class_weight: weight of each class in the loss by its label (1 for those not named),
            or ``"balanced"`` for weights inversely proportional to the classes' frequency.

    Attributes:
        classes_: ``(C,)``, the labels in their own order.
    """

    class_weight: Mapping[Any, float] | str | None = None

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Go once through some rows, keeping model and optimizer.

        Preprocessing is estimated from the rows of the first call; so give it enough of
        them.

        Args:
            X: ``(n, columns)``; at least two rows in the first call.
            y: ``(n,)``, labels.
            classes: all labels that will ever come; needed in the first call.
            sample_weight: ``(n,)``, at least 0.

        Returns:
            the estimator.

        Raises:
            ValueError: ``classes`` is missing at the first call or changes later, ``y`` holds
                another label, or ``class_weight="balanced"``, which needs all rows.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "partial_fit does not know how frequent classes will be, which "
                "class_weight='balanced' needs; give a dict of weights"
            )
        first = not hasattr(self, "model_")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if classes is not None:
            given = np.asarray(classes)
            if pd.isna(given).any():
                raise ValueError(
                    f"{type(self).__name__}: classes={list(given)!r} holds a missing value; name "
                    "labels alone"
                )
            given = np.unique(given)
            if not first and not np.array_equal(given, self.classes_):
                raise ValueError(
                    f"classes={given.tolist()} is not the same as in the first call, "
                    f"{self.classes_.tolist()}"
                )
            self._announced: NDArray[Any] | None = given
        try:
            return self._partial_fit(X, y, sample_weight)
        finally:
            self._announced = None

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Scores: ``(n,)`` for two classes (above 0: the second), else ``(n, C)``."""
        output = self._output(X)
        return output[:, 1] - output[:, 0] if output.shape[1] == 2 else output

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities, ``(n, C)``, in the order of ``classes_``."""
        probabilities: NDArray[np.float64] = softmax(self._output(X), axis=1)
        return probabilities

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Logarithms of the probabilities, ``(n, C)``."""
        logarithms: NDArray[np.float64] = log_softmax(self._output(X), axis=1)
        return logarithms

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest label of each row, ``(n,)``."""
        codes = self._output(X).argmax(axis=1)
        chosen: NDArray[Any] = self.classes_[codes]
        return chosen

    def _check_target(self, y: Any) -> NDArray[Any]:
        labels = column_or_1d(y, warn=True)
        gaps = np.flatnonzero(np.asarray(pd.isna(labels)))
        if len(gaps):
            raise ValueError(
                f"{type(self).__name__}: Input y contains NaN or another missing value, first in "
                f"row {gaps[0]}; leave out the rows without a label"
            )
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        return np.asarray(labels)

    def _fit_target(self, target: NDArray[Any], first: bool) -> None:
        announced = getattr(self, "_announced", None)
        present = np.unique(target)
        if first:
            classes = present if announced is None else announced
            if len(classes) < 2:
                raise ValueError(
                    f"{type(self).__name__}: y has one class, {classes.tolist()[0]!r}; at least "
                    "2 classes are needed (rows with weight 0 do not count)"
                )
            self.classes_ = classes
        strange = np.setdiff1d(present, self.classes_)
        if len(strange):
            raise ValueError(
                f"{type(self).__name__}: y has class {strange.tolist()[0]!r}, which is not among "
                f"the classes that the model was made for, {self.classes_.tolist()}; fit anew "
                "(warm_start=False), or name all classes in the first partial_fit"
            )

    def _encode_target(self, rows: TrainingRows) -> tuple[Tensor, NDArray[np.float64] | None]:
        codes = np.searchsorted(self.classes_, rows.target)
        weight = class_weights(self.class_weight, self.classes_, codes, rows.weight)
        return torch.from_numpy(codes), weight

    def _row_loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction="none")

    def _classes(self) -> int | None:
        return len(self.classes_)

    def _strata(self, rows: TrainingRows) -> NDArray[Any] | None:
        return rows.target

    def _class_names(self) -> list[str] | None:
        return [str(label) for label in self.classes_]


@dataclass(kw_only=True, eq=False, repr=False)
class DenoGradRegressor(RegressorMixin, DenoGradEstimator, ABC):  # type: ignore[misc]
    """A model of numbers, trained on the squared error of the standardised target.

    Attributes:
        target_mean_: mean of ``y`` over the training rows.
        target_scale_: its standard deviation, 1 if that is 0.
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Go once through some rows, keeping model and optimizer.

        Preprocessing, the target's mean and deviation included, is estimated from the rows
        of the first call; so give it enough of them.

        Args:
            X: ``(n, columns)``; at least two rows in the first call.
            y: ``(n,)``, finite numbers.
            sample_weight: ``(n,)``, at least 0.

        Returns:
            the estimator.

        Raises:
            ValueError: what `fit` refuses, or ``early_stopping=True``.
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predicted values, ``(n,)``, in the units of ``y``."""
        standard = self._output(X)[:, 0]
        return standard * self.target_scale_ + self.target_mean_

    def _check_target(self, y: Any) -> NDArray[Any]:
        numbers = column_or_1d(y, warn=True)
        if np.iscomplexobj(numbers):
            raise ValueError("Complex data not supported: y")
        if numbers.dtype.kind in "mM":
            raise ValueError(
                f"{type(self).__name__}: y holds {numbers.dtype}; it must hold numbers, such as "
                "days since some date"
            )
        try:
            numbers = np.asarray(numbers, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{type(self).__name__}: y must hold numbers: {error}; for labels use a classifier"
            ) from error
        assert_all_finite(numbers, input_name="y")
        check_range(numbers, f"{type(self).__name__}: y holds")
        return numbers

    def _fit_target(self, target: NDArray[Any], first: bool) -> None:
        """Nothing has to be known of rows that are held out."""

    def _standardise_target(self, target: NDArray[Any]) -> None:
        self.target_mean_ = float(target.mean())
        deviation = float(target.std())
        # Rounding leaves a little of a constant's deviation.
        constant = deviation <= 1e-12 * float(np.abs(target).max())
        self.target_scale_ = 1.0 if constant else deviation

    def _encode_target(self, rows: TrainingRows) -> tuple[Tensor, NDArray[np.float64] | None]:
        standard = (rows.target - self.target_mean_) / self.target_scale_
        return torch.from_numpy(standard).float(), rows.weight

    def _row_loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output[:, 0] - target).square()

    def _classes(self) -> int | None:
        return None

    def _strata(self, rows: TrainingRows) -> NDArray[Any] | None:
        return None

    def _class_names(self) -> list[str] | None:
        return None
