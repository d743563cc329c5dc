"""Each data set's loss as a ratio to the reference's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from denograd.evaluation.html import svg
from denograd.evaluation.significance import ROPE

_WIDTH, _ROW, _TOP, _NAMES = 360, 20, 34, 124


def ratio_plot(summary: Mapping[str, Any], rival: str) -> Markup:
    """A line for each data set, best first: its cases as dots, their mean as a diamond.

    Args:
        summary: of an evaluation.
        rival: whose ratio is drawn.

    Example:
        >>> cases = [{"dataset": "wine", "ratio": {"mine": 0.8}}]
        >>> by = {"by_dataset": {"wine": {"cases": 1, "log_loss_ratio": 0.8}}}
        >>> plot = ratio_plot({"cases": cases, "comparisons": {"mine": by}}, "mine")
        >>> "wine 0.80" in plot
        True
    """
    by_dataset = summary["comparisons"][rival]["by_dataset"]
    means = {
        name: float(found["log_loss_ratio"])
        for name, found in by_dataset.items()
        if found.get("cases")
    }
    means = dict(sorted(means.items(), key=lambda item: item[1]))
    single: dict[str, list[float]] = {name: [] for name in means}
    for case in summary["cases"]:
        if rival in case["ratio"] and case["dataset"] in single:
            single[case["dataset"]].append(max(float(case["ratio"][rival]), 1e-6))
    every = [*means.values(), *(value for values in single.values() for value in values)]
    right, bottom = _WIDTH - 12, _TOP + _ROW * len(means)
    scale = svg.LogScale(min(*every, 0.8) * 0.96, max(*every, 1.25) * 1.04, _NAMES, right)
    low, high = scale(math.exp(-ROPE)), scale(math.exp(ROPE))
    parts = [
        svg.text(scale(1) - 8, 12, "\u25c4 better", anchor="end"),
        svg.text(min(scale(1) + 8, _WIDTH - 52.0), 12, "worse \u25ba"),
        svg.element(
            "rect", x=low, y=_TOP - 2, width=high - low, height=bottom - _TOP + 4, class_="rope"
        ),
    ]
    for tick in scale.ticks():
        x = scale(tick)
        parts += [
            svg.line(x, _TOP - 4, x, bottom + 2),
            svg.text(x, _TOP - 8, f"{tick:g}", anchor="middle", class_="small"),
        ]
    parts.append(svg.line(scale(1), _TOP - 4, scale(1), bottom + 2, "ink"))
    for number, (name, mean) in enumerate(means.items()):
        y = _TOP + _ROW * (number + 0.5)
        title = svg.element("title", name)
        label = svg.text(_NAMES - 8, y + 4, title + svg.clipped(name, 17), anchor="end")
        parts.append(label)
        # A single case is its own mean.
        if len(single[name]) > 1:
            parts += [
                svg.element("circle", cx=scale(value), cy=y, r=3, class_="case")
                for value in single[name]
            ]
        x = scale(mean)
        look = "mean worse" if math.log(mean) > ROPE else "mean"
        parts.append(svg.area([(x - 6, y), (x, y - 6), (x + 6, y), (x, y + 6)], look))
    listed = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
    return svg.picture(_WIDTH, bottom + 8, f"Mean ratio by data set: {listed}.", parts)
