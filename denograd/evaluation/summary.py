"""From rows of results to what they say."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from denograd.evaluation.cases import (
    FIT,
    count_diverged,
    finished_by_all,
    losses_by_seed,
    make_cases,
    make_context,
)
from denograd.evaluation.comparisons import compare, correct_for_number, rank_all
from denograd.evaluation.train import Cell, CellResult

_PACKAGES = (
    "denograd-optim",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "baycomp",
    "scikit-posthocs",
)


def summarise(
    results: pd.DataFrame,
    reference: str,
    runs: Mapping[Cell, CellResult] | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Means over seeds, each optimizer against the reference, and how sure that is.

    A *case* is a data set, model and size. Seeds are averaged first; a seed counts only
    if every optimizer finished it, so that all means are over the same splits. Then the
    ratio of mean log losses is taken in each case, and over cases its geometric mean:
    below 1 is better than the reference. Tests take the data set as their unit: the log
    ratios of its cases are averaged before.

    A run that diverged is a result like any other. It counts with a log loss of 4 ln C for
    C classes, four times that of a blind guess; its other metrics and its seconds are left
    out of means.

    Args:
        results: rows as in ``results.csv``. Those whose optimizer is ``fit`` are models
            outside torch; they are kept apart, as ``context``.
        reference: the optimizer that others are compared with.
        runs: the curves, importances and recalls of the cells; without them nothing is known of
            convergence, consistency and single classes.
        classes: labels of each data set's classes, in the order of their codes; without them
            classes are named by their codes, ``0`` and so on.

    Returns:
        plain JSON; what is unknown or undefined is None.

        - ``cases``: of each, for every ``optimizers`` the means over seeds,
          ``log_loss_deviation`` (the population standard deviation, with divisor n) and
          ``log_loss_worst``, the number of ``diverged`` runs, ``steps_to_reference``,
          ``seconds_to_reference``, ``reached``, ``common_steps_ratio`` and
          ``common_seconds_ratio`` (see `denograd.evaluation.convergence`) and ``consistency``
          (see `denograd.evaluation.consistency`); the ``winner`` (lowest mean log loss), each
          ``ratio`` of log losses to the reference, and in ``both`` for each metric the means of an
          optimizer and of the reference over the seeds in which neither diverged. Of classes, for
          every optimizer the mean ``recalls`` by label, and ``classes`` with the number of
          ``seeds`` that they are of and the mean number of ``test_rows`` by label; a case whose
          runs did not keep their recalls (see `denograd.evaluation.recalls`) has neither.
        - ``comparisons``: for each other optimizer ``overall``, ``by_model``, ``by_size``,
          ``by_dataset`` and ``tests`` (Wilcoxon's signed-rank test, with ``p_holm``
          corrected for the number of optimizers, and its Bayesian sibling; see
          `denograd.evaluation.significance`). In a group, ``wins`` and ``losses`` are of any
          difference; ``ties`` are within 1 % of each other, and ``clear_wins``, ``ties`` and
          ``clear_losses`` add up to ``cases``. ``ratio_interval`` is the bootstrap's over
          data sets, which is too narrow for few of them (see
          `denograd.evaluation.significance.coverage`); in ``by_dataset``, ``seeds_interval`` is
          over the ``seeds`` of that data set. ``accuracy`` and ``accuracy_reference`` are over
          the seeds in which neither diverged. ``deviation_ratio`` and ``worst_seed_ratio``
          compare the spread of log loss over seeds and its worst seed; ``steps_ratio`` and
          ``seconds_ratio`` are over the cases in which half of the seeds got to the reference's
          best loss, ``reached_cases`` is the share of these cases and ``reached`` that of seeds;
          two optimizers that are alike come out below 1. ``common_steps_ratio`` and
          ``common_seconds_ratio`` leave out no case and have their reciprocal when roles are
          swapped: the geometric mean, over cases, of the ratio of steps to the best loss of
          whichever was worse. ``step_cost_ratio`` compares the seconds of a step.
        - ``critical_difference``: see `denograd.evaluation.critical_difference`.
        - ``context``: for each data set and size the means of models outside torch, with their
          ``recalls`` where they are known.
        - ``runs_left_out``: number of runs that were finished and are in no case, because the run
          of another optimizer on the same data set, model, size and seed is missing.

    Raises:
        ValueError: columns that are missing, or a run without a log loss that has not
            diverged.

    Example:
        >>> rows = [("d", "m", "adamw", 32, 0, 0.5), ("d", "m", "mine", 32, 0, 0.4)]
        >>> columns = ["dataset", "model", "optimizer", "n_train", "seed", "log_loss"]
        >>> frame = pd.DataFrame(rows, columns=columns)
        >>> frame[["brier", "calibration_error", "accuracy", "balanced_accuracy"]] = 0.5
        >>> frame = frame.assign(roc_auc=0.5, train_seconds=1.0, steps=9, n_classes=2, diverged=0)
        >>> case, = summarise(frame, "adamw")["cases"]
        >>> case["winner"], round(case["ratio"]["mine"], 3)
        ('mine', 0.8)
    """
    rows = count_diverged(results)
    outside = rows["optimizer"] == FIT
    context, rows = rows[outside], rows[~outside]
    optimizers = [str(name) for name in rows["optimizer"].unique()]
    runs, classes = runs or {}, classes or {}
    cases = make_cases(rows, reference, runs, classes)
    losses = losses_by_seed(rows, reference)
    comparisons = {
        name: compare(cases, name, reference, losses) for name in optimizers if name != reference
    }
    correct_for_number(comparisons)
    return {
        "cases": cases,
        "comparisons": comparisons,
        "critical_difference": rank_all(cases, optimizers, reference),
        "context": make_context(context, runs, classes),
        "runs_left_out": int((~finished_by_all(rows, reference)).sum()),
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
