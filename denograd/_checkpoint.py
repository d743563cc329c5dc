"""The ``denograd`` part of a state dict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from denograd._checks import check_count
from denograd._flat import Active, FlatGroup, Piece
from denograd.denoisers import Denoiser

SCHEMA = 1
"""Version of the ``denograd`` part of a state dict."""


def pack(parameters: Sequence[Tensor], pieces: dict[Tensor, Piece], **run: Any) -> dict[str, Any]:
    """The part to save: facts about the run, and statistics by the parameter's index."""
    statistics = {i: cloned(pieces[p]) for i, p in enumerate(parameters) if p in pieces}
    return {"schema": SCHEMA, **run, "parameters": statistics}


def cloned(piece: Piece) -> Piece:
    """A copy that shares no memory, so that a saved file holds nothing else."""
    return {kind: {k: x.clone() for k, x in values.items()} for kind, values in piece.items()}


def unpack(part: Any, parameters: Sequence[Tensor], denoiser: Denoiser) -> dict[Tensor, Piece]:
    """The statistics of each parameter, from what `pack` made.

    Raises:
        ValueError: the part is of another schema, another denoiser or other parameters.
    """
    schema = part.get("schema") if isinstance(part, dict) else None
    if schema != SCHEMA:
        raise ValueError(
            f"DenoGrad: the state dict has schema {schema!r}, and this version reads {SCHEMA}; "
            "load it with the version of denograd that saved it"
        )
    for name in ("total_steps", "dataset_size"):
        check_count(name, part[name])
    check_count("batch_size", part.get("batch_size"))  # States of earlier versions have none.
    pieces: dict[Tensor, Piece] = {}
    for index, saved in part["parameters"].items():
        if index >= len(parameters):
            raise ValueError(
                f"DenoGrad: the state dict has statistics of parameter {index}, but there are "
                f"only {len(parameters)} parameters; make the optimizer for the model that was "
                "saved"
            )
        parameter = parameters[index]
        piece: Piece = {kind: dict(saved[kind]) for kind in ("element", "layer")}
        expected = _names(denoiser, parameter)
        found = {kind: set(values) for kind, values in piece.items()}
        if found != expected:
            raise ValueError(
                f"DenoGrad: the state dict has the statistics {found}, and "
                f"{type(denoiser).__name__} keeps {expected}; use the denoiser that was saved"
            )
        for name, tensor in piece["element"].items():
            if tensor.shape != parameter.shape:
                raise ValueError(
                    f"DenoGrad: the state dict has {name!r} of parameter {index} in shape "
                    f"{tuple(tensor.shape)}, and the parameter has {tuple(parameter.shape)}; "
                    "make the optimizer for the model that was saved"
                )
        pieces[parameter] = piece
    return pieces


def _names(denoiser: Denoiser, parameter: Tensor) -> dict[str, set[str]]:
    group = FlatGroup([Active(parameter, 0, 1.0)])
    state = denoiser.init_state(group.join([parameter.detach()]), group.layout)
    return {"element": set(state.element), "layer": set(state.layer)}
