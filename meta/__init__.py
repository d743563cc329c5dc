"""Meta-training: learn a denoiser over many small tasks.

A `TaskFamily` draws tasks; `draw_episode` stacks some and draws how the inner loop trains
on them; `advance` takes an inner step on all of them at once; `truncated_backprop` turns
the unroll into a meta-gradient; `MetaTrainer` wires these together, and `MetaValidation`
picks the weights.

Example:
    >>> import numpy as np
    >>> from denograd.meta import PriorFamily
    >>> task = PriorFamily().draw(np.random.default_rng(0), rows=30, test_rows=50, max_features=8)
    >>> task.x_train.shape[0], task.x_test.shape[0]
    (30, 50)
"""

from denograd.meta.batched import BatchedModel
from denograd.meta.episode import (
    Episode,
    EpisodeDistribution,
    assemble_episode,
    draw_batches,
    draw_episode,
)
from denograd.meta.estimator import MetaGradient, MetaLoss, truncated_backprop
from denograd.meta.family import MixedFamily, PriorFamily, TableFamily, TaskFamily
from denograd.meta.prior import draw_prior_table
from denograd.meta.tables import SourceTable, encode_source, load_sources
from denograd.meta.task import Task, TaskBatch, make_task
from denograd.meta.trainer import MetaTrainer, MetaTrainingError, Progress, TrainerConfig
from denograd.meta.unroll import InnerState, advance, base_transform, start
from denograd.meta.validation import MetaValidation, Score, run_episode

__all__ = [
    "BatchedModel",
    "Episode",
    "EpisodeDistribution",
    "InnerState",
    "MetaGradient",
    "MetaLoss",
    "MetaTrainer",
    "MetaTrainingError",
    "MetaValidation",
    "MixedFamily",
    "PriorFamily",
    "Progress",
    "Score",
    "SourceTable",
    "TableFamily",
    "Task",
    "TaskBatch",
    "TaskFamily",
    "TrainerConfig",
    "advance",
    "assemble_episode",
    "base_transform",
    "draw_batches",
    "draw_episode",
    "draw_prior_table",
    "encode_source",
    "load_sources",
    "make_task",
    "run_episode",
    "start",
    "truncated_backprop",
]
