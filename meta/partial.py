"""A denoiser for the layers that its model lets it touch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from denograd.denoisers import Context, Denoised, Denoiser, IdentityDenoiser, Layout, State
from denograd.meta.batched import BatchedModel


def for_denoised_layers(denoiser: Denoiser, model: BatchedModel) -> Denoiser:
    """The denoiser as `denograd.DenoGrad` would run it on a model's ``parameter_groups()``.

    Args:
        denoiser: any denoiser.
        model: the architecture; layers of a group with ``denoise=False`` are left to the base.
    """
    whole = len(model.denoised) == len(model.layout)
    if whole or isinstance(denoiser, IdentityDenoiser):
        return denoiser
    if not model.denoised:
        return IdentityDenoiser()
    return SomeLayers(denoiser, model.denoised)


class SomeLayers:
    """A denoiser that is shown some of the layers only, and leaves the others to the base.

    Args:
        denoiser: any denoiser.
        kept: numbers of the layers that it is shown, rising.

    Example:
        >>> from denograd.denoisers import WienerDenoiser
        >>> layout = Layout(sizes=(2, 3), ndims=(1, 1))
        >>> state = SomeLayers(WienerDenoiser(), [1]).init_state(torch.zeros(5), layout)
        >>> {value.shape[-1] for value in state.element.values()}
        {3}
    """

    def __init__(self, denoiser: Denoiser, kept: Sequence[int]) -> None:
        self.denoiser, self.kept = denoiser, list(kept)

    @property
    def coefficient_names(self) -> tuple[str, ...]:
        """Those of the denoiser itself."""
        return self.denoiser.coefficient_names

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        """The state of the layers that are shown."""
        return self.denoiser.init_state(self._cut(layout, parameter), self._inner(layout))

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Denoise the layers that are shown; see `denograd.Denoiser`."""
        layout = context.layout
        shown = context._replace(
            layout=self._inner(layout),
            counts=context.counts[..., self.kept],
            noise_known=context.noise_known[..., self.kept],
        )
        cut = [self._cut(layout, x) for x in (gradient, noise, parameter)]
        result = self.denoiser(cut[0], cut[1], cut[2], state, shown)
        gain = decay = None
        if result.gain is not None:
            gain = self._put(layout, torch.ones_like(gradient), result.gain)
        if result.decay is not None:
            decay = torch.zeros_like(context.counts)
            decay[..., self.kept] = result.decay
        return Denoised(self._put(layout, gradient, result.gradient), gain, decay, result.state)

    def _inner(self, layout: Layout) -> Layout:
        """The layout of the layers that are shown."""
        sizes, ndims = layout.sizes, layout.ndims
        return Layout(tuple(sizes[i] for i in self.kept), tuple(ndims[i] for i in self.kept))

    def _cut(self, layout: Layout, flat: Tensor) -> Tensor:
        parts = layout.split(flat)
        return torch.cat([parts[i] for i in self.kept], dim=-1)

    def _put(self, layout: Layout, whole: Tensor, cut: Tensor) -> Tensor:
        """``whole`` with the layers that were shown replaced by those of ``cut``."""
        parts = list(layout.split(whole))
        for i, part in zip(self.kept, self._inner(layout).split(cut), strict=True):
            parts[i] = part
        return torch.cat(parts, dim=-1)
