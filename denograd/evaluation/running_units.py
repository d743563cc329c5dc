"""What one worker does at a time: a unit of cells, from rows to results."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch
from numpy.typing import NDArray

from denograd.baselines.context import fit_context_model
from denograd.data import ColumnPlan, Encoder, Split, Table, TargetScale
from denograd.evaluation.cases import FIT
from denograd.evaluation.config import EvaluationConfig
from denograd.evaluation.stacked import train_stack
from denograd.evaluation.train import Cell, CellData, CellResult, cell_result, train_cell


@dataclass(frozen=True)
class Source:
    """The rows of a cell, not yet encoded: that is left to the worker.

    ``n_classes`` is None for a measured target, which ``y_train`` and ``y_test`` hold as it is.
    """

    plan: ColumnPlan
    train: pd.DataFrame
    test: pd.DataFrame
    y_train: NDArray[Any]
    y_test: NDArray[Any]
    n_classes: int | None

    def encoded(self) -> CellData:
        """The rows as a model sees them, by an encoder fitted to the training rows."""
        encoder = Encoder(self.plan).fit(self.train)
        columns = [*self.plan.numeric, *self.plan.date, *self.plan.category]
        scale = TargetScale.fit(self.y_train) if self.n_classes is None else None
        return CellData(
            encoder.transform(self.train),
            self.y_train if scale is None else scale.standardise(self.y_train),
            encoder.transform(self.test),
            self.y_test if scale is None else scale.standardise(self.y_test),
            self.n_classes,
            columns_of(encoder.feature_names_, self.plan),
            len(columns),
            scale,
        )


class Unit(NamedTuple):
    """Cells that one worker takes, with their rows.

    Attributes:
        cells: more than one only if they differ in nothing but the seed.
        sources: the rows of each.
        config: of the evaluation.
    """

    cells: tuple[Cell, ...]
    sources: tuple[Source, ...]
    config: EvaluationConfig


class Outcome(NamedTuple):
    """What became of a unit.

    Attributes:
        cells: each with its result, or with a message that says what went wrong.
        notes: what a user should know.
    """

    cells: list[tuple[Cell, CellResult | str]]
    notes: list[str]


def group_cells(cells: Sequence[Cell], engine: str) -> list[tuple[Cell, ...]]:
    """The cells of each unit: all seeds together with the engine ``batched``, else each alone.

    Example:
        >>> cells = [Cell("d", "soft_tree", "sgd", 16, seed) for seed in range(3)]
        >>> [len(unit) for unit in group_cells(cells, "batched")]
        [3]
        >>> [len(unit) for unit in group_cells(cells, "loop")]
        [1, 1, 1]
    """
    groups: dict[Cell, list[Cell]] = {}
    for cell in cells:
        alone = engine == "loop" or cell.optimizer == FIT
        groups.setdefault(cell if alone else cell._replace(seed=-1), []).append(cell)
    return [tuple(group) for group in groups.values()]


def cut_units(
    tables: dict[str, Table],
    plans: dict[str, ColumnPlan],
    sizes: dict[str, list[int]],
    groups: Iterable[tuple[Cell, ...]],
    config: EvaluationConfig,
) -> Iterator[Unit]:
    """The units, their rows cut when their turn comes; split once a table and seed."""
    splits: dict[tuple[str, int], Split] = {}
    for cells in groups:
        sources = []
        for cell in cells:
            table, key = tables[cell.dataset], (cell.dataset, cell.seed)
            if key not in splits:
                splits[key] = table.split(sizes[cell.dataset], cell.seed)
            train, test = splits[key].train[cell.n_train], splits[key].test
            sources.append(
                Source(
                    plans[cell.dataset],
                    table.features.iloc[train],
                    table.features.iloc[test],
                    table.y[train],
                    table.y[test],
                    table.n_classes,
                )
            )
        yield Unit(cells, tuple(sources), config)


def run_unit(unit: Unit) -> Outcome:
    """Run a unit in a worker, on one thread; what goes wrong comes back as messages."""
    threads = torch.get_num_threads()
    # Models this small are several times slower on several threads.
    torch.set_num_threads(1)
    try:
        return _run(unit.cells, unit.sources, unit.config)
    finally:
        torch.set_num_threads(threads)


def _run(cells: Sequence[Cell], sources: Sequence[Source], config: EvaluationConfig) -> Outcome:
    try:
        data = [source.encoded() for source in sources]
        if cells[0].optimizer == FIT:
            fitted = [fit_context(cell, rows) for cell, rows in zip(cells, data, strict=True)]
            return Outcome(list(zip(cells, fitted, strict=True)), [])
        if config.engine == "loop":
            (cell,), (rows,) = cells, data
            return Outcome([(cell, train_cell(cell, rows, config.steps, config.batch_size))], [])
        done = train_stack(cells, data, config.steps, config.batch_size)
        return Outcome(list(zip(cells, done.results, strict=True)), done.notes)
    except Exception as error:  # noqa: BLE001 (one bad cell must not stop the others)
        if len(cells) == 1:
            return Outcome([(cells[0], f"{type(error).__name__}: {error}")], [])
    # One of them is to blame; the others must not be lost with it.
    alone = [_run((c,), (s,), config) for c, s in zip(cells, sources, strict=True)]
    return Outcome([pair for a in alone for pair in a.cells], [n for a in alone for n in a.notes])


def fit_context(cell: Cell, data: CellData) -> CellResult:
    """Fit and score a model outside torch, whose name is the cell's model.

    Its row has 0 steps and no training loss; it has neither a curve nor an explanation.
    """
    if data.n_classes is None:
        raise ValueError(f"{cell}: models outside torch are fitted to classes alone")
    start = time.perf_counter()
    probabilities = fit_context_model(
        cell.model, data.x_train, data.y_train, data.x_test, data.n_classes, cell.seed
    )
    seconds = time.perf_counter() - start
    rows = len(data.y_train)
    result = cell_result(cell, data, {}, probabilities, None, 0, rows, seconds)
    result.row["train_log_loss"] = math.nan
    return result


def columns_of(features: Sequence[str], plan: ColumnPlan) -> tuple[int, ...]:
    """For each encoded feature the number of the column it was made of.

    Columns count as the plan names them: numbers, dates, categories.

    Example:
        >>> columns_of(["x", "x_missing", "c=a"], ColumnPlan(numeric=("x",), category=("c",)))
        (0, 0, 1)
    """
    columns = [*plan.numeric, *plan.date, *plan.category]
    made_of: dict[str, int] = {}
    for number, column in enumerate(columns):
        suffixes = ("", "_missing", "_days", "_year", "_month")
        made_of |= {f"{column}{s}": number for s in suffixes if f"{column}{s}" not in made_of}
        made_of |= {f"{column}_{s}_missing": number for s in ("days", "year", "month")}
    # A column's own name says more than what it looks like another one was made into.
    made_of |= {column: number for number, column in enumerate(columns)}
    categories = sorted(plan.category, key=len, reverse=True)
    found = []
    for feature in features:
        names = [c for c in categories if feature.startswith(f"{c}=")]
        found.append(columns.index(names[0]) if names else made_of[feature])
    return tuple(found)
