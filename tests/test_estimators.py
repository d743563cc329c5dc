"""The scikit-learn estimators: training, data of all kinds, weights, going on, bad input."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from denograd import DenoGrad
from denograd.estimators import (
    AdditiveNetClassifier,
    FeatureAttentionClassifier,
    FeatureAttentionRegressor,
    PrototypeNetClassifier,
    SoftTreeClassifier,
    SoftTreeRegressor,
)

Tree = functools.partial(SoftTreeClassifier, depth=2, max_steps=12, random_state=0)
RegressionTree = functools.partial(SoftTreeRegressor, depth=2, max_steps=12, random_state=0)


@pytest.fixture(scope="module")
def iris() -> tuple[pd.DataFrame, pd.Series]:
    X, y = load_iris(return_X_y=True, as_frame=True)
    return X.iloc[::2], y.iloc[::2]


@pytest.fixture(scope="module")
def mixed() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    n = 80
    frame = pd.DataFrame(
        {
            "age": rng.normal(50, 10, n),
            "dose": rng.integers(0, 4, n),
            "sex": rng.choice(["f", "m"], n),
            "ward": pd.Categorical(rng.choice(["north", "south", "east"], n)),
            "smokes": rng.random(n) < 0.4,
            "seen": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, n), "D"),
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[::9, "sex"] = None
    target = np.where((frame["dose"] > 1) | (frame["ward"] == "east"), "ill", "well")
    return frame, target


def weights_of(estimator: Any) -> list[np.ndarray]:
    return [p.detach().numpy() for p in estimator.model_.parameters()]


# Training is what it says.


def test_full_batches_with_a_factory_are_a_plain_training_loop() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 3)), np.arange(20) % 2
    factory = functools.partial(torch.optim.SGD, lr=0.3)
    fitted = SoftTreeClassifier(
        depth=2, optimizer=factory, max_steps=7, batch_size=20, random_state=3
    ).fit(X, y)
    started = SoftTreeClassifier(
        depth=2, optimizer=functools.partial(torch.optim.SGD, lr=1e-30), max_steps=1,
        batch_size=20, random_state=3,
    ).fit(X, y)  # fmt: skip
    model = started.model_.float()
    standard = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
    for _ in range(7):
        loss = F.cross_entropy(model(standard), torch.tensor(y))
        for p, g in zip(
            model.parameters(), torch.autograd.grad(loss, model.parameters()), strict=True
        ):
            p.data -= 0.3 * g
    for own, plain in zip(weights_of(fitted), model.parameters(), strict=True):
        assert_allclose(own, plain.detach().numpy(), atol=1e-5)


def test_default_fit_learns_and_says_so(iris: Any) -> None:
    X, y = iris
    model = SoftTreeClassifier(max_steps=100, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9
    assert isinstance(model._run.optimizer, DenoGrad)
    assert (model.n_iter_, len(model.loss_curve_)) == (100, 100)
    assert np.mean(model.loss_curve_[-10:]) < 0.5 * np.mean(model.loss_curve_[:10])
    assert_array_equal(model.feature_names_in_, X.columns)
    assert_allclose(model.feature_importances_.sum(), 1)
    assert_allclose(model.predict_proba(X).sum(1), 1)
    assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))


def test_regression_does_not_depend_on_the_targets_units() -> None:
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:100], y[:100]
    plain = RegressionTree(max_steps=30).fit(X, y).predict(X)
    other = RegressionTree(max_steps=30).fit(X, 1e6 + 1e3 * y).predict(X)
    assert_allclose((other - 1e6) / 1e3, plain, rtol=1e-4)
    assert np.corrcoef(plain, y)[0, 1] > 0.5


def test_a_constant_target_is_predicted() -> None:
    X = np.random.default_rng(0).normal(size=(20, 2))
    model = RegressionTree(max_steps=60).fit(X, np.full(20, 7.1))
    assert model.target_scale_ == 1.0
    assert_allclose(model.predict(X), 7.1, atol=0.5)


def test_optimizers_by_name_and_factory(iris: Any) -> None:
    X, y = iris
    for name, kind in [("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")]:
        made = Tree(optimizer=name, learning_rate=0.02, max_steps=2).fit(X, y)._run.optimizer
        assert (type(made).__name__, made.param_groups[0]["lr"]) == (kind, 0.02)
    wrapped = Tree(optimizer=lambda p: DenoGrad(torch.optim.SGD(p, lr=0.1)), max_steps=4)
    optimizer = wrapped.fit(X, y)._run.optimizer
    assert (optimizer.total_steps, optimizer.dataset_size) == (4, len(X))
    assert optimizer._model is wrapped._run.model
    assert isinstance(Tree(optimizer="denograd:identity").fit(X, y)._run.optimizer, DenoGrad)


def test_regressors_take_the_denoiser_for_measured_targets(iris: Any) -> None:
    X, _ = iris
    y = X.iloc[:, 0]
    own, named, other = (
        RegressionTree(max_steps=5, optimizer=optimizer).fit(X, y)
        for optimizer in ("denograd", "denograd:regression", "denograd:default")
    )
    assert_array_equal(own.predict(X), named.predict(X))
    assert not np.allclose(own.predict(X), other.predict(X))


# Randomness.


def test_same_random_state_same_model_and_torch_is_left_alone(iris: Any) -> None:
    X, y = iris
    before = torch.random.get_rng_state()
    first, second = Tree().fit(X, y), Tree().fit(X, y)
    assert torch.equal(before, torch.random.get_rng_state())
    assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    other = Tree(random_state=1).fit(X, y)
    assert not np.allclose(other.predict_proba(X), first.predict_proba(X))
    order = np.random.default_rng(0).permutation(len(X))
    shuffled = Tree().fit(X.iloc[order], y.iloc[order])
    assert_array_equal(shuffled.predict_proba(X), first.predict_proba(X))


# Weights.


@pytest.mark.parametrize("batch_size", [8, 500])
def test_whole_weights_repeat_rows_and_zero_removes_them(iris: Any, batch_size: int) -> None:
    X, y = iris
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    make = functools.partial(Tree, batch_size=batch_size)
    weighted = make().fit(X, y, sample_weight=weight)
    repeated = make().fit(X.loc[X.index.repeat(weight)], y.repeat(weight))
    assert_array_equal(weighted.predict_proba(X), repeated.predict_proba(X))
    assert weighted._run.optimizer.dataset_size == weight.sum()


def test_fractional_weights_scale_the_loss() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 2)), rng.normal(size=12)
    factory = functools.partial(torch.optim.SGD, lr=0.1)
    make = functools.partial(RegressionTree, optimizer=factory, batch_size=100, max_steps=8)
    weight = rng.integers(1, 4, 12) + 0.0
    halved = make().fit(X, y, sample_weight=weight / 2)
    quartered = make().fit(X, y, sample_weight=weight / 4)
    assert_allclose(halved.predict(X), quartered.predict(X), rtol=1e-6)
    plain = make().fit(X, y)
    assert not np.allclose(halved.predict(X), plain.predict(X))
    # Of equal weights nothing but their ratio counts.
    equal = make().fit(X, y, sample_weight=np.full(12, 0.3))
    assert_array_equal(equal.predict(X), plain.predict(X))
    # Zero among fractions removes the row, from the preprocessing too.
    weight[:3] = 0
    removed = make().fit(X[3:], y[3:], sample_weight=weight[3:] / 2)
    zeroed = make().fit(X, y, sample_weight=weight / 2)
    assert_array_equal(zeroed.predict(X), removed.predict(X))


def test_balanced_classes_weigh_as_repeated_rows_do() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    y = (np.arange(40) < 10).astype(int)
    factory = functools.partial(torch.optim.SGD, lr=0.1)
    make = functools.partial(Tree, optimizer=factory, batch_size=500)
    balanced = make(class_weight="balanced").fit(X, y)
    by_hand = make(class_weight={1: 3.0}).fit(X, y)
    assert_allclose(balanced.predict_proba(X), by_hand.predict_proba(X), atol=1e-6)
    assert balanced.predict_proba(X)[:, 1].mean() > make().fit(X, y).predict_proba(X)[:, 1].mean()


# Early stopping, going on, copies.


def test_early_stopping_keeps_the_best_weights() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    model = SoftTreeClassifier(
        optimizer="adamw", learning_rate=0.3, max_steps=200, early_stopping=True, patience=4,
        random_state=0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(60) < 0.3, 1 - y[:60], y[:60])
    model.fit(X[:60], noisy)
    curve = model.validation_curve_
    assert model.n_iter_ < 200
    assert model.best_step_ == min(curve, key=curve.get) < model.n_iter_
    assert sum(step > model.best_step_ for step in curve) == 4
    # What is gone on with, and what is read, are these weights both.
    for own, kept in zip(model._run.model.parameters(), weights_of(model), strict=True):
        assert_array_equal(own.detach().double().numpy(), kept)


def test_held_out_loss_of_the_kept_weights_is_the_lowest(monkeypatch: Any) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    model = Tree(max_steps=60, early_stopping=True, optimizer="adamw", learning_rate=0.3)
    split: list[Any] = []
    plain = SoftTreeClassifier._split
    monkeypatch.setattr(
        SoftTreeClassifier,
        "_split",
        lambda self, rows: split.append(plain(self, rows)) or split[-1],
    )
    model.fit(X[:50], y[:50])
    held_out = split[0][1]
    batch = model._batchable(held_out)
    loss = float(F.cross_entropy(model.model_(batch.x.double()).detach(), batch.y))
    assert loss == pytest.approx(min(model.validation_curve_.values()), rel=1e-5)
    assert len(held_out.target) == 10
    assert set(split[0][0].target) == {0, 1}


def test_partial_fit_goes_on_with_model_and_optimizer(iris: Any) -> None:
    X, y = iris
    X, y = X.to_numpy(), y.to_numpy()
    model = Tree(batch_size=25)
    model.partial_fit(X[:50], y[:50], classes=[0, 1, 2])
    assert model.n_iter_ == 2
    optimizer, before = model._run.optimizer, weights_of(model)
    model.partial_fit(X[50:], y[50:])
    assert model._run.optimizer is optimizer
    assert optimizer._engine.steps == model.n_iter_ == 3
    assert optimizer.dataset_size == len(X)
    assert not np.array_equal(before[0], weights_of(model)[0])
    # Full batches of a plain optimizer: one fit of three steps is three partial fits.
    make = functools.partial(Tree, optimizer="adam", batch_size=500)
    whole, parts = make(max_steps=3).fit(X, y), make()
    for _ in range(3):
        parts.partial_fit(X, y, classes=[0, 1, 2])
    assert_allclose(parts.predict_proba(X), whole.predict_proba(X), rtol=1e-12)


def test_partial_fit_can_start_without_a_class(iris: Any) -> None:
    X, y = iris
    model = Tree().partial_fit(X[y < 2], y[y < 2], classes=[2, 1, 0])
    assert model.predict_proba(X).shape == (len(X), 3)
    with pytest.raises(ValueError, match="class 7, which is not among"):
        model.partial_fit(X[:4], [0, 1, 7, 0])
    with pytest.raises(ValueError, match="not the same as in the first call"):
        model.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        Tree().partial_fit(X, y)
    with pytest.raises(ValueError, match="early_stopping=False, or call fit"):
        Tree(early_stopping=True).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="give a dict of weights"):
        Tree(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])


def test_warm_start_goes_on(iris: Any) -> None:
    X, y = iris
    make = functools.partial(Tree, optimizer="adam", batch_size=500)
    twice = make(max_steps=5, warm_start=True).fit(X, y).fit(X, y)
    once = make(max_steps=10).fit(X, y)
    assert twice.n_iter_ == 10
    assert_allclose(twice.predict_proba(X), once.predict_proba(X), rtol=1e-12)
    told = Tree(max_steps=5, warm_start=True).fit(X, y).fit(X, y)
    assert told._run.optimizer.total_steps == 10
    with pytest.raises(ValueError, match="which is not among the classes"):
        twice.fit(X, y + 1)


def test_pickles_predict_the_same_and_go_on_alike(iris: Any) -> None:
    X, y = iris
    model = Tree(warm_start=True).fit(X, y)
    assert not any(m._forward_hooks for m in model._run.model.modules())
    copied = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert_array_equal(copied.predict_proba(X), model.predict_proba(X))
    pd.testing.assert_frame_equal(copied.explain(X), model.explain(X))
    assert_array_equal(copied.fit(X, y).predict_proba(X), model.fit(X, y).predict_proba(X))


def test_works_in_a_grid_search_in_a_pipeline(iris: Any) -> None:
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), FeatureAttentionClassifier(max_steps=15))
    grid = {"featureattentionclassifier__width": np.array([2, 4])}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_params_["featureattentionclassifier__width"] in (2, 4)
    assert search.predict(X).shape == (len(X),)
    scores = cross_val_score(Tree(max_steps=40), X, y, cv=2, error_score="raise")
    assert scores.min() > 0.6


def test_verbose_shows_progress_and_else_nothing(iris: Any, capsys: Any) -> None:
    X, y = iris
    Tree(verbose=True).fit(X, y)
    shown = capsys.readouterr()
    assert "SoftTreeClassifier" in shown.err
    assert "12/12" in shown.err
    Tree().fit(X, y)
    assert capsys.readouterr() == ("", "")


# Frames.


def test_a_frame_of_all_kinds(mixed: Any) -> None:
    frame, target = mixed
    model = FeatureAttentionClassifier(max_steps=60, random_state=0).fit(frame, target)
    assert model.score(frame, target) > 0.7
    names = model.encoded_names_
    assert {"age", "age_missing", "sex=f", "sex=m", "sex=(missing)", "smokes=True"} <= set(names)
    assert {"ward=east", "ward=north", "ward=south", "seen_days"} <= set(names)
    told = model.explain(frame)
    assert list(told.columns) == list(frame.columns)
    assert_allclose(told.sum(axis=1), 1)
    # What was fitted comes from the training rows alone.
    ages = frame["age"]
    filled = frame.assign(age=ages.fillna(ages.median()))
    gaps = ages.isna().to_numpy()
    inside = model._encoder.transform
    rows = [inside(model._frame(f, reset=False))[gaps, names.index("age")] for f in (frame, filled)]
    assert_array_equal(*rows)


def test_unseen_categories_count_as_none_of_the_known(mixed: Any) -> None:
    frame, target = mixed
    model = FeatureAttentionClassifier(max_steps=5, random_state=0).fit(frame, target)
    ward = [model.encoded_names_.index(f"ward={w}") for w in ("east", "north", "south")]
    strange = frame.head(3).assign(ward="mars")
    encoded = model._encoder.transform(model._frame(strange, reset=False))
    units = encoded[:, ward] * model._encoder.scale[ward] + model._encoder.center[ward]
    assert_allclose(units, 0, atol=1e-6)
    assert model.predict(strange).shape == (3,)


def test_columns_that_look_like_identifiers_are_used() -> None:
    frame = pd.DataFrame({"patient_id": np.arange(40), "flat": 1.0})
    target = frame["patient_id"] > 19
    model = FeatureAttentionClassifier(max_steps=5).fit(frame, target)
    assert model.encoded_names_ == ["patient_id"]
    assert model.explain(frame)["flat"].eq(0).all()
    assert_allclose(model.feature_importances_, [1, 0])


def test_arrays_with_gaps_and_frames_without_names() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2))
    X[::4, 1] = np.nan
    y = rng.normal(size=30)
    model = FeatureAttentionRegressor(max_steps=5, random_state=0).fit(X, y)
    assert model.encoded_names_ == ["x0", "x1", "x1_missing"]
    framed = FeatureAttentionRegressor(max_steps=5, random_state=0).fit(pd.DataFrame(X), y)
    assert_array_equal(model.predict(X), framed.predict(pd.DataFrame(X)))
    assert framed.encoded_names_ == ["0", "1", "1_missing"]


# Bad input.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 0}, "max_steps=0; it must be a whole number"),
        ({"batch_size": 2.5}, "batch_size=2.5; it must be a whole number"),
        ({"patience": True}, "patience=True; it must be"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0; it must be a number between"),
        ({"learning_rate": -1}, "learning_rate=-1; it must be a number above 0"),
        ({"optimizer": "adamm"}, "optimizer='adamm' is not known; use one of denograd"),
        ({"optimizer": "denograd:"}, "optimizer='denograd:' is not known"),
        ({"optimizer": "denograd:nowhere"}, "optimizer='denograd:nowhere'"),
        ({"optimizer": 3}, "optimizer=3; it must be one of"),
        ({"optimizer": torch.optim.Adam, "learning_rate": 0.1}, "has no effect on an optimizer"),
        ({"class_weight": "even"}, "class_weight='even'; use 'balanced'"),
        ({"class_weight": {"no": 1}}, "class_weight names 'no', which is no class"),
        ({"class_weight": {0: -1}}, "weights must be finite numbers of at least 0"),
        ({"depth": 0}, "depth=0"),
        ({"temperature": 0}, "temperature=0"),
    ],
)
def test_bad_parameters(iris: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tree(**changes).fit(*iris)


def test_a_factory_must_return_an_optimizer(iris: Any) -> None:
    with pytest.raises(TypeError, match="returned a int; it must return"):
        Tree(optimizer=lambda p: 3).fit(*iris)


def test_more_heads_than_width(iris: Any) -> None:
    with pytest.raises(ValueError, match="heads=5 is more than width=4"):
        FeatureAttentionClassifier(width=4, heads=5).fit(*iris)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[1.0], [2.0]], [0, 0], "y has one class, 0"),
        ([[1.0]], [0], "1 sample"),
        ([[1.0], [np.inf]], [0, 1], "infinity"),
        ([[1.0], [2.0]], [0.5, 1.2], "continuous"),
        ([[1.0], [2.0]], [0, np.nan], "NaN"),
        ([[1.0], [1.0]], [0, 1], "every column is constant"),
        ([[1.0], [2.0]], [0, 1, 1], "inconsistent numbers of samples"),
        ([1.0, 2.0], [0, 1], "Expected 2D array"),
        (pd.DataFrame({"a": [1.0, np.inf]}), [0, 1], "infinity in column 'a'"),
        (pd.DataFrame({"a": [1j, 2j]}), [0, 1], "Complex data not supported"),
        (pd.DataFrame({"a": [[1], [2]]}), [0, 1], "column 'a' holds values of type list"),
        (pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), [0, 1], "unique column names"),
        (pd.DataFrame([[1, 2], [3, 4]], columns=[7, 7]), [0, 1], "unique column names"),
        (pd.DataFrame(index=range(3)), [0, 1, 0], "0 feature"),
        (
            pd.DataFrame({"a": pd.to_timedelta([1, 2], "D")}),
            [0, 1],
            "column 'a' has type timedelta",
        ),
    ],
)
def test_bad_rows(X: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tree().fit(X, y)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_regression_targets_must_be_finite_numbers(bad: float) -> None:
    X = [[1.0], [2.0], [3.0]]
    with pytest.raises(ValueError, match=r"Input y contains (NaN|infinity)"):
        RegressionTree().fit(X, [1.0, 2.0, bad])
    with pytest.raises(ValueError, match="for labels use a classifier"):
        RegressionTree().fit(X, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([-1.0, 1.0, 1.0, 1.0], "sample_weight holds -1; weights must be at least 0"),
        ([0.0, 0.0, 0.0, 0.0], "at least one non-zero"),
        ([np.nan, 1.0, 1.0, 1.0], "NaN"),
        ([1.0, 1.0], "sample_weight.shape"),
        ([1.0, 0.0, 1.0, 0.0], "y has one class"),
        ([0.0, 0.0, 1.0, 0.0], "n_samples=1"),
    ],
)
def test_bad_weights(weight: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tree().fit([[1.0], [2.0], [3.0], [4.0]], [0, 1, 0, 1], sample_weight=weight)


def test_columns_that_change_their_kind(mixed: Any) -> None:
    frame, target = mixed
    model = AdditiveNetClassifier(max_steps=2).fit(frame, target)
    with pytest.raises(ValueError, match="column 'age' held numbers in training"):
        model.predict(frame.assign(age="old"))
    with pytest.raises(ValueError, match="column 'seen' held dates in training"):
        model.predict(frame.assign(seen=1.0))
    with pytest.raises(ValueError, match="X is no DataFrame, but in training column 'sex'"):
        model.predict(frame.to_numpy())
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"age": "years"}))


def test_a_loss_that_explodes_is_an_error() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    with pytest.raises(ValueError, match="use a lower learning_rate"):
        FeatureAttentionRegressor(optimizer="sgd", learning_rate=1e6, max_steps=50).fit(X, y)


def test_too_few_rows_to_hold_out() -> None:
    with pytest.raises(ValueError, match="leave none to hold out"):
        Tree(early_stopping=True).fit([[1.0], [2.0]], [0, 1])


def test_training_rows_are_kept_by_prototypes_alone(iris: Any) -> None:
    X, y = iris
    tree, prototypes = Tree().fit(X, y), PrototypeNetClassifier(max_steps=2).fit(X, y)
    largest = [max(v.numel() for v in vars(m).values() if isinstance(v, torch.Tensor))
               if any(isinstance(v, torch.Tensor) for v in vars(m).values()) else 0
               for m in (tree, prototypes)]  # fmt: skip
    assert largest == [0, X.size]
    assert isinstance(prototypes.model_, nn.Module)
