"""Sets of learned rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from torch import Tensor

from denograd.estimators import _plots as plots
from denograd.estimators._base import whole
from denograd.estimators._features import in_own_units, standard_threshold
from denograd.estimators._readable import COARSE, FINE, RuleReader, between, rounded, score_unit
from denograd.estimators._rule_plot import plot_rules
from denograd.estimators._short_rules import merged
from denograd.estimators._tasks import DenoGradClassifier, DenoGradRegressor
from denograd.models import Condition, Rule, RuleNet, TabularModel


@dataclass(kw_only=True, eq=False, repr=False)
class _RuleNet(RuleReader):
    _trees: ClassVar[bool] = False

    rules: int = 16
    conditions: int = 2
    thresholds: int = 2
    temperature: float = 0.25

    def _build(self, n_features: int, n_classes: int | None) -> TabularModel:
        sizes = (whole(self.rules), whole(self.conditions), whole(self.thresholds))
        return RuleNet(n_features, n_classes, *sizes, temperature=self.temperature)

    @property
    def _model(self) -> RuleNet:
        model = self.model_
        assert isinstance(model, RuleNet)
        return model

    @torch.no_grad()
    def _settle(self, x: Tensor) -> None:
        """Round what will be printed, in the columns' own units, and let the model run with it."""
        model, encoder = self._model, self._encoder
        rows = in_own_units(x, encoder)
        weight = model.thresholds.weight
        running = model._hard_thresholds(weight).numpy().copy()
        self._printed: dict[tuple[int, float], float] = {}
        for (feature, level), threshold in np.ndenumerate(running):
            spread = float(encoder.scale[feature])
            own = float(threshold) * spread + float(encoder.center[feature])
            if encoder.binary[feature]:
                # What is none of two categories is encoded as 0, and is not the one named.
                own = -0.5 if own < 0 else 1.5 if own >= 1 else 0.5
            else:
                own = between(own, ">", rows[:, feature], COARSE * spread)
            running[feature, level] = standard_threshold(own, encoder, feature)
            self._printed[feature, float(running[feature, level])] = own
        weight.copy_(torch.from_numpy(running))
        model.decimals = None
        head, bias = model.head.weight.detach(), model.head.bias.detach()
        if self._classes() is None:
            mean, scale = self._target_units()
            unit = FINE * scale
            head.apply_(lambda w: rounded(w * scale, unit) / scale)
            bias.apply_(lambda b: (rounded(b * scale + mean, unit) - mean) / scale)
            return
        unit = score_unit([*head.T.tolist(), bias.tolist()])
        for part in (head, bias):
            part.apply_(lambda score: rounded(score, unit))

    def _model_rules(self, x: Tensor) -> list[Rule]:
        return self._model.to_rules(None, self._class_names(), x)

    def _in_units(self, rules: Sequence[Rule], x: Tensor) -> list[Rule]:
        return merged(super()._in_units(rules, x), self._class_names())

    def _own_test(self, test: Condition, rows: NDArray[np.float64]) -> Condition:
        ((feature, _),) = test.terms
        return replace(test, threshold=self._printed[feature, test.threshold])

    def _forward(self, x: Tensor) -> NDArray[np.float64]:
        output = super()._forward(x)
        if self._classes() is None:
            return output
        # Equal sums are equal, however they were rounded on the way.
        return np.round(output, 9)

    @plots.as_written
    def plot(
        self,
        X: Any = None,
        *,
        figure: Figure | SubFigure | None = None,
        max_rules: int = 16,
    ) -> Figure | SubFigure:
        """Draw the rules with their weights, those that matter most first.

        Args:
            X: rows to count; None for the training rows.
            figure: to draw on; None for a new one.
            max_rules: rules to show.

        Returns:
            the figure.
        """
        rules = self.to_rules(X)
        return plot_rules(figure, rules, self._class_names(), max_rules, "Rules")


@dataclass(kw_only=True, eq=False, repr=False)
class RuleNetClassifier(_RuleNet, DenoGradClassifier):
    """Classes from learned rules whose scores add up; the rules are the model.

    The model is `denograd.models.RuleNet`. How it is trained, and what it takes, is said in
    `DenoGradEstimator` and `DenoGradClassifier`, whose parameters it has too. After
    training, thresholds and scores are rounded to what `to_text` prints, and the model runs with
    those: the text is the model, on all rows. It is taken at its word: of a column with the
    categories f and m, one that training did not see meets "not sex=m".

    Args:
        rules: number of rules.
        conditions: most conditions of a rule.
        thresholds: thresholds of a feature.
        temperature: how soft the conditions are that gradients see.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> model = RuleNetClassifier(rules=6, max_steps=20, random_state=0).fit(X, y)
        >>> bool((model.rule_predict(X) == model.predict(X)).all())
        True
    """


@dataclass(kw_only=True, eq=False, repr=False)
class RuleNetRegressor(_RuleNet, DenoGradRegressor):
    """Numbers from learned rules whose values add up; the rules are the model.

    The model is `denograd.models.RuleNet`. How it is trained, and what it takes, is said in
    `DenoGradEstimator` and `DenoGradRegressor`, whose parameters it has too. After
    training, thresholds are rounded to what `to_text` prints, and values to a thousandth of the
    target's deviation; the model runs with those: the text is the model, on all rows.

    Args:
        rules: number of rules; more than a classifier's, for a number takes more steps to tell
            than a class.
        conditions: most conditions of a rule.
        thresholds: thresholds of a feature.
        temperature: how soft the conditions are that gradients see.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> model = RuleNetRegressor(rules=6, max_steps=20, random_state=0).fit(X, X[:, 0])
        >>> model.fidelity(X) > 0.99
        True
    """

    rules: int = 32
