"""What a page is made of: tables, figures, folds and lists, before they are HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from denograd.evaluation.significance import ROPE

MISSING = "\u2013"
"""Stands where a number is not known or not defined."""
_STEPS = (0.05, 0.2)
"""Differences, as a share, from which a cell's colour gets stronger."""


@dataclass(frozen=True)
class Value:
    """What stands in a cell.

    Attributes:
        text: as it is read.
        exact: the number behind it with all its digits; None for words.
        look: a class of the style sheet.
        note: a smaller second line.
    """

    text: str
    exact: float | None = None
    look: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table: its header cell and the rest.

    Attributes:
        name: stands in the header cell.
        values: of the other cells.
        group: stands once over all rows of the group that follow each other.
    """

    name: str
    values: Sequence[Value]
    group: str = ""


@dataclass(frozen=True)
class Grid:
    """A table; the first of ``head`` stands over the rows' names."""

    kind: ClassVar[str] = "grid"
    caption: str
    head: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Figure:
    """A picture as inline SVG."""

    kind: ClassVar[str] = "figure"
    svg: Markup
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side, as many as fit."""

    kind: ClassVar[str] = "gallery"
    title: str
    svgs: Sequence[Markup]


@dataclass(frozen=True)
class Legend:
    """Which line is whose: a piece of each, and its name."""

    kind: ClassVar[str] = "legend"
    entries: Sequence[tuple[Markup, str]]


@dataclass(frozen=True)
class Fold:
    """What is seen when one asks for it; on paper only if it is ``printed``."""

    kind: ClassVar[str] = "fold"
    title: str
    parts: Sequence[Part]
    printed: bool = True


@dataclass(frozen=True)
class Text:
    """A paragraph; on paper only if it is ``printed``."""

    kind: ClassVar[str] = "text"
    text: str
    printed: bool = True


@dataclass(frozen=True)
class Code:
    """What was typed, or settings as they are stored."""

    kind: ClassVar[str] = "code"
    text: str


Part = Grid | Figure | Gallery | Legend | Fold | Text | Code


@dataclass(frozen=True)
class Section:
    """A chapter of the page; ``id`` is where links lead."""

    id: str
    title: str
    parts: Sequence[Part]


def any_known(rows: Iterable[Row]) -> bool:
    """Whether a number stands in any cell of these rows.

    Example:
        >>> any_known([Row("a", [number(None)])]), any_known([Row("a", [number(0.0)])])
        (False, True)
    """
    return any(value.exact is not None for row in rows for value in row.values)


def number(value: float | None, digits: int = 3, note: str = "") -> Value:
    """A number with so many digits after the point.

    Example:
        >>> number(0.12345).text, number(0.00001234).text, number(None).text == MISSING
        ('0.123', '1.2e-05', True)
    """
    if value is None or not math.isfinite(value):
        return Value(MISSING, note=note)
    text = f"{value:.{digits}f}"
    if value and float(text) == 0:
        text = f"{value:.2g}" if digits > 2 else text.removeprefix("-")
    return Value(text, value, note=note)


def percent(value: float | None) -> Value:
    """A share as a percentage.

    Example:
        >>> percent(0.9123)
        Value(text='91.2 %', exact=0.9123, look='', note='')
    """
    if value is None or not math.isfinite(value):
        return Value(MISSING)
    return Value(f"{100 * value:.1f} %", value)


def ratio(value: float | None, note: str = "", digits: int = 2) -> Value:
    """A ratio to the reference, with a mark and a colour for better and worse.

    Example:
        >>> ratio(0.7), ratio(1.004).text
        (Value(text='▼ 0.70', exact=0.7, look='better-3', note=''), '= 1.00')
    """
    if value is None or not math.isfinite(value):
        return Value(MISSING, note=note)
    mark, look = "=", "same"
    distance = abs(math.log(max(value, 1e-300)))
    if distance > ROPE:
        mark = "\u25bc" if value < 1 else "\u25b2"
        strength = 1 + sum(distance > math.log1p(step) for step in _STEPS)
        look = f"{'better' if value < 1 else 'worse'}-{strength}"
    shown = number(value, digits)
    return Value(f"{mark} {shown.text}", value, look, note)
