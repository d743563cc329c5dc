"""Meta-training on targets that are measured: where tasks come from, and what is lowered."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from denograd import load_denoiser
from denograd.baselines import control_settings
from denograd.baselines.control import control_file
from denograd.data import TableError, builtin_table
from denograd.denoisers import IdentityDenoiser
from denograd.meta import (
    MetaLoss,
    MetaValidation,
    MixedFamily,
    PriorFamily,
    SourceTable,
    TableFamily,
    TaskBatch,
    draw_prior_table,
    encode_source,
)
from denograd.meta.cli import run_meta_training
from denograd.meta.validation import adamw_losses, judging_models


def diabetes() -> SourceTable:
    data = load_diabetes()
    return SourceTable("diabetes", data.data.astype(np.float32), data.target)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), rows=st.integers(8, 200), features=st.integers(1, 20))
def test_the_prior_draws_usable_numbers(seed: int, rows: int, features: int) -> None:
    x, y = draw_prior_table(np.random.default_rng(seed), rows, features, None)
    assert x.shape == (rows, features)
    assert y.shape == (rows,)
    assert y.dtype == np.float64
    assert np.isfinite(y).all()
    assert len(np.unique(y)) > 1


def test_measured_signals_range_from_none_to_strong() -> None:
    """What a forest explains of the variance, on many draws, spreads widely."""
    from sklearn.ensemble import RandomForestRegressor

    explained = []
    for seed in range(25):
        x, y = draw_prior_table(np.random.default_rng(seed), 400, 8, None)
        forest = RandomForestRegressor(50, random_state=0, n_jobs=1).fit(x[:200], y[:200])
        explained.append(forest.score(x[200:], y[200:]))
    assert max(explained) > 0.7
    assert min(explained) < 0.1


def test_a_measured_task_holds_rows_of_its_table_standardised() -> None:
    table = diabetes()
    family = TableFamily([table], augment=False)
    task = family.draw(np.random.default_rng(0), 60, 100, 99)
    assert task.n_classes is None
    assert task.y_train.dtype == np.float32
    assert task.y_train.mean() == pytest.approx(0, abs=1e-6)
    assert task.y_train.std() == pytest.approx(1, abs=1e-5)
    # Standardised again by all its rows, each is one of the table's rows with its target.
    rows = np.vstack([task.x_train, task.x_test])
    assert rows.shape == (160, 10)
    slope = LinearRegression().fit(rows, np.concatenate([task.y_train, task.y_test])).coef_
    whole = (table.columns - table.columns.mean(0)) / table.columns.std(0)
    expected = LinearRegression().fit(whole, table.labels / table.labels.std()).coef_
    assert np.corrcoef(slope, expected)[0, 1] > 0.7


def test_noise_takes_signal_away() -> None:
    def explained(most: float) -> float:
        family = TableFamily([diabetes()], wrong_labels=(1.0, most))
        rng, found = np.random.default_rng(1), []
        for _ in range(20):
            task = family.draw(rng, 200, 200, 10)
            model = LinearRegression().fit(task.x_train, task.y_train)
            found.append(model.score(task.x_test, task.y_test))
        return float(np.mean(found))

    assert explained(0.99) < explained(0.0) - 0.1


def test_families_of_classes_and_of_numbers_are_told_apart() -> None:
    wine = encode_source(builtin_table("wine"))
    assert PriorFamily(measured=True).fingerprint() != PriorFamily().fingerprint()
    with pytest.raises(ValueError, match="make a family of each"):
        TableFamily([wine, diabetes()])
    with pytest.raises(ValueError, match="judge them apart"):
        MetaValidation([wine, diabetes()])
    with pytest.raises(ValueError, match="second share below 1"):
        TableFamily([diabetes()], wrong_labels=(0.5, 1.0))
    mixed = MixedFamily([(PriorFamily(measured=True), 0.5), (TableFamily([diabetes()]), 0.5)])
    rng = np.random.default_rng(0)
    tasks = TaskBatch.stack([mixed.draw(rng, 20, 30, 8) for _ in range(6)])
    assert tasks.n_classes is None
    assert tasks.y_train.is_floating_point()


def test_meta_loss_of_squared_errors() -> None:
    """Guessing the mean has an error of 1, so the clip stands at that many variances."""
    loss, measured = MetaLoss(floor=0.1, clip=4.0), torch.tensor([1, 1, 1])
    values = loss(torch.tensor([0.5, 1.0, 50.0]), measured)
    assert values.tolist() == pytest.approx(np.log([0.6, 1.1, 4.1]).tolist())
    tail = MetaLoss(floor=0.1, clip=40.0, linear_above=1.0)(torch.tensor([3.0]), measured[:1])
    assert float(tail) == pytest.approx(np.log(1.1) + 2 / 1.1)


def test_validation_of_measured_targets_uses_their_own_control() -> None:
    validation = MetaValidation([diabetes()], ("soft_tree",), rows=(32,), steps=10, seeds=2)
    tuned = control_settings("soft_tree", 10, 32, control_file(measured=True))
    (_, _, first), _ = validation.cells
    expected = adamw_losses(first, tuned.lr, tuned.weight_decay, tuned.schedule)
    torch.testing.assert_close(validation.control_losses()[0], expected.double())
    assert validation.score(IdentityDenoiser()).by_table.keys() == {"diabetes"}
    assert "prototype_net" in judging_models(["soft_tree"], measured=True)


def test_the_command_trains_for_regression(tmp_path: Path) -> None:
    data = load_diabetes(as_frame=True).frame
    for name, rows in {"one": data[:200], "two": data[200:]}.items():
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    names = pd.DataFrame({"x": range(50), "target": ["a", "b"] * 25})
    names.to_csv(tmp_path / "named.csv", index=False)
    options = {"steps": 2, "models": ["soft_tree"], "task_count": 3, "max_rows": 20}
    saved = run_meta_training(
        tasks=["prior", str(tmp_path)], out=tmp_path / "run", task="regression", **options
    )
    card = json.loads(saved.with_suffix(".json").read_text())
    assert card["training"]["data_sets"]["meta_train"] == ["synthetic prior", "one", "two"]
    assert card["training"]["meta_loss"]["floor"] == 0.1
    assert load_denoiser(saved).config["hidden"] == 32
    with pytest.raises(TableError, match="which is no number"):
        run_meta_training(
            tasks=[str(tmp_path / "named.csv")], out=tmp_path / "x", task="regression", **options
        )
