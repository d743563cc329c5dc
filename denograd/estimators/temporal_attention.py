"""Attention over the steps of a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from denograd.data.sequences import SequenceEncoder
from denograd.estimators import _plots as plots
from denograd.estimators._base import DenoGradEstimator, whole
from denograd.estimators._features import RowEncoder
from denograd.estimators._optimizers import OptimizerFactory
from denograd.estimators._sample import SeenRows
from denograd.estimators._sequences import PaddedTemporalAttention
from denograd.estimators._tasks import DenoGradClassifier, DenoGradRegressor
from denograd.models import TabularModel

_ROWS_SHOWN = 6


@dataclass(kw_only=True, eq=False, repr=False)
class _TemporalAttention(DenoGradEstimator):
    n_channels: int | None = None
    width: int = 8
    heads: int = 2
    normalize: Literal["softmax", "sparsemax", "entmax"] = "softmax"
    kernel: int = 3

    def _build(self, n_features: int, n_classes: int | None) -> TabularModel:
        return PaddedTemporalAttention(
            self.n_channels_,
            n_features // self.n_channels_,
            n_classes,
            whole(self.width),
            whole(self.heads),
            self.normalize,
            whole(self.kernel),
        )

    def _make_encoder(self, frame: pd.DataFrame) -> RowEncoder:
        return SequenceEncoder(frame, self._column_names(), self.n_channels_)

    def _frame(self, X: Any, reset: bool) -> pd.DataFrame:
        channels = whole(self.n_channels)
        if channels is not None and (not isinstance(channels, int) or channels < 1):
            raise ValueError(
                f"{type(self).__name__}: n_channels={self.n_channels!r}; it must be a whole number "
                "of at least 1, or None"
            )
        if isinstance(X, (list, tuple)) and np.ndim(np.asarray(X, dtype=object)) == 3:
            X = np.asarray(X)
        if getattr(X, "ndim", 0) == 3:
            shape = tuple(X.shape)
            expected: int | None = channels if reset else self.n_channels_
            if expected is not None and shape[1] != expected:
                raise ValueError(
                    f"{type(self).__name__}: X has shape {shape}, {shape[1]} channels; expected "
                    f"{expected}: (rows, channels, steps)"
                )
            channels = shape[1]
            X = np.asarray(X).reshape(shape[0], -1)
        if reset:
            self.n_channels_: int = channels or 1
        return super()._frame(X, reset)

    @property
    def _model(self) -> PaddedTemporalAttention:
        model = self.model_
        assert isinstance(model, PaddedTemporalAttention)
        return model

    def _steps(self) -> list[Any]:
        """Names of the steps: of the columns of one channel's DataFrame, else numbers."""
        if self.n_channels_ == 1 and self._labels is not None:
            return list(self._labels)
        return list(range(self.n_features_in_ // self.n_channels_))

    @torch.no_grad()
    def _summarise(self, rows: SeenRows) -> None:
        self._mean_attention = _mean_over_rows(self._model.attention(rows.x).numpy())

    @torch.no_grad()
    def mean_attention(self, X: Any = None) -> pd.DataFrame:
        """The mean attention to each step, head by head.

        Args:
            X: rows to take the mean over, those that are nothing but padding left out; None
                for the training rows (after `partial_fit`, a sample of them).

        Returns:
            a row for each head and a column for each step; rows sum to 1. All are 0 if every
            row of ``X`` is nothing but padding.
        """
        check_is_fitted(self, "model_")
        mean = self._mean_attention
        if X is not None:
            mean = _mean_over_rows(self._model.attention(self._encoded(X)[0]).numpy())
        heads = pd.RangeIndex(len(mean), name="head")
        return pd.DataFrame(mean.copy(), index=heads, columns=self._steps())

    @torch.no_grad()
    def explain(self, X: Any) -> pd.DataFrame:
        """How much each row's prediction attends to each step.

        The mean of the heads' weights. Each head by itself: ``model_.attention``.

        Args:
            X: ``(n, channels * steps)`` or ``(n, channels, steps)``.

        Returns:
            a row for each of ``X``, with its index, and a column for each step; rows sum to
            1. Padding has 0, a row that is nothing but padding has 0 everywhere.
        """
        x, index = self._encoded(X)
        weights = self._model.attention(x).mean(1).numpy()
        return pd.DataFrame(weights, index=index, columns=self._steps())

    @plots.as_written
    def plot(
        self, X: Any = None, *, figure: Figure | SubFigure | None = None
    ) -> Figure | SubFigure:
        """Draw the attention over steps.

        Args:
            X: rows to show: the first 6 of them, each as its curves over a band as dark as
                the attention to the step; None for the mean attention of each head over the
                training rows.
            figure: to draw on; None for a new one.

        Returns:
            the figure.
        """
        check_is_fitted(self, "model_")
        if X is None:
            return self._plot_mean(figure)
        weights = self.explain(X).iloc[:_ROWS_SHOWN]
        x, _ = self._encoded(X)
        predicted = self.predict(X).tolist()[: len(weights)]
        values = x.numpy()[: len(weights)] * self._encoder.scale + self._encoder.center
        curves = values.reshape(len(weights), self.n_channels_, -1)
        figure = plots.canvas(figure, 8.0, 0.9 + 1.45 * len(weights))
        grid = figure.subplots(len(weights), 1, squeeze=False, sharex=True)[:, 0]
        top = float(weights.to_numpy().max()) or 1.0
        for axes, curve, (name, weight), said in zip(
            grid, curves, weights.iterrows(), predicted, strict=True
        ):
            image = self._draw_row(axes, curve, weight.to_numpy(), top)
            value = plots.figures_of(said) if isinstance(said, float) else str(said)
            axes.set_title(f"row {name} → {value}", fontsize=plots.FONT, loc="left", pad=3)
        self._label_steps(grid[-1])
        bar = figure.colorbar(image, ax=list(grid), fraction=0.03, pad=0.02, aspect=30)
        bar.set_label("attention weight", fontsize=plots.FONT - 1)
        bar.ax.tick_params(labelsize=plots.FONT - 2, length=2)
        bar.outline.set_visible(False)
        if self.n_channels_ > 1:
            grid[0].legend(fontsize=plots.FONT - 2, frameon=False, ncols=self.n_channels_,
                           loc="lower right", bbox_to_anchor=(1, 1))  # fmt: skip
        return figure

    def _draw_row(
        self, axes: Any, curve: NDArray[np.float64], weight: NDArray[np.float64], top: float
    ) -> Any:
        finite = curve[np.isfinite(curve)]
        low, high = (finite.min(), finite.max()) if finite.size else (-1.0, 1.0)
        margin = 0.08 * (high - low or 1.0)
        steps = np.arange(curve.shape[1])
        image = axes.imshow(
            weight[None], aspect="auto", cmap=plots.SEQUENTIAL, vmin=0, vmax=top, alpha=0.75,
            extent=(-0.5, len(steps) - 0.5, low - margin, high + margin),
        )  # fmt: skip
        for channel, line in enumerate(curve):
            tone = plots.INK if len(curve) == 1 else plots.colour(channel + 1)
            axes.plot(steps, line, color=tone, linewidth=1.5, label=f"channel {channel}")
        axes.set_ylim(low - margin, high + margin)
        plots.tidy(axes)
        return image

    def _plot_mean(self, figure: Figure | SubFigure | None) -> Figure | SubFigure:
        figure = plots.canvas(figure, 7.5, 3.2)
        axes = figure.subplots()
        heads = self._mean_attention
        steps = np.arange(heads.shape[1])
        axes.fill_between(steps, heads.mean(0), step="mid", color=plots.colour(0), alpha=0.18,
                          linewidth=0, label="mean of the heads")  # fmt: skip
        for number, head in enumerate(heads):
            axes.step(steps, head, where="mid", color=plots.colour(number), linewidth=1.6,
                      label=f"head {number + 1}")  # fmt: skip
        axes.axhline(1 / len(steps), color=plots.FAINT, linestyle=(0, (4, 3)), linewidth=1,
                     label="equal weights")  # fmt: skip
        axes.set_xlim(-0.5, len(steps) - 0.5)
        axes.set_ylim(0, None)
        axes.set_ylabel("mean attention weight\nover the training rows", fontsize=plots.FONT)
        self._label_steps(axes)
        plots.tidy(axes, grid="y")
        axes.legend(fontsize=plots.FONT - 1, frameon=False, loc="lower left", ncols=4,
                    bbox_to_anchor=(0, 1.0), borderaxespad=0.2)  # fmt: skip
        return figure

    def _label_steps(self, axes: Any) -> None:
        names = self._steps()
        shown = np.unique(np.linspace(0, len(names) - 1, min(len(names), 9)).round().astype(int))
        axes.set_xticks(shown, [plots.shortened(names[i], 12) for i in shown])
        axes.set_xlabel("step", fontsize=plots.FONT)


def _mean_over_rows(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(n, H, L)`` to ``(H, L)``; rows of padding alone have weights of 0 and do not count."""
    attended = weights.sum((1, 2)) > 0
    mean: NDArray[np.float64] = weights.sum(0) / max(int(attended.sum()), 1)
    return mean


@dataclass(kw_only=True, eq=False, repr=False)
class TemporalAttentionClassifier(_TemporalAttention, DenoGradClassifier):
    """Classes of sequences, from heads that weigh their steps.

    The model is `denograd.models.TemporalAttention`. How it is trained is said in
    `DenoGradEstimator` and `DenoGradClassifier`, whose parameters it has too. ``X`` holds
    numbers alone: ``(n, channels, steps)``, or ``(n, channels * steps)``, channel by channel;
    a channel is standardised over all rows and steps. A step at which all channels are NaN
    is padding and gets no attention; a channel that is NaN beside others gets its mean.

    It is trained with the denoiser that was meta-trained on sequences. Where rows have a strong
    signal that takes many steps to find, as in long and smooth series, ``optimizer="adamw"`` learns
    more of it; where they have a weak one it overfits (``docs/models.md``).

    Args:
        n_channels: number of channels; None for that of a three-dimensional ``X``, else 1.
        width: size of a step's token.
        heads: number of heads, at most ``width``.
        normalize: how scores become weights: ``"softmax"``, ``"sparsemax"``, ``"entmax"``.
        kernel: steps that a token is made of, an odd number.

    Attributes:
        n_channels_: number of channels.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(30, 2, 12))
        >>> y = X[:, 0, 5] > 0
        >>> model = TemporalAttentionClassifier(max_steps=20, random_state=0).fit(X, y)
        >>> model.explain(X).shape, model.n_channels_
        ((30, 12), 2)
    """

    optimizer: str | OptimizerFactory = "denograd:sequences"


@dataclass(kw_only=True, eq=False, repr=False)
class TemporalAttentionRegressor(_TemporalAttention, DenoGradRegressor):
    """Numbers from sequences, by heads that weigh their steps.

    The model is `denograd.models.TemporalAttention`. How it is trained is said in
    `DenoGradEstimator` and `DenoGradRegressor`, whose parameters it has too; what ``X`` is,
    in `TemporalAttentionClassifier`. On sequences, the denoiser ``regression`` has not been
    compared with ``optimizer="adamw"`` as it comes; try both.

    Args:
        n_channels: number of channels; None for that of a three-dimensional ``X``, else 1.
        width: size of a step's token.
        heads: number of heads, at most ``width``.
        normalize: how scores become weights: ``"softmax"``, ``"sparsemax"``, ``"entmax"``.
        kernel: steps that a token is made of, an odd number.

    Attributes:
        n_channels_: number of channels.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(30, 12))
        >>> model = TemporalAttentionRegressor(max_steps=20, random_state=0).fit(X, X[:, 3])
        >>> model.predict(X).shape
        (30,)
    """
