"""How much sooner a step's gradient is there where a model's forward pass is written out.

Stacks of models, 32 rows each, take their gradient through the passes of
`denograd.meta.forwards` and through `torch.func.vmap`, in turns, in one process: the gradient
of the batch, and the gradient with its noise, sample by sample. Printed is the median over
rounds of the ratio of the two times (lowest and highest in brackets), as Markdown. Before it
measures, the script compares the gradients and stops if they are not the same.

    python scripts/benchmark_forwards.py --rounds 9
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from _page import markdown
from torch import Tensor

from denograd.meta import BatchedModel, PriorFamily, TaskBatch
from denograd.models.registry import make_model

MODELS = ("soft_tree", "attention", "additive_net")
ROWS = 32


class Vmapped(BatchedModel):
    """A stack that does without what is written out for its model."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._forward = self._traced = None


def contestants(model: str, count: int, features: int) -> list[Callable[[int], tuple[Tensor, ...]]]:
    """Written out and by `vmap`: from micro-batches to the gradient, its noise and the loss."""
    rng, family = np.random.default_rng(0), PriorFamily(max_classes=2)
    tasks = TaskBatch.stack([family.draw(rng, ROWS, 16, features) for _ in range(count)])
    template = make_model(model, tasks.x_train.shape[-1], int(tasks.classes.max()))
    torch.manual_seed(0)
    weights = BatchedModel(template).initial(tasks)

    def run(stack: BatchedModel, micro: int) -> tuple[Tensor, ...]:
        return stack.gradient(weights, tasks.x_train, tasks.y_train, tasks, micro, graph=False)

    stacks = BatchedModel(template), Vmapped(template)
    return [lambda micro, stack=stack: run(stack, micro) for stack in stacks]  # type: ignore[misc]


def ratios(model: str, count: int, micro: int, arguments: argparse.Namespace) -> list[float]:
    """Time of `vmap` over that of what is written out, one for each round."""
    both = contestants(model, count, arguments.features)
    for ours, theirs in zip(*(run(micro) for run in both), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)

    def seconds(run: Callable[[int], object]) -> float:
        start = time.perf_counter()
        for _ in range(arguments.repeats):
            run(micro)
        return time.perf_counter() - start

    found = []
    for turn in range(arguments.rounds):
        order = both if turn % 2 else both[::-1]
        taken = {run: seconds(run) for run in order}
        found.append(taken[both[1]] / taken[both[0]])
    return found


def main() -> None:
    """Measure every model and number of tasks, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="times that they take turns")
    parser.add_argument("--repeats", type=int, default=10, help="gradients in a turn")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--features", type=int, default=30, help="most features of a task")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, micro in (("gradient", 1), ("gradient and noise", ROWS)):
        for count in arguments.tasks:
            cells = []
            for model in arguments.models:
                found = ratios(model, count, micro, arguments)
                spread = f"{min(found):.2f} to {max(found):.2f}"
                cells.append(f"{statistics.median(found):.2f} ({spread})")
            rows.append([name, str(count), *cells])
    titles = [model.replace("_", " ") for model in arguments.models]
    print(markdown(["", "tasks", *titles], rows))


if __name__ == "__main__":
    main()
