"""Rules in the words and units of the user's own columns.

A model's rules speak of standardised features. Here they are put into the columns' own
units and rounded as a person would round them. What is printed is what is evaluated:
`to_rules`, `to_text`, `explain` and `fidelity` all use the rounded rules.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from denograd.estimators._base import DenoGradEstimator
from denograd.estimators._features import RowEncoder
from denograd.estimators._rows import TrainingRows
from denograd.models.rules import Condition, Rule, bare, number, predict_from_rules, verdict

_FINE = 1e-3
"""Thresholds of linear inequalities, and values, are rounded to this share of a deviation."""

_COARSE = 0.05
"""Thresholds of a single feature are at first rounded to this share of its deviation."""


@dataclass(kw_only=True, eq=False, repr=False)
class RuleReader(DenoGradEstimator):
    """An estimator whose model can be written down as rules."""

    _trees: ClassVar[bool] = True
    _one_rule_each: ClassVar[bool] = False

    @abstractmethod
    def _model_rules(self, x: Tensor) -> list[Rule]:
        """The model's own rules, over standardised features, with their support on ``x``."""

    def _summarise(self, rows: TrainingRows, x: Tensor) -> None:
        self._rules = self._in_units(self._model_rules(x), x)
        self._trained_fidelity = self._agreement(x, self._from_rules(x))

    def to_rules(self, X: Any = None) -> list[Rule]:
        """The rules, their numbers in the units of ``X``.

        Sum the scores of the rules that a row meets: the largest sum is the class; in
        regression the sum is the prediction. A threshold of one feature is rounded as far as
        no training row changes sides (and by no more than a twentieth of the feature's
        deviation), linear weights to three figures. The leaves of trees say what the soft tree
        says on average over the training rows that come there. See `fidelity`.

        Args:
            X: rows to count each rule's support on; None for the training rows.
        """
        check_is_fitted(self, "model_")
        if X is None:
            return list(self._rules)
        held = self._holds(self._encoded(X)[0])
        return [
            replace(rule, support=float(share))
            for rule, share in zip(self._rules, held.mean(0), strict=True)
        ]

    def to_text(self, X: Any = None) -> str:
        """The rules, one a line, after a line with their fidelity.

        Fidelity and support are those on ``X``, or on the training rows.
        """
        rules = self.to_rules(X)
        fidelity = self._trained_fidelity if X is None else self.fidelity(X)
        return "\n".join([f"fidelity {fidelity:.3f}", *map(str, rules)])

    def rule_predict(self, X: Any) -> NDArray[Any]:
        """What the rules as printed predict, ``(n,)``."""
        return self._from_rules(self._encoded(X)[0])

    def fidelity(self, X: Any) -> float:
        """How well the printed rules stand for the model.

        Classification: the share of rows for which both say the same class. Regression:
        the coefficient of determination of the rules' values for the model's.
        """
        x, _ = self._encoded(X)
        return self._agreement(x, self._from_rules(x))

    def explain(self, X: Any) -> pd.DataFrame:
        """The rules that each row meets.

        Args:
            X: ``(n, columns)``.

        Returns:
            a row for each of ``X``, with its index. ``prediction`` is the model's; ``fired``
            the numbers, in `to_rules`, of the rules that the row meets, those that speak
            most for what they say first; ``rule`` the text of the first of them and
            ``weight`` how strongly it speaks. Trees add ``probability``, the probability
            with which the soft model takes the row there (in forests, the mean over trees).
        """
        x, index = self._encoded(X)
        held = self._holds(x)
        strength = np.array([abs(rule.weight) if rule.conditions else -1 for rule in self._rules])
        order = np.argsort(-strength, kind="stable")
        fired = [tuple(int(r) for r in order if row[r]) for row in held]
        first = [self._rules[f[0]] if f else None for f in fired]
        frame = pd.DataFrame(
            {
                "prediction": self.predict(X),
                "fired": pd.Series(fired, index=index, dtype=object),
                "rule": [
                    "no rule" if r is None else f"{r.premise} THEN {r.prediction}" for r in first
                ],
                "weight": [0.0 if r is None else r.weight for r in first],
            },
            index=index,
        )
        certain = self._certainty(x, held)
        if certain is not None:
            frame["probability"] = certain
        return frame

    def _certainty(self, x: Tensor, held: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        return None

    def _holds(self, x: Tensor) -> NDArray[np.bool_]:
        """Which rules each row meets, ``(n, R)``."""
        units = in_own_units(x, self._encoder)
        return np.stack([rule.holds(units) for rule in self._rules], axis=1)

    def _from_rules(self, x: Tensor) -> NDArray[Any]:
        scores = predict_from_rules(self._rules, in_own_units(x, self._encoder))
        if self._classes() is None:
            return scores[:, 0]
        labels: NDArray[Any] = self.classes_[scores.argmax(1)]
        return labels

    @torch.no_grad()
    def _agreement(self, x: Tensor, said: NDArray[Any]) -> float:
        output = self.model_(x).numpy()
        if self._classes() is not None:
            return float((self.classes_[output.argmax(1)] == said).mean())
        mean, scale = self._target_units()
        own = output[:, 0] * scale + mean
        total = float(((own - own.mean()) ** 2).sum())
        left = float(((own - said) ** 2).sum())
        if total == 0:
            return 1.0 if left == 0 else 0.0
        return 1 - left / total

    def _target_units(self) -> tuple[float, float]:
        return self.target_mean_, self.target_scale_

    def _tree_outputs(self, x: Tensor) -> NDArray[np.float64] | None:
        """What each soft tree adds to the rules' scores, ``(n, T, n_outputs)``."""
        return None

    def _refitted(
        self, rules: list[Rule], outputs: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> list[Rule]:
        """Leaves that say what their soft tree says, on average over the rows that come there.

        A soft gate of 60 : 40 mixes both of its sides; the leaf alone would overstate. A leaf
        that no training row comes to keeps its own scores.
        """
        names = self._class_names()
        done = []
        for rule in rules:
            held = rule.holds(rows)
            scores, support = rule.scores, float(held.mean())
            if held.any():
                mean = outputs[held, rule.index].mean(0)
                scores = tuple((np.log(mean) if self._one_rule_each and names else mean).tolist())
            prediction, weight = verdict(scores, names)
            done.append(replace(rule, scores=scores, support=support,
                                prediction=prediction, weight=weight))  # fmt: skip
        return done

    @torch.no_grad()
    def _in_units(self, rules: Sequence[Rule], x: Tensor) -> list[Rule]:
        rows = in_own_units(x, self._encoder)
        done = []
        for rule in rules:
            tests = tuple(_readable(test, self._encoder, rows) for test in rule.tests)
            text = tuple(_text(test, self._encoder) for test in tests)
            done.append(replace(rule, tests=tests, conditions=text))
        if not self._trees:
            done = [short for rule in done if (short := _simplified(rule, self._encoder))]
        outputs = self._tree_outputs(x)
        if outputs is not None:
            done = self._refitted(done, outputs, rows)
        if self._classes() is not None:
            return done
        return self._values_in_units(done)

    def _values_in_units(self, rules: list[Rule]) -> list[Rule]:
        """Standardised values as those of ``y``: its mean is a part of one leaf, or a rule."""
        mean, scale = self._target_units()
        one_tree = self._one_rule_each
        done = []
        for rule in rules:
            value = rule.scores[0] * scale + (mean if one_tree else 0.0)
            value = _rounded(value, _FINE * scale)
            done.append(replace(rule, scores=(value,), prediction=number(value), weight=abs(value)))
        if not one_tree:
            always = [i for i, rule in enumerate(done) if rule.index is None]
            base = done.pop(always[0]).scores[0] if always else 0.0
            value = _rounded(mean + base, _FINE * scale)
            done.append(Rule((), number(value), support=1.0, weight=abs(value), scores=(value,)))
        return done


def in_own_units(x: Tensor, encoder: RowEncoder) -> NDArray[np.float64]:
    """Encoded rows in the units of their columns, gaps filled; 0/1 features as exactly that."""
    units: NDArray[np.float64] = x.numpy() * encoder.scale + encoder.center
    # A rare 1 was cut off and must not be read as a fraction; only a 1 lies above the mean.
    units[:, encoder.binary] = x.numpy()[:, encoder.binary] > 0
    return units


def _readable(test: Condition, encoder: RowEncoder, rows: NDArray[np.float64]) -> Condition:
    """A condition over standardised features as one over their own units, rounded."""
    spread = encoder.scale
    terms = tuple((i, w / spread[i]) for i, w in test.terms)
    threshold = test.threshold + sum(w * encoder.center[i] for i, w in terms)
    if len(terms) == 1:
        one = bare(Condition(terms, test.relation, float(threshold)))
        ((index, _),) = one.terms
        snapped = _between(one.threshold, one.relation, rows[:, index], _COARSE * spread[index])
        return replace(one, threshold=snapped)
    rounded = tuple((i, float(f"{w:.3g}")) for i, w in terms)
    # The hyperplane goes on through the same point of the rows' middle.
    pairs = zip(rounded, terms, strict=True)
    threshold += sum((r - w) * encoder.center[i] for (i, r), (_, w) in pairs)
    size = math.sqrt(sum(w * w for _, w in test.terms))
    return Condition(rounded, test.relation, _rounded(float(threshold), _FINE * size))


def _text(test: Condition, encoder: RowEncoder) -> str:
    if len(test.terms) == 1:
        ((index, _),) = test.terms
        if encoder.binary[index]:
            at_zero, at_one = _at_ends(test)
            if at_zero != at_one:
                return encoder.names[index] if at_one else f"not {encoder.names[index]}"
    return test.text(encoder.names)


def _at_ends(test: Condition) -> tuple[bool, bool]:
    """Whether a condition on one 0/1 feature holds at 0, and at 1."""
    ((index, _),) = test.terms
    ends = np.zeros((2, index + 1))
    ends[1, index] = 1.0
    at_zero, at_one = test.holds(ends).tolist()
    return at_zero, at_one


def _simplified(rule: Rule, encoder: RowEncoder) -> Rule | None:
    """A rule without conditions that 0/1 features always or never meet; None: it never holds."""
    kept = []
    for test, text in zip(rule.tests, rule.conditions, strict=True):
        if len(test.terms) == 1 and encoder.binary[test.terms[0][0]]:
            at_zero, at_one = _at_ends(test)
            if at_zero == at_one == rule.any_of:
                # It decides alone: "or" with what always holds, "and" with what never does.
                return replace(rule, tests=(), conditions=()) if rule.any_of else None
            if at_zero == at_one:
                continue
        kept.append((test, text))
    if rule.any_of and rule.tests and not kept:
        return None
    return replace(rule, tests=tuple(t for t, _ in kept), conditions=tuple(c for _, c in kept))


def _between(threshold: float, relation: str, values: NDArray[np.float64], unit: float) -> float:
    """The roundest threshold that leaves each of some values on its side.

    Example:
        >>> _between(3.14159, ">", np.array([2.0, 3.1, 3.2]), unit=0.05)
        3.14
        >>> _between(3.14159, ">", np.array([2.0, 3.1415, 3.1418]), unit=0.05)
        3.1416
    """
    strict = relation in (">", "<=")
    below = values[values <= threshold] if strict else values[values < threshold]
    above = values[values > threshold] if strict else values[values >= threshold]
    low = float(below.max(initial=-math.inf))
    high = float(above.min(initial=math.inf))
    # Encoded values are in single precision, so a threshold must not touch one.
    margin = min(1e-3 * unit, (high - low) / 4)
    start = -math.floor(math.log10(unit)) if unit > 0 else 0
    for places in range(start, start + 12):
        candidate = round(threshold, places)
        if low + margin < candidate < high - margin:
            return candidate
    return threshold


def _rounded(value: float, unit: float) -> float:
    """A number to the decimal place of ``unit``.

    Example:
        >>> _rounded(123.45678, 0.02), _rounded(123456.7, 300.0)
        (123.46, 123500.0)
    """
    if not unit > 0 or not math.isfinite(value):
        return value
    return round(value, -math.floor(math.log10(unit)))
