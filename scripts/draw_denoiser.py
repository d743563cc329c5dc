"""Look into a denoiser, for docs/inside.md: pictures, and numbers between the page's markers.

Trains the reference models of `denograd inspect` (seconds each; tables that scikit-learn ships)
with few rows and more, for short and for longer, draws what the denoiser did, and writes the
page's tables and sentences anew. What the page says outside its markers does not depend on the
weights.

    python scripts/draw_denoiser.py --denoiser default --out docs/images --page docs/inside.md
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from _page import around_figures
from rich.console import Console

from denograd._inspection_report import draw, findings
from denograd._inspection_words import in_short, sentence, table_lines
from denograd.denoisers import read_card
from denograd.inspection import (
    MODELS,
    TABLES,
    Reference,
    by_model,
    readable,
    reference_runs,
    sensitivity,
)
from denograd.plot._words import in_words, theme_of

NOTES = Console(stderr=True)
SIZES = ((32, 60), (64, 120), (96, 240))
"""Rows and steps of the reference trainings, a seed for each pair."""

POINTS = 30
"""Records of each training."""

COMMAND = "python scripts/draw_denoiser.py --denoiser {} --out docs/images --page docs/inside.md"


def card_line(denoiser: str) -> str:
    """Which weights were looked at."""
    card = read_card(denoiser)
    return f"weights `{card['sha256'][:12]}`, made with denograd {card['denograd_version']}"


def main() -> None:
    """Train, draw and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--denoiser", default="default")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--page", type=Path, default=Path("docs/inside.md"))
    arguments = parser.parse_args()
    before, after = around_figures(arguments.page)
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    runs: list[Reference] = []
    for seed, (rows, steps) in enumerate(SIZES):
        runs += reference_runs(
            arguments.denoiser,
            rows=rows,
            steps=steps,
            # The same points of each run, so that they can be taken together.
            every=steps // POINTS,
            seed=seed,
            progress=lambda name: NOTES.print(f"trained: {name}"),
        )
    recordings = by_model(runs)
    answers = sensitivity(readable(arguments.denoiser), [run.recording for run in runs])
    subject = (
        f"`{arguments.denoiser}`, {card_line(arguments.denoiser)}. {len(runs)} reference "
        f"trainings: {' and '.join(f'`{m}`' for m in MODELS)} on "
        f"{', '.join(TABLES)}, with "
        f"{', '.join(f'{rows} rows and {steps} steps' for rows, steps in SIZES)}. Made by "
        f"`{COMMAND.format(arguments.denoiser)}`."
    )
    found = findings(subject, answers, recordings)
    for path in draw(arguments.out, answers, recordings, prefix="inside-"):
        NOTES.print(f"wrote {path}")
    lines = [
        subject,
        "",
        *(f"- {line}" for line in in_short(found)),
        "",
        *table_lines(found),
        "",
        "Coefficient by coefficient:",
        "",
        *(f"- `{c['name']}`, {sentence(c)}" for c in found.coefficients),
        "",
        "| feature | in words | is about |",
        "|---|---|---|",
        *(f"| `{name}` | {in_words(name)} | {theme_of(name)} |" for name in answers.features),
    ]
    arguments.page.write_text(f"{before}\n" + "\n".join(lines) + f"\n{after}", encoding="utf-8")
    NOTES.print(f"wrote {arguments.page}")


if __name__ == "__main__":
    main()
