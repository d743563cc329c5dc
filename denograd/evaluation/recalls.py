"""Means over seeds of what share of each class was recognised.

A run of an earlier version did not keep its recalls, and one that diverged has none. So that
optimizers are compared over the same splits, a seed counts only if all of its runs have them, but
for those of an optimizer that has none with any seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from denograd.evaluation.train import CellResult


def counted_runs(by_seed: Sequence[Sequence[CellResult]]) -> list[Sequence[CellResult]]:
    """The seeds of which each run has recalls, of optimizers that have any.

    Args:
        by_seed: for each seed its runs, one an optimizer, in the same order.

    Returns:
        those of the seeds, in their order; none for measured targets.

    Example:
        >>> new, old = CellResult({}, recalls=[0.5, 1.0], class_rows=[4, 4]), CellResult({})
        >>> len(counted_runs([[new, new], [new, old]])), len(counted_runs([[new, old]] * 2))
        (1, 2)
    """
    known = [[run.recalls is not None for run in runs] for runs in by_seed]
    lasting = [any(of_one) for of_one in zip(*known, strict=True)]
    return [
        runs
        for runs, has in zip(by_seed, known, strict=True)
        if any(lasting) and all(h or not lasts for h, lasts in zip(has, lasting, strict=True))
    ]


def mean_recalls(
    runs: Sequence[CellResult], labels: Sequence[str] | None = None
) -> dict[str, float | None]:
    """The mean recall of each class over runs that have them.

    Runs whose test rows lack a class are left out of its mean.

    Args:
        runs: of one optimizer, from `counted_runs`; at least one.
        labels: of the classes; default: their codes.

    Returns:
        by label; None for a class of which no run knows.

    Raises:
        ValueError: there are not as many labels as classes.

    Example:
        >>> runs = [CellResult({}, recalls=[r, None], class_rows=[4, 0]) for r in (0.5, 1.0)]
        >>> mean_recalls(runs, ["sick", "well"])
        {'sick': 0.75, 'well': None}
    """
    found: dict[str, float | None] = {}
    for place, label in enumerate(_labels(runs, labels)):
        values = [run.recalls[place] for run in runs if run.recalls is not None]
        known = [value for value in values if value is not None]
        found[label] = statistics.fmean(known) if known else None
    return found


def mean_rows(runs: Sequence[CellResult], labels: Sequence[str] | None = None) -> dict[str, float]:
    """The mean number of test rows of each class.

    Args:
        runs: one a seed, from `counted_runs`; at least one.
        labels: of the classes; default: their codes.

    Raises:
        ValueError: there are not as many labels as classes.

    Example:
        >>> mean_rows([CellResult({}, class_rows=rows) for rows in ([4, 1], [3, 2])])
        {'0': 3.5, '1': 1.5}
    """
    counts = [run.class_rows for run in runs if run.class_rows is not None]
    return {
        label: statistics.fmean(rows[place] for rows in counts)
        for place, label in enumerate(_labels(runs, labels))
    }


def _labels(runs: Sequence[CellResult], labels: Sequence[str] | None) -> list[str]:
    known = [run.class_rows for run in runs if run.class_rows is not None]
    # None of an optimizer's runs may have kept any.
    classes = len(known[0]) if known else len(labels or ())
    if labels is None:
        return [str(code) for code in range(classes)]
    if len(labels) != classes:
        raise ValueError(
            f"labels has {len(labels)} names ({', '.join(labels)}) and the runs know of {classes} "
            "classes; give one for each, in the order of their codes"
        )
    return list(labels)
