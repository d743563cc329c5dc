"""Which features drive which coefficient."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure, SubFigure

from denograd._inspection_words import SIGNS
from denograd.estimators._plots import FONT, bar_scale, canvas, heat_map
from denograd.inspection import Sensitivity
from denograd.plot._words import in_words


def sensitivity(
    found: Sensitivity, *, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """A map: features down, coefficients to the right.

    A cell is the feature's part, in percent, of what all features do to the coefficient when
    each is moved over the range in which it was seen. A plus says that the coefficient
    rises with the feature, a minus that it falls, both that it does one and the other.
    Features that never changed are grey.

    Args:
        found: from `denograd.inspection.sensitivity`.
        figure: what to draw into.
    """
    share = 100 * found.share
    order = np.argsort(-share.sum(1), kind="stable")
    figure = canvas(figure, 0.85 * len(found.coefficients) + 4.8, 0.29 * len(order) + 1.9)
    axes = figure.subplots()
    names = [found.features[i] for i in order]
    signs = [[SIGNS[found.sign(f, c)] for c in found.coefficients] for f in names]
    texts = np.array(
        [
            [f"{sign}{value:.0f}" if value >= 0.5 else "" for sign, value in zip(*row, strict=True)]
            for row in zip(signs, share[order], strict=True)
        ]
    )
    image = heat_map(axes, share[order], names, found.coefficients, annotate=texts)
    axes.set_yticks(range(len(names)), [in_words(name) for name in names], fontsize=FONT - 1)
    for label, i in zip(axes.get_yticklabels(), order, strict=True):
        if found.grid[i, 0] == found.grid[i, -1]:
            label.set_color("#9aa0a6")
    bar_scale(figure, image, axes, "part of all effects on the coefficient, %")
    return figure
