"""Evidence-based stopping: stop when the gradient is no larger than its noise makes likely.

Mahsereci, Balles, Lassner and Hennig 2017, "Early Stopping Without a Validation Set"
(arXiv:1703.09580). With ``g`` the gradient of a batch, ``V`` the variance of
that mean and ``D`` parameters, training has reached the noise, and is stopped, as soon as::

    1 - 1/D sum_k g_k^2 / V_k > 0

The variance has to come from many rows: estimated from ``n``, a ratio of pure noise has a
mean of ``(n - 1) / (n - 3)`` and not of 1 (an F distribution), so four micro-batches hardly
ever stop anything. `denograd.DenoGrad` measures it row by row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from denograd.baselines.analytic._shared import check_choice, check_number
from denograd.denoisers import Context, Denoised, Layout, State


def evidence_criterion(gradient: Tensor, noise: Tensor, layout: Layout, *, scope: str) -> Tensor:
    """The left side of the criterion, ``(..., L)``; where ``scope`` is ``"all"``, one for all.

    Elements without any noise carry no evidence in either direction (no row of the batch
    reached them, or they are padding) and do not count; where none is left the criterion
    is below 0.

    Example:
        >>> layout = Layout((2, 1), (1, 1))
        >>> g, noise = torch.tensor([1.0, 2.0, 0.5]), torch.ones(3)
        >>> evidence_criterion(g, noise, layout, scope="layer")
        tensor([-1.5000,  0.7500])
        >>> evidence_criterion(g, noise, layout, scope="all")
        tensor([-0.7500, -0.7500])
    """
    there = noise > 0
    ratios = torch.where(there, gradient.square() / torch.where(there, noise, 1.0), 0.0)
    sums, counts = layout.sum(torch.stack((ratios, there.to(ratios.dtype)))).unbind(0)
    if scope == "all":
        sums, counts = (x.sum(-1, keepdim=True).expand(x.shape) for x in (sums, counts))
    return torch.where(counts > 0, 1 - sums / counts.clamp_min(1), -1.0)


class EvidenceStopDenoiser:
    """Freeze the parameters once the evidence says that only noise is left.

    The gradient stays as it is; the update gain is 1, and 0 from the step on at which the
    criterion is met. Layers whose noise was not measured within the batch do not count, and
    with ``scope="layer"`` are never frozen.

    Args:
        scope: ``"all"`` stops all layers together, as in the paper; ``"layer"`` stops each
            by its own criterion.
        smoothing: of an exponential average of the criterion over steps, bias-corrected; 0
            judges each step by itself. One batch is a noisy witness.

    Raises:
        BaselineError: a value that makes no sense.

    Example:
        >>> denoiser = EvidenceStopDenoiser()
        >>> layout, zero = Layout((2,), (1,)), torch.zeros(())
        >>> context = Context(layout, torch.tensor([2.0]), torch.ones(1), zero, zero, zero, zero)
        >>> state = denoiser.init_state(torch.zeros(2), layout)
        >>> for size in (3.0, 0.5, 3.0):
        ...     g = torch.full((2,), size)
        ...     result = denoiser(g, torch.ones(2), g, state, context)
        ...     state = result.state
        ...     print(result.gain)
        tensor([1., 1.])
        tensor([0., 0.])
        tensor([0., 0.])
    """

    coefficient_names: tuple[str, ...] = ("criterion", "stopped")

    def __init__(self, scope: str = "all", smoothing: float = 0.0) -> None:
        self.scope = check_choice("EvidenceStopDenoiser", "scope", scope, ("all", "layer"))
        self.smoothing = check_number("EvidenceStopDenoiser", "smoothing", smoothing, 0.0, 1.0)

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        """Nothing is stopped."""
        zeros = parameter.new_zeros(*parameter.shape[:-1], len(layout))
        names = ("steps", "criterion", "stopped")
        return State({}, {name: zeros.clone() for name in names})

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Look at the evidence; see `denograd.Denoiser` for shapes."""
        layout, known = context.layout, context.noise_known
        measured = layout.spread(known) * noise
        now = evidence_criterion(gradient, measured, layout, scope=self.scope)
        if self.scope == "all":
            known = known.amax(-1, keepdim=True).expand(known.shape)
        steps = state.layer["steps"] + known
        beta = self.smoothing
        weight = known * (1 - beta) / (1 - beta ** steps.clamp_min(1))
        criterion = torch.lerp(state.layer["criterion"], now, weight)
        fires = ((criterion > 0) & (known > 0)).to(gradient.dtype)
        stopped = torch.maximum(state.layer["stopped"], fires)
        layer = {"steps": steps, "criterion": criterion, "stopped": stopped}
        coefficients = torch.stack((criterion, stopped), dim=-1)
        gain = layout.spread(1 - stopped)
        return Denoised(gradient, gain, None, State({}, layer), coefficients)
