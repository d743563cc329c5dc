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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from denograd.denoisers import WienerDenoiser
from denograd.meta import (
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
BEGIN, END = "<!-- figures:start -->", "<!-- figures:end -->"


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


def seconds(e: Episode, window: int) -> float:
    """Of one task-step."""
    begin = time.perf_counter()
    cuts = [*range(window, e.steps, window), e.steps]
    TruncatedBackprop()(WienerDenoiser(), e, MetaLoss(), cuts=cuts, engine=BatchedEngine())
    return (time.perf_counter() - begin) / (len(e) * e.steps)


def graph_bytes(e: Episode) -> float:
    """That the graph of one task-step holds, each storage counted once."""
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        # Kept alive, or the memory would be used again and counted once for many.
        alive.append(tensor.detach())
        return tensor

    alive: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        TruncatedBackprop()(WienerDenoiser(), e, MetaLoss(), cuts=[e.steps], engine=BatchedEngine())
    return sum(held.values()) / (len(e) * e.steps)


def measure_cost(repeats: int) -> list[dict[str, float | str]]:
    """Seconds and bytes against tasks, parameters and the length of a stretch."""
    deep = [episode(16, 20, depth) for depth in (2, 4, 6, 8)]
    cases: list[tuple[str, float, Episode, int]] = [
        *(("tasks", tasks, episode(tasks, 20), 20) for tasks in (1, 4, 16, 64)),
        *(("parameters", e.model.layout.total, e, 20) for e in deep),
        *(("stretch", steps, episode(16, steps), steps) for steps in (10, 40, 160)),
        *(("unroll", steps, episode(16, steps), 40) for steps in (40, 160, 640)),
    ]
    times: list[list[float]] = [[] for _ in cases]
    for _ in track(range(repeats), "task-steps", console=CONSOLE):
        for case, taken in zip(cases, times, strict=True):
            taken.append(seconds(case[2], case[3]))
    reference = statistics.median(times[2])
    rows: list[dict[str, float | str]] = []
    for (kind, value, e, window), taken in zip(cases, times, strict=True):
        row: dict[str, float | str] = {
            "against": kind,
            "value": value,
            "tasks": len(e),
            "parameters": e.model.layout.total,
            "seconds": statistics.median(taken),
            "ratio": statistics.median(taken) / reference,
        }
        if window == e.steps <= 40:
            row["graph_bytes"] = graph_bytes(e)
        rows.append(row)
    return rows


def worker(steps: int) -> None:
    """One process of a run: its meta-steps, and the rate of all of them together."""
    torch.set_num_threads(1)
    processes = Processes.join(torch.device("cpu"))
    distribution = EpisodeDistribution(
        tasks=32, rows=(64, 64), steps=(60, 60), max_features=24, models=("soft_tree", "attention")
    )
    config = TrainerConfig(seed=0, steps=10**6, truncation=Truncation((60, 60)))
    trainer = MetaTrainer(PriorFamily(), distribution, config, Path(), processes=processes)
    trainer.meta_step()
    begin = time.perf_counter()
    for _ in range(steps):
        trainer.meta_step()
    taken = time.perf_counter() - begin
    if processes.leads:
        print(json.dumps({"task_steps_per_second": 32 * 60 * steps / taken}), flush=True)
    processes.leave()


def rate(processes: int, steps: int) -> float:
    """Task-steps per second of so many processes on this machine."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes)]
    command += [str(Path(__file__).resolve()), "--worker", "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["task_steps_per_second"])


def measure_processes(counts: list[int], steps: int, repeats: int) -> list[dict[str, float]]:
    """Rates of several processes, interleaved."""
    rates: dict[int, list[float]] = {count: [] for count in counts}
    for _ in track(range(repeats), "processes", console=CONSOLE):
        for count in counts:
            rates[count].append(rate(count, steps))
    ratios = {
        count: statistics.median(a / b for a, b in zip(rates[count], rates[counts[0]], strict=True))
        for count in counts
    }
    return [
        {
            "processes": count,
            "task_steps_per_second": statistics.median(rates[count]),
            "ratio": ratios[count],
        }
        for count in counts
    ]


def tables(result: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    lines = [f"Measured on {result['machine']}, torch {result['torch']}.", ""]
    if "cost" in result:
        lines += [
            "| against | value | tasks | parameters | time of a task-step, ratio to that of 16 "
            "tasks with 128 parameters | KiB of graph a task-step |",
            "|---|---|---|---|---|---|",
        ]
        for row in result["cost"]:
            size = f"{row['graph_bytes'] / 1024:,.0f}" if "graph_bytes" in row else "-"
            lines.append(
                f"| {row['against']} | {row['value']:,} | {row['tasks']} | {row['parameters']:,} | "
                f"{row['ratio']:.2f} | {size} |"
            )
        lines.append("")
    if "processes" in result:
        lines += ["| processes | task-steps per second, ratio to one process |", "|---|---|"]
        lines += [f"| {r['processes']} | {r['ratio']:.2f} |" for r in result["processes"]]
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
    parser.add_argument("--steps", type=int, default=8, help="meta-steps of a timed run")
    parser.add_argument("--only", choices=["cost", "processes"])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.steps)
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
            arguments.processes, arguments.steps, arguments.repeats
        )
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    text = tables(result)
    print(text)
    if arguments.page is not None:
        page = arguments.page.read_text(encoding="utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        arguments.page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
