"""Running statistics of each layer's gradient, and the features a denoiser reads.

Moments are exponential averages corrected for their start: with ``w_t = (1 - beta) /
(1 - beta^t)``, ``m_t = m_{t-1} + w_t (x_t - m_{t-1})`` equals Adam's bias-corrected moment
(Kingma and Ba 2015, section 3), and every stored number can be read as it stands.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from denograd.denoisers._base import Context, Layout, State

FAST, SLOW, NOISE = 0.9, 0.99, 0.9
TINY = 1e-20
"""Keeps logarithms, quotients and roots of zero, and their derivatives, finite."""

FEATURES = (
    "log_fast_snr",
    "log_slow_snr",
    "log_gradient_snr",
    "log_fast_over_second",
    "log_slow_over_second",
    "log_noise_over_second",
    "log_second_over_peak",
    "cos_gradient_fast",
    "cos_fast_slow",
    "cos_gradient_parameter",
    "cos_gradient_displacement",
    "cos_fast_displacement",
    "log_parameter",
    "log_displacement",
    "log_displacement_over_parameter",
    "log_elements",
    "is_matrix",
    "noise_known",
    "log_step",
    "horizon_known",
    "phase",
    "early_phase",
    "log_horizon",
    "rows_known",
    "log_rows",
    "log_parameters_per_row",
    "log_epochs",
)
"""Names of the features, in order; `layer_features` says what each is."""


class LayerStatistics(NamedTuple):
    """Statistics of a gradient, element by element, and their sums over each layer.

    Attributes:
        fast: ``(..., N)``, first moment of the gradient at 0.9.
        slow: ``(..., N)``, first moment at 0.99.
        second: ``(..., N)``, second moment at 0.99.
        noise: ``(..., N)``, variance of the batch gradient: its average at 0.9 where it
            was ever measured within a batch, and ``second - slow^2`` elsewhere.
        sums: name to ``(..., L)``, the layer sums that the features are made of.
        peak: ``(..., L)``, largest mean second moment so far.
        noise_seen: ``(..., L)``, 1 where the noise was ever measured within a batch.
    """

    fast: Tensor
    slow: Tensor
    second: Tensor
    noise: Tensor
    sums: dict[str, Tensor]
    peak: Tensor
    noise_seen: Tensor


def init_statistics(parameter: Tensor, layout: Layout) -> State:
    """The state before the first step, for parameters of shape ``(..., N)``."""
    zeros = torch.zeros_like(parameter)
    layer = parameter.new_zeros(*parameter.shape[:-1], len(layout))
    return State(
        element={
            "fast": zeros,
            "slow": zeros.clone(),
            "second": zeros.clone(),
            "noise": zeros.clone(),
            "previous": parameter.detach().clone(),
        },
        layer={"steps": layer, "noise_steps": layer.clone(), "peak": layer.clone()},
    )


def update_statistics(
    gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
) -> tuple[LayerStatistics, State]:
    """Take one gradient into the statistics.

    Args:
        gradient: ``(..., N)``.
        noise: ``(..., N)``, variance of ``gradient`` within the batch.
        parameter: ``(..., N)``.
        state: from `init_statistics` or the last call.
        context: of this step.

    Returns:
        the statistics, this gradient included, and the new state.
    """
    layout, element = context.layout, state.element
    steps = state.layer["steps"] + 1
    noise_steps = state.layer["noise_steps"] + context.noise_known
    seen = (noise_steps > 0).to(gradient.dtype)
    weights = torch.stack(
        (
            (1 - FAST) / (1 - FAST**steps),
            (1 - SLOW) / (1 - SLOW**steps),
            context.noise_known * (1 - NOISE) / (1 - NOISE ** noise_steps.clamp_min(1)),
            seen,
        )
    )
    w_fast, w_slow, w_noise, measured = layout.spread(weights).unbind(0)
    squared = gradient.square()
    fast = torch.lerp(element["fast"], gradient, w_fast)
    slow = torch.lerp(element["slow"], gradient, w_slow)
    second = torch.lerp(element["second"], squared, w_slow)
    average = torch.lerp(element["noise"], noise, w_noise)
    over_time = (second - slow.square()).clamp_min(0)
    variance = torch.lerp(over_time, average, measured)
    displacement = parameter - element["previous"]

    products = {
        "gradient": squared,
        "fast": fast.square(),
        "slow": slow.square(),
        "second": second,
        "noise": variance,
        "parameter": parameter.square(),
        "displacement": displacement.square(),
        "gradient_fast": gradient * fast,
        "fast_slow": fast * slow,
        "gradient_parameter": gradient * parameter,
        "gradient_displacement": gradient * displacement,
        "fast_displacement": fast * displacement,
    }
    sums = dict(zip(products, layout.sum(torch.stack(list(products.values()))), strict=True))
    peak = torch.maximum(state.layer["peak"], sums["second"] / context.counts)
    statistics = LayerStatistics(fast, slow, second, variance, sums, peak, seen)
    new_state = State(
        element={
            "fast": fast,
            "slow": slow,
            "second": second,
            "noise": average,
            "previous": parameter,
        },
        layer={"steps": steps, "noise_steps": noise_steps, "peak": peak},
    )
    return statistics, new_state


@lru_cache(maxsize=64)
def _is_matrix(ndims: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """1 for layers of two or more dimensions; kept, because copying to a device waits."""
    return torch.tensor([float(n > 1) for n in ndims], device=device, dtype=dtype)


def _log_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """A quarter of the logarithm of a ratio of squares, cut to ``[-4, 4]``."""
    ratio = torch.log(numerator + TINY) - torch.log(denominator + TINY)
    return 0.25 * ratio.clamp(-16.0, 16.0)


def _cosine(dot: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return dot * torch.rsqrt(a + TINY) * torch.rsqrt(b + TINY)


def layer_features(statistics: LayerStatistics, context: Context) -> Tensor:
    """The features of each layer, ``(..., L, len(FEATURES))``.

    None depends on the scale of the loss. Ratios of squares enter as a quarter of their
    logarithm, cosines as they are. ``displacement`` is how far the parameters moved in
    the last step, whatever moved them, which shows the net the learning rate and the
    base's momentum. A number that is not known enters as 0, with an indicator of 0; rows
    count as known only if the size of a batch is known, too.
    """
    sums, counts, layout = statistics.sums, context.counts, context.layout
    mean_parameter = sums["parameter"] / counts
    mean_displacement = sums["displacement"] / counts

    def wide(x: Tensor) -> Tensor:
        return x.unsqueeze(-1).expand(counts.shape)

    horizon_known = (context.total_steps > 0).to(counts.dtype)
    # Meta-training tells both or neither, so one without the other would be new to the net.
    rows_known = ((context.rows > 0) & (context.batch_size > 0)).to(counts.dtype)
    horizon, rows = context.total_steps.clamp_min(1), context.rows.clamp_min(1)
    phase = horizon_known * (context.step / horizon).clamp(max=1.5)
    elements = counts.sum(-1)
    epochs = (context.step + 1) * context.batch_size / rows
    matrix = _is_matrix(layout.ndims, counts.device, counts.dtype).expand(counts.shape)
    features = (
        _log_ratio(sums["fast"], sums["noise"]),
        _log_ratio(sums["slow"], sums["noise"]),
        _log_ratio(sums["gradient"], sums["noise"]),
        _log_ratio(sums["fast"], sums["second"]),
        _log_ratio(sums["slow"], sums["second"]),
        _log_ratio(sums["noise"], sums["second"]),
        _log_ratio(sums["second"] / counts, statistics.peak),
        _cosine(sums["gradient_fast"], sums["gradient"], sums["fast"]),
        _cosine(sums["fast_slow"], sums["fast"], sums["slow"]),
        _cosine(sums["gradient_parameter"], sums["gradient"], sums["parameter"]),
        _cosine(sums["gradient_displacement"], sums["gradient"], sums["displacement"]),
        _cosine(sums["fast_displacement"], sums["fast"], sums["displacement"]),
        0.25 * torch.log(mean_parameter + 1e-8),
        0.25 * torch.log(mean_displacement + 1e-12) + 2.0,
        0.25 * torch.log((mean_displacement + 1e-12) / (mean_parameter + 1e-8)) + 2.0,
        0.25 * torch.log(counts.expand_as(mean_parameter)) - 1.0,
        matrix,
        statistics.noise_seen,
        wide(0.25 * torch.log(context.step + 1)),
        wide(horizon_known),
        wide(phase),
        wide(horizon_known * torch.exp(-8 * phase)),
        wide(horizon_known * (0.5 * torch.log(horizon) - 2.5)),
        wide(rows_known),
        wide(rows_known * (0.5 * torch.log(rows) - 2.0)),
        wide(rows_known * 0.5 * torch.log(elements / rows)),
        wide(rows_known * 0.25 * torch.log(epochs.clamp_min(1e-3))),
    )
    return torch.stack(features, dim=-1)
