"""Run a grid of cells in processes, keep what is finished, go on after an interruption."""

from __future__ import annotations

import datetime
import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from denograd.baselines import describe_optimizer
from denograd.data import (
    ColumnPlan,
    Encoder,
    Split,
    Table,
    TableError,
    check_size,
    nested_split,
    plan_columns,
)
from denograd.evaluation.config import EvaluationConfig, EvaluationError
from denograd.evaluation.curves import plot_curves, plot_ratios
from denograd.evaluation.journal import Journal, Restart
from denograd.evaluation.summary import summarise, versions
from denograd.evaluation.train import Cell, CellData, CellResult, train_cell


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation left behind.

    Attributes:
        folder: where everything lies.
        results: one row a finished cell, as in ``results.csv``.
        summary: as in ``summary.json``.
        pictures: the PNG files.
        errors: cells that failed, each with its message, as in ``errors.csv``.
        trained: number of cells that this call ran; the others it found finished.
    """

    folder: Path
    results: pd.DataFrame
    summary: dict[str, Any]
    pictures: list[Path]
    errors: list[tuple[Cell, str]]
    trained: int


@dataclass(frozen=True)
class _Source:
    """The rows of a cell, not yet encoded: that is left to the worker."""

    plan: ColumnPlan
    train: pd.DataFrame
    test: pd.DataFrame
    y_train: NDArray[np.int64]
    y_test: NDArray[np.int64]
    n_classes: int


def evaluate(
    tables: Sequence[Table],
    config: EvaluationConfig,
    out: str | Path,
    *,
    jobs: int = -1,
    restart: bool | Restart = False,
    optional: Collection[str] = (),
    command: str | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Train and score every combination of table, model, optimizer, size and seed.

    Writes ``results.csv``, ``summary.json``, learning curves as PNG and, if cells failed,
    ``errors.csv``. Called again for the same folder and settings it runs only what is
    missing. A size that a table is too small for is left out with a note.

    Args:
        tables: of different names.
        config: the rest of the grid.
        out: folder to write to.
        jobs: processes; -1 for one a core. Each uses one thread.
        restart: throw away what an earlier evaluation left in the folder; ``"changed"``:
            only if it was of the same tables with other settings, and say so in a note.
        optional: names of tables that are left out with a note if nothing can be learned
            from them or they are too small for every size.
        command: the command to note in the summary.
        console: for the progress bar and notes; default: standard error.

    Returns:
        results, summary and where the pictures are.

    Raises:
        OtherSettingsError: a folder that holds results of other settings.
        EvaluationError: tables of one name, a folder that cannot be written, or a worker
            process that was killed.
        TableError: a table from which nothing can be learned, or that is too small for
            every size, unless it is optional and another can be used.
    """
    console = console or Console(stderr=True)
    if not tables:
        raise EvaluationError("tables is empty; give at least one")
    if jobs == 0 or jobs < -1:
        raise EvaluationError(f"jobs={jobs}; use a number of processes, or -1 for one a core")
    names = [table.name for table in tables]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(f"two tables are named {', '.join(twice)}; rename a file")
    tables, sizes, plans = _usable(tables, config.sizes, optional, console)
    settings = _settings(tables, config)
    if isinstance(restart, bool):
        restart = "always" if restart else "never"
    journal = Journal(Path(out), settings, restart)
    if journal.changed:
        _note(
            console,
            f"{journal.folder}: results of other settings are thrown away ({journal.changed})",
        )

    cells = [
        Cell(table.name, model, optimizer, size, seed)
        for table in tables
        for size in sizes[table.name]
        for seed in range(config.seeds)
        for model in config.models
        for optimizer in config.optimizers
    ]
    todo = [cell for cell in cells if cell not in journal.finished]
    if len(todo) < len(cells):
        console.print(f"{len(cells) - len(todo)} of {len(cells)} cells are already finished")
    sources = _sources({table.name: table for table in tables}, plans, sizes, todo)
    _run(sources, config, journal, len(todo), jobs, console)

    order = _reading_order(cells, config)
    journal.write_results(order)
    finished = {cell: journal.finished[cell] for cell in order if cell in journal.finished}
    results = pd.DataFrame([result.row for result in finished.values()])
    summary: dict[str, Any] = {
        "schema": 1,
        "command": command,
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "settings": settings,
        "reference": config.reference,
        "cells_finished": len(finished),
        "cells_failed": len(journal.errors),
    }
    pictures: list[Path] = []
    if finished:
        summary |= summarise(results, config.reference)
        pictures = plot_curves(finished, config.optimizers, journal.folder)
        pictures += plot_ratios(summary, journal.folder)
    journal.write_json("summary.json", summary)
    return Evaluation(journal.folder, results, summary, pictures, journal.errors, len(todo))


