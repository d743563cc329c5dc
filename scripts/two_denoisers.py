"""Tell two denoisers apart on meta-validation, on the same rows, weights and batches.

One seed cannot tell one per cent from nothing (docs/experiments.md, sections 18 to 20), so this
runs four. Both run around the base's rate that the card of the second one gives the architecture,
so the second is the one that ships, and the first what may replace it; `--rate` has the first one
run around another.

    python scripts/two_denoisers.py runs/new/denoiser.safetensors default --data ../shared/data
    python scripts/two_denoisers.py runs/new/denoiser.safetensors default --data ../shared/data \\
        --models attention --rate 0.003

A figure is the ratio of held-out log loss, a geometric mean over tables and sizes, with an interval
of 95 % (a bootstrap over tables). Killed and started again, it judges nothing twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from _denoiser_arguments import trained_denoiser
from _page import changes_by_table, markdown, mean_ratio
from ship_denoiser import add_targets, folder_of, judge, judges, tables_to_judge_by

from denograd.base import settings_by_model
from denograd.meta.validation import Judged, score_of
from denograd.models.registry import KNOWN_MODELS

USUAL = ("soft_tree", "attention", "additive_net", "rule_net")

HEAD = ("model", "first", "second", "first / second", "lower in", "worst", "by rows")


def line_of(model: str, first: Mapping[Judged, float], second: Mapping[Judged, float]) -> list[str]:
    """A row of the table, from the log ratios to the control of one architecture's cells."""
    score = score_of({cell: log - second[cell] for cell, log in first.items()})
    return [
        model,
        *(f"{score_of(logs).ratio:.3f}" for logs in (first, second)),
        mean_ratio(changes_by_table(first, second)),
        f"{score.wins:.0%}",
        f"{score.worst:.2f}",
        ", ".join(f"{rows}: {ratio:.3f}" for rows, ratio in sorted(score.by_rows.items())),
    ]


def main() -> None:
    """Judge what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", help="a file, or a shipped name")
    parser.add_argument("second", help="what it is compared with")
    parser.add_argument("--data", type=Path, required=True, help="folder with catalog.csv")
    parser.add_argument(
        "--models",
        nargs="+",
        choices=KNOWN_MODELS,
        help="default: soft_tree attention additive_net rule_net; of sequences temporal_attention",
    )
    parser.add_argument("--rate", type=float, help="of the first one's base; default: the second's")
    parser.add_argument("--seeds", type=int, default=4)
    add_targets(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ship"), help="folder of what has been judged"
    )
    arguments = parser.parse_args()
    tables = tables_to_judge_by(arguments)
    models = arguments.models or (judges(arguments) if arguments.sequences else USUAL)
    bases = settings_by_model(arguments.second, models)
    lines = []
    for model in models:
        rate, found = float(bases[model]["lr"]), []
        for name, own in ((arguments.first, arguments.rate or rate), (arguments.second, rate)):
            denoiser = trained_denoiser(name, f"two_denoisers.py: {name} was not meta-trained")
            folder = folder_of(arguments, name)
            found += judge(denoiser, tables, model, arguments.seeds, [own], folder).values()
        lines.append(line_of(model, *found))
    print("\n" + markdown(HEAD, lines))


if __name__ == "__main__":
    main()
