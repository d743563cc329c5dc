"""SGDF: a Wiener filter that blends the momentum and the gradient.

Yao, Zhang and Li 2023, "Signal Processing Meets SGD: From Momentum to Filter"
(arXiv:2311.02818), as in its authors' code. At step ``t``, element by element::

    m_t = beta1 m_{t-1} + (1 - beta1) g_t             m^ = m_t / (1 - beta1^t)
    s_t = beta2 s_{t-1} + (1 - beta2) (g_t - m_t)^2
    s^  = s_t (1 - beta1) (1 - beta1^(2t)) / ((1 + beta1) (1 - beta2^t))
    K   = s^ / (s^ + (g_t - m^)^2)
    g^  = m^ + K^gamma (g_t - m^)

The factor of ``s^`` turns the variance of a gradient into that of its average. The base
steps with ``g^``; the paper's base is plain SGD.
"""

from __future__ import annotations

import torch
from torch import Tensor

from denograd.baselines.analytic._shared import check_number, empty_state, layer_mean
from denograd.denoisers import Context, Denoised, Layout, State
from denograd.statistics import TINY


class SgdfDenoiser:
    """Blend momentum and gradient with the gain that the variance over time suggests.

    Args:
        beta1: of the first moment.
        beta2: of the variance around it.
        gamma: exponent of the gain; 1 at first, 1/2 in its authors' later code.

    Raises:
        BaselineError: a value that makes no sense.

    Example:
        >>> denoiser = SgdfDenoiser()
        >>> layout, zero = Layout((2,), (1,)), torch.zeros(())
        >>> context = Context(layout, torch.tensor([2.0]), torch.zeros(1), zero, zero, zero, zero)
        >>> g = torch.tensor([3.0, 1.0])
        >>> first = denoiser(g, 0 * g, g, denoiser.init_state(g, layout), context)
        >>> second = denoiser(-g, 0 * g, g, first.state, context)
        >>> first.gradient, second.gradient.abs().le(g).all()
        (tensor([3., 1.]), tensor(True))
    """

    coefficient_names: tuple[str, ...] = ("mean_gain",)

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, gamma: float = 1.0) -> None:
        self.beta1 = check_number("SgdfDenoiser", "beta1", beta1, 0.0, 1.0)
        self.beta2 = check_number("SgdfDenoiser", "beta2", beta2, 0.0, 1.0)
        self.gamma = check_number("SgdfDenoiser", "gamma", gamma, 0.0, above=True)

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        """Moments of zero."""
        return empty_state(parameter, layout, element=("mean", "variance"))

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Filter a gradient; see `denograd.Denoiser` for shapes."""
        beta1, beta2 = self.beta1, self.beta2
        mean = torch.lerp(state.element["mean"], gradient, 1 - beta1)
        variance = torch.lerp(state.element["variance"], (gradient - mean).square(), 1 - beta2)
        steps = state.layer["steps"] + 1
        of_mean = 1 / (1 - beta1**steps)
        of_variance = (1 - beta1) * (1 - beta1 ** (2 * steps)) / ((1 + beta1) * (1 - beta2**steps))
        factors = context.layout.spread(torch.stack((of_mean, of_variance)))
        m, s = factors[0] * mean, factors[1] * variance
        residual = gradient - m
        # TINY keeps the root differentiable where a gradient never was anything but zero.
        gain = ((s + TINY) / (s + residual.square() + TINY)) ** self.gamma
        new_state = State({"mean": mean, "variance": variance}, {"steps": steps})
        coefficients = layer_mean(gain, gradient, context).unsqueeze(-1)
        return Denoised(m + gain * residual, None, None, new_state, coefficients)
