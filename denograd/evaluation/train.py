"""One training run of an evaluation.

Everything but the optimizer follows from the seed: initial weights, batches and, by
`denograd.data.nested_split`, the rows. So two runs that differ in the optimizer alone
start from the same weights and see the same batches in the same order.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denograd.baselines import TrainingRows, make_optimizer
from denograd.data import TargetScale
from denograd.evaluation.metrics import METRICS, class_recalls, score
from denograd.evaluation.regression_metrics import REGRESSION_METRICS, loss_of, regression_metrics
from denograd.models import TabularModel
from denograd.models.registry import make_model

CURVE_POINTS = 25
"""A learning curve has about so many points."""

Curve = dict[str, list[float]]


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
        n_classes: number of classes of the table; None for a measured target, which ``y_train``
            and ``y_test`` hold standardised, as float32.
        sources: for each feature the number of the table's column it was made of; None
            where every feature is a column of its own.
        n_columns: number of columns; only looked at where ``sources`` is given.
        scale: that a measured target was standardised with.
        groups: ``(n,)``, which training rows belong together; None if each row stands for itself.
        n_channels: of sequences, whose features are channels by steps; 1 for a table.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[Any]
    x_test: NDArray[np.float32]
    y_test: NDArray[Any]
    n_classes: int | None
    sources: tuple[int, ...] | None = None
    n_columns: int = 0
    scale: TargetScale | None = None
    groups: NDArray[np.int64] | None = None
    n_channels: int = 1

    def training_rows(self, batch_size: int, seed: int) -> TrainingRows:
        """What a rival that tunes itself is given."""
        return TrainingRows(
            self.x_train,
            self.y_train,
            self.n_classes,
            batch_size,
            seed,
            self.groups,
            self.n_channels,
        )

    def new_model(self, name: str, seed: int) -> TabularModel:
        """A model for such rows; its weights follow from the seed."""
        return initial_model(name, self.x_train.shape[1], self.n_classes, seed, self.n_channels)


@dataclass(frozen=True)
class CellResult:
    """A finished run.

    Attributes:
        row: what `results.csv` says of it, by column.
        curve: steps done, mean loss in nats over the training and the test rows, and
            seconds of training so far, as lists; a run that diverged has a curve up to there.
        importance: how much the fitted model's own explanation makes of each column of the
            table; None if it diverged, or explains nothing.
        recalls: of each class over the test rows, see `denograd.evaluation.metrics.class_recalls`;
            None for a class without test rows. None as a whole if it diverged, has a measured
            target, or was run by a version that did not keep them.
        class_rows: number of test rows of each class; None for a measured target, and where a
            version did not keep them.
    """

    row: dict[str, Any]
    curve: Curve = field(default_factory=dict)
    importance: list[float] | None = None
    recalls: list[float | None] | None = None
    class_rows: list[int] | None = None

    @property
    def diverged(self) -> bool:
        """Whether the loss stopped being finite."""
        return bool(self.row.get("diverged", 0))


def initial_model(
    name: str, n_features: int, n_classes: int | None, seed: int, n_channels: int = 1
) -> TabularModel:
    """A model whose weights follow from the seed; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_model(name, n_features, n_classes, n_channels)


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

    The loss is the cross entropy or, for a measured target, the mean squared error.
    ``train_seconds`` counts the steps alone, not the evaluations for the curve. A run whose
    loss stops being finite ends at the next point of the curve: its result says ``diverged``,
    and its metrics are NaN.

    Args:
        cell: which model, optimizer and seed.
        data: encoded rows.
        steps: optimizer steps.
        batch_size: rows of a batch, or all if they are fewer.

    Returns:
        the row of the results, the learning curve and the importance of the columns.
    """
    rows = len(data.x_train)
    model = data.new_model(cell.model, cell.seed)
    recipe = make_optimizer(
        cell.optimizer,
        model,
        model_name=cell.model,
        steps=steps,
        rows=rows,
        data=data.training_rows(batch_size, cell.seed),
        measured=data.n_classes is None,
    )
    optimizer, scheduler = recipe
    x_train, y_train = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    x_test, y_test = torch.from_numpy(data.x_test), torch.from_numpy(data.y_test)
    recorded, loss_fn = set(curve_steps(steps)), loss_of(data.n_classes)
    curve, seconds = new_curve(), 0.0

    def record(done: int) -> bool:
        model.eval()
        with torch.no_grad(), recipe.evaluating():
            train_loss = float(loss_fn(model(x_train), y_train))
            test_loss = float(loss_fn(model(x_test), y_test))
        model.train()
        return extend_curve(curve, done, train_loss, test_loss, seconds)

    finite = record(0)
    for done, batch in enumerate(draw_batches(rows, steps, batch_size, cell.seed), start=1):
        if not finite:
            return cell_result(cell, data, curve, None, None, steps, batch_size, seconds)

        def gradients(batch: Tensor = batch) -> Tensor:
            optimizer.zero_grad()
            loss = loss_fn(model(x_train[batch]), y_train[batch])
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
            finite = record(done)

    model.eval()
    with torch.no_grad(), recipe.evaluating():
        predicted = predictions(model(x_test), data.n_classes) if finite else None
        return cell_result(cell, data, curve, predicted, model, steps, batch_size, seconds)


def predictions(output: Tensor, n_classes: int | None) -> NDArray[np.float64]:
    """What a model's output says, in double precision: probabilities, or the output itself."""
    output = output.double()
    found: NDArray[np.float64] = (output if n_classes is None else output.softmax(-1)).numpy()
    return found


