"""Prototypes, and the training rows next to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from denograd.estimators import _plots as plots
from denograd.estimators._base import DenoGradEstimator, whole
from denograd.estimators._rows import TrainingRows
from denograd.estimators._sample import SeenRows
from denograd.estimators._tasks import DenoGradClassifier, DenoGradRegressor
from denograd.models import PrototypeNet, TabularModel

_ROWS_SHOWN = 25


@dataclass(kw_only=True, eq=False, repr=False)
class _PrototypeNet(DenoGradEstimator):
    prototypes: int = 8

    def _build(self, n_features: int, n_classes: int | None) -> TabularModel:
        return PrototypeNet(n_features, n_classes, whole(self.prototypes))

    def _prepare(self, model: TabularModel, rows: TrainingRows) -> None:
        assert isinstance(model, PrototypeNet)
        batch = self._batchable(rows)
        if self._classes() is not None:
            model.start_from_rows(batch.x, batch.y)
            return
        model.start_from_rows(batch.x)
        with torch.no_grad():
            own = model.prototype_rows(batch.x)
            model.components.weight[:, 0] = batch.y[own]

    @property
    def _model(self) -> PrototypeNet:
        model = self.model_
        assert isinstance(model, PrototypeNet)
        return model

    def _summarise(self, rows: SeenRows) -> None:
        # The rows that count twice or more need not be kept as often.
        own = rows.take(np.sort(np.unique(rows.position, return_index=True)[1]))
        self._reference = own.x
        self._reference_index = own.index
        self._reference_target = own.target

    def forget_rows(self) -> Self:
        """Not possible here, for the training rows are a part of the explanation.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{type(self).__name__} explains by the training rows and can't forget them; use "
            "another model, or model_ alone"
        )

    @torch.no_grad()
    def explain(self, X: Any, k: int = 1) -> pd.DataFrame:
        """Which prototype each row is most like, and the training rows nearest to it.

        Args:
            X: ``(n, columns)``.
            k: training rows to name.

        Returns:
            a row for each of ``X``, with its index. ``prediction``; ``prototype``, the number
            of the most similar one, and ``similarity`` to it, from 0 to 1; ``row``, the index
            in training's ``X`` of the nearest training row in the model's own distance (its
            number, if ``X`` was an array), ``row_target``, what ``y`` was there, and
            ``distance``. With ``k`` above 1: ``row_1``, ``row_target_1``, ``distance_1``,
            and so on. After `partial_fit` the training rows are a sample of at most 1,000.

        Raises:
            ValueError: ``k`` is not a whole number from 1 to the number of training rows.
        """
        x, index = self._encoded(X)
        similar = self._model.similarities(x).numpy()
        frame = pd.DataFrame(
            {
                "prediction": self.predict(X),
                "prototype": similar.argmax(1),
                "similarity": similar.max(1),
            },
            index=index,
        )
        nearest = self._model.nearest_rows(x, self._reference, whole(k))
        root = self._model.relevances().sqrt()
        for place in range(nearest.shape[1]):
            tail = "" if nearest.shape[1] == 1 else f"_{place + 1}"
            rows = nearest[:, place]
            gap = ((x - self._reference[rows]) * root).square().sum(-1).sqrt()
            frame[f"row{tail}"] = self._reference_index[rows.numpy()]
            frame[f"row_target{tail}"] = self._reference_target[rows.numpy()]
            frame[f"distance{tail}"] = gap.numpy()
        return frame

    @torch.no_grad()
    def prototypes_frame(self) -> pd.DataFrame:
        """The prototypes in the features' own units.

        Returns:
            a row a prototype: its value of each encoded feature, then ``speaks_for`` (a
            class, or a value of ``y``) and ``nearest_row``, the index of the nearest training
            row.
        """
        check_is_fitted(self, "model_")
        centers = self._model.centers.weight
        values = centers.numpy() * self._encoder.scale + self._encoder.center
        frame = pd.DataFrame(values, columns=self._encoder.names)
        frame["speaks_for"] = self._speaks_for()
        frame["nearest_row"] = self._reference_index[
            self._model.prototype_rows(self._reference).numpy()
        ]
        return frame

    @torch.no_grad()
    def _speaks_for(self) -> list[Any]:
        said = self._model(self._model.centers.weight).numpy()
        if self._classes() is not None:
            return list(self.classes_[said.argmax(1)].tolist())
        return list((said[:, 0] * self.target_scale_ + self.target_mean_).tolist())

    @plots.as_written
    @torch.no_grad()
    def plot(
        self,
        X: Any = None,
        *,
        figure: Figure | SubFigure | None = None,
        max_features: int = 12,
    ) -> Figure | SubFigure:
        """Draw the prototypes.

        Colours say how far a prototype lies from the middle of the training rows, in
        standard deviations; the numbers are its values in the features' own units. The bars
        are the features' relevance in the distance.

        Args:
            X: rows to show beside the prototypes, by their similarity to each (at most 25 of
                them); None for the prototypes alone.
            figure: to draw on; None for a new one.
            max_features: features to show, those of the largest relevance.

        Returns:
            the figure.
        """
        check_is_fitted(self, "model_")
        relevance = self._model.relevances().numpy()
        order = np.argsort(-relevance, kind="stable")[:max_features]
        centers = self._model.centers.weight.numpy()
        said = self._speaks_for()
        by_value = sorted(range(len(said)), key=lambda p: (str(type(said[p])), said[p]))
        labels = [
            f"{p}: {plots.figures_of(said[p]) if isinstance(said[p], float) else said[p]}"
            for p in by_value
        ]
        width = 2.4 + 0.62 * len(order)
        shown = None if X is None else self.explain(X).iloc[:_ROWS_SHOWN]
        right = 0.0 if shown is None else 1.9 + 0.5 * len(said)
        figure = plots.canvas(figure, width + right, 2.6 + 0.36 * max(
            len(said), 0 if shown is None else 0.62 * len(shown)))  # fmt: skip
        parts: list[Any] = [figure]
        if shown is not None:
            parts = list(figure.subfigures(1, 2, squeeze=False, width_ratios=(width, right))[0])
        over, axes = parts[0].subplots(2, 1, height_ratios=(0.28, 1.0), sharex=True)
        over.bar(np.arange(len(order)), relevance[order], color=plots.colour(0), width=0.62)
        over.set_ylabel("relevance", fontsize=plots.FONT - 1)
        plots.tidy(over, grid="y")
        over.tick_params(labelbottom=False, bottom=False)
        text = np.vectorize(plots.figures_of)(self._own_units(centers)[by_value][:, order])
        names = [self._encoder.names[i] for i in order]
        drawn = centers[by_value][:, order]
        image = plots.heat_map(axes, drawn, labels, names, signed=True, annotate=text)
        axes.set_ylabel("prototype: speaks for", fontsize=plots.FONT)
        self._paint_labels(axes, [said[p] for p in by_value])
        plots.bar_scale(parts[0], image, axes, "deviations from the mean")
        over.set_title("Prototypes", fontsize=plots.FONT + 1, loc="left")
        if shown is not None:
            self._plot_rows(parts[1], X, shown, by_value, labels)
        return figure

    def _own_units(self, centers: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = centers * self._encoder.scale + self._encoder.center
        return values

    def _paint_labels(self, axes: Any, said: list[Any]) -> None:
        if self._classes() is None:
            return
        places = {label: i for i, label in enumerate(self.classes_.tolist())}
        for tick, label in zip(axes.get_yticklabels(), said, strict=True):
            tick.set_color(plots.colour(places[label]))
            tick.set_fontweight("bold")

    @torch.no_grad()
    def _plot_rows(
        self,
        part: SubFigure | Figure,
        X: Any,
        shown: pd.DataFrame,
        order: list[int],
        labels: list[str],
    ) -> None:
        x, _ = self._encoded(X)
        similar = self._model.similarities(x).numpy()[: len(shown)][:, order]
        axes = part.subplots()
        predicted = shown["prediction"].tolist()
        rows = [
            f"{name} → {plots.figures_of(p) if isinstance(p, float) else p}"
            for name, p in zip(shown.index, predicted, strict=True)
        ]
        image = plots.heat_map(axes, similar, rows, labels)
        axes.set_title("Similarity of rows", fontsize=plots.FONT + 1, loc="left")
        axes.set_ylabel("row → prediction", fontsize=plots.FONT)
        plots.bar_scale(part, image, axes, "similarity")


@dataclass(kw_only=True, eq=False, repr=False)
class PrototypeNetClassifier(_PrototypeNet, DenoGradClassifier):
    """Classes from how near a row is to learned prototypes.

    The model is `denograd.models.PrototypeNet`. How it is trained, and what it takes, is said
    in `DenoGradEstimator` and `DenoGradClassifier`, whose parameters it has too. It starts
    from training rows and **keeps the training rows**, encoded, to name the nearest of them:
    a saved estimator contains them.

    Args:
        prototypes: number of prototypes; at first the classes have them in turn.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> model = PrototypeNetClassifier(prototypes=3, max_steps=20, random_state=0).fit(X, y)
        >>> told = model.explain(X)
        >>> bool((told["row"] == X.index).mean() > 0.9)
        True
    """


@dataclass(kw_only=True, eq=False, repr=False)
class PrototypeNetRegressor(_PrototypeNet, DenoGradRegressor):
    """Numbers from how near a row is to learned prototypes.

    The model is `denograd.models.PrototypeNet`. How it is trained, and what it takes, is said
    in `DenoGradEstimator` and `DenoGradRegressor`, whose parameters it has too. It starts
    from training rows and **keeps the training rows**, encoded, to name the nearest of them:
    a saved estimator contains them.

    Args:
        prototypes: number of prototypes.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> model = PrototypeNetRegressor(max_steps=20, random_state=0).fit(X, X[:, 0])
        >>> model.explain(X[:2], k=2).columns.tolist()[3:]
        ['row_1', 'row_target_1', 'distance_1', 'row_2', 'row_target_2', 'distance_2']
    """
