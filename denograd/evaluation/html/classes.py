"""The chapter on single classes: what share of each was recognised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from denograd.evaluation.html import parts
from denograd.evaluation.html.parts import Fold, Grid, Part, Row, Section, Text
from denograd.evaluation.html.phrases import counted, listing
from denograd.evaluation.html.words import foremost, names, rivals

_OPEN = 3
"""So many data sets are shown without a fold."""
_MOST = 4
"""So many optimizers are shown, or a table would be longer than anyone reads."""


def classes(summary: Mapping[str, Any]) -> list[Section]:
    """The recall of each class, a table for each data set.

    Args:
        summary: of an evaluation.

    Returns:
        one section; none if no run kept its recalls, as with measured targets.
    """
    by_dataset: dict[str, list[Mapping[str, Any]]] = {}
    for case in summary["cases"]:
        if case.get("classes"):
            by_dataset.setdefault(case["dataset"], []).append(case)
    if not by_dataset:
        return []
    shown = foremost(summary, _MOST)
    grids = {name: _grid(summary, name, cases, shown) for name, cases in by_dataset.items()}
    found: list[Part] = [Text(_intro(summary, by_dataset, shown))]
    found += list(grids.values())[:_OPEN]
    found += [Fold(name, [grid]) for name, grid in list(grids.items())[_OPEN:]]
    return [Section("classes", "Class by class", found)]


def _intro(
    summary: Mapping[str, Any],
    by_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
    shown: Sequence[str],
) -> str:
    said = (
        "Recall: of the test rows of a class, the share that was predicted to be of it, as the "
        "mean over seeds."
    )
    cases = [case for own in by_dataset.values() for case in own]
    without = len(summary["cases"]) - len(cases)
    if without:
        said += f" Of {counted(without, 'case')} it is not known."
    short_of = [case for case in cases if case["classes"]["seeds"] < case["seeds"]]
    if short_of:
        fewest = min(case["classes"]["seeds"] for case in short_of)
        said += (
            " Seeds are left out, for all optimizers alike, of which a run diverged or, as in an "
            f"earlier version, did not keep it: {counted(len(short_of), 'case')} of {len(cases)} "
            f"rest on fewer seeds, down to {fewest}."
        )
    short = names(summary)
    missing = [short[name] for name in rivals(summary) if name not in shown]
    if missing:
        said += f" Left out here, but in summary.json: {listing(missing)}."
    return said


def _grid(
    summary: Mapping[str, Any],
    dataset: str,
    cases: Sequence[Mapping[str, Any]],
    shown: Sequence[str],
) -> Grid:
    labels = list(cases[0]["classes"]["test_rows"])
    rows = [
        *_of_optimizers(summary, cases, shown, labels),
        *_of_context(summary, dataset, labels),
    ]
    return Grid(_caption(dataset, cases, labels), ["optimizer", *labels], rows)


def _caption(dataset: str, cases: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    # The test rows are the same at every size, but a seed may be missing somewhere.
    numbers = [
        sum(case["classes"]["test_rows"][label] for case in cases) / len(cases) for label in labels
    ]
    rows = listing(
        f"{label} {_short(number)}" for label, number in zip(labels, numbers, strict=True)
    )
    said = f"{dataset}: recall of each class. Predicted is the likeliest class"
    if len(labels) == 2:
        one, other = labels
        said += (
            f", so the threshold is 1/2. The recall of {one} is the sensitivity for {one} and the "
            f"specificity for {other}, and the other way round"
        )
    return f"{said}. Test rows of a run, on average: {rows}."


def _short(number: float) -> str:
    return f"{number:,.1f}".removesuffix(".0")


def _of_optimizers(
    summary: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]],
    shown: Sequence[str],
    labels: Sequence[str],
) -> Iterator[Row]:
    short = names(summary)
    for case in cases:
        group = f"{case['model']}, {case['n_train']} rows"
        for name in shown:
            recalls = case["optimizers"].get(name, {}).get("recalls")
            if recalls is not None:
                values = [parts.percent(recalls[label]) for label in labels]
                yield Row(short[name], values, group)


def _of_context(summary: Mapping[str, Any], dataset: str, labels: Sequence[str]) -> Iterator[Row]:
    for entry in summary.get("context") or []:
        for model, means in entry["models"].items():
            recalls = means.get("recalls")
            if entry["dataset"] == dataset and recalls is not None:
                group = f"models outside torch, {entry['n_train']} rows"
                yield Row(model, [parts.percent(recalls[label]) for label in labels], group)
