"""How much seeds agree on an explanation where there is nothing to explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from denograd.explain._checks import as_numbers, check_count
from denograd.explain.rank_consistency import rank_consistency


@dataclass(frozen=True)
class LabelRandomization:
    """What seeds agree on, with the labels and without.

    Attributes:
        importances: ``(S, F)``, of fits to the labels.
        importances_randomized: ``(S, F)``, of fits to shuffled labels.
        consistency: of the first.
        by_chance: of the second: how much fits agree whatever the labels say.
    """

    importances: NDArray[np.float64]
    importances_randomized: NDArray[np.float64]
    consistency: float
    by_chance: float

    @property
    def gained(self) -> float:
        """How much more fits agree because of what the labels say."""
        return self.consistency - self.by_chance


def label_randomization(
    importance: Callable[[NDArray[Any], int], ArrayLike],
    y: ArrayLike,
    *,
    seeds: int = 10,
    measure: Callable[[NDArray[np.float64]], float] = rank_consistency,
) -> LabelRandomization:
    """Ask whether seeds agree because of the labels, or would agree without them.

    The data randomization test of Adebayo et al. 2018, "Sanity Checks for Saliency Maps",
    section 4.2, for consistency over seeds: fits to labels that are shuffled, so that they have
    nothing to do with the features, should not agree on which features matter. They do where a
    kind of model favours a kind of column, one with many values or categories, say, whatever it
    holds; then agreement is no evidence.

    Args:
        importance: fits a model to labels, ``(N,)``, with a seed, and gives the importance of
            each feature, ``(F,)``. Called twice a seed.
        y: ``(N,)``, classes or numbers, in any type that numpy can shuffle.
        seeds: number of seeds, 0 to ``seeds - 1``; each has a shuffle of its own. Fewer than
            ten say little.
        measure: of consistency, from ``(S, F)``.

    Raises:
        ValueError: fewer than two seeds, labels that are all the same, or importances that are
            not finite, not ``(F,)``, or not of the same features every time.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 5))
        >>> def importance(y, seed):
        ...     some = np.random.default_rng(seed).integers(0, 200, 60)
        ...     return np.abs(x[some].T @ (y[some] - y[some].mean()))
        >>> y = x @ [4.0, 3.0, 2.0, 1.0, 0.0]
        >>> found = label_randomization(importance, y)
        >>> found.consistency > 0.8, abs(found.by_chance) < 0.3
        (True, True)
    """
    check_count("seeds", seeds, 2)
    labels = np.asarray(y)
    if labels.ndim != 1 or len(labels) == 0 or (labels == labels[0]).all():
        raise ValueError(
            f"y: it has shape {labels.shape}; it must be (N,), with labels that are not all the "
            "same, or there is nothing to shuffle"
        )
    kept, randomized = [], []
    for seed in range(seeds):
        shuffled = np.random.default_rng([seed, 0]).permutation(labels)
        kept.append(_of_one_fit(importance, labels.copy(), seed))
        randomized.append(_of_one_fit(importance, shuffled, seed))
    sizes = {len(found) for found in (*kept, *randomized)}
    if len(sizes) > 1:
        raise ValueError(
            f"importance: it gave {' and '.join(map(str, sorted(sizes)))} features; a place in "
            "one fit must be the same feature in another"
        )
    first, second = np.stack(kept), np.stack(randomized)
    return LabelRandomization(first, second, float(measure(first)), float(measure(second)))


def _of_one_fit(
    importance: Callable[[NDArray[Any], int], ArrayLike], labels: NDArray[Any], seed: int
) -> NDArray[np.float64]:
    found = as_numbers("importance", importance(labels, seed))
    if found.ndim != 1:
        raise ValueError(
            f"importance: it gave shape {found.shape} with seed {seed}; it must give (F,), one "
            "number a feature"
        )
    return found
