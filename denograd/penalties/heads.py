"""Attention heads that look at the same (Li et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from denograd.models import FeatureAttention, TemporalAttention
from denograd.penalties._base import Penalty, Scaler
from denograd.penalties._sites import Site, child
from denograd.penalties._statistics import nothing, off_diagonal

Measure = Literal["cosine", "product"]
"""Whether attention weights are brought to length 1 first."""


def head_agreement(weights: Tensor, measure: Measure = "cosine") -> Tensor:
    """How much different heads attend to the same positions, from 0 to 1.

    Li et al. 2018, "Multi-Head Attention with Disagreement Regularization", arXiv
    1810.10183, maximise a disagreement of heads ``A^i`` and ``A^j``; this is its negative,
    as a mean over rows and pairs of different heads. ``product`` is that of attended
    positions (their section 3.2), ``sum_t A^i_t A^j_t``; heads can lower it by attending
    evenly. ``cosine`` divides by the lengths of both, as theirs for subspaces and outputs do,
    and is lowered only by looking elsewhere. The paper also sums over ``i = j``, which is a
    constant for the cosine; here those pairs are left out of both.

    Args:
        weights: at least 0, ``(batch, H, positions)``, or ``(batch, H, queries, positions)``.
        measure: ``cosine`` or ``product``.

    Returns:
        0-dim; 0 for one head.

    Example:
        >>> same = torch.tensor([[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]])
        >>> head_agreement(same), head_agreement(same, "product")
        (tensor(1.0000), tensor(0.5000))
        >>> head_agreement(torch.eye(3)[None])
        tensor(0.)
    """
    heads = weights.shape[1]
    if heads < 2 or weights.shape[0] == 0:
        return nothing(weights)
    weights = weights.movedim(1, -2)
    if measure == "cosine":
        square = weights.square().sum(-1, keepdim=True)
        # Where all positions are padding, all weights are 0.
        none = square <= torch.finfo(weights.dtype).tiny
        weights = torch.where(none, 0.0, weights * torch.where(none, 1.0, square).rsqrt())
    agreement = off_diagonal(weights @ weights.mT).sum((-2, -1))
    return agreement.mean() / (heads * (heads - 1))


def head_sites(name: str, module: nn.Module, measure: Measure = "cosine") -> list[Site]:
    """The weights of an attention model."""
    if not isinstance(module, (FeatureAttention, TemporalAttention)):
        return []
    form = f"agreement ({measure}) of what the heads attend to"
    penalty = partial(head_agreement, measure=measure)
    return [Site(child(name, "attended"), module.attended, penalty, form)]


class HeadDisagreement(Penalty):
    """Keep attention heads from attending to the same (`head_agreement`).

    It has a meaning for `denograd.models.FeatureAttention` and
    `denograd.models.TemporalAttention`, and is 0 where they have one head.
    `torch.nn.MultiheadAttention` computes its output from weights that no hook can reach.

    Args:
        weight: factor of the penalty in the loss, at least 0.
        modules: attention models, or their names; None for all in the model.
        measure: ``cosine`` or ``product``.
        scaler: the `torch.amp.GradScaler` that scales the loss, if one does.

    Raises:
        ValueError: the weight is below 0 or not finite, or the measure is not known.

    Example:
        >>> from denograd import DenoGrad
        >>> model = FeatureAttention(4, 3)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> penalties = [HeadDisagreement(weight=0.1)]
        >>> DenoGrad(base, "identity", model=model, penalties=penalties).penalties[0].describe()
        ["'attended' (Identity): agreement (cosine) of what the heads attend to"]
    """

    def __init__(
        self,
        weight: float,
        modules: Sequence[str | nn.Module] | None = None,
        *,
        measure: Measure = "cosine",
        scaler: Scaler | None = None,
    ) -> None:
        super().__init__(weight, modules, scaler=scaler)
        if measure not in get_args(Measure):
            raise ValueError(
                f"HeadDisagreement: measure={measure!r}; use one of {', '.join(get_args(Measure))}"
            )
        self.measure = measure

    def sites_of(self, name: str, module: nn.Module) -> list[Site]:
        """The weights of an attention model."""
        return head_sites(name, module, self.measure)

    def _options(self) -> dict[str, Any]:
        return {"measure": self.measure}
