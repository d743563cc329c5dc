"""What the engines that run one task at a time share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from denograd._modes import evaluating
from denograd.denoisers import Context, Denoised, Denoiser, Layout, State
from denograd.denoisers._base import decay_fraction
from denograd.meta.batched import row_losses
from denograd.meta.engines._base import Schedule
from denograd.meta.episode import Episode
from denograd.meta.partial import for_denoised_layers
from denograd.meta.weights import denoiser_of_task


class Served:
    """The denoiser of each task, kept as long as the denoiser of the batch is the same.

    Cutting a task's weights out of the batch's anew at each step would make
    back-propagation add up as many gradients as there are steps, each as large as the
    weights of all tasks.
    """

    def __init__(self) -> None:
        self._whole: Denoiser | None = None
        self._parts: list[Denoiser] = []

    def __call__(self, denoiser: Denoiser, episode: Episode) -> list[Denoiser]:
        """The denoisers of an episode's tasks."""
        if self._whole is not denoiser:
            self._whole = denoiser
            parts = [denoiser_of_task(denoiser, i) for i in range(len(episode))]
            self._parts = [for_denoised_layers(part, episode.model) for part in parts]
        return self._parts


def task_context(episode: Episode, index: int, step: int) -> Context:
    """What the denoiser is told about one task, without a leading dimension."""
    return Context(
        layout=episode.model.layout,
        counts=episode.counts[index],
        noise_known=episode.noise_known[index],
        step=torch.full_like(episode.rows[index], float(step)),
        total_steps=episode.total_steps[index],
        rows=episode.rows[index],
        batch_size=episode.batch_size[index],
    )


def task_rate(episode: Episode, schedule: Schedule | None, index: int, step: int) -> Tensor:
    """The learning rate of one task at a step, ``()``."""
    rate = episode.learning_rate[index, 0]
    if schedule is None:
        return rate
    factor = schedule(step)
    return rate * (factor[index, 0] if isinstance(factor, Tensor) else factor)


def class_scores(model: nn.Module, episode: Episode, index: int, x: Tensor) -> Tensor:
    """What a task's model says of rows, ``(b, F)`` to ``(b, C)``; units as the episode's."""
    inputs = x, episode.tasks.feature_mask[index], episode.tasks.class_mask[index]
    if episode.scale is None:
        scores: Tensor = model(*inputs)
        return scores
    named = dict(model.named_parameters())
    parts = cut_up(episode.scale[index], episode.model.layout, list(named.values()))
    scaled = [p * s for p, s in zip(named.values(), parts, strict=True)]
    if hasattr(model, "fast_params"):
        # A model that `higher` patched takes its parameters as an argument, and keeps them.
        kept = model.fast_params
        scores = model(*inputs, params=scaled)
        model.fast_params = kept
    else:
        scores = functional_call(model, dict(zip(named, scaled, strict=True)), inputs)
    return scores


def micro_losses(model: nn.Module, episode: Episode, index: int, step: int) -> list[Tensor]:
    """Mean loss of each micro-batch of one task, ``micro`` times ``()``, from one forward pass.

    Rows meet only in layers that look at the whole batch, such as batch norm, so for all
    other models these are the losses of the micro-batches by themselves; for those layers
    the mean of their gradients is still the gradient of the batch.
    """
    rows, tasks = episode.batches[step, index], episode.tasks
    x, y = tasks.x_train[index][rows], tasks.y_train[index][rows]
    scores = class_scores(model, episode, index, x)
    losses, _ = row_losses(scores.unsqueeze(0), y.unsqueeze(0))
    return list(losses.reshape(episode.micro, -1).mean(1).unbind(0))


def held_out_loss(model: nn.Module, episode: Episode, index: int) -> Tensor:
    """Loss of one task on its held-out rows, ``()``, see `row_losses`; in evaluation mode."""
    tasks = episode.tasks
    with evaluating(model):
        scores = class_scores(model, episode, index, tasks.x_test[index])
    losses, counts = row_losses(scores.unsqueeze(0), tasks.y_test[index].unsqueeze(0))
    return losses.sum() / counts.sum()


def all_but_last_gradients(
    losses: Sequence[Tensor], parameters: Sequence[Tensor], *, graph: bool
) -> list[Tensor]:
    """Flat gradients of all losses but the last; the last is the optimizer's own to take."""
    return [
        join(
            torch.autograd.grad(
                loss, parameters, retain_graph=True, create_graph=graph, allow_unused=True
            ),
            parameters,
        )
        for loss in losses[:-1]
    ]


def held_out_losses(models: Sequence[nn.Module], episode: Episode) -> Tensor:
    """`held_out_loss` of each task, ``(T,)``."""
    return torch.stack([held_out_loss(model, episode, i) for i, model in enumerate(models)])


def denoised_move(
    moved: Tensor, result: Denoised, layout: Layout, rate: Tensor | float, flat: Tensor
) -> Tensor:
    """The base's move with the denoiser's gain and decay; all but ``rate`` are ``(N,)``."""
    if result.gain is not None:
        moved = result.gain * moved
    if result.decay is not None:
        moved = moved - layout.spread(decay_fraction(rate, result.decay)) * flat
    return moved


def join(parts: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    """One flat vector of tensors of the shapes of ``like``; zeros where there is None."""
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if part is None else part.flatten()
            for part, p in zip(parts, like, strict=True)
        ]
    )


def cut_up(flat: Tensor, layout: Layout, like: Sequence[Tensor]) -> list[Tensor]:
    """A flat vector as tensors of the shapes of ``like``."""
    return [part.reshape(p.shape) for part, p in zip(layout.split(flat), like, strict=True)]


def renew_buffers(model: nn.Module) -> None:
    """Give a model copies of its buffers, before something writes into them.

    Batch norm updates its running statistics in place, and the graph of an evaluation
    still holds the old ones. A buffer is data: no gradient flows through it to the next
    step.
    """
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.detach().clone()


def copy_buffers(source: nn.Module, target: nn.Module) -> None:
    """Give a model copies of another's buffers."""
    for (_, old), (_, new) in zip(source.named_modules(), target.named_modules(), strict=True):
        for name, buffer in old._buffers.items():
            new._buffers[name] = None if buffer is None else buffer.detach().clone()


class Leaves:
    """Copies of tensors that are leaves of a graph, and which copy is whose.

    Attributes:
        pairs: each tensor and its copy, in the order in which they were asked for.
    """

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor) -> Tensor:
        """The copy of a tensor."""
        after = x.detach().requires_grad_()
        self.pairs.append((x, after))
        return after


def cut_state(state: State, leaf: Callable[[Tensor], Tensor]) -> State:
    """A denoiser's state with each tensor replaced."""
    return State(
        {name: leaf(value) for name, value in state.element.items()},
        {name: leaf(value) for name, value in state.layer.items()},
    )
