"""The script that compares models: its splits, its journal and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier, export_text

from denograd.estimators import RuleNetClassifier, SoftTreeClassifier


@pytest.fixture
def script(script_named: Callable[[str], ModuleType]) -> ModuleType:
    return script_named("compare_models")


@pytest.fixture
def iris() -> tuple[pd.DataFrame, pd.Series[Any]]:
    x, y = load_iris(return_X_y=True, as_frame=True)
    return x, y.astype(str)


def test_windows_of_a_series_that_are_tested_share_no_step_with_those_of_training(
    script: ModuleType,
) -> None:
    steps = np.arange(500.0)
    x = pd.DataFrame(np.lib.stride_tricks.sliding_window_view(steps, 24))
    problem = script.Problem("walk", "series", x, x[0] + 24, (64, 256), regression=True)
    for seed in range(5):
        small, test = problem.split(64, seed)
        large, same = problem.split(256, seed)
        assert set(small) <= set(large)
        assert np.array_equal(test, same)
        assert len(test) >= 50
        # The target is the step after a window.
        assert x.iloc[large].to_numpy().max() + 1 < x.iloc[test].to_numpy().min()


def test_log_loss_is_scikit_learns_on_probabilities_that_are_cut_off(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    classes = np.array(["a", "b", "c"])
    shares = rng.dirichlet(np.ones(3), size=40) * 0.9 + 0.1 / 3
    y = classes[rng.integers(3, size=40)]
    expected = metrics.log_loss(y, shares, labels=classes)
    assert script.log_loss(y, shares, classes) == pytest.approx(expected)
    certain = np.array([[1.0, 0.0]])
    assert script.log_loss(np.array(["b"]), certain, classes[:2]) == pytest.approx(np.log(1000))
    assert script.log_loss(np.array(["z"]), certain, classes[:2]) == pytest.approx(np.log(1000))


def test_length_counts_what_the_text_of_the_rules_shows(
    script: ModuleType, iris: tuple[pd.DataFrame, pd.Series[Any]]
) -> None:
    x, y = iris
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(x, y)
    printed = export_text(tree).splitlines()
    depths = [line.count("|   ") for line in printed if "class:" in line]
    assert script.length_of_rules(tree) == (len(depths), sum(depths))
    for kind in (RuleNetClassifier, SoftTreeClassifier):
        model = kind(max_steps=20, random_state=0).fit(x, y)
        lines = [line for line in model.to_text().splitlines() if line.startswith("IF ")]
        named = sum(line.count(name) for line in lines for name in x.columns)
        assert script.length_of_rules(model) == (len(lines), named)


def test_a_line_that_was_cut_off_is_a_fit_that_is_not_done(
    script: ModuleType, iris: tuple[pd.DataFrame, pd.Series[Any]], tmp_path: Path
) -> None:
    problem = script.Problem("iris", "table", *iris, (30,))
    cells = [
        script.Cell("iris", 30, 0, "linear", ""),
        script.Cell("iris", 30, 0, "RuleNet", "adamw"),
    ]
    journal = script.Journal(tmp_path)
    for cell in cells:
        journal.append(script.run(problem, cell))
    text = journal.path.read_text(encoding="utf-8")
    journal.path.write_text(text[:-10], encoding="utf-8")
    assert script.Journal(tmp_path).finished() == {cells[0]}
    row = script.Journal(tmp_path).read().iloc[0]
    assert row["accuracy"] > 0.85
    assert row["n_test"] == 120


def test_the_page_compares_only_where_every_model_was_fitted(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _comparison_page as page

    rows = [("a", 64, 0, m, "") for m in ("linear", "random_forest")] + [("b", 64, 0, "linear", "")]
    lines = pd.DataFrame(rows, columns=["dataset", "n_train", "seed", "model", "optimizer"])
    kept = page.complete(lines)
    assert set(kept["dataset"]) == {"a"}
    assert page.seeds_of(kept, "tables") == "1 tables with 1 seed"
