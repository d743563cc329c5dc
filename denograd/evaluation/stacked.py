"""All seeds of a data set, model, optimizer and size as one stack.

Every run has the initial weights, batches, rows and encoding that `train_cell` gives it, and
takes the same steps; only the seconds are shared: a run's ``train_seconds`` are the stack's,
divided by the number of its runs.

The numbers are those of `train_cell` to rounding, which also depends on how many runs share the
stack. With AdamW it stays rounding (1e-6 of the loss). With DenoGrad on few rows it may not, as
training amplifies small differences. On wine (soft tree, 16 rows, 200 steps) test losses of the two
engines, and of stacks of 2 and of 6 seeds, differ by up to 15 % in single runs, and the means of
cases by about 2 %. It is rounding and nothing else: in double precision the weights of the two
engines differ by at most 1e-9 of their norm in the first 80 steps, and by at most 5e-3 after 200
(those of stacks of 2 and of 4 by 5e-6). As much comes of initial weights that are off by 1e-12 (by
1e-15) in one and the same engine. So which seeds share a stack is one more source of chance, like
the seed itself. The same command on the same machine gives the same results again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from denograd.baselines.stacked import NotStackable, StackedRun, stacked_run
from denograd.evaluation.train import (
    Cell,
    CellData,
    CellResult,
    cell_result,
    curve_steps,
    draw_batches,
    extend_curve,
    new_curve,
    predictions,
    train_cell,
)
from denograd.meta.batched import BatchedModel, row_losses
from denograd.meta.episode import Episode
from denograd.meta.task import Task, TaskBatch
from denograd.models import TabularModel

_CHUNK = 400_000
"""So many numbers of rows are predicted at a time, or a wide table would fill the memory."""


class StackedResults(NamedTuple):
    """What became of the runs of a stack.

    Attributes:
        results: in the order of the cells.
        notes: what was run one seed at a time after all, and why.
    """

    results: list[CellResult]
    notes: list[str]


def train_stack(
    cells: Sequence[Cell], data: Sequence[CellData], steps: int, batch_size: int
) -> StackedResults:
    """Train and score cells that differ in nothing but their seed.

    Seeds whose rows were encoded to different widths run in stacks of equal width, so that
    nothing is padded. What a stack cannot do exactly runs by `train_cell`, and a note says so.

    Args:
        cells: of one data set, model, optimizer and size.
        data: encoded rows of each.
        steps: optimizer steps.
        batch_size: rows of a batch, or all if they are fewer.

    Raises:
        ValueError: the cells differ in more than their seed.
    """
    if len({cell._replace(seed=0) for cell in cells}) != 1:
        raise ValueError(f"train_stack: cells={list(cells)} differ in more than their seed")
    widths = [rows.x_train.shape[1] for rows in data]
    found: dict[Cell, CellResult] = {}
    notes: list[str] = []
    for width in dict.fromkeys(widths):
        own = [i for i, w in enumerate(widths) if w == width]
        done = _train_equal([cells[i] for i in own], [data[i] for i in own], steps, batch_size)
        found |= zip([cells[i] for i in own], done.results, strict=True)
        notes += done.notes
    return StackedResults([found[cell] for cell in cells], list(dict.fromkeys(notes)))


def _train_equal(
    cells: Sequence[Cell], data: Sequence[CellData], steps: int, batch_size: int
) -> StackedResults:
    """`train_stack` for rows of one width."""
    first = cells[0]
    name = f"{first.model}, {first.optimizer}"
    models = [d.new_model(c.model, c.seed) for c, d in zip(cells, data, strict=True)]
    try:
        episode = _episode(cells, data, models, steps, batch_size)
        rows = [d.training_rows(batch_size, c.seed) for c, d in zip(cells, data, strict=True)]
        run = stacked_run(first.optimizer, episode, model_name=first.model, data=rows)
    except NotStackable as reason:
        results = [train_cell(c, d, steps, batch_size) for c, d in zip(cells, data, strict=True)]
        return StackedResults(results, [f"{name}: one seed at a time, because {reason}"])
    results = _run(run, episode, cells, data, models, batch_size)
    again = run.doubtful().nonzero().flatten().tolist()
    for i in again:
        results[i] = train_cell(cells[i], data[i], steps, batch_size)
    notes = [
        f"{name}, {first.dataset}, {first.n_train} rows, seed {cells[i].seed}: run by itself, "
        "because a number was not finite"
        for i in again
    ]
    return StackedResults(results, notes)


def _episode(
    cells: Sequence[Cell],
    data: Sequence[CellData],
    models: Sequence[TabularModel],
    steps: int,
    batch_size: int,
) -> Episode:
    """The runs as the engines take them; what it says of the optimizer is replaced later."""
    initial = torch.stack([parameters_to_vector(model.parameters()).detach() for model in models])
    tasks = TaskBatch.stack(
        [
            Task(
                str(cell.seed),
                d.x_train,
                d.y_train,
                d.x_test,
                d.y_test,
                d.n_classes,
                d.n_channels,
            )
            for cell, d in zip(cells, data, strict=True)
        ],
        initial.dtype,
    )
    model, rows = BatchedModel(models[0]), len(data[0].y_train)
    batches = [draw_batches(rows, steps, batch_size, cell.seed) for cell in cells]
    ones = initial.new_ones(len(cells), 1)
    counts = initial.new_tensor([float(size) for size in model.layout.sizes])
    return Episode(
        tasks=tasks,
        model=model,
        description=cells[0].model,
        initial=initial,
        batches=torch.stack(batches, dim=1),
        micro=1,
        base="adam",
        learning_rate=ones,
        weight_decay=0.0,
        counts=counts.expand(len(cells), -1),
        noise_known=ones.expand(-1, len(model.layout)),
        total_steps=torch.full_like(ones[:, 0], float(steps)),
        rows=torch.full_like(ones[:, 0], float(rows)),
        batch_size=torch.full_like(ones[:, 0], float(batches[0].shape[1])),
    )


def _run(
    run: StackedRun,
    episode: Episode,
    cells: Sequence[Cell],
    data: Sequence[CellData],
    models: Sequence[TabularModel],
    batch_size: int,
) -> list[CellResult]:
    """Take all steps, with the curves on the way."""
    tasks, steps = episode.tasks, episode.steps
    curves = [new_curve() for _ in cells]
    finite = [True] * len(cells)
    seconds = 0.0

    def record(done: int) -> None:
        with torch.no_grad(), run.judged() as flat:
            train = _losses(episode, flat, tasks.x_train, tasks.y_train)
            test = _losses(episode, flat, tasks.x_test, tasks.y_test)
        pairs = zip(train.tolist(), test.tolist(), strict=True)
        for i, (train_loss, test_loss) in enumerate(pairs):
            finite[i] = finite[i] and extend_curve(
                curves[i], done, train_loss, test_loss, seconds / len(cells)
            )

    recorded = set(curve_steps(steps))
    record(0)
    for done in range(1, steps + 1):
        start = time.perf_counter()
        run.step()
        seconds += time.perf_counter() - start
        if done in recorded:
            record(done)
            if not any(finite):
                break

    with torch.no_grad(), run.judged() as flat:
        scores = torch.cat(list(_scores(episode, flat, tasks.x_test)), dim=1)
        predicted = predictions(scores, data[0].n_classes)
        for model, weights in zip(models, flat, strict=True):
            # A copy, or all models would share their memory with the stack.
            vector_to_parameters(weights.clone(), model.parameters())
    results = []
    for i, (cell, rows, model) in enumerate(zip(cells, data, models, strict=True)):
        own = predicted[i, : len(rows.y_test)] if finite[i] else None
        share = seconds / len(cells)
        results.append(cell_result(cell, rows, curves[i], own, model, steps, batch_size, share))
    return results


def _scores(episode: Episode, flat: Tensor, x: Tensor) -> Iterator[Tensor]:
    """Class scores of rows ``(T, m, F)``, some of the rows at a time, each ``(T, r, C)``."""
    tasks = episode.tasks
    rows = max(1, _CHUNK // (x.shape[0] * x.shape[2]))
    for part in x.split(rows, dim=1):
        yield episode.model.predict(flat, part, tasks.feature_mask, tasks.class_mask)


def _losses(episode: Episode, flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean loss of each run, ``(T,)``; padded rows do not count."""
    losses, counts = row_losses(torch.cat(list(_scores(episode, flat, x)), dim=1), y)
    return losses.sum(1) / counts.sum(1)
