"""Soft decision trees (Frosst and Hinton 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denograd.models._base import TabularModel, check_sizes
from denograd.models.layers import BroadcastParameter


class SoftTree(TabularModel):
    """A binary tree whose inner nodes are sigmoid gates and whose leaves score classes.

    Frosst and Hinton 2017, "Distilling a Neural Network Into a Soft Decision Tree",
    arXiv 1711.09784. An inner node ``i`` sends a row to the right with probability
    ``p_i(x) = sigmoid(x w_i + b_i)`` (their equation 1); a leaf ``l`` holds class scores
    ``phi_l`` and ``Q_l = softmax(phi_l)`` (equation 2). The output is the logarithm of
    the mixture of the leaves, ``log sum_l P_l(x) Q_l``, with ``P_l`` the probability of
    the path to ``l``. All of it is computed from logarithms, so that the path
    probabilities of deep trees do not underflow.

    Args:
        n_features: number of features ``F``.
        n_classes: number of classes ``C``, at least 2.
        depth: number of gates on a path; the tree has ``2**depth`` leaves.

    Raises:
        ValueError: a size that is not a whole number of at least 1 (2 for classes), or a
            depth above 16.

    Example:
        >>> tree = SoftTree(n_features=4, n_classes=3, depth=2)
        >>> log_probabilities = tree(torch.zeros(5, 4))
        >>> log_probabilities.shape
        torch.Size([5, 3])
        >>> bool(torch.allclose(log_probabilities.exp().sum(-1), torch.ones(5)))
        True
    """

    def __init__(self, n_features: int, n_classes: int, depth: int = 3) -> None:
        super().__init__()
        check_sizes("SoftTree", n_features=n_features, n_classes=n_classes, depth=depth)
        if depth > 16:
            raise ValueError(
                f"SoftTree: depth={depth} makes {2**depth} leaves; use a depth of at most 16"
            )
        self.n_features, self.n_classes, self.depth = n_features, n_classes, depth
        self.gates = nn.Linear(n_features, 2**depth - 1)
        self.leaves = BroadcastParameter(2**depth, n_classes)
        self.reset_parameters()

    def reset_parameters(self, fan_in: int | None = None) -> None:
        """Draw new initial weights.

        Args:
            fan_in: number of features that are real; default: all.
        """
        bound = (fan_in or self.n_features) ** -0.5
        nn.init.uniform_(self.gates.weight, -bound, bound)
        nn.init.zeros_(self.gates.bias)
        nn.init.normal_(self.leaves.weight, std=0.3)

    def _descend(self, x: Tensor) -> list[Tensor]:
        """Log probability of each node, level by level: ``(batch, 1)`` to ``(batch, leaves)``."""
        gates = self.gates(x)
        levels = [torch.zeros_like(gates[..., :1])]
        for level in range(self.depth):
            gate = gates[..., 2**level - 1 : 2 ** (level + 1) - 1]
            branches = torch.stack((F.logsigmoid(-gate), F.logsigmoid(gate)), dim=-1)
            levels.append((levels[-1].unsqueeze(-1) + branches).flatten(-2))
        return levels

    def log_path_probabilities(self, x: Tensor) -> Tensor:
        """Logarithm of the probability of each leaf, ``(batch, F)`` to ``(batch, leaves)``."""
        return self._descend(self._check_input(x))[-1]

    def forward(
        self, x: Tensor, feature_mask: Tensor | None = None, class_mask: Tensor | None = None
    ) -> Tensor:
        """Logarithm of the class probabilities, ``(batch, F)`` to ``(batch, C)``."""
        if feature_mask is not None:
            x = x * feature_mask
        scores = self.leaves(x.shape[0])
        if class_mask is not None:
            scores = scores.masked_fill(~class_mask, -1e9)
        leaves = F.log_softmax(scores, dim=-1)
        return torch.logsumexp(self.log_path_probabilities(x).unsqueeze(-1) + leaves, dim=-2)

    def padding_masks(self, feature_mask: Tensor, class_mask: Tensor) -> dict[str, Tensor]:
        """Which elements of each parameter belong to real features and classes."""
        return {
            "gates.weight": feature_mask.expand_as(self.gates.weight),
            "leaves.weight": class_mask.expand_as(self.leaves.weight),
        }

    @torch.no_grad()
    def feature_importance(self, x: Tensor) -> Tensor:
        """How much each feature moves the gates that rows of ``x`` pass, ``(F,)``.

        The gate weights' magnitudes, each gate counted by the share of rows that reach it,
        times the feature's standard deviation over ``x``; they sum to 1.
        """
        inner = self._descend(self._check_input(x))[:-1]
        reach = torch.cat(inner, dim=-1).exp().mean(0)
        weight = (reach[:, None] * self.gates.weight.abs()).sum(0)
        weight = weight * x.std(0, correction=0)
        return weight / weight.sum().clamp_min(1e-12)
