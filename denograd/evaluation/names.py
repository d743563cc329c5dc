"""Names of optimizers, short enough for a table or a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def short_names(optimizers: Sequence[str]) -> dict[str, str]:
    """Each optimizer's name, a path to weights cut to the file's own name.

    Where two would look alike, both stay whole.

    Example:
        >>> short_names(["adamw", "denograd:runs/mine.safetensors"])
        {'adamw': 'adamw', 'denograd:runs/mine.safetensors': 'denograd:mine'}
    """
    short = {name: _short(name) for name in optimizers}
    count = Counter(short.values())
    return {name: cut if count[cut] == 1 else name for name, cut in short.items()}


def _short(name: str) -> str:
    head, colon, denoiser = name.partition(":")
    return f"{head}:{Path(denoiser).stem}" if colon else name
