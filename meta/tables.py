"""Real tables as sources of tasks: read and encoded once, kept in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denograd.data import Encoder, Table, TableError, plan_columns, read_tables
from denograd.data.target import TaskName


@dataclass(frozen=True)
class SourceTable:
    """A real table as numbers.

    Attributes:
        name: of the data set.
        columns: ``(rows, features)``, encoded as the evaluation encodes training rows. A
            draw standardises its own training rows anew.
        labels: ``(rows,)``, classes ``0..n_classes-1``, or measured numbers as float64.
        ordered: whether the columns are the steps of a series, which draws leave in order.
        channels: of sequences, whose columns are channels by steps, not standardised; 0 for
            tables.
        overlap: rows that are nearer to one another than this share steps, as the windows that
            slide along one long series do. Draws then test on later rows than they train on.
    """

    name: str
    columns: NDArray[np.float32]
    labels: NDArray[Any]
    ordered: bool = False
    channels: int = 0
    overlap: int = 0

    @property
    def n_classes(self) -> int | None:
        """Number of classes; None for a measured target."""
        return None if self.labels.dtype.kind == "f" else int(self.labels.max()) + 1


def encode_source(table: Table, ordered: bool = False) -> SourceTable:
    """Encode a table for meta-training.

    Args:
        table: the table.
        ordered: whether its columns are the steps of a series.

    Raises:
        TableError: no column of it can be used.
    """
    encoder = Encoder(plan_columns(table)).fit(table.features)
    return SourceTable(table.name, encoder.transform(table.features), table.y, ordered)


def load_sources(
    paths: Sequence[str], target: str | None = None, task: TaskName = "classification"
) -> tuple[list[SourceTable], dict[str, str]]:
    """Read and encode files, and the tables of folders.

    Args:
        paths: CSV or Parquet files, or folders of them.
        target: name of the label's column in each; default: the last.
        task: ``classification``, or ``regression`` for targets that are measured.

    Returns:
        the sources, and for each file that could not be used the reason.

    Raises:
        TableError: no file could be used.
    """
    tables, errors = read_tables(paths, target, task)
    sources = []
    for table in tables:
        try:
            sources.append(encode_source(table))
        except TableError as error:
            errors[table.name] = str(error)
    if not sources:
        reasons = "\n  ".join(errors.values())
        raise TableError(f"none of the {len(errors)} tables can be used:\n  {reasons}")
    return sources, errors


def fingerprint_tables(tables: Sequence[SourceTable]) -> str:
    """A hash of names, numbers and labels, in their order."""
    digest = hashlib.sha256()
    for table in tables:
        kind = f"{table.channels} channels, overlap {table.overlap}" if table.channels else ""
        digest.update(f"{table.name} {table.columns.shape} {table.ordered} {kind}".encode())
        digest.update(np.ascontiguousarray(table.columns).tobytes())
        digest.update(np.ascontiguousarray(table.labels).tobytes())
    return digest.hexdigest()
