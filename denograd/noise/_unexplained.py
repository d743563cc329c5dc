"""Why the noise within the batch is not known, where that can be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from denograd.noise._record import GradientRecord


class Unmeasured(NamedTuple):
    """What the first steps of a run say of the noise within the batch.

    Attributes:
        odd: parameters whose gradients are not what their rows add up to.
        everywhere: whether the noise was measured in no layer at all, of gradients that were
            finite.
    """

    odd: list[Tensor]
    everywhere: bool


class OtherTerms:
    """Looks, at the first steps of a run, for gradients that hold more than their rows.

    Then the noise within the batch is not known, though rules cover the rows. Modules that no
    rule covers, single rows and numbers that overflow are another matter, which is told of only if
    there is nothing else. What is found stays on its device until the last look, so that no other
    step waits for it.
    """

    looks = 10
    """Steps that are looked at; a gradient must be odd at two of them to be found."""

    def __init__(self) -> None:
        self._seen = 0
        self._odd: dict[Tensor, Tensor] = {}
        # By device: how often noise was measured, and in how many steps gradients were finite.
        self._found: dict[torch.device, Tensor] = {}

    @property
    def done(self) -> bool:
        """Whether the last look has been taken."""
        return self._seen >= self.looks

    def look(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        records: Sequence[GradientRecord | None],
        known: Tensor,
    ) -> None:
        """Take in what a step knows of some parameters.

        Args:
            parameters: ``L`` of them.
            gradients: theirs, before they are cleaned.
            records: what was captured of each.
            known: ``(L,)``, 1 where the noise was measured after all.
        """
        here = torch.stack((known.sum(), _are_finite(gradients, known)))
        self._found[known.device] = self._found.get(known.device, 0) + here
        everything = zip(parameters, gradients, records, known.unbind(), strict=True)
        for parameter, gradient, record, measured in everything:
            if record is None or record.rows < 2 or record.squares is None:
                continue
            size = gradient.square().sum() + record.squares.sum()
            odd = ((measured == 0) & torch.isfinite(size)).to(torch.int64)
            self._odd[parameter] = self._odd.get(parameter, 0) + odd

    def end_step(self) -> Unmeasured | None:
        """Count a step; at the last look, what was found."""
        self._seen += 1
        if not self.done:
            return None
        odd = [parameter for parameter, count in self._odd.items() if int(count) > 1]
        known, finite = (sum(float(counts[i]) for counts in self._found.values()) for i in range(2))
        self._odd.clear()
        self._found.clear()
        return Unmeasured(odd, known == 0 and finite > 0)


def _are_finite(gradients: Sequence[Tensor], like: Tensor) -> Tensor:
    """1 if all gradients are finite, else 0."""
    return torch.stack([g.isfinite().all() for g in gradients]).all().to(like.dtype)


def told_of_odd(names: Sequence[str]) -> str:
    """What a user is told of parameters whose gradients are not what their rows add up to."""
    said = ", ".join(names[:4])
    said += f" and {len(names) - 4} more" if names[4:] else ""
    return (
        f"the gradients of {said} are not what the rows that the model saw add "
        "up to, so the noise within the batch is not known there and the denoiser goes "
        "by their history alone. It may be a term of the loss that is no mean over rows "
        "(for L1 or L2, take the base's weight_decay or penalties=), two losses of one forward "
        "pass that went backward one after the other (add them up, and call backward() once), "
        "gradients that were not reset, clipped value by value or averaged over processes, or a "
        "parameter that is used outside of its module"
    )


NOWHERE = (
    "in the first steps the noise within the batch was measured in no layer, so the denoiser goes "
    "by the history of the gradients alone. It is measured in linear, convolution, normalisation "
    "and embedding layers, and those of denograd.models, that model(...) calls with the rows of "
    "the batch, two or more, in dimension 0, which must be dimension 0 of the model's first tensor "
    "argument, too, and not in a model that torch.compile had compiled before the optimizer was "
    "made. Where that cannot be, take the denoiser that was meta-trained without: "
    'DenoGrad(base, "history", dataset_size=..., batch_size=...)'
)
"""What a user is told whose model shows no rows at all."""
