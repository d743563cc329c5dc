"""Synthetic sequences: random processes in which something depends on the class.

A draw decides how many channels and steps there are, what the background is (white noise, an
autoregression, a random walk, waves), what a class changes, how strongly, in which channels, and
how often labels are wrong. A class changes the shape of the whole sequence, a short motif that
comes at any moment, the speed of its waves, the level from some moment on, or its roughness; or
it is drawn by what a stretch of the sequence comes to, as next-step targets are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from denograd.meta.prior import label_rows

Array = NDArray[np.float64]

SHORTEST = 8
"""Steps of the shortest sequences."""


def draw_prior_sequences(
    rng: np.random.Generator, rows: int, max_features: int, n_classes: int
) -> tuple[Array, NDArray[np.int64], int]:
    """Draw sequences and their labels.

    Args:
        rng: source of randomness.
        rows: number of sequences.
        max_features: at most so many channels times steps.
        n_classes: number of classes, at least 2.

    Returns:
        sequences ``(rows, channels * steps)``, channel by channel, labels ``(rows,)`` in
        ``0..n_classes-1``, and the number of channels.

    Example:
        >>> x, y, channels = draw_prior_sequences(np.random.default_rng(0), 50, 60, 3)
        >>> x.shape[0], x.shape[1] % channels, int(y.max()) < 3
        (50, 0, True)
    """
    channels = int(rng.choice([1, 1, 1, 2, 3, 6]))
    channels = max(1, min(channels, max_features // SHORTEST))
    most = max_features // channels
    steps = round(np.exp(rng.uniform(np.log(min(SHORTEST, most)), np.log(most))))
    shape = (rows, channels, steps)
    background = _background(rng, shape)
    strength = np.exp(rng.uniform(np.log(0.2), np.log(5.0)))
    matters = rng.random(channels) < rng.uniform(0.3, 1.0)
    matters[rng.integers(channels)] = True
    if rng.random() < 0.3:
        x = background
        labels = label_rows(rng, strength * _readings(rng, x[:, matters], n_classes))
    else:
        labels = label_rows(rng, rng.normal(scale=0.3, size=(rows, n_classes)))
        change = CHANGES[rng.integers(len(CHANGES))]
        x = background + strength * matters[:, None] * change(rng, labels, shape, n_classes)
        wrong = rng.random(rows) < rng.choice([0.0, 0.0, 0.05, 0.15, 0.3])
        labels = np.where(wrong, rng.integers(n_classes, size=rows), labels)
    if channels > 1 and rng.random() < 0.3:
        x = np.einsum("cd,rds->rcs", np.eye(channels) + 0.5 * rng.normal(size=(channels,) * 2), x)
    if rng.random() < 0.3:  # Sensors of their own scale, or offset, row by row.
        x = x * np.exp(rng.normal(scale=0.3, size=(rows, 1, 1))) + rng.normal(size=(rows, 1, 1))
    return x.reshape(rows, -1), labels, channels


def _background(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    """A process of deviation about 1 for each row and channel."""
    noise = rng.normal(size=shape)
    kind = rng.integers(4)
    if kind == 0:
        return noise
    if kind == 1:
        return _autoregression(noise, rng.uniform(0.3, 0.99))
    if kind == 2:
        walk = noise.cumsum(-1)
        return np.asarray(walk / walk.std())
    time = np.arange(shape[2])
    period = np.exp(rng.uniform(np.log(3), np.log(max(4, 2 * shape[2]))))
    phase = rng.uniform(0, 2 * np.pi, shape[:2])[..., None] * rng.integers(2)
    waves = np.sqrt(2) * np.sin(2 * np.pi * time / period + phase)
    return np.asarray(waves + rng.uniform(0.05, 1.0) * noise)


def _autoregression(noise: Array, persistence: float) -> Array:
    """Noise in which a share of each step stays for the next, of the noise's own variance."""
    x = noise.copy()
    fresh = np.sqrt(1 - persistence**2)
    for step in range(1, x.shape[-1]):
        x[..., step] = persistence * x[..., step - 1] + fresh * x[..., step]
    return x


def _curves(rng: np.random.Generator, count: int, channels: int, steps: int) -> Array:
    """Smooth random curves of deviation 1, ``(count, channels, steps)``."""
    harmonics = int(rng.integers(1, 6))
    orders = np.arange(1, harmonics + 1)
    time = np.linspace(0, np.pi, steps)
    amplitudes = rng.normal(size=(count, channels, harmonics)) / orders
    phases = rng.uniform(0, 2 * np.pi, (count, channels, harmonics))
    curves = (amplitudes[..., None] * np.sin(orders[:, None] * time + phases[..., None])).sum(2)
    return np.asarray(curves / (curves.std() + 1e-9))


