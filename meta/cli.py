"""`denograd meta-train`: from paths and options to a run with a live view."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from denograd.data import TableError, TableWarning, TaskName
from denograd.meta.config import MetaTrainingError, TrainerConfig
from denograd.meta.episode import EpisodeDistribution
from denograd.meta.estimators import FLOOR_MEASURED, MetaLoss
from denograd.meta.family import (
    TRIALS,
    MixedFamily,
    PriorFamily,
    TableFamily,
    TaskFamily,
    lends_tasks,
)
from denograd.meta.processes import Processes
from denograd.meta.tables import SourceTable, load_sources
from denograd.meta.trainer import MetaTrainer
from denograd.meta.validation import MetaValidation, judging_models
from denograd.meta.view import View
from denograd.models.registry import KNOWN_MODELS, MODEL_NAMES

VALIDATION_SHARE = 0.25
"""Share of a user's tables that is kept for meta-validation, if there are four or more."""


def run_meta_training(
    *,
    tasks: Sequence[str],
    out: Path,
    target: str | None = None,
    task: str = "classification",
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
    models: Sequence[str] = MODEL_NAMES,
    task_count: int = 24,
    max_rows: int = 256,
    estimator: str = "truncated",
    engine: str = "batched",
    patience: int | None = None,
    device: str = "cpu",
) -> Path:
    """Meta-train a denoiser on the prior, on tables, or on both, half each.

    With four tables or more, a quarter of them (at least one) is never trained on and
    picks the weights to keep; with fewer, the last weights are kept and it says so.
    Started by `torchrun`, all processes train one denoiser together.

    Args:
        tasks: the word ``prior``, and CSV or Parquet files or folders of them.
        out: folder for the denoiser, checkpoints and logs.
        target: name of the column to predict in each table; default: the last.
        task: ``classification``, or ``regression`` for targets that are measured, those of the
            prior too; a denoiser is trained for one of them.
        minutes: time to train.
        steps: meta-steps to train; default, if no minutes are given either: 1,000.
        seed: of everything drawn.
        resume: go on with the run that ``out`` holds.
        models: architectures to train on.
        task_count: tasks in a meta-step.
        max_rows: most training rows of a task.
        estimator: of the meta-gradient, a name in `denograd.meta.ESTIMATORS`.
        engine: that runs the inner loops, a name in `denograd.meta.ENGINES`.
        patience: stop after so many meta-validations without a better one.
        device: ``cpu``, ``cuda`` or ``cuda:0``.

    Returns:
        the saved denoiser.

    Raises:
        TableError: a table, or the list of tasks, cannot be used.
        MetaTrainingError: the output folder is in use or holds another run, or an
            option makes no sense.
        KeyboardInterrupt: it was interrupted; what is done is saved.
    """
    _check(models, minutes, steps, patience, task_count, max_rows)
    kind = _task(task)
    measured = kind == "regression"
    if out.exists() and not out.is_dir():
        raise MetaTrainingError(f"--out {out} is a file; give a folder, which need not exist yet")
    if seed < 0:
        raise MetaTrainingError(f"--seed {seed}: it must be 0 or above")
    where = _device(device)
    if minutes is None and steps is None:
        steps = 1000
    config = TrainerConfig(
        seed=seed,
        steps=steps,
        minutes=minutes,
        estimator=estimator,
        engine=engine,
        patience=patience,
    )
    config.make_estimator()
    config.make_engine()
    processes = Processes.join(where)
    console = Console(stderr=True, quiet=not processes.leads)
    sources = _sources(list(tasks), target, kind, console)
    train, validate = _split(sources, seed)
    largest = max((len(t.labels) for t in train), default=10**9)
    max_rows = min(max_rows, largest - 20)
    if max_rows < 16:
        raise TableError(
            f"the largest table to train on has {largest} rows; meta-training needs one of 36 or "
            "more: 16 to train on and 20 to judge by"
        )
    families: list[tuple[TaskFamily, float]] = []
    if "prior" in tasks:
        families.append((PriorFamily(measured=measured), 0.5))
    if train:
        families.append((TableFamily(train), 0.5))
    distribution = EpisodeDistribution(models=tuple(models), tasks=task_count, rows=(16, max_rows))
    validation = _validation(validate, models, measured, console)
    if patience is not None and validation is None:
        raise MetaTrainingError(
            f"--patience {patience}: there is no meta-validation to wait for; give at least four "
            "tables, one of them with 116 rows or more, or leave --patience out"
        )
    trainer = MetaTrainer(
        MixedFamily(families),
        distribution,
        config,
        out,
        loss=MetaLoss(floor=FLOOR_MEASURED) if measured else MetaLoss(),
        validation=validation,
        card={
            "task": kind,
            "command": shlex.join(["denograd", *sys.argv[1:]]),
            "data_sets": {
                "meta_train": [*(["synthetic prior"] if "prior" in tasks else [])]
                + [t.name for t in train],
                "meta_validation": [t.name for t in validate],
            },
            "base": {"name": "adamw", "lr": 0.003, "weight_decay": 0.0},
        },
        device=where,
        processes=processes,
    )
    torch.set_num_threads(1)
    with View(trainer, console) as view:
        trainer.run(resume=resume, listener=view)
    processes.leave()
    saved = out / "denoiser.safetensors"
    if trainer.interrupted:
        raise KeyboardInterrupt(
            f"interrupted after {trainer.progress.step} meta-steps; the weights so far are in "
            f"{saved}, and --resume goes on"
        )
    if trainer.progress.step == trainer.began_at:
        console.print(
            f"Nothing was left to do: the run in {out} has had {trainer.began_at} meta-steps; "
            + (
                "meta-validation found nothing better for as long as --patience lasts"
                if trainer.stopped_early()
                else "for more, raise --steps or --minutes"
            ),
            style="yellow",
        )
    console.print(
        f"Saved [bold]{saved}[/bold]; use it with DenoGrad(base, {str(saved)!r}, model=model), "
        f"where base = denograd.recommended_base(model, {str(saved)!r})"
    )
    return saved


