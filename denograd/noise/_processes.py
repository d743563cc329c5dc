"""Noise of gradients that `DistributedDataParallel` averages over processes.

With ``W`` processes the gradient is the mean over theirs, so what a row contributes to it is
``1 / W`` of what it contributes to its process's own. Summed over all rows of all processes, these
are what one process would have captured of the whole batch, and every process knows the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from denograd.denoisers import Layout
from denograd.noise._record import GradientRecord


def process_group(model: nn.Module | None) -> distributed.ProcessGroup | None:
    """The processes that a model's gradients are averaged over; None if there are no others."""
    if not isinstance(model, DistributedDataParallel) or model.process_group.size() < 2:
        return None
    found: distributed.ProcessGroup = model.process_group
    return found


def runs_beside_others() -> bool:
    """Whether this is one of several processes of a job."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def rows_of_all(rows: int, device: torch.device, group: distributed.ProcessGroup) -> int:
    """Rows of the batches of all processes; 0 if one of them does not know its own."""
    told = torch.tensor([float(rows), float(rows == 0)], device=device)
    distributed.all_reduce(told, group=group)
    return 0 if told[1] else int(told[0])


def records_of_all(
    records: Sequence[GradientRecord | None],
    layout: Layout,
    like: Tensor,
    group: distributed.ProcessGroup,
) -> list[GradientRecord | None]:
    """What the processes captured together, the same on each.

    Args:
        records: one a layer, ``L`` of them; None where nothing was captured.
        layout: how the joined gradients are cut into layers.
        like: ``(N,)``, of the device and the precision of the joined gradients.
        group: the processes.

    Returns:
        a record a layer; None where a process has none, or knows no rows.
    """
    world, count = group.size(), len(records)
    squares, total = torch.zeros_like(like), torch.zeros_like(like)
    sums, worst = like.new_zeros(2, count), like.new_zeros(2, count)
    parts = zip(records, layout.split(squares), layout.split(total), strict=True)
    for i, (record, own_squares, own_total) in enumerate(parts):
        if record is None or not record.rows or record.calls or record.squares is None:
            worst[0, i] = 1.0
            continue
        assert record.total is not None
        own_squares.copy_(record.squares.reshape(-1))
        own_total.copy_(record.total.reshape(-1))
        sums[0, i] = record.rows
        if record.floor is not None:
            sums[1, i] = record.floor
        worst[1, i] = record.rounding
        if record.valid is not None:
            worst[0, i] = (~record.valid).to(like.dtype)
    joined = torch.cat((squares, total, sums.flatten()))
    distributed.all_reduce(joined, group=group)
    distributed.all_reduce(worst, op=distributed.ReduceOp.MAX, group=group)
    squares, total, counts = joined.split((len(like), len(like), sums.numel()))
    rows, floor = counts.reshape(2, count)
    seen: list[GradientRecord | None] = []
    cut = zip(layout.split(squares / world**2), layout.split(total / world), strict=True)
    for i, (own_squares, own_total) in enumerate(cut):
        record = GradientRecord(worst[0, i] == 0)
        record.rows = int(rows[i])
        record.squares, record.total = own_squares, own_total
        record.floor, record.rounding = floor[i] / world**2, float(worst[1, i])
        seen.append(record if record.rows > 1 else None)
    return seen
