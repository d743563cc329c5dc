"""The chapter on what was evaluated: files, labels, and what became of each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from denograd.evaluation.html import parts
from denograd.evaluation.html.parts import Fold, Grid, Part, Row, Section, Text, Value
from denograd.evaluation.html.phrases import counted, listing

_OPEN = 3
"""So many tables are shown without a fold."""


def data(summary: Mapping[str, Any]) -> Section:
    """Each table's rows, target and columns, those that were left out with the reason."""
    tables = summary.get("data") or {}
    grids = {name: _grid(name, facts) for name, facts in tables.items()}
    found: list[Part] = [
        Text(
            "What was read, and what became of every column. A gap in a number is filled with the "
            "median of the training rows and marked by a column of its own; one in a sequence is "
            "filled with the mean of its channel."
        )
    ]
    if len(grids) <= _OPEN:
        found += grids.values()
    else:
        found += [Fold(name, [grid]) for name, grid in grids.items()]
    return Section("data", "What was evaluated", found)


def _grid(name: str, facts: Mapping[str, Any]) -> Grid:
    lines = [
        ("file", facts["file"]),
        ("SHA-256 of the file", facts["file_sha256"]),
        ("rows", f"{facts['rows']:,}{_unlabelled(facts['unlabelled'])}"),
        ("test rows of a run", _between(facts["test_rows"])),
        ("target", _target(facts)),
        ("rows that belong together", _group(facts["group"])),
        ("sequences", _sequences(facts["channels"], facts["steps"])),
        ("numbers", "" if facts["channels"] else _columns(facts["numbers"])),
        ("categories", _columns(facts["categories"])),
        ("dates", _columns(facts["dates"])),
    ]
    for reason in dict.fromkeys(facts["left_out"].values()):
        names = [column for column, why in facts["left_out"].items() if why == reason]
        lines.append(("left out", f"{listing(names)}: {reason}"))
    rows = [Row(label, [Value(text, look="words")]) for label, text in lines if text]
    return Grid(name, ("what", "value"), rows)


def _group(group: Mapping[str, Any] | None) -> str:
    if group is None:
        return "none; each row stands for itself"
    return (
        f"those of one {group['name']} ({group['groups']:,}); never both trained on and tested, "
        "nor split by inner folds"
    )


def _sequences(channels: int, steps: int) -> str:
    return f"{counted(channels, 'channel')} of {counted(steps, 'step')}" if channels else ""


def _between(ends: Sequence[int] | None) -> str:
    if ends is None:
        return ""
    low, high = ends
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _unlabelled(count: int) -> str:
    return f", and {count:,} without a label, which were left out" if count else ""


def _target(facts: Mapping[str, Any]) -> str:
    if facts["classes"] is not None:
        counts = [f"{label} ({count:,})" for label, count in facts["classes"].items()]
        return f"{facts['target']}: {listing(counts)}"
    low, middle, high = (parts.number(facts["range"][key]).text for key in ("min", "median", "max"))
    return f"{facts['target']}: from {low} to {high}, median {middle}"


def _columns(names: list[str]) -> str:
    return f"{len(names)}: {listing(names)}" if names else ""
