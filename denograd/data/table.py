"""Tables of rows with a class label or a measured number, read from a user's files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from denograd.data.delimited import check_names, read_csv
from denograd.data.errors import TableError, listing, suggestion
from denograd.data.groups import check_groups, grouped_split
from denograd.data.measured import checked_numbers, quantile_strata
from denograd.data.sequences import check_sequences
from denograd.data.splits import Split, check_size, nested_split
from denograd.data.target import TaskChoice, TaskName, checked_target, task_of

SUFFIXES = (".csv", ".parquet")
"""What `read_table` reads. Pickles are never opened: they can run code."""

_NOT_DECODABLE = "it is not UTF-8 text; save it as UTF-8 (in Excel: 'CSV UTF-8') and try again"


@dataclass(frozen=True)
class Table:
    """Rows to learn from.

    Attributes:
        name: of the data set, as results show it.
        features: ``(rows, columns)``, as they stand in the file.
        target: ``(rows,)``, class labels or, for regression, numbers; none missing.
        path: of the file that it was read from; None if it was not.
        task: ``classification`` or ``regression``.
        unlabelled: rows of the file that had no label and were left out.
        sha256: of the file as it was read; None if there was none.
        n_channels: of sequences, whose columns are channels times steps, channel by channel;
            0 for a table.
        groups: ``(rows,)``, what tells which rows belong together, such as patients with
            several visits; None if each row stands for itself.

    Example:
        >>> table = Table("toy", pd.DataFrame({"x": [1, 2, 3]}), pd.Series(["no", "yes", "no"]))
        >>> table.classes, table.codes.tolist()
        (('no', 'yes'), [0, 1, 0])
        >>> doses = Table("toy", table.features, pd.Series([0.5, 2.0, 0.1]), task="regression")
        >>> doses.n_classes, doses.y.tolist()
        (None, [0.5, 2.0, 0.1])
    """

    name: str
    features: pd.DataFrame
    target: pd.Series[Any]
    path: Path | None = None
    task: TaskName = "classification"
    unlabelled: int = 0
    groups: pd.Series[Any] | None = None
    sha256: str | None = None
    n_channels: int = 0

    @property
    def classes(self) -> tuple[Any, ...]:
        """The class labels in their own order, numbers by size and text by alphabet.

        Raises:
            TableError: the table is one for regression, here and in `codes`.
        """
        return tuple(self._factorized[1])

    @property
    def codes(self) -> NDArray[np.int64]:
        """``(rows,)``, each row's place in `classes`."""
        return self._factorized[0]

    @property
    def n_classes(self) -> int | None:
        """Number of classes, None for regression: what a model is made with."""
        return None if self.task == "regression" else len(self.classes)

    @cached_property
    def y(self) -> NDArray[Any]:
        """``(rows,)``, what is learned: `codes`, or for regression the numbers as float64."""
        if self.task == "classification":
            return self.codes
        return self.target.to_numpy(dtype=np.float64)

    @cached_property
    def strata(self) -> NDArray[np.int64]:
        """``(rows,)``, what splits keep in proportion: classes, or groups of near numbers."""
        return self.codes if self.task == "classification" else quantile_strata(self.y)

    def check_size(self, size: int) -> None:
        """Raise a `TableError` if the table cannot lend so many training rows."""
        groups = "classes" if self.task == "classification" else "groups of near target values"
        check_size(self.name, self.strata, size, groups)
        if self.group_codes is not None:
            check_groups(self.name, self.group_codes, size)

    def split(self, sizes: Sequence[int], seed: int) -> Split:
        """Nested, stratified training subsets and the test set of a seed.

        See `denograd.data.nested_split`, and `denograd.data.grouped_split` for groups.

        Example:
            >>> numbers = pd.Series(range(60), dtype=float)
            >>> table = Table("toy", numbers.to_frame(), numbers, task="regression")
            >>> split = table.split([8, 16], seed=0)
            >>> len(split.train[8]), len(split.test)
            (8, 44)
        """
        for size in sizes:
            self.check_size(size)
        if self.group_codes is None:
            return nested_split(self.strata, sizes, seed)
        return grouped_split(self.name, self.strata, self.group_codes, sizes, seed)

    @cached_property
    def group_codes(self) -> NDArray[np.int64] | None:
        """``(rows,)``, the number of each row's group, from 0; None without groups."""
        if self.groups is None:
            return None
        return pd.factorize(self.groups)[0].astype(np.int64)

    @cached_property
    def _factorized(self) -> tuple[NDArray[np.int64], list[Any]]:
        if self.task != "classification":
            raise TableError(
                f"{self.name}: its target is measured, so it has no classes; use y and strata, or "
                "read it with task='classification'"
            )
        codes, classes = pd.factorize(self.target, sort=True)
        return codes.astype(np.int64), list(classes)

    def __len__(self) -> int:
        return len(self.target)


