"""Rules in the words and units of the user's own columns.

A model's rules speak of standardised features. Here they are put into the columns' own
units, and all their numbers are rounded as a person would round them. What is printed is what
is evaluated: `to_rules`, `to_text`, `explain` and `fidelity` all use the rounded rules.
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

from denograd.data.numbers import CLIP
from denograd.estimators._base import DenoGradEstimator
from denograd.estimators._features import RowEncoder, in_own_units, own_values
from denograd.estimators._sample import SeenRows
from denograd.estimators._short_rules import simplified
from denograd.models.rules import Condition, Rule, bare, number, predict_from_rules, verdict

FINE = 1e-3
"""Thresholds of linear inequalities, and values, are rounded to this share of a deviation."""

_SCORE = 1e-3
"""Scores of classes are rounded to this; where all are below 0.1, accordingly finer."""

COARSE = 0.05
"""Thresholds of a single feature are at first rounded to this share of its deviation."""


@dataclass(kw_only=True, eq=False, repr=False)
class RuleReader(DenoGradEstimator):
    """An estimator whose model can be written down as rules."""

    _trees: ClassVar[bool] = True
    _one_rule_each: ClassVar[bool] = False

    @abstractmethod
    def _model_rules(self, x: Tensor) -> list[Rule]:
        """The model's own rules, over standardised features, with their support on ``x``."""

    def _summarise(self, rows: SeenRows) -> None:
        self._rules = self._in_units(self._model_rules(rows.x), rows.x)
        self._trained_fidelity = self._agreement(rows.x, self._from_rules(rows.x))

    def to_rules(self, X: Any = None) -> list[Rule]:
        """The rules, their numbers in the units of ``X``.

        Sum the scores of the rules that a row meets: the largest sum is the class; in
        regression the sum is the prediction. A threshold of one feature is rounded as far as
        no training row changes sides (and by no more than a twentieth of the feature's
        deviation), linear weights to three figures, scores to thousandths. The leaves of trees
        say what the soft tree says on average over the training rows that come there; those of
        a single tree hold probabilities. See `fidelity`. Rules of a rule net that come down to
        the same conditions are one, with the sum of their scores, and those that always hold are
        the last.

        The ``tests`` of a rule refer to encoded features, of which a column of ``X`` may have
        several: ``predict_from_rules(model.to_rules(), model.encode(X))`` is what the rules
        say of ``X``.

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

        ``ADD`` says what a rule adds to the score of each class, or to the prediction; ``THEN``
        what the only rule that a row meets predicts, in classification each class's
        probability. The largest sum is the class. Nothing is left out: the text alone predicts
        what `rule_predict` does. Fidelity and support are those on ``X``, or on the training
        rows. Where rules speak of the days of a date, a line says from when they are counted;
        where of a column's rare categories, one says which these are; and where of numbers or
        dates, one says what stands for each if it is missing.
        """
        rules = self.to_rules(X)
        fidelity = self._trained_fidelity if X is None else self.fidelity(X)
        used = {index for rule in rules for test in rule.tests for index, _ in test.terms}
        notes = [note for index, note in self._encoder.notes.items() if index in used]
        gaps = [
            f"{self._encoder.names[index]} = {number(value)}"
            for index, value in self._encoder.stand_ins.items()
            if index in used
        ]
        if gaps:
            notes.append(f"where a value is missing, this stands for it: {', '.join(gaps)}")
        return "\n".join([f"fidelity {fidelity:.3f}", *notes, *map(self._line, rules)])

    def _line(self, rule: Rule) -> str:
        names = self._class_names()
        said = [number(score) for score in rule.scores]
        if names is not None:
            said = [f"{name} {score}" for name, score in zip(names, said, strict=True)]
        verb = "THEN" if self._one_rule_each else "ADD"
        support = "" if rule.support is None else f" [{100 * rule.support:.3g} % of rows]"
        return f"{rule.premise} {verb} {', '.join(said)}{support}"

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
        # Equal sums are equal, however they were rounded on the way.
        scores = np.round(scores, 9)
        labels: NDArray[Any] = self.classes_[scores.argmax(1)]
        return labels

    @torch.no_grad()
    def _agreement(self, x: Tensor, said: NDArray[Any]) -> float:
        output = self._forward(x)
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
            support = float(held.mean())
            own = np.array(rule.scores)
            if held.any():
                own = outputs[held, rule.index].mean(0)
            elif self._one_rule_each and names:
                own = np.exp(own)
            scores = tuple(own.tolist())
            prediction, weight = verdict(scores, names)
            done.append(replace(rule, scores=scores, support=support,
                                prediction=prediction, weight=weight))  # fmt: skip
        return done

    @torch.no_grad()
    def _in_units(self, rules: Sequence[Rule], x: Tensor) -> list[Rule]:
        rows = in_own_units(x, self._encoder)
        done = []
        for rule in rules:
            tests = tuple(self._own_test(test, rows) for test in rule.tests)
            text = tuple(_text(test, self._encoder) for test in tests)
            done.append(replace(rule, tests=tests, conditions=text))
        if not self._trees:
            done = [short for rule in done if (short := simplified(rule, self._encoder))]
        outputs = self._tree_outputs(x)
        if outputs is not None:
            done = self._refitted(done, outputs, rows)
        if self._classes() is None:
            return self._values_in_units(done)
        unit = score_unit([rule.scores for rule in done])
        names = self._class_names()
        for place, rule in enumerate(done):
            scores = tuple(rounded(score, unit) for score in rule.scores)
            prediction, weight = verdict(scores, names)
            done[place] = replace(rule, scores=scores, prediction=prediction, weight=weight)
        return done

    def _own_test(self, test: Condition, rows: NDArray[np.float64]) -> Condition:
        """A condition over standardised features as one over their own units."""
        return _readable(test, self._encoder, rows)

    def _values_in_units(self, rules: list[Rule]) -> list[Rule]:
        """Standardised values as those of ``y``: its mean is a part of one leaf, or a rule."""
        mean, scale = self._target_units()
        one_tree = self._one_rule_each
        done = []
        base = mean
        for rule in rules:
            value = rule.scores[0] * scale
            if rule.index is None and not one_tree:
                base += value
                continue
            value = rounded(value + (mean if one_tree else 0.0), FINE * scale)
            done.append(replace(rule, scores=(value,), prediction=number(value), weight=abs(value)))
        if not one_tree:
            value = rounded(base, FINE * scale)
            done.append(Rule((), number(value), support=1.0, weight=abs(value), scores=(value,)))
        return done


