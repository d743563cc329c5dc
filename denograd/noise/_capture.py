"""Collect row contributions while the model's own backward pass runs.

A forward hook on each module that has a rule remembers the module's input, in the graph
of its output. When the backward pass reaches that output, the rule turns both into row
contributions; when it has added up the gradient of a parameter, they are summed into the
parameter's record. A forward pass that is never differentiated leaves nothing behind.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from denograd._modes import plain_arithmetic
from denograd.denoisers import Layout
from denograd.noise._hooks import WeakHook, is_batched, is_reached, sweep
from denograd.noise._processes import process_group, records_of_all, rows_of_all
from denograd.noise._record import GradientRecord
from denograd.noise._rows import RowGradients, moments_of
from denograd.noise._rules import NoiseRule, rule_for

_numbers = itertools.count()

PENDING_PASSES = 4
"""Backward passes whose contributions may wait for their parameter at one time."""


class _Use(NamedTuple):
    """One use of a parameter, as a backward pass came by, with the number of the forward pass."""

    number: int
    rows: RowGradients
    energy: Tensor
    epsilon: float


@dataclass(eq=False)
class _Call:
    """One call of a module in a forward pass, which has a number: what its rule needs later.

    The inputs go with the graph: once a backward pass has used them up, they are None.
    """

    number: int
    module: nn.Module
    rule: NoiseRule
    inputs: tuple[Any, ...] | None
    batch: int | None


class _Incoming(NamedTuple):
    """A gradient that is about to be added to one that is there already."""

    gradient: Tensor
    continues: bool
    was_zero: Tensor | None


@dataclass
class _Entry:
    """What is kept for one parameter."""

    parameter: weakref.ref[Tensor]
    hooked: bool = False
    record: GradientRecord | None = None
    incoming: _Incoming | None = None
    mark: tuple[int, int] | None = None


class NoiseCapture:
    """Records of what made up the gradients since they were last reset.

    Args:
        parameters: the parameters to watch. Successive backward calls are told apart for
            all of them.
        model: the model that uses them. Where `rule_for` knows a module, rows are told
            apart too. Dimension 0 of the model's first tensor argument counts the rows; a
            module that is called with another number of rows is left out.

    Example:
        >>> layer = nn.Linear(3, 1)
        >>> parameters = list(layer.parameters())
        >>> capture = NoiseCapture(parameters, layer)
        >>> layer(torch.randn(8, 3)).mean().backward()
        >>> capture.rows(parameters)
        8
        >>> [record.count for record in capture.records(parameters)]
        [8, 8]
    """

    def __init__(self, parameters: Iterable[Tensor], model: nn.Module | None = None) -> None:
        self._entries: dict[int, _Entry] = {}
        self._passes: dict[int, dict[int, list[_Use]]] = {}
        self._running: list[tuple[int, int | None]] = []
        self._handles: list[RemovableHandle] = []
        self._covered: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._processes = process_group(model)
        weakref.finalize(self, _remove_all, self._handles)
        self.watch(parameters)
        if model is not None:
            sweep(model)
            self.cover(model)

    def cover(self, model: nn.Module) -> None:
        """Tell rows apart in the modules of a model, those that it got since the last time."""
        covered_before = len(self._covered)
        for module in model.modules():
            rule = rule_for(module)
            if rule is not None and module not in self._covered:
                self._covered.add(module)
                hook = WeakHook(self, "_after_module", rule)
                self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        if self._covered and not covered_before:
            before, after = WeakHook(self, "_before_model"), WeakHook(self, "_after_model")
            self._handles.append(model.register_forward_pre_hook(before, with_kwargs=True))
            self._handles.append(
                model.register_forward_hook(after, with_kwargs=True, always_call=True)
            )

    def watch(self, parameters: Iterable[Tensor]) -> None:
        """Watch more parameters; those that are watched already stay as they are."""
        for parameter in parameters:
            entry = self._entry(parameter)
            if entry is None:
                entry = self._entries[id(parameter)] = _Entry(weakref.ref(parameter))
            self._hook(parameter, entry)

    def detach(self) -> None:
        """Take every hook off the model and its parameters, and forget all records."""
        _remove_all(self._handles)
        self._entries.clear()
        self._passes.clear()

    def clear(self) -> None:
        """Forget all records, as after an optimizer's step."""
        self._passes.clear()
        for entry in self._entries.values():
            entry.record = entry.incoming = entry.mark = None

    def records(self, parameters: Iterable[Tensor]) -> Sequence[GradientRecord | None]:
        """The record of each parameter, None where nothing was captured."""
        entries = [self._entry(parameter) for parameter in parameters]
        return [None if entry is None else entry.record for entry in entries]

    def rows(self, parameters: Sequence[Tensor]) -> int:
        """Rows of the batch that made these gradients, over all its backward calls.

        0 if no module told. Parameters without a gradient may have a record of an earlier batch.
        """
        own = max((record.rows for record in self.records(parameters) if record), default=0)
        if self._processes is None:
            return own
        return rows_of_all(own, parameters[0].device, self._processes)

    def records_for(
        self, parameters: Sequence[Tensor], layout: Layout, gradient: Tensor
    ) -> Sequence[GradientRecord | None]:
        """`records` of parameters that are joined, those of all processes taken together."""
        found = self.records(parameters)
        if self._processes is None:
            return found
        return records_of_all(found, layout, gradient, self._processes)

    def _entry(self, parameter: Tensor) -> _Entry | None:
        entry = self._entries.get(id(parameter))
        return entry if entry is not None and entry.parameter() is parameter else None

    def _hook(self, parameter: Tensor, entry: _Entry) -> None:
        # Frozen parameters take no hooks; they get theirs once they are thawed.
        if entry.hooked or not parameter.requires_grad:
            return
        entry.hooked = True
        before = WeakHook(self, "_before_accumulation", id(parameter))
        after = WeakHook(self, "_after_accumulation")
        tensor: Any = parameter  # torch leaves its hook methods without types
        self._handles.append(tensor.register_hook(before))
        self._handles.append(tensor.register_post_accumulate_grad_hook(after))

    def _before_model(self, model: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        self._running.append((next(_numbers), _batch_size((*args, *kwargs.values()))))

    def _after_model(self, model: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._running:
            self._running.pop()

    def _after_module(
        self,
        rule: NoiseRule,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        output: Any,
    ) -> None:
        if not isinstance(output, Tensor) or not output.requires_grad or output.dim() == 0:
            return
        wanted = False
        for parameter in module._parameters.values():
            entry = None if parameter is None else self._entry(parameter)
            if parameter is not None and entry is not None and parameter.requires_grad:
                self._hook(parameter, entry)
                wanted = True
        if not wanted:
            return
        tensor: Any = output
        inputs = tuple(
            x.detach() if isinstance(x, Tensor) else x for x in (*args, *kwargs.values())
        )
        number, batch = self._running[-1] if self._running else (next(_numbers), None)
        site = _Call(number, module, rule, inputs, batch)
        tensor.register_hook(WeakHook(self, "_at_output", site))

    def _at_output(self, site: _Call, gradient: Tensor | None) -> None:
        inputs = site.inputs
        if not torch._C._autograd._get_current_graph_task_keep_graph() and _goes_on(site.module):
            # A loss that somebody keeps holds the graph, and would hold the inputs with it.
            site.inputs = None
        if gradient is None or inputs is None or is_batched(gradient):
            return
        if gradient.is_sparse or gradient.shape[0] == 0:
            return
        epsilon = torch.finfo(gradient.dtype).eps
        with plain_arithmetic(gradient.device):
            wide = _widened(gradient.detach())
            contributions = site.rule(site.module, tuple(map(_widened, inputs)), wide)
            energy = wide.square().sum()
        uses = self._current_pass()
        for name, rows in contributions.items():
            parameter = site.module._parameters.get(name)
            if parameter is None or self._entry(parameter) is None:
                continue
            if site.batch is not None and rows.rows != site.batch:
                continue
            uses.setdefault(id(parameter), []).append(_Use(site.number, rows, energy, epsilon))

    def _current_pass(self) -> dict[int, list[_Use]]:
        """Uses met in the backward pass that is running, by the parameter's id."""
        task = torch._C._current_graph_task_id()
        if task not in self._passes:
            # torch.autograd.grad comes by outputs without ever reaching the parameters.
            while len(self._passes) >= PENDING_PASSES:
                del self._passes[next(iter(self._passes))]
            self._passes[task] = {}
        return self._passes[task]

    def _before_accumulation(self, key: int, gradient: Tensor | None) -> None:
        entry = self._entries.get(key)
        parameter = None if entry is None else entry.parameter()
        if entry is None or parameter is None:
            return
        entry.incoming = None
        old = parameter.grad
        if gradient is None or old is None or old.is_sparse or gradient.is_sparse:
            return
        continues = entry.record is not None and entry.mark == _mark(old)
        with plain_arithmetic(old.device):
            if continues and entry.record is not None:
                if entry.record.calls == 1 and entry.record.rows == 0:
                    entry.record.begin_calls(old.detach())
                was_zero = None
            else:
                # Set to zero, or changed in some other way: only the device knows.
                was_zero = (old == 0).all()
        entry.incoming = _Incoming(gradient.detach(), continues, was_zero)

    def _after_accumulation(self, parameter: Tensor) -> None:
        entry = self._entry(parameter)
        if entry is None:
            return
        found = self._passes.get(torch._C._current_graph_task_id())
        uses = None if found is None else found.pop(id(parameter), None)
        incoming, entry.incoming = entry.incoming, None
        gradient = parameter.grad
        if gradient is None or gradient.is_sparse or gradient.is_complex():
            entry.record = None
            return
        if incoming is None:
            record = GradientRecord()
        elif incoming.continues and entry.record is not None:
            record = entry.record
        else:
            record = GradientRecord(incoming.was_zero)
        with plain_arithmetic(gradient.device):
            moments = None if uses is None else moments_of([use.rows for use in uses])
            if uses is None or moments is None:
                record.add_call(None if incoming is None else incoming.gradient)
            else:
                energy = torch.stack([use.energy for use in uses]).sum()
                epsilon = max(use.epsilon for use in uses)
                epsilon = max(epsilon, torch.finfo(gradient.dtype).eps)
                rows = uses[0].rows.rows
                numbers = [use.number for use in uses]
                record.add_rows(moments, rows, energy, epsilon, gradient.detach(), numbers)
        entry.record, entry.mark = record, _mark(gradient)


def _goes_on(module: nn.Module) -> bool:
    """Whether the backward pass that runs goes through a module, and does not end behind it."""
    own = [p for p in module._parameters.values() if p is not None and p.requires_grad]
    try:
        return any(is_reached(parameter) for parameter in own)
    except RuntimeError:
        # torch says so where torch.autograd.grad was asked for one of them.
        return True


def _mark(gradient: Tensor) -> tuple[int, int]:
    """Changes whenever a gradient is replaced or written to."""
    return gradient.data_ptr(), gradient._version


def _widened(value: Any) -> Any:
    """Half precision as float32, and anything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point() and value.element_size() < 4:
        return value.float()
    return value


def _batch_size(values: Iterable[Any]) -> int | None:
    """Dimension 0 of the first tensor that has one, looking into containers."""
    for value in values:
        if isinstance(value, Tensor):
            found = value.shape[0] if value.dim() else None
        elif isinstance(value, Mapping):
            found = _batch_size(value.values())
        elif isinstance(value, (list, tuple)):
            found = _batch_size(value)
        else:
            found = None
        if found is not None:
            return found
    return None


def _remove_all(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
    handles.clear()
