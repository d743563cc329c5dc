"""Tables with a measured target: reading, splitting, units, metrics, and a whole run."""

from __future__ import annotations

import decimal
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from denograd import DenoGrad
from denograd.data import (
    Encoder,
    Table,
    TableError,
    TableWarning,
    TargetScale,
    TaskChoice,
    builtin_table,
    check_size,
    plan_columns,
    quantile_strata,
    read_table,
    read_tables,
    task_of,
)
from denograd.estimators import SoftTreeRegressor
from denograd.evaluation.regression_metrics import (
    DIVERGED,
    LEAST_SPREAD,
    REGRESSION_METRICS,
    gaussian_crps,
    gaussian_nll,
    loss_of,
    regression_metrics,
    residual_deviation,
    score_regression,
    squared_error,
)
from denograd.models.registry import KNOWN_MODELS, make_model

finite = st.floats(-1e6, 1e6)


# Which task?


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (np.linspace(0, 1, 11), "regression"),
        (np.arange(40) / 4, "regression"),
        (np.arange(0, 400, 10), "regression"),
        ([10, 30, 25, 80, 41, 7, 66, 93], "regression"),
        ([0.5, 1.5] * 20, "classification"),
        ([1, 2, 3, 4, 5] * 8, "classification"),
        ([0, 1], "classification"),
        ([True, False] * 20, "classification"),
        ([f"{i}.5" for i in range(40)], "classification"),
        (pd.Categorical(np.arange(40) / 4), "classification"),
        (pd.array([1.5, None, 2.5] * 9 + [*range(20)], dtype="Float64"), "regression"),
    ],
)
def test_auto_predicts_numbers_that_look_measured(values: object, task: str) -> None:
    assert task_of(pd.Series(values, name="y"), "auto", "t") == task


def test_a_task_that_is_asked_for_is_taken_or_refused() -> None:
    column = pd.Series(np.linspace(0, 1, 40), name="y")
    assert task_of(column, "classification", "t") == "classification"
    assert task_of(column > 0.5, "regression", "t") == "regression"
    with pytest.raises(TableError, match=r"^task='rank' is not known; use one of 'auto', 'cla"):
        task_of(column, "rank", "t")  # type: ignore[arg-type]
    counted = pd.Series(np.random.default_rng(0).permutation(50) + 7, name="y")
    assert task_of(counted, "regression", "t") == "regression"
    with pytest.raises(TableError, match=r"'y' has whole numbers that count the rows.*Name anoth"):
        task_of(counted, "auto", "t")


# Reading.


def csv(tmp_path: Path, target: object, name: str = "t.csv") -> Path:
    path = tmp_path / name
    count = len(target)  # type: ignore[arg-type]
    pd.DataFrame({"x": np.arange(count) % 7, "dose": target}).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("task", ["auto", "regression"])
def test_a_measured_target_is_read_as_it_stands(tmp_path: Path, task: TaskChoice) -> None:
    doses = np.random.default_rng(0).normal(size=50).round(6)
    table = read_table(csv(tmp_path, doses), "dose", task)
    assert (table.task, table.n_classes, len(table)) == ("regression", None, 50)
    np.testing.assert_array_equal(table.y, doses)
    assert table.y.dtype == np.float64
    for attribute in ("classes", "codes"):
        with pytest.raises(TableError, match=r"t: its target is measured, so it has no classes"):
            getattr(table, attribute)
    with pytest.raises(TableError, match=r"looks measured.*task='regression'"):
        read_table(tmp_path / "t.csv", "dose")


