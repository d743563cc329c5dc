"""The training loop: batches, early stopping, progress."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from denograd.models import TabularModel
from denograd.optimizer import DenoGrad

CHECKS = 50
"""How often the validation loss is looked at in a run of ``max_steps``."""

RowLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Loss of each row: output ``(n, n_outputs)`` and target ``(n,)`` to ``(n,)``."""


class Batchable(NamedTuple):
    """Encoded rows: ``x`` ``(n, F)``, ``y`` ``(n,)``, ``weight`` ``(n,)`` or None for 1."""

    x: Tensor
    y: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def take(self, rows: Tensor) -> Batchable:
        """Some of the rows."""
        weight = None if self.weight is None else self.weight[rows]
        return Batchable(self.x[rows], self.y[rows], weight)


@dataclass
class Run:
    """A training run that can be gone on with.

    Attributes:
        model: being trained.
        optimizer: with its state.
        batches: random numbers that the batches are drawn with.
        losses: of each step's batch.
        validation: loss on the validation rows, by the step it was looked at.
        best_step: whose weights the model has.
    """

    model: TabularModel
    optimizer: torch.optim.Optimizer
    batches: np.random.Generator
    losses: list[float] = field(default_factory=list)
    validation: dict[int, float] = field(default_factory=dict)
    best_step: int = 0

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self.losses)


def train(
    run: Run,
    rows: Batchable,
    row_loss: RowLoss,
    steps: int,
    batch_size: int,
    held_out: Batchable | None = None,
    patience: int = 10,
    title: str = "",
) -> None:
    """Take steps, and with ``held_out`` rows keep the weights that did best on them.

    The held-out loss is looked at about `CHECKS` times; after ``patience`` looks without a
    new low the run ends. The weights of the lowest loss are then put back. The optimizer's
    state stays that of the last step.

    Args:
        run: what is trained; changed in place.
        rows: to learn from.
        row_loss: loss by row.
        steps: at most so many.
        batch_size: rows of a batch, or all if they are fewer.
        held_out: rows to stop by, or None.
        patience: looks without a new low.
        title: of the progress bar on standard error; empty for none.

    Raises:
        ValueError: the loss is infinite or not a number.
    """
    every = max(1, steps // CHECKS)
    lowest, since, best = float("inf"), 0, None
    with _watched(run), _progress(title, steps) as advance:
        for done, batch in enumerate(_batches(len(rows), steps, batch_size, run.batches), 1):
            loss = _step(run, rows.take(batch), row_loss)
            advance(loss)
            if held_out is None or (done % every and done < steps):
                continue
            measured = _mean_loss(run.model, held_out, row_loss)
            run.validation[run.steps] = measured
            if measured < lowest:
                lowest, since, best = measured, 0, copy.deepcopy(run.model.state_dict())
                run.best_step = run.steps
            else:
                since += 1
                if since >= patience:
                    break
    if best is None:
        run.best_step = run.steps
    else:
        run.model.load_state_dict(best)


def _step(run: Run, batch: Batchable, row_loss: RowLoss) -> float:
    run.optimizer.zero_grad()
    each = row_loss(run.model(batch.x), batch.y)
    loss = each.mean() if batch.weight is None else (each * batch.weight).mean()
    value = float(loss.detach())
    if not np.isfinite(value):
        raise ValueError(
            f"the training loss is {value} after {run.steps} steps; use a lower learning_rate, "
            "or look for extreme values in X, y or sample_weight"
        )
    loss.backward()
    run.optimizer.step()
    run.losses.append(value)
    return value


@torch.no_grad()
def _mean_loss(model: nn.Module, rows: Batchable, row_loss: RowLoss) -> float:
    model.eval()
    each = row_loss(model(rows.x), rows.y)
    model.train()
    if rows.weight is None:
        return float(each.mean())
    return float((each * rows.weight).sum() / rows.weight.sum())


def _batches(rows: int, steps: int, batch_size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Row numbers of each batch: a stream of reshuffled epochs, cut into full batches."""
    size = min(batch_size, rows)
    if size == rows:
        # Of all rows at once the order does not matter; kept, it cannot change the rounding.
        yield from [torch.arange(rows)] * steps
        return
    waiting = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        while len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(rows)])
        yield torch.from_numpy(waiting[:size].copy())
        waiting = waiting[size:]


@contextmanager
def _watched(run: Run) -> Iterator[None]:
    """Noise is measured while training; a model that is at rest carries no hooks."""
    run.model.train()
    if isinstance(run.optimizer, DenoGrad):
        run.optimizer.attach_capture(run.model)
    try:
        yield
    finally:
        run.model.eval()
        if isinstance(run.optimizer, DenoGrad):
            run.optimizer.detach_capture()
        run.optimizer.zero_grad()


@contextmanager
def _progress(title: str, steps: int) -> Iterator[Callable[[float], None]]:
    if not title:
        yield lambda loss: None
        return
    # A console of its own: rich allows one live display a console, and the caller may have one.
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=steps, loss=float("nan"))
        yield lambda loss: bar.update(task, advance=1, loss=loss)
