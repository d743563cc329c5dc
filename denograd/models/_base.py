"""What the interpretable models share."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


def check_sizes(owner: str, **sizes: int) -> None:
    """Raise a `ValueError` that names the argument if a size is not a usable whole number."""
    for name, size in sizes.items():
        least = 2 if name == "n_classes" else 1
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            raise ValueError(
                f"{owner}: {name}={size!r}; it must be a whole number of at least {least}"
            )


class TabularModel(nn.Module, ABC):
    """A model of rows of features that names what it looked at.

    Tasks of different width are stacked by padding: ``feature_mask`` ``(F,)`` and
    ``class_mask`` ``(C,)``, boolean, say which features and classes are real. The
    parameters of padding keep a gradient of zero.
    """

    n_features: int
    n_classes: int

    @abstractmethod
    def reset_parameters(self, fan_in: int | None = None) -> None:
        """Draw new initial weights, as for ``fan_in`` real features."""

    @abstractmethod
    def padding_masks(self, feature_mask: Tensor, class_mask: Tensor) -> dict[str, Tensor]:
        """Masks of the real elements, for each parameter that padding enlarges."""

    @abstractmethod
    def feature_importance(self, x: Tensor) -> Tensor:
        """The model's own explanation over rows ``x``: a weight a feature, summing to 1."""

    def _check_input(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[-1] != self.n_features:
            raise ValueError(
                f"{type(self).__name__}: x has shape {tuple(x.shape)}; it must be "
                f"(batch, {self.n_features}), one column a feature"
            )
        return x
