"""Hooks that neither keep their owner alive nor travel with a copy of the model."""

from __future__ import annotations

import weakref
from typing import Any


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
    def __name__(self) -> str:
        # torch.jit.script asks for it, and could compile no hook.
        raise AttributeError(
            "hooks of denograd.DenoGrad cannot be scripted; call optimizer.detach_capture() and "
            "optimizer.detach_penalties() before torch.jit.script"
        )

    def __reduce__(self) -> tuple[type[WeakHook], tuple[()]]:
        return (WeakHook, ())
