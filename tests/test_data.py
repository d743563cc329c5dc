"""Reading, encoding and splitting tables, against hand-made files and plain numpy."""

from __future__ import annotations

import datetime
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from denograd.data import (
    BUILTIN_NAMES,
    ColumnPlan,
    Encoder,
    Table,
    TableError,
    TableWarning,
    builtin_table,
    check_size,
    grouped_split,
    largest_size,
    nested_split,
    plan_columns,
    read_table,
    read_tables,
)
from denograd.data.dates import DateParts, guess_date_format
from denograd.data.groups import check_groups

ROWS = 60


def messy_frame() -> pd.DataFrame:
    """A table with everything that a user's CSV may hold."""
    rng = np.random.default_rng(0)
    day = datetime.date(2021, 1, 5)
    number = rng.normal(50, 10, ROWS).round(2)
    return pd.DataFrame(
        {
            "patient_id": [f"P-{1000 + i}" for i in range(ROWS)],
            "row": np.arange(1, ROWS + 1),
            "age": rng.integers(20, 90, ROWS),
            "pressure": np.where(rng.random(ROWS) < 0.2, np.nan, number),
            "colour": rng.choice(["red", "green", "blue"], ROWS),
            "smoker": rng.choice([True, False], ROWS),
            "seen": [(day + datetime.timedelta(days=int(3 * i))).isoformat() for i in range(ROWS)],
            "site": "Basel",
            "empty": np.nan,
            "note": [f"patient number {i} came in on foot" for i in range(ROWS)],
            "outcome": rng.choice(["ill", "well"], ROWS),
        }
    )


@pytest.fixture
def messy_csv(tmp_path: Path) -> Path:
    path = tmp_path / "messy.csv"
    messy_frame().to_csv(path, index=False)
    return path


def test_busy_machines_fail_no_property() -> None:
    """conftest.py sees to it, whichever way pytest imports it."""
    assert settings.get_current_profile_name() == "denograd"
    assert settings().deadline is None
    assert settings().derandomize is False


def quiet_plan(table: Table) -> ColumnPlan:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)
        return plan_columns(table)


def test_messy_csv_is_read_and_every_column_gets_its_kind(messy_csv: Path) -> None:
    table = read_table(messy_csv)
    assert (table.name, len(table), table.classes) == ("messy", ROWS, ("ill", "well"))
    with pytest.warns(TableWarning) as caught:
        plan = plan_columns(table)
    assert plan.numeric == ("age", "pressure")
    assert plan.category == ("colour", "smoker")
    assert plan.date == {"seen": "ISO8601"}
    assert set(plan.dropped) == {"patient_id", "row", "site", "empty", "note"}
    messages = [str(warning.message) for warning in caught]
    for column in plan.dropped:
        assert sum(f"column {column!r} is left out: " in message for message in messages) == 1


def test_columns_left_out_for_one_reason_are_told_together() -> None:
    frame = pd.DataFrame({"a": [1] * 6, "b": "x", "c": [1.0, 2, 3, 1, 2, 3]})
    with pytest.warns(TableWarning) as caught:
        plan_columns(Table("t", frame, pd.Series([0, 1] * 3)))
    assert [str(warning.message) for warning in caught] == [
        "t: columns 'a', 'b' are left out: the same value in every row"
    ]


def test_parquet_and_csv_give_the_same_numbers(messy_csv: Path, tmp_path: Path) -> None:
    messy_frame().to_parquet(tmp_path / "messy.parquet")
    tables = [read_table(messy_csv), read_table(tmp_path / "messy.parquet")]
    encoded = [Encoder(quiet_plan(t)).fit(t.features).transform(t.features) for t in tables]
    np.testing.assert_array_equal(*encoded)
    np.testing.assert_array_equal(tables[0].codes, tables[1].codes)


