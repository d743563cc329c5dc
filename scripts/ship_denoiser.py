"""Score a meta-trained denoiser on meta-validation and put it into the package.

The learning rate of the base that its card recommends is the one, of those given, with the
lowest geometric mean of held-out log loss to the tuned control. An architecture that gains one
per cent or more from another rate has that one in the card, for itself. The card then says how
the denoiser does at every one of them. One that does not read the noise within the batch is judged
without it. Killed and started again, it judges nothing twice.

    python scripts/ship_denoiser.py runs/default/denoiser.safetensors --data ../shared/data
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from _development_tables import (
    KINDS,
    classification_tables,
    measured_tables,
    sequence_tables,
)
from _journal import write_json
from joblib import Parallel, delayed

from denograd import baselines, denoisers, meta, models
from denograd.baselines import read_control
from denograd.baselines.control import control_file
from denograd.denoisers import WienerDenoiser, load_denoiser, read_card, save_denoiser
from denograd.meta.tables import SourceTable
from denograd.meta.validation import Judged, MetaValidation, Score, score_of
from denograd.models.registry import KNOWN_MODELS

WEIGHTS = Path("denograd/denoisers/weights")


def judges(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Architectures that a control is tuned for: of sequences the one that is for them."""
    if arguments.sequences:
        return ("temporal_attention",)
    tuned = read_control(control_file(arguments.measured))
    return tuple(dict.fromkeys(entry.model for entry in tuned))


def add_targets(parser: argparse.ArgumentParser) -> None:
    """The options that say what a denoiser is judged on."""
    targets = parser.add_mutually_exclusive_group()
    targets.add_argument(
        "--measured", action="store_true", help="targets that are numbers, in place of classes"
    )
    targets.add_argument(
        "--sequences", action="store_true", help="series with their channels, in place of tables"
    )


COMPUTED = {"schema", "kind", "features", "coefficients", "config", "tensors", "sha256"}

MATTERS = 0.99
"""Of the ratio at the common rate: what an architecture must reach to have a rate of its own."""


def choose_rates(scores: Mapping[float, Score]) -> tuple[float, dict[str, float]]:
    """The best rate for all architectures, and the rates of those that want another."""
    best = min(scores, key=lambda rate: scores[rate].ratio)
    own = {}
    for model, common in scores[best].by_model.items():
        rate = min(scores, key=lambda r, m=model: scores[r].by_model[m])
        if scores[rate].by_model[model] <= MATTERS * common:
            own[model] = rate
    return best, own


def code() -> str:
    """Tells apart what runs an episode: the sources, and the settings of the control."""
    digest = hashlib.sha256()
    for package in (denoisers, models, meta, baselines):
        folder = Path(package.__path__[0])
        for path in sorted([*folder.rglob("*.py"), *folder.glob("*.json")]):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def judge(
    denoiser: WienerDenoiser,
    tables: Sequence[SourceTable],
    model: str,
    seeds: int,
    rates: Sequence[float],
    folder: Path,
) -> dict[float, dict[Judged, float]]:
    """Log ratios to the control of one architecture's cells, for each rate of the base.

    Each rate is on disk before the next begins, and is read from there if the same code judged
    the same denoiser by the same tables.
    """
    torch.set_num_threads(1)
    validation = MetaValidation(tables, [model], seeds=seeds, noise=denoiser.within_batch)
    judged_by = f"{code()}, {denoiser.config}, {validation.fingerprint()}"
    found = {}
    for rate in rates:
        path = folder / f"{model}-{rate:g}-{seeds}.json"
        if path.exists() and (read := json.loads(path.read_text()))["judges"] == judged_by:
            found[rate] = {Judged(*cell): ratio for cell, ratio in read["log_ratios"]}
            show(f"{model}, rate {rate:g}, from {path}", score_of(found[rate]))
            continue
        found[rate] = validation.log_ratios(denoiser, learning_rate=rate)
        content = {"judges": judged_by, "log_ratios": list(found[rate].items())}
        write_json(path, content)
        show(f"{model}, rate {rate:g}", score_of(found[rate]))
    return found


