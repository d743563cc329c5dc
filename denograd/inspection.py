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
from torch.nn import functional as F

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
from denograd.denoisers import Denoiser, resolve_denoiser

__all__ = [
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
MODELS = ("soft_tree", "attention")
ROWS, STEPS, BATCH = 64, 120, 32
"""The reference trainings: small data, as denoisers are made for."""

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
        first_loss: mean loss over the training rows before the first step, in nats.
        last_loss: the same after the last.
    """

    table: str
    model: str
    recording: AuditLog
    first_loss: float
    last_loss: float


def reference_runs(
    denoiser: str | Path | Denoiser,
    tables: Sequence[str] = TABLES,
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
        tables: names that `denograd.data.builtin_table` knows.
        models: names that `denograd.models.registry.make_model` knows, but no sequences.
        rows: training rows of each table.
        steps: optimizer steps.
        every: steps from one record to the next.
        seed: of rows, weights and batches.
        progress: told the name of each training when it is finished.

    Raises:
        TableError: a table that is not known, or has not so many rows.
        InspectionError: a model that is not known, a table without classes, a name twice, or
            a number below 1.
    """
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
    from denograd.data import Encoder, builtin_table, check_size, nested_split, plan_columns
    from denograd.evaluation.train import draw_batches, initial_model
    from denograd.optimizer import DenoGrad

    table = builtin_table(table_name)
    if table.task != "classification":
        raise InspectionError(
            f"tables: {table_name!r} has no classes, and reference trainings are classifications; "
            f"use some of {', '.join(TABLES)}"
        )
    check_size(table.name, table.codes, rows)
    kept = nested_split(table.codes, [rows], seed).train[rows]
    features = table.features.iloc[kept]
    encoded = Encoder(plan_columns(table)).fit(features).transform(features)
    x, y = torch.from_numpy(encoded), torch.from_numpy(table.codes[kept])
    try:
        model = initial_model(model_name, x.shape[1], len(table.classes), seed)
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
            return float(F.cross_entropy(model(x), y))

    before = loss_now()
    for batch in draw_batches(rows, steps, BATCH, seed):
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return Reference(table_name, model_name, optimizer.recording, before, loss_now())


def by_model(runs: Sequence[Reference]) -> dict[str, list[AuditLog]]:
    """The recordings of reference trainings, those of a model together."""
    found: dict[str, list[AuditLog]] = {}
    for run in runs:
        found.setdefault(run.model, []).append(run.recording)
    return found
