"""A picture of an additive model: what each column and each pair of columns adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from denograd.estimators import _plots as plots
from denograd.estimators._features import TableEncoder
from denograd.estimators._shapes import ColumnScale, probe

_GRID = 101
_PAIR_GRID = 41
_BINS = 24

Shape = Callable[[int, int], tuple[tuple[ColumnScale, ...], NDArray[np.float64]]]
"""From the number of a column (or pair) and of its points to its values, one scale a column, and
to what is added there, ``(n, n_outputs)`` (or ``(n, m, n_outputs)``)."""


class Density(NamedTuple):
    """How the rows lie along a feature: edges ``(bins + 1,)`` and shares ``(bins,)``."""

    edges: NDArray[np.float64]
    share: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Density:
        """The histogram of some values, ``(n,)``."""
        low, high = float(values.min()), float(values.max())
        if high <= low:
            low, high = low - 0.5, high + 0.5
        count, edges = np.histogram(values, bins=_BINS, range=(low, high))
        return cls(edges, count / count.sum())


class ShapeDrawing:
    """Panels of columns, all on one scale, and of pairs.

    Args:
        encoder: what made features of the columns.
        class_names: None in regression.
        densities: how the rows to show lie along each feature.
        curve: what a column adds.
        surface: what a pair adds.
    """

    def __init__(
        self,
        encoder: TableEncoder,
        class_names: Sequence[str] | None,
        densities: Sequence[Density],
        curve: Shape,
        surface: Shape,
    ) -> None:
        self._encoder, self._class_names, self._densities = encoder, class_names, densities
        self._curve, self._surface = curve, surface

    def draw(
        self,
        figure: Figure | SubFigure | None,
        columns: Sequence[int],
        pairs: Sequence[int],
        hidden: int = 0,
    ) -> Figure | SubFigure:
        """Draw some columns and then some pairs, by number, in this order.

        Args:
            figure: to draw on; None for a new one.
            columns: numbers of columns.
            pairs: numbers of pairs.
            hidden: how many columns there are besides; a line at the foot says so.
        """
        panels = len(columns) + len(pairs)
        across = min(3, panels)
        down = -(-panels // across)
        figure = plots.canvas(figure, 3.3 * across + 0.6, 2.55 * down + 0.5)
        grid = figure.subplots(down, across, squeeze=False).ravel()
        drawn = [self._panel(axes, c) for axes, c in zip(grid, columns, strict=False)]
        low = min(d[0] for d in drawn)
        high = max(d[1] for d in drawn)
        margin = 0.08 * (high - low or 1.0)
        for axes, column in zip(grid, columns, strict=False):
            # One scale for all, or a flat curve would look like a steep one.
            axes.set_ylim(low - 3.2 * margin, high + margin)
            for line in axes.get_lines()[:1]:
                line.set_zorder(0)
            self._draw_density(axes, column)
        for axes, p in zip(grid[len(columns) :], pairs, strict=False):
            self._pair_panel(figure, axes, p)
        for axes in grid[panels:]:
            axes.set_axis_off()
        for axes in grid[: len(columns) : across]:
            axes.set_ylabel(self._effect(), fontsize=plots.FONT - 1)
        if hidden:
            note = f"{hidden} weaker column{'s' * (hidden > 1)} not shown"
            figure.supxlabel(note, fontsize=plots.FONT - 1, color=plots.INK)
        self._legend(figure)
        return figure

    def _effect(self) -> str:
        names = self._class_names
        if names is None:
            return "added to the prediction"
        if len(names) == 2:
            return f"score for {plots.shortened(names[1], 20)}"
        return "score above the mean class"

    def _legend(self, figure: Figure | SubFigure) -> None:
        names = self._class_names
        if names is None or len(names) == 2:
            return
        handles = [Line2D([], [], color=plots.colour(i), linewidth=2, label=plots.shortened(n))
                   for i, n in enumerate(names)]  # fmt: skip
        place: Any = "outside upper left" if isinstance(figure, Figure) else "upper left"
        figure.legend(handles=handles, loc=place, ncols=min(len(names), 6), frameon=False,
                      fontsize=plots.FONT)  # fmt: skip

    def _shown(self, parts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Contributions ``(..., n_outputs)`` as the curves that are drawn, ``(..., curves)``."""
        if parts.shape[-1] == 1:
            return parts
        if parts.shape[-1] == 2:
            return parts[..., 1:] - parts[..., :1]
        centred: NDArray[np.float64] = parts - parts.mean(-1, keepdims=True)
        return centred

    def _panel(self, axes: Any, column: int) -> tuple[float, float]:
        """One column; returns how low and high its curves reach."""
        (scale,), parts = self._curve(column, _GRID)
        curves = self._shown(parts)
        axes.axhline(0, color=plots.FAINT, linewidth=0.8)
        axes.set_title(plots.shortened(self._encoder.columns[column], 34), fontsize=plots.FONT,
                       loc="left")  # fmt: skip
        plots.tidy(axes)
        if scale.kind == "category":
            width = 0.7 / curves.shape[1]
            for k in range(curves.shape[1]):
                shift = (k - (curves.shape[1] - 1) / 2) * width
                axes.bar(scale.places + shift, curves[:, k], width, color=plots.colour(k), zorder=2)
        else:
            along = slice(None, -1) if scale.gap else slice(None)
            for k in range(curves.shape[1]):
                tone = plots.colour(k)
                axes.plot(scale.places[along], curves[along, k], color=tone, linewidth=2.0,
                          zorder=3, marker="o" if len(scale) == 2 else None)  # fmt: skip
                if scale.gap:
                    axes.axhline(curves[-1, k], color=tone, linewidth=1.2, linestyle=(0, (3, 3)),
                                 label="missing")  # fmt: skip
            if scale.gap:
                axes.annotate("missing", (0.99, float(curves[-1].max())), (0, 2), ha="right",
                              xycoords=("axes fraction", "data"), textcoords="offset points",
                              fontsize=plots.FONT - 2, color=plots.INK)  # fmt: skip
            if len(scale) > 2:
                axes.set_xlim(*scale.places[along][[0, -1]])
        self._label_axis(axes, "x", scale)
        return float(curves.min()), float(curves.max())

    def _label_axis(self, axes: Any, side: str, scale: ColumnScale) -> None:
        """Categories or dates on an axis; numbers need nothing."""
        axis = axes.xaxis if side == "x" else axes.yaxis
        if scale.kind == "category":
            slanted = side == "x" and (max(map(len, scale.labels)) > 6 or len(scale) > 5)
            axis.set_ticks(scale.places, [plots.shortened(n, 14) for n in scale.labels],
                           rotation=30 if slanted else 0,
                           ha="right" if slanted or side == "y" else "center",
                           rotation_mode="anchor" if slanted else "default")  # fmt: skip
            return
        axes.locator_params(axis=side, nbins=5 if scale.kind == "number" else 3)
        if scale.kind == "date":
            origin = self._encoder.origins[scale.column]
            axis.set_major_formatter(
                lambda day, _: (origin + pd.Timedelta(days=day)).strftime("%Y-%m-%d")
            )

    def _draw_density(self, axes: Any, column: int) -> None:
        encoder = self._encoder
        low, high = axes.get_ylim()
        room = 0.13 * (high - low)
        own = np.flatnonzero(encoder.sources == column)
        if encoder.kinds[column] != "category":
            numeric = own[~encoder.binary[own]]
            if len(numeric) == 0:
                return
            edges, share = self._densities[int(numeric[0])]
            axes.bar(edges[:-1], share / (share.max() or 1.0) * room, np.diff(edges), bottom=low,
                     align="edge", color="#c4c9cf", linewidth=0, zorder=1)  # fmt: skip
            return
        # The share of ones is what lies in the upper half of a 0/1 feature.
        shares = [self._densities[int(f)].share for f in own]
        ones = np.array([share[len(share) // 2 :].sum() for share in shares])
        raw = [value for _, value in encoder.categories[column]]
        is_one = probe(encoder, {column: raw}).numpy()[:, own] > 0
        # Of two categories the first has no feature of its own.
        taken = np.where(is_one.any(1), is_one @ ones, 1 - ones.sum())
        axes.bar(np.arange(len(taken)), taken / (taken.max() or 1.0) * room, 0.7, bottom=low,
                 color="#c4c9cf", linewidth=0, zorder=1)  # fmt: skip

    def _pair_panel(self, figure: Figure | SubFigure, axes: Any, pair: int) -> None:
        (first, second), parts = self._surface(pair, _PAIR_GRID)
        shown = self._shown(parts)
        # With several classes, the one whose score the pair moves most.
        k = int(np.ptp(shown, axis=(0, 1)).argmax())
        surface = shown[..., k]
        names = [self._encoder.columns[scale.column] for scale in (first, second)]
        if first.kind == "category" and second.kind != "category":
            first, second, surface, names = second, first, surface.T, names[::-1]
        axes.set_xlabel(plots.shortened(names[0]), fontsize=plots.FONT - 1)
        classes = self._class_names
        of = f" ({classes[k]})" if classes is not None and len(classes) > 2 else ""
        title = " & ".join(plots.shortened(name, 16) for name in names)
        axes.set_title(f"{title}{of}", fontsize=plots.FONT, loc="left")
        plots.tidy(axes)
        along = slice(None, -1) if first.gap else slice(None)
        self._label_axis(axes, "x", first)
        if first.kind != "category" and second.kind == "category":
            for number, label in enumerate(second.labels):
                axes.plot(first.places[along], surface[along, number], linewidth=1.6,
                          color=plots.colour(number), label=plots.shortened(label, 14))  # fmt: skip
            axes.axhline(0, color=plots.FAINT, linewidth=0.8)
            axes.legend(title=plots.shortened(names[1], 16), fontsize=plots.FONT - 2,
                        title_fontsize=plots.FONT - 2, frameon=False)  # fmt: skip
            return
        over = slice(None, -1) if second.gap else slice(None)
        surface = surface[along, over]
        top = float(np.abs(surface).max()) or 1.0
        cells = first.kind == "category" or min(surface.shape) < 2
        image = axes.pcolormesh(
            first.places[along], second.places[over], surface.T, cmap=plots.DIVERGING, vmin=-top,
            vmax=top, shading="nearest" if cells else "gouraud",
        )  # fmt: skip
        axes.set_ylabel(plots.shortened(names[1]), fontsize=plots.FONT - 1)
        self._label_axis(axes, "y", second)
        plots.bar_scale(figure, image, axes, "")