def read_table(
    path: str | Path,
    target: str | None = None,
    task: TaskChoice = "classification",
    group: str | None = None,
    n_channels: int = 0,
) -> Table:
    """Read a CSV or Parquet file whose rows have a class label or a measured number.

    A CSV's separator may be a comma, a semicolon or a tab; where it is not a comma, numbers may
    have a decimal comma, and in such a file points between thousands. `denograd.data.delimited`
    says which cells count as missing; a dot or a dash does among numbers. Blanks around names and
    texts say nothing. Rows without a label are left out with a `TableWarning`.

    Args:
        path: a ``.csv`` or ``.parquet`` file.
        target: name of the label's column; default: the last.
        task: ``classification``, ``regression``, or ``auto`` for what the target looks
            like; see `denograd.data.task_of`.
        group: name of a column that tells which rows belong together, such as a patient's
            number; they are never split between training and test, nor by the folds of what tunes
            itself on the training rows, and the column is no feature.
        n_channels: rows are sequences of so many channels, and the other columns their steps,
            channel by channel; 0 if columns have nothing to do with one another.

    Returns:
        the table, named after the file.

    Raises:
        TableError: the file is missing, of another kind or unreadable, the target or the group
            is not a column of it, a row has no group, or the target's values are not class
            labels (see `denograd.data.target.checked_target`) or numbers (see
            `denograd.data.measured.checked_numbers`), or rows are no sequences of so many
            channels, all of one length.
    """
    path = Path(path)
    frame = _read_frame(path, target)
    if frame.shape[1] < 2:
        raise TableError(
            f"{path}: it has {frame.shape[1]} column(s) ({listing(frame.columns)}); a table needs "
            "at least one feature and a target. Is the separator a comma, semicolon or tab?"
        )
    if frame.empty:
        raise TableError(f"{path}: it has a header but no rows; give a file with data")
    column = str(frame.columns[-1]) if target is None else target
    if column not in frame.columns:
        raise TableError(
            f"{path}: no column {column!r} for the target.{suggestion(column, frame.columns)} "
            f"Its columns are {listing(frame.columns)}."
        )
    found = task_of(frame[column], task, str(path))
    check = checked_numbers if found == "regression" else checked_target
    labels = check(frame[column], str(path))
    groups = None
    if group is not None:
        groups = _groups(frame, group, column, path).loc[labels.index].reset_index(drop=True)
    unused = [column] if group is None else [column, group]
    features = frame.drop(columns=unused).loc[labels.index].reset_index(drop=True)
    if n_channels:
        check_sequences(features, n_channels, str(path))
    return Table(
        path.stem,
        features,
        labels.reset_index(drop=True),
        path,
        found,
        unlabelled=len(frame) - len(labels),
        groups=groups,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        n_channels=n_channels,
    )


def _groups(frame: pd.DataFrame, group: str, target: str, path: Path) -> pd.Series[Any]:
    if group not in frame.columns:
        raise TableError(
            f"{path}: no column {group!r} for the group.{suggestion(group, frame.columns)} "
            f"Its columns are {listing(frame.columns)}."
        )
    if group == target:
        raise TableError(f"{path}: column {group!r} is the target, so it cannot be the group")
    missing = int(frame[group].isna().sum())
    if missing:
        raise TableError(
            f"{path}: {missing} of {len(frame)} rows have no {group!r}, so it is not known what "
            "they belong to; fill the gaps, each with a value of its own if it stands for itself"
        )
    return frame[group]


def read_tables(
    paths: Sequence[str | Path],
    target: str | None = None,
    task: TaskChoice = "classification",
    group: str | None = None,
    n_channels: int = 0,
) -> tuple[list[Table], dict[str, str]]:
    """Read files, and every CSV and Parquet file of folders.

    A folder's other files are not looked at. What cannot be read does not stop the rest.

    Args:
        paths: files or folders.
        target: name of the label's column in each; default: the last.
        task: see `read_table`; ``auto`` decides for each file by itself.
        group: see `read_table`.
        n_channels: see `read_table`.

    Returns:
        the tables in order, those of one name told apart by ``-2``, ``-3`` and so on,
        and for each file that could not be read its error message.

    Raises:
        TableError: no path was given, or a folder holds no table.
    """
    if not paths:
        raise TableError("paths is empty; give at least one CSV or Parquet file, or a folder")
    tables: list[Table] = []
    errors: dict[str, str] = {}
    taken: dict[str, int] = {}
    for path in _table_files([Path(p) for p in paths]):
        try:
            table = read_table(path, target, task, group, n_channels)
        except TableError as error:
            errors[str(path)] = str(error)
            continue
        taken[table.name] = taken.get(table.name, 0) + 1
        if taken[table.name] > 1:
            table = replace(table, name=f"{table.name}-{taken[table.name]}")
        tables.append(table)
    return tables, errors


def _table_files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES)
            if not found:
                raise TableError(f"{path}: the folder holds no {' or '.join(SUFFIXES)} file")
            files.extend(found)
        else:
            files.append(path)
    # The same file named twice, or through its folder, is one table.
    return list({file.resolve(): file for file in files}.values())


def _read_frame(path: Path, target: str | None) -> pd.DataFrame:
    if path.is_dir():
        raise TableError(f"{path}: this is a folder; name a file in it")
    if not path.is_file():
        beside = [f.name for f in path.parent.glob("*")] if path.parent.is_dir() else []
        raise TableError(f"{path}: there is no such file.{suggestion(path.name, beside)}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise TableError(
            f"{path}: a file that ends in {suffix or 'nothing'!r} cannot be read; "
            f"save the table as {' or '.join(SUFFIXES)}"
        )
    try:
        frame = pd.read_parquet(path) if suffix == ".parquet" else read_csv(path, target)
    except TableError:
        raise
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: {_NOT_DECODABLE}") from error
    except pd.errors.EmptyDataError as error:
        raise TableError(
            f"{path}: the file is empty; give a file with a header and rows"
        ) from error
    except (pd.errors.ParserError, ValueError, OSError) as error:
        # Not only ours: pyarrow's ArrowInvalid is a ValueError, a damaged file an OSError.
        raise TableError(
            f"{path}: it cannot be read as {suffix[1:].upper()} ({error}); check that it opens "
            "elsewhere and save it anew"
        ) from error
    frame.columns = frame.columns.map(str)
    check_names(frame.columns, path)
    return frame
