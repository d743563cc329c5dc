"""Synthetic tasks: random structural models of a table and of its labels or measured target.

A draw decides the shape of the columns (Gaussian, skewed, heavy-tailed, binary, ordinal),
how they depend on one another (a random factor model), which of them matter, what the
teacher is (linear, additive, tree, rules, smooth), how strong its signal is, how often
labels are wrong, and how unbalanced the classes are. Labels are noisy in held-out rows
too, so over-confidence costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def draw_prior_table(
    rng: np.random.Generator, rows: int, n_features: int, n_classes: int | None
) -> tuple[Array, NDArray[Any]]:
    """Draw a table and its labels, or its measured target.

    Args:
        rng: source of randomness.
        rows: number of rows.
        n_features: number of columns.
        n_classes: number of classes, at least 2; None for a measured target.

    Returns:
        columns ``(rows, n_features)`` and labels ``(rows,)`` in ``0..n_classes-1``, or numbers.

    Example:
        >>> x, y = draw_prior_table(np.random.default_rng(0), 50, 6, 3)
        >>> x.shape, y.shape, int(y.max()) < 3
        ((50, 6), (50,), True)
    """
    latent = _draw_latent(rng, rows, n_features)
    columns = np.stack([_draw_column(rng, latent[:, j]) for j in range(n_features)], axis=1)
    relevant = max(1, round(n_features * rng.uniform(0.15, 1.0)))
    used = rng.permutation(n_features)[:relevant]
    inputs = _standardised(columns[:, used] if rng.random() < 0.8 else latent[:, used])
    outputs = 1 if n_classes is None else n_classes
    teacher = TEACHERS[rng.integers(len(TEACHERS))]
    scores = _standardised(teacher(rng, inputs, outputs))
    if rng.random() < 0.3:
        other = TEACHERS[rng.integers(len(TEACHERS))]
        scores = _standardised(scores + _standardised(other(rng, inputs, outputs)))
    strength = np.exp(rng.uniform(np.log(0.15), np.log(6.0)))
    if n_classes is None:
        return columns, _measure(rng, strength * scores[:, 0])
    return columns, label_rows(rng, strength * scores)


def label_rows(rng: np.random.Generator, scores: Array) -> NDArray[np.int64]:
    """Labels drawn by the scores of each row ``(rows, C)``, some of them wrong."""
    rows, n_classes = scores.shape
    logits = scores + rng.normal(0, rng.choice([0.1, 0.7, 1.5]), n_classes)
    gumbel = rng.gumbel(size=logits.shape)
    labels = np.argmax(logits + gumbel, axis=1)
    flipped = rng.random(rows) < rng.choice([0.0, 0.0, 0.05, 0.15])
    labels[flipped] = rng.integers(n_classes, size=int(flipped.sum()))
    return np.asarray(labels, dtype=np.int64)


def _measure(rng: np.random.Generator, scores: Array) -> Array:
    """Measured numbers: scores and noise of deviation 1, with the shapes that targets have.

    Noise is normal, heavy-tailed (Student's t of 3 degrees) or the larger, the larger the score;
    the whole may be skewed, as prices and durations are, or rounded to a few levels, as scales are.
    """
    kind = rng.choice(3, p=[0.5, 0.3, 0.2])
    if kind == 1:
        noise = rng.standard_t(3, size=len(scores)) / np.sqrt(3)
    else:
        noise = rng.normal(size=len(scores))
    if kind == 2:
        noise = noise * np.exp(0.5 * scores / max(scores.std(), 1e-9))
    target = scores + noise
    shape = rng.choice(3, p=[0.6, 0.25, 0.15])
    if shape == 1:
        target = np.exp(rng.uniform(0.2, 0.8) * target / max(target.std(), 1e-9))
    if shape == 2:
        levels = int(rng.integers(3, 12))
        target = np.round(levels * (np.argsort(np.argsort(target)) / len(target)))
    return np.asarray(target, dtype=np.float64)


def _standardised(x: Array) -> Array:
    deviation = x.std(0)
    return np.asarray((x - x.mean(0)) / np.where(deviation > 1e-9, deviation, 1.0))


def _draw_latent(rng: np.random.Generator, rows: int, n_features: int) -> Array:
    """Gaussian columns, correlated through a few shared factors."""
    factors = int(rng.integers(1, max(2, n_features // 2) + 1))
    loadings = rng.normal(size=(factors, n_features)) * (
        rng.random((factors, n_features)) < rng.uniform(0.1, 0.9)
    )
    share = rng.uniform(0, 0.95)
    common = rng.normal(size=(rows, factors)) @ loadings / np.sqrt(factors)
    own = rng.normal(size=(rows, n_features))
    return np.asarray(np.sqrt(share) * common + np.sqrt(1 - share) * own)


def _draw_column(rng: np.random.Generator, z: Array) -> Array:
    """Give a Gaussian column one of the shapes that real columns have."""
    kind = rng.choice(6, p=[0.35, 0.1, 0.08, 0.27, 0.15, 0.05])
    if kind == 0:
        return z
    if kind == 1:
        return np.asarray(np.exp(rng.uniform(0.3, 1.2) * z))
    if kind == 2:
        return np.asarray(np.sign(z) * np.abs(z) ** rng.uniform(1.5, 2.5))
    if kind == 3:
        cut = np.quantile(z, np.clip(rng.beta(0.7, 0.7), 0.01, 0.99))
        return np.asarray(z > cut, dtype=np.float64)
    if kind == 4:
        levels = int(rng.integers(3, 8))
        return np.asarray(np.searchsorted(np.sort(rng.normal(size=levels - 1)), z), np.float64)
    return np.asarray(np.maximum(z, 0.0))


def _linear(rng: np.random.Generator, x: Array, n_classes: int) -> Array:
    weights = rng.normal(size=(x.shape[1], n_classes)) * rng.exponential(size=(x.shape[1], 1))
    return np.asarray(x @ weights)


def _additive(rng: np.random.Generator, x: Array, n_classes: int) -> Array:
    scores = np.zeros((len(x), n_classes))
    for j in range(x.shape[1]):
        shape = rng.integers(4)
        z = x[:, j]
        if shape == 0:
            f = np.sin(rng.uniform(0.5, 2.5) * z + rng.uniform(0, 6.3))
        elif shape == 1:
            f = np.tanh(rng.uniform(1, 4) * (z - rng.normal()))
        elif shape == 2:
            f = (z - rng.normal()) ** 2 / 2
        else:
            f = z
        scores += f[:, None] * rng.normal(size=n_classes) * rng.exponential()
    return scores


def _tree(rng: np.random.Generator, x: Array, n_classes: int) -> Array:
    depth = int(rng.integers(1, 6))
    leaf = np.zeros(len(x), dtype=np.int64)
    for level in range(depth):
        feature = rng.integers(x.shape[1], size=2**level)[leaf]
        cut = rng.normal(scale=0.7, size=2**level)[leaf]
        leaf = 2 * leaf + (x[np.arange(len(x)), feature] > cut)
    return np.asarray(rng.normal(size=(2**depth, n_classes))[leaf])


def _rules(rng: np.random.Generator, x: Array, n_classes: int) -> Array:
    scores = np.zeros((len(x), n_classes))
    for _ in range(int(rng.integers(1, 6))):
        width = int(rng.integers(1, min(4, x.shape[1]) + 1))
        features = rng.permutation(x.shape[1])[:width]
        signs = rng.choice([-1.0, 1.0], size=width)
        cuts = rng.normal(scale=0.6, size=width) - 0.3
        fires = np.all(x[:, features] * signs > cuts, axis=1)
        scores += fires[:, None] * rng.normal(size=n_classes) * 2
    return scores + 1e-3 * rng.normal(size=n_classes)


def _smooth(rng: np.random.Generator, x: Array, n_classes: int) -> Array:
    width = int(rng.integers(4, 33))
    hidden = rng.normal(size=(x.shape[1], width)) * rng.exponential(size=(x.shape[1], 1))
    scale = rng.uniform(0.5, 2.0) / np.sqrt(x.shape[1])
    features = np.tanh(scale * (x @ hidden) + rng.normal(size=width))
    return np.asarray(features @ rng.normal(size=(width, n_classes)))


TEACHERS: tuple[Callable[[np.random.Generator, Array, int], Array], ...] = (
    _linear,
    _additive,
    _tree,
    _rules,
    _smooth,
)
"""What maps columns to class scores ``(rows, n_classes)``."""
