"""Overlap with ground truth: how much of the attribution lies where it should."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from denograd.explain._checks import as_attributions, as_mask, shares


def relevance_mass(attributions: Any, mask: Any) -> NDArray[np.float64]:
    """The share of each row's attribution that lies on the features that matter.

    Arras et al. 2022, "CLEVR-XAI: A benchmark dataset for the ground truth evaluation of neural
    network explanations", Information Fusion 81, arXiv 2003.07258, section 3.4: *relevance mass
    accuracy*, the sum of relevance within the ground truth divided by the sum of all of it.
    Relevance is the magnitude of the attribution; for its positive part alone give
    ``numpy.maximum(attributions, 0)``.

    Args:
        attributions: ``(n, F)``; more dimensions are flattened. A row of zeros counts as one of
            equal attributions, and its value is the mask's share of the features.
        mask: boolean, the same shape, or that of a row: True where ground truth lies.

    Returns:
        ``(n,)``, from 0 to 1; higher is better.

    Raises:
        ValueError: the attributions are not finite numbers of that shape, or the mask has
            another shape or a row without a True.

    Example:
        >>> mask = [True, False, False, True]
        >>> relevance_mass([[3.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], mask)
        array([0.75, 0.5 ])
    """
    share = shares(as_attributions("attributions", attributions))
    within = as_mask(mask, attributions)
    total: NDArray[np.float64] = (share * within).sum(axis=1)
    return total.clip(0.0, 1.0)
