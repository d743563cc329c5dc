"""How to meta-train: every choice but the tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from denograd.meta.engines import ENGINES, BatchedEngine, Engine
from denograd.meta.estimators import ESTIMATORS, Estimator
from denograd.meta.horizon import Curriculum, Truncation


class MetaTrainingError(RuntimeError):
    """Meta-training cannot start or go on; the message says what to do."""


@dataclass(frozen=True)
class TrainerConfig:
    """How to meta-train; with the task family, and with ``steps``, it decides every weight.

    With ``minutes`` the learning rate follows the clock, and no two runs are the same.
    What explodes is left out: the gradient of a task is compared with the *usual norm*,
    the median over the last hundred meta-steps of the median norm of a task.

    Attributes:
        seed: of everything drawn.
        steps: meta-steps, or None to be stopped by ``minutes``.
        minutes: time, over all resumed runs, or None to be stopped by ``steps``.
        learning_rate: peak rate of the outer Adam; it warms up, then falls by a cosine to
            a tenth.
        warm_up: meta-steps of warm-up.
        estimator: of the meta-gradient: ``truncated``, ``full``, ``es`` or ``pes``.
        sigma, pairs: of the perturbations, for ``es`` and ``pes``.
        engine: that runs the inner loop.
        second_order: whether the meta-gradient goes through the gradients of the inner loop,
            too; see `BatchedEngine`.
        truncation: where unrolls are cut.
        curriculum: how horizons grow.
        explosion: a task whose gradient exceeds this many times the usual norm is left out
            and counted.
        clip: the gradient of a task is shortened to this many times the usual norm.
        average: decay of the running average of the weights that is validated and saved.
        validate_every: meta-steps between meta-validations.
        patience: meta-validations without a new best one after which to stop; None for
            never.
        save_seconds: time between checkpoints.
        hidden: width of the denoiser's net.
        pooled: whether a layer sees the mean features of all.
        disabled: coefficients held at their neutral value.
        within_batch: whether the denoiser reads the noise within the batch.
    """

    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 2e-3
    warm_up: int = 30
    estimator: str = "truncated"
    sigma: float = 0.02
    pairs: int = 1
    engine: str = "batched"
    second_order: bool = True
    truncation: Truncation = field(default_factory=Truncation)
    curriculum: Curriculum = field(default_factory=Curriculum)
    explosion: float = 8.0
    clip: float = 2.0
    average: float = 0.99
    validate_every: int = 250
    patience: int | None = None
    save_seconds: float = 30.0
    hidden: int = 32
    pooled: bool = True
    disabled: tuple[str, ...] = ()
    within_batch: bool = True

    def __post_init__(self) -> None:
        least = {"seed": 0, "warm_up": 1, "validate_every": 1, "hidden": 1, "pairs": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < bound:
                raise MetaTrainingError(
                    f"{name}={value!r}; it must be a whole number of at least {bound}"
                )
        for name in ("steps", "minutes", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise MetaTrainingError(f"{name}={value!r}; it must be above 0, or None")
        for name in ("learning_rate", "sigma", "explosion", "clip"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise MetaTrainingError(f"{name}={value!r}; it must be a number above 0")
        if not 0 <= self.average < 1:
            raise MetaTrainingError(f"average={self.average!r}; it must be at least 0, below 1")

    def make_estimator(self) -> Estimator:
        """The estimator that is named.

        Raises:
            MetaTrainingError: no estimator has this name.
        """
        if self.estimator not in ESTIMATORS:
            raise MetaTrainingError(
                f"estimator={self.estimator!r}; use one of {', '.join(ESTIMATORS)}"
            )
        options = {"es": {"sigma": self.sigma, "pairs": self.pairs}}
        options["pes"] = options["es"]
        return ESTIMATORS[self.estimator](**options.get(self.estimator, {}))

    def make_engine(self) -> Engine:
        """The engine that is named.

        Raises:
            MetaTrainingError: no engine has this name, or it knows no first order.
        """
        if self.engine not in ENGINES:
            raise MetaTrainingError(f"engine={self.engine!r}; use one of {', '.join(ENGINES)}")
        if self.second_order:
            return ENGINES[self.engine]()
        if self.engine != BatchedEngine.name:
            raise MetaTrainingError(
                f"second_order=False with engine={self.engine!r}; only {BatchedEngine.name!r} can"
            )
        return BatchedEngine(second_order=False)
