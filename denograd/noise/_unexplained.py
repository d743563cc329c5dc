"""Parameters whose gradients are more than the rows of the batch add up to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from denograd.noise._record import GradientRecord


class OtherTerms:
    """Looks, at the first steps of a run, for gradients that hold more than their rows.

    Then the noise within the batch is not known, though rules cover the rows. Modules that no
    rule covers, single rows and numbers that overflow are another matter. What is found stays on
    its device until the last look, so that no other step waits for it.
    """

    looks = 10
    """Steps that are looked at; a gradient must be odd at two of them to be found."""

    def __init__(self) -> None:
        self._seen = 0
        self._odd: dict[Tensor, Tensor] = {}

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
        everything = zip(parameters, gradients, records, known.unbind(), strict=True)
        for parameter, gradient, record, measured in everything:
            if record is None or record.rows < 2 or record.squares is None:
                continue
            size = gradient.square().sum() + record.squares.sum()
            odd = ((measured == 0) & torch.isfinite(size)).to(torch.int64)
            self._odd[parameter] = self._odd[parameter] + odd if parameter in self._odd else odd

    def end_step(self) -> list[Tensor]:
        """Count a step; at the last look, the parameters whose gradients were odd."""
        self._seen += 1
        if not self.done:
            return []
        found = [parameter for parameter, count in self._odd.items() if int(count) > 1]
        self._odd.clear()
        return found
