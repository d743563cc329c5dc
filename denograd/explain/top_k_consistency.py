"""Consistency over seeds: whether fits name the same top features."""

from __future__ import annotations

from typing import Any

import numpy as np

from denograd.explain._checks import as_seeds, check_k


def top_k_consistency(importances: Any, k: int) -> float:
    """The mean overlap of the top features between pairs of fits.

    Jaccard 1912, "The Distribution of the Flora in the Alpine Zone": of two sets, what they
    share divided by what they hold together; here of the ``k`` features with the largest
    magnitudes in two fits that differ in their seed, averaged over all pairs of fits. Give at
    least ten fits.

    Args:
        importances: ``(S, F)``, the importance of each feature in each fit, or ``(S, ..., F)``,
            over which the mean is taken as well. A feature of importance 0 is among no fit's
            top, so there may be fewer than ``k``; two fits that name none have 0 in common.
            Otherwise ties go to the feature that comes first.
        k: number of top features, at most ``F``.

    Returns:
        from 0 to 1; higher is more consistent.

    Raises:
        ValueError: fewer than two fits, a ``k`` that is not a whole number from 1 to ``F``, or
            numbers that are not finite.

    Example:
        >>> top_k_consistency([[0.5, 0.3, 0.2, 0.0], [0.3, 0.5, 0.1, 0.1]], k=2)
        1.0
        >>> top_k_consistency([[0.5, 0.3, 0.2, 0.0], [0.5, 0.0, 0.2, 0.3]], k=2)
        0.333...
    """
    size = np.abs(as_seeds("importances", importances))
    k = check_k(k, size.shape[-1])
    best = np.argsort(-size, axis=-1, kind="stable")[..., :k]
    top = np.zeros(size.shape)
    np.put_along_axis(top, best, 1.0, axis=-1)
    top *= size > 0
    top = np.moveaxis(top, 0, -2)
    shared = top @ np.swapaxes(top, -1, -2)
    own = top.sum(axis=-1)
    together = own[..., :, None] + own[..., None, :] - shared
    overlap = np.divide(shared, together, out=np.zeros_like(shared), where=together > 0)
    first, second = np.triu_indices(len(size), 1)
    return float(overlap[..., first, second].mean())
