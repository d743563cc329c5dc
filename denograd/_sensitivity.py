"""What is inside a denoiser: which features of a layer move which of its coefficients.

A denoiser whose coefficients follow from features can be asked directly: take layers as
they were recorded in training, move one feature over the range that was seen, leave the
others where they are, and watch the coefficients. That is partial dependence with one
curve a layer (Friedman 2001, section 8.2; Goldstein et al. 2015, "Peeking inside the black
box"). Features that several quantities share move apart in it though they seldom do so in
training, so the curves say what the net would do, not what it has met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from denograd.audit import AuditLog, Entry
from denograd.denoisers import Denoiser, DenoiserFileError, resolve_denoiser
from denograd.denoisers.wiener import COEFFICIENTS

SNAPSHOTS, POINTS, MOVED = 60, 9, 16
"""Recorded steps to look at, points of a curve, and layers of a step that are moved."""

RANGE = (0.05, 0.95)
"""Quantiles of a feature between which it is moved."""

MULTIPLIERS = tuple(name for name, found in COEFFICIENTS.items() if found.multiplies)
"""Coefficients that multiply something, so that their effects are ratios."""


class InspectionError(ValueError):
    """What can't be looked into; the message says why, and what can."""


@runtime_checkable
class Readable(Denoiser, Protocol):
    """A denoiser whose coefficients follow from features, layer by layer."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features."""
        ...

    def coefficients(self, features: Tensor) -> Tensor:
        """``(..., L, features)`` to ``(..., L, coefficients)``."""
        ...


@dataclass(frozen=True)
class Sensitivity:
    """How coefficients answer to features.

    Multiplying coefficients (`MULTIPLIERS`) are natural logarithms here, so that a
    difference is the logarithm of a ratio.

    Attributes:
        features: names, ``F`` of them.
        coefficients: names, ``K`` of them.
        grid: ``(F, P)``, the values that each feature was moved to.
        mean: ``(F, P, K)``, the coefficients there, averaged over layers.
        low: ``(F, P, K)``, their tenth percentile over layers.
        high: ``(F, P, K)``, their ninetieth.
        effect: ``(F, K)``, how far a coefficient of a layer moves, from its lowest to its
            highest, averaged over layers.
        direction: ``(F, K)``, by how much it is higher at the end of the range than at the
            start, averaged over layers; between ``-effect`` and ``effect``.
        together: ``(F,)``, whether the feature always was the same in all layers, and so was
            moved in all of them at once.
    """

    features: tuple[str, ...]
    coefficients: tuple[str, ...]
    grid: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    effect: NDArray[np.float64]
    direction: NDArray[np.float64]
    together: NDArray[np.bool_]

    @property
    def share(self) -> NDArray[np.float64]:
        """``(F, K)``, each feature's part of the effects on a coefficient; sums to 1 or 0."""
        total = self.effect.sum(0)
        share: NDArray[np.float64] = self.effect / np.where(total > 0, total, 1.0)
        return share

    def sign(self, feature: str, coefficient: str) -> int:
        """1 if the coefficient rises with the feature, -1 if it falls, 0 for both in turn."""
        at = self.features.index(feature), self.coefficients.index(coefficient)
        effect, direction = self.effect[at], self.direction[at]
        return 0 if abs(direction) < 0.5 * effect or effect == 0 else int(np.sign(direction))

    def top(self, coefficient: str, count: int = 3) -> list[str]:
        """The features that move a coefficient most, without those that do not move it."""
        effects = self.effect[:, self.coefficients.index(coefficient)]
        order = np.argsort(-effects, kind="stable")[:count]
        return [self.features[i] for i in order if effects[i] > 0]

    def to_frame(self) -> pd.DataFrame:
        """A row for each coefficient and feature, those that move it most first."""
        rows = [
            {
                "coefficient": coefficient,
                "feature": feature,
                "effect": self.effect[f, k],
                "direction": self.direction[f, k],
                "share": self.share[f, k],
                "from": self.grid[f, 0],
                "to": self.grid[f, -1],
            }
            for k, coefficient in enumerate(self.coefficients)
            for f, feature in sorted(enumerate(self.features), key=lambda x: -self.effect[x[0], k])
        ]
        return pd.DataFrame(rows)


def readable(spec: str | Path | Denoiser) -> Readable:
    """The denoiser, if one can see how its coefficients come about.

    Raises:
        InspectionError: there is no such denoiser, it has no coefficients, or they do not
            follow from features.
        DenoiserFileError: its file can't be used.
    """
    try:
        denoiser = resolve_denoiser(spec)
    except DenoiserFileError:
        raise
    except (TypeError, ValueError) as error:
        raise InspectionError(str(error)) from error
    if not isinstance(denoiser, Readable) or not denoiser.coefficient_names:
        raise InspectionError(
            f"denoiser={spec!r}: {type(denoiser).__name__} has no coefficients that follow from "
            "features, so there is nothing to look into; give one with weights, such as 'default'"
        )
    return denoiser


def features_of(entry: Entry) -> Tensor:
    """The features of an entry, ``(L, F)``."""
    return entry.numbers[:, len(entry.columns) - len(entry.features) :]


def coefficients_of(entry: Entry) -> Tensor:
    """The coefficients of an entry, ``(L, K)``."""
    stop = len(entry.columns) - len(entry.features)
    return entry.numbers[:, stop - len(entry.coefficients) : stop]


