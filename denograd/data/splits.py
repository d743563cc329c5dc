"""Nested training subsets and one test set for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from denograd.data.errors import TableError

MAX_TEST_ROWS = 2000
"""A test set has at most so many rows."""

LEAST_TEST_ROWS = 20
"""And at least so many."""
_LEAST_TEST_SHARE = 0.2


@dataclass(frozen=True)
class Split:
    """Which rows are trained on and which are tested.

    Attributes:
        train: for each size its rows; a smaller size's rows stand in all larger ones.
        test: rows that stand in none of them.
    """

    train: Mapping[int, NDArray[np.int64]]
    test: NDArray[np.int64]


def largest_size(rows: int) -> int:
    """The largest training size that leaves 20 rows and 20 % of the rows to test on.

    Example:
        >>> largest_size(178), largest_size(50)
        (142, 30)
    """
    return rows - max(LEAST_TEST_ROWS, int(np.ceil(_LEAST_TEST_SHARE * rows)))


def check_size(name: str, codes: NDArray[np.int64], size: int, groups: str = "classes") -> None:
    """Raise an error if a table cannot lend so many training rows.

    Args:
        name: of the table, for the message.
        codes: ``(rows,)``, class of each row.
        size: number of training rows.
        groups: what the codes stand for, for the message.

    Raises:
        TableError: the size leaves too few rows to test on, or is smaller than the
            number of classes.
    """
    largest, classes = largest_size(len(codes)), len(np.unique(codes))
    if size < classes:
        raise TableError(
            f"{name}: size {size} is smaller than its {classes} {groups}; "
            f"use a size of at least {classes}"
        )
    if size > largest:
        remedy = f"use a size of at most {largest}" if largest >= classes else "give more rows"
        raise TableError(
            f"{name}: size {size} leaves fewer than {LEAST_TEST_ROWS} rows or "
            f"{_LEAST_TEST_SHARE:.0%} of its {len(codes)} rows to test on; {remedy}"
        )


def nested_split(
    codes: NDArray[np.int64], sizes: Sequence[int], seed: int, max_test: int = MAX_TEST_ROWS
) -> Split:
    """Draw nested, stratified training subsets and the test set of a seed.

    Rows are shuffled within each class and put in one order: first a row of each class,
    then all others so that every stretch holds the classes in their shares, and at the
    very end a row of each class. A training subset of size ``n`` is the first ``n`` of
    that order, so that it shows every class and contains all smaller subsets. The test
    set is all rows that the largest subset leaves over, or the last ``max_test`` of them;
    it is the same for every size, so that sizes can be compared.

    Args:
        codes: ``(rows,)``, class of each row, each class with at least two rows; for a
            measured target its `denograd.data.quantile_strata`.
        sizes: numbers of training rows.
        seed: of the draw.
        max_test: at most so many test rows.

    Returns:
        row numbers, for each size and for the test.

    Raises:
        TableError: a size does not fit; see `check_size`.

    Example:
        >>> split = nested_split(np.arange(60) % 3, [6, 12], seed=0)
        >>> {size: len(rows) for size, rows in split.train.items()}, len(split.test)
        ({6: 6, 12: 12}, 48)
        >>> set(split.train[6]) <= set(split.train[12])
        True
    """
    for size in sizes:
        check_size("table", codes, size)
    order = stratified_order(codes, np.random.default_rng(seed))
    test = order[max(sizes) :][-max_test:]
    return Split({size: order[:size] for size in sorted(set(sizes))}, test)


def stratified_order(codes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """An order of rows in which every stretch holds the classes in their shares.

    It begins and ends with a row of each class.

    Args:
        codes: ``(rows,)``, class of each row.
        rng: of the draw.
    """
    place = np.empty(len(codes))
    for code in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        # A random start keeps classes of equal size from standing in a fixed pattern.
        place[rows] = (np.arange(len(rows)) + rng.uniform(0.01, 0.99)) / len(rows)
        place[rows[0]] = -rng.random()
        if len(rows) > 1:
            place[rows[-1]] = 1 + rng.random()
    return np.argsort(place, kind="stable").astype(np.int64)
