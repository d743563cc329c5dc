"""Where units run: processes, ray and dask; killed, failing and counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from joblib.parallel import SequentialBackend
from rich.console import Console

from denograd.baselines import CONTROL
from denograd.data import Table, builtin_table, plan_columns
from denograd.evaluation import (
    Cell,
    CellData,
    Evaluation,
    EvaluationConfig,
    EvaluationError,
    evaluate,
    running,
    running_units,
)
from denograd.evaluation.cases import FIT
from denograd.evaluation.running import BACKENDS, check_backend, run_units
from denograd.evaluation.running_units import Outcome, Unit, cut_units, group_cells, run_unit

TIMES = ["train_seconds"]


def config_of(**changes: Any) -> EvaluationConfig:
    settings: dict[str, Any] = {
        "models": ("soft_tree",),
        "optimizers": ("adamw_default", "sgd"),
        "sizes": (16, 32),
        "seeds": 2,
        "steps": 6,
    }
    return EvaluationConfig(**{**settings, **changes})


def run(config: EvaluationConfig, out: Path, **options: Any) -> Evaluation:
    settings: dict[str, Any] = {"jobs": 1, "console": Console(quiet=True), **options}
    return evaluate([builtin_table("wine")], config, out, **settings)


def test_a_backend_that_cannot_be_used_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EvaluationError, match="backend 'threads' is not known; use one of loky, "):
        run(config_of(), tmp_path, backend="threads")
    for backend, module in (("ray", "ray.util.joblib"), ("dask", "distributed")):
        monkeypatch.setitem(sys.modules, module, None)
        said = rf"backend '{backend}' cannot be used.*'denograd-optim\[cluster\]'"
        with pytest.raises(EvaluationError, match=said):
            check_backend(backend, 2)
    assert not (tmp_path / "config.json").exists()
    for backend in ("loky", "sequential"):
        assert backend in BACKENDS
        check_backend(backend, -1)
    with pytest.raises(EvaluationError, match="jobs=-2; use a number of processes, or -1"):
        check_backend("sequential", -2)


class HereAsACluster(SequentialBackend):
    """A backend that joblib takes for dask's, and that is this process."""


def test_what_units_are_made_with_does_not_run_on_the_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Encoders are fitted while units are handed out; on the cluster they would wait for
    the thread that waits for them."""
    monkeypatch.setitem(joblib.parallel.BACKENDS, "dask", HereAsACluster)
    monkeypatch.setattr(running, "_dask_client", lambda jobs: nullcontext())
    table, config = builtin_table("wine"), config_of(seeds=1)
    cell = Cell("wine", "soft_tree", "sgd", 16, 0)
    groups = group_cells([cell], config.engine)
    plans = {"wine": plan_columns(table)}
    used: list[type] = []

    def units() -> Iterator[Unit]:
        for unit in cut_units({"wine": table}, plans, {"wine": [16]}, groups, config):
            used.append(type(joblib.parallel.get_active_backend()[0]))
            yield unit

    (outcome,) = run_units(units(), 1, "dask")
    assert [done for done, _ in outcome.cells] == [cell]
    assert len(used) == 1
    assert not issubclass(used[0], HereAsACluster)


def test_units_come_back_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second unit is not even cut before the first has come back."""
    table, config = builtin_table("wine"), config_of(seeds=1)
    cells = [Cell("wine", "soft_tree", name, 16, 0) for name in ("sgd", "adamw_default")]
    events: list[str] = []
    real = running_units.train_stack

    def spy(cells: Any, *rest: Any) -> Any:
        events.append(f"run {cells[0].optimizer}")
        return real(cells, *rest)

    monkeypatch.setattr(running_units, "train_stack", spy)
    plans = {"wine": plan_columns(table)}
    groups = group_cells(cells, config.engine)
    units = cut_units({"wine": table}, plans, {"wine": [16]}, groups, config)
    for outcome in run_units(units, 1, "sequential"):
        ((cell, result),) = outcome.cells
        assert not isinstance(result, str)
        events.append(f"got {cell.optimizer}")
    assert events == ["run sgd", "got sgd", "run adamw_default", "got adamw_default"]


