"""What the interpretable models share."""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

HIDDEN = -1e9
"""Score of what a mask leaves out: its share is 0, and its gradient too."""


def check_sizes(owner: str, **sizes: int | None) -> None:
    """Raise a `ValueError` that names the argument if a size is not a usable whole number.

    ``n_classes`` may also be None, which stands for regression.
    """
    for name, size in sizes.items():
        classes = name == "n_classes"
        if classes and size is None:
            continue
        least = 2 if classes else 1
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            remedy = ", or None for regression" if classes else ""
            raise ValueError(
                f"{owner}: {name}={size!r}; it must be a whole number of at least {least}{remedy}"
            )


def is_number(value: object) -> bool:
    """Whether a value is a real number of Python's or numpy's, and no boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_floating(owner: str, x: Tensor) -> None:
    """Raise a `ValueError` that names ``x`` if it is no tensor of floating type."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"{owner}: x is of type {kind}; it must be a tensor of a floating type, such as "
            "x.float() or torch.tensor(x, dtype=torch.float32)"
        )


class TabularModel(nn.Module, ABC):
    """A model of rows of features that names what it looked at.

    With ``n_classes`` classes the output is ``(batch, n_classes)``, scores whose softmax
    are the probabilities; with ``n_classes=None`` it is ``(batch, 1)``, a prediction of the
    mean.

    Tasks of different width are stacked by padding: ``feature_mask`` ``(F,)`` and
    ``class_mask`` ``(n_outputs,)``, boolean, say which features and classes are real. The
    parameters of padding keep a gradient of zero.

    ``x`` must be of a floating type. NaN in a row is not looked for: it becomes NaN in the
    row's output (and, in training, in the loss), so fill gaps beforehand, as the estimators of
    `denograd.estimators` do.
    """

    n_features: int
    n_classes: int | None

    @property
    def n_outputs(self) -> int:
        """Columns of the output: the classes, or 1 in regression."""
        return 1 if self.n_classes is None else self.n_classes

    @abstractmethod
    def reset_parameters(self, fan_in: int | None = None) -> None:
        """Draw new initial weights, as for ``fan_in`` real features."""

    @abstractmethod
    def padding_masks(self, feature_mask: Tensor, class_mask: Tensor) -> dict[str, Tensor]:
        """Masks of the real elements, for each parameter that padding enlarges."""

    @abstractmethod
    def feature_importance(self, x: Tensor) -> Tensor:
        """The model's own explanation over rows ``x``: a weight a feature, summing to 1."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for an optimizer, in one of which `denograd.DenoGrad` may be told to stand back.

        A layer whose gradient is a stand-in for one that does not exist is in a group with
        ``"denoise": False``: what looks like noise there is how the stand-in works. Other
        optimizers take no notice of that key.
        """
        return [{"params": list(self.parameters())}]

    def _check_input(self, x: Tensor) -> Tensor:
        check_floating(type(self).__name__, x)
        if x.dim() != 2 or x.shape[-1] != self.n_features:
            raise ValueError(
                f"{type(self).__name__}: x has shape {tuple(x.shape)}; it must be "
                f"(batch, {self.n_features}), one column a feature"
            )
        return x


def hide_classes(scores: Tensor, class_mask: Tensor | None) -> Tensor:
    """Scores ``(..., n_outputs)``, those of padded classes too low to matter."""
    return scores if class_mask is None else scores.masked_fill(~class_mask, HIDDEN)


def shares(weight: Tensor) -> Tensor:
    """Weights of at least 0 as shares that sum to 1; equal shares if all of them are 0."""
    total = weight.sum()
    if float(total) > 0:
        return weight / total
    return weight.new_full(weight.shape, 1 / weight.numel())
