"""Columns and targets of all kinds and sizes: categories by another type, dates, bad input."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from denograd.estimators import (
    AdditiveNetClassifier,
    AdditiveNetRegressor,
    SoftTreeClassifier,
    SoftTreeRegressor,
    TemporalAttentionClassifier,
)

Tree = functools.partial(SoftTreeClassifier, depth=2, max_steps=10, random_state=0)
RegressionTree = functools.partial(SoftTreeRegressor, depth=2, max_steps=10, random_state=0)


def table(rows: int = 60, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "age": rng.normal(50, 10, rows),
            "sex": rng.choice(["f", "m"], rows, p=[0.3, 0.7]),
            "ward": rng.choice(["east", "north", "south"], rows),
        }
    )
    return X, np.where((X["sex"] == "m") & (X["age"] > 45), "ill", "well")


# Categories.


@pytest.mark.parametrize("strange", ["other", None, np.nan])
def test_what_is_neither_of_two_categories_lies_between_them(strange: Any) -> None:
    X, y = table()
    model = Tree(max_steps=60).fit(X, y)
    place = model.encoded_names_.index("sex=m")
    encoded = [model._encoded(X.head(1).assign(sex=value))[0][0, place].item()
               for value in ("f", strange, "m")]  # fmt: skip
    assert encoded[0] < 0 == encoded[1] < encoded[2]
    others = [i for i in range(len(model.encoded_names_)) if i != place]
    rows = [model._encoded(X.assign(sex=value))[0][:, others] for value in ("f", strange)]
    assert_array_equal(*rows)
    # A missing value that training had is a category like others.
    gaps = X.assign(sex=X["sex"].where(X.index % 4 > 0))
    seen = Tree().fit(gaps, y)
    assert "sex=(missing)" in seen.encoded_names_
    two = Tree().fit(X.assign(sex=X["sex"].where(X["sex"] == "m")), y)
    place = two.encoded_names_.index("sex=m")
    assert (two._encoded(X.assign(sex=None))[0][:, place] < 0).all()


@pytest.mark.parametrize(
    ("trained", "later"),
    [
        (lambda c: pd.Categorical(c), lambda c: c.astype(float)),
        (lambda c: pd.Categorical(c), lambda c: pd.Categorical(c.astype(float))),
        (lambda c: pd.Categorical(c.astype(float)), lambda c: c),
        (lambda c: pd.Categorical(c), lambda c: c.astype(str)),
        (lambda c: c > 1, lambda c: (c > 1).astype(int)),
        (lambda c: c > 1, lambda c: (c > 1).astype(float)),
        (lambda c: (c > 1).astype("boolean"), lambda c: (c > 1).astype(object)),
        (lambda c: pd.Categorical((c > 1).astype(int)), lambda c: c > 1),
    ],
)
def test_equal_numbers_are_equal_categories(trained: Any, later: Any) -> None:
    X, _ = table()
    code = pd.Series(np.random.default_rng(1).integers(1, 4, 60))
    model = Tree(max_steps=60).fit(X.assign(code=trained(code)), code > 1)
    first = model.predict_proba(X.assign(code=trained(code)))
    assert_array_equal(model.predict_proba(X.assign(code=later(code))), first)
    assert np.ptp(first[:, 1]) > 0.3
    gap = model.predict_proba(X.assign(code=pd.Series(later(code)).astype(object).where(code < 3)))
    assert_array_equal(gap[code < 3], first[code < 3])


def test_a_column_coded_in_another_way_is_named() -> None:
    X, y = table()
    model = Tree().fit(X, y)
    full = X["sex"].map({"f": "Female", "m": "Male"})
    message = "X: column 'sex' holds 'Female', 'Male', none of which .* \\('f', 'm'\\)"
    with pytest.raises(ValueError, match=message):
        model.predict(X.sort_values("sex").assign(sex=full))
    with pytest.raises(ValueError, match="column 'sex' holds '3', none of which"):
        model.predict(X.head(1).assign(sex=3.0))
    # A few rows of new categories happen: what one row is does not hang on those beside it.
    new = X.head(12).assign(ward=["mars", "venus"] * 6)
    with pytest.warns(UserWarning, match="column 'ward' holds 'mars', 'venus', none of which"):
        said = model.predict_proba(new)
    assert_array_equal(said, model.predict_proba(new.assign(ward="mars")))
    # One category that is new, in whatever rows, is new and no error; nor are a few.
    assert len(model.predict(X.assign(ward="mars"))) == 60
    assert len(model.predict(X.assign(ward=X["ward"].replace({"east": "mars"})))) == 60


def test_objects_of_numpy_are_numbers_and_booleans() -> None:
    X, y = table()
    numbers = pd.Series([np.int64(i) for i in range(60)], dtype=object)
    flags = pd.Series([np.bool_(i % 2) for i in range(60)], dtype=object)
    model = Tree().fit(X.assign(n=numbers, flag=flags), y)
    assert {"n", "flag=True"} <= set(model.encoded_names_)


# Sizes.


@pytest.mark.parametrize("scale", [1e-60, 1e-19, 1.0, 1e90])
def test_targets_of_any_size_are_learned(scale: float) -> None:
    X, _ = table()
    plain = RegressionTree(max_steps=40).fit(X, X["age"])
    model = RegressionTree(max_steps=40).fit(X, X["age"] * scale)
    assert_allclose(model.predict(X) / scale, plain.predict(X), rtol=1e-4)
    assert model.score(X, X["age"] * scale) == pytest.approx(plain.score(X, X["age"]), rel=1e-3)
    assert model.fidelity(X) == pytest.approx(plain.fidelity(X), abs=0.01)
    assert plain.score(X, X["age"]) > 0.1


@pytest.mark.parametrize("value", [0.0, 7.1, 1e-30, -1e50])
def test_constant_targets_of_any_size_are_constant(value: float) -> None:
    X, _ = table()
    assert RegressionTree().fit(X, np.full(60, value)).target_scale_ == 1.0


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.arange(60) * 1e200, "y holds numbers of a size of up to 5.9e.201; use units"),
        (np.arange(60) * 1e-200, "y holds numbers of a size of up to 5.9e-199; use units"),
        (pd.date_range("2020", periods=60), "y holds datetime64.*; it must hold numbers"),
        (pd.to_timedelta(np.arange(60), "D"), "y holds timedelta64.*; it must hold numbers"),
        (pd.date_range("2020", periods=60, tz="UTC"), "y"),
    ],
)
def test_targets_that_are_no_usable_numbers(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegressionTree().fit(table()[0], pd.Series(y))


@pytest.mark.parametrize(
    "labels",
    [
        lambda y: pd.Series(y, dtype=object).where(np.arange(60) != 3, None),
        lambda y: pd.Series(y, dtype=object).where(np.arange(60) != 3, np.nan),
        lambda y: pd.Series(y, dtype="string").mask(np.arange(60) == 3),
        lambda y: pd.Series(y == "ill", dtype="boolean").mask(np.arange(60) == 3),
        lambda y: pd.Series(y == "ill").astype("Int64").mask(np.arange(60) == 3),
        lambda y: pd.Series(y, dtype="category").mask(np.arange(60) == 3),
    ],
)
def test_missing_labels_are_named(labels: Any) -> None:
    X, y = table()
    with pytest.raises(ValueError, match=r"Input y contains NaN or another missing .* row 3;"):
        Tree().fit(X, labels(y))
    with pytest.raises(ValueError, match=r"classes=.* holds a missing value"):
        Tree().partial_fit(X, y, classes=["ill", None, "well"])


def test_columns_out_of_range_are_named_and_later_cells_cut_off() -> None:
    X, y = table()
    huge = X.assign(age=X["age"].where(X.index > 0, 1e300))
    with pytest.raises(ValueError, match=r"X: column 'age' holds numbers of .* up to 1e.300"):
        Tree().fit(huge, y)
    with pytest.raises(ValueError, match=r"X: column 'x0' holds .* up to \S+e-200; use units"):
        Tree().fit(X[["age"]].to_numpy() * 1e-201, y)
    with pytest.raises(ValueError, match=r"X holds numbers of a size of up to 1e\+300"):
        TemporalAttentionClassifier().fit(np.where(np.eye(6) > 0, 1e300, 0.0), [0, 1] * 3)
    model = Tree().fit(X, y)
    far = X.assign(age=X["age"].where(X.index > 0, 1e4))
    assert_array_equal(model.predict_proba(huge), model.predict_proba(far))


def test_arrays_of_objects_and_repeated_names_are_named() -> None:
    X, y = table()
    with pytest.raises(ValueError, match=r"X is an array of type object .*; give a DataFrame"):
        Tree().fit(X.to_numpy(), y)
    twice = pd.concat([X, X[["age"]]], axis=1)
    with pytest.raises(ValueError, match=r"X has several columns of the name 'age'.* unique"):
        Tree().fit(twice, y)
    numbers = X[["age"]].to_numpy().astype(object)
    assert_array_equal(Tree().fit(numbers, y).predict(numbers), Tree().fit(X[["age"]], y).predict(
        X[["age"]]))  # fmt: skip


# Shape functions.


def dated(rows: int = 90) -> tuple[pd.DataFrame, pd.Series[float]]:
    rng = np.random.default_rng(0)
    X, _ = table(rows)
    X["seen"] = pd.Timestamp("2021-03-01") + pd.to_timedelta(rng.integers(0, 900, rows), "D")
    X.loc[::6, "age"] = np.nan
    X.loc[::10, "ward"] = None
    y = X["age"].fillna(90) / 10 + 3 * (X["sex"] == "m") + X["seen"].dt.month
    return X, y


PAIRS = [("age", "ward"), ("age", "seen"), ("sex", "ward")]


@functools.cache
def additive(kind: str) -> tuple[Any, pd.DataFrame]:
    X, y = dated()
    make = {"classes": AdditiveNetClassifier, "two": AdditiveNetClassifier}
    target = {"classes": pd.qcut(y, 3, labels=list("abc")).astype(str), "two": y > y.median()}
    model = make.get(kind, AdditiveNetRegressor)(pairs=PAIRS, max_steps=30, random_state=0)
    return model.fit(X, target.get(kind, y)), X


@pytest.mark.parametrize("kind", ["y", "two"])
def test_shape_functions_are_what_is_explained(kind: str) -> None:
    model, X = additive(kind)
    table = model.shape_functions(points=7, pair_points=3)
    assert list(table.columns) == ["part", "value", "value_2", "output", "contribution"]
    assert set(table["output"]) == {"y" if kind == "y" else True}
    single = [*X.columns]
    double = [f"{a} & {b}" for a, b in PAIRS]
    assert list(table["part"].unique()) == single + double
    # Any row, with a value of the table in its column, is explained by the table's number.
    rows = table.sample(50, random_state=0)
    for part, value, value_2, _, contribution in rows.itertuples(index=False):
        first, _, second = part.partition(" & ")
        row = X.iloc[[5]].copy()
        for column, given in ((first, value), (second, value_2)):
            if column:
                row[column] = pd.Series([given], index=row.index).astype(X[column].dtype) \
                    if column != "seen" else pd.to_datetime([given]).tz_localize(None)  # fmt: skip
        assert model.explain(row)[part].iloc[0] == pytest.approx(contribution, abs=1e-6)


def test_shape_functions_cover_every_kind_of_value() -> None:
    model, X = additive("classes")
    table = model.shape_functions(points=9)
    assert set(table["output"]) == {"a", "b", "c"}
    ages = table[table["part"] == "age"]
    assert len(ages) == 3 * (9 + 1)
    assert ages["value"].isna().sum() == 3
    assert ages["value"].min() == pytest.approx(X["age"].min(), abs=1e-4)
    wards = table[table["part"] == "ward"]["value"]
    assert set(wards.dropna()) == {"east", "north", "south"}
    assert wards.isna().sum() == 3
    seen = table[table["part"] == "seen"]["value"]
    assert pd.Timestamp(seen.min()).date() == X["seen"].min().date()
    # Summed over a row's own values they are the scores; here for the row of the first grid point.
    scores = model.decision_function(X)
    told = model.explain(X)
    best = scores.argmax(1)
    assert_allclose(told.sum(axis=1), scores[np.arange(len(X)), best])
    with pytest.raises(ValueError, match="points=1; it must be a whole number of at least 2"):
        model.shape_functions(points=1)


def test_the_picture_has_all_columns_and_pairs() -> None:
    model, _ = additive("y")
    figure = model.plot()
    assert figure.get_supxlabel() == ""
    few = model.plot(max_features=1)
    assert few.get_supxlabel() == f"{len(model.feature_names_in_) - 1} weaker columns not shown"
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert {"age", "sex", "ward", "seen", "age & ward", "age & seen"} <= set(titles)
    assert any(title in ("sex & ward", "ward & sex") for title in titles)
    by_title = dict(zip(titles, figure.axes, strict=True))
    assert "missing" in [text.get_text() for text in by_title["age"].texts]
    figure.draw_without_rendering()
    dates = [text.get_text() for text in by_title["seen"].get_xticklabels()]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d", text) for text in dates if text)
    assert any(dates)
    # The curve of the date is that of the days, the year and the month together.
    line = max(by_title["seen"].get_lines(), key=lambda line: len(line.get_xdata()))
    curve = model.shape_functions()
    curve = curve[curve["part"] == "seen"]["contribution"].to_numpy(float)
    assert_allclose(line.get_ydata(), curve)


def test_a_column_that_only_gaps_tell_apart_has_a_shape() -> None:
    X, _ = table()
    X["test"] = np.where(X.index % 3 == 0, np.nan, 7.5)
    X["day"] = pd.Series(pd.Timestamp("2024-05-06"), index=X.index).where(X.index % 4 > 0)
    pairs = [("age", "test"), ("sex", "test")]
    model = AdditiveNetClassifier(max_steps=10, pairs=pairs, random_state=0)
    model.fit(X, X["test"].isna())
    shape = model.shape_functions(points=4, pair_points=2)
    own = shape[shape["part"] == "test"]
    assert own["value"].tolist()[:1] == [7.5]
    assert pd.isna(own["value"].iloc[1])
    told = model.explain(X)["test"]
    assert_allclose(told[X["test"].notna()], own["contribution"].iloc[0])
    assert_allclose(told[X["test"].isna()], own["contribution"].iloc[1])
    day = shape[shape["part"] == "day"]["value"]
    assert day.iloc[0].date() == pd.Timestamp("2024-05-06").date()
    model.plot().draw_without_rendering()
    model.plot(X.head(7)).draw_without_rendering()


def test_a_column_named_bias_keeps_its_contribution() -> None:
    X, y = table()
    X = X.rename(columns={"age": "bias"})
    model = AdditiveNetClassifier(max_steps=10, random_state=0).fit(X, y)
    told = model.explain(X)
    assert list(told.columns) == ["bias", "sex", "ward", "(bias)"]
    assert_allclose(told.sum(axis=1), model.decision_function(X))
    assert np.ptp(told["bias"]) > 0 == np.ptp(told["(bias)"])


# Sequences.


def test_mean_attention_leaves_out_rows_of_padding() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 12))
    X[20:] = np.nan
    model = TemporalAttentionClassifier(max_steps=5, random_state=0).fit(X, np.arange(30) % 2)
    mean = model.mean_attention()
    assert mean.shape == (2, 12)
    assert_allclose(mean.sum(axis=1), 1)
    assert_allclose(model.mean_attention(X), mean)
    assert_allclose(mean.mean(), model.explain(X[:20]).mean())
    assert model.mean_attention(X[20:]).eq(0).all(axis=None)
    assert_allclose(model.mean_attention(X[[3, 25]]).mean(), model.explain(X[3:4]).iloc[0])


# Dates written as text, identifiers.


@pytest.mark.parametrize("written", ["%Y-%m-%d", "%d.%m.%Y", "%d %b %Y"])
def test_dates_as_text_are_dates(written: str) -> None:
    X, y = table()
    days = pd.Series(pd.date_range("2020-03-01", periods=60, freq="11D")).where(X.index % 7 > 0)
    as_text = Tree().fit(X.assign(seen=days.dt.strftime(written)), y)
    as_dates = Tree().fit(X.assign(seen=days), y)
    assert as_text.encoded_names_ == as_dates.encoded_names_
    assert "seen_days" in as_text.encoded_names_

    def encoded(model: Any, seen: Any) -> Any:
        return model._encoded(X.assign(seen=seen))[0]

    later = days + pd.Timedelta(days=500)
    expected = encoded(as_dates, later)
    assert_array_equal(encoded(as_text, later.dt.strftime(written)), expected)
    assert_array_equal(encoded(as_text, later), expected)
    gaps = encoded(as_dates, later.where(X.index > 5))
    unknown = later.dt.strftime(written).where(X.index > 5, "unknown")
    assert_array_equal(encoded(as_text, unknown), gaps)
    one = X.assign(seen="soon").head(1)
    assert_array_equal(as_text._encoded(one)[0], encoded(as_dates, pd.NaT)[:1])
    another = "%d/%m/%Y" if written == "%Y-%m-%d" else "%Y-%m-%d"
    for strange in (later.dt.strftime(another), ["soon", "later"] * 30):
        with pytest.raises(ValueError, match=r"'seen' holds dates written as .*, and '"):
            as_text.predict(X.assign(seen=strange))


def test_dates_that_can_be_read_in_two_ways_are_told() -> None:
    X, y = table()
    with pytest.warns(UserWarning, match="'seen': day and month cannot be told apart"):
        Tree().fit(X.assign(seen=["03/04/2021", "05/06/2021", "01/02/2022"] * 20), y)


def test_identifiers_are_warned_of_and_unknown_later() -> None:
    X, y = table()
    named = X.assign(patient=[f"P{i}" for i in range(60)])
    with pytest.warns(UserWarning, match="'patient' has 60 distinct texts in 60 rows"):
        model = Tree().fit(named, y)
    rare = X.assign(event=["sepsis", "stroke", "fall"] + [None] * 57)
    Tree().fit(rare, y)  # Few rows have any, so these are no identifiers.
    new = named.assign(patient=[f"Q{i}" for i in range(60)])
    assert_array_equal(model.predict(new), model.predict(new.assign(patient="R")))
    # Few wards that all are unknown look like wards written in another way.
    with pytest.raises(ValueError, match="'ward' holds 'E', 'N', none of which"):
        model.predict(new.assign(ward=["E", "N"] * 30))


def test_numbers_written_as_text_are_warned_of_on_the_users_line() -> None:
    X, y = table()
    texts = X.assign(age=[f"{a:.1f}" for a in X["age"]])
    texts.loc[::9, "age"] = "unknown"
    found = r"'age' counts as categories: 53 of 60 texts are numbers, others 'unknown'"
    with pytest.warns(UserWarning, match=found) as caught:
        Tree().fit(texts, y)
    assert [w.filename for w in caught] == [__file__]
    # What the message asks for, and what is typed as a category, pass without one.
    Tree().fit(texts.assign(age=pd.to_numeric(texts["age"], errors="coerce")), y)
    Tree().fit(X.assign(code=pd.Categorical([str(i % 15) for i in range(60)])), y)
    Tree().fit(X.assign(code=[str(i % 10) for i in range(60)]), y)


@pytest.mark.parametrize("kind", [AdditiveNetClassifier, AdditiveNetRegressor])
@pytest.mark.parametrize("classes", [2, 3])
def test_importance_of_an_additive_net_is_that_of_whole_columns(kind: Any, classes: int) -> None:
    """Of what `explain` says a column adds, not of its features one by one."""
    rng = np.random.default_rng(classes)
    X = table(80)[0].assign(code=[f"c{i}" for i in rng.integers(0, 15, 80)])
    y: Any = rng.integers(0, classes, 80)
    model = kind(max_steps=30, random_state=0, pairs=[("age", "ward")]).fit(X, y)
    parts = model._summed(model._encoded(X)[0])[0]
    if kind is AdditiveNetClassifier and classes == 2:
        # A difference of two scores is twice what each is off their mean.
        assert_allclose(model.explain(X)["code"], parts[:, 3, 1] - parts[:, 3, 0])
    spread = (parts - (parts.mean(-1, keepdims=True) if parts.shape[-1] > 1 else 0)).std(0).sum(-1)
    expected = spread[:4] + np.array([spread[4] / 2, 0, spread[4] / 2, 0])
    assert_allclose(model.feature_importances_, expected / expected.sum())
    by_feature = model.model_.feature_importance(model._encoded(X)[0]).numpy()
    code = by_feature[[n.startswith("code=") for n in model.encoded_names_]].sum()
    assert model.feature_importances_[3] < code  # categories exclude each other
