"""What a fit learns from, and what it must not: held-out rows, threads, going on, failures."""

from __future__ import annotations

import functools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from denograd.estimators import (
    AdditiveNetClassifier,
    AdditiveNetRegressor,
    FeatureAttentionClassifier,
    PrototypeNetClassifier,
    PrototypeNetRegressor,
    RuleNetClassifier,
    SoftForestClassifier,
    SoftTreeClassifier,
    SoftTreeRegressor,
    TemporalAttentionClassifier,
)
from denograd.estimators._rows import hold_out, training_rows
from denograd.estimators._sample import MAX_SAMPLE

Tree = functools.partial(SoftTreeClassifier, depth=2, max_steps=10, random_state=0)
RegressionTree = functools.partial(SoftTreeRegressor, depth=2, max_steps=10, random_state=0)


@pytest.fixture
def rows() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 3)), columns=["a", "b", "c"])
    return X, np.where(X["a"] + 0.5 * X["b"] > 0, "yes", "no")


def watch_splits(monkeypatch: Any, kind: Any) -> list[Any]:
    split: list[Any] = []
    plain = kind._split

    def watched(self: Any, rows: Any) -> Any:
        split.append(plain(self, rows))
        return split[-1]

    monkeypatch.setattr(kind, "_split", watched)
    return split


# Held-out rows.


def test_copies_of_a_row_are_held_out_together(monkeypatch: Any, rows: Any) -> None:
    X, y = rows
    split = watch_splits(monkeypatch, SoftTreeClassifier)
    weight = np.arange(60) % 4 + 1
    same = X.set_axis(np.zeros(60, dtype=int))  # an index that tells no row from another
    Tree(early_stopping=True).fit(same, y, sample_weight=weight)
    kept, held_out = (set(part.position) for part in split[0])
    assert len(held_out) == 12
    assert not kept & held_out
    assert kept | held_out == set(range(60))
    assert len(split[0][0].frame) + len(split[0][1].frame) == weight.sum()
    first = {tuple(row) for row in split[0][0].frame.to_numpy()}
    assert not first & {tuple(row) for row in split[0][1].frame.to_numpy()}


def test_nothing_is_learned_from_held_out_rows(monkeypatch: Any, rows: Any) -> None:
    X, _ = rows
    y = X["a"].to_numpy() * 3 + 10
    split = watch_splits(monkeypatch, PrototypeNetRegressor)
    model = PrototypeNetRegressor(
        prototypes=60, max_steps=1, random_state=0, early_stopping=True,
        optimizer=functools.partial(torch.optim.SGD, lr=1e-30),
    ).fit(X, y)  # fmt: skip
    kept, held_out = split[0]
    assert len(held_out.frame) == 12
    centers = model.model_.centers.weight.detach()
    for part, hits in ((kept, 48), (held_out, 0)):
        x = torch.from_numpy(model._encoder.transform(part.frame)).double()
        assert int((torch.cdist(x, centers) < 1e-6).any(1).sum()) == hits
    assert_allclose(model._encoder.center, kept.frame.to_numpy().mean(0))
    assert model.target_mean_ == pytest.approx(kept.target.mean())
    assert model.target_scale_ == pytest.approx(kept.target.std())
    assert len(model._reference) == 48
    assert model._run.optimizer is not None


def test_a_warm_start_holds_out_the_same_rows(monkeypatch: Any, rows: Any) -> None:
    X, y = rows
    split = watch_splits(monkeypatch, SoftTreeClassifier)
    model = Tree(early_stopping=True, warm_start=True)
    model.fit(X, y)
    order = np.random.default_rng(1).permutation(60)
    model.fit(X.iloc[order], y[order])
    held_out = [set(part[1].frame.index) for part in split]
    assert held_out[0] == held_out[1]
    assert len(held_out[0]) == 12


