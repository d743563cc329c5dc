"""What a reader must know of the control and the rivals: where they run as they were not tuned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from denograd.baselines._tuned_file import nearest
from denograd.baselines.control import TUNED_BATCH
from denograd.baselines.registry import CONTROL, tuned_entries
from denograd.evaluation.html.phrases import few, listing

_OVER_TIME = "temporal_attention"
_FAR = 1.5
"""A number that is further than by this factor from what was tuned is another.

Tuned numbers are mostly twice the one before, so what lies between two of them is not far.
"""


def tuned_elsewhere(
    optimizers: Sequence[str],
    models: Sequence[str],
    steps: int,
    sizes: Iterable[int],
    batch_size: int,
    task: str,
    sequences: bool = False,
) -> list[str]:
    """Sentences on optimizers that run with settings tuned for something else.

    Settings are those of the nearest numbers of steps and rows that were tuned. It is said where
    the nearest is more than a factor of 1.5 away, where batches are not of the size that was tuned
    with, and where settings that were found for classes run for a measured target.

    Args:
        optimizers: as `denograd.baselines.make_optimizer` takes them.
        models: names of the models.
        steps: optimizer steps of each run.
        sizes: numbers of training rows.
        batch_size: rows of a batch, or all if they are fewer.
        task: ``classification`` or ``regression``.
        sequences: whether the rows are sequences, on which the control of attention over time
            was tuned for classes, as all others on tables.

    Example:
        >>> said = tuned_elsewhere(["adamw"], ["attention"], 1000, [32], 32, "classification")
        >>> said[0]
        'adamw was not tuned for 1,000 steps: it takes what was tuned for 300 (attention).'
    """
    measured, sizes = task == "regression", sorted(set(sizes))
    # By what is said, who it is said of: of twenty rivals, one sentence.
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(optimizers):
        entries = {model: tuned_entries(name, model, measured) for model in models}
        entries = {model: own for model, own in entries.items() if own}
        if not entries:
            continue
        said = []
        taken = {model: nearest(own, steps, sizes[0]).steps for model, own in entries.items()}
        said += _far("steps", steps, taken)
        for size in sizes:
            taken = {model: nearest(own, steps, size).rows for model, own in entries.items()}
            said += _far("rows", size, taken)
        if others := [size for size in sizes if min(batch_size, size) != min(TUNED_BATCH, size)]:
            said.append(
                f"not tuned for batches of {batch_size} rows: its settings are of batches of "
                f"{TUNED_BATCH} (with {listing(others)} training rows)."
            )
        on_sequences = set() if measured or name != CONTROL else {_OVER_TIME} & set(entries)
        if odd := [m for m in entries if (m in on_sequences) != sequences]:
            on, here = ("tables", "sequences") if sequences else ("sequences", "tables")
            said.append(f"tuned on {on} ({listing(odd)}), and the rows here are of {here}.")
        if measured and name != CONTROL:
            said.append("tuned for classes alone, and the targets here are measured numbers.")
        for sentence in said:
            found.setdefault(sentence, []).append(name)
    return [_sentence(names, said) for said, names in found.items()]


def _far(what: str, number: int, taken: Mapping[str, int]) -> list[str]:
    """What is said of a number of steps or rows, with the models that it is said of."""
    models: dict[int, list[str]] = {}
    for model, tuned in taken.items():
        if abs(math.log(tuned / number)) > math.log(_FAR):
            models.setdefault(tuned, []).append(model)
    if not models:
        return []
    parts = [f"what was tuned for {tuned} ({listing(own)})" for tuned, own in models.items()]
    return [f"not tuned for {number:,} {what}: it takes {listing(parts)}."]


def _sentence(names: Sequence[str], said: str) -> str:
    if len(names) == 1:
        return f"{names[0]} was {said}"
    plural = said.replace("it takes", "they take").replace("its settings", "their settings")
    return f"{few(names)} were {plural}"
