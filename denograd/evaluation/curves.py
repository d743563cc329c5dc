"""Pictures of an evaluation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from denograd.evaluation.names import short_names
from denograd.evaluation.train import Cell, CellResult

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
"""Okabe and Ito's palette, which the colour-blind can tell apart."""

_FONT = 13
_as_written = rc_context({"text.parse_math": False})
"""Or what stands between two dollar signs of a name would be read as a formula."""
_MOST_LABELS = 60
"""With more, a picture of ratios would be taller than anyone reads."""
_MOST_RIVALS = 6


class Runs(NamedTuple):
    """Curves of runs that can be averaged, point by point.

    Attributes:
        steps: ``(points,)``.
        test: ``(runs, points)``, mean loss over the test rows.
        train: ``(runs, points)``, mean loss over the training rows.
        left_out: number of runs that diverged or were recorded at other steps.
    """

    steps: NDArray[np.float64]
    test: NDArray[np.float64]
    train: NDArray[np.float64]
    left_out: int


def aligned_runs(results: Sequence[CellResult]) -> Runs:
    """The runs that did not diverge, and of them those with the most points.

    Args:
        results: of one data set, model, optimizer and size, one each seed.

    Example:
        >>> curve = {"step": [0.0, 1.0], "test_loss": [0.7, 0.5], "train_loss": [0.7, 0.4]}
        >>> torn = {name: values[:1] for name, values in curve.items()}
        >>> lasted = CellResult({"diverged": 0}, curve)
        >>> runs = aligned_runs([lasted, CellResult({"diverged": 1}, torn), lasted])
        >>> runs.test.tolist(), runs.left_out
        ([[0.7, 0.5], [0.7, 0.5]], 1)
    """
    whole = []
    for curve in (result.curve for result in results if not result.diverged):
        values = [
            np.array(curve.get(key, ()), dtype=float) for key in ("step", "test_loss", "train_loss")
        ]
        same_length = len({len(value) for value in values}) == 1 and len(values[0]) > 0
        if same_length and all(np.isfinite(value).all() for value in values):
            whole.append(values)
    if not whole:
        nothing = np.zeros((0, 0))
        return Runs(np.zeros(0), nothing, nothing, len(results))
    grid = max((tuple(values[0]) for values in whole), key=len)
    own = [values for values in whole if tuple(values[0]) == grid]
    _, test, train = (np.stack(values) for values in zip(*own, strict=True))
    return Runs(np.array(grid), test, train, len(results) - len(own))


@_as_written
def plot_curves(
    finished: Mapping[Cell, CellResult], optimizers: Sequence[str], folder: Path
) -> list[Path]:
    """Learning curves, a figure a data set with a panel for each model and size.

    Solid lines are the mean test loss over seeds, the band their lowest and highest,
    dashed lines the mean training loss. Runs that diverged are left out.

    Args:
        finished: cells with their curves; those without one, as of models outside torch, are
            left out.
        optimizers: in the order of their colours.
        folder: where to write ``curves_DATASET.png``; what files are not named by becomes
            ``_`` there, and a name that is taken then gets a number.

    Returns:
        the files.
    """
    files: list[Path] = []
    drawn = {c: result for c, result in finished.items() if result.curve and not result.diverged}
    measured = any("rmse" in result.row for result in drawn.values())
    ylabel = "squared error (standardised)" if measured else "log loss (nats)"
    for dataset in dict.fromkeys(cell.dataset for cell in drawn):
        own = {cell: result for cell, result in drawn.items() if cell.dataset == dataset}
        models = list(dict.fromkeys(cell.model for cell in own))
        sizes = sorted({cell.n_train for cell in own})
        figure = Figure(figsize=(4.2 * len(sizes) + 1, 3.4 * len(models) + 1.4))
        grid = figure.subplots(len(models), len(sizes), squeeze=False, sharex=True, sharey="row")
        for axes_row, model in zip(grid, models, strict=True):
            highest = 0.0
            for axes, size in zip(axes_row, sizes, strict=True):
                for number, optimizer in enumerate(optimizers):
                    results = [
                        result
                        for cell, result in own.items()
                        if cell[1:4] == (model, optimizer, size)
                    ]
                    if results:
                        highest = max(highest, _plot_runs(axes, results, _colour(number)))
                axes.set_title(f"{model}, {size} rows", fontsize=_FONT)
                axes.grid(alpha=0.25)
                axes.tick_params(labelsize=_FONT - 2)
            # One run that explodes would press all others into a line at the bottom.
            if highest > 0:
                axes_row[0].set_ylim(0, 1.05 * highest)
            axes_row[0].set_ylabel(ylabel, fontsize=_FONT)
        for axes in grid[-1]:
            axes.set_xlabel("steps", fontsize=_FONT)
        below = _legend(figure, optimizers)
        figure.suptitle(dataset, fontsize=_FONT + 4, fontweight="bold")
        figure.tight_layout(rect=(0, below, 1, 1))
        files.append(_save(figure, _free(folder, f"curves_{_file_name(dataset)}", files)))
    return files


