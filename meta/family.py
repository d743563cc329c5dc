"""Families of tasks: where a stacked batch of tasks comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from denograd.meta.prior import draw_prior_table
from denograd.meta.sequence_prior import draw_prior_sequences
from denograd.meta.tables import SourceTable, fingerprint_tables
from denograd.meta.task import Task, make_task

DRAWS = 1000
"""Attempts at a task before tables are called useless."""

TRIALS = 100
"""Draws after which a table by itself is called useless."""

MOST_CHANNELS = 6
"""Of a drawn sequence: all tasks of a stack pay for the one with most."""

MINIMUM_TEST_ROWS = 20
"""A table lends a task only if so many rows are left that training never sees."""


class TaskFamily(Protocol):
    """Something that tasks are drawn from."""

    def draw(self, rng: np.random.Generator, rows: int, test_rows: int, max_features: int) -> Task:
        """Draw one task.

        Args:
            rng: the only source of randomness.
            rows: training rows.
            test_rows: at most so many rows that training never sees.
            max_features: at most so many features.
        """
        ...

    def fingerprint(self) -> str:
        """Tells families of other settings or other data apart."""
        ...


class PriorFamily:
    """Tasks from random structural models; see `denograd.meta.prior`.

    Args:
        max_classes: largest number of classes.
        measured: whether targets are numbers; then there are no classes.
    """

    def __init__(self, max_classes: int = 5, measured: bool = False) -> None:
        self.max_classes, self.measured = max_classes, measured

    def draw(self, rng: np.random.Generator, rows: int, test_rows: int, max_features: int) -> Task:
        """Draw a task whose training rows show at least two classes, or numbers."""
        while True:
            low = min(max_features, max(2, max_features // 5))
            n_features = round(np.exp(rng.uniform(np.log(low), np.log(max_features))))
            n_classes: int | None = None
            if not self.measured:
                n_classes = 2 if rng.random() < 0.6 else int(rng.integers(2, self.max_classes + 1))
            x, y = draw_prior_table(rng, rows + test_rows, n_features, n_classes)
            if len(np.unique(y[:rows])) > 1 and np.ptp(x[:rows], axis=0).max() > 1e-3:
                return make_task("prior", x[:rows], y[:rows], x[rows:], y[rows:], n_classes)

    def fingerprint(self) -> str:
        """Tells families of other settings apart."""
        return "prior, measured" if self.measured else f"prior, {self.max_classes} classes"


class SequencePriorFamily:
    """Tasks from random sequences; see `denograd.meta.sequence_prior`.

    Args:
        max_classes: largest number of classes.
    """

    def __init__(self, max_classes: int = 5) -> None:
        self.max_classes = max_classes

    def draw(self, rng: np.random.Generator, rows: int, test_rows: int, max_features: int) -> Task:
        """Draw a task whose training rows show at least two classes."""
        while True:
            n_classes = 2 if rng.random() < 0.5 else int(rng.integers(2, self.max_classes + 1))
            x, y, channels = draw_prior_sequences(rng, rows + test_rows, max_features, n_classes)
            if len(np.unique(y[:rows])) > 1:
                parts = (x[:rows], y[:rows], x[rows:], y[rows:])
                return make_task("sequence prior", *parts, n_classes, channels)

    def fingerprint(self) -> str:
        """Tells families of other settings apart."""
        return f"sequence prior, {self.max_classes} classes"


WRONG_LABELS = (0.5, 0.5)
"""Share of the draws that get wrong labels, and the largest share of labels in one."""


class TableFamily:
    """Tasks cut from real tables.

    Each draw takes a table, a few of its classes if there are many, now and then merges
    some, a subset of its columns, new training and test rows and, often, wrong labels. Measured
    targets get noise instead.

    Args:
        tables: the sources.
        max_classes: tables with more classes lend a random subset of so many, or of more
            where so many have too few rows.
        augment: whether to draw columns, classes and wrong labels at random. Without it
            a task is the table itself, in a new order of rows.
        wrong_labels: share of the draws that get wrong labels, and the largest share of labels
            that are drawn anew in one; the more, the weaker are the signals. For measured targets
            the share of the draws that get noise, and its largest share of the variance.

    Raises:
        ValueError: no table was given, some have classes and others measured targets, or a share
            is not between 0 and 1 (the second below 1 for measured targets).
    """

    def __init__(
        self,
        tables: Sequence[SourceTable],
        max_classes: int = 5,
        augment: bool = True,
        wrong_labels: tuple[float, float] = WRONG_LABELS,
    ) -> None:
        if not tables:
            raise ValueError("TableFamily: tables is empty; give at least one table")
        if not all(0 <= share <= 1 for share in wrong_labels):
            raise ValueError(
                f"TableFamily: wrong_labels={wrong_labels!r}; both shares must be between 0 and 1"
            )
        if len({table.n_classes is None for table in tables}) > 1:
            raise ValueError(
                "TableFamily: tables hold classes and measured targets; make a family of each"
            )
        if tables[0].n_classes is None and wrong_labels[1] == 1:
            raise ValueError(
                f"TableFamily: wrong_labels={wrong_labels!r}; a measured target that is all noise "
                "cannot be made, so take a second share below 1"
            )
        self.tables, self.max_classes, self.augment = list(tables), max_classes, augment
        self.wrong_labels = wrong_labels

    def draw(self, rng: np.random.Generator, rows: int, test_rows: int, max_features: int) -> Task:
        """Draw a task whose training rows show at least two classes."""
        large_enough = [t for t in self.tables if len(t.labels) >= rows + MINIMUM_TEST_ROWS]
        if not large_enough:
            raise ValueError(
                f"TableFamily: rows={rows}, but no table has {rows + MINIMUM_TEST_ROWS} rows; "
                "ask for fewer rows or give larger tables"
            )
        for _ in range(DRAWS):
            table = large_enough[rng.integers(len(large_enough))]
            task = self.draw_from(rng, table, rows, test_rows, max_features)
            if task is not None:
                return task
        raise ValueError(
            f"TableFamily: rows={rows}, and {DRAWS:,} draws gave no task with two classes (or "
            "numbers) and a column that varies; give larger tables, or less rare classes"
        )

    def fingerprint(self) -> str:
        """Tells families of other settings or other data apart."""
        settings = f"tables, {self.max_classes} classes, augment {self.augment}"
        if self.wrong_labels != WRONG_LABELS:
            settings += f", wrong labels {self.wrong_labels}"
        return f"{settings}, {fingerprint_tables(self.tables)}"

    def draw_from(
        self,
        rng: np.random.Generator,
        table: SourceTable,
        rows: int,
        test_rows: int,
        max_features: int,
    ) -> Task | None:
        """Draw a task from one table; None if the draw left too few rows or classes."""
        measured = table.n_classes is None
        pool = np.arange(len(table.labels)) if measured else self._rows_of_some(rng, table, rows)
        if len(pool) < rows + table.overlap + MINIMUM_TEST_ROWS:
            return None
        if table.overlap:
            take = _rows_in_order(rng, pool, rows, table.overlap, test_rows)
        else:
            # A large table is not permuted whole for a few rows.
            take = rng.choice(pool, size=min(len(pool), rows + test_rows), replace=False)
        y = table.labels[take]
        if not measured:
            if self.augment and rng.random() < 0.15:
                y = merge_classes(rng, y)
            y = np.unique(y, return_inverse=True)[1]
        x, channels = table.columns[take], table.channels
        n_features = x.shape[1]
        if self.augment and channels:
            x, channels = draw_stretch(rng, x, channels, max_features)
        elif self.augment:
            if rng.random() < 0.5:
                low = min(3, n_features)
                width = np.exp(rng.uniform(np.log(low), np.log(n_features)))
                n_features = round(width)
            n_features = min(n_features, max_features)
            x = x[:, draw_columns(rng, x.shape[1], n_features, table.ordered)]
        if np.ptp(x[:rows], axis=0).max() <= 1e-3 or len(np.unique(y[:rows])) < 2:
            return None
        n_classes = None if measured else int(y.max()) + 1
        often, most = self.wrong_labels
        if self.augment and rng.random() < often:
            y = (add_noise if measured else draw_anew)(rng, y, most)
            if len(np.unique(y[:rows])) < 2:
                return None
        x64 = x.astype(np.float64)
        parts = (x64[:rows], y[:rows], x64[rows:], y[rows:])
        return make_task(table.name, *parts, n_classes, channels)

    def _rows_of_some(
        self, rng: np.random.Generator, table: SourceTable, rows: int
    ) -> NDArray[np.int64]:
        """The rows of as many classes as a task may have."""
        classes = table.n_classes or 0
        limit = self.max_classes if self.augment else classes
        if self.augment and classes > 2 and rng.random() < 0.3:
            limit = int(rng.integers(2, self.max_classes + 1))
        if classes <= limit:
            return np.arange(len(table.labels))
        order = rng.permutation(classes)
        # As many classes as asked for, and more where those have too few rows.
        enough = np.bincount(table.labels, minlength=classes)[order].cumsum()
        needed = 1 + int(np.searchsorted(enough, rows + MINIMUM_TEST_ROWS))
        return np.flatnonzero(np.isin(table.labels, order[: max(limit, needed)]))


def draw_anew(
    rng: np.random.Generator, labels: NDArray[np.int64], most: float
) -> NDArray[np.int64]:
    """Labels of which a share, at most so large, is drawn anew, all classes alike."""
    flipped = rng.random(len(labels)) < rng.uniform(0.0, most)
    wrong = labels.copy()
    wrong[flipped] = rng.integers(int(labels.max()) + 1, size=int(flipped.sum()))
    return wrong


def add_noise(
    rng: np.random.Generator, target: NDArray[np.float64], most: float
) -> NDArray[np.float64]:
    """A measured target with noise that makes up a share of its variance, at most so large.

    Example:
        >>> target = np.linspace(0.0, 1.0, 10_000)
        >>> noisy = add_noise(np.random.default_rng(0), target, 0.5)
        >>> bool(0.5 < np.corrcoef(target, noisy)[0, 1] ** 2 < 1)
        True
    """
    share = rng.uniform(0.0, most)
    deviation = target.std() * np.sqrt(share / (1 - share))
    return np.asarray(target + rng.normal(scale=deviation, size=len(target)))


def draw_columns(
    rng: np.random.Generator, columns: int, count: int, ordered: bool
) -> NDArray[np.int64]:
    """Some columns in any order; of a series, a stretch of it, thinned out evenly.

    Example:
        >>> chosen = draw_columns(np.random.default_rng(0), 100, 5, ordered=True)
        >>> len(np.unique(chosen)), bool((np.diff(chosen) > 0).all())
        (5, True)
    """
    if not ordered:
        return rng.permutation(columns)[:count]
    stride = int(rng.integers(1, max(1, columns // count) + 1))
    start = int(rng.integers(columns - (count - 1) * stride))
    return start + stride * np.arange(count)


def draw_stretch(
    rng: np.random.Generator, sequences: NDArray[np.float32], channels: int, max_features: int
) -> tuple[NDArray[np.float32], int]:
    """Some channels of sequences, the same stretch of each, and how many channels they are.

    Args:
        rng: source of randomness.
        sequences: ``(rows, channels * steps)``, channel by channel.
        channels: their number.
        max_features: at most so many channels times steps.

    Example:
        >>> rows = np.zeros((5, 6 * 100), dtype=np.float32)
        >>> drawn, channels = draw_stretch(np.random.default_rng(0), rows, 6, 60)
        >>> drawn.shape[1] <= 60, drawn.shape[1] % channels
        (True, 0)
    """
    by_channel = sequences.reshape(len(sequences), channels, -1)
    kept = channels if rng.random() < 0.5 else int(rng.integers(1, channels + 1))
    chosen = np.sort(rng.permutation(channels)[: min(kept, max_features, MOST_CHANNELS)])
    longest = by_channel.shape[2]
    steps = min(longest, max_features // len(chosen))
    if rng.random() < 0.3:
        steps = round(np.exp(rng.uniform(np.log(min(8, steps)), np.log(steps))))
    stretch = draw_columns(rng, longest, steps, ordered=True)
    drawn = by_channel[:, chosen][:, :, stretch]
    return drawn.reshape(len(sequences), -1), len(chosen)


def _rows_in_order(
    rng: np.random.Generator, pool: NDArray[np.int64], rows: int, overlap: int, test_rows: int
) -> NDArray[np.int64]:
    """Rows to train on, one after another, and later ones that share no step with them."""
    moment = int(rng.integers(rows, len(pool) - overlap - MINIMUM_TEST_ROWS + 1))
    later = pool[moment + overlap :]
    test = rng.choice(later, size=min(len(later), test_rows), replace=False)
    return np.concatenate([rng.permutation(pool[moment - rows : moment]), test])


def lends_tasks(table: SourceTable, rows: int = 16) -> bool:
    """Whether one of `TRIALS` draws from a table gives a task of so many training rows."""
    if len(table.labels) < rows + MINIMUM_TEST_ROWS:
        return False
    family, rng = TableFamily([table]), np.random.default_rng(0)
    size = (rows, MINIMUM_TEST_ROWS, table.columns.shape[1])
    return any(family.draw_from(rng, table, *size) is not None for _ in range(TRIALS))


def merge_classes(rng: np.random.Generator, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merge classes at random until two or more are left; two stay two.

    Example:
        >>> merged = merge_classes(np.random.default_rng(0), np.array([0, 1, 2, 3, 2]))
        >>> len(np.unique(merged)) in (2, 3), bool(merged[2] == merged[4])
        (True, True)
    """
    classes = np.unique(labels)
    if len(classes) < 3:
        return labels
    groups = int(rng.integers(2, len(classes)))
    # Each group gets one class, the rest are dealt out.
    members = np.concatenate([np.arange(groups), rng.integers(groups, size=len(classes) - groups)])
    return rng.permutation(members)[np.searchsorted(classes, labels)]


class MixedFamily:
    """Tasks from several families, each with its share.

    Args:
        families: the families and their weights.
    """

    def __init__(self, families: Sequence[tuple[TaskFamily, float]]) -> None:
        self.families = [family for family, _ in families]
        weights = np.array([weight for _, weight in families], dtype=np.float64)
        self.shares = weights / weights.sum()

    def draw(self, rng: np.random.Generator, rows: int, test_rows: int, max_features: int) -> Task:
        """Draw from one of the families, chosen by its share."""
        family = self.families[rng.choice(len(self.families), p=self.shares)]
        return family.draw(rng, rows, test_rows, max_features)

    def fingerprint(self) -> str:
        """Tells families of other settings or other data apart."""
        pairs = zip(self.shares.tolist(), self.families, strict=True)
        return "; ".join(f"{share:g} of {family.fingerprint()}" for share, family in pairs)
