"""Coefficients over the phase of training."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from denograd.estimators._plots import FONT, canvas, colour, shortened, tidy, wrapped
from denograd.plot._data import Runs, Table, coefficient_axis, need_coefficients, table_of
from denograd.plot._words import in_words

MOST_LINES = 7
"""So many layers get a line each; more are shown by their median."""


def phase(runs: Runs, *, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A panel a coefficient: how it goes on while training does.

    A single recording of few layers gets a line for each layer. Otherwise a line is the
    median over the layers of all recordings of a name, and its band reaches from their
    tenth to their ninetieth percentile. The dashed line is where a coefficient is neutral: it does
    nothing there or, for a kappa, leaves Wiener's gain as it is.

    Args:
        runs: a recording, or recordings by name.
        figure: what to draw into.

    Raises:
        InspectionError: a recording is empty, or the denoiser has no coefficients.
    """
    table = table_of(runs)
    names = need_coefficients(table)
    one = len(table.names) == 1 and not table.rows.duplicated(["step", "layer"]).any()
    each = one and table.rows["layer"].nunique() <= MOST_LINES
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure = canvas(figure, 3.6 * columns, 2.4 * lines + 0.5)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels.flat, names, strict=False):
        _draw(axes, table, name, each)
        axes.set_title(name, fontsize=FONT, fontweight="bold", loc="left", pad=18)
        axes.text(0, 1.02, wrapped(in_words(name), 44), transform=axes.transAxes,
                  fontsize=FONT - 2, va="bottom")  # fmt: skip
        tidy(axes, grid="y")
        coefficient_axis(axes, name)
    for axes in panels[-1]:
        axes.set_xlabel(table.axis, fontsize=FONT - 1)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    if len(labels) > 1 or labels[0]:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False,
                      fontsize=FONT - 1)  # fmt: skip
    return figure


def _draw(axes: Axes, table: Table, name: str, each: bool) -> None:
    """Draw a coefficient, by layer if ``each`` layer gets a line of its own."""
    key = "layer" if each else "run"
    for number, (label, rows) in enumerate(table.rows.groupby(key, sort=False)):
        values = rows.groupby("time")[name]
        middle = values.median()
        if not each:
            axes.fill_between(middle.index, values.quantile(0.1), values.quantile(0.9),
                              color=colour(number), alpha=0.2, linewidth=0)  # fmt: skip
        axes.plot(middle.index, middle, color=colour(number), linewidth=1.8,
                  label=shortened(label))  # fmt: skip
