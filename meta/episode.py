"""One episode: a stacked batch of tasks and how the inner loop will train on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from denograd.meta.architectures import describe, draw_model
from denograd.meta.batched import BatchedModel
from denograd.meta.family import TaskFamily
from denograd.meta.task import TaskBatch
from denograd.models import TabularModel


@dataclass(frozen=True)
class Episode:
    """A batch of tasks with everything that an inner loop on them needs.

    Attributes:
        tasks: the tasks.
        model: the architecture, batched.
        description: the architecture in words.
        initial: ``(T, N)``, initial weights.
        batches: ``(steps, T, b)``, the training rows of each step.
        micro: micro-batches that the noise is estimated from.
        base: name of the base optimizer.
        learning_rate: ``(T, 1)``.
        weight_decay: decoupled decay of the base; a number, or ``(T, 1)``.
        counts: ``(T, L)``, real elements of each layer.
        noise_known: ``(T, L)``, whether the denoiser may see the noise within the batch.
        total_steps, rows, batch_size: ``(T,)``, what the denoiser is told; 0 is unknown.
        scale: ``(T, N)``, or None for 1 everywhere: what is trained times this are the
            model's parameters. The model begins with the same outputs, but its gradients
            and the effect of a step are others.
        offset: number of the first task, in an episode that is a part of another.
    """

    tasks: TaskBatch
    model: BatchedModel
    description: str
    initial: Tensor
    batches: Tensor
    micro: int
    base: str
    learning_rate: Tensor
    weight_decay: float | Tensor
    counts: Tensor
    noise_known: Tensor
    total_steps: Tensor
    rows: Tensor
    batch_size: Tensor
    scale: Tensor | None = None
    offset: int = 0

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def steps(self) -> int:
        """Inner steps."""
        return int(self.batches.shape[0])

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The training rows of one step, ``(T, b, F)``, and their labels, ``(T, b)``."""
        rows = self.batches[step]
        return (
            torch.take_along_dim(self.tasks.x_train, rows.unsqueeze(-1), dim=1),
            torch.take_along_dim(self.tasks.y_train, rows, dim=1),
        )

    def common_decay(self) -> float:
        """The decay of the base, for engines that can give all tasks only the same.

        Raises:
            ValueError: each task has its own.
        """
        if isinstance(self.weight_decay, Tensor):
            raise ValueError(
                "weight_decay is one a task, which only the engine 'batched' can do; use that, or "
                "one number"
            )
        return self.weight_decay

    def to(self, device: torch.device) -> Episode:
        """The same episode on another device."""
        moved = {
            f.name: getattr(self, f.name).to(device)
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, tasks=self.tasks.to(device), **moved)

    def take(self, tasks: slice) -> Episode:
        """The episode of some of its tasks; padding stays as it is."""
        return replace(
            self,
            tasks=self.tasks.take(tasks),
            batches=self.batches[:, tasks],
            scale=None if self.scale is None else self.scale[tasks],
            offset=self.offset + tasks.indices(len(self))[0],
            weight_decay=(
                self.weight_decay[tasks]
                if isinstance(self.weight_decay, Tensor)
                else self.weight_decay
            ),
            **{
                name: getattr(self, name)[tasks]
                for name in (
                    "initial",
                    "learning_rate",
                    "counts",
                    "noise_known",
                    "total_steps",
                    "rows",
                    "batch_size",
                )
            },
        )


@dataclass(frozen=True)
class EpisodeDistribution:
    """What episodes are drawn from; ranges are drawn log-uniformly, ends included.

    Attributes:
        models: names of the architectures.
        tasks: tasks in an episode.
        rows: training rows of a task.
        steps: inner steps.
        max_features: features of the widest table; each episode draws a limit of its own, a
            fifth of this or more.
        test_rows: held-out rows of a task.
        learning_rate: of the base optimizer.
        batch_sizes: one is drawn; no batch is larger than its smallest task.
        rescale: probability with which the layers of a task are reparametrised, each by a
            factor between 1/3 and 3 (Metz et al. 2022, "VeLO", appendix on augmentation).
        hide_noise, hide_horizon, hide_rows: probabilities with which the denoiser is not
            told a task's noise within the batch, its horizon, or its number of rows.
    """

    models: tuple[str, ...] = ("soft_tree", "attention")
    tasks: int = 24
    rows: tuple[int, int] = (16, 256)
    steps: tuple[int, int] = (50, 300)
    max_features: int = 56
    test_rows: int = 128
    learning_rate: tuple[float, float] = (1e-3, 3e-2)
    batch_sizes: tuple[int, ...] = (8, 16, 32, 32, 32, 64)
    rescale: float = 0.2
    hide_noise: float = 0.15
    hide_horizon: float = 0.15
    hide_rows: float = 0.15