def sensitivity(
    denoiser: Readable | str | Path, recordings: AuditLog | Sequence[AuditLog]
) -> Sensitivity:
    """Move each feature over its range in recorded layers, and watch the coefficients.

    A feature that always was the same in all layers of a step, such as the phase of
    training, is moved in all of them at once; any other in one layer at a time, and the
    mean over layers, if the denoiser reads it, moves along.

    Args:
        denoiser: what chose the coefficients, or its name or path.
        recordings: of runs with it, one or several.

    Raises:
        InspectionError: the recordings are empty or hold no features, or are of another
            denoiser.

    Example:
        >>> from denograd.inspection import reference_runs
        >>> runs = reference_runs("default", ["iris"], ["soft_tree"], rows=32, steps=8)
        >>> found = sensitivity(readable("default"), [run.recording for run in runs])
        >>> found.effect.shape == (len(found.features), len(found.coefficients))
        True
        >>> bool((abs(found.direction) <= found.effect + 1e-12).all())
        True
    """
    if not isinstance(denoiser, Readable):
        denoiser = readable(denoiser)
    if isinstance(recordings, AuditLog):
        recordings = [recordings]
    entries = [entry for recording in recordings for entry in recording.entries]
    _check(denoiser, entries)
    dtype, device = _precision(denoiser)
    every = np.concatenate([features_of(entry).double().cpu().numpy() for entry in entries])
    low, high = (np.quantile(every, part, axis=0) for part in RANGE)
    grid = np.linspace(low, high, POINTS, axis=1)
    together = np.all(
        [(x == x[:1]).all(0).cpu().numpy() for x in map(features_of, entries)], axis=0
    )
    chosen = np.unique(np.linspace(0, len(entries) - 1, SNAPSHOTS).round().astype(int))
    curves: list[list[NDArray[np.float64]]] = [[] for _ in denoiser.feature_names]
    for number in chosen:
        features = features_of(entries[number]).to(device, dtype)
        for f, values in enumerate(grid):
            at = torch.from_numpy(values).to(device, dtype)
            curves[f].append(_moved(denoiser, features, f, at, bool(together[f])))
    joined = [np.concatenate(parts, axis=1) for parts in curves]
    effect = np.stack([(x.max(0) - x.min(0)).mean(0) for x in joined])
    still = grid[:, 0] == grid[:, -1]
    effect[still] = 0.0
    return Sensitivity(
        tuple(denoiser.feature_names),
        tuple(denoiser.coefficient_names),
        grid,
        np.stack([x.mean(1) for x in joined]),
        np.stack([np.quantile(x, 0.1, axis=1) for x in joined]),
        np.stack([np.quantile(x, 0.9, axis=1) for x in joined]),
        effect,
        np.where(still[:, None], 0.0, np.stack([(x[-1] - x[0]).mean(0) for x in joined])),
        together,
    )


def _moved(
    denoiser: Readable, features: Tensor, feature: int, values: Tensor, together: bool
) -> NDArray[np.float64]:
    """Coefficients where one feature takes each value, ``(P, layers, K)``."""
    layers, points = len(features), len(values)
    with torch.no_grad():
        if together:
            moved = features.repeat(points, 1, 1)
            moved[:, :, feature] = values[:, None]
            found = denoiser.coefficients(moved)
        else:
            some = np.unique(np.linspace(0, layers - 1, MOVED).round().astype(int))
            chosen, each = torch.from_numpy(some), torch.arange(len(some))
            moved = features.repeat(points, len(chosen), 1, 1)
            moved[:, each, chosen, feature] = values[:, None]
            found = denoiser.coefficients(moved)[:, each, chosen]
    return on_scale(found.double().cpu().numpy(), denoiser.coefficient_names)


def on_scale(values: NDArray[Any], names: Sequence[str]) -> NDArray[np.float64]:
    """Coefficients ``(..., K)`` with the logarithm of those that multiply."""
    scaled = np.array(values, dtype=np.float64)
    for k, name in enumerate(names):
        if name in MULTIPLIERS:
            # A coefficient that is switched off may be exactly 0.
            scaled[..., k] = np.log(np.maximum(scaled[..., k], 1e-12))
    return scaled


def _precision(denoiser: Readable) -> tuple[torch.dtype, torch.device]:
    if isinstance(denoiser, torch.nn.Module):
        for weight in denoiser.parameters():
            return weight.dtype, weight.device
    return torch.float64, torch.device("cpu")


def _check(denoiser: Readable, entries: Sequence[Entry]) -> None:
    """Raise unless the recorded coefficients are those that the denoiser chooses."""
    if not entries:
        raise InspectionError("the recording is empty; record a run with DenoGrad(..., record=10)")
    for entry in entries:
        if not entry.features:
            raise InspectionError(
                "the recording has no features: only those of a WienerDenoiser are recorded"
            )
        for kind, known in (
            ("features", tuple(denoiser.feature_names)),
            ("coefficients", tuple(denoiser.coefficient_names)),
        ):
            recorded: tuple[str, ...] = getattr(entry, kind)
            if recorded != known:
                odd = sorted(set(recorded) ^ set(known)) or ["their order"]
                raise InspectionError(
                    f"the recording has {len(recorded)} {kind} and the denoiser {len(known)}; they "
                    f"differ in {', '.join(odd)}. Give the denoiser that the run was made with"
                )
    dtype, device = _precision(denoiser)
    with torch.no_grad():
        for entry in (entries[0], entries[-1]):
            chosen = denoiser.coefficients(features_of(entry).to(device, dtype))
            recorded_values = coefficients_of(entry).to(device, dtype)
            if not torch.allclose(chosen, recorded_values, rtol=1e-3, atol=1e-5):
                raise InspectionError(
                    f"at step {entry.step} the denoiser does not choose the coefficients that were "
                    "recorded; give the denoiser that the run was made with"
                )


def neutral(coefficient: str) -> float:
    """The value at which a coefficient does nothing; 1 for a kappa, which is Wiener's own gain."""
    known = COEFFICIENTS.get(coefficient)
    return 1.0 if known is None else known.neutral
