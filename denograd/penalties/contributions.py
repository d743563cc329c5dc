"""Concurvity: contributions of an additive model that stand in for each other."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from denograd.models import AdditiveNet
from denograd.penalties._base import Penalty
from denograd.penalties._sites import Site, child
from denograd.penalties._statistics import correlations, nothing, off_diagonal


def concurvity(contributions: Tensor) -> Tensor:
    """Mean absolute correlation of the contributions of different features, from 0 to 1.

    Siems et al. 2023, "Curve Your Enthusiasm: Concurvity Regularization in Differentiable
    Generalized Additive Models", arXiv 2305.11475, the regularizer ``R_perp`` of section 3:
    ``1 / (p (p - 1) / 2) sum_(i<j) |corr(f_i(x_i), f_j(x_j))|`` over the rows of a batch. A
    contribution that does not vary has a correlation of 0.

    Args:
        contributions: ``(N, p)``, or ``(N, p, outputs)`` for the mean over outputs.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 1.0, 2.0])
        >>> concurvity(torch.stack((x, 1 - 2 * x), dim=1))
        tensor(1.0000)
    """
    parts = contributions.shape[1]
    if contributions.shape[0] < 2 or parts < 2:
        return nothing(contributions)
    if contributions.dim() == 3:
        contributions = contributions.permute(2, 0, 1)
    absolute = off_diagonal(correlations(contributions)).abs().sum((-2, -1))
    return absolute.mean() / (parts * (parts - 1))


def _of_scores(classes: bool, x: Tensor) -> Tensor:
    # What all class scores have in common moves no probability.
    return concurvity(x - x.mean(-1, keepdim=True) if classes else x)


def concurvity_sites(name: str, module: nn.Module) -> list[Site]:
    """The contributions of an additive model, those of pairs of features among them."""
    if not isinstance(module, AdditiveNet):
        return []
    penalty = partial(_of_scores, module.n_classes is not None)
    form = "concurvity, mean absolute correlation of contributions"
    return [Site(child(name, "parts"), module.parts, penalty, form)]


class Concurvity(Penalty):
    """Keep the contributions of an additive model from standing in for each other.

    Of `denograd.models.AdditiveNet` it takes what each feature, and each pair, adds to the
    output; in classification after taking off the mean over classes, which moves no
    probability. See `concurvity`.

    Args:
        weight: factor of the penalty in the loss, at least 0.
        modules: additive models, or their names; None for all in the model.
        scaler: the `torch.amp.GradScaler` that scales the loss, if one does.

    Raises:
        ValueError: the weight is below 0 or not finite.

    Example:
        >>> import torch
        >>> from denograd import DenoGrad
        >>> model = AdditiveNet(4, 3)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> penalties = [Concurvity(weight=0.1)]
        >>> DenoGrad(base, "identity", model=model, penalties=penalties).penalties[0].describe()
        ["'parts' (Identity): concurvity, mean absolute correlation of contributions"]
    """

    def sites_of(self, name: str, module: nn.Module) -> list[Site]:
        """The contributions of an additive model."""
        return concurvity_sites(name, module)
