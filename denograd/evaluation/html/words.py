"""What an evaluation says, in plain words: for the page and for the terminal.

How sure one may be is read off three things that look at the data sets in different ways:
the Bayesian signed-rank test with a region of practical equivalence (Benavoli et al. 2014,
"A Bayesian Wilcoxon signed-rank test based on the Dirichlet process"), Wilcoxon's
signed-rank test (corrected for the number of optimizers), and the bootstrap interval of the
geometric-mean ratio. Only where all of them agree is a verdict called sure. Two optimizers are
called as good as each other where the Bayesian test says so and that interval lies within the
region of practical equivalence, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from denograd.evaluation.html.phrases import change, counted, few, listing, p_value, probability
from denograd.evaluation.names import short_names
from denograd.evaluation.significance import ROPE, coverage

LEAST_DATA_SETS = 6
"""Fewest data sets that can settle anything.

With five, Wilcoxon's test cannot get below p = 2 / 2^5 = 0.06 even if all of them agree.
"""
SURE = 0.95
"""A probability from which one is called sure; Wilcoxon's p has to be below 1 minus that."""
GOOD_SEEDS = 10
ENOUGH_DATA_SETS = 20
"""From so many data sets on, an interval's coverage is close enough to what it is called."""
_IN_FULL = 3

Kind = Literal[
    "better",
    "probably better",
    "equivalent",
    "undecided",
    "probably worse",
    "worse",
    "too little data",
    "nothing",
]


@dataclass(frozen=True)
class Verdict:
    """What is said of one optimizer against the reference.

    Attributes:
        optimizer: its whole name.
        kind: the finding in a word or two.
        headline: a sentence of it.
        tally: wins, losses and the mean ratio.
        details: further sentences: what the tests say, at which sizes and with which models
            it holds, where it lost, and what speaks against trusting it.
    """

    optimizer: str
    kind: Kind
    headline: str
    tally: str
    details: tuple[str, ...]


def rivals(summary: Mapping[str, Any]) -> list[str]:
    """The optimizers that are compared with the reference, denograd's before all others.

    Example:
        >>> rivals({"comparisons": {"lion": {}, "denograd:mine": {}}})
        ['denograd:mine', 'lion']
    """
    return sorted(summary.get("comparisons", {}), key=lambda name: not is_own(name))


def foremost(summary: Mapping[str, Any], most: int) -> list[str]:
    """The reference, denograd's, and the best of the others by mean ratio.

    Args:
        summary: of an evaluation.
        most: so many optimizers are picked, or all if there are fewer.

    Returns:
        their names, the reference first and the others as `rivals` orders them.

    Example:
        >>> ratios = {"sgd": 1.3, "lion": 0.9, "denograd": 1.1}
        >>> found = {name: {"overall": {"log_loss_ratio": r}} for name, r in ratios.items()}
        >>> foremost({"reference": "adamw", "comparisons": found}, 3)
        ['adamw', 'denograd', 'lion']
    """
    ordered = rivals(summary)

    def rank(name: str) -> tuple[bool, float]:
        overall = summary["comparisons"][name]["overall"]
        return not is_own(name), overall.get("log_loss_ratio", math.inf)

    kept = sorted(ordered, key=rank)[: most - 1]
    return [summary["reference"], *(name for name in ordered if name in kept)]


def is_own(optimizer: str) -> bool:
    """Whether it is denograd's, so what the evaluation was made to judge."""
    return optimizer.partition(":")[0] == "denograd"


def names(summary: Mapping[str, Any]) -> dict[str, str]:
    """Short names of the reference and of all that is compared with it."""
    return short_names([summary["reference"], *rivals(summary)])


def loss_of(summary: Mapping[str, Any]) -> tuple[str, str]:
    """The key and the name of the loss that ratios are made of.

    Example:
        >>> loss_of({"cases": [{"optimizers": {"adamw": {"rmse": 2.0}}}]})
        ('rmse', 'RMSE')
    """
    for case in summary.get("cases", []):
        for values in case["optimizers"].values():
            if "log_loss" not in values and "rmse" in values:
                return "rmse", "RMSE"
    return "log_loss", "log loss"


def in_stacks(summary: Mapping[str, Any]) -> bool:
    """Whether all seeds of a case took their steps together, and share the seconds.

    Example:
        >>> in_stacks({"settings": {"engine": "batched"}}), in_stacks({"reference": "adamw"})
        (True, False)
    """
    return (summary.get("settings") or {}).get("engine") == "batched"


