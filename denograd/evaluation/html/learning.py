"""Learning curves, a small picture for each model and size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from denograd.evaluation.curves import Runs, aligned_runs
from denograd.evaluation.html import svg
from denograd.evaluation.html.phrases import counted
from denograd.evaluation.train import Cell, CellResult

Curves = Mapping[tuple[str, str, int, str], Runs]
"""By data set, model, size and optimizer."""
_LEAST = 1e-12
BANDS = 3
"""With more lines than that, bands would hide each other."""
_WIDTH, _HEIGHT = 300, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 26, 36


@dataclass(frozen=True)
class Line:
    """One optimizer in a picture: ``(points,)`` each, the band may be missing."""

    style: int
    steps: NDArray[np.float64]
    middle: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


def gather(finished: Mapping[Cell, CellResult], optimizers: Sequence[str]) -> Curves:
    """The runs of each data set, model, size and optimizer."""
    wanted = set(optimizers)
    found: dict[tuple[str, str, int, str], list[CellResult]] = defaultdict(list)
    for cell, result in finished.items():
        if cell.optimizer in wanted and result.curve:
            key = (cell.dataset, cell.model, cell.n_train, cell.optimizer)
            found[key].append(result)
    return {key: aligned_runs(curves) for key, curves in found.items()}


def of_data_set(
    curves: Curves, dataset: str, model: str, sizes: Sequence[int], optimizers: Sequence[str]
) -> list[Markup]:
    """Mean test loss over seeds on one data set, with the range of seeds.

    Args:
        curves: from `gather`.
        dataset: its name.
        model: its name.
        sizes: a picture each.
        optimizers: whose lines are drawn; the place of each is its style.

    Returns:
        pictures; sizes without curves are left out.
    """
    panels = {}
    for size in sizes:
        lines = []
        for style, name in enumerate(optimizers):
            runs = curves.get((dataset, model, size, name))
            if runs is None or not len(runs.test):
                continue
            band = len(optimizers) <= BANDS and len(runs.test) > 1
            lines.append(
                Line(
                    style,
                    runs.steps,
                    runs.test.mean(0),
                    runs.test.min(0) if band else None,
                    runs.test.max(0) if band else None,
                )
            )
        if lines:
            panels[size] = (f"{size} rows", lines)
    return _panels(panels, f"Test loss of {model} on {dataset}")


def over_data_sets(
    curves: Curves, model: str, sizes: Sequence[int], optimizers: Sequence[str]
) -> list[Markup]:
    """Test loss relative to the reference's best, as its geometric mean over data sets.

    Only data sets count on which every optimizer that is drawn has a run that lasted.

    Args:
        curves: from `gather`.
        model: its name.
        sizes: a picture each.
        optimizers: whose lines are drawn, the reference first.

    Returns:
        pictures; sizes without curves are left out.
    """
    panels = {}
    for size in sizes:
        logs: dict[str, list[NDArray[np.float64]]] = {name: [] for name in optimizers}
        steps = np.zeros(0)
        for dataset in dict.fromkeys(key[0] for key in curves if key[1:3] == (model, size)):
            runs = [curves.get((dataset, model, size, name)) for name in optimizers]
            usable = [found for found in runs if found is not None and len(found.test)]
            if len(usable) < len(runs) or len({len(found.steps) for found in usable}) > 1:
                continue
            steps = usable[0].steps
            if any(len(found[-1]) != len(steps) for found in logs.values() if found):
                continue
            best = max(float(usable[0].test.mean(0).min()), _LEAST)
            for name, found in zip(optimizers, usable, strict=True):
                logs[name].append(np.log(np.maximum(found.test.mean(0), _LEAST) / best))
        count = len(logs[optimizers[0]])
        if count:
            lines = [
                Line(style, steps, np.exp(np.mean(found, axis=0)))
                for style, found in enumerate(logs.values())
            ]
            panels[size] = (f"{size} rows, {counted(count, 'data set')}", lines)
    what = f"Test loss of {model} relative to the reference's best"
    return _panels(panels, what, level=1.0)


def sample(style: int) -> Markup:
    """A piece of a line, for the legend."""
    piece = svg.line(0, 6, 34, 6, f"line s{style}")
    return svg.element("svg", piece, viewBox="0 0 34 12", class_="sample", aria_hidden="true")


def _panels(
    panels: Mapping[int, tuple[str, Sequence[Line]]], what: str, level: float | None = None
) -> list[Markup]:
    """Pictures with one vertical axis, so that sizes can be compared."""
    if not panels:
        return []
    drawn = [line for _, lines in panels.values() for line in lines]
    lowest = min(float((line.middle if line.low is None else line.low).min()) for line in drawn)
    # One run that explodes would press all others into a line at the bottom.
    start = max(float(line.middle[0]) for line in drawn)
    highest = min(max(float(line.middle.max()) for line in drawn), 2 * start)
    low, high = max(lowest, _LEAST) * 0.95, max(highest, level or 0) * 1.05
    return [_panel(title, lines, low, high, what, level) for title, lines in panels.values()]


def _panel(
    title: str, lines: Sequence[Line], low: float, high: float, what: str, level: float | None
) -> Markup:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    vertical = svg.LogScale(low, high, bottom, _TOP)
    last = max(float(line.steps[-1]) for line in lines) or 1.0

    def across(step: float) -> float:
        return _LEFT + (right - _LEFT) * step / last

    parts = [svg.text(_LEFT, 15, svg.clipped(title, 46), class_="title")]
    for tick in vertical.ticks(5):
        y = vertical(tick)
        parts += [
            svg.line(_LEFT, y, right, y, "ink" if tick == level else "grid"),
            svg.text(_LEFT - 5, y + 4, f"{tick:g}", anchor="end"),
        ]
    for share in (0.0, 0.5, 1.0):
        anchor = "end" if share == 1 else "middle"
        written = f"{share * last:g}"
        parts.append(svg.text(across(share * last), bottom + 15, written, anchor=anchor))
    parts.append(svg.text((_LEFT + right) / 2, _HEIGHT - 5, "steps", anchor="middle"))
    for drawn in lines:
        if drawn.low is not None and drawn.high is not None:
            lower = _points(drawn.steps, drawn.low, across, vertical)
            upper = _points(drawn.steps, drawn.high, across, vertical)
            parts.append(svg.area([*lower, *reversed(upper)], f"band s{drawn.style}"))
    # The reference's line is drawn last, or it would vanish below the others.
    for drawn in reversed(lines):
        points = _points(drawn.steps, drawn.middle, across, vertical)
        parts.append(svg.path(points, f"line s{drawn.style}"))
    ends = ", ".join(f"line {line.style + 1}: {line.middle[-1]:.3g}" for line in lines)
    label = f"{what}: {title}. At the end, in the order of the legend: {ends}."
    return svg.picture(_WIDTH, _HEIGHT, label, parts)


def _points(
    steps: NDArray[np.float64],
    values: NDArray[np.float64],
    across: Callable[[float], float],
    vertical: Callable[[float], float],
) -> list[tuple[float, float]]:
    return [
        (across(float(step)), vertical(float(value)))
        for step, value in zip(steps, values, strict=True)
    ]
