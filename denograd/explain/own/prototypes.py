"""What each feature does to a row's distances from the prototypes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from denograd.explain.own._dispatch import for_target, own_attributions
from denograd.models import PrototypeNet
from denograd.models.prototype_net import _FAR


@own_attributions.register
def distance_parts(
    model: PrototypeNet, x: Tensor, target: Tensor | None, baseline: Tensor
) -> Tensor:
    """How much nearer each feature brings a row to the prototypes that speak for its class.

    A prototype's log similarity is a sum over features, ``s_p = -sum_j d_pj`` with ``d_pj =
    gamma_p lambda_j (x_j - center_pj)^2``. With ``own_p`` the share of prototype ``p`` in the
    probability of the target's class, and ``other_p`` its share in that of all other classes
    together, a feature's part is ``sum_p (other_p - own_p) d_pj``: how much farther, by this
    feature, the row lies from the prototypes of the others than from those of the target. The
    parts sum to the log odds of the class but for the prototypes' own weights and the spread of
    the shares. In regression it is ``sum_p own_p (output - v_p) d_pj`` with the similarities'
    shares ``own_p`` and the prototypes' values ``v_p``: how far nearness by this feature moves
    the output.

    Returns:
        ``(n, F)``.
    """
    gap = (x.unsqueeze(-2) - model.centers.weight).clamp(-_FAR, _FAR)
    steep = F.softplus(model.sharpness.weight).unsqueeze(-1)
    parts = steep * model.relevances() * gap.square()
    near = -parts.sum(-1)
    components: Tensor = model.components.weight
    if model.n_classes is None or target is None:
        own = near.softmax(-1)
        value = components[:, 0]
        weight = own * ((own * value).sum(-1, keepdim=True) - value)
    else:
        pulls = components.expand(len(x), -1, -1)
        mine = for_target(pulls, target)
        chosen = F.one_hot(target, model.n_classes).bool().unsqueeze(1)
        others = pulls.masked_fill(chosen, float("-inf")).logsumexp(-1)
        weight = (near + others).softmax(-1) - (near + mine).softmax(-1)
    return torch.einsum("bp,bpf->bf", weight, parts)
