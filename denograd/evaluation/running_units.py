"""What one worker does at a time: a unit of cells, from rows to results."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from denograd.baselines.context import fit_context_model
from denograd.data import ColumnPlan, Encoder, Split, Table, TargetScale
from denograd.data.sequences import SequenceEncoder
from denograd.evaluation.cases import FIT
from denograd.evaluation.config import EvaluationConfig
from denograd.evaluation.stacked import train_stack
from denograd.evaluation.train import Cell, CellData, CellResult, cell_result, train_cell


class Unit(NamedTuple):
    """Cells that one worker takes, with their rows.

    Attributes:
        cells: more than one only if they differ in nothing but the seed.
        data: the encoded rows of each, or a message that says why there are none.
        config: of the evaluation.
    """

    cells: tuple[Cell, ...]
    data: tuple[CellData | str, ...]
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
    """The units, their rows cut when their turn comes.

    A table is split once a seed. Rows are encoded once for all models and optimizers as long as
    the groups of a table and size follow each other.
    """
    splits: dict[tuple[str, int], Split] = {}
    encoded: dict[int, CellData | str] = {}
    before = ("", 0)
    for cells in groups:
        name, size = place = (cells[0].dataset, cells[0].n_train)
        if place != before:
            encoded, before = {}, place
        for seed in (cell.seed for cell in cells if cell.seed not in encoded):
            try:
                if (name, seed) not in splits:
                    splits[name, seed] = tables[name].split(sizes[name], seed)
                split = splits[name, seed]
                encoded[seed] = encode(tables[name], plans[name], split.train[size], split.test)
            except Exception as error:  # noqa: BLE001 (one bad draw must not stop the others)
                encoded[seed] = _message(error)
        yield Unit(cells, tuple(encoded[cell.seed] for cell in cells), config)


def encode(
    table: Table, plan: ColumnPlan, train: NDArray[np.int64], test: NDArray[np.int64]
) -> CellData:
    """Rows as a model sees them, by an encoder that is fitted to the training rows."""
    features = table.features
    y_train, y_test = table.y[train], table.y[test]
    scale = TargetScale.fit(y_train) if table.n_classes is None else None
    encoder: Encoder | SequenceEncoder
    if table.n_channels:
        # Every element is a column of its own.
        encoder, sources, n_columns = sequence_encoder(table, train), None, 0
    else:
        encoder = Encoder(plan).fit(features.iloc[train])
        sources = columns_of(encoder.feature_names_, plan)
        n_columns = len([*plan.numeric, *plan.date, *plan.category])
    return CellData(
        encoder.transform(features.iloc[train]),
        y_train if scale is None else scale.standardise(y_train),
        encoder.transform(features.iloc[test]),
        y_test if scale is None else scale.standardise(y_test),
        table.n_classes,
        sources,
        n_columns,
        scale,
        None if table.group_codes is None else table.group_codes[train],
        max(table.n_channels, 1),
    )


def sequence_encoder(table: Table, train: NDArray[np.int64]) -> SequenceEncoder:
    """Standardises the channels of a table of sequences by its training rows."""
    columns = [str(name) for name in table.features.columns]
    return SequenceEncoder(table.features.iloc[train], columns, table.n_channels)


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def run_unit(unit: Unit) -> Outcome:
    """Run a unit in a worker, on one thread; what goes wrong comes back as messages."""
    threads = torch.get_num_threads()
    # Models this small are several times slower on several threads.
    torch.set_num_threads(1)
    try:
        return _run(unit.cells, unit.data, unit.config)
    finally:
        torch.set_num_threads(threads)


def _run(
    cells: Sequence[Cell], data: Sequence[CellData | str], config: EvaluationConfig
) -> Outcome:
    pairs = list(zip(cells, data, strict=True))
    known = {cell: rows for cell, rows in pairs if not isinstance(rows, str)}
    failed = [(cell, rows) for cell, rows in pairs if isinstance(rows, str)]
    done = _run_encoded(list(known), list(known.values()), config) if known else Outcome([], [])
    return Outcome([*done.cells, *failed], done.notes)


def _run_encoded(
    cells: Sequence[Cell], data: Sequence[CellData], config: EvaluationConfig
) -> Outcome:
    try:
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
            return Outcome([(cells[0], _message(error))], [])
    # One of them is to blame; the others must not be lost with it.
    alone = [_run_encoded([c], [d], config) for c, d in zip(cells, data, strict=True)]
    return Outcome([pair for a in alone for pair in a.cells], [n for a in alone for n in a.notes])


def fit_context(cell: Cell, data: CellData) -> CellResult:
    """Fit and score a model outside torch, whose name is the cell's model.

    Its row has 0 steps and no training loss; it has neither a curve nor an explanation.
    """
    if data.n_classes is None:
        raise ValueError(f"{cell}: models outside torch are fitted to classes alone")
    start = time.perf_counter()
    probabilities = fit_context_model(
        cell.model, data.x_train, data.y_train, data.x_test, data.n_classes, cell.seed, data.groups
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
    # A column's own name says more than what it looks like another one was made into.
    made_of |= {column: number for number, column in enumerate(columns)}
    categories = sorted(plan.category, key=len, reverse=True)
    found = []
    for feature in features:
        names = [c for c in categories if feature.startswith(f"{c}=")]
        found.append(columns.index(names[0]) if names else made_of[feature])
    return tuple(found)