def _check(
    models: Sequence[str],
    minutes: float | None,
    steps: int | None,
    patience: int | None,
    tasks: int,
    rows: int,
) -> None:
    unknown = [name for name in models if name not in KNOWN_MODELS]
    if unknown or not models:
        raise MetaTrainingError(
            f"--models {','.join(models) or '(empty)'}: choose from {', '.join(KNOWN_MODELS)}"
        )
    for name, value in {"minutes": minutes, "steps": steps, "patience": patience}.items():
        if value is not None and value <= 0:
            raise MetaTrainingError(f"--{name} {value:g}: it must be above 0")
    if tasks < 1 or rows < 16:
        raise MetaTrainingError(
            f"task_count={tasks}, max_rows={rows}: use at least 1 task and 16 rows"
        )


def _task(task: str) -> TaskName:
    if task == "classification":
        return "classification"
    if task == "regression":
        return "regression"
    raise MetaTrainingError(
        f"--task {task}: use classification, or regression for targets that are measured"
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MetaTrainingError(f"--device {name}: use cpu, cuda or cuda:N") from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and count == 0:
        raise MetaTrainingError(
            f"--device {name}: this machine has no GPU that torch can use; use --device cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= count:
        raise MetaTrainingError(f"--device {name}: this machine has {count}, from cuda:0 on")
    if name == "cuda":
        # Started by torchrun, each process takes a GPU of its own.
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return device


def _sources(
    tasks: list[str], target: str | None, kind: TaskName, console: Console
) -> list[SourceTable]:
    paths = [task for task in tasks if task != "prior"]
    if not tasks:
        raise TableError("--tasks is empty; give 'prior', files or folders of tables")
    if not paths:
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TableWarning)
        sources, errors = load_sources(paths, target, kind)
    for warning in caught:
        console.print(f"note: {warning.message}", style="dim", highlight=False)
    # A file that was named is wanted; of a folder, what can be used is taken.
    named = {key for p in map(Path, paths) if not p.is_dir() for key in (str(p), p.stem)}
    lost = [message for key, message in errors.items() if key in named]
    if lost:
        raise TableError("\n  ".join(lost))
    for source in [*sources]:
        if not lends_tasks(source):
            sources.remove(source)
            errors[source.name] = (
                f"{source.name}: of {TRIALS} draws of 16 rows none has two "
                f"{'classes' if kind == 'classification' else 'numbers'}, a column that varies and "
                "20 rows left to judge by; it is too small, or all but a few targets are the same"
            )
    if not sources:
        raise TableError("\n  ".join(errors.values()))
    for message in errors.values():
        console.print(f"left out: {message}", style="yellow", highlight=False)
    console.print(f"{len(sources)} tables can be used, {len(errors)} cannot")
    return sources


def _split(sources: list[SourceTable], seed: int) -> tuple[list[SourceTable], list[SourceTable]]:
    if len(sources) < 4:
        return sources, []
    order = np.random.default_rng([seed, 4]).permutation(len(sources))
    kept = max(1, round(VALIDATION_SHARE * len(sources)))
    chosen = set(order[:kept].tolist())
    train = [t for i, t in enumerate(sources) if i not in chosen]
    return train, [t for i, t in enumerate(sources) if i in chosen]


def _validation(
    tables: list[SourceTable], models: Sequence[str], measured: bool, console: Console
) -> MetaValidation | None:
    if not tables:
        console.print(
            "note: fewer than four tables, so none is kept for meta-validation and the last "
            "weights are saved",
            style="yellow",
        )
        return None
    judges = judging_models(models, measured)
    unseen = [name for name in judges if name not in models]
    console.print(
        f"meta-validation: {', '.join(judges)} on {len(tables)} tables that are not trained on"
        + (f"; {', '.join(unseen)} not trained on either" if unseen else ""),
        highlight=False,
    )
    validation = MetaValidation(tables, judges, seeds=1)
    if not validation.cells:
        console.print(
            "note: the tables kept for meta-validation have fewer than 116 rows; the last "
            "weights are saved",
            style="yellow",
        )
        return None
    return validation
