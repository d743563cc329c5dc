"""What is inside a denoiser: looked into by its answers, on small reference trainings.

`reference_runs` trains small models on tables that scikit-learn ships and records it;
`sensitivity` says which features drive which coefficient in what was recorded, there or in a
run of your own. `denograd.plot` draws both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

from denograd._modes import evaluating
from denograd._sensitivity import (
    MULTIPLIERS,
    InspectionError,
    Readable,
    Sensitivity,
    neutral,
    readable,
    sensitivity,
)
from denograd.audit import AuditLog
from denograd.base import make_base, settings_by_model
from denograd.denoisers import Denoiser, denoiser_for, resolve_denoiser

__all__ = [
    "MEASURED_TABLES",
    "MODELS",
    "MULTIPLIERS",
    "ROWS",
    "STEPS",
    "TABLES",
    "InspectionError",
    "Readable",
    "Recordings",
    "Reference",
    "Sensitivity",
    "by_model",
    "neutral",
    "readable",
    "reference_runs",
    "sensitivity",
]

TABLES = ("wine", "breast_cancer", "iris")
MEASURED_TABLES = ("diabetes",)
MODELS = ("soft_tree", "attention")
ROWS, STEPS, BATCH = 64, 120, 32
"""The reference trainings: small data, as denoisers are made for; the second tables are those of
the denoiser for measured targets."""

EVERY = 4
"""Steps from one record of a reference training to the next."""

Recordings: TypeAlias = Mapping[str, Sequence[AuditLog]]
"""Recordings under the names by which pictures and tables speak of them."""


class Reference(NamedTuple):
    """A finished reference training.

    Attributes:
        table: name of its table.
        model: name of its model.
        recording: what its optimizer recorded.
        first_loss: mean loss over the training rows before the first step, in nats; the mean
            squared error of the standardised target where that is measured.
        last_loss: the same after the last.
    """

    table: str
    model: str
    recording: AuditLog
    first_loss: float
    last_loss: float


def reference_runs(
    denoiser: str | Path | Denoiser,
    tables: Sequence[str] | None = None,
    models: Sequence[str] = MODELS,
    *,
    rows: int = ROWS,
    steps: int = STEPS,
    every: int = EVERY,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[Reference]:
    """Train small models on tables that scikit-learn ships, and record it.

    Args:
        denoiser: a shipped name, a path or an instance.
        tables: names that `denograd.data.builtin_table` knows; default: `TABLES`, or
            `MEASURED_TABLES` for the shipped denoiser for measured targets.
        models: names that `denograd.models.registry.make_model` knows, but no sequences.
        rows: training rows of each table.
        steps: optimizer steps.
        every: steps from one record to the next.
        seed: of rows, weights and batches.
        progress: told the name of each training when it is finished.

    Raises:
        TableError: a table that is not known, or has not so many rows.
        InspectionError: a model that is not known, a name twice, or a number below 1.
    """
    if tables is None:
        tables = tables_for(denoiser)
    for name, values in (("tables", tables), ("models", models)):
        if not values or len(set(values)) < len(values):
            raise InspectionError(f"{name}={list(values)!r}; name at least one, and each once")
    for name, number in (("rows", rows), ("steps", steps), ("every", every)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InspectionError(f"{name}={number!r}; it must be a whole number of at least 1")
    # Read once: a denoiser of the Hub could change between two trainings.
    card_of = denoiser if isinstance(denoiser, (str, Path)) else "identity"
    bases = settings_by_model(card_of, models)
    resolved = resolve_denoiser(denoiser)
    done = []
    for table in tables:
        for model in models:
            done.append(_train(resolved, bases[model], table, model, rows, steps, every, seed))
            if progress is not None:
                progress(f"{table}, {model}")
    return done


def tables_for(denoiser: str | Path | Denoiser) -> tuple[str, ...]:
    """The tables of reference trainings, with the kind of target that a denoiser is made for.

    Example:
        >>> tables_for("default"), tables_for("regression")
        (('wine', 'breast_cancer', 'iris'), ('diabetes',))
    """
    return MEASURED_TABLES if denoiser == denoiser_for(measured=True) else TABLES


def _train(
    denoiser: Denoiser,
    base: Mapping[str, Any],
    table_name: str,
    model_name: str,
    rows: int,
    steps: int,
    every: int,
    seed: int,
) -> Reference:
    from denograd.data import builtin_table, plan_columns
    from denograd.evaluation.regression_metrics import loss_of
    from denograd.evaluation.running_units import encode
    from denograd.evaluation.train import draw_batches, initial_model
    from denograd.optimizer import DenoGrad

    table = builtin_table(table_name)
    split = table.split([rows], seed)
    data = encode(table, plan_columns(table), split.train[rows], split.test)
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    loss_fn = loss_of(table.n_classes)
    try:
        model = initial_model(model_name, x.shape[1], table.n_classes, seed)
    except ValueError as error:
        raise InspectionError(str(error)) from error
    optimizer = DenoGrad(
        make_base(model, base),
        denoiser,
        model=model,
        total_steps=steps,
        dataset_size=rows,
        batch_size=min(BATCH, rows),
        record=every,
    )

    def loss_now() -> float:
        with torch.no_grad(), evaluating(model):
            return float(loss_fn(model(x), y))

    before = loss_now()
    for batch in draw_batches(rows, steps, BATCH, seed):
        optimizer.zero_grad()
        loss_fn(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return Reference(table_name, model_name, optimizer.recording, before, loss_now())


def by_model(runs: Sequence[Reference]) -> dict[str, list[AuditLog]]:
    """The recordings of reference trainings, those of a model together."""
    found: dict[str, list[AuditLog]] = {}
    for run in runs:
        found.setdefault(run.model, []).append(run.recording)
    return found
