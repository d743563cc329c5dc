"""Neural additive models (Agarwal et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denograd.models._base import TabularModel, check_sizes, hide_classes, shares
from denograd.models.layers import BroadcastParameter, FeatureTokenizer, StackedLinear


class AdditiveNet(TabularModel):
    """A sum of one small net for each feature, and for chosen pairs of features.

    Agarwal et al. 2021, "Neural Additive Models: Interpretable Machine Learning with Neural
    Nets", arXiv 2004.13912, equation 1: ``f(x) = bias + sum_j f_j(x_j)``, here with ``+
    sum_(j,k) f_jk(x_j, x_k)`` over ``pairs``. A net has one hidden layer of ``width`` plain
    units with `F.gelu`, not the paper's ExU units, which are made for jumps and overfit on
    few rows. All nets are computed at once, as one stacked tensor.

    Args:
        n_features: number of features ``F``.
        n_classes: number of classes ``C``, at least 2; None for regression.
        width: hidden units of a net.
        pairs: pairs of feature indices that get a net of their own.

    Raises:
        ValueError: a size that is not a whole number of at least 1 (2 for classes), or a
            pair that is not two different features, or that comes twice.

    Example:
        >>> model = AdditiveNet(n_features=4, n_classes=3, pairs=[(0, 2)])
        >>> x = torch.randn(5, 4)
        >>> parts = model.contributions(x)
        >>> parts.shape
        torch.Size([5, 5, 3])
        >>> bool(torch.equal(parts.sum(1) + model.bias.weight, model(x)))
        True
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int | None,
        width: int = 16,
        pairs: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        check_sizes("AdditiveNet", n_features=n_features, n_classes=n_classes, width=width)
        self.n_features, self.n_classes, self.width = n_features, n_classes, width
        self.pairs = _checked_pairs(pairs, n_features)
        self.hidden = FeatureTokenizer(n_features, width)
        self.output = StackedLinear(n_features, width, self.n_outputs, bias=False)
        if self.pairs:
            self.pair_hidden = StackedLinear(len(self.pairs), 2, width)
            self.pair_output = StackedLinear(len(self.pairs), width, self.n_outputs, bias=False)
        self.bias = BroadcastParameter(self.n_outputs)
        # Where hooks find the contributions.
        self.parts = nn.Identity()
        index = torch.tensor(self.pairs, dtype=torch.long).reshape(-1, 2)
        self.register_buffer("_pair_index", index, persistent=False)
        self.reset_parameters()

    def reset_parameters(self, fan_in: int | None = None) -> None:
        """Draw new initial weights.

        Args:
            fan_in: number of features that are real; default: all.
        """
        parts = (fan_in or self.n_features) + len(self.pairs)
        # A unit bends at -bias / weight: within the bulk of a standardised feature.
        nn.init.normal_(self.hidden.weight)
        nn.init.uniform_(self.hidden.bias, -2, 2)
        spread = (self.width * parts) ** -0.5
        nn.init.normal_(self.output.weight, std=spread)
        if self.pairs:
            nn.init.normal_(self.pair_hidden.weight, std=2**-0.5)
            assert self.pair_hidden.bias is not None
            nn.init.uniform_(self.pair_hidden.bias, -2, 2)
            nn.init.normal_(self.pair_output.weight, std=spread)
        nn.init.zeros_(self.bias.weight)

    def _pairs_of(self, x: Tensor) -> Tensor:
        index: Tensor = self._pair_index  # type: ignore[assignment]
        return x[..., index]

    def contributions(self, x: Tensor, feature_mask: Tensor | None = None) -> Tensor:
        """What each feature and then each pair adds to the output.

        With `bias` they sum to the output exactly; in classification, to the class scores.

        Args:
            x: rows, ``(batch, F)``.
            feature_mask: ``(F,)``, which features are real; the others add 0.

        Returns:
            ``(batch, F + number of pairs, n_outputs)``.
        """
        parts: Tensor = self.output(F.gelu(self.hidden(self._check_input(x))))
        real = feature_mask
        if self.pairs:
            of_pairs = self.pair_output(F.gelu(self.pair_hidden(self._pairs_of(x))))
            parts = torch.cat((parts, of_pairs), dim=-2)
            if feature_mask is not None:
                real = torch.cat((feature_mask, self._pairs_of(feature_mask).all(-1)), dim=-1)
        if real is not None:
            parts = parts.masked_fill(~real.unsqueeze(-1), 0.0)
        contributions: Tensor = self.parts(parts)
        return contributions

    def forward(
        self, x: Tensor, feature_mask: Tensor | None = None, class_mask: Tensor | None = None
    ) -> Tensor:
        """Class scores, ``(batch, F)`` to ``(batch, n_outputs)``; in regression the prediction."""
        scores = self.contributions(x, feature_mask).sum(-2) + self.bias(x.shape[0])
        return hide_classes(scores, class_mask)

    @torch.no_grad()
    def shape_function(self, feature: int, grid: Tensor) -> Tensor:
        """What a feature adds to the output, over a grid of its values.

        Args:
            feature: index of the feature.
            grid: values, ``(points,)``.

        Returns:
            ``(points, n_outputs)``.

        Raises:
            ValueError: there is no such feature, or ``grid`` is not one-dimensional.
        """
        if isinstance(feature, bool) or feature not in range(self.n_features):
            raise ValueError(
                f"AdditiveNet: feature={feature!r}; it must be an index from 0 to "
                f"{self.n_features - 1}"
            )
        if grid.dim() != 1:
            raise ValueError(
                f"AdditiveNet: grid has shape {tuple(grid.shape)}; it must be (points,)"
            )
        x = grid.new_zeros(len(grid), self.n_features)
        x[:, feature] = grid
        return self.contributions(x)[:, feature]

    @torch.no_grad()
    def pair_function(self, pair: int, first: Tensor, second: Tensor) -> Tensor:
        """What a pair adds to the output, over the grid of its features' values.

        Args:
            pair: position in ``pairs``.
            first: values of the pair's first feature, ``(n,)``.
            second: values of its second feature, ``(m,)``.

        Returns:
            ``(n, m, n_outputs)``.

        Raises:
            ValueError: there is no such pair, or a grid is not one-dimensional.
        """
        if isinstance(pair, bool) or pair not in range(len(self.pairs)):
            raise ValueError(
                f"AdditiveNet: pair={pair!r}; it must be a position in the "
                f"{len(self.pairs)} pairs of this model, counted from 0"
            )
        if first.dim() != 1 or second.dim() != 1:
            raise ValueError(
                f"AdditiveNet: first has shape {tuple(first.shape)} and second "
                f"{tuple(second.shape)}; both must be one-dimensional"
            )
        points = torch.cartesian_prod(first, second)
        x = first.new_zeros(len(points), self.n_features)
        x[:, list(self.pairs[pair])] = points
        values = self.contributions(x)[:, self.n_features + pair]
        return values.reshape(len(first), len(second), self.n_outputs)

    def padding_masks(self, feature_mask: Tensor, class_mask: Tensor) -> dict[str, Tensor]:
        """Which elements of each parameter belong to real features, pairs and classes."""
        feature = feature_mask.unsqueeze(-1)
        masks = {
            "hidden.weight": feature.expand_as(self.hidden.weight),
            "hidden.bias": feature.expand_as(self.hidden.bias),
            "output.weight": (feature.unsqueeze(-1) & class_mask).expand_as(self.output.weight),
            "bias.weight": class_mask,
        }
        if self.pairs:
            pair = self._pairs_of(feature_mask).all(-1)[:, None, None]
            masks["pair_hidden.weight"] = pair.expand_as(self.pair_hidden.weight)
            masks["pair_hidden.bias"] = pair[..., 0].expand(-1, self.width)
            masks["pair_output.weight"] = (pair & class_mask).expand_as(self.pair_output.weight)
        return masks

    @torch.no_grad()
    def feature_importance(self, x: Tensor) -> Tensor:
        """How much the contribution of each feature varies over ``x``, ``(F,)``; sums to 1.

        The standard deviation over rows, summed over outputs (in classification after taking
        off the mean over classes, which moves no probability). A pair's is split between its
        two features.
        """
        return importance_of(self.contributions(x), self.n_features, self.pairs)


