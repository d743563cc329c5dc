"""Reads tables written as text: rows with or without a header, KEEL's and Weka's formats."""

from __future__ import annotations

import csv
import io
import re

import pandas as pd

MISSING = frozenset({"", "?", "<null>"})
"""Cells that stand for a missing value."""


def read_rows(
    data: bytes, separator: str | None = ",", header: bool = False, prefix: str = ""
) -> pd.DataFrame:
    """A table with one row a line.

    Args:
        data: the file, in UTF-8.
        separator: between cells; None for any run of blanks.
        header: whether the first line names the columns; if not, they are numbered.
        prefix: in front of the numbers.

    Returns:
        Text in every cell, or None where a value is missing.

    Raises:
        ValueError: the lines differ in length.

    Example:
        >>> read_rows(b"1;a\\n?;b\\n", ";", prefix="f")
             f0 f1
        0     1  a
        1  None  b
    """
    text = data.decode("utf-8-sig", errors="replace")
    lines: list[list[str]]
    if separator is None:
        lines = [line.split() for line in text.splitlines()]
    else:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    lines = [[cell.strip() for cell in line] for line in lines if any(map(str.strip, line))]
    names = lines.pop(0) if header else [f"{prefix}{i}" for i in range(len(lines[0]))]
    return _frame(names, lines)


def read_attributes(data: bytes) -> pd.DataFrame:
    """A table of KEEL (`.dat`) or Weka (`.arff`): `@attribute` lines, then rows.

    Returns:
        Text in every cell, or None where a value is missing.

    Raises:
        ValueError: there are no rows, or rows of other lengths than there are attributes.

    Example:
        >>> read_attributes(b"@attribute At1 real[0,1]\\n@attribute C {a,b}\\n@data\\n0.5, a\\n")
           At1  C
        0  0.5  a
    """
    text = data.decode("utf-8", errors="replace")
    parts = re.split(r"(?im)^@data\b.*$", text, maxsplit=1)
    if len(parts) != 2:
        raise ValueError("the file has no line @data")
    head, body = parts
    names = re.findall(r"(?im)^@attribute\s+('[^']*'|\"[^\"]*\"|[^\s{\[]+)", head)
    kept = [line for line in body.splitlines() if line.strip() and not line.startswith("%")]
    lines = [[cell.strip() for cell in line] for line in csv.reader(kept)]
    return _frame([name.strip("'\"") for name in names], lines)


def read_labelled(features: bytes, labels: bytes) -> pd.DataFrame:
    """A table whose labels stand in a file of their own, in the column `label`.

    Raises:
        ValueError: the files differ in length.
    """
    frame = read_rows(features, separator=None, prefix="f")
    column = labels.decode("utf-8").split()
    if len(column) != len(frame):
        raise ValueError(f"{len(frame)} rows have {len(column)} labels")
    return pd.concat([frame, pd.Series(column, name="label", dtype=object)], axis=1)


def _frame(names: list[str], lines: list[list[str]]) -> pd.DataFrame:
    wrong = next((line for line in lines if len(line) != len(names)), None)
    if wrong is not None:
        raise ValueError(f"a row has {len(wrong)} cells, not {len(names)}: {wrong[:5]}...")
    cells = [[None if cell in MISSING else cell for cell in line] for line in lines]
    return pd.DataFrame(cells, columns=names, dtype=object)
