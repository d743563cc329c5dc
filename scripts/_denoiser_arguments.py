"""What scripts that take a trained denoiser apart are asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from denograd.denoisers import WienerDenoiser, resolve_denoiser


def parser_of(
    description: str | None, models: Sequence[str], rows: Sequence[int]
) -> argparse.ArgumentParser:
    """The options that they share, with these defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with catalog.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--denoiser", default="default", help="a shipped name, or a file")
    parser.add_argument("--models", nargs="+", default=list(models))
    parser.add_argument("--rows", type=int, nargs="+", default=list(rows))
    return parser


def trained_denoiser(name: str, lacking: str) -> WienerDenoiser:
    """The denoiser of a name or file.

    Raises:
        SystemExit: it is of another kind, which has none of what is ``lacking``.
    """
    trained = resolve_denoiser(name)
    if not isinstance(trained, WienerDenoiser):
        raise SystemExit(lacking)
    return trained
