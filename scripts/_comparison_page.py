"""The tables of docs/comparison.md, from the lines that `compare_models.py` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from _page import around_figures, markdown
from scipy.stats import wilcoxon

COMMAND = (
    "python scripts/compare_models.py --data ../shared/data --out results/compare "
    "--page docs/comparison.md"
)
RIVALS = {
    "linear": "logistic regression",
    "decision_tree": "decision tree, pruned",
    "random_forest": "random forest",
    "neural_trees": "neural-trees, soft tree",
}
OPTIMIZERS = {"denograd": "DenoGrad", "adamw": "AdamW"}
DUELS = (
    "Geometric means over tables of the ratio of log losses (below 1 is better than the other); "
    "*won* counts tables and sizes; *p* is that of Wilcoxon's signed-rank test over tables, the "
    "sizes averaged."
)

SERIES = (
    "Accuracy and log loss; for auscafe-win24, whose target is a number, the coefficient of "
    "determination (R2, higher is better). *Time* is relative to the first line's."
)


def write_page(path: Path, lines: pd.DataFrame) -> None:
    """Put the figures between the markers of a page."""
    before, after = around_figures(path)
    path.write_text(f"{before}{section(lines)}{after}", encoding="utf-8")


def section(lines: pd.DataFrame) -> str:
    """All tables as Markdown; a figure is a mean over data sets of a mean over seeds."""
    tables = complete(lines[lines["kind"] == "table"])
    series = complete(lines[lines["kind"] == "series"])
    parts = [
        f"`{COMMAND}`: {len(tables) + len(series)} fits; {seeds_of(tables, 'tables')}, "
        f"{seeds_of(series, 'series')}."
    ]
    for size, own in tables.groupby("n_train"):
        parts += [f"### {size} training rows", accuracy_table(own)]
    parts += ["### With DenoGrad, against AdamW and others", DUELS, duels(tables)]
    parts += ["### Length and fidelity of rules and trees", rule_table(tables)]
    parts += ["### Time series", SERIES, series_table(series)]
    parts += ["### Log loss, table by table", table_by_table(tables)]
    return "\n\n".join(parts)


def complete(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines of data sets, sizes and seeds at which every model was fitted.

    A run that was stopped half way must not compare one model's easy tables with another's
    hard ones.
    """
    models = lines[["model", "optimizer"]].drop_duplicates().shape[0]
    fitted = lines.groupby(["dataset", "n_train", "seed"])["model"].transform("size")
    return lines[fitted == models]


def seeds_of(lines: pd.DataFrame, kind: str) -> str:
    """How many data sets there are, and how many seeds each has at each size."""
    seeds = lines.groupby(["dataset", "n_train"])["seed"].nunique()
    many = f"{seeds.max()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    return f"{lines['dataset'].nunique()} {kind} with {many} seed{'s' * (many != '1')}"


def label(model: str, optimizer: str) -> str:
    return RIVALS[model] if model in RIVALS else f"`{model}`, {OPTIMIZERS[optimizer]}"


def ranked(index: pd.Index) -> list[tuple[str, str]]:
    """Rivals first, then models by name, DenoGrad before AdamW."""
    order = list(RIVALS)
    key = [(order.index(m) if m in RIVALS else 9, m, o != "denograd") for m, o in index]
    return [index[i] for i in sorted(range(len(index)), key=lambda i: key[i])]


def by_data_set(lines: pd.DataFrame, value: str) -> pd.DataFrame:
    """Seeds averaged: data sets (and sizes) by models."""
    return lines.pivot_table(
        index=["dataset", "n_train"], columns=["model", "optimizer"], values=value, aggfunc="mean"
    )


def accuracy_table(lines: pd.DataFrame) -> str:
    loss, accuracy = by_data_set(lines, "log_loss"), by_data_set(lines, "accuracy")
    time = relative_time(lines)
    rank = loss.rank(axis=1).mean()
    rows = [
        [
            label(*m),
            f"{100 * accuracy[m].mean():.1f} %",
            f"{loss[m].mean():.3f}",
            f"{rank[m]:.1f}",
            f"{time[m]:.3g}",
        ]
        for m in ranked(loss.columns)
    ]
    head = ["model", "accuracy", "log loss", f"mean rank of {len(rows)}", "time of fit"]
    return markdown(head, rows)


