"""Overlap with ground truth: how many of the top features are the right ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from denograd.explain._checks import as_attributions, as_mask


def relevance_rank(attributions: Any, mask: Any) -> NDArray[np.float64]:
    """The share of the top features that matter, as many of them as do matter.

    Arras et al. 2022, arXiv 2003.07258, section 3.4: *relevance rank accuracy*. If ``K``
    features of a row matter, it is the number of those among the ``K`` with the largest
    attribution, divided by ``K``. Features that tie for the last places count with the chance
    that a draw would give them, so the value does not depend on the features' order.

    Args:
        attributions: ``(n, F)``; more dimensions are flattened. Ranked by magnitude. The value
            of a row of zeros, where all tie, is the mask's share of the features.
        mask: boolean, the same shape, or that of a row: True where ground truth lies.

    Returns:
        ``(n,)``, from 0 to 1; higher is better.

    Raises:
        ValueError: the attributions are not finite numbers of that shape, or the mask has
            another shape or a row without a True.

    Example:
        >>> mask = [True, True, False, False]
        >>> relevance_rank([[5.0, 1.0, -3.0, 0.0], [1.0, 1.0, 1.0, 0.0]], mask)
        array([0.5       , 0.66666667])
    """
    size = np.abs(as_attributions("attributions", attributions))
    within = as_mask(mask, attributions)
    count = within.sum(axis=1)
    # The K-th largest: features above it are in, those equal to it share the places left.
    edge = -np.sort(-size, axis=1)[np.arange(len(size)), count - 1][:, None]
    above, tied = size > edge, size == edge
    left = (count - above.sum(axis=1)) / tied.sum(axis=1)
    hits: NDArray[np.float64] = (above & within).sum(axis=1) + left * (tied & within).sum(axis=1)
    share: NDArray[np.float64] = hits / count
    return share
