"""How much an explanation changes when its row hardly does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from denograd.explain._checks import (
    as_attributions,
    as_numbers,
    check_count,
    check_positive,
    kind_of,
)
from denograd.explain._frames import numbers_of
from denograd.explain.explainer import Explainer


def max_sensitivity(
    explainer: Explainer,
    x: Any,
    *,
    radius: float = 0.1,
    samples: int = 10,
    target: Any = None,
    relative: bool = True,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The largest change of each row's attributions within a small box around the row.

    Yeh et al. 2019, "On the (In)fidelity and Sensitivity of Explanations", arXiv 1901.09392,
    definition 3.1: ``max ||explain(y) - explain(x)||`` over ``||y - x|| <= radius``. As there,
    the largest of random draws stands for the maximum, so more samples give larger values; draws
    are uniform in each feature (the largest absolute difference is the norm of ``y - x``), and
    the norm of the change is the Euclidean one. With ``relative`` it is divided by the norm of
    the row's own attributions, without which explanations of another scale cannot be compared.

    Args:
        explainer: what is examined.
        x: rows, ``(n, F)``, numbers; best standardised, so that ``radius`` means the same in all
            features. In a DataFrame only columns of numbers are changed; text, booleans, dates
            and missing values stay as they are.
        radius: half the edge of the box, above 0.
        samples: draws for each row.
        target: class to explain, see `Explainer`; None for the class that ``explainer`` chooses,
            anew for each draw.
        relative: whether to divide by the norm of the row's attributions. Where that is 0, the
            change itself is returned.
        seed: of the draws.

    Returns:
        ``(n,)``, at least 0; lower is steadier.

    Raises:
        ValueError: ``x`` or what ``explainer`` returns is not ``(rows, features)`` of finite
            numbers, no column of a DataFrame holds numbers, ``radius`` is not above 0, or
            ``samples`` is not a whole number above 0.

    Example:
        >>> x = np.zeros((2, 3))
        >>> steady = max_sensitivity(lambda x, target=None: np.ones(x.shape), x)
        >>> steady.tolist()
        [0.0, 0.0]
        >>> rows = max_sensitivity(lambda x, target=None: x, x, radius=0.5, relative=False)
        >>> bool((rows <= 0.5 * 3**0.5).all())
        True
    """
    if isinstance(x, pd.DataFrame):
        rows, as_given = numbers_of(x)
    else:
        remedy = "leave those rows out, or give a DataFrame, which may have gaps"
        rows, as_given = as_numbers("x", x, remedy), kind_of(x)
    if rows.ndim < 2 or len(rows) == 0:
        raise ValueError(f"x: it has shape {rows.shape}; it must be (rows, features)")
    radius = check_positive("radius", radius)
    samples = check_count("samples", samples)

    def explained(values: NDArray[np.float64]) -> NDArray[np.float64]:
        said = as_attributions("explainer: its attributions", explainer(as_given(values), target))
        if len(said) != len(rows):
            raise ValueError(
                f"explainer: it gives {len(said)} rows of attributions for {len(rows)} rows of x"
            )
        return said

    own = explained(rows)
    rng = np.random.default_rng(seed)
    largest = np.zeros(len(rows))
    for _ in range(samples):
        near = rows + rng.uniform(-radius, radius, size=rows.shape)
        largest = np.maximum(largest, np.linalg.norm(explained(near) - own, axis=1))
    if not relative:
        return largest
    size = np.linalg.norm(own, axis=1)
    return largest / np.where(size > 0, size, 1.0)
