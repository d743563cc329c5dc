"""Would a denoiser do better if it could see more of a task? Asked before it is meta-trained again.

On the tables of `meta_validation`, every run of the denoiser is made again with one of its
coefficients larger or smaller throughout, and by the control. Runs are sorted by something that
can be known of them, within each model and number of rows, and cut into fifths. A figure is the
ratio of held-out log loss, changed over unchanged, a geometric mean over the fifth in which the
change did best. That fifth is chosen on half of the seeds and judged on the others, with an
interval of 95 % (a bootstrap over tables).

A ratio below 1 says what a denoiser could learn to do, were it told; one of 1 or more says that
it does as well as this could tell it. With the control as the change, it is what a safeguard could
save that falls back on it. Sorted by hindsight, by the held-out loss itself, shows how far such
changes go at most.

    python scripts/what_it_could_know.py --data ../shared/data --out runs/know

Every model and number of rows is on disk before the next begins; started again, it goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _denoiser_arguments import parser_of, trained_denoiser
from _development_tables import classification_tables
from _page import markdown, mean_ratio
from torch import Tensor

from denograd.base import base_settings
from denograd.denoisers import Context, Denoised, State, WienerDenoiser
from denograd.meta.engines import BatchedEngine
from denograd.meta.episode import Episode
from denograd.meta.validation import MetaValidation, bounded

CHANGES = {
    "decay x 0.4": ("decay", 0.4),
    "decay x 2.5": ("decay", 2.5),
    "update_gain x 0.5": ("update_gain", 0.5),
    "update_gain x 2": ("update_gain", 2.0),
}
CONTROL = "the control"
OBSERVABLES = (
    "signal to noise, first steps",
    "signal to noise, second half",
    "training loss over entropy",
    "entropy of the labels",
    "columns",
    "by hindsight",
)
EARLY = 5
FIFTHS = ("I", "II", "III", "IV", "V")


class Changed(WienerDenoiser):
    """A trained denoiser, one of whose coefficients is another multiple of what it chose.

    It keeps the signal and the noise of each step, summed over each layer.
    """

    def __init__(self, trained: WienerDenoiser, coefficient: str = "decay", factor: float = 1.0):
        super().__init__(**trained.config)
        self.load_state_dict(trained.state_dict())
        self.factors = torch.ones(len(self.coefficient_names))
        self.factors[self.coefficient_names.index(coefficient)] = factor
        self.seen: list[tuple[Tensor, Tensor]] = []

    def coefficients(self, features: Tensor) -> Tensor:
        """What the trained one chose, times the factors."""
        return super().coefficients(features) * self.factors

    def forward(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """As the trained one, with other coefficients."""
        self.seen.append((context.layout.sum(gradient.square()), context.layout.sum(noise)))
        return super().forward(gradient, noise, parameter, state, context)

    def signal_to_noise(self, steps: slice) -> Tensor:
        """Logarithm of the gradient's energy over its noise's, a mean over layers, ``(T,)``."""
        energy, noise = (torch.stack(part[steps]).sum(0) for part in zip(*self.seen, strict=True))
        return (energy.clamp_min(1e-12) / noise.clamp_min(1e-12)).log().mean(-1)


def run(episode: Episode, denoiser: WienerDenoiser) -> tuple[Tensor, Tensor]:
    """Held-out losses and losses on the training rows, ``(T,)`` each."""
    engine = BatchedEngine()
    state = engine.start(episode, denoiser)
    with torch.no_grad():
        for _ in range(episode.steps):
            state = engine.advance(episode, denoiser, state, graph=False)
        held_out = engine.held_out_losses(episode, state)
        trained_on = engine.held_out_losses(on_training_rows(episode), state)
    return bounded(held_out), bounded(trained_on)


def on_training_rows(episode: Episode) -> Episode:
    """The same episode, judged on the rows that it trains on."""
    tasks = episode.tasks
    judged = replace(tasks, x_test=tasks.x_train, y_test=tasks.y_train)
    return replace(episode, tasks=judged)


def entropies(episode: Episode) -> list[float]:
    """Of the labels that a task trains on, in nats."""
    found = []
    for y, rows in zip(episode.tasks.y_train, episode.tasks.rows.tolist(), strict=True):
        shares = y[:rows].bincount().double() / rows
        found.append(float(-(shares * shares.clamp_min(1e-12).log()).sum()))
    return found


def measure(trained: WienerDenoiser, cells: MetaValidation, rate: float) -> pd.DataFrame:
    """A line for each run: what could be known of it, and the losses."""
    parts, seen = [], dict[str, int]()
    for (model, rows, episode), control in zip(cells.cells, cells.control_losses(), strict=True):
        episode = replace(episode, learning_rate=torch.full_like(episode.learning_rate, rate))
        plain = Changed(trained)
        losses, trained_on = run(episode, plain)
        entropy = entropies(episode)
        seed = [seen.setdefault(name, 0) for name in episode.tasks.names]
        seen |= {name: seen[name] + 1 for name in episode.tasks.names}
        frame = pd.DataFrame(
            {
                "table": episode.tasks.names,
                "model": model,
                "rows": rows,
                "seed": seed,
                "signal to noise, first steps": plain.signal_to_noise(slice(EARLY)),
                "signal to noise, second half": plain.signal_to_noise(
                    slice(episode.steps // 2, None)
                ),
                "training loss over entropy": trained_on / torch.tensor(entropy),
                "entropy of the labels": entropy,
                "columns": episode.tasks.features,
                "by hindsight": losses / torch.tensor(entropy),
                "unchanged": losses,
                CONTROL: control,
            }
        )
        for name, (coefficient, factor) in CHANGES.items():
            frame[name] = run(episode, Changed(trained, coefficient, factor))[0]
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def fifths(frame: pd.DataFrame, observable: str) -> pd.Series[int]:
    """Which fifth of the runs of its model and number of rows each run stands in."""
    ranks = frame.groupby(["model", "rows"])[observable].rank(method="first", pct=True)
    return (ranks * 5).clip(upper=4.999).astype(int)


def best_fifth(
    frame: pd.DataFrame, logs: pd.Series[float], observable: str
) -> tuple[int, list[list[float]]]:
    """The fifth in which a change does best on even seeds, and its logs on odd ones by table."""
    fifth, even = fifths(frame, observable), frame["seed"] % 2 == 0
    chosen = int(logs[even].groupby(fifth[even]).mean().idxmin())
    judged = logs[~even & (fifth == chosen)]
    return chosen, [list(part) for _, part in judged.groupby(frame["table"])]


def table(frame: pd.DataFrame) -> str:
    """All observables and changes, as Markdown."""
    lines = []
    changes = [*CHANGES, CONTROL]
    every = {name: np.log(frame[name] / frame["unchanged"]) for name in changes}

    whole = [
        mean_ratio([list(part) for _, part in every[name].groupby(frame["table"])])
        for name in changes
    ]
    lines.append(["all runs", *whole])
    for observable in OBSERVABLES:
        cells = []
        for name in changes:
            fifth, logs = best_fifth(frame, every[name], observable)
            cells.append(f"{mean_ratio(logs)}, {['I', 'II', 'III', 'IV', 'V'][fifth]}")
        lines.append([observable, *cells])
    return markdown(["sorted by", *changes], lines)


def kept(file: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What a file holds; it is made if it is not there."""
    if not file.exists():
        partial = file.with_suffix(".partial")
        make().to_csv(partial, index=False)
        partial.replace(file)
    return pd.read_csv(file)


