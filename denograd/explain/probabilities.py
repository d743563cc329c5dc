"""A module's class probabilities as a function of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from denograd._modes import evaluating
from denograd.explain._subject import to_rows


def probabilities(model: nn.Module) -> Callable[[Any], NDArray[np.float64]]:
    """The softmax of a module's scores, for `deletion` and `insertion`.

    Args:
        model: ``(n, F)`` to scores or log-probabilities ``(n, C)``; it runs in evaluation mode,
            without gradients.

    Returns:
        a function of rows, ``(n, F)`` to ``(n, C)``.

    Example:
        >>> predict = probabilities(nn.Linear(4, 3))
        >>> predict(np.zeros((5, 4))).shape
        (5, 3)
    """

    def predict(x: Any) -> NDArray[np.float64]:
        with torch.no_grad(), evaluating(model):
            output = model(to_rows(x, model))
        return np.asarray(output.double().softmax(dim=-1).cpu().numpy(), dtype=np.float64)

    return predict
