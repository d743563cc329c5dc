"""A stacked batch of tasks, padded to common shapes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denograd.data import TargetScale
from denograd.data.numbers import CLIP


@dataclass(frozen=True)
class Task:
    """One table, cut into rows to train on and rows that training never sees.

    Attributes:
        name: where it came from.
        x_train, y_train: ``(rows, F)`` standardised on these rows, and ``(rows,)``.
        x_test, y_test: ``(test_rows, F)`` and ``(test_rows,)``.
        n_classes: number of classes; None for a measured target.
        channels: of a sequence, whose features are channels by steps; 0 for a table.
    """

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[Any]
    x_test: NDArray[np.float32]
    y_test: NDArray[Any]
    n_classes: int | None
    channels: int = 0


def make_task(
    name: str,
    x_train: NDArray[np.floating],
    y_train: NDArray[Any],
    x_test: NDArray[np.floating],
    y_test: NDArray[Any],
    n_classes: int | None,
    channels: int = 0,
) -> Task:
    """Standardise both parts with the mean and deviation of the training rows.

    So is a measured target (``n_classes`` is None). Columns that are constant in the training
    rows are left out, as the encoder of the evaluation leaves them out. A sequence is standardised
    channel by channel, over its steps too, and keeps all of them.

    Args:
        name: where it came from.
        x_train: ``(rows, F)``; of sequences ``F`` is channels times steps, channel by channel.
        y_train: ``(rows,)``, classes or measured numbers.
        x_test: ``(test_rows, F)``.
        y_test: ``(test_rows,)``.
        n_classes: number of classes; None for a measured target.
        channels: of a sequence; 0 for a table.

    Raises:
        ValueError: every column is constant.
    """
    if channels:
        by_channel = x_train.reshape(len(x_train), channels, -1)
        steps = by_channel.shape[-1]
        mean, deviation = by_channel.mean((0, 2)).repeat(steps), by_channel.std((0, 2))
        deviation = deviation.repeat(steps)
    else:
        mean, deviation = x_train.mean(0), x_train.std(0)
    varies = deviation > 1e-7 * (1 + np.abs(mean))
    if not varies.any():
        raise ValueError(f"make_task: every column of {name} is constant in the training rows")
    if channels:
        deviation = np.where(varies, deviation, 1.0)
    else:
        x_train, x_test = x_train[:, varies], x_test[:, varies]
        mean, deviation = mean[varies], deviation[varies]

    def scaled(x: NDArray[np.floating]) -> NDArray[np.float32]:
        return np.asarray(np.clip((x - mean) / deviation, -CLIP, CLIP), dtype=np.float32)

    if n_classes is None:
        scale = TargetScale.fit(y_train)
        y_train, y_test = scale.standardise(y_train), scale.standardise(y_test)
    return Task(name, scaled(x_train), y_train, scaled(x_test), y_test, n_classes, channels)


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
        n_channels: channels of the padded sequences, whose ``F`` is channels times steps; 1 for
            tables.
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
    n_channels: int = 1

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_classes(self) -> int | None:
        """The most classes that a task has, None for measured targets: for a common model."""
        return None if self.y_train.is_floating_point() else int(self.classes.max())

    def to(self, device: torch.device) -> TaskBatch:
        """The same tasks on another device."""
        tensors = [name for name in self._stacked() if name != "names"]
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    def take(self, tasks: slice) -> TaskBatch:
        """Some of the tasks; padding stays as it is."""
        return replace(self, **{name: getattr(self, name)[tasks] for name in self._stacked()})

    def _stacked(self) -> list[str]:
        """Names of what holds an entry for each task."""
        return [f.name for f in fields(self) if f.name != "n_channels"]

    @classmethod
    def stack(cls, tasks: list[Task], dtype: torch.dtype = torch.float32) -> TaskBatch:
        """Stack tasks, padding features, rows and classes to the largest.

        Sequences are padded with channels and with steps at their end.

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
        channels = torch.tensor([max(t.channels, 1) for t in tasks])
        steps = features // channels
        most, longest, n_classes = int(channels.max()), int(steps.max()), int(classes.max())
        x_train = torch.zeros(count, n, most, longest, dtype=dtype)
        labels, padding = (dtype, torch.nan) if measured else (torch.long, -100)
        y_train = torch.zeros(count, n, dtype=labels)
        x_test = torch.zeros(count, m, most, longest, dtype=dtype)
        y_test = torch.full((count, m), padding, dtype=labels)
        for i, task in enumerate(tasks):
            shape = (-1, int(channels[i]), int(steps[i]))
            own = (slice(shape[1]), slice(shape[2]))
            x_train[i, : len(task.y_train), *own] = torch.from_numpy(task.x_train.reshape(shape))
            y_train[i, : len(task.y_train)] = torch.from_numpy(task.y_train)
            x_test[i, : len(task.y_test), *own] = torch.from_numpy(task.x_test.reshape(shape))
            y_test[i, : len(task.y_test)] = torch.from_numpy(task.y_test)
        real_channels = torch.arange(most) < channels[:, None]
        real_steps = torch.arange(longest) < steps[:, None]
        return cls(
            tuple(t.name for t in tasks),
            x_train.flatten(2),
            y_train,
            x_test.flatten(2),
            y_test,
            rows,
            features,
            classes,
            (real_channels.unsqueeze(-1) & real_steps.unsqueeze(-2)).flatten(1),
            torch.arange(n_classes) < classes[:, None],
            most,
        )
