"""The learned denoiser: a small net per layer that sets a closed-form filter.

The net never sees single elements. It reads the features of a layer and returns a
handful of coefficients; what happens to each element follows from them by formula, with
Wiener's gain ``w = s / (s + kappa)``, ``s = m^2 / variance`` (Wiener 1949; the same shape
as the gain of Balles and Hennig 2018, "Dissecting Adam", section 4.2). One net serves
layers of any size, and what it did can be read from its coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

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


class Coefficient(NamedTuple):
    """What is fixed of a coefficient; `WienerDenoiser` says what it does.

    Attributes:
        bounded: from what the net gives, any number, to the coefficient.
        neutral: value at which it does nothing.
        multiplies: whether it multiplies something, so that its effects are ratios.
        start: what the net gives before it is trained.
    """

    bounded: Callable[[Tensor], Tensor]
    neutral: float
    multiplies: bool
    start: float = 0.0


def _factor(largest: float, middle: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Between ``middle e^-largest`` and ``middle e^largest``."""
    return lambda raw: middle * torch.exp(largest * torch.tanh(raw))


COEFFICIENTS = {
    "gradient_gain": Coefficient(_factor(1.5), neutral=1.0, multiplies=True),
    "fast_filter": Coefficient(torch.sigmoid, neutral=0.0, multiplies=False, start=-2.0),
    "fast_kappa": Coefficient(_factor(4.0), neutral=1.0, multiplies=True),
    "add_fast": Coefficient(torch.tanh, neutral=0.0, multiplies=False),
    "add_slow": Coefficient(torch.tanh, neutral=0.0, multiplies=False),
    "update_gain": Coefficient(_factor(2.5), neutral=1.0, multiplies=True),
    "slow_filter": Coefficient(torch.sigmoid, neutral=0.0, multiplies=False, start=-2.0),
    "slow_kappa": Coefficient(_factor(4.0), neutral=1.0, multiplies=True),
    "decay": Coefficient(_factor(3.0, middle=0.05), neutral=0.0, multiplies=True, start=-0.5),
}
"""The coefficients of a layer by name, in the order in which the net gives them."""


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
    coefficient_names: tuple[str, ...] = tuple(COEFFICIENTS)
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
            starts = [coefficient.start for coefficient in COEFFICIENTS.values()]
            self.last.bias.copy_(torch.tensor(starts))

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
        found = []
        for (name, coefficient), values in zip(COEFFICIENTS.items(), raw.unbind(-1), strict=True):
            if name in self.disabled:
                found.append(torch.full_like(values, coefficient.neutral))
            else:
                found.append(coefficient.bounded(values))
        return torch.stack(found, dim=-1)

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
        self, statistics: LayerStatistics, fast_kappa: Tensor, slow_kappa: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Wiener's gains of the fast and of the slow moment, ``(..., N)`` as the kappas are."""
        return (
            _wiener_gain(statistics.fast, fast_kappa * statistics.noise),
            _wiener_gain(statistics.slow, slow_kappa * statistics.noise),
        )

    def forward(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Clean a gradient; see `denograd.Denoiser` for shapes."""
        features, statistics, new_state = self.observe(gradient, noise, parameter, state, context)
        coefficients = self.coefficients(features)
        # The last one, the decay, is one number a layer.
        of_elements = self.coefficient_names[:-1]
        spread = context.layout.spread(coefficients[..., :-1].movedim(-1, 0))
        c = dict(zip(of_elements, spread, strict=True))
        w, w_slow = self.gains(statistics, c["fast_kappa"], c["slow_kappa"])
        cleaned = gradient * c["gradient_gain"] * (1 - c["fast_filter"] + c["fast_filter"] * w)
        cleaned = cleaned + c["add_fast"] * statistics.fast + c["add_slow"] * statistics.slow
        gain = c["update_gain"] * (1 - c["slow_filter"] + c["slow_filter"] * w_slow)
        return Denoised(cleaned, gain, coefficients[..., -1], new_state, coefficients)


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """A linear layer whose weights may have the same leading dimensions as its input.

    `nn.Linear` takes no leading dimensions, and meta-training gives each task its own copy.
    """
    return x @ layer.weight.mT + layer.bias.unsqueeze(-2)


def _wiener_gain(moment: Tensor, variance: Tensor) -> Tensor:
    """Wiener's gain ``m^2 / (m^2 + v)``, 1 where there is no noise at all."""
    signal = moment.square()
    return (signal + TINY) / (signal + variance + TINY)
