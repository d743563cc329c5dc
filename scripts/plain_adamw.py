"""How AdamW with settings of your choice does on meta-validation, as a ratio to the tuned control.

The control is tuned for the mean over tasks of all kinds; this says where plain settings, the same
for every table and size, are better or worse than that. Same rows, weights and batches for both.

    python scripts/plain_adamw.py --data ../shared/data --sequences --rates 0.01 0.03 --decay 0.1
    python scripts/plain_adamw.py --data ../shared/data --models soft_tree --rates 0.01
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import torch
from _page import markdown
from ship_denoiser import add_targets, judges, tables_to_judge_by

from denograd.baselines import SCHEDULES
from denograd.meta.validation import MetaValidation, adamw_losses, score_of
from denograd.models.registry import KNOWN_MODELS


def main() -> None:
    """Run each of the rates, and print a row for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with catalog.csv")
    add_targets(parser)
    parser.add_argument(
        "--models", nargs="+", choices=KNOWN_MODELS, help="default: all that a control is tuned for"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.03])
    parser.add_argument("--decay", type=float, default=0.1, help="AdamW's weight decay")
    parser.add_argument("--schedule", choices=SCHEDULES, default="cosine")
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    validation = MetaValidation(
        tables_to_judge_by(arguments),
        arguments.models or judges(arguments),
        seeds=arguments.seeds,
        noise=False,
    )
    lines = []
    for rate in arguments.rates:
        losses = functools.partial(
            adamw_losses, lr=rate, weight_decay=arguments.decay, schedule=arguments.schedule
        )
        score = score_of(validation.log_ratios_of(lambda _name, _rows, e, run=losses: run(e)))
        by_rows = ", ".join(f"{rows}: {ratio:.3f}" for rows, ratio in sorted(score.by_rows.items()))
        by_table = ", ".join(f"{t.split('__')[-1]} {x:.2f}" for t, x in score.by_table.items())
        best = (f"{score.ratio:.3f}", f"{score.wins:.0%}", f"{score.worst:.2f}")
        lines.append([f"{rate:g}", *best, by_rows, by_table])
        print(lines[-1], flush=True)
    print("\n" + markdown(("rate", "ratio", "won", "worst", "by rows", "by table"), lines))


if __name__ == "__main__":
    main()
