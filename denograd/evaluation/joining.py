"""Settings of two evaluations in one folder: whether their cells can stand side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def join(before: Any, now: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings of both evaluations together, and what keeps them apart.

    More seeds, models, optimizers, tables and models outside torch only add cells. All else
    decides what happens in a cell: the number of steps, the rows of a batch, a tuned value, the
    weights of a denoiser, the rows of a table; and the sizes, because a table's test rows are
    those that its largest training set leaves over.

    Args:
        before: what a folder says it was made with, as read from JSON.
        now: what is asked for, as plain JSON.

    Returns:
        settings with the cells of both, and each contradiction in words; the settings mean
        nothing unless there is none.

    Example:
        >>> before = {"steps": 200, "seeds": 5, "tables": {"wine": "1f3a"}}
        >>> join(before, {"steps": 200, "seeds": 3, "tables": {"iris": "77c0"}})
        ({'steps': 200, 'seeds': 5, 'tables': {'wine': '1f3a', 'iris': '77c0'}}, [])
        >>> join(before, {"steps": 100, "seeds": 9, "tables": {"wine": "1f3a"}})[1]
        ['steps was 200, now it is 100']
    """
    if not isinstance(before, dict):
        return now, list(_differences(before, now, "the content of the file"))
    both: dict[str, Any] = {}
    found: list[str] = []
    models = {*_list(before.get("models")), *_list(now.get("models"))}
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        both[key] = new
        if key == "models" and isinstance(old, list) and isinstance(new, list):
            both[key] = list(dict.fromkeys([*old, *new]))
        elif key in ("seeds", "context") and isinstance(old, int) and isinstance(new, int):
            both[key] = max(old, new)
        elif key in ("tables", "optimizers") and isinstance(old, dict) and isinstance(new, dict):
            both[key] = {**old, **new}
            for name in old.keys() & new.keys():
                # What an optimizer stands for is said model by model, so it grows with them.
                growing = models if key == "optimizers" else set()
                both[key][name] = _merged(old[name], new[name])
                found += _contradictions(old[name], new[name], f"{key}.{name}", growing)
        else:
            found += _differences(old, new, key)
    return both, found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _merged(old: Any, new: Any) -> Any:
    return {**old, **new} if isinstance(old, dict) and isinstance(new, dict) else new


def _contradictions(old: Any, new: Any, where: str, growing: set[str]) -> Iterator[str]:
    """Where two descriptions differ, but for keys that one of them has and that may be new."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        yield from _differences(old, new, where)
        return
    for key in dict.fromkeys([*old, *new]):
        if (key in old and key in new) or key not in growing:
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}")


def _differences(before: Any, now: Any, where: str) -> Iterator[str]:
    """Each place where two JSON values differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), f"{where}.{key}")
    elif before != now:
        yield f"{where} was {_clipped(before)}, now it is {_clipped(now)}"


def _clipped(value: Any, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
