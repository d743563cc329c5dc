"""Tune the rivals as the control was tuned: same tasks, same number of configurations.

For each rival of `denograd.baselines.RIVALS` that can be tuned, and each model, number of
steps and number of rows, 60 random configurations of the rival's own space run on the 16
tasks that the control's were tried on; the best eight run on the 64 others, and the lowest
mean meta-loss wins. Written after every rival; what the output holds already is not tuned
again. Needs the extra `rivals`.

    python scripts/tune_rivals.py --data ../shared/data

Denoisers are tuned with the noise that they get at use, from per-sample gradients. Tasks are
padded to common shapes; for the rivals that look at whole matrices (muon, gradient
centralisation) the padding is part of them.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _development_tables import classification_tables
from torch import Tensor
from tune_control import SIZES, STEPS, draw

from denograd.baselines import RIVALS, Rival
from denograd.baselines.rival import Settings
from denograd.baselines.stacked import final_losses, start_rival
from denograd.baselines.tuned import RIVALS_FILE, SCHEMA, read_tuned
from denograd.meta.episode import Episode
from denograd.meta.estimators import MetaLoss
from denograd.meta.family import MixedFamily, PriorFamily, TableFamily
from denograd.models.registry import KNOWN_MODELS, MODEL_NAMES

TUNABLE = tuple(name for name, rival in RIVALS.items() if rival.space)


def train(episode: Episode, rival: Rival, settings: Settings) -> Tensor:
    """Held-out loss of each task with a rival, ``(T,)``."""
    return final_losses(start_rival(episode, rival, settings), episode)


def score(episode: Episode, rival: Rival, settings: Settings) -> float:
    """The meta-loss that denoisers are trained to lower, at the end of training."""
    losses = train(episode, rival, settings).nan_to_num(nan=math.inf)
    return float(MetaLoss()(losses, episode.tasks.classes).mean())


def tune(rival: Rival, first: Episode, second: Episode, tried: int, kept: int) -> dict[str, Any]:
    """The best of some configurations, and its meta-loss."""
    rng = np.random.default_rng([0, first.steps])
    candidates = [_rounded(rival.draw(rng)) for _ in range(tried)]
    best = sorted(candidates, key=lambda settings: score(first, rival, settings))[:kept]
    scores = [score(second, rival, settings) for settings in best]
    lowest = int(np.argmin(scores))
    return {"settings": best[lowest], "meta_loss": round(scores[lowest], 4)}


def _rounded(settings: Settings) -> dict[str, Any]:
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in settings.items()}


def tune_cell(
    model: str, steps: int, rows: int, rivals: Sequence[str], family: MixedFamily, out: Path,
    arguments: argparse.Namespace,
) -> None:  # fmt: skip
    """Tune rivals for one model, number of steps and size; each is written when it is done."""
    done = {(t.optimizer, t.model, t.steps, t.rows) for t in read_tuned(out, RIVALS)}
    todo = [name for name in rivals if (name, model, steps, rows) not in done]
    if not todo:
        return
    first = draw(model, steps, rows, arguments.first, family, seed=101)
    second = draw(model, steps, rows, arguments.second, family, seed=202)
    for name in todo:
        found = tune(RIVALS[name], first, second, arguments.tried, arguments.kept)
        entry = {"optimizer": name, "model": model, "steps": steps, "rows": rows, **found}
        settings = json.loads(out.read_text())["settings"] if out.exists() else []
        command = shlex.join(["python", "scripts/tune_rivals.py", *sys.argv[1:]])
        content = {"schema": SCHEMA, "made_by": command, "settings": [*settings, entry]}
        out.write_text(json.dumps(content, indent=1) + "\n")
        print(f"{name}, {model}, {steps} steps, {rows} rows: {found['meta_loss']}", flush=True)


def main() -> None:
    """Tune every rival for every model, number of steps and size, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with catalog.csv")
    parser.add_argument("--out", type=Path, default=Path("baselines") / RIVALS_FILE.name)
    parser.add_argument("--rivals", nargs="+", default=list(TUNABLE), choices=TUNABLE)
    parser.add_argument("--models", nargs="+", default=list(MODEL_NAMES), choices=KNOWN_MODELS)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--tried", type=int, default=60, help="configurations (the control: 60)")
    parser.add_argument("--first", type=int, default=16, help="tasks that all are tried on")
    parser.add_argument("--kept", type=int, default=8, help="configurations tried again")
    parser.add_argument("--second", type=int, default=64, help="tasks that these are tried on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sources = classification_tables(arguments.data, "meta_train")
    family = MixedFamily([(PriorFamily(), 0.5), (TableFamily(sources), 0.5)])
    for steps in arguments.steps:
        for model in arguments.models:
            for rows in arguments.rows:
                tune_cell(model, steps, rows, arguments.rivals, family, arguments.out, arguments)


if __name__ == "__main__":
    main()