def test_rows_without_a_value_are_left_out(tmp_path: Path) -> None:
    path = csv(tmp_path, [0.5, None, 2.5, 1.25, None])
    with pytest.warns(TableWarning, match=r"target 'dose': 2 of 5 rows have no value; left out"):
        table = read_table(path, task="regression")
    assert table.y.tolist() == [0.5, 2.5, 1.25]
    assert table.features["x"].tolist() == [0, 2, 3]
    assert table.target.index.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "values",
    [
        pd.array([1, None, 3, 4], dtype="Int64"),
        [decimal.Decimal("1.0"), None, decimal.Decimal(3), decimal.Decimal(4)],
        pd.array([1.0, np.nan, 3.0, 4.0], dtype="float32"),
    ],
)
def test_numbers_of_any_type_become_doubles(tmp_path: Path, values: object) -> None:
    pd.DataFrame({"x": range(4), "y": values}).to_parquet(tmp_path / "t.parquet")
    with pytest.warns(TableWarning, match="1 of 4 rows"):
        table = read_table(tmp_path / "t.parquet", task="regression")
    assert table.y.tolist() == [1.0, 3.0, 4.0]
    assert table.y.dtype == np.float64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1,5", "2,5", "3"], r"holds '1,5', which is no number.*point for the decimals"),
        (["low", "high", "low"], r"holds 'low', which is no number.*task='classification'"),
        ([True, False, True], r"holds bool, and regression needs real numbers"),
        ([0.5, np.inf, -np.inf], r"has 2 infinite values; remove those rows"),
        ([1.5, 1.5, 1.5], r"has only the value 1\.5; there is nothing to predict"),
        ([None, None, None], r"has no value at all"),
        ([1e200, 2e200, 0.0], r"has numbers of a size of up to 2e\+200; use units"),
        (pd.date_range("2020", periods=3), r"holds datetime64.*Turn it into numbers"),
    ],
)
def test_targets_that_cannot_be_predicted_are_refused(
    tmp_path: Path, values: object, message: str
) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"x": range(3), "y": values}).to_parquet(path)
    with pytest.raises(TableError, match=rf"t\.parquet: target 'y' {message}"):
        read_table(path, task="regression")


def test_auto_decides_for_each_file(tmp_path: Path) -> None:
    csv(tmp_path, np.linspace(0, 1, 40), "a.csv")
    csv(tmp_path, ["yes", "no"] * 20, "b.csv")
    tables, errors = read_tables([tmp_path], "dose", "auto")
    assert [(table.name, table.task) for table in tables] == [
        ("a", "regression"),
        ("b", "classification"),
    ]
    assert errors == {}
    tables, errors = read_tables([tmp_path], "dose")
    assert [table.name for table in tables] == ["b"]
    assert list(errors) == [str(tmp_path / "a.csv")]


def test_a_classification_table_is_what_it_was() -> None:
    table = builtin_table("wine")
    assert (table.task, table.n_classes) == ("classification", 3)
    assert table.y is table.codes
    assert table.strata is table.codes
    with pytest.raises(TableError, match="wine: size 2 is smaller than its 3 classes"):
        table.check_size(2)


# Splits.


@settings(max_examples=80)
@given(
    st.lists(st.one_of(finite, st.integers(0, 3)), min_size=0, max_size=60),
    st.integers(1, 12),
)
def test_strata_are_neighbours_of_about_one_size(values: list[float], strata: int) -> None:
    codes = quantile_strata(np.array(values, dtype=np.float64), strata)
    assert codes.shape == (len(values),)
    if not values:
        return
    sizes = np.bincount(codes)
    assert (sizes >= 1).all()
    assert len(sizes) <= strata
    if len(values) > 1:
        assert (sizes >= 2).all()
    for low in range(len(sizes) - 1):
        below = max(v for v, code in zip(values, codes, strict=True) if code == low)
        above = min(v for v, code in zip(values, codes, strict=True) if code == low + 1)
        assert below < above


@pytest.mark.parametrize("rows", [16, 50, 401])
def test_distinct_values_are_cut_at_their_quantiles(rows: int) -> None:
    values = np.random.default_rng(rows).normal(size=rows)
    codes = quantile_strata(values)
    sizes = np.bincount(codes)
    assert len(sizes) == 8
    assert sizes.max() - sizes.min() <= 1
    shuffled = np.random.default_rng(0).permutation(rows)
    np.testing.assert_array_equal(quantile_strata(values[shuffled]), codes[shuffled])
    np.testing.assert_array_equal(quantile_strata(np.exp(values)), codes)


def test_strata_refuse_what_is_no_column_of_numbers() -> None:
    with pytest.raises(ValueError, match=r"values have shape \(2, 1\)"):
        quantile_strata([[1.0], [2.0]])
    with pytest.raises(ValueError, match="finite"):
        quantile_strata([1.0, np.nan])
    with pytest.raises(ValueError, match="strata=0; it must be at least 1"):
        quantile_strata([1.0, 2.0], 0)