def draw_batches(
    rng: np.random.Generator, rows: Sequence[int], steps: int, batch_size: int
) -> Tensor:
    """Row numbers of each batch, cut from a stream of reshuffled epochs, ``(steps, T, b)``."""
    drawn = np.empty((len(rows), steps * batch_size), dtype=np.int64)
    for i, n in enumerate(rows):
        epochs = -(-steps * batch_size // n)
        stream = np.tile(np.arange(n), (epochs, 1))
        drawn[i] = rng.permuted(stream, axis=1).reshape(-1)[: steps * batch_size]
    stacked = drawn.reshape(len(rows), steps, batch_size).swapaxes(0, 1)
    return torch.from_numpy(np.ascontiguousarray(stacked))


def log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """A number whose logarithm is uniform between two bounds."""
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))


def draw_episode(
    seed: Sequence[int], family: TaskFamily, distribution: EpisodeDistribution
) -> Episode:
    """Draw an episode; the same seed gives the same episode, whatever came before.

    Args:
        seed: whole numbers, for instance run seed and meta-step.
        family: where the tasks come from.
        distribution: what the rest is drawn from.
    """
    rng = np.random.default_rng(list(seed))
    smallest = round(log_uniform(rng, distribution.rows))
    largest = min(2 * smallest, distribution.rows[1])
    steps = round(log_uniform(rng, distribution.steps))
    max_features = round(distribution.max_features * float(rng.choice([0.2, 0.4, 0.6, 1.0])))
    tasks = TaskBatch.stack(
        [
            family.draw(
                rng,
                round(log_uniform(rng, (smallest, largest))),
                distribution.test_rows,
                max_features,
            )
            for _ in range(distribution.tasks)
        ]
    )
    name = distribution.models[rng.integers(len(distribution.models))]
    template = draw_model(rng, name, tasks.x_train.shape[-1], tasks.n_classes, tasks.n_channels)
    batch_size = min(int(rng.choice(distribution.batch_sizes)), int(tasks.rows.min()))
    micro = min(int(rng.choice([4, 4, 8])), batch_size)
    batch_size -= batch_size % micro
    rates = [log_uniform(rng, distribution.learning_rate) for _ in range(len(tasks))]
    hide = [distribution.hide_noise, distribution.hide_horizon, distribution.hide_rows]
    told = (rng.random((3, len(tasks))) >= np.array([hide]).T).astype(np.float32)
    noise, horizon, known_rows = torch.from_numpy(told)
    episode = assemble_episode(
        rng,
        tasks,
        template,
        steps=steps,
        batch_size=batch_size,
        micro=micro,
        base="adam",
        learning_rate=torch.tensor(rates).unsqueeze(-1),
        weight_decay=0.0,
        told=(noise, horizon, known_rows),
    )
    layers = (len(tasks), len(episode.model.layout))
    factors = np.exp(rng.uniform(-np.log(3), np.log(3), layers))
    factors = np.where(rng.random((len(tasks), 1)) < distribution.rescale, factors, 1.0)
    return reparametrise(episode, torch.from_numpy(factors))


def reparametrise(episode: Episode, factors: Tensor) -> Episode:
    """The same episode, its layers trained in other units; ``factors`` are ``(T, L)``."""
    scale = episode.model.layout.spread(factors.to(episode.initial.dtype))
    return replace(episode, initial=episode.initial / scale, scale=scale)


def assemble_episode(
    rng: np.random.Generator,
    tasks: TaskBatch,
    template: TabularModel,
    *,
    steps: int,
    batch_size: int,
    micro: int,
    base: str,
    learning_rate: Tensor,
    weight_decay: float,
    told: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Episode:
    """Draw initial weights and batches, and put an episode together.

    Args:
        rng: source of both.
        tasks: the tasks.
        template: the architecture.
        steps: inner steps.
        batch_size: rows of a batch.
        micro: micro-batches that the noise is estimated from; divides ``batch_size``.
        base: name of the base optimizer.
        learning_rate: ``(T, 1)``.
        weight_decay: decoupled decay of the base.
        told: 1 or 0, ``(T,)`` each, whether the denoiser is told the noise, the horizon
            and the number of rows; default: everything.

    Raises:
        ValueError: ``micro`` does not divide ``batch_size``.
    """
    if batch_size % micro:
        raise ValueError(f"assemble_episode: micro={micro} does not divide batch_size={batch_size}")
    model = BatchedModel(template)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        initial = model.initial(tasks)
    dtype = initial.dtype
    ones = torch.ones(len(tasks), dtype=dtype)
    noise, horizon, known_rows = (t.to(dtype) for t in (told or (ones, ones, ones)))
    return Episode(
        tasks=tasks,
        model=model,
        description=describe(template),
        initial=initial,
        batches=draw_batches(rng, tasks.rows.tolist(), steps, batch_size),
        micro=micro,
        base=base,
        learning_rate=learning_rate.to(dtype),
        weight_decay=weight_decay,
        counts=model.layout.sum(model.element_mask(tasks)),
        noise_known=noise.unsqueeze(-1).expand(-1, len(model.layout)),
        total_steps=horizon * steps,
        rows=known_rows * tasks.rows.to(dtype),
        batch_size=known_rows * batch_size,
    )
