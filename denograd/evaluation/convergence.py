"""How soon a run gets down to a test loss, against the reference.

Two measures. `convergence` takes the reference's best loss for its target, which not every run
reaches, and sets a first arrival against the place of a minimum: two runs that are alike come
out below 1. `common_arrivals` takes a loss that both reach, so that nothing is selected and
neither is favoured.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Curve = Mapping[str, Sequence[float | None]]
"""A learning curve: ``step``, ``test_loss`` and, if they were measured, ``seconds``.

A loss that is None, or not finite, is none.
"""

_ROUNDING = 1e-6


class Arrival(NamedTuple):
    """When a curve got down to a loss.

    Attributes:
        step: steps done by then, in parts of a step.
        seconds: of training by then; None if they were not measured.
    """

    step: float
    seconds: float | None


class Convergence(NamedTuple):
    """How soon, over seeds; None where it is unknown, or too few seeds arrived.

    Attributes:
        steps: by which at least half of the seeds have arrived.
        seconds: of training by which at least half of the seeds have arrived.
        reached: the share of seeds that arrived at all.
    """

    steps: float | None
    seconds: float | None
    reached: float | None


def best_loss(curve: Curve) -> float | None:
    """The lowest test loss on a curve; None if it has no point that is a number.

    Example:
        >>> best_loss({"step": [0, 10, 20], "test_loss": [0.7, 0.4, 0.5]})
        0.4
    """
    losses = [loss for loss in _numbers(curve, "test_loss") if math.isfinite(loss)]
    return min(losses, default=None)


def arrival(curve: Curve, target: float) -> Arrival | None:
    """When the test loss first is at or below a target.

    Losses are recorded every few steps. Between two recorded points the loss is taken to
    move on a straight line, and so are the seconds; a line starts at no point that is not a
    number. A loss counts as at the target from a part in a million above it, as the same run
    on another engine is the same to rounding only.

    Args:
        curve: of one run.
        target: a finite loss.

    Returns:
        the first arrival; None if there is none.

    Raises:
        ValueError: a target that is not finite, or a curve whose parts differ in length.

    Example:
        >>> arrival({"step": [0, 10, 20], "test_loss": [0.8, 0.6, 0.2]}, 0.5)
        Arrival(step=12.5, seconds=None)
    """
    if not math.isfinite(target):
        raise ValueError(f"target={target!r}; it must be a finite loss")
    steps, losses = _numbers(curve, "step"), _numbers(curve, "test_loss")
    seconds = _numbers(curve, "seconds") if "seconds" in curve else []
    if len(steps) != len(losses) or (seconds and len(seconds) != len(steps)):
        raise ValueError(
            f"curve has {len(steps)} steps, {len(losses)} test losses and {len(seconds)} "
            "seconds; give as many of each"
        )
    for now, loss in enumerate(losses):
        if not loss <= target + _ROUNDING * abs(target):
            continue
        before, part = now, 1.0
        if now > 0 and math.isfinite(losses[now - 1]):
            before = now - 1
            part = min((losses[before] - target) / (losses[before] - loss), 1.0)

        def between(values: list[float], i: int = before, j: int = now, t: float = part) -> float:
            return values[j] if t == 1.0 else values[i] + t * (values[j] - values[i])

        reached = between(seconds) if seconds else math.nan
        return Arrival(between(steps), reached if math.isfinite(reached) else None)
    return None


def convergence(curves: Mapping[int, Curve], references: Mapping[int, Curve]) -> Convergence:
    """Steps and seconds to reach the reference's best test loss, over seeds.

    Each seed has its own target: the best test loss on the reference's curve of that seed,
    which starts from the same weights and sees the same batches. Runs that never arrive are
    last in the order, so the median is not of the lucky ones alone: it is the lower median,
    the first step by which half of the seeds, or more, have arrived. A run that arrives and
    diverges later has arrived.

    Args:
        curves: of one optimizer, by seed.
        references: of the reference, by seed.

    Returns:
        over the seeds for which both curves are known and the reference's has a number.

    Example:
        >>> slow = {"step": [0, 10], "test_loss": [1.0, 0.75], "seconds": [0.0, 2.0]}
        >>> fast = {"step": [0, 10], "test_loss": [1.0, 0.5], "seconds": [0.0, 1.0]}
        >>> convergence({0: fast}, {0: slow})
        Convergence(steps=5.0, seconds=0.5, reached=1.0)
    """
    arrivals = []
    for seed, curve in curves.items():
        target = best_loss(references.get(seed, {}))
        if target is not None and curve.get("test_loss"):
            arrivals.append(arrival(curve, target))
    if not arrivals:
        return Convergence(None, None, None)
    reached = [found for found in arrivals if found is not None]
    missing = [math.inf] * (len(arrivals) - len(reached))
    seconds = [found.seconds for found in reached if found.seconds is not None]
    timed = len(seconds) == len(reached)
    return Convergence(
        _median([*(found.step for found in reached), *missing]),
        _median([*seconds, *missing]) if timed else None,
        len(reached) / len(arrivals),
    )


class CommonArrivals(NamedTuple):
    """How soon one curve gets to a loss that both reach, as ratios to the other.

    Attributes:
        steps: the geometric mean over seeds of the ratio of steps; None if no seed is known.
        seconds: the same of seconds of training; None if no seed has them.
    """

    steps: float | None
    seconds: float | None


def common_arrivals(curves: Mapping[int, Curve], references: Mapping[int, Curve]) -> CommonArrivals:
    """Steps and seconds to the best loss of whichever was worse, as ratios to the reference.

    For each seed the target is the higher of the two lowest test losses on the two curves, which
    both reach by definition. The steps of both to their first `arrival` there are divided, and the
    geometric mean of that is taken over seeds. With the roles swapped the ratio is the reciprocal,
    and for two optimizers that are alike its expectation is 1 in logs.

    An arrival before the first step counts as one at step 1, as do its seconds: a curve that never
    gets below its first point would else have taken no steps, which has no ratio.

    Args:
        curves: of one optimizer, by seed.
        references: of the reference, by seed.

    Returns:
        over the seeds for which both curves have a point that is a number.

    Example:
        >>> slow = {"step": [0, 10], "test_loss": [1.0, 0.75], "seconds": [0.0, 2.0]}
        >>> fast = {"step": [0, 10], "test_loss": [1.0, 0.5], "seconds": [0.0, 1.0]}
        >>> common_arrivals({0: fast}, {0: slow}), common_arrivals({0: slow}, {0: fast})
        (CommonArrivals(steps=0.5, seconds=0.25), CommonArrivals(steps=2.0, seconds=4.0))
    """
    steps, seconds = [], []
    for seed, curve in curves.items():
        other = references.get(seed, {})
        bests = best_loss(curve), best_loss(other)
        if bests[0] is None or bests[1] is None:
            continue
        target = max(bests[0], bests[1])
        own, its = _from_first_step(curve, target), _from_first_step(other, target)
        steps.append(math.log(own.step / its.step))
        if own.seconds and its.seconds:
            seconds.append(math.log(own.seconds / its.seconds))
    return CommonArrivals(_geometric_mean(steps), _geometric_mean(seconds))


def _from_first_step(curve: Curve, target: float) -> Arrival:
    """The arrival at a loss that the curve reaches, at step 1 at the soonest."""
    found = arrival(curve, target)
    if found is None:
        raise ValueError(f"the curve never gets to target={target!r}; give one that it reaches")
    if found.step >= 1 or found.seconds is None:
        return Arrival(max(found.step, 1.0), found.seconds)
    seconds = float(np.interp(1.0, _numbers(curve, "step"), _numbers(curve, "seconds")))
    return Arrival(1.0, seconds if math.isfinite(seconds) else None)


def _geometric_mean(logs: list[float]) -> float | None:
    return math.exp(statistics.fmean(logs)) if logs else None


def _median(values: list[float]) -> float | None:
    median = statistics.median_low(values)
    return median if math.isfinite(median) else None


def _numbers(curve: Curve, name: str) -> list[float]:
    """A part of a curve; what was stored as null is not a number."""
    return [math.nan if value is None else float(value) for value in curve.get(name, ())]
