"""Interpretable models: plain `nn.Module`s that also run batched under `torch.func`."""

from denograd.models._base import TabularModel
from denograd.models.feature_attention import FeatureAttention
from denograd.models.layers import BroadcastParameter, FeatureTokenizer
from denograd.models.soft_tree import SoftTree

__all__ = [
    "BroadcastParameter",
    "FeatureAttention",
    "FeatureTokenizer",
    "SoftTree",
    "TabularModel",
]
