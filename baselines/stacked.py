"""Optimizers on a stack of runs: the same step on all of them at once.

The runs of a stack differ in their rows, batches and initial weights, and share the
model's shape and the optimizer. What steps is the same as for a single run: the denoiser
function itself, Adam as `denograd.meta`'s engine has it, or a rival on views of the stacked
weights. What cannot be stacked to the same numbers is refused with the reason.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from denograd.base import base_settings
from denograd.baselines.control import control_file, control_settings
from denograd.baselines.cross_validation import TrainingRows, cross_validate_adamw
from denograd.baselines.errors import BaselineError
from denograd.baselines.registry import (
    CONTROL,
    CROSS_VALIDATED,
    denoiser_of,
    rival_base,
    rival_settings,
)
from denograd.baselines.rival import Rival, Settings, TwoStage, evaluating
from denograd.baselines.schedules import schedule_factor
from denograd.denoisers import (
    Context,
    Denoised,
    Denoiser,
    IdentityDenoiser,
    Layout,
    State,
    resolve_denoiser,
)
from denograd.denoisers._base import reads_noise

if TYPE_CHECKING:
    from denograd.meta.batched import BatchedModel
    from denograd.meta.episode import Episode

_ENGINE_BASES: Mapping[str, str] = {"adamw": "adam", "adam": "adam", "sgd": "sgd"}


class NotStackable(BaselineError):
    """An optimizer that a stack would not run as a single run does; the message says why."""


class StackedRun(Protocol):
    """Runs of a stack on their way."""

    def step(self) -> None:
        """Take one step on every run."""
        ...

    def judged(self) -> AbstractContextManager[Tensor]:
        """Within it, the weights ``(T, N)`` that the runs are to be judged by."""
        ...

    def doubtful(self) -> Tensor:
        """Runs in which a number was not finite that `denograd.DenoGrad` would put right.

        ``(T,)``, boolean. They have to be run one at a time.
        """
        ...


def stacked_run(
    name: str,
    episode: Episode,
    *,
    model_name: str,
    data: Sequence[TrainingRows] = (),
) -> StackedRun:
    """Start an optimizer on a stack of runs.

    Args:
        name: as `denograd.baselines.make_optimizer` takes it.
        episode: the runs: rows, batches and initial weights; what it says of the optimizer
            is replaced.
        model_name: the model's name, for what is tuned by model.
        data: the training rows of each run, for ``adamw_cv``.

    Raises:
        NotStackable: a single run would do something that the stack does not.
        BaselineError: as `denograd.baselines.make_optimizer`.
    """
    steps, rows = episode.steps, int(episode.tasks.rows[0])
    measured = episode.tasks.n_classes is None
    spec = denoiser_of(name, measured)
    if spec is not None:
        denoiser = resolve_denoiser(spec)
        return StackedDenoiser(with_base(episode, base_settings(spec, model_name)), denoiser)
    if name == CONTROL:
        tuned = control_settings(model_name, steps, rows, control_file(measured))
        settings = {"lr": tuned.lr, "weight_decay": tuned.weight_decay}
        factor = functools.partial(schedule_factor, tuned.schedule, total_steps=steps)
        return StackedDenoiser(with_base(episode, settings), IdentityDenoiser(), factor)
    if name == CROSS_VALIDATED:
        return _cross_validated(episode, model_name, data)
    return start_rival(episode, *rival_settings(name, model_name, steps, rows))


def final_losses(run: StackedRun, episode: Episode) -> Tensor:
    """Held-out loss of each run, ``(T,)``, once it has taken all of its steps.

    Args:
        run: on the episode, with no step taken.
        episode: the runs.
    """
    for _ in range(episode.steps):
        run.step()
    tasks = episode.tasks
    with torch.no_grad(), run.judged() as flat:
        return episode.model.loss(
            flat, tasks.x_test, tasks.y_test, tasks.feature_mask, tasks.class_mask
        )


def start_rival(episode: Episode, rival: Rival, settings: Settings) -> StackedRun:
    """Start a rival with given settings on a stack of runs.

    Args:
        episode: the runs.
        rival: any rival.
        settings: values of its own space, or its defaults.
    """
    if rival.denoiser is None:
        return StackedRival(episode, rival, settings)
    schedule = settings.get("schedule", "constant")
    factor = functools.partial(schedule_factor, schedule, total_steps=episode.steps)
    base = with_base(episode, rival_base(rival, settings))
    return StackedDenoiser(base, rival.denoiser(settings), factor)


def with_base(episode: Episode, settings: Mapping[str, Any]) -> Episode:
    """The episode with a base optimizer of `denograd.base.base_settings`.

    Raises:
        NotStackable: the engine's base has no such setting.
    """
    rest = dict(settings)
    name, lr = rest.pop("name", "adamw"), rest.pop("lr")
    decay = rest.pop("weight_decay", 0.0)
    if name not in _ENGINE_BASES or rest or (name == "adam" and decay):
        raise NotStackable(f"its base {dict(settings)} is none that the engine has")
    rate = torch.full_like(episode.learning_rate, float(lr))
    return replace(episode, base=_ENGINE_BASES[name], learning_rate=rate, weight_decay=float(decay))


class StackedDenoiser:
    """A denoiser around a base optimizer, by the engine of `denograd.meta`.

    The noise within a batch is that of per-sample gradients, and is told for the layers of
    which `denograd.DenoGrad` would know it. Layers of a group with ``denoise=False`` are
    left to the base.

    Args:
        episode: the runs, the base among them.
        denoiser: any denoiser.
        schedule: factor of the learning rate, from the steps done; default 1.
    """

    def __init__(
        self,
        episode: Episode,
        denoiser: Denoiser,
        schedule: Callable[[int], float | Tensor] | None = None,
    ) -> None:
        from denograd.meta.engines import BatchedEngine

        self._engine, self._schedule = BatchedEngine(), schedule
        self._watched: _Watched | None = None
        if isinstance(denoiser, IdentityDenoiser):
            self._episode = replace(episode, micro=1)
            self._denoiser: Denoiser = denoiser
        else:
            batch = int(episode.batches.shape[-1])
            # One row tells nothing of the noise, nor do modules that no rule covers.
            told = reads_noise(denoiser) and batch > 1
            known = [float(covered and told) for covered in _covered(episode.model)]
            self._episode = replace(
                episode,
                micro=batch if told else 1,
                noise_known=episode.initial.new_tensor(known).expand(len(episode), -1),
            )
            denoiser = _in_precision(denoiser, episode.initial.dtype)
            self._watched = _Watched(denoiser, len(episode))
            self._denoiser = self._watched
        with torch.no_grad():
            self._state = self._engine.start(self._episode, self._denoiser)

    def step(self) -> None:
        """Take one step on every run."""
        with torch.no_grad():
            self._state = self._engine.advance(
                self._episode, self._denoiser, self._state, graph=False, schedule=self._schedule
            )

    @contextmanager
    def judged(self) -> Iterator[Tensor]:
        """Within it, the weights ``(T, N)``."""
        yield self._state.parameters

    def doubtful(self) -> Tensor:
        """Runs in which a layer would have fallen back to its plain gradient, ``(T,)``."""
        if self._watched is None:
            return torch.zeros(len(self._episode), dtype=torch.bool)
        state = self._state.denoiser
        remembered = [*state.element.values(), *state.layer.values()]
        unusual = [~values.isfinite().all(-1) for values in remembered]
        return torch.stack([self._watched.marks != 0, *unusual]).any(0)


class StackedRival:
    """A plain rival on a stack of runs.

    Gradients are taken of all runs at once. The optimizer's parameters are views of the
    stacked weights: one for all of them if it moves each element by itself, else one
    optimizer a run, with the model's own tensors.

    Args:
        episode: the runs.
        rival: with a ``build``.
        settings: values of its space, or its defaults.
    """

    def __init__(self, episode: Episode, rival: Rival, settings: Settings) -> None:
        if rival.build is None:
            raise BaselineError(f"rival {rival.name!r} has no build; start it with start_rival")
        self._episode, self._done = episode, 0
        self._flat = episode.initial.clone()
        self._slope = torch.zeros_like(self._flat)
        if rival.elementwise:
            owned, slopes = [[nn.Parameter(self._flat)]], [self._slope]
        else:
            owned = [[nn.Parameter(p) for p in self._cut(run)] for run in self._flat]
            slopes = [part for run in self._slope for part in self._cut(run)]
        self._slopes = list(zip([p for group in owned for p in group], slopes, strict=True))
        self._optimizers = [rival.build(group, settings, episode.steps) for group in owned]
        self._groups = [(g, g["lr"]) for o in self._optimizers for g in o.param_groups]
        schedule = settings.get("schedule", "constant")
        self._factor = functools.partial(schedule_factor, schedule, total_steps=episode.steps)

    def _cut(self, weights: Tensor) -> list[Tensor]:
        """Views of each of the model's tensors, from one run's ``(N,)``."""
        model = self._episode.model
        parts = zip(model.layout.split(weights), model.shapes, strict=True)
        return [part.view(shape) for part, shape in parts]

    def _take_gradients(self) -> None:
        episode = self._episode
        x, y = episode.batch(self._done)
        gradient, _, _ = episode.model.gradient(self._flat, x, y, episode.tasks, 1, graph=False)
        self._slope.copy_(gradient)
        for parameter, slope in self._slopes:
            parameter.grad = slope

    def step(self) -> None:
        """Take one step on every run."""
        factor = self._factor(self._done)
        for group, rate in self._groups:
            group["lr"] = rate * factor
        self._take_gradients()
        two_stage = [o for o in self._optimizers if isinstance(o, TwoStage)]
        if two_stage:
            # What `step(closure)` does, for all runs between two gradients.
            for optimizer in two_stage:
                optimizer.first_step(zero_grad=True)
            self._take_gradients()
            for optimizer in two_stage:
                optimizer.second_step(zero_grad=True)
        else:
            for plain in self._optimizers:
                plain.step()
        self._done += 1

    @contextmanager
    def judged(self) -> Iterator[Tensor]:
        """Within it, the weights ``(T, N)`` that the rival wants to be judged by."""
        with torch.no_grad(), ExitStack() as stack:
            for optimizer in self._optimizers:
                stack.enter_context(evaluating(optimizer))
            yield self._flat

    def doubtful(self) -> Tensor:
        """None: a plain rival puts nothing right."""
        return torch.zeros(len(self._episode), dtype=torch.bool)


def _cross_validated(episode: Episode, model_name: str, data: Sequence[TrainingRows]) -> StackedRun:
    if len(data) != len(episode):
        raise BaselineError(
            f"stacked_run: data has {len(data)} entries for {len(episode)} runs; {CROSS_VALIDATED} "
            "needs the rows of each"
        )
    found = [cross_validate_adamw(rows, model_name, episode.steps) for rows in data]

    def column(values: Sequence[float]) -> Tensor:
        return episode.initial.new_tensor(values).unsqueeze(1)

    def factor(step: int) -> Tensor:
        return column([each.factor(step, episode.steps) for each in found])

    tuned = replace(
        episode,
        base="adam",
        learning_rate=column([each.lr for each in found]),
        weight_decay=column([each.weight_decay for each in found]),
    )
    return StackedDenoiser(tuned, IdentityDenoiser(), factor)


def _covered(model: BatchedModel) -> list[bool]:
    """Whether a noise rule covers the module that owns a layer, for each layer."""
    from denograd.noise import rule_for

    owners = [model.template.get_submodule(name.rpartition(".")[0]) for name in model.names]
    return [rule_for(owner) is not None for owner in owners]


def _in_precision(denoiser: Denoiser, dtype: torch.dtype) -> Denoiser:
    """The denoiser with weights of the precision of the model's, as `DenoGrad` runs it."""
    if isinstance(denoiser, nn.Module) and any(p.dtype != dtype for p in denoiser.parameters()):
        return copy.deepcopy(denoiser).to(dtype)
    return denoiser


class _Watched:
    """A denoiser, and for each run a mark that is no longer 0 once a number was not finite.

    The numbers are those that make `denograd.DenoGrad` fall back to the plain gradient.
    """

    def __init__(self, denoiser: Denoiser, runs: int) -> None:
        self.denoiser = denoiser
        self.marks = torch.zeros(runs)

    @property
    def coefficient_names(self) -> tuple[str, ...]:
        return self.denoiser.coefficient_names

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        return self.denoiser.init_state(parameter, layout)

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        result = self.denoiser(gradient, noise, parameter, state, context)
        # Zero times anything finite is zero.
        seen = torch.addcmul(noise, gradient, gradient).addcmul_(parameter, parameter)
        if result.gradient is not gradient:
            seen += result.gradient * 0.0
        if result.gain is not None:
            seen += result.gain * 0.0
        mark = (seen * 0.0).sum(-1)
        if result.decay is not None:
            mark = mark + (result.decay * 0.0).sum(-1)
        self.marks = self.marks + mark
        return result
