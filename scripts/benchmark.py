"""Compare the default denoiser with tuned AdamW on the held-out tables, and write the pages.

The tables are the classification tables of the split `held_out` in `scripts/data_sets.csv`:
nothing was ever chosen on them. Four models, 16 to 256 rows, ten seeds, four optimizers: the
control (AdamW tuned on the meta-training tasks), AdamW with torch's defaults, and the denoisers
`default` and `history`. A second, smaller grid (`--tuned`) has AdamW tuned on every table by
cross-validation, at 48 times the cost; a third (`--regression`) has the held-out tables whose
target is a number, with the denoisers `regression` and `default`; a fourth (`--rivals`) has every
rival of `denograd.baselines`, tuned as the control is, on soft trees, and needs the extra `rivals`;
a fifth (`--large`) has 512 rows, on the tables that have as many; a sixth (`--sequences`) has the
held-out time series, with attention over their steps and the denoiser `sequences`. Interrupted, it
goes on where it stopped. With `--context` the first grid has models outside torch, too.

    python scripts/fetch_data.py --out data
    python scripts/benchmark.py --data data --context
    python scripts/benchmark.py --data data --tuned
    python scripts/benchmark.py --data data --regression
    python scripts/benchmark.py --data data --rivals
    python scripts/benchmark.py --data data --large
    python scripts/benchmark.py --data data --sequences

Writes `docs/benchmark.html`, or `docs/benchmark-GRID.html`, each the whole report of
`denograd evaluate`, and the figures of `docs/benchmark.md` and of the README. A part of a grid,
with other models, optimizers, sizes or seeds, has its report in its own folder, its figures beside
it in `figures.md`, and leaves these pages alone.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

from _benchmark_page import basics, write_context, write_page, write_readme
from _development_tables import KINDS
from _fetch_list import LIST, read_list

from denograd.baselines import RIVALS
from denograd.data import Table, TableError, TableWarning, TaskName, read_table
from denograd.evaluation import Evaluation, EvaluationConfig, EvaluationError, evaluate

MODELS = ("soft_tree", "attention", "additive_net", "rule_net")


class Grid(NamedTuple):
    """What a benchmark runs on every table."""

    optimizers: tuple[str, ...]
    sizes: tuple[int, ...]
    seeds: int
    task: TaskName = "classification"
    models: tuple[str, ...] = MODELS
    sequences: bool = False


GRIDS = {
    "benchmark": Grid(
        ("adamw", "adamw_default", "denograd", "denograd:history"), (16, 32, 64, 128, 256), 10
    ),
    "benchmark-tuned": Grid(("adamw", "adamw_cv", "denograd"), (32, 128), 1),
    "benchmark-regression": Grid(
        ("adamw", "adamw_default", "denograd", "denograd:default"),
        (16, 32, 64, 128, 256),
        5,
        "regression",
    ),
    "benchmark-large": Grid(("adamw", "adamw_default", "denograd", "denograd:history"), (512,), 10),
    "benchmark-sequences": Grid(
        ("adamw", "adamw_default", "denograd:sequences", "denograd"),
        (16, 32, 64, 128),
        10,
        models=("temporal_attention",),
        sequences=True,
    ),
    "benchmark-rivals": Grid(("adamw", "denograd", *RIVALS), (32, 128), 3, models=("soft_tree",)),
}

OPTIONS = tuple(name.removeprefix("benchmark-") for name in GRIDS if name != "benchmark")
"""What chooses a grid on the command line; none for the first."""


def held_out_tables(
    data: Path,
    split: str = "held_out",
    task: TaskName = "classification",
    sequences: bool = False,
) -> list[Table]:
    """The tables of a split and a task, as `scripts/fetch_data.py` wrote them.

    Args:
        data: the folder that it wrote to.
        split: of the list of data sets.
        task: classes or measured targets.
        sequences: the time series with classes, and no others.

    Raises:
        TableError: a table of the list is not there.
    """
    kinds = KINDS["classes"] if task == "classification" else (task,)
    if sequences:
        kinds = ("ts-classification",)
    files = {
        d.file: int(d.shape.split("x")[0]) if sequences else 0
        for d in read_list()
        if d.split == split and d.task in kinds
    }
    missing = [file for file in files if not (data / file).exists()]
    if missing:
        raise TableError(
            f"{data}: {len(missing)} tables of {LIST.name} are missing, {missing[0]} first; get "
            f"them with: python scripts/fetch_data.py --out {data}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)
        return [
            read_table(data / file, "target", task=task, n_channels=channels)
            for file, channels in files.items()
        ]


def asked_for(name: str, arguments: argparse.Namespace) -> Grid:
    """A grid, or the part of it that the arguments ask for."""
    grid = GRIDS[name]
    return grid._replace(
        models=tuple(arguments.models or grid.models),
        optimizers=tuple(arguments.optimizers or grid.optimizers),
        sizes=tuple(arguments.sizes or grid.sizes),
        seeds=arguments.seeds or grid.seeds,
    )


def run(name: str, arguments: argparse.Namespace) -> Evaluation:
    """Evaluate a grid, or what is missing of it."""
    grid = asked_for(name, arguments)
    config = EvaluationConfig(
        models=grid.models,
        optimizers=grid.optimizers,
        sizes=grid.sizes,
        seeds=grid.seeds,
        context=arguments.context,
    )
    tables = held_out_tables(arguments.data, arguments.split, grid.task, grid.sequences)
    return evaluate(
        tables,
        config,
        arguments.out / name,
        jobs=arguments.jobs,
        backend=arguments.backend,
        optional={table.name for table in tables},
        command=shlex.join(["python", "scripts/benchmark.py", *sys.argv[1:]]),
    )


def is_whole(name: str, arguments: argparse.Namespace) -> bool:
    """Whether the arguments ask for the grid that the pages describe."""
    return arguments.split == "held_out" and asked_for(name, arguments) == GRIDS[name]


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The arguments, from the command line unless words are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of fetch_data.py")
    parser.add_argument("--tuned", action="store_true", help="the smaller grid, with adamw_cv")
    parser.add_argument("--regression", action="store_true", help="the grid of measured targets")
    parser.add_argument("--rivals", action="store_true", help="the grid of all rivals")
    parser.add_argument("--large", action="store_true", help="the grid of 512 rows")
    parser.add_argument("--sequences", action="store_true", help="the grid of time series")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the runs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the pages")
    parser.add_argument("--models", nargs="+", help="default: the grid's")
    parser.add_argument(
        "--optimizers", nargs="+", help="the first is the control; default: the grid's"
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", help="of training sets; default: the grid's"
    )
    parser.add_argument("--seeds", type=int, help="default: the grid's")
    parser.add_argument(
        "--context", action="store_true", help="fit models outside torch, too (hours more)"
    )
    parser.add_argument("--split", default="held_out", help="of the list of data sets")
    parser.add_argument("--jobs", type=int, default=-1, help="processes; -1: one a core")
    parser.add_argument("--backend", default="loky", help="loky, ray, dask or sequential")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Run one of the grids and write its pages."""
    arguments = parse(words)
    chosen = [option for option in OPTIONS if getattr(arguments, option)]
    if len(chosen) > 1:
        raise SystemExit(f"benchmark.py: --{' and --'.join(chosen)} are two grids; run one by one")
    if chosen and arguments.context:
        raise SystemExit(
            f"benchmark.py: --context with --{chosen[0]}; models outside torch belong to the first "
            "grid, which has no option"
        )
    name = "-".join(["benchmark", *chosen])
    try:
        done = run(name, arguments)
    except (TableError, EvaluationError) as error:
        raise SystemExit(f"benchmark.py: {error}") from error
    if not is_whole(name, arguments):
        (done.folder / "figures.md").write_text(basics(done.summary) + "\n")
        print(
            f"Report: {done.folder}/report.html, figures: {done.folder}/figures.md. This is not "
            "the whole grid: no page is changed."
        )
        return
    arguments.docs.mkdir(parents=True, exist_ok=True)
    shutil.copy(done.folder / "report.html", arguments.docs / f"{name}.html")
    comparisons = arguments.docs / f"{name}.json"
    comparisons.write_text(json.dumps(done.summary["comparisons"], indent=1) + "\n")
    write_page(name, done.summary, arguments.docs / "benchmark.md")
    if name == "benchmark":
        write_context(done.summary, arguments.docs / "benchmark.md")
        write_readme(done.summary, arguments.docs.parent / "README.md")


if __name__ == "__main__":
    main()
