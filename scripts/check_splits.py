"""Look for near copies of a table in two splits, and write down what was compared.

Every table of `scripts/data_sets.csv` is compared with every one of the other splits
(`_leaks.py` says how). What comes out is kept in `scripts/splits_checked.json` with the hash of
each table, so that a test can tell, without the tables, whether the list is still the one that
was checked.

    python scripts/fetch_data.py --out data
    python scripts/check_splits.py --data data
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from itertools import combinations
from pathlib import Path

import pandas as pd
from _fetch_list import read_list
from _leaks import THRESHOLD, fingerprint, likenesses
from fetch_data import is_done
from rich.progress import track

RECORD = Path(__file__).parent / "splits_checked.json"
SHOWN = 10
"""Pairs that are written down, the likest first."""


def main() -> None:
    """Compare all tables, write the record, and fail if there is a near copy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of fetch_data.py")
    parser.add_argument("--out", type=Path, default=RECORD)
    arguments = parser.parse_args()
    data_sets = read_list()
    missing = [d.file for d in data_sets if not is_done(arguments.data / d.file, d)]
    if missing:
        raise SystemExit(
            f"check_splits.py: {arguments.data} lacks {len(missing)} tables of the list, or holds "
            f"others in their place, {missing[0]} first; get them with: "
            f"python scripts/fetch_data.py --out {arguments.data}"
        )
    splits = {d.name: d.split for d in data_sets}
    prints = {
        d.name: fingerprint(pd.read_parquet(arguments.data / d.file))
        for d in track(data_sets, "reading tables")
    }
    total = sum(splits[a] != splits[b] for a, b in combinations(prints, 2))
    found = sorted(
        ((value, a, b) for a, b, value in track(likenesses(prints, splits), "comparing", total)),
        reverse=True,
    )
    record = {
        "made_by": shlex.join(["python", "scripts/check_splits.py", *sys.argv[1:]]),
        "tables": {d.file: d.sha256 for d in data_sets},
        "pairs": len(found),
        "threshold": THRESHOLD,
        "likest": [[round(value, 4), a, b] for value, a, b in found[:SHOWN]],
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{len(found):,} pairs; the likest: {found[0]}. Written: {arguments.out}")
    if found[0][0] >= THRESHOLD:
        raise SystemExit("check_splits.py: a near copy stands in two splits")


if __name__ == "__main__":
    main()
