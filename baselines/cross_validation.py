"""AdamW tuned on a data set's own training rows: cross-validation with early stopping.

Sixteen configurations, the same for every data set, are each trained on every fold's other
rows; the configuration and the number of steps whose mean loss on the rows left out is
lowest are then used on all rows. All configurations and folds run as one stack, but the
cost is what it is: ``16 * folds`` trainings of as many steps as the run itself.

Rows that belong together, such as the visits of a patient, may be named as ``groups``: then each
group is whole in one fold, or a setting would be chosen by rows that are almost known already.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denograd.baselines.errors import BaselineError
from denograd.baselines.schedules import SCHEDULES, schedule_factor
from denograd.denoisers import IdentityDenoiser

if TYPE_CHECKING:
    from denograd.meta.episode import Episode

CONFIGURATIONS = 16
"""Configurations that are tried."""

FOLDS = 3
"""Folds that each is tried on."""

_POINTS = 25
_LEAST_SHARE = 0.25
_LEARNING_RATES, _DECAYS = (1e-3, 2e-1), (1e-3, 3.0)


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a run, for what tunes itself on them.

    Attributes:
        x: ``(n, F)``, encoded as the model sees them.
        y: ``(n,)``, classes from 0, or measured targets, standardised.
        n_classes: number of classes of the table; None for measured targets.
        batch_size: rows of a batch of the run.
        seed: of the run.
        groups: ``(n,)``, whole numbers or text that tell which rows belong together; None if each
            row stands for itself.
        n_channels: of sequences, whose features are channels by steps; 1 for a table.
    """

    x: NDArray[np.float32]
    y: NDArray[Any]
    n_classes: int | None
    batch_size: int
    seed: int
    groups: NDArray[Any] | None = None
    n_channels: int = 1


@dataclass(frozen=True)
class CrossValidated:
    """What cross-validation chose.

    Attributes:
        lr, weight_decay, schedule: of AdamW.
        stop: steps after which training stops; the schedule still is that of all steps.
        loss: mean loss on the rows left out at that step, in nats (or, for measured targets,
            the squared error of the standardised ones).
    """

    lr: float
    weight_decay: float
    schedule: str
    stop: int
    loss: float

    def factor(self, step: int, total_steps: int) -> float:
        """Share of the learning rate that a step gets; 0 once training has stopped."""
        if step >= self.stop:
            return 0.0
        return schedule_factor(self.schedule, step, total_steps)


@functools.cache
def candidates() -> tuple[tuple[float, float, str], ...]:
    """Learning rate, decay and schedule of each configuration, the same for all data sets.

    A Latin hypercube over the ranges that the control was tuned over: 16 learning rates and
    15 decays evenly spaced in the logarithm, and no decay, shuffled once and for all.

    Example:
        >>> len(set(candidates())), min(lr for lr, _, _ in candidates())
        (16, 0.001)
    """
    rng = np.random.default_rng(16)
    rates = np.geomspace(*_LEARNING_RATES, CONFIGURATIONS)
    decays = rng.permutation([0.0, *np.geomspace(*_DECAYS, CONFIGURATIONS - 1)])
    schedules = rng.permutation(np.resize(SCHEDULES, CONFIGURATIONS))
    return tuple(
        (float(f"{lr:.6g}"), float(f"{decay:.6g}"), str(schedule))
        for lr, decay, schedule in zip(rates, decays, schedules, strict=True)
    )


