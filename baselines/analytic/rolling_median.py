"""RM3: the coordinate-wise median of the last three gradients.

Zielinski, Krishnan and Chatterjee 2020, "Weak and Strong Gradient Directions: Explaining
Memorization, Generalization, and Hardness of Examples at Scale" (arXiv:2003.07422): the
median of the gradients of this batch and the two before it, element by element, drops what
only one of them asks for, and costs no further backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from denograd.baselines.analytic._shared import empty_state
from denograd.baselines.errors import BaselineError
from denograd.denoisers import Context, Denoised, Layout, State


class RollingMedianDenoiser:
    """Hand on the median of recent gradients, element by element.

    Until a layer has seen ``window`` gradients it keeps its plain one.

    Args:
        window: number of gradients, odd and at least 3; 3 is RM3.

    Raises:
        BaselineError: an even number, or one below 3.

    Example:
        >>> denoiser = RollingMedianDenoiser()
        >>> layout, zero = Layout((1,), (1,)), torch.zeros(())
        >>> context = Context(layout, torch.ones(1), torch.zeros(1), zero, zero, zero, zero)
        >>> state = denoiser.init_state(torch.zeros(1), layout)
        >>> for value in (1.0, 9.0, 2.0):
        ...     result = denoiser(torch.tensor([value]), zero, torch.zeros(1), state, context)
        ...     state = result.state
        >>> result.gradient
        tensor([2.])
    """

    coefficient_names: tuple[str, ...] = ()

    def __init__(self, window: int = 3) -> None:
        whole = isinstance(window, int) and not isinstance(window, bool)
        if not whole or window < 3 or window % 2 == 0:
            raise BaselineError(
                f"RollingMedianDenoiser: window={window!r}; it must be an odd whole number of at "
                "least 3"
            )
        self.window = window

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"back_{age}" for age in range(1, self.window))

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        """No gradient seen yet."""
        return empty_state(parameter, layout, element=self._names)

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Take the median; see `denograd.Denoiser` for shapes."""
        recent = [gradient, *(state.element[name] for name in self._names)]
        steps = state.layer["steps"] + 1
        full = context.layout.spread(steps >= self.window)
        cleaned = torch.where(full, torch.stack(recent).median(dim=0).values, gradient)
        element = dict(zip(self._names, recent[:-1], strict=True))
        return Denoised(cleaned, None, None, State(element, {"steps": steps}))