def verdicts(summary: Mapping[str, Any]) -> list[Verdict]:
    """A verdict on each optimizer that was compared with the reference.

    Args:
        summary: of an evaluation, as in ``summary.json``.

    Example:
        >>> summary = {"reference": "adamw", "comparisons": {"mine": {"overall": {"cases": 0}}}}
        >>> verdicts(summary)[0].headline
        'mine against adamw: no case in which every optimizer finished a seed.'
    """
    return [_verdict(summary, name) for name in rivals(summary)]


def first_verdicts(found: Sequence[Verdict]) -> int:
    """How many verdicts are told in full: those on denograd's, or else the first few."""
    return sum(is_own(verdict.optimizer) for verdict in found) or _IN_FULL


def caveats(summary: Mapping[str, Any]) -> list[str]:
    """What to bear in mind with any verdict.

    What denoisers saw before, what others were not tuned for, missing runs, and few seeds.

    Example:
        >>> caveats({"cells_failed": 1, "cases": [{"seeds": 3}]})
        ['1 run failed with an error and is missing here.',
         'Only 3 seeds in some cases; ten or more would be steadier.']
    """
    found = [*summary.get("seen_before", ()), *summary.get("tuned_elsewhere", ())]
    failed = summary.get("cells_failed") or 0
    if failed:
        verb = "is" if failed == 1 else "are"
        found.append(f"{counted(failed, 'run')} failed with an error and {verb} missing here.")
    if left_out := summary.get("runs_left_out") or 0:
        verb, was = ("is", "was") if left_out == 1 else ("are", "were")
        found.append(
            f"{counted(left_out, 'run')} that {was} finished {verb} left out of every comparison, "
            "because another optimizer's run on the same data set, model, rows and seed is missing."
        )
    least = min((case["seeds"] for case in summary.get("cases", [])), default=GOOD_SEEDS)
    if least < GOOD_SEEDS:
        found.append(f"Only {counted(least, 'seed')} in some cases; ten or more would be steadier.")
    return found


def judge(overall: Mapping[str, Any], tests: Mapping[str, Any] | None) -> Kind:
    """The finding, from the tests over data sets.

    Args:
        overall: with ``cases``, ``log_loss_ratio`` and ``ratio_interval``.
        tests: with ``data_sets``, ``wilcoxon`` and ``bayes``.

    Example:
        >>> overall = {"cases": 8, "log_loss_ratio": 0.8, "ratio_interval": [0.7, 0.9]}
        >>> bayes = {"better": 0.99, "equivalent": 0.01, "worse": 0.0}
        >>> tests = {"data_sets": 8, "wilcoxon": {"p": 0.01}, "bayes": bayes}
        >>> judge(overall, tests), judge(overall, tests | {"data_sets": 1})
        ('better', 'too little data')
    """
    if not overall.get("cases"):
        return "nothing"
    tests = tests or {}
    bayes, wilcoxon = tests.get("bayes"), tests.get("wilcoxon")
    interval = overall.get("ratio_interval")
    if tests.get("data_sets", 0) < LEAST_DATA_SETS or (bayes is None and wilcoxon is None):
        return "too little data"
    alike = bayes is not None and bayes["equivalent"] >= SURE
    # Most data sets may be within 1 % while a few that are not carry the mean away.
    if alike and interval and all(abs(math.log(end)) <= ROPE for end in interval):
        return "equivalent"
    lower, higher = [], []
    if bayes:
        lower.append(bayes["better"] >= SURE)
        higher.append(bayes["worse"] >= SURE)
    if wilcoxon:
        told_apart = corrected(wilcoxon) < 1 - SURE
        lower.append(told_apart and overall["log_loss_ratio"] < 1)
        higher.append(told_apart and overall["log_loss_ratio"] > 1)
    if interval:
        lower.append(interval[1] < 1)
        higher.append(interval[0] > 1)
    if all(lower):
        return "better"
    if all(higher):
        return "worse"
    # A difference that is sure to be there may still be too small to matter.
    if any(lower) and not any(higher) and (not bayes or bayes["better"] > 0.5):
        return "probably better"
    if any(higher) and not any(lower) and (not bayes or bayes["worse"] > 0.5):
        return "probably worse"
    return "undecided"


