"""What a task-step of meta-training costs, and what a second process gains.

Measures, for the batched engine with truncated back-propagation, the seconds of a task-step
(one inner step of one task, meta-gradient included) and the bytes its graph holds, against
the number of tasks, of parameters and the length of a stretch; then the task-steps per second
of one process and of several that `torchrun` starts on this machine. Everything that is
compared is interleaved in one run, and what is reported are medians and ratios.

    python scripts/benchmark_scaling.py --out docs/scaling.json --page docs/scaling.md
    python scripts/benchmark_scaling.py --out docs/scaling.json --processes 1 2 4 --only processes
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _page import around_figures
from rich.console import Console
from rich.progress import track

from denograd.denoisers import WienerDenoiser
from denograd.meta import (
    Backprop,
    BatchedEngine,
    Episode,
    EpisodeDistribution,
    MetaLoss,
    MetaTrainer,
    PriorFamily,
    Processes,
    TaskBatch,
    TrainerConfig,
    TruncatedBackprop,
    Truncation,
    assemble_episode,
)
from denograd.models import FeatureAttention, SoftTree

FEATURES, ROWS, BATCH = 16, 64, 32
CONSOLE = Console(stderr=True)


def episode(tasks: int, steps: int, depth: int = 3, model: str = "soft_tree") -> Episode:
    """Tasks of one width; the model sets the number of parameters."""
    rng = np.random.default_rng(0)
    family = PriorFamily(max_classes=2)
    drawn = []
    while len(drawn) < tasks:
        task = family.draw(rng, ROWS, 128, FEATURES)
        if task.x_train.shape[1] >= FEATURES // 2:
            drawn.append(task)
    stacked = TaskBatch.stack(drawn)
    width = stacked.x_train.shape[-1]
    template = SoftTree(width, 2, depth) if model == "soft_tree" else FeatureAttention(width, 2)
    return assemble_episode(
        rng,
        stacked,
        template,
        steps=steps,
        batch_size=BATCH,
        micro=4,
        base="adam",
        learning_rate=torch.full((tasks, 1), 0.01),
        weight_decay=0.0,
    )


class PeakOfGraph:
    """Bytes that graphs hold at most at any moment, each storage counted once."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.bytes = self.peak = 0

    def pack(self, tensor: torch.Tensor) -> Held:
        return Held(self, tensor)

    def measure(self, work: Callable[[], object]) -> int:
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda held: held.tensor):
            work()
        return self.peak


class Held:
    """A tensor that a graph keeps; gone when the graph is."""

    def __init__(self, graph: PeakOfGraph, tensor: torch.Tensor) -> None:
        self.graph, self.tensor = graph, tensor.detach()
        storage = self.tensor.untyped_storage()
        # Alive while it is held, so nothing else gets its address.
        self.address, self.size = storage.data_ptr(), storage.nbytes()
        count = graph.held.get(self.address, 0)
        graph.held[self.address] = count + 1
        if not count:
            graph.bytes += self.size
            graph.peak = max(graph.peak, graph.bytes)

    def __del__(self) -> None:
        self.graph.held[self.address] -= 1
        if not self.graph.held[self.address]:
            del self.graph.held[self.address]
            self.graph.bytes -= self.size


@dataclass(frozen=True)
class Case:
    """Something whose cost is measured, against one quantity."""

    against: str
    value: int
    episode: Episode
    stretch: int
    estimator: str = "truncated"

    def run(self) -> None:
        steps = self.episode.steps
        cuts = [*range(self.stretch, steps, self.stretch), steps]
        estimator = Backprop() if self.estimator == "full" else TruncatedBackprop()
        estimator(WienerDenoiser(), self.episode, MetaLoss(), cuts=cuts, engine=BatchedEngine())

    def seconds(self) -> float:
        """Of one task-step."""
        begin = time.perf_counter()
        self.run()
        return (time.perf_counter() - begin) / (len(self.episode) * self.episode.steps)


def measure_cost(repeats: int) -> list[dict[str, float | str]]:
    """Seconds and bytes against tasks, parameters, and the lengths of stretch and unroll."""
    deep = [episode(16, 20, depth) for depth in (2, 4, 6, 8)]
    long = {steps: episode(16, steps) for steps in (40, 200, 1000, 2000)}
    cases = [
        *(Case("tasks", tasks, episode(tasks, 20), 20) for tasks in (1, 4, 16, 64, 256)),
        *(Case("parameters", e.model.layout.total, e, 20) for e in deep),
        *(Case("stretch", n, episode(16, n), n) for n in (10, 20, 40, 80, 160)),
        *(Case("unroll", n, e, 40) for n, e in long.items()),
        *(Case("unroll, in full", n, e, 40, "full") for n, e in long.items()),
    ]
    times: list[list[float]] = [[] for _ in cases]
    for _ in track(range(repeats), "task-steps", console=CONSOLE):
        for case, taken in zip(cases, times, strict=True):
            taken.append(case.seconds())
    reference = statistics.median(times[2])
    return [
        {
            "against": case.against,
            "value": case.value,
            "tasks": len(case.episode),
            "parameters": case.episode.model.layout.total,
            "steps": case.episode.steps,
            "stretch": case.stretch,
            "seconds": statistics.median(taken),
            "ratio": statistics.median(taken) / reference,
            "graph_bytes": PeakOfGraph().measure(case.run) / len(case.episode),
        }
        for case, taken in zip(cases, times, strict=True)
    ]


