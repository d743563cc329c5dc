"""Row contributions of `denograd.models.BroadcastParameter`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from denograd.models import BroadcastParameter
from denograd.noise._rows import Dense, RowGradients
from denograd.noise._rules import register_noise_rule


def broadcast_rows(
    module: BroadcastParameter, inputs: tuple[Any, ...], output_gradient: Tensor
) -> Mapping[str, RowGradients]:
    """Each row has its own view, so the output's gradient is the contribution."""
    return {"weight": Dense(output_gradient)}


register_noise_rule(BroadcastParameter, broadcast_rows)
