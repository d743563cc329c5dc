"""Meta-validation: held-out loss against the control, on tables that training never saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from denograd.baselines import control_settings, read_control, schedule_factor
from denograd.baselines.control import control_file
from denograd.denoisers import Denoiser, IdentityDenoiser
from denograd.meta.engines import run_episode
from denograd.meta.episode import Episode, assemble_episode
from denograd.meta.family import TableFamily
from denograd.meta.processes import Processes
from denograd.meta.tables import SourceTable, fingerprint_tables
from denograd.meta.task import Task, TaskBatch
from denograd.models import TabularModel
from denograd.models.registry import MODEL_NAMES, check_model, make_model


@dataclass(frozen=True)
class Score:
    """How a denoiser compares with the control; the unit is a table at one size.

    Attributes:
        ratio: geometric mean of held-out log loss, denoiser over control; of mean squared
            errors, where targets are measured.
        wins: share of cells in which the denoiser's is lower.
        worst: largest ratio of a cell.
        by_model: model to its geometric mean ratio.
        by_rows: training rows to their geometric mean ratio.
        by_table: table to its geometric mean ratio.
    """

    ratio: float
    wins: float
    worst: float
    by_model: dict[str, float]
    by_rows: dict[int, float]
    by_table: dict[str, float]


class Judged(NamedTuple):
    """A table at one size, for one model."""

    model: str
    rows: int
    table: str


WORST = 100.0
"""Nats; a loss above it, or none at all, counts as this: a run that diverged."""


def bounded(losses: Tensor) -> Tensor:
    """Losses that can be averaged, whatever became of a run."""
    return losses.nan_to_num(nan=WORST, posinf=WORST).clamp(max=WORST)


_BATCH, _WIDE = 32, 64
"""Rows of a batch, and columns of a wide table."""

_ROWS_LEFT, _SEQUENCES_LEFT = 100, 40
"""At least so many must be left to judge on."""

UNSEEN = "prototype_net"
"""The architecture that judges denoisers that were trained on others."""


def judging_models(trained: Sequence[str], measured: bool = False) -> tuple[str, ...]:
    """Architectures to judge a denoiser by: trained ones, and one that it has never seen.

    Those without a tuned control judge nothing, for there is nothing to compare with.

    Args:
        trained: names of the models that are meta-trained on.
        measured: whether targets are measured, for which another control is tuned.

    Example:
        >>> judging_models(["soft_tree", "attention"])
        ('soft_tree', 'attention', 'prototype_net')
    """
    tuned = {entry.model for entry in read_control(control_file(measured))}
    return tuple(name for name in dict.fromkeys((*trained, UNSEEN)) if name in tuned)


def judged_episode(
    rng: np.random.Generator,
    tasks: TaskBatch,
    template: TabularModel,
    rows: int,
    *,
    steps: int,
    noise: bool = True,
) -> Episode:
    """Tasks to compare optimizers on: batches of 32, and a denoiser is told all there is.

    What it says of the base optimizer stands for nothing: whoever is judged brings a base.

    Args:
        rng: of initial weights and batches.
        tasks: the tasks, of the same number of rows.
        template: the architecture.
        rows: training rows of each task.
        steps: inner steps.
        noise: whether the noise within the batch is measured, sample by sample.
    """
    batch_size, ones = min(_BATCH, rows), torch.ones(len(tasks))
    return assemble_episode(
        rng,
        tasks,
        template,
        steps=steps,
        batch_size=batch_size,
        micro=batch_size if noise else 1,
        base="adam",
        learning_rate=torch.ones(len(tasks), 1),
        weight_decay=0.0,
        told=(torch.full((len(tasks),), float(noise)), ones, ones),
    )


def adamw_losses(episode: Episode, lr: float, weight_decay: float, schedule: str) -> Tensor:
    """Held-out loss of each task, ``(T,)``, once AdamW has trained on it.

    Args:
        episode: the tasks; what it says of the optimizer is replaced.
        lr: learning rate at the start.
        weight_decay: AdamW's.
        schedule: one of `denograd.baselines.SCHEDULES`.
    """
    tuned = replace(
        episode,
        learning_rate=torch.full_like(episode.learning_rate, lr),
        weight_decay=weight_decay,
        micro=1,
    )

    def factor(step: int) -> float:
        return schedule_factor(schedule, step, episode.steps)

    return run_episode(tuned, IdentityDenoiser(), factor)


def draw_whole(rng: np.random.Generator, family: TableFamily, rows: int) -> list[Task]:
    """A task of each table with all of its columns; a table too small for it sits out.

    Args:
        rng: the only source of randomness.
        family: the tables.
        rows: training rows; at least 100 others must be left, or 40 sequences, of which there
            are fewer; at most 500 are judged on.
    """
    drawn = []
    for table in family.tables:
        left = _SEQUENCES_LEFT if table.channels else _ROWS_LEFT
        if len(table.labels) < rows + table.overlap + left:
            continue
        for _ in range(50):
            task = family.draw_from(rng, table, rows, 500, 10**6)
            if task is not None:
                drawn.append(task)
                break
    return drawn


class MetaValidation:
    """A fixed set of runs on tables that meta-training does not see.

    Args:
        tables: the tables.
        models: names of models, as `denograd.models.registry.make_model` takes them.
        rows: training rows; a table too small for a size sits that one out.
        steps: inner steps.
        seeds: draws of rows, weights and batches for each cell; a cell is their mean.
        noise: whether the denoiser is told the noise within the batch.
        learning_rate: of the base that denoisers run around.

    Raises:
        ValueError: no table was given, some have classes and others measured targets, or a model
            is not known.
    """

    def __init__(
        self,
        tables: Sequence[SourceTable],
        models: Sequence[str] = MODEL_NAMES,
        rows: Sequence[int] = (16, 32, 64, 128, 256),
        steps: int = 200,
        seeds: int = 2,
        noise: bool = True,
        learning_rate: float = 3e-3,
    ) -> None:
        if not tables:
            raise ValueError("MetaValidation: tables is empty; give at least one table")
        kinds = {table.n_classes is None for table in tables}
        if len(kinds) > 1:
            raise ValueError(
                "MetaValidation: tables hold classes and measured targets; judge them apart"
            )
        self._control_file = control_file(measured=kinds.pop())
        self.settings = f"{tuple(models)}, {tuple(rows)} rows, {seeds} seeds"
        self.tables = list(tables)
        self.steps, self.noise, self.learning_rate = steps, noise, learning_rate
        self.cells: list[tuple[str, int, Episode]] = []
        family = TableFamily(tables, augment=False)
        for name in models:
            check_model(name)
            for n in rows:
                for seed in range(seeds):
                    rng = np.random.default_rng([seed, n])
                    self._add(name, n, rng, family)
        self._control: list[Tensor] | None = None

    def _add(
        self,
        name: str,
        rows: int,
        rng: np.random.Generator,
        family: TableFamily,
    ) -> None:
        drawn = draw_whole(rng, family, rows)
        # Stacked with narrow tables, one that is wide would be paid for by all.
        groups: dict[tuple[bool, int], list[Task]] = {}
        for task in sorted(drawn, key=lambda task: task.x_train.shape[1] > _WIDE):
            kind = task.x_train.shape[1] > _WIDE, task.channels
            groups.setdefault(kind, []).append(task)
        for group in groups.values():
            tasks = TaskBatch.stack(group)
            width, channels = tasks.x_train.shape[-1], tasks.n_channels
            template = make_model(name, width, tasks.n_classes, channels)
            episode = judged_episode(rng, tasks, template, rows, steps=self.steps, noise=self.noise)
            self.cells.append((name, rows, episode))

    def _losses(
        self, run: Callable[[str, int, Episode], Tensor], processes: Processes
    ) -> list[Tensor]:
        """Held-out losses of every cell; each process runs some of the cells."""
        share, losses = range(processes.rank, len(self.cells), processes.world), []
        for i, (name, rows, episode) in enumerate(self.cells):
            empty = torch.zeros(len(episode), dtype=torch.double)
            found = bounded(run(name, rows, episode).double().cpu()) if i in share else empty
            losses.append(found)
        return list(processes.sum(torch.cat(losses)).split([len(x) for x in losses]))

    def fingerprint(self) -> str:
        """Tells validations of other settings or other data apart."""
        settings = f"{self.settings}, {self.steps} steps, noise {self.noise}"
        tables = fingerprint_tables(self.tables)
        return f"{settings}, rate {self.learning_rate:g}, {tables}"

    def control_losses(self, processes: Processes | None = None) -> list[Tensor]:
        """Held-out losses of the control for each cell, ``(T,)``, run once and kept."""
        if self._control is None:
            self._control = self._losses(self._run_control, processes or Processes())
        return self._control

    def _run_control(self, name: str, rows: int, episode: Episode) -> Tensor:
        settings = control_settings(name, self.steps, rows, self._control_file)
        return adamw_losses(episode, settings.lr, settings.weight_decay, settings.schedule)

    def score(
        self,
        denoiser: Denoiser,
        learning_rate: float | None = None,
        processes: Processes | None = None,
    ) -> Score:
        """Compare a denoiser around Adam with the control.

        Args:
            denoiser: what is judged.
            learning_rate: of Adam; default: the validation's own.
            processes: share the cells among them; the score is the same on each.
        """
        return score_of(self.log_ratios(denoiser, learning_rate, processes))

    def log_ratios(
        self,
        denoiser: Denoiser,
        learning_rate: float | None = None,
        processes: Processes | None = None,
    ) -> dict[Judged, float]:
        """Log of held-out loss, denoiser over control, of each cell; arguments as in `score`."""
        rate = self.learning_rate if learning_rate is None else learning_rate
        device = _device(denoiser)

        def run(name: str, rows: int, episode: Episode) -> Tensor:
            rates = torch.full_like(episode.learning_rate, rate)
            return run_episode(replace(episode, learning_rate=rates).to(device), denoiser)

        return self.log_ratios_of(run, processes)

    def log_ratios_of(
        self,
        run: Callable[[str, int, Episode], Tensor],
        processes: Processes | None = None,
    ) -> dict[Judged, float]:
        """Log of held-out loss, of anything over the control, of each cell.

        Args:
            run: from a model's name, its training rows and an episode to the losses, ``(T,)``.
            processes: as in `score`.
        """
        processes = processes or Processes()
        control, cleaned = self.control_losses(processes), self._losses(run, processes)
        mean: dict[Judged, list[tuple[float, float]]] = {}
        for (name, rows, episode), theirs, ours in zip(self.cells, control, cleaned, strict=True):
            pairs = zip(episode.tasks.names, ours.tolist(), theirs.tolist(), strict=True)
            for table, a, b in pairs:
                mean.setdefault(Judged(name, rows, table), []).append((a, b))
        return {
            cell: float(np.log(np.mean([a for a, _ in v]) / np.mean([b for _, b in v])))
            for cell, v in mean.items()
        }


def score_of(logs: Mapping[Judged, float]) -> Score:
    """The score of cells, from the logarithms of their ratios.

    Raises:
        ValueError: there are none.

    Example:
        >>> cells = Judged("soft_tree", 16, "wine"), Judged("soft_tree", 32, "wine")
        >>> score_of(dict(zip(cells, np.log([0.5, 2.0])))).by_rows
        {16: 0.5, 32: 2.0}
    """
    if not logs:
        raise ValueError("score_of: logs is empty; give at least one table of 116 rows or more")

    def geometric(position: int) -> dict[str | int, float]:
        keys = sorted({cell[position] for cell in logs}, key=str)
        return {
            k: float(np.exp(np.mean([v for c, v in logs.items() if c[position] == k])))
            for k in keys
        }

    values = np.array(list(logs.values()))
    return Score(
        ratio=float(np.exp(values.mean())),
        wins=float((values < 0).mean()),
        worst=float(np.exp(values.max())),
        by_model={str(k): v for k, v in geometric(0).items()},
        by_rows={int(k): v for k, v in geometric(1).items()},
        by_table={str(k): v for k, v in geometric(2).items()},
    )


def _device(denoiser: Denoiser) -> torch.device:
    weights = denoiser.parameters() if isinstance(denoiser, nn.Module) else iter(())
    return next((p.device for p in weights), torch.device("cpu"))
