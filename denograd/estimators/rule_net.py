"""Sets of learned rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from denograd.estimators._base import whole
from denograd.estimators._readable import RuleReader
from denograd.estimators._rule_plot import plot_rules
from denograd.estimators._tasks import DenoGradClassifier, DenoGradRegressor
from denograd.models import Rule, RuleNet, TabularModel


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

    def _model_rules(self, x: Tensor) -> list[Rule]:
        assert isinstance(self.model_, RuleNet)
        return self.model_.to_rules(None, self._class_names(), x)

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
    `DenoGradEstimator` and `DenoGradClassifier`, whose parameters it has too. On the
    training rows the printed rules predict exactly what the model predicts.

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
    `DenoGradEstimator` and `DenoGradRegressor`, whose parameters it has too. Values are
    printed to a thousandth of the target's deviation.

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
