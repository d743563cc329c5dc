"""The command line, as a user types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import denograd
from denograd import cli
from denograd._console import repeat_flags
from denograd.baselines import OPTIMIZER_NAMES
from denograd.models.registry import KNOWN_MODELS

QUICK = (
    "--models soft_tree --optimizers adamw,sgd --sizes 16 --seeds 1 --steps 3 --jobs 1 --no-context"
)


def run(*arguments: str | Path) -> Result:
    words = [word for a in arguments for word in ([str(a)] if isinstance(a, Path) else a.split())]
    return CliRunner().invoke(cli.app, words)


def write_table(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=80)
    frame = pd.DataFrame({"id": range(80), "x": x, "group": np.where(x > 0, "high", "low")})
    frame.assign(z=rng.normal(size=80))[["id", "x", "z", "group"]].to_csv(path, index=False)
    return path


@pytest.mark.parametrize("command", ["evaluate", "demo", "meta-train", "denoisers", "inspect"])
def test_help_has_examples(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Examples" in result.output
    assert f"denograd {command}" in result.output


def test_help_of_meta_train_names_every_model() -> None:
    words = re.sub(r"[^a-z_]+", " ", run("meta-train", "--help").output).split()
    assert set(KNOWN_MODELS) <= set(words)


def test_help_of_evaluate_names_every_model_and_optimizer() -> None:
    words = re.sub(r"[^a-z_0-9]+", " ", run("evaluate", "--help").output).split()
    assert set(KNOWN_MODELS) | set(OPTIMIZER_NAMES) <= set(words)


def test_version_and_module() -> None:
    assert run("--version").output.strip() == f"denograd {denograd.__version__}"
    command = [sys.executable, "-m", "denograd", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"denograd {denograd.__version__}"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--d a b", "--d a --d b"),
        ("--d a --n 1 --d b c", "--d a --n 1 --d b --d c"),
        ("--d=a b", "--d=a --d b"),
        ("--n 1 2", "--n 1 2"),
        ("--d a b --flag -- c d", "--d a --d b --flag -- c d"),
        ("--d", "--d"),
    ],
)
def test_several_values_after_one_flag(typed: str, expected: str) -> None:
    assert repeat_flags(typed.split(), {"--d"}) == expected.split()


def test_evaluate_files(tmp_path: Path) -> None:
    files = [write_table(tmp_path / f"{name}.csv", seed) for seed, name in enumerate("ab")]
    result = run("evaluate --data", *files, QUICK, "--target group --out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    frame = pd.read_csv(tmp_path / "out" / "results.csv")
    assert frame["dataset"].tolist() == ["a", "a", "b", "b"]
    assert (frame["n_features"] == 2).all()
    assert "note: a: column 'id' is left out" in result.stderr
    for word in ("winner", "soft_tree", "sgd against adamw", "curves_a.png", "results.csv"):
        assert word in result.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["command"].split()[0] == "denograd"
    again = run("evaluate --data", *files, QUICK, "--target group --out", tmp_path / "out")
    assert "4 of 4 cells are already finished" in again.stderr


def test_evaluate_a_folder_leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    write_table(folder / "good.csv")
    (folder / "bad.csv").write_text("a,b\n1,2\n")
    result = run("evaluate --data", folder, QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "left out" in result.stderr
    assert "bad.csv" in result.stderr
    (folder / "good.csv").unlink()
    result = run("evaluate --data", folder, QUICK, "--out", tmp_path / "out2")
    assert result.exit_code == 2
    assert "none of the files there can be used" in result.stderr


@pytest.mark.parametrize("useless", ["small", "empty"])
def test_a_folder_may_hold_tables_of_no_use_but_a_file_may_not(
    tmp_path: Path, useless: str
) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    write_table(folder / "good.csv")
    bad = folder / f"{useless}.csv"
    frame = pd.read_csv(write_table(bad))
    frame = frame.head(20) if useless == "small" else frame[["id", "group"]]
    frame.to_csv(bad, index=False)
    message = {"small": "small: size 16 leaves", "empty": "empty: no column can be learned from"}
    result = run("evaluate --data", folder, QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"note: left out: {message[useless]}" in result.stderr
    assert set(pd.read_csv(tmp_path / "out" / "results.csv")["dataset"]) == {"good"}
    again = run("evaluate --data", folder, QUICK, "--out", tmp_path / "out")
    assert "2 of 2 cells are already finished" in again.stderr
    # Named explicitly, it is an error, though its folder is given too, by another path.
    detour = folder / ".." / "tables" / bad.name
    for paths in ([bad], [detour, folder]):
        result = run("evaluate --data", *paths, QUICK, "--out", tmp_path / "out2")
        assert result.exit_code == 2
        assert f"denograd: {message[useless]}" in result.stderr
    (folder / "good.csv").unlink()
    result = run("evaluate --data", folder, QUICK, "--out", tmp_path / "out2")
    assert result.exit_code == 2
    assert "none of the tables can be used" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "give either --data FILE... or --builtin NAME..., and not both"),
        ("--data a.csv --builtin wine", "not both"),
        ("--data nowhere.csv", "nowhere.csv: there is no such file"),
        ("--builtin wines", "Did you mean 'wine'?"),
        ("--builtin wine --target x", "--target is for --data"),
        ("--builtin wine --sizes many", "--sizes is 'many'; give whole numbers"),
        ("--builtin wine --sizes 0", "sizes has 0"),
        ("--builtin wine --sizes 170", "wine: size 170"),
        ("--builtin wine --seeds 0", "seeds has 0"),
        ("--builtin wine --jobs 0", "jobs=0"),
        ("--builtin wine --models mlp", "model 'mlp' is not known; use one of soft_tree"),
        ("--builtin wine --optimizers adam", "optimizer 'adam' is not known; use one of adamw"),
        ("--builtin wine --optimizers denograd:none", "no such denoiser; use a shipped name"),
        ("--builtin wine wine", "two tables are named wine"),
    ],
)
def test_mistakes_give_one_message(tmp_path: Path, arguments: str, message: str) -> None:
    defaults = "" if "--optimizers" in arguments else "--optimizers adamw,sgd"
    result = run("evaluate", arguments, defaults, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("denograd: ")
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)


def test_failed_cells_give_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from denograd.evaluation import running_units

    def never(*_: Any) -> Any:
        raise RuntimeError("made to fail")

    monkeypatch.setattr(running_units, "train_stack", never)
    result = run("evaluate --builtin wine", QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "2 cells failed" in result.stderr
    assert "errors.csv" in result.stderr


def test_an_interruption_says_that_finished_cells_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from denograd.evaluation import running_units

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(running_units, "train_stack", interrupted)
    result = run("evaluate --builtin wine", QUICK, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert "what is finished is on disk" in result.stderr


def test_demo_evaluates_three_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from denograd import evaluation

    real, steps = evaluation.EvaluationConfig, 3

    def smaller() -> evaluation.EvaluationConfig:
        return real(("soft_tree",), ("adamw", "denograd:identity"), (32,), seeds=1, steps=steps)

    monkeypatch.setattr(evaluation, "EvaluationConfig", smaller)
    result = run("demo --jobs 1 --out", tmp_path)
    assert result.exit_code == 0, result.output
    names = ("breast_cancer", "wine", "digits3")
    assert all(f"curves_{name}.png" in result.stdout for name in names)
    assert set(pd.read_csv(tmp_path / "results.csv")["dataset"]) == set(names)
    again = run("demo --jobs 1 --out", tmp_path)
    assert again.exit_code == 0, again.output
    assert "6 of 6 cells are already finished" in again.stderr
    assert "thrown away" not in again.stderr
    steps = 4
    changed = run("demo --jobs 1 --out", tmp_path)
    assert changed.exit_code == 0, changed.output
    assert "results of other settings are thrown away (steps was 3" in changed.stderr
    assert "already finished" not in changed.stderr
    assert (pd.read_csv(tmp_path / "results.csv")["steps"] == 4).all()


def test_demo_throws_no_other_evaluation_away(tmp_path: Path) -> None:
    assert run("evaluate --builtin wine", QUICK, "--out", tmp_path).exit_code == 0
    before = (tmp_path / "results.csv").read_bytes()
    result = run("demo --jobs 1 --out", tmp_path)
    assert result.exit_code == 2
    assert "it holds an evaluation with other settings" in result.stderr
    assert (tmp_path / "results.csv").read_bytes() == before


def test_meta_train_hands_everything_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import denograd.meta.cli

    called: dict[str, Any] = {}
    monkeypatch.setattr(denograd.meta.cli, "run_meta_training", lambda **all_: called.update(all_))
    words = "meta-train --tasks prior a.csv b --target y --steps 7 --seed 3 --resume"
    more = "--task regression --estimator pes --task-count 8 --patience 3"
    result = run(words, more, "--models soft_tree --out", tmp_path)
    assert result.exit_code == 0, result.output
    assert called == {
        "tasks": ["prior", "a.csv", "b"],
        "out": tmp_path,
        "target": "y",
        "task": "regression",
        "minutes": None,
        "steps": 7,
        "seed": 3,
        "resume": True,
        "models": ["soft_tree"],
        "estimator": "pes",
        "engine": "batched",
        "task_count": 8,
        "patience": 3,
        "device": "cpu",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--minutes 1 --steps 2", "give --minutes or --steps, not both"),
        ("--minutes -1", "--minutes -1: it must be above 0"),
        ("--steps 0", "--steps 0: it must be above 0"),
        ("--seed -1", "--seed -1: it must be 0 or above"),
        ("--task ranking", "--task ranking: use classification, or regression"),
        ("--estimator newton", "estimator='newton'; use one of truncated"),
    ],
)
def test_meta_train_mistakes(tmp_path: Path, arguments: str, message: str) -> None:
    result = run("meta-train --tasks prior", arguments, "--out", tmp_path)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("said", ["", "Interrupted after 3 meta-steps; --resume goes on"])
def test_an_interrupted_meta_training_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    import denograd.meta.cli

    def interrupted(**_: Any) -> Any:
        raise KeyboardInterrupt(*filter(None, [said]))

    monkeypatch.setattr(denograd.meta.cli, "run_meta_training", interrupted)
    result = run("meta-train --tasks prior --steps 9 --out", tmp_path)
    assert result.exit_code == 130
    assert result.stdout == ""
    expected = said or "interrupted; what is finished is on disk"
    assert result.stderr.splitlines() == [f"denograd: {expected}"]


def test_meta_train_of_a_missing_table(tmp_path: Path) -> None:
    result = run("meta-train --tasks", tmp_path / "none.csv", "--steps 1 --out", tmp_path / "out")
    assert result.exit_code == 2
    assert "none.csv" in result.output
    assert "Traceback" not in result.output


def test_denoisers_lists_shipped_ones_and_shows_cards(tmp_path: Path) -> None:
    result = run("denoisers")
    assert result.exit_code == 0
    assert "identity" in result.stdout
    path = tmp_path / "mine.safetensors"
    denograd.save_denoiser(denograd.WienerDenoiser(hidden=4), path, {"figures": {"ratio": 0.9}})
    result = run("denoisers", path)
    assert json.loads(result.stdout)["figures"] == {"ratio": 0.9}
    result = run("denoisers nothing")
    assert result.exit_code == 2
    assert "neither a shipped denoiser nor" in result.stderr