def test_encoding_matches_plain_numpy(messy_csv: Path) -> None:
    table = read_table(messy_csv)
    train, test = table.features.iloc[:40], table.features.iloc[40:]
    encoder = Encoder(quiet_plan(table)).fit(train)
    found = pd.DataFrame(encoder.transform(test), columns=encoder.feature_names_)

    def standardised(on_train: np.ndarray, on_test: np.ndarray) -> np.ndarray:
        return np.clip((on_test - on_train.mean()) / on_train.std(), -8, 8)

    frame = messy_frame()
    median = np.nanmedian(frame["pressure"][:40])
    seen = [datetime.date.fromisoformat(text) for text in frame["seen"]]
    expected = {
        "age": frame["age"].to_numpy(float),
        "pressure": frame["pressure"].fillna(median).to_numpy(),
        "pressure_missing": frame["pressure"].isna().to_numpy(float),
        "seen_days": np.array([(day - seen[0]).days for day in seen], float),
        "seen_month": np.array([day.month for day in seen], float),
        **{f"colour={c}": (frame["colour"] == c).to_numpy(float) for c in ("red", "green", "blue")},
        "smoker=True": frame["smoker"].to_numpy(float),
    }
    # All training rows are of 2021, so the year says nothing and is left out.
    assert set(found.columns) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(
            found[name], standardised(values[:40], values[40:]), rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_test_rows_do_not_change_the_encoding_of_training_rows(messy_csv: Path) -> None:
    table = read_table(messy_csv)
    plan, train = quiet_plan(table), table.features.iloc[:16]
    encoder = Encoder(plan).fit(train)
    before = encoder.transform(train)
    strange = table.features.iloc[16:].assign(age=1e9, colour="purple", pressure=np.inf, seen="?")
    encoded = encoder.transform(strange)
    assert np.isfinite(encoded).all()
    assert np.abs(encoded).max() <= 8
    np.testing.assert_array_equal(before, encoder.transform(train))


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 20))
def test_few_training_rows_always_encode_to_finite_numbers(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    frame = messy_frame().drop(columns="outcome").sample(frac=1, random_state=seed)
    frame["age"] = frame["age"].where(rng.random(ROWS) < rng.random())
    frame["colour"] = frame["colour"].astype(object).where(rng.random(ROWS) < 0.7)
    frame["seen"] = frame["seen"].astype(object).where(rng.random(ROWS) < 0.7)
    plan = quiet_plan(Table("t", frame, pd.Series(np.arange(ROWS) % 2)))
    encoder = Encoder(plan).fit(frame.iloc[:rows])
    encoded = encoder.transform(frame)
    assert encoded.dtype == np.float32
    assert np.isfinite(encoded).all()
    assert encoded.shape == (ROWS, len(encoder.feature_names_))
    assert len(set(encoder.feature_names_)) == len(encoder.feature_names_)
    assert (encoded[:rows].std(axis=0) > 0).all()


def test_many_categories_share_a_column() -> None:
    frame = pd.DataFrame({"town": [f"town{min(i % 40, 30)}" for i in range(400)]})
    encoder = Encoder(ColumnPlan(category=("town",))).fit(frame)
    assert len(encoder.feature_names_) == 12
    assert "town=infrequent_sklearn" in encoder.feature_names_


def test_constant_training_rows_are_refused() -> None:
    frame = pd.DataFrame({"x": [1.0, 1.0, 2.0]})
    with pytest.raises(TableError, match="every column is constant in the 2 training rows"):
        Encoder(ColumnPlan(numeric=("x",))).fit(frame.iloc[:2])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-03-04", datetime.datetime(2021, 3, 4)),
        ("25.12.2020", datetime.datetime(2020, 12, 25)),
        ("12/25/2020", datetime.datetime(2020, 12, 25)),
        ("25/12/2020", datetime.datetime(2020, 12, 25)),
        ("2021-03-04 13:30:00", datetime.datetime(2021, 3, 4, 13, 30)),
        ("4 Mar 2021", datetime.datetime(2021, 3, 4)),
        ("March 4, 2021", datetime.datetime(2021, 3, 4)),
    ],
)
def test_dates_as_text(text: str, expected: datetime.datetime) -> None:
    frame = pd.DataFrame({"d": [text] * 20, "x": np.arange(20.0)})
    frame.loc[0, "d"] = None
    plan = quiet_plan(Table("t", frame, pd.Series([0, 1] * 10)))
    parts = DateParts(plan.date).fit(pd.DataFrame({"d": [text]}))
    assert parts.transform(frame.loc[1:1]).tolist() == [[0.0, expected.year, expected.month]]
    assert parts.earliest_["d"].to_pydatetime().replace(tzinfo=None) == expected
    assert np.isnan(parts.transform(frame.loc[0:0])).all()


