"""Learning-rate schedules."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "cosine", "linear")
"""Names that `schedule_factor` knows."""


def schedule_factor(name: str, step: int, total_steps: int) -> float:
    """The share of the learning rate that a step gets.

    With ``u = step / total_steps``, cut to ``[0, 1]``::

        constant   1
        cosine     (1 + cos(pi u)) / 2     (Loshchilov and Hutter 2017, SGDR, eq. 5)
        linear     1 - u

    Args:
        name: one of `SCHEDULES`.
        step: steps done before this one; the first has 0.
        total_steps: steps the run will take, at least 1.

    Raises:
        ValueError: an unknown name or a total below 1.

    Example:
        >>> [round(schedule_factor("cosine", step, 4), 3) for step in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if total_steps < 1:
        raise ValueError(f"schedule_factor: total_steps={total_steps}; it must be at least 1")
    done = min(max(step / total_steps, 0.0), 1.0)
    if name == "constant":
        return 1.0
    if name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    if name == "linear":
        return 1.0 - done
    raise ValueError(
        f"schedule_factor: name={name!r} is not known; use one of {', '.join(SCHEDULES)}"
    )
