"""How well predicted numbers, and what was said of their spread, fit the true ones.

A model of `denograd.models` predicts a mean. To score what that says of a new row, the
prediction becomes a normal distribution: its mean is the model's output, and its variance,
the same for every row, is the mean squared residual of the training rows. It is the variance
of largest likelihood in training (no degrees of freedom are taken off, since how many a soft
tree has nobody knows), so a model that fits its training rows better than it can predict
claims too much, and pays.

All metrics are in the target's own units: the RMSE and the CRPS in units of the target, the
NLL in nats for a density over them. Only R2 can be averaged over data sets as it is. Of the
others, what does not depend on the unit can: ratios of RMSE or CRPS to a reference's on the same
rows, and differences of NLL. The report of several data sets shows these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf
from sklearn.metrics import r2_score, root_mean_squared_error
from torch import Tensor
from torch.nn import functional as F

from denograd.data import TargetScale

REGRESSION_METRICS = ("rmse", "r2", "nll", "crps")
"""Names that `score_regression` returns, in the order of the results."""

LEAST_SPREAD = 1e-2
"""A prediction's deviation is at least so many of the target's in training.

Else rows that are fitted exactly would claim a deviation of 0 and an infinite NLL.
"""

DIVERGED = 4.0
"""A run that diverged counts with an RMSE of so many deviations of the target in training.

Four times what the training rows' mean scores, as a diverged classifier counts with four times
the log loss of a blind guess.
"""

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def loss_of(n_classes: int | None) -> Loss:
    """What a model is trained on: outputs ``(n, n_outputs)`` and targets ``(n,)`` to a number.

    Args:
        n_classes: number of classes for the cross entropy in nats; None for the mean squared
            error, of which the targets are standardised (`denograd.data.TargetScale`).

    Example:
        >>> import torch
        >>> loss_of(None)(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0])).item()
        2.0
    """
    return F.cross_entropy if n_classes is not None else squared_error


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of outputs ``(n, 1)`` for targets ``(n,)``.

    Raises:
        ValueError: other shapes; they would be broadcast to ``(n, n)`` without a word.
    """
    if output.shape != (*target.shape, 1):
        raise ValueError(
            f"squared_error: output has shape {tuple(output.shape)} and target "
            f"{tuple(target.shape)}; they must be (n, 1) and (n,), from a model with n_classes=None"
        )
    return (output.squeeze(-1) - target).square().mean()


def residual_deviation(y: ArrayLike, predicted: ArrayLike) -> float:
    """Deviation of the training rows' residuals about 0, the spread of a prediction.

    ``sqrt(mean((y - predicted)^2))``, but at least `LEAST_SPREAD` times the standard deviation
    of ``y`` (or times 1, if ``y`` is constant).

    Args:
        y: ``(n,)``, targets of the training rows.
        predicted: ``(n,)``.

    Raises:
        ValueError: the shapes do not fit, or a value is not finite.

    Example:
        >>> residual_deviation([1.0, 3.0], [2.0, 2.0])
        1.0
        >>> residual_deviation([1.0, 3.0], [1.0, 3.0])
        0.01
    """
    true, said = _pair("residual_deviation", y, predicted)
    found = math.sqrt(float(np.mean((true - said) ** 2)))
    return max(found, LEAST_SPREAD * TargetScale.fit(true).deviation)


def gaussian_nll(y: ArrayLike, mean: ArrayLike, deviation: float) -> NDArray[np.float64]:
    """Negative log density of each row under a normal distribution, ``(n,)``, in nats.

    ``log(2 pi s^2) / 2 + (y - m)^2 / (2 s^2)``.

    Args:
        y: ``(n,)``, true values.
        mean: ``(n,)``, predicted means.
        deviation: the predicted standard deviation, above 0.

    Raises:
        ValueError: the shapes do not fit, a value is not finite, or the deviation is not
            above 0.

    Example:
        >>> gaussian_nll([0.0], [0.0], 1.0).round(4).tolist()
        [0.9189]
    """
    z = _standardised("gaussian_nll", y, mean, deviation)
    loss: NDArray[np.float64] = 0.5 * z**2 + math.log(deviation) + 0.5 * math.log(2 * math.pi)
    return loss