@pytest.mark.parametrize("values", [["12-15", "16-20"], ["A12", "B3"], ["1.5 mg", "2 mg"]])
def test_text_with_digits_is_no_date(values: list[str]) -> None:
    frame = pd.DataFrame({"d": values * 20})
    assert quiet_plan(Table("t", frame, pd.Series([0, 1] * 20))).category == ("d",)


def test_ambiguous_dates_are_told() -> None:
    frame = pd.DataFrame({"d": ["03/04/2021", "05/06/2021"] * 10})
    with pytest.warns(TableWarning, match="day and month cannot be told apart"):
        plan = plan_columns(Table("t", frame, pd.Series([0, 1] * 10)))
    assert plan.date == {"d": "%m/%d/%Y"}


def test_numbers_are_identifiers_only_if_they_count_or_say_so() -> None:
    rng = np.random.default_rng(0)
    income = rng.permutation(100_000)[:50]
    frame = pd.DataFrame(
        {
            "income": income,
            "CustomerID": income,
            "customer_id": income,
            "counter": rng.permutation(50),
            "valid": rng.random(50),
        }
    )
    plan = quiet_plan(Table("t", frame, pd.Series([0, 1] * 25)))
    assert plan.numeric == ("income", "valid")
    assert set(plan.dropped) == {"CustomerID", "customer_id", "counter"}


def test_numbers_beside_words_are_told_of() -> None:
    numbers = [str(i / 4) for i in range(36)]
    frame = pd.DataFrame(
        {
            "dose": [*numbers, "none", "none", "none", "trace"],
            "grade": [str(i % 12) for i in range(39)] + ["?"],
            "code": [str(i % 3) for i in range(40)],
            "zip": [f"{i % 13:05}" for i in range(40)],
            "account": [str(7 * i) for i in range(40)],
        }
    )
    with pytest.warns(TableWarning) as caught:
        plan = plan_columns(Table("t", frame, pd.Series([0, 1] * 20)))
    told = sorted(str(w.message) for w in caught)
    assert told == [
        "t: column 'account' is left out: 40 distinct texts in 40 rows, an identifier or free "
        "text; give it fewer, larger categories",
        "t: column 'dose' is left out: 36 of 40 texts are numbers, others 'none', 'trace'; turn it "
        "into numbers, others into gaps",
        "t: column 'grade' counts as categories: 39 of 40 texts are numbers, others '?'; turn it "
        "into numbers, others into gaps",
    ]
    assert plan.category == ("grade", "code", "zip")


def test_a_table_without_a_usable_column_is_refused() -> None:
    table = Table("t", pd.DataFrame({"id": range(10), "c": 1}), pd.Series([0, 1] * 5))
    with pytest.warns(TableWarning), pytest.raises(TableError, match="no column can be learned"):
        plan_columns(table)


def csv(tmp_path: Path, text: str, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["a"] * 40, "only the value 'a'.*two classes"),
        ([None] * 40, "no value at all"),
        (["a"] * 20 + ["b"] * 19 + ["rare"], "class 'rare' has one row.*merge"),
        ([i + 0.5 for i in range(40)], "looks measured.*task='regression'"),
        (list(range(0, 400, 10)), "looks measured"),
        ([f"n{i}" for i in range(40)], "looks like an identifier"),
        ([1, 2, 3, 4] * 9 + [7, 7, 7, 9], "class '9' has one row.*--task regression"),
    ],
)
def test_targets_that_are_no_classes_are_refused(
    tmp_path: Path, column: list[object], message: str
) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame({"x": np.arange(40.0), "label": column}).to_csv(path, index=False)
    with pytest.raises(TableError, match=rf"t\.csv: target 'label'.*{message}"):
        read_table(path)


