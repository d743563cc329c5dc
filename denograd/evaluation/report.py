"""What an evaluation says, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table as RichTable

from denograd.evaluation.names import short_names


def results_table(summary: Mapping[str, Any]) -> RichTable:
    """A row for each data set, model and size, with its winner.

    ``ratio`` is the log loss of each other optimizer, divided by the reference's.

    Args:
        summary: of an evaluation in which at least one case is finished.
    """
    cases = summary["cases"]
    optimizers = list(summary["settings"]["optimizers"])
    short = short_names(optimizers)
    table = RichTable(
        title="Means over seeds; loss: log loss in nats on test rows, lower is better",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("data set", no_wrap=True)
    table.add_column("model", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    for measure in ("loss", "accuracy"):
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
        ratios = ", ".join(f"{ratio:.2f}" for ratio in case["ratio"].values()) or "-"
        table.add_row(
            case["dataset"],
            case["model"],
            str(case["n_train"]),
            *(f"{value['log_loss']:.3f}" if value else "-" for value in shown),
            *(f"{value['accuracy']:.3f}" if value else "-" for value in shown),
            ratios,
            short[case["winner"]],
        )
    return table


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each optimizer that was compared with the reference.

    Args:
        summary: of an evaluation.
    """
    reference = summary["reference"]
    short = short_names([reference, *summary["comparisons"]])
    sentences = []
    for name, comparison in summary["comparisons"].items():
        found = comparison["overall"]
        if not found["cases"]:
            sentences.append(f"{short[name]}: no case in which every optimizer finished a seed.")
            continue
        points = 100 * (found["accuracy"] - found["accuracy_reference"])
        sentences.append(
            f"{short[name]} against {reference}: lower log loss in {found['wins']} of "
            f"{found['cases']} cases, geometric mean of the ratio "
            f"{found['log_loss_ratio']:.3f}, accuracy {points:+.1f} points, "
            f"worst case {found['worst_ratio']:.2f} ({found['worst_case']})."
        )
    return sentences
