"""What each feature, and each part of the filter, is worth to a denoiser that is trained.

On the tables of `meta_validation`: one feature at a time, or all of one theme, stay at their
medians over all runs, steps and layers, so that the net cannot use them; one coefficient at a time
stays at its neutral value (0, or 1 for a factor). A figure is the ratio of log loss to that of the
denoiser as it is, a geometric mean over cells (table, model, rows), with an interval of 95 % (a
bootstrap over tables) and the share of cells that get worse. Above 1, it earns its place. The net
is not trained again, so a part whose work another could learn to do counts in full.

    python scripts/feature_worth.py --data ../shared/data --out runs/worth

Every line is on disk before the next begins; started again, it goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _denoiser_arguments import parser_of, trained_denoiser
from _development_tables import classification_tables
from _journal import write_json
from _page import changes_by_table, interval, markdown
from torch import Tensor

from denograd.base import settings_by_model
from denograd.denoisers import Context, State, WienerDenoiser, read_card
from denograd.evaluation.significance import bootstrap_interval
from denograd.meta.validation import Judged, MetaValidation
from denograd.plot._words import THEMES
from denograd.statistics import LayerStatistics

MODELS = ("soft_tree", "attention", "additive_net")


class Without(WienerDenoiser):
    """A trained denoiser with features held at values, or one coefficient at its neutral.

    Args:
        trained: whose weights it has.
        features: names of what is held, and the values that it has then.
        coefficient: name of what does nothing, or None.
    """

    def __init__(
        self,
        trained: WienerDenoiser,
        features: Mapping[str, float] | None = None,
        coefficient: str | None = None,
    ) -> None:
        disabled = [*trained.disabled, *([coefficient] if coefficient else [])]
        super().__init__(**(trained.config | {"disabled": disabled}))
        self.load_state_dict(trained.state_dict())
        self.columns = {
            self.feature_names.index(name): value for name, value in (features or {}).items()
        }

    def observe(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> tuple[Tensor, LayerStatistics, State]:
        """As the trained one does, but for the features that are held."""
        features, statistics, state = super().observe(gradient, noise, parameter, state, context)
        for column, value in self.columns.items():
            features[..., column] = value
        return features, statistics, state


class Watched(Without):
    """A trained denoiser that keeps some of the features it sees."""

    def __init__(self, trained: WienerDenoiser) -> None:
        super().__init__(trained)
        self.kept: list[Tensor] = []

    def observe(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> tuple[Tensor, LayerStatistics, State]:
        """As the trained one does."""
        features, statistics, state = super().observe(gradient, noise, parameter, state, context)
        if int(context.step.flatten()[0]) % 10 == 0:
            self.kept.append(features.flatten(0, -2))
        return features, statistics, state

    def medians(self) -> dict[str, float]:
        """Median of each feature that is not the same in all layers, tasks and steps."""
        seen = torch.cat(self.kept)
        finite = seen.isfinite().all(1)
        if not finite.all():
            print(
                f"{int((~finite).sum())} of {len(seen)} layers and steps had features without end"
            )
        seen = seen[finite]
        middle, varies = seen.median(0).values, seen.amax(0) > seen.amin(0)
        return {
            name: float(middle[i]) for i, name in enumerate(self.feature_names) if bool(varies[i])
        }


class Judges:
    """Meta-validation of each model, around the base that the denoiser's card gives it."""

    def __init__(self, data: Path, denoiser: str, models: Iterable[str], rows: list[int]) -> None:
        tables = classification_tables(data, "meta_validation")
        bases = settings_by_model(denoiser, list(models))
        self.parts = [
            (MetaValidation(tables, [model], rows=rows, seeds=1), float(base["lr"]))
            for model, base in bases.items()
        ]

    def fingerprint(self) -> list[str]:
        """Tells judges of other tables, models, sizes or rates apart."""
        return [f"{part.fingerprint()}, base {rate:g}" for part, rate in self.parts]

    def logs(self, denoiser: WienerDenoiser) -> dict[Judged, float]:
        """Log of held-out loss, denoiser over control, of each cell."""
        found: dict[Judged, float] = {}
        for validation, rate in self.parts:
            found |= validation.log_ratios(denoiser, learning_rate=rate)
        return found


def compare(changed: Mapping[Judged, float], whole: Mapping[Judged, float]) -> dict[str, Any]:
    """How much worse a denoiser got: mean ratio, its interval, and the share of cells."""
    by_table = changes_by_table(changed, whole)
    differences = np.concatenate(by_table)
    return {
        "ratio": float(np.exp(differences.mean())),
        "interval": bootstrap_interval(by_table),
        "worse": float((differences > 0).mean()),
    }


def read_done(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run of the same settings found.

    Raises:
        SystemExit: the file is of other settings.
    """
    if not file.exists():
        return {}
    before = json.loads(file.read_text())
    if before["settings"] != settings:
        raise SystemExit(f"{file}: is of another denoiser or other tables; choose another --out")
    return dict(before["found"])


def main() -> None:
    """Measure what is missing, and print a table."""
    arguments = parser_of(__doc__, MODELS, (16, 64, 256)).parse_args()
    torch.set_num_threads(1)
    trained = trained_denoiser(
        arguments.denoiser, f"feature_worth.py: {arguments.denoiser!r} has no features to leave out"
    )
    judges = Judges(arguments.data, arguments.denoiser, arguments.models, arguments.rows)
    settings = {
        "denoiser": read_card(arguments.denoiser)["sha256"], "judges": judges.fingerprint()
    }  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "worth.json"
    done = read_done(file, settings)
    watched = Watched(trained)
    whole = judges.logs(watched)
    print(f"as it is: {np.exp(np.mean(list(whole.values()))):.4f} of the control", flush=True)
    medians = watched.medians()
    held = {name: Without(trained, {name: value}) for name, value in medians.items()}
    for theme, names in THEMES.items():
        if some := {name: medians[name] for name in names if name in medians}:
            held[f"all of: {theme}"] = Without(trained, some)
    constant = [name for name in trained.feature_names if name not in medians]
    print(f"the same in all of these runs, so not judged: {', '.join(constant) or 'none'}")
    parts = [name for name in trained.coefficient_names if name not in trained.disabled]
    held |= {name: Without(trained, coefficient=name) for name in parts}
    for name, denoiser in held.items():
        if name not in done:
            done[name] = compare(judges.logs(denoiser), whole)
            write_json(file, {"settings": settings, "found": done})
        print(f"{name}: {done[name]}", flush=True)
    rows = []
    for name in sorted(held, key=lambda name: -done[name]["ratio"]):
        found = done[name]
        worse = f"{100 * found['worse']:.0f} %"
        rows.append([f"`{name}`", f"{found['ratio']:.3f}", interval(found["interval"]), worse])
    head = ["without", "ratio to the whole", "95 %", "cells that get worse"]
    print("\n" + markdown(head, rows))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
