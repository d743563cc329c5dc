"""Would another form of the filter do better? Asked of trained weights, before meta-training.

The denoiser judges each element of a layer by itself: its Wiener gains compare an element's signal
with its noise, and its decay is the same for a whole layer. Here the same weights run with filters
that pool over elements, or that tell elements apart where the denoiser does not:

* *gains by column*: signal and noise are averaged over the weights of one input column before
  Wiener's gain is taken of them (a shrinkage of blocks, as in Cai 1999, "Adaptive wavelet
  estimation", Annals of Statistics 27);
* *gains by layer*: averaged over the whole layer;
* *decay by evidence*: an element decays the less, the better the data determine it,
  ``decay / (1 + z^2)`` with Wald's ``z^2 = p^2 rows batch V`` (automatic relevance determination,
  MacKay 1994; ``V`` is the noise variance of the batch's mean gradient, so ``batch V`` is the
  Fisher information of a row);
* *leaves to their mean*: the leaves of a tree decay towards their mean instead of 0 (hierarchical
  shrinkage, Agarwal et al. 2022);
* *half adaptive* and *not adaptive*: Adam divides each element's step by the root of its second
  moment; here the update gain multiplies half of that division, or all of it, back in, relative to
  the mean of the layer, so that its step is as long as it was (the partially adaptive momentum of
  Chen et al. 2018, "Closing the generalization gap of adaptive gradient methods").

A figure is the ratio of held-out log loss to that of the denoiser as it is, a geometric mean over
tables of `meta_validation`, with an interval of 95 % (a bootstrap over tables).

    python scripts/other_filters.py --data ../shared/data --out runs/filters

Every filter of a model and number of rows is on disk before the next begins, in a folder for the
weights; started again, it goes on (after a change of the code, take another `--out`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from _denoiser_arguments import parser_of, trained_denoiser
from _development_tables import classification_tables
from _journal import write_json
from _page import markdown, mean_ratio
from torch import Tensor

from denograd.base import settings_by_model
from denograd.denoisers import Context, Denoised, Denoiser, State, WienerDenoiser, read_card
from denograd.denoisers._base import decay_fraction
from denograd.meta.engines import BatchedEngine, run_episode
from denograd.meta.engines._base import Schedule
from denograd.meta.engines.batched import InnerState
from denograd.meta.episode import Episode
from denograd.meta.validation import MetaValidation, bounded
from denograd.statistics import TINY, LayerStatistics

ADAPTIVITY = {"half adaptive": 0.25, "not adaptive": 0.5}
"""Which power of the relative second moment is multiplied back in."""

FILTERS = (
    "gains by column",
    "gains by layer",
    "decay by evidence",
    "leaves to their mean",
    *ADAPTIVITY,
)


class Refiltered(WienerDenoiser):
    """A trained denoiser with another filter, for the runs of one episode.

    Args:
        trained: whose weights it has.
        how: one of `FILTERS`, or empty for the filter as it is.
        episode: of the runs; it knows the layers' shapes.
    """

    def __init__(self, trained: WienerDenoiser, how: str, episode: Episode) -> None:
        super().__init__(**trained.config)
        self.load_state_dict(trained.state_dict())
        self.how, self.model = how, episode.model
        self.width = episode.tasks.x_train.shape[-1]
        self.rate = episode.learning_rate
        self.correction: Tensor | None = None

    def gains(
        self, statistics: LayerStatistics, fast_kappa: Tensor, slow_kappa: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As the trained one's, or of pooled signals and noises."""
        self.variance, self.statistics = statistics.noise, statistics
        if not self.how.startswith("gains"):
            return super().gains(statistics, fast_kappa, slow_kappa)
        pool = self._column_mean if self.how == "gains by column" else self._layer_mean
        variance = self._over_layers(statistics.noise, pool)

        def wiener(moment: Tensor, kappa: Tensor) -> Tensor:
            signal = self._over_layers(moment.square(), pool)
            return (signal + TINY) / (signal + kappa * variance + TINY)

        return wiener(statistics.fast, fast_kappa), wiener(statistics.slow, slow_kappa)

    def forward(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Clean a gradient; what the decay should have left alone stays in ``correction``."""
        done = super().forward(gradient, noise, parameter, state, context)
        assert done.decay is not None
        fraction = context.layout.spread(decay_fraction(self.rate, done.decay))
        if self.how == "decay by evidence":
            told = (context.rows * context.batch_size).unsqueeze(-1)
            evidence = parameter.square() * told * self.variance
            self.correction = fraction * parameter * evidence / (1 + evidence)
        if self.how in ADAPTIVITY:
            assert done.gain is not None
            mean = context.layout.spread(self.statistics.sums["second"] / context.counts)
            relative = (self.statistics.second + TINY) / (mean + TINY)
            return done._replace(gain=done.gain * relative ** ADAPTIVITY[self.how])
        if self.how == "leaves to their mean":
            self.correction = fraction * self._over_layers(parameter, self._mean_leaf)
        return done

    def _over_layers(
        self, flat: Tensor, change: Callable[[str, Tensor, tuple[int, ...]], Tensor]
    ) -> Tensor:
        """A function of each layer in its own shape, flat again."""
        parts = zip(self.model.names, self.model.layout.split(flat), self.model.shapes, strict=True)
        return torch.cat(
            [
                change(name, part.reshape(*part.shape[:-1], *shape), tuple(shape)).reshape_as(part)
                for name, part, shape in parts
            ],
            dim=-1,
        )

    def _column_mean(self, name: str, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The mean over all that belongs to one input column, where a layer has columns."""
        if len(shape) < 2 or self.width not in shape:
            return values
        axis = shape.index(self.width)
        others = [i - len(shape) for i in range(len(shape)) if i != axis]
        return values.mean(others, keepdim=True).expand_as(values)

    def _layer_mean(self, name: str, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The mean over a layer, where it is a matrix."""
        if len(shape) < 2:
            return values
        return values.mean(list(range(-len(shape), 0)), keepdim=True).expand_as(values)

    def _mean_leaf(self, name: str, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The mean over the leaves of a tree; 0 in all other layers."""
        if name != "leaves.weight":
            return torch.zeros_like(values)
        return values.mean(-2, keepdim=True).expand_as(values)


class Corrected(BatchedEngine):
    """The engine, which gives back what a `Refiltered` would not have let decay."""

    def advance(
        self,
        episode: Episode,
        denoiser: Denoiser,
        state: InnerState,
        *,
        graph: bool,
        schedule: Schedule | None = None,
    ) -> InnerState:
        """Take one inner step on every task."""
        done = super().advance(episode, denoiser, state, graph=graph, schedule=schedule)
        correction = getattr(denoiser, "correction", None)
        if correction is None:
            return done
        return replace(done, parameters=done.parameters + correction)


def losses(trained: WienerDenoiser, how: str, cells: MetaValidation, rate: float) -> pd.Series:
    """Held-out loss of each table, a mean over seeds."""
    engine, found = Corrected(), dict[str, list[float]]()
    for _, _, cell in cells.cells:
        episode = replace(cell, learning_rate=torch.full_like(cell.learning_rate, rate))
        denoiser = Refiltered(trained, how, episode)
        held_out = bounded(run_episode(episode, denoiser, engine=engine)).tolist()
        for table, loss in zip(episode.tasks.names, held_out, strict=True):
            found.setdefault(table, []).append(loss)
    return pd.Series({table: float(np.mean(values)) for table, values in found.items()})


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = parser_of(__doc__, ("soft_tree", "attention", "additive_net"), (16, 64, 256))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--filters", nargs="+", choices=FILTERS, default=list(FILTERS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained = trained_denoiser(
        arguments.denoiser, f"other_filters.py: {arguments.denoiser!r} has no filter"
    )
    bases = settings_by_model(arguments.denoiser, list(arguments.models))
    tables = classification_tables(arguments.data, "meta_validation", ("classes", "series"))
    folder = arguments.out / read_card(arguments.denoiser)["sha256"][:12]
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for model in arguments.models:
        for rows in arguments.rows:
            cells = MetaValidation(tables, [model], rows=[rows], seeds=arguments.seeds)
            rate, line = float(bases[model]["lr"]), [model, str(rows)]
            plain: pd.Series | None = None
            for how in arguments.filters:
                if how.startswith("leaves") and model != "soft_tree":
                    line.append("")
                    continue
                path = folder / f"{model}-{rows}-{arguments.seeds}-{how.replace(' ', '-')}"
                path = path.with_suffix(".json")
                if not path.exists():
                    if plain is None:
                        plain = losses(trained, "", cells, rate)
                    ratios = np.log(losses(trained, how, cells, rate) / plain)
                    write_json(path, ratios.to_dict())
                logs = [[ratio] for ratio in pd.read_json(path, typ="series")]
                line.append(mean_ratio(logs))
            lines.append(line)
            print(*line, sep=" | ", flush=True)
    print("\n" + markdown(["model", "rows", *arguments.filters], lines))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
