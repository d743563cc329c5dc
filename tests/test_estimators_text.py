"""The printed rules are what predicts: read back from the text alone, on rows of all kinds."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

from denograd.estimators import (
    RuleNetClassifier,
    RuleNetRegressor,
    SoftForestClassifier,
    SoftForestRegressor,
    SoftTreeClassifier,
    SoftTreeRegressor,
)
from denograd.estimators._features import TableEncoder, as_frame
from denograd.estimators._short_rules import simplified
from denograd.models import Condition, Rule, predict_from_rules

RELATIONS = {">": np.greater, "<=": np.less_equal, "<": np.less, ">=": np.greater_equal}


def holds(condition: str, table: pd.DataFrame) -> NDArray[np.bool_]:
    """A printed condition, read as text; columns of ``table`` are named as in the text."""
    plain = condition.removeprefix("not ")
    if plain in table:
        one = table[plain].to_numpy() == 1
        return one if plain == condition else ~one
    left, relation, right = re.fullmatch(r"(.+) (>|<=|<|>=) (\S+)", condition).groups()  # type: ignore[union-attr]
    total = np.zeros(len(table))
    for sign, weight, name in re.findall(
        r"(?:^|(?<= ))([+-] |-)?(?:(\d\S*) )?([a-z]\S*(?: [a-z]\S*)*)", left
    ):
        value = float(weight or 1) * table[name].to_numpy()
        total += -value if "-" in sign else value
    return RELATIONS[relation](total, float(right))


DAYS, GAPS = " counts the days since ", "where a value is missing, this stands for it: "
OTHER = "=(other) stands for "


def added(text: str, table: pd.DataFrame, classes: list[str] | None) -> NDArray[np.float64]:
    """Sums of what the lines of a text add."""
    scores = np.zeros((len(table), len(classes or [0])))
    lines = text.splitlines()
    assert lines[0].startswith("fidelity ")
    for line in (line for line in lines[1:] if not any(n in line for n in (DAYS, GAPS, OTHER))):
        premise, verb, said = re.fullmatch(
            r"(.+?) (ADD|THEN) (.+) \[\S+ % of rows\]", line
        ).groups()  # type: ignore[union-attr]
        held = np.ones(len(table), dtype=bool)
        if premise != "ALWAYS":
            join = " OR " if " OR " in premise else " AND "
            met = [holds(part, table) for part in premise.removeprefix("IF ").split(join)]
            held = np.any(met, axis=0) if join == " OR " else np.all(met, axis=0)
        parts = said.split(", ")
        if classes is not None:
            assert [part.rpartition(" ")[0] for part in parts] == classes
        scores[held] += [float(part.split()[-1]) for part in parts]
        assert verb in ("ADD", "THEN")
    return scores


def read(text: str, table: pd.DataFrame, classes: list[str] | None) -> NDArray[Any]:
    """What a text predicts: sums of what its lines add, the largest is the class."""
    scores = added(text, table, classes)
    if classes is None:
        return scores[:, 0]
    return np.array(classes)[np.round(scores, 9).argmax(1)]


def named(load: Any) -> tuple[pd.DataFrame, Any]:
    X, y = load(return_X_y=True, as_frame=True)
    X.columns = [re.sub(r"\W+", "_", name).strip("_") for name in X.columns]
    return X, (y.map(lambda c: f"class {c}") if y.nunique() < 5 else y)


@pytest.mark.parametrize("load", [load_wine, load_iris, load_breast_cancer])
def test_the_text_of_a_rule_net_predicts_what_the_model_predicts(load: Any) -> None:
    X, y = named(load)
    model = RuleNetClassifier(random_state=0, max_steps=120).fit(X[::2], y[::2])
    said = read(model.to_text(), X, model.classes_.tolist())
    assert_array_equal(said, model.predict(X))
    assert model.to_text().startswith("fidelity 1.000")
    assert model.score(X, y) > 0.8


@pytest.mark.parametrize("kind", [SoftTreeClassifier, SoftForestClassifier])
@pytest.mark.parametrize("load", [load_wine, load_iris])
def test_the_text_of_trees_agrees_with_the_model_as_far_as_it_says(kind: Any, load: Any) -> None:
    X, y = named(load)
    model = kind(random_state=0, max_steps=60, depth=2).fit(X[::2], y[::2])
    text = model.to_text(X)
    agreed = (read(text, X, model.classes_.tolist()) == model.predict(X)).mean()
    assert text.splitlines()[0] == f"fidelity {agreed:.3f}"
    assert_array_equal(read(text, X, model.classes_.tolist()), model.rule_predict(X))
    if kind is SoftTreeClassifier:
        for rule in model.to_rules():
            assert sum(rule.scores) == pytest.approx(1, abs=2e-3)
            assert min(rule.scores) >= 0


@pytest.mark.parametrize("kind", [RuleNetRegressor, SoftForestRegressor, SoftTreeRegressor])
def test_the_text_of_a_regression_predicts_values(kind: Any) -> None:
    X, y = named(load_diabetes)
    model = kind(random_state=0, max_steps=60).fit(X[:80], y[:80])
    said = read(model.to_text(), X, None)
    assert_allclose(said, model.rule_predict(X), atol=1e-6)
    if kind is RuleNetRegressor:
        assert_allclose(said, model.predict(X), atol=1e-6)


def lognormal(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    return pd.DataFrame(np.exp(1.5 * rng.normal(size=(rows, 4))), columns=list("abcd"))


def decimals(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    # Values that come again and again, and lie exactly on thresholds.
    return pd.DataFrame(rng.normal(3, 0.5, size=(rows, 4)).round(1), columns=list("abcd"))


@pytest.mark.parametrize("draw", [lognormal, decimals])
@pytest.mark.parametrize("seed", range(3))
def test_the_rules_of_a_rule_net_are_the_model_on_new_rows(draw: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, new = draw(rng, 40), draw(rng, 20_000)
    y = np.log(X["a"]) + np.log(X["b"])
    classes = np.where(y > y.median(), "high", np.where(X["c"] > X["c"].median(), "mid", "low"))
    model = RuleNetClassifier(random_state=seed, max_steps=60).fit(X, classes)
    assert_array_equal(model.rule_predict(new), model.predict(new))
    # The user's own numbers, read by the text alone; they are not even cut off.
    own = new[(new > 1e-6 * X.std()).all(axis=1)]
    assert_array_equal(read(model.to_text(), own, model.classes_.tolist()), model.predict(own))
    regression = RuleNetRegressor(random_state=seed, max_steps=60).fit(X, y * 100)
    assert_allclose(regression.rule_predict(new), regression.predict(new), atol=1e-6)
    assert_allclose(read(regression.to_text(), own, None), regression.predict(own), atol=1e-6)
    # The public model is that model.
    x = model._encoded(new)[0]
    scores = np.round(model.model_(x).detach().numpy(), 9)
    assert_array_equal(model.classes_[scores.argmax(1)], model.predict(new))
    inner = np.round(predict_from_rules(model.model_.to_rules(), x.numpy()), 9)
    assert_array_equal(model.classes_[inner.argmax(1)], model.predict(new))


def mixed(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(50, 10, rows).round(1),
            "sex": rng.choice(["f", "m"], rows),
            "ward": rng.choice(["east", "north", "south"], rows),
            "seen": pd.Timestamp("2024-01-05") + pd.to_timedelta(rng.integers(0, 600, rows), "D"),
        }
    )
    frame.loc[::7, "age"] = np.nan
    return frame


@pytest.mark.parametrize("kind", [RuleNetClassifier, SoftTreeClassifier, SoftForestRegressor])
def test_rules_run_on_encoded_rows(kind: Any) -> None:
    X, new = mixed(80, 0), mixed(500, 1)
    new.loc[::5, "sex"] = "unknown"
    y = (X["sex"] == "m") | (X["seen"] > "2025-01-01")
    model = kind(max_steps=60, random_state=0).fit(X, y)
    encoded = model.encode(new)
    assert list(encoded.columns) == model.encoded_names_
    assert_array_equal(encoded.index, new.index)
    scores = predict_from_rules(model.to_rules(), encoded)
    said = model.rule_predict(new)
    if kind is SoftForestRegressor:
        assert_allclose(scores[:, 0], said)
        assert_allclose(read(model.to_text(), encoded, None), said, atol=1e-6)
        return
    assert_array_equal(model.classes_[np.round(scores, 9).argmax(1)], said)
    assert_array_equal(read(model.to_text(), encoded, ["False", "True"]) == "True", said)
    if kind is RuleNetClassifier:
        assert_array_equal(said, model.predict(new))


def by_its_words(text: str, X: pd.DataFrame) -> pd.DataFrame:
    """Rows as someone has them who knows nothing but the text, with a column for each feature."""
    notes = [line for line in text.splitlines() if GAPS in line]
    assert len(notes) <= 1
    stated = "".join(notes).removeprefix(GAPS)
    fillers = {k: float(v) for k, v in (p.split(" = ") for p in stated.split(", ") if p)}
    since = dict(line.split(DAYS) for line in text.splitlines() if DAYS in line)
    table = {f"{name}_missing": X[name].isna().astype(float) for name in X.columns}
    table["age"] = X["age"]
    for name in ("sex", "ward", "smoker"):
        for value in X[name].dropna().unique():
            table[f"{name}={value}"] = (X[name] == value).astype(float)
        table[f"{name}=(missing)"] = X[name].isna().astype(float)
    first = pd.Timestamp(since.get("seen_days", "2024-01-01"))
    table["seen_days"] = (X["seen"] - first) / pd.Timedelta(days=1)
    table["seen_year"], table["seen_month"] = X["seen"].dt.year, X["seen"].dt.month
    return pd.DataFrame(table).fillna(fillers)


def patients(rows: int, seed: int, *gaps: str) -> pd.DataFrame:
    rng = np.random.default_rng([seed, 1])
    frame = mixed(rows, seed)
    frame["age"] = rng.normal(50, 10, rows).round(1)
    frame["smoker"] = rng.choice([True, False], rows).astype(object)
    for name in gaps:
        frame.loc[rng.random(rows) < 0.3, name] = pd.NaT if name == "seen" else None
    return frame


READ = [RuleNetClassifier, RuleNetRegressor, SoftTreeClassifier, SoftForestRegressor]


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("gaps", [(), ("age", "seen", "ward")], ids=["none", "gaps"])
def test_the_text_alone_predicts_rows_with_gaps(kind: Any, seed: int, gaps: Any) -> None:
    X = patients(90, seed, *gaps)
    new = patients(600, seed + 10, "age", "seen", "ward", "smoker", "sex")
    y = X["age"].fillna(45) / 10 + (X["ward"] == "north") + X["seen"].dt.month.fillna(0) / 4
    classes = None
    if kind in (RuleNetClassifier, SoftTreeClassifier):
        y, classes = np.where(y > y.median(), "high", "low"), ["high", "low"]
    model = kind(max_steps=60, random_state=seed).fit(X, y)
    text = model.to_text()
    assert GAPS in text
    table = by_its_words(text, new)
    said = read(text, table, classes)
    if classes is None:
        assert_allclose(said, model.rule_predict(new), atol=1e-6)
    else:
        assert_array_equal(said, model.rule_predict(new))
    if kind is RuleNetClassifier:
        assert_array_equal(said, model.predict(new))
        high, low = added(text, table, classes).T
        assert_allclose(low - high, model.decision_function(new), atol=1e-9)
    elif kind is RuleNetRegressor:
        assert_allclose(said, model.predict(new), atol=1e-6)


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("gaps", [0, 1, 20])
def test_the_text_says_what_the_rare_categories_are(kind: Any, gaps: int) -> None:
    rng = np.random.default_rng(gaps)
    often, rare = [f"often-{i}" for i in range(11)], [f"rare, '{i}'" for i in range(7)]
    ward = pd.Series([*often * 9, *rare, *[None] * gaps], name="ward").sample(
        frac=1, random_state=1
    )
    X = pd.DataFrame({"ward": ward, "age": rng.normal(size=len(ward))}).reset_index(drop=True)
    is_rare = ~X["ward"].isin(often)
    y: Any = 3.0 * is_rare + rng.normal(size=len(X)) / 9
    classes = None
    if kind in (RuleNetClassifier, SoftTreeClassifier):
        y, classes = np.where(is_rare, "rare", "known"), ["known", "rare"]
    model = kind(max_steps=40, random_state=0).fit(X, y)
    text = model.to_text()
    (note,) = (line for line in text.splitlines() if OTHER in line)
    stated, rest = note.removeprefix(f"ward{OTHER}").split(" and for ")
    assert rest == "what training did not see"
    named = [value for value in [*often, *rare, "(missing)"] if repr(value) in stated]
    # With twenty gaps they are more than any ward, which pushes one ward to the rare ones.
    assert set(rare) <= set(named)
    assert ("(missing)" in named) == (gaps == 1)
    assert len(named) == 7 + (gaps > 0)
    values = [*often, *rare, None, "never seen"]
    new = pd.DataFrame({"ward": values * 40, "age": rng.normal(size=40 * len(values))})
    called = new["ward"].fillna("(missing)")
    table = pd.DataFrame({f"ward={value}": (called == value) * 1.0 for value in called.unique()})
    seen = [*often, *rare, *(["(missing)"] if gaps else [])]
    table["ward=(other)"] = (called.isin(named) | ~called.isin(seen)) * 1.0
    table["age"] = new["age"]
    if classes is None:
        assert_allclose(read(text, table, None), model.rule_predict(new), atol=1e-6)
    else:
        assert_array_equal(read(text, table, classes), model.rule_predict(new))


def test_a_category_that_is_called_other_is_told_from_the_rare_ones() -> None:
    often = ["(other)", *(f"w{i}" for i in range(10))]
    wards = pd.Series([*often * 9, "r1", "r2", "infrequent"], name="ward")
    encoder = TableEncoder(as_frame(wards.to_frame()), ["ward"])
    assert len(set(encoder.names)) == len(encoder.names) == 12
    place = encoder.names.index("ward=((other))")
    note = "ward=((other)) stands for 'infrequent', 'r1', 'r2' and for what training did not see"
    assert encoder.notes == {place: note}
    few = pd.Series(["infrequent_sklearn", "a", "b"] * 9, name="ward").to_frame()
    assert "ward=infrequent_sklearn" in TableEncoder(as_frame(few), ["ward"]).names


def test_rules_that_say_the_same_are_one() -> None:
    X, y = named(load_diabetes)
    model = RuleNetRegressor(random_state=2).fit(X[:90], y[:90])
    premises = [rule.premise for rule in model.to_rules()]
    assert len(set(premises)) == len(premises) < len(model.model_.to_rules())
    assert premises[-1] == "ALWAYS"
    assert_allclose(read(model.to_text(), X, None), model.predict(X), atol=1e-6)


@pytest.mark.parametrize(
    ("premise", "short"),
    [
        ("ward=A AND ward=B", None),
        ("ward=A AND not ward=B", "ward=A"),
        ("not ward=A AND not ward=B", "not ward=A AND not ward=B"),  # it may be another one
        ("ward=A OR not ward=B", "not ward=B"),
        ("not ward=A OR not ward=B", "ALWAYS"),
        ("not ward=A OR not ward=B OR x > 2", "ALWAYS"),
        ("ward=A OR ward=B", "ward=A OR ward=B"),
        ("ward=A AND ward=B AND x > 2", None),
        ("x > 4 AND x_missing", None),  # a missing x counts as 3
        ("x > 2 AND x_missing", "x_missing"),
        ("x > 4 AND not x_missing", "x > 4"),
        ("x > 2 AND not x_missing", "x > 2 AND not x_missing"),
        ("x > 2 OR x_missing", "x > 2"),
        ("x > 4 OR not x_missing", "not x_missing"),
        ("x <= 4 OR not x_missing", "ALWAYS"),
        ("x > 2 AND x <= 4", "x > 2 AND x <= 4"),
        ("x > 2 OR ward=A", "x > 2 OR ward=A"),
        ("x > 1e9 OR x <= -1e9", None),
        # All dates are the same, so there is nothing of them but whether they are there.
        ("day_missing AND day_missing", "day_missing"),
        ("day_missing AND not day_missing", None),
    ],
)
def test_conditions_that_follow_from_others_are_left_out(premise: str, short: str | None) -> None:
    frame = pd.DataFrame({"ward": list("ABC") * 20, "x": [1.0, 3.0, 5.0, None] * 15})
    frame["day"] = pd.to_datetime(["2024-01-05", None, "2024-01-05"] * 20)
    encoder = TableEncoder(as_frame(frame), list(frame.columns))
    tests = []
    conditions = premise.split(" OR " if (any_of := " OR " in premise) else " AND ")
    for condition in conditions:
        name, relation, threshold = f"{condition.removeprefix('not ')} > 0.5".split(" ")[:3]
        relation = "<=" if condition.startswith("not ") else relation
        tests.append(
            Condition(((encoder.names.index(name), 1.0),), relation, float(threshold)))  # fmt: skip
    rule = Rule(tuple(conditions), "", tests=tuple(tests), any_of=any_of)
    found = simplified(rule, encoder)
    assert (found and found.premise.removeprefix("IF ")) == short


@pytest.mark.parametrize("kind", [RuleNetClassifier, RuleNetRegressor])
@given(seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=8, phases=[Phase.generate])  # a seed does not shrink
def test_short_rules_predict_and_none_is_idle_or_said_twice(
    kind: Any, seed: int, data: Any
) -> None:
    columns = ["age", "sex", "ward", "seen", "smoker"]
    gaps = data.draw(st.lists(st.sampled_from(columns), unique=True))
    X = patients(60, seed, *gaps)
    new = patients(4000, seed + 1, *columns)
    new.loc[::9, ["sex", "ward", "smoker"]] = "unknown"
    new.loc[::5, "age"] = np.linspace(0, 100, 800)
    new.loc[1::5, "seen"] = pd.Timestamp("2010-01-01") + pd.to_timedelta(np.arange(800) * 14, "D")
    rng = np.random.default_rng(seed)
    y: Any = rng.normal(size=60)
    if kind is RuleNetClassifier:
        y = rng.permutation(np.repeat(["a", "b", "c"], 20))
    # Many rules that have hardly learned: all kinds of conditions meet, and often twice.
    model = kind(rules=150, conditions=3, max_steps=2, random_state=seed).fit(X, y)
    text, rules = model.to_text(), model.to_rules()
    table = by_its_words(text, new)
    if kind is RuleNetClassifier:
        assert_array_equal(read(text, table, ["a", "b", "c"]), model.predict(new))
    else:
        assert_allclose(read(text, table, None), model.predict(new), atol=1e-6)
    assert len({rule.premise for rule in rules}) == len(rules)
    assert [rule.premise for rule in rules if not rule.tests] == [rules[-1].premise] == ["ALWAYS"]
    trained = by_its_words(text, X)
    for rule in rules[:-1]:
        assert len(rule.tests) == len(rule.conditions) > 0
        join = np.logical_or if rule.any_of else np.logical_and
        held = join.reduce([holds(condition, trained) for condition in rule.conditions])
        assert rule.support == pytest.approx(held.mean())
        dated = sum("seen_" in condition for condition in rule.conditions)
        features = [index for test in rule.tests for index, _ in test.terms]
        # Days, year and month may contradict each other in further ways; no row may lie in a gap.
        if dated < 2 and len(set(features)) == len(features):
            met = [holds(condition, table) for condition in rule.conditions]
            assert 0 < join.reduce(met).mean() < 1, rule
            # Nor is any condition idle.
            for i in range(len(met)):
                rest = met[:i] + met[i + 1 :]
                assert not rest or (join.reduce(rest) != join.reduce(met)).any(), rule


def test_the_text_says_what_stands_for_a_missing_value_of_the_columns_that_it_names() -> None:
    X = pd.DataFrame({"a": [1.0, 2.0, 4.0, 7.5] * 20, "b": [5.0, None, 6.0, 6.0] * 20})
    model = SoftTreeClassifier(depth=1, max_steps=60, random_state=0)
    lines = model.fit(X[["a"]], X["a"] > 3).to_text().splitlines()
    # The median, though training had no gap.
    assert lines[1] == f"{GAPS}a = 3"
    names = " ".join(model.fit(X, X["a"] > 3).to_text().splitlines()[2:])
    stated = model.to_text().splitlines()[1].removeprefix(GAPS).split(", ")
    assert stated == [part for part in ("a = 3", "b = 6") if f" {part[0]} " in names]
    # Whether a value is missing, and which category it is, needs none.
    only = pd.DataFrame({"c": ["x", "y", None] * 30})
    assert GAPS not in model.fit(only, only["c"] == "x").to_text()


def test_encoded_rows_are_in_the_units_of_the_table() -> None:
    X = mixed(80, 0)
    model = SoftTreeClassifier(max_steps=2).fit(X, X["sex"])
    encoded = model.encode(X)
    assert_array_equal(encoded["age"], X["age"].fillna(X["age"].median()))
    assert_array_equal(encoded["age_missing"], X["age"].isna())
    assert_array_equal(encoded["sex=m"], X["sex"] == "m")
    assert_array_equal(encoded["ward=north"], X["ward"] == "north")
    days = (X["seen"] - X["seen"].min()).dt.days
    assert_array_equal(encoded["seen_days"], days)
    assert_array_equal(encoded["seen_month"], X["seen"].dt.month)


def test_the_text_says_from_when_days_are_counted() -> None:
    X = mixed(80, 0)
    late = X["seen"] > "2025-01-01"
    model = SoftTreeClassifier(depth=1, max_steps=60, random_state=0).fit(X[["seen"]], late)
    first = X["seen"].min().date()
    assert model.to_text().splitlines()[1] == f"seen_days counts the days since {first}"
    other = SoftTreeClassifier(depth=1, max_steps=5, random_state=0).fit(X[["age"]], late)
    assert "counts the days" not in other.to_text()