def coverage_note(data_sets: int) -> str:
    """What to know of an interval of so few data sets, in brackets; nothing from 20 on.

    Example:
        >>> coverage_note(8)
        ' (nominal: of 8 data sets such an interval holds the true mean in about 89 % at best)'
        >>> coverage_note(20)
        ''
    """
    if not 2 <= data_sets < ENOUGH_DATA_SETS:
        return ""
    return (
        f" (nominal: of {data_sets} data sets such an interval holds the true mean in about "
        f"{100 * coverage(data_sets):.0f} % at best)"
    )


def corrected(wilcoxon: Mapping[str, Any]) -> float:
    """Wilcoxon's p, corrected for the number of optimizers if that was done."""
    return float(wilcoxon.get("p_holm", wilcoxon["p"]))


def record(found: Mapping[str, Any]) -> tuple[int, int, int]:
    """Cases of a group that were won, tied and lost; within 1 % is a tie.

    Example:
        >>> record({"clear_wins": 4, "ties": 1, "clear_losses": 2})
        (4, 1, 2)
    """
    return found["clear_wins"], found["ties"], found["clear_losses"]


def standing(found: Mapping[str, Any]) -> str:
    """Where a group of cases stands: ``lower``, ``same`` or ``higher``, perhaps ``surely``.

    Args:
        found: with ``log_loss_ratio``, ``ratio_interval`` and ``data_sets``.

    Example:
        >>> standing({"log_loss_ratio": 0.8, "ratio_interval": [0.7, 0.9], "data_sets": 8})
        'surely lower'
        >>> standing({"log_loss_ratio": 1.005, "ratio_interval": None, "data_sets": 1})
        'same'
    """
    ratio, interval = found["log_loss_ratio"], found.get("ratio_interval")
    if interval and found["data_sets"] >= LEAST_DATA_SETS:
        if interval[1] < 1:
            return "surely lower"
        if interval[0] > 1:
            return "surely higher"
    if abs(math.log(ratio)) <= ROPE:
        return "same"
    return "lower" if ratio < 1 else "higher"


def _verdict(summary: Mapping[str, Any], name: str) -> Verdict:
    comparison = summary["comparisons"][name]
    overall, tests = comparison["overall"], comparison.get("tests") or {}
    short = names(summary)
    own, reference = short[name], short[summary["reference"]]
    kind = judge(overall, tests)
    if kind == "nothing":
        text = f"{own} against {reference}: no case in which every optimizer finished a seed."
        return Verdict(name, kind, text, "", ())
    loss = loss_of(summary)[1]
    data_sets = overall["data_sets"]
    by = change(overall["log_loss_ratio"])
    headline = {
        "better": f"{own} is better than {reference}: its {loss} is {by}.",
        "probably better": f"{own} is probably better than {reference}, but that is not sure: "
        f"its {loss} is {by}.",
        "equivalent": f"{own} and {reference} are as good as each other, within 1 %.",
        "undecided": f"It cannot be told whether {own} or {reference} is better: the {loss} of "
        f"{own} is {by}, which may be chance or too little to matter.",
        "probably worse": f"{own} is probably worse than {reference}, but that is not sure: "
        f"its {loss} is {by}.",
        "worse": f"{own} is worse than {reference}: its {loss} is {by}.",
        "too little data": f"Too little data to say whether {own} is better than {reference} in "
        f"general: {counted(data_sets, 'data set')}. There, its {loss} is {by}.",
    }[kind]
    details = [
        _tests(tests, overall, kind),
        *_where(comparison, own, loss),
        _lost(overall, comparison["by_dataset"], reference, loss),
        *_place(summary, name),
        *_over_seeds(comparison["by_dataset"], data_sets, loss),
        *_speed(overall, reference),
        *_price(
            overall, reference, enough=enough_for_spread(summary), in_stacks=in_stacks(summary)
        ),
        *_diverged(overall, own, reference, loss),
    ]
    return Verdict(name, kind, headline, _tally(overall, own, reference, loss), tuple(details))


def _tally(overall: Mapping[str, Any], own: str, reference: str, loss: str) -> str:
    # Of so few data sets the bootstrap's interval is too narrow.
    few_sets = overall["data_sets"] < LEAST_DATA_SETS
    interval = None if few_sets else overall.get("ratio_interval")
    nominal = "nominal " if overall["data_sets"] < ENOUGH_DATA_SETS else ""
    within = f" ({nominal}95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    won, tied, lost = record(overall)
    text = (
        f"{own} against {reference}: lower {loss} in {won} of {overall['cases']} cases, within 1 % "
        f"in {tied}, higher in {lost}; geometric mean of the ratio "
        f"{overall['log_loss_ratio']:.3f}{within}"
    )
    accuracy, other = overall.get("accuracy"), overall.get("accuracy_reference")
    if accuracy is not None and other is not None:
        text += f"; accuracy {100 * (accuracy - other):+.1f} points"
        if overall["diverged"] or overall["diverged_reference"]:
            text += " over seeds in which neither diverged"
    return f"{text}."