def main() -> None:
    """Measure what is missing, and print the tables."""
    parser = parser_of(__doc__, ("soft_tree", "attention", "additive_net"), (16, 32, 64, 128))
    parser.add_argument("--seeds", type=int, default=4, help="an even number")
    arguments = parser.parse_args()
    if arguments.seeds < 2 or arguments.seeds % 2:
        parser.error(f"--seeds is {arguments.seeds}; half of them choose, so take an even number")
    torch.set_num_threads(1)
    trained = trained_denoiser(
        arguments.denoiser, f"what_it_could_know.py: {arguments.denoiser!r} has no coefficients"
    )
    tables = classification_tables(arguments.data, "meta_validation", ("classes", "series"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[pd.DataFrame]] = {}
    for model in arguments.models:
        rate = float(base_settings(arguments.denoiser, model)["lr"])
        for rows in arguments.rows:

            def make(model: str = model, rows: int = rows, rate: float = rate) -> pd.DataFrame:
                cells = MetaValidation(tables, [model], rows=[rows], seeds=arguments.seeds)
                return measure(trained, cells, rate)

            name = f"{model}_{rows}_{arguments.seeds}.csv"
            found.setdefault(model, []).append(kept(arguments.out / name, make))
        print(f"\n{model}\n\n{table(pd.concat(found[model], ignore_index=True))}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
