"""Models by name, in the sizes that evaluations use."""

from __future__ import annotations

from collections.abc import Callable

from denograd.models._base import TabularModel
from denograd.models.feature_attention import FeatureAttention
from denograd.models.soft_tree import SoftTree

_MAKERS: dict[str, Callable[[int, int], TabularModel]] = {
    "soft_tree": lambda features, classes: SoftTree(features, classes, depth=3),
    "attention": lambda features, classes: FeatureAttention(features, classes, width=8, heads=2),
}

MODEL_NAMES = tuple(_MAKERS)
"""Names that `make_model` knows."""


def make_model(name: str, n_features: int, n_classes: int) -> TabularModel:
    """A new model, its weights drawn from torch's global generator.

    Args:
        name: ``soft_tree`` (depth 3) or ``attention`` (width 8, two heads).
        n_features: number of features.
        n_classes: number of classes, at least 2.

    Raises:
        ValueError: an unknown name, or a size that the model refuses.

    Example:
        >>> make_model("soft_tree", n_features=4, n_classes=3).n_classes
        3
    """
    check_model(name)
    return _MAKERS[name](n_features, n_classes)


def check_model(name: str) -> None:
    """Raise a `ValueError` that lists the known names if ``name`` is not one of them."""
    if name not in _MAKERS:
        raise ValueError(f"model {name!r} is not known; use one of {', '.join(MODEL_NAMES)}")
