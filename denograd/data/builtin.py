"""Real tables that scikit-learn ships, for a first look without a file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn import datasets

from denograd.data.errors import TableError, listing, suggestion
from denograd.data.table import Table

_DIGITS = (3, 5, 8)


def _digits3() -> Table:
    """8x8 images of the digits 3, 5 and 8, the three that look most alike."""
    bunch = datasets.load_digits(as_frame=True)
    kept = np.isin(bunch.target, _DIGITS)
    features = bunch.data[kept].reset_index(drop=True)
    labels = bunch.target[kept].reset_index(drop=True)
    return Table("digits3", features, labels)


def _shipped(name: str, load: Callable[..., datasets.Bunch]) -> Callable[[], Table]:
    def make() -> Table:
        bunch = load(as_frame=True)
        labels = pd.Series(np.asarray(bunch.target_names)[bunch.target], name="class").astype(str)
        return Table(name, bunch.data, labels)

    return make


def _diabetes() -> Table:
    bunch = datasets.load_diabetes(as_frame=True)
    target = bunch.target.rename("progression")
    return Table("diabetes", bunch.data, target, task="regression")


_MAKERS: dict[str, Callable[[], Table]] = {
    "breast_cancer": _shipped("breast_cancer", datasets.load_breast_cancer),
    "wine": _shipped("wine", datasets.load_wine),
    "iris": _shipped("iris", datasets.load_iris),
    "digits3": _digits3,
    "diabetes": _diabetes,
}

BUILTIN_NAMES = tuple(_MAKERS)
"""Names that `builtin_table` knows."""


def builtin_table(name: str) -> Table:
    """A table that scikit-learn ships.

    Args:
        name: ``breast_cancer`` (569 rows, 30 features, 2 classes), ``wine`` (178, 13, 3),
            ``iris`` (150, 4, 3), ``digits3`` (539, 64, 3; the digits 3, 5 and 8) or, for
            regression, ``diabetes`` (442, 10; its progression within a year).

    Raises:
        TableError: another name.

    Example:
        >>> table = builtin_table("wine")
        >>> len(table), table.features.columns[0], table.classes
        (178, 'alcohol', ('class_0', 'class_1', 'class_2'))
    """
    if name not in _MAKERS:
        raise TableError(
            f"builtin {name!r} is not known.{suggestion(name, BUILTIN_NAMES)} "
            f"Use one of {listing(BUILTIN_NAMES)}."
        )
    return _MAKERS[name]()
