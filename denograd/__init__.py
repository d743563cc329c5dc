"""Meta-learned gradient denoising for interpretable models on small data.

Example:
    >>> import torch, denograd
    >>> model = torch.nn.Linear(4, 2)
    >>> base = denograd.recommended_base(model)
    >>> optimizer = denograd.DenoGrad(base, model=model)
    >>> isinstance(optimizer, torch.optim.Optimizer)
    True
"""

from pathlib import Path as _Path

from denograd.base import recommended_base
from denograd.denoisers import (
    Context,
    Denoised,
    Denoiser,
    DenoiserFileError,
    IdentityDenoiser,
    Layout,
    State,
    WienerDenoiser,
    load_denoiser,
    save_denoiser,
)
from denograd.optimizer import DenoGrad
from denograd.penalties import Decorrelation

# In a checkout, meta/ and baselines/ stand beside this folder instead of inside it.
_checkout = _Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "meta").is_dir():
    __path__.append(str(_checkout))

__version__ = "0.1.0"

__all__ = [
    "Context",
    "Decorrelation",
    "DenoGrad",
    "Denoised",
    "Denoiser",
    "DenoiserFileError",
    "IdentityDenoiser",
    "Layout",
    "State",
    "WienerDenoiser",
    "load_denoiser",
    "recommended_base",
    "save_denoiser",
]
