"""The other measures: steadiness, convergence, calibration, explanations, cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from denograd.baselines import CROSS_VALIDATED
from denograd.evaluation.comparisons import case_name
from denograd.evaluation.html import parts
from denograd.evaluation.html.parts import Fold, Grid, Part, Row, Section, Text, Value
from denograd.evaluation.html.words import (
    GOOD_SEEDS,
    LEAST_DATA_SETS,
    enough_for_spread,
    in_stacks,
    loss_of,
    names,
    rivals,
)
from denograd.evaluation.metrics import LOG_LOSS_FLOOR

_METRICS = {
    "log_loss": "log loss",
    "rmse": "RMSE",
    "nll": "Gaussian NLL",
    "crps": "CRPS",
    "r2": "R\u00b2",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
}
_SHARES = ("accuracy", "balanced_accuracy", "calibration_error")
_WORST = 5
_COMMON = "to a loss that both reach"
_AT_BEST = "to the reference's best"


def metric_value(name: str, value: float | None) -> Value:
    """A metric as it is usually written."""
    return parts.percent(value) if name in _SHARES else parts.number(value)


def metric_names(summary: Mapping[str, Any]) -> dict[str, str]:
    """The metrics that the evaluation has, each with the name for it."""
    present = {
        key for case in summary["cases"] for values in case["optimizers"].values() for key in values
    }
    return {key: label for key, label in _METRICS.items() if key in present}


def stability(summary: Mapping[str, Any]) -> Section:
    """Spread over seeds, the worst seed, and runs that diverged."""
    title = "Stability over seeds"
    if max((case["seeds"] for case in summary["cases"]), default=0) < 2:
        return Section("stability", title, [Text("With one seed there is no spread to speak of.")])
    key, loss = loss_of(summary)
    rows = [Row(written, _steadiness(summary, name)) for name, written in _headers(summary).items()]
    head = ("optimizer", "spread, ratio", "worst seed, ratio", "diverged")
    caption = (
        f"Spread: standard deviation (divisor n) of the test {loss} over seeds. Worst seed: its "
        "highest "
        f"{loss}. Both as the geometric mean of the ratio to "
        f"{names(summary)[summary['reference']]}; below 1 is steadier. Diverged: runs whose loss "
        "stopped being a number."
    )
    if not enough_for_spread(summary):
        caption += (
            f" With fewer than {GOOD_SEEDS} seeds in a case, or fewer than {LEAST_DATA_SETS} data "
            "sets, ratios of spread are mostly chance: no difference can be read off them."
        )
    found: list[Part] = [Grid(caption, head, rows)]
    extremes = _worst_seeds(summary, f"{key}_worst")
    if extremes:
        found.append(extremes)
    return Section("stability", title, found)


def convergence(summary: Mapping[str, Any]) -> Section:
    """Steps and seconds until a test loss that both reach, and the reference's best."""
    found = [grid for grid in (_steps(summary), _seconds(summary)) if grid is not None]
    reason = Text("Not known for this evaluation.")
    return Section("convergence", "Convergence", found or [reason])


def calibration(summary: Mapping[str, Any]) -> Section:
    """All metrics, averaged over data sets."""
    metrics = metric_names(summary)
    if "rmse" in metrics and len({case["dataset"] for case in summary["cases"]}) > 1:
        return _relative(summary)
    rows = [
        Row(
            written, [metric_value(key, _case_mean(summary["cases"], name, key)) for key in metrics]
        )
        for name, written in _headers(summary).items()
    ]
    caption = (
        "Means over data sets of the means over their cases. Lower is better for log loss, Brier "
        "score (sum over classes) and calibration error (15 bins), higher for the others. For the "
        f"log loss, a probability of the true class counts as at least {LOG_LOSS_FLOOR:.1e} "
        f"(machine epsilon), so no row costs more than {-math.log(LOG_LOSS_FLOOR):.1f} nats. Runs "
        "that diverged count in the log loss alone: where some did, the other metrics are not of "
        "the same seeds for all optimizers."
    )
    if "log_loss" not in metrics:
        caption = (
            "Means over the cases of the data set, in units of the target (NLL: nats); only "
            "R\u00b2 is the higher, the better."
        )
    if not metrics:
        return Section("calibration", "Calibration", [Text("No case is finished.")])
    grid = Grid(caption, ["optimizer", *metrics.values()], rows)
    return Section("calibration", "Calibration and all metrics", [grid])


