"""Coefficients over layers."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from denograd.estimators._plots import (
    DIVERGING,
    FONT,
    INK,
    bar_scale,
    canvas,
    figures_of,
    shortened,
)
from denograd.inspection import MULTIPLIERS, neutral
from denograd.plot._data import Runs, need_coefficients, table_of

MOST_LAYERS = 60
"""More layers than so many can't be read; the first are shown."""


def layers(runs: Runs, *, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A table of coefficients by layer: each cell is the median over the run.

    Colours say how far a cell is from where the coefficient does nothing (ratios, for those
    that multiply), as a part of the farthest in its column.

    Args:
        runs: a recording, or recordings by name; recordings of one name are taken together.
        figure: what to draw into.

    Raises:
        InspectionError: a recording is empty, or the denoiser has no coefficients.
    """
    table = table_of(runs)
    names = need_coefficients(table)
    found = table.rows.groupby("where", sort=False)[list(names)].median().head(MOST_LAYERS)
    values = found.to_numpy(np.float64)
    height = 0.34 * len(found) + 2.0
    figure = canvas(figure, 1.05 * len(names) + 3.2, height)
    axes = figure.subplots()
    shades = np.stack([_shade(column, name) for column, name in zip(values.T, names, strict=True)])
    image = axes.imshow(shades.T, aspect="auto", cmap=DIVERGING, vmin=-1, vmax=1)
    axes.set_yticks(range(len(found)), [shortened(w, 36) for w in found.index], fontsize=FONT - 1)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=FONT - 1)
    for (i, j), value in np.ndenumerate(values):
        ink = "white" if abs(shades[j, i]) > 0.75 else INK
        text = figures_of(float(f"{value:.2g}"))
        axes.text(j, i, text, ha="center", va="center", fontsize=FONT - 2, color=ink)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar_scale(figure, image, axes, "below and above neutral,\npart of the farthest")
    return figure


def _shade(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Distances from where a coefficient does nothing, between -1 and 1."""
    rest = neutral(name)
    if name in MULTIPLIERS and rest > 0:
        away = np.log(np.maximum(values, 1e-12) / rest)
    else:
        away = values - rest
    farthest = np.abs(away).max()
    return away / farthest if farthest > 0 else away
