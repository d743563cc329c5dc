"""Finds tables that are near copies of each other, whatever their columns are called.

A table is known by the values that stand together in its rows: for each two columns, the pair
of their values, without order and without names. Of these pairs a table keeps those with the
smallest hashes (a KMV sketch, Beyer et al., "On synopses for distinct-value estimation under
multiset operations", SIGMOD 2007), so that two tables can be compared in microseconds and a
copy is seen in any order of rows and columns, in part, and with some cells changed. Numbers are
rounded to three digits first.

That all pairs of one table stand in another says nothing where both hold small whole numbers.
So the share of common pairs is compared with the share for the same table with every column
shuffled by itself. Where that leaves nothing, whole rows are compared in the same way, as sets
of values; and where these are too few as well, how often each pair stands in the tables. What
this can't see: copies with rescaled or recoded values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from _fetch_tables import as_number
from numpy.typing import NDArray

KEPT = 1 << 16
"""Pairs that a sketch keeps."""

ASKED = 600
"""Pairs of one table that are looked for in another, and rows that they are taken from."""

THRESHOLD = 0.5
"""Of likeness: from here on, a table counts as a near copy."""

FEWEST = 25
"""With fewer pairs, two tables are not compared by them."""

WIDE = 40
"""Of tables with more columns, only a quarter of all values counts, chosen by their hash."""

Hashes = NDArray[np.uint64]
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Sketch:
    """The pairs of a table with the smallest hashes.

    Attributes:
        hashes: ascending.
        counts: how often each stands in the table.
        limit: every pair of the table with a hash up to this one is kept.
    """

    hashes: Hashes
    counts: NDArray[np.int64]
    limit: np.uint64


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a table, in both ways: of all values, and of a quarter of them.

    Attributes:
        wide: whether the table has more than `WIDE` columns.
        whole: of all rows.
        asked: of some rows.
        shuffled: of the same rows, each column shuffled by itself.
        rows: hashes of all rows' values, of those of `asked`, and of those of `shuffled`.
    """

    wide: bool
    whole: Mapping[bool, Sketch]
    asked: Mapping[bool, Sketch]
    shuffled: Mapping[bool, Sketch]
    rows: tuple[Hashes, Hashes, Hashes]


def fingerprint(frame: pd.DataFrame, seed: int = 0) -> Fingerprint:
    """What is kept of a table to compare it with others.

    Args:
        frame: numbers and categories; its target is a column as the others are.
        seed: for the rows that are asked about, and for shuffling.
    """
    rng = np.random.default_rng(seed)
    values = _hash_cells(frame)
    some = values[rng.permutation(len(values))[:ASKED]]
    mixed = rng.permuted(some, axis=0)
    wide = values.shape[1] > WIDE
    ways = (True,) if wide else (False, True)
    return Fingerprint(
        wide,
        {way: _sketch(values, way) for way in ways},
        {way: _sketch(some, way) for way in ways},
        {way: _sketch(mixed, way) for way in ways},
        (np.unique(values.sum(axis=1)), some.sum(axis=1), mixed.sum(axis=1)),
    )


def likeness(one: Fingerprint, other: Fingerprint) -> float:
    """How much of one table stands in the other, beyond chance: 0 for none, 1 for all of it.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> table = pd.DataFrame(rng.normal(size=(300, 4)))
        >>> copy = table.sample(100, random_state=0)[[2, 0, 3]]
        >>> likeness(fingerprint(copy), fingerprint(table))
        1.0
    """
    way = one.wide or other.wide
    return max(_contained(one, other, way), _contained(other, one, way))


def likenesses(
    prints: Mapping[str, Fingerprint], groups: Mapping[str, str]
) -> Iterator[tuple[str, str, float]]:
    """Both names and the likeness of any two tables of different groups."""
    for a, b in combinations(prints, 2):
        if groups[a] != groups[b]:
            yield a, b, likeness(prints[a], prints[b])


def near_copies(
    tables: Mapping[str, pd.DataFrame], groups: Mapping[str, str], threshold: float = THRESHOLD
) -> list[tuple[str, str, float]]:
    """Tables of different groups that are alike.

    Args:
        tables: by name.
        groups: the group of each.
        threshold: of `likeness`.

    Returns:
        Both names and their likeness, the likest first.
    """
    prints = {name: fingerprint(table) for name, table in tables.items()}
    found = (f for f in likenesses(prints, groups) if f[2] >= threshold)
    return sorted(found, key=lambda f: -f[2])


def _contained(one: Fingerprint, other: Fingerprint, way: bool) -> float:
    """The share of one table's pairs that stand in the other, beyond that of a shuffled one."""
    whole = other.whole[way]
    share = _share(one.asked[way], whole)
    chance = _share(one.shuffled[way], whole)
    if share is None or chance is None:
        return 0.0
    if chance < 0.8:
        return max(0.0, (share - chance) / (1.0 - chance))
    # Few values, so that any two stand together somewhere.
    _, asked, shuffled = one.rows
    share, chance = (float(_found(rows, other.rows[0]).mean()) for rows in (asked, shuffled))
    if chance < 0.8:
        return max(0.0, (share - chance) / (1.0 - chance))
    # So few that any row stands everywhere: how often the pairs do is what is left.
    common = _common_frequency(one.whole[way], whole)
    return max(0.0, (common - 0.8) / 0.2)