def _tests(tests: Mapping[str, Any], overall: Mapping[str, Any], kind: Kind) -> str:
    data_sets = overall["data_sets"]
    if data_sets < LEAST_DATA_SETS:
        on = "the data set" if data_sets == 1 else "the data sets"
        return (
            f"The unit of statistics is the data set. With fewer than {LEAST_DATA_SETS} of them "
            "even complete agreement may be chance, so no test is believed here; read the "
            f"figures below as what happened on {on} at hand."
        )
    bayes, wilcoxon = tests.get("bayes"), tests.get("wilcoxon")
    found = []
    if bayes:
        percent = f"{100 * bayes.get('rope', ROPE):g} %"
        found.append(
            f"the probability of being better by more than {percent} is "
            f"{probability(bayes['better'])}, of being within {percent} "
            f"{probability(bayes['equivalent'])}, of being worse by more "
            f"{probability(bayes['worse'])} (Bayesian signed-rank test)"
        )
    if wilcoxon:
        single, several = p_value(wilcoxon["p"]), p_value(corrected(wilcoxon))
        extra = "" if single == several else f", {several} corrected for the number of optimizers"
        found.append(f"Wilcoxon's signed-rank test gives {single}{extra}")
    if overall.get("ratio_interval"):
        low, high = overall["ratio_interval"]
        holds = "includes" if low <= 1 <= high else "does not include"
        found.append(f"the 95 % interval of the mean ratio, {low:.3f} to {high:.3f}, {holds} 1")
    if not found:
        return f"Over {data_sets} data sets, but no test of them could be made."
    if overall.get("ratio_interval"):
        found[-1] += coverage_note(data_sets)
    if kind == "undecided" and bayes and bayes["equivalent"] >= SURE:
        return (
            f"Over {data_sets} data sets: {'; '.join(found)}. On most of them the two are within "
            "1 %, but the interval of the mean ratio reaches further, so they are not called as "
            "good as each other."
        )
    agree = {"better": " All agree.", "worse": " All agree."}
    return f"Over {data_sets} data sets: {'; '.join(found)}.{agree.get(kind, '')}"


def _where(comparison: Mapping[str, Any], own: str, loss: str) -> list[str]:
    """At which sizes and with which models the loss is lower, and where it is not."""
    sentences = []
    for group, title, unit in (("by_size", "By size", " rows"), ("by_model", "By model", "")):
        places: dict[str, list[str]] = {}
        for value, found in comparison[group].items():
            if found["cases"]:
                places.setdefault(standing(found), []).append(value)
        fewest = min((g["data_sets"] for g in comparison[group].values() if g["cases"]), default=0)
        nominal = "nominal " if fewest < ENOUGH_DATA_SETS else ""
        said = [
            f"{text} with {listing(places[kind])}{unit}{beyond}"
            for kind, text, beyond in (
                ("surely lower", f"lower {loss}", f" ({nominal}95 % interval below 1)"),
                ("lower", f"lower {loss}", ""),
                ("same", f"the same {loss} within 1 %", ""),
                ("higher", f"higher {loss}", ""),
                ("surely higher", f"higher {loss}", f" ({nominal}95 % interval above 1)"),
            )
            if kind in places
        ]
        if said:
            sentence = f"{title}, {own} has {'; '.join(said)}."
            if "surely lower" in places or "surely higher" in places:
                sentence += " These intervals are not corrected for their number."
            sentences.append(sentence)
    return sentences


def _lost(
    overall: Mapping[str, Any], by_dataset: Mapping[str, Any], reference: str, loss: str
) -> str:
    lost = record(overall)[2]
    if not lost:
        return f"It lost by more than 1 % in none of the {counted(overall['cases'], 'case')}."
    behind = [
        name
        for name, found in by_dataset.items()
        if found["cases"] and standing(found).endswith("higher")
    ]
    behind.sort(key=lambda name: -by_dataset[name]["log_loss_ratio"])
    text = (
        f"It lost by more than 1 % in {lost} of {counted(overall['cases'], 'case')}, worst in "
        f"{overall['worst_case']}, where its {loss} is {overall['worst_ratio']:.2f} times "
        f"that of {reference}."
    )
    if behind and len(by_dataset) > 1:
        text += (
            f" Behind on average on {len(behind)} of {len(by_dataset)} data sets: {few(behind)}."
        )
    return text


