"""Denoisers: the protocol, the identity, the per-layer filter net, and their files."""

from denograd.denoisers._base import Context, Denoised, Denoiser, Layout, State
from denograd.denoisers.card import DenoiserFileError
from denograd.denoisers.identity import IdentityDenoiser
from denograd.denoisers.storage import (
    denoiser_for,
    load_denoiser,
    read_card,
    resolve_denoiser,
    save_denoiser,
    shipped_denoisers,
)
from denograd.denoisers.wiener import WienerDenoiser

__all__ = [
    "Context",
    "Denoised",
    "Denoiser",
    "DenoiserFileError",
    "IdentityDenoiser",
    "Layout",
    "State",
    "WienerDenoiser",
    "denoiser_for",
    "load_denoiser",
    "read_card",
    "resolve_denoiser",
    "save_denoiser",
    "shipped_denoisers",
]
