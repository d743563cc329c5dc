"""What a step does between the gradients and the base optimizer, and after it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from denograd._clean import Cleaned, clean
from denograd._flat import Active, FlatGroup, FlatGroups, Piece
from denograd.denoisers import Context, Denoiser
from denograd.denoisers._base import decay_fraction
from denograd.noise import NoiseCapture, noise_variance


class Run(NamedTuple):
    """What is known about the run; 0 stands for not known."""

    total_steps: int
    dataset_size: int
    batch_size: int = 0


class Work(NamedTuple):
    """One flat group on its way through a step.

    Attributes:
        group: the parameters.
        before: ``(N,)``, the parameters before the step.
        noise: ``(N,)``, the variance of their gradients, 0 where it is not known.
        context: what is known of the step.
        cleaned: what the denoiser made of their gradients.
    """

    group: FlatGroup
    before: Tensor
    noise: Tensor
    context: Context
    cleaned: Cleaned


class Engine:
    """Denoise gradients before a base optimizer's step, and scale the update after it.

    Nothing here waits for an accelerator, except what says so.

    Args:
        denoiser: the denoiser.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.steps = 0
        self._flat = FlatGroups(self._denoiser_for)
        self._step_numbers: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._converted: dict[
            tuple[torch.device, torch.dtype], tuple[tuple[int, ...], Denoiser]
        ] = {}
        self._fallbacks: dict[torch.device, Tensor] = {}
        self._fallbacks_before = 0

    @property
    def fallbacks(self) -> int:
        """How often a layer fell back to its plain gradient; waits for the device."""
        return self._fallbacks_before + sum(int(count) for count in self._fallbacks.values())

    def pieces(self) -> dict[Tensor, Piece]:
        """The statistics of each parameter, as views."""
        return self._flat.pieces()

    def restart(self, steps: int, fallbacks: int, pieces: dict[Tensor, Piece]) -> None:
        """Go on from saved statistics."""
        self.steps, self._fallbacks_before = steps, fallbacks
        self._fallbacks.clear()
        self._step_numbers.clear()
        self._flat.replace(pieces)

    def denoise(
        self,
        active: Sequence[Active],
        known: Sequence[Tensor],
        capture: NoiseCapture | None,
        run: Run,
    ) -> list[Work]:
        """Clean the gradients of a step; nothing of the parameters is changed yet.

        Args:
            active: the parameters to clean.
            known: all parameters of the optimizer.
            capture: where the noise within the batch was measured.
            run: what is known about the run.
        """
        work = []
        if capture is not None:
            shown = capture.rows([member.parameter for member in active])
            run = run._replace(batch_size=shown or run.batch_size)
        for group in self._flat.of(active, known):
            gradient, before = group.join(gradients(group)), group.join(group.parameters)
            noise, context = self._observe(group, gradient, capture, run)
            denoiser = self._denoiser_for(group.device, group.dtype)
            cleaned = clean(denoiser, group.flipped(gradient), noise, before, group.state, context)
            work.append(Work(group, before, noise, context, cleaned))
        return work

    def _observe(
        self, group: FlatGroup, gradient: Tensor, capture: NoiseCapture | None, run: Run
    ) -> tuple[Tensor, Context]:
        """The noise of a group's gradient at this step, ``(N,)``, and what is known of the step."""
        if capture is None:
            noise, noise_known = torch.zeros_like(gradient), torch.zeros_like(group.counts)
        else:
            records = capture.records_for(group.parameters, group.layout, gradient)
            noise, noise_known = noise_variance(gradient, group.layout, records)
        context = Context(
            layout=group.layout,
            counts=group.counts,
            noise_known=noise_known,
            step=self._step_number(group),
            total_steps=group.scalar(run.total_steps),
            rows=group.scalar(run.dataset_size),
            batch_size=group.scalar(run.batch_size),
        )
        return noise, context

    def write(self, work: Sequence[Work]) -> None:
        """Put the cleaned gradients into ``p.grad``, where they differ from the plain ones."""
        for piece in work:
            self._put(piece, piece.cleaned.result.gradient)

    def take_back(self, work: Sequence[Work]) -> None:
        """Put the plain gradients back, as after a base's step that failed."""
        for piece in work:
            self._put(piece, piece.cleaned.plain)

    def _put(self, piece: Work, flat: Tensor) -> None:
        if piece.cleaned.changed:
            group = piece.group
            torch._foreach_copy_(gradients(group), group.cut(group.flipped(flat)))

    def finish(self, work: Sequence[Work], param_groups: list[dict[str, Any]]) -> None:
        """Scale the update that the base made, decay, and keep the new statistics."""
        for group, before, _, _, cleaned in work:
            _scale_update(group, before, cleaned, param_groups)
            group.state = cleaned.result.state
            count = cleaned.fell_back.sum()
            if group.device in self._fallbacks:
                count = count + self._fallbacks[group.device]
            self._fallbacks[group.device] = count
        self.steps += 1
        for number in self._step_numbers.values():
            number += 1

    def _step_number(self, group: FlatGroup) -> Tensor:
        key = (group.device, group.dtype)
        if key not in self._step_numbers:
            self._step_numbers[key] = group.scalar(self.steps)
        return self._step_numbers[key]

    def _denoiser_for(self, device: torch.device, dtype: torch.dtype) -> Denoiser:
        """The denoiser itself, or a copy of it where its weights are elsewhere."""
        if not isinstance(self.denoiser, nn.Module):
            return self.denoiser
        weights = [*self.denoiser.parameters(), *self.denoiser.buffers()]
        if all(w.device == device and w.dtype == dtype for w in weights):
            return self.denoiser
        versions = tuple(w._version for w in weights)
        found = self._converted.get((device, dtype))
        if found is None or found[0] != versions:
            converted = copy.deepcopy(self.denoiser).to(device, dtype)
            found = self._converted[device, dtype] = (versions, converted)
        return found[1]


def gradients(group: FlatGroup) -> list[Tensor]:
    """``p.grad`` of each parameter; active parameters have one."""
    return [p.grad for p in group.parameters if p.grad is not None]


def _scale_update(
    group: FlatGroup, before: Tensor, cleaned: Cleaned, param_groups: list[dict[str, Any]]
) -> None:
    gain, decay = cleaned.result.gain, cleaned.result.decay
    if gain is None and decay is None:
        return
    after = group.join(group.parameters)
    # lerp is exact where the gain is 1, so a layer that fell back follows the base.
    update = after if gain is None else torch.lerp(before, after, gain)
    if decay is not None:
        rates = {index: _learning_rate(group, param_groups[index]) for index in set(group.groups)}
        rate = torch.stack([rates[index] for index in group.groups])
        update = update - group.layout.spread(decay_fraction(rate, decay)) * before
    torch._foreach_copy_(group.parameters, group.cut(update))


def _learning_rate(group: FlatGroup, param_group: dict[str, Any]) -> Tensor:
    rate = param_group.get("lr", 0.0)
    if isinstance(rate, Tensor):
        return rate.detach().to(group.device, group.dtype, non_blocking=True).reshape(())
    return group.scalar(rate)