def _relative(summary: Mapping[str, Any]) -> Section:
    """All metrics of measured targets, against the reference: units differ between data sets."""
    title, reference = "Calibration and all metrics", summary["reference"]
    rows = []
    for name, written in _headers(summary).items():
        r2 = metric_value("r2", _case_mean(summary["cases"], name, "r2"))
        if name == reference:
            rows.append(Row(written, [parts.number(1.0), r2, parts.number(0.0), parts.number(1.0)]))
            continue
        nll = [own - other for own, other in _both(summary, name, "nll")]
        crps = [math.log(own / other) for own, other in _both(summary, name, "crps") if own > 0]
        overall = summary["comparisons"][name]["overall"]
        rows.append(
            Row(
                written,
                [
                    parts.ratio(overall.get("log_loss_ratio"), digits=3),
                    r2,
                    parts.number(_mean(nll)),
                    parts.ratio(math.exp(float(np.mean(crps))) if crps else None, digits=3),
                ],
            )
        )
    caption = (
        f"Over cases, against {names(summary)[reference]}: a mean of RMSE, NLL or CRPS over data "
        "sets would be of different units. RMSE and CRPS: geometric mean of the ratio; Gaussian "
        "NLL: mean of the difference in nats; lower is better. R\u00b2: mean over data sets of the "
        "means over their cases, higher is better. Runs that diverged count in the RMSE alone; NLL "
        "and CRPS are over seeds in which neither diverged."
    )
    head = ("optimizer", "RMSE, ratio", "R\u00b2", "Gaussian NLL, difference", "CRPS, ratio")
    return Section("calibration", title, [Grid(caption, head, rows)])


def _both(summary: Mapping[str, Any], name: str, metric: str) -> list[tuple[float, float]]:
    """Of each case the means of an optimizer and of the reference, over the same seeds."""
    found = [case.get("both", {}).get(name, {}).get(metric) for case in summary["cases"]]
    return [(own, other) for own, other in filter(None, found)]


def consistency(summary: Mapping[str, Any]) -> Section:
    """Whether seeds agree about which features matter."""
    headers = _headers(summary)
    groups = _groups(summary, "by_model")
    rows = []
    for number, name in enumerate(rivals(summary)):
        comparison = summary["comparisons"][name]
        found = [comparison["by_model"].get(model, {}) for model in groups]
        found.append(comparison["overall"])
        if number == 0:
            values = [parts.number(group.get("consistency_reference"), 2) for group in found]
            rows.append(Row(headers[summary["reference"]], values))
        rows.append(Row(headers[name], [parts.number(g.get("consistency"), 2) for g in found]))
    if not parts.any_known(rows):
        text = "Not known: it takes at least two seeds and models that say what they looked at."
        return Section("consistency", "Consistency of explanations", [Text(text)])
    caption = (
        "Rank correlation (Spearman) of feature importances between pairs of seeds, by each "
        "model's own explanation. 1: every seed tells the same story; 0: no agreement. Agreement "
        "is no proof that an explanation is right: seeds may agree where labels say nothing, and "
        "denograd.explain.label_randomization measures how much."
    )
    grid = Grid(caption, ["optimizer", *groups, "all models"], rows)
    return Section("consistency", "Consistency of explanations", [grid])


