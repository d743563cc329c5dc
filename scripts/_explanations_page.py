"""The tables and pictures of docs/explanations.md, from the lines that `explanations.py` wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from _page import around_figures, markdown
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from denograd import explain

COMMAND = (
    "python scripts/explanations.py --data ../shared/data --out results/explanations "
    "--page docs/explanations.md"
)
ARMS = {"control": "control", "denograd": "DenoGrad", "penalties": "DenoGrad with penalties"}
MODELS = (
    "soft_tree",
    "soft_forest",
    "rule_net",
    "additive_net",
    "attention",
    "prototype_net",
    "temporal_attention",
)
TOP = 3
"""Features whose overlap between seeds is counted."""

RESAMPLES = 10_000
COLOURS = {"denograd": "#0072b2", "penalties": "#d55e00"}
INK, FAINT, FONT = "#222222", "#9aa0a6", 9
MARKERS = "osD^vPX"
MODEL_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")


class Metric(NamedTuple):
    """A column of the tables.

    Attributes:
        name: column of `by_case`.
        label: its head.
        sign: 1 if more is better, -1 if less is.
        ratio: whether arms are compared by ratio (geometric mean), else by difference.
        scale: what figures are multiplied by.
        digits: after the point.
    """

    name: str
    label: str
    sign: int
    ratio: bool = False
    scale: float = 1.0
    digits: int = 3


PREDICTION = (
    Metric("accuracy", "accuracy, %", 1, scale=100, digits=1),
    Metric("log_loss", "log loss", -1, ratio=True),
    Metric("accuracy_sd", "sd of accuracy over seeds, points", -1, scale=100, digits=2),
    Metric("log_loss_sd", "sd of log loss over seeds", -1),
)
EXPLANATION = (
    Metric("entropy", "entropy", -1),
    Metric("gini", "Gini", 1),
    Metric("spearman", "Spearman over seeds", 1),
    Metric("top_k", f"top-{TOP} Jaccard over seeds", 1),
    Metric("deletion", "deletion", -1),
    Metric("insertion", "insertion", 1),
    Metric("max_sensitivity", "max-sensitivity", -1),
    Metric("order_kept", "order kept from the start", -1),
    Metric("divergence", "Jensen-Shannon over seeds", -1),
)


@dataclass(frozen=True)
class Change:
    """An arm against the control in one metric, over data sets.

    Attributes:
        middle, low, high: mean and 95 % interval, of differences or of ratios.
        verdict: 1 if the whole interval is better, -1 if it is worse, else 0.
    """

    middle: float
    low: float
    high: float
    verdict: int


def write_page(path: Path, lines: pd.DataFrame) -> None:
    """Put the figures between the markers of a page, and draw its pictures beside it."""
    before, after = around_figures(path)
    cases = by_case(lines)
    images = path.parent / "images"
    images.mkdir(exist_ok=True)
    draw_changes(cases).savefig(images / "explanations-changes.png", dpi=150)
    draw_seeds(cases).savefig(images / "explanations-seeds.png", dpi=150)
    path.write_text(f"{before}{section(lines, cases)}{after}", encoding="utf-8")


# ----------------------------------------------------------------------------- the figures


def numbers(cells: pd.Series[str]) -> NDArray[np.float64]:
    """What a column of listed numbers holds, ``(seeds, numbers)``."""
    return np.array([[float(v) for v in cell.split()] for cell in cells])


def by_case(lines: pd.DataFrame) -> pd.DataFrame:
    """A row for each data set, model and arm with all of its seeds: means, and what seeds share."""
    settings = lines.groupby(["model", "arm"])["settings"].nunique()
    if (settings > 1).any():
        model, arm = cast("tuple[str, str]", settings.idxmax())
        raise SystemExit(f"{model}, {arm}: its fits have several settings; run the script again")
    seeds = lines["seed"].nunique()
    rows = []
    for case, own in lines.groupby(["dataset", "model", "arm"]):
        dataset, model, arm = cast("tuple[str, str, str]", case)
        if len(own) < seeds:
            continue
        row: dict[str, Any] = {"dataset": dataset, "model": model, "arm": arm}
        for name in ("accuracy", "log_loss", "entropy", "gini"):
            row[name] = own[name].mean()
        for name in ("deletion", "insertion", "max_sensitivity", "order_kept"):
            row[name] = own[name].mean()
        for name in ("accuracy", "log_loss"):
            row[f"{name}_sd"] = own[name].std()
        importances = numbers(own["importances"])
        row["spearman"] = explain.rank_consistency(importances)
        row["top_k"] = explain.top_k_consistency(importances, TOP)
        if own["attention"].notna().all():
            weights = numbers(own["attention"])
            features = importances.shape[1]
            row["divergence"] = explain.attention_divergence(
                weights.reshape(len(weights), -1, features)
            )
        rows.append(row)
    return pd.DataFrame(rows)


def compare(cases: pd.DataFrame, model: str, arm: str, metric: Metric) -> Change | None:
    """The arm against the control over the data sets that both have; None if there are none.

    The interval is the percentile bootstrap's over data sets.
    """
    own = cases[cases["model"] == model]
    if metric.name not in own:
        return None
    wide = own.pivot_table(index="dataset", columns="arm", values=metric.name)
    if arm not in wide or "control" not in wide:
        return None
    both = wide[["control", arm]].dropna()
    if len(both) < 2:
        return None
    own_values, control = both[arm].to_numpy(), both["control"].to_numpy()
    change = np.log(own_values / control) if metric.ratio else own_values - control
    rng = np.random.default_rng(0)
    draws = change[rng.integers(len(change), size=(RESAMPLES, len(change)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    better, worse = (low > 0, high < 0) if metric.sign > 0 else (high < 0, low > 0)
    values = np.array([change.mean(), low, high])
    middle, low, high = (np.exp(values) if metric.ratio else values).tolist()
    return Change(middle, low, high, verdict=int(better) - int(worse))


# -------------------------------------------------------------------------------- the page


def section(lines: pd.DataFrame, cases: pd.DataFrame) -> str:
    """All tables as Markdown."""
    parts = [
        f"`{COMMAND}`: {len(lines)} fits of {lines['seed'].nunique()} seeds each; "
        f"{about_data(cases)}.",
        "Rows of the control are means over data sets. Rows of the others are differences to the "
        "control, averaged over the data sets that both have finished, with 95 % bootstrap "
        "intervals over data sets; of the log loss it is the ratio, below 1 being better. "
        "**Bold**: the whole interval is better. *Italics*: the whole interval is worse.",
        "### What is predicted",
        table(cases, PREDICTION),
        "### What is explained",
        table(cases, EXPLANATION),
        "### Clearly better and clearly worse",
        verdicts(cases),
        "### The settings of the control",
        controls(lines),
    ]
    return "\n\n".join(parts)


def about_data(cases: pd.DataFrame) -> str:
    sequences = cases["model"] == "temporal_attention"
    tables, series = (cases[part]["dataset"].unique() for part in (~sequences, sequences))
    said = f"{len(tables)} tables ({', '.join(sorted(tables))})"
    if len(series):
        said += f", and for `temporal_attention` {len(series)} sets of sequences "
        said += f"({', '.join(sorted(series))})"
    return said + "".join(f"; {gap}" for gap in gaps(cases))


def gaps(cases: pd.DataFrame) -> Iterator[str]:
    """Arms that are not finished on all of a model's data sets."""
    for model, _ in present(cases):
        own = cases[cases["model"] == model]
        count = own["arm"].value_counts()
        for arm in ARMS:
            if arm in cases["arm"].to_numpy() and count.get(arm, 0) < own["dataset"].nunique():
                yield (
                    f"`{model}`, {ARMS[arm]}: {count.get(arm, 0)} of {own['dataset'].nunique()} "
                    "data sets are finished"
                )


