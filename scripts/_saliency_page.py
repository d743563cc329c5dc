"""The tables and pictures of docs/saliency-decor.md, from the lines of `results.csv`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from _page import around_figures, markdown
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr, t

COMMAND = "python scripts/reproduce_saliency_decor.py --seeds {} --page docs/saliency-decor.md"
NAMES = {
    "digits": "digits (CNN)",
    "planted": "planted patch (CNN)",
    "breast_cancer": "breast cancer (MLP)",
    "wine": "wine (MLP)",
}
ALONE = ("decorrelation 0.1", "decorrelation 1", "decorrelation 10")
MAIN = ("none", "consistency", *ALONE, "both 0.1", "both 1")
COLOURS = {
    "none": "#555555",
    "consistency": "#0072b2",
    "decorrelation 0.1": "#f0c060",
    "decorrelation 1": "#e69f00",
    "decorrelation 10": "#a05000",
    "both 0.1": "#80c8b0",
    "both 1": "#009e73",
}
MEASURES = {
    "accuracy": ("accuracy", 100, 1),
    "log_loss": ("log loss", 1, 3),
    "correlation": ("correlation of features", 1, 3),
    "gradient_entropy": ("entropy", 1, 3),
    "gradient_gini": ("Gini", 1, 3),
    "ig_gini": ("Gini, IG", 1, 3),
    "gradient_top_area": ("masked, most salient first", 100, 1),
    "gradient_least_area": ("masked, least salient first", 100, 1),
    "gradient_random_area": ("masked at random", 100, 1),
}
"""Column of the journal: its heading, factor and decimals."""
GROUND_TRUTH = {
    "gradient_mass": ("relevance mass", 100, 1),
    "gradient_pointing": ("pointing game", 100, 1),
    "ig_mass": ("relevance mass, IG", 100, 1),
    "ig_pointing": ("pointing game, IG", 100, 1),
}
DIFFERENCES = (
    *("accuracy", "log_loss", "gradient_gini", "ig_gini"),
    *("gradient_top_area", "gradient_least_area", "gradient_random_area"),
)


def write_page(path: Path, lines: pd.DataFrame) -> None:
    """Put the figures between the markers of a page."""
    before, after = around_figures(path)
    path.write_text(f"{before}{section(lines)}{after}", encoding="utf-8")


def complete(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines of seeds of a data set for which every arm was fitted."""
    arms = lines["arm"].nunique()
    return lines[lines.groupby(["dataset", "seed"])["arm"].transform("size") == arms]


def section(lines: pd.DataFrame) -> str:
    """All tables as Markdown."""
    lines = complete(lines)
    seeds = lines.groupby("dataset")["seed"].nunique()
    parts = [
        f"`{COMMAND.format(seeds.max())}`: {len(lines)} fits, {seeds.min()} seeds of each data "
        f"set, {lines['cpu_seconds'].sum() / 60:.0f} minutes of training. Mean ± standard "
        "deviation over seeds."
    ]
    for name in present(lines):
        parts += [f"### {NAMES[name]}", means(lines[lines["dataset"] == name], MEASURES)]
    parts += ["### Where the truth is known", means(of(lines, "planted"), GROUND_TRUTH)]
    parts += ["### Against no term, seed by seed", differences(lines, MAIN[1:], "none")]
    added = differences(lines, ("both 0.1", "both 1"), "consistency")
    parts += ["### Both terms, against consistency alone, seed by seed", added]
    parts += ["### Orthogonality and sharpness", orthogonality(lines)]
    return "\n\n".join(parts)


def present(lines: pd.DataFrame) -> list[str]:
    return [name for name in NAMES if name in set(lines["dataset"])]


def of(lines: pd.DataFrame, dataset: str) -> pd.DataFrame:
    return lines[lines["dataset"] == dataset]


def means(lines: pd.DataFrame, measures: dict[str, tuple[str, int, int]]) -> str:
    rows = []
    for arm in MAIN:
        own = lines[lines["arm"] == arm]
        row = [arm]
        for column, (_, factor, places) in measures.items():
            values = factor * own[column].astype(float)
            row.append(f"{values.mean():.{places}f} ± {values.std():.{places}f}")
        rows.append(row)
    return markdown(["terms", *(head for head, _, _ in measures.values())], rows)


def paired(lines: pd.DataFrame, column: str, base: str = "none") -> pd.DataFrame:
    """Each arm's difference from another at the same seed: seeds by arms."""
    wide = lines.pivot_table(index="seed", columns="arm", values=column)
    return wide.sub(wide[base], axis=0).drop(columns=base)


def interval(values: pd.Series) -> tuple[float, float, float]:
    """Mean, and the ends of Student's 95 % interval."""
    half = float(t.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values)))
    mean = float(values.mean())
    return mean, mean - half, mean + half


