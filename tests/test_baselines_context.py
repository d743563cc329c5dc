"""Models outside torch, against scikit-learn called by hand."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_info

from denograd.baselines import BaselineError
from denograd.baselines.context import (
    CONTEXT,
    CONTEXT_MODELS,
    FOLDS,
    STRENGTHS,
    TREES,
    context_available,
    fit_context_model,
)
from denograd.baselines.cross_validation import draw_folds

SKLEARN = ("logistic_regression", "decision_tree", "random_forest", "hist_gradient_boosting")
INSTALLED = tuple(name for name in CONTEXT_MODELS if context_available(name))

Rows = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


def rows_of(load: object, n: int, seed: int = 0) -> Rows:
    """Standardised rows of a real table, with a class for each row."""
    x, y = load(return_X_y=True)  # type: ignore[operator]
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[:n], order[n:]
    scaler = StandardScaler().fit(x[train])
    x = scaler.transform(x).clip(-8, 8).astype(np.float32)
    return x[train], y[train].astype(np.int64), x[test], y[test].astype(np.int64)


def noisy(rows: int, seed: int) -> Rows:
    """A signal that no model gets all of, so that the choices in between are best."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows + 200, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] + rng.normal(size=len(x)) > 0).astype(np.int64)
    return x[:rows], y[:rows], x[rows:], y[rows:]


def folds_of(y: NDArray[np.int64], seed: int) -> PredefinedSplit:
    return PredefinedSplit(draw_folds(y, FOLDS, seed))


def test_the_names_are_those_agreed_and_each_has_a_source() -> None:
    assert CONTEXT_MODELS == (
        "logistic_regression",
        "decision_tree",
        "random_forest",
        "hist_gradient_boosting",
        "explainable_boosting",
    )
    for name, model in CONTEXT.items():
        assert model.name == name
        assert any(year in model.source for year in ("19", "20"))
        assert "sklearn." in model.source or "interpret." in model.source
    assert all(context_available(name) for name in SKLEARN)


def test_logistic_regression_is_the_best_penalty_of_a_grid_search() -> None:
    x, y, test, _ = noisy(60, seed=3)
    search = GridSearchCV(
        LogisticRegression(max_iter=10_000),
        {"C": STRENGTHS},
        scoring="neg_log_loss",
        cv=folds_of(y, seed=5),
    ).fit(x.astype(np.float64), y)
    assert STRENGTHS[0] < search.best_params_["C"] < STRENGTHS[-1]
    found = fit_context_model("logistic_regression", x, y, test, 2, seed=5)
    np.testing.assert_allclose(found, search.predict_proba(test.astype(np.float64)), atol=1e-6)


def test_hist_gradient_boosting_is_the_best_number_of_rounds_of_a_grid_search() -> None:
    x, y, test, _ = noisy(200, seed=1)
    search = GridSearchCV(
        HistGradientBoostingClassifier(min_samples_leaf=20, early_stopping=False),
        {"max_iter": [10, 30, 100]},
        scoring="neg_log_loss",
        cv=folds_of(y, seed=2),
    ).fit(x.astype(np.float64), y)
    assert search.best_params_["max_iter"] == 30
    found = fit_context_model("hist_gradient_boosting", x, y, test, 2, seed=2)
    np.testing.assert_allclose(found, search.predict_proba(test.astype(np.float64)), atol=1e-6)


def by_leaf(tree: DecisionTreeClassifier, x: NDArray[np.float64], y: NDArray[np.int64],
            test: NDArray[np.float64]) -> NDArray[np.float64]:  # fmt: skip
    """Laplace's rule by counting the training rows of each leaf by hand."""
    here, classes = tree.apply(x), int(y.max()) + 1
    found = []
    for leaf in tree.apply(test):
        labels = y[here == leaf].tolist()
        found.append([(labels.count(c) + 1) / (len(labels) + classes) for c in range(classes)])
    return np.array(found)