@pytest.mark.parametrize("engine", ["batched", "loop"])
def test_processes_give_the_results_of_one(tmp_path: Path, engine: str) -> None:
    config = config_of(sizes=(16,), engine=engine)
    one = run(config, tmp_path / "one").results
    two = run(config, tmp_path / "two", jobs=2).results
    alone = run(config, tmp_path / "sequential", jobs=2, backend="sequential").results
    for other in (two, alone):
        pd.testing.assert_frame_equal(one.drop(columns=TIMES), other.drop(columns=TIMES))


@pytest.mark.parametrize("engine", ["batched", "loop"])
def test_a_folder_of_the_other_engine_is_refused(tmp_path: Path, engine: str) -> None:
    other = {"batched": "loop", "loop": "batched"}[engine]
    run(config_of(sizes=(16,), seeds=1, engine=engine), tmp_path)
    with pytest.raises(EvaluationError, match=f"engine was {engine}, now it is {other}"):
        run(config_of(sizes=(16,), seeds=1, engine=other), tmp_path)
    with pytest.raises(EvaluationError, match="engine 'vmap' is not known; use one of batched"):
        config_of(engine="vmap")


def test_of_a_stack_that_fails_only_the_guilty_seed_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = running_units.train_stack

    def sometimes(cells: Any, *rest: Any) -> Any:
        if any(cell.seed == 1 for cell in cells):
            raise ArithmeticError("made to fail")
        return real(cells, *rest)

    monkeypatch.setattr(running_units, "train_stack", sometimes)
    done = run(config_of(sizes=(16,), seeds=3, optimizers=("sgd",)), tmp_path)
    assert done.results["seed"].tolist() == [0, 2]
    assert [(cell.seed, message) for cell, message in done.errors] == [
        (1, "ArithmeticError: made to fail")
    ]


def test_rows_that_cannot_be_encoded_are_a_failed_cell(tmp_path: Path) -> None:
    """A column that varies in few rows only: some seed's training rows are all alike."""
    x = np.zeros(120)
    x[:12] = 1
    table = Table("rare", pd.DataFrame({"x": x}), pd.Series([0, 1] * 60))
    config = config_of(sizes=(4,), seeds=4, optimizers=("sgd",))
    done = evaluate([table], config, tmp_path, jobs=1, console=Console(quiet=True))
    assert done.errors
    assert len(done.errors) + len(done.results) == 4
    assert all("every column is constant" in message for _, message in done.errors)


def test_rows_are_encoded_once_for_all_models_and_optimizers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[tuple[str, int]] = []
    real = running_units.encode

    def counting(table: Table, plan: Any, train: Any, test: Any) -> CellData:
        encoded.append((table.name, len(train)))
        return real(table, plan, train, test)

    monkeypatch.setattr(running_units, "encode", counting)
    done = run(config_of(sizes=(16, 32), seeds=2), tmp_path)
    assert len(done.results) > len(encoded)
    assert sorted(encoded) == [("wine", 16)] * 2 + [("wine", 32)] * 2


@pytest.mark.slow
def test_what_is_killed_in_a_stack_is_run_again_and_nothing_else(tmp_path: Path) -> None:
    """SIGKILL of the process with its workers, then the same call again."""
    config = config_of(seeds=3, steps=80, sizes=(16, 32, 48, 64))
    script = (
        "import sys; from denograd.data import builtin_table as b\n"
        "from denograd.evaluation import EvaluationConfig as C, evaluate\n"
        "c = C(('soft_tree',), ('adamw_default', 'sgd'), (16, 32, 48, 64), 3, 80)\n"
        "evaluate([b('wine')], c, sys.argv[1], jobs=2)"
    )
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(killed)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    cells, deadline = killed / "cells.jsonl", time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        if cells.exists() and len(cells.read_bytes().splitlines()) >= 3:
            break
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = cells.read_text().splitlines()
    assert 3 <= len(kept) < 24
    done = run(config, killed)
    assert done.trained == 24 - len(kept)
    # What was finished before the kill stands as it was, to the measured second.
    assert cells.read_text().splitlines()[: len(kept)] == kept
    whole = run(config, tmp_path / "whole")
    pd.testing.assert_frame_equal(
        done.results.drop(columns=TIMES), whole.results.drop(columns=TIMES), rtol=1e-4
    )


