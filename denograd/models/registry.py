"""Models by name, in the sizes that evaluations use."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from denograd.models._base import TabularModel
from denograd.models.additive_net import AdditiveNet
from denograd.models.feature_attention import FeatureAttention
from denograd.models.prototype_net import PrototypeNet
from denograd.models.rule_net import RuleNet
from denograd.models.soft_forest import SoftForest
from denograd.models.soft_tree import SoftTree
from denograd.models.temporal_attention import TemporalAttention

_MAKERS: dict[str, Callable[[int, int | None], TabularModel]] = {
    "soft_tree": SoftTree,
    "soft_forest": SoftForest,
    "attention": FeatureAttention,
    "rule_net": RuleNet,
    "additive_net": AdditiveNet,
    "prototype_net": PrototypeNet,
}

MODEL_NAMES = ("soft_tree", "attention")
"""Names that commands take where none is given: the models that the control is tuned for."""

_CLASSES = {**_MAKERS, "temporal_attention": TemporalAttention}

KNOWN_MODELS = tuple(_CLASSES)
"""Names that `make_model` knows."""


def make_model(
    name: str, n_features: int, n_classes: int | None, n_channels: int = 1
) -> TabularModel:
    """A new model with its default sizes, its weights drawn from torch's global generator.

    Args:
        name: ``soft_tree`` (depth 3), ``soft_forest`` (8 trees of depth 3), ``attention``
            (width 8, two heads), ``temporal_attention`` (the same over steps), ``rule_net``
            (16 rules), ``additive_net`` (width 16) or ``prototype_net`` (8 prototypes).
        n_features: number of features; for sequences channels times steps, channel by
            channel.
        n_classes: number of classes, at least 2; None for regression.
        n_channels: channels of a sequence; ``temporal_attention`` alone looks at it.

    Raises:
        ValueError: an unknown name, a size that the model refuses, or features that are not
            a multiple of the channels.

    Example:
        >>> import torch
        >>> make_model("soft_tree", n_features=4, n_classes=3).n_classes
        3
        >>> make_model("temporal_attention", 20, 3, n_channels=2)(torch.zeros(5, 20)).shape
        torch.Size([5, 3])
    """
    check_model(name)
    if name != "temporal_attention":
        return _MAKERS[name](n_features, n_classes)
    if n_channels < 1 or n_features % n_channels:
        raise ValueError(
            f"make_model: n_features={n_features} is not a multiple of n_channels={n_channels}; "
            "a sequence has as many features as channels times steps"
        )
    return TemporalAttention(n_channels, n_features // n_channels, n_classes)


def check_model(name: str) -> None:
    """Raise a `ValueError` that lists the known names if ``name`` is not one of them."""
    if name not in KNOWN_MODELS:
        raise ValueError(f"model {name!r} is not known; use one of {', '.join(KNOWN_MODELS)}")


def name_of(model: nn.Module) -> str | None:
    """The name by which `make_model` knows a model's class; None for one of another class.

    Example:
        >>> name_of(SoftTree(n_features=4, n_classes=2, depth=5))
        'soft_tree'
    """
    return next((name for name, made in _CLASSES.items() if type(model) is made), None)
