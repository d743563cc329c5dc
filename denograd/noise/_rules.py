"""Which kind of module has which rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from denograd.noise._rows import RowGradients

NoiseRule: TypeAlias = Callable[[Any, tuple[Any, ...], Tensor], Mapping[str, RowGradients]]
"""``rule(module, inputs, output_gradient) -> {name: contributions}``; `register_noise_rule`."""

_RULES: dict[type[nn.Module], NoiseRule] = {}


def register_noise_rule(module_type: type[nn.Module], rule: NoiseRule) -> None:
    """Tell how each row contributes to the gradients of a kind of module.

    The rule is called during the backward pass, under ``torch.no_grad``, once for each
    use of a module, as ``rule(module, inputs, output_gradient)``:

    * ``inputs`` are the positional and then the keyword arguments of ``forward``, tensors
      detached, half precision turned into float32;
    * ``output_gradient`` is the gradient of the loss by the module's one output tensor;
    * dimension 0 of both counts the rows of the batch.

    It returns the `RowGradients` of the module's own parameters by name (``"weight"``).
    A parameter that it leaves out counts as not known, and so does one whose
    contributions do not add up to the gradient that really arrived.

    Args:
        module_type: a subclass of `torch.nn.Module`. Its subclasses share the rule unless
            they override ``forward``.
        rule: the rule; it replaces an earlier one of the same type. Models that an
            optimizer already watches keep the rules they had.

    Raises:
        TypeError: ``module_type`` is not a module class, or ``rule`` can't be called.

    Example:
        >>> import torch
        >>> class Shift(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.shift = nn.Parameter(torch.zeros(3))
        ...     def forward(self, x):
        ...         return x + self.shift
        >>> from denograd.noise import Dense
        >>> register_noise_rule(Shift, lambda module, inputs, grad: {"shift": Dense(grad)})
    """
    if not (isinstance(module_type, type) and issubclass(module_type, nn.Module)):
        raise TypeError(
            f"register_noise_rule: module_type={module_type!r}; it must be a subclass of "
            "torch.nn.Module"
        )
    if not callable(rule):
        raise TypeError(
            f"register_noise_rule: rule={rule!r}; it must be callable as "
            "rule(module, inputs, output_gradient)"
        )
    _RULES[module_type] = rule


def rule_for(module: nn.Module) -> NoiseRule | None:
    """The rule of a module, or None where no rule is known to fit its ``forward``."""
    kind: Any
    for kind in type(module).__mro__:
        if kind in _RULES:
            return _RULES[kind] if type(module).forward is kind.forward else None
    return None
