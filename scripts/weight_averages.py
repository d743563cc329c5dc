"""What averaging the weights over a run adds, to the default denoiser and to the control.

On the tables of `meta_validation`: log loss of the last weights, of an exponential average of
all (0.95), and of the plain mean over the second half of the run (Polyak and Juditsky 1992),
each as a ratio to the last weights of the control; geometric means over tables, one seed.

    python scripts/weight_averages.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from _development_tables import classification_tables
from torch import Tensor

from denograd.baselines import CONTROL
from denograd.baselines.stacked import stacked_run
from denograd.meta.episode import Episode
from denograd.meta.validation import MetaValidation


@torch.no_grad()
def losses(optimizer: str, model_name: str, episode: Episode) -> dict[str, Tensor]:
    """Held-out loss of each task, ``(T,)``, with the last and with averaged weights."""
    run = stacked_run(optimizer, episode, model_name=model_name)
    last = exponential = episode.initial
    half, counted = torch.zeros_like(last), 0
    for step in range(episode.steps):
        run.step()
        with run.judged() as last:
            exponential = exponential.lerp(last, 0.05)
            if step >= episode.steps // 2:
                counted += 1
                half = half + (last - half) / counted
    tasks, found = episode.tasks, {"last": last, "exponential": exponential, "second half": half}
    return {
        name: episode.model.loss(
            weights, tasks.x_test, tasks.y_test, tasks.feature_mask, tasks.class_mask
        )
        for name, weights in found.items()
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with catalog.csv")
    parser.add_argument("--denoiser", type=Path, help="default: the shipped one")
    parser.add_argument("--models", nargs="+", default=["soft_tree", "attention"])
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64, 256])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    denoiser = f"denograd:{arguments.denoiser}" if arguments.denoiser else "denograd"
    tables = classification_tables(arguments.data, "meta_validation")
    cells = MetaValidation(tables, arguments.models, rows=arguments.rows, seeds=1)
    logs: dict[tuple[str, int], dict[str, list[float]]] = {}
    for name, rows, episode in cells.cells:
        theirs = losses(CONTROL, name, episode)
        ours = losses(denoiser, name, episode)
        cell = logs.setdefault((name, rows), {})
        for owner, found in (("control", theirs), ("denograd", ours)):
            for weights, values in found.items():
                ratios = (values / theirs["last"]).log().tolist()
                cell.setdefault(f"{owner}, {weights}", []).extend(ratios)
    columns = list(next(iter(logs.values())))[1:]
    print(f"| model | rows | {' | '.join(columns)} |\n{'|---' * (len(columns) + 2)}|")
    for (name, rows), cell in logs.items():
        shown = (f"{torch.tensor(cell[column]).mean().exp():.3f}" for column in columns)
        print(f"| {name} | {rows} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
