"""Training rows, and what sample and class weights make of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import _check_sample_weight

MAX_REPEATED = 100_000
"""Whole-number weights are counts of rows up to this sum; beyond it they scale the loss."""


class TrainingRows(NamedTuple):
    """Rows that a fit learns from, in an order that does not depend on how they came.

    Attributes:
        frame: ``(n, columns)``, with the index of ``X``.
        target: ``(n,)``.
        weight: ``(n,)``, factors of each row's loss; None if all are 1.
        position: ``(n,)``, where each row stood in ``X``. A row that is taken several times
            has the same position each time, which an index need not tell.
    """

    frame: pd.DataFrame
    target: NDArray[Any]
    weight: NDArray[np.float64] | None
    position: NDArray[np.int64]

    def take(self, chosen: NDArray[np.bool_]) -> TrainingRows:
        """Some of the rows."""
        weight = None if self.weight is None else self.weight[chosen]
        return TrainingRows(self.frame[chosen], self.target[chosen], weight, self.position[chosen])


def training_rows(
    frame: pd.DataFrame, target: NDArray[Any], sample_weight: ArrayLike | None
) -> TrainingRows:
    """Apply sample weights, and sort.

    Weights that are whole numbers count rows: a row of weight 3 is taken three times, one
    of weight 0 not at all. That is exact in everything that follows (batches, noise within
    a batch, preprocessing, validation rows). Other weights leave the rows as they are and
    scale their losses; rows of weight 0 are left out here too. The rows are sorted, so
    that neither the order of ``X`` nor the way a row was repeated matters.

    Args:
        frame: ``(n, columns)``.
        target: ``(n,)``.
        sample_weight: ``(n,)``, at least 0, or one number for all; None for 1.

    Raises:
        ValueError: a weight is negative or not finite, all are 0, or the shape is wrong.

    Example:
        >>> rows = training_rows(pd.DataFrame({"f0": [1.0, 2.0, 3.0]}), np.arange(3), [2, 0, 1])
        >>> rows.frame["f0"].tolist(), rows.target.tolist(), rows.weight
        ([1.0, 1.0, 3.0], [0, 0, 2], None)
    """
    weight: NDArray[np.float64] | None = None
    kept = np.arange(len(frame))
    if sample_weight is not None:
        weight = np.asarray(_check_sample_weight(sample_weight, target, dtype=np.float64))
        if (weight < 0).any():
            raise ValueError(
                f"sample_weight holds {weight.min():g}; weights must be at least 0, and 0 leaves a "
                "row out"
            )
        if not (weight > 0).any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        kept = np.flatnonzero(weight)
        if (weight % 1 == 0).all() and weight.sum() <= MAX_REPEATED:
            kept, weight = kept.repeat(weight[kept].astype(np.int64)), None
        else:
            weight = weight[kept]
        frame, target = frame.iloc[kept], target[kept]
    order = np.lexsort(
        [*([] if weight is None else [weight]), target, *(_sortable(frame[c]) for c in frame)]
    )
    weight = None if weight is None else weight[order]
    return TrainingRows(frame.iloc[order], target[order], weight, kept[order])


def hold_out(
    rows: TrainingRows,
    fraction: float,
    strata: NDArray[Any] | None,
    rng: np.random.RandomState,
) -> NDArray[np.bool_]:
    """Which rows are held out; all copies of a row lie on the same side.

    Args:
        rows: ``n`` of them.
        fraction: share of the distinct rows.
        strata: ``(n,)``, of each of which rows are held out in proportion and one is left
            behind; None for no balance.
        rng: that the rows are drawn with.

    Returns:
        ``(n,)``; none is True if there are too few rows.
    """
    first = np.sort(np.unique(rows.position, return_index=True)[1])
    count = len(first)
    wanted = max(round(fraction * count), 1)
    order = rng.permutation(count)
    if strata is None:
        spare = order[: min(wanted, count - 1)]
    else:
        spare = _spread_over(strata[first], order, wanted)
    chosen: NDArray[np.bool_] = np.isin(rows.position, rows.position[first[spare]])
    return chosen


def _spread_over(strata: NDArray[Any], order: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """``wanted`` rows, each stratum in proportion, one row of each left behind.

    What rounding leaves over goes to the strata of the largest remainders, the larger ones
    first.

    Example:
        >>> strata = np.array(list("aabbccddee"))
        >>> _spread_over(strata, np.arange(10), 2).tolist()
        [0, 2]
    """
    values, sizes = np.unique(strata, return_counts=True)
    quota = wanted * sizes / len(strata)
    share = np.minimum(np.floor(quota), sizes - 1).astype(np.int64)
    turn = np.lexsort((-sizes, np.floor(quota) - quota))
    while share.sum() < wanted and (share < sizes - 1).any():
        for stratum in turn:
            if share.sum() < wanted and share[stratum] < sizes[stratum] - 1:
                share[stratum] += 1
    parts = [order[strata[order] == v][:k] for v, k in zip(values, share, strict=True)]
    return np.concatenate(parts)


def class_weights(
    class_weight: Mapping[Any, float] | str | None,
    classes: NDArray[Any],
    codes: NDArray[np.int64],
    weight: NDArray[np.float64] | None,
) -> NDArray[np.float64] | None:
    """Each row's factor of the loss with its class's weight in it.

    Args:
        class_weight: weight by class (1 for those not named), ``"balanced"`` for weights
            inversely proportional to the weighted frequency of the classes, or None.
        classes: ``(C,)``.
        codes: ``(n,)``, each row's place in ``classes``.
        weight: ``(n,)``, factors by row, or None.

    Returns:
        ``(n,)``, or None if all are 1.

    Raises:
        ValueError: another string, a name that is no class, or a weight that is not a finite
            number of at least 0; all rows weigh 0.

    Example:
        >>> classes, codes = np.array(["no", "yes"]), np.array([0, 0, 0, 1])
        >>> class_weights("balanced", classes, codes, None).round(3).tolist()
        [0.667, 0.667, 0.667, 2.0]
    """
    if class_weight is None:
        return weight
    rows = np.ones(len(codes)) if weight is None else weight
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"class_weight={class_weight!r}; use 'balanced', None or a dict of weights by class"
            )
        total = np.bincount(codes, rows, len(classes))
        by_class = rows.sum() / ((total > 0).sum() * np.where(total > 0, total, 1.0))
    elif isinstance(class_weight, Mapping):
        known = classes.tolist()
        unknown = [name for name in class_weight if name not in known]
        if unknown:
            raise ValueError(
                f"class_weight names {unknown[0]!r}, which is no class of y; the classes are "
                f"{known}"
            )
        by_class = np.array([class_weight.get(name, 1.0) for name in known], dtype=np.float64)
        if not np.isfinite(by_class).all() or (by_class < 0).any():
            raise ValueError(
                f"class_weight={class_weight!r}; weights must be finite numbers of at least 0"
            )
    else:
        raise ValueError(
            f"class_weight={class_weight!r}; use 'balanced', None or a dict of weights by class"
        )
    weighted: NDArray[np.float64] = rows * by_class[codes]
    if not (weighted > 0).any():
        raise ValueError(f"class_weight={class_weight!r} leaves no row with a weight above 0")
    return weighted


def _sortable(values: pd.Series[Any]) -> NDArray[Any]:
    if values.dtype.kind in "fiuM":
        return values.to_numpy()
    # Text, or a mixture of types that has no order of its own.
    text = values.astype(object).where(values.notna(), "").map(str)
    return pd.factorize(text, sort=True)[0]