def worker(tasks: int, steps: int) -> None:
    """One process of a run: its meta-steps, and the rate of all of them together."""
    torch.set_num_threads(1)
    processes = Processes.join(torch.device("cpu"))
    models = ("soft_tree", "attention")
    distribution = EpisodeDistribution(
        tasks=tasks, rows=(64, 64), steps=(60, 60), max_features=24, models=models
    )
    config = TrainerConfig(seed=0, steps=10**6, truncation=Truncation((60, 60)))
    trainer = MetaTrainer(PriorFamily(), distribution, config, Path(), processes=processes)
    trainer.meta_step()
    begin = time.perf_counter()
    for _ in range(steps):
        trainer.meta_step()
    taken = time.perf_counter() - begin
    if processes.leads:
        print(json.dumps({"task_steps_per_second": tasks * 60 * steps / taken}), flush=True)
    processes.leave()


def rate(processes: int, tasks: int, steps: int) -> float:
    """Task-steps per second of so many processes on this machine."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes)]
    command += [str(Path(__file__).resolve()), "--worker", str(tasks), "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["task_steps_per_second"])


def measure_processes(
    counts: list[int], tasks: list[int], steps: int, repeats: int
) -> list[dict[str, Any]]:
    """Rates of several processes, interleaved; the ratio is the median over repeats."""
    pairs = [(n, count) for n in tasks for count in counts]
    rates: dict[tuple[int, int], list[float]] = {pair: [] for pair in pairs}
    for _ in track(range(repeats), "processes", console=CONSOLE):
        for n, count in pairs:
            rates[n, count].append(rate(count, n, steps))
    rows: list[dict[str, Any]] = []
    for n, count in pairs:
        of_one = zip(rates[n, count], rates[n, counts[0]], strict=True)
        ratios = sorted(several / one for several, one in of_one)
        middle = statistics.median(rates[n, count])
        rows.append({"tasks": n, "processes": count, "task_steps_per_second": middle})
        rows[-1] |= {"ratio": statistics.median(ratios), "ratios": ratios}
    return rows


def tables(result: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    lines = [f"Measured on {result['machine']}, torch {result['torch']}.", ""]
    if "cost" in result:
        lines += [
            "The ratio 1 is that of the line with 16 tasks against tasks; the graph's bytes are "
            "those held at once, at their most, divided by the tasks.",
            "",
            "| against | tasks | parameters | steps of the unroll | of a stretch | time of a "
            "task-step, ratio | MiB of graph a task | KiB a task and step of the stretch |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in result["cost"]:
            size = row["graph_bytes"] / 1024
            lines.append(
                f"| {row['against']} | {row['tasks']} | {row['parameters']:,} | {row['steps']:,} | "
                f"{row['stretch']} | {row['ratio']:.2f} | {size / 1024:.2f} | "
                f"{size / row['stretch']:.1f} |"
            )
        lines.append("")
    if "processes" in result:
        first = result["processes"][0]["processes"]
        lines += [
            "| tasks of a meta-step | processes | task-steps per second, ratio to that of "
            f"{first} | lowest and highest of the repeats |",
            "|---|---|---|---|",
        ]
        for row in result["processes"]:
            low, high = row["ratios"][0], row["ratios"][-1]
            lines.append(
                f"| {row['tasks']} | {row['processes']} | {row['ratio']:.2f} | "
                f"{low:.2f}, {high:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--page", type=Path, help="Markdown page whose figures to replace")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--tasks", type=int, nargs="+", default=[32, 128, 512], help="of a meta-step"
    )
    parser.add_argument("--steps", type=int, default=4, help="meta-steps of a timed run")
    parser.add_argument("--only", choices=["cost", "processes"])
    parser.add_argument("--worker", type=int, metavar="TASKS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.steps)
        return
    if arguments.out is None:
        parser.error("--out FILE is needed")
    torch.set_num_threads(1)
    result = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    result["machine"] = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    result["torch"] = torch.__version__
    if arguments.only != "processes":
        result["cost"] = measure_cost(arguments.repeats)
    if arguments.only != "cost":
        result["processes"] = measure_processes(
            arguments.processes, arguments.tasks, arguments.steps, arguments.repeats
        )
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    text = tables(result)
    print(text)
    if arguments.page is not None:
        before, after = around_figures(arguments.page)
        arguments.page.write_text(f"{before}{text}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
