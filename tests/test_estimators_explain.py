"""What the estimators say of themselves: explanations, rules and pictures."""

from __future__ import annotations

import functools
import io
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_diabetes, load_wine
from sklearn.exceptions import NotFittedError
from torch import nn

from denograd.estimators import (
    AdditiveNetClassifier,
    AdditiveNetRegressor,
    FeatureAttentionClassifier,
    FeatureAttentionRegressor,
    PrototypeNetClassifier,
    PrototypeNetRegressor,
    RuleNetClassifier,
    RuleNetRegressor,
    SoftForestClassifier,
    SoftForestRegressor,
    SoftTreeClassifier,
    SoftTreeRegressor,
    TemporalAttentionClassifier,
    TemporalAttentionRegressor,
)

CLASSIFIERS = (
    AdditiveNetClassifier,
    FeatureAttentionClassifier,
    PrototypeNetClassifier,
    RuleNetClassifier,
    SoftForestClassifier,
    SoftTreeClassifier,
    TemporalAttentionClassifier,
)
REGRESSORS = (
    AdditiveNetRegressor,
    FeatureAttentionRegressor,
    PrototypeNetRegressor,
    RuleNetRegressor,
    SoftForestRegressor,
    SoftTreeRegressor,
    TemporalAttentionRegressor,
)
READERS = {
    "classification": (RuleNetClassifier, SoftForestClassifier, SoftTreeClassifier),
    "regression": (RuleNetRegressor, SoftForestRegressor, SoftTreeRegressor),
}


@functools.cache
def rows(task: str) -> tuple[pd.DataFrame, Any]:
    """Real rows, with a category and gaps in regression."""
    if task == "classification":
        X, y = load_wine(return_X_y=True, as_frame=True)
        return X.iloc[::2, :6], y.iloc[::2].map({0: "a", 1: "b", 2: "c"})
    X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    X, y = X.iloc[:90, :5].copy(), y.iloc[:90]
    X["sex"] = X["sex"].map({1.0: "f", 2.0: "m"})
    X.loc[::8, "bmi"] = np.nan
    return X.set_axis([f"row {i}" for i in range(90)]), y


@functools.cache
def fitted(kind: Any) -> tuple[Any, pd.DataFrame]:
    task = "classification" if kind in CLASSIFIERS else "regression"
    X, y = rows(task)
    if kind is TemporalAttentionRegressor:
        X = X.select_dtypes("number")
    return kind(max_steps=40, random_state=0).fit(X, y), X


@pytest.mark.parametrize("kind", [*CLASSIFIERS, *REGRESSORS])
def test_an_explanation_has_a_row_for_each_row_and_its_index(kind: Any) -> None:
    model, X = fitted(kind)
    told = model.explain(X.iloc[3:8])
    assert_array_equal(told.index, X.index[3:8])
    assert list(told.columns) == list(model.explain(X).columns)
    assert_allclose(model.feature_importances_.sum(), 1)
    assert model.feature_importances_.shape == (X.shape[1],)
    # A row's explanation does not depend on the rows beside it.
    pd.testing.assert_frame_equal(told, model.explain(X).iloc[3:8])


@pytest.mark.parametrize("kind", [*CLASSIFIERS, *REGRESSORS])
def test_pictures_of_the_model_and_of_rows(kind: Any, tmp_path: Any) -> None:
    model, X = fitted(kind)
    for number, given in enumerate((None, X.head(6))):
        figure = model.plot(given)
        file = tmp_path / f"{number}.png"
        figure.savefig(file, dpi=40)
        assert file.stat().st_size > 2000
    texts = " ".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))
    if "Temporal" not in kind.__name__:
        assert sum(str(c).split("/")[0][:12] in texts for c in X.columns) >= 3
    own = Figure()
    assert model.plot(figure=own) is own
    with pytest.raises(ValueError, match="give a matplotlib Figure"):
        model.plot(figure=3)


@pytest.mark.parametrize("kind", [*CLASSIFIERS, *REGRESSORS])
def test_nothing_can_be_said_before_training(kind: Any) -> None:
    for ask in (lambda m: m.plot(), lambda m: m.explain([[1.0, 2.0]])):
        with pytest.raises(NotFittedError):
            ask(kind())


# Attention.


