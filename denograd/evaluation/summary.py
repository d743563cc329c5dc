"""From rows of results to what they say."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from typing import Any

import numpy as np
import pandas as pd

from denograd.evaluation.metrics import METRICS

_CASE = ["dataset", "model", "n_train"]
_LEAST = 1e-12
_PACKAGES = ("denograd-optim", "torch", "numpy", "scikit-learn", "pandas")


def summarise(results: pd.DataFrame, reference: str) -> dict[str, Any]:
    """Means over seeds, and each optimizer against the reference.

    A *case* is a data set, model and size. Seeds are averaged first; a seed counts only
    if every optimizer finished it, so that all means are over the same splits. Then the
    ratio of mean log losses is taken in each case, and over cases its geometric mean:
    below 1 is better than the reference.

    Args:
        results: rows as in ``results.csv``.
        reference: the optimizer that others are compared with.

    Returns:
        ``cases``, a list with the means, the winner (lowest mean log loss) and the ratios
        of each; ``comparisons``, for each other optimizer ``overall``, ``by_model``,
        ``by_size`` and ``by_dataset``.

    Example:
        >>> rows = [("d", "m", "adamw", 32, 0, 0.5), ("d", "m", "mine", 32, 0, 0.4)]
        >>> columns = ["dataset", "model", "optimizer", "n_train", "seed", "log_loss"]
        >>> frame = pd.DataFrame(rows, columns=columns)
        >>> frame[["accuracy", "balanced_accuracy", "roc_auc", "train_seconds"]] = 1.0
        >>> case, = summarise(frame, "adamw")["cases"]
        >>> case["winner"], round(case["ratio"]["mine"], 3)
        ('mine', 0.8)
    """
    everyone = results["optimizer"].nunique()
    finished = results.groupby([*_CASE, "seed"])["optimizer"].transform("nunique")
    paired = results[finished == everyone]
    cases = [
        _case(dict(zip(_CASE, key, strict=True)), rows, reference)
        for key, rows in paired.groupby(_CASE, sort=False)
    ]
    rivals = [name for name in results["optimizer"].unique() if name != reference]
    return {
        "cases": cases,
        "comparisons": {name: _comparison(cases, name, reference) for name in rivals},
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _case(case: dict[str, Any], rows: pd.DataFrame, reference: str) -> dict[str, Any]:
    means: dict[str, dict[str, float | None]] = {}
    for name, own in rows.groupby("optimizer", sort=False):
        means[str(name)] = {metric: _json(own[metric].mean()) for metric in METRICS}
        means[str(name)] |= {
            "log_loss_deviation": _json(own["log_loss"].std(ddof=0)),
            "log_loss_worst": _json(own["log_loss"].max()),
            "train_seconds": _json(own["train_seconds"].mean()),
        }
    losses = {name: _loss(values) for name, values in means.items()}
    return {
        **case,
        "n_train": int(case["n_train"]),
        "seeds": int(rows["seed"].nunique()),
        "optimizers": means,
        "winner": min(losses, key=lambda name: losses[name]),
        "ratio": {n: loss / losses[reference] for n, loss in losses.items() if n != reference},
    }


def _comparison(cases: list[dict[str, Any]], name: str, reference: str) -> dict[str, Any]:
    def grouped(key: str) -> dict[str, Any]:
        values = dict.fromkeys(case[key] for case in cases)
        return {
            str(value): _against([c for c in cases if c[key] == value], name, reference)
            for value in values
        }

    return {
        "overall": _against(cases, name, reference),
        "by_model": grouped("model"),
        "by_size": grouped("n_train"),
        "by_dataset": grouped("dataset"),
    }


def _against(cases: list[dict[str, Any]], name: str, reference: str) -> dict[str, Any]:
    """Wins and means over cases; empty if no seed was finished by all."""
    if not cases:
        return {"cases": 0}
    ratios = np.array([case["ratio"][name] for case in cases])
    own, other = ([case["optimizers"][n] for case in cases] for n in (name, reference))
    worst = cases[int(ratios.argmax())]
    return {
        "cases": len(cases),
        "log_loss_ratio": float(np.exp(np.log(ratios).mean())),
        "wins": int((ratios < 1).sum()),
        "losses": int((ratios > 1).sum()),
        "log_loss": _mean(own, "log_loss"),
        "log_loss_reference": _mean(other, "log_loss"),
        "accuracy": _mean(own, "accuracy"),
        "accuracy_reference": _mean(other, "accuracy"),
        "train_seconds": _mean(own, "train_seconds"),
        "train_seconds_reference": _mean(other, "train_seconds"),
        "worst_ratio": float(ratios.max()),
        "worst_case": f"{worst['dataset']}, {worst['model']}, {worst['n_train']} rows",
    }


def _mean(values: list[dict[str, float]], key: str) -> float:
    return float(np.mean([value[key] for value in values]))


def _loss(values: dict[str, float | None]) -> float:
    """Mean log loss, kept off 0, where a ratio would say nothing."""
    loss = values["log_loss"]
    return max(loss, _LEAST) if loss is not None else math.inf


def _json(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
