"""The last chapters: the worst cases in full, what failed, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from denograd.evaluation.comparisons import case_name
from denograd.evaluation.html import parts
from denograd.evaluation.html.measures import metric_names, metric_value
from denograd.evaluation.html.parts import Code, Fold, Grid, Part, Row, Section, Text, Value
from denograd.evaluation.html.phrases import counted, listing
from denograd.evaluation.html.words import is_own, loss_of, names, rivals
from denograd.evaluation.train import Cell

_WORST = 5
_ERRORS = 50
"""So many failed cells are listed; errors.csv has all."""

_ROUNDING = (
    "The same command on the same machine gives the same results again. With another --engine, or "
    "another number of seeds that run together, they differ by rounding, which denograd on few "
    "rows can amplify to percents of a single run's loss (for adamw it stays at a millionth)."
)
_FURTHER: tuple[tuple[str, str, int], ...] = (
    ("train_seconds", "seconds of training", 2),
    ("seconds_per_step", "seconds a step", 5),
    ("diverged", "runs that diverged", 0),
    ("steps_to_reference", "steps to the reference's best", 0),
    ("seconds_to_reference", "seconds to the reference's best", 2),
    ("reached", "share of seeds that reached it", 2),
    ("common_steps_ratio", "steps to a loss that both reach, ratio", 2),
    ("consistency", "consistency of explanations", 2),
)


def worst_cases(summary: Mapping[str, Any]) -> Section:
    """The cases with the highest ratios of the first optimizer, with all measures."""
    title = "The worst cases in full"
    judged = rivals(summary)[:1]
    cases = [
        case for case in summary["cases"] if judged and case["ratio"].get(judged[0]) is not None
    ]
    if not cases:
        return Section("worst", title, [Text("There is nothing to compare.")])
    rival, short = judged[0], names(summary)
    cases.sort(key=lambda case: -case["ratio"][rival])
    intro = (
        f"The {counted(min(_WORST, len(cases)), 'case')} with the highest ratio of {short[rival]} "
        f"to {short[summary['reference']]}, beside the winner of each case. All optimizers and "
        "cases are in summary.json."
    )
    found: list[Part] = [Text(intro)]
    found += [_full(summary, case, rival) for case in cases[:_WORST]]
    return Section("worst", title, found)


def failures(summary: Mapping[str, Any], errors: Sequence[tuple[Cell, str]]) -> Section:
    """Cells that failed, each with its error."""
    title = "Runs that failed"
    if not errors:
        failed = summary.get("cells_failed") or 0
        text = f"{counted(failed, 'run')} failed; see errors.csv." if failed else "None."
        return Section("failures", title, [Text(text)])
    rows = [
        Row(
            cell.dataset,
            [
                Value(cell.model),
                Value(cell.optimizer),
                Value(str(cell.n_train)),
                Value(str(cell.seed)),
                Value(message, look="words"),
            ],
        )
        for cell, message in errors[:_ERRORS]
    ]
    caption = (
        "They are missing from everything above, and so are the runs of all other optimizers with "
        "the same data set, model, rows and seed, as means are over the same seeds for all. The "
        "same command tries them again."
    )
    if len(errors) > _ERRORS:
        caption += f" {len(errors) - _ERRORS} more are in errors.csv."
    head = ("data set", "model", "optimizer", "rows", "seed", "error")
    return Section("failures", title, [Grid(caption, head, rows)])


def making(summary: Mapping[str, Any]) -> Section:
    """Command, versions, seeds and settings."""
    settings = summary.get("settings") or {}
    found: list[Part] = []
    if summary.get("command"):
        found += [Text("The exact command:"), Code(str(summary["command"]))]
    else:
        found.append(Text("Made from Python, so there is no command."))
    seeds = settings.get("seeds")
    rows = [
        Row("finished", [Value(str(summary.get("finished_at") or parts.MISSING))]),
        Row("runs", [Value(f"{summary.get('cells_finished', 0):,} finished, "
                           f"{summary.get('cells_failed', 0):,} failed")]),
        Row("reference", [Value(str(summary["reference"]))]),
    ]  # fmt: skip
    if isinstance(seeds, int):
        rows.append(
            Row("seeds", [Value(listing(range(seeds)) if seeds < 4 else f"0 to {seeds - 1}")])
        )
    for key, label in (
        ("sizes", "training rows"),
        ("models", "models"),
        ("steps", "steps"),
        ("batch_size", "batch size"),
    ):
        value = settings.get(key)
        if value is not None:
            text = listing(value) if isinstance(value, list | tuple) else str(value)
            rows.append(Row(label, [Value(text)]))
    if settings.get("engine"):
        rows.append(Row("engine", [Value(str(settings["engine"]))]))
    tables = settings.get("tables") or {}
    if tables:
        rows.append(Row("data sets", [Value(f"{len(tables)}: {listing(tables)}", look="words")]))
    found.append(Grid("Settings", ("what", "value"), rows))
    if any(is_own(name) for name in settings.get("optimizers") or ()):
        found.append(Text(_ROUNDING))
    versions = [
        Row(name, [Value(str(version))])
        for name, version in (summary.get("versions") or {}).items()
    ]
    if versions:
        found.append(Grid("Versions", ("package", "version"), versions))
    text = json.dumps(settings, indent=1, ensure_ascii=False, default=str)
    fold = Fold("All settings, with those of the optimizers and the tables' hashes", [Code(text)],
                printed=False)  # fmt: skip
    return Section("making", "How this was made", [*found, fold])


def _full(summary: Mapping[str, Any], case: Mapping[str, Any], rival: str) -> Grid:
    short, reference = names(summary), summary["reference"]
    shown = list(dict.fromkeys([reference, rival, case.get("winner") or rival]))
    shown = [name for name in shown if name in case["optimizers"]]
    values = [case["optimizers"][name] for name in shown]
    loss, label = loss_of(summary)
    metrics = metric_names(summary)
    rows = [
        Row(written, [metric_value(key, own.get(key)) for own in values])
        for key, written in metrics.items()
    ]
    for key, written in (
        (f"{loss}_deviation", f"deviation of the {label} over seeds"),
        (f"{loss}_worst", f"{label} of the worst seed"),
    ):
        rows.append(Row(written, [parts.number(own.get(key)) for own in values]))
    rows += [
        Row(written, [parts.number(own.get(key), digits) for own in values])
        for key, written, digits in _FURTHER
    ]
    rows = [row for row in rows if parts.any_known([row])]
    ratios = [
        Value("") if name == reference else parts.ratio(case["ratio"].get(name)) for name in shown
    ]
    rows.insert(0, Row(f"ratio of the {label}", ratios))
    caption = f"{case_name(case)} ({counted(case['seeds'], 'seed')})"
    return Grid(caption, ["measure", *(short.get(name, name) for name in shown)], rows)
