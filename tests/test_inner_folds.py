"""Inner folds: as they were without groups, and with groups each of them whole."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from torch import nn

from denograd.baselines import BaselineError, TrainingRows, cross_validate_adamw, cross_validation
from denograd.baselines import context as outside
from denograd.baselines.context import (
    CONTEXT_MODELS,
    FOLDS,
    STRENGTHS,
    context_available,
    fit_context_model,
)
from denograd.baselines.cross_validation import candidates, draw_folds
from denograd.data import Encoder, Table, builtin_table, nested_split, plan_columns, read_table
from denograd.evaluation import EvaluationConfig, OtherSettingsError, evaluate, running_units
from denograd.evaluation.runner import _fingerprint
from denograd.models.registry import make_model

INSTALLED = tuple(name for name in CONTEXT_MODELS if context_available(name))


def iris(n: int, seed: int = 0) -> TrainingRows:
    """Training rows of a built-in table."""
    table = builtin_table("iris")
    train = nested_split(table.codes, (n,), seed).train[n]
    features = table.features.iloc[train]
    x = Encoder(plan_columns(table)).fit(features).transform(features)
    return TrainingRows(x, table.codes[train], 3, 16, seed)


def test_folds_without_groups_are_what_they_always_were() -> None:
    classes = np.array([0] * 7 + [1] * 5 + [2] * 2)
    assert draw_folds(classes, 3, 0).tolist() == [0, 0, 1, 0, 2, 1, 2, 2, 2, 1, 0, 1, 0, 1]
    assert draw_folds(classes, 3, 1).tolist() == [0, 0, 1, 2, 1, 2, 0, 1, 1, 2, 2, 0, 1, 0]
    mixed = np.array([0, 1, 1, 0, 2, 0, 1, 1, 0, 2, 2, 0])
    assert draw_folds(mixed, 5, 7).tolist() == [2, 3, 0, 0, 0, 4, 1, 2, 3, 1, 4, 1]
    measured = np.array([0.3, -1.2, 0.8, 2.0, -0.4, 0.0, 1.1])
    assert draw_folds(measured, 3, 4).tolist() == [0, 0, 1, 0, 1, 2, 2]


def noisy_rows(measured: bool = False) -> TrainingRows:
    rng = np.random.default_rng(11)
    x = rng.normal(size=(30, 3)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=30) > 0).astype(np.int64)
    if measured:
        return TrainingRows(x[:24], x[:24, 1], None, 16, 3)
    return TrainingRows(x[:24], y[:24], 2, 16, 3)


@pytest.mark.parametrize(("measured", "loss"), [(False, 0.5095648368), (True, 0.0653497968)])
def test_cross_validation_without_groups_chooses_what_it_always_did(
    measured: bool, loss: float
) -> None:
    found = cross_validate_adamw(noisy_rows(measured), "soft_tree", 12)
    assert (found.lr, found.weight_decay, found.schedule) == (0.2, 0.0017716, "constant")
    assert found.stop == 8
    assert found.loss == pytest.approx(loss, rel=1e-4)


@settings(max_examples=200)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=20),
    classes=st.integers(1, 4),
    folds=st.integers(2, 7),
    measured=st.booleans(),
    pure=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_no_group_stands_on_both_sides_of_a_fold(
    sizes: list[int], classes: int, folds: int, measured: bool, pure: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    y = groups % classes if pure else rng.integers(classes, size=len(groups))
    if measured:
        y = rng.normal(size=len(groups)).astype(np.float32)
    fold = draw_folds(y, folds, seed, groups)
    assert all(len(set(fold[groups == group])) == 1 for group in range(len(sizes)))
    assert sorted(set(fold)) == list(range(min(folds, len(sizes))))
    named = np.array([f"patient {group}" for group in groups])
    assert sorted(set(draw_folds(y, folds, seed, named))) == sorted(set(fold))
    np.testing.assert_array_equal(fold, draw_folds(y, folds, seed, groups))


def test_grouped_folds_have_the_classes_in_their_shares() -> None:
    groups = np.repeat(np.arange(24), 3)
    y = (groups % 3 == 0).astype(np.int64)
    drawn = [draw_folds(y, 4, seed, groups) for seed in range(3)]
    for fold in drawn:
        assert [(y[fold == k].sum(), (fold == k).sum()) for k in range(4)] == [(6, 18)] * 4
    assert not np.array_equal(drawn[0], drawn[1])
    # Of measured targets each fold has low and high ones.
    level = (groups / 24 + np.random.default_rng(0).normal(0, 0.01, len(groups))).astype(np.float32)
    fold = draw_folds(level, 3, 0, groups)
    means = [level[fold == k].mean() for k in range(3)]
    assert max(means) - min(means) < 0.15


def test_cross_validation_with_groups_trains_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without groups, but each fold counts with its rows."""
    from denograd.meta.engines import BatchedEngine

    plain = iris(24)
    groups = np.array([0] * 9 + [1, 2] * 4 + [3] * 7)
    rows = replace(plain, groups=groups)
    kept: list[Any] = []
    start = BatchedEngine.start

    def keep(self: Any, episode: Any, denoiser: Any) -> Any:
        kept.append(episode)
        return start(self, episode, denoiser)

    monkeypatch.setattr(BatchedEngine, "start", keep)
    found = cross_validate_adamw(rows, "soft_tree", steps=15)
    (episode,) = kept
    chosen = candidates().index((found.lr, found.weight_decay, found.schedule))
    fold, total = draw_folds(rows.y, 3, rows.seed, groups), 0.0
    assert len(set(np.bincount(fold))) > 1
    for k in range(3):
        model, task = make_model("soft_tree", rows.x.shape[1], 3), 3 * chosen + k
        initial = episode.model.layout.split(episode.initial[task])
        with torch.no_grad():
            for p, values in zip(model.parameters(), initial, strict=True):
                p.copy_(values.view_as(p))
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=found.lr, weight_decay=found.weight_decay
        )
        x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
        inside = torch.from_numpy(np.flatnonzero(fold != k))
        left_out = torch.from_numpy(np.flatnonzero(fold == k))
        for step in range(found.stop):
            optimizer.param_groups[0]["lr"] = found.lr * found.factor(step, 15)
            batch = inside[episode.batches[step, task]]
            assert not set(groups[batch.numpy()]) & set(groups[left_out.numpy()])
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            scores = model(x[left_out])
        total += nn.functional.cross_entropy(scores, y[left_out], reduction="sum").item()
    assert found.loss == pytest.approx(total / 24, rel=1e-3)


