"""Evaluations: fair, resumable, and right in what they say."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import log_loss, recall_score, roc_auc_score

from denograd.data import (
    Encoder,
    Table,
    TableError,
    TableWarning,
    builtin_table,
    nested_split,
    plan_columns,
    read_table,
)
from denograd.evaluation import (
    METRICS,
    Cell,
    CellData,
    Evaluation,
    EvaluationConfig,
    EvaluationError,
    OtherSettingsError,
    evaluate,
    results_table,
    running_units,
    score,
    summarise,
    train_cell,
    verdict,
)
from denograd.evaluation.described import class_labels
from denograd.evaluation.journal import in_use, read_cells
from denograd.evaluation.metrics import class_recalls
from denograd.evaluation.names import short_names
from denograd.evaluation.train import curve_steps, draw_batches, initial_model
from denograd.evaluation.trained_on import seen_before
from denograd.evaluation.tuned_for import tuned_elsewhere

FIRST_COLUMNS = (
    "dataset,model,optimizer,n_train,seed,steps,log_loss,brier,calibration_error,accuracy,"
    "balanced_accuracy,roc_auc,train_seconds,n_test,n_features,n_classes,batch_size,"
    "train_log_loss,diverged\n"
)
TIMES = ["train_seconds"]


def small_config(**changes: Any) -> EvaluationConfig:
    defaults: dict[str, Any] = {
        "models": ("soft_tree",),
        "optimizers": ("adamw_default", "sgd"),
        "sizes": (16, 32),
        "seeds": 2,
        "steps": 6,
    }
    return EvaluationConfig(**{**defaults, **changes})


def quiet(tables: list[Table], config: EvaluationConfig, out: Path, **options: Any) -> Evaluation:
    return evaluate(tables, config, out, jobs=1, console=Console(quiet=True), **options)


def wine_data(size: int = 40) -> CellData:
    table = builtin_table("wine")
    split = nested_split(table.codes, [size], 0)
    train = table.features.iloc[split.train[size]]
    encoder = Encoder(plan_columns(table)).fit(train)
    return CellData(
        encoder.transform(train),
        table.codes[split.train[size]],
        encoder.transform(table.features.iloc[split.test]),
        table.codes[split.test],
        3,
    )


@settings(max_examples=40)
@given(st.integers(2, 5), st.integers(0, 10_000))
def test_metrics_follow_their_definitions(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(classes), rng.integers(classes, size=30)])
    probabilities = rng.dirichlet(np.ones(classes), size=len(codes))
    found = score(codes, probabilities)
    chosen = probabilities[np.arange(len(codes)), codes]
    assert found["log_loss"] == pytest.approx(-np.log(chosen).mean())
    hit = probabilities.argmax(1) == codes
    assert found["accuracy"] == pytest.approx(hit.mean())
    recalls = [hit[codes == c].mean() for c in range(classes)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    # The area under the curve is the share of pairs that are ranked right.
    areas = []
    for c in range(classes):
        own, other = probabilities[codes == c, c], probabilities[codes != c, c]
        pairs = np.sign(own[:, None] - other[None, :])
        areas.append((pairs.mean() + 1) / 2)
    expected = areas[1] if classes == 2 else np.mean(areas)
    assert found["roc_auc"] == pytest.approx(expected)
    assert tuple(found) == METRICS


def test_a_class_without_test_rows_leaves_the_area_undefined() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.7, 0.1]])
    found = score(np.array([0, 1, 1]), probabilities)
    assert np.isnan(found["roc_auc"])
    assert found["balanced_accuracy"] == pytest.approx((1.0 + 0.5) / 2)
    assert found["log_loss"] == pytest.approx(-np.log([0.7, 0.3, 0.7]).mean())


@settings(max_examples=40)
@given(st.integers(2, 5), st.integers(1, 30), st.integers(0, 10_000))
def test_recalls_are_those_of_scikit_learn(classes: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(classes, size=rows)
    probabilities = rng.dirichlet(np.ones(classes), size=rows)
    found = class_recalls(codes, probabilities)
    expected = recall_score(
        codes,
        probabilities.argmax(1),
        labels=np.arange(classes),
        average=None,
        zero_division=np.nan,
    )
    np.testing.assert_allclose(found, expected)
    assert np.nanmean(found) == pytest.approx(score(codes, probabilities)["balanced_accuracy"])


def test_recalls_of_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"codes have shape \(3,\) and probabilities \(2, 2\)"):
        class_recalls(np.zeros(3, dtype=np.int64), np.full((2, 2), 0.5))


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 50), st.integers(0, 99))
def test_batches_are_full_and_use_every_row_alike(
    rows: int, steps: int, batch_size: int, seed: int
) -> None:
    batches = draw_batches(rows, steps, batch_size, seed)
    assert batches.shape == (steps, min(batch_size, rows))
    stream = batches.flatten().tolist()
    for start in range(0, len(stream) - rows + 1, rows):
        assert sorted(stream[start : start + rows]) == list(range(rows))
    assert torch.equal(batches, draw_batches(rows, steps, batch_size, seed))


def test_every_optimizer_sees_the_same_weights_and_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Spy on what each optimizer is given and on each batch that the model sees."""
    from denograd.evaluation import train

    data = wine_data()
    seen: dict[str, list[torch.Tensor]] = {}
    real = train.make_optimizer

    def spy(name: str, model: torch.nn.Module, **options: Any) -> Any:
        seen[name] = [p.detach().clone() for p in model.parameters()]

        def remember(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
            if torch.is_grad_enabled():
                seen[name].append(inputs[0].clone())

        model.register_forward_pre_hook(remember)
        return real(name, model, **options)

    monkeypatch.setattr(train, "make_optimizer", spy)
    names = ("adamw", "sgd", "denograd:identity")
    for name in names:
        torch.manual_seed(hash(name))  # the global generator must not matter
        train_cell(Cell("wine", "attention", name, 40, 7), data, steps=5, batch_size=16)
    for name in names[1:]:
        assert len(seen[name]) == len(seen[names[0]]) > 5
        assert all(torch.equal(a, b) for a, b in zip(seen[name], seen[names[0]], strict=True))


def test_a_run_equals_a_plain_loop() -> None:
    data, steps = wine_data(), 9
    result = train_cell(Cell("wine", "soft_tree", "sgd", 40, 3), data, steps, batch_size=16)
    model = initial_model("soft_tree", 13, 3, seed=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    for batch in draw_batches(40, steps, 16, seed=3):
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(model(x[batch]), y[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        probabilities = model(torch.from_numpy(data.x_test)).exp().double().numpy()
        probabilities /= probabilities.sum(1, keepdims=True)
        train_loss = torch.nn.functional.nll_loss(model(x), y).item()
    assert result.row["log_loss"] == pytest.approx(log_loss(data.y_test, probabilities), rel=1e-5)
    auc = roc_auc_score(data.y_test, probabilities, multi_class="ovr")
    assert result.row["roc_auc"] == pytest.approx(auc, rel=1e-6)
    assert result.row["train_log_loss"] == pytest.approx(train_loss, rel=1e-5)
    assert result.curve["step"] == curve_steps(steps) == list(range(10))
    assert result.curve["test_loss"][-1] == pytest.approx(result.row["log_loss"], rel=1e-5)
    assert 0 < result.row["train_seconds"] < 60


def test_training_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    train_cell(Cell("wine", "soft_tree", "sgd", 40, 3), wine_data(), 2, 16)
    assert torch.equal(before, torch.random.get_rng_state())


def exploding(monkeypatch: pytest.MonkeyPatch) -> None:
    """SGD with a rate at which every run overflows within a few steps."""
    from denograd.baselines import library

    monkeypatch.setitem(library.LIBRARY[2].defaults, "lr", 1e30)  # type: ignore[arg-type]
    assert library.LIBRARY[2].name == "sgd"


@pytest.mark.parametrize("engine", ["batched", "loop"])
def test_a_run_that_diverges_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    exploding(monkeypatch)
    config = small_config(sizes=(16,), engine=engine, models=("attention",))
    done = quiet([builtin_table("wine")], config, tmp_path)
    assert not done.errors
    frame = done.results.set_index("optimizer")
    assert len(frame) == 4
    assert frame["diverged"].to_dict() == {"adamw_default": 0, "sgd": 1}
    assert frame.loc["sgd", [*METRICS, "train_log_loss"]].isna().all(axis=None)
    assert frame.loc["adamw_default", list(METRICS)].notna().all(axis=None)
    assert (frame["train_seconds"] > 0).all()
    for line in (tmp_path / "cells.jsonl").read_text().splitlines():
        entry = json.loads(line)
        steps, diverged = entry["curve"]["step"], entry["row"]["diverged"]
        assert (entry["importance"] is None) == (entry["row"]["log_loss"] is None) == diverged
        # The curve goes on to where the loss was finite last.
        assert steps[0] == 0
        assert (steps[-1] < 6) == diverged
    again = quiet([builtin_table("wine")], config, tmp_path)
    assert again.trained == 0
    (case,) = json.loads((tmp_path / "summary.json").read_text())["cases"]
    assert case["optimizers"]["sgd"]["diverged"] == 2
    assert case["winner"] == "adamw_default"


def test_results_folder(tmp_path: Path) -> None:
    config = small_config(optimizers=("adamw", "denograd:identity"))
    done = quiet([builtin_table("wine")], config, tmp_path / "out", command="denograd evaluate X")
    text = (tmp_path / "out" / "results.csv").read_text()
    assert text.startswith(FIRST_COLUMNS)
    frame = pd.read_csv(tmp_path / "out" / "results.csv")
    keys = ["dataset", "model", "optimizer", "n_train", "seed"]
    assert len(frame) == 8 == len(frame[keys].drop_duplicates()) == done.trained
    assert (frame["n_test"] == 178 - 32).all()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == done.summary
    assert summary["command"] == "denograd evaluate X"
    assert summary["reference"] == "adamw"
    assert summary["cells_failed"] == 0
    assert "torch" in summary["versions"]
    assert summary["settings"]["optimizers"]["adamw"]["soft_tree"][0]["lr"] > 0
    assert [path.name for path in done.pictures] == ["curves_wine.png", "ratios.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in done.pictures)
    assert done.report == tmp_path / "out" / "report.html"
    page = done.report.read_text(encoding="utf-8")
    assert "denograd evaluate X" in page
    assert "<svg" in page
    assert not (tmp_path / "out" / "errors.csv").exists()
    assert len(results_table(summary).rows) == 2
    assert "against adamw: lower log loss in" in verdict(summary)[0]


def test_what_a_denoiser_has_seen_stands_in_the_report(tmp_path: Path) -> None:
    config = EvaluationConfig(
        models=("soft_tree",),
        optimizers=("adamw", "denograd:default", "denograd:identity"),
        sizes=(16,),
        seeds=1,
        steps=2,
    )
    done = quiet([builtin_table("diabetes")], config, tmp_path / "numbers")
    kind, table = done.summary["seen_before"]
    assert kind == (
        "'default' was meta-trained for classes, and the targets here are measured numbers."
    )
    assert table.startswith("'default' was meta-trained on a table named 'diabetes': ")
    assert done.report is not None
    assert "meta-trained on a table named" in done.report.read_text(encoding="utf-8")
    # No table of the demo, nor a copy of one, was meta-trained on.
    assert seen_before(["denograd"], ["wine", "breast_cancer", "iris"], "classification") == []
    # Two tables of different sources may have one name.
    assert seen_before(["denograd:default"], ["mine__diabetes"], "classification") == []


@pytest.mark.parametrize(("changes", "expected"), [
    ({}, []),
    # Between 32 and 64 rows, and between 100 and 200 steps, the nearest is near.
    ({"sizes": [48, 20, 256], "steps": 150}, []),
    ({"steps": 1000}, [
        "adamw was not tuned for 1,000 steps: it takes what was tuned for 300 (soft_tree) and what "
        "was tuned for 200 (rule_net)."
    ]),
    ({"sizes": [5, 16, 512]}, [
        "adamw was not tuned for 5 rows: it takes what was tuned for 16 (soft_tree and rule_net).",
        "adamw was not tuned for 512 rows: it takes what was tuned for 256 (soft_tree and "
        "rule_net).",
    ]),
    # With 16 training rows a batch has no more than these.
    ({"sizes": [16, 32], "batch_size": 16}, [
        "adamw was not tuned for batches of 16 rows: its settings are of batches of 32 (with 32 "
        "training rows)."
    ]),
    ({"optimizers": ["lion", "adamw_default", "sam", "denograd", "adamw_cv", "rm3:default"],
      "sizes": [32, 64]}, [
        "lion and sam were not tuned for 64 rows: they take what was tuned for 32 (soft_tree and "
        "rule_net)."
    ]),
    ({"models": ["soft_tree", "temporal_attention"]}, [
        "adamw was tuned on sequences (temporal_attention), and the rows here are of tables."
    ]),
    ({"models": ["temporal_attention"], "sequences": True}, []),
    ({"models": ["soft_tree", "temporal_attention"], "sequences": True}, [
        "adamw was tuned on tables (soft_tree), and the rows here are of sequences."
    ]),
    ({"optimizers": ["adamw", "lion"], "task": "regression"}, [
        "lion was tuned for classes alone, and the targets here are measured numbers."
    ]),
])  # fmt: skip
def test_what_an_optimizer_was_not_tuned_for_is_told(
    changes: dict[str, Any], expected: list[str]
) -> None:
    arguments: dict[str, Any] = {
        "optimizers": ["adamw"],
        "models": ["soft_tree", "rule_net"],
        "steps": 200,
        "sizes": [32],
        "batch_size": 32,
        "task": "classification",
    }
    assert tuned_elsewhere(**{**arguments, **changes}) == expected


def test_a_run_that_nothing_was_tuned_for_is_reported(tmp_path: Path) -> None:
    config = EvaluationConfig(
        models=("soft_tree",), optimizers=("adamw", "sgd"), sizes=(16,), seeds=1, steps=2
    )
    done = quiet([builtin_table("wine")], config, tmp_path)
    (said,) = done.summary["tuned_elsewhere"]
    assert said.startswith("adamw was not tuned for 2 steps: it takes what was tuned for 50")
    assert done.report is not None
    assert said in done.report.read_text(encoding="utf-8")
    assert said in verdict(done.summary)[-1]


def predictions_by_hand(monkeypatch: pytest.MonkeyPatch) -> dict[Cell, list[float]]:
    """What scikit-learn says of the recalls of each cell while it is scored."""
    from denograd.evaluation import stacked, train

    seen: dict[Cell, list[float]] = {}
    real = train.cell_result

    def spy(cell: Cell, data: CellData, curve: Any, predicted: Any, *more: Any) -> Any:
        seen[cell] = recall_score(
            data.y_test,
            predicted.argmax(1),
            labels=np.arange(predicted.shape[1]),
            average=None,
            zero_division=np.nan,
        ).tolist()
        return real(cell, data, curve, predicted, *more)

    for module in (train, stacked, running_units):
        monkeypatch.setattr(module, "cell_result", spy)
    return seen


def test_recalls_go_from_the_test_rows_to_the_summary_with_both_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = predictions_by_hand(monkeypatch)
    table, kept = builtin_table("wine"), {}
    for engine in ("batched", "loop"):
        seen.clear()
        folder = tmp_path / engine
        config = small_config(engine=engine, steps=20, context=engine == "batched")
        done = quiet([table], config, folder)
        kept[engine] = read_cells(folder)
        assert set(kept[engine]) == set(seen)
        for cell, result in kept[engine].items():
            assert result.recalls == pytest.approx(seen[cell])
            assert sum(result.class_rows or ()) == result.row["n_test"]
        assert (folder / "results.csv").read_text().startswith(FIRST_COLUMNS)
        for case in done.summary["cases"]:
            for name, means in case["optimizers"].items():
                own = [
                    recalls
                    for cell, recalls in seen.items()
                    if (cell.n_train, cell.optimizer) == (case["n_train"], name)
                ]
                assert len(own) == 2
                expected = dict(zip(table.classes, np.mean(own, axis=0), strict=True))
                assert means["recalls"] == pytest.approx(expected)
            test_rows = [table.codes[table.split([16, 32], seed).test] for seed in range(2)]
            counts = np.mean([np.bincount(codes) for codes in test_rows], axis=0)
            expected = dict(zip(table.classes, counts, strict=True))
            assert case["classes"] == {"seeds": 2, "test_rows": pytest.approx(expected)}
        assert done.report is not None
        assert "Class by class" in done.report.read_text(encoding="utf-8")
        for entry in done.summary["context"]:
            for model, means in entry["models"].items():
                own = [
                    recalls
                    for cell, recalls in seen.items()
                    if (cell.n_train, cell.model) == (entry["n_train"], model)
                ]
                expected = dict(zip(table.classes, np.mean(own, axis=0), strict=True))
                assert means["recalls"] == pytest.approx(expected)
    assert done.summary["context"] == []
    for cell, result in kept["loop"].items():
        assert result.recalls == pytest.approx(kept["batched"][cell].recalls)


def test_what_an_earlier_version_left_is_read_and_gone_on_with(tmp_path: Path) -> None:
    config = small_config(sizes=(16,))
    now = quiet([builtin_table("wine")], config, tmp_path)
    path = tmp_path / "cells.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in entries:
        del entry["recalls"], entry["class_rows"]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    again = quiet([builtin_table("wine")], config, tmp_path)
    assert again.trained == 0
    assert [json.loads(line) for line in path.read_text().splitlines()] == entries
    assert again.report is not None
    assert "Class by class" not in again.report.read_text(encoding="utf-8")
    (before,), (after,) = now.summary["cases"], again.summary["cases"]
    del before["classes"]
    for means in before["optimizers"].values():
        del means["recalls"]
    assert after == before
    # A further seed keeps its recalls, and the report is of that one.
    more = quiet([builtin_table("wine")], small_config(sizes=(16,), seeds=3), tmp_path)
    assert more.trained == 2
    (case,) = more.summary["cases"]
    assert (case["seeds"], case["classes"]["seeds"]) == (3, 1)
    assert case["optimizers"]["sgd"]["recalls"].keys() == {"class_0", "class_1", "class_2"}


def test_labels_that_would_look_alike_are_told_apart() -> None:
    labels = pd.Series([1, "1"] * 4, dtype=object)
    table = Table("toy", pd.DataFrame({"x": range(8)}), labels)
    assert class_labels(table) == ["1", "'1'"]


def test_one_optimizer_has_nothing_to_compare(tmp_path: Path) -> None:
    config = small_config(optimizers=("sgd",), sizes=(16,), seeds=1)
    done = quiet([builtin_table("wine")], config, tmp_path)
    assert [path.name for path in done.pictures] == ["curves_wine.png"]
    assert verdict(done.summary) == []
    assert len(results_table(done.summary).rows) == 1


def test_two_processes_give_the_same_results(tmp_path: Path) -> None:
    config = small_config(sizes=(16,))
    one = quiet([builtin_table("wine")], config, tmp_path / "one").results
    console = Console(quiet=True)
    two = evaluate([builtin_table("wine")], config, tmp_path / "two", jobs=2, console=console)
    pd.testing.assert_frame_equal(one.drop(columns=TIMES), two.results.drop(columns=TIMES))


def test_a_killed_evaluation_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    """SIGKILL in the middle, a torn last line, then the same call again."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = small_config(seeds=4, steps=60)
    script = (
        "import sys; from denograd.data import builtin_table as b\n"
        "from denograd.evaluation import EvaluationConfig as C, evaluate\n"
        "evaluate([b('wine')], C(('soft_tree',), ('adamw_default', 'sgd'), (16, 32), 4, 60),"
        " sys.argv[1], jobs=1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(killed)], stderr=subprocess.DEVNULL
    )
    cells, deadline = killed / "cells.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if cells.exists() and len(cells.read_bytes().splitlines()) >= 3:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = cells.read_text().splitlines()
    assert 3 <= len(kept) < 16
    with cells.open("a") as file:
        file.write(kept[0][:40])

    done = quiet([builtin_table("wine")], config, killed)
    assert done.trained == 16 - len(kept)
    reference = quiet([builtin_table("wine")], config, whole)
    pd.testing.assert_frame_equal(
        done.results.drop(columns=TIMES), reference.results.drop(columns=TIMES)
    )
    # What was finished before the kill stands as it was, to the measured second.
    seconds = {json.dumps(json.loads(line)["row"]["train_seconds"]) for line in kept}
    assert seconds <= {json.dumps(value) for value in done.results["train_seconds"]}
    again = quiet([builtin_table("wine")], config, killed)
    assert again.trained == 0
    pd.testing.assert_frame_equal(again.results, done.results)


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    tables = [builtin_table("wine")]
    quiet(tables, small_config(sizes=(16,), seeds=1), tmp_path)
    with pytest.raises(OtherSettingsError, match=r"steps was 6, now it is 7.*--restart"):
        quiet(tables, small_config(sizes=(16,), seeds=1, steps=7), tmp_path)
    # Of another largest size, the test rows would be others.
    with pytest.raises(OtherSettingsError, match=r"sizes was \[16\], now it is \[16, 32\]"):
        quiet(tables, small_config(sizes=(16, 32), seeds=1), tmp_path)
    changed = Table("wine", tables[0].features + 1, tables[0].target)
    with pytest.raises(EvaluationError, match=r"tables\.wine was"):
        quiet([changed], small_config(sizes=(16,), seeds=1), tmp_path)
    done = quiet([changed], small_config(sizes=(16,), seeds=1), tmp_path, restart=True)
    assert done.trained == 2
    (tmp_path / "config.json").unlink()
    with pytest.raises(EvaluationError, match=r"holds cells\.jsonl.*no config\.json"):
        quiet([changed], small_config(sizes=(16,), seeds=1), tmp_path)


def test_a_folder_grows_by_seeds_models_optimizers_and_tables(tmp_path: Path) -> None:
    wine, iris = builtin_table("wine"), builtin_table("iris")
    first = small_config(sizes=(16,), seeds=1, models=("soft_tree",), optimizers=("adamw", "sgd"))
    whole = small_config(sizes=(16,), seeds=3, optimizers=("adamw", "sgd", "denograd"))
    assert quiet([wine], first, tmp_path / "grown").trained == 2
    grown = quiet([iris, wine], whole, tmp_path / "grown")
    at_once = quiet([iris, wine], whole, tmp_path / "at once")
    assert (grown.trained, at_once.trained) == (len(at_once.results) - 2, len(at_once.results))
    keys = list(Cell._fields)
    both = [done.results.set_index(keys)["log_loss"] for done in (grown, at_once)]
    pd.testing.assert_series_equal(*both, rtol=1e-3)
    # A part of it is asked for: nothing runs, nothing is lost, and the report is of the part.
    part = quiet([wine], first, tmp_path / "grown")
    assert (part.trained, len(part.results)) == (0, 2)
    assert part.summary["settings"]["seeds"] == 1
    assert quiet([iris, wine], whole, tmp_path / "grown").trained == 0


def test_cells_of_other_versions_are_noted(tmp_path: Path) -> None:
    config = small_config(sizes=(16,), seeds=1, models=("soft_tree",))
    console = Console(record=True, width=200, file=io.StringIO())
    evaluate([builtin_table("wine")], config, tmp_path, jobs=1, console=console)
    assert "cells of before" not in console.export_text()
    path = tmp_path / "versions.json"
    found = json.loads(path.read_text())
    assert found["torch"] == version("torch")
    path.write_text(json.dumps({**found, "torch": "1.0"}))
    for said in (True, False):
        evaluate([builtin_table("wine")], config, tmp_path, jobs=1, console=console)
        assert ("cells of before were run with torch 1.0;" in console.export_text()) is said


def test_restart_if_changed_keeps_what_is_the_same_or_of_other_tables(tmp_path: Path) -> None:
    tables = [builtin_table("wine")]
    config = small_config(sizes=(16,), seeds=1)
    with (tmp_path / "log").open("w") as log:
        console = Console(record=True, width=80, file=log)

        def again(tables: list[Table], config: EvaluationConfig) -> Evaluation:
            out = tmp_path / "out"
            return evaluate(tables, config, out, jobs=1, console=console, restart="changed")

        assert again(tables, config).trained == 2
        assert again(tables, config).trained == 0
        assert "thrown away" not in console.export_text()
        assert again(tables, small_config(sizes=(16,), seeds=1, steps=7)).trained == 2
        said = console.export_text()
        assert "results of other settings are thrown away (steps was 6, now it is 7)" in said
        assert again(tables, small_config(sizes=(16,), seeds=1, steps=7)).trained == 0
        assert "thrown away" not in console.export_text()
        # Whoever evaluated other tables there wants to keep that.
        with pytest.raises(OtherSettingsError, match="--restart"):
            again([builtin_table("iris")], config)
        assert again([builtin_table("iris")], small_config(sizes=(16,), seeds=1, steps=7)).trained
    frame = pd.read_csv(tmp_path / "out" / "results.csv")
    assert frame[["dataset", "steps"]].to_numpy().tolist() == [["iris", 7]] * 2
    (tmp_path / "out" / "config.json").write_text("[]")
    with pytest.raises(OtherSettingsError):
        quiet(tables, config, tmp_path / "out", restart="changed")


def test_optional_tables_may_be_of_no_use(tmp_path: Path) -> None:
    config = small_config(sizes=(128,), seeds=1)
    wine, small = builtin_table("wine"), builtin_table("iris")
    constant = Table("constant", pd.DataFrame({"x": [1] * 200}), pd.Series([0, 1] * 100))
    optional = {"iris", "constant"}
    with pytest.warns(TableWarning, match="constant: column 'x'"):
        done = quiet([small, wine, constant], config, tmp_path, optional=optional)
    assert set(done.results["dataset"]) == {"wine"}
    assert set(done.summary["settings"]["tables"]) == {"wine"}
    with pytest.raises(TableError, match="iris: size 128"):
        quiet([small, wine], config, tmp_path, optional={"constant"})
    with pytest.raises(TableError, match=r"none of the tables can be used.*smaller sizes"):
        quiet([small], config, tmp_path, optional=optional)


def test_a_failing_cell_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = running_units.train_stack

    def sometimes(cells: Sequence[Cell], *rest: Any) -> Any:
        if any(cell.optimizer == "sgd" and cell.seed == 1 for cell in cells):
            raise RuntimeError("made to fail")
        return real(cells, *rest)

    monkeypatch.setattr(running_units, "train_stack", sometimes)
    done = quiet([builtin_table("wine")], small_config(sizes=(16,)), tmp_path)
    assert len(done.results) == 3
    assert len(done.errors) == done.summary["cells_failed"] == 1
    errors = pd.read_csv(tmp_path / "errors.csv")
    assert errors.to_numpy().tolist() == [
        ["wine", "soft_tree", "sgd", 16, 1, "RuntimeError: made to fail"]
    ]
    # Means are over seeds that every optimizer finished.
    assert done.summary["cases"][0]["seeds"] == 1
    monkeypatch.setattr(running_units, "train_stack", real)
    mended = quiet([builtin_table("wine")], small_config(sizes=(16,)), tmp_path)
    assert mended.trained == 1
    assert not mended.errors
    assert not (tmp_path / "errors.csv").exists()


def test_all_cells_failing_still_writes_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(running_units, "train_stack", never)
    done = quiet([builtin_table("wine")], small_config(sizes=(16,), seeds=1), tmp_path)
    assert done.results.empty
    assert len(done.errors) == 2
    assert json.loads((tmp_path / "summary.json").read_text())["cells_finished"] == 0


def test_sizes_too_large_for_a_table(tmp_path: Path) -> None:
    config = small_config(sizes=(16, 128), seeds=1)
    console = Console(record=True, width=200, file=(tmp_path / "log").open("w"))
    tables = [builtin_table("iris"), builtin_table("wine")]
    done = evaluate(tables, config, tmp_path / "out", jobs=1, console=console)
    assert "left out: iris: size 128" in console.export_text()
    sizes = done.results.groupby("dataset")["n_train"].unique().map(list).to_dict()
    assert sizes == {"iris": [16], "wine": [16, 128]}
    with pytest.raises(TableError, match=r"iris: size 128.*at most 120"):
        quiet([builtin_table("iris")], small_config(sizes=(128,)), tmp_path / "none")
    console.file.close()


def test_short_names_stay_apart() -> None:
    names = ["adamw", "denograd:runs/mine.safetensors", "denograd:identity"]
    assert short_names(names) == {
        names[0]: "adamw",
        names[1]: "denograd:mine",
        names[2]: "denograd:identity",
    }
    alike = ["denograd:a/mine.safetensors", "denograd:b/mine.safetensors"]
    assert list(short_names(alike).values()) == alike


def rows_of(*values: tuple[str, int, str, int, float]) -> pd.DataFrame:
    frame = pd.DataFrame(values, columns=["dataset", "n_train", "optimizer", "seed", "log_loss"])
    frame["model"] = "m"
    frame["accuracy"] = 1 - frame["log_loss"]
    return frame.assign(
        balanced_accuracy=0.5,
        roc_auc=np.nan,
        brier=0.2,
        calibration_error=0.1,
        train_seconds=1.0,
        steps=200,
        n_classes=2,
        diverged=0,
    )


def test_summary_of_known_numbers() -> None:
    frame = rows_of(
        ("a", 16, "adamw", 0, 0.4),
        ("a", 16, "adamw", 1, 0.6),
        ("a", 16, "mine", 0, 0.2),
        ("a", 16, "mine", 1, 0.3),
        ("b", 16, "adamw", 0, 0.1),
        ("b", 16, "mine", 0, 0.2),
        ("b", 32, "adamw", 0, 0.2),
        ("b", 32, "mine", 0, 0.1),
        # No partner: says nothing about either.
        ("b", 32, "mine", 1, 0.9),
    )
    summary = summarise(frame, "adamw")
    assert [case["winner"] for case in summary["cases"]] == ["mine", "adamw", "mine"]
    ratios = [case["ratio"]["mine"] for case in summary["cases"]]
    assert ratios == pytest.approx([0.5, 2.0, 0.5])
    found = summary["comparisons"]["mine"]
    assert found["overall"]["log_loss_ratio"] == pytest.approx((0.5 * 2.0 * 0.5) ** (1 / 3))
    assert (found["overall"]["wins"], found["overall"]["losses"]) == (2, 1)
    assert found["overall"]["worst_case"] == "b, m, 16 rows"
    assert found["overall"]["log_loss"] == pytest.approx((0.25 + 0.2 + 0.1) / 3)
    assert found["overall"]["accuracy_reference"] == pytest.approx((0.5 + 0.9 + 0.8) / 3)
    assert found["by_size"]["16"]["log_loss_ratio"] == pytest.approx(1.0)
    assert found["by_dataset"]["b"]["cases"] == 2
    first = summary["cases"][0]["optimizers"]["adamw"]
    assert first["log_loss_deviation"] == pytest.approx(0.1)
    assert first["log_loss_worst"] == 0.6
    assert first["roc_auc"] is None
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "models is empty"),
        (
            {"models": ("mlp",)},
            "model 'mlp' is not known; use one of soft_tree, soft_forest, attention",
        ),
        ({"optimizers": ("adam",)}, "optimizer 'adam' is not known"),
        ({"optimizers": ("sgd", "sgd")}, "optimizers has sgd twice"),
        ({"sizes": (0,)}, "sizes has 0"),
        ({"seeds": 0}, "seeds has 0"),
        ({"steps": -1}, "steps has -1"),
    ],
)
def test_settings_that_cannot_run(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        small_config(**changes)


def test_arguments_that_cannot_run(tmp_path: Path) -> None:
    wine = builtin_table("wine")
    with pytest.raises(EvaluationError, match="two tables are named wine"):
        quiet([wine, wine], small_config(), tmp_path)
    with pytest.raises(EvaluationError, match="tables is empty"):
        quiet([], small_config(), tmp_path)
    with pytest.raises(EvaluationError, match="jobs=0"):
        evaluate([wine], small_config(), tmp_path, jobs=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="the folder cannot be used"):
        quiet([wine], small_config(), tmp_path / "file")


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    config = EvaluationConfig(
        models=("soft_tree",), optimizers=("sgd",), sizes=(32,), seeds=1, steps=2
    )
    with in_use(tmp_path), pytest.raises(EvaluationError, match="another evaluation writes to it"):
        evaluate([builtin_table("iris")], config, tmp_path, jobs=1)
    assert not (tmp_path / "config.json").exists()
    assert len(evaluate([builtin_table("iris")], config, tmp_path, jobs=1).results) == 1


def test_the_report_says_what_was_evaluated(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "patient_id": [f"P{i}" for i in range(60)],
            "age": rng.integers(20, 90, 60),
            "ward": rng.choice(["A", "B"], 60),
            "seen": pd.date_range("2020-01-01", periods=60).strftime("%Y-%m-%d"),
            "outcome": ["ill", "well", "ill", None, "well"] * 12,
        }
    )
    path = tmp_path / "stay.csv"
    frame.to_csv(path, index=False)
    with pytest.warns(TableWarning, match="12 of 60 rows have no label"):
        table = read_table(path)
    written = hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()  # What was read counts, whatever becomes of the file.
    config = EvaluationConfig(
        models=("soft_tree",), optimizers=("adamw",), sizes=(8, 16), seeds=1, steps=5
    )
    with pytest.warns(TableWarning, match="'patient_id' is left out"):
        done = quiet([table], config, tmp_path / "out")
    facts = done.summary["data"]["stay"]
    assert facts["file_sha256"] == written
    assert (facts["rows"], facts["unlabelled"], facts["test_rows"]) == (48, 12, [32, 32])
    assert facts["classes"] == {"ill": 24, "well": 24}
    kinds = facts["numbers"], facts["categories"], facts["dates"], list(facts["left_out"])
    assert kinds == (["age"], ["ward"], ["seen"], ["patient_id"])
    assert done.report is not None
    page = done.report.read_text()
    for said in (facts["file_sha256"], "ill (24) and well (24)", "patient_id: 48 distinct values"):
        assert said in page
