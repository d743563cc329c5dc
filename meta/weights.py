"""A denoiser whose weights carry a leading task dimension."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.func import functional_call

from denograd.denoisers import Context, Denoised, Denoiser, Layout, State, WienerDenoiser


class TaskWeights:
    """A learned denoiser with weights of its own for every task of a batch.

    With copies of the same weights, back-propagation gives the meta-gradient of each task
    by itself, at next to no cost, because the net is tiny; so a task whose gradient
    explodes can be told from its neighbours. With perturbed copies, evolution strategies
    try another perturbation on each task.

    Args:
        denoiser: the architecture; its own weights are not used.
        weights: by the names of its parameters, ``(T, *shape)``.

    Example:
        >>> denoiser = WienerDenoiser(hidden=4)
        >>> TaskWeights.copies(denoiser, 3).weights["first.weight"].shape
        torch.Size([3, 4, 54])
    """

    def __init__(self, denoiser: WienerDenoiser, weights: Mapping[str, Tensor]) -> None:
        self.denoiser, self.weights = denoiser, dict(weights)

    @classmethod
    def copies(cls, denoiser: WienerDenoiser, tasks: int) -> TaskWeights:
        """One copy of the denoiser's weights a task, each a leaf that wants a gradient."""
        return cls(
            denoiser,
            {
                name: p.detach().expand(tasks, *p.shape).clone().requires_grad_()
                for name, p in denoiser.named_parameters()
            },
        )

    @property
    def coefficient_names(self) -> tuple[str, ...]:
        """Those of the denoiser."""
        return self.denoiser.coefficient_names

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        """The denoiser's state before the first step."""
        return self.denoiser.init_state(parameter, layout)

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Clean the gradients of all tasks, each with its own weights."""
        denoised: Denoised = functional_call(
            self.denoiser, self.weights, (gradient, noise, parameter, state, context)
        )
        return denoised

    def task(self, index: int) -> TaskWeights:
        """The denoiser of one task, for engines that run one at a time."""
        return TaskWeights(self.denoiser, {k: v[index] for k, v in self.weights.items()})


def denoiser_of_task(denoiser: Denoiser, index: int) -> Denoiser:
    """The denoiser that serves one task of a batch: its own, or the one that serves all."""
    return denoiser.task(index) if isinstance(denoiser, TaskWeights) else denoiser
