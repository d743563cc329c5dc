"""From sums over contributions to the variance of a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from denograd.denoisers import Layout
from denograd.noise._record import GradientRecord, tolerance


def noise_variance(
    gradient: Tensor, layout: Layout, records: Sequence[GradientRecord | None]
) -> tuple[Tensor, Tensor]:
    """Variance of a gradient over draws of the batch, and where it is known.

    With ``g = sum_i c_i`` over ``B`` independent contributions, the unbiased estimate of
    the variance of ``g`` is ``B / (B - 1) * (sum_i c_i^2 - g^2 / B)``: ``B`` times the
    sample variance of the ``c_i``. It holds for losses that are means and for sums alike.

    Gradients that were rescaled after the backward pass (clipping, an unscaled
    `torch.amp.GradScaler`) have their variance rescaled by ``|gradient|^2 / |sum c|^2``.
    A gradient that no longer is a multiple of ``sum c`` counts as not known.

    Args:
        gradient: ``(N,)``, the gradients at the step, joined.
        layout: how they are cut into ``L`` layers.
        records: one a layer, None where nothing was captured.

    Returns:
        the variance ``(N,)``, 0 where it is not known, and 1 or 0 a layer, ``(L,)``, for
        known or not.
    """
    known = [r if r is not None and r.count > 1 else None for r in records]
    if all(record is None for record in known):
        return torch.zeros_like(gradient), gradient.new_zeros(len(layout))
    device, dtype = gradient.device, gradient.dtype
    squares, total, floor, valid = _join(known, layout, gradient)

    energies = layout.sum(torch.stack((gradient.square(), total.square(), squares)))
    of_gradient, of_total, of_squares = energies.unbind(0)
    ratio = torch.where(of_total > 0, of_gradient / of_total, torch.ones_like(of_total))
    counts = _constant(tuple(2.0 if r is None else float(r.count) for r in known), device, dtype)
    rounding = _constant(tuple(0.0 if r is None else r.rounding for r in known), device, dtype)

    scale, factor, wide_counts = layout.spread(
        torch.stack((ratio.sqrt(), ratio * counts / (counts - 1), counts))
    ).unbind(0)
    gap = layout.sum((gradient - scale * total).square())
    bound = ratio * tolerance(of_squares, floor) + rounding.square() * of_gradient
    is_known = (valid & (gap <= bound) & torch.isfinite(ratio)).to(dtype)
    variance = factor * (squares - total.square() / wide_counts).clamp_min(0)
    return torch.where(layout.spread(is_known) > 0, variance, 0.0), is_known


def _join(
    records: Sequence[GradientRecord | None], layout: Layout, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squares and total ``(N,)``, floor and valid ``(L,)``; zeros where there is no record."""
    device, dtype = gradient.device, gradient.dtype
    blanks = layout.split(torch.zeros_like(gradient))
    zero, yes = _constant((0.0, 1.0), device, dtype).unbind(0)
    squares, total, floor, valid = [], [], [], []
    for blank, record in zip(blanks, records, strict=True):
        if record is None or record.squares is None or record.total is None:
            squares.append(blank)
            total.append(blank)
            floor.append(zero)
            valid.append(zero > 0)
            continue
        squares.append(record.squares.reshape(-1).to(dtype))
        total.append(record.total.reshape(-1).to(dtype))
        floor.append(zero if record.floor is None else record.floor.to(dtype))
        valid.append(yes > 0 if record.valid is None else record.valid)
    return torch.cat(squares), torch.cat(total), torch.stack(floor), torch.stack(valid)


@lru_cache(maxsize=256)
def _constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Host numbers as a tensor; kept, because copying to an accelerator makes it wait."""
    return torch.tensor(values, device=device, dtype=dtype)
