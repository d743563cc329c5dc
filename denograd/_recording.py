"""What is recorded of a step, and recordings as plain JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

MEASURES = (
    "energy_before",
    "energy_after",
    "energy_removed",
    "energy_kept",
    "cosine",
    "mean_gain",
    "noise_known",
    "fell_back",
)
"""Names of the numbers that every denoiser has; `AuditLog.to_frame` says what each is."""

FEATURE = "feature."
"""What stands before the name of a feature in a table, where others might have that name."""

SCHEMA = 1
"""Version of a saved recording."""


class RecordingError(ValueError):
    """A file that holds no recording; the message says why."""


class Seen(NamedTuple):
    """The features of the layers that a denoiser read together.

    Attributes:
        names: of the ``F`` features.
        numbers: ``(L, F)``.
    """

    names: tuple[str, ...]
    numbers: Tensor


class Entry(NamedTuple):
    """Layers that the denoiser saw together at one step.

    Attributes:
        step: steps done before this one.
        block: 0, or a number that tells the blocks of a step apart.
        total_steps: steps that the whole run was to take, 0 if not known.
        layers: names of the ``L`` layers.
        elements: numbers of their elements.
        coefficients: names of the ``K`` coefficients.
        features: names of the ``F`` features.
        numbers: ``(L, M + K + F)``: the `MEASURES`, the coefficients, the features.
    """

    step: int
    block: int
    total_steps: int
    layers: tuple[str, ...]
    elements: tuple[int, ...]
    coefficients: tuple[str, ...]
    features: tuple[str, ...]
    numbers: Tensor

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of ``numbers``."""
        return (*MEASURES, *self.coefficients, *(f"{FEATURE}{name}" for name in self.features))


_KIND = "denograd recording"


def to_json(entries: Iterable[Entry]) -> dict[str, Any]:
    """Entries as JSON: names once for all of them where they are the same."""
    return {
        "schema": SCHEMA,
        "kind": _KIND,
        "measures": MEASURES,
        "entries": [
            {
                **{k: v for k, v in entry._asdict().items() if k != "numbers"},
                "numbers": [
                    [_number(value, entry.numbers.dtype) for value in row]
                    for row in entry.numbers.tolist()
                ],
            }
            for entry in entries
        ],
    }


def _number(value: float, dtype: torch.dtype) -> float | None:
    """A number with the digits that its precision has; JSON knows no NaN."""
    if not math.isfinite(value):
        return None
    return value if dtype == torch.float64 else float(f"{value:.9g}")


def from_json(found: Any) -> list[Entry]:
    """Entries of what `to_json` made.

    Raises:
        RecordingError: it is something else, or of another schema.
        KeyError, TypeError, ValueError: it is damaged.
    """
    if not isinstance(found, dict) or found.get("kind") != _KIND:
        raise RecordingError("it says nothing of a recording")
    if (found["schema"], tuple(found["measures"])) != (SCHEMA, MEASURES):
        raise RecordingError(
            f"it has schema {found['schema']!r}, and this version of denograd reads {SCHEMA}"
        )
    entries = []
    for saved in found["entries"]:
        rows = [[math.nan if x is None else float(x) for x in row] for row in saved["numbers"]]
        names = {
            key: tuple(saved[key]) for key in ("layers", "elements", "coefficients", "features")
        }
        numbers = torch.tensor(rows, dtype=torch.float64)
        entry = Entry(
            int(saved["step"]),
            int(saved["block"]),
            int(saved["total_steps"]),
            numbers=numbers,
            **names,
        )
        if not all(
            isinstance(name, str)
            for key in ("layers", "coefficients", "features")
            for name in names[key]
        ) or not all(type(size) is int for size in entry.elements):
            raise RecordingError("it has names that are no text, or sizes that are no numbers")
        if len(entry.elements) != len(entry.layers) or numbers.shape != (
            len(entry.layers),
            len(entry.columns),
        ):
            raise RecordingError("it has rows of the wrong length")
        entries.append(entry)
    return entries
