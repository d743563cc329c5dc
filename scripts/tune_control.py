"""Tune the control: AdamW's learning rate, decay and schedule on the meta-training tasks.

The tasks are drawn from what the default denoiser is meta-trained on: the synthetic prior
and the real tables of a folder's
`meta_train`, half each, 16 to 256 rows. For each model and number of
steps, 60 random configurations run on 48 tasks; the best eight run on 192 others, and the
lowest geometric mean of held-out log loss wins.

    python scripts/tune_control.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from _development_tables import classification_tables

from denograd.baselines import schedule_factor
from denograd.denoisers import IdentityDenoiser
from denograd.meta.episode import Episode, assemble_episode, log_uniform
from denograd.meta.family import MixedFamily, PriorFamily, TableFamily
from denograd.meta.task import TaskBatch
from denograd.meta.validation import run_episode
from denograd.models import FeatureAttention, SoftTree

MODELS = {"soft_tree": SoftTree, "attention": FeatureAttention}
STEPS = (50, 100, 200, 300)
SIZES = (16, 32, 64, 128, 256)


def episodes(model: str, steps: int, count: int, data: Path, seed: int) -> list[Episode]:
    """`count` stacked tasks for each size."""
    sources = classification_tables(data, "meta_train")
    family = MixedFamily([(PriorFamily(), 0.5), (TableFamily(sources), 0.5)])
    drawn = []
    for rows in SIZES:
        rng = np.random.default_rng([seed, rows])
        tasks = TaskBatch.stack([family.draw(rng, rows, 256, 36) for _ in range(count)])
        template = MODELS[model](tasks.x_train.shape[-1], int(tasks.classes.max()))
        drawn.append(
            assemble_episode(
                rng,
                tasks,
                template,
                steps=steps,
                batch_size=min(32, rows),
                micro=1,
                base="adam",
                learning_rate=torch.ones(count, 1),
                weight_decay=0.0,
            )
        )
    return drawn


def score(drawn: list[Episode], lr: float, decay: float, schedule: str, steps: int) -> float:
    """Mean logarithm of the held-out loss, so that its differences are ratios."""

    def factor(step: int) -> float:
        return schedule_factor(schedule, step, steps)

    logs = []
    for episode in drawn:
        rates = torch.full_like(episode.learning_rate, lr)
        tuned = replace(episode, learning_rate=rates, weight_decay=decay)
        losses = run_episode(tuned, IdentityDenoiser(), factor)
        logs.append(torch.log(losses + 0.02).mean())
    return float(torch.stack(logs).mean())


def tune(model: str, steps: int, data: Path) -> dict[str, object]:
    """The best of 60 configurations for a model and a number of steps."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([0, steps])
    candidates = [
        (
            log_uniform(rng, (1e-3, 2e-1)),
            0.0 if rng.random() < 0.15 else log_uniform(rng, (1e-3, 3.0)),
            str(rng.choice(["constant", "cosine", "linear"])),
        )
        for _ in range(60)
    ]
    first = episodes(model, steps, 10, data, seed=101)
    best = sorted(candidates, key=lambda c: score(first, *c, steps))[:8]
    second = episodes(model, steps, 38, data, seed=202)
    scores = {c: score(second, *c, steps) for c in best}
    lr, decay, schedule = min(best, key=scores.__getitem__)
    return {
        "model": model,
        "steps": steps,
        "lr": round(lr, 6),
        "weight_decay": round(decay, 6),
        "schedule": schedule,
        "mean_log_loss": round(min(scores.values()), 4),
    }


def main() -> None:
    """Tune every model and number of steps, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("baselines/control.json"))
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    cells = [(m, s, arguments.data) for s in STEPS for m in MODELS]
    settings = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for found in pool.map(_tune, cells):
            settings.append(found)
            print(found, file=sys.stderr, flush=True)
    command = f"python scripts/tune_control.py --data {arguments.data}"
    content = {"schema": 1, "made_by": command, "settings": settings}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def _tune(cell: tuple[str, int, Path]) -> dict[str, object]:
    return tune(*cell)


if __name__ == "__main__":
    main()
