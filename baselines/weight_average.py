"""Averaging of weights: train as ever, and judge the average of where training went.

The exponential average of Polyak and Juditsky's idea ("Acceleration of stochastic
approximation by averaging", 1992), as it is used for nets (Tarvainen and Valpola 2017,
"Mean teachers are better role models"). After step ``t`` of AdamW, with ``d`` the decay::

    a_t = a_{t-1} + (1 - min(d, t / (t + 9))) (p_t - a_{t-1})

The smaller decay at the start is what lets an average of 50 steps forget where it began:
``a_1`` is nine tenths of the way to ``p_1``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import nn

from denograd.baselines.errors import BaselineError


class AveragedAdamW(torch.optim.AdamW):
    """AdamW whose parameters are judged by their exponential average over steps.

    `eval` swaps the average in and `train` swaps it out again, like the modes of an
    optimizer of the package schedulefree; `step` wants the mode for training. The average
    is part of the optimizer's state, so checkpoints hold it (save them in training mode).

    Args:
        params: parameters or groups.
        decay: of the average, in ``[0, 1)``; 0 is AdamW.
        **settings: of `torch.optim.AdamW`.

    Raises:
        BaselineError: a decay outside of ``[0, 1)``.

    Example:
        >>> p = nn.Parameter(torch.ones(1))
        >>> optimizer = AveragedAdamW([p], decay=0.9, lr=0.5)
        >>> p.grad = torch.ones(1)
        >>> optimizer.step()
        >>> trained = p.item()
        >>> optimizer.eval()
        >>> averaged = p.item()
        >>> optimizer.train()
        >>> trained < averaged < 1, p.item() == trained
        (True, True)
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        decay: float = 0.99,
        **settings: Any,
    ) -> None:
        if not 0 <= decay < 1:
            raise BaselineError(
                f"AveragedAdamW: decay={decay!r}; it must be at least 0 and below 1"
            )
        super().__init__(params, **settings)
        self.decay = decay
        self._training = True

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step and move the average.

        Raises:
            RuntimeError: the average stands in the parameters' place.
        """
        if not self._training:
            raise RuntimeError("AveragedAdamW: call train() before step()")
        parameters = [p for group in self.param_groups for p in group["params"]]
        before = [p.clone() for p in parameters]
        loss: float | None = super().step(closure)
        for p, start in zip(parameters, before, strict=True):
            state = self.state[p]
            if "step" not in state:
                continue  # No gradient yet, so AdamW has not moved it.
            average = state.setdefault("average", start)
            count = float(state["step"])
            average.lerp_(p, 1 - min(self.decay, count / (count + 9)))
        return loss

    def train(self) -> None:
        """Put the trained weights into the parameters; nothing if they are there."""
        self._swap(True)

    def eval(self) -> None:
        """Put the averages into the parameters; nothing if they are there."""
        self._swap(False)

    @torch.no_grad()
    def _swap(self, training: bool) -> None:
        if training == self._training:
            return
        self._training = training
        for group in self.param_groups:
            for p in group["params"]:
                if "average" in self.state[p]:
                    trained = p.clone()
                    p.copy_(self.state[p]["average"])
                    self.state[p]["average"].copy_(trained)
