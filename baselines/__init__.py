"""The optimizers that denograd is compared with.

Example:
    >>> from denograd.baselines import schedule_factor
    >>> schedule_factor("linear", step=50, total_steps=200)
    0.75
"""

from denograd.baselines.control import ControlSettings, control_settings, read_control
from denograd.baselines.errors import BaselineError
from denograd.baselines.registry import (
    CONTROL,
    OPTIMIZER_NAMES,
    Recipe,
    check_optimizer,
    describe_optimizer,
    make_optimizer,
)
from denograd.baselines.schedules import SCHEDULES, schedule_factor

__all__ = [
    "CONTROL",
    "OPTIMIZER_NAMES",
    "SCHEDULES",
    "BaselineError",
    "ControlSettings",
    "Recipe",
    "check_optimizer",
    "control_settings",
    "describe_optimizer",
    "make_optimizer",
    "read_control",
    "schedule_factor",
]
