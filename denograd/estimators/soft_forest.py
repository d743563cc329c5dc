"""Sums of soft trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from torch import Tensor

from denograd.estimators import _plots as plots
from denograd.estimators._base import whole
from denograd.estimators._readable import RuleReader
from denograd.estimators._rule_plot import plot_rules
from denograd.estimators._tasks import DenoGradClassifier, DenoGradRegressor
from denograd.models import Rule, SoftForest, TabularModel

_TERMS = 3


@dataclass(kw_only=True, eq=False, repr=False)
class _SoftForest(RuleReader):
    trees: int = 8
    depth: int = 3
    oblivious: bool = False
    temperature: float = 1.0

    def _build(self, n_features: int, n_classes: int | None) -> TabularModel:
        trees, depth = whole(self.trees), whole(self.depth)
        return SoftForest(
            n_features, n_classes, trees, depth, self.oblivious, temperature=self.temperature
        )

    def _model_rules(self, x: Tensor) -> list[Rule]:
        assert isinstance(self.model_, SoftForest)
        names = self._class_names()
        return self.model_.to_rules(None, names, x, max_terms=_TERMS, digits=6)

    def _tree_outputs(self, x: Tensor) -> NDArray[np.float64]:
        assert isinstance(self.model_, SoftForest)
        paths = self.model_.log_path_probabilities(x).exp()
        says: NDArray[np.float64] = torch.einsum(
            "ntl,tlo->nto", paths, self.model_.leaves.weight
        ).numpy()
        return says

    @torch.no_grad()
    def _certainty(self, x: Tensor, held: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        assert isinstance(self.model_, SoftForest)
        paths = self.model_.log_path_probabilities(x).exp().flatten(1).numpy()
        leaves = held[:, : paths.shape[1]]
        certain: NDArray[np.float64] = (paths * leaves).sum(1) / self.model_.trees
        return certain

    @plots.as_written
    def plot(
        self,
        X: Any = None,
        *,
        figure: Figure | SubFigure | None = None,
        max_rules: int = 12,
    ) -> Figure | SubFigure:
        """Draw the leaves that matter most, as rules with their weights.

        Args:
            X: rows to count; None for the training rows.
            figure: to draw on; None for a new one.
            max_rules: leaves to show.

        Returns:
            the figure.
        """
        rules = self.to_rules(X)
        agreement = self._trained_fidelity if X is None else self.fidelity(X)
        assert isinstance(self.model_, SoftForest)
        heading = f"Leaves of {self.model_.trees} trees as rules; fidelity {agreement:.2f}"
        return plot_rules(figure, rules, self._class_names(), max_rules, heading)


@dataclass(kw_only=True, eq=False, repr=False)
class SoftForestClassifier(_SoftForest, DenoGradClassifier):
    """Classes from soft trees whose scores add up; the leaves of a row are the explanation.

    The model is `denograd.models.SoftForest`. How it is trained, and what it takes, is said
    in `DenoGradEstimator` and `DenoGradClassifier`, whose parameters it has too.

    Args:
        trees: number of trees.
        depth: number of gates on a path.
        oblivious: whether the nodes of a level share their gate, which then looks at few
            features.
        temperature: how soft the gates are; near 0 the trees are hard.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> forest = SoftForestClassifier(trees=4, max_steps=20, random_state=0).fit(X, y)
        >>> len(forest.to_rules()), len(forest.explain(X)["fired"].iloc[0])
        (32, 4)
    """


@dataclass(kw_only=True, eq=False, repr=False)
class SoftForestRegressor(_SoftForest, DenoGradRegressor):
    """Numbers from soft trees whose values add up; the leaves of a row are the explanation.

    The model is `denograd.models.SoftForest`. How it is trained, and what it takes, is said
    in `DenoGradEstimator` and `DenoGradRegressor`, whose parameters it has too.

    Args:
        trees: number of trees.
        depth: number of gates on a path.
        oblivious: whether the nodes of a level share their gate, which then looks at few
            features.
        temperature: how soft the gates are; near 0 the trees are hard.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> forest = SoftForestRegressor(max_steps=20, random_state=0).fit(X, X[:, 0])
        >>> forest.predict(X).shape
        (50,)
    """
