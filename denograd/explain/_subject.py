"""What explainers explain: a module, by itself or within an estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from denograd.estimators import DenoGradClassifier, DenoGradEstimator
from denograd.explain._checks import class_numbers


def to_rows(x: Any, module: nn.Module) -> Tensor:
    """Rows as a tensor of the module's precision, on its device, apart from any graph."""
    own = next(
        (p for p in (*module.parameters(), *module.buffers()) if p.is_floating_point()), None
    )
    dtype = torch.get_default_dtype() if own is None else own.dtype
    try:
        rows = torch.as_tensor(x if isinstance(x, Tensor) else np.asarray(x, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"x: it does not hold numbers ({error})") from error
    rows = rows.detach().to(device=None if own is None else own.device, dtype=dtype)
    if rows.dim() < 2 or len(rows) == 0:
        raise ValueError(
            f"x: it has shape {tuple(rows.shape)}; it must be (rows, features), with at least a row"
        )
    return rows


class Subject:
    """A module, and how its users' rows, columns and classes become its own.

    Args:
        owner: who asks, for errors.
        model: a module, or a fitted estimator of `denograd.estimators`.

    Raises:
        TypeError: it is neither.
    """

    def __init__(self, owner: str, model: nn.Module | DenoGradEstimator) -> None:
        self.owner = owner
        self.estimator = model if isinstance(model, DenoGradEstimator) else None
        if self.estimator is None and not isinstance(model, nn.Module):
            raise TypeError(
                f"{owner}: model is a {type(model).__name__}; it must be a torch.nn.Module or a "
                "fitted estimator of denograd.estimators"
            )
        self._given = model

    @property
    def module(self) -> nn.Module:
        """The module as it is now; an estimator has a new one after each fit."""
        if self.estimator is None:
            assert isinstance(self._given, nn.Module)
            return self._given
        fitted: nn.Module | None = getattr(self.estimator, "model_", None)
        if fitted is None:
            raise ValueError(
                f"{self.owner}: the {type(self.estimator).__name__} is not fitted; call fit first"
            )
        return fitted

    def rows(self, x: Any) -> Tensor:
        """Rows as the module sees them, ``(n, F)``."""
        if self.estimator is None:
            return to_rows(x, self.module)
        _ = self.module
        return self.estimator._encoded(x)[0]

    def targets(self, target: Any, output: Tensor) -> Tensor | None:
        """The number of the class to explain in each row; None if there is a single output.

        Args:
            target: labels of an estimator, else class numbers; None for the likeliest.
            output: the module's, ``(n, n_outputs)``.
        """
        if output.dim() != 2:
            raise ValueError(
                f"{self.owner}: the model's output has shape {tuple(output.shape)}; it must be "
                "(rows, outputs)"
            )
        count, outputs = output.shape
        if outputs == 1:
            if target is not None:
                raise ValueError(
                    f"{self.owner}: target={target!r}, but the model has one output; leave it None"
                )
            return None
        if target is None:
            return output.argmax(dim=-1)
        given = np.asarray(target.detach().cpu() if isinstance(target, Tensor) else target)
        if given.shape not in ((), (count,)):
            raise ValueError(
                f"{self.owner}: target has shape {given.shape}; it must be one class, or "
                f"({count},), one for each row"
            )
        numbers = self._numbers(given, outputs)
        return torch.from_numpy(np.broadcast_to(numbers, (count,)).copy()).to(output.device)

    def _numbers(self, given: NDArray[Any], outputs: int) -> NDArray[np.int64]:
        """Labels as class numbers."""
        if isinstance(self.estimator, DenoGradClassifier):
            known: list[Any] = self.estimator.classes_.tolist()
        else:
            known = list(range(outputs))
        return class_numbers(f"{self.owner}: target", given, known)

    def by_column(self, attributions: Tensor) -> NDArray[np.float64]:
        """Attributions to the module's features, ``(n, F)``, summed for each column given."""
        values = attributions.detach().cpu().double().numpy()
        if not np.isfinite(values).all():
            raise ValueError(
                f"{self.owner}: {int((~np.isfinite(values)).sum())} attributions are NaN or "
                "infinite; are the rows x, and the model's parameters, finite numbers?"
            )
        if self.estimator is None:
            return np.asarray(values, dtype=np.float64)
        sources = self.estimator._encoder.sources
        summed = np.zeros((len(values), int(self.estimator.n_features_in_)))
        np.add.at(summed.T, sources, values.T)
        return summed
