"""Reads the first sheet of an Excel file (`.xlsx`): numbers and texts, no formulas."""

from __future__ import annotations

import io
import re
import zipfile
from xml.etree import ElementTree

import pandas as pd

_NAMES = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_sheet(data: bytes, header: int = 0) -> pd.DataFrame:
    """The first sheet of an Excel file.

    Args:
        data: the file.
        header: which row names the columns, from 0; those above it are left out. A name that
            stands there again gets a number: `V-11`, `V-11.1`, and so on.

    Returns:
        Text in every cell, or None where it is empty.

    Raises:
        ValueError: the file is not an Excel file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            sheet = ElementTree.fromstring(parts.read("xl/worksheets/sheet1.xml"))
            shared = ElementTree.fromstring(parts.read("xl/sharedStrings.xml"))
    except (zipfile.BadZipFile, KeyError, ElementTree.ParseError) as error:
        raise ValueError(f"not an Excel file that can be read here: {error}") from error
    texts = ["".join(t.text or "" for t in item.iter(f"{_NAMES}t")) for item in shared]
    rows = [_cells(row, texts) for row in sheet.iter(f"{_NAMES}row")]
    rows = [row for row in rows if any(cell is not None for cell in row.values())]
    width = 1 + max(max(row) for row in rows)
    table = [[row.get(i) for i in range(width)] for row in rows]
    names = _distinct([name or f"Unnamed: {i}" for i, name in enumerate(table[header])])
    return pd.DataFrame(table[header + 1 :], columns=names, dtype=object)


def _cells(row: ElementTree.Element, texts: list[str]) -> dict[int, str | None]:
    """The cells of a row by the number of their column. Empty ones are not in the file."""
    found: dict[int, str | None] = {}
    for cell in row.iter(f"{_NAMES}c"):
        letters = re.sub(r"\d", "", cell.get("r", ""))
        number = 0
        for letter in letters:
            number = 26 * number + ord(letter) - ord("A") + 1
        value = cell.findtext(f"{_NAMES}v")
        if value is not None and cell.get("t") == "s":
            value = texts[int(value)]
        found[number - 1] = value
    return found


def _distinct(names: list[str]) -> list[str]:
    counts: dict[str, int] = {}
    result = []
    for name in names:
        before = counts.get(name, 0)
        result.append(f"{name}.{before}" if before else name)
        counts[name] = before + 1
    return result
