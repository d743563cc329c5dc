"""What a table holds and what becomes of its columns, for whoever checks an evaluation."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from denograd.data import ColumnPlan, Table


def describe_table(table: Table, plan: ColumnPlan, largest: int) -> dict[str, Any]:
    """Facts of a table, as plain JSON.

    Args:
        table: what is evaluated.
        plan: what its columns are used as.
        largest: the largest training size, which sets the number of test rows.

    Returns:
        ``file`` and ``file_sha256``, which `sha256sum` confirms (None if the table was read from
        no file); ``rows`` with a label and rows that were ``unlabelled``; ``test_rows`` of a
        seed; the ``target``'s name, with rows by ``classes`` or, for regression, its ``range``;
        names of columns by kind (``numbers``, ``categories``, ``dates``), and those that are
        ``left_out`` with the reason; the ``group``, its name and how many there are, or None.

    Example:
        >>> from denograd.data import builtin_table, plan_columns
        >>> wine = builtin_table("wine")
        >>> facts = describe_table(wine, plan_columns(wine), largest=64)
        >>> facts["rows"], facts["test_rows"], facts["classes"], len(facts["numbers"])
        (178, 114, {'class_0': 59, 'class_1': 71, 'class_2': 48}, 13)
    """
    classes = spread = None
    if table.task == "classification":
        counts = np.bincount(table.codes, minlength=len(table.classes)).tolist()
        classes = {str(label): count for label, count in zip(table.classes, counts, strict=True)}
    else:
        ends = (("min", np.min), ("median", np.median), ("max", np.max))
        spread = {name: float(of(table.y)) for name, of in ends}
    path, groups = table.path, table.groups
    return {
        "file": None if path is None else path.name,
        "file_sha256": None if path is None else hashlib.sha256(path.read_bytes()).hexdigest(),
        "rows": len(table),
        "unlabelled": table.unlabelled,
        "test_rows": len(table.split([largest], seed=0).test),
        "target": str(table.target.name),
        "classes": classes,
        "range": spread,
        "numbers": list(plan.numeric),
        "categories": list(plan.category),
        "dates": list(plan.date),
        "left_out": dict(plan.dropped),
        "group": None if groups is None else {"name": groups.name, "groups": groups.nunique()},
    }
