"""Settings of two evaluations in one folder: whether their cells can stand side by side."""

from __future__ import annotations

from typing import Any

_GROWING = ("models", "seeds", "context", "optimizers", "tables")
"""Parts of the settings that say which cells there are, and not what happens in one."""


def joined(before: Any, now: dict[str, Any]) -> dict[str, Any] | None:
    """The settings of both evaluations together, if no cell of one contradicts the other's.

    More seeds, models, optimizers, tables and models outside torch only add cells. All else
    decides what happens in a cell: the number of steps, the rows of a batch, a tuned value, the
    weights of a denoiser, the rows of a table; and the sizes, because a table's test rows are
    those that its largest training set leaves over.

    Args:
        before: what a folder says it was made with, as read from JSON.
        now: what is asked for, as plain JSON.

    Returns:
        settings with the cells of both; None if they cannot stand side by side.

    Example:
        >>> before = {"steps": 200, "seeds": 5, "tables": {"wine": "1f3a"}}
        >>> joined(before, {"steps": 200, "seeds": 3, "tables": {"iris": "77c0"}})
        {'steps': 200, 'seeds': 5, 'tables': {'wine': '1f3a', 'iris': '77c0'}}
        >>> joined(before, {"steps": 100, "seeds": 5, "tables": {"wine": "1f3a"}}) is None
        True
    """
    if not isinstance(before, dict) or before.keys() != now.keys():
        return None
    both = {}
    for key, value in now.items():
        found = _grown(before[key], value) if key in _GROWING else _same(before[key], value)
        if found is None:
            return None
        both[key] = found
    return both


def _same(before: Any, now: Any) -> Any:
    return now if before == now else None


def _grown(before: Any, now: Any) -> Any:
    """The larger number, all names, or all entries if those that both have are the same."""
    if isinstance(before, dict) and isinstance(now, dict):
        # What an optimizer stands for is said model by model, so it grows with the models.
        shared = {key: _described(before[key], now[key]) for key in before.keys() & now.keys()}
        agree = all(found is not None for found in shared.values())
        return {**before, **now, **shared} if agree else None
    if isinstance(before, list) and isinstance(now, list):
        return list(dict.fromkeys([*before, *now]))
    return max(before, now) if isinstance(before, int) and isinstance(now, int) else None


def _described(before: Any, now: Any) -> Any:
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return _same(before, now)
    shared = before.keys() & now.keys()
    return {**before, **now} if all(before[key] == now[key] for key in shared) else None
