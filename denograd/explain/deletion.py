"""Whether the features that an explanation names are the ones that move the prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from denograd.explain._checks import as_attributions, as_numbers, class_numbers, in_order_of
from denograd.explain._frames import Mix, mixing

Predict: TypeAlias = Callable[[Any], Any]
"""Class probabilities of rows, ``(m, F)`` to ``(m, C)``; for example an estimator's
``predict_proba``, or `probabilities` of a module."""

_CHUNK = 65_536
"""Values of features that are predicted from at one time, times a hundred."""


class Curve(NamedTuple):
    """What happens to the prediction as features go, or come.

    Attributes:
        share: ``(F + 1,)``, the share of features that were taken away (`deletion`) or brought
            in (`insertion`), from 0 to 1.
        value: ``(n, F + 1)``, each row's probability of its class, divided by its probability
            in the whole row.
        area: ``(n,)``, the area under each row's curve.
    """

    share: NDArray[np.float64]
    value: NDArray[np.float64]
    area: NDArray[np.float64]


def deletion(
    predict: Predict,
    x: Any,
    attributions: Any,
    *,
    baseline: Any = 0.0,
    target: Any = None,
    rank_by: Literal["value", "magnitude"] = "value",
    normalized: bool = True,
    seed: int = 0,
) -> Curve:
    """Take the most important features away first, and watch the probability fall.

    Petsiuk et al. 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models",
    arXiv 1806.07421, section 4.3: features get the baseline's value one after the other, the
    most important first; a sharp drop, so a small area under the curve, means that the
    explanation knows what the prediction rests on. Here the curve is divided by the model's own
    confidence, the probability in the whole row, so that it starts at 1 and models that are more
    and less sure can be compared. (It may rise above 1.)

    Args:
        predict: gives class probabilities, ``(m, F)`` to ``(m, C)``.
        x: rows, ``(n, F)``, numbers; or a DataFrame, whose columns may hold text, booleans,
            dates and gaps too. ``predict`` is then given DataFrames with its columns and types
            (where a baseline is not whole, whole numbers are floats).
        attributions: ``(n, F)``. Features that tie go in an order drawn at random.
        baseline: what stands for a feature that is not there: a number, ``(F,)``, for example
            the means of the training rows, or ``(n, F)``. For a DataFrame also a dict, a Series
            or a row by the names of the columns, each value of its column's kind, or missing.
        target: class to watch, one for all rows or ``(n,)``; None for the one that is predicted
            for the whole row. Class numbers; or labels, if ``predict`` is a method of something
            with ``classes_``, such as a classifier's ``predict_proba``. Labels that are whole
            numbers are taken as such for a DataFrame alone; for arrays they are class numbers.
        rank_by: ``"value"``: what speaks most for the class goes first, and what speaks
            against it last; ``"magnitude"``: for attributions without a direction.
        normalized: whether to divide by the probability in the whole row.
        seed: of the order of ties.

    Returns:
        the curve and its area for each row; a smaller area is better.

    Raises:
        ValueError: a shape does not fit, a number is not finite, a baseline is not of its
            column's kind, ``target`` is no class, or its probability in a whole row is 0 (or
            below) and cannot be divided by.

    Example:
        >>> def predict(x: NDArray[np.float64]) -> NDArray[np.float64]:
        ...     p = 0.4 + x @ [0.4, 0.1]
        ...     return np.stack([1 - p, p], axis=1)
        >>> curve = deletion(predict, [[1.0, 1.0]], [[0.4, 0.1]])
        >>> curve.value.round(3), curve.area.round(3)
        (array([[1.   , 0.556, 0.444]]), array([0.639]))
        >>> def of_table(x: pd.DataFrame) -> NDArray[np.float64]:
        ...     p = 0.4 + 0.4 * (x["ward"] == "east") + 0.1 * x["dose"].notna()
        ...     return np.stack([1 - p, p], axis=1)
        >>> x = pd.DataFrame({"ward": ["east"], "dose": [2.0]})
        >>> curve = deletion(of_table, x, [[0.4, 0.1]], baseline={"ward": "west", "dose": None})
        >>> curve.value.round(3)
        array([[1.   , 0.556, 0.444]])
    """
    mix, score = _prepared(x, attributions, baseline, rank_by)
    chosen = _Target(target, _labels(predict), isinstance(x, pd.DataFrame))
    return _curve(predict, mix, _places(score, seed), chosen, normalized, inserting=False)


def insertion(
    predict: Predict,
    x: Any,
    attributions: Any,
    *,
    baseline: Any = 0.0,
    target: Any = None,
    rank_by: Literal["value", "magnitude"] = "value",
    normalized: bool = True,
    seed: int = 0,
) -> Curve:
    """Start from the baseline, bring in the most important features first, watch it rise.

    The other half of Petsiuk et al. 2018, section 4.3; the curve ends at 1. Arguments and errors
    are those of `deletion`.

    Returns:
        the curve and its area for each row; a larger area is better.

    Example:
        >>> def predict(x: NDArray[np.float64]) -> NDArray[np.float64]:
        ...     p = 0.4 + x @ [0.4, 0.1]
        ...     return np.stack([1 - p, p], axis=1)
        >>> curve = insertion(predict, [[1.0, 1.0]], [[0.4, 0.1]])
        >>> curve.value.round(3), curve.area.round(3)
        (array([[0.444, 0.889, 1.   ]]), array([0.806]))
    """
    mix, score = _prepared(x, attributions, baseline, rank_by)
    chosen = _Target(target, _labels(predict), isinstance(x, pd.DataFrame))
    return _curve(predict, mix, _places(score, seed), chosen, normalized, inserting=True)


class _Target(NamedTuple):
    """The class to watch: as given, the label of each class if known, and which come first."""

    given: Any
    labels: list[Any] | None
    labels_first: bool


def _prepared(
    x: Any, attributions: Any, baseline: Any, rank_by: str
) -> tuple[Mix, NDArray[np.float64]]:
    table = isinstance(x, pd.DataFrame)
    remedy = "leave those rows out, or give a DataFrame, which may have gaps"
    rows = x if table else as_numbers("x", x, remedy)
    if table:
        attributions = in_order_of(x.columns, "attributions: it", attributions)
    score = as_attributions("attributions", attributions)
    if rows.shape != score.shape:
        raise ValueError(
            f"attributions: they have shape {score.shape}, and x has shape {rows.shape}; both "
            "must be (rows, features)"
        )
    mix = mixing(x, baseline) if table else _mixing(rows, baseline)
    if rank_by not in ("value", "magnitude"):
        raise ValueError(f"rank_by={rank_by!r}; it must be 'value' or 'magnitude'")
    return mix, np.abs(score) if rank_by != "value" else score


def _mixing(rows: NDArray[np.float64], baseline: Any) -> Mix:
    base = as_numbers("baseline", baseline, "give finite numbers")
    if base.shape not in ((), rows.shape[1:], rows.shape):
        raise ValueError(
            f"baseline: it has shape {base.shape}; it must be a number, {rows.shape[1:]} or "
            f"{rows.shape}"
        )
    each = np.broadcast_to(base, rows.shape)
    return lambda numbers, original: np.where(original, rows[numbers], each[numbers])


def _places(score: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """The place of each feature in the order of importance, from 0; ties by lot, ``(n, F)``."""
    lot = np.random.default_rng(seed).random(score.shape)
    order = np.lexsort((lot, -score), axis=1)
    return np.argsort(order, axis=1).astype(np.int64)


def _curve(
    predict: Predict,
    mix: Mix,
    places: NDArray[np.int64],
    target: _Target,
    normalized: bool,
    *,
    inserting: bool,
) -> Curve:
    count, features = places.shape
    each = np.arange(count)
    whole = _predicted(predict, mix(each, np.ones(places.shape, dtype=bool)))
    chosen = _targets(target, whole)
    value = np.empty((count, features + 1))
    at_once = max(1, 100 * _CHUNK // (features * (features + 1)))
    for start in range(0, count, at_once):
        part = slice(start, start + at_once)
        touched = places[part, None, :] < np.arange(features + 1)[:, None]
        original = touched if inserting else ~touched
        mixed = mix(np.repeat(each[part], features + 1), original.reshape(-1, features))
        own = _predicted(predict, mixed).reshape(len(original), features + 1, -1)
        value[part] = own[np.arange(len(original)), :, chosen[part]]
    if normalized:
        confidence = whole[each, chosen]
        if (confidence <= 0).any():
            row = int(np.flatnonzero(confidence <= 0)[0])
            raise ValueError(
                f"target: class {int(chosen[row])} has probability {confidence[row]:.3g} in row "
                f"{row}, which cannot be divided by; watch another class, or normalized=False"
            )
        value /= confidence[:, None]
    share = np.linspace(0.0, 1.0, features + 1)
    area = np.trapezoid(value, share, axis=1)
    return Curve(share, value, np.asarray(area, dtype=np.float64))


def _labels(predict: Predict) -> list[Any] | None:
    """The label of each class, if ``predict`` is a method of what knows them."""
    known = getattr(getattr(predict, "__self__", None), "classes_", None)
    return known.tolist() if isinstance(known, np.ndarray) and known.ndim == 1 else None


def _predicted(predict: Predict, rows: Any) -> NDArray[np.float64]:
    remedy = "leave those rows out, or find out why the prediction is not finite"
    said = as_numbers("predict: its output", predict(rows), remedy)
    if said.ndim != 2 or len(said) != len(rows):
        raise ValueError(
            f"predict: for {len(rows)} rows it returns shape {said.shape}; it must return a "
            "probability for each row and class, (rows, classes)"
        )
    return said


def _targets(target: _Target, whole: NDArray[np.float64]) -> NDArray[np.int64]:
    if target.given is None:
        return np.asarray(whole.argmax(axis=1), dtype=np.int64)
    classes = whole.shape[1]
    given = np.asarray(target.given)
    numbers = given.dtype.kind in "iu"
    labelled = target.labels is not None and len(target.labels) == classes
    if given.shape not in ((), (len(whole),)) or not (numbers or labelled):
        first = "".join(f", the first is {label!r}" for label in given.reshape(-1)[:1].tolist())
        raise ValueError(
            f"target: it has shape {given.shape} and type {given.dtype}{first}; it must be a class "
            f"number, or ({len(whole)},), one for each row. Labels are known only if predict is a "
            "method of something with classes_, such as a classifier's predict_proba"
        )
    if target.labels is not None and labelled and (target.labels_first or not numbers):
        given = class_numbers("target: it", given, target.labels)
    if ((given < 0) | (given >= classes)).any():
        raise ValueError(
            f"target: it names class {int(given.max() if given.max() >= classes else given.min())}"
            f"; predict gives classes 0 to {classes - 1}"
        )
    each: NDArray[np.int64] = np.broadcast_to(given, (len(whole),)).astype(np.int64)
    return each
