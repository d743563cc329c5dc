"""What all penalties share: a weight, where they look, and what they found last."""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from denograd.models._base import is_number
from denograd.penalties._sites import Site, named, search, unique


@runtime_checkable
class Scaler(Protocol):
    """What is used of a `torch.amp.GradScaler`."""

    def scale(self, outputs: Any) -> Any:
        """The outputs, multiplied by the scale."""

    def is_enabled(self) -> bool:
        """Whether it scales at all."""


class Penalty(ABC):
    """A term of the loss that `denograd.DenoGrad` adds during the backward pass.

    A penalty belongs to one optimizer. It looks at tensors of the model (`sites_of`) and
    says what is to be kept small there; its value is the sum over them.

    Args:
        weight: factor of the penalty in the loss, at least 0. It may be set anew at any
            time, and holds from the next forward pass on.
        modules: modules of the model, or their names, to look at; None to pick them.
        scaler: the `torch.amp.GradScaler` that scales the loss, if one does.

    Raises:
        ValueError: ``weight`` is below 0 or not finite, or ``modules`` is empty.
        TypeError: ``modules`` is no sequence, or ``scaler`` no scaler.
    """

    def __init__(
        self,
        weight: float,
        modules: Sequence[str | nn.Module] | None = None,
        *,
        scaler: Scaler | None = None,
    ) -> None:
        self.weight = weight
        self.modules = self._checked_modules(modules)
        self.scaler = scaler
        self._value: Tensor | None = None
        self._starts_anew = True
        self._dropped: dict[torch.device, Tensor] = {}
        self._dropped_before = 0
        self._picked: list[str] = []
        self._logged = False
        self._owner: weakref.ref[object] | None = None

    @abstractmethod
    def sites_of(self, name: str, module: nn.Module) -> list[Site]:
        """What to look at in a module, if it is of a kind that this form has a meaning for.

        Args:
            name: of the module in the model.
            module: the module.

        Returns:
            the sites; none makes the search go on in the module's children.
        """

    def fallback_sites(self, model: nn.Module) -> list[Site]:
        """What to look at where `sites_of` found nothing anywhere in the model."""
        return []

    def site_of_named(self, name: str, module: nn.Module) -> Site | None:
        """What to look at in a module that was asked for and that `sites_of` knows nothing of."""
        return None

    def find(self, model: nn.Module) -> list[Site]:
        """What this penalty looks at in a model.

        Raises:
            ValueError: there is nothing that this form has a meaning for, or one of
                ``modules`` is not in the model.
        """
        owner = type(self).__name__
        if self.modules is None:
            found = unique(search("", model, self.sites_of)) or self.fallback_sites(model)
            if not found:
                raise ValueError(
                    f"{owner}: the model {type(model).__name__} has no part that this penalty "
                    "has a meaning for; name the parts with modules=[...], or use another form"
                )
            return found
        sites: list[Site] = []
        for name, module in named(owner, model, self.modules):
            inside = self.sites_of(name, module)
            if not inside:
                site = self.site_of_named(name, module)
                inside = [] if site is None else [site]
            if not inside:
                raise ValueError(
                    f"{owner}: modules holds {name!r}, a {type(module).__name__}, which this "
                    "penalty has no meaning for; leave it out, or use another form"
                )
            sites += inside
        return unique(iter(sites))

    @property
    def weight(self) -> float:
        """Factor of the penalty in the loss."""
        return self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        if not is_number(weight) or not math.isfinite(weight) or weight < 0:
            raise ValueError(
                f"{type(self).__name__}: weight={weight!r}; it must be a finite number of at "
                "least 0"
            )
        self._weight = float(weight)

    @property
    def scaler(self) -> Scaler | None:
        """The `torch.amp.GradScaler` that scales the loss, or None."""
        return self._scaler

    @scaler.setter
    def scaler(self, scaler: Scaler | None) -> None:
        if scaler is not None and not isinstance(scaler, Scaler):
            raise TypeError(
                f"{type(self).__name__}: scaler is a {type(scaler).__name__}; it must be the "
                "torch.amp.GradScaler that scales the loss, or None"
            )
        self._scaler = scaler

    @property
    def value(self) -> Tensor | None:
        """The penalty in the last forward pass, before its weight; 0-dim, without a graph.

        None before the first one. Nothing waits for the device.
        """
        return self._value

    @property
    def dropped(self) -> int:
        """How often a gradient of this penalty was not finite and was left out.

        Reading it waits for the device.
        """
        return self._dropped_before + sum(int(count) for count in self._dropped.values())

    def describe(self) -> list[str]:
        """What was picked, one line a place; empty before an optimizer took it on."""
        return list(self._picked)

    def _options(self) -> dict[str, Any]:
        """Arguments that `repr` shows besides the weight."""
        return {}

    def __repr__(self) -> str:
        shown = {"weight": self.weight, **self._options()}
        inside = ", ".join(f"{key}={value!r}" for key, value in shown.items())
        places = f" at {'; '.join(self._picked)}" if self._picked else ""
        return f"<{type(self).__name__}({inside}){places}>"

    def __getstate__(self) -> dict[str, Any]:
        # A copy of a scaler would go its own way, and scale by something else.
        state = {**self.__dict__, "_dropped_before": self.dropped}
        fresh: dict[str, Any] = {
            "_dropped": {},
            "_value": None,
            "_starts_anew": True,
            "_owner": None,
        }
        return {**state, **fresh, "_scaler": None}

    def _claim(self, owner: object) -> None:
        """Let an owner use this penalty until it releases it."""
        if self._owner is not None and self._owner() is not None:
            raise ValueError(
                f"{type(self).__name__}: this penalty works for another DenoGrad already; make a "
                "new one, or call detach_penalties() on the other"
            )
        self._owner = weakref.ref(owner)

    def _release(self) -> None:
        self._owner = None

    def _note(self, value: Tensor) -> None:
        """Take in the value of one site, in one forward pass."""
        value = value.detach()
        if not self._starts_anew and self._value is not None:
            value = self._value.to(value, non_blocking=True) + value
        self._value, self._starts_anew = value, False

    def _count_dropped(self, fine: Tensor) -> None:
        count = (~fine).long()
        if fine.device in self._dropped:
            count = count + self._dropped[fine.device]
        self._dropped[fine.device] = count

    def _checked_modules(
        self, modules: Sequence[str | nn.Module] | None
    ) -> tuple[str | nn.Module, ...] | None:
        if modules is None:
            return None
        owner = type(self).__name__
        # A Sequential or a ModuleList can be iterated over, and so can a name.
        if isinstance(modules, (str, nn.Module)) or not isinstance(modules, Sequence):
            raise TypeError(
                f"{owner}: modules is a {type(modules).__name__}; it must be a list of modules "
                "or of their names, or None to pick them"
            )
        if not modules:
            raise ValueError(f"{owner}: modules is empty; name at least one, or leave it out")
        return tuple(modules)
