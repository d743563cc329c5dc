"""One step's denoising of one flat group, and what a non-finite number does to it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from denograd.denoisers import Context, Denoised, Denoiser, Layout, State


class Cleaned(NamedTuple):
    """What a step uses.

    Attributes:
        plain: ``(N,)``, the gradient before the denoiser.
        result: the denoiser's, with the layers that fell back put right.
        changed: False if the cleaned gradient is the plain one, so needs no copying.
        fell_back: ``(L,)``, boolean.
    """

    plain: Tensor
    result: Denoised
    changed: bool
    fell_back: Tensor


def clean(
    denoiser: Denoiser,
    gradient: Tensor,
    noise: Tensor,
    parameter: Tensor,
    state: State,
    context: Context,
) -> Cleaned:
    """Call the denoiser, and undo it in each layer where a number is not finite.

    Such a layer gets its plain gradient, a gain of 1, no decay and its previous state.
    Of a layer whose gradient, noise or parameters are not finite, or so large that their
    squares are not, the denoiser sees zeros, so that they can't spread to other layers.

    Raises:
        ValueError: the denoiser returned tensors of the wrong shape.
    """
    layout = context.layout
    finite, (seen, noise, parameter) = visible(layout, gradient, noise, parameter)
    result = denoiser(seen, noise, parameter, state, context)
    _check_shapes(denoiser, result, gradient, layout)

    changed = result.gradient is not seen
    elements = [result.gradient, *result.state.element.values()]
    layers = list(result.state.layer.values())
    if result.gain is not None:
        elements.append(result.gain)
    if result.decay is not None:
        layers.append(result.decay)
    fine = finite & _finite(layout, elements, layers)
    here = layout.spread(fine)
    gain = None if result.gain is None else torch.where(here, result.gain, 1.0)
    decay = None if result.decay is None else torch.where(fine, result.decay, 0.0)
    kept = State(
        {k: torch.where(here, new, state.element[k]) for k, new in result.state.element.items()},
        {k: torch.where(fine, new, state.layer[k]) for k, new in result.state.layer.items()},
    )
    cleaned = torch.where(here, result.gradient, gradient) if changed else gradient
    used = Denoised(cleaned, gain, decay, kept, result.coefficients)
    return Cleaned(gradient, used, changed, ~fine)


def visible(
    layout: Layout, gradient: Tensor, noise: Tensor, parameter: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Which layers are finite, ``(L,)``, and the three ``(N,)`` with zeros in all others."""
    finite = _finite(layout, [gradient.square(), noise, parameter.square()], [])
    inside = layout.spread(finite)
    return finite, [torch.where(inside, x, 0.0) for x in (gradient, noise, parameter)]


def _finite(layout: Layout, elements: list[Tensor], layers: list[Tensor]) -> Tensor:
    """Whether all numbers of a layer are finite, ``(L,)``."""
    # Zero times anything finite is zero, so one sum a layer tells about all its elements.
    marks = layout.sum(sum((x * 0.0 for x in elements[1:]), elements[0] * 0.0))
    for values in layers:
        marks = marks + values * 0.0
    return marks == 0


def _check_shapes(denoiser: Denoiser, result: Denoised, gradient: Tensor, layout: Layout) -> None:
    whole, each = gradient.shape, torch.Size((len(layout),))
    expected = {
        "gradient": (result.gradient, whole),
        "gain": (result.gain, whole),
        "decay": (result.decay, each),
        **{f"state.element[{k!r}]": (x, whole) for k, x in result.state.element.items()},
        **{f"state.layer[{k!r}]": (x, each) for k, x in result.state.layer.items()},
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"DenoGrad: {type(denoiser).__name__} returned {name} of shape "
                f"{tuple(tensor.shape)}; it must be {tuple(shape)}"
            )
