"""Weights of the rules that hold."""

from __future__ import annotations

import torch
from torch import Tensor

from denograd.explain.own._dispatch import against_others, for_target, own_attributions
from denograd.models import RuleNet


@own_attributions.register
def rule_weights(model: RuleNet, x: Tensor, target: Tensor | None, baseline: Tensor) -> Tensor:
    """The weights of the rules that a row meets, shared among the features that make them hold.

    A rule's weight is its score for the target's class less the mean of its scores for the
    others; in regression its value. It is shared equally among the features of its conditions;
    of an *or*, among those whose condition is met. With the bias, and rules without conditions,
    a row sums to the target's score less the mean of the others'.

    Returns:
        ``(n, F)``; a feature that no rule names has exactly 0.
    """
    rows = x.cpu().numpy()
    weight = against_others(model.head.weight.T)
    said = x.new_zeros(x.shape)
    for rule in model.to_rules():
        if not rule.tests or rule.index is None:
            continue
        met = x.new_zeros(x.shape)
        for test in rule.tests:
            feature = test.terms[0][0]
            held = torch.from_numpy(test.holds(rows)).to(met)
            met[:, feature] = torch.maximum(met[:, feature], held)
        if not rule.any_of:
            # One condition that fails undoes all others.
            met *= torch.from_numpy(rule.holds(rows)).to(met).unsqueeze(-1)
        strength = for_target(weight[rule.index].expand(len(x), -1), target)
        said += met / met.sum(-1, keepdim=True).clamp_min(1.0) * strength.unsqueeze(-1)
    return said
