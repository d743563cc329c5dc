"""Which of many optimizers can be told apart: ranks, and the critical difference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05
"""P values below tell two optimizers apart."""


def critical_difference(losses: pd.DataFrame) -> dict[str, Any] | None:
    """Friedman's test over data sets, and Nemenyi's between all pairs of optimizers.

    Demsar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", section
    3.2: optimizers are ranked on each data set, 1 for the lowest loss, ties getting their mean
    rank. Friedman's test (by scipy, corrected for ties) asks whether the mean ranks differ at
    all; if it does not say so, the pairs say nothing. Nemenyi's (by scikit-posthocs) tells two
    apart whose mean ranks differ by more than ``q sqrt(k (k + 1) / (6 N))`` for k optimizers
    and N data sets, q being the studentised range's quantile divided by ``sqrt(2)``.

    Args:
        losses: a row each data set and a column each optimizer; lower is better. Any numbers
            will do that have the same order, log ratios to one optimizer for example.

    Returns:
        ``ranks``, mean ranks from the best; ``friedman_p``; ``p_values`` of each pair;
        ``distance``, the critical difference of mean ranks at 0.05; ``same``, the largest
        groups of at least two that are not told apart at 0.05; and ``data_sets``. None with
        fewer than three optimizers or data sets, where the tests do not apply.

    Raises:
        ValueError: a loss that is not finite, or two columns of one name.

    Example:
        >>> losses = pd.DataFrame({"a": [0.1] * 9, "b": [0.2] * 9, "c": [0.3, 0.15, 0.18] * 3})
        >>> found = critical_difference(losses)
        >>> found["ranks"], found["same"]
        ({'a': 1.0, 'c': 2.33..., 'b': 2.66...}, [['c', 'b']])
    """
    if not losses.columns.is_unique:
        raise ValueError(f"losses has columns {list(losses.columns)}; name each optimizer once")
    values = losses.to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("losses has numbers that are not finite; leave those data sets out")
    data_sets, optimizers = values.shape
    if data_sets < 3 or optimizers < 3:
        return None
    # Not needed, and slow to load, in the processes that train.
    from scikit_posthocs import posthoc_nemenyi_friedman

    ranks = stats.rankdata(values, axis=1).mean(axis=0)
    best_first = np.argsort(ranks, kind="stable")
    names = [str(name) for name in losses.columns[best_first]]
    ranks = ranks[best_first]
    p_values = posthoc_nemenyi_friedman(values[:, best_first]).to_numpy()
    # Where all tie on every data set, the correction for ties divides by 0.
    tied = bool((values == values[:, :1]).all())
    quantile = float(stats.studentized_range.isf(LEVEL, optimizers, np.inf)) / math.sqrt(2)
    return {
        "ranks": {name: float(rank) for name, rank in zip(names, ranks, strict=True)},
        "friedman_p": 1.0 if tied else float(stats.friedmanchisquare(*values.T).pvalue),
        "p_values": {
            name: {other: float(p) for other, p in zip(names, row, strict=True)}
            for name, row in zip(names, p_values, strict=True)
        },
        "distance": quantile * math.sqrt(optimizers * (optimizers + 1) / (6 * data_sets)),
        "same": _groups(names, p_values >= LEVEL),
        "data_sets": data_sets,
    }


def _groups(names: list[str], alike: NDArray[np.bool_]) -> list[list[str]]:
    """Largest runs of neighbouring ranks that are not told apart.

    As the p value falls with the distance of two mean ranks, a group is such a run, and all
    of it is alike if its first and last are.
    """
    groups, reached = [], 0
    for first in range(len(names)):
        last = max(i for i in range(first, len(names)) if alike[first, i])
        if last > max(first, reached):
            groups.append(names[first : last + 1])
        reached = max(reached, last)
    return groups