def test_decision_tree_is_pruned_where_cross_validation_says() -> None:
    x32, y, test32, _ = noisy(120, seed=4)
    x, test = x32.astype(np.float64), test32.astype(np.float64)

    def make(alpha: float) -> DecisionTreeClassifier:
        return DecisionTreeClassifier(min_samples_leaf=2, ccp_alpha=alpha, random_state=7)

    def held_out_loss(alpha: float) -> float:
        fold = draw_folds(y, FOLDS, 7)
        said, true = [], []
        for k in range(FOLDS):
            rest = fold != k
            said.append(by_leaf(make(alpha).fit(x[rest], y[rest]), x[rest], y[rest], x[~rest]))
            true.append(y[~rest])
        return float(log_loss(np.concatenate(true), np.concatenate(said)))

    alphas = np.unique(make(0.0).cost_complexity_pruning_path(x, y).ccp_alphas.clip(0))
    middles = [float(np.sqrt(a * b)) for a, b in itertools.pairwise(alphas)]
    tried = {alpha: held_out_loss(alpha) for alpha in [*middles, float(2 * alphas[-1])]}
    best = make(min(tried, key=lambda alpha: tried[alpha])).fit(x, y)
    assert 1 < best.get_n_leaves() < make(0.0).fit(x, y).get_n_leaves()
    found = fit_context_model("decision_tree", x32, y, test32, 2, seed=7)
    np.testing.assert_allclose(found, by_leaf(best, x, y, test), atol=1e-12)


def test_random_forest_has_the_leaves_that_are_best_out_of_the_bag() -> None:
    x, y, test, _ = rows_of(load_iris, 40)

    def forest(leaf: int) -> RandomForestClassifier:
        grown = RandomForestClassifier(TREES, min_samples_leaf=leaf, random_state=1, oob_score=True)
        return grown.fit(x.astype(np.float64), y)

    def smooth(shares: NDArray[np.float64]) -> NDArray[np.float64]:
        return (shares * TREES + 1) / (TREES + 3)

    forests = [forest(leaf) for leaf in (1, 2, 5)]
    best = min(forests, key=lambda f: log_loss(y, smooth(f.oob_decision_function_)))
    found = fit_context_model("random_forest", x, y, test, 3, seed=1)
    expected = smooth(best.predict_proba(test.astype(np.float64)))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (best.predict_proba(test) == 0).any()


def test_explainable_boosting_is_interprets_own() -> None:
    glassbox = pytest.importorskip("interpret.glassbox")
    x, y, test, _ = rows_of(load_iris, 24)
    machine = glassbox.ExplainableBoostingClassifier(
        feature_types=["continuous"] * 4, interactions=0, n_jobs=1, random_state=3
    ).fit(x.astype(np.float64), y)
    found = fit_context_model("explainable_boosting", x, y, test, 3, seed=3)
    # The bound on its rounds is out of reach here, so nothing else may differ.
    np.testing.assert_allclose(found, machine.predict_proba(test.astype(np.float64)), atol=1e-5)


@pytest.mark.parametrize("name", INSTALLED)
def test_sixteen_rows_teach_each_model_something(name: str) -> None:
    x, y, test, codes = rows_of(load_iris, 16, seed=1)
    found = fit_context_model(name, x, y, test, 3, seed=0)
    assert log_loss(codes, found) < 0.6 * np.log(3)
    assert (found.argmax(1) == codes).mean() > 0.6
    np.testing.assert_array_equal(found, fit_context_model(name, x, y, test, 3, seed=0))


