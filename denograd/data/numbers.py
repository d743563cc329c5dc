"""How large numbers may be."""

from __future__ import annotations

from typing import Any

import numpy as np

CLIP = 8.0
"""Standardised values are cut off here.

In a few training rows a column's deviation can come out tiny, and a test row then lies
hundreds of deviations away; with 128 rows no training value can exceed 11.3.
"""

LARGEST = 1e100
"""Size of the largest number whose squares can be summed with room to spare."""


def check_range(values: Any, what: str) -> None:
    """Raise a `ValueError` if squares of some numbers cannot be summed in double precision.

    Args:
        values: numbers, NaN for gaps.
        what: beginning of the message.

    Example:
        >>> check_range([1.0, 1e200], "column 'x' holds")
        Traceback (most recent call last):
        ...
        ValueError: column 'x' holds numbers of a size of up to 1e+200; use units in which it is ...
    """
    size = np.abs(np.asarray(values, dtype=np.float64))
    largest = float(size[np.isfinite(size)].max(initial=0.0))
    if largest > LARGEST or 0 < largest < 1 / LARGEST:
        raise ValueError(
            f"{what} numbers of a size of up to {largest:g}; use units in which it is from "
            f"{1 / LARGEST:g} to {LARGEST:g}"
        )
