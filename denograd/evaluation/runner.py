"""An evaluation from its tables to its summary; what is finished is never run again."""

from __future__ import annotations

import datetime
import hashlib
import itertools
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from denograd.baselines import describe_optimizer
from denograd.baselines.context import CONTEXT_MODELS, context_available
from denograd.data import ColumnPlan, Table, TableError, plan_columns
from denograd.evaluation.cases import FIT
from denograd.evaluation.config import EvaluationConfig, EvaluationError
from denograd.evaluation.curves import plot_curves, plot_ratios
from denograd.evaluation.described import class_labels, describe_table
from denograd.evaluation.html import write_report
from denograd.evaluation.journal import Journal, Restart, in_use
from denograd.evaluation.running import check_backend, finish
from denograd.evaluation.running_units import cut_units, group_cells
from denograd.evaluation.summary import summarise, versions
from denograd.evaluation.train import Cell
from denograd.evaluation.trained_on import seen_before
from denograd.evaluation.tuned_for import tuned_elsewhere


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation left behind.

    Attributes:
        folder: where everything lies.
        results: one row a finished cell, as in ``results.csv``.
        summary: as in ``summary.json``.
        report: ``report.html``; None if no cell was finished.
        pictures: the PNG files.
        errors: cells that failed, each with its message, as in ``errors.csv``.
        trained: number of cells that this call ran; the others it found finished.
    """

    folder: Path
    results: pd.DataFrame
    summary: dict[str, Any]
    report: Path | None
    pictures: list[Path]
    errors: list[tuple[Cell, str]]
    trained: int


def evaluate(
    tables: Sequence[Table],
    config: EvaluationConfig,
    out: str | Path,
    *,
    jobs: int = -1,
    backend: str = "loky",
    restart: bool | Restart = False,
    optional: Collection[str] = (),
    command: str | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Train and score every combination of table, model, optimizer, size and seed.

    Writes ``results.csv``, ``summary.json``, ``report.html``, learning curves as PNG and, if
    cells failed, ``errors.csv``. Called again for the same folder it runs only what is missing, be
    it what a kill left undone or seeds, models, optimizers and tables that are new; the report is
    of what is asked for. Seconds of cells that were run at different times need not compare. A
    size that a table is too small for is left out with a note.

    Args:
        tables: of different names.
        config: the rest of the grid.
        out: folder to write to.
        jobs: processes; -1 for one a core. Each uses one thread.
        backend: where they run, one of `denograd.evaluation.running.BACKENDS`: ``loky``,
            processes of this machine; ``ray`` or ``dask``, a cluster if ``RAY_ADDRESS`` or
            ``DASK_SCHEDULER_ADDRESS`` names one; ``sequential``, this process alone.
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
        EvaluationError: tables of one name, a folder that cannot be written or that another
            evaluation writes to, a backend that is not known or not installed, or a worker
            process that was killed.
        TableError: a table from which nothing can be learned, or that is too small for
            every size, unless it is optional and another can be used.
    """
    console = console or Console(stderr=True)
    if not tables:
        raise EvaluationError("tables is empty; give at least one")
    check_backend(backend, jobs)
    tasks = sorted({table.task for table in tables})
    if len(tasks) > 1:
        raise EvaluationError(
            "some tables are for classification and some for regression; evaluate them apart, "
            "or say what all of them are for (--task)"
        )
    names = [table.name for table in tables]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(f"two tables are named {', '.join(twice)}; rename a file")
    tables, sizes, plans = _usable(tables, config.sizes, optional, console)
    settings = _settings(tables, config)
    if isinstance(restart, bool):
        restart = "always" if restart else "never"
    with in_use(Path(out)):
        journal = Journal(Path(out), settings, restart)
        if journal.changed:
            _note(
                console,
                f"{journal.folder}: results of other settings are thrown away ({journal.changed})",
            )

        versions_now = versions()
        if older := journal.versions_before(versions_now):
            _note(
                console,
                f"{journal.folder}: cells of before were run with "
                f"{', '.join(f'{name} {value}' for name, value in older.items())}; start in "
                "another folder if that may matter",
            )
        told = seen_before(config.optimizers, [table.name for table in tables], tables[0].task)
        for sentence in told:
            _note(console, sentence)
        used = {size for own in sizes.values() for size in own}
        untuned = tuned_elsewhere(
            config.optimizers,
            config.models,
            config.steps,
            used,
            config.batch_size,
            tables[0].task,
            any(table.n_channels for table in tables),
        )
        for sentence in untuned:
            _note(console, sentence)
        cells = _cells(tables, sizes, config, console)
        todo = [cell for cell in cells if cell not in journal.finished]
        if len(todo) < len(cells):
            console.print(f"{len(cells) - len(todo)} of {len(cells)} cells are already finished")
        groups = group_cells(todo, config.engine)
        finish(
            cut_units({table.name: table for table in tables}, plans, sizes, groups, config),
            len(todo),
            journal,
            jobs=jobs,
            backend=backend,
            console=console,
            note=lambda message: _note(console, message),
        )

        order = _reading_order(cells, config)
        journal.write_results(order)
        finished = {cell: journal.finished[cell] for cell in order if cell in journal.finished}
        results = pd.DataFrame([result.row for result in finished.values()])
        summary: dict[str, Any] = {
            "schema": 2,
            "command": command,
            "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions_now,
            "settings": settings,
            "data": {
                table.name: describe_table(
                    table,
                    plans[table.name],
                    [r.row["n_test"] for cell, r in finished.items() if cell.dataset == table.name],
                )
                for table in tables
            },
            "reference": config.reference,
            "cells_finished": len(finished),
            "cells_failed": len(journal.errors),
            "seen_before": told,
            "tuned_elsewhere": untuned,
        }
        if not finished:
            journal.write_json("summary.json", summary)
            return Evaluation(journal.folder, results, summary, None, [], journal.errors, len(todo))
        classes = {t.name: class_labels(t) for t in tables if t.task == "classification"}
        summary |= summarise(results, config.reference, finished, classes)
        # What can be read is there before the pictures, which take longest.
        journal.write_json("summary.json", summary)
        report = write_report(summary, finished, journal.errors, journal.folder)
        pictures = plot_curves(finished, config.optimizers, journal.folder)
        pictures += plot_ratios(summary, journal.folder)
        return Evaluation(
            journal.folder, results, summary, report, pictures, journal.errors, len(todo)
        )


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
            plans[table.name] = _plan(table)
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


