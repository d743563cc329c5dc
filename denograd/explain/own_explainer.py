"""The explanations that models give of themselves, through one interface."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from denograd._modes import evaluating
from denograd.estimators import DenoGradEstimator
from denograd.explain._checks import as_numbers
from denograd.explain._subject import Subject
from denograd.explain.own import own_attributions


class OwnExplainer:
    """A model's own explanation of each row, made of the parts that make its prediction.

    - `FeatureAttention`, `TemporalAttention`: the mean of the heads' weights; no direction.
    - `SoftTree`, `SoftForest`: contributions of the gates on a row's way.
    - `AdditiveNet`: what each feature adds.
    - `RuleNet`: the weights of the rules that hold.
    - `PrototypeNet`: how much nearer a feature brings the row to the prototypes of its class.

    What exactly, and in which units, each file of `denograd.explain.own` says.

    Args:
        model: one of `denograd.models`, whose rows are then those it was trained on, encoded; or
            a fitted estimator of `denograd.estimators`, whose rows are like those of its `fit`
            and whose attributions are to their columns (features made of one column are summed).
        baseline: the row that trees and additive nets compare with, ``(F,)``, in the model's
            encoded features; None for zeros, the mean of standardised features.

    Raises:
        TypeError: ``model`` is neither, or has no explanation of its own.
        ValueError: ``baseline`` holds NaN or infinity.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from denograd.estimators import AdditiveNetClassifier
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> model = AdditiveNetClassifier(max_steps=20, random_state=0).fit(X, y)
        >>> explainer = OwnExplainer(model)
        >>> explainer(X).shape, explainer(X, target=2).shape
        ((150, 4), (150, 4))
    """

    def __init__(self, model: nn.Module | DenoGradEstimator, *, baseline: Any = None) -> None:
        self._subject = Subject("OwnExplainer", model)
        # An unknown module is refused now, and not when its rows come.
        if self._subject.estimator is None:
            known = own_attributions.dispatch(type(model))
            if known is own_attributions.dispatch(object):
                own_attributions(model, torch.empty(0), None, torch.empty(0))
        finite = "give a finite number for each feature"
        self.baseline = None if baseline is None else as_numbers("baseline", baseline, finite)

    @torch.no_grad()
    def __call__(self, x: Any, target: Any = None) -> NDArray[np.float64]:
        """Explain rows.

        Args:
            x: rows, ``(n, F)``.
            target: class to explain, for all rows or ``(n,)``: class numbers, or labels of an
                estimator; None for the predicted ones.

        Returns:
            ``(n, F)``, or ``(n, columns)`` for an estimator.

        Raises:
            ValueError: a shape is wrong, ``target`` is no class, or a number is not finite.
        """
        module = self._subject.module
        rows = self._subject.rows(x)
        features = rows[0].numel()
        base = rows.new_zeros(features)
        if self.baseline is not None:
            if self.baseline.shape != (features,):
                raise ValueError(
                    f"baseline: it has shape {self.baseline.shape}; it must be ({features},), a "
                    "value for each of the model's features"
                )
            base = torch.from_numpy(self.baseline).to(rows)
        with evaluating(module):
            targets = self._subject.targets(target, module(rows))
            said = own_attributions(module, rows, targets, base)
        return self._subject.by_column(said)
