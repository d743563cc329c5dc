"""AND-mask: keep an element of the gradient only where the parts of the data agree on it.

Parascandolo et al. 2020, "Learning explanations that are hard to vary" (arXiv:2009.00329). With
``g_1 .. g_d`` the gradients of ``d`` environments::

    mask = 1 where |sum_e sign(g_e)| >= tau d, else 0
    step with mask * mean_e(g_e)

Environments here are the ``d`` parts of a batch. A denoiser is told only the mean ``g`` and
its variance ``V``, not the parts. For parts of equal size each part's gradient has mean
``g`` and variance ``d V``; if it is normal, the expected agreement of signs is::

    E[sign(g_e)] = 2 Phi(|g| / sqrt(d V)) - 1 = erf(|g| / sqrt(2 d V))

and the mask is 1 where that reaches ``tau``: a threshold on the signal-to-noise ratio. So
`AndMaskDenoiser` is the mask at the expected agreement. `and_mask` is the paper's, for those
who have the parts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from denograd.baselines.analytic._shared import check_number, layer_mean
from denograd.denoisers import Context, Denoised, Layout, State
from denograd.statistics import TINY


def and_mask(gradients: Tensor, threshold: float) -> Tensor:
    """The paper's mask, from the gradient of each environment.

    Args:
        gradients: ``(d, ..., N)``.
        threshold: ``tau``, the agreement that is asked for, between 0 and 1.

    Returns:
        1 or 0, ``(..., N)``.

    Example:
        >>> parts = torch.tensor([[1.0, 1.0], [2.0, -1.0], [0.5, 1.0]])
        >>> and_mask(parts, 0.9)
        tensor([1., 0.])
    """
    agreement = gradients.sign().mean(0).abs()
    # A mean of d signs is exact only to rounding, and tau d may be a whole number.
    return (agreement >= threshold - 1e-6).to(gradients.dtype)


def expected_agreement(gradient: Tensor, noise: Tensor, parts: int) -> Tensor:
    """Expected agreement of signs of ``parts`` parts of a batch, in ``[0, 1]``.

    Args:
        gradient: the mean gradient.
        noise: variance of that mean.
        parts: ``d``.

    Example:
        >>> expected_agreement(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0]), parts=4)
        tensor([0.6827, 0.0000])
    """
    # Without noise all parts agree, unless there is no gradient either.
    return torch.erf(gradient.abs() * torch.rsqrt(2.0 * parts * noise + TINY))


class AndMaskDenoiser:
    """Drop the elements whose sign the parts of a batch are not expected to agree on.

    A layer whose noise was not measured within the batch keeps its plain gradient.

    Args:
        threshold: ``tau``, the agreement that is asked for, in ``[0, 1)``; at 0 nothing is
            dropped.
        parts: ``d``, number of parts that the batch is thought to be cut into.

    Raises:
        BaselineError: a value that makes no sense.

    Example:
        >>> denoiser = AndMaskDenoiser(threshold=0.5, parts=4)
        >>> layout, zero = Layout((2,), (1,)), torch.zeros(())
        >>> context = Context(layout, torch.tensor([2.0]), torch.ones(1), zero, zero, zero, zero)
        >>> g = torch.tensor([2.0, 1.0])
        >>> denoiser(g, torch.ones(2), g, denoiser.init_state(g, layout), context).gradient
        tensor([2., 0.])
    """

    coefficient_names: tuple[str, ...] = ("kept",)

    def __init__(self, threshold: float = 0.5, parts: int = 4) -> None:
        self.threshold = check_number("AndMaskDenoiser", "threshold", threshold, 0.0, 1.0)
        self.parts = int(check_number("AndMaskDenoiser", "parts", parts, 1.0))

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        """An empty state."""
        return State({}, {})

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Mask a gradient; see `denograd.Denoiser` for shapes."""
        agreement = expected_agreement(gradient, noise, self.parts)
        unknown = context.layout.spread(context.noise_known) == 0
        mask = ((agreement >= self.threshold) | unknown).to(gradient.dtype)
        coefficients = layer_mean(mask, gradient, context).unsqueeze(-1)
        return Denoised(mask * gradient, None, None, state, coefficients)
