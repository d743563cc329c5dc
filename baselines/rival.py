"""What is known about a rival: where it comes from, how it is built, what can be tuned."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import nn

from denograd.baselines.errors import BaselineError
from denograd.baselines.schedules import SCHEDULES
from denograd.denoisers import Denoiser

Settings: TypeAlias = Mapping[str, Any]
"""Values by name: ``lr``, mostly ``weight_decay`` and ``schedule``, and a rival's own."""

Build: TypeAlias = Callable[[Sequence[nn.Parameter], Settings, int], torch.optim.Optimizer]
"""Parameters, settings and number of steps to an optimizer."""


@dataclass(frozen=True)
class LogRange:
    """A number drawn log-uniformly, or 0 with a probability.

    Example:
        >>> LogRange(0.1, 1.0).contains(0.5), LogRange(0.1, 1.0).contains(0.0)
        (True, False)
    """

    low: float
    high: float
    zero: float = 0.0

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        if self.zero and rng.random() < self.zero:
            return 0.0
        return float(np.exp(rng.uniform(math.log(self.low), math.log(self.high))))

    def contains(self, value: object) -> bool:
        """Whether `draw` could have drawn a value."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        # Files hold rounded numbers.
        near = self.low * (1 - 1e-3) <= value <= self.high * (1 + 1e-3)
        return near or (self.zero > 0 and value == 0)


@dataclass(frozen=True)
class Options:
    """One of several values, each as likely as the others."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """One value."""
        return self.values[int(rng.integers(len(self.values)))]

    def contains(self, value: object) -> bool:
        """Whether `draw` could have drawn a value."""
        return value in self.values


Space: TypeAlias = Mapping[str, LogRange | Options]

RATE = LogRange(1e-3, 2e-1)
DECAY = LogRange(1e-3, 3.0, zero=0.15)
SCHEDULE = Options(SCHEDULES)
CONTROL_SPACE: Space = {"lr": RATE, "weight_decay": DECAY, "schedule": SCHEDULE}
"""What the control was tuned over; rivals that step like Adam are tuned over the same."""


@runtime_checkable
class HasModes(Protocol):
    """An optimizer that trains one set of weights and is judged by another."""

    def train(self) -> None:
        """Put the weights to train with into the parameters."""
        ...

    def eval(self) -> None:
        """Put the weights to judge into the parameters."""
        ...


@runtime_checkable
class TwoStage(Protocol):
    """An optimizer that needs a second gradient, at a point of its own choice."""

    def first_step(self, zero_grad: bool = False) -> None:
        """Go to that point."""
        ...

    def second_step(self, zero_grad: bool = False) -> None:
        """Come back, and step with the gradient from there."""
        ...


@contextmanager
def evaluating(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within it a model has the weights that the optimizer wants to be judged by.

    Most optimizers judge the weights they train, and nothing happens.

    Example:
        >>> p = nn.Parameter(torch.zeros(1))
        >>> with evaluating(torch.optim.SGD([p], lr=0.1)):
        ...     print(p.item())
        0.0
    """
    if not isinstance(optimizer, HasModes):
        yield
        return
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()


@dataclass(frozen=True)
class Rival:
    """An optimizer that denograd is compared with.

    Attributes:
        name: by which `make_optimizer` knows it.
        source: paper, and package if it is another's code.
        defaults: settings as it comes, without any tuning.
        space: what tuning draws from; empty for what is never tuned.
        build: makes a plain optimizer; None for a denoiser.
        denoiser: makes a denoiser from the settings; None for a plain optimizer.
        base: what steps with the denoiser's gradients: ``"adam"`` (with decoupled decay) or
            ``"sgd"``, as engines for stacked tasks name them; None for a plain optimizer.
        elementwise: whether a plain optimizer moves each element by its own gradient alone,
            so that one instance can train stacked tasks.
        package: that has to be installed for it; None for nothing more.
        needs_closure: whether `step` evaluates the loss again (`TwoStage`): it is called
            as ``step(closure)`` after a first gradient was taken.
        has_modes: whether the weights to judge are others than those trained (`HasModes`);
            `evaluating` puts them in place.
    """

    name: str
    source: str
    defaults: Settings
    space: Space = field(default_factory=dict)
    build: Build | None = None
    denoiser: Callable[[Settings], Denoiser] | None = None
    base: str | None = None
    elementwise: bool = False
    package: str | None = None
    needs_closure: bool = False
    has_modes: bool = False

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Settings drawn at random from the space."""
        return {name: values.draw(rng) for name, values in self.space.items()}

    def check(self, settings: Settings) -> None:
        """Raise a `BaselineError` unless the settings lie in the space."""
        if settings.keys() != self.space.keys():
            raise BaselineError(
                f"{self.name}: its settings are {', '.join(self.space)}, not {', '.join(settings)}"
            )
        for name, value in settings.items():
            if not self.space[name].contains(value):
                raise BaselineError(
                    f"{self.name}: {name}={value!r} is outside of {self.space[name]}"
                )


def import_extra(package: str) -> Any:
    """A package of the optional extra ``rivals``.

    Raises:
        BaselineError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BaselineError(
            f"the package {package} is needed for this optimizer and cannot be imported "
            f"({error}); install it with: pip install 'denograd-optim[rivals]'"
        ) from error