def relative_time(lines: pd.DataFrame) -> pd.Series:
    """Median over fits of the processor's time as a multiple of the linear model's."""
    wide = lines.pivot_table(
        index=["dataset", "n_train", "seed"], columns=["model", "optimizer"], values="cpu_seconds"
    )
    return wide.div(wide["linear", ""], axis=0).median()


def duels(lines: pd.DataFrame) -> str:
    """Ratio of log loss, size by size; the p-value is Wilcoxon's over tables, both sizes."""
    loss = by_data_set(lines, "log_loss")
    pairs = [(m, o) for m, o in ranked(loss.columns) if m not in RIVALS]
    rows = []
    for name in dict.fromkeys(m for m, _ in pairs):
        for versus in ((name, "adamw"), ("linear", ""), ("random_forest", "")):
            ratio = (loss[name, "denograd"] / loss[versus]).map(np.log)
            won = int((ratio < 0).sum())
            p = wilcoxon(ratio.groupby("dataset").mean()).pvalue
            sizes = [f"{np.exp(r.mean()):.3f}" for _, r in ratio.groupby("n_train")]
            against = "itself with AdamW" if versus[0] == name else label(*versus)
            rows.append([f"`{name}`", against, *sizes, f"{won} of {len(ratio)}", f"{p:.2g}"])
    sizes = [f"ratio, {size} rows" for size in sorted(lines["n_train"].unique())]
    return markdown(["with DenoGrad", "against", *sizes, "won", "p"], rows)


def rule_table(lines: pd.DataFrame) -> str:
    lines = lines[lines["rules"].notna()]
    rows = []
    for size, own in lines.groupby("n_train"):
        wide = {v: by_data_set(own, v).mean() for v in ("rules", "terms", "fidelity")}
        wide |= {v: by_data_set(own, v).mean() for v in ("accuracy", "rule_accuracy")}
        rows += [
            [label(*m), str(size), f"{wide['rules'][m]:.3g}", f"{wide['terms'][m]:.0f}"]
            + [f"{100 * wide[v][m]:.1f} %" for v in ("fidelity", "accuracy", "rule_accuracy")]
            for m in ranked(wide["rules"].index)
        ]
    head = ["model", "rows", "rules", "features named", "fidelity on test rows"]
    return markdown([*head, "accuracy of the model", "of its rules"], rows)


def series_table(lines: pd.DataFrame) -> str:
    """Accuracy and log loss, or the coefficient of determination."""
    keys = [list(k) for k in lines[["dataset", "n_train"]].drop_duplicates().to_numpy()]
    wide = {v: by_data_set(lines, v) for v in ("accuracy", "log_loss", "r2")}
    time = relative_time(lines)
    rows = []
    for m in ranked(time.index):
        row = [label(*m).replace("logistic", "logistic or ridge")]
        for name, size in keys:
            if (name, size) in wide["r2"].index:
                row.append(f"{wide['r2'].loc[(name, size), m]:.2f}")
            else:
                accuracy, loss = (wide[v].loc[(name, size), m] for v in ("accuracy", "log_loss"))
                row.append(f"{100 * accuracy:.0f} % / {loss:.2f}")
        rows.append([*row, f"{time[m]:.3g}"])
    return markdown(["model", *(f"{name}, {size} rows" for name, size in keys), "time"], rows)


def table_by_table(lines: pd.DataFrame) -> str:
    loss = by_data_set(lines, "log_loss")
    shown = [m for m in ranked(loss.columns) if m[1] != "adamw"]
    rows = []
    for name, size in loss.index:
        row = loss.loc[(name, size)]
        best = row[shown].min()
        cells = [f"**{row[m]:.3f}**" if row[m] == best else f"{row[m]:.3f}" for m in shown]
        rows.append([name, str(size), *cells])
    heads = [RIVALS[m].split(",")[0] if m in RIVALS else f"`{m}`" for m, _ in shown]
    return markdown(["table", "rows", *heads], rows)
