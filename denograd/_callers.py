"""Whose line a warning is about."""

from __future__ import annotations

import sys

_BETWEEN = ("denograd", "torch", "sklearn", "joblib", "contextlib", "functools")


def callers_level() -> int:
    """The ``stacklevel`` at which `warnings.warn`, called beside it, names the user's own line.

    Schedulers and decorators wrap an optimizer's step, so how deep that is, is not known.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _package(frame.f_globals) in _BETWEEN:
        level, frame = level + 1, frame.f_back
    return level


def _package(names: dict[str, object]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