def test_nested_subsets_have_the_targets_distribution() -> None:
    table = builtin_table("diabetes")
    sizes = [16, 32, 64, 128]
    errors, plain = [], []
    for seed in range(20):
        split = table.split(sizes, seed)
        again = table.split(sizes, seed)
        before: set[int] = set()
        for size in sizes:
            rows = split.train[size]
            np.testing.assert_array_equal(rows, again.train[size])
            assert len(set(rows.tolist())) == size
            assert before <= set(rows.tolist())
            before = set(rows.tolist())
            # Each eighth of the target has its share of the rows, or one more or less.
            assert np.abs(np.bincount(table.strata[rows], minlength=8) - size / 8).max() <= 2
        assert not before & set(split.test.tolist())
        assert len(split.test) == len(table) - 128
        drawn = np.random.default_rng(seed).choice(len(table), 16, replace=False)
        errors.append(table.y[split.train[16]].mean() - table.y.mean())
        plain.append(table.y[drawn].mean() - table.y.mean())
    assert np.std(errors) < 0.5 * np.std(plain)


def test_sizes_that_do_not_fit_a_measured_target_are_refused() -> None:
    table = builtin_table("diabetes")
    table.check_size(353)
    with pytest.raises(TableError, match=r"diabetes: size 354 leaves fewer.*at most 353"):
        table.split([16, 354], seed=0)
    with pytest.raises(TableError, match="size 4 is smaller than its 8 groups of near target"):
        table.check_size(4)
    with pytest.raises(TableError, match="smaller than its 8 classes"):
        check_size("t", table.strata, 4)


# Units.


@settings(max_examples=60)
@given(st.lists(finite, min_size=1, max_size=30), finite, st.floats(1e-3, 1e3))
def test_the_scale_is_that_of_the_training_rows(
    values: list[float], shift: float, factor: float
) -> None:
    y = np.array(values)
    scale = TargetScale.fit(y)
    assert scale.mean == pytest.approx(np.mean(y))
    constant = np.std(y) <= 1e-12 * np.abs(y).max()
    assert scale.deviation == pytest.approx(1.0 if constant else np.std(y))
    standard = scale.standardise(y)
    assert standard.dtype == np.float32
    np.testing.assert_allclose(
        scale.restore(standard), y, rtol=1e-5, atol=1e-5 * scale.deviation + 1e-9
    )
    if np.std(y) > 1e-3 * np.abs(y).max():
        # Another unit of the target is the same problem to the model.
        other = y * factor + shift
        if np.std(other) > 1e-6 * np.abs(other).max():
            found = TargetScale.fit(other).standardise(other)
            np.testing.assert_allclose(found, standard, atol=1e-4)


def test_the_scale_is_that_of_the_estimators() -> None:
    y = np.array([3.0, 9.0, -4.0, 11.5, 2.0, 7.0])
    fitted = SoftTreeRegressor(max_steps=1, random_state=0).fit(np.arange(12.0).reshape(6, 2), y)
    scale = TargetScale.fit(y)
    assert (scale.mean, scale.deviation) == (fitted.target_mean_, fitted.target_scale_)
    with pytest.raises(ValueError, match=r"values have shape \(0,\)"):
        TargetScale.fit([])


# Metrics.


@settings(max_examples=40)
@given(st.floats(-8, 8), st.floats(-3, 3), st.floats(0.05, 5))
def test_crps_is_the_integral_of_squared_differences(y: float, mean: float, spread: float) -> None:
    """Its definition (Gneiting & Raftery 2007, equation 20), integrated numerically."""

    def squared(t: float, step: float) -> float:
        return float((norm.cdf(t, mean, spread) - step) ** 2)

    low, high = min(y, mean) - 12 * spread, max(y, mean) + 12 * spread
    knots = sorted({min(max(mean + k * spread, low), high) for k in range(-6, 7)})

    def integral(start: float, stop: float, step: float) -> float:
        inner = [start, *(k for k in knots if start < k < stop), stop]
        parts = itertools.pairwise(inner)
        return sum(float(quad(squared, a, b, args=(step,), epsabs=1e-12)[0]) for a, b in parts)

    expected = integral(low, y, 0.0) + integral(y, high, 1.0)
    assert gaussian_crps([y], [mean], spread)[0] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_crps_of_no_spread_is_the_absolute_error() -> None:
    y, mean = np.array([1.0, 5.0, -2.0]), np.array([1.5, 2.0, 4.0])
    np.testing.assert_allclose(gaussian_crps(y, mean, 1e-9), np.abs(y - mean), atol=1e-8)
    np.testing.assert_allclose(
        gaussian_crps(10 * y, 10 * mean, 7.0), 10 * gaussian_crps(y, mean, 0.7)
    )