@pytest.mark.parametrize("kind", [FeatureAttentionClassifier, FeatureAttentionRegressor])
def test_attention_by_column_is_that_of_its_features(kind: Any) -> None:
    model, X = fitted(kind)
    told = model.explain(X)
    assert list(told.columns) == list(X.columns)
    assert_allclose(told.sum(axis=1), 1)
    x = torch.from_numpy(model._encoder.transform(model._frame(X, reset=False))).double()
    with torch.no_grad():
        weights = model.model_.attention(x).mean(1).numpy()
    for column in X.columns:
        own = [
            i
            for i, n in enumerate(model.encoded_names_)
            if n.split("_missing")[0].split("=")[0] == column
        ]
        assert_allclose(told[column], weights[:, own].sum(1))
    assert_allclose(told.mean(), model.feature_importances_)


def test_attention_over_steps_leaves_padding_out() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2, 12))
    X[::3, :, 8:] = np.nan
    X[1, 0, 2] = np.nan
    y = X[:, 0, 3] > 0
    model = TemporalAttentionClassifier(max_steps=20, random_state=0).fit(X, y)
    told = model.explain(X)
    assert told.shape == (30, 12)
    assert_allclose(told.sum(axis=1), 1)
    assert told.iloc[::3, 8:].eq(0).all(axis=None)
    # What stands in padding does not exist: shorter sequences, padded, are the same.
    flat = X.reshape(30, -1)
    same = TemporalAttentionClassifier(n_channels=2, max_steps=20, random_state=0).fit(flat, y)
    assert_array_equal(same.predict_proba(flat), model.predict_proba(X))
    empty = np.full((1, 2, 12), np.nan)
    assert model.explain(empty).eq(0).all(axis=None)
    assert np.isfinite(model.predict_proba(empty)).all()
    model.plot(X).savefig("/dev/null", format="png")


def test_classes_of_sequences_are_learned_with_their_own_denoiser() -> None:
    """The same as by its name, and another run than with a denoiser."""
    X, y = np.random.default_rng(0).normal(size=(30, 1, 12)), np.arange(30) % 2
    fits = [
        TemporalAttentionClassifier(max_steps=20, random_state=0, **options).fit(X, y)
        for options in ({}, {"optimizer": "denograd:sequences"}, {"optimizer": "denograd"})
    ]
    as_it_comes, named, tables = (model.predict_proba(X) for model in fits)
    assert_array_equal(as_it_comes, named)
    assert not np.array_equal(as_it_comes, tables)


