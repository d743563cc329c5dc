"""A stacked batch of tasks, padded to common shapes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denograd.data import TargetScale
from denograd.data.encoder import CLIP


@dataclass(frozen=True)
class Task:
    """One table, cut into rows to train on and rows that training never sees.

    Attributes:
        name: where it came from.
        x_train, y_train: ``(rows, F)`` standardised on these rows, and ``(rows,)``.
        x_test, y_test: ``(test_rows, F)`` and ``(test_rows,)``.
        n_classes: number of classes; None for a measured target.
    """

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[Any]
    x_test: NDArray[np.float32]
    y_test: NDArray[Any]
    n_classes: int | None


def make_task(
    name: str,
    x_train: NDArray[np.floating],
    y_train: NDArray[Any],
    x_test: NDArray[np.floating],
    y_test: NDArray[Any],
    n_classes: int | None,
) -> Task:
    """Standardise both parts with the mean and deviation of the training rows.

    So is a measured target (``n_classes`` is None). Columns that are constant in the training
    rows are left out, as the encoder of the evaluation leaves them out.

    Raises:
        ValueError: every column is constant.
    """
    mean, deviation = x_train.mean(0), x_train.std(0)
    varies = deviation > 1e-7 * (1 + np.abs(mean))
    if not varies.any():
        raise ValueError(f"make_task: every column of {name} is constant in the training rows")
    x_train, x_test = x_train[:, varies], x_test[:, varies]
    mean, deviation = mean[varies], deviation[varies]

    def scaled(x: NDArray[np.floating]) -> NDArray[np.float32]:
        return np.asarray(np.clip((x - mean) / deviation, -CLIP, CLIP), dtype=np.float32)

    if n_classes is None:
        scale = TargetScale.fit(y_train)
        y_train, y_test = scale.standardise(y_train), scale.standardise(y_test)
    return Task(name, scaled(x_train), y_train, scaled(x_test), y_test, n_classes)


@dataclass(frozen=True)
class TaskBatch:
    """``T`` tasks, stacked; shorter, narrower ones are padded.

    Attributes:
        names: of the tasks.
        x_train: ``(T, n, F)``; rows beyond a task's own are never drawn.
        y_train: ``(T, n)``.
        x_test: ``(T, m, F)``.
        y_test: ``(T, m)``; where padded -100 (torch's ignored label), or NaN if measured.
        rows: ``(T,)``, training rows of each task.
        features, classes: ``(T,)``, real features and classes of each task; 1 if measured.
        feature_mask: ``(T, F)``, boolean.
        class_mask: ``(T, C)``, boolean.
    """

    names: tuple[str, ...]
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    rows: Tensor
    features: Tensor
    classes: Tensor
    feature_mask: Tensor
    class_mask: Tensor

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_classes(self) -> int | None:
        """The most classes that a task has, None for measured targets: for a common model."""
        return None if self.y_train.is_floating_point() else int(self.classes.max())

    def to(self, device: torch.device) -> TaskBatch:
        """The same tasks on another device."""
        tensors = [f.name for f in fields(self) if f.name != "names"]
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    def take(self, tasks: slice) -> TaskBatch:
        """Some of the tasks; padding stays as it is."""
        return TaskBatch(**{f.name: getattr(self, f.name)[tasks] for f in fields(self)})

    @classmethod
    def stack(cls, tasks: list[Task], dtype: torch.dtype = torch.float32) -> TaskBatch:
        """Stack tasks, padding features, rows and classes to the largest.

        Raises:
            ValueError: no task was given.
        """
        if not tasks:
            raise ValueError("TaskBatch.stack: tasks is empty; give at least one task")
        count = len(tasks)
        rows = torch.tensor([len(t.y_train) for t in tasks])
        features = torch.tensor([t.x_train.shape[1] for t in tasks])
        measured = tasks[0].n_classes is None
        if any((t.n_classes is None) != measured for t in tasks):
            raise ValueError(
                "TaskBatch.stack: tasks of classes and of measured targets do not go into one "
                "stack; stack them apart"
            )
        classes = torch.tensor([t.n_classes or 1 for t in tasks])
        n, m = int(rows.max()), max(len(t.y_test) for t in tasks)
        width, n_classes = int(features.max()), int(classes.max())
        x_train = torch.zeros(count, n, width, dtype=dtype)
        labels, padding = (dtype, torch.nan) if measured else (torch.long, -100)
        y_train = torch.zeros(count, n, dtype=labels)
        x_test = torch.zeros(count, m, width, dtype=dtype)
        y_test = torch.full((count, m), padding, dtype=labels)
        for i, task in enumerate(tasks):
            f = task.x_train.shape[1]
            x_train[i, : len(task.y_train), :f] = torch.from_numpy(task.x_train)
            y_train[i, : len(task.y_train)] = torch.from_numpy(task.y_train)
            x_test[i, : len(task.y_test), :f] = torch.from_numpy(task.x_test)
            y_test[i, : len(task.y_test)] = torch.from_numpy(task.y_test)
        return cls(
            tuple(t.name for t in tasks),
            x_train,
            y_train,
            x_test,
            y_test,
            rows,
            features,
            classes,
            torch.arange(width) < features[:, None],
            torch.arange(n_classes) < classes[:, None],
        )