def test_cross_validation_with_groups_is_not_fooled_by_rows_it_almost_knows() -> None:
    """Six visits of each of six patients, whose labels nothing tells but who they are."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(6), 6)
    x = (np.eye(6)[patient] + rng.normal(0, 0.05, (36, 6))).astype(np.float32)
    rows = TrainingRows(x, patient % 2, 2, 36, 0)
    assert cross_validate_adamw(rows, "attention", 40).loss < 0.2
    assert cross_validate_adamw(replace(rows, groups=patient), "attention", 40).loss > 0.6


@pytest.mark.parametrize("groups", [[0] * 12 + [1] * 12, [0] * 6 + [1] * 18])
def test_two_groups_make_two_folds_that_may_lack_a_class(groups: list[int]) -> None:
    plain = iris(24)
    rows = replace(plain, y=(np.array(groups) + 1), groups=np.array(groups))
    found = cross_validate_adamw(rows, "soft_tree", 6)
    assert 1 <= found.stop <= 6
    assert math.isfinite(found.loss)


def test_a_group_that_leaves_hardly_a_row_to_tune_by_is_refused() -> None:
    rows = replace(iris(24), groups=np.array([0] * 5 + [1] * 19))
    with pytest.raises(BaselineError, match="largest group leaves 5 of 24 rows to train on"):
        cross_validate_adamw(rows, "soft_tree", 6)


def test_groups_that_cannot_be_used_are_refused() -> None:
    rows = iris(24)
    one = replace(rows, groups=np.zeros(24, dtype=np.int64))
    with pytest.raises(
        BaselineError, match=r"folds=3 .* groups names 1; .*give rows of more groups"
    ):
        cross_validate_adamw(one, "soft_tree", 5)
    short = replace(rows, groups=np.arange(5))
    with pytest.raises(BaselineError, match=r"groups is of type int64 and shape \(5,\).*\(24,\)"):
        cross_validate_adamw(short, "soft_tree", 5)
    halves = replace(rows, groups=np.arange(24) / 2)
    with pytest.raises(BaselineError, match=r"groups is of type float64.*pandas\.factorize"):
        cross_validate_adamw(halves, "soft_tree", 5)


WITHOUT_GROUPS = {
    "logistic_regression": [0.46583525, 0.95774373, 0.80204321, 0.88645547, 0.88529337, 0.02633893],
    "decision_tree": [0.77777778, 0.77777778, 0.77777778, 0.77777778, 0.77777778, 0.1],
    "random_forest": [0.52228635, 0.58876587, 0.67263125, 0.58876587, 0.62718548, 0.34849806],
    "hist_gradient_boosting": [
        *(0.43152006, 0.80031311, 0.67581173, 0.80031311, 0.83768182, 0.19144571)
    ],
    "explainable_boosting": [
        *(0.26586309, 0.81978659, 0.84530675, 0.89657534, 0.89368225, 0.03648418)
    ],
}
"""Of the second class, as the version before groups gave them."""


@pytest.mark.parametrize("name", INSTALLED)
def test_models_outside_torch_are_what_they_were_without_groups(name: str) -> None:
    rng = np.random.default_rng(11)
    x = rng.normal(size=(30, 3)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=30) > 0).astype(np.int64)
    found = fit_context_model(name, x[:24], y[:24], x[24:], 2, 3)
    np.testing.assert_allclose(found[:, 1], WITHOUT_GROUPS[name], atol=1e-6)


def visits(patients: int, each: int, seed: int) -> tuple[NDArray[Any], ...]:
    """Rows, classes and patients; half of a patient's rows may be of another class."""
    rng = np.random.default_rng(seed)
    patient = rng.permutation(np.repeat(np.arange(patients), each))
    who = rng.normal(size=(patients, 4))
    x = who[patient] + rng.normal(0, 0.3, (len(patient), 4))
    y = (x[:, 0] + who[patient, 1] + rng.normal(size=len(patient)) > 0).astype(np.int64)
    return x, y, patient


