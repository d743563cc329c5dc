"""Estimators of the meta-gradient, one a file; exchangeable, and chosen by name."""

from denograd.meta.estimators._base import FLOOR_MEASURED, Estimator, MetaLoss, TaskGradients
from denograd.meta.estimators.backprop import Backprop, TruncatedBackprop
from denograd.meta.estimators.es import EvolutionStrategies
from denograd.meta.estimators.pes import Particles, PersistentES

ESTIMATORS: dict[str, type[Estimator]] = {
    "truncated": TruncatedBackprop,
    "full": Backprop,
    "es": EvolutionStrategies,
    "pes": PersistentES,
}
"""Estimators by name."""

__all__ = [
    "ESTIMATORS",
    "FLOOR_MEASURED",
    "Backprop",
    "Estimator",
    "EvolutionStrategies",
    "MetaLoss",
    "Particles",
    "PersistentES",
    "TaskGradients",
    "TruncatedBackprop",
]
