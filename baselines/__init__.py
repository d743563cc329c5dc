"""The optimizers that denograd is compared with.

Example:
    >>> from denograd.baselines import schedule_factor
    >>> schedule_factor("linear", step=50, total_steps=200)
    0.75
"""

from denograd.baselines.context import CONTEXT_MODELS, context_available, fit_context_model
from denograd.baselines.control import ControlSettings, control_settings, read_control
from denograd.baselines.cross_validation import (
    CrossValidated,
    TrainingRows,
    cross_validate_adamw,
)
from denograd.baselines.errors import BaselineError
from denograd.baselines.registry import (
    CONTROL,
    CROSS_VALIDATED,
    OPTIMIZER_NAMES,
    RIVALS,
    Recipe,
    build_rival,
    check_optimizer,
    describe_optimizer,
    make_optimizer,
)
from denograd.baselines.rival import Rival, evaluating
from denograd.baselines.schedules import SCHEDULES, schedule_factor

__all__ = [
    "CONTEXT_MODELS",
    "CONTROL",
    "CROSS_VALIDATED",
    "OPTIMIZER_NAMES",
    "RIVALS",
    "SCHEDULES",
    "BaselineError",
    "ControlSettings",
    "CrossValidated",
    "Recipe",
    "Rival",
    "TrainingRows",
    "build_rival",
    "check_optimizer",
    "context_available",
    "control_settings",
    "cross_validate_adamw",
    "describe_optimizer",
    "evaluating",
    "fit_context_model",
    "make_optimizer",
    "read_control",
    "schedule_factor",
]