def cost(summary: Mapping[str, Any]) -> Section:
    """What a step costs."""
    models = _groups(summary, "by_model")
    rows = []
    for name, written in _headers(summary).items():
        values = []
        for model in [*models, None]:
            cases = [case for case in summary["cases"] if model in (None, case["model"])]
            seconds = _case_mean(cases, name, "seconds_per_step")
            groups = summary["comparisons"].get(name, {})
            group = groups.get("by_model", {}).get(model) if model else groups.get("overall")
            times = (group or {}).get("step_cost_ratio")
            note = f"{times:.2f} times" if times is not None else ""
            values.append(parts.number(None if seconds is None else 1000 * seconds, 2, note))
        rows.append(Row(written, values))
    if not parts.any_known(rows):
        return Section("cost", "Cost of a step", [Text("Not measured.")])
    caption = (
        "Milliseconds of a training step on the machine of this evaluation, on one thread, and "
        f"under it how many times those of {names(summary)[summary['reference']]} (geometric mean "
        "over cases)."
    )
    if in_stacks(summary):
        caption += (
            " All seeds of a case took their steps together, and each has its share of the time. "
            "A step of a run by itself takes longer, and the ratio is another: --engine loop "
            "measures both."
        )
    caption += _without_search(summary)
    grid = Grid(caption, ["optimizer", *models, "all models"], rows)
    return Section("cost", "Cost of a step", [grid])


def context(summary: Mapping[str, Any]) -> Section:
    """Models outside torch on the same rows."""
    title, entries = "Models outside torch, for context", summary.get("context") or []
    if not entries:
        return Section("context", title, [Text("None were fitted.")])
    key, loss = loss_of(summary)
    sizes = sorted({entry["n_train"] for entry in entries})
    models = list(dict.fromkeys(model for entry in entries for model in entry["models"]))
    optimizers = [summary["reference"], *rivals(summary)[:1]]
    short = names(summary)
    caption = (
        f"Mean {loss} on the same training and test rows, over the data sets of that size. They "
        "have no part in any comparison."
    )
    rows = [
        Row(
            model,
            [
                parts.number(
                    _mean(
                        e["models"].get(model, {}).get(key) for e in entries if e["n_train"] == size
                    )
                )
                for size in sizes
            ],
        )
        for model in models
    ]
    held = {(entry["dataset"], entry["n_train"]) for entry in entries}
    for network in dict.fromkeys(case["model"] for case in summary["cases"]):
        for name in optimizers:
            cells = [
                parts.number(
                    _mean(
                        case["optimizers"].get(name, {}).get(key)
                        for case in summary["cases"]
                        if case["model"] == network
                        and case["n_train"] == size
                        and (case["dataset"], size) in held
                    )
                )
                for size in sizes
            ]
            rows.append(Row(f"{network}, {short[name]}", cells))
    grid = Grid(caption, ["model", *(f"{size} rows" for size in sizes)], rows)
    full = [
        Row(
            f"{entry['dataset']}, {entry['n_train']} rows",
            [parts.number(entry["models"].get(model, {}).get(key)) for model in models],
        )
        for entry in entries
    ]
    fold = Fold(
        "Data set by data set", [Grid(f"Mean {loss}.", ["data set", *models], full)], printed=False
    )
    return Section("context", title, [grid, fold])


def _headers(summary: Mapping[str, Any]) -> dict[str, str]:
    """All optimizers, the reference first, each with what stands in front of its row."""
    short, reference = names(summary), summary["reference"]
    return {
        name: f"{short[name]} (reference)" if name == reference else short[name]
        for name in [reference, *rivals(summary)]
    }


def _case_mean(cases: Iterable[Mapping[str, Any]], name: str, key: str) -> float | None:
    """Mean over data sets of the mean over their cases; None where nothing is known."""
    by_dataset: dict[str, list[float]] = {}
    for case in cases:
        value = case["optimizers"].get(name, {}).get(key)
        if value is not None:
            by_dataset.setdefault(case["dataset"], []).append(value)
    return _mean(float(np.mean(values)) for values in by_dataset.values())


