"""What several analytic denoisers need."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from denograd.baselines.errors import BaselineError
from denograd.denoisers import Context, Layout, State


def check_number(
    owner: str, name: str, value: float, low: float, high: float = math.inf, *, above: bool = False
) -> float:
    """The number itself, if it lies in ``[low, high)``; in ``(low, high)`` with ``above``.

    Raises:
        BaselineError: it does not, or is no number.
    """
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not numeric or not (low < value if above else low <= value) or not value < high:
        bound = f"{'above' if above else 'at least'} {low:g}"
        bound += f" and below {high:g}" if high < math.inf else " and finite"
        raise BaselineError(f"{owner}: {name}={value!r}; it must be a number {bound}")
    return float(value)


def check_choice(owner: str, name: str, value: str, choices: tuple[str, ...]) -> str:
    """The value itself, if it is one of the choices.

    Raises:
        BaselineError: it is not.
    """
    if value not in choices:
        raise BaselineError(f"{owner}: {name}={value!r}; it must be one of {', '.join(choices)}")
    return value


def empty_state(parameter: Tensor, layout: Layout, *, element: tuple[str, ...]) -> State:
    """Zeros under each name, and ``steps`` a layer, for parameters of shape ``(..., N)``."""
    layer = parameter.new_zeros(*parameter.shape[:-1], len(layout))
    return State({name: torch.zeros_like(parameter) for name in element}, {"steps": layer})


def layer_mean(values: Tensor, gradient: Tensor, context: Context) -> Tensor:
    """Mean of ``values`` over the elements that have a gradient, ``(..., L)``.

    An element without a gradient (padding, or a part that no row of the batch reached) has
    nothing to keep or remove, so it does not count. A layer without any has a mean of 1.
    """
    there = (gradient != 0).to(values.dtype)
    sums, counts = context.layout.sum(torch.stack((values * there, there))).unbind(0)
    return torch.where(counts > 0, sums / counts.clamp_min(1), 1.0)