def gaussian_crps(y: ArrayLike, mean: ArrayLike, deviation: float) -> NDArray[np.float64]:
    """Continuous ranked probability score of each row under a normal distribution, ``(n,)``.

    Gneiting & Raftery 2007, equation 21, with the sign turned, so that lower is better::

        s * (z * (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)),  z = (y - m) / s

    It is in the units of ``y``; as the deviation goes to 0 it becomes the absolute error.

    Args:
        y: ``(n,)``, true values.
        mean: ``(n,)``, predicted means.
        deviation: the predicted standard deviation, above 0.

    Raises:
        ValueError: the shapes do not fit, a value is not finite, or the deviation is not
            above 0.

    Example:
        >>> gaussian_crps([0.0, 2.0], [0.0, 0.0], 1.0).round(4).tolist()
        [0.2337, 1.4528]
    """
    z = _standardised("gaussian_crps", y, mean, deviation)
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    # 2 Phi(z) - 1 is erf(z / sqrt(2)).
    unit = z * erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)
    score: NDArray[np.float64] = deviation * unit
    return score


def score_regression(y: ArrayLike, predicted: ArrayLike, deviation: float) -> dict[str, float]:
    """RMSE, R2, mean Gaussian NLL and mean CRPS; the first two by scikit-learn.

    R2 is one minus the mean squared error over the variance of ``y`` itself, so it needs two
    distinct values of ``y``; else it is NaN.

    Args:
        y: ``(n,)``, true values of test rows, in the target's own units.
        predicted: ``(n,)``, in the same.
        deviation: that each prediction claims, from `residual_deviation`.

    Returns:
        the metrics by name, in the order of `REGRESSION_METRICS`.

    Raises:
        ValueError: the shapes do not fit, a value is not finite, or the deviation is not
            above 0.

    Example:
        >>> found = score_regression([1.0, 3.0], [2.0, 3.0], deviation=1.0)
        >>> {name: round(value, 3) for name, value in found.items()}
        {'rmse': 0.707, 'r2': 0.5, 'nll': 1.169, 'crps': 0.418}
    """
    true, said = _pair("score_regression", y, predicted)
    return {
        "rmse": float(root_mean_squared_error(true, said)),
        "r2": float(r2_score(true, said)) if np.ptp(true) > 0 else float("nan"),
        "nll": float(gaussian_nll(true, said, deviation).mean()),
        "crps": float(gaussian_crps(true, said, deviation).mean()),
    }


def regression_metrics(
    scale: TargetScale, train_loss: float, y_test: ArrayLike, output_test: ArrayLike
) -> dict[str, float]:
    """What a finished run's row says of a regression, in the target's own units.

    Args:
        scale: that the targets were standardised with.
        train_loss: mean squared error over all training rows of the finished model, standardised:
            the last of a learning curve, from which `residual_deviation` follows.
        y_test: ``(m,)``, targets of the test rows, standardised.
        output_test: ``(m, 1)``, the model's output for them.

    Returns:
        `REGRESSION_METRICS` of the test rows.

    Raises:
        ValueError: the shapes do not fit, or a value is not finite.

    Example:
        >>> scale = TargetScale(mean=10.0, deviation=2.0)
        >>> found = regression_metrics(scale, 1.0, [-1, 1], [[-1], [0]])
        >>> round(found["rmse"], 3), found["r2"]
        (1.414, 0.5)
    """
    if not (math.isfinite(train_loss) and train_loss >= 0):
        raise ValueError(
            f"regression_metrics: train_loss={train_loss!r}; it must be a finite number of at "
            "least 0, the mean squared error of the training rows"
        )
    output = np.asarray(output_test, dtype=np.float64)
    if output.ndim != 2 or output.shape[1] != 1:
        raise ValueError(
            f"regression_metrics: output_test has shape {output.shape}; it must be (rows, 1), from "
            "a model with n_classes=None"
        )
    spread = max(math.sqrt(train_loss), LEAST_SPREAD) * scale.deviation
    return score_regression(scale.restore(y_test), scale.restore(output[:, 0]), spread)


def _pair(owner: str, y: ArrayLike, said: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    true, predicted = (np.asarray(values, dtype=np.float64) for values in (y, said))
    if true.ndim != 1 or true.shape != predicted.shape or len(true) == 0:
        raise ValueError(
            f"{owner}: true values have shape {true.shape} and predicted ones {predicted.shape}; "
            "both must be (rows,), with at least one row"
        )
    for name, values in (("true", true), ("predicted", predicted)):
        if not np.isfinite(values).all():
            raise ValueError(
                f"{owner}: {name} values hold {int((~np.isfinite(values)).sum())} that are not "
                "finite; a run that diverged has no metrics"
            )
    return true, predicted


def _standardised(
    owner: str, y: ArrayLike, mean: ArrayLike, deviation: float
) -> NDArray[np.float64]:
    true, said = _pair(owner, y, mean)
    if not (math.isfinite(deviation) and deviation > 0):
        raise ValueError(f"{owner}: deviation={deviation!r}; it must be a number above 0")
    z: NDArray[np.float64] = (true - said) / deviation
    return z
