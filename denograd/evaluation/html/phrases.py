"""Numbers and lists as one would say them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_NAMED = 5


def listing(items: Iterable[Any]) -> str:
    """Items as in a sentence.

    Example:
        >>> listing([16]), listing([16, 32, 64])
        ('16', '16, 32 and 64')
    """
    words = [str(item) for item in items]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def few(items: Sequence[Any], most: int = _NAMED) -> str:
    """No more than the first so many items, and how many there are besides.

    Example:
        >>> few("abcdef", 2), few("ab", 2)
        ('a, b and 4 more', 'a and b')
    """
    if len(items) <= most:
        return listing(items)
    return f"{', '.join(map(str, items[:most]))} and {len(items) - most} more"


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "case"), counted(2, "case"), counted(1200, "case")
        ('1 case', '2 cases', '1,200 cases')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def change(ratio: float) -> str:
    """A ratio to something, as what one would say.

    Example:
        >>> change(0.877), change(1.05), change(1.0002), change(3.1)
        ('12.3 % lower', '5.0 % higher', 'the same to 0.1 %', '3.10 times as high')
    """
    percent = 100 * (ratio - 1)
    if ratio >= 2:
        return f"{ratio:.2f} times as high"
    if abs(percent) < 0.1:
        return "the same to 0.1 %"
    return f"{abs(percent):.1f} % {'higher' if percent > 0 else 'lower'}"


def probability(value: float) -> str:
    """Two digits, and no claim of certainty.

    Example:
        >>> probability(0.731), probability(0.9999), probability(0.0)
        ('0.73', 'over 0.99', 'under 0.01')
    """
    if value > 0.995:
        return "over 0.99"
    return "under 0.01" if value < 0.005 else f"{value:.2f}"


def p_value(value: float) -> str:
    """As in ``p = 0.013`` or ``p < 0.0001``.

    Example:
        >>> p_value(0.0132), p_value(3e-9)
        ('p = 0.013', 'p < 0.0001')
    """
    return "p < 0.0001" if value < 1e-4 else f"p = {float(f'{value:.2g}')}"
