"""Data and networks of `reproduce_saliency_decor.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

DATASETS = ("digits", "planted", "breast_cancer", "wine")
TRAIN_ROWS = {"digits": 500, "planted": 500, "breast_cancer": 200, "wine": 100}
TEST_ROWS = 200
SIDE, PATCH, CLASSES = 14, 4, 4
"""Of the planted images: their side, the side of what matters in them, and its kinds."""


class Data(NamedTuple):
    """Rows to train on and to test on, and where in the test rows the truth lies, if known."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    truth: NDArray[np.bool_] | None


def read(name: str, seed: int) -> Data:
    """A split of real data, or new planted images; the seed decides."""
    if name == "planted":
        x, y, _ = planted(TRAIN_ROWS[name], seed)
        x_test, y_test, truth = planted(TEST_ROWS, seed + 10_000)
        return Data(x, y, x_test, y_test, truth)
    source: Any = {"digits": load_digits, "breast_cancer": load_breast_cancer, "wine": load_wine}
    rows, target = source[name](return_X_y=True)
    own, other, y_own, y_other = train_test_split(
        rows, target, train_size=TRAIN_ROWS[name], random_state=seed, stratify=target
    )
    other, y_other = other[:TEST_ROWS], y_other[:TEST_ROWS]
    if name == "digits":
        own, other = (part.reshape(-1, 1, 8, 8) / 16 for part in (own, other))
    else:
        mean, deviation = own.mean(0), own.std(0)
        own, other = ((part - mean) / deviation for part in (own, other))
    x, x_test = (torch.tensor(part, dtype=torch.float32) for part in (own, other))
    return Data(x, torch.tensor(y_own), x_test, torch.tensor(y_other), None)


def planted(rows: int, seed: int) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
    """Images of clutter in which a patch at a random place says the class.

    The patch is one of four 4 x 4 patterns with as much ink each. Clutter is noise, and three
    patches of the same ink in random order, which say nothing.

    Returns:
        images ``(rows, 1, 14, 14)``, classes, and where the patch lies, like the images.
    """
    rng = np.random.default_rng(seed)
    patterns = np.zeros((CLASSES, PATCH, PATCH))
    patterns[0, 1:3, :] = 1  # a bar that lies
    patterns[1, :, 1:3] = 1  # a bar that stands
    patterns[2, [0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 0, 1, 2, 3, 2, 3]] = 1  # two squares
    patterns[3, [0, 0, 1, 1, 2, 2, 3, 3], [2, 3, 2, 3, 0, 1, 0, 1]] = 1  # two others
    x = rng.normal(0.2, 0.15, size=(rows, 1, SIDE, SIDE))
    truth = np.zeros(x.shape, dtype=bool)
    y = np.arange(rows) % CLASSES
    for i in range(rows):
        for _ in range(3):
            top, left = rng.integers(SIDE - PATCH + 1, size=2)
            ink = rng.permutation(patterns[0].ravel()).reshape(PATCH, PATCH)
            x[i, 0, top : top + PATCH, left : left + PATCH] += 0.8 * ink
        top, left = rng.integers(SIDE - PATCH + 1, size=2)
        place = (i, 0, slice(top, top + PATCH), slice(left, left + PATCH))
        # What lay there is covered, so that no class is hidden by clutter.
        x[place] = rng.normal(0.2, 0.15, size=(PATCH, PATCH)) + 0.8 * patterns[y[i]]
        truth[place] = True
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y), truth


def network(name: str, data: Data) -> nn.Sequential:
    """A small network whose activations are the hidden features; weights by torch's seed."""
    classes = int(data.y.max()) + 1
    if name == "digits":
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 16, 3, stride=2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(144, classes)),
        )
    if name == "planted":
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 4), nn.ReLU()),
            *(nn.Conv2d(16, 16, 3), nn.ReLU()),
            *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, classes)),
        )
    return nn.Sequential(
        *(nn.Linear(data.x.shape[1], 32), nn.ReLU()),
        *(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, classes)),
    )
