"""Forward passes of a stack of tasks, written out for the models that are trained most.

`torch.func.vmap` takes any model, but turns a product of many rows with a task's weights
into one small product a row, and has no way to see what is the same for all rows. Written
for the whole stack, the same numbers come out (to rounding), and sooner;
`docs/benchmark-meta-training.md` says by how much.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from denograd.meta.row_moments import traced_forward
from denograd.models import FeatureAttention, SoftTree, TabularModel, TemporalAttention
from denograd.models._base import HIDDEN
from denograd.models._sparse import Normalizer, normalized
from denograd.models._trees import descend

Forward = Callable[[dict[str, Tensor], Tensor, Tensor, Tensor], Tensor]
"""From the parameters by name, each ``(T, *shape)``, rows ``(T, b, F)`` and the masks of
features and classes, ``(T, F)`` and ``(T, C)``, to class scores ``(T, b, C)``."""

DEEPEST = 6
"""Up to this depth a product with a constant matrix sums the gates of all paths fastest."""


def stacked_forward(template: TabularModel) -> Forward | None:
    """The forward pass of a stack of such models; None if there is none but `vmap`'s.

    Example:
        >>> tree = SoftTree(4, 3, depth=2)
        >>> forward = stacked_forward(tree)
        >>> stack = {n: torch.stack((p, 2 * p)) for n, p in tree.named_parameters()}
        >>> masks = torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
        >>> x = torch.randn(2, 7, 4)
        >>> torch.allclose(forward(stack, x, *masks)[0], tree(x[0]), atol=1e-6)
        True
    """
    traced = traced_forward(template)
    if traced is not None:
        return lambda *inputs: traced(*inputs)[0]
    # A subclass may compute something else.
    if type(template) is SoftTree:
        depth, temperature = template.depth, template.temperature
        measured = template.n_classes is None
        return lambda *inputs: _soft_tree(depth, temperature, measured, *inputs)
    if type(template) is FeatureAttention:
        heads, normalize = template.heads, template.normalize
        return lambda *inputs: _attention(heads, normalize, *inputs)
    if type(template) is TemporalAttention:
        return lambda *inputs: _temporal_attention(template, *inputs)
    return None


def _soft_tree(
    depth: int,
    temperature: float,
    measured: bool,
    parameters: dict[str, Tensor],
    x: Tensor,
    feature_mask: Tensor,
    class_mask: Tensor,
) -> Tensor:
    """`SoftTree.forward`; the leaves' distributions are taken once a task, not once a row."""
    bias = parameters["gates.bias"].unsqueeze(1)
    gates = torch.baddbmm(bias, x * feature_mask.unsqueeze(1), parameters["gates.weight"].mT)
    if temperature != 1:
        gates = gates / temperature
    if depth > DEEPEST:
        paths = descend(gates, depth)[-1]
    else:
        left, right = _turns(depth, gates.dtype, gates.device)
        paths = F.logsigmoid(gates) @ right + F.logsigmoid(-gates) @ left
    if measured:
        return paths.exp() @ parameters["leaves.weight"]
    scores = parameters["leaves.weight"].masked_fill(~class_mask.unsqueeze(1), HIDDEN)
    leaves = F.log_softmax(scores, dim=-1)
    return torch.logsumexp(paths.unsqueeze(-1) + leaves.unsqueeze(1), dim=-2)


@lru_cache(maxsize=64)
def _turns(depth: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which gates the path to each leaf passes to the left and to the right.

    Two of ``(2**depth - 1, 2**depth)``, 1 where it does.
    """
    left = torch.zeros(2**depth - 1, 2**depth, dtype=dtype)
    right = torch.zeros_like(left)
    for leaf in range(2**depth):
        for level in range(depth):
            node = leaf >> (depth - level)
            turns_right = leaf >> (depth - level - 1) & 1
            (right if turns_right else left)[2**level - 1 + node, leaf] = 1
    return left.to(device), right.to(device)


def _attention(
    heads: int,
    normalize: Normalizer,
    parameters: dict[str, Tensor],
    x: Tensor,
    feature_mask: Tensor,
    class_mask: Tensor,
) -> Tensor:
    """`FeatureAttention.forward`; values are taken of what the heads read.

    Weights over features sum to 1, so reading and the value layer, which is affine, can
    change places; there are fewer heads than features.
    """
    weight, bias = (parameters[f"tokenizer.{part}"].unsqueeze(1) for part in ("weight", "bias"))
    tokens = torch.addcmul(bias, x.unsqueeze(-1), weight)
    tasks, rows, features, width = tokens.shape
    seen = torch.tanh(tokens).reshape(tasks, rows * features, width)
    scores = (parameters["score.weight"] @ seen.mT).reshape(tasks, heads, rows, features)
    scores = scores.masked_fill(~feature_mask[:, None, None, :], HIDDEN)
    weights = normalized(scores, normalize).transpose(1, 2)
    return _classified(parameters, weights @ F.gelu(tokens), class_mask)


def _temporal_attention(
    template: TemporalAttention,
    parameters: dict[str, Tensor],
    x: Tensor,
    feature_mask: Tensor,
    class_mask: Tensor,
) -> Tensor:
    """`TemporalAttention.forward`; the convolution is a product with windows of the sequence."""
    real = feature_mask.unflatten(-1, (template.n_channels, template.length))
    sequences = x.unflatten(-1, real.shape[1:]).masked_fill(~real.unsqueeze(1), 0.0)
    half = template.kernel // 2
    windows = F.pad(sequences, (half, half)).unfold(-1, template.kernel, 1)
    tasks, rows, channels, steps, kernel = windows.shape
    windows = windows.permute(0, 1, 3, 2, 4).reshape(tasks, rows * steps, channels * kernel)
    weight, bias = parameters["embed.weight"].flatten(2), parameters["embed.bias"]
    places = template.positions.to(x.dtype) @ parameters["place.weight"].mT
    tokens = torch.bmm(windows, weight.mT).reshape(tasks, rows, steps, -1)
    tokens = tokens + (places + bias.unsqueeze(1)).unsqueeze(1)
    seen = torch.tanh(tokens).reshape(tasks, rows * steps, -1)
    scores = (parameters["score.weight"] @ seen.mT).reshape(tasks, template.heads, rows, steps)
    scores = scores.masked_fill(~real.any(1)[:, None, None, :], HIDDEN)
    weights = normalized(scores, template.normalize).transpose(1, 2)
    return _classified(parameters, weights @ F.gelu(tokens), class_mask)


def _classified(parameters: dict[str, Tensor], read: Tensor, class_mask: Tensor) -> Tensor:
    """Class scores from what the heads read of the tokens, ``(T, b, H, d)``."""
    tasks, rows, heads, width = read.shape
    values = torch.baddbmm(
        parameters["value.bias"].unsqueeze(1),
        read.reshape(tasks, rows * heads, width),
        parameters["value.weight"].mT,
    )
    logits = torch.baddbmm(
        parameters["classifier.bias"].unsqueeze(1),
        values.reshape(tasks, rows, heads * width),
        parameters["classifier.weight"].mT,
    )
    return logits.masked_fill(~class_mask.unsqueeze(1), HIDDEN)
