"""Row contributions of `torch.nn.Embedding`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from denograd.noise._rows import RowGradients
from denograd.noise._rules import register_noise_rule


class EmbeddingRows(RowGradients):
    """``c_i[v] = sum of d_ip over the positions p with index v``.

    Args:
        indices: ``(B, P)``, integers.
        gradient: ``(B, P, D)``.
        vocabulary: number of embeddings ``V``.
    """

    def __init__(self, indices: Tensor, gradient: Tensor, vocabulary: int) -> None:
        super().__init__(indices.shape[0])
        self.indices, self.gradient, self.vocabulary = indices, gradient, vocabulary

    def dense(self, rows: slice) -> Tensor:
        """The contributions, ``(len(rows), V, D)``."""
        indices, gradient = self.indices[rows], self.gradient[rows]
        index = indices.unsqueeze(-1).expand_as(gradient)
        zeros = gradient.new_zeros(len(indices), self.vocabulary, gradient.shape[-1])
        return zeros.scatter_add_(1, index, gradient)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Without building ``(B, V, D)``: what a row says of one index is summed in place."""
        index, order = self.indices.sort(1)
        gradient = self.gradient.gather(1, order.unsqueeze(-1).expand_as(self.gradient))
        # Equal indices stand together now; the first of each begins a run of its own.
        begins = torch.zeros_like(index)
        begins[:, 1:] = (index[:, 1:] != index[:, :-1]).to(index.dtype)
        run = begins.cumsum(1)
        sums = torch.zeros_like(gradient).scatter_add(
            1, run.unsqueeze(-1).expand_as(gradient), gradient
        )
        of_run = torch.zeros_like(index).scatter(1, run, index).flatten()
        zeros = gradient.new_zeros(self.vocabulary, gradient.shape[-1])
        squares = zeros.index_add(0, of_run, sums.square().flatten(0, 1))
        return squares, zeros.index_add(0, of_run, sums.flatten(0, 1))


def embedding_rows(
    module: nn.Embedding, inputs: tuple[Any, ...], output_gradient: Tensor
) -> Mapping[str, RowGradients]:
    """The gradient of each looked-up vector, gathered by index.

    Args:
        module: the layer.
        inputs: indices, ``(B, ...)``.
        output_gradient: ``(B, ..., D)``.

    Returns:
        the contributions; none for a single index, sparse gradients, or gradients that
        are scaled by an index's frequency in the batch.
    """
    indices = inputs[0]
    if indices.dim() < 1 or module.sparse or module.scale_grad_by_freq:
        return {}
    rows = indices.shape[0]
    gradient = output_gradient.reshape(rows, -1, module.embedding_dim)
    indices = indices.reshape(rows, -1)
    if module.padding_idx is not None:
        gradient = gradient.masked_fill((indices == module.padding_idx).unsqueeze(-1), 0.0)
    return {"weight": EmbeddingRows(indices, gradient, module.num_embeddings)}


register_noise_rule(nn.Embedding, embedding_rows)
