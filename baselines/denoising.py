"""Rivals that are analytic denoisers: records that tie each to its base and its settings."""

from __future__ import annotations

from denograd.baselines.analytic import (
    AndMaskDenoiser,
    EvidenceStopDenoiser,
    GsnrDenoiser,
    MsvagDenoiser,
    RollingMedianDenoiser,
    SgdfDenoiser,
)
from denograd.baselines.rival import (
    CONTROL_SPACE,
    SCHEDULE,
    LogRange,
    Options,
    Rival,
    Settings,
    Space,
)

_ADAMW: Settings = {"lr": 1e-2, "weight_decay": 0.0}
# Without momentum, decay in the gradient and decoupled decay are the same.
_SGD: Settings = {"lr": 0.1, "weight_decay": 0.0}
_SGD_SPACE: Space = {
    "lr": LogRange(1e-2, 2.0),
    "weight_decay": LogRange(1e-5, 1e-1, zero=0.15),
    "schedule": SCHEDULE,
}


DENOISING: tuple[Rival, ...] = (
    *(
        Rival(
            f"gsnr_{scope}",
            "Wiener 1949; Liu et al. 2020, Understanding why neural networks generalize well "
            f"through GSNR of parameters: a gain for each {scope}, from the noise in the batch",
            {**_ADAMW, "kappa": 1.0, "target": "update"},
            {
                **CONTROL_SPACE,
                "kappa": LogRange(0.1, 10.0),
                "target": Options(("gradient", "update")),
            },
            denoiser=lambda s, scope=scope: GsnrDenoiser(scope, s["target"], s["kappa"]),  # type: ignore[misc]
            base="adam",
        )
        for scope in ("element", "layer")
    ),
    Rival(
        "sgdf",
        "Yao, Zhang and Li 2023, Signal Processing Meets SGD: From Momentum to Filter",
        {**_SGD, "gamma": 1.0},
        {**_SGD_SPACE, "gamma": Options((0.5, 1.0))},
        denoiser=lambda s: SgdfDenoiser(gamma=s["gamma"]),
        base="sgd",
    ),
    Rival(
        "msvag",
        "Balles and Hennig 2018, Dissecting Adam: The Sign, Magnitude and Variance of "
        "Stochastic Gradients",
        {**_SGD, "beta": 0.9},
        {**_SGD_SPACE, "beta": Options((0.8, 0.9, 0.95))},
        denoiser=lambda s: MsvagDenoiser(s["beta"]),
        base="sgd",
    ),
    Rival(
        "and_mask",
        "Parascandolo et al. 2020, Learning explanations that are hard to vary: the expected "
        "agreement of signs, from the noise in the batch",
        {**_ADAMW, "threshold": 0.5},
        {**CONTROL_SPACE, "threshold": Options((0.2, 0.4, 0.6, 0.8))},
        denoiser=lambda s: AndMaskDenoiser(s["threshold"]),
        base="adam",
    ),
    Rival(
        "rm3",
        "Zielinski, Krishnan and Chatterjee 2020, Weak and Strong Gradient Directions: "
        "coordinate-wise median of the last three gradients (or five)",
        {**_ADAMW, "window": 3},
        {**CONTROL_SPACE, "window": Options((3, 5))},
        denoiser=lambda s: RollingMedianDenoiser(s["window"]),
        base="adam",
    ),
    Rival(
        "evidence_stop",
        "Mahsereci et al. 2017, Early Stopping Without a Validation Set",
        {**_ADAMW, "scope": "all", "smoothing": 0.9},
        {
            **CONTROL_SPACE,
            "scope": Options(("all", "layer")),
            "smoothing": Options((0.0, 0.9, 0.98)),
        },
        denoiser=lambda s: EvidenceStopDenoiser(s["scope"], s["smoothing"]),
        base="adam",
    ),
)
"""The records, in the order in which they are listed."""
