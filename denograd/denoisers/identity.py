"""The denoiser that does nothing: with it the wrapper equals the base optimizer."""

from __future__ import annotations

from torch import Tensor

from denograd.denoisers._base import Context, Denoised, Layout, State


class IdentityDenoiser:
    """Hand every gradient on as it is.

    Example:
        >>> IdentityDenoiser().coefficient_names
        ()
    """

    coefficient_names: tuple[str, ...] = ()

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        """An empty state."""
        return State({}, {})

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        """Return ``gradient`` itself, with no gain and no decay."""
        return Denoised(gradient, None, None, state)
