"""Optimizers by name, as an evaluation compares them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from denograd.base import base_settings, make_base, settings_by_model
from denograd.baselines._tuned_file import Tuned
from denograd.baselines.control import control_file, control_settings, read_control
from denograd.baselines.cross_validation import (
    FOLDS,
    TrainingRows,
    candidates,
    cross_validate_adamw,
)
from denograd.baselines.denoising import DENOISING
from denograd.baselines.errors import BaselineError
from denograd.baselines.library import LIBRARY
from denograd.baselines.rival import Rival, Settings, TwoStage, evaluating, import_extra
from denograd.baselines.schedules import schedule_factor
from denograd.baselines.tuned import RIVALS_FILE, read_tuned, tuned_settings
from denograd.denoisers import denoiser_for, read_card, resolve_denoiser

CONTROL = "adamw"
"""The optimizer that every other one is compared with."""

CROSS_VALIDATED = "adamw_cv"
"""AdamW tuned on the run's own training rows."""

RIVALS: Mapping[str, Rival] = {rival.name: rival for rival in (*LIBRARY, *DENOISING)}
"""All other rivals by name, each with its source, its space and what it needs."""

OPTIMIZER_NAMES = (CONTROL, CROSS_VALIDATED, *RIVALS, "denograd")
"""Names that `make_optimizer` knows; ``NAME:default``, ``denograd:NAME``, ``denograd:PATH`` too."""

_DENOGRAD = "denograd"
_UNTUNED = "default"
_BASE_OF_RULE = {"adam": "adamw", "sgd": "sgd"}


class Recipe(NamedTuple):
    """An optimizer, and the schedule to step after each of its steps, if it has one.

    A training loop that serves every rival asks both properties::

        loss = gradients()                      # zero_grad, forward, backward
        optimizer.step(gradients if recipe.needs_closure else None)
        ...
        with recipe.evaluating():
            score(model)
    """

    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None

    @property
    def needs_closure(self) -> bool:
        """Whether a step evaluates the loss again, and wants a closure for it."""
        return isinstance(self.optimizer, TwoStage)

    def evaluating(self) -> AbstractContextManager[None]:
        """Within it the model has the weights that it is to be judged by."""
        return evaluating(self.optimizer)


def make_optimizer(
    name: str,
    model: nn.Module,
    *,
    model_name: str,
    steps: int,
    rows: int,
    data: TrainingRows | None = None,
    measured: bool = False,
) -> Recipe:
    """Build an optimizer for a run.

    Args:
        name: ``adamw`` (the control, tuned on the meta-training tasks); ``adamw_cv``
            (tuned by cross-validation on ``data``); a rival of `RIVALS`, with settings found
            as the control's were, but at 32 and 128 rows and for classes alone;
            ``NAME:default``, the rival as it comes; ``denograd`` (the shipped denoiser for the
            kind of target), ``denograd:NAME`` (another one) or ``denograd:PATH`` (saved
            weights). ``adamw_default``, ``adam_default`` and ``sgd`` (learning rate 0.1,
            momentum 0.9) are never tuned.
        model: whose parameters it moves.
        model_name: the model's name, for what is tuned by model.
        steps: steps that the run will take.
        rows: rows of the training set.
        data: the training rows themselves, for ``adamw_cv``; they also say how large a batch is.
        measured: whether the target is a number; there is a control and a denoiser for that, too.

    Returns:
        the optimizer, and its schedule or None.

    Raises:
        BaselineError: the name is not known, nothing is tuned for the model, a package is
            not installed, or ``adamw_cv`` was given no rows.
        DenoiserFileError: the denoiser cannot be loaded.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> recipe = make_optimizer("sgd", model, model_name="linear", steps=10, rows=20)
        >>> type(recipe.optimizer).__name__, recipe.scheduler
        ('SGD', None)
    """
    spec = denoiser_of(name, measured)
    if spec is not None:
        from denograd.optimizer import DenoGrad

        base = make_base(model, base_settings(spec, model_name))
        optimizer = DenoGrad(
            base,
            spec,
            model=model,
            total_steps=steps,
            dataset_size=rows,
            batch_size=None if data is None else min(data.batch_size, rows),
        )
        return Recipe(optimizer, None)
    if name == CONTROL:
        tuned = control_settings(model_name, steps, rows, control_file(measured))
        adamw = torch.optim.AdamW(model.parameters(), lr=tuned.lr, weight_decay=tuned.weight_decay)
        factor = functools.partial(schedule_factor, tuned.schedule, total_steps=steps)
        return Recipe(adamw, LambdaLR(adamw, factor))
    if name == CROSS_VALIDATED:
        return _cross_validated(model, model_name, steps, data)
    rival, settings = rival_settings(name, model_name, steps, rows)
    return build_rival(rival, model, settings, steps=steps, rows=rows)


