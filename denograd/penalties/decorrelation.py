"""The form of decorrelation that suits each part of a model."""

from __future__ import annotations

from torch import Tensor, nn

from denograd.penalties._sites import Site
from denograd.penalties.contributions import concurvity_sites
from denograd.penalties.features import FeaturePenalty, correlation_penalty
from denograd.penalties.heads import head_sites
from denograd.penalties.nodes import node_sites


class Decorrelation(FeaturePenalty):
    """Keep the parts of a model from saying the same, each kind of part in its own way.

    | part | form |
    | --- | --- |
    | `SoftTree`, `SoftForest` | `NodeDecorrelation` |
    | `FeatureAttention`, `TemporalAttention` | `HeadDisagreement` |
    | `AdditiveNet` | `Concurvity` |
    | other hidden features | `FeatureDecorrelation` |

    `describe` says what was picked, and so does the logger ``denograd.penalties`` at level
    ``INFO``, once. Where a model has several parts the penalty is the sum over them. All
    forms lie between 0 and 1.

    Args:
        weight: factor of the penalty in the loss, at least 0.
        modules: modules of the model, or their names; None to look through all of it. Of a
            module that is none of the above its output counts as hidden features.
        dim: dimension of hidden features; None to tell by the module and the shape.
        scaler: the `torch.amp.GradScaler` that scales the loss, if one does.

    Raises:
        ValueError: the weight is below 0 or not finite, or ``modules`` is empty.

    Example:
        >>> import torch
        >>> from denograd import DenoGrad
        >>> from denograd.models import SoftTree
        >>> model = SoftTree(n_features=4, n_classes=3)
        >>> base = torch.optim.AdamW(model.parameters(), lr=0.01)
        >>> penalties = [Decorrelation(weight=0.1)]
        >>> optimizer = DenoGrad(base, model=model, penalties=penalties)
        >>> loss = torch.nn.functional.nll_loss(model(torch.randn(8, 4)), torch.arange(8) % 3)
        >>> loss.backward()
        >>> optimizer.step()
        >>> bool(0 <= optimizer.penalties[0].value <= 1)
        True
    """

    def features_penalty(self, x: Tensor) -> Tensor:
        """`correlation_penalty`."""
        return correlation_penalty(x)

    def form(self) -> str:
        """What the penalty on hidden features is, in words."""
        return "squared correlation"

    def sites_of(self, name: str, module: nn.Module) -> list[Site]:
        """The sites of the first form that knows the module."""
        return (
            node_sites(name, module)
            or head_sites(name, module)
            or concurvity_sites(name, module)
            or super().sites_of(name, module)
        )
