"""Recordings as one table, in the form that the pictures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from denograd.audit import AuditLog
from denograd.estimators._plots import FONT, INK
from denograd.inspection import MULTIPLIERS, InspectionError, neutral

Runs: TypeAlias = AuditLog | Mapping[str, AuditLog | Sequence[AuditLog]]
"""A recording, or several under the names by which a picture tells them apart."""

BINS = 30
"""A curve over time has at most so many points."""


class Table(NamedTuple):
    """All rows of some recordings.

    Attributes:
        rows: those of `AuditLog.to_frame`, and ``run``, the name of the recording, ``time``,
            a point in training, and ``where``, the layer and, if there are several names,
            the run.
        names: of the runs, in order.
        coefficients: names of the coefficients.
        axis: what ``time`` is.
    """

    rows: pd.DataFrame
    names: tuple[str, ...]
    coefficients: tuple[str, ...]
    axis: str


def table_of(runs: Runs) -> Table:
    """All rows of some recordings.

    Raises:
        InspectionError: there is none, or one is empty.
    """
    named = {"": runs} if isinstance(runs, AuditLog) else runs
    if not isinstance(named, Mapping):
        raise InspectionError(
            f"runs is a {type(runs).__name__}; give a recording (optimizer.recording), or a "
            "dictionary of recordings by name"
        )
    frames, coefficients = [], dict[str, None]()
    for name, found in named.items():
        for log in [found] if isinstance(found, AuditLog) else found:
            if not len(log):
                raise InspectionError(
                    f"the recording {name!r} is empty; record a run with DenoGrad(..., record=10)"
                )
            frames.append(log.to_frame().assign(run=name))
            coefficients.update(dict.fromkeys(log.coefficient_names))
    if not frames:
        raise InspectionError("there is no recording to draw; give at least one")
    rows = pd.concat(frames, ignore_index=True)
    known = bool(rows["phase"].notna().all())
    rows["time"] = points_in_time(rows["phase" if known else "step"].to_numpy(np.float64))
    several = len(named) > 1
    rows["where"] = rows["run"] + ": " + rows["layer"] if several else rows["layer"]
    axis = "part of the run that is over" if known else "steps done"
    return Table(rows, tuple(named), tuple(coefficients), axis)


def points_in_time(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times, those that are close to each other taken together if there are many.

    Example:
        >>> points_in_time(np.array([0.0, 4.0, 4.0, 8.0]))
        array([0., 4., 4., 8.])
        >>> len(np.unique(points_in_time(np.arange(1000.0))))
        30
    """
    if len(np.unique(times)) <= BINS:
        return times
    edges = np.linspace(times.min(), times.max(), BINS + 1)
    number = np.clip(np.digitize(times, edges) - 1, 0, BINS - 1)
    middles: NDArray[np.float64] = (edges[:-1] + edges[1:])[number] / 2
    return middles


def need_coefficients(table: Table) -> tuple[str, ...]:
    """The names of the coefficients.

    Raises:
        InspectionError: the denoiser has none.
    """
    if not table.coefficients:
        raise InspectionError(
            "the recording has no coefficients: its denoiser has none, so only its energy can be "
            "drawn"
        )
    return table.coefficients


def coefficient_axis(axes: Axes, name: str) -> None:
    """A logarithmic axis for a factor, and a line where a coefficient does nothing."""
    if name in MULTIPLIERS:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        low, high = axes.get_ylim()
        # Powers of ten alone would leave a short axis without numbers.
        if high / low < 300:
            marks = (1, 1.5, 2, 3, 5, 7) if high / low < 12 else (1, 3)
            ticks = [mark * 10.0**e for e in range(-9, 10) for mark in marks]
            axes.set_yticks([tick for tick in ticks if low <= tick <= high])
            axes.set_ylim(low, high)
    neutral_line(axes, name)
    axes.tick_params(labelsize=FONT - 2)


def neutral_line(axes: Axes, name: str) -> None:
    """A line where a coefficient does nothing, if the axis reaches there."""
    low, high = axes.get_ylim()
    if low <= neutral(name) <= high:
        axes.axhline(neutral(name), color=INK, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
