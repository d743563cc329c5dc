"""How sure one can be that one optimizer is better than another.

The unit is the data set: each gives one number, the log of the ratio of losses, averaged over
its models and sizes and, before that, over seeds (Demsar 2006, "Statistical Comparisons of
Classifiers over Multiple Data Sets", section 3.1.3). Below 0 the optimizer is better than the
one it is compared with. What is within the region of practical equivalence, 1 % of the loss,
is a tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

ROPE = 0.01
"""The region of practical equivalence: log ratios up to here, either way, are ties."""

_SAMPLES = 20_000
_RESAMPLES = 10_000
_EXACT = 50


class Counts(NamedTuple):
    """How often a log ratio was below, within and above the region of equivalence."""

    wins: int
    ties: int
    losses: int


def count(log_ratios: ArrayLike, rope: float = ROPE) -> Counts:
    """Wins, ties and losses.

    Args:
        log_ratios: ``(n,)``, below 0 where the optimizer is better.
        rope: up to here, either way, it is a tie.

    Returns:
        three numbers that add up to n.

    Raises:
        ValueError: a log ratio that is not finite, or a negative region.

    Example:
        >>> count([-0.3, -0.004, 0.0, 0.2])
        Counts(wins=1, ties=2, losses=1)
    """
    values, rope = _checked(log_ratios), _region(rope)
    wins, losses = int((values < -rope).sum()), int((values > rope).sum())
    return Counts(wins, len(values) - wins - losses, losses)


def wilcoxon(log_ratios: ArrayLike) -> dict[str, Any] | None:
    """The Wilcoxon signed-rank test, two-sided, of the median log ratio being 0.

    Wilcoxon 1945, "Individual Comparisons by Ranking Methods"; Demsar 2006, section 3.1.3:
    ``T = min(R+, R-)``, the ranks of zeros split evenly. The p value is exact up to 50 data
    sets and by the normal approximation beyond; by scipy, but for exact ones with ties.

    Args:
        log_ratios: ``(n,)``, one of each data set.

    Returns:
        ``statistic``, ``p`` and ``method`` (``exact`` or ``normal``); None with fewer than
        two data sets, where no answer is possible.

    Raises:
        ValueError: a log ratio that is not finite.

    Example:
        >>> wilcoxon([-0.1, -0.2, -0.3, -0.4, -0.5, -0.6])
        {'statistic': 0.0, 'p': 0.03125, 'method': 'exact'}
    """
    values = _checked(log_ratios)
    if len(values) < 2:
        return None
    sizes = np.abs(values)
    ranks = stats.rankdata(sizes)
    zeros = ranks[sizes == 0].sum() / 2
    lower = float(min(ranks[values > 0].sum(), ranks[values < 0].sum()) + zeros)
    if len(values) > _EXACT:
        method = "normal"
        p_value = stats.wilcoxon(values, zero_method="zsplit", method="asymptotic").pvalue
    else:
        method = "exact"
        tied = len(np.unique(sizes)) < len(sizes) or (sizes == 0).any()
        if tied:
            p_value = _counted(ranks[sizes > 0], lower - zeros)
        else:
            p_value = stats.wilcoxon(values, method="exact").pvalue
    return {"statistic": lower, "p": min(float(p_value), 1.0), "method": method}


def _counted(ranks: NDArray[np.float64], lower: float) -> float:
    """The exact two-sided p value of tied ranks, for which scipy's table does not hold.

    How many of the ``2^n`` ways to give ranks a sign reach each sum, one rank after the other;
    twice the ranks are whole numbers.
    """
    ways = np.ones(1)
    for rank in np.rint(2 * ranks).astype(int):
        ways = np.append(ways, np.zeros(rank)) + np.append(np.zeros(rank), ways)
    return float(2 * ways[: round(2 * lower) + 1].sum() / ways.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """P values of several tests at once, corrected for their number.

    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure": the i-th smallest of
    m is multiplied by ``m - i + 1``, and none comes out below one that was smaller. Demsar
    2006, section 3.2.2, recommends it where all are compared with one control.

    Args:
        p_values: from 0 to 1, in any order.

    Returns:
        the corrected ones, in the same order.

    Raises:
        ValueError: a value outside of 0 to 1.

    Example:
        >>> holm([0.04, 0.01, 0.5])
        [0.08, 0.03, 0.5]
    """
    values = _checked(p_values, "p_values")
    if ((values < 0) | (values > 1)).any():
        raise ValueError("p_values has numbers outside of 0 to 1; give what tests returned")
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    factors = len(values) - np.arange(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return [float(value) for value in corrected]


def bayesian_signed_rank(
    log_ratios: ArrayLike, rope: float = ROPE, seed: int = 0
) -> dict[str, float] | None:
    """How probable it is that an optimizer is better, as good, or worse in practice.

    The Bayesian signed-rank test, by baycomp: Benavoli et al. 2014, "A Bayesian Wilcoxon
    signed-rank test based on the Dirichlet process", section 3, with a region of practical
    equivalence as in Benavoli et al. 2017, "Time for a Change", section 4.2.1. The prior is a
    pseudo data set of weight 0.5 with ratio 1. That is little: three data sets on one side
    already make it 0.99 probable, so with few of them look at `wilcoxon` as well. From 20 000
    draws: the standard error is at most 0.004.

    Args:
        log_ratios: ``(n,)``, one of each data set.
        rope: up to here, either way, two optimizers are as good.
        seed: of the draws; numpy's own generator is neither used nor changed.

    Returns:
        ``rope`` and the probabilities ``better``, ``equivalent`` and ``worse``, which add up
        to 1; None with fewer than two data sets.

    Raises:
        ValueError: a log ratio that is not finite, or a region that is not above 0.

    Example:
        >>> found = bayesian_signed_rank([-0.2, -0.3, -0.1, -0.4, -0.25, -0.2])
        >>> found["better"] > 0.95, found["worse"]
        (True, 0.0)
    """
    values, rope = _checked(log_ratios), _region(rope)
    if rope == 0:
        raise ValueError("rope=0; without a region nothing can be equivalent, use one above 0")
    if len(values) < 2:
        return None
    # Not needed, and slow to load, in the processes that train.
    from baycomp import SignedRankTest

    # The first is probably higher, about the same, or the second is.
    worse, equivalent, better = SignedRankTest.probs(
        values, np.zeros_like(values), rope, nsamples=_SAMPLES, random_state=seed
    )
    return {
        "rope": rope,
        "better": float(better),
        "equivalent": float(equivalent),
        "worse": float(worse),
    }


def bootstrap_interval(log_ratios: Sequence[ArrayLike], seed: int = 0) -> list[float] | None:
    """An interval of 95 % for the geometric mean of ratios over data sets.

    The percentile bootstrap (Efron 1979, "Bootstrap Methods: Another Look at the Jackknife"):
    data sets are drawn with replacement, each with all its cases, and the geometric mean is
    taken over all cases drawn; 10 000 times. So the interval belongs to the geometric mean
    over cases, yet knows that cases of one data set are not independent. With few data sets it
    comes out too narrow; `coverage` says by how much.

    Args:
        log_ratios: one array of cases, ``(cases,)``, for each data set.
        seed: of the draws; numpy's own generator is neither used nor changed.

    Returns:
        the lower and upper end as ratios; None with fewer than two data sets.

    Raises:
        ValueError: a log ratio that is not finite, or a data set without cases.

    Example:
        >>> [round(end, 6) for end in bootstrap_interval([np.log([0.8, 0.8]), np.log([0.8])])]
        [0.8, 0.8]
    """
    cases = [_checked(values) for values in log_ratios]
    if any(len(values) == 0 for values in cases):
        raise ValueError("log_ratios has a data set without cases; leave it out")
    if len(cases) < 2:
        return None
    sums = np.array([values.sum() for values in cases])
    sizes = np.array([len(values) for values in cases])
    drawn = np.random.default_rng(seed).integers(len(cases), size=(_RESAMPLES, len(cases)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return [float(end) for end in np.exp(np.quantile(means, [0.025, 0.975]))]


def coverage(data_sets: int) -> float:
    """How often `bootstrap_interval` holds the true mean, if log ratios are normal.

    The percentile bootstrap of a mean of n values reaches ``1.96 s sqrt(n - 1) / n`` to either side
    (s is the standard deviation with divisor n - 1), where Student's interval would have
    the quantile of t with n - 1 degrees of freedom in place of ``1.96 sqrt((n - 1) / n)``. So its
    coverage is the probability that such a t is within that. For skewed ratios, or data sets of
    unequal numbers of cases, it is less. Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap", calls it narrowness bias.

    Args:
        data_sets: their number, at least 2.

    Raises:
        ValueError: fewer than 2 data sets.

    Example:
        >>> [round(coverage(number), 2) for number in (6, 10, 20, 1000)]
        [0.87, 0.9, 0.93, 0.95]
    """
    if data_sets < 2:
        raise ValueError(f"data_sets={data_sets}; with fewer than 2 there is no interval")
    reach = stats.norm.ppf(0.975) * math.sqrt((data_sets - 1) / data_sets)
    return float(2 * stats.t.cdf(reach, data_sets - 1) - 1)


def interval_over_seeds(losses: ArrayLike, references: ArrayLike) -> list[float] | None:
    """An interval of 95 % for the ratio of mean losses on one data set, over its seeds.

    For each case the ratio of the means over seeds is taken, and over cases the geometric mean,
    as in the summary. Its logarithm is linearised in the losses (the delta method), which gives one
    number a seed: the mean over cases of ``a / mean(a) - b / mean(b)``. Their standard deviation
    and Student's t with n - 1 degrees of freedom make the interval. Seeds are paired: both
    optimizers had the same rows, batches and initial weights.

    It says what other seeds would give on this data set, and nothing of other data sets. As all
    seeds draw their rows from the same table, it is too narrow even for other rows of that kind.

    Args:
        losses: ``(cases, n)``, of the optimizer, a column a seed.
        references: ``(cases, n)``, of the reference.

    Returns:
        the lower and upper end as ratios; None with fewer than three seeds.

    Raises:
        ValueError: shapes that differ, or a loss that is not finite and above 0.

    Example:
        >>> ends = interval_over_seeds([[0.4, 0.5, 0.45, 0.5]], [[0.5, 0.6, 0.5, 0.6]])
        >>> [round(end, 3) for end in ends]
        [0.782, 0.904]
    """
    own, other = (np.asarray(values, dtype=np.float64) for values in (losses, references))
    if own.ndim != 2 or own.shape != other.shape:
        raise ValueError(
            f"losses have shape {own.shape} and references {other.shape}; both must be (cases, n)"
        )
    both = np.stack([own, other])
    if not (np.isfinite(both) & (both > 0)).all():
        raise ValueError("a loss is not finite, or not above 0; leave out such seeds")
    cases, seeds = own.shape
    if seeds < 3 or cases == 0:
        return None
    means, reference_means = own.mean(1, keepdims=True), other.mean(1, keepdims=True)
    centre = float(np.log(means / reference_means).mean())
    by_seed = (own / means - other / reference_means).mean(0)
    error = float(by_seed.std(ddof=1)) / math.sqrt(seeds)
    reach = float(stats.t.ppf(0.975, seeds - 1)) * error
    return [math.exp(centre - reach), math.exp(centre + reach)]


def _checked(numbers: ArrayLike, name: str = "log_ratios") -> NDArray[np.float64]:
    values = np.asarray(numbers, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"{name} has shape {values.shape}; it must be (n,), one a data set")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has numbers that are not finite; leave those data sets out")
    return values


def _region(rope: float) -> float:
    if not 0 <= rope < math.inf:
        raise ValueError(f"rope={rope!r}; it must be a finite number of at least 0")
    return float(rope)
