"""Consistency over seeds: how far the attention weights of fits lie apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from denograd.explain._checks import as_seeds, shares


def attention_divergence(weights: Any) -> float:
    """The mean Jensen-Shannon divergence between pairs of fits, in bits.

    Lin 1991, "Divergence Measures Based on the Shannon Entropy", IEEE Transactions on
    Information Theory 37(1), equation 4.1: ``H((p + q) / 2) - (H(p) + H(q)) / 2`` for the
    weights ``p`` and ``q`` of the same row in two fits that differ in their seed, averaged over
    rows and pairs of fits. Jain and Wallace 2019, arXiv 1902.10186, section 3, compare attention
    so. Average the heads first: heads of two fits have no order in common. Give at least ten
    fits.

    Args:
        weights: ``(S, n, F)``, at least 0: the weights of ``n`` rows in each fit. They are scaled
            to sum to 1; a row of zeros counts as one of equal weights.

    Returns:
        from 0, all fits alike, to 1, no two of them look at the same features.

    Raises:
        ValueError: fewer than two fits, weights below 0, or numbers that are not finite.

    Example:
        >>> attention_divergence([[[1.0, 0.0]], [[0.0, 1.0]]])
        1.0
        >>> round(attention_divergence([[[0.5, 0.5]], [[1.0, 0.0]]]), 4)
        0.3113
    """
    values = as_seeds("weights", weights)
    if (values < 0).any():
        raise ValueError(
            f"weights: the least of them is {values.min():.3g}; a divergence is between shares, "
            "which are at least 0. For signed attributions use rank_consistency"
        )
    share = shares(values)
    own: NDArray[np.float64] = entr(share).sum(axis=-1)
    total, pairs = 0.0, 0
    for fit in range(len(share) - 1):
        # One fit against all later ones, so that no more than a copy is held.
        middle = entr((share[fit] + share[fit + 1 :]) / 2).sum(axis=-1)
        divergence = middle - (own[fit] + own[fit + 1 :]) / 2
        total += float(divergence.sum())
        pairs += divergence.size
    return min(max(total / pairs / float(np.log(2)), 0.0), 1.0)
