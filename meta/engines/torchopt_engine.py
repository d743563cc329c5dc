"""The inner loop through torchopt's differentiable optimizers, one task at a time.

Denoiser and base together are one `torchopt` gradient transformation, which
`torchopt.MetaOptimizer` (Ren et al. 2023, arXiv 2211.06934) applies to a module's own
parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
import torchopt
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from denograd.denoisers import Context, Denoiser, Layout, State
from denograd.meta.engines._base import Cut, Schedule
from denograd.meta.engines._single import (
    Leaves,
    Served,
    all_but_last_gradients,
    copy_buffers,
    cut_state,
    cut_up,
    denoised_move,
    held_out_losses,
    join,
    micro_losses,
    renew_buffers,
    task_context,
    task_rate,
)
from denograd.meta.engines.batched import EPS_ROOT, exact_count
from denograd.meta.episode import Episode
from denograd.meta.partial import for_denoised_layers
from denograd.meta.row_moments import mean_and_variance


class RuleState(NamedTuple):
    """What `DenoisedRule` remembers: the denoiser's state and the base optimizer's."""

    denoiser: State
    base: Any


class DenoisedRule:
    """A denoiser and a base optimizer as one rule for `torchopt.MetaOptimizer`.

    What changes from step to step is set before the step.

    Args:
        layout: of the module's parameters.
        order: for each parameter of the layout, its place among those torchopt hands in.
        base: name of the base optimizer.
        weight_decay: decoupled decay of the base.

    Raises:
        ValueError: an unknown base.
    """

    denoiser: Denoiser
    context: Context
    earlier: Sequence[Tensor]
    """Gradients of all micro-batches but the last, which torchopt takes itself."""

    def __init__(self, layout: Layout, order: list[int], base: str, weight_decay: float) -> None:
        self.layout, self.order, self.weight_decay = layout, order, weight_decay
        self.rate: Tensor | float = 1.0

        def rate(_: object) -> Any:
            return self.rate

        rules = {
            "adam": lambda: torchopt.adamw(lr=rate, eps_root=EPS_ROOT, weight_decay=weight_decay),
            "sgd": lambda: torchopt.sgd(lr=rate),
            "momentum": lambda: torchopt.sgd(lr=rate, momentum=0.9),
        }
        if base not in rules:
            raise ValueError(f"TorchoptEngine: base={base!r}; use one of {', '.join(rules)}")
        # torchopt's SGD has only the decay that goes through the momentum.
        self.decay_here = weight_decay if base != "adam" else 0.0
        self.base = rules[base]()
        self.transformation = torchopt.base.GradientTransformation(self._init, self._update)

    def _init(self, params: Any) -> RuleState:
        raise RuntimeError("DenoisedRule: its state is made by `start`")

    def start(self, parameters: Sequence[Tensor], denoiser: Denoiser) -> RuleState:
        """The state before the first step, for parameters in the layout's order."""
        base = pytree.tree_map(exact_count, self.base.init(tuple(parameters)))
        return RuleState(denoiser.init_state(join(parameters, parameters), self.layout), base)

    def _update(
        self, updates: Any, state: Any, *, params: Any = None, inplace: bool = False
    ) -> tuple[tuple[Tensor, ...], RuleState]:
        parameters = [params[i] for i in self.order]
        last = join([updates[i] for i in self.order], parameters)
        flat = join(parameters, parameters)
        gradient, noise = mean_and_variance(torch.stack([*self.earlier, last]))
        result = self.denoiser(gradient, noise, flat, state.denoiser, self.context)
        cleaned = tuple(cut_up(result.gradient, self.layout, parameters))
        moves, base = self.base.update(
            cleaned, state.base, params=tuple(parameters), inplace=inplace
        )
        moved = join(moves, parameters)
        if self.decay_here:
            moved = moved - self.rate * self.decay_here * flat
        moved = denoised_move(moved, result, self.layout, self.rate, flat)
        parts = cut_up(moved, self.layout, parameters)
        placed = dict(zip(self.order, parts, strict=True))
        return tuple(placed[i] for i in range(len(parts))), RuleState(result.state, base)


@dataclass
class Loop:
    """The inner loop of one task: a module of its own and its optimizer."""

    model: nn.Module
    rule: DenoisedRule
    optimizer: torchopt.MetaOptimizer


@dataclass
class TorchoptState:
    """Where the inner loops of all tasks stand."""

    step: int
    template: nn.Module
    loops: list[Loop]
    served: Served = field(default_factory=Served)


