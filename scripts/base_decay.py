"""What a weight decay of the base does to log loss, and to whether seeds explain alike.

Every third table of `meta_validation`, 32 and 128 rows, six seeds: the control, and a denoiser
around the AdamW of its card with several weight decays. A decay is given as the share of a weight
that is taken off in a step, which is the base's rate times its `weight_decay`. Consistency is the
mean Spearman correlation of feature importance over pairs of seeds, which differ in rows, initial
weights and batches. Interrupted, it goes on where it stopped.

    python scripts/base_decay.py --data ../shared/data
    python scripts/base_decay.py --data ../shared/data --denoiser runs/v/denoiser.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from benchmark import held_out_tables
from rich.console import Console

from denograd.base import base_settings
from denograd.denoisers import read_card, resolve_denoiser, save_denoiser
from denograd.evaluation import EvaluationConfig, evaluate

MODELS = ("soft_tree", "attention", "additive_net", "rule_net")


def with_decays(denoiser: str, model: str, shares: list[float], folder: Path) -> list[str]:
    """The denoiser, saved once for each decay, as optimizers of an evaluation."""
    rate = base_settings(denoiser, model)["lr"]
    named = []
    for share in shares:
        path = folder / f"{model}-{share:g}.safetensors"
        base = {"name": "adamw", "lr": rate, "weight_decay": share / rate}
        card = {k: read_card(denoiser)[k] for k in ("training", "figures")}
        save_denoiser(resolve_denoiser(denoiser), path, {**card, "base": base})
        named.append(f"denograd:{path}")
    return named


def main() -> None:
    """Evaluate, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with catalog.csv")
    parser.add_argument("--denoiser", default="default", help="a name, or a path to weights")
    parser.add_argument("--out", type=Path, default=Path("results/base-decay"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--decays", type=float, nargs="+", default=[0.0, 0.005, 0.02])
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tables = held_out_tables(arguments.data, "meta_validation")[::3]
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = [
        "| model | decay in a step | log loss, ratio to the control | lower in | consistency |"
    ]
    lines += ["|---" * 5 + "|"]
    for model in arguments.models:
        arms = with_decays(arguments.denoiser, model, arguments.decays, arguments.out)
        config = EvaluationConfig((model,), ("adamw", *arms), (32, 128), 6)
        done = evaluate(tables, config, arguments.out / model, jobs=arguments.jobs)
        for share, arm in zip(arguments.decays, arms, strict=True):
            found = done.summary["comparisons"][arm]["overall"]
            lines.append(
                f"| {model} | {share:g} | {found['log_loss_ratio']:.3f} | {found['wins']:.0%} "
                f"| {found['consistency']:.3f} (the control {found['consistency_reference']:.3f}) |"
            )
    Console(highlight=False, width=200).print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