def _plan(table: Table) -> ColumnPlan:
    """What columns are used as; those of sequences are all steps of their channels."""
    if table.n_channels:
        return ColumnPlan(numeric=tuple(str(name) for name in table.features.columns))
    return plan_columns(table)


def _note(console: Console, message: str) -> None:
    console.print(f"note: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _fitting_sizes(table: Table, sizes: Sequence[int], console: Console) -> list[int]:
    fitting, problems = [], []
    for size in sorted(sizes):
        try:
            table.check_size(size)
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
    measured = tables[0].n_classes is None
    if measured:  # For classes the settings were checked when they were made.
        config.check_optimizers(measured)
    optimizers = {
        name: describe_optimizer(name, config.models, measured) for name in config.optimizers
    }
    # Left out for classification, so that folders of earlier versions are gone on with.
    task = {"task": tables[0].task} if measured else {}
    return {
        **task,
        **asdict(config),
        "models": list(config.models),
        "sizes": list(config.sizes),
        "optimizers": optimizers,
        "tables": {table.name: _fingerprint(table) for table in tables},
    }


def _fingerprint(table: Table) -> str:
    frame = table.features.assign(**{"": table.target})
    if table.groups is not None:
        frame[" "] = table.groups
    found = hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()
    if table.n_channels:
        found = f"{table.n_channels} channels, {found}"
    # Inner folds split groups once: what was chosen by such folds must not mix with results of now.
    return found if table.groups is None else f"inner folds of whole groups, {found}"


def _cells(
    tables: Sequence[Table],
    sizes: dict[str, list[int]],
    config: EvaluationConfig,
    console: Console,
) -> list[Cell]:
    """Every run, those of models outside torch last."""
    seeds = range(config.seeds)
    trained = [
        Cell(table.name, model, optimizer, size, seed)
        for table in tables
        for size in sizes[table.name]
        for seed in seeds
        for model in config.models
        for optimizer in config.optimizers
    ]
    if not config.context:
        return trained
    if tables[0].n_classes is None:
        _note(console, "left out: models outside torch, which are fitted to classes alone")
        return trained
    context = [name for name in CONTEXT_MODELS if context_available(name)]
    if missing := [name for name in CONTEXT_MODELS if name not in context]:
        _note(console, f"left out, because its package is not installed: {', '.join(missing)}")
    return trained + [
        Cell(table.name, model, FIT, size, seed)
        for table in tables
        for size in sizes[table.name]
        for seed in seeds
        for model in context
    ]


def _reading_order(cells: Sequence[Cell], config: EvaluationConfig) -> list[Cell]:
    """Cells as one reads a table: by data set, model, size and seed, optimizers together."""
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    ranks = itertools.chain(datasets, config.models, CONTEXT_MODELS, config.optimizers, [FIT])
    rank = {name: number for number, name in enumerate(dict.fromkeys(ranks))}
    return sorted(
        cells,
        key=lambda c: (rank[c.dataset], rank[c.model], c.n_train, c.seed, rank[c.optimizer]),
    )
