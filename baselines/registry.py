"""Optimizers by name, as an evaluation compares them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from denograd.baselines.control import control_settings, read_control
from denograd.baselines.errors import BaselineError
from denograd.baselines.schedules import schedule_factor
from denograd.denoisers import read_card, resolve_denoiser
from denograd.models import TabularModel

CONTROL = "adamw"
"""The optimizer that every other one is compared with."""

_DENOGRAD = "denograd"
_BASES: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
_DEFAULT_BASE: Mapping[str, Any] = {"name": "adamw", "lr": 1e-2, "weight_decay": 0.0}


class Recipe(NamedTuple):
    """An optimizer, and the schedule to step after each of its steps, if it has one."""

    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None


def _adamw(model: nn.Module, model_name: str, steps: int, rows: int) -> Recipe:
    tuned = control_settings(model_name, steps, rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=tuned.lr, weight_decay=tuned.weight_decay)
    factor = functools.partial(schedule_factor, tuned.schedule, total_steps=steps)
    return Recipe(optimizer, LambdaLR(optimizer, factor))


def _adamw_default(model: nn.Module, model_name: str, steps: int, rows: int) -> Recipe:
    return Recipe(torch.optim.AdamW(model.parameters()), None)


def _sgd(model: nn.Module, model_name: str, steps: int, rows: int) -> Recipe:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Recipe(optimizer, None)


_RECIPES: dict[str, Callable[[nn.Module, str, int, int], Recipe]] = {
    CONTROL: _adamw,
    "adamw_default": _adamw_default,
    "sgd": _sgd,
}

OPTIMIZER_NAMES = (*_RECIPES, _DENOGRAD)
"""Names that `make_optimizer` knows; ``denograd:NAME`` and ``denograd:PATH`` as well."""


def make_optimizer(
    name: str, model: nn.Module, *, model_name: str, steps: int, rows: int
) -> Recipe:
    """Build an optimizer for a run.

    Args:
        name: ``adamw`` (the control, tuned on the meta-training tasks),
            ``adamw_default`` (torch's defaults), ``sgd`` (learning rate 0.1, momentum
            0.9), ``denograd`` (the default denoiser), ``denograd:NAME`` (another shipped
            one) or ``denograd:PATH`` (saved weights).
        model: whose parameters it moves.
        model_name: the model's name, for what is tuned by model.
        steps: steps that the run will take.
        rows: rows of the training set.

    Returns:
        the optimizer, and its schedule or None.

    Raises:
        BaselineError: the name is not known, or nothing is tuned for the model.
        DenoiserFileError: the denoiser cannot be loaded.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> recipe = make_optimizer("sgd", model, model_name="linear", steps=10, rows=20)
        >>> type(recipe.optimizer).__name__, recipe.scheduler
        ('SGD', None)
    """
    spec = denoiser_of(name)
    if spec is None:
        return _RECIPES[name](model, model_name, steps, rows)
    from denograd.optimizer import DenoGrad

    base = make_base(model, base_settings(spec))
    return Recipe(DenoGrad(base, spec, model=model, total_steps=steps, dataset_size=rows), None)


def check_optimizer(name: str, models: tuple[str, ...], steps: int) -> None:
    """Raise what `make_optimizer` would for these models, before any run has begun.

    Raises:
        BaselineError: the name is not known, or nothing is tuned for a model.
        DenoiserFileError: the denoiser cannot be loaded.
    """
    spec = denoiser_of(name)
    if spec is not None:
        try:
            resolve_denoiser(spec)
        except ValueError as error:
            raise BaselineError(f"optimizer {name!r}: {error}") from error
        make_base(nn.Linear(1, 1), base_settings(spec))
    elif name == CONTROL:
        for model in models:
            control_settings(model, steps, rows=1)


def describe_optimizer(name: str, models: tuple[str, ...]) -> dict[str, Any]:
    """What an optimizer's name stands for today, in plain JSON.

    Two runs whose descriptions are equal used the same tuned settings and weights.

    Example:
        >>> describe_optimizer("denograd:identity", ("soft_tree",))["denoiser"]
        'identity'
    """
    spec = denoiser_of(name)
    if spec is not None:
        weights = None if spec == "identity" else read_card(spec)["sha256"]
        return {"denoiser": spec, "sha256": weights, "base": base_settings(spec)}
    if name == CONTROL:
        tuned = read_control()
        return {m: [asdict(entry) for entry in tuned if entry.model == m] for m in models}
    return {}


def denoiser_of(name: str) -> str | None:
    """The denoiser that an optimizer's name asks for, None if it is a rival.

    Raises:
        BaselineError: the name is not known.

    Example:
        >>> denoiser_of("denograd"), denoiser_of("denograd:identity"), denoiser_of("adamw")
        ('default', 'identity', None)
    """
    head, colon, denoiser = name.partition(":")
    if name in _RECIPES:
        return None
    if head == _DENOGRAD and bool(colon) == bool(denoiser):
        return denoiser or "default"
    raise BaselineError(
        f"optimizer {name!r} is not known; use one of {', '.join(OPTIMIZER_NAMES)}, "
        "denograd:NAME for another shipped denoiser or denograd:PATH for saved weights"
    )


def base_settings(denoiser: str) -> dict[str, Any]:
    """The base optimizer that a denoiser was meta-trained with.

    Its card says so under ``base``, by itself or among what is said of its training:
    ``{"name": "adamw", "lr": 0.01, "weight_decay": 0.0}``. Where the card is silent, and
    for ``identity``, it is AdamW with learning rate 0.01 and no decay.
    """
    if denoiser == "identity":
        return dict(_DEFAULT_BASE)
    card = read_card(denoiser)
    base = card.get("base", card["training"].get("base", {}))
    if isinstance(base, str):
        base = {"name": base}
    return {**_DEFAULT_BASE, **base}


def make_base(model: nn.Module, settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    """A torch optimizer from `base_settings`.

    Raises:
        BaselineError: an optimizer or an argument of it that is not known.
    """
    arguments = dict(settings)
    name = arguments.pop("name")
    if name not in _BASES:
        raise BaselineError(f"base optimizer {name!r} is not known; use one of {', '.join(_BASES)}")
    unknown = set(arguments) - set(inspect.signature(_BASES[name]).parameters)
    if unknown:
        raise BaselineError(f"base optimizer {name!r} takes no {', '.join(sorted(unknown))}")
    # Some models keep layers from being denoised, and say so in their groups.
    groups = model.parameter_groups() if isinstance(model, TabularModel) else model.parameters()
    return _BASES[name](groups, **arguments)
