"""The optimizer that a denoiser wants to be wrapped around."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from denograd.denoisers.card import DenoiserFileError
from denograd.denoisers.storage import read_card
from denograd.models import TabularModel
from denograd.models._base import is_number
from denograd.models.registry import name_of

_BASES: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
_DEFAULT: Mapping[str, Any] = {"name": "adamw", "lr": 1e-2, "weight_decay": 0.0}


_Name = TypeVar("_Name", bound=str | None)


def recommended_base(
    model: nn.Module, denoiser: str | os.PathLike[str] = "default"
) -> torch.optim.Optimizer:
    """The base optimizer that a denoiser's card recommends, for a model's parameters.

    Which learning rate is best depends more on the architecture than on the data. A card gives
    one for each architecture on which that made a difference, and one for all others.

    Args:
        model: one of `denograd.models`, or any other. Give the model itself, before
            `torch.compile` or DistributedDataParallel wraps it: a wrapper or a subclass counts
            as any other model.
        denoiser: name of a shipped denoiser, ``"identity"``, path to saved weights, or an address
            on the Hugging Face Hub (``"hf://owner/name"``).

    Returns:
        an optimizer for `denograd.DenoGrad`.

    Raises:
        DenoiserFileError: the denoiser's card cannot be read, or names a base optimizer, or an
            argument of one, that is not known, or a learning rate that is none.
        TypeError: the denoiser is neither a name nor a path.

    Example:
        >>> from denograd.models import SoftTree
        >>> tree = SoftTree(n_features=4, n_classes=2)
        >>> base = recommended_base(tree)
        >>> type(base).__name__, base.param_groups[0]["lr"]
        ('AdamW', 0.01)
    """
    return make_base(model, base_settings(denoiser, name_of(model)))


def base_settings(denoiser: str | os.PathLike[str], model_name: str | None) -> dict[str, Any]:
    """The base optimizer that a denoiser's card recommends, as `make_base` takes it.

    The card says so under ``base``, by itself or among what is said of its training:
    ``{"name": "adamw", "lr": 0.01, "weight_decay": 0.0, "lr_by_model": {"attention": 0.002}}``.
    Where it is silent, and for ``identity``, that is AdamW with learning rate 0.01 and no decay.

    Args:
        denoiser: name of a shipped denoiser, ``"identity"``, or path to saved weights.
        model_name: as `denograd.models.registry.make_model` takes it; None for a model of
            another kind.

    Raises:
        DenoiserFileError: the card cannot be read, or its base is not as above.
        TypeError: the denoiser is neither a name nor a path.
    """
    return settings_by_model(denoiser, [model_name])[model_name]


def settings_by_model(
    denoiser: str | os.PathLike[str], model_names: Iterable[_Name]
) -> dict[_Name, dict[str, Any]]:
    """`base_settings` of several models, from one reading of the card."""
    if not isinstance(denoiser, str | os.PathLike):
        raise TypeError(
            f"denoiser={denoiser!r} has no card to read; give a name or a path, or make the base "
            "optimizer yourself"
        )
    if denoiser == "identity":
        return {name: dict(_DEFAULT) for name in model_names}
    card = read_card(denoiser)
    base = card.get("base", card["training"].get("base", {}))
    base = {"name": base} if isinstance(base, str) else _object(denoiser, "base", base)
    settings = {**_DEFAULT, **base}
    by_model = _object(denoiser, "lr_by_model", settings.pop("lr_by_model", {}))
    for key, rate in (("lr", settings["lr"]), *by_model.items()):
        if not (is_number(rate) and 0 < rate < math.inf):
            raise DenoiserFileError(
                f"{denoiser}: the card's base has the rate {rate!r} for {key!r}; it must be a "
                "number above 0: correct the card, or make the base optimizer yourself"
            )
    return {name: {**settings, "lr": by_model.get(name, settings["lr"])} for name in model_names}


def make_base(model: nn.Module, settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    """A torch optimizer from `base_settings`.

    Raises:
        DenoiserFileError: an optimizer or an argument of it that is not known.
    """
    arguments = dict(settings)
    name = arguments.pop("name")
    if not isinstance(name, str) or name not in _BASES:
        raise DenoiserFileError(
            f"base optimizer {name!r} is not known; use one of {', '.join(_BASES)}"
        )
    known = [key for key in inspect.signature(_BASES[name]).parameters if key != "params"]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise DenoiserFileError(
            f"base optimizer {name!r} takes no {', '.join(unknown)}; it takes {', '.join(known)}"
        )
    # Some models keep layers from being denoised, and say so in their groups.
    groups = model.parameter_groups() if isinstance(model, TabularModel) else model.parameters()
    return _BASES[name](groups, **arguments)


def _object(denoiser: str | os.PathLike[str], key: str, value: Any) -> dict[Any, Any]:
    """The value of a card's key, if it is a JSON object."""
    if not isinstance(value, dict):
        raise DenoiserFileError(
            f"{denoiser}: the card's {key!r} must be a JSON object, got {value!r}; correct the "
            "card, or make the base optimizer yourself"
        )
    return value
