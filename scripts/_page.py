"""Tables in Markdown, and pages with figures between markers, which scripts replace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from denograd.evaluation.significance import bootstrap_interval
from denograd.meta.validation import Judged


def markers(name: str) -> tuple[str, str]:
    """Where the figures of a name begin and end."""
    return f"<!-- {name}:start -->", f"<!-- {name}:end -->"


BEGIN, END = markers("figures")


def around_figures(path: Path, name: str = "figures") -> tuple[str, str]:
    """What stands before the figures of a page and after them, markers included.

    Raises:
        SystemExit: the page does not hold both markers, each once.
    """
    text, (begin, end) = path.read_text(encoding="utf-8"), markers(name)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{path}: it must hold {begin} and {end}, each once")
    return f"{text.split(begin)[0]}{begin}\n", f"\n{end}{text.split(end)[1]}"


def interval(ends: Sequence[float] | None) -> str:
    """The two ends of an interval, or that they are not known."""
    low, high = ends or (float("nan"), float("nan"))
    return f"{low:.3f} to {high:.3f}"


def changes_by_table(
    changed: Mapping[Judged, float], whole: Mapping[Judged, float]
) -> list[list[float]]:
    """By how much the logarithms of each cell differ, those of a table together."""
    found: dict[str, list[float]] = {}
    for cell, log in changed.items():
        found.setdefault(cell.table, []).append(log - whole[cell])
    return [*found.values()]


def mean_ratio(logs: Sequence[Sequence[float]]) -> str:
    """The geometric mean of ratios, with an interval of 95 % (a bootstrap over tables).

    Args:
        logs: logarithms of the ratios, those of a table together.
    """
    mean = float(np.exp(np.concatenate(logs).mean()))
    return f"{mean:.3f} ({interval(bootstrap_interval(logs))})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
