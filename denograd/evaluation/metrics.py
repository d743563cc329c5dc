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

METRICS = ("log_loss", "accuracy", "balanced_accuracy", "roc_auc")
"""Names that `score` returns, in the order of the results."""


def score(codes: NDArray[np.int64], probabilities: NDArray[np.float64]) -> dict[str, float]:
    """Log loss in nats, accuracy, balanced accuracy and ROC AUC, by scikit-learn.

    For more than two classes the ROC AUC is the plain mean over classes, each against the
    rest. Where it is not defined, because a class has no test row, it is NaN.

    Args:
        codes: ``(rows,)``, the true class of each row, from 0.
        probabilities: ``(rows, C)``, finite; each row sums to 1.

    Returns:
        the four metrics by name.

    Raises:
        ValueError: the shapes do not fit, or a probability is not finite.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> {name: round(v, 3) for name, v in score(np.array([0, 1]), probabilities).items()}
        {'log_loss': 0.164, 'accuracy': 1.0, 'balanced_accuracy': 1.0, 'roc_auc': 1.0}
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
    recalls = [accuracy_score(codes[codes == c], predicted[codes == c]) for c in present]
    balanced = (
        float(balanced_accuracy_score(codes, predicted))
        if len(present) == len(classes)
        else float(np.mean(recalls))
    )
    return {
        "log_loss": float(log_loss(codes, probabilities, labels=classes)),
        "accuracy": float(accuracy_score(codes, predicted)),
        "balanced_accuracy": balanced,
        "roc_auc": auc,
    }