def importance_of(parts: Tensor, count: int, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Shares ``(count,)`` in how contributions vary, see `AdditiveNet.feature_importance`.

    Args:
        parts: ``(n, count + len(pairs), outputs)``, first those of single features or columns.
        count: how many these are.
        pairs: which two of them each further contribution belongs to.
    """
    if parts.shape[-1] > 1:
        parts = parts - parts.mean(-1, keepdim=True)
    spread = parts.std(0, correction=0).sum(-1)
    weight = spread[:count].clone()
    for (first, second), size in zip(pairs, spread[count:], strict=True):
        weight[first] += size / 2
        weight[second] += size / 2
    return shares(weight)


def _checked_pairs(
    pairs: Sequence[tuple[int, int]], n_features: int
) -> tuple[tuple[int, int], ...]:
    seen: set[frozenset[int]] = set()
    done: list[tuple[int, int]] = []
    for pair in pairs:
        indices = tuple(pair)
        whole = all(isinstance(i, int) and not isinstance(i, bool) for i in indices)
        inside = whole and all(0 <= i < n_features for i in indices)
        if len(indices) != 2 or not inside or indices[0] == indices[1]:
            raise ValueError(
                f"AdditiveNet: pairs holds {pair!r}; a pair is two different feature indices from "
                f"0 to {n_features - 1}"
            )
        if frozenset(indices) in seen:
            raise ValueError(f"AdditiveNet: pairs holds {pair!r} twice; give each pair once")
        seen.add(frozenset(indices))
        done.append((indices[0], indices[1]))
    return tuple(done)
