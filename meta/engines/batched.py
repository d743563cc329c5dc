"""The inner loop of a stacked batch of tasks: all tasks in every operation."""

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
from denograd.denoisers._base import decay_fraction
from denograd.meta.engines._base import Cut, Schedule
from denograd.meta.episode import Episode
from denograd.meta.partial import for_denoised_layers

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


def exact_count(x: Any) -> Any:
    """Counts as float64: torchopt raises beta to a whole number in float32,
    which costs Adam four digits.
    """
    whole = isinstance(x, Tensor) and not x.is_floating_point()
    return x.double() if whole else x


class BatchedEngine:
    """`torch.func` over stacked tasks; the default.

    Every operation works on all tasks at once, parameters are one flat vector a task, and
    the base optimizer's update rule is torchopt's.

    Args:
        second_order: whether the inner gradient is differentiated in the parameters it is
            taken at. Without it meta-gradients leave second derivatives of the inner loss
            out (Andrychowicz et al. 2016, section 2.1), which is cheaper and biased.
    """

    name = "batched"

    def __init__(self, second_order: bool = True) -> None:
        self.second_order = second_order

    def start(self, episode: Episode, denoiser: Denoiser) -> InnerState:
        """The state before the first step."""
        parameters = episode.initial
        denoiser = for_denoised_layers(denoiser, episode.model)
        return InnerState(
            step=0,
            parameters=parameters,
            denoiser=denoiser.init_state(parameters, episode.model.layout),
            base=pytree.tree_map(exact_count, base_transform(episode.base).init(parameters)),
        )

    def advance(
        self,
        episode: Episode,
        denoiser: Denoiser,
        state: InnerState,
        *,
        graph: bool,
        schedule: Schedule | None = None,
    ) -> InnerState:
        """Take one inner step on every task; see `Engine.advance`."""
        x, y = episode.batch(state.step)
        gradient, noise, _ = episode.model.gradient(
            state.parameters,
            x,
            y,
            episode.tasks,
            episode.micro,
            graph=graph and self.second_order,
            scale=episode.scale,
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
        denoiser = for_denoised_layers(denoiser, episode.model)
        result = denoiser(gradient, noise, state.parameters, state.denoiser, context)
        updates, base = base_transform(episode.base).update(
            result.gradient, state.base, params=state.parameters, inplace=False
        )
        rate = episode.learning_rate * (schedule(state.step) if schedule else 1.0)
        moved = rate * (updates - episode.weight_decay * state.parameters)
        if result.gain is not None:
            moved = result.gain * moved
        if result.decay is not None:
            fraction = episode.model.layout.spread(decay_fraction(rate, result.decay))
            moved = moved - fraction * state.parameters
        return InnerState(state.step + 1, state.parameters + moved, result.state, base)

    def held_out_losses(self, episode: Episode, state: InnerState) -> Tensor:
        """Loss of each task on the rows that the inner loop never sees, in nats, ``(T,)``."""
        tasks, parameters = episode.tasks, state.parameters
        if episode.scale is not None:
            parameters = parameters * episode.scale
        return episode.model.loss(
            parameters, tasks.x_test, tasks.y_test, tasks.feature_mask, tasks.class_mask
        )

    def cut(self, state: InnerState) -> Cut:
        """A copy of a state whose floating-point tensors are leaves; see `Engine.cut`."""
        pairs: list[tuple[Tensor, Tensor]] = []

        def leaf(x: Any) -> Any:
            if not isinstance(x, Tensor) or not x.is_floating_point():
                return x
            after = x.detach().requires_grad_()
            pairs.append((x, after))
            return after

        copy = replace(
            state,
            parameters=leaf(state.parameters),
            denoiser=pytree.tree_map(leaf, state.denoiser),
            base=pytree.tree_map(leaf, state.base),
        )
        return copy, pairs


@torch.no_grad()
def run_episode(
    episode: Episode,
    denoiser: Denoiser,
    schedule: Schedule | None = None,
    engine: BatchedEngine | None = None,
) -> Tensor:
    """Run an inner loop to its end; held-out loss of each task, ``(T,)``."""
    engine = engine or BatchedEngine()
    state = engine.start(episode, denoiser)
    for _ in range(episode.steps):
        state = engine.advance(episode, denoiser, state, graph=False, schedule=schedule)
    return engine.held_out_losses(episode, state)
