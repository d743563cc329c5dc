"""Compare two optimizers of an evaluation by every metric, case by case.

A case is a data set, model and size; its metrics are means over seeds. Errors that cannot be
negative are compared by their ratio, a geometric mean over cases with an interval of 95 % (a
bootstrap over data sets); likelihoods and shares by their difference, as the median over cases.

    python scripts/two_optimizers.py results/benchmark-regression denograd denograd:default
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from _page import interval, markdown

from denograd.evaluation.cases import CASE, metrics_in
from denograd.evaluation.significance import bootstrap_interval

RATIOS = ("log_loss", "rmse", "crps", "train_log_loss", "train_loss")
"""Metrics that are compared by their ratio; the last two are of the training rows."""


def compare(results: pd.DataFrame, one: str, other: str) -> list[list[str]]:
    """A row of the table for each metric.

    Raises:
        SystemExit: no case has both optimizers.
    """
    rows = results[results["optimizer"].isin([one, other])]
    trained = [name for name in RATIOS if name.startswith("train") and name in rows]
    lines = []
    for metric in [*metrics_in(rows.columns), *trained]:
        cases = rows.pivot_table(
            index=list(CASE), columns="optimizer", values=metric, aggfunc="mean"
        )
        if not {one, other} <= set(cases.columns):
            raise SystemExit(f"two_optimizers.py: no case has both {one} and {other}")
        cases = cases[np.isfinite(cases[[one, other]]).all(axis=1)]
        if metric in RATIOS:
            logs = np.log(cases[one] / cases[other])
            ends = bootstrap_interval([list(own) for _, own in logs.groupby("dataset")])
            shown = [f"ratio {np.exp(logs.mean()):.3f}", interval(ends)]
            sizes = np.exp(logs.groupby("n_train").mean())
        else:
            logs = cases[one] - cases[other]
            shown = [f"median difference {logs.median():+.3f}", ""]
            sizes = logs.groupby("n_train").median()
        by_size = ", ".join(f"{size}: {value:.3f}" for size, value in sizes.items())
        lines.append([metric, *shown, f"{(logs < 0).mean():.0%}", by_size])
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of an evaluation")
    parser.add_argument("one", help="an optimizer, as results.csv names it")
    parser.add_argument("other", help="what it is compared with")
    arguments = parser.parse_args()
    results = pd.read_csv(arguments.folder / "results.csv")
    head = ["metric", f"{arguments.one} against {arguments.other}", "95 %", "lower in", "by rows"]
    print(markdown(head, compare(results, arguments.one, arguments.other)))


if __name__ == "__main__":
    main()