def rival_settings(
    name: str, model_name: str, steps: int, rows: int
) -> tuple[Rival, Mapping[str, Any]]:
    """The rival that a name stands for, and the settings that it runs with.

    Raises:
        BaselineError: nothing is tuned for the model.
    """
    rival = RIVALS[name.partition(":")[0]]
    if _is_untuned(name):
        return rival, rival.defaults
    found = read_tuned(RIVALS_FILE, RIVALS)
    return rival, tuned_settings(rival, model_name, steps, rows, found)


def tuned_entries(name: str, model_name: str, measured: bool = False) -> Sequence[Tuned]:
    """For which numbers of steps and rows an optimizer was tuned on other tables.

    Args:
        name: as `make_optimizer` takes it.
        model_name: the model's name.
        measured: whether the target is a number, for which the control is tuned apart.

    Returns:
        an entry each, of which a run takes the `nearest`; none for what is never tuned, is
        tuned on the run's own rows, or is a denoiser of denograd's.

    Example:
        >>> sorted({entry.rows for entry in tuned_entries("lion", "soft_tree")})
        [32, 128]
        >>> tuned_entries("lion:default", "soft_tree")
        []
    """
    if name == CONTROL:
        return [t for t in read_control(control_file(measured)) if t.model == model_name]
    if name == CROSS_VALIDATED or denoiser_of(name, measured) is not None or _is_untuned(name):
        return []
    found = read_tuned(RIVALS_FILE, RIVALS)
    return [t for t in found if (t.optimizer, t.model) == (name, model_name)]


def rival_base(rival: Rival, settings: Settings) -> dict[str, Any]:
    """What steps with the gradients of a rival that is a denoiser, as `make_base` takes it."""
    return {
        "name": _BASE_OF_RULE[str(rival.base)],
        "lr": settings["lr"],
        "weight_decay": settings["weight_decay"],
    }


def build_rival(
    rival: Rival, model: nn.Module, settings: Settings | None, *, steps: int, rows: int
) -> Recipe:
    """Build a rival with given settings; None for those it comes with.

    Example:
        >>> recipe = build_rival(RIVALS["rm3"], nn.Linear(3, 2), None, steps=10, rows=20)
        >>> type(recipe.optimizer.denoiser).__name__, type(recipe.optimizer.base).__name__
        ('RollingMedianDenoiser', 'AdamW')
    """
    if settings is None:
        settings = rival.defaults
    optimizer: torch.optim.Optimizer
    if rival.denoiser is not None:
        from denograd.optimizer import DenoGrad

        base = make_base(model, rival_base(rival, settings))
        optimizer = DenoGrad(
            base, rival.denoiser(settings), model=model, total_steps=steps, dataset_size=rows
        )
    elif rival.build is not None:
        optimizer = rival.build(list(model.parameters()), settings, steps)
    else:
        raise BaselineError(f"rival {rival.name!r} has neither a build nor a denoiser")
    schedule = settings.get("schedule", "constant")
    return Recipe(optimizer, _scheduler(optimizer, schedule, steps))


def _scheduler(optimizer: torch.optim.Optimizer, schedule: str, steps: int) -> LRScheduler | None:
    if schedule == "constant":
        return None
    return LambdaLR(optimizer, functools.partial(schedule_factor, schedule, total_steps=steps))


def _cross_validated(
    model: nn.Module, model_name: str, steps: int, data: TrainingRows | None
) -> Recipe:
    if data is None:
        raise BaselineError(
            f"optimizer {CROSS_VALIDATED!r} tunes itself on the rows of the run; give them as data"
        )
    found = cross_validate_adamw(data, model_name, steps)
    optimizer = torch.optim.AdamW(model.parameters(), lr=found.lr, weight_decay=found.weight_decay)
    factor = functools.partial(found.factor, total_steps=steps)
    return Recipe(optimizer, LambdaLR(optimizer, factor))