def test_few_rows_of_many_classes_can_be_held_out() -> None:
    X = np.random.default_rng(0).normal(size=(10, 2))
    y = list("abcde") * 2
    model = Tree(early_stopping=True).fit(X, y)
    assert model.validation_curve_
    held = training_rows(pd.DataFrame(X), np.array(y), None)
    chosen = hold_out(held, 0.2, held.target, np.random.RandomState(0))
    assert chosen.sum() == 2
    assert set(held.target[~chosen]) == set("abcde")
    # The largest classes give what is left over.
    uneven = training_rows(pd.DataFrame(np.arange(12.0)), np.array(list("aaaaaaaabbcc")), None)
    chosen = hold_out(uneven, 0.25, uneven.target, np.random.RandomState(0))
    assert pd.Series(uneven.target[chosen]).value_counts().to_dict() in (
        {"a": 2, "b": 1}, {"a": 2, "c": 1}
    )  # fmt: skip


# Threads.


@pytest.mark.parametrize("kind", [SoftTreeClassifier, PrototypeNetClassifier])
def test_fits_in_threads_are_equal_and_leave_torch_alone(kind: Any, rows: Any) -> None:
    X, y = rows

    def fit(seed: int) -> np.ndarray:
        return kind(max_steps=8, random_state=seed).fit(X, y).predict_proba(X)

    alone = [fit(0), fit(1)]
    before = torch.random.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fit, [0, 1] * 4))
    assert torch.equal(before, torch.random.get_rng_state())
    for number, predicted in enumerate(together):
        assert_array_equal(predicted, alone[number % 2])


class _Noisy(torch.optim.SGD):
    """Draws random numbers from torch's own generator."""

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p += 0.1 * torch.randn_like(p)
        return super().step(closure)


def test_an_optimizer_that_draws_random_numbers_follows_the_seed(rows: Any) -> None:
    X, y = rows
    make = functools.partial(Tree, optimizer=functools.partial(_Noisy, lr=0.1), max_steps=5)

    def fit(seed: int) -> np.ndarray:
        return make(random_state=seed).fit(X, y).predict_proba(X)

    before = torch.random.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(fit, [0, 0, 1, 0]))
    assert torch.equal(before, torch.random.get_rng_state())
    assert_array_equal(drawn[0], drawn[1])
    assert_array_equal(drawn[0], drawn[3])
    assert not np.allclose(drawn[0], drawn[2])


# Going on.


def test_explanations_after_partial_fit_speak_of_all_rows(rows: Any) -> None:
    X, _ = rows
    y = 10 * X["a"].to_numpy() + 100
    # A rate at which one step on one row does not move the model far.
    model = AdditiveNetRegressor(random_state=0, max_steps=60, learning_rate=0.01).fit(X, y)
    bias, weights = model.explain(X)["bias"].iloc[0], model.feature_importances_
    model.partial_fit(X[:1], y[:1])
    told = model.explain(X)
    assert told["bias"].iloc[0] == pytest.approx(bias, abs=3)
    assert_allclose(model.feature_importances_, weights, atol=0.05)
    # The first row counts twice among the 61 seen.
    seen = pd.concat([X, X[:1]])
    assert_allclose(model.explain(seen).drop(columns="bias").mean(), 0, atol=1e-9)
    tree = Tree(max_steps=60).fit(X, y > 100)
    before = tree.to_rules()
    tree.partial_fit(X[:1], (y > 100)[:1])
    assert sum(rule.support > 0 for rule in tree.to_rules()) > 1
    support = [rule.support for rule in before]
    assert_allclose([rule.support for rule in tree.to_rules()], support, atol=0.1)
    assert tree._trained_fidelity == pytest.approx(tree.fidelity(seen))


