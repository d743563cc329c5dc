"""Results on disk before the next fit begins, so that a run goes on where it stopped."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from denograd._files import write_whole


def write_json(path: Path, content: Any) -> None:
    """Write a file that is never seen half written."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


class LineJournal:
    """`results.csv` of a folder: a line for each fit.

    Attributes:
        columns: of the file.
        types: of columns whose cells pandas would take for numbers.
    """

    columns: ClassVar[Sequence[str]]
    types: ClassVar[Mapping[str, str]] = {}

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "results.csv"
        if not self.path.exists():
            self.path.write_text(",".join(self.columns) + "\n", encoding="utf-8")
        text = self.path.read_text(encoding="utf-8")
        # A line that a kill cut off is a fit that is not done.
        self.path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")

    def read(self) -> pd.DataFrame:
        """All lines.

        Raises:
            SystemExit: the file has other columns.
        """
        frame = pd.read_csv(self.path, dtype=dict(self.types))
        if list(frame) != list(self.columns):
            raise SystemExit(f"{self.path}: has other columns; choose another folder")
        return frame

    def append(self, *rows: dict[str, Any]) -> None:
        """Write lines."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerows(rows)
