"""Meta-train the denoiser that the package ships as `default`.

Half of the tasks come from the synthetic prior, half from the real classification tables
of `meta_train` (`--kinds` adds others); the weights are chosen on the tables of `meta_validation`.
Neither holds a table that `denograd demo` shows, nor a copy of one. With `--measured` all targets
are numbers, of the prior and of the regression tables, and the loss is the squared error. With
`--sequences` all tasks are sequences, of a prior of their own and of the series and images. Runs
for the given time on one core; killed, it goes on with `--resume`.

    python scripts/meta_train_default.py --data ../shared/data --out runs/default --minutes 150
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

import torch
from _development_tables import (
    COLUMNS,
    KINDS,
    SHOWN_BY_DEMO,
    classification_tables,
    measured_tables,
    sequence_tables,
    tables_of_columns,
)

from denograd.denoisers import WienerDenoiser, load_denoiser
from denograd.meta.checkpoint import Progress
from denograd.meta.config import TrainerConfig
from denograd.meta.episode import EpisodeDistribution
from denograd.meta.estimators import FLOOR_MEASURED, MetaLoss
from denograd.meta.family import (
    WRONG_LABELS,
    MixedFamily,
    PriorFamily,
    SequencePriorFamily,
    TableFamily,
    TaskFamily,
)
from denograd.meta.horizon import Curriculum, Truncation
from denograd.meta.trainer import MetaTrainer
from denograd.meta.validation import MetaValidation, judging_models
from denograd.models.registry import KNOWN_MODELS, MODEL_NAMES


def main() -> None:
    """Run the meta-training that the arguments describe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with catalog.csv")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int, help="meta-steps, instead of minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=24, help="tasks in a meta-step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--window", type=int, nargs=2, default=[60, 120], help="of truncation")
    parser.add_argument(
        "--estimator",
        choices=("truncated", "full"),
        default="truncated",
        help="of the meta-gradient: full goes back through the whole unroll, a window at a time",
    )
    parser.add_argument("--curriculum", type=float, default=0.0, help="share of growing horizons")
    parser.add_argument("--validate-every", type=int, default=250, help="in meta-steps")
    parser.add_argument(
        "--models",
        nargs="+",
        default=list(MODEL_NAMES),
        choices=KNOWN_MODELS,
        help="to train on; one that is named twice is drawn twice as often",
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=["classes"],
        choices=[*KINDS, COLUMNS],
        help="of tables to train on; columns: their columns as targets, a third of all tasks",
    )
    parser.add_argument(
        "--measured", action="store_true", help="targets that are numbers, in place of --kinds"
    )
    parser.add_argument(
        "--sequences",
        action="store_true",
        help="series with their channels, in place of --kinds; for --models temporal_attention",
    )
    parser.add_argument(
        "--floor", type=float, help="of the meta-loss; default: 0.25, with --measured 0.1"
    )
    parser.add_argument("--max-features", type=int, default=56, help="of the widest tasks")
    parser.add_argument("--rows", type=int, nargs=2, default=[16, 256], help="of training tasks")
    parser.add_argument(
        "--rates", type=float, nargs=2, default=[1e-3, 3e-2], help="of training tasks' base"
    )
    parser.add_argument(
        "--wrong-labels",
        type=float,
        nargs=2,
        default=list(WRONG_LABELS),
        metavar=("OFTEN", "MOST"),
        help="share of real tasks that get wrong labels, and the largest share of labels in one",
    )
    parser.add_argument("--judge-rate", type=float, default=3e-3, help="of meta-validation's base")
    parser.add_argument("--from", dest="start", type=Path, help="weights to begin with")
    parser.add_argument(
        "--first-order", action="store_true", help="leave out second derivatives of inner losses"
    )
    parser.add_argument("--loss-clip", type=float, default=4.0, help="of the meta-loss")
    parser.add_argument(
        "--linear-above", type=float, help="of the meta-loss, in blind guesses; default: nowhere"
    )
    parser.add_argument(
        "--explosion", type=float, default=8.0, help="norms of a task that is left out"
    )
    parser.add_argument("--resume", action="store_true")
    parser.add_argument(
        "--ablate",
        choices=["noise", "filter", "gains", "pooling"],
        help="leave a part of the denoiser out",
    )
    arguments = parser.parse_args()
    if set(arguments.kinds) == {COLUMNS}:
        parser.error(f"--kinds {COLUMNS} goes with others, whose own targets are learned, too")
    if arguments.sequences and arguments.measured:
        parser.error("--sequences has classes alone; leave --measured out")
    torch.set_num_threads(1)
    if arguments.sequences:
        train, validate = (
            sequence_tables(arguments.data, split) for split in ("meta_train", "meta_validation")
        )
    elif arguments.measured:
        train, validate = (
            measured_tables(arguments.data, split) for split in ("meta_train", "meta_validation")
        )
    else:
        train = classification_tables(
            arguments.data, "meta_train", [kind for kind in arguments.kinds if kind != COLUMNS]
        )
        judged = [kind for kind in arguments.kinds if kind not in ("numbers", COLUMNS)]
        validate = classification_tables(arguments.data, "meta_validation", judged)
    often, most = arguments.wrong_labels
    tables = TableFamily(train, wrong_labels=(often, most))
    prior: TaskFamily = PriorFamily(measured=arguments.measured)
    prior_name = "synthetic prior"
    if arguments.sequences:
        prior, prior_name = SequencePriorFamily(), "synthetic prior of sequences"
    parts: list[TaskFamily] = [prior, tables]
    names = [table.name for table in train]
    if COLUMNS in arguments.kinds and not (arguments.measured or arguments.sequences):
        more = tables_of_columns(arguments.data, "meta_train")
        parts.append(TableFamily(more, wrong_labels=(often, most)))
        names += sorted({table.name.split(", ")[0] for table in more} - set(names))
    family = MixedFamily([(part, 1 / len(parts)) for part in parts])
    ablation: str | None = arguments.ablate
    distribution = EpisodeDistribution(
        models=tuple(arguments.models),
        tasks=arguments.tasks,
        rows=(arguments.rows[0], arguments.rows[1]),
        max_features=arguments.max_features,
        learning_rate=(arguments.rates[0], arguments.rates[1]),
    )
    config = TrainerConfig(
        seed=arguments.seed,
        minutes=arguments.minutes,
        steps=arguments.steps,
        validate_every=arguments.validate_every,
        learning_rate=arguments.learning_rate,
        estimator=arguments.estimator,
        truncation=Truncation((arguments.window[0], arguments.window[1])),
        curriculum=Curriculum(full_at=arguments.curriculum),
        second_order=not arguments.first_order,
        explosion=arguments.explosion,
        pooled=ablation != "pooling",
        disabled=WienerDenoiser.PARTS.get(ablation or "", ()),
        within_batch=ablation != "noise",
    )
    trainer = MetaTrainer(
        family,
        distribution,
        config,
        arguments.out,
        loss=MetaLoss(
            floor=arguments.floor or (FLOOR_MEASURED if arguments.measured else MetaLoss.floor),
            clip=arguments.loss_clip,
            linear_above=arguments.linear_above,
        ),
        validation=MetaValidation(
            validate,
            arguments.models
            if arguments.sequences
            else judging_models(arguments.models, arguments.measured),
            seeds=1,
            noise=ablation != "noise",
            learning_rate=arguments.judge_rate,
        ),
        card={
            "task": "regression" if arguments.measured else "classification",
            "command": shlex.join(["python", *sys.argv]).replace(" --resume", ""),
            "data_sets": {
                "meta_train": [prior_name, *names],
                "meta_validation": [t.name for t in validate],
                "left_out": sorted(SHOWN_BY_DEMO),
            },
            "base": {"name": "adamw", "lr": 0.003, "weight_decay": 0.0},
        },
        start_from=load_denoiser(arguments.start) if arguments.start else None,
    )
    began = time.monotonic()

    def report(progress: Progress, figures: dict[str, float]) -> None:
        if progress.step % 20 == 0:
            shown = "  ".join(f"{k} {v:.4g}" for k, v in figures.items())
            minutes = (time.monotonic() - began) / 60
            print(f"{minutes:6.1f} min  step {progress.step}  {shown}", flush=True)
            if progress.history:
                last = progress.history[-1]
                print(f"    validation {last['ratio']:.4f}  wins {last['wins']:.3f}", flush=True)

    trainer.run(resume=arguments.resume, listener=report)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
