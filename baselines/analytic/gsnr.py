"""Wiener's gain from the noise within the batch: the gradient's signal-to-noise ratio.

With ``g`` the mean gradient of a batch of ``n`` rows and ``v`` the variance among rows::

    w = g^2 / (g^2 + kappa v / n) = r / (r + kappa),    r = g^2 / (v / n)

``r`` is the gradient signal-to-noise ratio of Liu et al. 2020 ("Understanding why neural
networks generalize well through GSNR of parameters"), of a batch; ``w`` at
``kappa = 1`` is Wiener's gain (Wiener 1949) and has the form of Balles and Hennig 2018,
"Dissecting Adam", with the variance within the batch instead of over time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from denograd.baselines.analytic._shared import check_choice, check_number, layer_mean
from denograd.denoisers import Context, Denoised, Layout, State
from denograd.statistics import TINY


class GsnrDenoiser:
    """Keep the share of each gradient that Wiener's gain calls signal.

    A layer whose noise was not measured within the batch keeps its plain gradient.

    Args:
        scope: ``"element"`` for a gain per element, ``"layer"`` for one per layer, from the
            layer's sums of ``g^2`` and of the noise.
        target: ``"gradient"``: the gradient is scaled, before the base optimizer;
            ``"update"``: the step that the base takes with the plain gradient is. Adam
            divides a gain that stays the same out again, so the two differ much there.
        kappa: weight of the noise; 1 is the formula.

    Raises:
        BaselineError: a value that makes no sense.

    Example:
        >>> denoiser = GsnrDenoiser()
        >>> layout, one, zero = Layout((2,), (1,)), torch.ones(()), torch.zeros(())
        >>> context = Context(layout, torch.tensor([2.0]), torch.ones(1), zero, zero, zero, zero)
        >>> g, noise = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0])
        >>> denoiser(g, noise, g, denoiser.init_state(g, layout), context).gradient
        tensor([2.7000, 0.5000])
    """

    coefficient_names: tuple[str, ...] = ("mean_gain",)

    def __init__(
        self, scope: str = "element", target: str = "gradient", kappa: float = 1.0
    ) -> None:
        self.scope = check_choice("GsnrDenoiser", "scope", scope, ("element", "layer"))
        self.target = check_choice("GsnrDenoiser", "target", target, ("gradient", "update"))
        self.kappa = check_number("GsnrDenoiser", "kappa", kappa, 0.0)

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        """An empty state."""
        return State({}, {})

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Scale a gradient, or the update; see `denograd.Denoiser` for shapes."""
        layout = context.layout
        variance = self.kappa * layout.spread(context.noise_known) * noise
        signal = gradient.square()
        if self.scope == "layer":
            signal, variance = layout.spread(layout.sum(torch.stack((signal, variance)))).unbind(0)
        gain = (signal + TINY) / (signal + variance + TINY)
        coefficients = layer_mean(gain, gradient, context).unsqueeze(-1)
        if self.target == "update":
            return Denoised(gradient, gain, None, state, coefficients)
        return Denoised(gain * gradient, None, None, state, coefficients)
