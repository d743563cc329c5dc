"""The inner loop through `higher`, one task at a time, on the module as it is.

`higher` (Grefenstette et al. 2019, arXiv 1910.01727) patches a copy of any `nn.Module` so
that its parameters can be results of earlier steps, and replaces optimizers of
`torch.optim` by differentiable twins.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from denograd.denoisers import Denoised, Denoiser, State
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
from denograd.meta.engines.batched import EPS_ROOT
from denograd.meta.episode import Episode
from denograd.meta.partial import for_denoised_layers
from denograd.meta.row_moments import mean_and_variance

with warnings.catch_warnings():
    # Its source compares numbers with `is`, of which Python warns when it compiles it.
    warnings.simplefilter("ignore", SyntaxWarning)
    import higher
    import higher.optim
    import higher.patch


def _without_abc(patched: type) -> type:
    """The base of `higher`'s patched classes, without `abc.ABC` among its own bases.

    With it, Python finds no order for the bases of the patched class of a module that is
    itself ``(nn.Module, ABC)``, as the models of this package are.
    """
    own = ("__dict__", "__weakref__", "__abstractmethods__", "_abc_impl")
    return type(
        patched.__name__, (nn.Module,), {k: v for k, v in vars(patched).items() if k not in own}
    )


higher.patch._MonkeyPatchBase = _without_abc(higher.patch._MonkeyPatchBase)


class DifferentiableAdamW(higher.optim.DifferentiableOptimizer):  # type: ignore[misc]
    """`torch.optim.AdamW` for `higher`, which has none.

    Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2::

        p <- p - lr weight_decay p - lr m_hat / (sqrt(v_hat + EPS_ROOT) + eps)

    Without weight decay it is Adam, which `higher` has, but with an epsilon that is not
    corrected for the start as torch's is.
    """

    def _update(self, grouped_grads: list[list[Tensor | None]], **_: Any) -> None:
        for number, (group, grads) in enumerate(zip(self.param_groups, grouped_grads, strict=True)):
            rate, eps, (beta1, beta2) = group["lr"], group["eps"], group["betas"]
            for i, (p, g) in enumerate(zip(group["params"], grads, strict=True)):
                if g is None:
                    continue
                state = self.state[number][i]
                zeros = None if state else torch.zeros_like(p)
                step = state["step"] = state.get("step", 0) + 1
                m = state["exp_avg"] = state.get("exp_avg", zeros) * beta1 + (1 - beta1) * g
                v = state["exp_avg_sq"] = (
                    state.get("exp_avg_sq", zeros) * beta2 + (1 - beta2) * g * g
                )
                root = torch.sqrt(v / (1 - beta2**step) + EPS_ROOT) + eps
                kept = p * (1 - rate * group["weight_decay"]) if group["weight_decay"] else p
                group["params"][i] = kept - rate / (1 - beta1**step) * m / root


higher.register_optim(torch.optim.AdamW, DifferentiableAdamW)


@dataclass
class Loop:
    """The inner loop of one task: `higher`'s patched model and optimizer, and the denoiser."""

    model: Any
    optimizer: Any
    denoiser: State


@dataclass
class HigherState:
    """Where the inner loops of all tasks stand."""

    step: int
    base: str
    weight_decay: float
    template: nn.Module
    loops: list[Loop]
    served: Served = field(default_factory=Served)