def test_categories_that_no_row_has_are_no_classes(tmp_path: Path) -> None:
    def table(values: list[str | None], categories: list[str]) -> Table:
        target = pd.Categorical(values, categories=categories)
        frame = pd.DataFrame({"x": np.arange(len(values)) / 2, "y": target})
        frame.to_parquet(tmp_path / "t.parquet")
        return read_table(tmp_path / "t.parquet")

    with pytest.raises(TableError, match=r"only the value 'a'.*two classes"):
        table(["a"] * 40, ["a", "b"])
    with pytest.warns(TableWarning, match="20 of 40 rows"), pytest.raises(TableError, match="only"):
        table(["a", None] * 20, ["a", "b"])
    found = table(["b", "a"] * 20, [f"unused {i}" for i in range(60)] + ["b", "a"])
    assert len(found) == 40
    assert found.classes == ("b", "a")
    assert found.codes.tolist() == [0, 1] * 20


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    path = csv(tmp_path, "x,y\n1,a\n2,\n3,b\n4,a\n5,b\n")
    with pytest.warns(TableWarning, match="1 of 5 rows have no label"):
        table = read_table(path)
    assert table.features["x"].tolist() == [1, 3, 4, 5]
    assert table.codes.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_question_marks_and_byte_order_marks(tmp_path: Path, separator: str) -> None:
    lines = ["x,z,y", "1,?,a", "2,5,b", "3,6,a", "4,,b"]
    text = "\n".join(lines).replace(",", separator)
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8-sig")
    table = read_table(path)
    assert table.features.columns.tolist() == ["x", "z"]
    assert table.features["z"].isna().tolist() == [True, False, False, True]


def test_separators_within_quoted_names_do_not_count(tmp_path: Path) -> None:
    header = '"radius, mean, mm";"texture, mean, worst, a.u.";"y"'
    table = read_table(csv(tmp_path, f"{header}\n1;5;a\n2;6;b\n3;7;a\n4;8;b\n"))
    assert table.features.columns.tolist() == ["radius, mean, mm", "texture, mean, worst, a.u."]


def test_decimal_commas_are_numbers_where_the_separator_is_another(tmp_path: Path) -> None:
    lines = ["x;z;word;y", "1,5;2;1,5 mg;a", "-2,25;3;2 mg;b", ";4;3 mg;a", "1e2;5;4,1 mg;b"]
    with pytest.warns(TableWarning, match="'x': numbers with a decimal comma"):
        table = read_table(csv(tmp_path, "\n".join(lines)))
    assert table.features["x"].dropna().tolist() == [1.5, -2.25, 100]
    assert table.features["word"].tolist() == ["1,5 mg", "2 mg", "3 mg", "4,1 mg"]
    with pytest.warns(TableWarning, match="'x': is the comma a decimal one, or between thousands"):
        with_commas = read_table(csv(tmp_path, 'x,y\n"1,500",a\n"2,500",b\n"3,500",a\n"4,500",b\n'))
    assert with_commas.features["x"].tolist() == ["1,500", "2,500", "3,500", "4,500"]
    with pytest.warns(TableWarning, match="'x': is the comma a decimal one, or between thousands"):
        unclear = read_table(csv(tmp_path, "x\ty\n1,234\ta\n12,500\tb\n987\ta\n5\tb\n"))
    assert unclear.features["x"].tolist() == ["1,234", "12,500", "987", "5"]


