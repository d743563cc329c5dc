"""How much seeds agree on an explanation where there is nothing to explain.

Seeds may agree because the data say so, or because a way of training always likes the same columns,
whatever they say: those with many values, say, or with outliers. Here every table stands twice, as
it is and with its labels shuffled, so that they have nothing to do with the columns. What seeds
agree on in the second is no finding about the data.

Consistency is the mean Spearman correlation of feature importance over pairs of seeds, which differ
in rows, initial weights and batches. Interrupted, it goes on where it stopped.

    python scripts/shuffled_labels.py --data ../shared/data --every 3
    python scripts/shuffled_labels.py --builtin --out results/shuffled-builtin
"""

from __future__ import annotations

import argparse
import zlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmark import held_out_tables
from rich.console import Console

from denograd.data import Table, builtin_table
from denograd.evaluation import EvaluationConfig, evaluate

MODELS = ("soft_tree", "attention", "additive_net", "rule_net")
BUILTIN = ("breast_cancer", "wine", "digits3")
SHUFFLED = " (shuffled)"


def shuffled(table: Table) -> Table:
    """The table with its labels in another order, the same one every time."""
    order = np.random.default_rng(zlib.crc32(table.name.encode())).permutation(len(table))
    target = table.target.iloc[order].set_axis(table.target.index)
    return replace(table, name=table.name + SHUFFLED, target=target)


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
    torch.set_num_threads(1)
    if arguments.builtin:
        tables = [builtin_table(name) for name in BUILTIN]
    else:
        tables = held_out_tables(arguments.data, arguments.split)[:: arguments.every]
    done = evaluate(
        [*tables, *(shuffled(table) for table in tables)],
        EvaluationConfig(
            tuple(arguments.models),
            ("adamw", "denograd"),
            tuple(arguments.sizes),
            arguments.seeds,
        ),
        arguments.out,
        jobs=arguments.jobs,
        optional={table.name for table in tables} | {t.name + SHUFFLED for t in tables},
    )
    found: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    for case in done.summary["cases"]:
        for optimizer, values in case["optimizers"].items():
            if values.get("consistency") is not None:
                bare = case["dataset"].endswith(SHUFFLED)
                for model in (case["model"], "all"):
                    found[model, optimizer, bare].append(values["consistency"])
    columns = ("model", "AdamW", "labels shuffled", "DenoGrad", "labels shuffled", "gained")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for model in (*arguments.models, "all"):
        means = [
            float(np.mean(found[model, optimizer, bare]))
            for optimizer in ("adamw", "denograd")
            for bare in (False, True)
        ]
        gained = (means[2] - means[3]) - (means[0] - means[1])
        shown = " | ".join(f"{mean:.3f}" for mean in means)
        lines.append(f"| {model.replace('_', ' ')} | {shown} | {gained:+.3f} |")
    Console(highlight=False, width=200).print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
