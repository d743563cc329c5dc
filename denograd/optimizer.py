"""The optimizer that denoises gradients before another optimizer steps with them."""

from __future__ import annotations

import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from denograd._callers import callers_level
from denograd._checkpoint import cloned, pack, unpack
from denograd._checks import (
    check_base,
    check_count,
    check_model,
    check_parameters,
    check_penalties,
    knows_none,
    parameter_names,
)
from denograd._engine import Engine, Run, Work, gradients
from denograd._flat import active_parameters
from denograd._seen import features_seen
from denograd.audit import AuditLog, check_every, check_saved
from denograd.denoisers import Denoiser, IdentityDenoiser, resolve_denoiser
from denograd.denoisers._base import reads_noise
from denograd.noise import NoiseCapture
from denograd.noise._processes import runs_beside_others
from denograd.noise._unexplained import NOWHERE, OtherTerms, told_of_odd
from denograd.penalties import Penalty, PenaltyWatch

_CARRIED = ("base", "audit", "penalties", "_model", "_total_steps", "_dataset_size", "_batch_size")
"""Attributes that a copy or a pickle takes along as they are."""


class DenoGrad(Optimizer):
    """Denoise each gradient, let ``base`` step with it, then scale the step it took.

    With ``p`` the parameters and ``lr`` the learning rate of their group, a step is::

        cleaned, gain, decay = denoiser(p.grad, noise, p)
        p_base = p after base's step with cleaned
        p <- p + gain (p_base - p) - min(lr decay, 1/2) p

    After it, ``p.grad`` holds the cleaned gradient. ``param_groups`` and ``defaults`` are
    the base's own, so learning-rate schedulers may be built around either of the two. A
    group with ``"denoise": False`` is left to the base, and so are parameters without a
    gradient. In a group with ``maximize=True`` the denoiser sees the negative gradient, the
    gradient of what is minimized. A group without ``"lr"`` gets no extra decay.

    How noisy a gradient is within the batch is measured during the model's own backward
    pass where ``model`` is given (`denograd.noise`), and from successive backward calls
    when gradients are accumulated. A layer whose numbers are not finite keeps its plain
    gradient; `fallbacks` counts them.

    Args:
        base: any `torch.optim.Optimizer` that needs one gradient a step; reachable as
            ``optimizer.base``. `denograd.recommended_base` makes the one that the denoiser's
            card advises for a model.
        denoiser: name of a shipped denoiser (``"default"``, ``"regression"`` where the loss is a
            squared error of standardised targets, or ``"history"`` where ``model``
            cannot be given), ``"identity"``, path to saved weights, an address on the Hugging Face
            Hub (``"hf://owner/name"``), or an instance.
        model: the model that owns the parameters. Dimension 0 of its input counts the rows
            of the batch, and of each module's input too: a module that is given as many of
            something else there (time steps, after a transposition) is misread. Leave
            ``model`` out for such a model, and take ``"history"``. Where gradients are averaged
            over processes, give the `torch.nn.parallel.DistributedDataParallel` model: noise
            and rows are then those of all processes, and the same on each; all of them must take
            every step (no `torch.distributed.algorithms.Join`). Compile a model
            (`torch.compile`) after the optimizer is made; what measures its noise breaks its graph
            at each layer, which ``fullgraph=True`` forbids, and ``"history"`` without ``model``
            does not.
        total_steps: steps the whole run will take, if known.
        dataset_size: rows of the training set, if known.
        batch_size: rows of a batch, for where the model does not show them: because it is not
            given, or because the denoiser does not read the noise within the batch. Without
            ``dataset_size`` it says nothing.
        penalties: terms of the loss, each with a weight, whose gradients are added during
            the backward pass (`denograd.penalties`); they need ``model``.
        record: keep what the denoiser saw and did at every so many steps, layer by layer, in
            `recording`; 0 keeps nothing and costs nothing.

    Raises:
        TypeError: ``base`` is no optimizer or evaluates the loss several times a step
            (`torch.optim.LBFGS`), is a DenoGrad itself, or has complex parameters;
            ``model`` is no module; ``penalties`` holds something else.
        DenoiserFileError: the denoiser's file, or its card, is missing or cannot be read.
        ValueError: ``denoiser`` is no known name; ``model`` shares no parameter with ``base``;
            ``base`` is differentiable; a count is not a whole number of at least 1, or
            ``record`` is negative; there are penalties but no ``model``, or a group with
            ``maximize=True``, or a penalty finds nothing to look at in the model.

    Example:
        >>> model = nn.Linear(3, 1)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = DenoGrad(base, denoiser="identity", model=model, total_steps=100)
        >>> loss = model(torch.ones(8, 3)).square().mean()
        >>> loss.backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    def __init__(
        self,
        base: Optimizer,
        denoiser: str | Path | Denoiser = "default",
        *,
        model: nn.Module | None = None,
        total_steps: int | None = None,
        dataset_size: int | None = None,
        batch_size: int | None = None,
        penalties: Sequence[Penalty] = (),
        record: int = 0,
    ) -> None:
        if isinstance(base, DenoGrad):
            raise TypeError("DenoGrad: base is a DenoGrad already; wrap its base optimizer instead")
        self.base = check_base(base)
        self.total_steps = total_steps
        self.dataset_size = dataset_size
        self.batch_size = batch_size
        self._model = check_model(model, base)
        check_parameters(self.param_groups, self._model)
        self.penalties = check_penalties(penalties, model)
        self.audit = AuditLog(check_every("DenoGrad: record", record))
        self._engine = Engine(resolve_denoiser(denoiser))
        self._begin()
        self.attach_penalties(model)
        self.attach_capture(model)

    def _begin(self) -> None:
        """Set up what no copy or pickle carries."""
        for kind in ("step", "state_dict", "load_state_dict"):
            for when in ("pre", "post"):
                setattr(self, f"_optimizer_{kind}_{when}_hooks", OrderedDict())
        self._warned_capturable_if_run_uncaptured = True
        self._patch_step_function()
        self._capture: NoiseCapture | None = None
        self._other_terms = OtherTerms()
        self._says_none = knows_none(self.base)
        self._watch: PenaltyWatch | None = None

    # What belongs to the base.

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base's own list of parameter groups."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    @property
    def defaults(self) -> dict[str, Any]:
        """The base's own defaults."""
        return self.base.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.base.defaults = defaults

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of all parameters, as the base does."""
        self.base.zero_grad(**({"set_to_none": set_to_none} if self._says_none else {}))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base; ``denoise=False`` in it leaves it to the base alone.

        Modules that the model got since then are watched, too, from the next forward pass on.
        """
        self.base.add_param_group(param_group)
        try:
            check_parameters(self.param_groups, self._model)
            if self._watch is not None:
                self._watch.check_groups()
        except (TypeError, RuntimeError, ValueError):
            self.base.param_groups.pop()
            raise
        if self._capture is not None:
            self._capture.watch(self._parameters())
            if self._model is not None:
                self._capture.cover(self._model)

    # What is known about the run.

    @property
    def total_steps(self) -> int | None:
        """Steps the whole run will take, or None."""
        return self._total_steps

    @total_steps.setter
    def total_steps(self, value: int | None) -> None:
        self._total_steps = check_count("total_steps", value)

    @property
    def dataset_size(self) -> int | None:
        """Rows of the training set, or None."""
        return self._dataset_size

    @dataset_size.setter
    def dataset_size(self, value: int | None) -> None:
        self._dataset_size = check_count("dataset_size", value)

    @property
    def batch_size(self) -> int | None:
        """Rows of a batch where the model does not show them, or None."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int | None) -> None:
        self._batch_size = check_count("batch_size", value)

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser."""
        return self._engine.denoiser

    @property
    def fallbacks(self) -> int:
        """How often a layer kept its plain gradient; reading it waits for the device."""
        return self._engine.fallbacks

    @property
    def recording(self) -> AuditLog:
        """The audit log: what was recorded of the run, by step and layer."""
        return self.audit

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        """The denoiser's statistics of each parameter: views, by ``element`` and ``layer``.

        The base's own state is ``optimizer.base.state``.
        """
        pieces: defaultdict[Tensor, Any] = defaultdict(dict)
        pieces.update(self._engine.pieces())
        return pieces

    @state.setter
    def state(self, pieces: dict[Tensor, Any]) -> None:
        self._engine.restart(self._engine.steps, self.fallbacks, dict(pieces))

    def attach_capture(self, model: nn.Module | None = None) -> None:
        """Measure noise in backward passes from now on, if the denoiser reads it.

        Args:
            model: the model whose modules tell the rows of a batch apart; None to tell
                apart successive backward calls only.
        """
        self._model = check_model(model, self.base)
        self.detach_capture()
        if reads_noise(self.denoiser):
            self._capture = NoiseCapture(self._parameters(), model)
            if runs_beside_others() and not isinstance(model, DistributedDataParallel):
                warnings.warn(
                    "DenoGrad: this is one of several processes, and model is no "
                    "DistributedDataParallel; if gradients are averaged over processes, each would "
                    "take its own rows for all, clean the same gradient in its own way, and drift "
                    "away from the others. Give the wrapped model (model=ddp_model), or take the "
                    "denoiser 'history' without model",
                    UserWarning,
                    stacklevel=callers_level(),
                )

    def detach_capture(self) -> None:
        """Take all hooks off the model and the parameters; no noise is measured any more.

        Before a model is scripted (`torch.jit.script`), or saved whole for a place without
        denograd (``torch.save(model, ...)``): hooks go with it. ``model.state_dict()`` holds none.
        """
        if self._capture is not None:
            self._capture.detach()
        self._capture = None

    def attach_penalties(self, model: nn.Module | None) -> None:
        """Let the penalties join the backward passes of a model from now on.

        Args:
            model: the model that owns the parameters.

        Raises:
            ValueError: there are penalties but no model; a penalty finds nothing to look at
                in it, or works for another optimizer; a group maximizes.
        """
        check_penalties(self.penalties, check_model(model, self.base))
        self.detach_penalties()
        if self.penalties and model is not None:
            self._watch = PenaltyWatch(self.penalties, model, self.base)

    def detach_penalties(self) -> None:
        """Take the hooks of the penalties off the model; losses are plain from now on."""
        if self._watch is not None:
            self._watch.detach()
        self._watch = None

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """False; `torch.amp.GradScaler.step` asks, which is how a scaled loss shows."""
        if self._watch is not None:
            self._watch.scaler_steps()
        return False

    # The step.

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Args:
            closure: evaluates the loss and its gradients; called once, before anything.

        Returns:
            what the closure returned.

        Raises:
            TypeError: a parameter is complex.
            RuntimeError: a gradient is sparse, or a penalty has a `torch.amp.GradScaler` that
                does not take the step.
            ValueError: the denoiser returned a tensor of the wrong shape.
        """
        loss: float | None = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            self._step()
        return loss

    def _step(self) -> None:
        if self._watch is not None:
            self._watch.before_step()
        active = active_parameters(self.param_groups, self._model)
        work: list[Work] = []
        audited = self.audit.due(self._engine.steps)
        if active and (audited or not isinstance(self.denoiser, IdentityDenoiser)):
            run = Run(self.total_steps or 0, self.dataset_size or 0, self.batch_size or 0)
            work = self._engine.denoise(active, self._parameters(), self._capture, run)
            if self._capture is not None and not self._other_terms.done:
                self._warn_of_other_terms(work, self._capture)
        self._engine.write(work)
        try:
            self.base.step()
        except BaseException:
            # Whoever tries again must not have the gradients cleaned twice.
            self._engine.take_back(work)
            raise
        if audited and work:
            self._record(work, run)
        self._engine.finish(work, self.param_groups)
        if self._capture is not None:
            self._capture.clear()
            self._capture.watch(member.parameter for member in active)

    def _warn_of_other_terms(self, work: Sequence[Work], capture: NoiseCapture) -> None:
        """Say once that the noise of some layers, or of all, is not known."""
        for group, _, _, context, _ in work:
            records = capture.records(group.parameters)
            known = context.noise_known
            self._other_terms.look(group.parameters, gradients(group), records, known)
        found = self._other_terms.end_step()
        if found is None or not (found.odd or (found.everywhere and self._model is not None)):
            return
        names = parameter_names(self.param_groups, self._model)
        told = told_of_odd([names[p] for p in found.odd]) if found.odd else NOWHERE
        warnings.warn(f"DenoGrad: {told}", UserWarning, stacklevel=callers_level())

    def _record(self, work: Sequence[Work], run: Run) -> None:
        names, step = parameter_names(self.param_groups, self._model), self._engine.steps
        for block, piece in enumerate(work):
            group, cleaned = piece.group, piece.cleaned
            self.audit.record(
                step,
                [names[p] for p in group.parameters],
                self.denoiser.coefficient_names,
                group.layout,
                cleaned.plain,
                cleaned.result,
                piece.context.noise_known,
                cleaned.fell_back,
                seen=features_seen(self._engine, piece),
                block=block,
                total_steps=run.total_steps,
            )

    # Saving and copying.

    def state_dict(self) -> dict[str, Any]:
        """The base's ``state`` and ``param_groups``, and what `DenoGrad` adds to them.

        The key ``denograd`` holds a dict: ``schema``, ``step``, ``total_steps``,
        ``dataset_size``, ``batch_size``, ``fallbacks``, ``parameters``, the denoiser's
        statistics by the index that the parameter has in ``param_groups``, and, where something
        was recorded, ``recording``.
        """
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        saved = dict(self.base.state_dict())
        saved["denograd"] = pack(
            self._parameters(),
            self._engine.pieces(),
            step=self._engine.steps,
            total_steps=self.total_steps,
            dataset_size=self.dataset_size,
            batch_size=self.batch_size,
            fallbacks=self.fallbacks,
            **({"recording": self.audit.state_dict()} if len(self.audit) else {}),
        )
        for after in self._optimizer_state_dict_post_hooks.values():
            saved = after(self, saved) or saved
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a saved run stopped.

        Args:
            state_dict: from `state_dict`, or from a plain base optimizer; the denoiser's
                statistics then start fresh, with a `UserWarning`. Counts of the saved run
                replace those given at construction. So does its recording, so that the table
                of a resumed run has each step once; how often to record stays as set here.

        Raises:
            ValueError: the statistics are of another schema, another denoiser or other
                parameters; nothing has been changed.
        """
        state_dict = dict(state_dict)
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, state_dict) or state_dict
        own = state_dict.pop("denograd", None)
        pieces = {} if own is None else unpack(own, self._parameters(), self.denoiser)
        recorded = None if own is None else own.get("recording")
        check_saved(recorded)
        left_to_base = [group.get("denoise") for group in self.param_groups]
        self.base.load_state_dict(state_dict)
        for group, denoise in zip(self.param_groups, left_to_base, strict=True):
            if denoise is not None:  # A plain optimizer's groups do not say.
                group.setdefault("denoise", denoise)
        if own is None:
            warnings.warn(
                "DenoGrad: this is the state dict of a plain optimizer; the denoiser's "
                "statistics start fresh",
                UserWarning,
                stacklevel=callers_level(),
            )
            own = {}
        self._engine.restart(own.get("step", 0), own.get("fallbacks", 0), pieces)
        self.audit.load_state_dict(recorded)
        if self._capture is not None:
            self._capture.clear()
        self.total_steps = own.get("total_steps") or self.total_steps
        self.dataset_size = own.get("dataset_size") or self.dataset_size
        self.batch_size = own.get("batch_size") or self.batch_size
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        return {
            **{name: self.__dict__[name] for name in _CARRIED},
            "denoiser": self.denoiser,
            "steps": self._engine.steps,
            "fallbacks": self.fallbacks,
            "pieces": {p: cloned(piece) for p, piece in self._engine.pieces().items()},
            "captures": self._capture is not None,
            "penalized": None if self._watch is None else self._watch.model,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: state[name] for name in _CARRIED})
        self._engine = Engine(state["denoiser"])
        self._engine.restart(state["steps"], state["fallbacks"], state["pieces"])
        self._begin()
        penalized: nn.Module | None = state["penalized"]
        # A model that holds its optimizer is copied around it, and is not whole yet.
        models = [model for model in (self._model, penalized) if model is not None]
        if any("_modules" not in model.__dict__ for model in models):
            warnings.warn(
                "DenoGrad: the copy is part of its own model; call attach_capture(model) on "
                "it to measure noise within the batch"
                + (", and attach_penalties(model)" if self.penalties else ""),
                UserWarning,
                stacklevel=callers_level(),
            )
            self._model = None
            return
        if penalized is not None:
            self.attach_penalties(penalized)
        if state["captures"]:
            self.attach_capture(self._model)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]