def new_curve() -> Curve:
    """A learning curve without points."""
    return {"step": [], "train_loss": [], "test_loss": [], "seconds": []}


def extend_curve(
    curve: Curve, done: int, train_loss: float, test_loss: float, seconds: float
) -> bool:
    """Add a point to a curve, unless a loss is not finite; whether it was added.

    Example:
        >>> curve = new_curve()
        >>> extend_curve(curve, 0, 0.7, 0.8, 0.0), extend_curve(curve, 1, 0.6, math.inf, 0.1)
        (True, False)
        >>> curve["step"], curve["test_loss"]
        ([0], [0.8])
    """
    if not math.isfinite(train_loss) or not math.isfinite(test_loss):
        return False
    point = (done, train_loss, test_loss, round(seconds, 5))
    for name, value in zip(curve, point, strict=True):
        curve[name].append(value)
    return True


def cell_result(
    cell: Cell,
    data: CellData,
    curve: Curve,
    predicted: NDArray[np.float64] | None,
    model: TabularModel | None,
    steps: int,
    batch_size: int,
    seconds: float,
) -> CellResult:
    """A finished run in words and numbers.

    Args:
        cell: what was run.
        data: its rows.
        curve: its learning curve.
        predicted: `predictions` of the test rows, ``(m, n_outputs)``; None if the run diverged.
        model: as it was when it gave them; None for a model that explains nothing.
        steps: optimizer steps.
        batch_size: rows of a batch, or all if they are fewer.
        seconds: of training.
    """
    diverged = predicted is None or not np.isfinite(predicted).all()
    train_loss = math.nan if diverged or not curve else curve["train_loss"][-1]
    if predicted is None or diverged:
        names = METRICS if data.scale is None else REGRESSION_METRICS
        metrics = dict.fromkeys(names, math.nan)
    elif data.scale is None:
        metrics = score(data.y_test, predicted)
    else:
        metrics = regression_metrics(data.scale, train_loss, data.y_test, predicted)
    rows, n_features = data.x_train.shape
    row = {
        **cell._asdict(),
        "steps": steps,
        **metrics,
        "train_seconds": round(seconds, 4),
        "n_test": len(data.y_test),
        "n_features": n_features,
        **_of_target(data),
        "batch_size": min(batch_size, rows),
        "train_log_loss" if data.scale is None else "train_loss": train_loss,
        "diverged": int(diverged),
    }
    explained = None if diverged or model is None else own_importance(model, data)
    recalls: list[float | None] | None = None
    class_rows: list[int] | None = None
    if data.n_classes is not None:
        class_rows = np.bincount(data.y_test, minlength=data.n_classes).tolist()
        if predicted is not None and not diverged:
            found = class_recalls(data.y_test, predicted)
            recalls = [None if math.isnan(value) else value for value in found]
    return CellResult(row, curve, explained, recalls, class_rows)


def _of_target(data: CellData) -> dict[str, Any]:
    if data.scale is None:
        return {"n_classes": data.n_classes}
    # A diverged run counts with a multiple of it.
    return {"target_deviation": data.scale.deviation}


def own_importance(model: TabularModel, data: CellData) -> list[float]:
    """What a model's own explanation makes of each column, over the test rows.

    The mean over rows of the magnitude of its attributions (`denograd.explain.OwnExplainer`),
    those of features made of one column summed.

    Returns:
        a number a column; a column that no feature was made of has 0.
    """
    # Explainers load the estimators, which a run that fails need not wait for.
    from denograd.explain import OwnExplainer

    magnitude = np.abs(OwnExplainer(model)(data.x_test)).mean(axis=0)
    if data.sources is not None:
        magnitude = np.bincount(np.array(data.sources), magnitude, minlength=data.n_columns)
    return [float(f"{value:.6g}") for value in magnitude]
