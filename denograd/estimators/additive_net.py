"""Neural additive models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from denograd.estimators import _plots as plots
from denograd.estimators._additive_plot import Density, ShapeDrawing
from denograd.estimators._base import DenoGradEstimator, whole
from denograd.estimators._features import TableEncoder, in_own_units
from denograd.estimators._sample import SeenRows
from denograd.estimators._shapes import ColumnScale, column_scale, probe
from denograd.estimators._tasks import DenoGradClassifier, DenoGradRegressor
from denograd.models import AdditiveNet, TabularModel
from denograd.models.additive_net import importance_of


@dataclass(kw_only=True, eq=False, repr=False)
class _AdditiveNet(DenoGradEstimator):
    width: int = 16
    pairs: Sequence[tuple[int | str, int | str]] = ()

    def _build(self, n_features: int, n_classes: int | None) -> TabularModel:
        self._pairs = self._column_pairs()
        return AdditiveNet(n_features, n_classes, whole(self.width), self._encoded_pairs())

    def _encoded_pairs(self) -> list[tuple[int, int]]:
        """Each pair of columns as all pairs of the features that they became."""
        done: list[tuple[int, int]] = []
        for first, second in self._pairs:
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
    def _summarise(self, rows: SeenRows) -> None:
        parts = self._model.contributions(rows.x).numpy()
        self._mean_parts = np.average(parts, axis=0, weights=rows.weight)
        self._densities = [Density.of(v) for v in in_own_units(rows.x, self._encoder).T]
        self._spread = self._summed(rows.x)[0].std(0).sum(-1)

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

    def _summed(self, x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Contributions by column, then by pair, ``(n, columns + pairs, n_outputs)``; bias."""
        parts, bias = self._parts(x)
        sources = self._encoder.sources
        columns = self.n_features_in_
        summed = np.zeros((columns + len(self._pairs), len(x), parts.shape[-1]))
        np.add.at(summed, sources, parts[:, : len(sources)].swapaxes(0, 1))
        start = len(sources)
        for number, (first, second) in enumerate(self._pairs):
            count = int((sources == first).sum() * (sources == second).sum())
            summed[columns + number] = parts[:, start : start + count].sum(1)
            start += count
        return summed.swapaxes(0, 1), bias

    def _column_importance(self, x: Tensor) -> NDArray[np.float64]:
        """As `AdditiveNet.feature_importance`, of columns and pairs of columns as wholes."""
        parts = torch.from_numpy(np.ascontiguousarray(self._summed(x)[0]))
        return np.asarray(importance_of(parts, self.n_features_in_, self._pairs).numpy())

    def _part_names(self) -> list[str]:
        """Names of the columns, the pairs and the bias; no two are the same."""
        columns = self._encoder.columns
        found = list(columns)
        for name in (*(f"{columns[a]} & {columns[b]}" for a, b in self._pairs), "bias"):
            while name in found:
                name = f"({name})"
            found.append(name)
        return found

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
            pair (``a & b``), then ``bias``; a name that a column of ``X`` has is put in
            parentheses.
        """
        x, index = self._encoded(X)
        parts, bias = self._summed(x)
        outputs = parts.shape[-1]
        if outputs == 1:
            chosen, base = parts[..., 0], np.full(len(x), bias[0])
        elif outputs == 2:
            chosen, base = parts[..., 1] - parts[..., 0], np.full(len(x), bias[1] - bias[0])
        else:
            best = (parts.sum(1) + bias).argmax(1)
            chosen, base = parts[np.arange(len(x)), :, best], bias[best]
        values = np.column_stack([chosen, base])
        return pd.DataFrame(values, index=index, columns=self._part_names())

    def shape_functions(self, points: int = 101, pair_points: int = 21) -> pd.DataFrame:
        """What each column adds to the prediction, over its values: the whole model as a table.

        Numbers and dates are taken at even steps from the lowest to the highest training
        value, categories one and all, and a missing value where training had some. A row of
        ``X`` has the sum of what its columns and pairs add, and the bias, as `explain` says.

        Args:
            points: values of a number or date.
            pair_points: the same in a pair.

        Returns:
            a row for each value and output. ``part`` is the column, or the pair, as `explain`
            calls it; ``value`` is in the column's own units (None: missing); ``value_2`` that
            of a pair's second column, else None. ``output`` is, with two classes, the second,
            whose score above the first is meant; with more, each of them; in regression
            ``"y"``. ``contribution`` is what is added, 0 on average over the training rows.

        Raises:
            ValueError: a number of points is not a whole number of at least 2.
        """
        check_is_fitted(self, "model_")
        for name, value in (("points", points), ("pair_points", pair_points)):
            if isinstance(value, bool) or not isinstance(whole(value), int) or value < 2:
                raise ValueError(
                    f"{type(self).__name__}: {name}={value!r}; it must be a whole number of at "
                    "least 2"
                )
        names = self._part_names()
        tables = [self._table(names[c], *self._curve(c, whole(points))) for c in self._used()]
        for number, (first, second) in enumerate(self._pairs):
            if {first, second} <= set(self._used()):
                found = self._surface(number, whole(pair_points))
                tables.append(self._table(names[self.n_features_in_ + number], *found))
        return pd.concat(tables, ignore_index=True)

    def _used(self) -> list[int]:
        return sorted({int(column) for column in self._encoder.sources})

    def _table(
        self, part: str, scales: Sequence[ColumnScale], parts: NDArray[np.float64]
    ) -> pd.DataFrame:
        """A curve ``(n, n_outputs)`` or surface ``(n, m, n_outputs)`` in rows."""
        grid = [(a, b) for a in scales[0].raw for b in (scales[1].raw if scales[1:] else [None])]
        flat = parts.reshape(len(grid), -1)
        classes = self._classes()
        outputs: list[Any] = ["y"] if classes is None else self.classes_.tolist()
        if classes == 2:
            flat, outputs = flat[:, 1:] - flat[:, :1], outputs[1:]
        return pd.DataFrame(
            {
                "part": part,
                "value": pd.Series([a for a, _ in grid for _ in outputs], dtype=object),
                "value_2": pd.Series([b for _, b in grid for _ in outputs], dtype=object),
                "output": outputs * len(grid),
                "contribution": flat.ravel(),
            }
        )

    def _scale(self, column: int, points: int) -> ColumnScale:
        """Values of a column as training had them."""
        encoder = self._encoder
        assert isinstance(encoder, TableEncoder)
        own = np.flatnonzero((encoder.sources == column) & ~encoder.binary)
        if len(own):
            edges = self._densities[int(own[0])].edges
            low, high = float(edges[0]), float(edges[-1])
        else:
            # Always the same where it is not missing, so that only the gap has a feature.
            low = high = encoder.medians.get(column, 0.0)
            points = 1
        return column_scale(encoder, column, low, high, points)

    def _curve(
        self, column: int, points: int
    ) -> tuple[tuple[ColumnScale, ...], NDArray[np.float64]]:
        """What a column adds at its values, ``(n, n_outputs)``."""
        scale = self._scale(column, points)
        assert isinstance(self._encoder, TableEncoder)
        x = probe(self._encoder, {column: scale.raw})
        return (scale,), self._summed(x)[0][:, column]

    def _surface(
        self, pair: int, points: int
    ) -> tuple[tuple[ColumnScale, ...], NDArray[np.float64]]:
        """What a pair adds at its columns' values, ``(n, m, n_outputs)``."""
        first, second = (self._scale(column, points) for column in self._pairs[pair])
        assert isinstance(self._encoder, TableEncoder)
        grid = [(a, b) for a in first.raw for b in second.raw]
        values = {first.column: [a for a, _ in grid], second.column: [b for _, b in grid]}
        parts = self._summed(probe(self._encoder, values))[0][:, self.n_features_in_ + pair]
        return (first, second), parts.reshape(len(first), len(second), -1)

    @plots.as_written
    def plot(
        self,
        X: Any = None,
        *,
        figure: Figure | SubFigure | None = None,
        max_features: int = 9,
    ) -> Figure | SubFigure:
        """Draw what each column adds, over its values, for the columns that matter most.

        Curves for numbers and dates, with a broken line for what a missing value adds; bars
        for categories; below them, in grey, where the rows lie. `shape_functions` has the same
        as numbers.
        With two classes the curve is the score of the second above the first; with more,
        each class has its own, above their mean; in regression it is in units of ``y``.

        Args:
            X: rows for the grey histogram; None for the training rows.
            figure: to draw on; None for a new one.
            max_features: panels for columns; those of all pairs come after them, and a line
                says how many columns are not shown.

        Returns:
            the figure.
        """
        check_is_fitted(self, "model_")
        densities = self._densities
        if X is not None:
            x, _ = self._encoded(X)
            densities = [Density.of(v) for v in in_own_units(x, self._encoder).T]
        used = self._used()
        order = [int(c) for c in np.argsort(-self._spread, kind="stable") if c in used]
        pairs = [p for p, pair in enumerate(self._pairs) if set(pair) <= set(used)]
        assert isinstance(self._encoder, TableEncoder)
        drawing = ShapeDrawing(
            self._encoder, self._class_names(), densities, self._curve, self._surface
        )
        shown = order[:max_features]
        return drawing.draw(figure, shown, pairs, hidden=len(order) - len(shown))


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
