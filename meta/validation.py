"""Meta-validation: held-out loss against the control, on tables that training never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from denograd.baselines import control_settings, schedule_factor
from denograd.denoisers import Denoiser, IdentityDenoiser
from denograd.meta.episode import Episode, assemble_episode
from denograd.meta.family import TableFamily
from denograd.meta.tables import SourceTable
from denograd.meta.task import TaskBatch
from denograd.meta.unroll import advance, start, test_loss
from denograd.models.registry import MODEL_NAMES, check_model, make_model


@dataclass(frozen=True)
class Score:
    """How a denoiser compares with the control; the unit is a table at one size.

    Attributes:
        ratio: geometric mean of held-out log loss, denoiser over control.
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


@torch.no_grad()
def run_episode(
    episode: Episode,
    denoiser: Denoiser,
    schedule: Callable[[int], float | Tensor] | None = None,
) -> Tensor:
    """Run an inner loop to its end; held-out loss of each task, ``(T,)``."""
    state = start(episode, denoiser)
    for _ in range(episode.steps):
        state = advance(episode, denoiser, state, graph=False, schedule=schedule)
    return test_loss(episode, state.parameters)


class MetaValidation:
    """A fixed set of runs on tables that meta-training does not see.

    Args:
        tables: the tables.
        models: names of models, as `denograd.models.registry.make_model` takes them.
        rows: training rows; a table too small for a size sits that one out.
        steps: inner steps.
        seeds: draws of rows, weights and batches for each cell; a cell is their mean.
        noise: whether the denoiser is told the noise within the batch.

    Raises:
        ValueError: no table was given, or a model is not known.
    """

    def __init__(
        self,
        tables: Sequence[SourceTable],
        models: Sequence[str] = MODEL_NAMES,
        rows: Sequence[int] = (16, 32, 64, 128, 256),
        steps: int = 200,
        seeds: int = 2,
        noise: bool = True,
    ) -> None:
        if not tables:
            raise ValueError("MetaValidation: tables is empty; give at least one table")
        self.steps, self.noise = steps, noise
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
        drawn = []
        for table in family.tables:
            if len(table.labels) < rows + 100:
                continue
            for _ in range(50):
                task = family.draw_from(rng, table, rows, 500, 10**6)
                if task is not None:
                    drawn.append(task)
                    break
        if not drawn:
            return
        tasks = TaskBatch.stack(drawn)
        batch_size, ones = min(32, rows), torch.ones(len(tasks))
        episode = assemble_episode(
            rng,
            tasks,
            make_model(name, tasks.x_train.shape[-1], int(tasks.classes.max())),
            steps=self.steps,
            batch_size=batch_size,
            micro=batch_size,
            base="adam",
            learning_rate=torch.ones(len(tasks), 1),
            weight_decay=0.0,
            told=(torch.full((len(tasks),), float(self.noise)), ones, ones),
        )
        self.cells.append((name, rows, episode))

    def control_losses(self) -> list[Tensor]:
        """Held-out losses of the control, run once and kept."""
        if self._control is None:
            self._control = [self._run_control(*cell) for cell in self.cells]
        return self._control

    def _run_control(self, name: str, rows: int, episode: Episode) -> Tensor:
        settings = control_settings(name, self.steps, rows)
        tuned = replace(
            episode,
            learning_rate=torch.full_like(episode.learning_rate, settings.lr),
            weight_decay=settings.weight_decay,
            micro=1,
        )

        def schedule(step: int) -> float:
            return schedule_factor(settings.schedule, step, self.steps)

        return run_episode(tuned, IdentityDenoiser(), schedule)

    def score(self, denoiser: Denoiser, learning_rate: float = 1e-2) -> Score:
        """Compare a denoiser, around Adam with this learning rate, with the control."""
        mean: dict[tuple[str, int, str], list[tuple[float, float]]] = {}
        for (name, rows, episode), control in zip(self.cells, self.control_losses(), strict=True):
            rates = torch.full_like(episode.learning_rate, learning_rate)
            losses = run_episode(replace(episode, learning_rate=rates), denoiser)
            pairs = zip(episode.tasks.names, losses.tolist(), control.tolist(), strict=True)
            for table, ours, theirs in pairs:
                mean.setdefault((name, rows, table), []).append((ours, theirs))
        logs = {
            cell: float(np.log(np.mean([a for a, _ in v]) / np.mean([b for _, b in v])))
            for cell, v in mean.items()
        }

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
