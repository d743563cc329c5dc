"""The means of a case: what each optimizer did on one data set, model and size."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from denograd.evaluation.consistency import importance_consistency
from denograd.evaluation.convergence import Curve, common_arrivals, convergence
from denograd.evaluation.metrics import METRICS
from denograd.evaluation.recalls import counted_runs, mean_recalls, mean_rows
from denograd.evaluation.regression_metrics import DIVERGED, REGRESSION_METRICS
from denograd.evaluation.train import Cell, CellResult

FIT = "fit"
"""In place of an optimizer: a model outside torch that fits itself, given for context."""

CASE = ("dataset", "model", "n_train")
DIVERGED_LOSS = 4.0
"""A diverged run counts with a log loss of so many times ln C, that of a blind guess."""

LEAST_LOSS = 1e-12
"""Losses of cases are kept off 0, where a ratio would say nothing."""

_CONTEXT = ("log_loss", "brier", "accuracy", "roc_auc", *REGRESSION_METRICS)


def metrics_in(names: Iterable[str]) -> tuple[str, ...]:
    """The metrics of rows or means with these columns; the first is the loss of ratios.

    Example:
        >>> metrics_in(["dataset", "rmse"])[0], metrics_in(["dataset", "log_loss"])[0]
        ('rmse', 'log_loss')
    """
    return METRICS if "rmse" not in set(names) else REGRESSION_METRICS


def count_diverged(results: pd.DataFrame) -> pd.DataFrame:
    """Rows in which a diverged run has the log loss, or RMSE, that it counts with.

    Its other metrics and its seconds are NaN: they are left out of means.

    Args:
        results: rows as in ``results.csv``.

    Returns:
        a copy.

    Raises:
        ValueError: columns that are missing, or a run without a log loss that has not
            diverged.
    """
    metrics = metrics_in(results.columns)
    loss, blind = metrics[0], "n_classes" if metrics is METRICS else "target_deviation"
    needed = (*Cell._fields, "steps", *metrics, "train_seconds", blind, "diverged")
    missing = [name for name in needed if name not in results.columns]
    if missing:
        raise ValueError(
            f"results has no columns {', '.join(missing)}; give the rows of an evaluation by "
            "this version"
        )
    diverged = results["diverged"].astype(bool)
    unknown = results[~diverged & ~np.isfinite(results[loss].astype(float))]
    if len(unknown):
        cell = Cell(*unknown.iloc[0][list(Cell._fields)])
        raise ValueError(
            f"results has a {loss.replace('_', ' ')} that is not finite ({cell}), but diverged is "
            "0 there; a run whose loss is not finite has diverged"
        )
    counted = results.astype(dict.fromkeys([*metrics, "train_seconds"], float))
    # Its seconds are left out too: who stops early is not cheap.
    counted.loc[diverged, [*metrics, "train_seconds"]] = math.nan
    guess = results.loc[diverged, blind].astype(float)
    counted.loc[diverged, loss] = (
        DIVERGED_LOSS * np.log(guess) if metrics is METRICS else DIVERGED * guess
    )
    return counted


def make_cases(
    rows: pd.DataFrame,
    reference: str,
    runs: Mapping[Cell, CellResult],
    classes: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """Means over seeds of each case.

    A seed counts only if every optimizer finished it, so that all means are over the same
    splits.

    The deviation of the loss over seeds is the population's (divisor n). That of a sample
    (divisor n - 1) is larger, by the same factor for all optimizers of a case, so that ratios are
    the same.

    Args:
        rows: from `count_diverged`, without the models that are given for context.
        reference: the optimizer that others are compared with.
        runs: curves, importances and recalls; a cell that is missing has none.
        classes: labels of each data set, in the order of the recalls; a data set that is missing
            has its classes' numbers.

    Returns:
        one a case, in the order of the rows.
    """
    found: dict[tuple[Any, ...], list[_Run]] = {}
    for row in rows[finished_by_all(rows, reference)].to_dict("records"):
        cell = Cell(*(row[name] for name in Cell._fields))
        run = _Run(row, runs.get(cell, CellResult({})))
        found.setdefault(tuple(row[name] for name in CASE), []).append(run)
    return [
        _case(dict(zip(CASE, key, strict=True)), own, reference, classes.get(key[0]))
        for key, own in found.items()
    ]


def finished_by_all(rows: pd.DataFrame, reference: str) -> pd.Series[bool]:
    """Whether every optimizer finished the data set, model, size and seed of a row.

    Args:
        rows: from `count_diverged`, without the models that are given for context.
        reference: the optimizer that others are compared with, whether or not it has rows.
    """
    everyone = {*rows["optimizer"], reference}
    finished = rows.groupby([*CASE, "seed"])["optimizer"].transform("nunique")
    return finished == len(everyone)


def losses_by_seed(rows: pd.DataFrame, reference: str) -> dict[tuple[Any, ...], pd.DataFrame]:
    """The losses that the means of each case are of.

    Args:
        rows: from `count_diverged`, without the models that are given for context.
        reference: the optimizer that others are compared with.

    Returns:
        by data set, model and size a frame with a row a seed and a column an optimizer.
    """
    loss = metrics_in(rows.columns)[0]
    counted = rows[finished_by_all(rows, reference)]
    return {
        key: own.pivot_table(index="seed", columns="optimizer", values=loss)
        for key, own in counted.groupby(list(CASE), sort=False)
    }


def make_context(
    rows: pd.DataFrame, runs: Mapping[Cell, CellResult], classes: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Means over seeds of the models outside torch, for each data set and size.

    Args:
        rows: from `count_diverged`, of these models alone.
        runs: recalls; see `make_cases`.
        classes: labels; see `make_cases`.
    """

    def means(own: pd.DataFrame) -> dict[str, Any]:
        cells = [Cell(*key) for key in own[list(Cell._fields)].itertuples(index=False)]
        counted = counted_runs([[runs[cell]] for cell in cells if cell in runs])
        found: dict[str, Any] = {name: _mean(own[name]) for name in _CONTEXT if name in own}
        if counted:
            labels = classes.get(cells[0].dataset)
            found["recalls"] = mean_recalls([run for (run,) in counted], labels)
        return found

    return [
        {
            "dataset": of_size["dataset"].iloc[0],
            "n_train": int(of_size["n_train"].iloc[0]),
            "models": {
                str(model): means(own) for model, own in of_size.groupby("model", sort=False)
            },
        }
        for _, of_size in rows.groupby(["dataset", "n_train"], sort=False)
    ]


