"""The hooks that add the gradients of penalties to a backward pass.

With ``a`` a tensor that a penalty ``r`` looks at, the gradient of ``loss + weight r(a)`` is
that of the loss, with ``weight dr/da`` added to what flows back through ``a``. So a forward
hook computes ``dr/da`` on a detached ``a``, and hands on a copy of ``a`` whose backward hook
adds it. Nothing else remembers it: it goes with the graph.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from denograd._callers import callers_level
from denograd._modes import plain_arithmetic
from denograd.noise._hooks import WeakHook, is_batched, is_reached, sweep
from denograd.penalties._base import Penalty
from denograd.penalties._sites import Site

_log = logging.getLogger("denograd.penalties")


@dataclass(eq=False)
class _Watched:
    """One site of one penalty, and whether a backward pass has come by since the last step."""

    penalty: Penalty
    site: Site
    came_by: bool = False
    warned: bool = False


@dataclass(eq=False)
class _Addition:
    """What one forward pass adds to the backward pass: ``weight dr/da``, 0 if not finite.

    Two losses of one forward pass may go back through it one after the other; the penalty is part
    of their sum once. ``source`` is what the forward pass made ``a`` with. The gradient goes with
    the graph: once a backward pass has used it up, it is None.
    """

    gradient: Tensor | None
    fine: Tensor
    source: Node | None
    added: bool = False


class PenaltyWatch:
    """Penalties at work on a model, for as long as this object lives.

    Args:
        penalties: the penalties.
        model: the model that they look at.
        base: the optimizer of its parameters.

    Attributes:
        model: the model.

    Raises:
        ValueError: a penalty finds nothing to look at or works for another optimizer, or a
            group of ``base`` maximizes.
    """

    def __init__(self, penalties: Sequence[Penalty], model: nn.Module, base: Optimizer) -> None:
        self._penalties, self.model, self._base = tuple(penalties), model, base
        self._through_scaler = False
        self._handles: list[RemovableHandle] = []
        self.check_groups()
        sweep(model)
        found = [(penalty, penalty.find(model)) for penalty in self._penalties]
        self._watched = [_Watched(penalty, site) for penalty, sites in found for site in sites]
        for penalty, sites in found:
            _announce(penalty, sites, model)
        for penalty in self._penalties:
            penalty._claim(self)
        for watched in self._watched:
            self._attach(watched)
        hook = WeakHook(self, "_before_model")
        self._handles.append(model.register_forward_pre_hook(hook))

    def _attach(self, watched: _Watched) -> None:
        module = watched.site.module
        # First of all hooks: those of noise capture then see the gradient with the penalty.
        if watched.site.inputs:
            before = WeakHook(self, "_at_input", watched)
            self._handles.append(module.register_forward_pre_hook(before, prepend=True))
        else:
            after = WeakHook(self, "_at_output", watched)
            self._handles.append(module.register_forward_hook(after, prepend=True))

    def detach(self) -> None:
        """Take every hook off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for penalty in self._penalties:
            if penalty._owner is not None and penalty._owner() is self:
                penalty._release()

    def check_groups(self) -> None:
        """Raise a `ValueError` if a group maximizes: there a penalty would be driven up."""
        for index, group in enumerate(self._base.param_groups):
            if group.get("maximize", False):
                raise ValueError(
                    f"DenoGrad: penalties are added to a loss that is minimized, but group "
                    f"{index} has maximize=True; minimize the negative objective instead"
                )

    def scaler_steps(self) -> None:
        """Take note that a `torch.amp.GradScaler` is about to step.

        Raises:
            RuntimeError: a penalty does not know it.
        """
        for penalty in self._penalties:
            if penalty.scaler is None and penalty.weight > 0:
                raise RuntimeError(
                    f"DenoGrad: a GradScaler scaled the loss, but not the gradient of "
                    f"{type(penalty).__name__}, which does not know it; make the penalty with "
                    "scaler=scaler (or set its attribute `scaler`, as on a copy)"
                )
        self._through_scaler = True

    def before_step(self) -> None:
        """Check what came by since the last step, with a warning once for each idle module.

        Raises:
            RuntimeError: a penalty has a scaler, but no scaler steps.
        """
        scaled, self._through_scaler = self._through_scaler, False
        for penalty in self._penalties:
            scaler = penalty.scaler
            if scaler is not None and scaler.is_enabled() and not scaled:
                raise RuntimeError(
                    f"DenoGrad: {type(penalty).__name__} has a scaler, but this step does not "
                    "come from it; call scaler.step(optimizer), or leave scaler= out where the "
                    "loss is not scaled"
                )
            penalty._starts_anew = True
        for watched in self._watched:
            if not watched.came_by and not watched.warned:
                watched.warned = True
                warnings.warn(
                    f"DenoGrad: {type(watched.penalty).__name__} had no part in this step at "
                    f"{_place(watched.site)}: it did not run in training mode, or the loss does "
                    "not depend on what it gave. Leave it out of the penalty's modules, or call "
                    "it in the forward pass",
                    UserWarning,
                    stacklevel=callers_level(),
                )
            watched.came_by = False

    def _before_model(self, model: nn.Module, args: Any) -> None:
        if model.training and torch.is_grad_enabled():
            for penalty in self._penalties:
                penalty._starts_anew = True

    def _at_input(self, watched: _Watched, module: nn.Module, args: tuple[Any, ...]) -> Any:
        if not self._active(module) or not args:
            return None
        return (self._watch(watched, args[0]), *args[1:])

    def _at_output(self, watched: _Watched, module: nn.Module, args: Any, output: Any) -> Any:
        return self._watch(watched, output) if self._active(module) else None

    def _active(self, module: nn.Module) -> bool:
        # Transforms of torch.func differentiate by themselves, not by loss.backward().
        functional = torch._C._functorch.peek_interpreter_stack() is not None
        return module.training and torch.is_grad_enabled() and not functional

    def _watch(self, watched: _Watched, tensor: Any) -> Tensor:
        """The tensor itself, or a copy whose backward pass adds the penalty."""
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(
                f"DenoGrad: {type(watched.penalty).__name__} looks at "
                f"{_place(watched.site)}, which gave a {kind}; it needs one tensor of floating "
                "point numbers. Name another module with modules=[...]"
            )
        penalty, weight = watched.penalty, watched.penalty.weight
        differentiable = tensor.requires_grad and weight > 0
        if tensor.dim() < 2 or tensor.shape[0] < 2:
            penalty._note(torch.zeros((), device=tensor.device))
            watched.came_by = True
            return tensor
        with plain_arithmetic(tensor.device, differentiable):
            a = tensor.detach()
            a = a.float() if a.element_size() < 4 else a
            value = watched.site.penalty(a.requires_grad_(differentiable))
            penalty._note(value)
            if not differentiable or not value.requires_grad:
                watched.came_by = True
                return tensor
            (gradient,) = torch.autograd.grad(value, a)
        gradient = weight * gradient
        fine = value.detach().isfinite() & gradient.to(tensor.dtype).isfinite().all()
        addition = _Addition(torch.where(fine, gradient, 0.0), fine, tensor.grad_fn)
        # Not a view of it: what comes next may change it in place.
        handed_on: Any = tensor.clone()
        handed_on.register_hook(WeakHook(self, "_add", watched, addition))
        result: Tensor = handed_on
        return result

    def _add(self, watched: _Watched, addition: _Addition, flowing: Tensor | None) -> Tensor | None:
        if flowing is None or is_batched(flowing):
            return None
        if not self._reaches_parameters():
            # torch.autograd.grad, as for saliency or a gradient penalty: not the loss.
            return None
        penalty = watched.penalty
        if torch.is_grad_enabled():
            raise RuntimeError(
                f"DenoGrad: backward(create_graph=True) through {_place(watched.site)}: the "
                f"gradient of {type(penalty).__name__} has no graph. Use torch.autograd.grad "
                "for inner derivatives, or put the penalty into the loss yourself"
            )
        watched.came_by = True
        if addition.added and self._is_still_there(addition):
            return None
        addition.added = True
        penalty._count_dropped(addition.fine)
        extra = addition.gradient
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            addition.gradient = None
        if extra is None:
            return None
        if penalty.scaler is not None:
            extra = extra * penalty.scaler.scale(torch.ones((), device=extra.device))
        return flowing + extra.to(flowing.dtype)

    def _is_still_there(self, addition: _Addition) -> bool:
        """Whether gradients that this pass adds to hold what an earlier one added.

        Not those that were reset in between, nor those of parameters that it did not reach.
        """
        own = {id(p) for group in self._base.param_groups for p in group["params"]}
        for parameter in _leaves(addition.source):
            if id(parameter) not in own or parameter.grad is None:
                continue
            if is_reached(parameter) and bool((parameter.grad != 0).any()):
                return True
        return False

    def _reaches_parameters(self) -> bool:
        """Whether the backward pass that runs adds to ``p.grad`` of the optimizer's parameters."""
        for group in self._base.param_groups:
            for parameter in group["params"]:
                if not parameter.requires_grad:
                    continue
                try:
                    if is_reached(parameter):
                        return True
                except RuntimeError:
                    # torch says so where torch.autograd.grad was asked for this parameter.
                    return False
        return False

    def __del__(self) -> None:
        self.detach()


def _leaves(node: Node | None) -> Iterator[Tensor]:
    """The parameters that a graph begins with."""
    seen, waiting = set[Node](), [node]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [further for further, _ in node.next_functions]


def _place(site: Site) -> str:
    side = "the input of " if site.inputs else ""
    return f"{side}{site.name!r} ({type(site.module).__name__})" if site.name else "the model"


def _announce(penalty: Penalty, sites: Sequence[Site], model: nn.Module) -> None:
    penalty._picked = [f"{_place(site)}: {site.form}" for site in sites]
    if not penalty._logged:
        penalty._logged = True
        for line in penalty._picked:
            kind = type(penalty).__name__
            _log.info("%s in %s, at %s", kind, type(model).__name__, line)