def test_the_rows_kept_are_bounded_and_can_be_forgotten() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 2))
    model = Tree().partial_fit(X[:600], X[:600, 0] > 0, classes=[False, True])
    assert len(model._sample.rows) == 600
    for part in (X[600:1200], X[1200:]):
        model.partial_fit(part, part[:, 0] > 0)
    kept = model._sample.rows
    assert (len(kept), model._sample.seen) == (MAX_SAMPLE, 1500)
    # Each of the rows has the same chance: 400, 400 and 200 are expected of the three calls.
    standard = model._encoder.transform(model._frame(X, reset=False))
    place = {row.tobytes(): number for number, row in enumerate(standard)}
    came = np.array([place[row.tobytes()] for row in kept.x.float().numpy()])
    assert len(set(came)) == MAX_SAMPLE
    assert_allclose(np.histogram(came, [0, 600, 1200, 1500])[0], [400, 400, 200], atol=50)
    assert_array_equal(kept.target, X[came, 0] > 0)
    text = model.to_text()
    assert model.forget_rows()._sample.seen == 0
    assert model.to_text() == text
    model.partial_fit(X[:10], X[:10, 0] > 0)
    assert len(model._sample.rows) == 10


def test_prototypes_name_rows_of_earlier_calls(rows: Any) -> None:
    X, y = rows
    model = PrototypeNetClassifier(random_state=0)
    model.partial_fit(X[:30], y[:30], classes=["no", "yes"])
    model.partial_fit(X[30:], y[30:])
    told = model.explain(X)
    assert_array_equal(told["row"], X.index)
    assert_array_equal(told["row_target"], y)
    with pytest.raises(ValueError, match="explains by the training rows"):
        model.forget_rows()


def test_prototypes_tell_rows_of_one_label_apart(rows: Any) -> None:
    X, y = rows
    twice = X.set_axis(np.arange(60) % 30)
    model = PrototypeNetClassifier(random_state=0, max_steps=3).fit(twice, y)
    told = model.explain(twice, k=40)
    assert_allclose(told["distance_1"], 0, atol=1e-9)
    assert_array_equal(told["row_1"], twice.index)
    assert_array_equal(told["row_target_1"], y)
    # A row that counts three times is still one row.
    weighted = PrototypeNetClassifier(random_state=0, max_steps=3).fit(
        twice, y, sample_weight=np.full(60, 3)
    )
    assert (weighted.explain(twice, k=2)["distance_2"] > 1e-6).all()


def test_weights_of_partial_fit_are_relative_to_all_rows_seen(rows: Any) -> None:
    X, _ = rows
    y = X["a"].to_numpy()
    sgd = functools.partial(torch.optim.SGD, lr=0.05)

    def moved(weight: float | None) -> np.ndarray:
        model = RegressionTree(optimizer=sgd).fit(X, y)
        before = [p.detach().clone() for p in model.model_.parameters()]
        given = None if weight is None else [weight]
        model.partial_fit(X[:1], y[:1] + 100, sample_weight=given)
        after = model.model_.parameters()
        return np.concatenate([(b - a).detach().numpy().ravel()
                               for a, b in zip(before, after, strict=True)])  # fmt: skip

    plain = moved(None)
    assert np.abs(plain).max() > 0.01
    # The mean weight of 61 rows, 60 of them of weight 1.
    for weight in (0.5, 1e-3, 2.5):
        expected = weight / ((60 + weight) / 61)
        assert_allclose(moved(weight), plain * expected, atol=2e-5 * np.abs(plain).max())


def test_class_weights_count_in_batches_of_one_class(rows: Any) -> None:
    X, y = rows
    sgd = functools.partial(torch.optim.SGD, lr=0.05)
    moves = []
    for weight in (1.0, 0.1, 5.0):
        model = Tree(optimizer=sgd).partial_fit(X, y, classes=["no", "yes"])
        before = model.model_.leaves.weight.detach().clone()
        model.set_params(class_weight={"yes": weight})
        model.partial_fit(X[y == "yes"][:5], ["yes"] * 5)
        moves.append((model.model_.leaves.weight.detach() - before).numpy())
    for move, weight in zip(moves[1:], (0.1, 5.0), strict=True):
        expected = weight * 65 / (60 + 5 * weight)
        assert_allclose(move, moves[0] * expected, atol=1e-4 * np.abs(moves[0]).max() * expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 4}, "depth=4, but the model that training goes on with was made with depth=2"),
        ({"temperature": 0.5}, "temperature=0.5, but .* set it back, or start anew"),
        ({"optimizer": "sgd"}, "optimizer='sgd', but"),
        ({"learning_rate": 0.5}, "learning_rate=0.5, but"),
    ],
)
def test_a_model_that_is_there_cannot_change_its_structure(
    rows: Any, changes: dict[str, Any], message: str
) -> None:
    X, y = rows
    model = Tree(warm_start=True).fit(X, y).set_params(max_steps=3, batch_size=7).fit(X, y)
    model.set_params(**changes)
    for go_on in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=message):
            go_on(X, y)
    assert model.set_params(warm_start=False).fit(X, y).n_iter_ == 3


