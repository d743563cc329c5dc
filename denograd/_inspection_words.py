"""What an inspection found, in words and in Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from denograd.inspection import MULTIPLIERS

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
    """

    subject: str
    coefficients: list[dict[str, Any]]
    themes: dict[str, float]
    energy: dict[str, dict[str, float]]


def in_short(found: Findings) -> list[str]:
    """What it comes to, a sentence for each part of the filter that the denoiser has."""
    by_name = {c["name"]: c for c in found.coefficients}
    lines = []
    if "update_gain" in by_name:
        c = by_name["update_gain"]
        lines.append(
            f"**Steps.** The base optimizer's step is multiplied by {figure(c['start'])} at the "
            f"start of a run and by {figure(c['end'])} at its end: the learning rate in effect "
            f"{_change(c, 'falls', 'rises', 'stays about the same')}."
            f"{_where(c, 'longer', 'shorter')}"
        )
    filters = [by_name[name] for name in ("fast_filter", "slow_filter") if name in by_name]
    for c, what in zip(filters, ("gradient", "step"), strict=False):
        lines.append(
            f"**Filter of the {what}.** {100 * c['median']:.0f} % of the {what} goes through the "
            f"filter, which {_change(c, 'takes less', 'takes more', 'takes about as much')} "
            f"towards the end of a run ({100 * c['start']:.0f} % to {100 * c['end']:.0f} %)."
            f"{_where(c, 'stronger', 'weaker')}"
        )
    for name, steps in (("add_fast", "~10"), ("add_slow", "~100")):
        if name in by_name:
            c = by_name[name]
            does = "added to" if c["median"] > 0 else "taken from"
            lines.append(
                f"**Mean of the last {steps} gradients.** {figure(abs(c['median']))} of it is "
                f"{does} the gradient as a rule (from {figure(c['low'])} to {figure(c['high'])})."
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


def _change(c: Mapping[str, Any], less: str, more: str, same: str) -> str:
    if c["end"] * CHANGED < c["start"]:
        return less
    return more if c["end"] > c["start"] * CHANGED else same


def _where(c: Mapping[str, Any], more: str, less: str) -> str:
    """Where a coefficient is larger, and where it is smaller."""
    text = ""
    for sign, word in ((1, more), (-1, less)):
        named = [f["words"] for f in c["features"] if f["sign"] == sign]
        if named:
            text += f" It is {word} with more of: {'; '.join(named)}."
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
    signs = {1: "+", -1: "−", 0: "±"}  # noqa: RUF001 (a minus as wide as the plus)
    named = [f"{signs[f['sign']]} {f['words']}" for f in coefficient["features"][:most]]
    return "; ".join(named) or "none"
