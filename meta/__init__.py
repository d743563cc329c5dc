"""Meta-training: learn a denoiser over many small tasks.

A `TaskFamily` draws tasks; `draw_episode` stacks some and draws how the inner loop trains
on them; an *engine* runs the inner loop; an *estimator* turns the unroll into a
meta-gradient for each task; `combine` leaves out what exploded; `MetaTrainer` wires these
together, and `MetaValidation` picks the weights.

Example:
    >>> import numpy as np
    >>> from denograd.meta import PriorFamily
    >>> task = PriorFamily().draw(np.random.default_rng(0), rows=30, test_rows=50, max_features=8)
    >>> task.x_train.shape[0], task.x_test.shape[0]
    (30, 50)
"""

from denograd.meta.batched import BatchedModel
from denograd.meta.checkpoint import Progress
from denograd.meta.combine import Combined, combine
from denograd.meta.config import MetaTrainingError, TrainerConfig
from denograd.meta.engines import (
    ENGINES,
    BatchedEngine,
    Engine,
    HigherEngine,
    InnerState,
    TorchoptEngine,
    base_transform,
    run_episode,
)
from denograd.meta.episode import (
    Episode,
    EpisodeDistribution,
    assemble_episode,
    draw_batches,
    draw_episode,
)
from denograd.meta.estimators import (
    ESTIMATORS,
    Backprop,
    Estimator,
    EvolutionStrategies,
    MetaLoss,
    Particles,
    PersistentES,
    TaskGradients,
    TruncatedBackprop,
)
from denograd.meta.family import (
    MixedFamily,
    PriorFamily,
    SequencePriorFamily,
    TableFamily,
    TaskFamily,
)
from denograd.meta.horizon import Curriculum, Truncation
from denograd.meta.plain import PlainModel
from denograd.meta.prior import draw_prior_table
from denograd.meta.processes import Processes, ProcessLost
from denograd.meta.tables import SourceTable, encode_source, load_sources
from denograd.meta.task import Task, TaskBatch, make_task
from denograd.meta.trainer import MetaTrainer
from denograd.meta.validation import MetaValidation, Score
from denograd.meta.weights import TaskWeights, denoiser_of_task

__all__ = [
    "ENGINES",
    "ESTIMATORS",
    "Backprop",
    "BatchedEngine",
    "BatchedModel",
    "Combined",
    "Curriculum",
    "Engine",
    "Episode",
    "EpisodeDistribution",
    "Estimator",
    "EvolutionStrategies",
    "HigherEngine",
    "InnerState",
    "MetaLoss",
    "MetaTrainer",
    "MetaTrainingError",
    "MetaValidation",
    "MixedFamily",
    "Particles",
    "PersistentES",
    "PlainModel",
    "PriorFamily",
    "ProcessLost",
    "Processes",
    "Progress",
    "Score",
    "SequencePriorFamily",
    "SourceTable",
    "TableFamily",
    "Task",
    "TaskBatch",
    "TaskFamily",
    "TaskGradients",
    "TaskWeights",
    "TorchoptEngine",
    "TrainerConfig",
    "TruncatedBackprop",
    "Truncation",
    "assemble_episode",
    "base_transform",
    "combine",
    "denoiser_of_task",
    "draw_batches",
    "draw_episode",
    "draw_prior_table",
    "encode_source",
    "load_sources",
    "make_task",
    "run_episode",
]
