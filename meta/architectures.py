"""Architectures of random sizes, for meta-training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from denograd.models import (
    AdditiveNet,
    FeatureAttention,
    PrototypeNet,
    RuleNet,
    SoftForest,
    SoftTree,
    TabularModel,
    TemporalAttention,
)
from denograd.models.registry import check_model


def _soft_tree(rng: np.random.Generator, width: int, classes: int | None) -> TabularModel:
    return SoftTree(width, classes, depth=int(rng.choice([2, 3, 3, 3, 4, 5])))


def _soft_forest(rng: np.random.Generator, width: int, classes: int | None) -> TabularModel:
    trees, depth = int(rng.choice([2, 4, 8])), int(rng.choice([2, 3, 3]))
    return SoftForest(width, classes, trees=trees, depth=depth, oblivious=bool(rng.random() < 0.3))


def _attention(rng: np.random.Generator, width: int, classes: int | None) -> TabularModel:
    size = int(rng.choice([4, 8, 8, 12, 16]))
    return FeatureAttention(width, classes, width=size, heads=int(rng.choice([1, 2, 2, 4])))


def _temporal_attention(
    rng: np.random.Generator, width: int, classes: int | None, channels: int
) -> TabularModel:
    size, heads = int(rng.choice([4, 8, 8, 12, 16])), int(rng.choice([1, 2, 2, 4]))
    return TemporalAttention(channels, width // channels, classes, width=size, heads=heads)


def _additive_net(rng: np.random.Generator, width: int, classes: int | None) -> TabularModel:
    return AdditiveNet(width, classes, width=int(rng.choice([4, 8, 16, 16])))


def _rule_net(rng: np.random.Generator, width: int, classes: int | None) -> TabularModel:
    return RuleNet(width, classes, rules=int(rng.choice([8, 16, 16, 32])))


def _prototype_net(rng: np.random.Generator, width: int, classes: int | None) -> TabularModel:
    return PrototypeNet(width, classes, prototypes=int(rng.choice([4, 8, 8, 16])))


_DRAWS: dict[str, Callable[[np.random.Generator, int, int | None], TabularModel]] = {
    "soft_tree": _soft_tree,
    "soft_forest": _soft_forest,
    "attention": _attention,
    "additive_net": _additive_net,
    "rule_net": _rule_net,
    "prototype_net": _prototype_net,
}


def draw_model(
    rng: np.random.Generator, name: str, width: int, classes: int | None, channels: int = 1
) -> TabularModel:
    """An architecture of a random size around its default one.

    Args:
        rng: source of the sizes; the weights come from torch's global generator.
        name: as `denograd.models.registry.make_model` takes it.
        width: number of features; of sequences channels times steps, channel by channel.
        classes: number of classes, at least 2; None for a measured target.
        channels: of sequences; ``temporal_attention`` alone looks at it.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> draw_model(np.random.default_rng(0), "soft_tree", width=4, classes=2).depth in range(6)
        True
    """
    check_model(name)
    if name == "temporal_attention":
        return _temporal_attention(rng, width, classes, channels)
    return _DRAWS[name](rng, width, classes)


def describe(model: TabularModel) -> str:
    """The architecture in a few words."""
    if isinstance(model, SoftTree):
        return f"soft tree of depth {model.depth}"
    if isinstance(model, FeatureAttention):
        return f"attention of width {model.width}, {model.heads} heads"
    return type(model).__name__
