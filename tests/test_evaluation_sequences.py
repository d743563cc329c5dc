"""Sequences in an evaluation: read, standardised by channel, trained on and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from denograd.cli import app
from denograd.data import Table, TableError, plan_columns, read_table
from denograd.data.sequences import SequenceEncoder
from denograd.evaluation import EvaluationConfig, evaluate
from denograd.evaluation.running_units import encode

CHANNELS, STEPS, ROWS = 2, 6, 80


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=ROWS)
    x = rng.normal(size=(ROWS, CHANNELS, STEPS)) * [[[3.0], [50.0]]] + 7.0
    x[:, 1, 2:4] += 60.0 * labels[:, None, None].squeeze(-1)
    columns = [f"{channel}{step}" for channel in "ab" for step in range(STEPS)]
    return pd.DataFrame(x.reshape(ROWS, -1), columns=columns).assign(label=labels)


def written(folder: Path, content: pd.DataFrame) -> Path:
    path = folder / "movements.csv"
    content.to_csv(path, index=False)
    return path


def config(**changes: Any) -> EvaluationConfig:
    given = {
        "models": ("temporal_attention",), "optimizers": ("adamw", "adamw_default"),
        "sizes": (16,), "seeds": 2, "steps": 8, "context": False,
    }  # fmt: skip
    return EvaluationConfig(**{**given, **changes})


def test_channels_are_standardised_by_the_training_rows(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, frame()), n_channels=CHANNELS)
    split = table.split([16], seed=0)
    data = encode(table, plan_columns(table), split.train[16], split.test)
    encoder = SequenceEncoder(table.features.iloc[split.train[16]], list(table.features), CHANNELS)
    np.testing.assert_array_equal(data.x_test, encoder.transform(table.features.iloc[split.test]))
    by_channel = data.x_train.reshape(16, CHANNELS, STEPS)
    np.testing.assert_allclose(by_channel.mean((0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(by_channel.std((0, 2)), 1, atol=1e-5)
    assert data.n_channels == CHANNELS
    model = data.new_model("temporal_attention", seed=0)
    assert (model.n_channels, model.length) == (CHANNELS, STEPS)


def test_engines_agree_on_sequences(tmp_path: Path) -> None:
    tables = [read_table(written(tmp_path, frame()), n_channels=CHANNELS)]
    found = [
        evaluate(tables, config(engine=engine), tmp_path / engine, jobs=1).results
        for engine in ("batched", "loop")
    ]
    for column in ("log_loss", "accuracy", "train_log_loss"):
        np.testing.assert_allclose(found[0][column], found[1][column], rtol=1e-4)


def test_the_report_says_what_sequences_they_were(tmp_path: Path) -> None:
    path = written(tmp_path, frame())
    words = ["evaluate", "--data", str(path), "--channels", "2", "--models", "temporal_attention"]
    words += ["--sizes", "16", "--seeds", "2", "--steps", "4", "--no-context", "--jobs", "1"]
    done = CliRunner().invoke(app, [*words, "--optimizers", "adamw", "--out", str(tmp_path / "o")])
    assert done.exit_code == 0, done.output
    assert "2 channels of 6 steps" in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")


def test_what_tunes_itself_sees_the_channels(tmp_path: Path) -> None:
    tables = [read_table(written(tmp_path, frame()), n_channels=CHANNELS)]
    grid = config(optimizers=("adamw", "adamw_cv"), seeds=1, steps=4)
    done = evaluate(tables, grid, tmp_path / "out", jobs=1)
    assert not done.errors
    assert done.results["log_loss"].notna().all()


def test_other_channels_are_other_results(tmp_path: Path) -> None:
    path = written(tmp_path, frame())
    grid = config(optimizers=("adamw",))
    first = evaluate([read_table(path, n_channels=2)], grid, tmp_path / "out", jobs=1)
    assert first.trained == 2
    with pytest.raises(ValueError, match="other settings"):
        evaluate([read_table(path, n_channels=3)], grid, tmp_path / "out", jobs=1)


def padded(x: pd.DataFrame) -> pd.DataFrame:
    x = x.copy()
    x.loc[3, ["a5", "b5"]] = np.nan
    return x


@pytest.mark.parametrize(
    ("change", "channels", "message"),
    [
        (lambda x: x, 5, "5 channels do not divide the 12 columns"),
        (lambda x: x.assign(a0="high"), 2, "column 'a0' holds no numbers"),
        (padded, 2, "1 of 80 sequences have steps without a value"),
        (lambda x: x.assign(a0=np.inf), 2, "movements.csv: a column holds infinity"),
        (lambda x: x.assign(a0=1e150), 2, "movements.csv: it holds numbers of a size of up to"),
    ],
)
def test_rows_that_are_no_sequences_are_refused(
    tmp_path: Path, change: Any, channels: int, message: str
) -> None:
    with pytest.raises(TableError, match=message):
        read_table(written(tmp_path, change(frame())), n_channels=channels)


def test_a_gap_in_one_channel_is_its_mean(tmp_path: Path) -> None:
    content = frame()
    content.loc[3, "a5"] = np.nan
    table = read_table(written(tmp_path, content), n_channels=CHANNELS)
    rows = np.arange(16)
    data = encode(table, plan_columns(table), rows, rows)
    assert data.x_train[3, 5] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--builtin", "wine", "--channels", "1"], "--channels is for --data"),
        (["--data", "x.csv", "--channels", "-1"], "--channels -1"),
    ],
)
def test_bad_channels_on_the_command_line(words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", *words, "--out", "nowhere"])
    assert done.exit_code != 0
    assert message in done.output


def test_a_table_without_channels_is_none_of_sequences() -> None:
    table = Table("toy", frame().drop(columns="label"), frame()["label"])
    assert table.n_channels == 0
