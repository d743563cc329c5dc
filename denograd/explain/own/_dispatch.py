"""The function that a kind of model registers its explanation with."""

from __future__ import annotations

from functools import singledispatch

from torch import Tensor, nn


@singledispatch
def own_attributions(
    model: nn.Module, x: Tensor, target: Tensor | None, baseline: Tensor
) -> Tensor:
    """How much each feature of each row has to do with the model's output.

    Args:
        model: one of `denograd.models`, or of a class that registered a function here:
            ``@own_attributions.register``.
        x: rows, ``(n, F)``.
        target: the class to explain in each row, ``(n,)``; None in regression.
        baseline: a row to compare with, ``(F,)``, by models that compare.

    Returns:
        ``(n, F)``.

    Raises:
        TypeError: nothing is registered for the model's class.
    """
    raise TypeError(
        f"OwnExplainer: {type(model).__name__} has no explanation of its own; use a model of "
        "denograd.models, register one with denograd.explain.own_attributions.register, or use "
        "CaptumExplainer, which works for any module"
    )


def against_others(scores: Tensor) -> Tensor:
    """Each class's score less the mean of the others', ``(..., C)``; in regression the value.

    What is added to the scores of all classes alike, and so moves no probability, is gone.

    Example:
        >>> import torch
        >>> against_others(torch.tensor([1.0, 3.0])), against_others(torch.tensor([2.0]))
        (tensor([-2.,  2.]), tensor([2.]))
    """
    classes = scores.shape[-1]
    if classes == 1:
        return scores
    return (scores * classes - scores.sum(-1, keepdim=True)) / (classes - 1)


def for_target(values: Tensor, target: Tensor | None) -> Tensor:
    """Of values ``(n, ..., n_outputs)``, those of each row's class, ``(n, ...)``."""
    if target is None:
        return values[..., 0]
    index = target.reshape(-1, *(1 for _ in values.shape[1:])).expand(*values.shape[:-1], 1)
    return values.gather(-1, index).squeeze(-1)
