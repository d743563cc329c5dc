"""The learned denoiser: a small net per layer that sets a closed-form filter.

The net never sees single elements. It reads the features of a layer and returns a
handful of coefficients; what happens to each element follows from them by formula, with
Wiener's gain ``w = s / (s + kappa)``, ``s = m^2 / variance`` (Wiener 1949; the same shape
as the gain of Balles and Hennig 2018, "Dissecting Adam", section 4.2). One net serves
layers of any size, and what it did can be read from its coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from denograd.denoisers._base import Context, Denoised, Layout, State
from denograd.statistics import (
    FEATURES,
    TINY,
    LayerStatistics,
    init_statistics,
    layer_features,
    update_statistics,
)

COEFFICIENTS = (
    "gradient_gain",
    "fast_filter",
    "fast_kappa",
    "add_fast",
    "add_slow",
    "update_gain",
    "slow_filter",
    "slow_kappa",
    "decay",
    "unscale",
)
"""Names of the coefficients of a layer, in order; `WienerDenoiser` says what each does."""

NEUTRAL = dict.fromkeys(
    ("fast_filter", "slow_filter", "add_fast", "add_slow", "decay", "unscale"), 0.0
)
"""Values at which a coefficient does nothing; 1 for those that are not named here."""


class WienerDenoiser(nn.Module):
    """Filter each layer's gradient with coefficients that a small shared net chooses.

    With ``m`` the fast and ``M`` the slow first moment, ``V`` the noise variance::

        w          = m^2 / (m^2 + fast_kappa V)
        cleaned    = g gradient_gain (1 - fast_filter + fast_filter w)
                     + add_fast m + add_slow M
        W          = M^2 / (M^2 + slow_kappa V)
        gain       = update_gain (1 - slow_filter + slow_filter W)

    Every coefficient is bounded: the gains to ``[e^-1.5, e^1.5]`` and ``[e^-2.5, e^2.5]``,
    the filters to ``[0, 1]``, the kappas to ``[e^-4, e^4]``, the additions to
    ``[-1, 1]``, the decay to ``0.05 [e^-3, e^3]``. An untrained net starts near the base
    optimizer.

    Args:
        hidden: width of the net's two hidden layers.
        pooled: whether a layer also sees the mean features of all layers.
        disabled: names of coefficients held at the value at which they do nothing, for
            ablations; `PARTS` names groups of them.
        within_batch: whether it reads the noise within the batch. Without it `DenoGrad` does
            not measure that noise, and takes the variance over time in its place.

    Raises:
        ValueError: ``hidden`` is not a whole number of at least 1, ``disabled`` names no
            coefficient, or ``within_batch`` is neither True nor False.

    Example:
        >>> denoiser = WienerDenoiser(hidden=8)
        >>> layout = Layout((3,), (1,))
        >>> p, g = torch.zeros(3), torch.tensor([1.0, -2.0, 0.5])
        >>> one, zero = torch.ones(()), torch.zeros(())
        >>> context = Context(layout, torch.tensor([3.0]), torch.ones(1), zero, zero, zero, zero)
        >>> result = denoiser(g, 0.1 * g**2, p, denoiser.init_state(p, layout), context)
        >>> result.gradient.shape, result.gain.shape, result.decay.shape
        (torch.Size([3]), torch.Size([3]), torch.Size([1]))
    """

    feature_names: tuple[str, ...] = FEATURES
    coefficient_names: tuple[str, ...] = COEFFICIENTS
    PARTS: ClassVar[dict[str, tuple[str, ...]]] = {
        "filter": ("fast_filter", "slow_filter"),
        "gains": ("gradient_gain", "update_gain", "decay"),
    }

    def __init__(
        self,
        hidden: int = 32,
        pooled: bool = True,
        disabled: Sequence[str] = (),
        within_batch: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(hidden, bool) or not isinstance(hidden, int) or hidden < 1:
            raise ValueError(
                f"WienerDenoiser: hidden={hidden!r}; it must be a whole number of at least 1"
            )
        if not isinstance(within_batch, bool):
            raise ValueError(
                f"WienerDenoiser: within_batch={within_batch!r}; it must be True or False"
            )
        unknown = [name for name in disabled if name not in COEFFICIENTS]
        if unknown:
            raise ValueError(
                f"WienerDenoiser: disabled={unknown!r} are no coefficients; choose from "
                f"{', '.join(COEFFICIENTS)}"
            )
        self.hidden, self.pooled, self.disabled = hidden, pooled, tuple(disabled)
        self.within_batch = within_batch
        inputs = len(FEATURES) * (2 if pooled else 1)
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, len(COEFFICIENTS))
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            self.last.bias.zero_()
            for name in ("fast_filter", "slow_filter"):
                self.last.bias[COEFFICIENTS.index(name)] = -2.0
            self.last.bias[COEFFICIENTS.index("decay")] = -0.5
            self.last.bias[COEFFICIENTS.index("unscale")] = -2.0

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that rebuild this denoiser without its weights."""
        return {
            "hidden": self.hidden,
            "pooled": self.pooled,
            "disabled": list(self.disabled),
            "within_batch": self.within_batch,
        }

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        """Empty statistics."""
        return init_statistics(parameter, layout)

    def coefficients(self, features: Tensor) -> Tensor:
        """Bounded coefficients, ``(..., L, features)`` to ``(..., L, coefficients)``."""
        if self.pooled:
            mean = features.mean(-2, keepdim=True).expand_as(features)
            features = torch.cat((features, mean), dim=-1)
        hidden = torch.tanh(_linear(features, self.first))
        raw = _linear(torch.tanh(_linear(hidden, self.second)), self.last)
        bounded = torch.tanh(raw)
        (
            gain,
            filter_fast,
            kappa_fast,
            fast,
            slow,
            update,
            filter_slow,
            kappa_slow,
            decay,
            unscale,
        ) = range(len(COEFFICIENTS))
        coefficients = torch.stack(
            (
                torch.exp(1.5 * bounded[..., gain]),
                torch.sigmoid(raw[..., filter_fast]),
                torch.exp(4.0 * bounded[..., kappa_fast]),
                bounded[..., fast],
                bounded[..., slow],
                torch.exp(2.5 * bounded[..., update]),
                torch.sigmoid(raw[..., filter_slow]),
                torch.exp(4.0 * bounded[..., kappa_slow]),
                0.05 * torch.exp(3.0 * bounded[..., decay]),
                torch.sigmoid(raw[..., unscale]),
            ),
            dim=-1,
        )
        if not self.disabled:
            return coefficients
        kept = []
        for name, values in zip(COEFFICIENTS, coefficients.unbind(-1), strict=True):
            neutral = torch.full_like(values, NEUTRAL.get(name, 1.0))
            kept.append(neutral if name in self.disabled else values)
        return torch.stack(kept, dim=-1)

    def observe(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> tuple[Tensor, LayerStatistics, State]:
        """What the net reads, ``(..., L, features)``, what that was made of, and the new state."""
        if not self.within_batch:
            noise = torch.zeros_like(noise)
            context = context._replace(noise_known=torch.zeros_like(context.noise_known))
        statistics, new_state = update_statistics(gradient, noise, parameter, state, context)
        return layer_features(statistics, context), statistics, new_state

    def gains(
        self, statistics: LayerStatistics, kappa_fast: Tensor, kappa_slow: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Wiener's gains of the fast and of the slow moment, ``(..., N)`` as the kappas are."""
        return (
            _wiener_gain(statistics.fast, kappa_fast * statistics.noise),
            _wiener_gain(statistics.slow, kappa_slow * statistics.noise),
        )

    def forward(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Clean a gradient; see `denograd.Denoiser` for shapes."""
        features, statistics, new_state = self.observe(gradient, noise, parameter, state, context)
        coefficients = self.coefficients(features)
        by_layer = coefficients.movedim(-1, 0)
        mean_second = statistics.sums["second"] / context.counts
        spread = context.layout.spread(torch.stack((*by_layer[:8], by_layer[9], mean_second)))
        gain, filter_fast, kappa_fast, fast, slow, update, filter_slow, kappa_slow = spread[:8]
        unscale, mean_second = spread[8:]
        w_fast, w_slow = self.gains(statistics, kappa_fast, kappa_slow)
        cleaned = gradient * gain * (1 - filter_fast + filter_fast * w_fast)
        cleaned = cleaned + fast * statistics.fast + slow * statistics.slow
        update_gain = update * (1 - filter_slow + filter_slow * w_slow)
        update_gain = update_gain * _relative_root(statistics.second, mean_second) ** unscale
        return Denoised(cleaned, update_gain, coefficients[..., 8], new_state, coefficients)


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """A linear layer whose weights may have the same leading dimensions as its input.

    `nn.Linear` takes no leading dimensions, and meta-training gives each task its own copy.
    """
    return x @ layer.weight.mT + layer.bias.unsqueeze(-2)


def _relative_root(second: Tensor, mean: Tensor) -> Tensor:
    """Root of a second moment relative to the layer's mean, cut to ``[1/32, 32]``."""
    relative = (second + TINY) / (mean + TINY)
    return relative.clamp(2.0**-10, 2.0**10).sqrt()


def _wiener_gain(moment: Tensor, variance: Tensor) -> Tensor:
    """Wiener's gain ``m^2 / (m^2 + v)``, 1 where there is no noise at all."""
    signal = moment.square()
    return (signal + TINY) / (signal + variance + TINY)
