"""The parts of Saliency Guided Training (Ismail et al. 2021): what is salient, what is masked
when it is not, and how far a prediction moves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denograd._modes import evaluating


def input_saliency(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Magnitude of the gradient of each row's own output by its inputs.

    Simonyan et al. 2014, "Deep Inside Convolutional Networks", arXiv 1312.6034, equation 3:
    ``|d f_y(x) / dx|``, with ``f`` the model's outputs as they are. The model runs in
    evaluation mode, gets back the mode that it had, and no parameter's gradient changes.

    Args:
        model: from ``(N, ...)`` to ``(N, C)``.
        x: rows, of a floating type.
        y: class numbers, ``(N,)``.

    Returns:
        the shape of ``x``, without a graph. NaN in ``x`` has a saliency of 0.

    Example:
        >>> model = nn.Linear(3, 2, bias=False)
        >>> said = input_saliency(model, torch.ones(1, 3), torch.tensor([1]))
        >>> bool((said[0] == model.weight[1].abs()).all())
        True
    """
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        inputs = x.detach().clone().requires_grad_()
        own = model(inputs).gather(1, y.detach().clone().unsqueeze(1)).sum()
        gradient = None
        if own.requires_grad:
            (gradient,) = torch.autograd.grad(own, inputs, allow_unused=True)
    if gradient is None:
        return torch.zeros_like(x)
    return torch.where(x.isnan(), 0.0, gradient.abs())


def least_salient(
    saliency: Tensor, count: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """The features of each row whose saliency is lowest.

    In images, ``(N, C, H, W)``, a feature is a pixel, with the sum over its channels. Features
    that tie are taken by lot.

    Args:
        saliency: ``(N, ...)``, at least 0.
        count: how many features of each row.
        generator: of the lot; None for torch's global one.

    Returns:
        boolean, the shape of ``saliency``.

    Raises:
        ValueError: ``count`` is below 0 or larger than the number of features.

    Example:
        >>> least_salient(torch.tensor([[0.3, 0.1, 0.0], [0.2, 0.9, 0.5]]), 1)
        tensor([[False, False,  True],
                [ True, False, False]])
    """
    image = saliency.dim() > 3
    score = (saliency.sum(1) if image else saliency).flatten(1)
    if not 0 <= count <= score.shape[1]:
        raise ValueError(
            f"masked: {count} features are to be masked, but a row of shape "
            f"{tuple(saliency.shape[1:])} has {score.shape[1]}; mask at most as many, or give a "
            "share from 0 to 1"
        )
    mixed = uniform(score, generator).argsort(1)
    order = mixed.gather(1, score.gather(1, mixed).argsort(dim=1, stable=True))
    least = torch.zeros_like(score, dtype=torch.bool).scatter_(1, order[:, :count], True)
    if image:
        return least.view(saliency.shape[0], 1, *saliency.shape[2:]).expand_as(saliency)
    return least.view_as(saliency)


def prediction_divergence(outputs: Tensor, masked: Tensor) -> Tensor:
    """Kullback-Leibler divergence of predictions on masked inputs from those on whole ones.

    Ismail et al. 2021, "Improving Deep Learning Interpretability by Saliency Guided Training",
    arXiv 2111.14338, equation 1: ``D_KL(f(x) || f(masked x))``, the mean over rows. Gradients
    flow through both.

    Args:
        outputs: of whole inputs, ``(N, C)``: scores or log-probabilities, which are the same to
            a softmax.
        masked: of masked inputs, likewise.

    Example:
        >>> whole, masked = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
        >>> prediction_divergence(whole, whole), prediction_divergence(whole, masked)
        (tensor(0.), tensor(0.5108))
    """
    # A class that a model excludes has a score of -inf on both sides, and no part in the sum.
    lowest = torch.finfo(torch.float16).min
    p, q = (F.log_softmax(o, dim=-1).clamp_min(lowest) for o in (outputs, masked))
    return F.kl_div(q, p, reduction="batchmean", log_target=True)


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform from 0 to 1, drawn on the generator's device."""
    device = like.device if generator is None else generator.device
    draw = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=device)
    return draw.to(like.device)
