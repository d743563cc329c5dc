"""Tuned settings of the rivals, found by ``scripts/tune_rivals.py`` as the control's were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from denograd.baselines._tuned_file import check_counts, nearest, read_settings
from denograd.baselines.errors import BaselineError
from denograd.baselines.rival import Rival

RIVALS_FILE = Path(__file__).with_name("rivals.json")
"""The tuned settings that the package ships."""

SCHEMA = 1
_REMEDY = "make it anew with scripts/tune_rivals.py"


@dataclass(frozen=True)
class TunedRival:
    """What was tuned, for a rival, a model, a number of steps and of training rows.

    Attributes:
        optimizer: name of the rival.
        model: name of the model.
        steps: number of steps it was tuned for.
        rows: training rows it was tuned for.
        settings: the values found.
    """

    optimizer: str
    model: str
    steps: int
    rows: int
    settings: Mapping[str, Any]


def read_tuned(path: Path, rivals: Mapping[str, Rival]) -> list[TunedRival]:
    """All tuned settings of a file; none if there is no such file.

    The file is JSON: ``{"schema": 1, "made_by": COMMAND, "settings": [{"optimizer": "lion",
    "model": "soft_tree", "steps": 200, "rows": 64, "settings": {"lr": ...}}]}``.

    Args:
        path: the file.
        rivals: the rivals by name.

    Raises:
        BaselineError: it is not such JSON, or holds a rival that is not known or a value
            that it could not have been given; the message names the entry.
    """
    try:
        entries = read_settings(path, SCHEMA, _REMEDY)
    except FileNotFoundError:
        return []
    if not isinstance(entries, list):
        raise BaselineError(f"{path}: it has no list 'settings'; {_REMEDY}")
    return [_entry(entry, rivals, f"{path}: settings[{i}]") for i, entry in enumerate(entries)]


def tuned_settings(
    rival: Rival, model: str, steps: int, rows: int, tuned: list[TunedRival]
) -> Mapping[str, Any]:
    """The settings tuned for the numbers of steps and rows nearest to these.

    Nearest in the logarithm, steps first, as for the control.

    Raises:
        BaselineError: nothing is tuned for this rival and model, or a number is below 1.
    """
    check_counts("tuned_settings", steps, rows)
    found = [t for t in tuned if (t.optimizer, t.model) == (rival.name, model)]
    if not found:
        raise BaselineError(
            f"optimizer {rival.name!r} is not tuned for the model {model!r}; tune it with "
            f"scripts/tune_rivals.py, or take it untuned, as '{rival.name}:default'"
        )
    return nearest(found, steps, rows).settings


def _entry(entry: Any, rivals: Mapping[str, Rival], where: str) -> TunedRival:
    try:
        tuned = TunedRival(
            entry["optimizer"], entry["model"], entry["steps"], entry["rows"], entry["settings"]
        )
        if tuned.optimizer not in rivals:
            raise BaselineError(f"optimizer {tuned.optimizer!r} is not known")
        for name in ("steps", "rows"):
            value = getattr(tuned, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BaselineError(f"{name} is {value!r}; it must be a number of at least 1")
        if not isinstance(tuned.settings, dict):
            raise BaselineError(f"settings is {tuned.settings!r}; it must be an object")
        rivals[tuned.optimizer].check(tuned.settings)
    except KeyError as error:
        raise BaselineError(f"{where}: {error} is missing; {_REMEDY}") from error
    except (TypeError, BaselineError) as error:
        raise BaselineError(f"{where}: {error}; {_REMEDY}") from error
    return tuned
