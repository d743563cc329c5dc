"""Measure how fast meta-training runs: task-steps a second, the meta-gradient included.

Two tables, each from one run in which contestants take turns, so that whatever else the
machine does hits all of them alike; figures are medians over the rounds, ratios medians of
the ratios within a round.

1. The engines `batched`, `higher` and `torchopt`: the same tasks, denoiser and unroll, with
   noise from micro-batches, Adam and the meta-gradient of every task. The last two run one
   task after the other.
2. The inner loop without a denoiser, for libraries that know no other: plain SGD on all
   rows, and the gradient of the held-out loss in the shared initial weights (MAML).
   `learn2learn` and `parallel-metalearn` take part if they can be imported.

Results that differ between contestants are an error, so that all do the same work.

    python scripts/benchmark_meta_training.py --help
    python scripts/benchmark_meta_training.py --out docs/benchmark-meta-training.json
    python scripts/benchmark_meta_training.py --quick --models soft_tree --tasks 1 256
    python scripts/benchmark_meta_training.py --device cuda --tasks 64 256 1024
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denograd import IdentityDenoiser, WienerDenoiser
from denograd.meta import (
    ENGINES,
    BatchedEngine,
    Episode,
    MetaLoss,
    PriorFamily,
    Task,
    TaskBatch,
    TruncatedBackprop,
    assemble_episode,
)
from denograd.models import FeatureAttention, SoftTree, TabularModel

ROWS, TEST_ROWS, FEATURES, CLASSES, BATCH = 64, 64, 12, 3, 32
MODELS: dict[str, Callable[[int, int], TabularModel]] = {
    "soft_tree": lambda f, c: SoftTree(f, c, depth=3),
    "attention": lambda f, c: FeatureAttention(f, c, width=8, heads=2),
}
TITLES = {"soft_tree": "soft tree of depth 3", "attention": "attention of width 8"}
PARTS = {
    "denoised": "with the denoiser: Adam, noise from micro-batches",
    "plain": "without a denoiser: SGD, gradient in the initial weights",
}
BASELINE = "batched"

Work = Callable[[], Tensor]
"""Runs all tasks once; the meta-gradient, flat, to compare contestants by."""


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Work, device: torch.device, at_least: float) -> float:
    """Seconds a call takes, over as many calls as fill ``at_least`` seconds."""
    settle(device)
    calls, begin = 0, time.perf_counter()
    while True:
        work()
        settle(device)
        calls += 1
        passed = time.perf_counter() - begin
        if passed >= at_least:
            return passed / calls


# --- 1: engines, with the denoiser -------------------------------------------------------


def denoised_episode(model: str, tasks: int, steps: int, device: torch.device) -> Episode:
    rng, family = np.random.default_rng(0), PriorFamily(max_classes=CLASSES)
    stack = TaskBatch.stack([family.draw(rng, ROWS, TEST_ROWS, FEATURES) for _ in range(tasks)])
    template = MODELS[model](stack.x_train.shape[-1], int(stack.classes.max()))
    return assemble_episode(
        rng,
        stack,
        template,
        steps=steps,
        batch_size=BATCH,
        micro=4,
        base="adam",
        learning_rate=torch.full((tasks, 1), 0.01),
        weight_decay=0.0,
    ).to(device)


def denoised(model: str, tasks: int, steps: int, device: torch.device) -> dict[str, Work]:
    """A round of each engine: the unroll and the meta-gradient of every task."""
    episode = denoised_episode(model, tasks, steps, device)
    torch.manual_seed(0)
    denoiser, estimate, loss = WienerDenoiser().to(device), TruncatedBackprop(), MetaLoss()

    def work(name: str) -> Work:
        def run() -> Tensor:
            result = estimate(denoiser, episode, loss, cuts=[steps], engine=ENGINES[name]())
            return torch.cat([g.mean(0).flatten() for g in result.gradients.values()])

        return run

    return {name: work(name) for name in ("batched", "higher", "torchopt")}


# --- 2: without a denoiser ---------------------------------------------------------------


def plain(
    model: str, tasks: int, steps: int, device: torch.device, missing: dict[str, str]
) -> dict[str, Work]:
    """A round of each library's inner SGD loop; those that cannot be imported are left out."""
    rng = np.random.default_rng(0)
    shape = (tasks, BATCH + TEST_ROWS)
    x = rng.normal(size=(*shape, FEATURES)).astype(np.float32)
    y = rng.integers(CLASSES, size=shape)
    stack = TaskBatch.stack(
        [
            Task(str(i), x[i, :BATCH], y[i, :BATCH], x[i, BATCH:], y[i, BATCH:], CLASSES)
            for i in range(tasks)
        ]
    )
    torch.manual_seed(0)
    module = MODELS[model](FEATURES, CLASSES).to(device)
    episode = assemble_episode(
        rng,
        stack,
        MODELS[model](FEATURES, CLASSES),
        steps=steps,
        batch_size=BATCH,
        micro=1,
        base="sgd",
        learning_rate=torch.full((tasks, 1), RATE),
        weight_decay=0.0,
    ).to(device)
    every_row = torch.arange(BATCH, device=device).expand(steps, tasks, BATCH)
    flat = torch.cat([p.detach().flatten() for p in module.parameters()]).requires_grad_()
    shared = replace(episode, batches=every_row, initial=flat.expand(tasks, -1))

    def batched() -> Tensor:
        engine, denoiser = BatchedEngine(), IdentityDenoiser()
        state = engine.start(shared, denoiser)
        for _ in range(steps):
            state = engine.advance(shared, denoiser, state, graph=True)
        (gradient,) = torch.autograd.grad(engine.held_out_losses(shared, state).mean(), flat)
        return gradient

    data = tuple(t.to(device) for t in (stack.x_train, stack.y_train, stack.x_test, stack.y_test))
    makers = {
        "higher": plain_higher,
        "learn2learn": plain_learn2learn,
        "parallel-metalearn": plain_parallel_metalearn,
    }
    works: dict[str, Work] = {"batched": batched}
    for name, make in makers.items():
        try:
            works[name] = make(module, data, steps)
        except ImportError as error:
            missing[name] = str(error)
    return works