def test_a_class_may_be_called_none(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{'None' if i == 2 else 'low'},{c}" for i, c in enumerate("NsNsN"))
    path = csv(tmp_path, "x,level,stage\n" + rows.replace("N\n", "None\n") + "one\n9,low,N/A\n")
    with pytest.warns(TableWarning, match="1 of 6 rows have no label"):
        table = read_table(path)
    assert table.classes == ("None", "s")
    assert table.codes.tolist() == [0, 1, 0, 1, 0]
    assert table.unlabelled == 1
    assert table.features["level"].isna().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("labels", [["0", "1"], ["True", "False"]])
def test_none_among_numbers_is_no_label(tmp_path: Path, labels: list[str]) -> None:
    rows = "\n".join(f"{i},{[*labels, 'None'][i % 3]}" for i in range(30))
    with pytest.warns(TableWarning, match="10 of 30 rows have no label"):
        table = read_table(csv(tmp_path, "x,y\n" + rows))
    assert [str(label).removesuffix(".0") for label in table.classes] == sorted(labels)


def test_none_among_measured_numbers_is_a_gap(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{'None' if i % 10 == 0 else i / 7}" for i in range(40))
    with pytest.warns(TableWarning, match="4 of 40 rows"):
        table = read_table(csv(tmp_path, "x,y\n" + rows), task="auto")
    assert table.task == "regression"
    assert len(table) == 36


def test_another_column_may_be_the_target(tmp_path: Path) -> None:
    path = csv(tmp_path, "kind,x\na,1\nb,2\na,3\nb,5\n")
    table = read_table(path, target="kind")
    assert table.features.columns.tolist() == ["x"]
    assert table.classes == ("a", "b")
    with pytest.raises(TableError, match=r"no column 'knid'.*Did you mean 'kind'\?.*'kind', 'x'"):
        read_table(path, target="knid")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "empty"),
        ("t.csv", b"a,b\n", "no rows"),
        ("t.csv", b"just one column\n1\n2\n", r"1 column\(s\)"),
        ("t.csv", b"a,b\n1,\xff\xfe\n", "UTF-8"),
        ("t.csv", b'a,b\n1,"2\n', "cannot be read as CSV"),
        ("t.csv", b"a,b\n1,2,3\n4,5,6\n", "more cells than its header"),
        ("t.parquet", b"not parquet at all", "cannot be read as PARQUET"),
        ("t.pkl", b"\x80\x04.", r"ends in '\.pkl' cannot be read; save the table as \.csv"),
        ("t", b"", "ends in 'nothing'"),
    ],
)
def test_unreadable_files_are_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TableError, match=message) as error:
        read_table(path)
    assert str(path) in str(error.value)


def test_a_missing_file_suggests_a_near_name(messy_csv: Path) -> None:
    with pytest.raises(TableError, match=r"no such file\. Did you mean 'messy\.csv'"):
        read_table(messy_csv.with_name("mesy.csv"))
    with pytest.raises(TableError, match="this is a folder"):
        read_table(messy_csv.parent)


def test_folders_of_tables(messy_csv: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    messy_frame().to_parquet(inner / "messy.parquet")
    csv(inner, "x,y\n1,a\n", "bad.csv")
    csv(inner, "not a table", "README.md")
    tables, errors = read_tables([messy_csv, inner, messy_csv])
    assert [table.name for table in tables] == ["messy", "messy-2"]
    assert [table.path for table in tables] == [messy_csv, inner / "messy.parquet"]
    assert list(errors) == [str(inner / "bad.csv")]
    assert "only the value 'a'" in errors[str(inner / "bad.csv")]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(TableError, match="holds no"):
        read_tables([empty])
    with pytest.raises(TableError, match="paths is empty"):
        read_tables([])


@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_builtin_tables_encode(name: str) -> None:
    table = builtin_table(name)
    encoded = Encoder(quiet_plan(table)).fit(table.features).transform(table.features)
    assert np.isfinite(encoded).all()
    assert len(encoded) == len(table)


def test_unknown_builtin_lists_names() -> None:
    with pytest.raises(TableError, match=r"'wien' is not known\. Did you mean 'wine'\?.*'iris'"):
        builtin_table("wien")


@settings(max_examples=60)
@given(
    st.lists(st.integers(2, 120), min_size=2, max_size=6),
    st.integers(0, 1000),
    st.integers(1, 300),
)
def test_splits_are_nested_stratified_and_disjoint(
    counts: list[int], seed: int, max_test: int
) -> None:
    codes = np.repeat(np.arange(len(counts)), counts)
    codes = np.random.default_rng(seed).permutation(codes)
    largest = largest_size(len(codes))
    sizes = sorted({size for size in (8, 16, 32, 64, largest) if len(counts) <= size <= largest})
    if not sizes:
        return
    split = nested_split(codes, sizes, seed, max_test)
    again = nested_split(codes, sizes, seed, max_test)
    np.testing.assert_array_equal(split.test, again.test)
    before: set[int] = set()
    for size in sizes:
        rows = split.train[size]
        assert len(rows) == len(set(rows)) == size
        assert before <= set(rows.tolist())
        before = set(rows.tolist())
        found = np.bincount(codes[rows], minlength=len(counts))
        assert (found >= 1).all()
        share = size * np.array(counts) / len(codes)
        assert (np.abs(found - share) <= len(counts) + 2).all()
    assert not before & set(split.test.tolist())
    assert len(split.test) == min(len(codes) - sizes[-1], max_test)
    if max_test >= len(codes):
        assert set(codes[split.test]) == set(range(len(counts)))


def test_seeds_draw_different_rows() -> None:
    codes = np.arange(200) % 2
    first, second = (nested_split(codes, [32], seed).train[32] for seed in (0, 1))
    assert set(first) != set(second)


def test_sizes_that_do_not_fit_are_refused() -> None:
    codes = np.arange(150) % 3
    check_size("iris", codes, 120)
    with pytest.raises(TableError, match=r"iris: size 128 leaves.*at most 120"):
        check_size("iris", codes, 128)
    with pytest.raises(TableError, match="smaller than its 3 classes"):
        check_size("iris", codes, 2)


@settings(max_examples=60)
@given(st.integers(2, 4), st.integers(30, 60), st.integers(1, 4), st.integers(0, 1000))
def test_groups_are_never_trained_on_and_tested(
    classes: int, count: int, most: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(count), rng.integers(1, most + 1, count)))
    codes = (groups % classes).astype(np.int64)
    sizes = [size for size in (8, 16) if len(codes) - size - most >= 20]
    if not sizes:
        return
    split = grouped_split("t", codes, groups, sizes, seed)
    again = grouped_split("t", codes, groups, sizes, seed)
    np.testing.assert_array_equal(split.test, again.test)
    before: set[int] = set()
    for size in sizes:
        rows = split.train[size]
        assert len(rows) == len(set(rows.tolist())) == size
        assert before <= set(rows.tolist())
        before = set(rows.tolist())
        assert len(np.unique(codes[rows])) == classes
    assert not set(groups[split.test]) & set(groups[rows])
    assert len(np.unique(codes[split.test])) == classes
    # At most one group is cut in two, and only its rest is neither trained on nor tested.
    unused = np.setdiff1d(np.arange(len(codes)), [*rows, *split.test])
    assert len(set(groups[unused])) <= 1


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.floats(0.05, 0.5))
def test_groups_of_mixed_classes_show_every_class(seed: int, rare: float) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(48), 5)
    codes = (rng.random(240) < rare).astype(np.int64)
    codes[:2], codes[-2:] = [0, 1], [0, 1]
    check_groups("t", groups, 32)
    split = grouped_split("t", codes, groups, [16, 32], seed)
    for rows in (split.train[16], split.test):
        assert set(codes[rows]) == {0, 1}
    assert not set(groups[split.test]) & set(groups[split.train[32]])
    assert len(split.test) >= 240 - 32 - 4


