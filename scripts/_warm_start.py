"""Weights of a denoiser of an older form, put into one with more features and wider bounds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from denograd.denoisers import WienerDenoiser
from denograd.denoisers.wiener import COEFFICIENTS

_OLD_BOUNDS = {"update_bound": 2.5, "decay_bound": 3.0}
"""What the bounds were before they were settings."""


@torch.no_grad()
def warm_start(path: Path, denoiser: WienerDenoiser) -> WienerDenoiser:
    """Give a denoiser the weights of another, so that it begins as nearly the same function.

    Features that the old one did not know begin with weights of 0, and so do the outgoing
    weights of hidden units that it did not have. Where a bound became wider, the last layer
    shrinks by the same factor: the coefficient is the same where ``tanh`` is nearly linear.

    Args:
        path: ``.safetensors`` of the old one, its card beside it.
        denoiser: is changed in place; not narrower than the old one.

    Returns:
        the denoiser.

    Raises:
        ValueError: the old one is wider, or pooled features differ.
    """
    old, card = load_file(path), json.loads(path.with_suffix(".json").read_text())
    config = card["config"]
    if config["pooled"] != denoiser.pooled or config["hidden"] > denoiser.hidden:
        raise ValueError(f"{path}: its config {config} does not fit into {denoiser.config}")
    names, width = list(card["features"]), config["hidden"]
    here = [denoiser.feature_names.index(name) for name in names]
    if denoiser.pooled:
        here += [len(denoiser.feature_names) + i for i in here]
    first, second, last = denoiser.first, denoiser.second, denoiser.last
    first.weight[:width] = 0.0
    first.weight[:width, here] = old["first.weight"]
    second.weight[:width] = 0.0
    _copy(second, old["second.weight"], old["second.bias"])
    last.weight.zero_()
    _copy(last, old["last.weight"], old["last.bias"])
    first.bias[:width] = old["first.bias"]
    for coefficient, bound in (("update_gain", "update_bound"), ("decay", "decay_bound")):
        factor = config.get(bound, _OLD_BOUNDS[bound]) / denoiser.config[bound]
        if not math.isclose(factor, 1.0):
            row = COEFFICIENTS.index(coefficient)
            last.weight[row] *= factor
            last.bias[row] *= factor
    return denoiser


def _copy(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    rows, columns = weight.shape
    layer.weight[:rows, :columns] = weight
    layer.bias[:rows] = bias
