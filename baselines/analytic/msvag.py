"""M-SVAG: momentum SGD, each element scaled by how steady its gradient was over time.

Balles and Hennig 2018, "Dissecting Adam: The Sign, Magnitude and Variance of Stochastic
Gradients" (arXiv:1705.07774). At step ``t``, with one ``beta`` for both moments::

    m^    = bias-corrected first moment,  v^ = bias-corrected second moment
    rho   = (1 - beta) (1 + beta^t) / ((1 + beta) (1 - beta^t))
    s     = (v^ - m^^2) / (1 - rho)                    variance of the gradient
    gamma = m^^2 / (m^^2 + rho s)
    step  = -lr gamma m^

The cleaned gradient is ``gamma m^``; with plain SGD as the base that is M-SVAG.
"""

from __future__ import annotations

import torch
from torch import Tensor

from denograd.baselines.analytic._shared import check_number, empty_state, layer_mean
from denograd.denoisers import Context, Denoised, Layout, State
from denograd.statistics import TINY


class MsvagDenoiser:
    """Scale the momentum by the variance adaptation factor from statistics over time.

    At the first step nothing is known of the variance and the factor is 1.

    Args:
        beta: of both moments.

    Raises:
        BaselineError: it is not in ``(0, 1)``.

    Example:
        >>> denoiser = MsvagDenoiser()
        >>> layout, zero = Layout((2,), (1,)), torch.zeros(())
        >>> context = Context(layout, torch.tensor([2.0]), torch.zeros(1), zero, zero, zero, zero)
        >>> state = denoiser.init_state(zero.expand(2), layout)
        >>> for g in (torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])):
        ...     result = denoiser(g, 0 * g, g, state, context)
        ...     state = result.state
        >>> [round(value, 6) for value in result.gradient.tolist()]
        [1.0, -0.000145]
    """

    coefficient_names: tuple[str, ...] = ("mean_gain",)

    def __init__(self, beta: float = 0.9) -> None:
        self.beta = check_number("MsvagDenoiser", "beta", beta, 0.0, 1.0, above=True)

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        """Moments of zero."""
        return empty_state(parameter, layout, element=("mean", "second"))

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Scale the momentum; see `denograd.Denoiser` for shapes."""
        beta, steps = self.beta, state.layer["steps"] + 1
        weight = (1 - beta) / (1 - beta**steps)
        rho = (1 - beta) * (1 + beta**steps) / ((1 + beta) * (1 - beta**steps))
        # Of one gradient rho is 1, and 1 - rho is rounding: there is no variance to divide.
        share = torch.where(steps > 1, rho / (1 - rho).clamp_min(1e-6), 0.0)
        wide = context.layout.spread(torch.stack((weight, share)))
        mean = torch.lerp(state.element["mean"], gradient, wide[0])
        second = torch.lerp(state.element["second"], gradient.square(), wide[0])
        signal = mean.square()
        gain = (signal + TINY) / (signal + wide[1] * (second - signal).clamp_min(0) + TINY)
        new_state = State({"mean": mean, "second": second}, {"steps": steps})
        coefficients = layer_mean(gain, gradient, context).unsqueeze(-1)
        return Denoised(gain * mean, None, None, new_state, coefficients)
