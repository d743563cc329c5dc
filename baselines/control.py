"""The control of every comparison: AdamW as well tuned as the denoiser is trained.

Its learning rate, weight decay and schedule are tuned for each model, number of steps and
number of rows (all of which a denoiser is told, too) on the tasks that denoisers are
meta-trained on, by ``scripts/tune_control.py``, which writes ``control.json`` beside this
file; for measured targets on the regression tables of the same split, in
``control_regression.json``. A run takes the settings of the nearest numbers of steps and rows,
however far they are, and all are of batches of `TUNED_BATCH` rows; an evaluation says so where
that is not what it runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from denograd.baselines._tuned_file import check_counts, nearest, read_settings
from denograd.baselines.errors import BaselineError
from denograd.baselines.schedules import SCHEDULES

CONTROL_FILE = Path(__file__).with_name("control.json")
"""The tuned settings that the package ships."""

REGRESSION_CONTROL_FILE = Path(__file__).with_name("control_regression.json")
"""The same for measured targets."""

TUNED_BATCH = 32
"""Rows of a batch in tuning, or all rows if they were fewer."""

_SCHEMA = 1
_KEYS = ("model", "steps", "rows", "lr", "weight_decay", "schedule")


@dataclass(frozen=True)
class ControlSettings:
    """What was tuned, for a model, a number of steps and a number of training rows.

    Attributes:
        model: name of the model.
        steps: number of steps it was tuned for.
        rows: training rows it was tuned for.
        lr: learning rate of AdamW at the start.
        weight_decay: AdamW's.
        schedule: one of `denograd.baselines.SCHEDULES`.
    """

    model: str
    steps: int
    rows: int
    lr: float
    weight_decay: float
    schedule: str

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("steps", "rows", "lr", "weight_decay")}
        for name, value in numbers.items():
            least = 0 if name == "weight_decay" else 1e-12
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
                raise BaselineError(f"{name} is {value!r}; it must be a positive number")
        if self.schedule not in SCHEDULES:
            raise BaselineError(
                f"schedule is {self.schedule!r}; it must be one of {', '.join(SCHEDULES)}"
            )


def read_control(path: Path = CONTROL_FILE) -> list[ControlSettings]:
    """All tuned settings of a file.

    The file is JSON: ``{"schema": 1, "made_by": COMMAND, "settings": [{"model":
    "soft_tree", "steps": 200, "rows": 64, "lr": ..., "weight_decay": ..., "schedule":
    "cosine"}]}``.

    Raises:
        BaselineError: the file is missing, is not such JSON, or holds a value that makes
            no sense; the message names the entry.
    """
    remedy = "make it anew with scripts/tune_control.py"
    try:
        entries = read_settings(path, _SCHEMA, remedy)
    except FileNotFoundError as error:
        raise BaselineError(f"{path}: there is no such file; {remedy}") from error
    if not isinstance(entries, list) or not entries:
        raise BaselineError(f"{path}: it has no list 'settings' with entries; {remedy}")
    settings = []
    for number, entry in enumerate(entries):
        try:
            settings.append(ControlSettings(**{key: entry[key] for key in _KEYS}))
        except (KeyError, TypeError, BaselineError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BaselineError(f"{path}: settings[{number}]: {what}; {remedy}") from error
    return settings


def control_file(measured: bool) -> Path:
    """The tuned settings for measured targets, or for classes."""
    return REGRESSION_CONTROL_FILE if measured else CONTROL_FILE


def control_settings(
    model: str, steps: int, rows: int, path: Path = CONTROL_FILE
) -> ControlSettings:
    """The settings tuned for a model and the numbers of steps and rows nearest to these.

    Nearest in the logarithm; steps first.

    Args:
        model: name of a model, as `denograd.models.registry.make_model` takes it.
        steps: steps the run will take, at least 1.
        rows: rows of the training set, at least 1.
        path: file with the settings; `control_file` names the package's own.

    Raises:
        BaselineError: the file cannot be used (see `read_control`), holds nothing for
            this model, or a number is below 1.
    """
    check_counts("control_settings", steps, rows)
    settings = read_control(path)
    tuned = [entry for entry in settings if entry.model == model]
    if not tuned:
        known = ", ".join(sorted({entry.model for entry in settings}))
        raise BaselineError(
            f"control_settings: model={model!r} has no tuned settings; tuned are {known}. "
            "Tune it with scripts/tune_control.py, or use the optimizer 'adamw_default'."
        )
    return nearest(tuned, steps, rows)
