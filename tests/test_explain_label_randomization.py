"""Whether seeds agree because of the labels: cases with known answers, and a real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.datasets import load_breast_cancer
from sklearn.feature_selection import f_classif
from sklearn.tree import DecisionTreeClassifier

from denograd import explain

LABELS = np.arange(40) % 2


def test_what_the_labels_alone_decide_is_gained() -> None:
    """The fits see the labels in one place; shuffled, each seed sees another."""

    def importance(y: NDArray[Any], seed: int) -> NDArray[np.float64]:
        if (y == LABELS).all():
            return np.arange(6.0)
        return np.random.default_rng([seed, *y]).random(6)

    found = explain.label_randomization(importance, LABELS, seeds=20)
    assert found.consistency == pytest.approx(1)
    assert found.randomized.shape == found.across.shape == (5,)
    assert found.randomized.mean() == pytest.approx(0, abs=0.1)
    assert found.across.mean() == pytest.approx(0, abs=0.1)


def test_what_a_model_always_says_gains_nothing() -> None:
    found = explain.label_randomization(lambda y, seed: np.arange(4.0), LABELS)
    assert found.consistency == pytest.approx(1)
    assert found.randomized == pytest.approx(1)
    assert found.across == pytest.approx(1)


def test_agreement_on_something_else_is_no_agreement_with_it() -> None:
    """Fits to shuffled labels agree among themselves as fits to the labels do, on another order."""

    def importance(y: NDArray[Any], seed: int) -> list[int]:
        return [1, 2, 3] if (y == LABELS).all() else [3, 2, 1]

    found = explain.label_randomization(importance, LABELS, seeds=3)
    assert found.consistency == pytest.approx(1)
    assert found.randomized == pytest.approx(1)
    assert found.across == pytest.approx(-1)


def test_all_seeds_share_the_shuffles_of_the_same_labels() -> None:
    seen: list[tuple[int, tuple[int, ...]]] = []

    def importance(y: NDArray[Any], seed: int) -> list[float]:
        seen.append((seed, tuple(y)))
        y[:] = 0  # What a fit does to its labels is its own affair.
        return [0.0, 1.0, float(seed)]

    explain.label_randomization(importance, LABELS, seeds=3, shuffles=4)
    assert [seed for seed, _ in seen] == [0, 1, 2] * 5
    groups = [{y for _, y in seen[i : i + 3]} for i in range(0, 15, 3)]
    assert all(len(group) == 1 for group in groups)
    assert groups[0] == {tuple(LABELS)}
    shuffled = set.union(*groups[1:])
    assert len(shuffled) == 4
    assert all(sum(y) == LABELS.sum() and y != tuple(LABELS) for y in shuffled)


def test_across_is_the_mean_of_scipys_correlations_between_other_seeds() -> None:
    one, other = np.random.default_rng(0).random((2, 4, 6))
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    expected = np.mean([spearmanr(one[i], other[j]).statistic for i, j in pairs])
    assert explain.agreement_across(one, other) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (np.eye(3), np.eye(3)[:2], r"one has shape \(3, 3\) and other \(2, 3\)"),
        (np.eye(3)[:1], np.eye(3)[:1], "one: it holds 1 fit"),
        ([[1.0, np.inf], [1.0, 2.0]], np.eye(2), "one: 1 of 4 values are NaN or infinite"),
    ],
)
def test_what_cannot_be_compared_is_refused(one: Any, other: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain.agreement_across(one, other)


def test_noise_gains_nothing_where_seeds_share_their_rows() -> None:
    """Every seed fits the same rows, so it agrees, on chance in the labels."""
    rng = np.random.default_rng(0)
    gained = []
    for _ in range(30):
        x, y = rng.normal(size=(60, 10)), rng.integers(0, 2, 60)
        found = explain.label_randomization(
            lambda y, seed, x=x: f_classif(x, y)[0] + rng.normal(size=10) / 2, y, seeds=4
        )
        assert found.consistency > 0.2
        gained.append(found.consistency - found.randomized.mean())
    assert np.mean(gained) == pytest.approx(0, abs=0.08)


def of_rows(
    x: NDArray[np.float64], fit: Callable[[NDArray[np.float64], NDArray[Any]], Any]
) -> Callable[[NDArray[Any], int], Any]:
    """The importance in a fit to 80 rows, other ones for each seed."""

    def importance(y: NDArray[Any], seed: int) -> Any:
        some = np.random.default_rng(seed).choice(len(x), 80, replace=False)
        return fit(x[some], y[some])

    return importance


def test_a_test_of_each_feature_agrees_where_there_is_a_signal() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    found = explain.label_randomization(of_rows(x, lambda x, y: f_classif(x, y)[0]), y)
    assert found.consistency > 0.8
    assert found.randomized.mean() < 0.3
    assert found.across.mean() < 0.3


def test_trees_prefer_columns_with_many_values() -> None:
    """The known bias of impurity importance (Strobl et al. 2007) agrees without any signal."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 8))
    x[:, 4:] = x[:, 4:] > 0

    def fit(x: NDArray[np.float64], y: NDArray[Any]) -> Any:
        return DecisionTreeClassifier(random_state=0).fit(x, y).feature_importances_

    found = explain.label_randomization(of_rows(x, fit), rng.integers(0, 2, 500))
    assert found.randomized.mean() > 0.5
    assert found.consistency == pytest.approx(found.randomized.mean(), abs=0.15)
    assert found.across == pytest.approx(found.randomized, abs=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 1}, "seeds=1; it must be a whole number of at least 2"),
        ({"shuffles": 0}, "shuffles=0; it must be a whole number of at least 1"),
        ({"y": np.ones(5)}, r"y: it has shape \(5,\).*not all the same"),
        ({"y": np.zeros((4, 2))}, r"y: it has shape \(4, 2\); it must be \(N,\)"),
        ({"y": []}, r"y: it has shape \(0,\)"),
        ({"importance": lambda y, s: [1.0, np.nan]}, "importance: 1 of 2 values are NaN"),
        ({"importance": lambda y, s: 3.0}, r"importance: it gave shape \(\) with seed 0"),
        ({"importance": lambda y, s: [1.0] * (2 + s)}, "importance: it gave 2 and 3 features"),
    ],
)
def test_bad_input_names_the_argument(change: dict[str, Any], message: str) -> None:
    settings = {"importance": lambda y, s: [1.0, 2.0], "y": LABELS, "seeds": 2, **change}
    with pytest.raises(ValueError, match=message):
        explain.label_randomization(settings.pop("importance"), settings.pop("y"), **settings)