RATE = 0.1


def gradient_of(module: nn.Module) -> Tensor:
    """The gradient that has gathered in a module, flat."""
    parts = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return torch.cat(parts)


def plain_higher(module: nn.Module, data: tuple[Tensor, ...], steps: int) -> Work:
    import higher

    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)

    def run() -> Tensor:
        module.zero_grad()
        for x, y, x_test, y_test in zip(*data, strict=True):
            with higher.innerloop_ctx(module, optimizer, copy_initial_weights=False) as (
                model,
                inner,
            ):
                for _ in range(steps):
                    inner.step(F.cross_entropy(model(x), y))
                (F.cross_entropy(model(x_test), y_test) / len(data[0])).backward()
        return gradient_of(module)

    return run


def plain_learn2learn(module: nn.Module, data: tuple[Tensor, ...], steps: int) -> Work:
    maml = importlib.import_module("learn2learn.algorithms.maml")
    learner = maml.MAML(module, lr=RATE)

    def run() -> Tensor:
        learner.zero_grad()
        for x, y, x_test, y_test in zip(*data, strict=True):
            clone = learner.clone()
            for _ in range(steps):
                clone.adapt(F.cross_entropy(clone(x), y))
            (F.cross_entropy(clone(x_test), y_test) / len(data[0])).backward()
        return gradient_of(module)

    return run