def test_notes_of_workers_are_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = running_units.run_unit

    def noting(unit: Any) -> Outcome:
        return real(unit)._replace(notes=["the same", f"of {unit.cells[0].n_train} rows"])

    monkeypatch.setattr(running, "run_unit", noting)
    with (tmp_path / "log").open("w") as log:
        console = Console(record=True, width=120, file=log)
        run(config_of(), tmp_path / "out", console=console)
    said = console.export_text()
    assert said.count("note: the same") == 1
    assert "note: of 16 rows" in said
    assert "note: of 32 rows" in said


def test_context_models_are_cells_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from denograd.evaluation import runner

    names = ("logistic_regression", "decision_tree")
    monkeypatch.setattr(runner, "CONTEXT_MODELS", (*names, "explainable_boosting"))
    monkeypatch.setattr(runner, "context_available", lambda name: name in names)
    config = config_of(sizes=(32,), optimizers=(CONTROL, "sgd"), context=True)
    with (tmp_path / "log").open("w") as log:
        console = Console(record=True, width=200, file=log)
        done = run(config, tmp_path / "out", console=console)
    assert "package is not installed: explainable_boosting" in console.export_text()
    assert not done.errors
    fitted = done.results[done.results["optimizer"] == FIT]
    assert sorted(zip(fitted["model"], fitted["seed"], strict=True)) == [
        (name, seed) for name in sorted(names) for seed in (0, 1)
    ]
    assert (fitted["steps"] == 0).all()
    assert (fitted["train_seconds"] > 0).all()
    assert fitted["train_log_loss"].isna().all()
    # On 32 rows of wine both are far better than guessing, ln 3 nats.
    assert fitted["log_loss"].between(0.01, 0.9).all()
    assert {case["model"] for case in done.summary["cases"]} == {"soft_tree"}
    assert set(done.summary["comparisons"]) == {"sgd"}
    (context,) = done.summary["context"]
    assert set(context["models"]) == set(names)
    mean = fitted.groupby("model")["log_loss"].mean()
    for name in names:
        assert context["models"][name]["log_loss"] == pytest.approx(mean[name])
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "cells.jsonl").read_text().splitlines()
    ]
    assert all(
        line["curve"] == {} and line["importance"] is None
        for line in lines
        if line["row"]["optimizer"] == FIT
    )
    assert run(config, tmp_path / "out").trained == 0


def test_a_unit_leaves_torchs_threads_as_they_were() -> None:
    import torch

    table, config = builtin_table("wine"), config_of()
    groups = [(Cell("wine", "soft_tree", "sgd", 16, 0),)]
    (unit,) = cut_units(
        {"wine": table}, {"wine": plan_columns(table)}, {"wine": [16]}, groups, config
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run_unit(unit)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def environment() -> dict[str, str]:
    """Workers find the package from any folder, where it is not installed too."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path))),
    }


CLUSTER = """
import sys
from denograd.data import builtin_table
from denograd.evaluation import EvaluationConfig, evaluate
config = EvaluationConfig(("soft_tree",), ("adamw_default", "sgd"), (16, 32), 2, 6)
done = evaluate([builtin_table("wine")], config, sys.argv[1], jobs=2, backend=sys.argv[2])
print(done.trained)
if sys.argv[2] == "ray":
    import ray
    assert not ray.is_initialized()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_a_cluster_gives_the_same_results(tmp_path: Path, backend: str, module: str) -> None:
    """In a process of its own: a cluster's threads and warnings stay out of the tests."""
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    out = tmp_path / backend
    command = [sys.executable, "-c", CLUSTER, str(out), backend]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[-1] == "8"
    if backend == "ray":
        assert "ray hands results back in rounds" in done.stderr
    frame = pd.read_csv(out / "results.csv")
    expected = run(config_of(), tmp_path / "one").results
    pd.testing.assert_frame_equal(
        frame.drop(columns=TIMES), expected.drop(columns=TIMES), rtol=1e-4
    )
    again = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert again.stdout.split()[-1] == "0", again.stderr