def held_out_loss(model: Any, x: NDArray[Any], y: NDArray[Any], fold: NDArray[Any],
                  votes: int = 0) -> float:  # fmt: skip
    """Log loss over all rows, each predicted by what the other folds taught."""
    said = cross_val_predict(model, x, y, cv=PredefinedSplit(fold), method="predict_proba")
    return float(log_loss(y, (said * votes + 1) / (votes + 2) if votes else said))


def test_logistic_regression_chooses_its_penalty_by_other_groups() -> None:
    """Nothing tells the labels of patients but who they are."""
    patient = np.repeat(np.arange(10), 5)
    y = patient % 2
    x = np.eye(10)[patient] + np.random.default_rng(0).normal(0, 0.3, (50, 10))
    chosen = []
    for groups in (patient, None):
        fold = draw_folds(y, FOLDS, 4, groups)
        tried = [LogisticRegression(C=c, max_iter=10_000) for c in STRENGTHS]
        best = min(tried, key=lambda model: held_out_loss(model, x, y, fold)).fit(x, y)
        found = fit_context_model("logistic_regression", x, y, x, 2, 4, groups)
        np.testing.assert_allclose(found, best.predict_proba(x), atol=1e-6)
        chosen.append(best.C)
    # Other rows of the same patient make a weak penalty look good.
    assert chosen[0] < 0.1 < chosen[1]


@pytest.fixture
def few_trees(monkeypatch: pytest.MonkeyPatch) -> int:
    """A forest for each fold and size of leaves takes its time."""
    monkeypatch.setattr(outside, "TREES", 20)
    return 20


def test_the_forest_chooses_its_leaves_by_other_groups(few_trees: int) -> None:
    x, y, patient = visits(10, 4, seed=1)
    fold = draw_folds(y, FOLDS, 2, patient)
    tried = [
        RandomForestClassifier(few_trees, min_samples_leaf=k, random_state=2) for k in (5, 2, 1)
    ]
    losses = [held_out_loss(forest, x, y, fold, votes=few_trees) for forest in tried]
    best = tried[int(np.argmin(losses))].fit(x, y)
    expected = (best.predict_proba(x) * few_trees + 1) / (few_trees + 2)
    found = fit_context_model("random_forest", x, y, x, 2, 2, patient)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.usefixtures("few_trees")
