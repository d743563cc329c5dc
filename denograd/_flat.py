"""Parameters joined into one vector, and the denoiser's statistics of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from denograd._checks import check_parameter, parameter_names
from denograd.denoisers import Denoiser, Layout, State

Piece: TypeAlias = dict[str, dict[str, Tensor]]
"""A parameter's part of a `State`: ``element`` of its shape, ``layer`` with 0 dimensions."""


class Active(NamedTuple):
    """A parameter that takes part in a step.

    Attributes:
        parameter: the parameter.
        group: index of its group.
        sign: -1.0 if its group maximizes, else 1.0.
    """

    parameter: Tensor
    group: int
    sign: float


def active_parameters(groups: list[dict[str, Any]], model: nn.Module | None) -> list[Active]:
    """The parameters to denoise now: with a gradient, in a group without ``denoise=False``.

    Raises:
        TypeError, RuntimeError: from `check_parameter`.
    """
    active = []
    for index, group in enumerate(groups):
        if not group.get("denoise", True):
            continue
        sign = -1.0 if group.get("maximize", False) else 1.0
        for p in group["params"]:
            if p.grad is None or not p.requires_grad or p.numel() == 0:
                continue
            if p.is_complex() or p.grad.layout != torch.strided:
                check_parameter(p, parameter_names(groups, model)[p])
            active.append(Active(p, index, sign))
    return active


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision in which a parameter is denoised: float32 for anything narrower."""
    return torch.promote_types(dtype, torch.float32)


class FlatGroup:
    """Parameters of one device and precision, as one vector of ``N`` numbers.

    Args:
        members: the parameters, ``L`` of them.

    Attributes:
        layout: how the vector is cut.
        counts: ``(L,)``, elements of each parameter.
        signs: ``(L,)``, or None if no group maximizes.
        state: the denoiser's state; `FlatGroups` sets it.
    """

    state: State

    def __init__(self, members: Sequence[Active]) -> None:
        self.parameters = [member.parameter for member in members]
        self.groups = [member.group for member in members]
        first = self.parameters[0]
        self.device, self.dtype = first.device, compute_dtype(first.dtype)
        self.layout = Layout.of(self.parameters)
        self.counts = self.tensor([float(size) for size in self.layout.sizes])
        maximizes = any(member.sign < 0 for member in members)
        self.signs = self.tensor([member.sign for member in members]) if maximizes else None

    def tensor(self, values: Sequence[float]) -> Tensor:
        """Host numbers on this group's device; only for what is made once."""
        return torch.tensor(values, device=self.device, dtype=self.dtype)

    def scalar(self, value: float) -> Tensor:
        """One host number on this group's device, without waiting for it."""
        return torch.full((), value, device=self.device, dtype=self.dtype)

    def join(self, tensors: Iterable[Tensor]) -> Tensor:
        """One tensor a parameter to a new vector ``(N,)``."""
        return torch.cat([tensor.reshape(-1).to(self.dtype) for tensor in tensors])

    def cut(self, flat: Tensor) -> list[Tensor]:
        """``(N,)`` to views of each parameter's shape."""
        parts = zip(self.layout.split(flat), self.parameters, strict=True)
        return [part.view(parameter.shape) for part, parameter in parts]

    def flipped(self, flat: Tensor) -> Tensor:
        """``(N,)`` with the sign turned where the parameter's group maximizes."""
        return flat if self.signs is None else flat * self.layout.spread(self.signs)

    def pieces(self) -> dict[Tensor, Piece]:
        """The state, cut up by parameter."""
        pieces: dict[Tensor, Piece] = {p: {"element": {}, "layer": {}} for p in self.parameters}
        for name, flat in self.state.element.items():
            for parameter, part in zip(self.parameters, self.cut(flat), strict=True):
                pieces[parameter]["element"][name] = part
        for name, values in self.state.layer.items():
            for parameter, part in zip(self.parameters, values.unbind(-1), strict=True):
                pieces[parameter]["layer"][name] = part
        return pieces


class FlatGroups:
    """The active parameters in flat groups, and the statistics of all others.

    The state stays joined while the same parameters are active, and is cut and joined
    anew when they change.

    Args:
        denoiser_for: the denoiser to use on a device, in a precision.
    """

    def __init__(self, denoiser_for: Callable[[torch.device, torch.dtype], Denoiser]) -> None:
        self._denoiser_for = denoiser_for
        self._key: tuple[object, ...] = ()
        self._groups: list[FlatGroup] = []
        self._pieces: dict[Tensor, Piece] = {}

    def pieces(self) -> dict[Tensor, Piece]:
        """The statistics of every parameter that was ever active."""
        current: dict[Tensor, Piece] = {}
        for group in self._groups:
            current |= group.pieces()
        return {**self._pieces, **current}

    def replace(self, pieces: dict[Tensor, Piece]) -> None:
        """Forget all statistics and take these."""
        self._key, self._groups, self._pieces = (), [], dict(pieces)

    def of(self, active: Sequence[Active], known: Iterable[Tensor]) -> list[FlatGroup]:
        """The flat groups of the parameters of this step.

        Args:
            active: the parameters of this step.
            known: all parameters of the optimizer; the statistics of others are dropped.
        """
        key = tuple((id(p), group, sign, p.device, p.dtype, p.shape) for p, group, sign in active)
        if key == self._key:
            return self._groups
        pieces, keep = self.pieces(), {id(p) for p in known}
        self._pieces = {p: piece for p, piece in pieces.items() if id(p) in keep}
        members: dict[tuple[torch.device, torch.dtype], list[Active]] = {}
        for member in active:
            p = member.parameter
            members.setdefault((p.device, compute_dtype(p.dtype)), []).append(member)
        self._groups = [FlatGroup(group) for group in members.values()]
        for group in self._groups:
            group.state = self._state_of(group)
        self._key = key
        return self._groups

    def _state_of(self, group: FlatGroup) -> State:
        denoiser = self._denoiser_for(group.device, group.dtype)
        new = [p for p in group.parameters if not _fits(self._pieces.get(p), p)]
        if new:
            joined = torch.cat([p.detach().reshape(-1).to(group.dtype) for p in new])
            fresh = FlatGroup([Active(p, 0, 1.0) for p in new])
            fresh.state = denoiser.init_state(joined, fresh.layout)
            self._pieces |= fresh.pieces()
        pieces = [self._pieces[p] for p in group.parameters]
        element = {
            name: group.join(piece["element"][name].to(group.device) for piece in pieces)
            for name in pieces[0]["element"]
        }
        layer = {
            name: torch.stack(
                [piece["layer"][name].to(group.device, group.dtype) for piece in pieces]
            )
            for name in pieces[0]["layer"]
        }
        return State(element, layer)


def _fits(piece: Piece | None, parameter: Tensor) -> bool:
    return piece is not None and all(
        part.shape == parameter.shape for part in piece["element"].values()
    )
