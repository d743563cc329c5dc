"""Overlap with ground truth: whether the top feature is a right one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from denograd.explain._checks import as_attributions, as_mask


def pointing_game(attributions: Any, mask: Any) -> NDArray[np.float64]:
    """Whether the largest attribution of each row lies on a feature that matters.

    Zhang et al. 2018, "Top-Down Neural Attention by Excitation Backprop", International Journal
    of Computer Vision 126, arXiv 1608.00507, section 4.1: a hit if it does, and the accuracy is
    hits by hits and misses, so the mean of what is returned. On images they let the point be 15
    pixels off; for such a tolerance dilate the mask.

    Args:
        attributions: ``(n, F)``; more dimensions are flattened. The largest magnitude counts.
            Where several features tie for it, the value is the share of them that matter; for a
            row of zeros that is the mask's share of the features.
        mask: boolean, the same shape, or that of a row: True where ground truth lies.

    Returns:
        ``(n,)``: 1 for a hit, 0 for a miss, between them for ties.

    Raises:
        ValueError: the attributions are not finite numbers of that shape, or the mask has
            another shape or a row without a True.

    Example:
        >>> pointing_game([[0.2, -0.9, 0.1], [0.5, 0.1, 0.5]], [True, False, False])
        array([0. , 0.5])
    """
    size = np.abs(as_attributions("attributions", attributions))
    within = as_mask(mask, attributions)
    top = size == size.max(axis=1, keepdims=True)
    hits: NDArray[np.float64] = (top & within).sum(axis=1) / top.sum(axis=1)
    return hits