def test_nll_is_scipys_density() -> None:
    rng = np.random.default_rng(0)
    y, mean = rng.normal(size=(2, 50)) * 4
    expected = -norm.logpdf(y, mean, 1.7)
    np.testing.assert_allclose(gaussian_nll(y, mean, 1.7), expected, rtol=1e-12)


def test_both_scores_are_proper() -> None:
    """The true mean and deviation score best on average."""
    y = norm.ppf((np.arange(20_000) + 0.5) / 20_000, loc=2.0, scale=3.0)
    scores: tuple[Callable[..., NDArray[np.float64]], ...] = (gaussian_nll, gaussian_crps)
    for score in scores:
        best = score(y, np.full_like(y, 2.0), 3.0).mean()
        for mean, spread in [(2.3, 3.0), (1.7, 3.0), (2.0, 2.7), (2.0, 3.3)]:
            assert score(y, np.full_like(y, mean), spread).mean() > best


def test_the_spread_is_that_of_the_training_residuals() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(5, 2, size=40)
    said = y + rng.normal(size=40)
    assert residual_deviation(y, said) == pytest.approx(math.sqrt(((y - said) ** 2).mean()))
    # It is the deviation of largest likelihood.
    found = residual_deviation(y, said)
    for other in (0.99 * found, 1.01 * found):
        assert gaussian_nll(y, said, other).sum() > gaussian_nll(y, said, found).sum()
    assert residual_deviation(y, y) == pytest.approx(LEAST_SPREAD * y.std())
    assert residual_deviation([3.0, 3.0], [3.0, 3.0]) == LEAST_SPREAD


def test_scores_against_plain_numpy_and_where_r2_is_not_defined() -> None:
    rng = np.random.default_rng(2)
    y, said = rng.normal(size=(2, 30))
    found = score_regression(y, said, 0.8)
    assert tuple(found) == REGRESSION_METRICS
    mse = sum((a - b) ** 2 for a, b in zip(y, said, strict=True)) / 30
    assert found["rmse"] == pytest.approx(math.sqrt(mse))
    assert found["r2"] == pytest.approx(1 - mse / (sum((a - y.mean()) ** 2 for a in y) / 30))
    assert found["nll"] == pytest.approx(-np.log(norm.pdf(y, said, 0.8)).mean())
    assert math.isnan(score_regression([1.0, 1.0], [0.0, 1.0], 1.0)["r2"])
    assert math.isnan(score_regression([1.0], [0.0], 1.0)["r2"])


def test_metrics_do_not_depend_on_the_scale_that_was_trained_in() -> None:
    rng = np.random.default_rng(3)
    y_train, y_test = rng.normal(100, 20, size=24), rng.normal(100, 20, size=50)
    said_train, said_test = y_train + rng.normal(size=24), y_test + rng.normal(size=50) * 3
    expected = score_regression(y_test, said_test, residual_deviation(y_train, said_train))
    for scale in (TargetScale.fit(y_train), TargetScale(0.0, 1.0), TargetScale(-7.0, 40.0)):

        def shown(values: NDArray[np.float64], scale: TargetScale = scale) -> NDArray[np.float64]:
            return (values - scale.mean) / scale.deviation

        train_loss = float(((shown(y_train) - shown(said_train)) ** 2).mean())
        found = regression_metrics(scale, train_loss, shown(y_test), shown(said_test)[:, None])
        assert tuple(found) == REGRESSION_METRICS
        for name in REGRESSION_METRICS:
            assert found[name] == pytest.approx(expected[name])
    scale = TargetScale.fit(y_train)
    exact = regression_metrics(scale, 0.0, scale.standardise(y_test), np.zeros((50, 1)))
    mean = np.full(50, y_train.mean())
    wanted = score_regression(y_test, mean, residual_deviation(y_train, y_train))
    assert exact == pytest.approx(wanted, rel=1e-5)


