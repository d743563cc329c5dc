"""Small modules that let noise capture see parameters that no `nn.Linear` holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from denograd.models._base import HIDDEN
from denograd.models._sparse import Normalizer, check_normalizer, normalized


class BroadcastParameter(nn.Module):
    """A parameter that every row of a batch uses, handed out once a row.

    Because each row gets its own view, the gradient that reaches row ``i`` of the output
    is row ``i``'s gradient of the parameter, which is what noise capture needs.

    Args:
        shape: shape of the parameter.

    Example:
        >>> BroadcastParameter(4, 3)(batch_size=2).shape
        torch.Size([2, 4, 3])
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*shape))

    def forward(self, batch_size: int) -> Tensor:
        """The parameter, ``(batch_size, *shape)``."""
        return self.weight.expand(batch_size, *self.weight.shape)


class FeatureTokenizer(nn.Module):
    """One token a feature: ``token_j = x_j * weight_j + bias_j``.

    The tokenizer of numerical features in Gorishniy et al. 2021, "Revisiting Deep
    Learning Models for Tabular Data", section 3.3.

    Args:
        n_features: number of features ``F``.
        width: size of a token ``d``.

    Example:
        >>> FeatureTokenizer(5, 8)(torch.zeros(2, 5)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_features, width))
        self.bias = nn.Parameter(torch.empty(n_features, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases uniformly from ``[-1/sqrt(d), 1/sqrt(d)]``."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens, ``(batch, F)`` to ``(batch, F, d)``."""
        return x.unsqueeze(-1) * self.weight + self.bias


class StackedLinear(nn.Module):
    """One linear layer for each of ``G`` groups, all of them in one product.

    ``y_g = x_g weight_g + bias_g``.

    Args:
        groups: number of groups ``G``.
        inputs: inputs of a group ``I``.
        outputs: outputs of a group ``O``.
        bias: whether there is a bias.

    Example:
        >>> StackedLinear(5, 8, 3)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 3])
    """

    bias: nn.Parameter | None

    def __init__(self, groups: int, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, inputs, outputs))
        if bias:
            self.bias = nn.Parameter(torch.empty(groups, outputs))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases uniformly from ``[-1/sqrt(I), 1/sqrt(I)]``."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs, ``(batch, G, I)`` to ``(batch, G, O)``."""
        y = torch.einsum("bgi,gio->bgo", x, self.weight)
        return y if self.bias is None else y + self.bias


class Choice(nn.Module):
    """Each of ``K`` units reads a mixture of features that it can narrow down to one.

    ``y_k = sum_j share_kj x_j`` with ``share_k = normalize(weight_k)``: with entmax the
    choice of features in Popov et al. 2019, "Neural Oblivious Decision Ensembles",
    arXiv 1909.06312, section 3.1.

    Args:
        units: number of units ``K``.
        n_features: number of features ``F``.
        normalize: ``softmax``, ``sparsemax`` or ``entmax``.

    Raises:
        ValueError: ``normalize`` is not known.

    Example:
        >>> Choice(units=6, n_features=4)(torch.zeros(2, 4)).shape
        torch.Size([2, 6])
    """

    def __init__(self, units: int, n_features: int, normalize: Normalizer = "entmax") -> None:
        super().__init__()
        self.normalize = check_normalizer("Choice", normalize)
        self.weight = nn.Parameter(torch.empty(units, n_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights from a standard normal distribution, so that no two units are alike."""
        nn.init.normal_(self.weight)

    def shares(self, feature_mask: Tensor | None = None) -> Tensor:
        """The share of each feature in each unit, ``(K, F)``; rows sum to 1."""
        weight: Tensor = self.weight
        if feature_mask is not None:
            weight = weight.masked_fill(~feature_mask, HIDDEN)
        return normalized(weight, self.normalize)

    def forward(self, x: Tensor, feature_mask: Tensor | None = None) -> Tensor:
        """What each unit reads, ``(batch, F)`` to ``(batch, K)``."""
        return x @ self.shares(feature_mask).mT