@pytest.mark.parametrize("name", INSTALLED)
def test_every_fold_of_a_model_outside_torch_has_whole_groups(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, patient = visits(9, 4, seed=3)
    drawn: list[NDArray[np.int64]] = []

    def keep(*arguments: Any) -> NDArray[np.int64]:
        drawn.append(draw_folds(*arguments))
        return drawn[-1]

    def keep_bags(*arguments: Any) -> NDArray[np.int8]:
        bags = real_bags(*arguments)
        drawn.extend(bags.T.astype(np.int64))
        return bags

    real_bags = outside._bags
    monkeypatch.setattr(outside, "draw_folds", keep)
    monkeypatch.setattr(outside, "_bags", keep_bags)
    found = fit_context_model(name, x, y, x[:5], 2, 0, np.array([f"p{who}" for who in patient]))
    assert len(drawn) == (14 if name == "explainable_boosting" else 1)
    for fold in drawn:
        assert len(set(fold.tolist())) > 1
        assert all(len(set(fold[patient == who])) == 1 for who in range(9))
    np.testing.assert_allclose(found.sum(1), 1)


@pytest.mark.usefixtures("few_trees")
@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_few_groups_are_no_obstacle_to_models_outside_torch(name: str, groups: int) -> None:
    """Two and three groups are of one class each, so what is left out is not among the rest."""
    rng = np.random.default_rng(groups)
    patient = np.arange(18) % groups
    y = patient if groups > 1 else np.arange(18) % 3
    x = rng.normal(size=(18, 2))
    found = fit_context_model(name, x, y, x, 3, 0, patient)
    assert (found > 0).all()
    # Nothing can be chosen, so no model may be sure of anything.
    if name != "hist_gradient_boosting":
        assert log_loss(y, found, labels=[0, 1, 2]) > 0.3
    np.testing.assert_array_equal(found, fit_context_model(name, x, y, x, 3, 0, patient))


@settings(max_examples=200)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    classes=st.integers(2, 4),
    pure=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_a_bag_leaves_out_whole_groups_and_no_class(
    sizes: list[int], classes: int, pure: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    y = groups % classes if pure else rng.integers(classes, size=len(groups))
    y = np.unique(y, return_inverse=True)[1]
    bags = outside._bags(y, groups, seed)
    assert bags.shape == (len(y), 14)
    assert set(np.unique(bags)) <= {-1, 1}
    left_out = (bags < 0).sum(0)
    assert 2 * left_out.max() <= len(y)
    # None can be left out of any bag, or some are of every one.
    possible = [
        2 * (groups == who).sum() <= len(y) and len(set(y[groups != who])) == len(set(y))
        for who in range(len(sizes))
    ]
    assert (left_out > 0).tolist() == [any(possible)] * 14
    for bag in bags.T:
        assert set(y[bag > 0]) == set(y)
        assert all(len(set(bag[groups == who])) == 1 for who in range(len(sizes)))


def test_explainable_boosting_with_groups_is_interprets_own_with_its_bags() -> None:
    glassbox = pytest.importorskip("interpret.glassbox")
    x, y, patient = visits(8, 4, seed=2)
    machine = glassbox.ExplainableBoostingClassifier(
        feature_types=["continuous"] * 4, interactions=0, n_jobs=1, random_state=3
    ).fit(x, y, bags=outside._bags(y, patient, 3))
    found = fit_context_model("explainable_boosting", x, y, x, 2, 3, patient)
    np.testing.assert_allclose(found, machine.predict_proba(x), atol=1e-5)


def test_groups_of_the_wrong_shape_are_refused_by_models_outside_torch() -> None:
    x, y, patient = visits(6, 2, seed=0)
    with pytest.raises(BaselineError, match=r"fit_context_model: groups is of .* \(3,\).*\(12,\)"):
        fit_context_model("decision_tree", x, y, x, 2, 0, patient[:3])


def table_of_visits(folder: Path, measured: bool = False) -> Table:
    """A file in which every patient has three rows."""
    x, y, patient = visits(40, 3, seed=5)
    frame = pd.DataFrame(x, columns=list("abcd")).assign(patient=[f"p{n}" for n in patient])
    frame["outcome"] = x[:, 0] if measured else np.where(y, "ill", "well")
    frame.to_csv(folder / "visits.csv", index=False)
    task = "regression" if measured else "classification"
    return read_table(folder / "visits.csv", "outcome", task, group="patient")


def quiet(table: Table, config: EvaluationConfig, out: Path) -> Any:
    return evaluate([table], config, out, jobs=1, console=Console(file=io.StringIO()))


@pytest.mark.parametrize(("engine", "measured"), [("batched", False), ("loop", True)])
def test_groups_of_a_table_reach_what_tunes_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, measured: bool
) -> None:
    table = table_of_visits(tmp_path, measured)
    folds: list[tuple[NDArray[Any], NDArray[Any]]] = []
    given: dict[str, list[NDArray[Any]]] = {}

    def keep(y: Any, count: int, seed: int, groups: Any) -> Any:
        folds.append((groups, draw_folds(y, count, seed, groups)))
        return folds[-1][1]

    def fit(name: str, x: Any, y: Any, x_test: Any, classes: int, seed: int, groups: Any) -> Any:
        given.setdefault(name, []).append(groups)
        return np.full((len(x_test), classes), 1 / classes)

    monkeypatch.setattr(cross_validation, "draw_folds", keep)
    monkeypatch.setattr(running_units, "fit_context_model", fit)
    config = EvaluationConfig(
        ("soft_tree",), ("adamw_cv",), (24,), seeds=2, steps=4, engine=engine, context=not measured
    )
    done = quiet(table, config, tmp_path / "out")
    assert not done.errors
    assert table.group_codes is not None
    own = [table.group_codes[table.split([24], seed).train[24]] for seed in range(2)]
    assert len(folds) == 2
    for (groups, fold), expected in zip(folds, own, strict=True):
        np.testing.assert_array_equal(groups, expected)
        assert set(fold) == {0, 1, 2}
        assert all(len(set(fold[groups == who])) == 1 for who in set(groups))
    assert set(given) == (set() if measured else set(INSTALLED))
    for groups in given.values():
        np.testing.assert_array_equal(groups, own)


def test_results_whose_folds_split_groups_do_not_mix_with_those_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of_visits(tmp_path)
    assert table.groups is not None
    config = EvaluationConfig(("soft_tree",), ("sgd",), (24,), seeds=1, steps=2)
    digest = _fingerprint(table).split()[-1]
    monkeypatch.setattr("denograd.evaluation.runner._fingerprint", lambda _: digest)
    quiet(table, config, tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(OtherSettingsError, match=r"visits was .*, now it is inner folds of whole"):
        quiet(table, config, tmp_path / "out")
    # Nothing changed for a table without groups.
    assert len(_fingerprint(replace(table, groups=None))) == 64


def test_one_group_is_named_where_a_run_cannot_be_tuned(tmp_path: Path) -> None:
    """The first group has more rows than are trained on, and rows of both classes."""
    rng = np.random.default_rng(0)
    patient = pd.Series(["big"] * 60 + [f"p{n // 10}" for n in range(60)])
    labels = pd.Series(np.arange(120) % 2)
    table = Table("t", pd.DataFrame(rng.normal(size=(120, 2)), columns=["a", "b"]), labels,
                  groups=patient)  # fmt: skip
    alone = [
        seed for seed in range(20) if set(patient[table.split([12], seed).train[12]]) == {"big"}
    ]
    assert alone
    config = EvaluationConfig(
        ("soft_tree",), ("adamw_cv",), (12,), seeds=alone[0] + 1, steps=2, batch_size=8
    )
    done = quiet(table, config, tmp_path / "out")
    failed = {cell.seed: message for cell, message in done.errors}
    assert alone[0] in failed
    assert "groups names 1;" in failed[alone[0]]
    others = [message for seed, message in failed.items() if seed not in alone]
    assert all("the largest group leaves" in message for message in others)
