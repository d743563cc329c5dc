"""Where an outer loop stands, and the file that it goes on from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from denograd._files import write_whole
from denograd.meta.config import MetaTrainingError


@dataclass
class Progress:
    """Where an outer loop stands.

    Attributes:
        step: meta-steps done.
        elapsed: seconds of training, over all resumed runs.
        left_out: tasks left out for an exploding or non-finite gradient.
        tasks: tasks drawn, those left out among them.
        norms: median norms of a task's gradient, of the last meta-steps.
        best: best meta-validation ratio so far, or None.
        history: one record for each meta-validation.
    """

    step: int = 0
    elapsed: float = 0.0
    left_out: int = 0
    tasks: int = 0
    norms: list[float] = field(default_factory=list)
    best: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def write_checkpoint(
    path: Path,
    progress: Progress,
    denoiser: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write all that a run goes on from, in one file, so that no half of it is ever read.

    Args:
        path: of the file.
        progress: where the outer loop stands.
        denoiser: the weights that are trained.
        average: their running average.
        optimizer: of the outer loop.
    """
    tensors = {f"denoiser.{k}": v for k, v in denoiser.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
    metadata = {"progress": json.dumps(asdict(progress))}
    write_whole(path, save({k: v.contiguous() for k, v in tensors.items()}, metadata))


def read_checkpoint(
    path: Path, denoiser: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Put what `write_checkpoint` wrote back where it came from.

    Returns:
        where the outer loop stood.

    Raises:
        MetaTrainingError: the file is damaged, or of another denoiser.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        progress = Progress(**json.loads(metadata["progress"]))
        denoiser.load_state_dict(_part(tensors, "denoiser."))
        average.load_state_dict(_part(tensors, "average."))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise MetaTrainingError(
            f"{path} cannot be read ({error}); start anew in another --out"
        ) from error
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "adam.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return progress


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What a run's description says otherwise than the one it was started with, in words.

    Options that one of the two lacks, because another version wrote it, are named as such.

    Example:
        >>> differences({"config": {"seed": 0}}, {"config": {"seed": 1, "clip": 2.0}})
        ['config.seed (was 0, now 1)', 'config.clip (unknown to the version that started it)']
    """
    if not (isinstance(before, dict) and isinstance(now, dict)):
        if before == now:
            return []
        short = all(len(repr(value)) < 40 for value in (before, now))
        return [f"{name} (was {before!r}, now {now!r})" if short else name]
    found = []
    for key in [*now, *(k for k in before if k not in now)]:
        path = f"{name}.{key}" if name else str(key)
        if key not in before:
            found.append(f"{path} (unknown to the version that started it)")
        elif key not in now:
            found.append(f"{path} (unknown to this version)")
        else:
            found += differences(before[key], now[key], path)
    return found


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