def _shape(
    rng: np.random.Generator, labels: NDArray[np.int64], shape: tuple[int, int, int], classes: int
) -> Array:
    """A curve for each class, which rows follow a little earlier or later."""
    curves = _curves(rng, classes, *shape[1:])[labels]
    return _shifted(rng, curves, int(rng.uniform(0, 0.2) * shape[2]))


def _shifted(rng: np.random.Generator, x: Array, most: int) -> Array:
    """Rows moved in time, each by its own number of steps; what leaves comes back."""
    shift = rng.integers(-most, most + 1, size=len(x))
    position = (np.arange(x.shape[2]) - shift[:, None]) % x.shape[2]
    return np.take_along_axis(x, position[:, None, :], axis=2)


def _motif(
    rng: np.random.Generator, labels: NDArray[np.int64], shape: tuple[int, int, int], classes: int
) -> Array:
    """A short curve for each class, at another moment in each row; the first class has none."""
    _, channels, steps = shape
    length = min(steps, int(rng.integers(min(3, steps), max(4, steps // 3) + 1)))
    placed = np.zeros(shape)
    curves = 2 * _curves(rng, classes, channels, length)
    if rng.random() < 0.5:
        curves[0] = 0.0
    placed[..., :length] = curves[labels]
    return _shifted(rng, placed, steps if rng.random() < 0.7 else 0)


def _speed(
    rng: np.random.Generator, labels: NDArray[np.int64], shape: tuple[int, int, int], classes: int
) -> Array:
    """Waves of another period for each class, of any phase."""
    rows, channels, steps = shape
    periods = np.exp(rng.uniform(np.log(3), np.log(max(4, steps)), (classes, channels)))
    phases = rng.uniform(0, 2 * np.pi, (rows, 1, 1))
    angle = 2 * np.pi * np.arange(steps) / periods[labels][..., None] + phases
    return np.asarray(np.sqrt(2) * np.sin(angle))


def _level(
    rng: np.random.Generator, labels: NDArray[np.int64], shape: tuple[int, int, int], classes: int
) -> Array:
    """A level, or a slope, of each class, from some moment on."""
    rows, channels, steps = shape
    begins = rng.uniform(0, 0.9) * np.ones(rows)
    if rng.random() < 0.5:
        begins = rng.uniform(0, 0.9, rows)
    time = np.linspace(0, 1, steps)
    after = np.clip(time - begins[:, None], 0, None)
    profile = after if rng.random() < 0.5 else (after > 0).astype(np.float64)
    levels = rng.normal(size=(classes, channels))[labels]
    return np.asarray(levels[..., None] * profile[:, None, :] / max(profile.std(), 0.1))


def _roughness(
    rng: np.random.Generator, labels: NDArray[np.int64], shape: tuple[int, int, int], classes: int
) -> Array:
    """Noise of another variance for each class, in a part of the steps."""
    deviations = np.exp(rng.normal(scale=0.7, size=(classes, shape[1])))
    first, last = np.sort(rng.integers(0, shape[2] + 1, size=2))
    where = np.zeros(shape[2])
    where[min(first, shape[2] - 1) : max(last, first + 1)] = 1.0
    return np.asarray(deviations[labels][..., None] * where * rng.normal(size=shape))


def _readings(rng: np.random.Generator, x: Array, n_classes: int) -> Array:
    """Scores of classes, ``(rows, n_classes)``, from what stretches of the sequences come to."""
    rows, channels, steps = x.shape
    scores = np.zeros((rows, n_classes))
    for _ in range(int(rng.integers(1, 4))):
        length = int(np.ceil(np.exp(rng.uniform(0, np.log(steps)))))
        start = int(rng.integers(steps - length + 1))
        stretch = x[:, rng.integers(channels), start : start + length]
        if rng.random() < 0.3:  # What came last counts most in a forecast.
            stretch = x[:, rng.integers(channels), -length:]
        read = (
            stretch.mean(1),
            stretch.max(1),
            stretch[:, -1] - stretch[:, 0],
            np.abs(np.diff(stretch, axis=1, prepend=stretch[:, :1])).mean(1),
        )[rng.integers(4)]
        deviation = read.std()
        if deviation > 1e-9:
            scores += ((read - read.mean()) / deviation)[:, None] * rng.normal(size=n_classes)
    return np.asarray(scores / max(scores.std(), 1e-9))


CHANGES: tuple[
    Callable[[np.random.Generator, NDArray[np.int64], tuple[int, int, int], int], Array], ...
] = (_shape, _shape, _motif, _speed, _level, _roughness)
"""What a class adds to the background, ``(rows, channels, steps)``."""