def test_visits_of_a_patient_do_not_give_the_label_away(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 3)
    x = rng.normal(size=(60, 4))[patient] + 0.01 * rng.normal(size=(180, 4))
    frame = pd.DataFrame(x, columns=list("abcd")).assign(
        patient_id=patient, outcome=rng.permutation(np.arange(60) % 2)[patient]
    )
    path = tmp_path / "visits.csv"
    frame.to_csv(path, index=False)
    shares = {}
    for group in (None, "patient_id"):
        table = read_table(path, "outcome", group=group)
        split = table.split([40, 80], seed=0)
        nearest = KNeighborsClassifier(1).fit(x[split.train[80]], table.codes[split.train[80]])
        shares[group] = nearest.score(x[split.test], table.codes[split.test])
    assert shares[None] > 0.75
    assert shares["patient_id"] < 0.7
    assert "patient_id" not in table.features
    with pytest.warns(TableWarning, match="'patient_id' has a name like an identifier's, and 60"):
        plan_columns(read_table(path, "outcome"))
    assert not quiet_plan(table).dropped
    with pytest.raises(TableError, match=r"size 159 may leave fewer.*use a size of at most 158"):
        check_groups("visits", patient, 159)
    with pytest.raises(TableError, match=r"size 140 leaves \d+ rows of other groups"):
        grouped_split("t", table.codes[:150], patient[:150], [140], seed=0)
    with pytest.raises(TableError, match=r"no column 'patient'.*Did you mean 'patient_id'\?"):
        read_table(path, "outcome", group="patient")
    with pytest.raises(TableError, match="is the target, so it cannot be the group"):
        read_table(path, "outcome", group="outcome")
    frame.assign(patient_id=frame["patient_id"].where(frame.index > 1)).to_csv(path, index=False)
    with pytest.raises(TableError, match="2 of 180 rows have no 'patient_id'"):
        read_table(path, "outcome", group="patient_id")


