"""Rivals that are other people's optimizers, as they come, and averaging of weights.

torch's own need nothing more; ``pytorch_optimizer`` and ``schedulefree`` (Apache-2.0 both)
are the optional extra ``rivals``, and are imported when one of theirs is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from denograd.baselines.rival import (
    CONTROL_SPACE,
    DECAY,
    RATE,
    SCHEDULE,
    LogRange,
    Options,
    Rival,
    Settings,
    import_extra,
)
from denograd.baselines.weight_average import AveragedAdamW

_PACKAGE = "pytorch_optimizer"
Parameters = Sequence[nn.Parameter]


def _adamw(settings: Settings) -> dict[str, Any]:
    return {"lr": settings["lr"], "weight_decay": settings["weight_decay"]}


def _adamw_default(parameters: Parameters, settings: Settings, steps: int) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters)


def _adam_default(parameters: Parameters, settings: Settings, steps: int) -> torch.optim.Adam:
    return torch.optim.Adam(parameters)


def _sgd(parameters: Parameters, settings: Settings, steps: int) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, momentum=0.9, **_adamw(settings))


def _average(parameters: Parameters, settings: Settings, steps: int) -> AveragedAdamW:
    return AveragedAdamW(parameters, decay=settings["decay"], **_adamw(settings))


def _schedule_free(parameters: Parameters, settings: Settings, steps: int) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = import_extra("schedulefree").AdamWScheduleFree(
        parameters, warmup_steps=round(settings["warmup"] * steps), **_adamw(settings)
    )
    optimizer.train()  # type: ignore[attr-defined]
    return optimizer


def _lookahead(parameters: Parameters, settings: Settings, steps: int) -> torch.optim.Optimizer:
    base = torch.optim.AdamW(parameters, **_adamw(settings))
    optimizer: torch.optim.Optimizer = import_extra(_PACKAGE).Lookahead(
        base, k=settings["k"], alpha=settings["alpha"]
    )
    return optimizer


def _sam(parameters: Parameters, settings: Settings, steps: int) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = import_extra(_PACKAGE).SAM(
        parameters, torch.optim.AdamW, rho=settings["rho"], **_adamw(settings)
    )
    return optimizer


def _lion(parameters: Parameters, settings: Settings, steps: int) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = import_extra(_PACKAGE).Lion(parameters, **_adamw(settings))
    return optimizer


def _grokfast(parameters: Parameters, settings: Settings, steps: int) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = import_extra(_PACKAGE).GrokFastAdamW(
        parameters,
        betas=(0.9, 0.999),
        grokfast_alpha=settings["alpha"],
        grokfast_lamb=settings["lamb"],
        **_adamw(settings),
    )
    return optimizer


def _adabelief(parameters: Parameters, settings: Settings, steps: int) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = import_extra(_PACKAGE).AdaBelief(
        parameters, **_adamw(settings)
    )
    return optimizer


def _centralised(parameters: Parameters, settings: Settings, steps: int) -> torch.optim.Optimizer:
    centralise = import_extra(_PACKAGE).centralize_gradient
    optimizer = torch.optim.AdamW(parameters, **_adamw(settings))

    def before_step(_: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: Any) -> None:
        for p in parameters:
            if p.grad is not None:
                centralise(p.grad)

    optimizer.register_step_pre_hook(before_step)
    return optimizer


def _muon(parameters: Parameters, settings: Settings, steps: int) -> torch.optim.Optimizer:
    decay = settings["weight_decay"]
    matrices = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() <= 1]
    groups = [
        {"params": matrices, "use_muon": True, "lr": settings["lr"], "weight_decay": decay},
        {"params": others, "use_muon": False, "lr": settings["other_lr"], "weight_decay": decay},
    ]
    optimizer: torch.optim.Optimizer = import_extra(_PACKAGE).Muon(
        [group for group in groups if group["params"]]
    )
    return optimizer


LIBRARY: tuple[Rival, ...] = (
    Rival(
        "adamw_default",
        "Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization; torch's defaults",
        {},
        build=_adamw_default,
        elementwise=True,
    ),
    Rival(
        "adam_default",
        "Kingma and Ba 2015, Adam; torch's defaults",
        {},
        build=_adam_default,
        elementwise=True,
    ),
    Rival(
        "sgd",
        "Sutskever et al. 2013, On the importance of initialization and momentum; torch, "
        "learning rate 0.1, momentum 0.9, never tuned",
        {"lr": 0.1, "weight_decay": 0.0},
        build=_sgd,
        elementwise=True,
    ),
    Rival(
        "sgd_momentum",
        "Sutskever et al. 2013, On the importance of initialization and momentum; torch, "
        "momentum 0.9",
        {"lr": 0.1, "weight_decay": 0.0},
        # Decay of torch's SGD is part of the gradient, and is not divided by its size.
        {
            "lr": LogRange(1e-2, 2.0),
            "weight_decay": LogRange(1e-5, 1e-1, zero=0.15),
            "schedule": SCHEDULE,
        },
        build=_sgd,
        elementwise=True,
    ),
    Rival(
        "weight_average",
        "Polyak and Juditsky 1992; Tarvainen and Valpola 2017, Mean teachers: AdamW, judged "
        "by an exponential average of its weights",
        {"lr": 1e-2, "weight_decay": 0.0, "decay": 0.99},
        {**CONTROL_SPACE, "decay": Options((0.8, 0.9, 0.95, 0.98, 0.99))},
        has_modes=True,
        build=_average,
        elementwise=True,
    ),
    Rival(
        "schedule_free",
        "Defazio et al. 2024, The Road Less Scheduled (AdamW); package schedulefree",
        {"lr": 2.5e-3, "weight_decay": 0.0, "warmup": 0.0},
        {"lr": RATE, "weight_decay": DECAY, "warmup": Options((0.0, 0.05, 0.1))},
        package="schedulefree",
        has_modes=True,
        build=_schedule_free,
        elementwise=True,
    ),
    Rival(
        "lookahead",
        "Zhang et al. 2019, Lookahead Optimizer: k steps forward, 1 step back, around AdamW; "
        "package pytorch_optimizer",
        {"lr": 1e-3, "weight_decay": 0.0, "k": 5, "alpha": 0.5},
        {**CONTROL_SPACE, "k": Options((5, 10)), "alpha": Options((0.5, 0.8))},
        package=_PACKAGE,
        build=_lookahead,
        elementwise=True,
    ),
    Rival(
        "sam",
        "Foret et al. 2021, Sharpness-Aware Minimization, around AdamW; package "
        "pytorch_optimizer; two gradients a step",
        {"lr": 1e-3, "weight_decay": 0.0, "rho": 0.05},
        {**CONTROL_SPACE, "rho": LogRange(5e-3, 5e-1)},
        package=_PACKAGE,
        needs_closure=True,
        build=_sam,
    ),
    Rival(
        "lion",
        "Chen et al. 2023, Symbolic Discovery of Optimization Algorithms; package "
        "pytorch_optimizer",
        {"lr": 1e-4, "weight_decay": 0.0},
        # Its authors advise a rate 3 to 10 times below AdamW's and a decay as much above.
        {
            "lr": LogRange(1e-4, 5e-2),
            "weight_decay": LogRange(3e-3, 10.0, zero=0.15),
            "schedule": SCHEDULE,
        },
        package=_PACKAGE,
        build=_lion,
        elementwise=True,
    ),
    Rival(
        "grokfast",
        "Lee et al. 2024, Grokfast: Accelerated Grokking by Amplifying Slow Gradients (EMA), "
        "AdamW; package pytorch_optimizer",
        {"lr": 1e-3, "weight_decay": 0.0, "alpha": 0.98, "lamb": 2.0},
        # The package divides the rate by 1 + lamb.
        {
            "lr": LogRange(1e-3, 1.0),
            "weight_decay": DECAY,
            "schedule": SCHEDULE,
            "alpha": Options((0.8, 0.9, 0.98)),
            "lamb": LogRange(0.5, 5.0),
        },
        package=_PACKAGE,
        build=_grokfast,
        elementwise=True,
    ),
    Rival(
        "gradient_centralisation",
        "Yong et al. 2020, Gradient Centralization, before AdamW; package pytorch_optimizer",
        {"lr": 1e-3, "weight_decay": 0.0},
        CONTROL_SPACE,
        package=_PACKAGE,
        build=_centralised,
    ),
    Rival(
        "adabelief",
        "Zhuang et al. 2020, AdaBelief Optimizer; package pytorch_optimizer",
        {"lr": 1e-3, "weight_decay": 0.0},
        CONTROL_SPACE,
        package=_PACKAGE,
        build=_adabelief,
        elementwise=True,
    ),
    Rival(
        "muon",
        "Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks; package "
        "pytorch_optimizer; AdamW for what is no matrix",
        {"lr": 0.02, "weight_decay": 0.0, "other_lr": 3e-4},
        {**CONTROL_SPACE, "other_lr": RATE},
        package=_PACKAGE,
        build=_muon,
    ),
)
"""The records, in the order in which they are listed."""
