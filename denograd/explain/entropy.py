"""Sharpness as an entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from denograd.explain._checks import as_attributions, shares


def entropy(attributions: Any) -> NDArray[np.float64]:
    """How evenly each row's attribution is spread over features: 0 on one, 1 on all alike.

    Shannon's entropy of the magnitudes' shares, divided by its largest value (Shannon 1948,
    "A Mathematical Theory of Communication", section 6): with ``p_j = |a_j| / sum_k |a_k|``,
    ``-sum_j p_j log p_j / log F``. It does not change with the sign, the scale or the order of
    attributions.

    Args:
        attributions: ``(n, F)``; more dimensions are flattened. A row of zeros counts as one of
            equal shares, and its value is 1; with a single feature the value is 0.

    Returns:
        ``(n,)``, from 0 to 1; lower is sharper.

    Raises:
        ValueError: the attributions are not finite numbers of that shape.

    Example:
        >>> entropy([[1.0, 0.0, 0.0, 0.0], [0.5, -0.5, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
        array([0. , 0.5, 1. ])
    """
    share = shares(as_attributions("attributions", attributions))
    features = share.shape[1]
    if features == 1:
        return np.zeros(len(share))
    spread: NDArray[np.float64] = entr(share).sum(axis=1) / np.log(features)
    # Rounding may lead a little out of the range.
    return spread.clip(0.0, 1.0)