def draw_folds(
    y: NDArray[Any], folds: int, seed: int, groups: NDArray[Any] | None = None
) -> NDArray[np.int64]:
    """The fold of each row, ``(n,)``: classes are shuffled and dealt out in turn.

    Measured targets are dealt out by size, so that each fold has its share of all.

    With groups, each is whole in one fold, and the folds have the classes (or strata of a
    measured target) in their shares as far as that goes, by scikit-learn's
    ``StratifiedGroupKFold``. Folds may be of very different sizes then, and the rows outside of
    a fold may lack a class.

    Args:
        y: ``(n,)``, classes as whole numbers, or measured targets as floats.
        folds: number of folds; with fewer groups there are as many folds as groups.
        seed: of the draw.
        groups: ``(n,)``, whole numbers or text that tell which rows belong together; None if
            each row stands for itself.

    Returns:
        numbers from 0; with groups every fold has a row.

    Raises:
        BaselineError: groups of another shape or type, fewer than 2 of them, or fewer than 2
            folds with groups.

    Example:
        >>> y = np.array([0, 0, 0, 1, 1, 1])
        >>> sorted(y[draw_folds(y, folds=3, seed=0) == 0].tolist())
        [0, 1]
        >>> patients = np.array([7, 7, 8, 8, 9, 9])
        >>> fold = draw_folds(y, folds=3, seed=0, groups=patients)
        >>> bool((fold[::2] == fold[1::2]).all()), sorted(fold[::2].tolist())
        (True, [0, 1, 2])
    """
    if groups is not None:
        return _grouped_folds(y, folds, seed, numbered_groups("draw_folds", groups, len(y)))
    rng = np.random.default_rng([seed, len(y), folds])
    shuffled = rng.permutation(len(y))
    order = shuffled[np.argsort(y[shuffled], kind="stable")]
    dealt = np.empty(len(y), dtype=np.int64)
    dealt[order] = np.arange(len(y)) % folds
    return dealt


def numbered_groups(owner: str, groups: NDArray[Any], rows: int) -> NDArray[np.int64]:
    """The groups of rows, counted from 0.

    Args:
        owner: the function that was given them, for messages.
        groups: ``(rows,)``, whole numbers or text.
        rows: number of rows.

    Raises:
        BaselineError: another shape or type.

    Example:
        >>> numbered_groups("fit", np.array(["b", "a", "b"]), 3).tolist()
        [1, 0, 1]
    """
    given = np.asarray(groups)
    if given.shape != (rows,) or given.dtype.kind not in "iuU":
        raise BaselineError(
            f"{owner}: groups is of type {given.dtype} and shape {given.shape}; it must be "
            f"({rows},), whole numbers or text that tell which rows belong together "
            "(pandas.factorize makes numbers of anything)"
        )
    codes: NDArray[np.int64] = np.unique(given, return_inverse=True)[1].astype(np.int64)
    return codes


def _grouped_folds(
    y: NDArray[Any], folds: int, seed: int, groups: NDArray[np.int64]
) -> NDArray[np.int64]:
    from sklearn.model_selection import StratifiedGroupKFold

    from denograd.data import quantile_strata

    present = len(np.unique(groups))
    count = min(folds, present)
    if count < 2:
        raise BaselineError(
            f"draw_folds: folds={folds} are to keep groups whole, and groups names {present}; both "
            "must be at least 2: give rows of more groups"
        )
    strata = quantile_strata(y) if y.dtype.kind == "f" else y
    if np.unique(strata, return_counts=True)[1].max() < count:
        # scikit-learn refuses to stratify where no class has a row for each fold.
        strata = np.zeros(len(y), dtype=np.int64)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    fold = np.empty(len(y), dtype=np.int64)
    with warnings.catch_warnings():
        # It warns of classes that not every fold can have, and of many classes in few rows.
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, left_out) in enumerate(splitter.split(y, strata, groups)):
            fold[left_out] = number
    # It does not promise that every fold gets a group.
    found: NDArray[np.int64] = np.unique(fold, return_inverse=True)[1].astype(np.int64)
    return found


