"""Soft decision trees (Frosst and Hinton 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denograd.models._base import check_sizes, hide_classes
from denograd.models._trees import HardTrees, TreeModel, check_depth, check_temperature, descend
from denograd.models.layers import BroadcastParameter


class SoftTree(TreeModel):
    """A binary tree whose inner nodes are sigmoid gates and whose leaves score classes.

    Frosst and Hinton 2017, "Distilling a Neural Network Into a Soft Decision Tree",
    arXiv 1711.09784. An inner node ``i`` sends a row to the right with probability
    ``p_i(x) = sigmoid((x w_i + b_i) / temperature)`` (their equation 1, their inverse
    temperature being ``1 / temperature``); a leaf ``l`` holds class scores ``phi_l`` and
    ``Q_l = softmax(phi_l)`` (equation 2). The output is the logarithm of the mixture of the
    leaves, ``log sum_l P_l(x) Q_l``, with ``P_l`` the probability of the path to ``l``. All
    of it is computed from logarithms, so that the path probabilities of deep trees do not
    underflow. In regression a leaf holds a value, and the output is ``sum_l P_l(x) phi_l``.

    Args:
        n_features: number of features ``F``.
        n_classes: number of classes ``C``, at least 2; None for regression.
        depth: number of gates on a path; the tree has ``2**depth`` leaves.
        temperature: how soft the gates are; near 0 the tree is hard.

    Raises:
        ValueError: a size that is not a whole number of at least 1 (2 for classes), a
            depth above 16, or a temperature that is not above 0.

    Example:
        >>> tree = SoftTree(n_features=4, n_classes=3, depth=2)
        >>> log_probabilities = tree(torch.zeros(5, 4))
        >>> log_probabilities.shape
        torch.Size([5, 3])
        >>> bool(torch.allclose(log_probabilities.exp().sum(-1), torch.ones(5)))
        True
        >>> SoftTree(n_features=4, n_classes=None)(torch.zeros(5, 4)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self, n_features: int, n_classes: int | None, depth: int = 3, temperature: float = 1.0
    ) -> None:
        super().__init__()
        check_sizes("SoftTree", n_features=n_features, n_classes=n_classes, depth=depth)
        check_depth("SoftTree", depth)
        self.temperature = check_temperature("SoftTree", temperature)
        self.n_features, self.n_classes, self.depth = n_features, n_classes, depth
        self.gates = nn.Linear(n_features, 2**depth - 1)
        self.leaves = BroadcastParameter(2**depth, self.n_outputs)
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
        if self.temperature != 1:
            gates = gates / self.temperature
        return descend(gates, self.depth)

    def log_path_probabilities(self, x: Tensor) -> Tensor:
        """Logarithm of the probability of each leaf, ``(batch, F)`` to ``(batch, leaves)``."""
        return self._descend(self._check_input(x))[-1]

    def forward(
        self, x: Tensor, feature_mask: Tensor | None = None, class_mask: Tensor | None = None
    ) -> Tensor:
        """Logarithm of the class probabilities, ``(batch, F)`` to ``(batch, n_outputs)``.

        In regression the prediction itself, ``(batch, 1)``.
        """
        if feature_mask is not None:
            x = x * feature_mask
        paths = self.log_path_probabilities(x).unsqueeze(-1)
        scores: Tensor = self.leaves(x.shape[0])
        if self.n_classes is None:
            return (paths.exp() * scores).sum(-2)
        leaves = F.log_softmax(hide_classes(scores, class_mask), dim=-1)
        return torch.logsumexp(paths + leaves, dim=-2)

    def padding_masks(self, feature_mask: Tensor, class_mask: Tensor) -> dict[str, Tensor]:
        """Which elements of each parameter belong to real features and classes."""
        return {
            "gates.weight": feature_mask.expand_as(self.gates.weight),
            "leaves.weight": class_mask.expand_as(self.leaves.weight),
        }

    def _hard_trees(self) -> HardTrees:
        leaves: Tensor = self.leaves.weight
        if self.n_classes is not None:
            leaves = F.log_softmax(leaves, dim=-1)
        return HardTrees(self.gates.weight[None], -self.gates.bias[None], leaves[None])

    def _node_reach(self, x: Tensor) -> Tensor:
        return torch.cat(self._descend(x)[:-1], dim=-1).exp().unsqueeze(1)
