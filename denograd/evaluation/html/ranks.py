"""The critical-difference diagram.

Demsar 2006, "Statistical comparisons of classifiers over multiple data sets": mean ranks on
an axis, and bars that join what cannot be told apart. It stands upright here, a line for
each optimizer, so that it fits a phone and any number of names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from denograd.evaluation.html import svg

_WIDTH, _ROW, _TOP = 360, 24, 40
_NAMES = 132
_BARS = 90.0
"""So much room is for the bars, however many they are."""


def rank_diagram(found: Mapping[str, Any], short: Mapping[str, str]) -> Markup:
    """Mean ranks over data sets, best at the top.

    Args:
        found: ``ranks`` by optimizer and ``same``, the groups that are not told apart.
        short: names as they are written.

    Example:
        >>> found = {"ranks": {"a": 1.4, "b": 1.6, "c": 3.0}, "same": [["a", "b"]]}
        >>> diagram = rank_diagram(found, {})
        >>> diagram.count("<circle"), "Not told apart: a, b." in diagram
        (5, True)
    """
    ranks = dict(sorted(found["ranks"].items(), key=lambda item: item[1]))
    places = {name: _TOP + _ROW * (number + 0.5) for number, name in enumerate(ranks)}
    groups = [group for group in found.get("same") or [] if len(group) > 1]
    apart = min(14.0, _BARS / max(len(groups), 1))
    right = _WIDTH - 14 - apart * len(groups)
    bottom = _TOP + _ROW * len(ranks)

    def across(rank: float) -> float:
        return _NAMES + (right - _NAMES) * (rank - 1) / max(len(ranks) - 1, 1)

    parts = [svg.text(4, 12, "mean rank, 1 is best")]
    distance = found.get("distance")
    if distance is not None and distance <= len(ranks) - 1:
        # The ruler: so far apart, two optimizers are told apart.
        end = across(1 + distance)
        parts += [
            svg.line(across(1), 9, end, 9, "bar"),
            svg.text(end + 6, 13, f"CD {distance:.2f}", class_="small"),
        ]
    step = -(-len(ranks) // 10)
    for rank in range(1, len(ranks) + 1, step):
        x = across(rank)
        parts += [
            svg.line(x, _TOP - 6, x, bottom),
            svg.text(x, _TOP - 11, rank, anchor="middle"),
        ]
    for name, rank in ranks.items():
        y, x = places[name], across(rank)
        label = svg.clipped(short.get(name, name), 18)
        parts += [
            svg.text(_NAMES - 10, y + 4, label, anchor="end"),
            svg.line(_NAMES, y, x, y, "ink"),
            svg.element("circle", cx=x, cy=y, r=5, class_="dot s1"),
            # Left of its dot where there is no room on the right.
            svg.text(x + 9, y - 3, f"{rank:.2f}", class_="small")
            if x < right - 30
            else svg.text(x - 9, y - 3, f"{rank:.2f}", anchor="end", class_="small"),
        ]
    for number, group in enumerate(groups):
        x = right + 4 + apart * (number + 1)
        own = [places[name] for name in group]
        parts.append(svg.line(x, min(own) - 6, x, max(own) + 6, "bar"))
        parts += [svg.element("circle", cx=x, cy=y, r=3.5, class_="ink") for y in own]
    listed = ", ".join(f"{short.get(name, name)} {rank:.2f}" for name, rank in ranks.items())
    alike = "; ".join(", ".join(short.get(name, name) for name in group) for group in groups)
    label = f"Mean ranks, best first: {listed}. Not told apart: {alike or 'none'}."
    return svg.picture(_WIDTH, bottom + 8, label, parts)
