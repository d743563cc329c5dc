"""Tune the control: AdamW's learning rate, decay and schedule on the meta-training tasks.

The tasks are drawn from what the default denoiser is meta-trained on: the synthetic prior
and the real tables of a folder's `meta_train`, half each. For each model, number of steps
and number of rows, 60 random configurations run on 16 tasks; the best eight run on 64
others, and the lowest mean meta-loss wins: the control and the denoiser are tuned for the same
thing on the same tasks. Written after every model
and number of steps; what the output holds already is not tuned again. With `--measured` the tasks
are cut from the regression tables of `meta_train`, and the meta-loss is the logarithm of the mean
squared error of the standardised target. With `--sequences` they are sequences, of their own
prior and of the series and images of `meta_train`.

    python scripts/tune_control.py --data ../shared/data
    python scripts/tune_control.py --data ../shared/data --measured --steps 200
    python scripts/tune_control.py --data ../shared/data --sequences --steps 200 \
        --models temporal_attention
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from _development_tables import classification_tables, sequence_tables
from _measured_tasks import MeasuredFamily

from denograd.baselines.control import TUNED_BATCH, control_file
from denograd.meta.episode import Episode, assemble_episode, log_uniform
from denograd.meta.estimators import FLOOR_MEASURED, MetaLoss
from denograd.meta.family import (
    MixedFamily,
    PriorFamily,
    SequencePriorFamily,
    TableFamily,
    TaskFamily,
)
from denograd.meta.task import TaskBatch
from denograd.meta.validation import adamw_losses
from denograd.models.registry import KNOWN_MODELS, MODEL_NAMES, make_model

STEPS = (200, 100, 50, 300)
SIZES = (16, 32, 64, 128, 256)


WIDTHS, WIDTHS_OF_SEQUENCES = (11, 22, 34, 56), (24, 48, 96, 160)
"""The most features that a task may have, drawn task by task."""


def draw(
    model: str,
    steps: int,
    rows: int,
    count: int,
    family: TaskFamily | MeasuredFamily,
    seed: int,
    widths: Sequence[int] = WIDTHS,
) -> Episode:
    """Stacked tasks of one size."""
    rng = np.random.default_rng([seed, rows])
    drawn = rng.choice(widths, size=count)
    tasks = TaskBatch.stack([family.draw(rng, rows, 256, int(width)) for width in drawn])
    width, channels = tasks.x_train.shape[-1], tasks.n_channels
    template = make_model(model, width, tasks.n_classes, channels)
    return assemble_episode(
        rng,
        tasks,
        template,
        steps=steps,
        batch_size=min(TUNED_BATCH, rows),
        micro=1,
        base="adam",
        learning_rate=torch.ones(count, 1),
        weight_decay=0.0,
    )


def draw_settings(rng: np.random.Generator) -> tuple[float, float, str]:
    """A random learning rate, decay and schedule."""
    return (
        log_uniform(rng, (1e-3, 2e-1)),
        0.0 if rng.random() < 0.15 else log_uniform(rng, (1e-3, 3.0)),
        str(rng.choice(["constant", "cosine", "linear"])),
    )


def score(episode: Episode, lr: float, decay: float, schedule: str) -> float:
    """The meta-loss that denoisers are trained to lower, at the end of training."""
    losses = adamw_losses(episode, lr, decay, schedule).nan_to_num(nan=math.inf)
    measured = episode.tasks.n_classes is None
    meta_loss = MetaLoss(floor=FLOOR_MEASURED) if measured else MetaLoss()
    return float(meta_loss(losses, episode.tasks.classes).mean())


def tune(
    model: str,
    steps: int,
    family: TaskFamily | MeasuredFamily,
    widths: Sequence[int] = WIDTHS,
) -> list[dict[str, object]]:
    """The best of 60 configurations for a model and a number of steps, for each size."""
    rng = np.random.default_rng([0, steps])
    candidates = [draw_settings(rng) for _ in range(60)]
    found: list[dict[str, object]] = []
    for rows in SIZES:
        first = draw(model, steps, rows, 16, family, 101, widths)
        best = sorted(candidates, key=lambda c, e=first: score(e, *c))[:8]
        second = draw(model, steps, rows, 64, family, 202, widths)
        scores = {c: score(second, *c) for c in best}
        lr, decay, schedule = min(best, key=scores.__getitem__)
        found.append(
            {
                "model": model,
                "steps": steps,
                "rows": rows,
                "lr": round(lr, 6),
                "weight_decay": round(decay, 6),
                "schedule": schedule,
                "meta_loss": round(min(scores.values()), 4),
            }
        )
    return found


def main() -> None:
    """Tune every model, number of steps and size, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with catalog.csv")
    parser.add_argument("--out", type=Path, help="default: the package's own file")
    targets = parser.add_mutually_exclusive_group()
    targets.add_argument("--measured", action="store_true", help="tune for measured targets")
    targets.add_argument("--sequences", action="store_true", help="tune on sequences")
    parser.add_argument("--models", nargs="+", default=list(MODEL_NAMES), choices=KNOWN_MODELS)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    arguments = parser.parse_args()
    out = arguments.out or Path("baselines") / control_file(arguments.measured).name
    settings = json.loads(out.read_text())["settings"] if out.exists() else []
    done = {(entry["model"], entry["steps"]) for entry in settings}
    command = shlex.join(["python", "scripts/tune_control.py", *sys.argv[1:]])
    torch.set_num_threads(1)
    family: TaskFamily | MeasuredFamily
    widths = WIDTHS_OF_SEQUENCES if arguments.sequences else WIDTHS
    if arguments.sequences:
        tables = TableFamily(sequence_tables(arguments.data, "meta_train"))
        family = MixedFamily([(SequencePriorFamily(), 0.5), (tables, 0.5)])
    elif arguments.measured:
        family = MeasuredFamily(arguments.data, "meta_train")
    else:
        sources = classification_tables(arguments.data, "meta_train")
        family = MixedFamily([(PriorFamily(), 0.5), (TableFamily(sources), 0.5)])
    for steps in arguments.steps:
        for model in arguments.models:
            if (model, steps) in done:
                continue
            settings += tune(model, steps, family, widths)
            content = {"schema": 1, "made_by": command, "settings": settings}
            out.write_text(json.dumps(content, indent=1) + "\n")
            print(f"{model}, {steps} steps: tuned", flush=True)


if __name__ == "__main__":
    main()
