"""Sharpness as Gini's index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from denograd.explain._checks import as_attributions, shares


def gini(attributions: Any) -> NDArray[np.float64]:
    """How unequal each row's attributions are: 0 if all are alike, near 1 if one has all.

    Hurley and Rickard 2009, "Comparing Measures of Sparsity", IEEE Transactions on Information
    Theory 55(10), arXiv 0811.4706, equation 8: with magnitudes sorted upwards, ``1 - 2 sum_k
    (c_(k) / sum c) (F - k + 1/2) / F``. Among the measures that they compare it is the one that
    meets all six of their criteria. Its largest value is ``1 - 1 / F``.

    Args:
        attributions: ``(n, F)``; more dimensions are flattened. The value of a row of zeros is
            0.

    Returns:
        ``(n,)``, from 0 to ``1 - 1 / F``; higher is sharper.

    Raises:
        ValueError: the attributions are not finite numbers of that shape.

    Example:
        >>> gini([[1.0, 0.0, 0.0, 0.0], [0.5, -0.5, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
        array([0.75, 0.5 , 0.  ])
    """
    share = np.sort(shares(as_attributions("attributions", attributions)), axis=1)
    features = share.shape[1]
    weight = (features - np.arange(1, features + 1) + 0.5) / features
    index: NDArray[np.float64] = 1 - 2 * share @ weight
    return index.clip(0.0, 1 - 1 / features)
