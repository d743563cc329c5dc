"""What the denoiser saw in each layer, what it chose, and what became of the gradient.

`AuditLog` is the recording of a run. An optimizer has one, as ``optimizer.recording``;
`denograd.plot` draws it, and ``denograd inspect --run FILE`` reads a saved one.
"""

from __future__ import annotations

import json
import math
import numbers
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from denograd._recording import (
    MEASURES,
    SCHEMA,
    Entry,
    RecordingError,
    Seen,
    from_json,
    to_json,
)
from denograd.denoisers import Denoised, Layout

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MEASURES", "AuditLog", "Entry", "RecordingError", "Seen"]

_PLACE = ("step", "phase", "block", "layer", "elements")


class AuditLog:
    """A table with a row for each recorded step and layer: the recording of a run.

    Numbers stay on their device until they are read, so recording never makes a step wait
    and never changes what it does. A row takes 4 bytes a number, some 200 bytes with the
    default denoiser: 1,000 records of a model of 10 layers are 2 MB. ``keep`` bounds a run without
    an end.

    Args:
        record_every: steps from one record to the next; 0 records nothing.
        keep: records to keep, the newest; None keeps all.

    Raises:
        ValueError: ``record_every`` or ``keep`` is no such number.

    Example:
        >>> import torch, denograd
        >>> model = torch.nn.Linear(2, 1)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = denograd.DenoGrad(base, "identity", model=model, record=1)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.recording.to_frame()[["step", "layer", "energy_before", "energy_kept"]]
           step   layer  energy_before  energy_kept
        0     0  weight           32.0          1.0
        1     0    bias           16.0          1.0
    """

    def __init__(self, record_every: int = 0, keep: int | None = None) -> None:
        self._record_every = check_every("AuditLog: record_every", record_every)
        self._records: deque[list[Entry]] = deque()
        self.keep = keep

    @property
    def record_every(self) -> int:
        """Steps from one record to the next; 0 records nothing."""
        return self._record_every

    @record_every.setter
    def record_every(self, value: int) -> None:
        self._record_every = check_every("AuditLog: record_every", value)

    @property
    def keep(self) -> int | None:
        """How many records are kept, the newest; None keeps all."""
        return self._records.maxlen

    @keep.setter
    def keep(self, value: int | None) -> None:
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ValueError(
                f"AuditLog: keep={value!r}; it must be a whole number of at least 1, or None to "
                "keep every record"
            )
        self._records = deque(self._records, maxlen=value)

    @property
    def entries(self) -> Iterator[Entry]:
        """What was recorded, oldest first."""
        return (entry for record in self._records for entry in record)

    @property
    def coefficient_names(self) -> tuple[str, ...]:
        """Names of the coefficients in the table."""
        return tuple(dict.fromkeys(name for e in self.entries for name in e.coefficients))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features in the table; none if the denoiser shows none."""
        return tuple(dict.fromkeys(name for e in self.entries for name in e.features))

    def __len__(self) -> int:
        """Number of rows."""
        return sum(len(entry.layers) for entry in self.entries)

    def due(self, step: int) -> bool:
        """Whether a step, counted from 0, is to be recorded."""
        return self._record_every > 0 and step % self._record_every == 0

    def clear(self) -> None:
        """Forget what was recorded."""
        self._records.clear()

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
        *,
        seen: Seen | None = None,
        block: int = 0,
        total_steps: int = 0,
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
            seen: the features that the coefficients follow from, if the denoiser has some.
            block: 0 for the first call of a step, then counted up.
            total_steps: steps that the whole run will take, 0 if not known.
        """
        cleaned = result.gradient
        squares = (plain * plain, cleaned * cleaned, (plain - cleaned).square(), plain * cleaned)
        before, after, removed, dot = layout.sum(torch.stack(squares)).unbind(0)
        sizes = layout.sum(torch.ones_like(plain))
        gain = torch.ones_like(before) if result.gain is None else layout.sum(result.gain) / sizes
        numbers = [
            before,
            after,
            removed,
            after / before,
            dot / (before * after).sqrt(),
            gain,
            noise_known,
            fell_back.to(plain.dtype),
        ]
        coefficients: tuple[str, ...] = ()
        if result.coefficients is not None:
            coefficients = tuple(coefficient_names)
            numbers += list(result.coefficients.unbind(-1))
        if seen is not None:
            numbers += list(seen.numbers.unbind(-1))
        entry = Entry(
            step,
            block,
            total_steps,
            tuple(names),
            layout.sizes,
            coefficients,
            () if seen is None else seen.names,
            torch.stack(numbers, dim=-1).detach(),
        )
        self._append(entry)

    def _append(self, entry: Entry) -> None:
        if entry.block > 0 and self._records and self._records[-1][0].step == entry.step:
            self._records[-1].append(entry)
        else:
            self._records.append([entry])

    def to_frame(self) -> pd.DataFrame:
        """The table: where a row belongs, the measures, the coefficients and the features.

        Columns of features begin with ``feature.``. ``phase`` is ``step / total_steps``, NaN
        where that was not known. ``block`` tells apart layers of a step that the denoiser did
        not see together, as those of another precision. ``elements`` is the size of the layer.

        ``energy_before`` is ``|g|^2``, ``energy_after`` ``|cleaned|^2``, ``energy_removed``
        ``|g - cleaned|^2``, ``energy_kept`` the second over the first, ``cosine`` that
        between the cleaned and the plain gradient (both NaN where the gradient is zero),
        ``mean_gain`` the mean update gain, ``noise_known`` 1 where noise was measured within
        the batch, ``fell_back`` 1 where a non-finite number made the layer keep its plain
        gradient.
        """
        import pandas as pd

        frames = []
        for entry in self.entries:
            frame = pd.DataFrame(entry.numbers.cpu().numpy(), columns=list(entry.columns))
            phase = entry.step / entry.total_steps if entry.total_steps else math.nan
            place: tuple[Any, ...] = (
                entry.step,
                phase,
                entry.block,
                list(entry.layers),
                list(entry.elements),
            )
            for at, (name, value) in enumerate(zip(_PLACE, place, strict=True)):
                frame.insert(at, name, value)
            frames.append(frame)
        if not frames:
            return pd.DataFrame(columns=[*_PLACE, *MEASURES])
        return pd.concat(frames, ignore_index=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recording to a file.

        Args:
            path: ending in ``.csv`` for the table of `to_frame`, or in ``.json`` for a file
                that `read` reads back and ``denograd inspect --run`` takes.

        Raises:
            ValueError: another ending.
            OSError: the file can't be written.
        """
        path = Path(path)
        if path.suffix not in (".csv", ".json"):
            raise ValueError(
                f"AuditLog: path={str(path)!r}; it must end in .csv for a table, or in .json for a "
                "file that can be read back"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            self.to_frame().to_csv(path, index=False)
            return
        text = json.dumps(to_json(self.entries), allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> AuditLog:
        """Read what `save` wrote as JSON; numbers come back in double precision.

        Raises:
            RecordingError: there is no such file, or it holds something else.

        Example:
            >>> try:
            ...     AuditLog.read("nowhere.json")
            ... except RecordingError as error:
            ...     print(error)
            nowhere.json: no such file; give one that optimizer.recording.save(PATH) wrote
        """
        remedy = "give one that optimizer.recording.save(PATH) wrote"
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            log = cls()
            for entry in from_json(found):
                log._append(entry)
        except FileNotFoundError as error:
            raise RecordingError(f"{path}: no such file; {remedy}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = str(error) if isinstance(error, RecordingError) else "it is damaged"
            if isinstance(error, (OSError, json.JSONDecodeError, UnicodeDecodeError)):
                reason = f"it is no JSON file ({error})"
            raise RecordingError(f"{path}: not a recording: {reason}; {remedy}") from error
        return log

    def state_dict(self) -> dict[str, Any]:
        """What was recorded, for a checkpoint; tensors are copies."""
        entries = [tuple(e._replace(numbers=e.numbers.clone())) for e in self.entries]
        return {"schema": SCHEMA, "measures": MEASURES, "entries": entries}

    def load_state_dict(self, saved: dict[str, Any] | None) -> None:
        """Go on from what `state_dict` saved; None stands for an empty recording.

        How often to record stays as it is set here.

        Raises:
            ValueError: it was saved by a version with other columns.
        """
        check_saved(saved)
        self.clear()
        for values in [] if saved is None else saved["entries"]:
            self._append(Entry(*values))


def check_every(name: str, value: object) -> int:
    """Return a number of steps, 0 allowed, or raise `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise ValueError(
            f"{name}={value!r}; it must be a whole number of steps, or 0 to record nothing"
        )
    return int(value)


def check_saved(saved: dict[str, Any] | None) -> None:
    """Raise `ValueError` for a saved recording with other columns."""
    if saved is not None and (saved["schema"], tuple(saved["measures"])) != (SCHEMA, MEASURES):
        raise ValueError(
            f"DenoGrad: the state dict has a recording of schema {saved['schema']!r}, and this "
            f"version reads {SCHEMA}; load it with the version of denograd that saved it, or "
            "remove state_dict['denograd']['recording']"
        )
