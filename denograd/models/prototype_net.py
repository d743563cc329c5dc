"""RBF prototypes with class-wise components (Titsias and Likas 2001)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denograd.models._base import HIDDEN, TabularModel, check_sizes, hide_classes, shares
from denograd.models.layers import BroadcastParameter

_FAR = 1e6
"""A difference of more standard deviations than this counts as this, so nothing overflows."""


class PrototypeNet(TabularModel):
    """Rows are classified by how near they are to a few learned prototypes.

    A probabilistic radial basis function network (Titsias and Likas 2001, "Shared Kernel
    Models for Class Conditional Density Estimation", IEEE Transactions on Neural Networks
    12(5), equations 1 to 3): prototype ``p`` is a kernel ``k_p(x) = exp(-gamma_p d_p(x))``,
    shared by all classes, and class ``c`` has a component of weight ``exp(beta_pc)`` there;
    ``P(c | x) = sum_p exp(beta_pc) k_p(x) / sum_cp exp(beta_pc) k_p(x)``. The distance is
    ``d_p(x) = sum_j lambda_j (x_j - center_pj)^2`` with relevances ``lambda`` that are at
    least 0 and sum to 1 (Hammer and Villmann 2002, "Generalized Relevance Learning Vector
    Quantization"). In regression the output is ``sum_p k_p(x) v_p / sum_p k_p(x)`` (Moody and
    Darken 1989, "Fast Learning in Networks of Locally-Tuned Processing Units").

    Everything is computed from logarithms, so rows far from all prototypes are no exception.

    Args:
        n_features: number of features ``F``.
        n_classes: number of classes ``C``, at least 2; None for regression.
        prototypes: number of prototypes ``P``; at first the classes have them in turn.

    Raises:
        ValueError: a size that is not a whole number of at least 1 (2 for classes).

    Example:
        >>> model = PrototypeNet(n_features=4, n_classes=3, prototypes=6)
        >>> model(torch.zeros(5, 4)).shape, model.similarities(torch.zeros(5, 4)).shape
        (torch.Size([5, 3]), torch.Size([5, 6]))
    """

    def __init__(self, n_features: int, n_classes: int | None, prototypes: int = 8) -> None:
        super().__init__()
        check_sizes(
            "PrototypeNet", n_features=n_features, n_classes=n_classes, prototypes=prototypes
        )
        self.n_features, self.n_classes, self.prototypes = n_features, n_classes, prototypes
        self.centers = BroadcastParameter(prototypes, n_features)
        self.relevance = BroadcastParameter(n_features)
        self.sharpness = BroadcastParameter(prototypes)
        self.components = BroadcastParameter(prototypes, self.n_outputs)
        # Where hooks find the logarithms of the similarities.
        self.nearness = nn.Identity()
        self.reset_parameters()

    def reset_parameters(self, fan_in: int | None = None) -> None:
        """Draw new initial weights.

        Args:
            fan_in: number of features that are real; no parameter here depends on it.
        """
        nn.init.normal_(self.centers.weight, std=0.7)
        nn.init.zeros_(self.relevance.weight)
        nn.init.constant_(self.sharpness.weight, 2.0)
        nn.init.normal_(self.components.weight, std=0.1)
        if self.n_classes is not None:
            with torch.no_grad():
                each = torch.arange(self.prototypes)
                self.components.weight[each, each % self.n_classes] += 1.0

    @torch.no_grad()
    def start_from_rows(self, x: Tensor, y: Tensor | None = None) -> None:
        """Put the prototypes on rows of a training set, as its classes have them in turn.

        Args:
            x: rows, ``(n, F)``; drawn from with torch's global generator.
            y: class numbers, ``(n,)``; without them any row serves any prototype.

        Raises:
            ValueError: ``x`` has the wrong shape or no rows, or ``y`` another length.
        """
        if self._check_input(x).shape[0] == 0:
            raise ValueError("PrototypeNet: x has no rows; give at least one to start from")
        if y is not None and y.shape != (len(x),):
            raise ValueError(f"PrototypeNet: y has shape {tuple(y.shape)}; it must be ({len(x)},)")
        order = torch.randperm(len(x))
        for p in range(self.prototypes):
            rows = order
            if y is not None and self.n_classes is not None:
                rows = order[(y == p % self.n_classes)[order]]
            if len(rows):
                turn = p // (self.n_classes or 1) if y is not None else p
                self.centers.weight[p] = x[rows[turn % len(rows)]]

    def relevances(self, feature_mask: Tensor | None = None) -> Tensor:
        """The weight of each feature in the distance, ``(F,)``; they sum to 1."""
        scores: Tensor = self.relevance.weight
        if feature_mask is not None:
            scores = scores.masked_fill(~feature_mask, HIDDEN)
        return F.softmax(scores, dim=-1)

    def _log_similarities(self, x: Tensor, feature_mask: Tensor | None) -> Tensor:
        rows = self._check_input(x).shape[0]
        scores = self.relevance(rows)
        if feature_mask is not None:
            scores = scores.masked_fill(~feature_mask, HIDDEN)
        weight = F.softmax(scores, dim=-1).unsqueeze(-2)
        gap = (x.unsqueeze(-2) - self.centers(rows)).clamp(-_FAR, _FAR)
        distance: Tensor = (weight * gap.square()).sum(-1)
        similarity: Tensor = self.nearness(-distance * F.softplus(self.sharpness(rows)))
        return similarity

    def similarities(self, x: Tensor) -> Tensor:
        """How near each row is to each prototype, from 0 to 1, ``(batch, F)`` to ``(batch, P)``."""
        return self._log_similarities(x, None).exp()

    def forward(
        self, x: Tensor, feature_mask: Tensor | None = None, class_mask: Tensor | None = None
    ) -> Tensor:
        """Logarithm of the class probabilities, ``(batch, F)`` to ``(batch, n_outputs)``.

        In regression the prediction itself, ``(batch, 1)``.
        """
        near = self._log_similarities(x, feature_mask)
        components: Tensor = self.components(x.shape[0])
        if self.n_classes is None:
            return (F.softmax(near, dim=-1).unsqueeze(-1) * components).sum(-2)
        joint = torch.logsumexp(near.unsqueeze(-1) + hide_classes(components, class_mask), dim=-2)
        return F.log_softmax(joint, dim=-1)

    def _distances(self, x: Tensor, y: Tensor) -> Tensor:
        """The model's distance between rows, ``(n, F)`` and ``(m, F)`` to ``(n, m)``."""
        root = self.relevances().sqrt()
        return torch.cdist(x * root, y * root, compute_mode="donot_use_mm_for_euclid_dist")

    @torch.no_grad()
    def nearest_rows(self, x: Tensor, reference: Tensor, k: int = 1) -> Tensor:
        """The rows of a reference set that are nearest in the model's own distance.

        Args:
            x: rows to explain, ``(batch, F)``.
            reference: rows to choose from, ``(n, F)``.
            k: how many, at most ``n``.

        Returns:
            their numbers, nearest first, ``(batch, k)``.

        Raises:
            ValueError: a shape is wrong, or ``k`` is not a whole number from 1 to ``n``.
        """
        rows = self._check_input(reference).shape[0]
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= rows:
            raise ValueError(
                f"PrototypeNet: k={k!r}; it must be a whole number from 1 to the {rows} rows of "
                "reference"
            )
        distances = self._distances(self._check_input(x), reference)
        return distances.argsort(dim=-1, stable=True)[:, :k]

    @torch.no_grad()
    def prototype_rows(self, reference: Tensor) -> Tensor:
        """The row of a reference set that is nearest to each prototype, ``(P,)``."""
        return self.nearest_rows(self.centers.weight, reference)[:, 0]

    def padding_masks(self, feature_mask: Tensor, class_mask: Tensor) -> dict[str, Tensor]:
        """Which elements of each parameter belong to real features and classes."""
        return {
            "centers.weight": feature_mask.expand_as(self.centers.weight),
            "relevance.weight": feature_mask,
            "components.weight": class_mask.expand_as(self.components.weight),
        }

    @torch.no_grad()
    def feature_importance(self, x: Tensor) -> Tensor:
        """The relevances, each times the feature's variance over ``x``, ``(F,)``; sums to 1."""
        return shares(self.relevances() * self._check_input(x).var(0, correction=0))
