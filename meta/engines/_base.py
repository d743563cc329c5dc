"""What runs the inner loop: an interface, so that engines can be exchanged and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from denograd.denoisers import Denoiser
from denograd.meta.episode import Episode

Schedule = Callable[[int], float | Tensor]
"""Factor of the learning rate, from the number of steps done: a number or ``(T, 1)``."""

Cut = tuple[Any, list[tuple[Tensor, Tensor]]]
"""A state that is cut off, and for each of its tensors ``(before, after)`` the cut."""


class Engine(Protocol):
    """Runs inner loops that can be differentiated in the denoiser.

    A state is the engine's own affair; it may be used up by `advance`. The denoiser is
    any `denograd.Denoiser`; one that is a `denograd.meta.TaskWeights` has weights of its
    own for every task.
    """

    @property
    def name(self) -> str:
        """By which it is chosen."""
        ...

    def start(self, episode: Episode, denoiser: Denoiser) -> Any:
        """The state before the first step."""
        ...

    def advance(
        self,
        episode: Episode,
        denoiser: Denoiser,
        state: Any,
        *,
        graph: bool,
        schedule: Schedule | None = None,
    ) -> Any:
        """Take one inner step on every task.

        Args:
            episode: the tasks and how to train on them.
            denoiser: gradients reach its weights if ``graph`` is true.
            state: where the loop stands.
            graph: whether the step can be differentiated.
            schedule: factor of the learning rate; default 1.

        Returns:
            the state after the step.
        """
        ...

    def held_out_losses(self, episode: Episode, state: Any) -> Tensor:
        """Loss of each task on the rows that the inner loop never sees, in nats, ``(T,)``."""
        ...

    def cut(self, state: Any) -> Cut:
        """A copy of a state whose floating-point tensors are leaves that want a gradient.

        With the pairs of tensors before and after the cut, a gradient that reaches a leaf
        can be carried on to the graph before it.
        """
        ...
