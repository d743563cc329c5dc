"""The look that all pictures share, and drawings that several models use."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from numpy.typing import NDArray

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
"""Okabe and Ito's palette, which the colour-blind can tell apart."""

SEQUENTIAL = LinearSegmentedColormap.from_list("denograd", ["#f7fafd", "#7fb4d8", "#00406b"])
DIVERGING = LinearSegmentedColormap.from_list(
    "denograd_diverging", ["#0b5394", "#8fbbdd", "#ffffff", "#eea67a", "#a84300"]
)

Drawn = Figure | SubFigure
_P = ParamSpec("_P")

INK, FAINT = "#222222", "#9aa0a6"
FONT = 10


def colour(number: int) -> str:
    """The colour of a class, a head or a rule's verdict."""
    return COLOURS[number % len(COLOURS)]


def as_written(draw: Callable[_P, Drawn]) -> Callable[_P, Drawn]:
    """A function that draws, whose texts are shown as they are: "$" in a name begins no formula."""

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Drawn:
        figure = draw(*args, **kwargs)
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        return figure

    return drawn


def canvas(figure: Figure | SubFigure | None, width: float, height: float) -> Figure | SubFigure:
    """The figure to draw on, a new one of this size in inches if none is given.

    Raises:
        ValueError: what is given is no figure.
    """
    if figure is None:
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
    elif not isinstance(figure, (Figure, SubFigure)):
        raise ValueError(
            f"plot: figure is a {type(figure).__name__}; give a matplotlib Figure or SubFigure, "
            "or None for a new one"
        )
    return figure


def tidy(axes: Axes, *, grid: str | None = None) -> None:
    """Take away lines that say nothing."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(labelsize=FONT - 1, colors=INK, length=3)
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(axis=grid, alpha=0.25, linewidth=0.7)  # type: ignore[arg-type]


def shortened(name: object, width: int = 28) -> str:
    """A name in one line of at most ``width`` characters.

    Example:
        >>> shortened("mean concave points of the cell nucleus", 20)
        'mean concave point…'
    """
    text = " ".join(str(name).split())
    return text if len(text) < width else text[: width - 2].rstrip() + "…"


def wrapped(text: str, width: int) -> str:
    """A text in lines of at most ``width`` characters, where it can be broken."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def figures_of(value: float) -> str:
    """A number in three significant figures, without a power of ten where it is readable.

    Example:
        >>> figures_of(1234.5), figures_of(0.01234), figures_of(3e-7), figures_of(-0.0)
        ('1234', '0.0123', '3e-07', '0')
    """
    size = abs(value)
    if size == 0:
        return "0"
    if 100 <= size < 1e6:
        return f"{value:.0f}"
    return f"{value:.3g}"


def heat_map(
    axes: Axes,
    values: NDArray[np.float64],
    rows: Sequence[object],
    columns: Sequence[object],
    *,
    signed: bool = False,
    annotate: NDArray[Any] | None = None,
) -> Any:
    """A matrix as colours; returns what a colour bar is made of."""
    top = float(np.abs(values).max()) or 1.0
    image = axes.imshow(
        values,
        aspect="auto",
        cmap=DIVERGING if signed else SEQUENTIAL,
        vmin=-top if signed else 0.0,
        vmax=top,
        interpolation="nearest",
    )
    names = [shortened(name) for name in columns]
    slanted = max(map(len, names)) > 5
    axes.set_xticks(
        range(len(names)),
        names,
        rotation=35 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor" if slanted else "default",
        fontsize=FONT - 1,
    )
    axes.set_yticks(range(len(rows)), [shortened(row, 18) for row in rows], fontsize=FONT - 1)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0)
    axes.tick_params(which="both", length=0)
    if annotate is not None:
        for (i, j), text in np.ndenumerate(annotate):
            dark = abs(values[i, j]) > 0.55 * top
            axes.text(j, i, str(text), ha="center", va="center", fontsize=FONT - 2.5,
                      color="white" if dark else INK)  # fmt: skip
    return image


def bar_scale(figure: Figure | SubFigure, image: Any, axes: Axes, label: str) -> None:
    """A slim colour bar."""
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, aspect=28)
    bar.set_label(label, fontsize=FONT - 1)
    bar.ax.tick_params(labelsize=FONT - 2, length=2)
    bar.outline.set_visible(False)