def test_bad_input_of_metrics_is_named() -> None:
    with pytest.raises(ValueError, match=r"gaussian_crps: deviation=0\.0; it must be a number ab"):
        gaussian_crps([1.0], [1.0], 0.0)
    with pytest.raises(ValueError, match="gaussian_nll: deviation=nan"):
        gaussian_nll([1.0], [1.0], math.nan)
    with pytest.raises(ValueError, match=r"shape \(2,\) and predicted ones \(2, 1\); both must be"):
        score_regression([1.0, 2.0], [[1.0], [2.0]], 1.0)
    with pytest.raises(ValueError, match="predicted values hold 1 that are not finite; a run that"):
        score_regression([1.0, 2.0], [1.0, math.inf], 1.0)
    with pytest.raises(ValueError, match="with at least one row"):
        residual_deviation([], [])
    scale = TargetScale(0.0, 1.0)
    with pytest.raises(ValueError, match="train_loss=nan; it must be a finite number"):
        regression_metrics(scale, math.nan, [1.0, 2.0], [[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"output_test has shape \(2,\); it must be \(rows, 1\)"):
        regression_metrics(scale, 1.0, [1.0, 2.0], [1.0, 2.0])


# Training.


def test_the_loss_is_that_of_the_task() -> None:
    output, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    assert loss_of(3)(output, y) == F.cross_entropy(output, y)
    single, numbers = torch.randn(6, 1), torch.randn(6)
    torch.testing.assert_close(loss_of(None)(single, numbers), F.mse_loss(single[:, 0], numbers))
    with pytest.raises(ValueError, match=r"output has shape \(6,\) and target \(6,\)"):
        squared_error(single[:, 0], numbers)
    with pytest.raises(ValueError, match=r"\(6, 3\) and target \(6,\).*n_classes=None"):
        squared_error(output, numbers)


def encoded(table: Table, size: int, seed: int) -> tuple[NDArray[np.float32], ...]:
    split = table.split([size], seed)
    train, test = split.train[size], split.test
    encoder = Encoder(plan_columns(table)).fit(table.features.iloc[train])
    return (
        encoder.transform(table.features.iloc[train]),
        table.y[train],
        encoder.transform(table.features.iloc[test]),
        table.y[test],
    )


def trained(
    name: str, rows: tuple[NDArray[np.float32], ...], denoised: bool, steps: int
) -> dict[str, float]:
    """A training run as an evaluation's, from the pieces that it is to be made of."""
    x_train, y_train, x_test, y_test = rows
    scale = TargetScale.fit(y_train)
    x, y = torch.from_numpy(x_train), torch.from_numpy(scale.standardise(y_train))
    torch.manual_seed(0)
    model = make_model(name, x.shape[1], None)
    loss_fn = loss_of(None)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    if denoised:
        optimizer = DenoGrad(optimizer, model=model, total_steps=steps, dataset_size=len(x))
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        train_loss = float(loss_fn(model(x), y))
        said = model(torch.from_numpy(x_test)).numpy()
    return regression_metrics(scale, train_loss, scale.standardise(y_test), said)


@pytest.mark.parametrize("denoised", [False, True])
@pytest.mark.parametrize("name", [n for n in KNOWN_MODELS if n != "temporal_attention"])
def test_every_model_learns_a_measured_target(name: str, denoised: bool) -> None:
    rows = encoded(builtin_table("diabetes"), 128, seed=0)
    found = trained(name, rows, denoised, steps=60)
    assert all(math.isfinite(value) for value in found.values())
    blind = score_regression(rows[3], np.full(len(rows[3]), rows[1].mean()), float(rows[1].std()))
    assert found["rmse"] < 0.9 * blind["rmse"]
    assert found["crps"] < 0.95 * blind["crps"]
    assert found["r2"] > 0.2 > blind["r2"]
    assert DIVERGED * rows[1].std() > 3 * blind["rmse"]


def test_a_soft_tree_comes_near_a_ridge_regression() -> None:
    rows = encoded(builtin_table("diabetes"), 256, seed=1)
    x_train, y_train, x_test, y_test = rows
    scaler = StandardScaler().fit(x_train)
    ridge = RidgeCV(np.geomspace(0.1, 1000, 9)).fit(scaler.transform(x_train), y_train)
    linear = score_regression(y_test, ridge.predict(scaler.transform(x_test)), 50.0)
    tree = trained("soft_tree", rows, denoised=True, steps=100)
    assert tree["rmse"] < 1.1 * linear["rmse"]
