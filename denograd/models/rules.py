"""Rules as text and as something that can be run.

A set of rules is read as a sum: every rule whose conditions a row meets adds its scores,
and the largest sum is the class (in regression the sum is the prediction). A hard tree is
such a set, in which each row meets the conditions of one leaf; so is a forest, with one
leaf a tree; and so are the rules of a `RuleNet`, its bias being a rule without conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

_RELATIONS: dict[str, Callable[..., NDArray[np.bool_]]] = {
    ">": np.greater,
    "<=": np.less_equal,
    "<": np.less,
    ">=": np.greater_equal,
}
_MIRRORED = {">": "<", "<=": ">=", "<": ">", ">=": "<="}


@dataclass(frozen=True)
class Condition:
    """A linear inequality over a row: ``sum of weight * feature > threshold``.

    Attributes:
        terms: index and weight of each feature that takes part.
        relation: ``>``, ``<=``, ``<`` or ``>=``.
        threshold: right-hand side.

    Example:
        >>> condition = Condition(((0, 1.0), (2, -0.5)), ">", 0.25)
        >>> condition.text(["age", "sex", "dose"])
        'age - 0.5 dose > 0.25'
        >>> condition.holds([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
        array([ True, False])
    """

    terms: tuple[tuple[int, float], ...]
    relation: str
    threshold: float

    def text(self, feature_names: Sequence[str]) -> str:
        """The inequality with the features' names; every number is printed in full."""
        parts: list[str] = []
        for index, weight in self.terms:
            size, name = abs(weight), feature_names[index]
            product = name if size == 1 else f"{number(size)} {name}"
            if not parts:
                parts.append(f"-{product}" if weight < 0 else product)
            else:
                parts.append(f"- {product}" if weight < 0 else f"+ {product}")
        return f"{' '.join(parts) or '0'} {self.relation} {number(self.threshold)}"

    def holds(self, x: ArrayLike) -> NDArray[np.bool_]:
        """Whether each row of ``x`` meets it, ``(batch, F)`` to ``(batch,)``.

        Sums are taken in double precision. The threshold is taken in the precision of ``x``,
        so that single precision's 0.1 is not above 0.1.
        """
        rows = np.asarray(x)
        precision = rows.dtype if np.issubdtype(rows.dtype, np.floating) else np.float64
        left = np.zeros(len(rows))
        for index, weight in self.terms:
            left += weight * rows[:, index].astype(np.float64)
        threshold = np.asarray(self.threshold, dtype=precision).astype(np.float64)
        held: NDArray[np.bool_] = _RELATIONS[self.relation](left, threshold)
        return held


@dataclass(frozen=True)
class Rule:
    """If all of some conditions hold (or any of them), add scores.

    Attributes:
        conditions: the conditions as text; none: the rule always holds.
        prediction: name of the class that the rule speaks for, or the value it adds.
        support: share of the given rows that meet it; None if no rows were given.
        weight: how strongly it speaks for that class: its score there minus the mean score
            of the other classes; in regression the size of the value.
        scores: what it adds to each class, or the value in regression.
        tests: the conditions as something that runs, in the same order.
        any_of: whether one condition is enough.
        index: number of the tree that it is a leaf of, or of the rule in its model, from 0;
            None for a bias.

    Example:
        >>> rule = Rule(("age > 50", "dose <= 2"), "ill", support=0.25, weight=1.5)
        >>> print(rule)
        IF age > 50 AND dose <= 2 THEN ill (weight 1.5, support 25 %)
    """

    conditions: tuple[str, ...]
    prediction: str
    support: float | None = None
    weight: float = 0.0
    scores: tuple[float, ...] = ()
    tests: tuple[Condition, ...] = ()
    any_of: bool = False
    index: int | None = None

    @property
    def premise(self) -> str:
        """The conditions in one line, ``ALWAYS`` if there are none."""
        if not self.conditions:
            return "ALWAYS"
        return "IF " + (" OR " if self.any_of else " AND ").join(self.conditions)

    def __str__(self) -> str:
        support = "" if self.support is None else f", support {100 * self.support:.3g} %"
        return f"{self.premise} THEN {self.prediction} (weight {self.weight:.3g}{support})"

    def holds(self, x: ArrayLike) -> NDArray[np.bool_]:
        """Whether each row of ``x`` meets the conditions, ``(batch, F)`` to ``(batch,)``."""
        rows = np.asarray(x)
        if not self.tests:
            return np.ones(len(rows), dtype=bool)
        met = np.stack([test.holds(rows) for test in self.tests])
        reduce = np.logical_or.reduce if self.any_of else np.logical_and.reduce
        held: NDArray[np.bool_] = reduce(met, axis=0)
        return held


def predict_from_rules(rules: Sequence[Rule], x: ArrayLike) -> NDArray[np.float64]:
    """What a set of rules predicts: the scores of the rules that each row meets, summed.

    Args:
        rules: what a model's ``to_rules`` returned.
        x: rows, ``(batch, F)``.

    Returns:
        ``(batch, n_outputs)``; the largest column is the class, in regression the only
        column is the prediction.

    Raises:
        ValueError: there are no rules, or they disagree on the number of scores.

    Example:
        >>> always = Rule((), "no", scores=(0.5, 0.0))
        >>> old = Rule(("age > 50",), "yes", scores=(0.0, 2.0), tests=(Condition(((0, 1.0),), ">", 50),))
        >>> predict_from_rules([always, old], [[40.0], [60.0]]).argmax(1)
        array([0, 1])
    """  # noqa: E501
    sizes = {len(rule.scores) for rule in rules}
    if len(sizes) != 1:
        raise ValueError(
            f"predict_from_rules: rules hold {sorted(sizes)} scores each; give at least one rule, "
            "all of them of one model"
        )
    rows = np.asarray(x)
    scores = np.zeros((len(rows), sizes.pop()))
    for rule in rules:
        scores[rule.holds(rows)] += rule.scores
    return scores


def in_units(
    rules: Sequence[Rule], mean: ArrayLike, scale: ArrayLike, feature_names: Sequence[str]
) -> list[Rule]:
    """Rules over standardised features as rules over the features' own units.

    Args:
        rules: rules over ``(x - mean) / scale``.
        mean: ``(F,)``.
        scale: ``(F,)``, above 0.
        feature_names: ``F`` names.

    Returns:
        the same rules, their conditions about ``x`` itself.

    Raises:
        ValueError: ``mean``, ``scale`` and ``feature_names`` differ in length, or a scale is
            not above 0.

    Example:
        >>> test = Condition(((0, 1.0),), ">", 1.5)
        >>> rule = Rule(("x0 > 1.5",), "old", tests=(test,))
        >>> in_units([rule], mean=[50.0], scale=[10.0], feature_names=["age"])[0].conditions
        ('age > 65',)
    """
    center, spread = np.asarray(mean, np.float64), np.asarray(scale, np.float64)
    if center.shape != (len(feature_names),) or spread.shape != center.shape:
        raise ValueError(
            f"in_units: mean has shape {center.shape}, scale {spread.shape} and there are "
            f"{len(feature_names)} feature_names; give one of each for every feature"
        )
    if not (spread > 0).all():
        raise ValueError("in_units: scale holds a value that is not above 0; use 1 for constants")

    def moved(test: Condition) -> Condition:
        terms = tuple((i, float(w / spread[i])) for i, w in test.terms)
        shift = sum(w * center[i] for i, w in terms)
        return bare(Condition(terms, test.relation, float(test.threshold + shift)))

    done = []
    for rule in rules:
        tests = tuple(map(moved, rule.tests))
        text = tuple(test.text(feature_names) for test in tests)
        done.append(replace(rule, tests=tests, conditions=text))
    return done


def bare(condition: Condition) -> Condition:
    """A condition on a single feature without its weight; others as they are.

    Example:
        >>> bare(Condition(((3, -2.0),), ">", 1.0))
        Condition(terms=((3, 1.0),), relation='<', threshold=-0.5)
    """
    if len(condition.terms) != 1:
        return condition
    ((index, weight),) = condition.terms
    relation = _MIRRORED[condition.relation] if weight < 0 else condition.relation
    return Condition(((index, 1.0),), relation, condition.threshold / weight)


def number(value: float) -> str:
    """A number in as few digits as tell it from its neighbours in double precision.

    Example:
        >>> number(0.25), number(-3.0), number(1e-7)
        ('0.25', '-3', '1e-07')
    """
    text = repr(float(value))
    return text.removesuffix(".0")


def shortest(values: Tensor) -> list[Any]:
    """Nested lists of a tensor's numbers, in as few digits as its precision needs.

    Example:
        >>> shortest(torch.tensor([0.1, -2.0]))
        [0.1, -2.0]
    """
    array = values.detach().cpu().numpy()
    if array.ndim == 0:
        return [float(str(array))]
    if array.ndim == 1:
        return [float(str(value)) for value in array]
    return [shortest(row) for row in values]


def significant(values: Tensor, digits: int) -> Tensor:
    """Values rounded to some significant digits, in double precision.

    Example:
        >>> significant(torch.tensor([0.0, 123.456, -0.00123456]), 3).tolist()
        [0.0, 123.0, -0.00123]
    """
    exact = values.detach().double().cpu()
    rounded = [float(f"{value:.{digits}g}") for value in exact.flatten().tolist()]
    return torch.tensor(rounded, dtype=torch.float64).reshape(exact.shape)


def names_or_default(
    owner: str, argument: str, names: Sequence[str] | None, count: int, stem: str
) -> list[str]:
    """Checked names, or ``stem0``, ``stem1`` and so on.

    Raises:
        ValueError: the number of names is wrong.
    """
    if names is None:
        return [f"{stem}{i}" for i in range(count)]
    if isinstance(names, str) or len(names) != count:
        raise ValueError(
            f"{owner}: {argument} has {len(names)} entries; it must be a list of {count} names"
        )
    return [str(name) for name in names]


def verdict(scores: Sequence[float], class_names: Sequence[str] | None) -> tuple[str, float]:
    """What a rule with these scores speaks for, and how strongly; see `Rule`."""
    if class_names is None:
        return f"{scores[0]:.4g}", abs(scores[0])
    best = int(np.argmax(scores))
    others = (sum(scores) - scores[best]) / (len(scores) - 1)
    return class_names[best], scores[best] - others
