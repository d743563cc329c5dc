"""Files of tuned settings, and which of them suit a run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from denograd.baselines.errors import BaselineError


class Tuned(Protocol):
    """Something tuned for numbers of steps and of training rows."""

    @property
    def steps(self) -> int:
        """Number of steps it was tuned for."""
        ...

    @property
    def rows(self) -> int:
        """Training rows it was tuned for."""
        ...


T = TypeVar("T", bound=Tuned)


def read_settings(path: Path, schema: int, remedy: str) -> Any:
    """What a file ``{"schema": ..., "settings": ...}`` has under ``settings``, or None.

    Raises:
        FileNotFoundError: there is no such file.
        BaselineError: it is not such JSON, or of another schema.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise BaselineError(f"{path}: it is not readable JSON ({error}); {remedy}") from error
    found = content.get("schema") if isinstance(content, dict) else None
    if found != schema:
        raise BaselineError(f"{path}: its schema is {found!r}, not {schema}; {remedy}")
    return content.get("settings")


def check_counts(owner: str, steps: int, rows: int) -> None:
    """Raise a `BaselineError` if a number is below 1."""
    for name, value in {"steps": steps, "rows": rows}.items():
        if value < 1:
            raise BaselineError(f"{owner}: {name}={value}; it must be at least 1")


def nearest(tuned: Iterable[T], steps: int, rows: int) -> T:
    """What was tuned for the numbers of steps and rows nearest to these.

    Nearest in the logarithm, because 100 steps are to 200 what 200 are to 400; steps first.
    """

    def distance(entry: T) -> tuple[float, float]:
        return abs(math.log(entry.steps / steps)), abs(math.log(entry.rows / rows))

    return min(tuned, key=distance)
