"""Analytic denoisers: published filters of a gradient that need no learning.

All keep to the protocol `denograd.Denoiser`, so they run in `denograd.DenoGrad` and, on
stacked tasks, in the engines of `denograd.meta`.
"""

from denograd.baselines.analytic.and_mask import AndMaskDenoiser, and_mask, expected_agreement
from denograd.baselines.analytic.evidence import EvidenceStopDenoiser, evidence_criterion
from denograd.baselines.analytic.gsnr import GsnrDenoiser
from denograd.baselines.analytic.msvag import MsvagDenoiser
from denograd.baselines.analytic.rolling_median import RollingMedianDenoiser
from denograd.baselines.analytic.sgdf import SgdfDenoiser

__all__ = [
    "AndMaskDenoiser",
    "EvidenceStopDenoiser",
    "GsnrDenoiser",
    "MsvagDenoiser",
    "RollingMedianDenoiser",
    "SgdfDenoiser",
    "and_mask",
    "evidence_criterion",
    "expected_agreement",
]
