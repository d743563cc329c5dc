"""What `denograd.DenoGrad` refuses, with the reason and the remedy."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer

from denograd.penalties import Penalty


def check_base(base: object) -> Optimizer:
    """Return the optimizer to wrap, or raise `TypeError` or `ValueError`."""
    if not isinstance(base, Optimizer):
        raise TypeError(
            f"DenoGrad: base is a {type(base).__name__}; it must be an instance of a "
            "torch.optim.Optimizer, such as torch.optim.AdamW(model.parameters(), lr=1e-3)"
        )
    needs_closure = inspect.signature(base.step).parameters.get("closure")
    required = needs_closure is not None and needs_closure.default is inspect.Parameter.empty
    if required or isinstance(base, torch.optim.LBFGS):
        raise TypeError(
            f"DenoGrad: base is a {type(base).__name__}, which evaluates the loss several "
            "times within a step; use an optimizer that needs one gradient a step"
        )
    if base.defaults.get("differentiable"):
        raise ValueError(
            f"DenoGrad: base {type(base).__name__} has differentiable=True; a step of DenoGrad "
            "keeps no graph. Use differentiable=False, or denograd.meta to differentiate "
            "through training"
        )
    return base


def knows_none(base: Optimizer) -> bool:
    """Whether the base's `zero_grad` takes ``set_to_none``; one of the user's own may not."""
    taken = inspect.signature(base.zero_grad).parameters
    return "set_to_none" in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values())


def check_count(name: str, value: object) -> int | None:
    """Return an optional count of at least 1, or raise `ValueError`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(
            f"DenoGrad: {name}={value!r}; it must be a whole number of at least 1, or None "
            "if it is not known"
        )
    return int(value)


def check_model(model: object, base: Optimizer) -> nn.Module | None:
    """Return the model, or raise if it is none or has nothing to do with the optimizer."""
    if model is None:
        return None
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"DenoGrad: model is a {type(model).__name__}; it must be the torch.nn.Module "
            "whose parameters are optimized, or None"
        )
    lazy = [n for n, p in model.named_parameters() if isinstance(p, UninitializedParameter)]
    if lazy:
        raise ValueError(
            f"DenoGrad: {lazy[0]} of {type(model).__name__} has no shape yet (a lazy module); run "
            "a batch through the model first, model(x), then make the optimizers"
        )
    own = {id(p) for group in base.param_groups for p in group["params"]}
    if own and not any(id(p) in own for p in model.parameters()):
        raise ValueError(
            f"DenoGrad: model {type(model).__name__} shares no parameter with base; give the "
            "model whose parameters the base optimizer was made with"
        )
    return model


def check_penalties(penalties: object, model: nn.Module | None) -> tuple[Penalty, ...]:
    """Return the penalties, or raise if they are none or there is no model to look at."""
    if isinstance(penalties, Penalty) or not isinstance(penalties, Sequence):
        raise TypeError(
            f"DenoGrad: penalties is a {type(penalties).__name__}; it must be a list of "
            "penalties, such as [denograd.penalties.Decorrelation(weight=0.1)]"
        )
    for penalty in penalties:
        if not isinstance(penalty, Penalty):
            raise TypeError(
                f"DenoGrad: penalties holds a {type(penalty).__name__}; it must hold penalties, "
                "such as denograd.penalties.Decorrelation(weight=0.1)"
            )
    if len({id(penalty) for penalty in penalties}) < len(penalties):
        raise ValueError("DenoGrad: penalties holds the same penalty twice; make one for each use")
    if penalties and model is None:
        raise ValueError(
            "DenoGrad: penalties without model=; give the model whose hidden values the penalties "
            "look at"
        )
    return tuple(penalties)


def parameter_names(groups: list[dict[str, Any]], model: nn.Module | None) -> dict[Tensor, str]:
    """A name for each parameter: the model's, the group's, or its place in the groups."""
    found = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    names: dict[Tensor, str] = {}
    for g, group in enumerate(groups):
        given = group.get("param_names", [])
        for i, parameter in enumerate(group["params"]):
            fallback = given[i] if i < len(given) else f"group {g}, parameter {i}"
            names[parameter] = found.get(id(parameter), fallback)
    return names


def check_parameters(groups: list[dict[str, Any]], model: nn.Module | None) -> None:
    """`check_parameter` on all parameters that are to be denoised."""
    names = parameter_names(groups, model)
    for group in groups:
        for parameter in group["params"] if group.get("denoise", True) else ():
            check_parameter(parameter, names[parameter])


def check_parameter(parameter: Tensor, name: str) -> None:
    """Raise `TypeError` for a parameter or `RuntimeError` for a gradient of the wrong kind."""
    if hasattr(parameter, "device_mesh"):
        raise TypeError(
            f"DenoGrad: parameter {name!r} is cut up over processes ({type(parameter).__name__}, "
            "as fully_shard makes them), and layers are denoised whole; keep the model whole, as "
            "in DistributedDataParallel, or put the parameter into a group with denoise=False"
        )
    if parameter.is_complex():
        raise TypeError(
            f"DenoGrad: parameter {name!r} is complex ({parameter.dtype}); only real "
            "parameters can be denoised. Put it into a group with denoise=False"
        )
    if parameter.grad is not None and parameter.grad.layout != torch.strided:
        raise RuntimeError(
            f"DenoGrad: parameter {name!r} has a sparse gradient; only dense gradients can be "
            "denoised. Make its module with sparse=False, or put it into a group with "
            "denoise=False"
        )
