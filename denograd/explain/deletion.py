"""Whether the features that an explanation names are the ones that move the prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from denograd.explain._checks import as_attributions, as_numbers, kind_of

Predict: TypeAlias = Callable[[NDArray[np.float64]], Any]
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
    baseline: ArrayLike = 0.0,
    target: ArrayLike | None = None,
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
        x: rows, ``(n, F)``, numbers; ``predict`` is given a DataFrame if this is one.
        attributions: ``(n, F)``. Features that tie go in an order drawn at random.
        baseline: what stands for a feature that is not there: a number, ``(F,)``, for example
            the means of the training rows, or ``(n, F)``.
        target: class to watch, one for all rows or ``(n,)``; None for the one that is predicted
            for the whole row.
        rank_by: ``"value"``: what speaks most for the class goes first, and what speaks
            against it last; ``"magnitude"``: for attributions without a direction.
        normalized: whether to divide by the probability in the whole row.
        seed: of the order of ties.

    Returns:
        the curve and its area for each row; a smaller area is better.

    Raises:
        ValueError: a shape does not fit, a number is not finite, ``target`` is no class, or its
            probability in a whole row is 0 (or below) and cannot be divided by.

    Example:
        >>> def predict(x: NDArray[np.float64]) -> NDArray[np.float64]:
        ...     p = 0.4 + x @ [0.4, 0.1]
        ...     return np.stack([1 - p, p], axis=1)
        >>> curve = deletion(predict, [[1.0, 1.0]], [[0.4, 0.1]])
        >>> curve.value.round(3), curve.area.round(3)
        (array([[1.   , 0.556, 0.444]]), array([0.639]))
    """
    rows, base, score = _prepared(x, attributions, baseline, rank_by)
    ask = _asking(predict, x)
    return _curve(ask, rows, base, _places(score, seed), target, normalized, inserting=False)


def insertion(
    predict: Predict,
    x: Any,
    attributions: Any,
    *,
    baseline: ArrayLike = 0.0,
    target: ArrayLike | None = None,
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
    rows, base, score = _prepared(x, attributions, baseline, rank_by)
    ask = _asking(predict, x)
    return _curve(ask, rows, base, _places(score, seed), target, normalized, inserting=True)


def _prepared(
    x: Any, attributions: Any, baseline: ArrayLike, rank_by: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    rows = as_numbers("x", x)
    score = as_attributions("attributions", attributions)
    if rows.shape != score.shape:
        raise ValueError(
            f"attributions: they have shape {score.shape}, and x has shape {rows.shape}; both "
            "must be (rows, features)"
        )
    base = as_numbers("baseline", baseline)
    if base.shape not in ((), rows.shape[1:], rows.shape):
        raise ValueError(
            f"baseline: it has shape {base.shape}; it must be a number, {rows.shape[1:]} or "
            f"{rows.shape}"
        )
    if rank_by not in ("value", "magnitude"):
        raise ValueError(f"rank_by={rank_by!r}; it must be 'value' or 'magnitude'")
    return rows, np.broadcast_to(base, rows.shape), np.abs(score) if rank_by != "value" else score


def _places(score: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """The place of each feature in the order of importance, from 0; ties by lot, ``(n, F)``."""
    lot = np.random.default_rng(seed).random(score.shape)
    order = np.lexsort((lot, -score), axis=1)
    return np.argsort(order, axis=1).astype(np.int64)


def _curve(
    predict: Predict,
    rows: NDArray[np.float64],
    base: NDArray[np.float64],
    places: NDArray[np.int64],
    target: ArrayLike | None,
    normalized: bool,
    *,
    inserting: bool,
) -> Curve:
    count, features = rows.shape
    whole = _predicted(predict, rows)
    chosen = _targets(target, whole)
    each = np.arange(count)
    value = np.empty((count, features + 1))
    at_once = max(1, 100 * _CHUNK // (features * (features + 1)))
    for start in range(0, count, at_once):
        part = slice(start, start + at_once)
        touched = places[part, None, :] < np.arange(features + 1)[:, None]
        original = touched if inserting else ~touched
        mixed = np.where(original, rows[part, None, :], base[part, None, :])
        said = _predicted(predict, mixed.reshape(-1, features))
        own = said.reshape(len(mixed), features + 1, -1)
        value[part] = own[np.arange(len(mixed)), :, chosen[part]]
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


def _asking(predict: Predict, x: Any) -> Predict:
    """``predict`` for rows as an array; what it is handed is of the kind of ``x``."""
    if not isinstance(x, pd.DataFrame):
        return predict
    as_given = kind_of(x)
    return lambda rows: predict(as_given(rows))


def _predicted(predict: Predict, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    said = as_numbers("predict: its output", predict(rows))
    if said.ndim != 2 or len(said) != len(rows):
        raise ValueError(
            f"predict: for {len(rows)} rows it returns shape {said.shape}; it must return a "
            "probability for each row and class, (rows, classes)"
        )
    return said


def _targets(target: ArrayLike | None, whole: NDArray[np.float64]) -> NDArray[np.int64]:
    if target is None:
        return np.asarray(whole.argmax(axis=1), dtype=np.int64)
    classes = whole.shape[1]
    given = np.asarray(target)
    if given.shape not in ((), (len(whole),)) or given.dtype.kind not in "iu":
        raise ValueError(
            f"target: it has shape {given.shape} and type {given.dtype}; it must be a class "
            f"number, or ({len(whole)},), one for each row"
        )
    if ((given < 0) | (given >= classes)).any():
        raise ValueError(
            f"target: it names class {int(given.max() if given.max() >= classes else given.min())}"
            f"; predict gives classes 0 to {classes - 1}"
        )
    each: NDArray[np.int64] = np.broadcast_to(given, (len(whole),)).astype(np.int64)
    return each
