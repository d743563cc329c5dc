"""Noise within the batch: how much the gradient would differ on another draw of its rows.

A *rule* tells what each row of a batch contributed to the gradients of one kind of
module; `register_noise_rule` adds one. `NoiseCapture` collects the contributions while
the model's own backward pass runs.
"""

from denograd.noise import (
    broadcast,
    choice,
    conv,
    embedding,
    linear,
    norm,
    stacked,
    tokenizer,
)
from denograd.noise._capture import NoiseCapture
from denograd.noise._estimate import noise_variance
from denograd.noise._record import GradientRecord
from denograd.noise._rows import Dense, Outer, RowGradients
from denograd.noise._rules import NoiseRule, register_noise_rule, rule_for

__all__ = [
    "Dense",
    "GradientRecord",
    "NoiseCapture",
    "NoiseRule",
    "Outer",
    "RowGradients",
    "broadcast",
    "choice",
    "conv",
    "embedding",
    "linear",
    "noise_variance",
    "norm",
    "register_noise_rule",
    "rule_for",
    "stacked",
    "tokenizer",
]
