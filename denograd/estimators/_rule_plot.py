"""A picture of a set of rules: their text, how strongly they speak, and for whom."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from denograd.estimators import _plots as plots
from denograd.models import Rule

_LINE = 62


def plot_rules(
    figure: Figure | SubFigure | None,
    rules: Sequence[Rule],
    class_names: Sequence[str] | None,
    most: int,
    heading: str,
) -> Figure | SubFigure:
    """Rules as a table with bars.

    Args:
        figure: to draw on; None for a new one.
        rules: with their support; a rule without conditions is named in the foot line.
        class_names: None in regression.
        most: rules to show; those with the largest product of weight and support's spread.
        heading: over the table.
    """
    real = [rule for rule in rules if rule.conditions]
    strength = np.array([_influence(rule) for rule in real])
    order = np.argsort(-strength, kind="stable")[:most]
    shown = sorted((real[i] for i in order), key=lambda rule: -_size(rule, class_names))
    texts = [_premise(rule) for rule in shown]
    heights = [1.0 + 0.62 * text.count("\n") for text in texts]
    total = sum(heights) + 0.9
    figure = plots.canvas(figure, 10.5, 0.9 + 0.3 * total)
    words, bars = figure.subplots(1, 2, sharey=True, width_ratios=(1.75, 1.0))
    places = np.cumsum(heights) - np.array(heights) / 2 if shown else np.empty(0)
    for place, rule, text in zip(places, shown, texts, strict=True):
        words.text(0.0, place, text, va="center", fontsize=plots.FONT - 0.5, color=plots.INK,
                   linespacing=1.2)  # fmt: skip
        share = "" if rule.support is None else f"{100 * rule.support:.0f} %"
        words.text(1.0, place, share, va="center", ha="right", fontsize=plots.FONT - 0.5,
                   color="#5f6368")  # fmt: skip
        size = _size(rule, class_names)
        bars.barh(place, size, height=0.55, color=_colour_of(rule, class_names))
        bars.annotate(plots.figures_of(size), (size, place), (4 if size >= 0 else -4, 0),
                      textcoords="offset points", va="center", fontsize=plots.FONT - 1.5,
                      ha="left" if size >= 0 else "right", color=plots.INK)  # fmt: skip
    words.set_xlim(0, 1)
    words.set_ylim(sum(heights) + 0.15 if shown else 1, -0.9)
    words.text(0.0, -0.45, "if …", fontsize=plots.FONT, fontweight="bold", va="center")
    words.text(1.0, -0.45, "rows", fontsize=plots.FONT, fontweight="bold", va="center", ha="right")
    head = "… then, how strongly" if class_names is not None else "… then add"
    bars.text(0, -0.45, head, fontsize=plots.FONT, fontweight="bold", va="center",
              transform=bars.get_yaxis_transform())  # fmt: skip
    words.set_axis_off()
    plots.tidy(bars)
    bars.spines["left"].set_visible(class_names is None)
    if class_names is None:
        bars.axvline(0, color=plots.FAINT, linewidth=0.8)
    bars.spines["left"].set_visible(False)
    bars.tick_params(left=False, labelleft=False)
    bars.margins(x=0.16)
    label = "weight (score above the other classes')" if class_names else "value added"
    bars.set_xlabel(label, fontsize=plots.FONT - 0.5)
    if class_names is not None:
        said = {rule.prediction for rule in shown}
        handles = [
            Patch(color=plots.colour(i), label=plots.shortened(name))
            for i, name in enumerate(class_names)
            if name in said
        ]
        if handles:
            bars.legend(handles=handles, title="in favour of", frameon=False, loc="lower right",
                        fontsize=plots.FONT - 1, title_fontsize=plots.FONT - 1)  # fmt: skip
    hidden = len(real) - len(shown)
    tail = f" ({hidden} weaker ones not shown)" if hidden else ""
    always = [rule for rule in rules if not rule.conditions and rule.index is None]
    base = ""
    if always:
        base = f"; without any: {plots.figures_of(_size(always[0], class_names))}"
        if class_names is not None:
            base += f" for {plots.shortened(always[0].prediction)}"
    figure.suptitle(f"{heading}{tail}{base}", fontsize=plots.FONT + 1, x=0.01, ha="left")
    return figure


def _size(rule: Rule, class_names: Sequence[str] | None) -> float:
    return rule.weight if class_names is not None else rule.scores[0]


def _influence(rule: Rule) -> float:
    """Weight times the deviation of a rule that holds for this share of rows."""
    share = 0.25 if rule.support is None else rule.support
    return abs(rule.weight) * math.sqrt(max(share * (1 - share), 1e-4))


def _premise(rule: Rule) -> str:
    """The conditions in lines; each on its own if it is a sum of features."""
    word = "or" if rule.any_of else "and"
    conditions = [condition.replace("<=", "≤") for condition in rule.conditions]
    if any(len(test.terms) > 1 for test in rule.tests):
        return f"\n{word} ".join(plots.wrapped(condition, _LINE) for condition in conditions)
    return plots.wrapped(f" {word} ".join(conditions), _LINE)


def _colour_of(rule: Rule, class_names: Sequence[str] | None) -> str:
    if class_names is None:
        return plots.colour(0 if rule.scores[0] < 0 else 1)
    return plots.colour(list(class_names).index(rule.prediction))
