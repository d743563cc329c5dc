"""What a reader must know of the denoisers that are judged: what they have seen before."""

from __future__ import annotations

from collections.abc import Sequence

from denograd.baselines.registry import denoiser_of
from denograd.data.errors import listing
from denograd.denoisers import read_card

_TARGETS = {"classification": "classes", "regression": "measured numbers"}


def seen_before(optimizers: Sequence[str], tables: Sequence[str], task: str) -> list[str]:
    """Sentences on denoisers that were meta-trained on these tables, or for other targets.

    Their cards tell. Data sets are known by their names alone: a file is thought to be the table
    that a card calls ``NAME``, or ``SOURCE__NAME``.

    Args:
        optimizers: as `denograd.baselines.make_optimizer` takes them.
        tables: names of the tables.
        task: ``classification`` or ``regression``.

    Raises:
        DenoiserFileError: a card cannot be read.

    Example:
        >>> found = seen_before(["adamw", "denograd:default"], ["diabetes"], "regression")
        >>> found[0]
        "'default' was meta-trained for classes, and the targets here are measured numbers."
        >>> found[1][:56]
        "'default' was meta-trained on a table named 'diabetes': "
    """
    found = []
    specs = (denoiser_of(name, task == "regression") for name in optimizers)
    for spec in dict.fromkeys(spec for spec in specs if spec not in (None, "identity")):
        training = read_card(str(spec))["training"]
        own = training.get("task")
        if own in _TARGETS and own != task:
            found.append(
                f"{spec!r} was meta-trained for {_TARGETS[own]}, and the targets here are "
                f"{_TARGETS[task]}."
            )
        data_sets = training.get("data_sets")
        data_sets = data_sets if isinstance(data_sets, dict) else {}
        for part, what in (("meta_train", "meta-trained"), ("meta_validation", "chosen")):
            known = data_sets.get(part, ())
            both = [table for table in tables if any(_same(table, name) for name in known)]
            if both:
                found.append(
                    f"{spec!r} was {what} on {'a table' if len(both) == 1 else 'tables'} named "
                    f"{listing(both, limit=5)}: what it wins there, if that is the same "
                    f"{'table' if len(both) == 1 else 'data'}, it has not won on data that it "
                    "never saw."
                )
    return found


def _same(table: str, known: str) -> bool:
    """Whether two names may be those of one table."""
    short = [name for name in (table, known) if "__" not in name]
    return table == known or (len(short) == 1 and known.split("__")[-1] == table.split("__")[-1])
