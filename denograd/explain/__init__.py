"""Explanations, and how good they are.

An `Explainer` takes rows and gives attributions, ``(rows, features)``: `OwnExplainer` for the
models of this package, `CaptumExplainer` for any torch model, or a function of yours. Each metric
is one function with its paper:

- sharpness: `entropy`, `gini`;
- overlap with ground truth: `relevance_mass`, `relevance_rank`, `pointing_game`;
- whether the prediction rests on what is named: `deletion`, `insertion`;
- steadiness within a row's neighbourhood: `max_sensitivity`;
- consistency over seeds: `rank_consistency`, `top_k_consistency`, `attention_divergence`, and
  how much of it is there when the labels say nothing, `label_randomization`, `agreement_across`.

Attributions that are all 0 name no feature. They count as equal ones: entropy 1, Gini's index 0,
overlap by chance, no agreement between seeds.

Example:
    >>> import torch
    >>> from denograd.models import SoftTree
    >>> model, x = SoftTree(n_features=4, n_classes=3), torch.randn(10, 4)
    >>> attributions = OwnExplainer(model)(x)
    >>> gini(attributions).shape
    (10,)
    >>> deletion(probabilities(model), x, attributions).area.shape
    (10,)
"""

from denograd.explain.attention_divergence import attention_divergence
from denograd.explain.captum_explainer import CaptumExplainer
from denograd.explain.deletion import Curve, Predict, deletion, insertion
from denograd.explain.entropy import entropy
from denograd.explain.explainer import Explainer
from denograd.explain.gini import gini
from denograd.explain.label_randomization import (
    LabelRandomization,
    agreement_across,
    label_randomization,
)
from denograd.explain.max_sensitivity import max_sensitivity
from denograd.explain.own import own_attributions
from denograd.explain.own_explainer import OwnExplainer
from denograd.explain.pointing_game import pointing_game
from denograd.explain.probabilities import probabilities
from denograd.explain.rank_consistency import rank_consistency
from denograd.explain.relevance_mass import relevance_mass
from denograd.explain.relevance_rank import relevance_rank
from denograd.explain.top_k_consistency import top_k_consistency

__all__ = [
    "CaptumExplainer",
    "Curve",
    "Explainer",
    "LabelRandomization",
    "OwnExplainer",
    "Predict",
    "agreement_across",
    "attention_divergence",
    "deletion",
    "entropy",
    "gini",
    "insertion",
    "label_randomization",
    "max_sensitivity",
    "own_attributions",
    "pointing_game",
    "probabilities",
    "rank_consistency",
    "relevance_mass",
    "relevance_rank",
    "top_k_consistency",
]
