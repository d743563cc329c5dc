"""Interpretable models: plain `nn.Module`s that also run batched under `torch.func`."""

from denograd.models._base import TabularModel
from denograd.models.additive_net import AdditiveNet
from denograd.models.feature_attention import FeatureAttention
from denograd.models.layers import BroadcastParameter, Choice, FeatureTokenizer, StackedLinear
from denograd.models.prototype_net import PrototypeNet
from denograd.models.rule_net import RuleNet
from denograd.models.rules import Condition, Rule, in_units, predict_from_rules
from denograd.models.soft_forest import SoftForest
from denograd.models.soft_tree import SoftTree
from denograd.models.temporal_attention import TemporalAttention

__all__ = [
    "AdditiveNet",
    "BroadcastParameter",
    "Choice",
    "Condition",
    "FeatureAttention",
    "FeatureTokenizer",
    "PrototypeNet",
    "Rule",
    "RuleNet",
    "SoftForest",
    "SoftTree",
    "StackedLinear",
    "TabularModel",
    "TemporalAttention",
    "in_units",
    "predict_from_rules",
]
