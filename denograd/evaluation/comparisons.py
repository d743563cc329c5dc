"""Each optimizer against the reference, over all cases and over groups of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from denograd.evaluation import significance
from denograd.evaluation.cases import CASE, LEAST_LOSS, metrics_in
from denograd.evaluation.critical_difference import critical_difference

Case = Mapping[str, Any]


def case_name(case: Case) -> str:
    """A case as it is written.

    Example:
        >>> case_name({"dataset": "wine", "model": "soft_tree", "n_train": 32})
        'wine, soft_tree, 32 rows'
    """
    return f"{case['dataset']}, {case['model']}, {case['n_train']} rows"


def compare(
    cases: Sequence[Case],
    name: str,
    reference: str,
    losses: Mapping[tuple[Any, ...], pd.DataFrame],
) -> dict[str, Any]:
    """One optimizer against the reference: ``overall``, in groups, and tests.

    Args:
        cases: from `denograd.evaluation.cases.make_cases`.
        name: of the optimizer.
        reference: the optimizer that it is compared with.
        losses: of the seeds of each case, from `denograd.evaluation.cases.losses_by_seed`.

    Returns:
        ``overall``, ``by_model``, ``by_size``, ``by_dataset`` and ``tests``; see
        `denograd.evaluation.summarise`.
    """

    def grouped(key: str) -> dict[str, Any]:
        values = dict.fromkeys(case[key] for case in cases)
        return {
            str(value): _against([c for c in cases if c[key] == value], name, reference)
            for value in values
        }

    by_dataset = grouped("dataset")
    for data_set, found in by_dataset.items():
        own = [losses[_key(case)] for case in cases if case["dataset"] == data_set]
        found |= _over_seeds(own, name, reference)
    log_ratios = [float(np.mean(logs)) for logs in _log_ratios(cases, name).values()]
    return {
        "overall": _against(cases, name, reference),
        "by_model": grouped("model"),
        "by_size": grouped("n_train"),
        "by_dataset": by_dataset,
        "tests": {
            "data_sets": len(log_ratios),
            "wilcoxon": significance.wilcoxon(log_ratios),
            "bayes": significance.bayesian_signed_rank(log_ratios),
        },
    }


def correct_for_number(comparisons: Mapping[str, dict[str, Any]]) -> None:
    """Add ``p_holm`` to each Wilcoxon test: its p value, corrected for their number."""
    tests = [found["tests"]["wilcoxon"] for found in comparisons.values()]
    tests = [test for test in tests if test is not None]
    corrected = significance.holm([test["p"] for test in tests])
    for test, p_value in zip(tests, corrected, strict=True):
        test["p_holm"] = p_value


def rank_all(
    cases: Sequence[Case], optimizers: Sequence[str], reference: str
) -> dict[str, Any] | None:
    """Mean ranks of all optimizers and who can be told apart; see `critical_difference`."""
    columns = {
        name: {
            data_set: float(np.mean(logs)) for data_set, logs in _log_ratios(cases, name).items()
        }
        for name in optimizers
        if name != reference
    }
    data_sets = dict.fromkeys(case["dataset"] for case in cases)
    frame = pd.DataFrame({reference: dict.fromkeys(data_sets, 0.0), **columns})
    return critical_difference(frame)


def _key(case: Case) -> tuple[Any, ...]:
    return tuple(case[name] for name in CASE)


def _over_seeds(frames: Sequence[pd.DataFrame], name: str, reference: str) -> dict[str, Any]:
    """The ratio on one data set, with what other seeds would do to it.

    Only seeds that all cases have count: a seed decides on the rows of all of them.
    """
    seeds = sorted(set.intersection(*(set(frame.index) for frame in frames)))
    own, other = (
        # As low as in the ratio of a case, where a loss of 0 would say nothing.
        np.maximum([frame.loc[seeds, column] for frame in frames], LEAST_LOSS)
        for column in (name, reference)
    )
    ratio = float(np.exp(np.log(own.mean(1) / other.mean(1)).mean())) if seeds else None
    return {
        "seeds": len(seeds),
        "seeds_ratio": ratio,
        "seeds_interval": significance.interval_over_seeds(own, other),
    }


def _log_ratios(cases: Sequence[Case], name: str) -> dict[str, list[float]]:
    """Log ratios to the reference of the cases of each data set."""
    found: dict[str, list[float]] = {}
    for case in cases:
        found.setdefault(case["dataset"], []).append(math.log(case["ratio"][name]))
    return found


def _against(cases: Sequence[Case], name: str, reference: str) -> dict[str, Any]:
    """Wins and means over cases; empty if no seed was finished by all."""
    if not cases:
        return {"cases": 0}
    ratios = np.array([case["ratio"][name] for case in cases])
    logs = np.log(ratios)
    by_data_set = _log_ratios(cases, name)
    own, other = ([case["optimizers"][n] for case in cases] for n in (name, reference))
    loss = metrics_in(own[0])[0]
    second = "accuracy" if loss == "log_loss" else "r2"
    worst = cases[int(ratios.argmax())]
    beyond = significance.count(logs)
    consistency, consistency_reference = _means_of_pairs(own, other, "consistency")
    both = [case["both"][name][second] for case in cases]
    finished = np.array([pair for pair in both if pair is not None])
    of_second = [float(mean) for mean in finished.mean(0)] if len(finished) else [None, None]
    arrived = [one["steps_to_reference"] for one in own if one["reached"] is not None]
    return {
        "cases": len(cases),
        "data_sets": len(by_data_set),
        "log_loss_ratio": float(np.exp(logs.mean())),
        "ratio_interval": significance.bootstrap_interval(list(by_data_set.values())),
        "wins": int((ratios < 1).sum()),
        "losses": int((ratios > 1).sum()),
        "ties": beyond.ties,
        "clear_wins": beyond.wins,
        "clear_losses": beyond.losses,
        loss: _mean(own, loss),
        f"{loss}_reference": _mean(other, loss),
        second: of_second[0],
        f"{second}_reference": of_second[1],
        "train_seconds": _mean(own, "train_seconds"),
        "train_seconds_reference": _mean(other, "train_seconds"),
        "worst_ratio": float(ratios.max()),
        "worst_case": case_name(worst),
        "deviation_ratio": _mean_ratio(own, other, f"{loss}_deviation"),
        "worst_seed_ratio": _mean_ratio(own, other, f"{loss}_worst"),
        "steps_ratio": _mean_ratio(own, other, "steps_to_reference"),
        "seconds_ratio": _mean_ratio(own, other, "seconds_to_reference"),
        "reached": _mean(own, "reached"),
        "reached_cases": sum(steps is not None for steps in arrived) / len(arrived)
        if arrived
        else None,
        "common_steps_ratio": _geometric_mean(own, "common_steps_ratio"),
        "common_seconds_ratio": _geometric_mean(own, "common_seconds_ratio"),
        "consistency": consistency,
        "consistency_reference": consistency_reference,
        "diverged": sum(values["diverged"] for values in own),
        "diverged_reference": sum(values["diverged"] for values in other),
        "step_cost_ratio": _mean_ratio(own, other, "seconds_per_step"),
    }


def _mean(values: Sequence[Mapping[str, float | None]], key: str) -> float | None:
    """Over the cases in which it is known; None if there are none."""
    known = [number for value in values if (number := value[key]) is not None]
    return float(np.mean(known)) if known else None


def _means_of_pairs(
    own: Sequence[Mapping[str, float | None]],
    other: Sequence[Mapping[str, float | None]],
    key: str,
) -> tuple[float | None, float | None]:
    """Of both, over the cases in which both are known; None if there are none."""
    pairs = [
        (first, second)
        for one, two in zip(own, other, strict=True)
        if (first := one[key]) is not None and (second := two[key]) is not None
    ]
    if not pairs:
        return None, None
    means = np.mean(pairs, axis=0)
    return float(means[0]), float(means[1])


def _geometric_mean(values: Sequence[Mapping[str, float | None]], key: str) -> float | None:
    """Over the cases in which it is known; None if there are none."""
    logs = [math.log(number) for value in values if (number := value[key]) is not None]
    return math.exp(float(np.mean(logs))) if logs else None


def _mean_ratio(
    own: Sequence[Mapping[str, float | None]],
    other: Sequence[Mapping[str, float | None]],
    key: str,
) -> float | None:
    """The geometric mean of ratios, over the cases in which both are above 0."""
    logs = [
        math.log(first / second)
        for one, two in zip(own, other, strict=True)
        if (first := one[key]) and (second := two[key])
    ]
    return math.exp(float(np.mean(logs))) if logs else None
