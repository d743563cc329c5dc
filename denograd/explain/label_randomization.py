"""How much seeds agree on an explanation where there is nothing to explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from denograd.explain._checks import (
    as_numbers,
    as_seeds,
    check_count,
    in_order_of,
    names_in,
    same_order,
)
from denograd.explain.rank_consistency import rank_consistency


@dataclass(frozen=True)
class LabelRandomization:
    """What seeds agree on, with the labels and without.

    Agreement that is no higher than that of shuffled labels is no evidence about the features.

    Attributes:
        consistency: of fits to the labels that differ in their seed.
        randomized: ``(R,)``, the same of fits to each of the shuffled labels.
        across: ``(R,)``, between fits to the labels and fits to each of the shuffled ones, of
            different seeds: what explanations have in common whatever the labels say.
    """

    consistency: float
    randomized: NDArray[np.float64]
    across: NDArray[np.float64]


def label_randomization(
    importance: Callable[[NDArray[Any], int], ArrayLike],
    y: ArrayLike,
    *,
    seeds: int = 10,
    shuffles: int = 5,
    measure: Callable[[NDArray[np.float64]], float] = rank_consistency,
) -> LabelRandomization:
    """Ask whether seeds agree because of the labels, or would agree without them.

    The data randomization test of Adebayo et al. 2018, "Sanity Checks for Saliency Maps",
    section 4.2, for consistency over seeds: labels are shuffled, so that they have nothing to do
    with the features, and all seeds are fitted to them as they are to the labels. They may agree
    even so: where a kind of model favours a kind of column, one with many values, say, whatever
    it holds; and where fits share rows, as chance in the labels looks the same to all of them.
    Such agreement is no evidence.

    Args:
        importance: fits a model to labels, ``(N,)``, with a seed, and gives the importance of
            each feature, ``(F,)``. Called ``seeds * (1 + shuffles)`` times.
        y: ``(N,)``, classes or numbers, in any type that numpy can shuffle.
        seeds: number of seeds, 0 to ``seeds - 1``. Fewer than ten say little.
        shuffles: number of shuffled labels, ``R``.
        measure: of consistency, from ``(S, F)``.

    Raises:
        ValueError: fewer than two seeds, no shuffle, labels that are all the same, or
            importances that are not finite, not ``(F,)``, or not as many every time.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 5))
        >>> def importance(y, seed):
        ...     some = np.random.default_rng(seed).integers(0, 200, 60)
        ...     return np.abs(x[some].T @ (y[some] - y[some].mean()))
        >>> found = label_randomization(importance, x @ [4.0, 3.0, 2.0, 1.0, 0.0])
        >>> found.consistency > 0.8, bool((found.randomized < 0.5).all())
        (True, True)
    """
    check_count("seeds", seeds, 2)
    check_count("shuffles", shuffles, 1)
    labels = np.asarray(y)
    if labels.ndim != 1 or len(labels) == 0 or (labels == labels[0]).all():
        raise ValueError(
            f"y: it has shape {labels.shape}; it must be (N,), with labels that are not all the "
            "same, or there is nothing to shuffle"
        )
    # The 1 keeps shuffles apart from what `importance` may draw from default_rng(seed).
    orders = [np.random.default_rng([r, 1]).permutation(len(labels)) for r in range(shuffles)]
    names: pd.Index[Any] | None = None

    def fit(given: NDArray[Any], seed: int) -> NDArray[np.float64]:
        nonlocal names
        found = importance(given.copy(), seed)
        names = names_in(found) if names is None else names
        ordered = found if names is None else in_order_of(names, "importance: it", found)
        return _of_one_fit(ordered, seed)

    kept, *shuffled = (
        [fit(given, seed) for seed in range(seeds)]
        for given in (labels, *(labels[order] for order in orders))
    )
    sizes = {len(found) for fits in (kept, *shuffled) for found in fits}
    if len(sizes) > 1:
        raise ValueError(
            f"importance: it gave {' and '.join(map(str, sorted(sizes)))} features; a place in "
            "one fit must be the same feature in another"
        )
    return LabelRandomization(
        float(measure(np.stack(kept))),
        np.array([measure(np.stack(fits)) for fits in shuffled]),
        np.array([agreement_across(kept, fits, measure) for fits in shuffled]),
    )


def agreement_across(
    one: ArrayLike,
    other: ArrayLike,
    measure: Callable[[NDArray[np.float64]], float] = rank_consistency,
) -> float:
    """The mean agreement between a fit of one kind and a fit of another kind and seed.

    Args:
        one: ``(S, F)``, importances by seed.
        other: ``(S, F)``, of the same seeds, which are not compared with themselves.
        measure: of consistency, from ``(2, F)``.

    Raises:
        ValueError: not two or more seeds of both, or not the same shape.

    Example:
        >>> round(agreement_across([[3, 2, 1], [3, 2, 1]], [[1, 2, 3], [1, 2, 3]]), 6)
        -1.0
    """
    first, second = as_seeds("one", one), as_seeds("other", other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        second = as_seeds("other", same_order("other", [one[0], *other])[1:])
    if first.shape != second.shape:
        raise ValueError(
            f"one has shape {first.shape} and other {second.shape}; both must be (S, F), of the "
            "same seeds and features"
        )
    pairs = [
        measure(np.stack([first[i], second[j]]))
        for i in range(len(first))
        for j in range(len(second))
        if i != j
    ]
    return float(np.mean(pairs))


def _of_one_fit(given: ArrayLike, seed: int) -> NDArray[np.float64]:
    found = as_numbers("importance", given)
    if found.ndim != 1:
        raise ValueError(
            f"importance: it gave shape {found.shape} with seed {seed}; it must give (F,), one "
            "number a feature"
        )
    return found