@_as_written
def plot_ratios(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Every case's log loss as a ratio to the reference's, a panel an optimizer.

    Of many optimizers only the first six are drawn; the report has all of them.

    Args:
        summary: from `denograd.evaluation.summarise`, with the key ``reference``.
        folder: where to write ``ratios.png``.

    Returns:
        the file; none if there is nothing to compare.
    """
    cases, rivals = summary["cases"], list(summary["comparisons"])[:_MOST_RIVALS]
    if not cases or not rivals:
        return []
    short = short_names(rivals)
    by_model = len({(case["dataset"], case["model"]) for case in cases}) <= _MOST_LABELS

    def label(case: Mapping[str, Any]) -> str:
        return f"{case['dataset']}, {case['model']}" if by_model else str(case["dataset"])

    labels = list(dict.fromkeys(map(label, cases)))
    sizes = sorted({case["n_train"] for case in cases})
    height = 0.42 * len(labels) + 2.2
    figure = Figure(figsize=(5.2 * len(rivals) + 3.2, height))
    panels = figure.subplots(1, len(rivals), squeeze=False, sharey=True)[0]
    shades = [_shade(number, len(sizes)) for number in range(len(sizes))]
    for axes, rival in zip(panels, rivals, strict=True):
        axes.axvline(1.0, color="black", linewidth=1.2)
        for number, size in enumerate(sizes):
            own = [case for case in cases if case["n_train"] == size]
            # Sizes stand a little apart, or equal ratios would hide each other.
            offset = 0.36 * ((number + 0.5) / len(sizes) - 0.5)
            axes.scatter(
                [case["ratio"][rival] for case in own],
                [labels.index(label(case)) + offset for case in own],
                s=70,
                color=shades[number],
                edgecolor="black",
                linewidth=0.6,
                label=f"{size} rows",
                zorder=3,
            )
        overall = summary["comparisons"][rival]["overall"]
        loss = "log loss" if "log_loss" in overall else "RMSE"
        axes.set_title(
            f"{short[rival]}\n{_record(overall)}, mean ratio {overall['log_loss_ratio']:.3f}",
            fontsize=_FONT,
        )
        axes.set_xlabel(
            f"{loss} relative to {summary['reference']}\n(left of 1 is better)", fontsize=_FONT
        )
        _ratio_axis(axes, [case["ratio"][rival] for case in cases])
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=_FONT - 1)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    panels[-1].legend(fontsize=_FONT - 2, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    return [_save(figure, folder / "ratios.png")]


def _record(overall: Mapping[str, Any]) -> str:
    """Cases as the report counts them: what is within 1 % is a tie."""
    won, tied, lost = (overall[key] for key in ("clear_wins", "ties", "clear_losses"))
    return f"{won} won, {tied} tied, {lost} lost"


def _plot_runs(axes: Axes, results: Sequence[CellResult], colour: str) -> float:
    """Draw one optimizer's runs; returns how high the axis must reach to show them."""
    runs = aligned_runs(results)
    if not len(runs.test):
        return 0.0
    steps, test, train = runs.steps, runs.test, runs.train
    axes.fill_between(steps, test.min(0), test.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.plot(steps, test.mean(0), color=colour, linewidth=2)
    axes.plot(steps, train.mean(0), color=colour, linewidth=1.3, linestyle=(0, (4, 2)), alpha=0.8)
    return float(min(test.max(), 2.0 * test[:, 0].max()))


def _legend(figure: Figure, optimizers: Sequence[str]) -> float:
    """Make room for a legend below the panels, and draw it; the share of the height it takes."""
    handles = [
        Line2D([], [], color=_colour(number), linewidth=2, label=name)
        for number, name in enumerate(short_names(optimizers).values())
    ]
    handles += [
        Line2D([], [], color="#555555", linewidth=2, label="test (band: all seeds)"),
        Line2D([], [], color="#555555", linewidth=1.3, linestyle=(0, (4, 2)), label="training"),
    ]
    # A narrow picture has room for two entries beside each other.
    columns = min(len(handles), 4, max(1, int(figure.get_figwidth() / 2.3)))
    inches = 0.3 * math.ceil(len(handles) / columns) + 0.1
    figure.set_figheight(figure.get_figheight() + max(0.0, inches - 0.4))
    figure.legend(
        handles=handles, loc="lower center", ncols=columns, fontsize=_FONT - 1, frameon=False
    )
    return inches / figure.get_figheight()


def _ratio_axis(axes: Axes, ratios: Sequence[float]) -> None:
    axes.set_xscale("log")
    low, high = min(*ratios, 0.8) * 0.95, max(*ratios, 1.25) * 1.05
    axes.set_xlim(low, high)
    ticks = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
    shown = [tick for tick in ticks if low <= tick <= high]
    if high / low > 4:
        shown = [tick for tick in shown if tick not in (0.4, 0.6, 0.7, 0.8, 0.9, 1.1, 1.25)]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _shade(number: int, count: int) -> tuple[float, float, float]:
    """From light to dark with the size."""
    dark = (number + 1) / count
    return (0.85 - 0.85 * dark, 0.92 - 0.47 * dark, 1.0 - 0.30 * dark)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def _free(folder: Path, stem: str, taken: Sequence[Path]) -> Path:
    path, number = folder / f"{stem}.png", 1
    while path in taken:
        number += 1
        path = folder / f"{stem}_{number}.png"
    return path


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)
    return path
