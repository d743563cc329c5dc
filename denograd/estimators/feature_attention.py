"""Attention over named features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure, SubFigure
from sklearn.utils.validation import check_is_fitted

from denograd.estimators import _plots as plots
from denograd.estimators._base import DenoGradEstimator, whole
from denograd.estimators._sample import SeenRows
from denograd.estimators._tasks import DenoGradClassifier, DenoGradRegressor
from denograd.models import FeatureAttention, TabularModel

_ROWS_SHOWN = 40


@dataclass(kw_only=True, eq=False, repr=False)
class _FeatureAttention(DenoGradEstimator):
    width: int = 8
    heads: int = 2
    normalize: Literal["softmax", "sparsemax", "entmax"] = "softmax"

    def _build(self, n_features: int, n_classes: int | None) -> TabularModel:
        width, heads = whole(self.width), whole(self.heads)
        return FeatureAttention(n_features, n_classes, width, heads, self.normalize)

    @torch.no_grad()
    def _summarise(self, rows: SeenRows) -> None:
        mean = self._model.attention(rows.x).mean(0).numpy()
        self._mean_attention = self._by_column(mean, pd.RangeIndex(len(mean)))

    @property
    def _model(self) -> FeatureAttention:
        model = self.model_
        assert isinstance(model, FeatureAttention)
        return model

    @torch.no_grad()
    def explain(self, X: Any) -> pd.DataFrame:
        """How much each row's prediction attends to each column of ``X``.

        The mean of the heads' weights. Features that were made of one column (its
        categories, its indicator of missing values) are summed; a column that is not used
        has 0. Each head by itself: ``model_.attention``.

        Args:
            X: ``(n, columns)``.

        Returns:
            a row for each of ``X``, with its index, and a column for each; rows sum to 1.
        """
        x, index = self._encoded(X)
        return self._by_column(self._model.attention(x).mean(1).numpy(), index)

    @plots.as_written
    def plot(
        self,
        X: Any = None,
        *,
        figure: Figure | SubFigure | None = None,
        max_features: int = 15,
    ) -> Figure | SubFigure:
        """Draw the attention weights.

        Args:
            X: rows to show, each a line of a heat map (at most 40 of them); None for the
                mean over the training rows, as bars with a mark for each head.
            figure: to draw on; None for a new one.
            max_features: columns to show, those with the largest weights first.

        Returns:
            the figure.
        """
        if X is None:
            check_is_fitted(self, "model_")
            return self._plot_mean(figure, max_features)
        weights = self.explain(X)
        order = weights.mean().sort_values(ascending=False, kind="stable").index[:max_features]
        shown = weights[order].iloc[:_ROWS_SHOWN]
        predicted = self.predict(X)[: len(shown)]
        labels = [
            f"{row} → {plots.figures_of(p) if isinstance(p, float) else p}"
            for row, p in zip(shown.index, predicted.tolist(), strict=True)
        ]
        figure = plots.canvas(
            figure, 2.6 + 0.42 * max(len(order), 6), 1.7 + 0.24 * max(len(shown), 4)
        )
        axes = figure.subplots()
        image = plots.heat_map(axes, shown.to_numpy(), labels, list(order))
        axes.set_ylabel("row → prediction", fontsize=plots.FONT)
        plots.bar_scale(figure, image, axes, "attention weight")
        hidden = len(weights) - len(shown)
        tail = f" (first {len(shown)} of {len(weights)} rows)" if hidden else ""
        axes.set_title(f"Attention by row{tail}", fontsize=plots.FONT + 1, loc="left")
        return figure

    def _plot_mean(self, figure: Figure | SubFigure | None, most: int) -> Figure | SubFigure:
        heads = self._mean_attention
        mean = heads.mean().sort_values(ascending=False, kind="stable")[:most]
        figure = plots.canvas(figure, 6.4, 1.3 + 0.3 * len(mean))
        axes = figure.subplots()
        places = np.arange(len(mean))
        axes.barh(places, mean.to_numpy(), color=plots.colour(0), alpha=0.85, height=0.62)
        for head, weights in heads[mean.index].iterrows():
            axes.plot(weights, places, marker="|o^sDv"[(int(str(head)) + 1) % 6], linestyle="none",
                      markersize=5, markerfacecolor="white", markeredgecolor=plots.INK,
                      label=f"head {int(str(head)) + 1}")  # fmt: skip
        # A column of many categories is many features, and equal weights give it many shares.
        sources = self._encoder.sources
        features = np.bincount(sources, minlength=heads.shape[1])
        equal = pd.Series(features / len(sources), heads.columns)[mean.index]
        axes.vlines(equal, places - 0.42, places + 0.42, color=plots.FAINT, linewidth=1.5,
                    linestyle=(0, (3, 2)), label="if all features weighed the same")  # fmt: skip
        axes.set_yticks(places, [plots.shortened(name) for name in mean.index])
        axes.set_ylim(len(mean) - 0.4, -0.6)
        axes.set_xlim(0, None)
        axes.set_xlabel("mean attention weight over the training rows", fontsize=plots.FONT)
        plots.tidy(axes, grid="x")
        axes.legend(fontsize=plots.FONT - 1, frameon=False, loc="lower right")
        return figure


@dataclass(kw_only=True, eq=False, repr=False)
class FeatureAttentionClassifier(_FeatureAttention, DenoGradClassifier):
    """Classes from heads that weigh named features; the weights are the explanation.

    The model is `denograd.models.FeatureAttention`. How it is trained, and what it takes,
    is said in `DenoGradEstimator` and `DenoGradClassifier`, whose parameters it has too.

    Args:
        width: size of a feature's token.
        heads: number of heads, at most ``width``.
        normalize: how scores become weights; ``"sparsemax"`` and ``"entmax"`` give features
            that do not matter a weight of exactly 0.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> model = FeatureAttentionClassifier(max_steps=20, random_state=0).fit(X, y)
        >>> model.predict_proba(X).shape
        (150, 3)
        >>> list(model.explain(X).columns) == list(X.columns)
        True
    """


@dataclass(kw_only=True, eq=False, repr=False)
class FeatureAttentionRegressor(_FeatureAttention, DenoGradRegressor):
    """Numbers from heads that weigh named features; the weights are the explanation.

    The model is `denograd.models.FeatureAttention`. How it is trained, and what it takes,
    is said in `DenoGradEstimator` and `DenoGradRegressor`, whose parameters it has too.

    Args:
        width: size of a feature's token.
        heads: number of heads, at most ``width``.
        normalize: how scores become weights; ``"sparsemax"`` and ``"entmax"`` give features
            that do not matter a weight of exactly 0.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> model = FeatureAttentionRegressor(max_steps=20, random_state=0).fit(X, X[:, 0])
        >>> model.predict(X).shape, list(model.explain(X).columns)
        ((50,), ['x0', 'x1', 'x2'])
    """
