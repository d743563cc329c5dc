"""What averaging the weights over a run adds, to the default denoiser and to the control.

On the tables of `meta_validation`: log loss of the last weights, of an exponential average of
all (0.95), and of the plain mean over the second half of the run (Polyak and Juditsky 1992),
each as a ratio to the last weights of the control; geometric means over tables, one seed.

    python scripts/weight_averages.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import functools
import os
from dataclasses import replace
from pathlib import Path

import torch
from _development_tables import classification_tables
from torch import Tensor

from denograd.baselines import control_settings, schedule_factor
from denograd.denoisers import Denoiser, IdentityDenoiser, read_card, resolve_denoiser
from denograd.meta.engines import BatchedEngine
from denograd.meta.engines._base import Schedule
from denograd.meta.episode import Episode
from denograd.meta.validation import MetaValidation

STEPS = 200


@torch.no_grad()
def losses(
    episode: Episode, denoiser: Denoiser, schedule: Schedule | None = None
) -> dict[str, Tensor]:
    """Held-out loss of each task, ``(T,)``, with the last and with averaged weights."""
    engine = BatchedEngine()
    state = engine.start(episode, denoiser)
    exponential, half, counted = state.parameters, torch.zeros_like(state.parameters), 0
    for step in range(episode.steps):
        state = engine.advance(episode, denoiser, state, graph=False, schedule=schedule)
        exponential = exponential.lerp(state.parameters, 0.05)
        if step >= episode.steps // 2:
            counted += 1
            half = half + (state.parameters - half) / counted
    found = {"last": state.parameters, "exponential": exponential, "second half": half}
    return {
        name: engine.held_out_losses(episode, replace(state, parameters=weights))
        for name, weights in found.items()
    }


def control(name: str, rows: int, episode: Episode) -> dict[str, Tensor]:
    """The same of the control."""
    tuned = control_settings(name, STEPS, rows)
    return losses(
        replace(
            episode,
            learning_rate=torch.full_like(episode.learning_rate, tuned.lr),
            weight_decay=tuned.weight_decay,
            micro=1,
        ),
        IdentityDenoiser(),
        functools.partial(schedule_factor, tuned.schedule, total_steps=STEPS),
    )


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
    spec = arguments.denoiser or "default"
    denoiser, rate = resolve_denoiser(spec), float(read_card(spec)["training"]["base"]["lr"])
    tables = classification_tables(arguments.data, "meta_validation")
    cells = MetaValidation(tables, arguments.models, rows=arguments.rows, steps=STEPS, seeds=1)
    logs: dict[tuple[str, int], dict[str, list[float]]] = {}
    for name, rows, episode in cells.cells:
        theirs = control(name, rows, episode)
        ours = losses(
            replace(episode, learning_rate=torch.full_like(episode.learning_rate, rate)), denoiser
        )
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