class HigherEngine:
    """One task at a time through `higher`, on a copy of the unmodified module.

    For models that cannot be batched: buffers are carried along, so batch norm works. A
    module that takes nothing but rows is wrapped in `PlainModel`.
    """

    name = "higher"

    def start(self, episode: Episode, denoiser: Denoiser) -> HigherState:
        """The state before the first step."""
        template = copy.deepcopy(episode.model.template).to(episode.initial)
        template.train()
        layout, loops = episode.model.layout, []
        denoiser = for_denoised_layers(denoiser, episode.model)
        for initial in episode.initial:
            model, optimizer = _patched(template, episode.base, episode.common_decay())
            parts = cut_up(initial.detach(), layout, list(template.parameters()))
            model.update_params([part.clone().requires_grad_() for part in parts])
            loops.append(Loop(model, optimizer, denoiser.init_state(initial, layout)))
        return HigherState(0, episode.base, episode.common_decay(), template, loops)

    def advance(
        self,
        episode: Episode,
        denoiser: Denoiser,
        state: HigherState,
        *,
        graph: bool,
        schedule: Schedule | None = None,
    ) -> HigherState:
        """Take one inner step on every task; see `Engine.advance`."""
        denoisers = state.served(denoiser, episode)
        for index, (loop, own) in enumerate(zip(state.loops, denoisers, strict=True)):
            rate = task_rate(episode, schedule, index, state.step)
            self._step(episode, own, loop, index, state.step, rate, graph)
        state.step += 1
        return state

    def _step(
        self,
        episode: Episode,
        denoiser: Denoiser,
        loop: Loop,
        index: int,
        step: int,
        rate: Tensor,
        graph: bool,
    ) -> None:
        layout, model = episode.model.layout, loop.model
        loop.optimizer._track_higher_grads = graph
        old: list[Tensor] = list(model.fast_params)
        renew_buffers(model)
        with torch.enable_grad():
            losses = micro_losses(model, episode, index, step)
            earlier = all_but_last_gradients(losses, old, graph=graph)
        with torch.set_grad_enabled(graph):
            flat = join(old, old)
            results: list[Denoised] = []

            def clean(last: Sequence[Tensor | None]) -> list[Tensor]:
                gradient, noise = mean_and_variance(torch.stack([*earlier, join(last, old)]))
                context = task_context(episode, index, step)
                results.append(denoiser(gradient, noise, flat, loop.denoiser, context))
                return cut_up(results[0].gradient, layout, old)

            stepped = loop.optimizer.step(losses[-1], override={"lr": [rate]}, grad_callback=clean)
            (result,) = results
            moved = join(stepped, old) - flat
            if episode.base != "adam" and episode.common_decay():
                moved = moved - rate * episode.common_decay() * flat
            moved = denoised_move(moved, result, layout, rate, flat)
            new = cut_up(flat + moved, layout, old)
        model.update_params(new if graph else [p.detach().requires_grad_() for p in new])
        loop.denoiser = result.state

    def held_out_losses(self, episode: Episode, state: HigherState) -> Tensor:
        """Loss of each task on the rows that the inner loop never sees, in nats, ``(T,)``."""
        return held_out_losses([loop.model for loop in state.loops], episode)

    def cut(self, state: HigherState) -> Cut:
        """A copy of a state whose floating-point tensors are leaves; see `Engine.cut`.

        Buffers are copied and no leaves: no gradient flows through them.
        """
        leaf, loops = Leaves(), []
        for loop in state.loops:
            model, optimizer = _patched(state.template, state.base, state.weight_decay)
            copy_buffers(loop.model, model)
            model.update_params([leaf(p) for p in loop.model.fast_params])
            for old, new in zip(loop.optimizer.state, optimizer.state, strict=True):
                for i, values in old.items():
                    new[i] = {k: leaf(v) if _floats(v) else v for k, v in values.items()}
            loops.append(Loop(model, optimizer, cut_state(loop.denoiser, leaf)))
        copied = HigherState(state.step, state.base, state.weight_decay, state.template, loops)
        return copied, leaf.pairs


def _floats(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _patched(template: nn.Module, base: str, weight_decay: float) -> tuple[Any, Any]:
    """A patched copy of a module and its optimizer, for each task its own.

    `higher.innerloop_ctx` makes the same two; here they outlive one block of code.

    Raises:
        ValueError: an unknown base.
    """
    makers: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        "adam": lambda p: torch.optim.AdamW(p, weight_decay=weight_decay),
        "sgd": lambda p: torch.optim.SGD(p, lr=1.0),
        "momentum": lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9),
    }
    if base not in makers:
        raise ValueError(f"HigherEngine: base={base!r}; use one of {', '.join(makers)}")
    parameters = list(template.parameters())
    with torch.enable_grad():
        # The model itself then keeps only the latest parameters; the graph is the optimizer's.
        model = higher.monkeypatch(template, track_higher_grads=False)
    optimizer = higher.get_diff_optim(makers[base](parameters), parameters, fmodel=model)
    optimizer.state = [defaultdict(dict) for _ in optimizer.param_groups]
    return model, optimizer
