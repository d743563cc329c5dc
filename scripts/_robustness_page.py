"""The figures of `docs/robustness.md`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from _page import around_figures, markdown

from denograd.evaluation.cases import DIVERGED_LOSS

OWNERS = {"denograd": "DenoGrad", "adamw": "the control"}


def write_page(path: Path, results: pd.DataFrame) -> None:
    """Put the figures of all parts that were run between the markers of the page."""
    before, after = around_figures(path)
    if results.empty:
        raise SystemExit(f"{path}: no run is done, so there is nothing to write; give --data")
    limit = DIVERGED_LOSS * results["blind"]
    results = results.assign(
        bad=~(results["log_loss"] <= limit),
        # As in evaluations, a run that diverged counts with four blind guesses.
        log=np.log(results["log_loss"].clip(upper=limit)).fillna(np.log(limit)),
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
    title = (
        "## A base learning rate that is ten times off\n\nLog loss as a ratio to the same "
        "optimizer's at the best of its three rates (so two optimizers' figures say nothing of "
        f"which is better); {count} cases, one seed.\n\n"
    )
    return title + markdown(head, lines)


def _scales(part: pd.DataFrame) -> str:
    lines = []
    for (setting, model), group in part.groupby(["setting", "model"], sort=False):
        logs = {owner: own.set_index("dataset")["log"] for owner, own in group.groupby("optimizer")}
        if len(logs) < len(OWNERS):
            continue
        ratio = logs["denograd"] - logs["adamw"]
        bad = group.groupby("optimizer")["bad"].sum()
        counts = (str(len(ratio)), str(bad["denograd"]), str(bad["adamw"]))
        shown = (f"{math.exp(ratio.mean()):.3f}", f"{math.exp(ratio.max()):.2f}")
        lines.append([setting, model, *counts, *shown])
    lines.sort()
    head = ["ten times the", "model", "tables", "diverged, DenoGrad", "diverged, control"]
    head += ["log loss, ratio", "worst ratio"]
    title = "## Ten times the horizon, ten times the width\n\n64 training rows, one seed.\n\n"
    return title + markdown(head, lines)


def _large(part: pd.DataFrame) -> str:
    """Each run's log loss, as it is and over that of the best AdamW."""
    lines = []
    for model, group in part.groupby("model", sort=False):
        best = group["log"][group["optimizer"] == "adamw"].min()
        for run in group.sort_values(["optimizer", "setting"], ascending=False).itertuples():
            owner = "DenoGrad around AdamW" if run.optimizer == "denograd" else "AdamW, cosine"
            shown = f"{run.log_loss:.4f}" if run.log_loss < 100 else f"{run.log_loss:.3g}"
            ratio = f"{math.exp(run.log - best):.3f}" + (" (diverged)" if run.bad else "")
            lines.append([model, owner, str(run.setting), shown, ratio])
    rows = int(part["rows"].iloc[0])
    title = f"## A million parameters\n\n{rows:,} training rows, 5,000 steps, one seed.\n\n"
    head = ["model", "optimizer", "rate", "test log loss", "ratio to the best AdamW"]
    return title + markdown(head, lines)
