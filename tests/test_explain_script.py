"""The script that compares explanations: its fits, its journal and its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_wine

from denograd import explain


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, script_named: Callable[[str], ModuleType]
) -> ModuleType:
    explanations = script_named("explanations")
    monkeypatch.setattr(explanations, "STEPS", 20)
    explanations.control_of.cache_clear()
    return explanations


@pytest.fixture
def page(script: ModuleType) -> ModuleType:
    import _explanations_page

    return _explanations_page


@pytest.fixture
def wine(script: ModuleType) -> Any:
    x, y = load_wine(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    rows = torch.from_numpy(x[order])
    train, test = slice(0, 64), slice(64, None)
    return script.Problem(
        "wine", rows[train], torch.from_numpy(y[order][train]), rows[test], y[order][test], 3
    )


def test_seeds_differ_in_weights_and_arms_do_not(script: ModuleType, wine: Any) -> None:
    for name in wine.models:
        first, again, other = (script.new_model(wine, name, seed) for seed in (0, 0, 1))
        pairs = zip(first.parameters(), again.parameters(), strict=True)
        assert all((a == b).all() for a, b in pairs)
        pairs = zip(first.parameters(), other.parameters(), strict=True)
        assert not all((a == b).all() for a, b in pairs)


@pytest.mark.parametrize("arm", ["control", "denograd", "penalties"])
def test_a_line_holds_what_the_metrics_say_of_the_model(
    script: ModuleType, wine: Any, arm: str
) -> None:
    cell = script.Cell("wine", "attention", arm, 3)
    row = script.run(wine, cell)
    assert list(row) == script.COLUMNS
    model = script.train(wine, cell)
    with torch.no_grad():
        right = (model(wine.x_test).argmax(-1).numpy() == wine.y_test).mean()
    assert row["accuracy"] == pytest.approx(right)
    said = explain.OwnExplainer(model)(script.explained_rows(wine))
    assert row["gini"] == pytest.approx(explain.gini(said).mean())
    assert len(row["importances"].split()) == 13
    start = script.new_model(wine, "attention", 3).feature_importance(wine.x)
    kept_order = spearmanr(start, model.feature_importance(wine.x)).statistic
    assert row["order_kept"] == pytest.approx(kept_order, abs=0.02)
    kept = np.array(row["attention"].split(), dtype=float).reshape(8, 13)
    assert kept == pytest.approx(said[:8], rel=1e-3)


def test_sequences_are_explained_too(script: ModuleType, wine: Any) -> None:
    x = torch.randn(80, 24)
    series = replace(
        wine, name="walk", x=x[:64], y=torch.arange(64) % 2, x_test=x[64:],
        y_test=np.arange(16) % 2, n_classes=2, n_channels=2,
    )  # fmt: skip
    assert series.models == ("temporal_attention",)
    row = script.run(series, script.Cell("walk", "temporal_attention", "control", 0))
    assert np.isfinite([row[name] for name in ("log_loss", "gini", "deletion")]).all()


def test_a_run_goes_on_where_it_stopped_and_redoes_what_has_other_settings(
    script: ModuleType, wine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [script.Cell("wine", "rule_net", arm, 0) for arm in ("control", "denograd")]
    journal = script.Journal(tmp_path)
    for cell in cells:
        journal.append(script.run(wine, cell))
    assert journal.finished() == set(cells)
    text = journal.path.read_text(encoding="utf-8")
    journal.path.write_text(text[:-10], encoding="utf-8")
    assert script.Journal(tmp_path).finished() == {cells[0]}
    journal.path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(script, "settings_of", lambda arm, model: "other" + arm)
    assert script.Journal(tmp_path).finished() == set()
    assert len(script.Journal(tmp_path).read()) == 0


def made_up(arms: dict[str, float]) -> pd.DataFrame:
    """Lines of three data sets and two seeds, with an arm's log loss times a factor."""
    rng = np.random.default_rng(0)
    rows = []
    for number, dataset in enumerate("abc"):
        for arm, factor in arms.items():
            for seed in range(2):
                row: dict[str, Any] = {"dataset": dataset, "model": "soft_tree", "arm": arm}
                row |= {"seed": seed, "settings": arm, "log_loss": factor * (number + 1)}
                row |= {"accuracy": 0.5 + 0.1 * seed + (0.05 if arm == "denograd" else 0)}
                row |= dict.fromkeys(("entropy", "gini", "max_sensitivity"), rng.random())
                row |= dict.fromkeys(("deletion", "insertion", "order_kept"), rng.random())
                row |= {"importances": "0.5 0.3 0.1 0.1" if seed else "0.1 0.1 0.3 0.5"}
                rows.append(row | {"attention": np.nan})
    return pd.DataFrame(rows)


def test_changes_are_paired_over_data_sets(page: ModuleType) -> None:
    cases = page.by_case(made_up({"control": 1.0, "denograd": 0.8}))
    assert len(cases) == 6
    metric = {m.name: m for m in (*page.PREDICTION, *page.EXPLANATION)}
    change = page.compare(cases, "soft_tree", "denograd", metric["log_loss"])
    values = (change.middle, change.low, change.high)
    assert values == pytest.approx((0.8, 0.8, 0.8))
    assert change.verdict == 1
    change = page.compare(cases, "soft_tree", "denograd", metric["accuracy"])
    assert change.middle == pytest.approx(0.05)
    assert cases["accuracy_sd"].to_numpy() == pytest.approx(np.full(6, np.std([0, 0.1], ddof=1)))
    expected = spearmanr([0.5, 0.3, 0.1, 0.1], [0.1, 0.1, 0.3, 0.5]).statistic
    assert cases["spearman"].to_numpy() == pytest.approx(np.full(6, expected))
    assert page.compare(cases, "soft_tree", "penalties", metric["log_loss"]) is None
    assert (
        page.cell(page.Change(1.25, 1.1, 1.4, -1), metric["log_loss"]) == "*1.250* [1.100, 1.400]"
    )
    assert page.cell(page.Change(0.01, 0.0, 0.02, 0), metric["accuracy"]) == "+1.0 [+0.0, +2.0]"


def test_cases_without_all_seeds_are_left_out_and_mixed_settings_refused(page: ModuleType) -> None:
    lines = made_up({"control": 1.0, "denograd": 0.8})
    assert len(page.by_case(lines.iloc[:-1])) == 5
    lines.loc[0, "settings"] = "adamw lr=1"
    with pytest.raises(SystemExit, match="soft_tree, control: its fits have several settings"):
        page.by_case(lines)


def test_the_page_gets_its_tables_and_pictures(page: ModuleType, tmp_path: Path) -> None:
    from _page import BEGIN, END

    path = tmp_path / "page.md"
    path.write_text(f"Before.\n{BEGIN}\nfigures of before\n{END}\nAfter.\n", encoding="utf-8")
    page.write_page(path, made_up({"control": 1.0, "denograd": 1.25}))
    text = path.read_text(encoding="utf-8")
    assert text.startswith("Before.\n")
    assert text.endswith("\nAfter.\n")
    assert "figures of before" not in text
    assert "|  | DenoGrad | " in text
    assert "*1.250* [1.250, 1.250]" in text
    for name in ("explanations-changes.png", "explanations-seeds.png"):
        assert (tmp_path / "images" / name).stat().st_size > 5000
    path.write_text("no markers", encoding="utf-8")
    with pytest.raises(SystemExit, match="each once"):
        page.write_page(path, made_up({"control": 1.0}))
