"""What an evaluation says of its results: metrics, tests, convergence, summaries."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from denograd.evaluation import significance
from denograd.evaluation.cases import count_diverged
from denograd.evaluation.consistency import importance_consistency
from denograd.evaluation.convergence import (
    CommonArrivals,
    Convergence,
    arrival,
    best_loss,
    common_arrivals,
    convergence,
)
from denograd.evaluation.critical_difference import critical_difference
from denograd.evaluation.metrics import (
    LOG_LOSS_FLOOR,
    METRICS,
    brier_score,
    calibration_error,
    score,
)
from denograd.evaluation.significance import (
    ROPE,
    _counted,
    bayesian_signed_rank,
    bootstrap_interval,
    count,
    coverage,
    holm,
    interval_over_seeds,
    wilcoxon,
)
from denograd.evaluation.summary import summarise, versions
from denograd.evaluation.train import Cell, CellResult

# Table 6 of Demsar 2006: AUC of C4.5 and three variants on 14 data sets.
DEMSAR = pd.DataFrame(
    [
        (0.763, 0.768, 0.771, 0.798),
        (0.599, 0.591, 0.590, 0.569),
        (0.954, 0.971, 0.968, 0.967),
        (0.628, 0.661, 0.654, 0.657),
        (0.882, 0.888, 0.886, 0.898),
        (0.936, 0.931, 0.916, 0.931),
        (0.661, 0.668, 0.609, 0.685),
        (0.583, 0.583, 0.563, 0.625),
        (0.775, 0.838, 0.866, 0.875),
        (1.000, 1.000, 1.000, 1.000),
        (0.940, 0.962, 0.965, 0.962),
        (0.619, 0.666, 0.614, 0.669),
        # The table says 0.975 twice, and ranks 2 and 3: what was rounded away was not a tie.
        (0.972, 0.981, 0.9751, 0.975),
        (0.957, 0.978, 0.946, 0.970),
    ],
    columns=["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"],
)

log_ratio = st.floats(-3, 3, allow_nan=False)
log_ratios = st.lists(log_ratio, min_size=2, max_size=12)


def predictions(classes: int, seed: int, rows: int = 40) -> tuple[Any, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.integers(classes, size=rows), rng.dirichlet(np.ones(classes), size=rows)


# Metrics


@settings(max_examples=40)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_brier_score_is_scikit_learns(classes: int, seed: int) -> None:
    codes, probabilities = predictions(classes, seed)
    expected = brier_score_loss(
        codes, probabilities, labels=np.arange(classes), scale_by_half=False
    )
    assert brier_score(codes, probabilities) == pytest.approx(expected)
    assert score(codes, probabilities)["brier"] == brier_score(codes, probabilities)


def test_brier_score_of_known_predictions() -> None:
    codes = np.array([0, 1, 2])
    assert brier_score(codes, np.eye(3)) == 0
    assert brier_score(codes, np.eye(3)[[1, 2, 0]]) == 2
    assert brier_score(codes, np.full((3, 3), 1 / 3)) == pytest.approx(2 / 3)


@settings(max_examples=60)
@given(st.integers(2, 6), st.integers(0, 10_000), st.integers(1, 60))
def test_calibration_error_is_a_plain_loop_over_bins(classes: int, seed: int, rows: int) -> None:
    codes, probabilities = predictions(classes, seed, rows)
    expected = 0.0
    for m in range(1, 16):
        inside = [
            (max(row), list(row).index(max(row)) == code)
            for code, row in zip(codes, probabilities, strict=True)
            if (m - 1) / 15 < max(row) <= m / 15
        ]
        if inside:
            confidence = sum(pair[0] for pair in inside) / len(inside)
            accuracy = sum(pair[1] for pair in inside) / len(inside)
            expected += len(inside) / rows * abs(accuracy - confidence)
    assert calibration_error(codes, probabilities) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_calibration_error_agrees_with_scikit_learns_curve(classes: int, seed: int) -> None:
    codes, probabilities = predictions(classes, seed, rows=200)
    hit, confidence = probabilities.argmax(1) == codes, probabilities.max(1)
    accuracy, mean = calibration_curve(hit, confidence, n_bins=15, strategy="uniform")
    rows = np.histogram(confidence, bins=15, range=(0, 1))[0]
    expected = (rows[rows > 0] * np.abs(accuracy - mean)).sum() / 200
    assert calibration_error(codes, probabilities) == pytest.approx(expected)


def test_calibration_error_of_known_predictions() -> None:
    probabilities = np.tile([0.75, 0.25], (4, 1))
    assert calibration_error(np.array([0, 0, 0, 1]), probabilities) == pytest.approx(0)
    assert calibration_error(np.array([0, 0, 0, 0]), probabilities) == pytest.approx(0.25)
    assert calibration_error(np.array([1, 1, 1, 1]), probabilities) == pytest.approx(0.75)
    # Errors of two bins do not cancel: 0.9 and right half the time, 0.6 and always right.
    mixed = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert calibration_error(np.array([0, 1, 0, 0]), mixed) == pytest.approx(0.4)
    # A sum that rounds to a hair above 1 is still confidence 1.
    assert calibration_error(np.array([0]), np.array([[1 + 1e-16, 0.0]])) == 0


def test_a_row_costs_no_more_than_the_floor_of_the_log_loss() -> None:
    codes = np.array([0, 1])
    sure_and_wrong = np.array([[0.5, 0.5], [1.0, 0.0]])
    expected = (math.log(2) - math.log(2.0**-52)) / 2
    assert score(codes, sure_and_wrong)["log_loss"] == pytest.approx(expected)
    assert LOG_LOSS_FLOOR == 2.0**-52


# Wilcoxon


def enumerated_wilcoxon(values: list[float]) -> tuple[float, float]:
    """T and its two-sided p by trying all signs; half of the ranks of zeros on either side."""
    ranks = [float(rank) for rank in stats.rankdata(np.abs(values))]
    zeros = sum(rank for rank, value in zip(ranks, values, strict=True) if value == 0) / 2
    nonzero = [rank for rank, value in zip(ranks, values, strict=True) if value != 0]
    positive = zeros + sum(r for r, v in zip(ranks, values, strict=True) if v > 0)
    centre = sum(ranks) / 2
    extreme = 0
    for signs in itertools.product((0, 1), repeat=len(nonzero)):
        other = zeros + sum(rank for sign, rank in zip(signs, nonzero, strict=True) if sign)
        extreme += abs(other - centre) >= abs(positive - centre) - 1e-9
    return min(positive, sum(ranks) - positive), extreme / 2 ** len(nonzero)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(log_ratio, st.sampled_from([0.0, 0.5, -0.5])), min_size=2, max_size=9))
def test_wilcoxon_is_exact_on_few_data_sets(values: list[float]) -> None:
    found = wilcoxon(values)
    assert found is not None
    statistic, p = enumerated_wilcoxon(values)
    assert found["statistic"] == pytest.approx(statistic)
    assert found["p"] == pytest.approx(p)
    assert found["method"] == "exact"


def test_wilcoxon_of_demsars_example() -> None:
    """Section 3.1.3: R+ = 93, R- = 12; with 14 data sets, 0.05 is at T = 21."""
    differences = (DEMSAR["C4.5"] - DEMSAR["C4.5+m"]).round(3)
    found = wilcoxon(differences)
    assert found is not None
    assert found["statistic"] == 12
    assert found["p"] == pytest.approx(enumerated_wilcoxon(list(differences))[1])
    assert found["p"] < 0.05
    # Its equation 3, the normal approximation, which does not know of the two zeros.
    z = (12 - 14 * 15 / 4) / math.sqrt(14 * 15 * 29 / 24)
    assert found["p"] == pytest.approx(2 * stats.norm.cdf(z), abs=0.005)
    # Just at the tabled value: 21 is the largest T with p of at most 0.05.
    for statistic, below in ((21, True), (22, False)):
        ranks = np.arange(1, 15)
        signs = np.ones(14)
        for rank in range(14, 0, -1):
            if rank <= statistic:
                signs[rank - 1], statistic = -1, statistic - rank
        tabled = wilcoxon(ranks * signs)
        assert tabled is not None
        assert (tabled["p"] <= 0.05) == below


@pytest.mark.parametrize("number", [2, 13, 14, 60])
def test_wilcoxon_of_ties_alone_sees_no_difference(number: int) -> None:
    found = wilcoxon([0.0] * number)
    assert found is not None
    assert found["p"] == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(log_ratio, min_size=0, max_size=60), st.booleans())
def test_wilcoxon_of_symmetric_values_sees_no_difference(values: list[float], odd: bool) -> None:
    both = [*values, *(-value for value in values), *([0.0] if odd else [])]
    found = wilcoxon(both)
    if len(both) < 2:
        assert found is None
    else:
        assert found is not None
        assert found["p"] == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 50), st.integers(0, 10_000))
def test_counting_signs_gives_scipys_table(number: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=number)
    ranks = stats.rankdata(np.abs(values))
    lower = min(ranks[values > 0].sum(), ranks[values < 0].sum())
    expected = stats.wilcoxon(values, method="exact").pvalue
    assert min(_counted(ranks, lower), 1) == pytest.approx(expected)


def test_wilcoxon_on_many_data_sets_is_exact_or_nearly_so() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 1, size=50)
    found = wilcoxon(values)
    assert found is not None
    assert found["method"] == "exact"
    # The number of sign patterns of each sum, by convolution.
    ways = np.array([1.0])
    for rank in range(1, 51):
        ways = np.convolve(ways, np.r_[1, np.zeros(rank - 1), 1])
    tail = ways[: int(found["statistic"]) + 1].sum() / 2**50
    assert found["p"] == pytest.approx(2 * tail)
    more = wilcoxon(np.r_[values, 0.01])
    assert more is not None
    assert more["method"] == "normal"
    assert more["p"] == pytest.approx(found["p"], rel=0.3)


@pytest.mark.parametrize(("p_values", "expected"), [
    ([], []),
    ([0.2], [0.2]),
    ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
    ([0.9, 0.8], [1.0, 1.0]),
])  # fmt: skip
def test_holms_correction(p_values: list[float], expected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for level in (0.01, 0.05, 0.5):
        rejected = set()
        order = sorted(range(len(p_values)), key=lambda i: p_values[i])
        for done, i in enumerate(order):
            if p_values[i] * (len(p_values) - done) > level:
                break
            rejected.add(i)
        assert rejected == {i for i, p in enumerate(corrected) if p <= level}


# Bayesian signed-rank


@pytest.mark.parametrize("number", [2, 3, 5])
@pytest.mark.parametrize("sign", [-1, 1])
def test_bayesian_test_in_closed_form(number: int, sign: int) -> None:
    """All far on one side: only the prior's weight w stands for equivalence, with w^2.

    Its share of a Dirichlet distribution is Beta(1/2, n), and it wins if w^2 > 1/2.
    """
    found = bayesian_signed_rank([sign * (1.0 + i) for i in range(number)])
    assert found is not None
    equivalent = stats.beta.sf(math.sqrt(0.5), 0.5, number)
    assert found["equivalent"] == pytest.approx(equivalent, abs=0.01)
    side, other = ("worse", "better") if sign > 0 else ("better", "worse")
    assert found[side] == pytest.approx(1 - equivalent, abs=0.01)
    assert found[other] == 0
    assert found["rope"] == ROPE == 0.01


def test_bayesian_test_against_a_plain_loop() -> None:
    values = [-0.05, 0.004, -0.023, 0.03, -0.011, 0.0]
    rng = np.random.default_rng(1)
    wins = [0, 0, 0]
    points = [0.0, *values]
    for weights in rng.dirichlet([0.5] + [1.0] * len(values), size=4000):
        shares = [0.0, 0.0, 0.0]
        for (w, a), (v, b) in itertools.product(zip(weights, points, strict=True), repeat=2):
            side = 0 if a + b < -2 * ROPE else 2 if a + b > 2 * ROPE else 1
            shares[side] += w * v
        wins[shares.index(max(shares))] += 1
    found = bayesian_signed_rank(values)
    assert found is not None
    expected = [count / 4000 for count in wins]
    assert [found[key] for key in ("better", "equivalent", "worse")] == pytest.approx(
        expected, abs=0.03
    )
    assert min(expected) > 0.01


def test_bayesian_test_of_symmetric_and_of_equal_values() -> None:
    found = bayesian_signed_rank([-0.3, 0.3, -0.2, 0.2, -0.1, 0.1])
    assert found is not None
    assert found["better"] == pytest.approx(found["worse"], abs=0.015)
    within = bayesian_signed_rank([0.009, -0.009, 0.0, 0.009])
    assert within is not None
    assert within["equivalent"] == 1


@settings(max_examples=4, deadline=None)
@given(log_ratios)
def test_bayesian_test_is_a_distribution_that_mirrors(values: list[float]) -> None:
    found = bayesian_signed_rank(values)
    mirrored = bayesian_signed_rank([-value for value in values])
    assert found is not None
    assert mirrored is not None
    assert found["better"] + found["equivalent"] + found["worse"] == pytest.approx(1)
    # The same draws: but for weights that are equal, sides change places.
    assert found["better"] == pytest.approx(mirrored["worse"], abs=1e-3)


def test_draws_follow_from_the_seed_and_leave_numpys_generator_alone() -> None:
    values = [-0.05, 0.004, -0.02, 0.03, -0.011]
    np.random.seed(3)  # noqa: NPY002 (what must not be touched is the old generator)
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    first = bayesian_signed_rank(values), bootstrap_interval([[v] for v in values])
    assert (before == np.random.get_state()[1]).all()  # type: ignore[index]  # noqa: NPY002
    np.random.seed(4)  # noqa: NPY002
    assert first == (bayesian_signed_rank(values), bootstrap_interval([[v] for v in values]))
    assert first[0] != bayesian_signed_rank(values, seed=1)
    assert bayesian_signed_rank(values, rope=1.0) == {
        "rope": 1.0, "better": 0.0, "equivalent": 1.0, "worse": 0.0
    }  # fmt: skip


# Bootstrap, counts


@settings(max_examples=30)
@given(st.floats(0.2, 5), st.lists(st.integers(1, 4), min_size=2, max_size=9))
def test_bootstrap_of_a_constant_is_a_point(ratio: float, cases: list[int]) -> None:
    found = bootstrap_interval([[math.log(ratio)] * number for number in cases])
    assert found == pytest.approx([ratio, ratio])


def test_bootstrap_of_two_data_sets_is_known() -> None:
    """Each is drawn twice with probability 1/4, so the ends are the two themselves."""
    assert bootstrap_interval([[math.log(0.5)], [math.log(2.0)]]) == pytest.approx([0.5, 2.0])


def test_bootstrap_agrees_with_scipys() -> None:
    values = np.random.default_rng(0).normal(-0.1, 0.2, size=30)
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap_interval([[value] for value in values])
    assert found is not None
    assert np.log(found) == pytest.approx([expected.low, expected.high], abs=0.005)


def test_bootstrap_keeps_the_cases_of_a_data_set_together() -> None:
    """With cases that are all alike inside a data set, more of them say nothing more."""
    values = np.random.default_rng(0).normal(-0.1, 0.2, size=12)
    once = bootstrap_interval([[value] for value in values])
    assert bootstrap_interval([[value] * 25 for value in values]) == pytest.approx(once)


@settings(max_examples=30)
@given(st.lists(st.lists(log_ratio, min_size=1, max_size=4), min_size=2, max_size=9))
def test_bootstrap_lies_within_the_data(groups: list[list[float]]) -> None:
    found = bootstrap_interval(groups)
    assert found is not None
    means = [math.exp(statistics.fmean(group)) for group in groups]
    assert min(means) * (1 - 1e-9) <= found[0] <= found[1] <= max(means) * (1 + 1e-9)


@pytest.mark.parametrize("data_sets", [6, 12])
def test_coverage_is_what_a_simulation_finds(data_sets: int) -> None:
    rng = np.random.default_rng(0)
    with mock.patch.object(significance, "_RESAMPLES", 500):
        found = [
            bootstrap_interval(list(rng.normal(0, 0.1, size=(data_sets, 1)))) for _ in range(4000)
        ]
    held = [ends is not None and ends[0] <= 1 <= ends[1] for ends in found]
    # The standard error of the simulation is 0.005.
    assert np.mean(held) == pytest.approx(coverage(data_sets), abs=0.02)
    assert np.mean(held) < 0.93


def test_coverage_of_many_data_sets_is_nominal() -> None:
    values = [coverage(number) for number in (2, 5, 20, 100, 10_000)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(0.95, abs=1e-4)
    with pytest.raises(ValueError, match="data_sets=1; with fewer than 2 there is no interval"):
        coverage(1)


@pytest.mark.parametrize("seeds", [3, 5, 20])
def test_interval_over_seeds_covers_the_ratio_of_the_means(seeds: int) -> None:
    """Two cases, whose seeds have a part in common, and two optimizers that share it."""
    rng = np.random.default_rng(1)
    held, runs = 0, 2000
    for _ in range(runs):
        hard = rng.normal(0, 0.08, size=(1, seeds)) + np.array([[0.5], [0.7]])
        own = 0.9 * hard + rng.normal(0, 0.01, size=(2, seeds))
        found = interval_over_seeds(own, hard + rng.normal(0, 0.01, size=(2, seeds)))
        assert found is not None
        held += found[0] <= 0.9 <= found[1]
    assert held / runs == pytest.approx(0.95, abs=0.02)


def test_interval_over_seeds_of_known_losses() -> None:
    own, other = [[0.4, 0.5, 0.6]], [[0.5, 0.5, 0.5]]
    # a / mean(a) is 0.8, 1 and 1.2: a standard deviation of 0.2, and t(0.975, 2) = 4.303.
    reach = 4.302652729911275 * 0.2 / math.sqrt(3)
    assert interval_over_seeds(own, other) == pytest.approx([math.exp(-reach), math.exp(reach)])
    swapped = interval_over_seeds(other, own)
    assert swapped == pytest.approx([math.exp(-reach), math.exp(reach)])
    # What both have in common is no difference between them.
    assert interval_over_seeds([[0.4, 0.8, 1.0]], [[0.2, 0.4, 0.5]]) == pytest.approx([2.0, 2.0])
    assert interval_over_seeds([[0.4, 0.5]], [[0.4, 0.5]]) is None
    with pytest.raises(ValueError, match=r"shape \(1, 3\) and references \(3,\); both must be"):
        interval_over_seeds(own, [0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="not finite, or not above 0"):
        interval_over_seeds([[0.4, 0.0, 0.6]], other)


def test_counts_have_the_ends_of_the_region_within_it() -> None:
    assert count([-0.01, 0.01, -0.0100001, 0.0100001, 0.0]) == (1, 3, 1)
    assert count([-0.01, 0.0, 0.01, 0.02], rope=0) == (1, 1, 2)
    assert count([]) == (0, 0, 0)


# Degenerate input of all of them


@pytest.mark.parametrize("values", [[], [0.3]])
def test_one_data_set_tells_nothing(values: list[float]) -> None:
    assert wilcoxon(values) is None
    assert bayesian_signed_rank(values) is None
    assert bootstrap_interval([[value] for value in values]) is None


@settings(max_examples=30)
@given(st.lists(log_ratio, max_size=6), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_numbers_that_are_not_finite_are_refused(values: list[float], bad: float) -> None:
    for test in (wilcoxon, bayesian_signed_rank, count):
        with pytest.raises(ValueError, match=r"log_ratios has numbers that are not finite; leave"):
            test([*values, bad])
    with pytest.raises(ValueError, match="log_ratios has numbers that are not finite"):
        bootstrap_interval([[0.0], [*values, bad]])


def test_arguments_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"log_ratios has shape \(1, 2\); it must be \(n,\)"):
        wilcoxon([[0.1, 0.2]])
    with pytest.raises(ValueError, match=r"rope=-0.1; it must be a finite number of at least 0"):
        count([0.1], rope=-0.1)
    with pytest.raises(ValueError, match=r"rope=nan"):
        bayesian_signed_rank([0.1, 0.2], rope=math.nan)
    with pytest.raises(ValueError, match=r"rope=0; without a region"):
        bayesian_signed_rank([0.1, 0.2], rope=0)
    with pytest.raises(ValueError, match="a data set without cases; leave it out"):
        bootstrap_interval([[0.1], []])
    with pytest.raises(ValueError, match="p_values has numbers outside of 0 to 1"):
        holm([0.1, 1.2])


# Friedman, Nemenyi


def test_critical_difference_of_demsars_example() -> None:
    """Section 3.2.3: ranks 3.143, 2.000, 2.893, 1.964; chi square 9.28; CD 1.25."""
    found = critical_difference(-DEMSAR)
    assert found is not None
    assert {name: round(rank, 3) for name, rank in found["ranks"].items()} == {
        "C4.5+m+cf": 1.964, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5": 3.143
    }  # fmt: skip
    assert list(found["ranks"]) == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    assert found["distance"] == pytest.approx(1.25, abs=0.005)
    assert found["data_sets"] == 14
    # Demsar's 9.28 is not corrected for ties: one of four optimizers, and three of two.
    ties = (4**3 - 4) + 3 * (2**3 - 2)
    corrected = 9.28 / (1 - ties / (14 * 4 * (4**2 - 1)))
    assert found["friedman_p"] == pytest.approx(stats.chi2.sf(corrected, 3), rel=0.01)
    # "The post-hoc test is not powerful enough to detect any differences" at 0.05, and at
    # 0.10, where CD = 1.12, C4.5 is worse than the two with +m.
    assert found["same"] == [list(found["ranks"])]
    told_apart = {pair for pair in itertools.combinations(DEMSAR, 2)
                  if found["p_values"][pair[0]][pair[1]] < 0.10}  # fmt: skip
    assert told_apart == {("C4.5", "C4.5+m"), ("C4.5", "C4.5+m+cf")}


def critical_distance(optimizers: int, data_sets: int) -> float:
    """With q at 0.05 from table 5 of Demsar 2006."""
    q = {3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850}[optimizers]
    return q * math.sqrt(optimizers * (optimizers + 1) / (6 * data_sets))


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 6), st.integers(3, 30), st.integers(0, 1000), st.floats(0, 3))
def test_groups_are_what_the_critical_difference_joins(
    optimizers: int, data_sets: int, seed: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    losses = rng.normal(size=(data_sets, optimizers)) + spread * np.arange(optimizers)
    found = critical_difference(pd.DataFrame(losses, columns=list("abcdef"[:optimizers])))
    assert found is not None
    limit = critical_distance(optimizers, data_sets)
    assert found["distance"] == pytest.approx(limit, rel=1e-3)
    ranks = found["ranks"]
    assert list(ranks.values()) == sorted(ranks.values())
    assert sum(ranks.values()) == pytest.approx(optimizers * (optimizers + 1) / 2)
    # All sets of which every two are closer than the limit, and of these the largest ones.
    alike = [
        set(some)
        for size in range(2, optimizers + 1)
        for some in itertools.combinations(ranks, size)
        if max(ranks[name] for name in some) - min(ranks[name] for name in some) < limit
    ]
    largest = [some for some in alike if not any(some < other for other in alike)]
    assert {frozenset(some) for some in largest} == {frozenset(some) for some in found["same"]}
    assert found["friedman_p"] == pytest.approx(stats.friedmanchisquare(*losses.T).pvalue)


def test_optimizers_that_always_tie_are_the_same() -> None:
    found = critical_difference(pd.DataFrame(np.ones((5, 3)), columns=["a", "b", "c"]))
    assert found is not None
    assert found["friedman_p"] == 1
    assert found["ranks"] == {"a": 2.0, "b": 2.0, "c": 2.0}
    assert found["same"] == [["a", "b", "c"]]


def test_two_optimizers_that_are_always_apart_are_told_apart() -> None:
    losses = pd.DataFrame({"a": range(20), "b": range(1, 21), "c": range(2, 22)})
    found = critical_difference(losses)
    assert found is not None
    assert found["same"] == []
    assert found["p_values"]["a"]["c"] < 1e-6
    assert found["p_values"]["b"]["b"] == 1


@pytest.mark.parametrize("shape", [(2, 5), (5, 2), (0, 3), (1, 1)])
def test_too_few_for_ranks(shape: tuple[int, int]) -> None:
    assert critical_difference(pd.DataFrame(np.ones(shape))) is None


def test_losses_that_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match="losses has numbers that are not finite"):
        critical_difference(pd.DataFrame({"a": [1, math.nan, 2], "b": 1.0, "c": 2.0}))
    with pytest.raises(ValueError, match=r"losses has columns \['a', 'a', 'b'\]; name each"):
        critical_difference(pd.DataFrame(np.ones((3, 3)), columns=["a", "a", "b"]))


# Convergence


def curve(*losses: float | None, seconds: bool = True) -> dict[str, Any]:
    steps = [10.0 * i for i in range(len(losses))]
    timed = {"seconds": [step / 5 for step in steps]} if seconds else {}
    return {"step": steps, "train_loss": list(losses), "test_loss": list(losses), **timed}


def test_arrival_lies_on_the_line_between_points() -> None:
    found = arrival(curve(1.0, 0.75, 0.25, 0.5), 0.5)
    assert found == (15.0, 3.0)
    assert arrival(curve(1.0, 0.75, 0.25), 1.0) == (0.0, 0.0)
    assert arrival(curve(1.0, 0.75, 0.25), 0.25) == (20.0, 4.0)
    assert arrival(curve(1.0, 0.75, 0.25), 0.2) is None
    assert arrival(curve(1.0, 0.5, seconds=False), 0.75) == (5.0, None)
    assert arrival({}, 0.5) is None


@pytest.mark.parametrize("hole", [None, math.nan, math.inf])
def test_a_line_does_not_start_at_a_hole(hole: float | None) -> None:
    assert arrival(curve(1.0, hole, 0.25), 0.5) == (20.0, 4.0)
    assert arrival(curve(1.0, hole), 0.5) is None
    assert best_loss(curve(1.0, hole, 0.5)) == 0.5
    assert best_loss(curve(hole)) is None


@settings(max_examples=80)
@given(st.lists(st.floats(0.01, 5), min_size=2, max_size=12), st.floats(0.01, 5))
def test_arrival_is_where_a_fine_grid_finds_it(losses: list[float], target: float) -> None:
    found = arrival(curve(*losses), target)
    fine = np.linspace(0, 10.0 * (len(losses) - 1), 1000 * (len(losses) - 1) + 1)
    values = np.interp(fine, 10.0 * np.arange(len(losses)), losses)
    below = fine[values <= target * (1 + 1e-9)]
    if min(losses) > target * (1 + 2e-6):
        assert found is None
    elif min(losses) <= target:
        assert found is not None
        assert found.step <= below[0] + 1e-9
        # Between grid points the line may dip; at 1e-6 above, it counts as there.
        loss_there = np.interp(found.step, 10.0 * np.arange(len(losses)), losses)
        assert loss_there == pytest.approx(target, rel=2e-6) or loss_there < target
        assert found.seconds == pytest.approx(found.step / 5)


def test_the_reference_reaches_its_own_best_at_its_lowest_point() -> None:
    own = curve(1.0, 0.6, 0.4, 0.5)
    assert convergence({0: own, 1: own}, {0: own, 1: own}) == (20.0, 4.0, 1.0)


def test_the_same_run_to_rounding_has_arrived() -> None:
    own = curve(1.0, 0.4, 0.5)
    other = curve(1.0, 0.4 * (1 + 1e-7), 0.5)
    assert convergence({0: other}, {0: own}) == (10.0, 2.0, 1.0)
    assert convergence({0: curve(1.0, 0.4 * (1 + 1e-4))}, {0: own}) == (None, None, 0.0)


def test_convergence_over_seeds() -> None:
    target = {seed: curve(1.0, 0.5) for seed in range(4)}
    fast, slow, never = curve(1.0, 0.0), curve(1.0, 0.75, 0.5), curve(1.0, 0.75, 0.6)
    assert convergence({0: fast, 1: slow, 2: slow}, target) == (20.0, 4.0, 1.0)
    # Half of the seeds have arrived by then, and no more than half may be missing.
    assert convergence({0: fast, 1: slow, 2: never, 3: never}, target) == (20.0, 4.0, 0.5)
    assert convergence({0: fast, 1: never, 2: never}, target) == (None, None, 1 / 3)
    assert convergence({0: never}, target) == (None, None, 0.0)
    untimed = {0: curve(1.0, 0.0, seconds=False), 1: fast}
    assert convergence(untimed, target) == (5.0, None, 1.0)


def test_convergence_that_is_unknown() -> None:
    unknown = Convergence(None, None, None)
    assert convergence({}, {}) == unknown
    assert convergence({0: curve(1.0, 0.5)}, {}) == unknown
    assert convergence({0: {}}, {0: curve(1.0, 0.5)}) == unknown
    assert convergence({0: curve(1.0, 0.5)}, {0: curve(None, math.nan)}) == unknown
    # One seed that is unknown does not hide another.
    known = {0: curve(1.0, 0.5), 1: curve(1.0, 0.0)}
    assert convergence(known, {1: curve(1.0, 0.5)}) == (5.0, 1.0, 1.0)


curves_of_seeds = st.lists(
    st.lists(st.one_of(st.floats(0.05, 3), st.just(math.nan)), min_size=1, max_size=8),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100)
@given(curves_of_seeds, curves_of_seeds)
def test_common_arrivals_of_swapped_roles_are_reciprocal(
    one: list[list[float]], other: list[list[float]]
) -> None:
    first = {seed: curve(*losses) for seed, losses in enumerate(one)}
    second = {seed: curve(*losses) for seed, losses in enumerate(other)}
    found, swapped = common_arrivals(first, second), common_arrivals(second, first)
    assert (found.steps is None) == (swapped.steps is None)
    if found.steps is not None and swapped.steps is not None:
        assert found.steps * swapped.steps == pytest.approx(1)
    if found.seconds is not None and swapped.seconds is not None:
        assert found.seconds * swapped.seconds == pytest.approx(1)
    own = common_arrivals(first, first)
    assert own.steps is None or own.steps == 1.0


def test_common_arrivals_favour_neither_of_two_that_are_alike() -> None:
    """Curves of one distribution, that overfit late; the other measure is well below 1 for them."""
    rng = np.random.default_rng(0)
    steps = np.arange(0.0, 201, 8)
    mean = 0.4 + 0.3 * np.exp(-steps / 40) + 0.0006 * np.maximum(steps - 80, 0)

    def seeds() -> dict[int, Any]:
        walks = np.cumsum(rng.normal(0, 0.008, size=(10, len(steps))), axis=1)
        return {
            seed: {"step": list(steps), "test_loss": list(mean + walk - walk[0])}
            for seed, walk in enumerate(walks)
        }

    common, at_best = [], []
    for _ in range(200):
        one, other = seeds(), seeds()
        found = common_arrivals(one, other).steps
        assert found is not None
        common.append(math.log(found))
        own, reference = convergence(one, other).steps, convergence(other, other).steps
        if own and reference:
            at_best.append(math.log(own / reference))
    error = float(np.std(common)) / math.sqrt(len(common))
    assert abs(np.mean(common)) < 3 * error < 0.1
    assert np.mean(at_best) < -3 * float(np.std(at_best)) / math.sqrt(len(at_best))


def test_common_arrivals_of_known_curves() -> None:
    slow, fast = curve(1.0, 0.75, 0.5), curve(1.0, 0.5, 0.2)
    assert common_arrivals({0: fast}, {0: slow}) == pytest.approx((0.5, 0.5))
    # Steps of seeds are averaged as ratios.
    both = common_arrivals({0: fast, 1: slow}, {0: slow, 1: slow})
    assert both == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))
    # One that is never below its first point: both are there at once, which counts as a step.
    never = curve(1.0, 1.5, 2.0)
    assert common_arrivals({0: fast}, {0: never}) == (1.0, 1.0)
    # A curve that starts higher needs ten steps to where the other began.
    assert common_arrivals({0: curve(2.0, 1.0)}, {0: never}) == pytest.approx((10.0, 10.0))
    untimed = {0: curve(1.0, 0.5, seconds=False)}
    assert common_arrivals(untimed, {0: slow}) == pytest.approx((0.5, None))
    # A run that diverges has its curve up to there.
    assert common_arrivals({0: curve(1.0, math.nan)}, {0: slow}) == (1.0, 1.0)
    unknown = CommonArrivals(None, None)
    assert common_arrivals({}, {0: slow}) == unknown
    assert common_arrivals({0: slow}, {}) == unknown
    assert common_arrivals({0: curve(math.nan)}, {0: slow}) == unknown


def test_curves_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match=r"target=nan; it must be a finite loss"):
        arrival(curve(1.0), math.nan)
    with pytest.raises(ValueError, match=r"1 steps, 2 test losses and 0 seconds"):
        arrival({"step": [0], "test_loss": [1.0, 0.5]}, 0.5)
    with pytest.raises(ValueError, match=r"2 steps, 2 test losses and 1 seconds"):
        arrival({"step": [0, 1], "test_loss": [1.0, 0.5], "seconds": [0.0]}, 0.5)


# Consistency


@settings(max_examples=30)
@given(st.integers(2, 5), st.integers(3, 7), st.integers(0, 1000))
def test_consistency_is_the_mean_of_spearmans_correlations(
    seeds: int, features: int, seed: int
) -> None:
    importances = np.random.default_rng(seed).integers(4, size=(seeds, features)).astype(float)
    importances[:, 0] = 5  # so that none is constant
    expected = [stats.spearmanr(*pair).statistic for pair in itertools.combinations(importances, 2)]
    found = importance_consistency(importances.tolist())
    assert found == pytest.approx(np.mean(expected))


def test_consistency_of_runs_that_say_nothing() -> None:
    order = [0.5, 0.3, 0.2]
    assert importance_consistency([order, [1.0, 1.0, 1.0]]) == 0
    assert importance_consistency([order, None, order]) == pytest.approx(1)
    assert importance_consistency([order, [math.nan, 0.1, 0.2], order]) == pytest.approx(1)
    for unknown in ([], [None, None], [order], [order, None], [order, [0.1, 0.2]], [[1.0], [2.0]]):
        assert importance_consistency(unknown) is None


# Summary


def rows_of(*values: tuple[str, str, int, str, int, float], **columns: Any) -> pd.DataFrame:
    names = ["dataset", "model", "n_train", "optimizer", "seed", "log_loss"]
    frame = pd.DataFrame(values, columns=names)
    defaults = {
        "brier": frame["log_loss"] / 2,
        "calibration_error": 0.1,
        "accuracy": 1 - frame["log_loss"],
        "balanced_accuracy": 0.5,
        "roc_auc": math.nan,
        "train_seconds": 2.0,
        "steps": 100,
        "n_classes": 2,
        "diverged": 0,
    }
    return frame.assign(**{**defaults, **columns})


def grid(
    losses: dict[str, dict[str, float]], sizes: tuple[int, ...] = (16, 32), seeds: int = 2
) -> pd.DataFrame:
    """Rows of a full grid; the loss is that of the data set and optimizer."""
    return rows_of(*(
        (data_set, "m", size, optimizer, seed, loss)
        for data_set, own in losses.items()
        for size in sizes
        for seed in range(seeds)
        for optimizer, loss in own.items()
    ))  # fmt: skip


def runs_of(
    frame: pd.DataFrame,
    curves: dict[str, Any],
    importances: dict[tuple[str, int], Any] | None = None,
) -> dict[Cell, CellResult]:
    cells = [Cell(*row) for row in frame[list(Cell._fields)].itertuples(index=False)]
    importances = importances or {}
    return {
        cell: CellResult(
            {}, curves.get(cell.optimizer, {}), importances.get((cell.optimizer, cell.seed))
        )
        for cell in cells
    }


def test_summary_of_a_known_grid() -> None:
    ratios = {"a": 0.5, "b": 0.8, "c": 1.25, "d": 0.99, "e": 1.004}
    frame = grid({name: {"adamw": 0.4, "mine": 0.4 * ratio} for name, ratio in ratios.items()})
    found = summarise(frame, "adamw")
    overall = found["comparisons"]["mine"]["overall"]
    logs = [math.log(ratio) for ratio in ratios.values()]
    assert overall["cases"] == 10
    assert overall["data_sets"] == 5
    assert overall["log_loss_ratio"] == pytest.approx(math.exp(statistics.fmean(logs)))
    assert overall["ratio_interval"] == pytest.approx(bootstrap_interval([[x, x] for x in logs]))
    # 0.99 is further than 1 % in logs, 1.004 is not.
    assert (overall["wins"], overall["losses"]) == (6, 4)
    assert (overall["clear_wins"], overall["ties"], overall["clear_losses"]) == (6, 2, 2)
    tests = found["comparisons"]["mine"]["tests"]
    assert tests["data_sets"] == 5
    wilcoxons = wilcoxon(logs)
    assert wilcoxons is not None
    assert tests["wilcoxon"] == {**wilcoxons, "p_holm": wilcoxons["p"]}
    assert tests["bayes"] == bayesian_signed_rank(logs)
    own = found["comparisons"]["mine"]["by_dataset"]["a"]
    assert own["log_loss_ratio"] == pytest.approx(0.5)
    assert own["ratio_interval"] is None
    assert found["comparisons"]["mine"]["by_size"]["16"]["data_sets"] == 5
    assert found["critical_difference"] is None
    assert found["context"] == []
    first = found["cases"][0]["optimizers"]["mine"]
    assert first["brier"] == pytest.approx(0.1)
    assert first["calibration_error"] == pytest.approx(0.1)
    assert first["seconds_per_step"] == pytest.approx(0.02)
    assert overall["step_cost_ratio"] == pytest.approx(1)
    for unknown in ("steps_to_reference", "seconds_to_reference", "reached", "consistency"):
        assert first[unknown] is None
    for unknown in ("steps_ratio", "reached", "consistency", "consistency_reference"):
        assert overall[unknown] is None
    # Losses are alike in all seeds, so their deviations have no ratio.
    assert overall["deviation_ratio"] is None
    json.dumps(found, allow_nan=False)


def test_the_data_set_is_the_unit_of_tests() -> None:
    """A data set of many models and sizes counts once, by its mean."""
    few = grid({"a": {"adamw": 0.4, "mine": 0.2}, "b": {"adamw": 0.4, "mine": 0.5}}, sizes=(16,))
    many = pd.concat([few, few.assign(model="other"), few[few["dataset"] == "b"].assign(n_train=9)])
    one, two = (summarise(frame, "adamw")["comparisons"]["mine"] for frame in (few, many))
    assert one["tests"] == two["tests"]
    assert one["tests"]["data_sets"] == 2
    assert (one["overall"]["cases"], two["overall"]["cases"]) == (2, 5)


def test_ranks_are_over_data_sets_and_all_optimizers() -> None:
    losses = {name: {"adamw": 0.4, "better": 0.3, "worse": 0.6, "same": 0.4} for name in "abcdefgh"}
    found = summarise(grid(losses), "adamw")
    ranks = found["critical_difference"]
    assert ranks["ranks"] == {"better": 1.0, "adamw": 2.5, "same": 2.5, "worse": 4.0}
    assert ranks["data_sets"] == 8
    assert ranks["same"] == [["better", "adamw", "same"], ["adamw", "same", "worse"]]
    tests = {name: found["comparisons"][name]["tests"] for name in found["comparisons"]}
    assert tests["better"]["wilcoxon"]["p"] == pytest.approx(2 / 2**8)
    assert tests["better"]["wilcoxon"]["p_holm"] == pytest.approx(3 * 2 / 2**8)
    assert tests["same"]["wilcoxon"]["p"] == tests["same"]["wilcoxon"]["p_holm"] == 1
    assert tests["same"]["bayes"]["equivalent"] == 1
    json.dumps(found, allow_nan=False)


def test_a_diverged_run_costs() -> None:
    frame = rows_of(
        ("a", "m", 16, "adamw", 0, 0.4),
        ("a", "m", 16, "adamw", 1, 0.4),
        ("a", "m", 16, "mine", 0, 0.2),
        ("a", "m", 16, "mine", 1, math.nan),
        n_classes=3,
    )
    frame.loc[3, [*METRICS, "diverged"]] = [*[math.nan] * len(METRICS), 1]
    frame.loc[3, "train_seconds"] = 0.1
    found = summarise(frame, "adamw")
    (case,) = found["cases"]
    mine = case["optimizers"]["mine"]
    guess = 4 * math.log(3)
    assert mine["log_loss"] == pytest.approx((0.2 + guess) / 2)
    assert mine["log_loss_worst"] == pytest.approx(guess)
    assert mine["log_loss_deviation"] == pytest.approx((guess - 0.2) / 2)
    assert mine["accuracy"] == pytest.approx(0.8)
    assert mine["train_seconds"] == 2.0
    assert mine["diverged"] == 1
    assert case["winner"] == "adamw"
    overall = found["comparisons"]["mine"]["overall"]
    assert (overall["diverged"], overall["diverged_reference"]) == (1, 0)
    assert overall["log_loss_ratio"] == pytest.approx((0.2 + guess) / 2 / 0.4)
    json.dumps(found, allow_nan=False)


def test_an_optimizer_that_always_diverges_still_has_a_ratio() -> None:
    frame = rows_of(
        *(("a", "m", 16, "adamw", seed, 0.4) for seed in range(2)),
        *(("a", "m", 16, "mine", seed, math.nan) for seed in range(2)),
        diverged=[0, 0, 1, 1],
    )
    found = summarise(frame, "adamw")
    overall = found["comparisons"]["mine"]["overall"]
    assert overall["log_loss_ratio"] == pytest.approx(4 * math.log(2) / 0.4)
    assert overall["accuracy"] is None
    assert overall["step_cost_ratio"] is None
    assert overall["diverged"] == 2
    # And the other way around.
    assert summarise(frame, "mine")["comparisons"]["adamw"]["overall"]["wins"] == 1
    json.dumps(found, allow_nan=False)


def test_convergence_and_consistency_in_a_summary() -> None:
    frame = grid({name: {"adamw": 0.4, "mine": 0.2} for name in "ab"}, sizes=(16,))
    runs = runs_of(
        frame,
        {"adamw": curve(1.0, 0.75, 0.5), "mine": curve(1.0, 0.5, 0.25)},
        {
            ("adamw", 0): [0.1, 0.2, 0.3], ("adamw", 1): [0.3, 0.2, 0.1],
            ("mine", 0): [0.1, 0.2, 0.3], ("mine", 1): [0.2, 0.3, 0.4],
        },
    )  # fmt: skip
    found = summarise(frame, "adamw", runs)
    reference, mine = (found["cases"][0]["optimizers"][name] for name in ("adamw", "mine"))
    assert (reference["steps_to_reference"], reference["reached"]) == (20.0, 1.0)
    assert (mine["steps_to_reference"], mine["seconds_to_reference"]) == (10.0, 2.0)
    assert (reference["consistency"], mine["consistency"]) == pytest.approx((-1, 1))
    overall = found["comparisons"]["mine"]["overall"]
    assert overall["steps_ratio"] == pytest.approx(0.5)
    assert overall["seconds_ratio"] == pytest.approx(0.5)
    assert overall["worst_seed_ratio"] == pytest.approx(0.5)
    assert overall["reached"] == 1
    assert overall["consistency"] == pytest.approx(1)
    assert overall["consistency_reference"] == pytest.approx(-1)
    json.dumps(found, allow_nan=False)


def test_speed_without_selection_is_reciprocal_in_a_summary() -> None:
    frame = grid({name: {"adamw": 0.4, "mine": 0.2} for name in "ab"}, sizes=(16,))
    curves = {"adamw": curve(1.0, 0.75, 0.5), "mine": curve(1.0, 0.45, 0.6)}
    runs = runs_of(frame, curves)
    one = summarise(frame, "adamw", runs)["comparisons"]["mine"]["overall"]
    other = summarise(frame, "mine", runs)["comparisons"]["adamw"]["overall"]
    # Both reach 0.5: on the line from 1 to 0.45 after 10 * 0.5 / 0.55 steps, and after 20.
    assert one["common_steps_ratio"] == pytest.approx(0.5 / 0.55 / 2)
    assert one["common_seconds_ratio"] == pytest.approx(0.5 / 0.55 / 2)
    assert other["common_steps_ratio"] == pytest.approx(1 / one["common_steps_ratio"])
    # The other measure has no number for the one that never gets to 0.45.
    assert (one["reached_cases"], other["reached_cases"]) == (1.0, 0.0)
    assert other["steps_ratio"] is None


def test_accuracy_is_compared_over_seeds_that_both_finished() -> None:
    """Where one of them diverges the seeds are hard; without them it would look better."""
    rows = []
    for seed in range(10):
        hard = seed < 5
        rows.append(("a", "m", 16, "adamw", seed, 0.6 if hard else 0.1))
        rows.append(("a", "m", 16, "mine", seed, math.nan if hard else 0.12))
    frame = rows_of(*rows)
    frame["diverged"] = frame["log_loss"].isna().astype(int)
    found = summarise(frame, "adamw")
    overall = found["comparisons"]["mine"]["overall"]
    assert overall["accuracy"] == pytest.approx(0.88)
    assert overall["accuracy_reference"] == pytest.approx(0.9)
    (case,) = found["cases"]
    assert case["both"]["mine"]["brier"] == pytest.approx([0.06, 0.05])
    assert case["both"]["mine"]["roc_auc"] is None
    # All seeds count in what each case says of an optimizer by itself.
    assert case["optimizers"]["adamw"]["accuracy"] == pytest.approx(0.65)


def test_finished_runs_that_are_left_out_are_counted() -> None:
    frame = grid({"a": {"adamw": 0.4, "mine": 0.2, "cv": 0.3}}, sizes=(5, 32), seeds=3)
    assert summarise(frame, "adamw")["runs_left_out"] == 0
    frame = frame[(frame["optimizer"] != "cv") | (frame["n_train"] != 5)]
    found = summarise(frame, "adamw")
    assert found["runs_left_out"] == 2 * 3
    assert [case["n_train"] for case in found["cases"]] == [32]


def test_a_data_set_has_an_interval_over_its_seeds() -> None:
    rng = np.random.default_rng(0)
    frame = grid({"a": {"adamw": 0.4, "mine": 0.36}, "b": {"adamw": 0.4, "mine": 0.4}}, seeds=6)
    frame["log_loss"] *= np.exp(rng.normal(0, 0.1, size=len(frame)))
    # A seed that one case lacks counts in no case of the data set's interval.
    gone = (frame["dataset"] == "a") & (frame["seed"] == 5) & (frame["n_train"] == 16)
    frame = frame[~gone]
    found = summarise(frame, "adamw")["comparisons"]["mine"]["by_dataset"]
    assert (found["a"]["seeds"], found["b"]["seeds"]) == (5, 6)
    losses = {
        name: frame[(frame["dataset"] == "b") & (frame["optimizer"] == name)]
        .sort_values(["n_train", "seed"])["log_loss"]
        .to_numpy()
        .reshape(2, 6)
        for name in ("mine", "adamw")
    }
    expected = interval_over_seeds(losses["mine"], losses["adamw"])
    assert found["b"]["seeds_interval"] == pytest.approx(expected)


def test_a_run_that_never_arrives_has_no_steps() -> None:
    frame = grid({name: {"adamw": 0.4, "mine": 0.2} for name in "ab"}, sizes=(16,))
    runs = runs_of(frame, {"adamw": curve(1.0, 0.5), "mine": curve(1.0, 0.75)})
    found = summarise(frame, "adamw", runs)
    mine = found["cases"][0]["optimizers"]["mine"]
    assert (mine["steps_to_reference"], mine["reached"]) == (None, 0.0)
    overall = found["comparisons"]["mine"]["overall"]
    assert (overall["steps_ratio"], overall["reached"]) == (None, 0.0)


def test_models_outside_torch_are_kept_apart() -> None:
    frame = grid({name: {"adamw": 0.4, "mine": 0.2} for name in "ab"})
    outside = rows_of(
        ("a", "random_forest", 16, "fit", 0, 0.1),
        ("a", "random_forest", 16, "fit", 1, 0.3),
        ("a", "decision_tree", 16, "fit", 0, 0.5),
        ("b", "random_forest", 16, "fit", 0, 0.6),
        roc_auc=[0.9, 0.7, math.nan, 0.5],
    )
    plain = summarise(frame, "adamw")
    found = summarise(pd.concat([frame, outside], ignore_index=True), "adamw")
    assert {**found, "context": []} == plain
    assert [(entry["dataset"], entry["n_train"]) for entry in found["context"]] == [
        ("a", 16), ("b", 16)
    ]  # fmt: skip
    models = found["context"][0]["models"]
    assert models["random_forest"] == pytest.approx(
        {"log_loss": 0.2, "brier": 0.1, "accuracy": 0.8, "roc_auc": 0.8}
    )
    assert models["decision_tree"]["roc_auc"] is None
    alone = summarise(outside, "adamw")
    assert (alone["cases"], alone["comparisons"], len(alone["context"])) == ([], {}, 2)
    assert alone["critical_difference"] is None
    json.dumps(found, allow_nan=False)


def test_a_reference_that_finished_nothing_leaves_no_case() -> None:
    frame = grid({"a": {"mine": 0.2, "other": 0.3}})
    found = summarise(frame, "adamw")
    assert found["cases"] == []
    assert found["comparisons"]["mine"]["overall"] == {"cases": 0}
    assert found["comparisons"]["mine"]["tests"] == {
        "data_sets": 0, "wilcoxon": None, "bayes": None
    }  # fmt: skip
    assert found["critical_difference"] is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_any_grid_gives_plain_json(seed: int, data_sets: int, optimizers: int, seeds: int) -> None:
    """Whatever has diverged or is missing, and 0 or equal losses."""
    rng = np.random.default_rng(seed)
    names = ["adamw", "b", "c", "d"][:optimizers]
    losses = {f"d{i}": dict.fromkeys(names, 0.5) for i in range(data_sets)}
    frame = grid(losses, seeds=seeds)
    frame["log_loss"] = rng.choice([0.0, 0.3, 0.5, 2.0], size=len(frame))
    frame["diverged"] = rng.choice([0, 0, 0, 1], size=len(frame))
    frame.loc[frame["diverged"] == 1, list(METRICS)] = math.nan
    frame = frame[rng.random(len(frame)) < 0.9]
    curves = {name: curve(*rng.choice([0.2, 0.4, 0.8, math.nan], size=3)) for name in names}
    importances = {
        (name, s): rng.choice([0.0, 1.0, math.nan], size=3).tolist()
        for name in names
        for s in range(seeds)
    }
    with mock.patch.object(significance, "_SAMPLES", 200):
        found = summarise(frame, "adamw", runs_of(frame, curves, importances))
    json.dumps(found, allow_nan=False)
    for comparison in found["comparisons"].values():
        groups = [comparison["overall"], *comparison["by_size"].values()]
        for group in (group for group in groups if group["cases"]):
            assert group["clear_wins"] + group["ties"] + group["clear_losses"] == group["cases"]
            if group["ratio_interval"] is not None:
                low, high = group["ratio_interval"]
                assert low <= high


def test_rows_that_cannot_be_summarised() -> None:
    frame = grid({"a": {"adamw": 0.4, "mine": 0.2}})
    with pytest.raises(ValueError, match="results has no columns brier, diverged; give the rows"):
        summarise(frame.drop(columns=["brier", "diverged"]), "adamw")
    frame.loc[1, "log_loss"] = math.nan
    with pytest.raises(ValueError, match=r"not finite \(a, m, mine, 16 rows, seed 0\), but div"):
        summarise(frame, "adamw")


def test_counting_diverged_runs_leaves_the_results_alone() -> None:
    frame = grid({"a": {"adamw": 0.4, "mine": 0.2}})
    frame.loc[0, "diverged"] = 1
    before = frame.copy()
    counted = count_diverged(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert counted.loc[0, "log_loss"] == pytest.approx(4 * math.log(2))
    assert math.isnan(counted["accuracy"][0])


def test_versions_name_what_the_statistics_depend_on() -> None:
    assert {"scipy", "baycomp", "scikit-posthocs"} <= versions().keys()
