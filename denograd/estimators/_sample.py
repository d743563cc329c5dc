"""Encoded training rows that an estimator's account of itself rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_SAMPLE = 1000
"""Rows that are kept from one `partial_fit` to the next."""


@dataclass(frozen=True, eq=False)
class SeenRows:
    """Rows that a model was trained on.

    Attributes:
        x: ``(n, F)``, encoded, in double precision.
        target: ``(n,)``, as the user gave it.
        weight: ``(n,)``.
        index: ``(n,)``, labels of the rows in their ``X``.
        position: ``(n,)``, which tells rows apart: equal for copies of one row.
    """

    x: Tensor
    target: NDArray[Any]
    weight: NDArray[np.float64]
    index: pd.Index[Any]
    position: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: NDArray[np.int64]) -> SeenRows:
        """Some of the rows."""
        return SeenRows(
            self.x[torch.from_numpy(rows)],
            self.target[rows],
            self.weight[rows],
            self.index[rows],
            self.position[rows],
        )

    def and_then(self, later: SeenRows) -> SeenRows:
        """These rows and others."""
        return SeenRows(
            torch.cat([self.x, later.x]),
            np.concatenate([self.target, later.target]),
            np.concatenate([self.weight, later.weight]),
            self.index.append(later.index),
            np.concatenate([self.position, later.position]),
        )


class RowSample:
    """At most `MAX_SAMPLE` of all rows seen so far, each with the same chance.

    Reservoir sampling (Vitter 1985, "Random sampling with a reservoir", algorithm R).

    Args:
        seed: of the draws.

    Example:
        >>> sample = RowSample(seed=0)
        >>> for start in range(0, 5000, 500):
        ...     part = np.arange(start, start + 500)
        ...     x = torch.from_numpy(part[:, None]).double()
        ...     sample.add(SeenRows(x, part, np.ones(500), pd.Index(part), part))
        >>> len(sample.rows), sample.seen, bool(sample.rows.target.mean() > 2000)
        (1000, 5000, True)
    """

    rows: SeenRows

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self.seen = 0

    @property
    def next_position(self) -> int:
        """Above the positions of all rows that are kept."""
        return int(self.rows.position.max()) + 1 if self.seen else 0

    def add(self, rows: SeenRows) -> None:
        """See further rows."""
        both = self.rows.and_then(rows) if self.seen else rows
        before = len(both) - len(rows)
        first = min(MAX_SAMPLE - before, len(rows))
        kept = np.arange(before + first)
        # The row that comes as number n takes one of n places, if that is among those kept.
        later = np.arange(before + first, len(both))
        self.seen += len(rows)
        places = self._rng.integers(self.seen - len(later) + 1 + np.arange(len(later)))
        for place, row in zip(places, later, strict=True):
            if place < MAX_SAMPLE:
                kept[place] = row
        self.rows = both.take(kept)
