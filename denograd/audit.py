"""What the denoiser kept of each layer's gradient, and what it removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from denograd.denoisers import Denoised, Layout

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("energy_kept", "cosine", "mean_gain", "noise_known", "fell_back")
"""Names of the numbers that every denoiser has; its coefficients come after them."""


class _Entry(NamedTuple):
    step: int
    names: tuple[str, ...]
    columns: tuple[str, ...]
    numbers: Tensor


class AuditLog:
    """A table with a row for each recorded step and layer.

    Numbers stay on their device until `to_frame` reads them, so recording never makes a
    step wait.

    Attributes:
        record_every: steps from one record to the next; 0, the default, records nothing.

    Example:
        >>> import torch, denograd
        >>> model = torch.nn.Linear(2, 1)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = denograd.DenoGrad(base, "identity", model=model)
        >>> optimizer.audit.record_every = 1
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.audit.to_frame()[["step", "layer", "energy_kept"]]
           step   layer  energy_kept
        0     0  weight          1.0
        1     0    bias          1.0
    """

    def __init__(self) -> None:
        self._record_every = 0
        self._entries: list[_Entry] = []

    @property
    def record_every(self) -> int:
        """Steps from one record to the next; 0 records nothing."""
        return self._record_every

    @record_every.setter
    def record_every(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(
                f"AuditLog: record_every={value!r}; it must be a whole number of steps, "
                "or 0 to record nothing"
            )
        self._record_every = value

    def __len__(self) -> int:
        """Number of rows."""
        return sum(len(entry.names) for entry in self._entries)

    def due(self, step: int) -> bool:
        """Whether a step, counted from 0, is to be recorded."""
        return self._record_every > 0 and step % self._record_every == 0

    def clear(self) -> None:
        """Forget what was recorded."""
        self._entries.clear()

    def record(
        self,
        step: int,
        names: Sequence[str],
        coefficient_names: Sequence[str],
        layout: Layout,
        plain: Tensor,
        result: Denoised,
        noise_known: Tensor,
        fell_back: Tensor,
    ) -> None:
        """Add a row for each layer.

        Args:
            step: steps done before this one.
            names: names of the ``L`` layers.
            coefficient_names: names of the ``K`` coefficients.
            layout: how ``N`` elements are cut into layers.
            plain: ``(N,)``, the gradient before the denoiser.
            result: what the denoiser made of it, and what was used of it.
            noise_known: ``(L,)``, 1 where the noise was measured within the batch.
            fell_back: ``(L,)``, True where the plain gradient was used.
        """
        cleaned = result.gradient
        energies = layout.sum(torch.stack((plain * plain, cleaned * cleaned, plain * cleaned)))
        of_plain, of_cleaned, dot = energies.unbind(0)
        sizes = layout.sum(torch.ones_like(plain))
        gain = torch.ones_like(of_plain) if result.gain is None else layout.sum(result.gain) / sizes
        numbers = [
            of_cleaned / of_plain,
            dot / (of_plain * of_cleaned).sqrt(),
            gain,
            noise_known,
            fell_back.to(plain.dtype),
        ]
        columns = list(MEASURES)
        if result.coefficients is not None:
            numbers += list(result.coefficients.unbind(-1))
            columns += coefficient_names
        table = torch.stack(numbers, dim=-1).detach()
        self._entries.append(_Entry(step, tuple(names), tuple(columns), table))

    def to_frame(self) -> pd.DataFrame:
        """The table, with the columns ``step``, ``layer``, the measures and coefficients.

        ``energy_kept`` is ``|cleaned|^2 / |g|^2``, ``cosine`` the cosine between the
        cleaned and the plain gradient (both NaN where the gradient is zero), ``mean_gain``
        the mean update gain, ``noise_known`` 1 where noise was measured within the batch,
        ``fell_back`` 1 where a non-finite number made the layer keep its plain gradient.
        """
        import pandas as pd

        if not self._entries:
            return pd.DataFrame(columns=["step", "layer", *MEASURES])
        frames = []
        for entry in self._entries:
            frame = pd.DataFrame(entry.numbers.cpu().numpy(), columns=list(entry.columns))
            frame.insert(0, "step", entry.step)
            frame.insert(1, "layer", list(entry.names))
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)
