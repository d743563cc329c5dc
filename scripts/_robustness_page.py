"""The figures of `docs/robustness.md`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from _page import around_figures, markdown

BLIND_GUESSES = 4
OWNERS = {"denograd": "DenoGrad", "adamw": "the control"}


def write_page(path: Path, results: pd.DataFrame) -> None:
    """Put the figures of all parts that were run between the markers of the page."""
    before, after = around_figures(path)
    results = results.assign(
        bad=~(results["log_loss"] <= BLIND_GUESSES * results["blind"]),
        # As in evaluations, a run that diverged counts with four blind guesses.
        log=np.log(results["log_loss"].clip(upper=BLIND_GUESSES * results["blind"])).fillna(
            np.log(BLIND_GUESSES * results["blind"])
        ),
    )
    parts = dict(list(results.groupby("part")))
    makers = {"rate": _rates, "scale": _scales, "large": _large}
    texts = [makers[name](parts[name]) for name in makers if name in parts]
    path.write_text(before + "\n\n".join(texts) + after, encoding="utf-8")


def _rates(part: pd.DataFrame) -> str:
    """Geometric means of log loss, as ratios to the best rate of the same optimizer."""
    lines = []
    factors = sorted(part["setting"].unique(), key=float)
    for model, group in [("all", part), *part.groupby("model", sort=False)]:
        for owner, words in OWNERS.items():
            own = group[group["optimizer"] == owner]
            means = own.groupby("setting")["log"].mean()
            ratios = (f"{math.exp(means[f] - means.min()):.3f}" for f in factors)
            lines.append([model, words, *ratios, str(int(own["bad"].sum()))])
    count = part.groupby(["dataset", "model", "rows"]).ngroups
    head = ["model", "optimizer", *(f"rate × {f}" for f in factors), "diverged"]  # noqa: RUF001
    title = f"## A base learning rate that is ten times off\n\n{count} cases, one seed.\n\n"
    return title + markdown(head, lines)


def _scales(part: pd.DataFrame) -> str:
    lines = []
    for (setting, model), group in part.groupby(["setting", "model"], sort=False):
        logs = {owner: own.set_index("dataset")["log"] for owner, own in group.groupby("optimizer")}
        ratio = logs["denograd"] - logs["adamw"]
        bad = group.groupby("optimizer")["bad"].sum()
        counts = (str(len(ratio)), str(bad["denograd"]), str(bad["adamw"]))
        shown = (f"{math.exp(ratio.mean()):.3f}", f"{math.exp(ratio.max()):.2f}")
        lines.append([setting, model, *counts, *shown])
    lines.sort()
    head = ["ten times the", "model", "tables", "diverged, DenoGrad", "diverged, control"]
    head += ["log loss, ratio", "worst ratio"]
    return "## Ten times the horizon, ten times the width\n\n" + markdown(head, lines)


def _large(part: pd.DataFrame) -> str:
    lines = []
    for (model, dataset), group in part.groupby(["model", "dataset"], sort=False):
        ours = group[group["optimizer"] == "denograd"]
        theirs = group[group["optimizer"] == "adamw"].sort_values("log")
        if ours.empty or theirs.empty:
            continue
        best, own = theirs.iloc[0], ours.iloc[0]
        name, rows = dataset.split("__", 1)[1].replace("__", "/"), f"{best['rows']:,}"
        losses = (f"{own['log_loss']:.4f}", f"{best['log_loss']:.4f} ({best['setting']})")
        lines.append([model, name, rows, *losses, f"{math.exp(own['log'] - best['log']):.3f}"])
    head = ["model", "table", "training rows", "DenoGrad", "best AdamW (its rate)", "ratio"]
    return "## A million parameters\n\n" + markdown(head, lines)
