"""Energy of the gradient that was kept and removed, by layer and over steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure, SubFigure

from denograd.estimators._plots import DIVERGING, FONT, SEQUENTIAL, canvas, shortened
from denograd.plot._data import Runs, table_of
from denograd.plot.layers import MOST_LAYERS

OCTAVES = 3
"""Colours of what is kept end at 1/8 and at 8."""


def energy(runs: Runs, *, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Two maps, layers down and training to the right.

    Left, the energy of the cleaned gradient over that of the plain one, ``|cleaned|^2 /
    |g|^2``: more than 1 where the denoiser scales a gradient up or adds a mean of earlier
    ones. Right, the energy of what it changed, ``|g - cleaned|^2 / |g|^2``. Both are
    medians where several records fall together, and blank where a gradient was zero.

    Args:
        runs: a recording, or recordings by name; recordings of one name are taken together.
        figure: what to draw into.

    Raises:
        InspectionError: a recording is empty.
    """
    table = table_of(runs)
    rows = table.rows
    before = rows["energy_before"].where(rows["energy_before"] > 0)
    shares = rows.assign(kept=rows["energy_after"] / before, gone=rows["energy_removed"] / before)
    order = list(dict.fromkeys(rows["where"]))[:MOST_LAYERS]
    maps = {
        name: shares.pivot_table(name, "where", "time", "median", dropna=False).reindex(order)
        for name in ("kept", "gone")
    }
    figure = canvas(figure, 11, 0.3 * len(order) + 2.2)
    left, right = figure.subplots(1, 2, sharey=True)
    kept = np.log2(np.maximum(maps["kept"].to_numpy(np.float64), 1e-12))
    times = maps["kept"].columns.to_numpy(np.float64)
    ticks = list(range(-OCTAVES, OCTAVES + 1))
    labels = [f"1/{2**-t}" if t < 0 else str(2**t) for t in ticks]
    image = _map(left, kept, times, DIVERGING, (-OCTAVES, OCTAVES))
    bar = figure.colorbar(image, ax=left, ticks=ticks, fraction=0.04, pad=0.02, extend="both")
    bar.ax.set_yticklabels(labels)
    left.set_title("energy kept, of that before", fontsize=FONT, loc="left")
    image = _map(right, maps["gone"].to_numpy(np.float64), times, SEQUENTIAL, (0, 1))
    right_bar = figure.colorbar(image, ax=right, fraction=0.04, pad=0.02, extend="max")
    right.set_title("energy changed or removed, of that before", fontsize=FONT, loc="left")
    left.set_yticks(range(len(order)), [shortened(name, 36) for name in order], fontsize=FONT - 1)
    for axes, scale in ((left, bar), (right, right_bar)):
        axes.set_xlabel(table.axis, fontsize=FONT - 1)
        scale.ax.tick_params(labelsize=FONT - 2)
        scale.outline.set_visible(False)
    return figure


def _map(
    axes: Axes, values: Any, times: Any, colours: Colormap, limits: tuple[float, float]
) -> Any:
    """One map; its columns stand at even distances, and their times below them."""
    image = axes.imshow(
        values, aspect="auto", cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest"
    )
    shown = np.unique(np.linspace(0, len(times) - 1, 6).round().astype(int))
    axes.set_xticks(shown, [f"{times[i]:.2g}" for i in shown], fontsize=FONT - 2)
    axes.tick_params(length=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image
