"""Additive contributions."""

from __future__ import annotations

from torch import Tensor

from denograd.explain.own._dispatch import against_others, for_target, own_attributions
from denograd.models import AdditiveNet


@own_attributions.register
def contributions(model: AdditiveNet, x: Tensor, target: Tensor | None, baseline: Tensor) -> Tensor:
    """What each feature adds to the target's score, less what it adds in the baseline.

    In classification it is the score less the mean score of the other classes (with two classes
    the log odds). A pair's contribution is split between its two features. A row sums to that
    score in the row, less that in the baseline.

    Returns:
        ``(n, F)``.
    """
    parts = model.contributions(x) - model.contributions(baseline.unsqueeze(0))
    own = for_target(against_others(parts), target)
    said = own[:, : model.n_features].clone()
    for place, (first, second) in enumerate(model.pairs, start=model.n_features):
        said[:, first] += own[:, place] / 2
        said[:, second] += own[:, place] / 2
    return said