def _place(summary: Mapping[str, Any], name: str) -> list[str]:
    """Who of all optimizers did better; with two the headline has said it."""
    ratios = {
        other: found["overall"]["log_loss_ratio"]
        for other, found in summary["comparisons"].items()
        if found["overall"]["cases"]
    }
    ratios[summary["reference"]] = 1.0
    if len(ratios) < 3:
        return []
    short = names(summary)
    ahead = sorted((o for o in ratios if ratios[o] < ratios[name]), key=lambda o: ratios[o])
    if not ahead:
        return [f"None of the {len(ratios)} optimizers has a lower mean ratio."]
    ahead_of_it = few([short[other] for other in ahead])
    return [f"Of {len(ratios)} optimizers, {len(ahead)} did better by mean ratio: {ahead_of_it}."]


def _over_seeds(by_dataset: Mapping[str, Any], data_sets: int, loss: str) -> list[str]:
    """On each of the few data sets at hand, what other seeds would do to the ratio."""
    if data_sets >= LEAST_DATA_SETS:
        return []
    known = {
        name: found
        for name, found in by_dataset.items()
        if found["cases"] and found.get("seeds_interval")
    }
    if not known:
        return []
    said = [
        f"on {name} {found['seeds_ratio']:.3f} with a 95 % interval of "
        f"{found['seeds_interval'][0]:.3f} to {found['seeds_interval'][1]:.3f} "
        f"({counted(found['seeds'], 'seed')})"
        for name, found in known.items()
    ]
    table = "this table" if len(known) == 1 else "the same table"
    return [
        f"Over seeds of {table}, not over data sets, the ratio of {loss} is {listing(said)}; "
        "what another table would give it does not say."
    ]


def _speed(overall: Mapping[str, Any], reference: str) -> list[str]:
    """How soon it gets down to a loss; the sentence rests on the measure that favours nobody."""
    common, steps = overall.get("common_steps_ratio"), overall.get("steps_ratio")
    share = overall.get("reached_cases")
    said = []
    if common is not None:
        said.append(
            f"To a test loss that both reach it took {common:.2f} times the steps of {reference}."
        )
    if share is not None:
        sentence = (
            f"Half of its seeds reached the best test loss of {reference} in {100 * share:.0f} % "
            "of the cases"
        )
        if steps is not None:
            sentence += (
                f", there in {steps:.2f} times the steps (in this measure, optimizers that are "
                "alike come out below 1)"
            )
        said.append(f"{sentence}.")
    return [" ".join(said)] if said else []


def enough_for_spread(summary: Mapping[str, Any]) -> bool:
    """Whether there are seeds and data sets enough to speak of spread over seeds."""
    cases = summary["cases"]
    data_sets = len({case["dataset"] for case in cases})
    return data_sets >= LEAST_DATA_SETS and min(case["seeds"] for case in cases) >= GOOD_SEEDS


def _price(
    overall: Mapping[str, Any], reference: str, *, enough: bool, in_stacks: bool
) -> list[str]:
    """What it costs: how steady it is over seeds, and how long a step takes."""
    spread, cost = overall.get("deviation_ratio"), overall.get("step_cost_ratio")
    said, found = [], []
    if spread is not None and enough:
        said.append(f"its spread over seeds is {change(spread)}")
    if cost is not None:
        together = " (all seeds in one stack; of a run by itself another ratio)"
        said.append(f"a step takes {cost:.2f} times as long{together if in_stacks else ''}")
    if said:
        found.append(f"Compared with {reference}, {listing(said)}.")
    if spread is not None and not enough:
        found.append(
            f"Whether it is steadier over seeds cannot be told: that takes {GOOD_SEEDS} seeds "
            f"in every case and {LEAST_DATA_SETS} data sets."
        )
    return [" ".join(found)] if found else []


def _diverged(overall: Mapping[str, Any], own: str, reference: str, loss: str) -> list[str]:
    diverged, other = overall["diverged"], overall["diverged_reference"]
    if not diverged and not other:
        return []
    counts = "a log loss of 4 ln C for C classes"
    if loss == "RMSE":
        counts = "an RMSE of 4 deviations of the training rows' targets"
    return [
        f"{counted(diverged, 'run')} of {own} diverged, and {other} of {reference}; each counts "
        f"with {counts}."
    ]
