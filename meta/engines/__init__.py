"""Engines that run the inner loop, by name.

`batched` is the default and the fastest. The other two run one task at a time through
other people's differentiable optimizers: they check it, and they take models that cannot
be batched.
"""

from denograd.meta.engines._base import Engine, Schedule
from denograd.meta.engines.batched import BatchedEngine, InnerState, base_transform, run_episode
from denograd.meta.engines.higher_engine import HigherEngine
from denograd.meta.engines.torchopt_engine import TorchoptEngine

ENGINES: dict[str, type[Engine]] = {
    "batched": BatchedEngine,
    "torchopt": TorchoptEngine,
    "higher": HigherEngine,
}
"""Engines by name."""

__all__ = [
    "ENGINES",
    "BatchedEngine",
    "Engine",
    "HigherEngine",
    "InnerState",
    "Schedule",
    "TorchoptEngine",
    "base_transform",
    "run_episode",
]
