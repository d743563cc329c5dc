"""Gradients of a stack and their noise, from what reaches each layer's output.

Per-sample gradients need a copy of the weights for each row. Where a layer is linear in its
weights, the mean and the variance over rows follow from its inputs and from the gradients
at its outputs, and no copy is made: the squares of a linear layer's sum to ``(a^2)^T (d^2)``
(Goodfellow 2015, "Efficient Per-Example Gradient Computations", arXiv 1510.01799).
`denograd.noise` does the same for a user's model; this is for stacks of models whose
weights are many for the little they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from denograd.models import AdditiveNet, TabularModel
from denograd.models._base import HIDDEN

Moments = tuple[Tensor, Tensor]
"""Mean of the rows' gradients and variance of that mean, both ``(T, *shape)``."""


class Site(NamedTuple):
    """Where the gradients of some parameters can be read off.

    Attributes:
        output: ``(T, b, ...)``, one value a row.
        moments: from the gradients at ``output`` to the moments of parameters by name.
    """

    output: Tensor
    moments: Callable[[Tensor], dict[str, Moments]]


TracedForward = Callable[[dict[str, Tensor], Tensor, Tensor, Tensor], tuple[Tensor, list[Site]]]
"""As `denograd.meta.forwards.Forward`; with the scores come sites for every parameter."""


def traced_forward(template: TabularModel) -> TracedForward | None:
    """The forward pass of a stack of such models with its sites; None if there is none.

    Example:
        >>> net = AdditiveNet(4, 3)
        >>> forward = traced_forward(net)
        >>> stack = {n: torch.stack((p, 2 * p)) for n, p in net.named_parameters()}
        >>> masks = torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
        >>> x = torch.randn(2, 7, 4)
        >>> scores, sites = forward(stack, x, *masks)
        >>> torch.allclose(scores[0], net(x[0]), atol=1e-6), len(sites)
        (True, 2)
    """
    # A subclass may compute something else.
    if type(template) is AdditiveNet and not template.pairs:
        return _additive
    return None


def mean_and_variance(gradients: Tensor) -> Moments:
    """The mean of micro-batch gradients and the variance of that mean, both ``(..., n)``.

    With ``h_k`` the gradients of ``K`` micro-batches, ``sum_k (h_k - mean)^2 / (K (K - 1))``;
    0 for ``K = 1``.

    Args:
        gradients: ``(..., K, n)``.
    """
    micro, mean = gradients.shape[-2], gradients.mean(-2)
    squares = (gradients - mean.unsqueeze(-2)).square().sum(-2)
    return mean, squares / max(micro * (micro - 1), 1)


def outer_moments(left: Tensor, right: Tensor) -> Moments:
    """Moments of ``b`` outer products, ``(T, b, I)`` and ``(T, b, O)`` to ``(T, I, O)``.

    Example:
        >>> left, right = torch.tensor([[[2.0], [1.0]]]), torch.tensor([[[3.0], [-1.0]]])
        >>> outer_moments(left, right)  # of 6 and -1
        (tensor([[[2.5000]]]), tensor([[[12.2500]]]))
    """
    rows = left.shape[1]
    mean = left.mT @ right / rows
    squares = left.square().mT @ right.square()
    # The difference can fall below 0 by rounding where all rows agree.
    spread = (squares - rows * mean.square()).clamp_min(0.0)
    return mean, spread / max(rows * (rows - 1), 1)


def _row_moments(values: Tensor) -> Moments:
    """Moments of gradients that are there row by row, ``(T, b, *shape)``."""
    mean, variance = mean_and_variance(values.flatten(2))
    return mean.reshape(-1, *values.shape[2:]), variance.reshape(-1, *values.shape[2:])


def _additive(
    parameters: dict[str, Tensor], x: Tensor, feature_mask: Tensor, class_mask: Tensor
) -> tuple[Tensor, list[Site]]:
    """`AdditiveNet.forward` without pairs; the nets' outputs and their sum are one product."""
    weight, bias = (parameters[f"hidden.{part}"].unsqueeze(1) for part in ("weight", "bias"))
    wide = x.unsqueeze(-1)
    before = torch.addcmul(bias, wide, weight)
    hidden = (F.gelu(before) * feature_mask[:, None, :, None]).flatten(2)
    output = parameters["output.weight"]
    scores = torch.baddbmm(parameters["bias.weight"].unsqueeze(1), hidden, output.flatten(1, 2))

    def of_hidden(d: Tensor) -> dict[str, Moments]:
        return {"hidden.weight": _row_moments(wide * d), "hidden.bias": _row_moments(d)}

    def of_output(d: Tensor) -> dict[str, Moments]:
        mean, variance = (m.reshape(output.shape) for m in outer_moments(hidden, d))
        return {"output.weight": (mean, variance), "bias.weight": _row_moments(d)}

    sites = [Site(before, of_hidden), Site(scores, of_output)]
    return scores.masked_fill(~class_mask.unsqueeze(1), HIDDEN), sites
