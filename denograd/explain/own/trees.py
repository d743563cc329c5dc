"""Contributions of the gates on a row's way through soft trees."""

from __future__ import annotations

import torch
from torch import Tensor

from denograd.explain.own._dispatch import against_others, for_target, own_attributions
from denograd.models import SoftTree
from denograd.models._trees import TreeModel, descend

_NEAR = 1e-4
"""Log odds closer than this have the slope of the sigmoid between them, to single precision."""


@own_attributions.register
def gate_contributions(
    model: TreeModel, x: Tensor, target: Tensor | None, baseline: Tensor
) -> Tensor:
    """How far each feature moves the gates that a row passes, and what that changes.

    The contributions of hard trees' nodes (Saabas 2014, "Interpreting random forests"; Palczewska
    et al. 2013, arXiv 1312.1121, section 3), for soft gates. Below a gate ``i`` lie values
    ``left_i`` and ``right_i``: what a row gets there that goes on like the baseline ``r``. The
    gate changes the output by ``reach_i(x) (p_i(x) - p_i(r)) (right_i - left_i)``, and these
    changes sum to the output less the baseline's. A gate is a sigmoid of a sum, and its change
    is shared among the sum's terms ``w_ij (x_j - r_j)`` in proportion to them (which is the
    sigmoid's integrated gradient, Sundararajan et al. 2017, arXiv 1703.01365). So a row sums,
    exactly, to what it explains: the probability of the target's class for `SoftTree`, its score
    less the mean of the others' for `SoftForest`, the value in regression, each less that of the
    baseline.

    Returns:
        ``(n, F)``.
    """
    temperature: float = model.temperature  # type: ignore[assignment]
    weight, threshold, leaves = model._hard_trees()
    if isinstance(model, SoftTree):
        values = leaves if model.n_classes is None else leaves.exp()
    else:
        values = against_others(leaves)
    odds = (torch.einsum("bf,tnf->btn", x, weight) - threshold) / temperature
    base = (torch.einsum("f,tnf->tn", baseline, weight) - threshold) / temperature
    reach = torch.cat(descend(odds, model.depth)[:-1], dim=-1).exp()
    gap = odds - base
    right = base.sigmoid()
    close = gap.abs() < _NEAR
    rise = (odds.sigmoid() - right) / torch.where(close, 1.0, gap)
    slope = torch.where(close, right * (1 - right), rise)
    change = for_target(_differences(values, right, model.depth).expand(len(x), -1, -1, -1), target)
    per_unit = reach * slope * change / temperature
    return torch.einsum("btn,tnf->bf", per_unit, weight) * (x - baseline)


def _differences(leaves: Tensor, right: Tensor, depth: int) -> Tensor:
    """What the right side of each gate is worth more than its left, ``(T, N, n_outputs)``.

    Args:
        leaves: ``(T, 2**depth, n_outputs)``.
        right: the baseline's probability of going right at each gate, ``(T, 2**depth - 1)``.
        depth: levels of gates.
    """
    values, found = leaves, []
    for level in reversed(range(depth)):
        left_side, right_side = values.unflatten(1, (-1, 2)).unbind(2)
        share = right[:, 2**level - 1 : 2 ** (level + 1) - 1].unsqueeze(-1)
        found.append(right_side - left_side)
        values = left_side + share * (right_side - left_side)
    return torch.cat(found[::-1], dim=1)