def differences(lines: pd.DataFrame, arms: Sequence[str], base: str) -> str:
    measures = MEASURES | GROUND_TRUTH
    rows = []
    for name in present(lines):
        for arm in arms:
            row = [NAMES[name].split(" (")[0], arm]
            for column in (*DIFFERENCES, "gradient_mass", "gradient_pointing"):
                values = lines[lines["dataset"] == name]
                if values[column].isna().all():
                    row.append("")
                    continue
                _, factor, places = measures[column]
                mean, low, high = interval(factor * paired(values, column, base)[arm])
                sure = low > 0 or high < 0
                text = f"{mean:+.{places}f}"
                text = f"**{text}**" if sure else text
                row.append(f"{text} ({low:+.{places}f} to {high:+.{places}f})")
            rows.append(row)
    heads = [measures[c][0] for c in (*DIFFERENCES, "gradient_mass", "gradient_pointing")]
    return markdown(["data", "terms", *heads], rows)


def gains(lines: pd.DataFrame, arms: Sequence[str]) -> NDArray[np.float64]:
    """Drop of correlation and gain of Gini's index, against no term: ``(seeds, arms, 2)``."""
    lost = -paired(lines, "correlation")[list(arms)]
    won = paired(lines, "gradient_gini")[list(arms)]
    return np.stack((lost.to_numpy(), won.to_numpy()), axis=-1)


def rank_correlation(pairs: NDArray[np.float64]) -> str:
    """Spearman's, with a 95 % interval by drawing seeds anew (runs of a seed stay together)."""
    if len(pairs) < 3:
        return "too few seeds"
    value = spearmanr(*pairs.reshape(-1, 2).T).statistic
    seeds = np.random.default_rng(0).integers(len(pairs), size=(2000, len(pairs)))
    ranks = rankdata(pairs[seeds].reshape(2000, -1, 2), axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    lost, won = centred[..., 0], centred[..., 1]
    size = np.sqrt((lost**2).sum(1) * (won**2).sum(1))
    # A draw of one seed alone has no correlation, if there is one run a seed.
    drawn = (lost * won).sum(1)[size > 0] / size[size > 0]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def orthogonality(lines: pd.DataFrame) -> str:
    rows = []
    for name in present(lines):
        own = lines[lines["dataset"] == name]
        plain = own[own["arm"] == "none"].sort_values("seed")
        natural = np.stack((-plain["correlation"], plain["gradient_gini"]), axis=-1)[:, None]
        rows.append(
            [
                NAMES[name],
                rank_correlation(gains(own, ALONE)),
                rank_correlation(gains(own, ALONE[:2])),
                rank_correlation(gains(own, MAIN[1:])),
                rank_correlation(natural),
            ]
        )
    head = ["data", "decorrelation alone, three weights", "without weight 10", "all arms"]
    return markdown([*head, "no term, seeds only"], rows)


def draw(lines: pd.DataFrame, folder: Path, shares: Sequence[float]) -> None:
    """Both pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = complete(lines)
    draw_curves(lines, folder / "saliency-decor-masking.png", shares)
    draw_scatter(lines, folder / "saliency-decor-orthogonality.png")


def draw_curves(lines: pd.DataFrame, path: Path, shares: Sequence[float]) -> None:
    """Accuracy as features are masked, most and least salient first."""
    names = present(lines)
    figure = Figure(figsize=(3.1 * len(names), 5.2), layout="constrained")
    axes = figure.subplots(2, len(names), sharex=True, sharey="col", squeeze=False)
    orders = {"top": "most salient first", "least": "least salient first"}
    for column, name in enumerate(names):
        for row, (order, title) in enumerate(orders.items()):
            axis = axes[row, column]
            for k, arm in enumerate(("none", "consistency", "decorrelation 1", "both 1")):
                own = lines[(lines["dataset"] == name) & (lines["arm"] == arm)]
                text = own[f"gradient_{order}_curve"]
                values = np.array([[float(v) for v in line.split(";")] for line in text])
                axis.errorbar(
                    100 * np.asarray(shares) + 0.8 * (k - 1.5),
                    100 * values.mean(0),
                    100 * values.std(0, ddof=1),
                    color=COLOURS[arm],
                    label=arm,
                    linewidth=1.3,
                    elinewidth=0.7,
                )
            axis.set_title(f"{NAMES[name]}\n{title}" if row == 0 else title, fontsize=9)
            axis.grid(alpha=0.3)
        axes[1, column].set_xlabel("masked features, %")
    for row in range(2):
        axes[row, 0].set_ylabel("accuracy, %")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def draw_scatter(lines: pd.DataFrame, path: Path) -> None:
    """What a run lost in correlation and won in sharpness, against no term at its seed."""
    names = present(lines)
    figure = Figure(figsize=(3.1 * len(names) + 1, 3.2), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        own = lines[lines["dataset"] == name]
        for arm in MAIN[1:]:
            lost, won = gains(own, [arm])[:, 0].T
            axis.scatter(lost, won, s=16, color=COLOURS[arm], label=arm)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_title(NAMES[name], fontsize=9)
        axis.set_xlabel("drop of mean squared correlation")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("gain of Gini's index")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=110)
