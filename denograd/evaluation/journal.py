"""The folder of an evaluation: every finished cell is on disk before the next.

``cells.jsonl`` is the record: one line a finished cell, its row, its curve, the importance of its
columns and the recall of its classes, flushed to the disk at once. ``results.csv`` and everything
else can be made from it again. A last line that was cut off by a kill is ignored, and its cell
runs again.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from denograd._files import write_whole
from denograd.evaluation.config import EvaluationError, OtherSettingsError
from denograd.evaluation.joining import join
from denograd.evaluation.metrics import METRICS
from denograd.evaluation.regression_metrics import REGRESSION_METRICS
from denograd.evaluation.train import Cell, CellResult

COLUMNS = (
    *Cell._fields,
    "steps",
    *METRICS,
    "train_seconds",
    "n_test",
    "n_features",
    "n_classes",
    "batch_size",
    "train_log_loss",
    "diverged",
)
"""Columns of ``results.csv``."""

REGRESSION_COLUMNS = (
    *Cell._fields,
    "steps",
    *REGRESSION_METRICS,
    "train_seconds",
    "n_test",
    "n_features",
    "target_deviation",
    "batch_size",
    "train_loss",
    "diverged",
)
"""The same for measured targets."""

_ERROR_COLUMNS = (*Cell._fields, "error")
Restart = Literal["never", "changed", "always"]
"""When to throw away what a folder holds of an evaluation before.

``changed``: only what has other settings, and is of the same tables nevertheless.
"""

_KEPT = ("importance", "recalls", "class_rows")
"""What `CellResult` knows beside its row and its curve."""
_FILES = (
    *("cells.jsonl", "results.csv", "errors.csv", "summary.json", "report.html"),
    *("versions.json", "config.json"),
)


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep a folder to one evaluation: two would each drop lines of the other.

    Raises:
        EvaluationError: another evaluation has it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise EvaluationError(
            f"{folder}: another evaluation writes to it; wait until it is finished, or choose "
            "another folder"
        ) from None
    except OSError as error:
        raise EvaluationError(
            f"{folder}: the folder cannot be used ({error}); choose another"
        ) from error
    try:
        yield
    finally:
        lock.release()


def read_cells(folder: Path) -> dict[Cell, CellResult]:
    """The finished cells of an evaluation's folder; a line that was cut off is left out."""
    path = folder / "cells.jsonl"
    finished: dict[Cell, CellResult] = {}
    if not path.exists():
        return finished
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            entry = json.loads(line)
            # What an earlier version did not keep is None.
            kept = {name: entry.get(name) for name in _KEPT}
            result = CellResult(_from_json(entry["row"]), entry["curve"], **kept)
            cell = Cell(*(result.row[name] for name in Cell._fields))
        except (ValueError, KeyError, TypeError):
            continue
        if line.endswith("\n"):
            finished[cell] = result
    return finished


class Journal:
    """Reads what an evaluation's folder holds, and appends to it.

    Args:
        folder: made if it is missing.
        settings: everything that the cells depend on, as plain JSON; the ``task`` decides
            the columns. Those of the folder may have other cells beside, see
            `denograd.evaluation.joining`.
        restart: when to throw away what an earlier evaluation left in the folder.

    Attributes:
        changed: the settings that differed, in words, if results were thrown away for
            that; else empty.

    Raises:
        OtherSettingsError: the folder holds an evaluation with other settings.
        EvaluationError: the folder holds other files that were not made by an
            evaluation, or it cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], restart: Restart = "never") -> None:
        self.folder = folder
        self.changed = ""
        self._columns = REGRESSION_COLUMNS if settings.get("task") == "regression" else COLUMNS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if restart == "always":
                self._clear()
            self._claim(settings, restart)
        except OSError as error:
            raise EvaluationError(
                f"{folder}: the folder cannot be used ({error}); choose another"
            ) from error
        self.finished = read_cells(folder)
        self.errors: list[tuple[Cell, str]] = []
        self._rewrite_cells()
        self.write_results(list(self.finished))
        (folder / "errors.csv").unlink(missing_ok=True)

    def append(self, cell: Cell, result: CellResult) -> None:
        """Put a finished cell on disk."""
        self.finished[cell] = result
        with (self.folder / "cells.jsonl").open("a", encoding="utf-8") as file:
            file.write(_line(result))
            file.flush()
            os.fsync(file.fileno())
        with (self.folder / "results.csv").open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(result.row)

    def append_error(self, cell: Cell, message: str) -> None:
        """Put a failed cell on disk; a later run tries it again."""
        self.errors.append((cell, message))
        path = self.folder / "errors.csv"
        new = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(_ERROR_COLUMNS)
            writer.writerow([*cell, message])

    def write_results(self, order: list[Cell]) -> None:
        """Write ``results.csv`` anew, its finished cells in the order given."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self.finished[cell].row for cell in order if cell in self.finished)
        write_whole(self.folder / "results.csv", text.getvalue().encode())

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the folder, whole or not at all."""
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(self.folder / name, text.encode())

    def versions_before(self, versions: dict[str, Any]) -> dict[str, Any]:
        """What cells of before were run with where it differs from now, which is then noted.

        Args:
            versions: of packages, by name.
        """
        path = self.folder / "versions.json"
        try:
            before = json.loads(path.read_text(encoding="utf-8")) if self.finished else {}
        except (OSError, ValueError):
            before = {}
        self.write_json("versions.json", versions)
        return {name: value for name, value in before.items() if versions.get(name) != value}

    def _claim(self, settings: dict[str, Any], restart: Restart) -> None:
        path = self.folder / "config.json"
        if not path.exists():
            held = [name for name in _FILES if (self.folder / name).exists()]
            if held:
                raise EvaluationError(
                    f"{self.folder}: it holds {', '.join(held)} but no config.json, so nobody "
                    "knows how they were made; choose another folder, or --restart"
                )
            self.write_json("config.json", settings)
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EvaluationError(
                f"{path}: it is damaged ({error}); choose another folder, or --restart"
            ) from error
        both, contradictions = join(before, settings)
        if not contradictions:
            if both != before:
                self.write_json("config.json", both)
            return
        more = f"; and {len(contradictions) - 3} more" if len(contradictions) > 3 else ""
        difference = "; ".join(contradictions[:3]) + more
        if restart != "changed" or _tables(before) != _tables(settings):
            raise OtherSettingsError(
                f"{self.folder}: it holds an evaluation with other settings "
                f"({difference}); choose another folder, or --restart to throw its results away"
            )
        self._clear()
        self.write_json("config.json", settings)
        self.changed = difference

    def _clear(self) -> None:
        for name in _FILES:
            (self.folder / name).unlink(missing_ok=True)

    def _rewrite_cells(self) -> None:
        lines = [_line(result) for result in self.finished.values()]
        write_whole(self.folder / "cells.jsonl", "".join(lines).encode())


def _line(result: CellResult) -> str:
    row = {key: None if value != value else value for key, value in result.row.items()}
    entry = {"row": row, "curve": result.curve, "importance": result.importance}
    if result.class_rows is not None:
        entry |= {"recalls": result.recalls, "class_rows": result.class_rows}
    return json.dumps(entry, allow_nan=False) + "\n"


def _from_json(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN, so an undefined metric is stored as null."""
    return {key: float("nan") if value is None else value for key, value in row.items()}


def _tables(settings: Any) -> set[str] | None:
    """Names of the tables that results are of; None if the settings do not say."""
    tables = settings.get("tables") if isinstance(settings, dict) else None
    return set(tables) if isinstance(tables, dict) else None