def plain_parallel_metalearn(module: nn.Module, data: tuple[Tensor, ...], steps: int) -> Work:
    algorithms = importlib.import_module("metalearn.algorithms.MAML")
    optimizers = importlib.import_module("metalearn.inner_optimizers.optimizers")
    losses = importlib.import_module("metalearn.loss.CEloss")

    class Wrapped(nn.Module):
        """What the library asks of a model, and nothing more."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor, **_: object) -> dict[str, object]:
            return {"logits": self.inner(x), "buffers": {}}

        def get_fast_weights(self) -> OrderedDict[str, nn.Parameter]:
            return OrderedDict(self.named_parameters())

    wrapped = Wrapped()
    learner = algorithms.MAML(
        model=wrapped,
        optimizer=torch.optim.SGD(wrapped.parameters(), lr=0.0),
        inner_optimizer=optimizers.InnerSGD(
            wrapped.get_fast_weights(), inner_lr=RATE, learn_lr=False, max_inner_steps=steps
        ),
        support_loss_fn=losses.CrossEntropy(metric_fn=lambda scores, *_: scores.detach().sum()),
        inner_steps=steps,
        chunk_size=len(data[0]),
        device=data[0].device,
    )
    x, y, x_test, y_test = data

    def run() -> Tensor:
        learner.step(iter([(x, {"labels": y}, x_test, {"labels": y_test})]), training=True)
        return gradient_of(module)

    return run


def use_unpacked_learn2learn(folder: Path) -> None:
    """Let ``learn2learn.algorithms.maml`` be imported from an unpacked source archive.

    Its package imports C extensions for data sets that no longer build; MAML needs none.
    """
    for name in ("learn2learn", "learn2learn.algorithms"):
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = package


# --- measuring and telling ---------------------------------------------------------------


def compare(works: dict[str, Work], where: str, tolerance: float = 1e-2) -> None:
    """Run everybody once, which warms up too; error if the results differ."""
    results = {name: work().detach().clone() for name, work in works.items()}
    expected = results[BASELINE]
    for name, found in results.items():
        error = float((found - expected).norm() / expected.norm())
        if not error <= tolerance:
            raise RuntimeError(f"{where}: the meta-gradient of {name} is off by {error:.1e}")


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    device = torch.device(arguments.device)
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    missing: dict[str, str] = {}
    for part, model, tasks in cells(arguments):
        where = f"{part}, {model}, {tasks} tasks"
        print(f"{time.strftime('%H:%M:%S')} {where}", flush=True)
        steps = arguments.steps
        if part == "denoised":
            works = denoised(model, tasks, steps, device)
        else:
            works = plain(model, tasks, steps, device, missing)
        compare(works, where)
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(arguments.rounds):
            for name, work in works.items():
                seconds[name].append(timed(work, device, arguments.at_least))
        for name, values in seconds.items():
            pairs = zip(values, seconds[BASELINE], strict=True)
            row = {
                "part": part,
                "model": model,
                "tasks": tasks,
                "contestant": name,
                "task_steps_per_second": tasks * steps / statistics.median(values),
                "batched_is_faster_by": statistics.median(v / own for v, own in pairs),
                "seconds": values,
            }
            rows.append(row)
            print(
                f"  {name:20}{row['task_steps_per_second']:12.1f} task-steps/s"
                f"{row['batched_is_faster_by']:9.1f}x",
                flush=True,
            )
    for name, reason in missing.items():
        print(f"left out: {name} ({reason})", file=sys.stderr)
    return {
        "device": device_name(device),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
        "missing": missing,
        "settings": {
            "steps": arguments.steps,
            "rounds": arguments.rounds,
            "at_least": arguments.at_least,
            "rows": ROWS,
            "test_rows": TEST_ROWS,
            "features": FEATURES,
            "batch_size": BATCH,
            "micro": 4,
            "threads": 1,
        },
        "rows": rows,
    }


VERSIONS = ("torch", "torchopt", "higher", "learn2learn", "parallel-metalearn")


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, one thread"


def cells(arguments: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    for part in arguments.parts:
        for model in arguments.models:
            for tasks in arguments.tasks:
                yield part, model, tasks


def table(result: dict) -> str:
    """The figures as a markdown table, a line for each contestant and model."""
    rows = result["rows"]
    lines = [
        f"Task-steps a second on {result['device']}; in brackets, how much faster `batched` is."
    ]
    for part in dict.fromkeys(r["part"] for r in rows):
        own = [r for r in rows if r["part"] == part]
        counts = list(dict.fromkeys(r["tasks"] for r in own))
        lines += ["", f"**{PARTS[part][0].upper() + PARTS[part][1:]}**", ""]
        lines.append("| model | | " + " | ".join(f"{n} tasks" for n in counts) + " |")
        lines.append("|---|---|" + "---:|" * len(counts))
        for model in dict.fromkeys(r["model"] for r in own):
            of_model = [r for r in own if r["model"] == model]
            for name in dict.fromkeys(r["contestant"] for r in of_model):
                figures = {r["tasks"]: r for r in of_model if r["contestant"] == name}
                shown = []
                for n in counts:
                    figure = f"{figures[n]['task_steps_per_second']:,.0f}"
                    if name != BASELINE:
                        figure += f" ({figures[n]['batched_is_faster_by']:.1f}x)"
                    shown.append(figure)
                lines.append(f"| {TITLES[model]} | {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def plot(result: dict, path: Path) -> None:
    rows = result["rows"]
    parts = list(dict.fromkeys(r["part"] for r in rows))
    models = list(dict.fromkeys(r["model"] for r in rows))
    names = list(dict.fromkeys(r["contestant"] for r in rows))
    figure, axes = plt.subplots(
        len(parts), len(models), figsize=(4.6 * len(models), 3.6 * len(parts)), squeeze=False
    )
    for i, part in enumerate(parts):
        for j, model in enumerate(models):
            axis = axes[i][j]
            for color, name in enumerate(names):
                own = [
                    r
                    for r in rows
                    if (r["part"], r["model"], r["contestant"]) == (part, model, name)
                ]
                if own:
                    x = [r["tasks"] for r in own]
                    y = [r["task_steps_per_second"] for r in own]
                    axis.plot(x, y, "o-", color=f"C{color}", label=name)
            axis.set(xscale="log", yscale="log", xlabel="tasks", ylabel="task-steps a second")
            counts = sorted({r["tasks"] for r in rows})
            axis.set_xticks(counts, [str(n) for n in counts])
            axis.minorticks_off()
            axis.set_title(f"{TITLES[model]}\n{PARTS[part].split(':')[0]}", fontsize=10)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--steps", type=int, default=10, help="inner steps of the unroll")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--at-least", type=float, default=0.5, help="seconds of one turn")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 5 inner steps")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, help="JSON to write; plot and table lie beside it")
    parser.add_argument(
        "--learn2learn-source", type=Path, help="learn2learn's unpacked source archive"
    )
    arguments = parser.parse_args()
    for name in ("steps", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if min(arguments.tasks) < 1:
        parser.error("--tasks must be at least 1")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    if arguments.out and not arguments.out.parent.is_dir():
        parser.error(f"--out: the folder {arguments.out.parent} does not exist")
    if arguments.quick:
        arguments.rounds, arguments.steps, arguments.at_least = 2, 5, 0.1
    if arguments.learn2learn_source:
        use_unpacked_learn2learn(arguments.learn2learn_source)
    result = measure(arguments)
    text = table(result)
    print("\n" + text)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        arguments.out.with_suffix(".table.md").write_text(text)
        plot(result, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
