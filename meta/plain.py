"""Any module as a model to meta-train through."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from denograd._modes import evaluating
from denograd.models._base import TabularModel, hide_classes, shares


class PlainModel(TabularModel):
    """A module that takes rows and nothing else, as a template of an episode.

    Padded features are zeroed before it sees them, padded classes get a score too low to
    matter, and every parameter counts as real. Buffers such as the running statistics of
    batch norm need the engine ``higher`` or ``torchopt``: a batched model has none.

    Args:
        module: ``(batch, n_features)`` to ``(batch, n_classes)``.
        n_features: number of features.
        n_classes: number of classes, at least 2.

    Raises:
        ValueError: the module, or a part of it that holds parameters, has no
            ``reset_parameters``, by which each task gets initial weights of its own.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        >>> model = PlainModel(net, n_features=4, n_classes=3)
        >>> model(torch.zeros(5, 4), class_mask=torch.tensor([True, True, False]))[0, 2].item()
        -1000000000.0
    """

    def __init__(self, module: nn.Module, n_features: int, n_classes: int) -> None:
        super().__init__()
        for name, part in module.named_modules():
            held = list(part.parameters(recurse=False))
            if held and not callable(getattr(part, "reset_parameters", None)):
                raise ValueError(
                    f"PlainModel: module has parameters in {name or 'itself'!r} "
                    f"({type(part).__name__}) without a method reset_parameters; give it one"
                )
        self.module = module
        self.n_features, self.n_classes = n_features, n_classes

    def reset_parameters(self, fan_in: int | None = None) -> None:
        """Draw new initial weights and reset running statistics, part by part.

        Args:
            fan_in: number of features that are real; the parts know nothing of it.
        """
        for part in self.module.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()

    def forward(
        self, x: Tensor, feature_mask: Tensor | None = None, class_mask: Tensor | None = None
    ) -> Tensor:
        """Class scores, ``(batch, F)`` to ``(batch, C)``."""
        if feature_mask is not None:
            x = x * feature_mask
        return hide_classes(self.module(self._check_input(x)), class_mask)

    def padding_masks(self, feature_mask: Tensor, class_mask: Tensor) -> dict[str, Tensor]:
        """None: which elements belong to padding, only the module knows."""
        return {}

    def feature_importance(self, x: Tensor) -> Tensor:
        """Mean size of the highest score's gradient in each feature, ``(F,)``; sums to 1.

        Simonyan et al. 2014, "Deep Inside Convolutional Networks", section 3. The module
        explains nothing by itself; this is an approximation, not its own account.
        """
        with evaluating(self), torch.enable_grad():
            rows = self._check_input(x).detach().requires_grad_()
            (slopes,) = torch.autograd.grad(self(rows).max(-1).values.sum(), rows)
        return shares(slopes.abs().mean(0))