def _share(asked: Sketch, whole: Sketch) -> float | None:
    limit = min(asked.limit, whole.limit)
    hashes = asked.hashes[: np.searchsorted(asked.hashes, limit, side="right")][:ASKED]
    if len(hashes) == 0 or (len(hashes) < FEWEST and limit < _ALL):
        return None
    return float(_found(hashes, whole.hashes).mean())


def _common_frequency(one: Sketch, other: Sketch) -> float:
    """Half of what two distributions of pairs have in common, doubled: 1 if they are equal."""
    limit = min(one.limit, other.limit)
    cut = [s.hashes <= limit for s in (one, other)]
    shares = [
        s.counts[c] / max(s.counts[c].sum(), 1) for s, c in zip((one, other), cut, strict=True)
    ]
    both = _found(one.hashes[cut[0]], other.hashes[cut[1]])
    place = np.searchsorted(other.hashes[cut[1]], one.hashes[cut[0]][both])
    return float(np.minimum(shares[0][both], shares[1][place]).sum())


def _found(wanted: Hashes, ascending: Hashes) -> NDArray[np.bool_]:
    if len(ascending) == 0:
        return np.zeros(len(wanted), dtype=bool)
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return np.asarray(ascending[place] == wanted)


def _sketch(values: Hashes, quarter: bool) -> Sketch:
    """The smallest hashes of all pairs of values in a row.

    Args:
        values: hashes of cells, ``(rows, columns)``; 0 where a value is missing.
        quarter: whether only a quarter of the values counts.
    """
    if quarter:
        values = np.where(values % np.uint64(8) < 2, values, np.uint64(0))
    hashes, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    limit, waiting, size = _ALL, list[Hashes](), 0
    for column in range(values.shape[1] - 1):
        present = values[:, column] != 0
        first, others = values[present, column, None], values[present, column + 1 :]
        pairs = _mix(first + others)
        waiting.append(pairs[(pairs <= limit) & (others != 0)])
        size += len(waiting[-1])
        if size > 8 * KEPT or column == values.shape[1] - 2:
            hashes, counts = _merge(hashes, counts, np.concatenate(waiting))
            waiting, size = [], 0
            if len(hashes) > KEPT:
                hashes, counts = hashes[:KEPT], counts[:KEPT]
                limit = hashes[-1]
    return Sketch(hashes, counts, limit)


def _merge(
    hashes: Hashes, counts: NDArray[np.int64], new: Hashes
) -> tuple[Hashes, NDArray[np.int64]]:
    found, often = np.unique(new, return_counts=True)
    joined, place = np.unique(np.concatenate([hashes, found]), return_inverse=True)
    total = np.zeros(len(joined), np.int64)
    np.add.at(total, place, np.concatenate([counts, often]))
    return joined, total


def _hash_cells(frame: pd.DataFrame) -> Hashes:
    """A hash of each cell, ``(rows, columns)``; 0 where a value is missing."""
    columns = []
    for name in frame:
        column = frame[name]
        if pd.api.types.is_float_dtype(column.dtype):
            hashes = _hash_numbers(column.to_numpy(np.float64))
        else:
            codes, levels = pd.factorize(column)
            hashes = np.append(_hash_levels(list(levels)), np.uint64(0))[codes]
        columns.append(hashes)
    return np.stack(columns, axis=1)


def _hash_levels(levels: Sequence[object]) -> Hashes:
    """Hashes of names; names that are numbers get the number's."""
    numbers = [as_number(level) for level in levels]
    as_numbers = _hash_numbers(np.array([0.0 if n is None else n for n in numbers]))
    for i, level in enumerate(levels):
        if numbers[i] is None:
            text = str(level).strip().lower().encode()
            as_numbers[i] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    return as_numbers


def _hash_numbers(values: NDArray[np.float64]) -> Hashes:
    """Hashes of numbers, the same for those with the same first three digits."""
    size = np.abs(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.where(size > 0, np.floor(np.log10(size)), 0.0)
        digits = np.round(values / 10.0 ** (exponent - 2))
        # 9.999 rounds to 10.0, and is then the same as 10.
        over = np.abs(digits) >= 1000
        digits, exponent = np.where(over, digits / 10, digits), exponent + over
        code = np.nan_to_num(digits + 4096 * exponent, nan=0.0).astype(np.int64)
    hashes = _mix(code.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
    return np.where(np.isfinite(values), hashes, np.uint64(0))


def _mix(values: Hashes) -> Hashes:
    """Spread sums of hashes evenly (the last steps of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))