@pytest.mark.parametrize(
    ("changes", "X", "message"),
    [
        ({"n_channels": 5}, np.eye(12), "n_channels=5 does not divide the 12 columns"),
        ({"n_channels": 0}, np.eye(12), "n_channels=0; it must be a whole number"),
        ({"n_channels": 3}, np.zeros((12, 2, 4)), r"2 channels; expected 3"),
        ({"kernel": 2}, np.eye(12), "kernel=2; it must be odd"),
        ({}, np.full((12, 3), np.nan), "no value that is not missing"),
        ({}, pd.DataFrame({"a": list("abcdefghijkl")}), "X must hold numbers"),
    ],
)
def test_bad_sequences(changes: dict[str, Any], X: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TemporalAttentionClassifier(max_steps=2, **changes).fit(X, np.arange(12) % 2)


# Additive.


def test_contributions_sum_to_the_decision_function() -> None:
    model, X = fitted(AdditiveNetClassifier)
    scores = model.decision_function(X)
    best = np.searchsorted(model.classes_, model.predict(X))
    told = model.explain(X)
    assert_allclose(told.sum(axis=1), scores[np.arange(len(X)), best])
    two = rows("classification")[1] == "a"
    binary = AdditiveNetClassifier(max_steps=20, pairs=[("alcohol", 1)]).fit(X, two)
    told = binary.explain(X)
    assert "alcohol & malic_acid" in told.columns
    assert_allclose(told.sum(axis=1), binary.decision_function(X))
    assert_allclose(told.drop(columns="bias").mean(), 0, atol=1e-12)


def test_contributions_sum_to_the_prediction_in_units_of_y() -> None:
    X, y = rows("regression")
    model = AdditiveNetRegressor(max_steps=40, pairs=[("bmi", "sex")], random_state=0).fit(X, y)
    told = model.explain(X)
    assert list(told.columns) == [*X.columns, "bmi & sex", "bias"]
    assert_allclose(told.sum(axis=1), model.predict(X))
    assert np.ptp(told["bias"]) == 0
    assert told["bias"].iloc[0] == pytest.approx(model.predict(X).mean())
    model.plot().savefig("/dev/null", format="png")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("alcohol", "nothing")], "pairs names 'nothing', which is no column"),
        ([(0, 99)], "pairs names 99, which is no column"),
        ([(0, "alcohol")], "a pair is two different columns"),
        ([(0, 1), (1, 0)], "names a pair twice"),
        (["ab"], "a pair is two columns of X"),
    ],
)
def test_bad_pairs(pairs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdditiveNetClassifier(pairs=pairs, max_steps=1).fit(*rows("classification"))


# Rules.


def met_by_text(condition: str, row: pd.Series) -> bool:
    """Read a printed condition by its text alone; gaps are filled in ``row`` already."""
    if re.fullmatch(r"(not )?\w+=\w+|(not )?\w+_missing", condition):
        return (row[condition.removeprefix("not ")] == 1) != condition.startswith("not ")
    left, relation, right = re.fullmatch(r"(.+) (>|<=|<|>=) (\S+)", condition).groups()  # type: ignore[union-attr]
    total = 0.0
    for sign, weight, name in re.findall(r"([+-]? ?)(\d\S*(?= ))? ?([^\s\d+-]\S*)", left):
        total += (-1 if "-" in sign else 1) * float(weight or 1) * row[name]
    return bool({">": np.greater, "<=": np.less_equal, "<": np.less, ">=": np.greater_equal}[
        relation](total, float(right)))  # fmt: skip


@pytest.mark.parametrize("kind", [*READERS["classification"], *READERS["regression"]])
def test_fired_rules_are_those_of_the_text(kind: Any) -> None:
    model, X = fitted(kind)
    units = pd.DataFrame(index=X.index)
    medians = X.select_dtypes("number").median()
    for name in model.encoded_names_:
        if name.endswith("_missing"):
            units[name] = X[name.removesuffix("_missing")].isna().astype(float)
        elif "=" in name:
            column, value = name.split("=")
            units[name] = (X[column] == value).astype(float)
        else:
            units[name] = X[name].fillna(medians[name])
    rules = model.to_rules()
    told = model.explain(X)
    fired = told["fired"]
    clear = 0
    for label, row in units.iloc[:25].iterrows():
        joined = [any if rule.any_of else all for rule in rules]
        read = {
            i
            for i, (rule, join) in enumerate(zip(rules, joined, strict=True))
            if not rule.conditions or join(met_by_text(c, row) for c in rule.conditions)
        }
        clear += read == set(fired[label])
        first = rules[fired[label][0]]
        assert told["rule"][label] == f"{first.premise} THEN {first.prediction}"
    assert clear == 25
    summed = np.array([sum(np.array(rules[r].scores) for r in f) for f in fired])
    said = model.rule_predict(X)
    if kind in CLASSIFIERS:
        assert_array_equal(said, model.classes_[summed.argmax(1)])
        assert model.fidelity(X) == np.mean(said == model.predict(X)) > 0.7
    else:
        assert_allclose(said, summed[:, 0])
        assert model.fidelity(X) > 0.3


@pytest.mark.parametrize("kind", [SoftTreeClassifier, SoftForestRegressor])
def test_each_row_comes_to_one_leaf_of_each_tree(kind: Any) -> None:
    model, X = fitted(kind)
    far = X.select_dtypes("number") * np.random.default_rng(0).normal(1, 3, (len(X), 1))
    fired = model.explain(X.assign(**far))["fired"]
    rules = model.to_rules()
    trees = fired.map(lambda f: sorted(rules[r].index for r in f if rules[r].index is not None))
    expected = [0] if kind is SoftTreeClassifier else list(range(8))
    assert trees.map(lambda t: t == expected).all()
    probability = model.explain(X)["probability"]
    assert probability.between(0, 1).all()


@pytest.mark.parametrize("kind", [RuleNetClassifier, RuleNetRegressor])
def test_the_rules_of_a_rule_net_are_the_model(kind: Any) -> None:
    model, X = fitted(kind)
    x = torch.from_numpy(model._encoder.transform(model._frame(X, reset=False))).double()
    active = model.model_.activations(x).numpy().astype(bool)
    rules = model.to_rules()
    for label, f in enumerate(model.explain(X)["fired"]):
        told = {rules[r].index for r in f if rules[r].index is not None}
        possible = {rule.index for rule in rules}
        assert told == set(np.flatnonzero(active[label])) & possible
    if kind is RuleNetClassifier:
        assert_array_equal(model.rule_predict(X), model.predict(X))
        assert model.fidelity(X) == 1
    else:
        scale = model.target_scale_
        assert_allclose(model.rule_predict(X), model.predict(X), atol=0.01 * scale)


def test_the_text_says_how_far_it_can_be_trusted() -> None:
    model, X = fitted(SoftTreeClassifier)
    first, *others = model.to_text(X).splitlines()
    assert first == f"fidelity {model.fidelity(X):.3f}"
    assert sum(" THEN " in line for line in others) == 8
    shares = [float(s) for s in re.findall(r"\[(\S+) % of rows", model.to_text(X.head(10)))]
    assert sum(shares) == pytest.approx(100)


def test_a_deep_tree_is_not_drawn() -> None:
    X, y = rows("classification")
    model = SoftTreeClassifier(depth=6, max_steps=1).fit(X, y)
    with pytest.raises(ValueError, match="use to_text"):
        model.plot()


# Prototypes.


@pytest.mark.parametrize("kind", [PrototypeNetClassifier, PrototypeNetRegressor])
def test_nearest_training_rows(kind: Any) -> None:
    model, X = fitted(kind)
    _, y = rows("classification" if kind in CLASSIFIERS else "regression")
    told = model.explain(X)
    assert_array_equal(told["row"], X.index)
    assert_allclose(told["distance"], 0, atol=1e-9)
    targets = pd.Series(np.asarray(y), index=X.index)
    three = model.explain(X.head(4), k=3)
    assert_array_equal(three["row_target_2"], targets[three["row_2"]])
    assert (three["distance_2"] <= three["distance_3"]).all()
    x = torch.from_numpy(model._encoder.transform(model._frame(X, reset=False))).double()
    with torch.no_grad():
        similar = model.model_.similarities(x).numpy()
        root = model.model_.relevances().sqrt()
    assert_array_equal(told["prototype"], similar.argmax(1))
    assert_allclose(told["similarity"], similar.max(1))
    plain = np.linalg.norm((x[:1] - x).numpy() * root.numpy(), axis=1)
    assert_allclose(np.sort(plain)[1:3], three.iloc[0][["distance_2", "distance_3"]].astype(float))
    frame = model.prototypes_frame()
    assert set(frame["nearest_row"]) <= set(X.index)
    with pytest.raises(ValueError, match="k=0"):
        model.explain(X, k=0)


def test_prototypes_start_on_rows_of_their_class() -> None:
    X, y = rows("classification")
    model = PrototypeNetClassifier(
        prototypes=6, optimizer=functools.partial(torch.optim.SGD, lr=1e-30), max_steps=1,
        random_state=0,
    ).fit(X, y)  # fmt: skip
    frame = model.prototypes_frame()
    assert_allclose(frame[X.columns], X.loc[frame["nearest_row"]], rtol=1e-4)
    assert_array_equal(frame["speaks_for"], y[frame["nearest_row"]])
    assert_array_equal(frame["speaks_for"], ["a", "b", "c", "a", "b", "c"])
    assert isinstance(model.model_, nn.Module)


@pytest.mark.parametrize("kind", [k for k in CLASSIFIERS if k is not TemporalAttentionClassifier])
def test_pictures_show_names_with_dollar_signs_as_they_are(kind: Any) -> None:
    """Between two dollar signs matplotlib reads a formula, and not every name is one."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(40, 2)), columns=["cost_$", "fee_^$"])
    y = np.where(X.sum(axis=1) > 0, "$a_", "b$^")
    model = kind(max_steps=20, random_state=0).fit(X, y)
    for figure in (model.plot(), model.plot(X)):
        figure.savefig(io.BytesIO())
        texts = figure.findobj(Text)
        assert any(name in text.get_text() for name in X.columns for text in texts)
        assert not any(text.get_parse_math() for text in texts if "$" in text.get_text())


def test_equal_weights_of_attention_are_those_of_features() -> None:
    """A column of eight categories is eight features, and equal weights give it eight shares."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=48), "ward": list("abcdefgh") * 6})
    model = FeatureAttentionClassifier(max_steps=1, learning_rate=1e-9, random_state=0)
    model.fit(X, np.arange(48) % 2)
    (axes,) = model.plot().axes
    (marks,) = [c for c in axes.collections if isinstance(c, LineCollection)]
    shown = [tick.get_text() for tick in axes.get_yticklabels()]
    equal = dict(zip(shown, (line[0, 0] for line in marks.get_segments()), strict=True))
    assert equal == pytest.approx({"x": 1 / 9, "ward": 8 / 9})
    # Untrained, it says little else.
    assert_allclose(model.feature_importances_, [1 / 9, 8 / 9], atol=0.06)
