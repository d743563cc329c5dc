"""The metrics of explanations: known answers, other libraries' answers, what must not matter."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy as scipy_entropy
from scipy.stats import spearmanr
from torch import nn

from denograd import explain

NUMBERS = st.floats(-100, 100, allow_subnormal=False).map(lambda v: round(v, 3))
ATTRIBUTIONS = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(2, 8)), elements=NUMBERS
)


def random_mask(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    mask = rng.random(shape) < 0.4
    mask[np.arange(shape[0]), rng.integers(shape[1], size=shape[0])] = True
    return mask


# ------------------------------------------------------------------------------- sharpness


@given(ATTRIBUTIONS)
def test_entropy_is_scipys_and_gini_is_the_mean_difference(a: NDArray[np.float64]) -> None:
    features = a.shape[1]
    for row, found, index in zip(a, explain.entropy(a), explain.gini(a), strict=True):
        size = np.abs(row)
        if not size.any():
            assert (found, index) == (pytest.approx(1), pytest.approx(0))
            continue
        assert found == pytest.approx(scipy_entropy(size) / np.log(features), abs=1e-12)
        # Gini's other definition: the mean absolute difference over twice the mean.
        gaps = np.abs(size[:, None] - size[None, :]).mean()
        assert index == pytest.approx(gaps / (2 * size.mean()), abs=1e-12)


@pytest.mark.parametrize("features", [2, 5, 40])
def test_sharpness_of_one_feature_of_equal_ones_and_of_a_half(features: int) -> None:
    one, alike = np.eye(features)[:1], np.full((1, features), -3.0)
    half = np.zeros((1, 2 * features))
    half[0, :features] = 7.0
    assert explain.entropy(np.vstack([one, alike])) == pytest.approx([0, 1])
    assert explain.gini(np.vstack([one, alike])) == pytest.approx([1 - 1 / features, 0])
    assert explain.entropy(half) == pytest.approx([np.log(features) / np.log(2 * features)])
    assert explain.gini(half) == pytest.approx([0.5])


@given(ATTRIBUTIONS, st.floats(1e-3, 1e3), st.randoms(use_true_random=False))
def test_sharpness_knows_neither_order_nor_sign_nor_scale(
    a: NDArray[np.float64], scale: float, random: Any
) -> None:
    order = list(range(a.shape[1]))
    random.shuffle(order)
    other = -scale * a[:, order]
    for metric in (explain.entropy, explain.gini):
        assert metric(other) == pytest.approx(metric(a), abs=1e-9)
    assert explain.gini(a).max() <= 1 - 1 / a.shape[1]


def test_gini_meets_robin_hood_rising_tide_and_cloning() -> None:
    # Three of the criteria of Hurley and Rickard 2009, section 3.
    rng = np.random.default_rng(0)
    a = np.sort(rng.random((50, 6)), axis=1)
    robbed = a.copy()
    robbed[:, 5] -= 0.1 * (a[:, 5] - a[:, 0])
    robbed[:, 0] += 0.1 * (a[:, 5] - a[:, 0])
    assert (explain.gini(robbed) < explain.gini(a)).all()
    assert (explain.gini(a + 0.5) < explain.gini(a)).all()
    assert explain.gini(np.hstack([a, a])) == pytest.approx(explain.gini(a))


def test_sharpness_neither_overflows_nor_underflows() -> None:
    a = np.array([[3.0, 1.0, 0.0]])
    for scale in (1e-320 / 3, 1e-300, 1e307):
        assert explain.gini(a * scale) == pytest.approx(explain.gini(a), rel=1e-2)
        assert explain.entropy(a * scale) == pytest.approx(explain.entropy(a), rel=1e-2)
    assert explain.entropy([[5.0], [0.0]]).tolist() == [0.0, 0.0]


def test_images_are_flattened_and_tensors_taken() -> None:
    a = torch.rand(3, 4, 5, requires_grad=True)
    flat = a.detach().numpy().reshape(3, 20)
    mask = np.zeros((4, 5), dtype=bool)
    mask[1:3] = True
    assert explain.gini(a) == pytest.approx(explain.gini(flat))
    for metric in (explain.relevance_mass, explain.relevance_rank, explain.pointing_game):
        assert metric(a, mask) == pytest.approx(metric(flat, mask.reshape(-1)))
        assert metric(a, torch.from_numpy(mask)) == pytest.approx(metric(a, mask))


# --------------------------------------------------------------------------------- overlap


@given(ATTRIBUTIONS, st.integers(0, 10**6))
def test_overlap_is_what_all_ways_to_break_ties_give_on_average(
    a: NDArray[np.float64], seed: int
) -> None:
    # Few values, so that many features tie; at most five, so that all orders can be listed.
    a = np.round(a[:, :5] / 50)
    mask = random_mask(a.shape, np.random.default_rng(seed))
    mass = explain.relevance_mass(a, mask)
    rank = explain.relevance_rank(a, mask)
    point = explain.pointing_game(a, mask)
    for i, (row, inside) in enumerate(zip(np.abs(a), mask, strict=True)):
        total = row.sum()
        assert mass[i] == pytest.approx(row[inside].sum() / total if total else inside.mean())
        count, hits, tops = inside.sum(), [], []
        for lot in itertools.permutations(range(len(row))):
            best = sorted(range(len(row)), key=lambda j: (-row[j], lot[j]))
            hits.append(inside[best[:count]].mean())
            tops.append(inside[best[0]])
        assert rank[i] == pytest.approx(np.mean(hits))
        assert point[i] == pytest.approx(np.mean(tops))


def test_overlap_of_a_perfect_and_of_a_wrong_explanation() -> None:
    mask = np.array([True, True, False, False])
    right, wrong = [[2.0, -3.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, -4.0]]
    for metric in (explain.relevance_mass, explain.relevance_rank, explain.pointing_game):
        assert metric(right, mask).tolist() == [1.0]
        assert metric(wrong, mask).tolist() == [0.0]
        assert metric(wrong, np.ones(4, dtype=bool)).tolist() == [1.0]


# ------------------------------------------------------------------ deletion and insertion


def linear(weight: NDArray[np.float64], start: float) -> explain.Predict:
    def predict(x: NDArray[np.float64]) -> NDArray[np.float64]:
        p = start + x @ weight
        return np.stack([1 - p, p], axis=1)

    return predict


def test_curves_of_a_linear_probability_are_partial_sums() -> None:
    weight, start = np.array([0.3, 0.05, 0.2, 0.1]), 0.1
    x = np.ones((1, 4))
    said = x * weight
    whole = start + weight.sum()
    down = whole - np.concatenate([[0], np.cumsum([0.3, 0.2, 0.1, 0.05])])
    up = start + np.concatenate([[0], np.cumsum([0.3, 0.2, 0.1, 0.05])])
    for options, factor in (({}, whole), ({"normalized": False}, 1.0)):
        removed = explain.deletion(linear(weight, start), x, said, target=1, **options)
        brought = explain.insertion(linear(weight, start), x, said, target=1, **options)
        assert removed.value[0] == pytest.approx(down / factor)
        assert brought.value[0] == pytest.approx(up / factor)
        assert removed.area[0] == pytest.approx(((down[1:] + down[:-1]) / 8).sum() / factor)
        assert removed.share.tolist() == [0, 0.25, 0.5, 0.75, 1]


@given(st.integers(0, 10**6))
def test_no_other_order_has_a_better_area_in_a_linear_model(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight, x, base = rng.normal(size=4) / 50, rng.normal(size=(3, 4)), rng.normal(size=4)
    predict = linear(weight, 0.5)
    right = (x - base) * weight
    best = explain.deletion(predict, x, right, baseline=base, target=1).area
    most = explain.insertion(predict, x, right, baseline=base, target=1).area
    other = rng.normal(size=x.shape)
    assert (best <= explain.deletion(predict, x, other, baseline=base, target=1).area + 1e-9).all()
    assert (most >= explain.insertion(predict, x, other, baseline=base, target=1).area - 1e-9).all()
    # Bringing in by importance is taking away by unimportance, read backwards.
    reverse = explain.deletion(predict, x, -right, baseline=base, target=1)
    there = explain.insertion(predict, x, right, baseline=base, target=1)
    assert there.value == pytest.approx(reverse.value[:, ::-1])


def test_curves_are_those_of_a_loop_over_rows_and_features() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    rng = np.random.default_rng(0)
    x, said, base = rng.normal(size=(7, 6)), rng.normal(size=(7, 6)), rng.normal(size=(7, 6))
    predict = explain.probabilities(model)
    for rank_by, key in (("value", said), ("magnitude", np.abs(said))):
        curve = explain.deletion(predict, x, said, baseline=base, rank_by=rank_by)  # type: ignore[arg-type]
        for i in range(7):
            label = predict(x[i : i + 1])[0].argmax()
            row, values = x[i].copy(), [1.0]
            for j in np.argsort(-key[i]):
                row[j] = base[i, j]
                p = model(torch.tensor(row, dtype=torch.float32)).softmax(0)[label].detach()
                values.append(float(p) / predict(x[i : i + 1])[0, label])
            assert curve.value[i] == pytest.approx(values, rel=1e-5)


def test_rows_are_cut_into_parts_that_fit_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, said = rng.normal(size=(9, 5)), rng.normal(size=(9, 5))
    predict = linear(np.full(5, 0.02), 0.5)
    whole = explain.deletion(predict, x, said)
    import sys

    monkeypatch.setattr(sys.modules["denograd.explain.deletion"], "_CHUNK", 1)
    assert explain.deletion(predict, x, said).value == pytest.approx(whole.value)


def test_ties_are_broken_by_lot_and_not_by_the_features_order() -> None:
    x = np.ones((4000, 3))
    weight = np.array([0.3, 0.0, 0.0])
    curve = explain.deletion(linear(weight, 0.3), x, np.zeros_like(x), target=1, normalized=False)
    # The one feature that matters is gone after one step in a third of the rows.
    assert (curve.value[:, 1] < 0.5).mean() == pytest.approx(1 / 3, abs=0.03)
    again = explain.deletion(linear(weight, 0.3), x, np.zeros_like(x), target=1, normalized=False)
    assert (curve.value == again.value).all()


# -------------------------------------------------------------------------- max-sensitivity


def test_max_sensitivity_of_a_linear_explanation_approaches_its_closed_form() -> None:
    # ||A (y - x)|| is largest at a corner of the box.
    matrix = np.array([[1.0, 2.0], [0.0, -1.0]])

    def explainer(x: Any, target: Any = None) -> NDArray[np.float64]:
        return np.asarray(x) @ matrix

    x = np.array([[1.0, 1.0], [0.0, 0.0]])
    corners = np.array(list(itertools.product((-0.2, 0.2), repeat=2)))
    largest = np.linalg.norm(corners @ matrix, axis=1).max()
    found = explain.max_sensitivity(explainer, x, radius=0.2, samples=3000, relative=False)
    assert (found <= largest + 1e-12).all()
    assert found == pytest.approx([largest] * 2, rel=0.05)
    relative = explain.max_sensitivity(explainer, x, radius=0.2, samples=3000)
    # A row whose attributions are all 0 is not divided by their norm.
    assert relative == pytest.approx([found[0] / np.linalg.norm(x[0] @ matrix), found[1]])


def test_max_sensitivity_is_captums_with_the_same_draws() -> None:
    metrics = pytest.importorskip("captum.metrics")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    def gradient(inputs: torch.Tensor) -> torch.Tensor:
        # captum's metric runs without gradients.
        with torch.enable_grad():
            inputs = inputs.detach().requires_grad_()
            (found,) = torch.autograd.grad(model(inputs)[:, 1].sum(), inputs)
        return found

    def explainer(x: Any, target: Any = None) -> NDArray[np.float64]:
        return gradient(torch.as_tensor(x)).numpy()

    x = torch.randn(6, 4, dtype=torch.float64)
    rng = np.random.default_rng(3)

    def same_draws(inputs: torch.Tensor, radius: float) -> tuple[torch.Tensor, ...]:
        # All draws at once, those of a row one after the other.
        draws = rng.uniform(-radius, radius, size=(5, 6, 4)).transpose(1, 0, 2)
        return (inputs + torch.from_numpy(draws.reshape(30, 4)),)

    expected = metrics.sensitivity_max(
        lambda inputs: (gradient(inputs[0]),),
        x,
        same_draws,
        perturb_radius=0.3,
        n_perturb_samples=5,
    )
    found = explain.max_sensitivity(explainer, x, radius=0.3, samples=5, seed=3)
    assert found == pytest.approx(expected.numpy(), rel=1e-9)


# ------------------------------------------------------------------------------ consistency


@given(arrays.arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(2, 7)), elements=NUMBERS))
def test_rank_consistency_is_the_mean_of_scipys_correlations(a: NDArray[np.float64]) -> None:
    pairs = []
    for first, second in itertools.combinations(a, 2):
        flat = np.ptp(first) == 0 or np.ptp(second) == 0
        pairs.append(0.0 if flat else spearmanr(first, second).statistic)
    assert explain.rank_consistency(a) == pytest.approx(np.mean(pairs), abs=1e-9)


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(1, 7)), elements=NUMBERS),
    st.integers(1, 7),
)
def test_top_k_consistency_is_the_mean_overlap_of_sets(a: NDArray[np.float64], k: int) -> None:
    k = min(k, a.shape[1])
    sets = []
    for row in np.abs(a):
        order = sorted(range(len(row)), key=lambda j: -row[j])[:k]
        sets.append({j for j in order if row[j] > 0})
    pairs = [len(s & t) / len(s | t) if s | t else 0.0 for s, t in itertools.combinations(sets, 2)]
    assert explain.top_k_consistency(a, k) == pytest.approx(np.mean(pairs))


@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(2, 6)),
        elements=st.floats(0, 100).map(lambda v: round(v, 3)),
    )
)
def test_attention_divergence_is_scipys(a: NDArray[np.float64]) -> None:
    filled = np.where(a.sum(-1, keepdims=True) > 0, a, 1.0)
    pairs = [
        jensenshannon(p, q, base=2) ** 2
        for first, second in itertools.combinations(filled, 2)
        for p, q in zip(first, second, strict=True)
    ]
    assert explain.attention_divergence(a) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_fits_that_agree_are_consistent_and_those_that_share_nothing_are_not() -> None:
    same = np.tile([0.5, 0.3, 0.15, 0.05], (10, 1))
    assert explain.rank_consistency(same) == pytest.approx(1)
    assert explain.top_k_consistency(same, 2) == 1
    assert explain.attention_divergence(same[:, None]) == pytest.approx(0, abs=1e-12)
    opposite = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    assert explain.rank_consistency(opposite) == pytest.approx(-1)
    assert explain.top_k_consistency(opposite, 2) == 0
    assert explain.attention_divergence(np.eye(10)[:, None]) == pytest.approx(1)
    # By chance: independent orders correlate by 0, and k of F overlap as hypergeometric draws do.
    chance = np.random.default_rng(0).random((400, 20))
    assert explain.rank_consistency(chance) == pytest.approx(0, abs=0.01)


def test_consistency_of_attributions_is_the_mean_over_rows() -> None:
    a = np.random.default_rng(0).random((4, 6, 5))
    each = [explain.rank_consistency(a[:, i]) for i in range(6)]
    assert explain.rank_consistency(a) == pytest.approx(np.mean(each))
    each = [explain.top_k_consistency(a[:, i], 2) for i in range(6)]
    assert explain.top_k_consistency(a, 2) == pytest.approx(np.mean(each))


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(2, 6)), elements=NUMBERS),
    st.randoms(use_true_random=False),
)
def test_consistency_knows_neither_the_order_of_fits_nor_of_features(
    a: NDArray[np.float64], random: Any
) -> None:
    fits, features = list(range(len(a))), list(range(a.shape[1]))
    random.shuffle(fits)
    random.shuffle(features)
    other = a[fits][:, features]
    assert explain.rank_consistency(other) == pytest.approx(explain.rank_consistency(a), abs=1e-9)
    size = np.abs(a)
    assert explain.attention_divergence(size[fits][:, features][:, None]) == pytest.approx(
        explain.attention_divergence(size[:, None]), abs=1e-9
    )


# -------------------------------------------------------------------------------- bad input

A = np.array([[1.0, 2.0], [3.0, 4.0]])
MASK = np.array([True, False])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda a: explain.entropy(a), "attributions"),
        (lambda a: explain.gini(a), "attributions"),
        (lambda a: explain.relevance_mass(a, MASK), "attributions"),
        (lambda a: explain.relevance_rank(a, MASK), "attributions"),
        (lambda a: explain.pointing_game(a, MASK), "attributions"),
        (lambda a: explain.deletion(linear(np.ones(2) / 9, 0), A, a), "attributions"),
        (lambda a: explain.insertion(linear(np.ones(2) / 9, 0), A, a), "attributions"),
        (lambda a: explain.deletion(linear(np.ones(2) / 9, 0), a, A), "x"),
        (lambda a: explain.deletion(linear(np.ones(2) / 9, 0), A, A, baseline=a), "baseline"),
        (lambda a: explain.deletion(lambda x: x * np.nan, A, A), "predict"),
        (lambda a: explain.max_sensitivity(lambda x, t: x * np.nan, A), "explainer"),
        (lambda a: explain.max_sensitivity(lambda x, t: x, a), "x"),
        (lambda a: explain.rank_consistency(a), "importances"),
        (lambda a: explain.top_k_consistency(a, 1), "importances"),
        (lambda a: explain.attention_divergence(a[:, None]), "weights"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(bad: float, call: Any, name: str) -> None:
    broken = A.copy()
    broken[1, 0] = bad
    with pytest.raises(ValueError, match=rf"^{name}: .*NaN or infinite, the first at"):
        call(broken)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explain.entropy([1.0, 2.0]), r"^attributions: it has shape \(2,\)"),
        (lambda: explain.entropy(np.zeros((0, 3))), r"^attributions: it has shape \(0, 3\)"),
        (lambda: explain.gini([["a", "b"]]), r"^attributions: it does not hold numbers"),
        (lambda: explain.relevance_mass(A, np.ones(3, bool)), r"^mask: it has shape \(3,\)"),
        (lambda: explain.relevance_rank(A, np.ones((3, 2), bool)), r"^mask: it has shape \(3, 2\)"),
        (lambda: explain.pointing_game(A, np.ones((2, 2, 2))), r"^mask: it has shape \(2, 2, 2\)"),
        (lambda: explain.pointing_game(A, [0.5, 1.0]), r"^mask: it must be boolean"),
        (lambda: explain.pointing_game(A, [[1, 0], [0, 0]]), r"^mask: row 1 has no feature"),
        (lambda: explain.deletion(linear(np.ones(2) / 9, 0), A, A[:1]), "^attributions: they have"),
        (lambda: explain.deletion(linear(np.ones(2) / 9, 0), A, A, baseline=[1.0]), "^baseline: "),
        (lambda: explain.deletion(linear(np.ones(2) / 9, 0), A, A, target=2), "^target: it names"),
        (lambda: explain.deletion(linear(np.ones(2) / 9, 0), A, A, target=[0]), "^target: it has"),
        (lambda: explain.deletion(linear(np.ones(2) / 9, 0), A, A, target=0.5), "^target: it has"),
        (
            lambda: explain.insertion(linear(np.zeros(2), 0), A, A, target=1),
            "^target: class 1 has probability 0 in row 0.*normalized=False",
        ),
        (lambda: explain.deletion(lambda x: x[:, 0], A, A), "^predict: for 2 rows"),
        (
            lambda: explain.deletion(linear(np.ones(2) / 9, 0), A, A, rank_by="size"),  # type: ignore[arg-type]
            "^rank_by='size'",
        ),
        (lambda: explain.max_sensitivity(lambda x, t: x, A, radius=0), "^radius=0"),
        (lambda: explain.max_sensitivity(lambda x, t: x, A, radius=np.inf), "^radius=inf"),
        (lambda: explain.max_sensitivity(lambda x, t: x, A, samples=0), "^samples=0"),
        (lambda: explain.max_sensitivity(lambda x, t: x, [1.0]), "^x: it has shape"),
        (lambda: explain.max_sensitivity(lambda x, t: x[:1], A), "^explainer: it gives 1 rows"),
        (lambda: explain.rank_consistency(A[:1]), "^importances: it holds 1 fit.*at least 2"),
        (lambda: explain.rank_consistency(A[:, :1]), "^importances: it has one feature"),
        (lambda: explain.rank_consistency([1.0, 2.0]), r"^importances: it has shape \(2,\)"),
        (lambda: explain.top_k_consistency(A[:1], 1), "^importances: it holds 1 fit"),
        (lambda: explain.top_k_consistency(A, 3), "^k=3; .* 1 to the 2 features"),
        (lambda: explain.top_k_consistency(A, 0), "^k=0"),
        (lambda: explain.top_k_consistency(A, True), "^k=True"),
        (lambda: explain.attention_divergence(A[:1]), "^weights: it holds 1 fit"),
        (lambda: explain.attention_divergence(-A), "^weights: the least of them is -4"),
    ],
)
def test_what_cannot_be_used_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_attributions_of_zeros_name_nothing() -> None:
    zeros, mask = np.zeros((2, 4)), np.array([True, False, False, False])
    assert explain.entropy(zeros) == pytest.approx([1, 1])
    assert explain.gini(zeros) == pytest.approx([0, 0])
    for metric in (explain.relevance_mass, explain.relevance_rank, explain.pointing_game):
        assert metric(zeros, mask) == pytest.approx([0.25, 0.25])
    assert explain.rank_consistency(zeros) == 0
    assert explain.top_k_consistency(zeros, 2) == 0
    assert explain.attention_divergence(zeros) == pytest.approx(0)


def test_a_data_frame_stays_one_on_its_way_to_the_model() -> None:
    x = pd.DataFrame({"a": [1.0, 2.0], "b": [0.5, -0.5]})

    def predict(rows: pd.DataFrame) -> np.ndarray:
        p = 1 / (1 + np.exp(-rows["a"] - 0.3 * rows["b"]))
        return np.stack([1 - p, p], axis=1)

    def explainer(rows: pd.DataFrame, target: object = None) -> np.ndarray:
        return rows[["a", "b"]].to_numpy() ** 2

    named = explain.deletion(predict, x, x)
    plain = explain.deletion(
        lambda rows: predict(pd.DataFrame(rows, columns=["a", "b"])), x.to_numpy(), x
    )
    np.testing.assert_array_equal(named.value, plain.value)
    expected = explain.max_sensitivity(lambda rows, target=None: rows**2, x.to_numpy())
    np.testing.assert_allclose(explain.max_sensitivity(explainer, x), expected)


def test_numbers_with_names_are_put_in_one_order() -> None:
    """What pandas names is never compared place by place."""
    rng = np.random.default_rng(0)
    fits = [pd.Series(rng.random(4), index=list("abcd")) for _ in range(3)]
    sorted_by_size = [fit.sort_values() for fit in fits]
    plain = [fit.to_numpy() for fit in fits]
    assert explain.rank_consistency(sorted_by_size) == explain.rank_consistency(plain)
    assert explain.top_k_consistency(sorted_by_size, 2) == explain.top_k_consistency(plain, 2)
    found = explain.label_randomization(
        lambda y, seed: sorted_by_size[seed], np.arange(9), seeds=3, shuffles=1
    )
    assert found.consistency == explain.rank_consistency(plain)
    with pytest.raises(ValueError, match=r"importances: fit 1 names the features 'a', 'b', 'e'"):
        explain.rank_consistency([fits[0], pd.Series([1.0, 2, 3], index=list("abe"))])


def test_numbers_that_pandas_names_itself_are_names_once_they_are_moved() -> None:
    fits = [pd.Series([1.0, 2, 3]), pd.Series([3.0, 1, 2])]
    moved = [fit.sort_values(ascending=False) for fit in fits]
    assert explain.rank_consistency(moved) == explain.rank_consistency(fits)
    unnamed = [fits[0].set_axis(list("abc")), fits[1]]
    assert explain.rank_consistency(unnamed) == explain.rank_consistency(fits)
    other = [fit[::-1] for fit in fits]
    assert explain.agreement_across(fits, other) == explain.agreement_across(fits, fits)


def test_masks_are_of_the_columns_that_they_name() -> None:
    rng = np.random.default_rng(0)
    said = pd.DataFrame(rng.random((4, 3)), columns=list("abc"))
    mask = pd.DataFrame([[True, False, False]] * 4, columns=list("abc"))
    for measure in (explain.relevance_mass, explain.relevance_rank, explain.pointing_game):
        expected = measure(said.to_numpy(), mask.to_numpy())
        np.testing.assert_allclose(measure(said[["c", "b", "a"]], mask), expected)


def test_attributions_are_of_the_columns_that_they_name() -> None:
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.random((5, 3)), columns=list("abc"))
    given = pd.DataFrame(rng.random((5, 3)), columns=list("abc"))

    def predict(rows: pd.DataFrame) -> NDArray[np.float64]:
        p = 0.1 + rows.to_numpy() @ [0.5, 0.2, 0.1]
        return np.stack([1 - p, p], axis=1)

    for curve in (explain.deletion, explain.insertion):
        expected = curve(predict, x, given.to_numpy()).area
        np.testing.assert_allclose(curve(predict, x, given[["c", "a", "b"]]).area, expected)
        unnamed = pd.DataFrame(given.to_numpy())
        np.testing.assert_allclose(curve(predict, x, unnamed).area, expected)
        with pytest.raises(ValueError, match="attributions: it names the features 'a', 'b', 'z'"):
            curve(predict, x, given.rename(columns={"c": "z"}))
