"""How long inner loops are, and where back-propagation through them is cut."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Truncation:
    """Where an unroll is cut.

    Stretches are about as long as a window that is drawn for each episode. The first is
    of any length up to that, so that over many episodes every step is as often near the
    end of a stretch as near its beginning; cuts at the same steps every time would hide
    what happens across them.

    Args:
        window: shortest and longest stretch, in inner steps, ends included.
        offset: whether the first stretch has a random length.

    Raises:
        ValueError: the window is below 1, or its ends are in the wrong order.

    Example:
        >>> Truncation((40, 40), offset=False).cuts(np.random.default_rng(0), steps=100)
        [40, 80, 100]
    """

    window: tuple[int, int] = (60, 120)
    offset: bool = True

    def __post_init__(self) -> None:
        shortest, longest = self.window
        if not 1 <= shortest <= longest:
            raise ValueError(
                f"Truncation: window={tuple(self.window)}; give the shortest and the longest "
                "stretch, at least 1, in this order"
            )

    def cuts(self, rng: np.random.Generator, steps: int) -> list[int]:
        """Numbers of steps done at which an unroll of ``steps`` steps is cut."""
        window = int(rng.integers(self.window[0], self.window[1] + 1))
        first = int(rng.integers(1, window + 1)) if self.offset and window < steps else window
        return [*range(first, steps, window), steps]


@dataclass(frozen=True)
class Curriculum:
    """Inner loops that grow longer while meta-training goes on.

    Meta-gradients of long unrolls of an untrained denoiser are mostly chaos (Metz et al.
    2019, "Understanding and correcting pathologies in the training of learned
    optimizers"), so the longest horizon grows, geometrically, from ``start`` to what the
    distribution says.

    Args:
        start: longest horizon at the beginning, in inner steps.
        full_at: share of the run after which the horizon is in full; 0 is no curriculum.

    Raises:
        ValueError: ``start`` below 1 or ``full_at`` outside of 0 to 1.

    Example:
        >>> curriculum = Curriculum(start=50, full_at=0.5)
        >>> [curriculum.longest((20, 200), share) for share in (0.0, 0.25, 0.5, 1.0)]
        [50, 100, 200, 200]
    """

    start: int = 50
    full_at: float = 0.0

    def __post_init__(self) -> None:
        if self.start < 1 or not 0 <= self.full_at <= 1:
            raise ValueError(
                f"Curriculum: start={self.start}, full_at={self.full_at}; start must be at least "
                "1 and full_at between 0 and 1"
            )

    def longest(self, steps: tuple[int, int], share: float) -> int:
        """The longest horizon when this share of the run is done."""
        shortest, longest = steps
        if share >= self.full_at:
            return longest
        start = min(max(self.start, shortest), longest)
        return round(start * math.exp(math.log(longest / start) * share / self.full_at))
