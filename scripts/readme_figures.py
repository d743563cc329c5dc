"""Measure the default denoiser on the demo's tables, and write the README's figures.

Runs `denograd.evaluation.evaluate` on breast_cancer, wine and digits3 with the tuned
control (`adamw`), torch's default AdamW (rate 0.001), AdamW with a rate of 0.01
(`denograd:identity`) and the default denoiser, and puts means over tables, models and seeds
between the markers of README.md. Interrupted, it goes on where it stopped.

    python scripts/readme_figures.py
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from _benchmark_page import LABELS
from _page import around_figures

from denograd.base import settings_by_model
from denograd.data import builtin_table
from denograd.denoisers import read_card
from denograd.evaluation import EvaluationConfig, evaluate

TABLES = ("breast_cancer", "wine", "digits3")
OPTIMIZERS = ("adamw", "adamw_default", "denograd:identity", "denograd")


def means(results: pd.DataFrame) -> str:
    """Mean log loss and accuracy of each optimizer at each size, as Markdown."""
    sizes = sorted(results["n_train"].unique())
    head = "| optimizer | " + " | ".join(f"{size} rows" for size in sizes) + " |"
    lines = [head, "|---" * (len(sizes) + 1) + "|"]
    grouped = results.groupby(["optimizer", "n_train"])[["log_loss", "accuracy"]].mean()
    for name in OPTIMIZERS:
        cells = [grouped.loc[(name, size)] for size in sizes]
        shown = " | ".join(f"{c['log_loss']:.3f} / {100 * c['accuracy']:.1f} %" for c in cells)
        lines.append(f"| {LABELS[name]} | {shown} |")
    return "\n".join(lines)


def comparison(results: pd.DataFrame) -> str:
    """A sentence on the denoiser against each rival; a case is a table, model and size."""
    keys = ["dataset", "model", "n_train"]
    layout = {"index": keys, "columns": "optimizer", "values": "log_loss"}
    cases = results.pivot_table(**layout, aggfunc="mean")
    spread = results.pivot_table(**layout, aggfunc="std")
    sentences = []
    for rival in OPTIMIZERS[:-1]:
        ratio = cases["denograd"] / cases[rival]
        worst = ratio.idxmax()
        steadier = float(np.exp(np.log(spread["denograd"] / spread[rival]).mean()))
        sentences.append(
            f"- Against *{LABELS[rival]}*: lower log loss in {int((ratio < 1).sum())} of "
            f"{len(ratio)} cases, geometric mean of the ratio {np.exp(np.log(ratio).mean()):.3f}, "
            f"worst case {ratio.max():.2f} ({worst[0]}, {worst[1]}, {worst[2]} rows); standard "
            f"deviation over seeds, ratio {steadier:.2f}."
        )
    return "\n".join(sentences)


def main() -> None:
    """Run the comparison and rewrite the README's section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/readme"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=-1)
    arguments = parser.parse_args()
    config = EvaluationConfig(
        models=("soft_tree", "attention"),
        optimizers=OPTIMIZERS,
        sizes=(32, 64, 128),
        seeds=arguments.seeds,
    )
    done = evaluate(
        [builtin_table(name) for name in TABLES],
        config,
        arguments.out,
        jobs=arguments.jobs,
        command="python scripts/readme_figures.py",
    )
    pictures = Path("docs/images")
    pictures.mkdir(parents=True, exist_ok=True)
    for picture in done.pictures:
        shutil.copy(picture, pictures / f"demo-{picture.name}")
    card = read_card("default")
    validation = card["figures"]["meta_validation"]
    by_model = ", ".join(f"`{k}` {v:.3f}" for k, v in validation["by_model"].items())
    trained = ", ".join(f"`{name}`" for name in card["training"]["distribution"]["models"])
    closing = (
        f"On {len(validation['by_table'])} other tables, most of them with a weaker signal, which "
        "picked the weights and the base's rates but were not trained on (meta-validation, 16 to "
        f"256 rows), the geometric mean of the ratio to the control is {validation['ratio']:.3f}; "
        f"{100 * validation['wins']:.0f} % of the cells are below 1, and the worst is "
        f"{validation['worst']:.2f}. By architecture: {by_model} (from the card, `denograd "
        f"denoisers default`). Meta-training saw {trained} alone."
    )
    bases = settings_by_model("default", config.models)
    (name,) = {base["name"] for base in bases.values()}
    rates = ", ".join(f"`{model}` {base['lr']:g}" for model, base in bases.items())
    section = f"""Mean log loss (nats) and accuracy on test rows over {len(TABLES)} tables
({", ".join(TABLES)}), 2 models and {arguments.seeds} seeds, {config.steps} steps; made by
`python scripts/readme_figures.py`. None of the tables was meta-trained on. DenoGrad runs around
{name} with the rate that its card recommends, the same on every table and size ({rates}):

{means(done.results)}

{comparison(done.results)}

![Log loss, ratio to the control, case by case](docs/images/demo-ratios.png)

{textwrap.fill(closing, 100, break_on_hyphens=False)}"""
    readme = Path("README.md")
    before, after = around_figures(readme)
    readme.write_text(f"{before}{section}{after}", encoding="utf-8")
    print(section)


if __name__ == "__main__":
    main()
