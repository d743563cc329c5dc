"""The inner loop, for a stacked batch of tasks, differentiable in the denoiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import torchopt
from torch import Tensor
from torch.utils import _pytree as pytree

from denograd.denoisers import Context, Denoiser, State
from denograd.meta.episode import Episode

EPS_ROOT = 1e-20
"""Under the root of Adam's second moment: at 0 the root has no derivative. The root of
this is a hundredth of Adam's own epsilon, so nothing else changes."""


@dataclass(frozen=True)
class InnerState:
    """Where an inner loop stands.

    Attributes:
        step: steps done.
        parameters: ``(T, N)``.
        denoiser: the denoiser's state.
        base: the base optimizer's state, torchopt's own.
    """

    step: int
    parameters: Tensor
    denoiser: State
    base: Any

    def detached(self) -> InnerState:
        """The same state, cut from the graph that led to it."""

        def cut(x: Any) -> Any:
            return x.detach() if isinstance(x, Tensor) else x

        return replace(
            self,
            parameters=self.parameters.detach(),
            denoiser=pytree.tree_map(cut, self.denoiser),
            base=pytree.tree_map(cut, self.base),
        )


@cache
def base_transform(name: str) -> Any:
    """A base optimizer's update rule at learning rate 1, from torchopt.

    The rate is multiplied in afterwards, task by task; for every rule here that is the
    same, because each is linear in it. One instance serves every unroll: torchopt's
    momentum keeps a flag in the rule itself that marks the first call ever.

    Raises:
        ValueError: an unknown name.
    """
    rules: dict[str, Callable[[], Any]] = {
        "adam": lambda: torchopt.adam(lr=1.0, eps_root=EPS_ROOT),
        "sgd": lambda: torchopt.sgd(lr=1.0),
        "momentum": lambda: torchopt.sgd(lr=1.0, momentum=0.9),
    }
    if name not in rules:
        raise ValueError(f"base_transform: name={name!r}; use one of {', '.join(rules)}")
    return rules[name]()


def start(episode: Episode, denoiser: Denoiser) -> InnerState:
    """The state before the first step."""
    parameters = episode.initial
    return InnerState(
        step=0,
        parameters=parameters,
        denoiser=denoiser.init_state(parameters, episode.model.layout),
        base=pytree.tree_map(_exact_count, base_transform(episode.base).init(parameters)),
    )


def _exact_count(x: Any) -> Any:
    """Counts as float64: torchopt raises beta to a whole number in float32,
    which costs Adam four digits.
    """
    whole = isinstance(x, Tensor) and not x.is_floating_point()
    return x.double() if whole else x


def advance(
    episode: Episode,
    denoiser: Denoiser,
    state: InnerState,
    *,
    graph: bool,
    schedule: Callable[[int], float | Tensor] | None = None,
) -> InnerState:
    """Take one inner step on every task.

    Args:
        episode: the tasks and how to train on them.
        denoiser: the denoiser; gradients reach its parameters if ``graph`` is true.
        state: where the loop stands.
        graph: whether the step can be differentiated.
        schedule: factor of the learning rate, from the number of steps done, a number or
            ``(T, 1)``; default 1.

    Returns:
        the state after the step.
    """
    tasks, rows = episode.tasks, episode.batches[state.step]
    x = torch.take_along_dim(tasks.x_train, rows.unsqueeze(-1), dim=1)
    y = torch.take_along_dim(tasks.y_train, rows, dim=1)
    gradient, noise, _ = episode.model.gradient(
        state.parameters, x, y, tasks, episode.micro, graph=graph
    )
    context = Context(
        layout=episode.model.layout,
        counts=episode.counts,
        noise_known=episode.noise_known,
        step=torch.full_like(episode.rows, float(state.step)),
        total_steps=episode.total_steps,
        rows=episode.rows,
        batch_size=episode.batch_size,
    )
    result = denoiser(gradient, noise, state.parameters, state.denoiser, context)
    updates, base = base_transform(episode.base).update(
        result.gradient, state.base, params=state.parameters, inplace=False
    )
    rate = episode.learning_rate * (schedule(state.step) if schedule else 1.0)
    moved = rate * (updates - episode.weight_decay * state.parameters)
    if result.gain is not None:
        moved = result.gain * moved
    if result.decay is not None:
        moved = moved - rate * episode.model.layout.spread(result.decay) * state.parameters
    return InnerState(state.step + 1, state.parameters + moved, result.state, base)


def test_loss(episode: Episode, parameters: Tensor) -> Tensor:
    """Cross-entropy of each task on the rows that the inner loop never sees, ``(T,)``."""
    tasks = episode.tasks
    return episode.model.loss(
        parameters, tasks.x_test, tasks.y_test, tasks.feature_mask, tasks.class_mask
    )
