"""Tasks with a measured target, cut from the regression tables of a split."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from _development_tables import files_of

from denograd.data import TableError, TableWarning, plan_columns, read_tables
from denograd.evaluation.running_units import encode
from denograd.meta.task import Task

_ATTEMPTS = 100


class MeasuredFamily:
    """Draws new training and test rows from a table that is drawn first.

    Args:
        data: the folder that holds `catalog.csv` and the splits' folders.
        split: `meta_train` or `meta_validation`.
    """

    def __init__(self, data: Path, split: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TableWarning)
            self.tables, errors = read_tables(
                files_of(data, split, ["regression"]), "target", "regression"
            )
        for message in errors.values():
            print(f"left out: {message}")
        self._plans = {table.name: plan_columns(table) for table in self.tables}

    def draw(self, rng: np.random.Generator, rows: int, test_rows: int, max_features: int) -> Task:
        """Draw a task; tables that are wider than ``max_features`` lend none."""
        for _ in range(_ATTEMPTS):
            table = self.tables[rng.integers(len(self.tables))]
            order = rng.permutation(len(table.y))[: rows + test_rows]
            if len(order) < rows + 20:
                continue
            try:
                data = encode(table, self._plans[table.name], order[:rows], order[rows:])
            except TableError:
                continue  # Every column, or the target, is constant in these rows.
            if data.x_train.shape[1] <= max_features:
                return Task(table.name, data.x_train, data.y_train, data.x_test, data.y_test, None)
        raise TableError(
            f"{_ATTEMPTS} draws gave no task of {rows} rows and at most {max_features} features; "
            "ask for fewer rows or more features"
        )
