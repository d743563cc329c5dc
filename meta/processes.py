"""Several processes that meta-train together, started by `torchrun`."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist


class ProcessLost(RuntimeError):
    """Another process of the run, or the way to it, is gone."""


class Processes:
    """The processes of a run; outside of `torchrun`, this one alone.

    Each takes a share of every batch of tasks; sums over all of them make the processes
    agree on every number, so that all hold the same weights at all times.

    Args:
        rank: number of this process.
        world: number of processes.

    Example:
        >>> alone = Processes()
        >>> alone.share(10)
        slice(0, 10, None)
        >>> Processes(rank=1, world=3).share(10)
        slice(3, 6, None)
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world

    @classmethod
    def join(cls, device: torch.device, minutes: float = 30.0) -> Processes:
        """Join the processes that `torchrun` started; without it, stay alone.

        Args:
            device: what the run computes on; nccl adds up what lies on GPUs, gloo the rest.
            minutes: how long to wait for a process that does not answer.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        if not dist.is_initialized():
            # Its functions take the group of the moment of their import as a default. Imported
            # later (by torch.func, say) they would keep the group alive after `leave`, and with it
            # threads that abort the process when they outlive the interpreter.
            from torch.distributed import nn  # noqa: F401

            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=minutes))
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and talks to the terminal."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of ``count`` things are this process's."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same on each.

        Raises:
            ProcessLost: another process is gone.
        """
        if self.world == 1:
            return values
        total = values.clone()
        try:
            dist.all_reduce(total)
        except RuntimeError as error:
            raise ProcessLost(str(error)) from error
        return total

    def leave(self) -> None:
        """Part from the other processes."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()
