"""How well predicted probabilities fit the true classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    roc_auc_score,
)

METRICS = (
    "log_loss",
    "brier",
    "calibration_error",
    "accuracy",
    "balanced_accuracy",
    "roc_auc",
)
"""Names that `score` returns, in the order of the results."""

LOG_LOSS_FLOOR = float(np.finfo(np.float64).eps)
"""Probabilities below are taken for it in the log loss, which so is at most 36.04 nats a row."""

CALIBRATION_BINS = 15
"""Bins of the calibration error, as many as in Guo et al. 2017."""


def score(codes: NDArray[np.int64], probabilities: NDArray[np.float64]) -> dict[str, float]:
    """Log loss in nats, Brier score, calibration error, accuracies and ROC AUC.

    Log loss, accuracy, balanced accuracy and ROC AUC are scikit-learn's; see `brier_score`
    and `calibration_error` for the others. For more than two classes the ROC AUC is the
    plain mean over classes, each against the rest. Where it is not defined, because a class
    has no test row, it is NaN.

    For the log loss scikit-learn cuts probabilities at machine epsilon (`LOG_LOSS_FLOOR`): a row
    that is predicted wrong with certainty costs 36.04 nats, and not infinitely many. Learning
    curves, which are made of scores before the softmax, are not cut.

    Args:
        codes: ``(rows,)``, the true class of each row, from 0.
        probabilities: ``(rows, C)``, finite; each row sums to 1.

    Returns:
        the metrics by name, in the order of `METRICS`.

    Raises:
        ValueError: the shapes do not fit, or a probability is not finite.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> {name: round(v, 3) for name, v in score(np.array([0, 1]), probabilities).items()}
        {'log_loss': 0.164, 'brier': 0.05, 'calibration_error': 0.15, 'accuracy': 1.0,
         'balanced_accuracy': 1.0, 'roc_auc': 1.0}
    """
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    present = np.unique(codes)
    if len(present) < len(classes):
        auc = float("nan")
    elif len(classes) == 2:
        auc = float(roc_auc_score(codes, probabilities[:, 1]))
    else:
        auc = float(roc_auc_score(codes, probabilities, multi_class="ovr", labels=classes))
    # Defined by hand as the mean recall over classes that occur; scikit-learn's function
    # means the same but warns when a class is predicted that the test rows do not show.
    balanced = (
        float(balanced_accuracy_score(codes, predicted))
        if len(present) == len(classes)
        else float(np.nanmean(class_recalls(codes, probabilities)))
    )
    return {
        "log_loss": float(log_loss(codes, probabilities, labels=classes)),
        "brier": brier_score(codes, probabilities),
        "calibration_error": calibration_error(codes, probabilities),
        "accuracy": float(accuracy_score(codes, predicted)),
        "balanced_accuracy": balanced,
        "roc_auc": auc,
    }


def class_recalls(codes: NDArray[np.int64], probabilities: NDArray[np.float64]) -> list[float]:
    """For each class the share of its rows that are predicted to be of it.

    Predicted is the likeliest class, of equals the first. With two classes the recall of one is
    the sensitivity for it, and the specificity for the other.

    Args:
        codes: ``(rows,)``, the true class of each row, from 0.
        probabilities: ``(rows, C)``; each row sums to 1.

    Returns:
        ``(C,)``, each from 0 to 1; NaN for a class without a row.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> class_recalls(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]))
        [0.5, 1.0]
    """
    if probabilities.ndim != 2 or codes.shape != probabilities.shape[:1]:
        raise ValueError(
            f"class_recalls: codes have shape {codes.shape} and probabilities "
            f"{probabilities.shape}; they must be (rows,) and (rows, C)"
        )
    predicted = probabilities.argmax(axis=1)
    return [
        float((predicted[codes == c] == c).mean()) if (codes == c).any() else float("nan")
        for c in range(probabilities.shape[1])
    ]


def brier_score(codes: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """The squared distance of the probabilities from the truth.

    Brier 1950, "Verification of forecasts expressed in terms of probability", equation 2:
    the mean over rows of the sum over classes of ``(p - [class is true])^2``. With two
    classes it is twice what is often called the Brier score, which looks at one class.

    Args:
        codes: ``(rows,)``, the true class of each row, from 0.
        probabilities: ``(rows, C)``; each row sums to 1.

    Returns:
        from 0, certain and right, to 2, certain and wrong.

    Example:
        >>> round(brier_score(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])), 6)
        0.05
    """
    truth = np.eye(probabilities.shape[1])[codes]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def calibration_error(codes: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """How far confidence stands from accuracy: the expected calibration error.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", equations 2 and 3: rows
    fall into 15 bins of equal width, ``((m - 1) / 15, m / 15]``, by the probability of the
    class that is predicted; the error is the mean over bins, weighted by their rows, of
    ``|accuracy - mean confidence|``. It is biased upwards on few rows, for all models alike.

    Args:
        codes: ``(rows,)``, the true class of each row, from 0.
        probabilities: ``(rows, C)``; each row sums to 1.

    Returns:
        from 0 to 1; lower is better.

    Example:
        >>> round(calibration_error(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])), 6)
        0.15
    """
    hit = probabilities.argmax(axis=1) == codes
    confidence = probabilities.max(axis=1)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    # Rounding may leave a probability a hair above 1; it belongs into the last bin.
    bins = np.searchsorted(edges[1:-1], confidence, side="left")
    # In a bin, rows times |accuracy - confidence| is the absolute sum of the differences.
    gaps = np.bincount(bins, weights=hit - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(codes))