def test_explanations_do_not_follow_parameters_that_change_later(rows: Any) -> None:
    X, y = rows
    model = AdditiveNetClassifier(max_steps=3, pairs=[("a", "b")], random_state=0).fit(X, y)
    told = model.explain(X)
    pd.testing.assert_frame_equal(model.set_params(pairs=[]).explain(X), told)


def test_a_fit_that_fails_leaves_the_estimator_as_it_was(rows: Any) -> None:
    X, y = rows
    model = Tree().fit(X, y)
    told, text = model.predict_proba(X), model.to_text()
    with pytest.raises(ValueError, match="one class"):
        model.fit(X[["a"]], ["yes"] * 60)
    with pytest.raises(ValueError, match="depth=0"):
        model.set_params(depth=0).fit(X[["a"]], y)
    assert_array_equal(model.predict_proba(X), told)
    assert model.to_text() == text
    unfitted = Tree(depth=0)
    with pytest.raises(ValueError, match="depth=0"):
        unfitted.fit(X, y)
    assert not [name for name in vars(unfitted) if name.endswith("_")]


def test_a_partial_fit_that_fails_can_be_made_good(rows: Any) -> None:
    X, _ = rows
    target = X["a"].to_numpy()
    make = functools.partial(RegressionTree, optimizer="sgd", learning_rate=0.05, batch_size=4)
    model, other = make().fit(X, target), make().fit(X, target)
    with pytest.raises(ValueError, match="use a lower learning_rate"):
        model.partial_fit(X, np.where(np.arange(60) == 30, 1e45, target))
    assert_array_equal(model.predict(X), other.predict(X))
    assert_array_equal(
        model.partial_fit(X, target).predict(X), other.partial_fit(X, target).predict(X)
    )


# Numbers of all types.


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": np.int64(1)},
        {"temperature": np.float32(0.5)},
        {"learning_rate": np.float32(0.01)},
        {"learning_rate": np.int64(1)},
        {"validation_fraction": np.float32(0.3), "early_stopping": np.True_},
        {"max_steps": np.int32(2), "batch_size": np.int16(8), "verbose": 0},
    ],
)
def test_numbers_of_numpy_are_numbers(rows: Any, changes: dict[str, Any]) -> None:
    assert Tree(**{"max_steps": 2, **changes}).fit(*rows).n_iter_ == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_stopping": "no"}, "early_stopping='no'; it must be True or False"),
        ({"warm_start": 1}, "warm_start=1; it must be True or False"),
        ({"verbose": "yes"}, "verbose='yes'; it must be True or False"),
        ({"temperature": True}, "temperature=True; it must be a number above 0"),
        ({"learning_rate": True}, "learning_rate=True; it must be a number above 0"),
        ({"validation_fraction": True}, "validation_fraction=True; it must be a number"),
    ],
)
def test_switches_and_numbers_are_told_apart(
    rows: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Tree(**changes).fit(*rows)


# Time.


@pytest.mark.parametrize(
    "kind",
    [
        AdditiveNetClassifier,
        FeatureAttentionClassifier,
        PrototypeNetClassifier,
        RuleNetClassifier,
        SoftForestClassifier,
        SoftTreeClassifier,
        TemporalAttentionClassifier,
    ],
)
def test_a_fit_on_500_rows_and_20_features_takes_seconds(kind: Any) -> None:
    X = np.random.default_rng(0).normal(size=(500, 20))
    start = time.process_time()
    kind(random_state=0).fit(X, X[:, 0] + X[:, 1] > 0)
    assert time.process_time() - start < 20
