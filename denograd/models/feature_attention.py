"""Attention over named features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denograd.models._base import HIDDEN, TabularModel, check_sizes, hide_classes
from denograd.models._sparse import Normalizer, check_normalizer, normalized
from denograd.models.layers import FeatureTokenizer


class FeatureAttention(TabularModel):
    """Heads that weigh features, and a classifier on what they read.

    Each feature becomes a token (Gorishniy et al. 2021, section 3.3). A head scores every
    token by an additive attention ``score_hj = v_h . tanh(token_j)`` (Bahdanau et al.
    2015, appendix A.1.2) and averages the tokens' values with ``softmax_j(score_hj)``.
    Those weights, one a head, row and feature, are the explanation. Sparsemax and entmax in
    place of softmax give features that do not matter a weight of exactly 0.

    Args:
        n_features: number of features ``F``.
        n_classes: number of classes ``C``, at least 2; None for regression.
        width: size of a token ``d``.
        heads: number of heads ``H``, at most ``width``.
        normalize: how scores become weights: ``softmax``, ``sparsemax`` or ``entmax``.

    Raises:
        ValueError: a size that is not a whole number of at least 1 (2 for classes), more
            heads than ``width``, or a ``normalize`` that is not known.

    Example:
        >>> model = FeatureAttention(n_features=4, n_classes=3)
        >>> model(torch.zeros(5, 4)).shape
        torch.Size([5, 3])
        >>> weights = model.attention(torch.zeros(5, 4))
        >>> weights.shape, bool(torch.allclose(weights.sum(-1), torch.ones(5, 2)))
        (torch.Size([5, 2, 4]), True)
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int | None,
        width: int = 8,
        heads: int = 2,
        normalize: Normalizer = "softmax",
    ) -> None:
        super().__init__()
        check_sizes(
            "FeatureAttention",
            n_features=n_features,
            n_classes=n_classes,
            width=width,
            heads=heads,
        )
        check_heads("FeatureAttention", width, heads)
        self.normalize = check_normalizer("FeatureAttention", normalize)
        self.n_features, self.n_classes = n_features, n_classes
        self.width, self.heads = width, heads
        self.tokenizer = FeatureTokenizer(n_features, width)
        # A bias would move all scores of a head alike, which softmax ignores.
        self.score = nn.Linear(width, heads, bias=False)
        self.value = nn.Linear(width, width)
        self.classifier = nn.Linear(heads * width, self.n_outputs)
        # Where hooks find the weights.
        self.attended = nn.Identity()

    def reset_parameters(self, fan_in: int | None = None) -> None:
        """Draw new initial weights.

        Args:
            fan_in: number of features that are real; no layer here depends on it.
        """
        for layer in (self.tokenizer, self.score, self.value, self.classifier):
            layer.reset_parameters()

    def _weights(self, tokens: Tensor, feature_mask: Tensor | None) -> Tensor:
        scores = self.score(torch.tanh(tokens))
        if feature_mask is not None:
            scores = scores.masked_fill(~feature_mask.unsqueeze(-1), HIDDEN)
        if self.normalize == "softmax":
            weights = F.softmax(scores, dim=-2).transpose(-1, -2)
        else:
            weights = normalized(scores.transpose(-1, -2), self.normalize)
        attended: Tensor = self.attended(weights)
        return attended

    def attention(self, x: Tensor, feature_mask: Tensor | None = None) -> Tensor:
        """Weights over features, ``(batch, F)`` to ``(batch, H, F)``; they sum to 1."""
        return self._weights(self.tokenizer(self._check_input(x)), feature_mask)

    def forward(
        self, x: Tensor, feature_mask: Tensor | None = None, class_mask: Tensor | None = None
    ) -> Tensor:
        """Class scores, ``(batch, F)`` to ``(batch, n_outputs)``; in regression the prediction."""
        tokens = self.tokenizer(self._check_input(x))
        read = self._weights(tokens, feature_mask) @ self.value(F.gelu(tokens))
        return hide_classes(self.classifier(read.flatten(-2)), class_mask)

    def padding_masks(self, feature_mask: Tensor, class_mask: Tensor) -> dict[str, Tensor]:
        """Which elements of each parameter belong to real features and classes."""
        token = feature_mask.unsqueeze(-1)
        return {
            "tokenizer.weight": token.expand_as(self.tokenizer.weight),
            "tokenizer.bias": token.expand_as(self.tokenizer.bias),
            "classifier.weight": class_mask.unsqueeze(-1).expand_as(self.classifier.weight),
            "classifier.bias": class_mask.expand_as(self.classifier.bias),
        }

    @torch.no_grad()
    def feature_importance(self, x: Tensor) -> Tensor:
        """The mean of the attention weights over heads and rows, ``(F,)``; sums to 1."""
        return self.attention(x).mean(dim=(0, 1))


def check_heads(owner: str, width: int, heads: int) -> None:
    """Raise a `ValueError` if there are more heads than a token has numbers."""
    if heads > width:
        raise ValueError(
            f"{owner}: heads={heads} is more than width={width}; heads that read so narrow a "
            "token repeat each other, use fewer heads or a larger width"
        )
