"""Hooks that neither keep their owner alive nor travel with a copy of the model."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge


class WeakHook:
    """Call a method of an object for as long as that object lives.

    A model that is copied or pickled takes its hooks along; such a copy of a `WeakHook`
    has no owner and does nothing.

    Args:
        owner: whose method is called; None for a hook that does nothing.
        method: its name.
        first: arguments that come before those of the caller.

    Example:
        >>> import copy
        >>> class Owner:
        ...     def greet(self, greeting, name):
        ...         return f"{greeting} {name}"
        >>> owner = Owner()
        >>> hook = WeakHook(owner, "greet", "hello")
        >>> hook("you"), copy.deepcopy(hook)("you")
        ('hello you', None)
    """

    def __init__(self, owner: object = None, method: str = "", *first: Any) -> None:
        self._owner = None if owner is None else weakref.ref(owner)
        self._method, self._first = method, first

    def __call__(self, *args: Any) -> Any:
        owner = None if self._owner is None else self._owner()
        if owner is None:
            return None
        return getattr(owner, self._method)(*self._first, *args)

    @property
    def is_idle(self) -> bool:
        """Whether there is nobody left to call."""
        return self._owner is None or self._owner() is None

    @property
    def __name__(self) -> str:
        # torch.jit.script asks for it, and could compile no hook.
        raise AttributeError(
            "hooks of denograd.DenoGrad cannot be scripted; call optimizer.detach_capture() and "
            "optimizer.detach_penalties() before torch.jit.script"
        )

    def __reduce__(self) -> tuple[type[WeakHook], tuple[()]]:
        return (WeakHook, ())


def sweep(model: nn.Module) -> None:
    """Take the hooks off a model that nobody owns, as copies of a model bring them along.

    Example:
        >>> import copy
        >>> layer, owner = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> handle = layer.register_forward_hook(WeakHook(owner, "extra_repr"))
        >>> twin = copy.deepcopy(layer)
        >>> sweep(twin)
        >>> len(layer._forward_hooks), len(twin._forward_hooks)
        (1, 0)
    """
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            idle = [k for k, hook in hooks.items() if isinstance(hook, WeakHook) and hook.is_idle]
            for key in idle:
                del hooks[key]
                for flags in (
                    module._forward_hooks_with_kwargs,
                    module._forward_hooks_always_called,
                    module._forward_pre_hooks_with_kwargs,
                ):
                    flags.pop(key, None)


def is_batched(gradient: Tensor) -> bool:
    """Whether a gradient is that of many backward passes at once.

    That is how `torch.autograd.grad` with ``is_grads_batched=True`` and the vectorised
    derivatives of `torch.autograd.functional` run; they are no loss of a training step.
    """
    functorch = torch._C._functorch
    return bool(functorch.is_batchedtensor(gradient) or functorch.is_legacy_batchedtensor(gradient))


def is_reached(parameter: Tensor) -> bool:
    """Whether the backward pass that runs gets to a parameter.

    Raises:
        RuntimeError: the pass is that of `torch.autograd.grad`, which was asked for this parameter.
    """
    return bool(torch._C._will_engine_execute_node(get_gradient_edge(parameter).node))