class TorchoptEngine:
    """One task at a time through `torchopt.MetaOptimizer`, on a copy of the module."""

    name = "torchopt"

    def start(self, episode: Episode, denoiser: Denoiser) -> TorchoptState:
        """The state before the first step."""
        template = copy.deepcopy(episode.model.template).to(episode.initial)
        template.train()
        layout = episode.model.layout
        denoiser = for_denoised_layers(denoiser, episode.model)
        order = _order(template)
        loops = []
        for initial in episode.initial:
            rule = DenoisedRule(layout, order, episode.base, episode.common_decay())
            parts = cut_up(initial.detach(), layout, list(template.parameters()))
            leaves = [part.clone().requires_grad_() for part in parts]
            loops.append(_loop(template, rule, leaves, rule.start(leaves, denoiser)))
        return TorchoptState(0, template, loops)

    def advance(
        self,
        episode: Episode,
        denoiser: Denoiser,
        state: TorchoptState,
        *,
        graph: bool,
        schedule: Schedule | None = None,
    ) -> TorchoptState:
        """Take one inner step on every task; see `Engine.advance`."""
        denoisers = state.served(denoiser, episode)
        for index, (loop, own) in enumerate(zip(state.loops, denoisers, strict=True)):
            rule, model = loop.rule, loop.model
            rule.denoiser, rule.context = own, task_context(episode, index, state.step)
            rule.rate = task_rate(episode, schedule, index, state.step)
            renew_buffers(model)
            with torch.enable_grad():
                losses = micro_losses(model, episode, index, state.step)
                rule.earlier = all_but_last_gradients(losses, list(model.parameters()), graph=graph)
            with torch.set_grad_enabled(graph):
                loop.optimizer.step(losses[-1])
            if not graph:
                _detach(loop)
        state.step += 1
        return state

    def held_out_losses(self, episode: Episode, state: TorchoptState) -> Tensor:
        """Loss of each task on the rows that the inner loop never sees, in nats, ``(T,)``."""
        return held_out_losses([loop.model for loop in state.loops], episode)

    def cut(self, state: TorchoptState) -> Cut:
        """A copy of a state whose floating-point tensors are leaves; see `Engine.cut`.

        Buffers are copied and no leaves: no gradient flows through them.
        """
        leaf, loops = Leaves(), []
        for loop in state.loops:
            old: RuleState = loop.optimizer.state_groups[0]
            leaves = [leaf(p) for p in loop.model.parameters()]
            new = _map_state(old, leaf)
            fresh = _loop(state.template, loop.rule, leaves, new)
            copy_buffers(loop.model, fresh.model)
            loops.append(fresh)
        return TorchoptState(state.step, state.template, loops), leaf.pairs


def _map_state(state: RuleState, function: Any) -> RuleState:
    """A rule's state with each floating-point tensor replaced."""

    def mapped(x: Any) -> Any:
        return function(x) if isinstance(x, Tensor) and x.is_floating_point() else x

    return RuleState(cut_state(state.denoiser, function), pytree.tree_map(mapped, state.base))


def _loop(
    template: nn.Module, rule: DenoisedRule, parameters: Sequence[Tensor], state: RuleState
) -> Loop:
    """A copy of a module that holds these parameters, and its optimizer in this state."""
    model = copy.deepcopy(template)
    _place(model, parameters)
    optimizer = torchopt.MetaOptimizer(model, rule.transformation)
    optimizer.state_groups[0] = state
    return Loop(model, rule, optimizer)


def _place(model: nn.Module, parameters: Sequence[Tensor]) -> None:
    """Put tensors, results of a graph or leaves, in the places of a module's parameters."""
    left = iter(parameters)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = next(left)  # type: ignore[assignment]


def _detach(loop: Loop) -> None:
    """Take a loop's tensors out of the graph; torchopt always makes one."""
    _place(loop.model, [p.detach().requires_grad_() for p in loop.model.parameters()])
    loop.optimizer.state_groups[0] = _map_state(loop.optimizer.state_groups[0], Tensor.detach)


def _order(template: nn.Module) -> list[int]:
    """For each parameter of a module, its place among the leaves that torchopt hands out.

    Raises:
        ValueError: layers share a parameter, of which torchopt would make two.
    """
    containers, _ = torchopt.utils.extract_module_containers(template, with_buffers=False)
    leaves: list[Any] = torchopt.pytree.tree_leaves(cast(Any, containers))
    places = {id(leaf): i for i, leaf in enumerate(leaves)}
    parameters = list(template.parameters())
    if len(leaves) != len(parameters):
        raise ValueError(
            f"TorchoptEngine: layers of {type(template).__name__} share parameters, which "
            "torchopt cannot update; use the engine 'higher'"
        )
    return [places[id(p)] for p in parameters]
