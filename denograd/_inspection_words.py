"""What an inspection found, in words and in Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from denograd.inspection import MULTIPLIERS

SIGNS = {1: "+", -1: "−", 0: "±"}  # noqa: RUF001 (a minus as wide as the plus)
"""How a coefficient answers to more of a feature."""

TOP = 3
"""Features that are named for a coefficient."""

CHANGED = 1.2
"""A number that grows or shrinks by this factor in the course of a run is said to change."""


class Findings(NamedTuple):
    """What was found; plain JSON.

    Attributes:
        subject: what was looked at, in a sentence.
        coefficients: for each, ``name``, ``words``, ``neutral``, ``median``, ``low`` and
            ``high`` (tenth and ninetieth percentile over layers and steps), ``start`` and
            ``end`` (medians in the first and the last fifth of a run) and ``features``,
            those that move it most: ``name``, ``words``, ``sign``, ``share`` and ``effect``
            (a ratio for coefficients that multiply, else a difference).
        themes: what features are about, and their part of all effects, averaged over
            coefficients; the largest first.
        energy: for each name of recordings, ``kept`` and ``removed`` of the gradient's energy
            before, and ``kept_start`` and ``kept_end``; medians.
        steps: for each name of recordings, what became of the base optimizer's step, averaged
            over the elements of a layer: ``factor``, what it was multiplied by in all, and
            ``taken``, the part that the filter took of it; medians in the first and the last
            fifth of a run, as ``factor_start``, ``factor_end``, ``taken_start`` and
            ``taken_end``. Empty for a denoiser without ``update_gain``.
    """

    subject: str
    coefficients: list[dict[str, Any]]
    themes: dict[str, float]
    energy: dict[str, dict[str, float]]
    steps: dict[str, dict[str, float]]


def in_short(found: Findings) -> list[str]:
    """What it comes to: a sentence for each part of the filter, and for what became of steps."""
    by_name = {c["name"]: c for c in found.coefficients}
    lines = []
    for name, s in found.steps.items():
        start, end = s["factor_start"], s["factor_end"]
        lines.append(
            f"**Steps, {name}.** With `update_gain` and its filter together, the base optimizer's "
            f"step is multiplied by {figure(start)} at the start of a run and by {figure(end)} at "
            f"its end: the learning rate in effect "
            f"{_change(start, end, 'falls', 'rises', 'stays about the same')}. The filter takes "
            f"{_percent(s['taken_start'])} of the step at the start and "
            f"{_percent(s['taken_end'])} at the end."
        )
    if "update_gain" in by_name:
        c = by_name["update_gain"]
        lines.append(
            f"**Factor on the step.** `update_gain` alone is {figure(c['median'])} as a rule "
            f"(from {figure(c['low'])} to {figure(c['high'])}).{_where(c, 'larger', 'smaller')}"
        )
    # How much a filter takes follows from the part that goes through and from its kappa.
    for name, kappa, what in (
        ("fast_filter", "fast_kappa", "gradient"),
        ("slow_filter", "slow_kappa", "step"),
    ):
        if name in by_name:
            c = by_name[name]
            text = (
                f"**Filter of the {what}.** {_percent(c['median'])} of the {what} goes through it, "
                f"{_percent(c['start'])} at the start of a run and {_percent(c['end'])} at its end."
            )
            if kappa in by_name:
                k = by_name[kappa]
                text += (
                    f" It allows for {figure(k['start'])} times the measured noise at the start "
                    f"and {figure(k['end'])} times at the end."
                )
            lines.append(text + _where(c, "larger", "smaller", "The part that goes through"))
    for name, steps in (("add_fast", "~10"), ("add_slow", "~100")):
        if name in by_name:
            c = by_name[name]
            does = "added to" if c["median"] > 0 else "taken from"
            lines.append(
                f"**Mean of the last {steps} gradients.** {figure(abs(c['median']))} of it is "
                f"{does} the gradient as a rule (`{name}` is from {figure(c['low'])} to "
                f"{figure(c['high'])})."
            )
    if "decay" in by_name:
        c = by_name["decay"]
        lines.append(
            f"**Decay.** {figure(c['median'])} times the learning rate of each parameter is taken "
            f"away in a step.{_where(c, 'stronger', 'weaker')}"
        )
    for name, e in found.energy.items():
        lines.append(
            f"**Energy, {name}.** A cleaned gradient has {figure(e['kept_start'])} times the "
            f"energy of the plain one at the start and {figure(e['kept_end'])} times at the end; "
            f"the energy of what was changed is {figure(e['removed'])} of that before."
        )
    themes = [f"{theme} ({100 * part:.0f} %)" for theme, part in found.themes.items()]
    if themes:
        lines.append(f"**What it goes by.** {', '.join(themes)}.")
    return lines


def _change(start: float, end: float, less: str, more: str, same: str) -> str:
    if end * CHANGED < start:
        return less
    return more if end > start * CHANGED else same


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"


def _where(c: Mapping[str, Any], more: str, less: str, subject: str = "It") -> str:
    """Where a coefficient is larger, and where it is smaller."""
    text = ""
    for sign, word in ((1, more), (-1, less)):
        named = [f["words"] for f in c["features"] if f["sign"] == sign]
        if named:
            text += f" {subject} is {word} with more of: {'; '.join(named)}."
            subject = "It"
    return text


def sentence(coefficient: Mapping[str, Any]) -> str:
    """What is known of a coefficient, in words.

    Example:
        >>> feature = {"words": "steps done", "sign": -1, "share": 0.4, "effect": 2.0}
        >>> sentence({"name": "update_gain", "words": "factor on the step", "neutral": 1.0,
        ...     "median": 1.5, "low": 0.5, "high": 3.0, "start": 2.0, "end": 1.0,
        ...     "features": [feature]})
        'factor on the step: 1.5 as a rule (0.5 to 3; neutral at 1), 2 at the start
        of a run and 1 at its end. It falls with: steps done (40 %, by a factor of 2).'
    """
    numbers = {key: figure(coefficient[key]) for key in ("median", "low", "high", "start", "end")}
    text = (
        f"{coefficient['words']}: {numbers['median']} as a rule ({numbers['low']} to "
        f"{numbers['high']}; neutral at {figure(coefficient['neutral'])}), "
        f"{numbers['start']} at the start of a run and {numbers['end']} at its end."
    )
    for sign, verb in ((1, "rises"), (-1, "falls"), (0, "goes up and down")):
        named = [
            f"{f['words']} ({100 * f['share']:.0f} %, by {_size(coefficient['name'], f['effect'])})"
            for f in coefficient["features"]
            if f["sign"] == sign
        ]
        if named:
            text += f" It {verb} with: {'; '.join(named)}."
    return text


def _size(name: str, effect: float) -> str:
    return f"a factor of {figure(effect)}" if name in MULTIPLIERS else figure(effect)


def figure(value: float) -> str:
    """Two significant digits, without a power of ten where it is readable."""
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.1e}"
    short = float(f"{value:.2g}")
    return f"{short:.0f}" if abs(short) >= 10 or short == int(short) else f"{short:g}"


def table_lines(found: Findings) -> list[str]:
    """Markdown tables: of coefficients, of what features are about, of energy."""
    lines = [
        "| coefficient | what it is | neutral at | as a rule | 10 % to 90 % | start | end | "
        "moved most by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{c['name']}` | {c['words']} | {figure(c['neutral'])} | {figure(c['median'])} | "
        f"{figure(c['low'])} to {figure(c['high'])} | {figure(c['start'])} | "
        f"{figure(c['end'])} | {moved_by(c)} |"
        for c in found.coefficients
    ]
    lines += ["", "| features about | part of all effects |", "|---|---|"]
    lines += [f"| {theme} | {100 * part:.0f} % |" for theme, part in found.themes.items()]
    lines += [
        "",
        "| layers of | energy kept | at the start | at the end | energy changed or removed |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {figure(e['kept'])} | {figure(e['kept_start'])} | {figure(e['kept_end'])} | "
        f"{figure(e['removed'])} |"
        for name, e in found.energy.items()
    ]
    return lines


def moved_by(coefficient: Mapping[str, Any], most: int = TOP) -> str:
    """The features that move a coefficient most, with their signs."""
    named = [f"{SIGNS[f['sign']]} {f['words']}" for f in coefficient["features"][:most]]
    return "; ".join(named) or "none"
