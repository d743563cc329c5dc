"""Row contributions of the convolutions `torch.nn.Conv1d`, ``Conv2d`` and ``Conv3d``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from denograd.noise._rows import Dense, RowGradients
from denograd.noise._rules import register_noise_rule

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


class ConvolutionRows(RowGradients):
    """``c_i = sum_p d_ip window_ip^T``, group by group.

    Args:
        gradient: ``(B, G, O / G, P)``, the output's gradient over ``P`` positions.
        windows: ``(B, G, C / G, *positions, *kernel)``, a view of the padded input.
        shape: shape of the weight, ``(O, C / G, *kernel)``.
    """

    def __init__(self, gradient: Tensor, windows: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__(gradient.shape[0])
        self.gradient, self.windows, self.shape = gradient, windows, shape

    def dense(self, rows: slice) -> Tensor:
        """The contributions of some rows; only their windows are copied."""
        gradient, windows = self.gradient[rows], self.windows[rows]
        spatial = len(self.shape) - 2
        positions = range(3, 3 + spatial)
        kernel = range(3 + spatial, 3 + 2 * spatial)
        columns = windows.permute(0, 1, *positions, 2, *kernel)
        columns = columns.reshape(*gradient.shape[:2], gradient.shape[3], -1)
        return (gradient @ columns).reshape(gradient.shape[0], *self.shape)


def convolution_rows(
    module: Convolution, inputs: tuple[Any, ...], output_gradient: Tensor
) -> Mapping[str, RowGradients]:
    """Any stride, padding and its modes, dilation and groups.

    Args:
        module: the layer.
        inputs: ``(B, C, *space)``.
        output_gradient: ``(B, O, *positions)``.

    Returns:
        the contributions; none for an input without a batch dimension.
    """
    spatial = len(module.kernel_size)
    image = inputs[0]
    if image.dim() != spatial + 2:
        return {}
    windows = _padded(module, image)
    for axis in range(spatial):
        reach = module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
        windows = windows.unfold(2 + axis, reach, module.stride[axis])
        windows = windows[..., :: module.dilation[axis]]
    windows = windows.view(len(image), module.groups, -1, *windows.shape[2:])
    gradient = output_gradient.flatten(2)
    grouped = gradient.reshape(len(image), module.groups, -1, gradient.shape[2])
    return {
        "weight": ConvolutionRows(grouped, windows, tuple(module.weight.shape)),
        "bias": Dense(gradient.sum(2)),
    }


def _padded(module: Convolution, image: Tensor) -> Tensor:
    pads: list[int] = []
    for axis in reversed(range(len(module.kernel_size))):
        if module.padding == "same":
            total = module.dilation[axis] * (module.kernel_size[axis] - 1)
            pads += [total // 2, total - total // 2]
        elif isinstance(module.padding, str):
            pads += [0, 0]
        else:
            pads += [module.padding[axis]] * 2
    if not any(pads):
        return image
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(image, pads, mode=mode)


for _kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
    register_noise_rule(_kind, convolution_rows)
