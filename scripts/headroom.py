"""How much better than the control AdamW could be, if it were tuned for each table.

On the tables of `meta_validation`: random configurations from the control's own space run on
every table, twice, on other rows, weights and batches. A figure is a geometric mean over tables
of log loss, as a ratio to the control's:

- one setting: the configuration that is best on average over the tables, chosen on the first draw
  and judged on the second;
- by table: the configuration that is best on a table's first draw, judged on its second;
- by hindsight: the best of each table, chosen and judged on the second draw. No way of choosing
  among these configurations can be better, and none will get there;
- denograd: the default denoiser, on the second draw.

    python scripts/headroom.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _development_tables import classification_tables
from tune_control import draw_settings

from denograd.base import base_settings
from denograd.denoisers import resolve_denoiser
from denograd.meta.engines import run_episode
from denograd.meta.validation import MetaValidation, adamw_losses, bounded


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with catalog.csv")
    parser.add_argument("--denoiser", default="default")
    parser.add_argument(
        "--models", nargs="+", default=["soft_tree", "attention", "additive_net", "rule_net"]
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--tried", type=int, default=60, help="configurations")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng([0, 200])
    tried = [draw_settings(rng) for _ in range(arguments.tried)]
    tables = classification_tables(arguments.data, "meta_validation")
    denoiser = resolve_denoiser(arguments.denoiser)
    columns = ["one setting", "by table", "by hindsight", "denograd"]
    print(f"| model | rows | {' | '.join(columns)} |\n{'|---' * (len(columns) + 2)}|")
    all_ratios: list[list[float]] = []
    for model in arguments.models:
        rate = base_settings(arguments.denoiser, model)["lr"]
        for rows in arguments.rows:
            # Two seeds stand one after the other: the first chooses, the second judges.
            cells = MetaValidation(tables, [model], rows=[rows], seeds=2)
            (_, _, first), (_, _, second) = cells.cells
            if first.tasks.names != second.tasks.names:
                raise SystemExit(f"{model}, {rows} rows: the two draws are not of the same tables")
            control = cells.control_losses()[1]
            chosen = torch.stack([bounded(adamw_losses(first, *s)) for s in tried]).double().log()
            judged = torch.stack([bounded(adamw_losses(second, *s)) for s in tried]).double().log()
            rates = torch.full_like(second.learning_rate, rate)
            ours = bounded(run_episode(replace(second, learning_rate=rates), denoiser)).double()
            found = (
                judged[chosen.mean(1).argmin()],
                judged.gather(0, chosen.argmin(0, keepdim=True))[0],
                judged.min(0).values,
                ours.log(),
            )
            ratios = [float((logs - control.log()).mean()) for logs in found]
            all_ratios.append(ratios)
            shown = " | ".join(f"{np.exp(ratio):.3f}" for ratio in ratios)
            print(f"| {model} | {rows} | {shown} |", flush=True)
    shown = " | ".join(f"{ratio:.3f}" for ratio in np.exp(np.mean(all_ratios, axis=0)))
    print(f"| all | | {shown} |")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
