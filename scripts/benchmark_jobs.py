"""How many more cells of an evaluation two processes finish than one.

The same evaluation of three of scikit-learn's tables, by one job and by two, in turns. Beside
it stands what the machine has to give: two evaluations of one job each, at the same time, which
share nothing but the machine. Cells are counted in the middle of each run, where starting up is
over and the report has not begun; figures are medians over the rounds, and ratios.

    python scripts/benchmark_jobs.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TABLES = ("breast_cancer", "wine", "digits3")
MIDDLE = (0.1, 0.9)
"""Of the cells: between these shares of them time is taken."""

RUN = """
import sys
from denograd.data import builtin_table
from denograd.evaluation import EvaluationConfig, evaluate
tables, sizes, seeds, jobs, out = sys.argv[1:]
config = EvaluationConfig(
    models=("soft_tree", "attention", "additive_net", "rule_net"),
    optimizers=("adamw", "denograd"),
    sizes=tuple(int(n) for n in sizes.split(",")),
    seeds=int(seeds),
)
evaluate([builtin_table(t) for t in tables.split(",")], config, out, jobs=int(jobs))
"""


class Run:
    """An evaluation in a process of its own, whose journal is watched."""

    def __init__(self, jobs: int, folder: Path, arguments: argparse.Namespace) -> None:
        sizes = ",".join(str(n) for n in arguments.sizes)
        words = [",".join(arguments.tables), sizes, str(arguments.seeds), str(jobs), str(folder)]
        self.journal = folder / "cells.jsonl"
        self.seen: list[tuple[float, int]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, *words],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def look(self) -> bool:
        """Note how many cells are finished; False once the run is over."""
        over = self.process.poll() is not None
        if self.journal.exists():
            done = self.journal.read_bytes().count(b"\n")
            if not self.seen or done > self.seen[-1][1]:
                self.seen.append((time.perf_counter(), done))
        return not over

    def rate(self) -> float:
        """Cells per second in the middle of the run.

        Raises:
            SystemExit: the run failed.
        """
        if self.process.returncode:
            message = (self.process.stderr.read() if self.process.stderr else b"").decode()
            raise SystemExit(f"benchmark_jobs.py: an evaluation failed:\n{message}")
        low, high = (share * self.seen[-1][1] for share in MIDDLE)
        first = next(seen for seen in self.seen if seen[1] >= low)
        last = next(seen for seen in self.seen if seen[1] >= high)
        return (last[1] - first[1]) / (last[0] - first[0])


def measure(jobs: list[int], arguments: argparse.Namespace) -> float:
    """Cells per second of evaluations that run at the same time, one for each entry."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [Run(n, Path(folder) / str(i), arguments) for i, n in enumerate(jobs)]
        going = True
        while going:
            time.sleep(0.02)
            # Every one is looked at, every time.
            going = sum(run.look() for run in runs) > 0
        return sum(run.rate() for run in runs)


def main() -> None:
    """Measure in turns, and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), help="of scikit-learn")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 100])
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    ways = {
        "one job": [1],
        f"{arguments.jobs} jobs": [arguments.jobs],
        f"{arguments.jobs} evaluations of one job": [1] * arguments.jobs,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds):
        for name, jobs in ways.items():
            rates[name].append(measure(jobs, arguments))
        print(f"round {number + 1}: {json.dumps({n: round(r[-1], 2) for n, r in rates.items()})}")
    for name in list(ways)[1:]:
        ratios = [a / b for a, b in zip(rates[name], rates["one job"], strict=True)]
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{name}: {statistics.median(ratios):.2f} times the cells of one job ({shown})")


if __name__ == "__main__":
    main()