def tables_to_judge_by(
    arguments: argparse.Namespace, kinds: Sequence[str] = ("classes", "series")
) -> list[SourceTable]:
    """The tables of meta-validation that `add_targets` asks for; of classes some kinds."""
    if arguments.measured:
        return measured_tables(arguments.data, "meta_validation")
    if arguments.sequences:
        return sequence_tables(arguments.data, "meta_validation")
    return classification_tables(arguments.data, "meta_validation", kinds)


def folder_of(arguments: argparse.Namespace, denoiser: str | Path) -> Path:
    """Where what has been judged of a denoiser stands; made if it is not there."""
    digest = read_card(denoiser)["sha256"][:12]
    kind = "-measured" if arguments.measured else "-sequences" if arguments.sequences else ""
    folder: Path = arguments.out / f"{digest}{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def show(title: str, score: Score) -> None:
    """Print a score."""
    print(
        f"{title}: ratio {score.ratio:.4f}, wins {score.wins:.3f}, worst {score.worst:.2f}, "
        f"{score.by_model}, {score.by_rows}",
        flush=True,
    )


def main() -> None:
    """Score, choose the base's learning rate, and save with a card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("denoiser", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with catalog.csv")
    parser.add_argument("--name", default="default")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2, 3e-2])
    parser.add_argument(
        "--seeds", type=int, default=4, help="draws; one or two cannot tell one per cent"
    )
    parser.add_argument("--intended-use", help="one sentence for the card")
    parser.add_argument("--not-for", help="one sentence for the card")
    parser.add_argument(
        "--models", nargs="+", choices=KNOWN_MODELS, help="default: all that a control is tuned for"
    )
    parser.add_argument("--kinds", nargs="+", default=["classes", "series"], choices=KINDS)
    add_targets(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ship"), help="folder of what has been judged"
    )
    parser.add_argument("--jobs", type=int, default=1, help="architectures at the same time")
    arguments = parser.parse_args()
    denoiser = load_denoiser(arguments.denoiser)
    tables = tables_to_judge_by(arguments, arguments.kinds)
    folder = folder_of(arguments, arguments.denoiser)
    by_model = Parallel(n_jobs=arguments.jobs)(
        delayed(judge)(denoiser, tables, model, arguments.seeds, arguments.rates, folder)
        for model in arguments.models or judges(arguments)
    )
    cells = {rate: {k: v for one in by_model for k, v in one[rate].items()} for rate in by_model[0]}
    scores = {rate: score_of(found) for rate, found in cells.items()}
    for rate, score in scores.items():
        show(f"rate {rate:g}", score)
    best, own = choose_rates(scores)
    chosen = score_of({c: cells[own.get(c.model, best)][c] for c in cells[best]})
    show(f"rate {best:g}, and {own}", chosen)
    card = {k: v for k, v in read_card(arguments.denoiser).items() if k not in COMPUTED}
    card.pop("denograd_version", None)
    card.pop("base", None)  # It would win over the one that is chosen here.
    card["training"]["base"] = {"name": "adamw", "lr": best, "weight_decay": 0.0}
    if own:
        card["training"]["base"]["lr_by_model"] = own
    card["figures"] = {
        "meta_validation": asdict(chosen),
        "meta_validation_ratio_by_base_rate": {
            f"{rate:g}": {"all": score.ratio, **score.by_model} for rate, score in scores.items()
        },
        "command": shlex.join(["python", *sys.argv]),
    }
    for key in ("intended_use", "not_for"):
        if getattr(arguments, key):
            card[key] = getattr(arguments, key)
    save_denoiser(denoiser, WEIGHTS / f"{arguments.name}.safetensors", card)


if __name__ == "__main__":
    main()
