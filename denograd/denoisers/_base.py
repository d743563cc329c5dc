"""What a denoiser receives and returns.

A denoiser is one pure function. It sees the parameters of a model as one flat vector of
``N`` numbers, cut into ``L`` layers by a `Layout` (a *layer* is one parameter tensor).
Any number of leading dimensions may stand in front: the optimizer uses none,
meta-training uses one for its tasks. Nothing else differs between the two, so what is
differentiated in meta-training is what runs in the optimizer's step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """How a flat vector of ``N`` numbers is cut into ``L`` layers.

    Args:
        sizes: number of elements of each layer, in order; ``N`` is their sum.
        ndims: number of dimensions of each layer's tensor (a bias has 1, a scalar 0).

    Example:
        >>> import torch
        >>> layout = Layout.of([torch.zeros(2, 3), torch.zeros(2)])
        >>> layout.sizes, layout.ndims
        ((6, 2), (2, 1))
        >>> layout.sum(torch.ones(8))
        tensor([6., 2.])
        >>> layout.spread(torch.tensor([1.0, 5.0]))
        tensor([1., 1., 1., 1., 1., 1., 5., 5.])
    """

    sizes: tuple[int, ...]
    ndims: tuple[int, ...]

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Layout:
        """The layout of a list of tensors, flattened and joined in their order."""
        return cls(tuple(t.numel() for t in tensors), tuple(t.dim() for t in tensors))

    @cached_property
    def total(self) -> int:
        """``N``, the number of elements of all layers."""
        return sum(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Views of each layer, ``(..., N)`` to ``L`` times ``(..., n)``."""
        return torch.split(flat, list(self.sizes), dim=-1)

    def sum(self, flat: Tensor) -> Tensor:
        """Sum over the elements of each layer, ``(..., N)`` to ``(..., L)``."""
        return torch.stack([part.sum(-1) for part in self.split(flat)], dim=-1)

    def spread(self, values: Tensor) -> Tensor:
        """One number a layer to each of its elements, ``(..., L)`` to ``(..., N)``."""
        lead = values.shape[:-1]
        parts = [values[..., i : i + 1].expand(*lead, n) for i, n in enumerate(self.sizes)]
        return torch.cat(parts, dim=-1)


class State(NamedTuple):
    """What a denoiser remembers between steps.

    Attributes:
        element: tensors of shape ``(..., N)``, one number for each element.
        layer: tensors of shape ``(..., L)``, one number for each layer.

    The optimizer cuts both into pieces, one a parameter, when it saves a checkpoint or
    when the set of parameters that have a gradient changes.
    """

    element: dict[str, Tensor]
    layer: dict[str, Tensor]


class Context(NamedTuple):
    """What is known about the training run at this step.

    Every number is a tensor, so that a step never waits for the host. A run-wide number
    has the shape of the leading dimensions; 0 stands for *unknown*.

    Attributes:
        layout: how ``N`` elements are cut into ``L`` layers.
        counts: ``(..., L)``, elements of each layer, padding not counted.
        noise_known: ``(..., L)``, 1 where the noise variance was measured within the
            batch at this step, 0 where it was not.
        step: ``(...)``, optimizer steps done before this one.
        total_steps: ``(...)``, steps the whole run will take.
        rows: ``(...)``, rows of the training set.
        batch_size: ``(...)``, rows of a batch.
    """

    layout: Layout
    counts: Tensor
    noise_known: Tensor
    step: Tensor
    total_steps: Tensor
    rows: Tensor
    batch_size: Tensor


class Denoised(NamedTuple):
    """What a denoiser hands back.

    The base optimizer steps with ``gradient``; afterwards the parameters become
    ``p_old + gain * (p_base - p_old) - decay_fraction(lr, decay) * p_old``.

    Attributes:
        gradient: ``(..., N)``, the cleaned gradient.
        gain: ``(..., N)``, the update gain, or None where the base's step stands as it is.
        decay: ``(..., L)``, extra decoupled weight decay, or None for none.
        state: what the denoiser wants back at the next step.
        coefficients: ``(..., L, K)``, what the filter of each layer was told, for the
            audit log; None if the denoiser has no coefficients. Their names are the
            denoiser's ``coefficient_names``.
    """

    gradient: Tensor
    gain: Tensor | None
    decay: Tensor | None
    state: State
    coefficients: Tensor | None = None


def reads_noise(denoiser: Denoiser) -> bool:
    """Whether a denoiser has a use for the noise within the batch."""
    return bool(getattr(denoiser, "within_batch", True))


MOST_DECAY = 0.5
"""Largest fraction of a parameter that the extra decay takes away in one step."""


def decay_fraction(rate: Tensor | float, decay: Tensor) -> Tensor:
    """The fraction of its parameters that a layer loses to the extra decay in a step.

    ``min(rate decay, 1/2)``. A fraction above 1 would turn the sign of every parameter, and
    above 2 make it grow, so a large learning rate must not meet a strong decay unchecked.

    Args:
        rate: the learning rate, which broadcasts with ``decay``.
        decay: ``(..., L)``, from `Denoised.decay`.

    Example:
        >>> decay_fraction(0.1, torch.tensor([0.0, 1.0, 20.0]))
        tensor([0.0000, 0.1000, 0.5000])
    """
    return (rate * decay).clamp(max=MOST_DECAY)


@runtime_checkable
class Denoiser(Protocol):
    """One pure function from a gradient to a cleaned gradient and an update gain.

    One that has no use for the noise within the batch may say so with an attribute
    ``within_batch`` that is False; then `denograd.DenoGrad` does not measure it.
    """

    @property
    def coefficient_names(self) -> tuple[str, ...]:
        """Names of the last dimension of `Denoised.coefficients`."""
        ...

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        """The state before the first step, for parameters of shape ``(..., N)``."""
        ...

    def __call__(
        self,
        gradient: Tensor,
        noise: Tensor,
        parameter: Tensor,
        state: State,
        context: Context,
    ) -> Denoised:
        """Clean a gradient.

        Args:
            gradient: ``(..., N)``, gradient of the mean loss of a batch.
            noise: ``(..., N)``, variance of that mean over draws of the batch; ignored
                in layers where ``context.noise_known`` is 0.
            parameter: ``(..., N)``, the parameters before the step.
            state: from `init_state` or from the step before.
            context: what is known about the run.

        Returns:
            the cleaned gradient, the update gain, the extra decay and the new state.
        """
        ...