def test_a_name_that_stands_twice_in_a_csv_is_refused(tmp_path: Path) -> None:
    """pandas renames the second one, which would make a feature of a copy of the target."""
    with pytest.raises(TableError, match="column 'y' stands in it twice; rename one"):
        read_table(csv(tmp_path, "age,y,crp,y\n1,a,2,a\n2,b,3,b\n"), "y")
    with pytest.raises(TableError, match="column 'y' stands in it twice; rename one"):
        read_table(csv(tmp_path, "y,x,y \na,1,a\nb,2,b\n"), "y")
    spaced = read_table(csv(tmp_path, "a , b ,y \n1,2,u\n2,3,v\n3,5,u\n4,4,v\n"), "y")
    assert spaced.features.columns.tolist() == ["a", "b"]
    blank = read_table(csv(tmp_path, ",x,,y\n1,2,3,a\n4,5,6,b\n7,8,9,a\n1,1,1,b\n"))
    assert blank.features["x"].tolist() == [2, 5, 8, 1]


def test_blanks_around_text_say_nothing(tmp_path: Path) -> None:
    text = 'x,word,y\n1,north ,dead\n2 ,"  north",dead \n NA , NA ,alive\n4,south,"alive "\n'
    table = read_table(csv(tmp_path, text))
    assert table.classes == ("alive", "dead")
    assert table.features["word"].dropna().tolist() == ["north", "north", "south"]
    np.testing.assert_array_equal(table.features["x"], [1, 2, np.nan, 4])


def test_dots_and_dashes_among_numbers_are_gaps(tmp_path: Path) -> None:
    lines = ["lactate,k,stage,y", "1.5,-,-,a", ".,+,I,b", "2.5,-,II,a", "-,+,I,b", "3,-,II,a"]
    with pytest.warns(
        TableWarning, match=r"'lactate': '\.' and '-' among numbers, read as missing"
    ):
        table = read_table(csv(tmp_path, "\n".join(lines)))
    np.testing.assert_array_equal(table.features["lactate"], [1.5, np.nan, 2.5, np.nan, 3])
    assert table.features["k"].tolist() == ["-", "+", "-", "+", "-"]
    assert table.features["stage"].tolist() == ["-", "I", "II", "I", "II"]


def test_points_are_between_thousands_where_commas_are_decimal(tmp_path: Path) -> None:
    lines = ["n;dose;sum;ratio;y", "950;2,5;4.245,75;1.5;a", "1.050;3,25;12,5;2.25;b",
             "1.230.000;4,5;1,5;3;a", ";5,5;;1;b"]  # fmt: skip
    with pytest.warns(TableWarning) as caught:
        table = read_table(csv(tmp_path, "\n".join(lines)))
    np.testing.assert_array_equal(table.features["n"], [950, 1050, 1_230_000, np.nan])
    np.testing.assert_array_equal(table.features["sum"], [4245.75, 12.5, 1.5, np.nan])
    assert table.features["ratio"].tolist() == [1.5, 2.25, 3, 1]  # no points between thousands
    said = " ".join(str(warning.message) for warning in caught)
    assert "'dose', 'sum': numbers with a decimal comma" in said
    assert "'n': numbers with points, read as those between thousands" in said
    points = read_table(csv(tmp_path, "n;y\n1.050;a\n2.125;b\n3.500;a\n4.250;b\n"))
    assert points.features["n"].tolist() == [1.05, 2.125, 3.5, 4.25]  # nothing says otherwise


def test_commas_in_quotes_are_told_of_and_change_nothing_else(tmp_path: Path) -> None:
    """They may be lists of codes, and between commas points are decimal."""
    path = csv(tmp_path, 'code,x,y\n"1,2",71.250,a\n1,82.125,b\n"2,3",93.500,a\n2,64.250,b\n')
    with pytest.warns(TableWarning, match="'code': is the comma a decimal one"):
        table = read_table(path)
    assert table.features["code"].tolist() == ["1,2", "1", "2,3", "2"]
    assert table.features["x"].tolist() == [71.25, 82.125, 93.5, 64.25]


