"""Splits that keep rows which belong together, such as the visits of a patient, on one side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from denograd.data.errors import TableError
from denograd.data.splits import LEAST_TEST_ROWS, MAX_TEST_ROWS, Split, stratified_order


def grouped_split(
    name: str,
    codes: NDArray[np.int64],
    groups: NDArray[np.int64],
    sizes: Sequence[int],
    seed: int,
    max_test: int = MAX_TEST_ROWS,
) -> Split:
    """Nested training subsets and a test set that shares no group with any of them.

    As `denograd.data.nested_split`, of groups instead of rows: a group counts as one of the class
    that most of its rows have, and its rows stand together. Where a training size cuts a group in
    two, the rest of it is trained on at larger sizes, and never tested.

    Args:
        name: of the table, for messages.
        codes: ``(rows,)``, class of each row, or stratum of a measured target.
        groups: ``(rows,)``, number of each row's group, counted from 0.
        sizes: numbers of training rows.
        seed: of the draw.
        max_test: at most so many test rows.

    Raises:
        TableError: fewer than 20 test rows are left, or a class is missing among them or among
            the training rows.

    Example:
        >>> patients = np.arange(120) // 2
        >>> split = grouped_split("visits", patients % 3, patients, [15, 31], seed=0)
        >>> len(split.train[15]), len(split.train[31]), len(split.test)
        (15, 31, 88)
        >>> bool(np.isin(patients[split.test], patients[split.train[31]]).any())
        False
    """
    rng, present = np.random.default_rng(seed), np.unique(codes)
    counts = np.zeros((int(groups.max()) + 1, int(codes.max()) + 1), dtype=np.int64)
    np.add.at(counts, (groups, codes), 1)
    usual = counts.argmax(1)
    order = stratified_order(usual, rng)
    first = _with_each(order, counts, present, ())
    last = _with_each(order[::-1], counts, present, first)
    rank = np.empty(len(order))
    rank[order] = np.arange(len(order))
    rank[last] += len(order)
    rank[first] -= len(order)
    place = rank[groups] + rng.random(len(codes))
    for code in present:
        # A row of each class comes first, however many rows its group has.
        own = np.flatnonzero(np.isin(groups, first) & (codes == code))
        if len(own):
            place[own[place[own].argmin()]] = -2.0 * len(order) - rng.random()
    rows = np.argsort(place, kind="stable").astype(np.int64)
    largest = max(sizes)
    train, rest = rows[:largest], rows[largest:]
    test = rest[~np.isin(groups[rest], groups[train])][-max_test:]
    if len(test) < LEAST_TEST_ROWS:
        raise TableError(
            f"{name}: size {largest} leaves {len(test)} rows of other groups to test on, fewer "
            f"than {LEAST_TEST_ROWS}; use a smaller size"
        )
    for part, what in ((rows[: min(sizes)], "training"), (test, "test")):
        if len(np.unique(codes[part])) < len(present):
            raise TableError(
                f"{name}: size {min(sizes)} to {largest}, {len(order)} groups: a class is missing "
                f"among the {what} rows, because its rows stand in too few groups; use sizes in "
                "between, merge classes, or give more groups"
            )
    return Split({size: rows[:size] for size in sorted(set(sizes))}, test)


def check_groups(name: str, groups: NDArray[np.int64], size: int) -> None:
    """Raise a `TableError` if some draw would leave fewer than 20 test rows of other groups.

    Example:
        >>> check_groups("visits", np.arange(60) // 3, 38)
        >>> check_groups("visits", np.arange(60) // 3, 39)
        Traceback (most recent call last):
            ...
        denograd.data.errors.TableError: visits: size 39 may leave fewer than 20 of its 60 rows \
to test on, as groups have up to 3 rows; use a size of at most 38
    """
    most = int(np.bincount(groups).max())
    largest = len(groups) - LEAST_TEST_ROWS - (most - 1)
    if size > largest:
        raise TableError(
            f"{name}: size {size} may leave fewer than {LEAST_TEST_ROWS} of its {len(groups)} rows "
            f"to test on, as groups have up to {most} rows; use a size of at most {largest}"
        )


def _with_each(
    order: NDArray[np.int64],
    counts: NDArray[np.int64],
    present: NDArray[np.int64],
    taken: Sequence[int],
) -> list[int]:
    """Groups that together have every class, the first of an order that are not taken."""
    chosen: list[int] = []
    for code in present:
        if not counts[chosen, code].any():
            free = (g for g in order.tolist() if counts[g, code] and g not in taken)
            chosen += [group for group in [next(free, None)] if group is not None]
    return chosen