def present(cases: pd.DataFrame) -> Iterator[tuple[str, list[str]]]:
    """Models, and the arms that each has."""
    for model in MODELS:
        arms = cases.loc[cases["model"] == model, "arm"].unique()
        if len(arms):
            yield model, [arm for arm in ARMS if arm in arms]


def table(cases: pd.DataFrame, metrics: Sequence[Metric]) -> str:
    rows = []
    for model, arms in present(cases):
        for arm in arms:
            own = cases[(cases["model"] == model) & (cases["arm"] == arm)]
            cells = [f"`{model}`" if arm == "control" else "", ARMS[arm]]
            for metric in metrics:
                if arm == "control":
                    value = own[metric.name].mean() if metric.name in own else np.nan
                    shown = f"{metric.scale * value:.{metric.digits}f}"
                    cells.append("" if np.isnan(value) else shown)
                else:
                    cells.append(cell(compare(cases, model, arm, metric), metric))
            rows.append(cells)
    return markdown(["model", "trained by", *(metric.label for metric in metrics)], rows)


def cell(change: Change | None, metric: Metric) -> str:
    """A difference or ratio with its interval, marked if it is clear."""
    if change is None:
        return ""
    sign = "" if metric.ratio else "+"
    values = [metric.scale * v for v in (change.middle, change.low, change.high)]
    middle, low, high = (f"{v:{sign}.{metric.digits}f}" for v in values)
    mark = {1: "**", 0: "", -1: "*"}[change.verdict]
    return f"{mark}{middle}{mark} [{low}, {high}]"


