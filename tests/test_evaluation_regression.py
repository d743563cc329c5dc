"""Evaluations of tables with a measured target."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

from denograd.baselines import TrainingRows, cross_validate_adamw
from denograd.baselines.cross_validation import draw_folds
from denograd.cli import main
from denograd.data import builtin_table, plan_columns
from denograd.evaluation import (
    EvaluationConfig,
    EvaluationError,
    evaluate,
    running_units,
    summarise,
    verdict,
)
from denograd.evaluation.running_units import encode
from denograd.evaluation.stacked import train_stack
from denograd.evaluation.train import Cell, CellData, initial_model, train_cell
from denograd.meta.batched import BatchedModel
from denograd.meta.task import Task, TaskBatch
from denograd.models.registry import make_model


def cell_data(size: int, seed: int) -> CellData:
    table = builtin_table("diabetes")
    split = table.split([size], seed)
    return encode(table, plan_columns(table), split.train[size], split.test)


def test_targets_are_standardised_by_training_rows() -> None:
    data = cell_data(32, seed=1)
    assert data.scale is not None
    assert data.y_train.dtype == np.float32
    assert data.y_train.mean() == pytest.approx(0, abs=1e-6)
    assert data.y_train.std() == pytest.approx(1, abs=1e-6)
    table = builtin_table("diabetes")
    np.testing.assert_allclose(
        data.scale.restore(data.y_test), table.y[table.split([32], 1).test], rtol=1e-5
    )


@pytest.mark.parametrize("model", ["soft_tree", "attention"])
@pytest.mark.parametrize("optimizer", ["adamw", "denograd", "sgd", "adamw_default"])
def test_a_stack_is_single_runs(model: str, optimizer: str) -> None:
    cells = [Cell("diabetes", model, optimizer, 32, seed) for seed in range(2)]
    data = [cell_data(32, seed) for seed in range(2)]
    alone = [train_cell(c, d, 15, 16) for c, d in zip(cells, data, strict=True)]
    stacked = train_stack(cells, data, 15, 16)
    assert stacked.notes == []
    for one, other in zip(alone, stacked.results, strict=True):
        assert one.row.keys() == other.row.keys()
        for name in ("rmse", "r2", "nll", "crps", "train_loss", "target_deviation"):
            assert one.row[name] == pytest.approx(other.row[name], rel=1e-4, abs=1e-5)
        assert one.curve["test_loss"] == pytest.approx(other.curve["test_loss"], rel=1e-4)
        assert one.importance == pytest.approx(other.importance, rel=1e-3, abs=1e-5)


def test_a_run_learns_and_its_row_is_in_the_targets_units() -> None:
    cell, data = Cell("diabetes", "soft_tree", "adamw", 128, 0), cell_data(128, 0)
    result = train_cell(cell, data, 60, 32)
    assert data.scale is not None
    row = result.row
    assert (row["diverged"], "n_classes" in row, "log_loss" in row) == (0, False, False)
    # The curve's losses are mean squared errors of standardised targets.
    assert row["rmse"] == pytest.approx(
        math.sqrt(result.curve["test_loss"][-1]) * data.scale.deviation, rel=1e-5
    )
    assert result.curve["test_loss"][-1] < 0.8 * result.curve["test_loss"][0]
    model = initial_model("soft_tree", data.x_test.shape[1], None, 0)
    with torch.no_grad():
        said = model(torch.from_numpy(data.x_test))[:, 0]
    first = float(F.mse_loss(said, torch.from_numpy(data.y_test)))
    assert result.curve["test_loss"][0] == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize("name", ["soft_tree", "additive_net"])
def test_padded_rows_do_not_count_in_the_loss(name: str) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    def task(rows: int, test: int) -> Task:
        x = rng.normal(size=(rows + test, 3)).astype(np.float32)
        y = rng.normal(size=rows + test).astype(np.float32)
        return Task("t", x[:rows], y[:rows], x[rows:], y[rows:], None)

    tasks = [task(8, 5), task(6, 9)]
    stack = TaskBatch.stack(tasks)
    template = make_model(name, 3, None)
    model = BatchedModel(template)
    flat = torch.cat([p.detach().flatten() for p in template.parameters()]).repeat(2, 1)
    found = model.loss(flat, stack.x_test, stack.y_test, stack.feature_mask, stack.class_mask)
    for each, loss in zip(tasks, found, strict=True):
        with torch.no_grad():
            said = template(torch.from_numpy(each.x_test))[:, 0]
        assert float(loss) == pytest.approx(
            float(F.mse_loss(said, torch.from_numpy(each.y_test))), rel=1e-5
        )
    x, y = stack.x_train[:, :6], stack.y_train[:, :6]
    mean, noise, _ = model.gradient(flat, x, y, stack, 6, graph=False)
    for i in range(2):
        samples = []
        for row, target in zip(x[i], y[i], strict=True):
            loss = F.mse_loss(template(row[None])[:, 0], target[None])
            own = torch.autograd.grad(loss, list(template.parameters()))
            samples.append(torch.cat([part.flatten() for part in own]))
        alone = torch.stack(samples)
        torch.testing.assert_close(mean[i], alone.mean(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(noise[i], alone.var(0) / 6, rtol=1e-3, atol=1e-6)
    labels, x = np.array([0, 1] * 4), tasks[0].x_train
    with pytest.raises(ValueError, match="classes and of measured targets do not go into one"):
        TaskBatch.stack([tasks[0], Task("c", x, labels, x, labels, 2)])


def test_adamw_is_tuned_on_folds_of_near_targets() -> None:
    data = cell_data(30, 0)
    fold = draw_folds(data.y_train, 3, seed=0)
    assert np.bincount(fold).tolist() == [10, 10, 10]
    means = [data.y_train[fold == k].mean() for k in range(3)]
    assert np.ptp(means) < 0.3
    rows = TrainingRows(data.x_train, data.y_train, None, 16, 0)
    found = cross_validate_adamw(rows, "soft_tree", 40)
    # The mean of the training targets has a squared error of 1.
    assert found.loss < 1
    assert found == cross_validate_adamw(rows, "soft_tree", 40)


def run(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {"models": ("soft_tree",), "sizes": (16, 32)}
    config = EvaluationConfig(
        **settings, optimizers=("adamw", "sgd"), seeds=2, steps=20, context=True
    )
    said = io.StringIO()
    console = Console(file=said)
    done = evaluate([builtin_table("diabetes")], config, folder, jobs=1, console=console)
    assert not done.errors
    assert "models outside torch" in said.getvalue()
    return done.summary


def test_an_evaluation_of_a_measured_target(tmp_path: Path) -> None:
    summary = run(tmp_path)
    results = pd.read_csv(tmp_path / "results.csv")
    assert {"rmse", "r2", "nll", "crps", "target_deviation"} <= set(results)
    assert not {"log_loss", "accuracy", "n_classes"} & set(results)
    for case in summary["cases"]:
        own = results[results["n_train"] == case["n_train"]]
        means = own.groupby("optimizer")["rmse"].mean()
        for name in ("adamw", "sgd"):
            assert case["optimizers"][name]["rmse"] == pytest.approx(means[name])
        assert case["ratio"]["sgd"] == pytest.approx(means["sgd"] / means["adamw"])
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["task"] == "regression"
    report = (tmp_path / "report.html").read_text()
    assert "RMSE" in report
    assert "log loss" not in report.lower()
    # Started again it trains nothing; the loop gives the same.
    assert run(tmp_path)["cases"] == summary["cases"]


def test_a_diverged_run_counts_with_four_deviations_of_the_target(tmp_path: Path) -> None:
    run(tmp_path)
    results = pd.read_csv(tmp_path / "results.csv")
    lost = (results["optimizer"] == "sgd") & (results["seed"] == 0)
    results.loc[lost, ["rmse", "r2", "nll", "crps"]] = np.nan
    results.loc[lost, "diverged"] = 1
    for case in summarise(results, "adamw")["cases"]:
        own = results[(results["n_train"] == case["n_train"]) & (results["optimizer"] == "sgd")]
        kept, gone = own[own["diverged"] == 0].iloc[0], own[own["diverged"] == 1].iloc[0]
        wanted = (kept["rmse"] + 4 * gone["target_deviation"]) / 2
        assert case["optimizers"]["sgd"]["rmse"] == pytest.approx(wanted)
        assert case["optimizers"]["sgd"]["r2"] == pytest.approx(kept["r2"])
    summary = {"reference": "adamw", **summarise(results, "adamw")}
    said, *_ = verdict(summary)
    assert "counts with an RMSE of 4 deviations of the training rows' targets" in said
    assert "log loss" not in said


def test_an_interrupted_evaluation_leaves_rows_under_their_own_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, calls = running_units.train_stack, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(running_units, "train_stack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    results = pd.read_csv(tmp_path / "results.csv")
    assert len(results) == 2
    lines = (tmp_path / "cells.jsonl").read_text().splitlines()
    cells = [json.loads(line)["row"] for line in lines]
    assert results.to_dict("records") == cells


def test_the_command_finds_out_what_a_target_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(dose=x[:, 0] + rng.normal(size=60))
    frame.to_csv(tmp_path / "mine.csv", index=False)
    words = ["evaluate", "--data", str(tmp_path / "mine.csv"), "--out", str(tmp_path / "out")]
    words += ["--models", "soft_tree", "--optimizers", "adamw", "--sizes", "16"]
    words += ["--seeds", "1", "--steps", "3", "--jobs", "1"]
    for task, code in (("auto", 0), ("regression", 0), ("classification", 2), ("rank", 2)):
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--task", task])
        assert stopped.value.code == code
        said = capsys.readouterr()
        if code == 0:
            assert "RMSE" in said.out
    assert "task='rank' is not known" in said.err


def test_tables_of_both_tasks_are_evaluated_apart(tmp_path: Path) -> None:
    tables = [builtin_table("diabetes"), builtin_table("wine")]
    with pytest.raises(EvaluationError, match=r"classification and some for regression.*--task"):
        evaluate(tables, EvaluationConfig(), tmp_path)