def _without_search(summary: Mapping[str, Any]) -> str:
    """What seconds leave out of a rival that tunes itself, as a further sentence."""
    if CROSS_VALIDATED not in names(summary):
        return ""
    return f" For {CROSS_VALIDATED} without the trainings that it chose its settings by."


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _steadiness(summary: Mapping[str, Any], name: str) -> list[Value]:
    cases = summary["cases"]
    diverged = sum(case["optimizers"].get(name, {}).get("diverged") or 0 for case in cases)
    runs = sum(case["seeds"] for case in cases if name in case["optimizers"])
    count = Value(f"{diverged} of {runs:,}", diverged)
    if name == summary["reference"]:
        return [parts.number(1.0, 2), parts.number(1.0, 2), count]
    overall = summary["comparisons"][name]["overall"]
    ratios = [parts.ratio(overall.get(key)) for key in ("deviation_ratio", "worst_seed_ratio")]
    return [*ratios, count]


def _worst_seeds(summary: Mapping[str, Any], worst: str) -> Grid | None:
    """The cases in which one seed of the first rival came out worst."""
    if not rivals(summary):
        return None
    rival, reference, short = rivals(summary)[0], summary["reference"], names(summary)
    found = []
    for case in summary["cases"]:
        own, other = (case["optimizers"].get(name, {}).get(worst) for name in (rival, reference))
        if own is not None and other:
            found.append((own / other, own, other, case))
    found.sort(key=lambda entry: -entry[0])
    if not found:
        return None
    rows = [
        Row(
            case_name(case),
            [parts.number(own), parts.number(other), parts.ratio(times)],
        )
        for times, own, other, case in found[:_WORST]
    ]
    head = ("case", short[rival], short[reference], "ratio")
    return Grid(f"Where the worst seed of {short[rival]} was worst, by ratio", head, rows)


def _groups(summary: Mapping[str, Any], key: str) -> list[str]:
    found: dict[str, None] = {}
    for comparison in summary["comparisons"].values():
        found |= dict.fromkeys(comparison.get(key) or ())
    return list(found)


def _steps(summary: Mapping[str, Any]) -> Grid | None:
    def at_best(found: Mapping[str, Any]) -> Value:
        notes = [
            f"{100 * found[key]:.0f} % of {what}"
            for key, what in (("reached_cases", "cases"), ("reached", "seeds"))
            if found.get(key) is not None
        ]
        return parts.ratio(found.get("steps_ratio"), ", ".join(notes))

    def common(found: Mapping[str, Any]) -> Value:
        return parts.ratio(found.get("common_steps_ratio"))

    sizes, short = _groups(summary, "by_size"), names(summary)
    rows = []
    for group, shown in ((_COMMON, common), (_AT_BEST, at_best)):
        for name in rivals(summary):
            comparison = summary["comparisons"][name]
            cells = [shown(comparison["by_size"].get(size, {})) for size in sizes]
            rows.append(Row(short[name], [*cells, shown(comparison["overall"])], group))
    if not parts.any_known(rows) and not any(cell.note for row in rows for cell in row.values):
        return None
    reference = short[summary["reference"]]
    caption = (
        f"Steps, as a ratio to those of {reference}. To a loss that both reach: for each seed, "
        "until the test loss first is at or below the best of whichever was worse. It leaves out "
        "no case, and optimizers that are alike have 1. To the reference's best: until the test "
        f"loss is at or below the best that {reference} ever reached with the same seed; over "
        "cases in which at least half of the seeds get there, and under it the share of these "
        "cases and of the seeds that do. Here optimizers that are alike come out below 1, about "
        "0.9, as a first arrival is set against the place of a minimum and late cases are left out."
    )
    return Grid(caption, ["optimizer", *(f"{size} rows" for size in sizes), "all sizes"], rows)


def _seconds(summary: Mapping[str, Any]) -> Grid | None:
    short, comparisons = names(summary), summary["comparisons"]
    rows = [
        Row(
            short[name],
            [
                parts.ratio(comparisons[name]["overall"].get(key))
                for key in ("common_seconds_ratio", "seconds_ratio")
            ],
        )
        for name in rivals(summary)
    ]
    if not parts.any_known(rows):
        return None
    caption = "The same in seconds of training, over all sizes." + _without_search(summary)
    return Grid(caption, ["optimizer", _COMMON, _AT_BEST], rows)