def _is_untuned(name: str) -> bool:
    head, _, tail = name.partition(":")
    return tail == _UNTUNED or not RIVALS[head].space


def check_optimizer(name: str, models: tuple[str, ...], steps: int, measured: bool = False) -> None:
    """Raise what `make_optimizer` would for these models, before any run has begun.

    Args:
        name: as `make_optimizer` takes it.
        models: names of the models that it will train.
        steps: steps of each run.
        measured: whether the target is a number.

    Raises:
        BaselineError: the name is not known, nothing is tuned for a model, or a package is
            not installed.
        DenoiserFileError: the denoiser cannot be loaded.
    """
    spec = denoiser_of(name, measured)
    if spec is not None:
        try:
            resolve_denoiser(spec)
            for settings in settings_by_model(spec, models).values():
                make_base(nn.Linear(1, 1), settings)
        except ValueError as error:
            raise BaselineError(f"optimizer {name!r}: {error}") from error
    elif name == CONTROL:
        for model in models:
            control_settings(model, steps, 1, control_file(measured))
    elif name != CROSS_VALIDATED:
        rival = RIVALS[name.partition(":")[0]]
        if rival.package is not None:
            import_extra(rival.package)
        if not _is_untuned(name):
            found = read_tuned(RIVALS_FILE, RIVALS)
            for model in models:
                tuned_settings(rival, model, steps, 1, found)


def describe_optimizer(
    name: str, models: tuple[str, ...], measured: bool = False
) -> dict[str, Any]:
    """What an optimizer's name stands for today, in plain JSON.

    Two runs whose descriptions are equal used the same tuned settings, weights and packages.

    Args:
        name: as `make_optimizer` takes it.
        models: names of the models that it will train.
        measured: whether the target is a number.

    Example:
        >>> describe_optimizer("denograd:identity", ("soft_tree",))["denoiser"]
        'identity'
    """
    spec = denoiser_of(name, measured)
    if spec is not None:
        weights = None if spec == "identity" else read_card(spec)["sha256"]
        return {"denoiser": spec, "sha256": weights, **settings_by_model(spec, models)}
    if name == CONTROL:
        tuned = read_control(control_file(measured))
        return {m: [asdict(entry) for entry in tuned if entry.model == m] for m in models}
    if name == CROSS_VALIDATED:
        return {"configurations": [list(c) for c in candidates()], "folds": FOLDS}
    rival = RIVALS[name.partition(":")[0]]
    described: dict[str, Any] = {"source": rival.source}
    if rival.package is not None:
        described["version"] = version(rival.package)
    if _is_untuned(name):
        return {**described, "settings": dict(rival.defaults)}
    entries = [t for t in read_tuned(RIVALS_FILE, RIVALS) if t.optimizer == rival.name]
    return {**described, **{m: [asdict(t) for t in entries if t.model == m] for m in models}}


def denoiser_of(name: str, measured: bool = False) -> str | None:
    """The denoiser that an optimizer's name asks for, None if it is a rival.

    Args:
        name: as `make_optimizer` takes it.
        measured: whether the target is a number, for which ``denograd`` is another denoiser.

    Raises:
        BaselineError: the name is not known.

    Example:
        >>> denoiser_of("denograd"), denoiser_of("denograd:identity"), denoiser_of("adamw")
        ('default', 'identity', None)
        >>> denoiser_of("denograd", measured=True)
        'regression'
    """
    head, colon, denoiser = name.partition(":")
    if name in (CONTROL, CROSS_VALIDATED) or name in RIVALS:
        return None
    if head in RIVALS and denoiser == _UNTUNED:
        return None
    if head == _DENOGRAD and bool(colon) == bool(denoiser):
        return denoiser or denoiser_for(measured)
    raise BaselineError(
        f"optimizer {name!r} is not known; use one of {', '.join(OPTIMIZER_NAMES)}, "
        "NAME:default for a rival as it comes, denograd:NAME for another shipped denoiser or "
        "denograd:PATH for saved weights"
    )