def cross_validate_adamw(
    rows: TrainingRows, model_name: str, steps: int, folds: int = FOLDS
) -> CrossValidated:
    """Tune AdamW on the rows of a run.

    The same rows, model, steps and seed give the same result. torch's global generator is
    left as it was. Rows are encoded already, so the folds share means and deviations of the
    columns; the test rows of the run have no part in anything.

    Folds that keep groups whole differ in size, and so count with their rows. All of them are
    trained on batches that fit the smallest set of rows outside of a fold.

    Args:
        rows: the training rows, perhaps with groups.
        model_name: as `denograd.models.registry.make_model` takes it.
        steps: steps that the run will take, and each of the ``16 * folds`` trainings takes.
        folds: number of folds, at least 2; with fewer groups, as many as groups.

    Raises:
        BaselineError: fewer than 2 folds, fewer than 2 groups or groups of another shape, groups
            so uneven that a fold leaves fewer than a quarter of the rows to train on, fewer rows
            than twice the folds, fewer than one step, or every configuration diverged.
    """
    if folds < 2:
        raise BaselineError(f"cross_validate_adamw: folds={folds}; it must be at least 2")
    if steps < 1:
        raise BaselineError(f"cross_validate_adamw: steps={steps}; it must be at least 1")
    fold = draw_folds(rows.y, folds, rows.seed, rows.groups)
    if rows.groups is not None:
        folds = int(fold.max()) + 1
        left = len(fold) - int(np.bincount(fold).max())
        if left < _LEAST_SHARE * len(fold):
            raise BaselineError(
                f"cross_validate_adamw: the largest group leaves {left} of {len(fold)} rows to "
                "train on when it is left out, too few to tune by; give smaller groups, or leave "
                "this optimizer out"
            )
    if len(rows.y) < 2 * folds:
        raise BaselineError(
            f"cross_validate_adamw: {len(rows.y)} rows are too few for {folds} folds; give at "
            f"least {2 * folds}"
        )
    from denograd.meta.engines import BatchedEngine

    tried = candidates()
    episode = _stack(_episode(rows, model_name, steps, fold, folds), len(tried))
    rates, decays = (_column(values, folds) for values in list(zip(*tried, strict=True))[:2])
    episode = replace(episode, learning_rate=rates, weight_decay=decays)

    def schedule(step: int) -> Tensor:
        return _column([schedule_factor(s, step, steps) for _, _, s in tried], folds)

    def over_folds(held_out: Tensor) -> Tensor:
        by_fold = held_out.double().reshape(len(tried), folds)
        if rows.groups is None:
            return by_fold.mean(1)
        return by_fold @ torch.from_numpy(np.bincount(fold) / len(fold))

    denoiser = IdentityDenoiser()
    recorded = sorted({round(s) for s in np.linspace(1, steps, min(_POINTS, steps))})
    losses = []
    engine = BatchedEngine()
    with torch.no_grad():
        state = engine.start(episode, denoiser)
        for step in range(1, steps + 1):
            state = engine.advance(episode, denoiser, state, graph=False, schedule=schedule)
            if step in recorded:
                held_out = engine.held_out_losses(episode, state)
                losses.append(over_folds(held_out))
    path = torch.stack(losses).nan_to_num(nan=torch.inf)
    best = int(path.argmin())
    point, chosen = divmod(best, len(tried))
    loss = float(path[point, chosen])
    if loss == torch.inf:
        raise BaselineError(
            f"cross_validate_adamw: every configuration diverged on {model_name}; are the "
            "columns scaled?"
        )
    return CrossValidated(*tried[chosen], stop=recorded[point], loss=loss)


def _episode(
    rows: TrainingRows, model_name: str, steps: int, fold: NDArray[np.int64], folds: int
) -> Episode:
    """The folds of one configuration, one task each."""
    from denograd.meta.episode import assemble_episode
    from denograd.meta.task import Task, TaskBatch
    from denograd.models.registry import make_model

    tasks = TaskBatch.stack(
        [
            Task(
                f"fold {k}",
                rows.x[fold != k],
                rows.y[fold != k],
                rows.x[fold == k],
                rows.y[fold == k],
                rows.n_classes,
                rows.n_channels,
            )
            for k in range(folds)
        ]
    )
    with torch.random.fork_rng(devices=[]):
        template = make_model(model_name, rows.x.shape[1], rows.n_classes, rows.n_channels)
    return assemble_episode(
        np.random.default_rng([rows.seed, len(rows.y), steps]),
        tasks,
        template,
        steps=steps,
        batch_size=min(rows.batch_size, int(tasks.rows.min())),
        micro=1,
        base="adam",
        learning_rate=torch.ones(folds, 1),
        weight_decay=0.0,
    )


def _stack(episode: Episode, times: int) -> Episode:
    """The same tasks several times over, with the same weights and batches each time."""

    def again(owner: Any) -> dict[str, Any]:
        values = {f.name: getattr(owner, f.name) for f in fields(owner)}
        return {
            name: torch.cat([value] * times, dim=1 if name == "batches" else 0)
            for name, value in values.items()
            if isinstance(value, Tensor)
        }

    tasks = replace(episode.tasks, names=episode.tasks.names * times, **again(episode.tasks))
    return replace(episode, tasks=tasks, **again(episode))


def _column(values: Any, folds: int) -> Tensor:
    """One number a configuration to one a task, ``(configurations * folds, 1)``."""
    return torch.tensor(values, dtype=torch.float32).repeat_interleave(folds).unsqueeze(1)
