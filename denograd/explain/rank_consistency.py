"""Consistency over seeds: whether fits put features in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from denograd.explain._checks import as_seeds


def rank_consistency(importances: Any) -> float:
    """The mean correlation of ranks between pairs of fits.

    Spearman 1904, "The Proof and Measurement of Association between Two Things": the correlation
    of ranks, ties getting their mean rank; here of the features' importances in two fits that
    differ in their seed, averaged over all pairs of fits. Give at least ten fits.

    Args:
        importances: ``(S, F)``, the importance of each feature in each fit, or ``(S, ..., F)``,
            for example attributions of the same rows, over which the mean is taken as well. A
            fit in which all features are alike puts them in no order: its pairs count as 0.

    Returns:
        from -1 to 1; higher is more consistent.

    Raises:
        ValueError: fewer than two fits or features, or numbers that are not finite.

    Example:
        >>> round(rank_consistency([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]), 6)
        1.0
        >>> round(rank_consistency([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [1.0, 0.9, 0.8]]), 6)
        -0.333333
    """
    values = as_seeds("importances", importances)
    fits, features = len(values), values.shape[-1]
    if features < 2:
        raise ValueError("importances: it has one feature; an order needs at least 2")
    ranks = rankdata(values, axis=-1) - (features + 1) / 2
    length = np.sqrt((ranks**2).sum(axis=-1, keepdims=True))
    unit = np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)
    # The sum over all pairs of fits is the square of the sum, less each fit with itself.
    with_itself = (unit**2).sum(axis=(0, -1))
    between = (unit.sum(axis=0) ** 2).sum(axis=-1) - with_itself
    mean = float((between / (fits * (fits - 1))).mean())
    return min(max(mean, -1.0), 1.0)
