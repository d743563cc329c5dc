"""Small pieces of SVG: elements, scales and ticks.

Colours are left to the style sheet (classes ``s0`` to ``s7`` for series, ``grid`` and
``ink`` for the rest), so that a picture follows the page into the dark and onto paper.
Every picture is drawn about as wide as a phone, so its letters stay legible there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

STYLES = 8
"""So many lines can be told apart, by colour and by dashes."""


def element(tag: str, content: object = "", **attributes: object) -> Markup:
    """An SVG element; attribute values and plain text content are escaped.

    ``_`` in an attribute's name stands for ``-``, at its end for nothing.

    Example:
        >>> element("text", "a < b", x=1.25, class_="ink")
        Markup('<text x="1.2" class="ink">a &lt; b</text>')
    """
    written = "".join(
        f' {name.removesuffix("_").replace("_", "-")}="{escape(_short(value))}"'
        for name, value in attributes.items()
    )
    return Markup(f"<{tag}{written}>{escape(content)}</{tag}>")


def picture(width: float, height: float, label: str, content: Sequence[Markup]) -> Markup:
    """A whole picture, with the words that stand for it where it cannot be seen."""
    return element(
        "svg",
        Markup("").join(content),
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
    )


def text(x: float, y: float, content: object, **attributes: object) -> Markup:
    """Letters at a place; ``anchor`` is start, middle or end."""
    anchor = attributes.pop("anchor", "start")
    return element("text", content, x=x, y=y, text_anchor=anchor, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, look: str = "grid") -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=look)


def path(points: Sequence[tuple[float, float]], look: str) -> Markup:
    """A line through points."""
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polyline", points=drawn, class_=look)


def area(points: Sequence[tuple[float, float]], look: str) -> Markup:
    """A filled shape."""
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polygon", points=drawn, class_=look)


def clipped(name: str, most: int) -> str:
    """A name short enough for its place.

    Example:
        >>> clipped("a_very_long_name", 8), clipped("short", 8)
        ('a_very_…', 'short')
    """
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"


def _short(value: object) -> object:
    """A tenth of a unit cannot be seen."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


class LogScale:
    """Maps numbers above 0 to places.

    Example:
        >>> scale = LogScale(1.0, 100.0, 0.0, 200.0)
        >>> scale(10.0), scale(1000.0), scale.ticks(most=7)
        (100.0, 200.0, [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0])
    """

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        """The place of a value; one outside is put on the edge."""
        inside = min(max(value, self.low), self.high)
        share = math.log(inside / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers inside: evenly spaced over a short range, else by powers of ten."""
        if self.high / self.low < _SHORT:
            step = _nice((self.high - self.low) / most)
            numbers = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
            return [float(f"{number * step:.6g}") for number in numbers]
        for mantissas in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
            found = self._round(mantissas)
            if len(found) <= most:
                return found
        found = self._round((1,))
        return found[:: -(-len(found) // most)]

    def _round(self, mantissas: Sequence[int]) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [float(f"{m}e{power}") for power in powers for m in mantissas]
        return [value for value in values if self.low <= value <= self.high]


_SHORT = 6.0
"""Up to this ratio of the ends, evenly spaced ticks look right on a logarithmic scale."""


def _nice(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least)