class _Run(NamedTuple):
    row: Mapping[Any, Any]
    result: CellResult


def _case(
    case: dict[str, Any], runs: list[_Run], reference: str, labels: Sequence[str] | None
) -> dict[str, Any]:
    by_optimizer: dict[str, dict[int, _Run]] = {}
    for run in runs:
        by_optimizer.setdefault(run.row["optimizer"], {})[run.row["seed"]] = run
    references = {seed: run.result.curve for seed, run in by_optimizer[reference].items()}
    both = {
        name: _finished_by_both(own, by_optimizer[reference])
        for name, own in by_optimizer.items()
        if name != reference
    }
    means = {name: _means(own, references) for name, own in by_optimizer.items()}
    loss = metrics_in(next(iter(means.values())))[0]
    losses = {name: max(values[loss], LEAST_LOSS) for name, values in means.items()}
    counted = counted_runs(
        [[own[seed].result for own in by_optimizer.values()] for seed in references]
    )
    known = {}
    if counted:
        for name, own in zip(by_optimizer, zip(*counted, strict=True), strict=True):
            means[name]["recalls"] = mean_recalls(own, labels)
        of_seed = [next(run for run in of_all if run.class_rows is not None) for of_all in counted]
        known["classes"] = {"seeds": len(counted), "test_rows": mean_rows(of_seed, labels)}
    return {
        **case,
        "seeds": len(references),
        **known,
        "optimizers": means,
        "winner": min(losses, key=lambda name: losses[name]),
        "ratio": {n: loss / losses[reference] for n, loss in losses.items() if n != reference},
        "both": both,
    }


def _finished_by_both(
    runs: Mapping[int, _Run], references: Mapping[int, _Run]
) -> dict[str, list[float] | None]:
    """Means of an optimizer and the reference, over the seeds in which neither diverged."""
    pairs = [(run.row, references[seed].row) for seed, run in runs.items()]
    pairs = [pair for pair in pairs if not any(row["diverged"] for row in pair)]
    found: dict[str, list[float] | None] = {}
    for metric in metrics_in(next(iter(runs.values())).row):
        known = [
            (own[metric], other[metric])
            for own, other in pairs
            if math.isfinite(own[metric]) and math.isfinite(other[metric])
        ]
        found[metric] = [float(mean) for mean in np.mean(known, axis=0)] if known else None
    return found


def _means(runs: Mapping[int, _Run], references: Mapping[int, Curve]) -> dict[str, Any]:
    rows = [run.row for run in runs.values()]
    metrics = metrics_in(rows[0])
    losses = [row[metrics[0]] for row in rows]
    curves = {seed: run.result.curve for seed, run in runs.items()}
    soon, common = convergence(curves, references), common_arrivals(curves, references)
    return {metric: _mean([row[metric] for row in rows]) for metric in metrics} | {
        f"{metrics[0]}_deviation": statistics.pstdev(losses),
        f"{metrics[0]}_worst": max(losses),
        "train_seconds": _mean([row["train_seconds"] for row in rows]),
        "seconds_per_step": _mean([row["train_seconds"] / row["steps"] for row in rows]),
        "diverged": sum(int(row["diverged"]) for row in rows),
        "steps_to_reference": soon.steps,
        "seconds_to_reference": soon.seconds,
        "reached": soon.reached,
        "common_steps_ratio": common.steps,
        "common_seconds_ratio": common.seconds,
        "consistency": importance_consistency([run.result.importance for run in runs.values()]),
    }


def _mean(values: Iterable[float]) -> float | None:
    """Of those that are numbers; None if there are none."""
    known = [value for value in values if math.isfinite(value)]
    return statistics.fmean(known) if known else None