@pytest.mark.parametrize("name", INSTALLED)
def test_classes_without_a_training_row_get_what_laplace_gives_them(name: str) -> None:
    x, y, test, _ = rows_of(load_iris, 30)
    kept = y < 2
    two = fit_context_model(name, x[kept], y[kept], test, 2, seed=0)
    # The same rows, their classes numbered 1 and 3 of five.
    five = fit_context_model(name, x[kept], 2 * y[kept] + 1, test, 5, seed=0)
    absent = 1 / (kept.sum() + 5)
    np.testing.assert_allclose(five[:, [0, 2, 4]], absent, rtol=1e-4)
    np.testing.assert_allclose(five[:, [1, 3]], two * (1 - 3 * absent), atol=1e-4)
    np.testing.assert_allclose(five.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_class_with_one_row_and_a_single_class_are_no_obstacle(name: str) -> None:
    x, y, test, codes = rows_of(load_iris, 16, seed=2)
    y = np.where(np.arange(16) == 0, 2, y % 2)
    found = fit_context_model(name, x, y, test, 3, seed=0)
    assert np.isfinite(log_loss(codes, found, labels=[0, 1, 2]))
    assert (found >= 1e-6 / 2).all()
    alone = fit_context_model(name, x, np.ones(16, dtype=np.int64), test, 3, seed=0)
    np.testing.assert_allclose(alone, [[1 / 19, 17 / 19, 1 / 19]] * len(test))


@settings(max_examples=12)
@given(
    name=st.sampled_from(("logistic_regression", "decision_tree", "hist_gradient_boosting")),
    rows=st.integers(1, 24),
    columns=st.integers(1, 5),
    n_classes=st.integers(2, 4),
    tests=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_any_shape_gives_probabilities(
    name: str, rows: int, columns: int, n_classes: int, tests: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows + tests, columns)).astype(np.float32)
    y = rng.integers(0, n_classes, rows)
    found = fit_context_model(name, x[:rows], y, x[rows:], n_classes, seed)
    assert found.shape == (tests, n_classes)
    assert found.dtype == np.float64
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)


def test_a_forest_of_two_rows() -> None:
    x = np.array([[0.0], [1.0]])
    found = fit_context_model("random_forest", x, np.array([0, 1]), x, 2, 0)
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_one_thread_is_used_and_the_limit_is_lifted_after(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    before = [pool["num_threads"] for pool in threadpool_info()]
    model = CONTEXT["hist_gradient_boosting"]

    def spy(x: NDArray[np.float64], y: NDArray[np.int64], seed: int, groups: object) -> object:
        seen.append([pool["num_threads"] for pool in threadpool_info()])
        assert groups is None
        return model.fit(x, y, seed, None)

    spied = type(model)(model.name, model.source, spy, model.predict)
    monkeypatch.setitem(CONTEXT, model.name, spied)
    x, y, test, _ = noisy(20, seed=0)
    fit_context_model("hist_gradient_boosting", x, y, test, 2, 0)
    assert seen
    assert set(seen[0]) == {1}
    assert [pool["num_threads"] for pool in threadpool_info()][: len(before)] == before


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "interpret", None)
    assert not context_available("explainable_boosting")
    x = np.zeros((4, 1))
    with pytest.raises(BaselineError, match=r"package interpret.*pip install.*\[context\]"):
        fit_context_model("explainable_boosting", x, np.array([0, 1, 0, 1]), x, 2, 0)


def test_what_cannot_be_fitted_is_refused() -> None:
    x, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])

    def fit(x_train: object = x, y_train: object = y, x_test: object = x, classes: object = 2,
            name: str = "decision_tree") -> None:  # fmt: skip
        fit_context_model(name, x_train, y_train, x_test, classes, 0)  # type: ignore[arg-type]

    with pytest.raises(BaselineError, match=r"'oracle' is not known; use one of logistic_"):
        fit(name="oracle")
    with pytest.raises(BaselineError, match=r"'oracle' is not known"):
        context_available("oracle")
    with pytest.raises(BaselineError, match="n_classes=1; it must be at least 2"):
        fit(classes=1)
    with pytest.raises(BaselineError, match=r"x_train is of type float64 and shape \(4, 2\).*fin"):
        fit(x_train=np.full((4, 2), np.nan))
    with pytest.raises(BaselineError, match=r"x_test is of type <U1"):
        fit(x_test=np.full((4, 2), "a"))
    with pytest.raises(BaselineError, match="x_test has 3 columns and x_train 2"):
        fit(x_test=np.zeros((4, 3)))
    with pytest.raises(BaselineError, match=r"x_train has shape \(0, 2\); give at least one row"):
        fit(x_train=np.zeros((0, 2)), y_train=np.zeros(0, dtype=int))
    with pytest.raises(BaselineError, match=r"y_train is of type float64.*\(4,\), whole numbers"):
        fit(y_train=y.astype(float))
    with pytest.raises(BaselineError, match="whole numbers from 0 to 1"):
        fit(y_train=np.array([0, 1, 2, 0]))