def _usable(
    tables: Sequence[Table], sizes: Sequence[int], optional: Collection[str], console: Console
) -> tuple[list[Table], dict[str, list[int]], dict[str, ColumnPlan]]:
    """The tables that can be evaluated, with the sizes that fit and the kinds of columns."""
    usable: list[Table] = []
    fitting: dict[str, list[int]] = {}
    plans: dict[str, ColumnPlan] = {}
    for table in tables:
        try:
            found = _fitting_sizes(table, sizes, console)
            plans[table.name] = plan_columns(table)
        except TableError as error:
            if table.name not in optional:
                raise
            _note(console, f"left out: {error}")
        else:
            usable.append(table)
            fitting[table.name] = found
    if not usable:
        raise TableError(
            "none of the tables can be used, the notes say why; use smaller sizes, or give "
            "other tables"
        )
    return usable, fitting, plans


def _note(console: Console, message: str) -> None:
    console.print(f"note: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _fitting_sizes(table: Table, sizes: Sequence[int], console: Console) -> list[int]:
    fitting, problems = [], []
    for size in sorted(sizes):
        try:
            check_size(table.name, table.codes, size)
            fitting.append(size)
        except TableError as error:
            problems.append(error)
    if not fitting:
        raise problems[0]
    for problem in problems:
        _note(console, f"left out: {problem}")
    return fitting


def _settings(tables: Sequence[Table], config: EvaluationConfig) -> dict[str, Any]:
    """All that decides the results, so that results of different settings never mix."""
    optimizers = {name: describe_optimizer(name, config.models) for name in config.optimizers}
    return {
        **asdict(config),
        "models": list(config.models),
        "sizes": list(config.sizes),
        "optimizers": optimizers,
        "tables": {table.name: _fingerprint(table) for table in tables},
    }


def _fingerprint(table: Table) -> str:
    text = table.features.assign(**{"": table.target}).to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sources(
    tables: dict[str, Table],
    plans: dict[str, ColumnPlan],
    sizes: dict[str, list[int]],
    cells: Iterable[Cell],
) -> Iterator[tuple[Cell, _Source]]:
    """The rows of each cell, cut when its turn comes; split once a table and seed."""
    splits: dict[tuple[str, int], Split] = {}
    for cell in cells:
        table, key = tables[cell.dataset], (cell.dataset, cell.seed)
        if key not in splits:
            splits[key] = nested_split(table.codes, sizes[cell.dataset], cell.seed)
        train, test = splits[key].train[cell.n_train], splits[key].test
        yield (
            cell,
            _Source(
                plans[cell.dataset],
                table.features.iloc[train],
                table.features.iloc[test],
                table.codes[train],
                table.codes[test],
                len(table.classes),
            ),
        )


def _run(
    sources: Iterator[tuple[Cell, _Source]],
    config: EvaluationConfig,
    journal: Journal,
    total: int,
    jobs: int,
    console: Console,
) -> None:
    """Run cells as processes get free, and put each on disk when it is finished."""
    if total == 0:
        return
    workers = min(cpu_count() if jobs == -1 else jobs, total)
    parallel = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered")
    calls = (
        delayed(_run_cell)(cell, source, config.steps, config.batch_size)
        for cell, source in sources
    )
    progress = Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
    )
    try:
        # Closing the generator stops the workers when this process is interrupted.
        with progress, closing(parallel(calls)) as outcomes:
            task = progress.add_task("cells", total=total)
            for cell, outcome in outcomes:
                if isinstance(outcome, str):
                    journal.append_error(cell, outcome)
                    console.print(f"failed: {cell}: {outcome}", style="red", markup=False)
                else:
                    journal.append(cell, outcome)
                progress.advance(task)
    except TerminatedWorkerError as error:
        raise EvaluationError(
            f"{journal.folder}: a worker process was killed, perhaps for want of memory. "
            "Finished cells are kept: start again, with fewer --jobs if it happens again."
        ) from error


def _run_cell(
    cell: Cell, source: _Source, steps: int, batch_size: int
) -> tuple[Cell, CellResult | str]:
    """Run one cell in a worker; what goes wrong comes back as a message."""
    threads = torch.get_num_threads()
    # Models this small are several times slower on several threads.
    torch.set_num_threads(1)
    try:
        encoder = Encoder(source.plan).fit(source.train)
        data = CellData(
            encoder.transform(source.train),
            source.y_train,
            encoder.transform(source.test),
            source.y_test,
            source.n_classes,
        )
        return cell, train_cell(cell, data, steps, batch_size)
    except Exception as error:  # noqa: BLE001 (one bad cell must not stop the others)
        return cell, f"{type(error).__name__}: {error}"
    finally:
        torch.set_num_threads(threads)


def _reading_order(cells: Sequence[Cell], config: EvaluationConfig) -> list[Cell]:
    """Cells as one reads a table: by data set, model, size and seed, optimizers together."""
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    ranks = itertools.chain(datasets, config.models, config.optimizers)
    rank = {name: number for number, name in enumerate(dict.fromkeys(ranks))}
    return sorted(
        cells,
        key=lambda c: (rank[c.dataset], rank[c.model], c.n_train, c.seed, rank[c.optimizer]),
    )
