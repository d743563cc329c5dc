"""The card beside a denoiser's weights: what it has to hold, and how it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

SCHEMA = 1
"""Version of the card's layout; raised when a reader of the old one would go wrong."""

GET_AGAIN = "copy the .safetensors and the .json file again, together, from where they came"
_CARD_TYPES: dict[str, type] = {
    "kind": str,
    "features": list,
    "coefficients": list,
    "config": dict,
    "tensors": dict,
    "sha256": str,
    "training": dict,
    "figures": dict,
    "denograd_version": str,
}
ADVICE = ("intended_use", "not_for")


class DenoiserFileError(ValueError):
    """A file of a denoiser that can't be used; the message says which, why, and a remedy."""


def load_card(path: Path) -> dict[str, Any]:
    """Read a card and check everything in it that needs no weights.

    Raises:
        DenoiserFileError: it is missing, damaged or of another schema.
    """
    if not path.exists():
        fail(path, "the card is missing", f"it belongs beside the weights: {GET_AGAIN}")
    try:
        # JSON has no NaN, but Python's reader takes it unless told otherwise.
        card = json.loads(read_bytes(path).decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DenoiserFileError):
            raise
        fail(path, f"the card is not JSON ({error})", GET_AGAIN, error)
    if not isinstance(card, dict):
        fail(path, f"the card is a JSON {type(card).__name__}, not an object", GET_AGAIN)
    schema = card.get("schema")
    if schema != SCHEMA or isinstance(schema, bool | float):
        fail(
            path,
            f"the card has schema {schema!r}, and this version reads schema {SCHEMA}",
            "use the version of denograd that wrote it (the card's denograd_version), "
            "or meta-train again",
        )
    for key, kind in _CARD_TYPES.items():
        if not isinstance(card.get(key), kind):
            found = repr(card[key]) if key in card else "nothing"
            fail(
                path,
                f"the card's {key!r} must be a JSON {kind.__name__}, found {found}",
                GET_AGAIN,
            )
    for key in ADVICE:
        if not is_advice(card.get(key)):
            fail(path, f"the card's {key!r} must be text, found {card[key]!r}", GET_AGAIN)
    return card


def is_advice(value: object) -> bool:
    """Whether a card's advice is left out, or text to show."""
    return value is None or (isinstance(value, str) and bool(value.strip()))


def read_bytes(path: Path) -> bytes:
    """All of a file.

    Raises:
        DenoiserFileError: it is not there, or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        fail(path, "no such file", "check the path", error)
    except (OSError, ValueError) as error:
        fail(path, f"can't be read ({error})", "check the path and its permissions", error)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def fail(path: Path, what: str, remedy: str, cause: Exception | None = None) -> NoReturn:
    """Raise a `DenoiserFileError` that names a file, what is wrong with it, and a remedy."""
    raise DenoiserFileError(f"{path}: {what}; {remedy}") from cause
