"""Rules in as few conditions, and as few of them, as say the same.

A rule net learns its rules apart from each other, so that several can come out alike, and some
of their conditions follow from what a column is: no row has two categories, and one without a
value has what stands for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from denograd.data.numbers import CLIP
from denograd.estimators._features import RowEncoder, own_values
from denograd.models.rules import Condition, Rule, number, verdict


def simplified(rule: Rule, encoder: RowEncoder) -> Rule | None:
    """A rule without the conditions that its others make needless; None: it never holds.

    Args:
        rule: its conditions are each about one feature, in the feature's own units.
        encoder: of the rule's features.
    """
    places: dict[int, list[int]] = {}
    for place, test in enumerate(rule.tests):
        places.setdefault(int(encoder.sources[_feature(test)]), []).append(place)
    kept: list[int] = []
    for of_column in places.values():
        tests = [rule.tests[place] for place in of_column]
        states = _states(tests, encoder)
        met = np.stack([test.holds(states) for test in tests], axis=1)
        # "a or b" is "not (not a and not b)".
        needed = _needed(~met if rule.any_of else met)
        if needed is None:
            # It decides alone: "or" with what always holds, "and" with what never does.
            return replace(rule, conditions=(), tests=(), any_of=False) if rule.any_of else None
        kept += [of_column[i] for i in needed]
    if rule.any_of and rule.tests and not kept:
        return None
    kept.sort()
    return replace(
        rule,
        conditions=tuple(rule.conditions[place] for place in kept),
        tests=tuple(rule.tests[place] for place in kept),
        any_of=rule.any_of and len(kept) > 1,
    )


def merged(rules: Sequence[Rule], class_names: Sequence[str] | None) -> list[Rule]:
    """Rules with the same conditions as one that adds what they add together.

    Scores are added as the decimal numbers that they are printed as, so the sum is exact.

    Args:
        rules: simplified ones; those without conditions become the last rule.
        class_names: None in regression.

    Example:
        >>> old = Condition(((0, 1.0),), ">", 50.0)
        >>> rules = [Rule(("age > 50",), "0.1", 0.5, 0.1, (0.1,), (old,), index=0)]
        >>> rules.append(Rule(("age > 50",), "0.2", 0.5, 0.2, (0.2,), (old,), index=1))
        >>> for rule in merged(rules, None):
        ...     print(rule)
        IF age > 50 THEN 0.3 (weight 0.3, support 50 %)
    """
    alike: dict[tuple[bool, tuple[Condition, ...]], list[Rule]] = {}
    for rule in rules:
        alike.setdefault((rule.any_of, rule.tests), []).append(rule)
    if (always := alike.pop((False, ()), None)) is not None:
        alike[False, ()] = always
    return [_sum(group, class_names) for group in alike.values()]


def _feature(test: Condition) -> int:
    ((index, _),) = test.terms
    return index


def _states(tests: Sequence[Condition], encoder: RowEncoder) -> NDArray[np.float64]:
    """Rows with all that the features of one column can be, as far as conditions tell it apart.

    Where features depend on each other in further ways, as a date's days and year do, there are
    more rows than can be; so what holds in all of these holds in all rows.

    Returns:
        ``(states, features)``, in own units; 0 in the features of other columns.
    """
    column = int(encoder.sources[_feature(tests[0])])
    of_column = np.flatnonzero(encoder.sources == column)
    binary = of_column[encoder.binary[of_column]]
    numeric = of_column[~encoder.binary[of_column]]
    one_hot = f"{encoder.columns[column]}="
    if len(numeric) == 0 and all(encoder.names[i].startswith(one_hot) for i in binary):
        # One of the categories, or one that training did not see.
        states = np.zeros((len(binary) + 1, len(encoder.names)))
        states[np.arange(len(binary)), binary] = 1.0
        return states
    values = []
    for feature in numeric:
        low, high = own_values(np.array([-CLIP, CLIP]), encoder, feature)
        cuts = [np.clip(test.threshold, low, high) for test in tests if _feature(test) == feature]
        points = np.unique([low, *cuts, high])
        values.append(np.union1d(points, (points[1:] + points[:-1]) / 2))
    there = np.array(list(itertools.product(*values)))
    states = np.zeros((len(there) + 1, len(encoder.names)))
    states[:-1, numeric] = there
    # The last one is missing, which all its indicators say.
    states[-1, numeric] = [encoder.stand_ins[feature] for feature in numeric]
    states[-1, binary] = 1.0
    return states


def _needed(met: NDArray[np.bool_]) -> list[int] | None:
    """Which of some conditions all together say as much as all; None: they never all hold.

    Args:
        met: ``(states, conditions)``.
    """
    if not met.all(axis=1).any():
        return None
    needed = list(range(met.shape[1]))
    for condition in reversed(range(met.shape[1])):
        others = [other for other in needed if other != condition]
        if met[met[:, others].all(axis=1), condition].all():
            needed = others
    return needed


def _sum(rules: Sequence[Rule], class_names: Sequence[str] | None) -> Rule:
    if len(rules) == 1 and rules[0].tests:
        return rules[0]
    pairs = zip(*(rule.scores for rule in rules), strict=True)
    scores = tuple(float(sum(Decimal(number(score)) for score in each)) for each in pairs)
    prediction, weight = verdict(scores, class_names)
    first = rules[0]
    return replace(
        first,
        prediction=number(scores[0]) if class_names is None else prediction,
        support=first.support if first.tests else 1.0,
        weight=weight,
        scores=scores,
        index=first.index if first.tests else None,
    )
