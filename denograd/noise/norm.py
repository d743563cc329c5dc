"""Row contributions of the scales and shifts of normalisation layers.

All of them compute ``y = weight * xhat + bias``; row ``i`` contributes the sum over its
positions of ``d * xhat`` to the scale and of ``d`` to the shift. In batch normalisation
``xhat`` depends on the other rows too; what is counted is the row's own term of the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from denograd.noise._rows import Dense, RowGradients
from denograd.noise._rules import register_noise_rule

_UNBATCHED = {nn.InstanceNorm1d: 2, nn.InstanceNorm2d: 3, nn.InstanceNorm3d: 4}
"""Rank of an input without a batch dimension."""


def _by_channel(normalised: Tensor, gradient: Tensor) -> Mapping[str, RowGradients]:
    """Sums over all but rows and channels, ``(B, C, ...)`` to ``(B, C)``."""
    scale = (gradient * normalised).reshape(*gradient.shape[:2], -1).sum(2)
    return {
        "weight": Dense(scale),
        "bias": Dense(gradient.reshape(*gradient.shape[:2], -1).sum(2)),
    }


def layer_norm_rows(
    module: nn.LayerNorm, inputs: tuple[Any, ...], output_gradient: Tensor
) -> Mapping[str, RowGradients]:
    """Contributions of ``(B, ..., *normalized_shape)``; none without a batch dimension."""
    x, shape = inputs[0], tuple(module.normalized_shape)
    if x.dim() == len(shape):
        return {}
    normalised = F.layer_norm(x, shape, eps=module.eps)
    rows = x.shape[0]
    return {
        "weight": Dense((output_gradient * normalised).reshape(rows, -1, *shape).sum(1)),
        "bias": Dense(output_gradient.reshape(rows, -1, *shape).sum(1)),
    }


def group_norm_rows(
    module: nn.GroupNorm, inputs: tuple[Any, ...], output_gradient: Tensor
) -> Mapping[str, RowGradients]:
    """Contributions of ``(B, C, ...)``."""
    return _by_channel(F.group_norm(inputs[0], module.num_groups, eps=module.eps), output_gradient)


def batch_norm_rows(
    module: nn.modules.batchnorm._BatchNorm, inputs: tuple[Any, ...], output_gradient: Tensor
) -> Mapping[str, RowGradients]:
    """Contributions of ``(B, C, ...)``, with statistics of the batch or running ones."""
    x = inputs[0]
    if module.training or module.running_mean is None or module.running_var is None:
        normalised = F.batch_norm(x, None, None, training=True, eps=module.eps)
    else:
        mean, variance = module.running_mean.to(x.dtype), module.running_var.to(x.dtype)
        normalised = F.batch_norm(x, mean, variance, training=False, eps=module.eps)
    return _by_channel(normalised, output_gradient)


def instance_norm_rows(
    module: nn.modules.instancenorm._InstanceNorm, inputs: tuple[Any, ...], output_gradient: Tensor
) -> Mapping[str, RowGradients]:
    """Contributions of ``(B, C, *space)``; none without a batch dimension."""
    x = inputs[0]
    if any(x.dim() == rank for kind, rank in _UNBATCHED.items() if isinstance(module, kind)):
        return {}
    if module.training or module.running_mean is None or module.running_var is None:
        normalised = F.instance_norm(x, eps=module.eps)
    else:
        mean, variance = module.running_mean.to(x.dtype), module.running_var.to(x.dtype)
        normalised = F.batch_norm(x, mean, variance, training=False, eps=module.eps)
    return _by_channel(normalised, output_gradient)


register_noise_rule(nn.LayerNorm, layer_norm_rows)
register_noise_rule(nn.GroupNorm, group_norm_rows)
for _batch in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
    register_noise_rule(_batch, batch_norm_rows)
for _instance in _UNBATCHED:
    register_noise_rule(_instance, instance_norm_rows)
