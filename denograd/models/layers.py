"""Small modules that let noise capture see parameters that no `nn.Linear` holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
