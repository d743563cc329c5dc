"""The first chapters: who won where, and the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from denograd.evaluation.html import learning, parts
from denograd.evaluation.html.parts import (
    Figure,
    Fold,
    Gallery,
    Grid,
    Legend,
    Part,
    Row,
    Section,
    Text,
    Value,
)
from denograd.evaluation.html.phrases import counted, few, listing, p_value, probability
from denograd.evaluation.html.ranks import rank_diagram
from denograd.evaluation.html.ratios import ratio_plot
from denograd.evaluation.html.svg import STYLES
from denograd.evaluation.html.words import (
    ENOUGH_DATA_SETS,
    LEAST_DATA_SETS,
    corrected,
    coverage_note,
    foremost,
    loss_of,
    names,
    record,
    rivals,
)
from denograd.evaluation.significance import count
from denograd.evaluation.train import Cell, CellResult

_OPEN = 3
"""So many optimizers are shown at once; with more, the others are folded away."""
_CURVES = 8
"""So many data sets get learning curves of their own."""


def comparison_table(summary: Mapping[str, Any]) -> list[Part]:
    """All optimizers against the reference, a row each."""
    short = names(summary)
    rows = []
    for name in _compared(summary):
        comparison = summary["comparisons"][name]
        overall, tests = comparison["overall"], comparison.get("tests") or {}
        interval = overall.get("ratio_interval")
        bayes, wilcoxon = tests.get("bayes"), tests.get("wilcoxon")
        missing = Value(parts.MISSING)
        rows.append(
            Row(
                short[name],
                [
                    parts.ratio(overall["log_loss_ratio"], digits=3),
                    Value(f"{interval[0]:.3f} to {interval[1]:.3f}") if interval else missing,
                    *(
                        Value(probability(bayes[kind]), bayes[kind]) if bayes else missing
                        for kind in ("better", "equivalent", "worse")
                    ),
                    _p(corrected(wilcoxon)) if wilcoxon else missing,
                    _record(overall),
                    parts.ratio(overall["worst_ratio"]),
                ],
            )
        )
    if not rows:
        return []
    _, loss = loss_of(summary)
    head = (
        "optimizer",
        "mean ratio",
        "95 % interval",
        "P(better)",
        "P(as good)",
        "P(worse)",
        "Wilcoxon p",
        "won, tied, lost",
        "worst ratio",
    )
    caption = (
        f"Each optimizer's {loss}, as a ratio to that of {short[summary['reference']]}. The data "
        "set is the unit of the interval, of the probabilities (Bayesian signed-rank test) and "
        "of Wilcoxon's p, which is corrected for the number of optimizers (Holm)."
    )
    data_sets = len({case["dataset"] for case in summary["cases"]})
    if data_sets < LEAST_DATA_SETS:
        caption += f" With fewer than {LEAST_DATA_SETS} data sets none of these can be believed."
    elif data_sets < ENOUGH_DATA_SETS:
        caption += f" The intervals are narrower than they are called{coverage_note(data_sets)}."
    return [Grid(caption, head, rows)]


def matrix(summary: Mapping[str, Any]) -> Section:
    """Wins and losses by model and size, a table for each optimizer."""
    short, compared = names(summary), _compared(summary)
    if not compared:
        return Section("matrix", "Wins and losses", [Text("There is nothing to compare.")])
    note = (
        f"Each cell has the geometric mean of the ratio to {short[summary['reference']]} over its "
        "cases (a data set, model and size each), and under it how many of them were won, tied "
        "and lost. \u25bc is a lower loss (better), \u25b2 a higher (worse), = within 1 %; the "
        "colour says the same, stronger from 5 % and from 20 %."
    )
    tables = [_matrix(summary, name) for name in compared]
    found: list[Part] = [Text(note), *tables[:_OPEN]]
    if len(tables) > _OPEN:
        folded = few([short[name] for name in compared[_OPEN:]])
        found.append(Fold(f"Wins and losses of {folded}", tables[_OPEN:]))
    return Section("matrix", "Wins and losses by model and size", found)


def ratios(summary: Mapping[str, Any]) -> Section:
    """The ratio on each data set."""
    short = names(summary)
    figures = [
        Figure(
            ratio_plot(summary, name),
            f"{short[name]} against {short[summary['reference']]}. Diamonds: mean over the data "
            "set's models and sizes. Dots: each of them. Shaded: within 1 %.",
        )
        for name in _compared(summary)
    ]
    if not figures:
        return Section("ratios", "Ratio by data set", [Text("There is nothing to compare.")])
    found: list[Part] = [*figures[:_OPEN]]
    if len(figures) > _OPEN:
        found.append(Fold("The other optimizers", figures[_OPEN:]))
    return Section("ratios", "Ratio by data set", found)


def ranks(summary: Mapping[str, Any]) -> Section:
    """The critical-difference diagram, or why there is none."""
    title, found = "Critical-difference diagram", summary.get("critical_difference")
    if not found:
        data_sets = len({case["dataset"] for case in summary["cases"]})
        optimizers = len(summary["comparisons"]) + 1
        reason = (
            "Left out: it needs at least three optimizers and three data sets, and here there "
            f"are {counted(optimizers, 'optimizer')} and {counted(data_sets, 'data set')}."
        )
        if optimizers >= 3 and data_sets >= 3:
            reason = "Left out: the ranks could not be tested."
        return Section("ranks", title, [Text(reason)])
    caption = (
        f"Mean ranks over {counted(found['data_sets'], 'data set')}. A bar joins optimizers that "
        "are not told apart at 0.05."
    )
    if found.get("friedman_p") is not None:
        caption += f" Friedman's test that all are alike: {p_value(found['friedman_p'])}."
    short = names(summary)
    content: list[Part] = [Figure(rank_diagram(found, short), caption)]
    if found.get("p_values"):
        ordered = sorted(found["ranks"], key=lambda name: found["ranks"][name])
        rows = [
            Row(
                short.get(one, one),
                [
                    Value("") if one == other else _p(found["p_values"].get(one, {}).get(other))
                    for other in ordered
                ],
            )
            for one in ordered
        ]
        head = ["", *(short.get(name, name) for name in ordered)]
        grid = Grid("p-values of pairs, corrected for their number.", head, rows)
        content.append(Fold("p-values of all pairs", [grid]))
    return Section("ranks", title, content)


def curves(summary: Mapping[str, Any], finished: Mapping[Cell, CellResult]) -> Section:
    """Learning curves by model and size, and of some data sets.

    Args:
        summary: of the evaluation.
        finished: cells with their curves.
    """
    shown = foremost(summary, STYLES)
    short = names(summary)
    gathered = learning.gather(finished, shown)
    datasets = list(dict.fromkeys(key[0] for key in gathered))
    models = list(dict.fromkeys(key[1] for key in gathered))
    sizes = sorted({key[2] for key in gathered})
    if not datasets:
        return Section("curves", "Learning curves", [Text("No run recorded a curve.")])
    legend = Legend([(learning.sample(style), short[name]) for style, name in enumerate(shown)])
    what = [
        "Test loss by step."
        if len(datasets) == 1
        else "Test loss by step, relative to the best that the reference reached on the same data "
        "set (1 is as good as that), as the geometric mean over data sets."
    ]
    left_out = sum(runs.left_out for runs in gathered.values())
    if left_out:
        what.append(f"{counted(left_out, 'run')} that diverged cannot be drawn.")
    missing = [short[name] for name in rivals(summary) if name not in shown]
    if missing:
        what.append(f"Not drawn, to keep lines apart: {listing(missing)}.")
    found: list[Part] = [Text(" ".join(what)), legend]
    if len(datasets) > 1:
        found += _galleries(
            models, [learning.over_data_sets(gathered, model, sizes, shown) for model in models]
        )
        told = _own_curves(summary, datasets, bands=len(shown) <= learning.BANDS)
        found.append(Text(told, printed=False))
    for dataset in _chosen(summary, datasets):
        own = [learning.of_data_set(gathered, dataset, model, sizes, shown) for model in models]
        galleries = _galleries(models, own)
        if len(datasets) == 1:
            found += galleries
        else:
            found.append(Fold(f"Curves of {dataset}", [legend, *galleries], printed=False))
    return Section("curves", "Learning curves", found)


def _compared(summary: Mapping[str, Any]) -> list[str]:
    """The rivals that have a case."""
    comparisons = summary["comparisons"]
    return [name for name in rivals(summary) if comparisons[name]["overall"].get("cases")]


def _own_curves(summary: Mapping[str, Any], datasets: Sequence[str], *, bands: bool) -> str:
    what = "Data set by data set, the mean over seeds of the loss itself"
    if bands:
        what += ", with a band that spans all seeds"
    if len(datasets) <= _CURVES:
        return f"{what}:"
    chosen = set(_chosen(summary, datasets))
    rest = [name for name in datasets if name not in chosen]
    return (
        f"{what}, for the {_CURVES} on which "
        f"{names(summary)[rivals(summary)[0]] if rivals(summary) else 'it'} did worst. Left out "
        f"to keep the page small, but in cells.jsonl: {listing(rest)}."
    )


def _chosen(summary: Mapping[str, Any], datasets: Sequence[str]) -> list[str]:
    """The data sets where the first rival did worst come first."""
    by_dataset: Mapping[str, Any] = {}
    for name in rivals(summary)[:1]:
        by_dataset = summary["comparisons"][name].get("by_dataset") or {}

    def badness(dataset: str) -> float:
        return -float(by_dataset.get(dataset, {}).get("log_loss_ratio") or 0.0)

    return sorted(datasets, key=badness)[:_CURVES]


def _galleries(models: Sequence[str], pictures: Sequence[Sequence[Any]]) -> list[Part]:
    return [Gallery(model, own) for model, own in zip(models, pictures, strict=True) if own]


def _matrix(summary: Mapping[str, Any], name: str) -> Grid:
    comparison, short = summary["comparisons"][name], names(summary)
    sizes = list(comparison["by_size"])
    rows = []
    for model, found in comparison["by_model"].items():
        own = [case for case in summary["cases"] if case["model"] == model]
        cells = [_cell([c for c in own if str(c["n_train"]) == size], name) for size in sizes]
        rows.append(Row(model, [*cells, _margin(found)]))
    margins = [_margin(comparison["by_size"][size]) for size in sizes]
    rows.append(Row("all models", [*margins, _margin(comparison["overall"])]))
    head = ("model", *(f"{size} rows" for size in sizes), "all sizes")
    return Grid(f"{short[name]} against {short[summary['reference']]}", head, rows)


def _cell(cases: Sequence[Mapping[str, Any]], name: str) -> Value:
    """One model at one size."""
    logs = np.log([case["ratio"][name] for case in cases])
    if not len(logs):
        return Value(parts.MISSING)
    note = "\u2013".join(map(str, count(logs)))
    return parts.ratio(float(np.exp(logs.mean())), note)


def _margin(found: Mapping[str, Any]) -> Value:
    if not found.get("cases"):
        return Value(parts.MISSING)
    return parts.ratio(found["log_loss_ratio"], _record(found).text)


def _record(found: Mapping[str, Any]) -> Value:
    return Value("\u2013".join(map(str, record(found))))


def _p(value: float | None) -> Value:
    if value is None:
        return Value(parts.MISSING)
    return Value(p_value(value).removeprefix("p ").removeprefix("= "), value)
