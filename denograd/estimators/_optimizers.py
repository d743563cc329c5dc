"""Optimizers by name, or by a factory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import nn

from denograd.base import base_settings, make_base
from denograd.denoisers import DenoiserFileError, denoiser_for
from denograd.models import TabularModel
from denograd.models._base import is_number
from denograd.models.registry import name_of
from denograd.optimizer import DenoGrad

OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
"""Makes an optimizer of parameters, for example ``functools.partial(torch.optim.SGD, lr=0.1)``."""

_PLAIN: dict[str, dict[str, Any]] = {
    "adamw": {"name": "adamw", "lr": 1e-2, "weight_decay": 0.0},
    "adam": {"name": "adam", "lr": 1e-2},
    "sgd": {"name": "sgd", "lr": 1e-1, "momentum": 0.9},
}

OPTIMIZERS = ("denograd", *_PLAIN)
"""Names that `make_optimizer` knows; ``denograd:NAME`` and ``denograd:PATH`` as well."""


def make_optimizer(
    optimizer: str | OptimizerFactory,
    learning_rate: float | None,
    model: nn.Module,
    total_steps: int | None,
    dataset_size: int,
) -> torch.optim.Optimizer:
    """An optimizer for a model's parameters.

    Args:
        optimizer: ``denograd``, DenoGrad with the shipped denoiser for the kind of target
            (``default`` for classes, ``regression`` for numbers) around the base that its card
            recommends for the model; ``denograd:NAME`` or ``denograd:PATH``, another
            denoiser; ``adamw``, ``adam`` or ``sgd``; or a function that makes an optimizer of
            the parameters. A `DenoGrad` that it makes is told the model, the number of steps
            and of rows where it does not know them.
        learning_rate: of the base optimizer; None for the recommended one (``denograd``)
            or 0.01 (``adamw``, ``adam``) and 0.1 (``sgd``, momentum 0.9).
        model: whose parameters it moves.
        total_steps: steps the run will take, None if that is not known.
        dataset_size: rows of the training set.

    Raises:
        ValueError: a name that is not known, a denoiser that cannot be loaded, or a
            learning rate that is not above 0 or is given with a factory.
        TypeError: the factory returns no optimizer.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = make_optimizer("denograd", None, model, total_steps=100, dataset_size=50)
        >>> type(optimizer).__name__, type(optimizer.base).__name__
        ('DenoGrad', 'AdamW')
    """
    if learning_rate is not None and not (
        is_number(learning_rate) and 0 < learning_rate < float("inf")
    ):
        raise ValueError(f"learning_rate={learning_rate!r}; it must be a number above 0, or None")
    if not isinstance(optimizer, str):
        return _from_factory(optimizer, learning_rate, model, total_steps, dataset_size)
    head, colon, denoiser = optimizer.partition(":")
    if optimizer in _PLAIN:
        settings = dict(_PLAIN[optimizer])
    elif head == "denograd" and bool(colon) == bool(denoiser):
        measured = isinstance(model, TabularModel) and model.n_classes is None
        denoiser = denoiser or denoiser_for(measured)
        try:
            settings = base_settings(denoiser, name_of(model))
        except DenoiserFileError as error:
            raise ValueError(f"optimizer={optimizer!r}: {error}") from error
    else:
        raise ValueError(
            f"optimizer={optimizer!r} is not known; use one of {', '.join(OPTIMIZERS)}, "
            "denograd:NAME or denograd:PATH for another denoiser, or a function that makes a "
            "torch.optim.Optimizer of the parameters"
        )
    if learning_rate is not None:
        settings["lr"] = float(learning_rate)
    base = make_base(model, settings)
    if not denoiser:
        return base
    return DenoGrad(base, denoiser, model=model, total_steps=total_steps, dataset_size=dataset_size)


def _from_factory(
    factory: OptimizerFactory,
    learning_rate: float | None,
    model: nn.Module,
    total_steps: int | None,
    dataset_size: int,
) -> torch.optim.Optimizer:
    if not callable(factory):
        raise ValueError(
            f"optimizer={factory!r}; it must be one of {', '.join(OPTIMIZERS)}, or a function "
            "that makes a torch.optim.Optimizer of the parameters"
        )
    if learning_rate is not None:
        raise ValueError(
            f"learning_rate={learning_rate!r} has no effect on an optimizer that a function "
            "makes; set the rate there and leave learning_rate=None"
        )
    made = factory(model.parameters())
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer: the function returned a {type(made).__name__}; it must return a "
            "torch.optim.Optimizer of the parameters it is given"
        )
    if isinstance(made, DenoGrad):
        made.attach_capture(model)
        made.total_steps = made.total_steps or total_steps
        made.dataset_size = made.dataset_size or dataset_size
    return made
