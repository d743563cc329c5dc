"""Sums of soft trees, among them oblivious ones (Popov et al. 2019)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from denograd.models._base import check_sizes, hide_classes
from denograd.models._trees import HardTrees, TreeModel, check_depth, check_temperature, descend
from denograd.models.layers import BroadcastParameter, Choice, FeatureTokenizer


class SoftForest(TreeModel):
    """Soft trees whose leaf scores add up.

    ``f(x) = sum_t sum_l P_tl(x) phi_tl``, with ``P_tl`` the probability of the path to leaf
    ``l`` of tree ``t`` and ``phi_tl`` its class scores, or its value in regression. Gates are
    those of `SoftTree`.

    With ``oblivious=True`` the trees are those of Popov et al. 2019, "Neural Oblivious
    Decision Ensembles for Deep Learning on Tabular Data", arXiv 1909.06312, section 3.1: all
    nodes of a level share one gate, ``sigmoid(scale (choice(x) - threshold))``, whose
    feature is chosen by ``entmax`` (so most features have a share of exactly 0), or by
    softmax or sparsemax. Theirs has an entmax over two options in place of the sigmoid; the
    sigmoid's gradient never vanishes altogether, which matters on few rows.

    Args:
        n_features: number of features ``F``.
        n_classes: number of classes ``C``, at least 2; None for regression.
        trees: number of trees ``T``.
        depth: number of gates on a path; a tree has ``2**depth`` leaves.
        oblivious: whether the nodes of a level share their gate.
        choice: how an oblivious gate chooses features: ``entmax``, ``sparsemax``,
            ``softmax``.
        temperature: how soft the gates are; near 0 the trees are hard.

    Raises:
        ValueError: a size that is not a whole number of at least 1 (2 for classes), a depth
            above 16, a temperature that is not above 0, or a choice that is not known.

    Example:
        >>> forest = SoftForest(n_features=4, n_classes=3, trees=5, depth=2)
        >>> forest(torch.zeros(7, 4)).shape
        torch.Size([7, 3])
        >>> len(forest.to_rules())
        20
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int | None,
        trees: int = 8,
        depth: int = 3,
        oblivious: bool = False,
        choice: Literal["softmax", "sparsemax", "entmax"] = "entmax",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(
            "SoftForest", n_features=n_features, n_classes=n_classes, trees=trees, depth=depth
        )
        check_depth("SoftForest", depth)
        self.temperature = check_temperature("SoftForest", temperature)
        self.n_features, self.n_classes = n_features, n_classes
        self.trees, self.depth, self.oblivious = trees, depth, oblivious
        self._gates_per_tree = depth if oblivious else 2**depth - 1
        units = trees * self._gates_per_tree
        if oblivious:
            self.choice = Choice(units, n_features, choice)
            self.gates: FeatureTokenizer | nn.Linear = FeatureTokenizer(units, 1)
        else:
            self.gates = nn.Linear(n_features, units)
        self.leaves = BroadcastParameter(trees, 2**depth, self.n_outputs)
        self.reset_parameters()

    def reset_parameters(self, fan_in: int | None = None) -> None:
        """Draw new initial weights.

        Args:
            fan_in: number of features that are real; default: all.
        """
        if self.oblivious:
            self.choice.reset_parameters()
            # A threshold within the bulk of a standardised feature, in steep enough a gate.
            nn.init.constant_(self.gates.weight, 2.0)
            nn.init.normal_(self.gates.bias)
        else:
            bound = (fan_in or self.n_features) ** -0.5
            nn.init.uniform_(self.gates.weight, -bound, bound)
            nn.init.zeros_(self.gates.bias)
        nn.init.normal_(self.leaves.weight, std=0.3 * self.trees**-0.5)

    def _descend(self, x: Tensor, feature_mask: Tensor | None) -> list[Tensor]:
        """Log probability of each node, ``(batch, T, 1)`` to ``(batch, T, leaves)``."""
        if self.oblivious:
            gates = self.gates(self.choice(x, feature_mask)).squeeze(-1)
        else:
            gates = self.gates(x if feature_mask is None else x * feature_mask)
        if self.temperature != 1:
            gates = gates / self.temperature
        gates = gates.unflatten(-1, (self.trees, self._gates_per_tree))
        return descend(gates, self.depth, oblivious=self.oblivious)

    def log_path_probabilities(self, x: Tensor) -> Tensor:
        """Logarithm of the probability of each leaf, ``(batch, F)`` to ``(batch, T, leaves)``."""
        return self._descend(self._check_input(x), None)[-1]

    def forward(
        self, x: Tensor, feature_mask: Tensor | None = None, class_mask: Tensor | None = None
    ) -> Tensor:
        """Class scores, ``(batch, F)`` to ``(batch, n_outputs)``; in regression the prediction."""
        paths = self._descend(self._check_input(x), feature_mask)[-1].exp()
        scores = (paths.unsqueeze(-1) * self.leaves(x.shape[0])).sum((-3, -2))
        return hide_classes(scores, class_mask)

    def padding_masks(self, feature_mask: Tensor, class_mask: Tensor) -> dict[str, Tensor]:
        """Which elements of each parameter belong to real features and classes."""
        name = "choice.weight" if self.oblivious else "gates.weight"
        weight = self.choice.weight if self.oblivious else self.gates.weight
        return {
            name: feature_mask.expand_as(weight),
            "leaves.weight": class_mask.expand_as(self.leaves.weight),
        }

    def _hard_trees(self) -> HardTrees:
        if not self.oblivious:
            weight = self.gates.weight.unflatten(0, (self.trees, -1))
            threshold = -self.gates.bias.unflatten(0, (self.trees, -1))
            return HardTrees(weight, threshold, self.leaves.weight)
        scale = self.gates.weight.unflatten(0, (self.trees, -1))
        shift = self.gates.bias.unflatten(0, (self.trees, -1))
        weight = scale * self.choice.shares().unflatten(0, (self.trees, -1))
        # The gate of a level stands at each of its nodes.
        nodes = torch.repeat_interleave(2 ** torch.arange(self.depth))
        return HardTrees(weight[:, nodes], -shift[:, nodes, 0], self.leaves.weight)

    def _node_reach(self, x: Tensor) -> Tensor:
        return torch.cat(self._descend(x, None)[:-1], dim=-1).exp()
