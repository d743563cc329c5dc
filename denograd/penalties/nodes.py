"""Gates of a soft tree that repeat what a gate above them has asked."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from denograd.models import SoftForest, SoftTree
from denograd.models._trees import descend
from denograd.penalties._base import Penalty
from denograd.penalties._sites import Site, child
from denograd.penalties._statistics import nothing, weighted_square_correlation


def node_correlation(gates: Tensor, depth: int) -> Tensor:
    """Mean squared correlation of each gate with the gates above it, from 0 to 1.

    A gate that opens for the same rows as one above it splits nothing any more. With ``p_i``
    the probability of going right at node ``i`` and ``P_j`` that of reaching node ``j``,
    ``rho_ij`` is the correlation of ``p_i`` and ``p_j`` over rows that count by ``P_j``, and
    the penalty is ``sum_j m_j sum_i rho_ij^2 / sum_j m_j depth_j``, with ``i`` over the
    nodes above ``j``, ``m_j`` the mean of ``P_j`` over rows and ``depth_j`` their number.
    Gates on different branches may ask the same; they do so of different rows.

    Counting rows by path probability is how Frosst and Hinton 2017, "Distilling a Neural
    Network Into a Soft Decision Tree", arXiv 1711.09784, keep gates balanced (the penalty
    ``alpha_i = sum_x P_i(x) p_i(x) / sum_x P_i(x)`` of their section on regularizers); squared
    correlation is DeCov's (Cogswell et al. 2016, arXiv 1511.06068) for standardised
    activations. The combination is ours. It looks at activations and not at the weight
    vectors of gates, because correlated features make different weights ask the same.

    Args:
        gates: log odds of going right, ``(N, T, 2**depth - 1)``, node by node from the root,
            for ``T`` trees.
        depth: levels of gates.

    Returns:
        0-dim; the mean over trees.

    Example:
        >>> root = torch.tensor([-4.0, -3.0, 3.0, 4.0])[:, None, None]
        >>> other = torch.tensor([-3.0, 3.0, -3.0, 3.0])[:, None, None]
        >>> repeats = torch.cat((root, root, root), -1)
        >>> asks_anew = torch.cat((root, other, other), -1)
        >>> bool(node_correlation(repeats, 2) > 0.9), bool(node_correlation(asks_anew, 2) < 0.1)
        (True, True)
    """
    if gates.shape[0] < 2 or depth < 2:
        return nothing(gates)
    below, above = _pairs(depth, gates.device)
    reach = torch.cat(descend(gates, depth)[:-1], dim=-1).exp()[..., below]
    opens = torch.sigmoid(gates)
    square = weighted_square_correlation(opens[..., below], opens[..., above], reach)
    # The nodes of a level are reached with a probability of 1 in all.
    return (reach.mean(0) * square).sum() / (gates.shape[1] * depth * (depth - 1) / 2)


@lru_cache(maxsize=64)
def _pairs(depth: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Numbers of all nodes below the root, once for each node above them, and of that node."""
    pairs = []
    for node in range(1, 2**depth - 1):
        parent = node
        while parent:
            parent = (parent - 1) // 2
            pairs.append((node, parent))
    below, above = torch.tensor(pairs, device=device).unbind(1)
    return below, above


def _of_tree(depth: int, temperature: float, x: Tensor) -> Tensor:
    return node_correlation(x.unsqueeze(-2) / temperature, depth)


def _of_forest(trees: int, depth: int, temperature: float, oblivious: bool, x: Tensor) -> Tensor:
    gates = x.flatten(1).unflatten(-1, (trees, -1)) / temperature
    if oblivious:
        # The gate of a level stands at each of its nodes.
        counts = 2 ** torch.arange(depth, device=x.device)
        gates = gates.repeat_interleave(counts, dim=-1, output_size=2**depth - 1)
    return node_correlation(gates, depth)


def node_sites(name: str, module: nn.Module) -> list[Site]:
    """The gates of a soft tree or forest."""
    if isinstance(module, SoftTree):
        penalty = partial(_of_tree, module.depth, module.temperature)
    elif isinstance(module, SoftForest):
        penalty = partial(
            _of_forest, module.trees, module.depth, module.temperature, module.oblivious
        )
    else:
        return []
    form = "squared correlation of gates with the gates above them"
    return [Site(child(name, "gates"), module.gates, penalty, form)]


class NodeDecorrelation(Penalty):
    """Keep the gates of soft trees from repeating those above them (`node_correlation`).

    It has a meaning for `denograd.models.SoftTree` and `denograd.models.SoftForest`; a tree
    of one gate has a penalty of 0.

    Args:
        weight: factor of the penalty in the loss, at least 0.
        modules: trees and forests, or their names; None for all in the model.
        scaler: the `torch.amp.GradScaler` that scales the loss, if one does.

    Raises:
        ValueError: the weight is below 0 or not finite.

    Example:
        >>> from denograd import DenoGrad
        >>> tree = SoftTree(4, 3, depth=2)
        >>> base = torch.optim.SGD(tree.parameters(), lr=0.1)
        >>> penalties = [NodeDecorrelation(weight=0.1)]
        >>> DenoGrad(base, "identity", model=tree, penalties=penalties).penalties[0].describe()
        ["'gates' (Linear): squared correlation of gates with the gates above them"]
    """

    def sites_of(self, name: str, module: nn.Module) -> list[Site]:
        """The gates of a soft tree or forest."""
        return node_sites(name, module)
