"""Tables: reading, encoding and splitting them.

Example:
    >>> from denograd.data import Encoder, builtin_table, nested_split, plan_columns
    >>> table = builtin_table("wine")
    >>> split = nested_split(table.codes, sizes=[32, 64], seed=0)
    >>> train = table.features.iloc[split.train[32]]
    >>> Encoder(plan_columns(table)).fit(train).transform(train).shape
    (32, 13)

A target may also be measured: ``read_table(path, task="regression")``, or ``task="auto"``.
"""

from denograd.data.builtin import BUILTIN_NAMES, builtin_table
from denograd.data.columns import ColumnPlan, plan_columns
from denograd.data.encoder import Encoder
from denograd.data.errors import TableError, TableWarning
from denograd.data.groups import grouped_split
from denograd.data.measured import TargetScale, quantile_strata
from denograd.data.splits import Split, check_size, largest_size, nested_split
from denograd.data.table import Table, read_table, read_tables
from denograd.data.target import TASKS, TaskChoice, TaskName, check_task, task_of

__all__ = [
    "BUILTIN_NAMES",
    "TASKS",
    "ColumnPlan",
    "Encoder",
    "Split",
    "Table",
    "TableError",
    "TableWarning",
    "TargetScale",
    "TaskChoice",
    "TaskName",
    "builtin_table",
    "check_size",
    "check_task",
    "grouped_split",
    "largest_size",
    "nested_split",
    "plan_columns",
    "quantile_strata",
    "read_table",
    "read_tables",
    "task_of",
]
