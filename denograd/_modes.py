"""Modes of modules and of arithmetic, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every submodule then gets back the mode that it had."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


@contextmanager
def plain_arithmetic(device: torch.device, grad: bool = False) -> Iterator[None]:
    """Full precision even under autocast, with a graph only where one is asked for."""
    with torch.set_grad_enabled(grad):
        if torch.is_autocast_enabled(device.type):
            with torch.autocast(device.type, enabled=False):
                yield
        else:
            yield
