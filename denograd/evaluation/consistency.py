"""Whether runs that differ in their seed explain the task alike."""

from __future__ import annotations

import math
from collections.abc import Sequence


def importance_consistency(importances: Sequence[Sequence[float] | None]) -> float | None:
    """The mean Spearman correlation of feature importance over all pairs of seeds.

    See `denograd.explain.rank_consistency`. A run whose features are all alike puts them in
    no order, and its pairs count as 0.

    Args:
        importances: ``(F,)`` for each seed. None, or numbers that are not all finite, for a
            run that has no explanation, because it diverged for example: it is left out.

    Returns:
        from -1 to 1; None if it is unknown: fewer than two seeds with an explanation, fewer
        than two features, or seeds that differ in their number of features, so that a place
        in one vector is not the same feature in another.

    Example:
        >>> round(importance_consistency([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], None]), 6)
        1.0
    """
    known = [
        list(values)
        for values in importances
        if values is not None
        and all(value is not None and math.isfinite(value) for value in values)
    ]
    lengths = {len(values) for values in known}
    if len(known) < 2 or len(lengths) > 1 or min(lengths) < 2:
        return None
    # Explainers load the estimators, which the processes that train need not wait for.
    from denograd.explain import rank_consistency

    return rank_consistency(known)
