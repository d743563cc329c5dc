"""What an evaluation says, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table as RichTable

from denograd.evaluation.html.words import (
    caveats,
    first_verdicts,
    foremost,
    loss_of,
    verdicts,
)
from denograd.evaluation.names import short_names

_MOST = 4
"""So many optimizers have columns."""


def results_table(summary: Mapping[str, Any]) -> RichTable:
    """A row for each data set, model and size, with its winner.

    ``ratio`` is the loss of each other optimizer, divided by the reference's. Only the
    columns that the terminal has room for are shown: of many optimizers the reference,
    denograd's and the best of the others.

    Args:
        summary: of an evaluation in which at least one case is finished.
    """
    cases = summary["cases"]
    every = list(summary["settings"]["optimizers"])
    # A name in square brackets is no markup.
    short = {name: escape(written) for name, written in short_names(every).items()}
    optimizers = every
    if len(every) > _MOST:
        kept = foremost(summary, _MOST)
        optimizers = [name for name in every if name in kept]
    loss, written = loss_of(summary)
    second = "accuracy" if loss == "log_loss" else "r2"
    unit = " in nats" if loss == "log_loss" else ""
    title = f"Means over seeds; loss: {written}{unit} on test rows, lower is better"
    if len(optimizers) < len(every):
        title += f"; {len(every) - len(optimizers)} more optimizers are in the report"
    table = RichTable(
        title=title,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("data set", no_wrap=True)
    table.add_column("model", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    for measure in ("loss", second):
        for name in optimizers:
            table.add_column(
                f"{measure}\n{short[name]}", justify="right", overflow="fold", min_width=5
            )
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("winner", no_wrap=True)
    before = None
    for case in cases:
        if before not in (None, case["dataset"]):
            table.add_section()
        before = case["dataset"]
        means = case["optimizers"]
        shown = [means.get(name) for name in optimizers]
        ratios = [case["ratio"][name] for name in optimizers if name in case["ratio"]]
        table.add_row(
            escape(case["dataset"]),
            case["model"],
            str(case["n_train"]),
            *(_number(values, loss) for values in shown),
            *(_number(values, second) for values in shown),
            ", ".join(f"{ratio:.2f}" for ratio in ratios) or "-",
            short[case["winner"]],
        )
    return table


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """What the report says at its top: a paragraph for each optimizer, denograd's first.

    Those on denograd's are told in full; of others there may be many, and the report has
    the rest.

    Args:
        summary: of an evaluation.

    Returns:
        the paragraphs, the last with what to bear in mind; empty without a comparison.
    """
    found = verdicts(summary)
    first, reservations = first_verdicts(found), caveats(summary)
    said = [
        " ".join(filter(None, [one.headline, one.tally, *(one.details if place < first else ())]))
        for place, one in enumerate(found)
    ]
    return [*said, " ".join(reservations)] if said and reservations else said


def _number(values: Mapping[str, float | None] | None, metric: str) -> str:
    """Of an optimizer that may be missing, a metric that may be undefined."""
    value = values.get(metric) if values else None
    # Of an RMSE in thousands three decimals would break the column.
    return "-" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.5g}"
