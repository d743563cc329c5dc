"""Metrics of explanations on tables: text, booleans, dates and gaps, one row at a time."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from denograd import explain
from denograd.estimators import SoftTreeClassifier

COLUMNS = ["age", "visits", "ward", "smoker", "seen", "size"]


def table(rows: int, seed: int, gaps: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(50, 10, rows).astype(np.float32),
            "visits": rng.integers(0, 9, rows),
            "ward": rng.choice(["east", "north", "south"], rows),
            "smoker": rng.random(rows) < 0.5,
            "seen": pd.Timestamp("2024-01-05") + pd.to_timedelta(rng.integers(0, 600, rows), "D"),
            "size": pd.Categorical(rng.choice(["s", "m", "l"], rows), ["s", "m", "l"]),
        }
    )
    for name in ("age", "ward", "seen", "size") if gaps else ():
        frame.loc[rng.random(rows) < 0.2, name] = None
    return frame


def predict(x: pd.DataFrame) -> NDArray[np.float64]:
    """Something that looks at every column, and at what is missing."""
    score = (
        0.03 * (x["age"].fillna(40) - 50)
        + 0.2 * x["visits"]
        - 0.9 * (x["ward"] == "north")
        + 0.7 * x["smoker"]
        + 0.002
        * (x["seen"].fillna(pd.Timestamp("2024-06-01")) - pd.Timestamp("2024-05-05")).dt.days
        + 0.4 * (x["size"] == "m")
        + 0.3 * x["ward"].isna()
    ).to_numpy(np.float64)
    p = 1 / (1 + np.exp(-score))
    return np.stack([1 - p, p], axis=1)


BASE = {
    "age": 47.5,
    "visits": 3,
    "ward": "south",
    "smoker": False,
    "seen": pd.Timestamp("2024-09-01"),
    "size": "s",
}
MISSING = BASE | {"age": None, "ward": None, "seen": pd.NaT, "size": None}


@given(st.integers(0, 10**6), st.sampled_from([BASE, MISSING]), st.booleans())
@settings(max_examples=15)
def test_curves_of_a_table_are_those_of_a_loop_over_its_cells(
    seed: int, base: dict[str, Any], inserting: bool
) -> None:
    x, rng = table(4, seed), np.random.default_rng(seed)
    x.index = pd.Index(list("dcba"))
    said = rng.normal(size=x.shape)

    def checked(rows: pd.DataFrame) -> NDArray[np.float64]:
        pd.testing.assert_series_equal(rows.dtypes, x.dtypes)
        return predict(rows)

    metric = explain.insertion if inserting else explain.deletion
    found = metric(checked, x, said, baseline=base, target=1, normalized=False)
    for i in range(len(x)):
        start = x.iloc[[i]].copy()
        stand_in = pd.DataFrame({name: [base[name]] for name in COLUMNS}, index=start.index)
        stand_in = stand_in.astype(x.dtypes)
        row, other = (stand_in, start) if inserting else (start, stand_in)
        expected = [predict(row)[0, 1]]
        for name in np.array(COLUMNS)[np.argsort(-said[i])]:
            row = row.assign(**{name: other[name]})
            expected.append(predict(row)[0, 1])
        assert found.value[i] == pytest.approx(expected, abs=1e-9)


def test_a_baseline_is_a_dict_a_series_a_row_or_a_row_for_each() -> None:
    x = table(5, 0)
    said = np.random.default_rng(0).normal(size=x.shape)
    expected = explain.deletion(predict, x, said, baseline=BASE).value
    row = pd.DataFrame({name: [value] for name, value in BASE.items()})
    for baseline in (
        pd.Series(BASE),
        row,
        row.iloc[0][::-1],
        pd.concat([row] * 5),
        list(BASE.values()),
        [list(BASE.values())] * 5,
    ):
        found = explain.deletion(predict, x, said, baseline=baseline).value
        np.testing.assert_allclose(found, expected)
    # Numbers alone need no more than they did, and 0 is False.
    numbers = x[["visits", "smoker"]]

    def of_numbers(rows: pd.DataFrame) -> NDArray[np.float64]:
        return predict(x.iloc[:1].loc[[0] * len(rows)].reset_index(drop=True).assign(**rows))

    zeros = explain.deletion(of_numbers, numbers, said[:, :2]).value
    named = explain.deletion(
        of_numbers, numbers, said[:, :2], baseline={"visits": 0, "smoker": False}
    )
    np.testing.assert_array_equal(zeros, named.value)
    # Means of whole numbers are not whole.
    means = explain.deletion(of_numbers, numbers[["visits"]], said[:, :1], baseline=[2.5])
    halves = explain.deletion(
        of_numbers, numbers[["visits"]].astype(float), said[:, :1], baseline=2.5
    )
    np.testing.assert_array_equal(means.value, halves.value)


def test_a_fitted_estimator_is_asked_with_labels_and_gaps() -> None:
    x = table(60, 0)
    y = np.where(predict(x)[:, 1] > 0.6, "ill", "well")
    model = SoftTreeClassifier(max_steps=40, random_state=0).fit(x, y)
    assert model.classes_.tolist() == ["ill", "well"]
    said = explain.OwnExplainer(model)(x, target="well")
    by_label = explain.deletion(model.predict_proba, x, said, baseline=MISSING, target="well")
    alone = explain.deletion(
        lambda rows: model.predict_proba(rows), x, said, baseline=MISSING, target=1
    )
    np.testing.assert_array_equal(by_label.value, alone.value)
    each = explain.insertion(model.predict_proba, x, said, baseline=MISSING, target=pd.Series(y))
    numbers = (y == "well").astype(int)
    rows = explain.insertion(
        lambda rows: model.predict_proba(rows), x, said, baseline=MISSING, target=numbers
    )
    np.testing.assert_array_equal(each.value, rows.value)
    # A perturbed table is one that the estimator takes.
    steady = explain.max_sensitivity(explain.OwnExplainer(model), x, target="well", samples=2)
    assert np.isfinite(steady).all()
    assert (steady >= 0).all()


def test_whole_numbers_are_labels_of_a_table_and_class_numbers_of_an_array() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    model = LogisticRegression().fit(x, np.where(x[:, 0] > 0, 2, 1))
    frame = pd.DataFrame(x, columns=["a", "b"])
    named = LogisticRegression().fit(frame, np.where(x[:, 0] > 0, 2, 1))
    first = explain.deletion(model.predict_proba, x, x, target=0).value
    second = explain.deletion(model.predict_proba, x, x, target=1).value
    np.testing.assert_allclose(explain.deletion(named.predict_proba, frame, x, target=1)[1], first)
    np.testing.assert_allclose(explain.deletion(named.predict_proba, frame, x, target=2)[1], second)
    with pytest.raises(ValueError, match=r"^target: it holds 0, .* classes are 1, 2"):
        explain.deletion(named.predict_proba, frame, x, target=0)
    model.classes_ = np.array(["no", "yes"])
    found = explain.deletion(model.predict_proba, x, x, target="yes").value
    np.testing.assert_array_equal(found, second)


def test_only_numbers_are_perturbed() -> None:
    x = table(6, 1)
    x["count"] = pd.array([1, None, 3, 4, 5, 6], dtype="Int64")
    seen = []

    def explainer(rows: pd.DataFrame, target: Any = None) -> NDArray[np.float64]:
        seen.append(rows)
        return rows[["age", "visits", "count"]].fillna(0).to_numpy(np.float64)

    found = explain.max_sensitivity(explainer, x, radius=0.5, samples=4, relative=False, seed=3)
    own, *draws = seen
    numbers = ["age", "visits", "count"]
    expected = np.zeros(len(x))
    for rows in draws:
        pd.testing.assert_frame_equal(rows.drop(columns=numbers), x.drop(columns=numbers))
        change = rows[numbers] - own[numbers]
        assert (rows[numbers].isna().to_numpy() == x[numbers].isna().to_numpy()).all()
        assert 0 < change.abs().max().min() <= change.abs().max().max() <= 0.5
        expected = np.maximum(expected, np.sqrt((change.fillna(0) ** 2).sum(axis=1)))
    assert found == pytest.approx(expected.to_numpy())
    np.testing.assert_array_equal(own["visits"], x["visits"])


X = table(3, 0)
A = np.ones(X.shape)


def with_base(**changed: Any) -> Any:
    return lambda: explain.deletion(predict, X, A, baseline=BASE | changed)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explain.deletion(predict, X, A), "^baseline: for column 'ward', .* text, .* 0.0"),
        (with_base(ward=3), "^baseline: for column 'ward', which holds text, it has 3; give"),
        (with_base(age="old"), "^baseline: for column 'age', which holds numbers, it has 'old'"),
        (with_base(age=np.inf), "^baseline: column 'age' holds infinite numbers"),
        (with_base(smoker=0.4), "^baseline: for column 'smoker', which holds booleans, it has 0.4"),
        (with_base(seen=0), "^baseline: for column 'seen', which holds dates, it has 0"),
        (with_base(size="xl"), r"^baseline: for column 'size', .* \['s', 'm', 'l'\], it has 'xl'"),
        (with_base(weight=3), "^baseline: it names .*'weight'.* the columns of x are"),
        (
            lambda: explain.deletion(predict, X, A, baseline={"age": 3}),
            "^baseline: it names .*'age'.* give a value for each column",
        ),
        (
            lambda: explain.deletion(predict, X, A, baseline=X.iloc[:2]),
            "^baseline: it has 2 rows, and x 3",
        ),
        (lambda: explain.deletion(predict, X, A, baseline=[1, 2]), r"^baseline: .* \(2,\)"),
        (lambda: explain.deletion(predict, X, A[:, 1:], baseline=BASE), "^attributions: they have"),
        (
            lambda: explain.deletion(predict, X.assign(age=np.inf), A, baseline=BASE),
            "^x: column 'age' holds infinite numbers",
        ),
        (
            lambda: explain.insertion(predict, X, A, baseline=BASE, target="ill"),
            "^target: it has shape .* 'ill'; .* predict is a method .*classes_",
        ),
        (
            lambda: explain.deletion(functools.partial(predict), X, A, baseline=BASE, target=0.5),
            "^target: it has shape .* type float64",
        ),
        (
            lambda: explain.max_sensitivity(lambda x, t: A, X[["ward", "smoker"]]),
            r"^x: none of its columns, \['ward', 'smoker'\], holds numbers",
        ),
        (
            lambda: explain.max_sensitivity(lambda x, t: A, X.assign(age=-np.inf)),
            "^x: column 'age' holds infinite numbers",
        ),
    ],
)
def test_what_does_not_fit_a_table_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_gap_is_not_blamed_on_the_explanation() -> None:
    x = np.array([[1.0, np.nan]])
    for call in (
        lambda: explain.deletion(lambda x: x, x, np.ones((1, 2))),
        lambda: explain.max_sensitivity(lambda x, t: x, x),
        lambda: explain.deletion(lambda x: x, np.ones((1, 2)), np.ones((1, 2)), baseline=x[0]),
        lambda: explain.deletion(lambda x: x * np.nan, np.ones((1, 2)), np.ones((1, 2))),
    ):
        with pytest.raises(ValueError, match="NaN or infinite") as raised:
            call()
        assert "explanation" not in str(raised.value)
