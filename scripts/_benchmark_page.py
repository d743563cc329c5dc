"""The figures of `docs/benchmark.md` and of the README, from the summaries of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _page import around_figures, interval, markdown

from denograd.evaluation.html.words import loss_of
from denograd.evaluation.significance import bootstrap_interval

LABELS = {
    "adamw": "AdamW, tuned (the control)",
    "adamw_cv": "AdamW, tuned on every table (48 times the cost)",
    "adamw_default": "AdamW, torch's defaults",
    "denograd:identity": "AdamW, rate 0.01, no decay, untuned",
    "denograd": "AdamW with DenoGrad, untuned",
    "denograd:default": "AdamW with DenoGrad and `default`, untuned",
    "denograd:history": "AdamW with DenoGrad and `history`, untuned",
    "denograd:sequences": "AdamW with DenoGrad and `sequences`, untuned",
}
MODELS = {
    "soft_tree": "soft tree",
    "attention": "attention",
    "additive_net": "additive net",
    "rule_net": "rule net",
    "temporal_attention": "attention over time",
}

CONTEXT = {
    "logistic_regression": "*logistic regression, ridge*",
    "decision_tree": "*decision tree, pruned*",
    "random_forest": "*random forest*",
    "hist_gradient_boosting": "*gradient boosting*",
    "explainable_boosting": "*explainable boosting machine*",
}
_LEAST = 1e-6
"""Losses are kept off 0, where a ratio would say nothing."""


def write_page(name: str, summary: Mapping[str, Any], page: Path) -> None:
    """Put the figures of a grid between its markers.

    Args:
        name: of the grid: ``benchmark``, or ``benchmark-`` and what its option is called.
        summary: of its evaluation.
        page: that holds the markers of all.
    """
    before, after = around_figures(page, name)
    page.write_text(f"{before}{figures(name, summary)}{after}", encoding="utf-8")


def write_context(summary: Mapping[str, Any], page: Path) -> None:
    """Put the models outside torch between their own markers."""
    text = by_context(summary) if summary["context"] else "None were fitted (`--context` does)."
    before, after = around_figures(page, "benchmark-context")
    page.write_text(f"{before}{text}{after}", encoding="utf-8")


def write_readme(summary: Mapping[str, Any], readme: Path) -> None:
    """Put the main grid's overview between the README's markers."""
    before, after = around_figures(readme, "held-out")
    closing = (
        "[docs/benchmark.md](docs/benchmark.md) has the figures by model, size and table, what was "
        "aimed at, and the comparisons with AdamW tuned on every table, with twenty other "
        "remedies and with models outside torch, at 512 rows, and in regression."
    )
    text = "\n\n".join([heading(summary), overview(summary), closing])
    readme.write_text(f"{before}{text}{after}", encoding="utf-8")


def figures(name: str, summary: Mapping[str, Any]) -> str:
    """All tables of a grid, as Markdown."""
    if name == "benchmark-rivals":
        found = summary["comparisons"]
        others = [rival for rival in found if rival != "denograd"]
        best = min(others, key=lambda rival: found[rival]["overall"]["log_loss_ratio"])
        closing = against(summary, "denograd", best)
        return "\n\n".join([heading(summary), overview(summary), by_rival(summary), closing])
    parts = [basics(summary)]
    if name == "benchmark":
        parts += [bars(summary["comparisons"]["denograd"]), by_table(summary)]
    elif name in ("benchmark-regression", "benchmark-large"):
        parts.append(by_table(summary))
    elif name == "benchmark-sequences":
        parts.append(by_table(summary, "denograd:sequences"))
    else:
        parts.append(against(summary, "denograd", "adamw_cv", " (wanted: 1.00)"))
    return "\n\n".join(parts)


def basics(summary: Mapping[str, Any]) -> str:
    """What was run, and each optimizer against the control: whatever was run, it has these."""
    by_model = by_group(summary, "by_model", "model", MODELS)
    by_size = by_group(summary, "by_size", "training rows", {})
    return "\n\n".join([heading(summary), overview(summary), by_model, by_size])


def heading(summary: Mapping[str, Any]) -> str:
    """What was run."""
    cases = summary["cases"]
    tables = len({case["dataset"] for case in cases})
    seeds = max(case["seeds"] for case in cases)
    return (
        f"{tables} tables, {len(cases)} cases (a table, model and size), "
        f"{'one seed' if seeds == 1 else f'up to {seeds} seeds'} each, "
        f"{summary['cells_finished']:,} runs; {summary['cells_failed']} failed. Made by "
        f"`{summary['command']}`."
    )


def overview(summary: Mapping[str, Any]) -> str:
    """Each optimizer against the control."""
    measured = loss_of(summary)[0] == "rmse"
    loss, other = ("RMSE", "R²") if measured else ("log loss", "accuracy")
    head = (
        f"| optimizer | {loss}, ratio to the control (95 % interval over tables) | lower in "
        f"| worst case | spread over seeds, ratio | {other} | p (Wilcoxon, Holm) "
        "| better / equal / worse (Bayes) |\n|---|---|---|---|---|---|---|---|"
    )
    lines = [head]
    for name, found in summary["comparisons"].items():
        g, tests = found["overall"], found["tests"]
        p = f"{tests['wilcoxon']['p_holm']:.1g}" if tests["wilcoxon"] else "-"
        bayes = tests["bayes"]
        shown = (
            f"{bayes['better']:.2f} / {bayes['equivalent']:.2f} / {bayes['worse']:.2f}"
            if bayes
            else "-"
        )
        gained = _gained(g, measured)
        lines.append(
            f"| {LABELS.get(name, name)} | **{g['log_loss_ratio']:.3f}** "
            f"({interval(g['ratio_interval'])}) "
            f"| {100 * g['wins'] / g['cases']:.0f} % | {g['worst_ratio']:.2f} "
            f"| {_number(g['deviation_ratio'])} | {gained} | {p} | {shown} |"
        )
    return "\n".join(lines)


def _gained(overall: Mapping[str, Any], measured: bool) -> str:
    if measured:
        return f"{overall['r2'] - overall['r2_reference']:+.3f}"
    return f"{100 * (overall['accuracy'] - overall['accuracy_reference']):+.1f} points"


def by_group(summary: Mapping[str, Any], kind: str, title: str, labels: Mapping[str, str]) -> str:
    """Ratio to the control, and share of cases won, in groups."""
    comparisons = summary["comparisons"]
    groups = list(next(iter(comparisons.values()))[kind])
    rows = []
    for group in groups:
        cells = []
        for found in comparisons.values():
            g = found[kind][group]
            cells.append(
                f"{g['log_loss_ratio']:.3f}, {100 * g['wins'] / g['cases']:.0f} % won"
                if g["cases"]
                else "-"
            )
        rows.append([labels.get(group, group), *cells])
    return markdown([title, *(LABELS.get(n, n) for n in comparisons)], rows)


def by_rival(summary: Mapping[str, Any]) -> str:
    """Ratio to the control at each size, an optimizer a row, best first."""
    comparisons = summary["comparisons"]
    order = sorted(comparisons, key=lambda n: comparisons[n]["overall"]["log_loss_ratio"])
    sizes = list(comparisons[order[0]]["by_size"])
    rows = [
        [LABELS.get(name, name)]
        + [f"{comparisons[name]['by_size'][size]['log_loss_ratio']:.3f}" for size in sizes]
        for name in order
    ]
    return markdown(["optimizer", *(f"{size} rows" for size in sizes)], rows)


def by_context(summary: Mapping[str, Any]) -> str:
    """Log loss of models outside torch and of networks, as ratios to a logistic regression's.

    Geometric means over the tables and sizes at which all of them have a finite loss.
    """
    losses: dict[str, dict[tuple[str, int], Any]] = {}
    for entry in summary["context"]:
        for model, means in entry["models"].items():
            key = entry["dataset"], entry["n_train"]
            losses.setdefault(CONTEXT.get(model, model), {})[key] = means["log_loss"]
    for case in summary["cases"]:
        for name in ("adamw", "denograd"):
            label = f"{MODELS[case['model']]}, {LABELS[name]}"
            key = case["dataset"], case["n_train"]
            losses.setdefault(label, {})[key] = case["optimizers"][name]["log_loss"]
    all_keys = sorted({key for own in losses.values() for key in own})
    keys = [k for k in all_keys if all(own.get(k) is not None for own in losses.values())]
    reference = losses[CONTEXT["logistic_regression"]]
    tables, sizes = sorted({table for table, _ in keys}), sorted({size for _, size in keys})
    logs = {
        label: {k: float(np.log(max(own[k], _LEAST) / max(reference[k], _LEAST))) for k in keys}
        for label, own in losses.items()
    }
    rows = []
    for label, own in sorted(logs.items(), key=lambda item: sum(item[1].values())):
        means = [np.exp(np.mean([v for k, v in own.items() if k[1] == size])) for size in sizes]
        by_table = [[v for k, v in own.items() if k[0] == table] for table in tables]
        whole = np.exp(np.mean(list(own.values())))
        shown = f"**{whole:.3f}** ({interval(bootstrap_interval(by_table))})"
        rows.append([label, *(f"{mean:.3f}" for mean in means), shown])
    left_out = len(all_keys) - len(keys)
    caption = (
        "Log loss as a ratio to that of the logistic regression, geometric means (with an interval "
        "of 95 % over tables) over "
        f"{len(tables)} tables ({len(keys)} of {len(all_keys)} tables and "
        f"sizes{'; where a model failed, none is counted' if left_out else ''}):"
    )
    table = markdown(["model", *(f"{size} rows" for size in sizes), "all sizes"], rows)
    return f"{caption}\n\n{table}"


def bars(found: Mapping[str, Any]) -> str:
    """What was aimed at, and what was reached."""
    g = found["overall"]
    gained = None if g["consistency"] is None else g["consistency"] - g["consistency_reference"]
    rows = [
        ("geometric mean of test log loss, ratio", "0.90", g["log_loss_ratio"]),
        ("cases in which it is lower", "82 %", f"{100 * g['wins'] / g['cases']:.0f} %"),
        ("worst case, ratio", "1.10", g["worst_ratio"]),
        ("steps to the control's best test loss, ratio (where it is reached)", "0.7",
         g["steps_ratio"]),
        ("standard deviation over seeds of test log loss, ratio", "0.8", g["deviation_ratio"]),
        ("consistency of explanations over seeds (mean Spearman), gained", "+0.05",
         None if gained is None else f"{gained:+.3f}"),
        ("diverged runs (the control's)", "0", f"{g['diverged']} ({g['diverged_reference']})"),
        ("cost of a step, ratio (all seeds in one stack; by itself it is higher)", "-",
         g["step_cost_ratio"]),
    ]  # fmt: skip
    # Summaries of before do not have it.
    if g.get("common_steps_ratio") is not None:
        what = "steps to a test loss that both reach, ratio (no case left out)"
        rows.insert(4, (what, "-", g["common_steps_ratio"]))
    shown = [[what, bar, _number(value)] for what, bar, value in rows]
    return markdown(["DenoGrad against the control", "wanted", "measured"], shown)


def by_table(summary: Mapping[str, Any], optimizer: str = "denograd") -> str:
    """An optimizer's ratio of each table, over all models and sizes, best first."""
    found = summary["comparisons"][optimizer]["by_dataset"]
    ordered = sorted(found.items(), key=lambda item: item[1]["log_loss_ratio"])
    shown = ", ".join(
        f"{name.split('__', 1)[-1].replace('__', '/')} {g['log_loss_ratio']:.2f}"
        for name, g in ordered
    )
    return f"DenoGrad's ratio by table, over all models and sizes: {shown}."


def against(summary: Mapping[str, Any], name: str, rival: str, aim: str = "") -> str:
    """A sentence on one optimizer against another that is not the reference."""
    cases = summary["cases"]
    logs = np.log([c["ratio"][name] / c["ratio"][rival] for c in cases])
    worst = cases[int(logs.argmax())]
    return (
        f"{LABELS[name]} against {LABELS.get(rival, rival)}: geometric mean of the ratio "
        f"**{np.exp(logs.mean()):.3f}**{aim}, lower in {100 * (logs < 0).mean():.0f} % "
        f"of {len(cases)} cases, worst case {np.exp(logs.max()):.2f} ({worst['dataset']}, "
        f"{worst['model']}, {worst['n_train']} rows)."
    )


def _number(value: Any) -> str:
    if value is None:
        return "not known"
    return value if isinstance(value, str) else f"{value:.2f}"