@pytest.mark.parametrize("gap", ["-", ".", " - ", "NA ", "", "None"])
def test_gaps_and_points_between_thousands_go_together(tmp_path: Path, gap: str) -> None:
    x = ["2,5", "3,5", gap, "1,5", "4,5", "2,75"]
    n = ["950", "1.050", gap, "2.300", "3.100", "800"]
    y = ["1,5", "2.300,5", "3,5", gap, "4,5", "5,5"]
    rows = "\n".join(";".join(row) for row in zip(x, n, y, strict=True))
    with pytest.warns(TableWarning):
        table = read_table(csv(tmp_path, f"x;n;y\n{rows}\n"), task="regression")
    np.testing.assert_array_equal(table.features["x"], [2.5, 3.5, np.nan, 4.5, 2.75])
    np.testing.assert_array_equal(table.features["n"], [950, 1050, np.nan, 3100, 800])
    np.testing.assert_array_equal(table.y, [1.5, 2300.5, 3.5, 4.5, 5.5])


@pytest.mark.parametrize(
    "texts", [["1234.5", "1000.2"], ["1751-7", "1975-2"], ["12345678", "20210301"]]
)
def test_numbers_are_no_dates(texts: list[str]) -> None:
    assert guess_date_format(pd.Series(texts)) is None


@pytest.mark.parametrize(
    "text",
    [
        *("2021-03", "2021-03-05", "2021-03-05T10:00:00Z", "20210305T1000", "2021-03-05 10:00"),
        *("2021/03/05T10:00", "2021/03/05 10:00:00.123", "2021 03 05", "2021/03"),
    ],
)
def test_dates_in_iso_format_are_dates(text: str) -> None:
    found = guess_date_format(pd.Series([text]))
    assert found is not None
    assert pd.to_datetime(text, format=found.format) == pd.Timestamp(text)


def test_years_of_two_digits_are_told_of() -> None:
    born = pd.Series(["13.04.45", "15.04.72", "28.12.39"] * 4)
    with pytest.warns(TableWarning, match="'born': years have two digits; read as 1969 to 2068"):
        plan_columns(Table("t", pd.DataFrame({"born": born}), pd.Series(["a", "b"] * 6)))


def test_a_column_of_many_categories_is_kept_where_its_type_says_so() -> None:
    names = [f"ward {i}" for i in range(40)] + ["ward 0"] * 20
    frame = pd.DataFrame({"ward": names, "x": np.arange(60.0) ** 2})
    labels = pd.Series(["a", "b"] * 30)
    with pytest.warns(TableWarning, match="'ward' is left out"):
        assert plan_columns(Table("t", frame, labels)).category == ()
    typed = frame.astype({"ward": "category"})
    assert plan_columns(Table("t", typed, labels)).category == ("ward",)


def test_a_date_with_gaps_has_one_indicator() -> None:
    days = pd.Series(pd.date_range("2021-01-01", periods=6, freq="45D")).where(np.arange(6) != 2)
    whole = pd.Series(pd.date_range("2020-01-01", periods=6, freq="99D"))
    frame = pd.DataFrame({"born": whole, "seen": days, "x": [1.0, None, 2, 3, 4, 5]})
    encoder = Encoder(ColumnPlan(numeric=("x",), date={"born": None, "seen": None})).fit(frame)
    names = list(encoder.feature_names_)
    gaps = {name: place for place, name in enumerate(names) if name.endswith("_missing")}
    assert set(gaps) == {"x_missing", "seen_missing"}
    encoded = encoder.transform(frame)
    np.testing.assert_array_equal(encoded[:, gaps["seen_missing"]] > 0, days.isna())
    later = frame.assign(born=pd.NaT, seen=whole)
    np.testing.assert_array_equal(encoder.transform(later)[:, gaps["seen_missing"]] > 0, False)


def test_features_that_would_have_one_name_are_told_of() -> None:
    days = pd.Series(pd.date_range("2021-01-01", periods=6, freq="45D")).where(np.arange(6) != 2)
    frame = pd.DataFrame({"visit": days, "visit_missing": [0.0, 1, 2, 3, 4, 9]})
    plan = ColumnPlan(numeric=("visit_missing",), date={"visit": None})
    with pytest.raises(TableError, match=r"'x_missing', .* rename it .*visit_missing"):
        Encoder(plan).fit(frame)
