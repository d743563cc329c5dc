"""One training run of an evaluation.

Everything but the optimizer follows from the seed: initial weights, batches and, by
`denograd.data.nested_split`, the rows. So two runs that differ in the optimizer alone
start from the same weights and see the same batches in the same order.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from denograd.baselines import TrainingRows, make_optimizer
from denograd.evaluation.metrics import score
from denograd.models import TabularModel
from denograd.models.registry import make_model

CURVE_POINTS = 25
"""A learning curve has about so many points."""


class Diverged(RuntimeError):
    """A training run whose loss is no longer a number."""


class Cell(NamedTuple):
    """What names one training run, in the order of the results' first columns."""

    dataset: str
    model: str
    optimizer: str
    n_train: int
    seed: int

    def __str__(self) -> str:
        return (
            f"{self.dataset}, {self.model}, {self.optimizer}, {self.n_train} rows, seed {self.seed}"
        )


@dataclass(frozen=True)
class CellData:
    """Encoded rows of a run.

    Attributes:
        x_train, y_train: ``(n, F)`` and ``(n,)``.
        x_test, y_test: ``(m, F)`` and ``(m,)``.
        n_classes: number of classes of the table.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    n_classes: int


@dataclass(frozen=True)
class CellResult:
    """A finished run.

    Attributes:
        row: what `results.csv` says of it, by column.
        curve: steps done, and mean loss in nats over the training and the test rows.
    """

    row: dict[str, Any]
    curve: dict[str, list[float]] = field(default_factory=dict)


def initial_model(name: str, n_features: int, n_classes: int, seed: int) -> TabularModel:
    """A model whose weights follow from the seed; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_model(name, n_features, n_classes)


def draw_batches(rows: int, steps: int, batch_size: int, seed: int) -> Tensor:
    """Row numbers of each batch, ``(steps, min(batch_size, rows))``.

    A stream of reshuffled epochs, cut into batches: every batch is full, and each row
    comes once in every ``rows`` draws.

    Example:
        >>> batches = draw_batches(rows=6, steps=3, batch_size=4, seed=0)
        >>> batches.shape, batches.flatten().bincount().tolist()
        (torch.Size([3, 4]), [2, 2, 2, 2, 2, 2])
    """
    size = min(batch_size, rows)
    rng = np.random.default_rng([seed, rows])
    epochs = -(-steps * size // rows)
    stream = np.concatenate([rng.permutation(rows) for _ in range(epochs)])
    return torch.from_numpy(stream[: steps * size].reshape(steps, size))


def curve_steps(steps: int) -> list[int]:
    """Numbers of steps after which losses are recorded: 0, the last, and some between.

    Example:
        >>> curve_steps(4), len(curve_steps(1000))
        ([0, 1, 2, 3, 4], 25)
    """
    return sorted({round(step) for step in np.linspace(0, steps, min(CURVE_POINTS, steps + 1))})


def train_cell(cell: Cell, data: CellData, steps: int, batch_size: int) -> CellResult:
    """Train a model and score it on the test rows.

    The loss is the cross entropy. ``train_seconds`` counts the steps alone, not the
    evaluations for the curve.

    Args:
        cell: which model, optimizer and seed.
        data: encoded rows.
        steps: optimizer steps.
        batch_size: rows of a batch, or all if they are fewer.

    Returns:
        the row of the results and the learning curve.

    Raises:
        Diverged: the loss, or a prediction, is infinite or not a number.
    """
    rows, n_features = data.x_train.shape
    model = initial_model(cell.model, n_features, data.n_classes, cell.seed)
    recipe = make_optimizer(
        cell.optimizer,
        model,
        model_name=cell.model,
        steps=steps,
        rows=rows,
        data=TrainingRows(data.x_train, data.y_train, data.n_classes, batch_size, cell.seed),
    )
    optimizer, scheduler = recipe
    x_train, y_train = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    x_test, y_test = torch.from_numpy(data.x_test), torch.from_numpy(data.y_test)
    recorded = set(curve_steps(steps))
    curve: dict[str, list[float]] = {"step": [], "train_loss": [], "test_loss": []}

    def record(done: int) -> None:
        model.eval()
        with torch.no_grad(), recipe.evaluating():
            train_loss = float(F.cross_entropy(model(x_train), y_train))
            test_loss = float(F.cross_entropy(model(x_test), y_test))
        model.train()
        if not np.isfinite([train_loss, test_loss]).all():
            raise Diverged(f"the loss is {train_loss} (training) and {test_loss} (test) "
                           f"after {done} of {steps} steps")  # fmt: skip
        for name, value in zip(curve, (done, train_loss, test_loss), strict=True):
            curve[name].append(value)

    seconds = 0.0
    record(0)
    for done, batch in enumerate(draw_batches(rows, steps, batch_size, cell.seed), start=1):

        def gradients(batch: Tensor = batch) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x_train[batch]), y_train[batch])
            loss.backward()
            return loss

        start = time.perf_counter()
        gradients()
        # A rival that looks at a second gradient takes it by itself.
        optimizer.step(gradients if recipe.needs_closure else None)  # type: ignore[arg-type]
        if scheduler is not None:
            scheduler.step()
        seconds += time.perf_counter() - start
        if done in recorded:
            record(done)

    model.eval()
    with torch.no_grad(), recipe.evaluating():
        probabilities = model(x_test).double().softmax(dim=-1).numpy()
    row = {
        **cell._asdict(),
        "steps": steps,
        **score(data.y_test, probabilities),
        "train_seconds": round(seconds, 4),
        "n_test": len(data.y_test),
        "n_features": n_features,
        "n_classes": data.n_classes,
        "batch_size": min(batch_size, rows),
        "train_log_loss": curve["train_loss"][-1],
    }
    return CellResult(row, curve)
