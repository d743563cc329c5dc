"""Attention over the steps of a sequence."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denograd.models._base import (
    HIDDEN,
    TabularModel,
    check_floating,
    check_sizes,
    hide_classes,
    shares,
)
from denograd.models._sparse import Normalizer, check_normalizer, normalized
from denograd.models.feature_attention import check_heads

_PERIODS = tuple(2.0**k for k in range(2, 11))
"""Of the sines that tell a step's position, in steps. Fixed, so that padding moves nothing."""


class TemporalAttention(TabularModel):
    """Heads that weigh the steps of a sequence, and a classifier on what they read.

    A convolution over ``kernel`` steps makes a token of each step, and sines of its position
    are added (Vaswani et al. 2017, arXiv 1706.03762, section 3.5, here through a linear
    map). A head scores every token by ``score_ht = v_h . tanh(token_t)`` (Bahdanau et al.
    2015, appendix A.1.2) and averages the tokens' values with ``softmax_t(score_ht)``. Those
    weights, one a head, row and step, are the explanation; a weight speaks of the ``kernel``
    steps around its own.

    Args:
        n_channels: number of channels ``N``.
        length: number of steps ``L``.
        n_classes: number of classes ``C``, at least 2; None for regression.
        width: size of a token ``d``.
        heads: number of heads ``H``, at most ``width``.
        normalize: how scores become weights: ``softmax``, ``sparsemax`` or ``entmax``.
        kernel: steps that a token is made of, an odd number; 1 for its own alone.

    Raises:
        ValueError: a size that is not a whole number of at least 1 (2 for classes), more
            heads than ``width``, an even ``kernel``, or an unknown ``normalize``.

    Example:
        >>> model = TemporalAttention(n_channels=2, length=10, n_classes=3)
        >>> model(torch.zeros(5, 2, 10)).shape
        torch.Size([5, 3])
        >>> mask = torch.arange(10) < 7
        >>> model.attention(torch.zeros(1, 20), mask[None])[0, 0, 7:]
        tensor([0., 0., 0.], grad_fn=...)
    """

    positions: Tensor

    def __init__(
        self,
        n_channels: int,
        length: int,
        n_classes: int | None,
        width: int = 8,
        heads: int = 2,
        normalize: Normalizer = "softmax",
        kernel: int = 3,
    ) -> None:
        super().__init__()
        check_sizes(
            "TemporalAttention",
            n_channels=n_channels,
            length=length,
            n_classes=n_classes,
            width=width,
            heads=heads,
            kernel=kernel,
        )
        check_heads("TemporalAttention", width, heads)
        if kernel % 2 == 0:
            raise ValueError(
                f"TemporalAttention: kernel={kernel}; it must be odd, so that a step has as many "
                "neighbours before it as after it"
            )
        self.normalize = check_normalizer("TemporalAttention", normalize)
        self.n_channels, self.length, self.n_classes = n_channels, length, n_classes
        self.n_features = n_channels * length
        self.width, self.heads, self.kernel = width, heads, kernel
        self.embed = nn.Conv1d(n_channels, width, kernel, padding=kernel // 2)
        self.place = nn.Linear(2 * len(_PERIODS), width, bias=False)
        # A bias would move all scores of a head alike, which softmax ignores.
        self.score = nn.Linear(width, heads, bias=False)
        self.value = nn.Linear(width, width)
        self.classifier = nn.Linear(heads * width, self.n_outputs)
        # Where hooks find the weights.
        self.attended = nn.Identity()
        angle = 2 * math.pi * torch.arange(length).unsqueeze(-1) / torch.tensor(_PERIODS)
        positions = torch.cat((angle.sin(), angle.cos()), dim=-1)
        self.register_buffer("positions", positions, persistent=False)

    def reset_parameters(self, fan_in: int | None = None) -> None:
        """Draw new initial weights.

        Args:
            fan_in: number of features that are real; no layer here depends on it.
        """
        for layer in (self.embed, self.place, self.score, self.value, self.classifier):
            layer.reset_parameters()

    def _check_sequences(self, x: Tensor) -> Tensor:
        """Rows as ``(batch, N, L)``."""
        check_floating("TemporalAttention", x)
        if x.dim() == 2 and x.shape[-1] == self.n_features:
            return x.reshape(-1, self.n_channels, self.length)
        if x.dim() != 3 or x.shape[1:] != (self.n_channels, self.length):
            raise ValueError(
                f"TemporalAttention: x has shape {tuple(x.shape)}; it must be "
                f"(batch, {self.n_channels}, {self.length}), channels by steps, or "
                f"(batch, {self.n_features})"
            )
        return x

    def _masks(
        self, x: Tensor, feature_mask: Tensor | None, step_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Rows with zeros for padding, and which steps are real, ``(batch or 1, L)``."""
        if step_mask is not None:
            if step_mask.dtype != torch.bool or step_mask.shape != (x.shape[0], self.length):
                raise ValueError(
                    f"TemporalAttention: step_mask has shape {tuple(step_mask.shape)} and type "
                    f"{step_mask.dtype}; it must be boolean, ({x.shape[0]}, {self.length}), True "
                    "for real steps"
                )
            x = torch.where(step_mask.unsqueeze(1), x, 0.0)
        if feature_mask is not None:
            real = feature_mask.unflatten(-1, (self.n_channels, self.length))
            x = torch.where(real, x, 0.0)
            steps = real.any(0).unsqueeze(0)
            step_mask = steps if step_mask is None else step_mask & steps
        return x, step_mask

    def _tokens(self, x: Tensor) -> Tensor:
        """``(batch, N, L)`` to ``(batch, L, d)``."""
        # Each row gets its own positions, so that noise capture can tell the rows apart.
        places: Tensor = self.place(self.positions.to(x.dtype).expand(x.shape[0], -1, -1))
        tokens: Tensor = self.embed(x).transpose(-1, -2) + places
        return tokens

    def _weights(self, tokens: Tensor, step_mask: Tensor | None) -> Tensor:
        scores = self.score(torch.tanh(tokens)).transpose(-1, -2)
        if step_mask is None:
            weights = normalized(scores, self.normalize)
        else:
            mask = step_mask.unsqueeze(-2)
            weights = normalized(scores.masked_fill(~mask, HIDDEN), self.normalize)
            # A row without a real step would share its weight among padding.
            weights = weights.masked_fill(~mask, 0.0)
        attended: Tensor = self.attended(weights)
        return attended

    def attention(self, x: Tensor, step_mask: Tensor | None = None) -> Tensor:
        """Weights over steps, which sum to 1; those of padded steps are exactly 0.

        Args:
            x: ``(batch, N, L)`` or ``(batch, N * L)``.
            step_mask: ``(batch, L)``, False for padding; a row without a real step has
                weights of 0 alone.

        Returns:
            ``(batch, H, L)``.

        Raises:
            ValueError: a shape is wrong.
        """
        x, mask = self._masks(self._check_sequences(x), None, step_mask)
        return self._weights(self._tokens(x), mask)

    def forward(
        self,
        x: Tensor,
        feature_mask: Tensor | None = None,
        class_mask: Tensor | None = None,
        step_mask: Tensor | None = None,
    ) -> Tensor:
        """Class scores, ``(batch, n_outputs)``; in regression the prediction.

        Args:
            x: ``(batch, N, L)`` or ``(batch, N * L)``.
            feature_mask: ``(N * L,)``, which elements are real in all rows.
            class_mask: ``(n_outputs,)``, which classes are real.
            step_mask: ``(batch, L)``, which steps of each row are real.

        Raises:
            ValueError: a shape is wrong.
        """
        x, mask = self._masks(self._check_sequences(x), feature_mask, step_mask)
        tokens = self._tokens(x)
        read = self._weights(tokens, mask) @ self.value(F.gelu(tokens))
        return hide_classes(self.classifier(read.flatten(-2)), class_mask)

    def padding_masks(self, feature_mask: Tensor, class_mask: Tensor) -> dict[str, Tensor]:
        """Which elements of each parameter belong to real channels and classes."""
        channels = feature_mask.unflatten(-1, (self.n_channels, self.length)).any(-1)
        return {
            "embed.weight": channels.unsqueeze(-1).expand_as(self.embed.weight),
            "classifier.weight": class_mask.unsqueeze(-1).expand_as(self.classifier.weight),
            "classifier.bias": class_mask.expand_as(self.classifier.bias),
        }

    @torch.no_grad()
    def feature_importance(self, x: Tensor, step_mask: Tensor | None = None) -> Tensor:
        """A weight for each channel and step, ``(N * L,)``; they sum to 1.

        A step's mean attention, over heads and rows, is handed to the elements that its token
        was made of, by the magnitude of their weights in the convolution times the channel's
        standard deviation over ``x``.
        """
        rows = self._check_sequences(x)
        steps = self.attention(rows, step_mask).mean((0, 1))
        rows, mask = self._masks(rows, None, step_mask)
        spread = rows.std((0, 2), correction=0).unsqueeze(-1)
        kernel = self.embed.weight.abs().sum(0, keepdim=True)
        reached = F.conv_transpose1d(steps[None, None], kernel, padding=self.kernel // 2)[0]
        if mask is not None:
            reached = reached.masked_fill(~mask.any(0), 0.0)
        return shares((reached * spread).flatten())
