"""Small grey patches of photographs, labelled by the photograph."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

SIDE = 16
"""Of a patch, in pixels."""


def patches(photographs: Mapping[str, bytes], count: int) -> pd.DataFrame:
    """Some patches of each photograph, at random places of a grid.

    Args:
        photographs: PNG or JPEG files by their label. Their order matters: one stream of
            random numbers chooses the patches of all.
        count: of patches of each.

    Returns:
        Columns `p0`, `p1`, ..., row after row of a patch, from 0 to 1, and `target`.

    Raises:
        ValueError: a photograph has fewer patches.
    """
    # The generator that the first draw of these data used; its stream never changes.
    rng = np.random.RandomState(0)
    frames = []
    for label, data in photographs.items():
        tiles = _tiles(data)
        if len(tiles) < count:
            raise ValueError(f"{label}: {count} patches are asked for, it has {len(tiles)}")
        chosen = tiles[rng.permutation(len(tiles))[:count]]
        frame = pd.DataFrame(chosen, columns=[f"p{i}" for i in range(SIDE * SIDE)])
        frames.append(frame.assign(target=label))
    return pd.concat(frames, ignore_index=True)


def _tiles(data: bytes) -> NDArray[np.float64]:
    """All patches of a photograph, ``(N, SIDE * SIDE)``."""
    grey = np.asarray(Image.open(io.BytesIO(data)).convert("L")) / 255.0
    high, wide = grey.shape[0] // SIDE, grey.shape[1] // SIDE
    grid = grey[: high * SIDE, : wide * SIDE].reshape(high, SIDE, wide, SIDE)
    return grid.transpose(0, 2, 1, 3).reshape(-1, SIDE * SIDE)
