"""Neural additive models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from denograd.estimators import _plots as plots
from denograd.estimators._base import DenoGradEstimator, whole
from denograd.estimators._readable import in_own_units
from denograd.estimators._rows import TrainingRows
from denograd.estimators._tasks import DenoGradClassifier, DenoGradRegressor
from denograd.models import AdditiveNet, TabularModel

_GRID = 101
_BINS = 24


class _Density(NamedTuple):
    """How the rows lie along a feature: edges ``(bins + 1,)`` and shares ``(bins,)``."""

    edges: NDArray[np.float64]
    share: NDArray[np.float64]


@dataclass(kw_only=True, eq=False, repr=False)
class _AdditiveNet(DenoGradEstimator):
    width: int = 16
    pairs: Sequence[tuple[int | str, int | str]] = ()

    def _build(self, n_features: int, n_classes: int | None) -> TabularModel:
        return AdditiveNet(n_features, n_classes, whole(self.width), self._encoded_pairs())

    def _encoded_pairs(self) -> list[tuple[int, int]]:
        """Each pair of columns as all pairs of the features that they became."""
        done: list[tuple[int, int]] = []
        for first, second in self._column_pairs():
            own = [np.flatnonzero(self._encoder.sources == c) for c in (first, second)]
            done += [(int(a), int(b)) for a in own[0] for b in own[1]]
        return done

    def _column_pairs(self) -> list[tuple[int, int]]:
        names = self._encoder.columns
        done = []
        for pair in self.pairs:
            if isinstance(pair, str) or len(pair) != 2:
                raise ValueError(f"pairs holds {pair!r}; a pair is two columns of X")
            columns = []
            for column in pair:
                if isinstance(column, str) and column in names:
                    columns.append(names.index(column))
                elif not isinstance(column, str) and 0 <= whole(column) < len(names):
                    columns.append(whole(column))
                else:
                    raise ValueError(
                        f"pairs names {column!r}, which is no column of X; give a name or a number "
                        f"from 0 to {len(names) - 1}"
                    )
            if columns[0] == columns[1]:
                raise ValueError(f"pairs holds {pair!r}; a pair is two different columns")
            done.append((columns[0], columns[1]))
        if len({frozenset(pair) for pair in done}) < len(done):
            raise ValueError(f"pairs={self.pairs!r} names a pair twice; give each once")
        return done

    @property
    def _model(self) -> AdditiveNet:
        model = self.model_
        assert isinstance(model, AdditiveNet)
        return model

    @torch.no_grad()
    def _summarise(self, rows: TrainingRows, x: Tensor) -> None:
        parts = self._model.contributions(x).numpy()
        weight = np.ones(len(x)) if rows.weight is None else rows.weight
        self._mean_parts = np.average(parts, axis=0, weights=weight)
        self._spread = parts.std(0).sum(-1)
        self._densities = [_density(v) for v in in_own_units(x, self._encoder).T]

    def _units(self) -> float:
        """What a contribution of 1 is in the units of the target."""
        return 1.0

    def _offset(self) -> float:
        return 0.0

    @torch.no_grad()
    def _parts(self, x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centred contributions ``(n, F + P, n_outputs)`` and the bias ``(n_outputs,)``."""
        parts = self._model.contributions(x).numpy()
        bias = self._model.bias.weight.numpy() + self._mean_parts.sum(0)
        return (parts - self._mean_parts) * self._units(), bias * self._units() + self._offset()

    def explain(self, X: Any) -> pd.DataFrame:
        """What each column adds to each row's prediction.

        A column's contribution is 0 on average over the training rows; ``bias`` holds the
        rest. A row sums, with two classes, to the `decision_function`; with more, to the
        `decision_function` of the row's predicted class; in regression, to the prediction.
        Features that were made of one column are summed.

        Args:
            X: ``(n, columns)``.

        Returns:
            a row for each of ``X``, with its index; a column for each column, then for each
            pair (``a & b``), then ``bias``.
        """
        x, index = self._encoded(X)
        parts, bias = self._parts(x)
        outputs = parts.shape[-1]
        if outputs == 1:
            chosen, base = parts[..., 0], np.full(len(x), bias[0])
        elif outputs == 2:
            chosen, base = parts[..., 1] - parts[..., 0], np.full(len(x), bias[1] - bias[0])
        else:
            best = (parts.sum(1) + bias).argmax(1)
            chosen, base = parts[np.arange(len(x)), :, best], bias[best]
        features = len(self._encoder.names)
        frame = self._by_column(chosen[:, :features], index)
        start = features
        names = self._encoder.columns
        for first, second in self._column_pairs():
            sources = self._encoder.sources
            count = int((sources == first).sum() * (sources == second).sum())
            frame[f"{names[first]} & {names[second]}"] = chosen[:, start : start + count].sum(1)
            start += count
        frame["bias"] = base
        return frame

    def plot(
        self,
        X: Any = None,
        *,
        figure: Figure | SubFigure | None = None,
        max_features: int = 9,
    ) -> Figure | SubFigure:
        """Draw what each feature adds, over its values, for the features that matter most.

        Curves for numbers, bars for categories; below them, in grey, where the rows lie.
        With two classes the curve is the score of the second above the first; with more,
        each class has its own, above their mean; in regression it is in units of ``y``.

        Args:
            X: rows for the grey histogram; None for the training rows.
            figure: to draw on; None for a new one.
            max_features: panels for columns; pairs come after them.

        Returns:
            the figure.
        """
        check_is_fitted(self, "model_")
        densities = self._densities
        if X is not None:
            x, _ = self._encoded(X)
            densities = [_density(v) for v in in_own_units(x, self._encoder).T]
        sources = self._encoder.sources
        features = len(sources)
        by_column = np.bincount(sources, self._spread[:features], self.n_features_in_)
        order = [int(c) for c in np.argsort(-by_column, kind="stable") if (sources == c).any()]
        order = order[:max_features]
        pairs = [p for p, (a, b) in enumerate(self._model.pairs)
                 if not (self._encoder.binary[a] or self._encoder.binary[b])]  # fmt: skip
        panels = len(order) + len(pairs)
        across = min(3, panels)
        down = -(-panels // across)
        figure = plots.canvas(figure, 3.3 * across + 0.6, 2.55 * down + 0.5)
        grid = figure.subplots(down, across, squeeze=False).ravel()
        drawn = [self._panel(axes, c, densities) for axes, c in zip(grid, order, strict=False)]
        low = min(d[0] for d in drawn)
        high = max(d[1] for d in drawn)
        margin = 0.08 * (high - low or 1.0)
        for axes, column in zip(grid, order, strict=False):
            # One scale for all, or a flat curve would look like a steep one.
            axes.set_ylim(low - 3.2 * margin, high + margin)
            for line in axes.get_lines()[:1]:
                line.set_zorder(0)
            self._draw_density(axes, column, densities)
        for axes, p in zip(grid[len(order) :], pairs, strict=False):
            self._pair_panel(figure, axes, p, densities)
        for axes in grid[panels:]:
            axes.set_axis_off()
        for axes in grid[: len(order) : across]:
            axes.set_ylabel(self._effect(), fontsize=plots.FONT - 1)
        self._legend(figure)
        return figure

    def _effect(self) -> str:
        names = self._class_names()
        if names is None:
            return "added to the prediction"
        if len(names) == 2:
            return f"score for {plots.shortened(names[1], 20)}"
        return "score above the mean class"

    def _legend(self, figure: Figure | SubFigure) -> None:
        names = self._class_names()
        if names is None or len(names) == 2:
            return
        handles = [Line2D([], [], color=plots.colour(i), linewidth=2, label=plots.shortened(n))
                   for i, n in enumerate(names)]  # fmt: skip
        place: Any = "outside upper left" if isinstance(figure, Figure) else "upper left"
        figure.legend(handles=handles, loc=place, ncols=min(len(names), 6), frameon=False,
                      fontsize=plots.FONT)  # fmt: skip

    def _shown(self, parts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Contributions ``(..., n_outputs)`` as the curves that are drawn, ``(..., curves)``."""
        scaled = parts * self._units()
        if scaled.shape[-1] == 1:
            return scaled
        if scaled.shape[-1] == 2:
            return scaled[..., 1:] - scaled[..., :1]
        centred: NDArray[np.float64] = scaled - scaled.mean(-1, keepdims=True)
        return centred

    def _curve(self, feature: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a feature adds at values in its own units, ``(points, curves)``."""
        standard = (values - self._encoder.center[feature]) / self._encoder.scale[feature]
        grid = torch.from_numpy(np.clip(standard, -8.0, 8.0))
        parts = self._model.shape_function(feature, grid).numpy()
        return self._shown(parts - self._mean_parts[feature])

    def _panel(self, axes: Any, column: int, densities: list[_Density]) -> tuple[float, float]:
        """One column; returns how low and high its curves reach."""
        own = np.flatnonzero(self._encoder.sources == column)
        binary = self._encoder.binary[own]
        axes.axhline(0, color=plots.FAINT, linewidth=0.8)
        axes.set_title(plots.shortened(self._encoder.columns[column], 34), fontsize=plots.FONT,
                       loc="left")  # fmt: skip
        plots.tidy(axes)
        if binary.all():
            curves = self._category_effects(own)
            names = [self._category(int(f), column) for f in own]
            if len(own) == 1:
                names = [f"not {names[0]}", names[0]]
            places = np.arange(len(names))
            width = 0.7 / curves.shape[1]
            for k in range(curves.shape[1]):
                shift = (k - (curves.shape[1] - 1) / 2) * width
                axes.bar(places + shift, curves[:, k], width, color=plots.colour(k), zorder=2)
            slanted = max(map(len, names)) > 6 or len(names) > 5
            axes.set_xticks(places, [plots.shortened(n, 14) for n in names],
                            rotation=30 if slanted else 0, ha="right" if slanted else "center",
                            rotation_mode="anchor" if slanted else "default")  # fmt: skip
            return float(curves.min()), float(curves.max())
        feature = int(own[~binary][0])
        edges = densities[feature].edges
        values = np.linspace(edges[0], edges[-1], _GRID)
        curves = self._curve(feature, values)
        for k in range(curves.shape[1]):
            axes.plot(values, curves[:, k], color=plots.colour(k), linewidth=2.0, zorder=3)
        axes.set_xlim(edges[0], edges[-1])
        axes.locator_params(axis="x", nbins=5)
        return float(curves.min()), float(curves.max())

    def _category_effects(self, own: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each category adds, all of the column's 0/1 features counted, ``(k, curves)``."""
        off = np.stack([self._curve(int(f), np.array([0.0, 1.0])) for f in own])
        if len(own) == 1:
            both: NDArray[np.float64] = off[0]
            return both
        base = off[:, 0].sum(0)
        effects: NDArray[np.float64] = base + off[:, 1] - off[:, 0]
        return effects

    def _category(self, feature: int, column: int) -> str:
        name = self._encoder.names[feature]
        return name.removeprefix(self._encoder.columns[column]).lstrip("=_")

    def _draw_density(self, axes: Any, column: int, densities: list[_Density]) -> None:
        own = np.flatnonzero(self._encoder.sources == column)
        numeric = own[~self._encoder.binary[own]]
        low, high = axes.get_ylim()
        room = 0.13 * (high - low)
        if len(numeric):
            edges, share = densities[int(numeric[0])]
            axes.bar(edges[:-1], share / (share.max() or 1.0) * room, np.diff(edges), bottom=low,
                     align="edge", color="#c4c9cf", linewidth=0, zorder=1)  # fmt: skip
            return
        # The share of ones is what lies in the upper half of a 0/1 feature.
        ones = np.array([densities[int(f)].share[len(densities[int(f)].share) // 2 :].sum()
                         for f in own])  # fmt: skip
        shares = np.array([1 - ones[0], ones[0]]) if len(own) == 1 else ones
        axes.bar(np.arange(len(shares)), shares / (shares.max() or 1.0) * room, 0.7, bottom=low,
                 color="#c4c9cf", linewidth=0, zorder=1)  # fmt: skip

    def _pair_panel(
        self, figure: Figure | SubFigure, axes: Any, pair: int, densities: list[_Density]
    ) -> None:
        first, second = self._model.pairs[pair]
        grids = [np.linspace(densities[f].edges[0], densities[f].edges[-1], 41)
                 for f in (first, second)]  # fmt: skip
        standard = [
            torch.from_numpy((g - self._encoder.center[f]) / self._encoder.scale[f])
            for g, f in zip(grids, (first, second), strict=True)
        ]
        parts = self._model.pair_function(pair, *standard).numpy()
        shown = self._shown(parts - self._mean_parts[len(self._encoder.names) + pair])
        # With several classes, the one whose score the pair moves most.
        k = int(np.ptp(shown, axis=(0, 1)).argmax())
        top = float(np.abs(shown[..., k]).max()) or 1.0
        image = axes.pcolormesh(grids[0], grids[1], shown[..., k].T, cmap=plots.DIVERGING,
                                vmin=-top, vmax=top, shading="gouraud")  # fmt: skip
        names = self._encoder.names
        axes.set_xlabel(plots.shortened(names[first]), fontsize=plots.FONT - 1)
        axes.set_ylabel(plots.shortened(names[second]), fontsize=plots.FONT - 1)
        classes = self._class_names()
        of = f" ({classes[k]})" if classes is not None and len(classes) > 2 else ""
        title = f"{plots.shortened(names[first], 16)} & {plots.shortened(names[second], 16)}{of}"
        axes.set_title(title, fontsize=plots.FONT, loc="left")
        plots.tidy(axes)
        plots.bar_scale(figure, image, axes, "")


def _density(values: NDArray[np.float64]) -> _Density:
    low, high = float(values.min()), float(values.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    count, edges = np.histogram(values, bins=_BINS, range=(low, high))
    return _Density(edges, count / count.sum())


@dataclass(kw_only=True, eq=False, repr=False)
class AdditiveNetClassifier(_AdditiveNet, DenoGradClassifier):
    """Classes from a sum of one small net a feature; the addends are the explanation.

    The model is `denograd.models.AdditiveNet`. How it is trained, and what it takes, is said
    in `DenoGradEstimator` and `DenoGradClassifier`, whose parameters it has too.

    Args:
        width: hidden units of a net.
        pairs: pairs of columns, by name or number, that get nets of their own.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> model = AdditiveNetClassifier(max_steps=20, random_state=0).fit(X, y)
        >>> told = model.explain(X).sum(axis=1)
        >>> bool(np.allclose(told, model.decision_function(X).max(axis=1)))
        True
    """


@dataclass(kw_only=True, eq=False, repr=False)
class AdditiveNetRegressor(_AdditiveNet, DenoGradRegressor):
    """Numbers from a sum of one small net a feature; the addends are the explanation.

    The model is `denograd.models.AdditiveNet`. How it is trained, and what it takes, is said
    in `DenoGradEstimator` and `DenoGradRegressor`, whose parameters it has too.

    Args:
        width: hidden units of a net.
        pairs: pairs of columns, by name or number, that get nets of their own.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> model = AdditiveNetRegressor(pairs=[(0, 1)], max_steps=20, random_state=0)
        >>> told = model.fit(X, X[:, 0] * X[:, 1]).explain(X)
        >>> list(told.columns), bool(np.allclose(told.sum(axis=1), model.predict(X)))
        (['x0', 'x1', 'x2', 'x0 & x1', 'bias'], True)
    """

    def _units(self) -> float:
        return self.target_scale_

    def _offset(self) -> float:
        return self.target_mean_