def _readable(test: Condition, encoder: RowEncoder, rows: NDArray[np.float64]) -> Condition:
    """A condition over standardised features as one over their own units, rounded."""
    spread = encoder.scale
    terms = tuple((i, w / spread[i]) for i, w in test.terms)
    threshold = test.threshold + sum(w * encoder.center[i] for i, w in terms)
    if len(terms) == 1:
        one = bare(Condition(terms, test.relation, float(threshold)))
        ((index, _),) = one.terms
        snapped = between(one.threshold, one.relation, rows[:, index], COARSE * spread[index])
        return replace(one, threshold=snapped)
    figures = tuple((i, float(f"{w:.3g}")) for i, w in terms)
    # The hyperplane goes on through the same point of the rows' middle.
    pairs = zip(figures, terms, strict=True)
    threshold += sum((r - w) * encoder.center[i] for (i, r), (_, w) in pairs)
    size = math.sqrt(sum(w * w for _, w in test.terms))
    return Condition(figures, test.relation, rounded(float(threshold), FINE * size))


def _text(test: Condition, encoder: RowEncoder) -> str:
    if len(test.terms) == 1:
        ((index, _),) = test.terms
        if encoder.binary[index]:
            at_zero, at_one = _at_ends(test, encoder)
            if at_zero != at_one:
                return encoder.names[index] if at_one else f"not {encoder.names[index]}"
    return test.text(encoder.names)


def _at_ends(test: Condition, encoder: RowEncoder) -> tuple[bool, bool]:
    """Whether a condition on one feature holds at its lowest value, and at its highest."""
    ((index, _),) = test.terms
    ends = np.zeros((2, index + 1))
    ends[:, index] = own_values(np.array([-CLIP, CLIP]), encoder, index)
    at_zero, at_one = test.holds(ends).tolist()
    return at_zero, at_one


def between(threshold: float, relation: str, values: NDArray[np.float64], unit: float) -> float:
    """The roundest threshold that leaves each of some values on its side.

    Example:
        >>> between(3.14159, ">", np.array([2.0, 3.1, 3.2]), unit=0.05)
        3.14
        >>> between(3.14159, ">", np.array([2.0, 3.1415, 3.1418]), unit=0.05)
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


def score_unit(scores: Sequence[Sequence[float]]) -> float:
    """What scores of classes are rounded to, see `rounded`.

    Example:
        >>> score_unit([[0.5, -2.0], [0.1, 0.1]]), score_unit([[0.02, -0.05]])
        (0.001, 0.0001)
    """
    largest = max(abs(score) for row in scores for score in row)
    if not 0 < largest < 1:
        return _SCORE
    return float(f"1e{math.ceil(math.log10(largest)) + round(math.log10(_SCORE))}")


def rounded(value: float, unit: float) -> float:
    """A number to the decimal place of ``unit``.

    Example:
        >>> rounded(123.45678, 0.02), rounded(123456.7, 300.0)
        (123.46, 123500.0)
    """
    if not unit > 0 or not math.isfinite(value):
        return value
    return round(value, -math.floor(math.log10(unit)))
