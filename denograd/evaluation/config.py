"""What an evaluation compares, and how."""

from __future__ import annotations

from dataclasses import dataclass

from denograd.baselines import CONTROL, check_optimizer
from denograd.models.registry import check_model

ENGINES = ("batched", "loop")
"""How the seeds of a cell run: as one stack, or one after the other."""


class EvaluationError(ValueError):
    """An evaluation that cannot run as asked; the message names the remedy."""


class OtherSettingsError(EvaluationError):
    """A folder that holds an evaluation with other settings."""


@dataclass(frozen=True)
class EvaluationConfig:
    """The grid of an evaluation, apart from its tables.

    Attributes:
        models: names, see `denograd.models.registry.make_model`.
        optimizers: names, see `denograd.baselines.make_optimizer`.
        sizes: numbers of training rows.
        seeds: number of seeds; they are 0, 1 and so on.
        steps: optimizer steps of each run.
        batch_size: rows of a batch, or all training rows if they are fewer.
        engine: ``batched`` runs all seeds of a table, model, optimizer and size as one
            stack; ``loop`` runs them one at a time. Both compute the same, in another order, so
            they differ by rounding, and so do stacks of other numbers of seeds. With AdamW that
            stays at 1e-6; see `denograd.evaluation.stacked` for what DenoGrad makes of it. The
            same settings give the same results again on the same machine.
        context: whether models outside torch (`denograd.baselines.context.CONTEXT_MODELS`)
            are fitted to the same rows, for context.

    Raises:
        EvaluationError: a name that is not known or stands twice, or a number below 1.

    Example:
        >>> EvaluationConfig(optimizers=("sgd", "adamw_default"), sizes=(16,)).reference
        'sgd'
    """

    models: tuple[str, ...] = ("soft_tree", "attention")
    optimizers: tuple[str, ...] = (CONTROL, "denograd")
    sizes: tuple[int, ...] = (32, 64, 128)
    seeds: int = 5
    steps: int = 200
    batch_size: int = 32
    engine: str = "batched"
    context: bool = False

    def __post_init__(self) -> None:
        for name in ("models", "optimizers", "sizes"):
            values = getattr(self, name)
            if not values:
                raise EvaluationError(f"{name} is empty; name at least one")
            twice = sorted({str(value) for value in values if values.count(value) > 1})
            if twice:
                raise EvaluationError(f"{name} has {', '.join(twice)} twice; name each once")
        for name, value in (
            ("seeds", self.seeds),
            ("steps", self.steps),
            ("batch_size", self.batch_size),
            *(("sizes", size) for size in self.sizes),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise EvaluationError(
                    f"{name} has {value!r}; it must be a whole number of at least 1"
                )
        if self.engine not in ENGINES:
            raise EvaluationError(
                f"engine {self.engine!r} is not known; use one of {', '.join(ENGINES)}"
            )
        try:
            for model in self.models:
                check_model(model)
        except ValueError as error:
            raise EvaluationError(str(error)) from error
        self.check_optimizers()

    def check_optimizers(self, measured: bool = False) -> None:
        """Raise an `EvaluationError` if an optimizer cannot train one of the models.

        Args:
            measured: whether the target is a number.
        """
        try:
            for optimizer in self.optimizers:
                check_optimizer(optimizer, self.models, self.steps, measured)
        except ValueError as error:
            raise EvaluationError(str(error)) from error

    @property
    def reference(self) -> str:
        """The optimizer that others are compared with: the control, or else the first."""
        return CONTROL if CONTROL in self.optimizers else self.optimizers[0]
