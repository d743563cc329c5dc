"""What an explainer is: rows in, attributions out."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Explainer(Protocol):
    """Says how much each feature of each row has to do with what a model says of it.

    `OwnExplainer` and `CaptumExplainer` are two; any function with these arguments is another.

    Example:
        >>> weight = np.array([2.0, -1.0])
        >>> def of_a_linear_model(x: Any, target: Any = None) -> NDArray[np.float64]:
        ...     return np.asarray(x) * weight
        >>> explainer: Explainer = of_a_linear_model
        >>> explainer([[1.0, 1.0]])
        array([[ 2., -1.]])
    """

    def __call__(self, x: Any, target: Any = None, /) -> NDArray[np.float64]:
        """Explain rows.

        Args:
            x: ``(n, F)``.
            target: the class to explain, one for all rows or ``(n,)``, one for each; None for
                the class that the model predicts. Regressions have none.

        Returns:
            ``(n, F)``: the larger the magnitude, the more the feature matters. Above 0 it speaks
            for the target, below 0 against it, if the explainer knows directions.
        """
