"""What each term of SaliencyDecor does: none, each alone, and both.

Trains small networks on scikit-learn's digits, on images with a planted patch that says the
class, and on two tables, and measures accuracy, how sharp saliency is, what masking does to
accuracy, whether saliency lies on the planted patch, and how correlated hidden features are.
Every fit is a line of `results.csv` as soon as it is done; the same command goes on where it
stopped. About ten minutes of one processor core.

    python scripts/reproduce_saliency_decor.py --page docs/saliency-decor.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _journal import LineJournal
from _saliency_data import DATASETS, Data, network, read
from _saliency_page import draw, write_page
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from denograd.explain import CaptumExplainer, entropy, gini, pointing_game, relevance_mass
from denograd.penalties import SaliencyDecor, correlation_penalty
from denograd.penalties.features import as_rows

STEPS, BATCH, RATE = 300, 64, 3e-3
SHARES = tuple(round(0.1 * i, 1) for i in range(10))
"""Of the features, masked one after the other in a curve."""

WEIGHTS: dict[str, tuple[float, float]] = {
    "none": (0.0, 0.0),
    "consistency": (1.0, 0.0),
    "decorrelation 0.1": (0.0, 0.1),
    "decorrelation 1": (0.0, 1.0),
    "decorrelation 10": (0.0, 10.0),
    "both 0.1": (1.0, 0.1),
    "both 1": (1.0, 1.0),
}
"""Consistency and decorrelation."""

METHODS = {"gradient": "saliency", "ig": "integrated_gradients"}
ORDERS = ("top", "least", "random")
COLUMNS = [
    *("dataset", "arm", "seed", "accuracy", "log_loss", "correlation", "cpu_seconds"),
    *(f"{m}_{v}" for m in METHODS for v in ("entropy", "gini", "mass", "pointing")),
    *(f"{m}_{o}_area" for m in METHODS for o in ORDERS),
    *(f"{m}_{o}_curve" for m in METHODS for o in ORDERS),
]
NOTES = Console(stderr=True)


class Cell(NamedTuple):
    """One fit."""

    dataset: str
    arm: str
    seed: int


def fit(cell: Cell, data: Data) -> nn.Sequential:
    """A trained network; arms of the same seed have the same first weights and batches."""
    torch.manual_seed(cell.seed)
    model = network(cell.dataset, data)
    consistency, decorrelation = WEIGHTS[cell.arm]
    loss = SaliencyDecor(
        model,
        consistency=consistency,
        decorrelation=decorrelation,
        generator=torch.Generator().manual_seed(cell.seed),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    batches = torch.Generator().manual_seed(cell.seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(STEPS):
        if len(order) < BATCH:
            order = torch.randperm(len(data.x), generator=batches)
        batch, order = order[:BATCH], order[BATCH:]
        optimizer.zero_grad()
        loss(data.x[batch], data.y[batch]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def hidden_correlation(model: nn.Sequential, x: Tensor) -> float:
    """Mean squared correlation of different hidden features, the mean over layers."""
    found = []
    with torch.no_grad():
        for layer in model:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(float(correlation_penalty(as_rows(x))))
    return float(np.mean(found))


def accuracy(model: nn.Sequential, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


def curve(
    model: nn.Sequential, data: Data, attributions: NDArray[np.float64], order: str, seed: int
) -> list[float]:
    """Accuracy as features become the mean of the training rows.

    Args:
        model: the network.
        data: its rows.
        attributions: of the test rows, ``(n, F)``.
        order: which features go first: ``top`` the most salient, ``least`` the least, or
            ``random``, which tells what masking does by itself.
        seed: of the random order.
    """
    rng = np.random.default_rng(seed)
    sign = {"top": -1.0, "least": 1.0, "random": 0.0}[order]
    lot = rng.random(attributions.shape)
    places = np.lexsort((lot, sign * np.abs(attributions)), axis=1).argsort(axis=1)
    rows, base = data.x_test.flatten(1), data.x.flatten(1).mean(0)
    features = rows.shape[1]
    found = []
    for share in SHARES:
        gone = torch.from_numpy(places < int(share * features + 1e-9))
        masked = torch.where(gone, base, rows).view_as(data.x_test)
        found.append(accuracy(model, masked, data.y_test))
    return found


def run(cell: Cell) -> dict[str, Any]:
    """Fit and measure."""
    torch.set_num_threads(1)
    data = read(cell.dataset, cell.seed)
    begin = time.process_time()
    model = fit(cell, data)
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | cell._asdict()
    row["cpu_seconds"] = f"{time.process_time() - begin:.3f}"
    row["accuracy"] = accuracy(model, data.x_test, data.y_test)
    with torch.no_grad():
        row["log_loss"] = float(F.cross_entropy(model(data.x_test), data.y_test))
    row["correlation"] = hidden_correlation(model, data.x_test)
    base = data.x.mean(0).numpy()
    for short, method in METHODS.items():
        # Of the predicted class: who explains a prediction does not know the true one.
        explain = CaptumExplainer(model, method, baseline=base, steps=16)  # type: ignore[arg-type]
        said = explain(data.x_test)
        row[f"{short}_entropy"] = float(entropy(said).mean())
        row[f"{short}_gini"] = float(gini(said).mean())
        if data.truth is not None:
            truth = data.truth.reshape(said.shape)
            row[f"{short}_mass"] = float(relevance_mass(said, truth).mean())
            row[f"{short}_pointing"] = float(pointing_game(said, truth).mean())
        for order in ORDERS:
            values = curve(model, data, said, order, cell.seed)
            row[f"{short}_{order}_curve"] = ";".join(f"{v:.4f}" for v in values)
            row[f"{short}_{order}_area"] = float(np.trapezoid(values, SHARES) / SHARES[-1])
    return row


def cells(seeds: int) -> Iterator[Cell]:
    """All fits, a seed after the other, so that what is there early covers everything."""
    for seed in range(seeds):
        for dataset in DATASETS:
            for arm in WEIGHTS:
                yield Cell(dataset, arm, seed)


class Journal(LineJournal):
    """A line for each fit."""

    columns = COLUMNS

    def finished(self) -> set[Cell]:
        lines = self.read()[list(Cell._fields)].itertuples(index=False, name=None)
        return {Cell(str(dataset), str(arm), int(seed)) for dataset, arm, seed in lines}


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/saliency-decor"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--page", type=Path, help="rewrite this page between its markers")
    arguments = parser.parse_args()
    journal = Journal(arguments.out)
    done = journal.finished()
    missing = [cell for cell in cells(arguments.seeds) if cell not in done]
    for cell in track(missing, "fits", console=NOTES):
        journal.append(run(cell))
    if arguments.page is not None:
        lines = journal.read()
        lines = lines[lines["seed"] < arguments.seeds]
        draw(lines, arguments.page.parent / "images", SHARES)
        write_page(arguments.page, lines)
        NOTES.print(f"wrote {arguments.page}")


if __name__ == "__main__":
    main()