def verdicts(cases: pd.DataFrame) -> str:
    """A list of what the intervals leave no doubt about."""
    rows = []
    for model, arms in present(cases):
        for arm in arms[1:]:
            found: dict[int, list[str]] = {1: [], -1: []}
            for metric in (*PREDICTION, *EXPLANATION):
                change = compare(cases, model, arm, metric)
                if change is not None and change.verdict:
                    found[change.verdict].append(metric.label.split(",")[0])
            better, worse = (", ".join(found[side]) or "nothing" for side in (1, -1))
            rows.append([f"`{model}`", ARMS[arm], better, worse])
    return markdown(["model", "trained by", "clearly better", "clearly worse"], rows)


def controls(lines: pd.DataFrame) -> str:
    own = lines[lines["arm"] == "control"]
    rows = [
        [f"`{model}`", str(own.loc[own["model"] == model, "settings"].iloc[0])]
        for model in MODELS
        if (own["model"] == model).any()
    ]
    return markdown(["model", "control"], rows)


# ---------------------------------------------------------------------------- the pictures


def tidy(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(labelsize=FONT - 1, colors=INK, length=2)


def draw_changes(cases: pd.DataFrame) -> Figure:
    """Each metric's change with its interval, model by model."""
    shown = [m for m in (*PREDICTION, *EXPLANATION) if m.name != "divergence"]
    models = [model for model, _ in present(cases)]
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 6, sharey=True).flatten()
    for axes, metric in zip(grid, shown, strict=True):
        draw_metric(axes, cases, models, metric)
    arms = [arm for arm in COLOURS if (cases["arm"] == arm).any()]
    handles = [Line2D([], [], color=COLOURS[a], marker="o", ms=4, label=ARMS[a]) for a in arms]
    figure.legend(
        handles=handles, loc="outside lower center", frameon=False, fontsize=FONT, ncols=2
    )
    figure.suptitle(
        "Change from the control, with 95 % intervals over data sets; the shaded side is better",
        fontsize=FONT + 1,
    )
    return figure


def draw_metric(axes: Axes, cases: pd.DataFrame, models: Sequence[str], metric: Metric) -> None:
    none = 1.0 if metric.ratio else 0.0
    for place, model in enumerate(models):
        for arm, shift in zip(COLOURS, (-0.15, 0.15), strict=True):
            change = compare(cases, model, arm, metric)
            if change is None:
                continue
            y = place + shift
            axes.plot([change.low, change.high], [y, y], color=COLOURS[arm], linewidth=1.6)
            axes.plot(change.middle, y, "o", color=COLOURS[arm], markersize=4)
    axes.axvline(none, color=FAINT, linewidth=1)
    low, high = axes.get_xlim()
    side = (none, high) if metric.sign > 0 else (low, none)
    axes.axvspan(*side, color="#009e73", alpha=0.07, linewidth=0)
    axes.set_xlim(low, high)
    axes.set_yticks(range(len(models)), [str(model) for model in models])
    axes.set_ylim(len(models) - 0.5, -0.5)
    title = metric.label.split(",")[0].replace(" over seeds", "\nover seeds")
    title = title.replace(" from the start", "\nfrom the start")
    axes.set_title(title + (" (ratio)" if metric.ratio else ""), fontsize=FONT)
    tidy(axes)


def draw_seeds(cases: pd.DataFrame) -> Figure:
    """Agreement of ten seeds, data set by data set: an arm's against the control's."""
    arms = [arm for arm in COLOURS if (cases["arm"] == arm).any()]
    figure = Figure(figsize=(4.3 * max(len(arms), 1), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    if not arms:
        return figure
    low = min(0.0, float(cases["spearman"].min())) - 0.05
    for axes, arm in zip(figure.subplots(1, len(arms), squeeze=False)[0], arms, strict=True):
        axes.fill_between([low, 1], [low, 1], 1, color="#009e73", alpha=0.07, linewidth=0)
        axes.plot([low, 1], [low, 1], color=FAINT, linewidth=1)
        for number, model in enumerate(MODELS):
            own = cases[cases["model"] == model]
            wide = own.pivot_table(index="dataset", columns="arm", values="spearman")
            if {"control", arm} <= set(wide.columns):
                axes.plot(
                    *(wide["control"], wide[arm], MARKERS[number]),
                    color=MODEL_COLOURS[number], markersize=5, alpha=0.85,
                )  # fmt: skip
        axes.set_title(f"{ARMS[arm]} (above the line: more consistent)", fontsize=FONT)
        axes.set_xlabel("control: Spearman between seeds", fontsize=FONT)
        axes.set_ylabel(f"{ARMS[arm]}: Spearman between seeds", fontsize=FONT)
        axes.set_xlim(low, 1)
        axes.set_ylim(low, 1)
        tidy(axes)
    handles = [
        Line2D([], [], color=MODEL_COLOURS[i], marker=MARKERS[i], ls="", ms=5, label=model)
        for i, model in enumerate(MODELS)
        if (cases["model"] == model).any()
    ]
    figure.legend(
        handles=handles, loc="outside lower center", frameon=False, fontsize=FONT, ncols=4
    )
    return figure
