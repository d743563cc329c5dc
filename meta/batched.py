"""A model run for many tasks at once, its parameters one flat vector a task."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional as F

from denograd.denoisers import Layout
from denograd.meta.forwards import stacked_forward
from denograd.meta.row_moments import mean_and_variance, traced_forward
from denograd.meta.task import TaskBatch
from denograd.models import TabularModel


class BatchedModel:
    """A `TabularModel` whose parameters carry a leading task dimension.

    Args:
        template: the architecture; its own weights are not used.

    Attributes:
        names, shapes: of the parameters, each of which is a layer.
        layout: of the flat vector.
        denoised: numbers of the layers that are not in a group with ``denoise=False``.

    Example:
        >>> from denograd.models import SoftTree
        >>> model = BatchedModel(SoftTree(4, 2, depth=1))
        >>> flat = torch.zeros(3, model.layout.total)
        >>> masks = torch.ones(3, 4, dtype=torch.bool), torch.ones(3, 2, dtype=torch.bool)
        >>> model.predict(flat, torch.zeros(3, 7, 4), *masks).shape
        torch.Size([3, 7, 2])
    """

    def __init__(self, template: TabularModel) -> None:
        self.template = template
        named = dict(template.named_parameters())
        self.names = list(named)
        self.shapes = [p.shape for p in named.values()]
        self.layout = Layout.of(list(named.values()))
        groups = template.parameter_groups()
        wanted = {id(p) for g in groups if g.get("denoise", True) for p in g["params"]}
        self.denoised = tuple(i for i, p in enumerate(named.values()) if id(p) in wanted)
        self._forward = stacked_forward(template)
        self._traced = traced_forward(template)

    def initial(self, tasks: TaskBatch) -> Tensor:
        """New initial weights ``(T, N)`` from torch's global generator; padding is 0."""
        drawn = []
        for i in range(len(tasks)):
            self.template.reset_parameters(int(tasks.features[i]))
            drawn.append(torch.cat([p.detach().flatten() for p in self.template.parameters()]))
        return torch.stack(drawn).to(tasks.x_train.dtype) * self.element_mask(tasks)

    def element_mask(self, tasks: TaskBatch) -> Tensor:
        """1 for the elements that belong to real features and classes, ``(T, N)``."""
        rows = []
        for i in range(len(tasks)):
            masks = self.template.padding_masks(tasks.feature_mask[i], tasks.class_mask[i])
            parts = [
                masks[name].flatten() if name in masks else torch.ones(math.prod(shape))
                for name, shape in zip(self.names, self.shapes, strict=True)
            ]
            rows.append(torch.cat([part.to(tasks.x_train.dtype) for part in parts]))
        return torch.stack(rows)

    def predict(self, flat: Tensor, x: Tensor, feature_mask: Tensor, class_mask: Tensor) -> Tensor:
        """Class scores, ``(T, N)`` and ``(T, b, F)`` to ``(T, b, C)``."""
        parameters = self._named(flat)
        if self._forward is not None:
            return self._forward(parameters, x, feature_mask, class_mask)
        return vmap(self._single)(parameters, {}, x, feature_mask, class_mask)

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        """The parameters by name, ``(T, N)`` to ``(T, *shape)`` each."""
        parts = self.layout.split(flat)
        return {
            name: part.reshape(part.shape[0], *shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def _single(
        self, own: dict[str, Tensor], others: dict[str, Tensor], x: Tensor, fm: Tensor, cm: Tensor
    ) -> Tensor:
        """Class scores of one task, ``(b, F)`` to ``(b, C)``; its parameters in two parts."""
        scores: Tensor = functional_call(self.template, {**own, **others}, (x, fm, cm))
        return scores

    def loss(
        self, flat: Tensor, x: Tensor, y: Tensor, feature_mask: Tensor, class_mask: Tensor
    ) -> Tensor:
        """Mean loss of each task, ``(T,)``; see `row_losses`."""
        return _mean_loss(self.predict(flat, x, feature_mask, class_mask), y)

    def gradient(
        self,
        flat: Tensor,
        x: Tensor,
        y: Tensor,
        tasks: TaskBatch,
        micro: int,
        *,
        graph: bool,
        scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of a batch and the variance of it within the batch.

        The batch is cut into ``micro`` micro-batches; with ``h_k`` their gradients, the
        gradient is their mean and its variance ``sum_k (h_k - mean)^2 / (micro (micro -
        1))``.

        Args:
            flat: ``(T, N)``.
            x: ``(T, b, F)``.
            y: ``(T, b)``.
            tasks: the tasks, for their masks.
            micro: number of micro-batches, a divisor of ``b``; ``b`` itself for per-sample
                gradients, 1 for no variance at all (it is 0 then).
            graph: whether the result can be differentiated again.
            scale: ``(T, N)``, what ``flat`` is multiplied by to give the parameters.

        Returns:
            gradient ``(T, N)``, variance ``(T, N)`` and loss ``(T,)``. Where nobody asks for it,
            the variance is not measured and 0: in layers that are not `denoised`, of models
            without a stacked forward pass.
        """
        count, batch = y.shape
        if micro == batch > 1 and self._traced is not None:
            return self._gradient_of_rows(flat, x, y, tasks, graph, scale)
        if micro > 1 and self._forward is None and len(self.denoised) < len(self.layout):
            return self._gradient_of_some(flat, x, y, tasks, micro, graph, scale)
        lanes = _leaf(flat.unsqueeze(1).expand(-1, micro, -1).flatten(0, 1), graph)

        def cut(t: Tensor) -> Tensor:
            return t.reshape(count * micro, batch // micro, *t.shape[2:])

        def repeated(mask: Tensor) -> Tensor:
            return mask.repeat_interleave(micro, dim=0)

        with torch.enable_grad():
            used = lanes if scale is None else lanes * repeated(scale)
            losses = self.loss(
                used, cut(x), cut(y), repeated(tasks.feature_mask), repeated(tasks.class_mask)
            )
            (gradients,) = torch.autograd.grad(losses.sum(), lanes, create_graph=graph)
        mean, variance = mean_and_variance(gradients.reshape(count, micro, -1))
        return mean, variance, losses.detach().reshape(count, micro).mean(1)

    def _gradient_of_rows(
        self,
        flat: Tensor,
        x: Tensor,
        y: Tensor,
        tasks: TaskBatch,
        graph: bool,
        scale: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`gradient` with a micro-batch for each row, without copies of the weights."""
        assert self._traced is not None
        flat = _leaf(flat.view_as(flat), graph)
        with torch.enable_grad():
            parameters = self._named(flat if scale is None else flat * scale)
            scores, sites = self._traced(parameters, x, tasks.feature_mask, tasks.class_mask)
            losses, _ = row_losses(scores, y)
            outputs = [site.output for site in sites]
            arriving = torch.autograd.grad(losses.sum(), outputs, create_graph=graph)
            found = {
                name: moments
                for site, gradient in zip(sites, arriving, strict=True)
                for name, moments in site.moments(gradient).items()
            }
            mean, variance = (
                torch.cat([found[name][i].flatten(1) for name in self.names], -1) for i in (0, 1)
            )
            if scale is not None:
                mean, variance = mean * scale, variance * scale.square()
        if not graph:
            mean, variance = mean.detach(), variance.detach()
        return mean, variance, losses.detach().mean(1)

    def _gradient_of_some(
        self,
        flat: Tensor,
        x: Tensor,
        y: Tensor,
        tasks: TaskBatch,
        micro: int,
        graph: bool,
        scale: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`gradient`, with copies for each micro-batch of the denoised layers alone.

        What the others' weights are turned into is then the same for all micro-batches, and
        taken once; in a rule net that is nearly all there is to do.
        """
        count, batch = y.shape
        parts = list(self.layout.split(flat))
        lanes = {
            i: _leaf(parts[i].unsqueeze(1).expand(-1, micro, -1), graph) for i in self.denoised
        }
        shared = {i: _leaf(p, graph) for i, p in enumerate(parts) if i not in lanes}

        def named(some: dict[int, Tensor]) -> dict[str, Tensor]:
            if scale is not None:
                units = self.layout.split(scale)
                some = {
                    i: value * units[i].reshape(count, *[1] * (value.dim() - 2), -1)
                    for i, value in some.items()
                }
            return {
                self.names[i]: value.reshape(*value.shape[:-1], *self.shapes[i])
                for i, value in some.items()
            }

        rows = x.reshape(count, micro, batch // micro, -1)
        with torch.enable_grad():
            in_a_task = vmap(self._single, in_dims=(0, None, 0, None, None))
            scores = vmap(in_a_task)(
                named(lanes), named(shared), rows, tasks.feature_mask, tasks.class_mask
            )
            losses = _mean_loss(scores.flatten(0, 1), y.reshape(count * micro, batch // micro))
            leaves = [*lanes.values(), *shared.values()]
            gradients = torch.autograd.grad(losses.sum(), leaves, create_graph=graph)
        both = {}
        for i, gradient in zip([*lanes, *shared], gradients, strict=True):
            if i in lanes:
                both[i] = mean_and_variance(gradient)
            else:
                both[i] = gradient / micro, torch.zeros_like(gradient)
        return (
            torch.cat([both[i][0] for i in range(len(parts))], -1),
            torch.cat([both[i][1] for i in range(len(parts))], -1),
            losses.detach().reshape(count, micro).mean(1),
        )


def _leaf(values: Tensor, graph: bool) -> Tensor:
    """What a gradient is taken in: cut off from what it was made from unless there is a graph."""
    return (values if graph else values.detach()).requires_grad_()


def _mean_loss(output: Tensor, y: Tensor) -> Tensor:
    """Mean over the rows that count, ``(T,)``; see `row_losses`."""
    losses, valid = row_losses(output, y)
    return losses.sum(-1) / valid.sum(-1)


def row_losses(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each row, and which rows count, both ``(T, b)``.

    The cross entropy in nats for classes, where rows labelled -100 do not count; the squared
    error for measured targets, where rows of NaN do not.

    Args:
        output: ``(T, b, C)``, class scores, or ``(T, b, 1)``, predictions.
        y: ``(T, b)``, classes as whole numbers, or measured targets.

    Returns:
        losses, 0 where a row does not count, and 1 or 0.
    """
    if y.is_floating_point():
        valid = ~y.isnan()
        losses = (output.squeeze(-1) - y.nan_to_num()).square()
    else:
        valid = y >= 0
        losses = F.cross_entropy(output.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)
    counts = valid.to(losses.dtype)
    return losses * counts, counts
