"""Partial dependence of coefficients on the features that move them most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from denograd.estimators._plots import FONT, canvas, colour, tidy, wrapped
from denograd.inspection import MULTIPLIERS, InspectionError, Sensitivity
from denograd.plot._data import coefficient_axis, neutral_line
from denograd.plot._words import in_words


def dependence(
    found: Sensitivity,
    coefficients: str | Sequence[str] | None = None,
    top: int = 4,
    *,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """A row of panels for each coefficient: how it changes with its top features.

    The line is the mean over recorded layers, each with its other features as they were
    (the geometric mean, for those that multiply); the band reaches from their tenth to
    their ninetieth percentile. A coefficient has one scale in all its panels; the dashed line is
    where it is neutral.

    Args:
        found: from `denograd.inspection.sensitivity`.
        coefficients: a name, some names, or None for all.
        top: features for each, the strongest first.
        figure: what to draw into.

    Raises:
        InspectionError: no such coefficient, or ``top`` is less than 1.
    """
    chosen = [coefficients] if isinstance(coefficients, str) else coefficients
    names = found.coefficients if chosen is None else tuple(chosen)
    unknown = [name for name in names if name not in found.coefficients]
    if unknown or not names:
        raise InspectionError(
            f"coefficients={unknown or list(names)!r}; use some of {', '.join(found.coefficients)}"
        )
    if top < 1:
        raise InspectionError(f"top={top!r}; it must be a whole number of at least 1")
    figure = canvas(figure, 2.9 * top + 0.6, 2.1 * len(names) + 0.3)
    panels = figure.subplots(len(names), top, squeeze=False, sharey="row")
    for line, name in zip(panels, names, strict=True):
        features = found.top(name, top)
        for axes in line[len(features) :]:
            axes.set_axis_off()
        for axes, feature in zip(line, features, strict=False):
            _draw(axes, found, name, feature)
        line[0].set_axis_on()
        line[0].set_ylabel(wrapped(name.replace("_", " "), 16), fontsize=FONT, fontweight="bold")
        coefficient_axis(line[0], name)
        for axes in line[1 : len(features)]:
            neutral_line(axes, name)
    return figure


def _draw(axes: Axes, found: Sensitivity, name: str, feature: str) -> None:
    f, k = found.features.index(feature), found.coefficients.index(name)
    curves = [values[f, :, k] for values in (found.mean, found.low, found.high)]
    mean, low, high = (np.exp(x) if name in MULTIPLIERS else x for x in curves)
    x = found.grid[f]
    axes.fill_between(x, low, high, color=colour(0), alpha=0.18, linewidth=0)
    axes.plot(x, mean, color=colour(0), linewidth=2)
    axes.set_xlabel(wrapped(in_words(feature), 34), fontsize=FONT - 2)
    tidy(axes, grid="y")
    axes.tick_params(labelsize=FONT - 2)
