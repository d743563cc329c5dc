"""What a table holds and what becomes of its columns, for whoever checks an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from denograd.data import ColumnPlan, Table


def describe_table(table: Table, plan: ColumnPlan, test_rows: Sequence[int]) -> dict[str, Any]:
    """Facts of a table, as plain JSON.

    Args:
        table: what is evaluated.
        plan: what its columns are used as.
        test_rows: how many were tested on in each run.

    Returns:
        ``file`` and ``file_sha256``, which `sha256sum` confirms (None if the table was read
        from no file); ``rows`` with a label and rows that were ``unlabelled``; the fewest and
        most ``test_rows`` of a run (None if none was finished); the ``target``'s name, with
        rows by ``classes`` or, for regression, its ``range``; names of columns by kind
        (``numbers``, ``categories``, ``dates``), and those that are ``left_out`` with the
        reason; the ``group``, its name and how many there are, or None; ``channels`` and
        ``steps`` of sequences, 0 for a table.

    Example:
        >>> from denograd.data import builtin_table, plan_columns
        >>> wine = builtin_table("wine")
        >>> facts = describe_table(wine, plan_columns(wine), [114, 114])
        >>> facts["rows"], facts["test_rows"], facts["classes"], len(facts["numbers"])
        (178, [114, 114], {'class_0': 59, 'class_1': 71, 'class_2': 48}, 13)
    """
    classes = spread = None
    if table.task == "classification":
        counts = np.bincount(table.codes, minlength=len(table.classes)).tolist()
        classes = dict(zip(class_labels(table), counts, strict=True))
    else:
        ends = (("min", np.min), ("median", np.median), ("max", np.max))
        spread = {name: float(of(table.y)) for name, of in ends}
    path, groups = table.path, table.groups
    return {
        "file": None if path is None else path.name,
        "file_sha256": table.sha256,
        "rows": len(table),
        "unlabelled": table.unlabelled,
        "test_rows": [min(test_rows), max(test_rows)] if len(test_rows) else None,
        "target": str(table.target.name),
        "classes": classes,
        "range": spread,
        "numbers": list(plan.numeric),
        "categories": list(plan.category),
        "dates": list(plan.date),
        "left_out": dict(plan.dropped),
        "channels": table.n_channels,
        "steps": len(plan.numeric) // table.n_channels if table.n_channels else 0,
        "group": None if groups is None else {"name": groups.name, "groups": groups.nunique()},
    }


def class_labels(table: Table) -> list[str]:
    """The labels of a table's classes as text, in the order of their codes.

    Example:
        >>> from denograd.data import builtin_table
        >>> class_labels(builtin_table("wine"))
        ['class_0', 'class_1', 'class_2']
    """
    written = [str(label) for label in table.classes]
    # The number 1 and the text "1" are two classes.
    return written if len(set(written)) == len(written) else [repr(c) for c in table.classes]
