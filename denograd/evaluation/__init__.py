"""Comparing optimizers on small data sets.

Example:
    >>> import tempfile
    >>> from denograd.data import builtin_table
    >>> from denograd.evaluation import EvaluationConfig, evaluate
    >>> config = EvaluationConfig(
    ...     models=("soft_tree",), optimizers=("sgd",), sizes=(32,), seeds=1, steps=5
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = evaluate([builtin_table("iris")], config, folder, jobs=1)
    >>> done.results[["dataset", "optimizer", "n_train", "steps"]].values.tolist()
    [['iris', 'sgd', 32, 5]]
"""

from denograd.evaluation.config import EvaluationConfig, EvaluationError, OtherSettingsError
from denograd.evaluation.metrics import METRICS, score
from denograd.evaluation.report import results_table, verdict
from denograd.evaluation.runner import Evaluation, evaluate
from denograd.evaluation.summary import summarise
from denograd.evaluation.train import Cell, CellData, CellResult, train_cell

__all__ = [
    "METRICS",
    "Cell",
    "CellData",
    "CellResult",
    "Evaluation",
    "EvaluationConfig",
    "EvaluationError",
    "OtherSettingsError",
    "evaluate",
    "results_table",
    "score",
    "summarise",
    "train_cell",
    "verdict",
]
