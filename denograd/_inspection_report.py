"""What an inspection found, as numbers and as a folder of pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import denograd
from denograd._inspection_words import (
    TOP,
    Findings,
    in_short,
    sentence,
    table_lines,
)
from denograd.audit import AuditLog
from denograd.inspection import MULTIPLIERS, Recordings, Sensitivity, neutral
from denograd.plot._words import in_words, theme_of

EDGE = 0.2
"""The start of a run is its first fifth, the end its last."""


def findings(subject: str, found: Sensitivity, recordings: Recordings) -> Findings:
    """Sum up what the pictures show.

    Args:
        subject: what was looked at, in a sentence.
        found: from `denograd.inspection.sensitivity` on all these recordings.
        recordings: by name.
    """
    tables = {name: _rows(logs) for name, logs in recordings.items()}
    rows = pd.concat(tables.values(), ignore_index=True)
    coefficients = []
    for name in found.coefficients:
        k = found.coefficients.index(name)
        features = []
        for feature in found.top(name, TOP):
            f = found.features.index(feature)
            effect = float(found.effect[f, k])
            features.append(
                {
                    "name": feature,
                    "words": in_words(feature),
                    "sign": found.sign(feature, name),
                    "share": float(found.share[f, k]),
                    "effect": float(np.exp(effect)) if name in MULTIPLIERS else effect,
                }
            )
        coefficients.append(
            {
                "name": name,
                "words": in_words(name),
                "neutral": neutral(name),
                **_spread(rows, name),
                "features": features,
            }
        )
    energy = {}
    for name, table in tables.items():
        before = table["energy_before"]
        shares = table.assign(
            kept=table["energy_after"] / before, gone=table["energy_removed"] / before
        )
        # A gradient of zero has nothing to keep, and one that is not finite is left alone.
        finite = np.isfinite(shares[["kept", "gone"]].to_numpy(np.float64)).all(axis=1)
        shares = shares.loc[finite]
        if shares.empty:
            continue
        spread = _spread(shares, "kept")
        energy[name] = {
            "kept": spread["median"],
            "kept_start": spread["start"],
            "kept_end": spread["end"],
            "removed": float(shares["gone"].median()),
        }
    made = {name: _steps(table) for name, table in tables.items() if "update_gain" in table}
    steps = {name: numbers for name, numbers in made.items() if numbers}
    return Findings(subject, coefficients, _themes(found), energy, steps)


def _steps(table: pd.DataFrame) -> dict[str, float]:
    """What became of the base optimizer's steps; nothing if every layer fell back."""
    # The gain of an element is update_gain times what the filter leaves of its step.
    table = table.assign(taken=1 - table["mean_gain"] / table["update_gain"])
    # A layer that fell back made the base optimizer's step, whatever had been chosen.
    table = table.loc[(table["fell_back"] == 0) & np.isfinite(table["taken"].to_numpy(np.float64))]
    if table.empty:
        return {}
    factor, taken = _spread(table, "mean_gain"), _spread(table, "taken")
    return {
        "factor_start": factor["start"],
        "factor_end": factor["end"],
        "taken_start": taken["start"],
        "taken_end": taken["end"],
    }


def _themes(found: Sensitivity) -> dict[str, float]:
    """Each theme's part of the effects, averaged over the coefficients that move at all."""
    share = found.share[:, found.share.sum(0) > 0]
    parts: dict[str, float] = {}
    for feature, values in zip(found.features, share, strict=True):
        part = float(values.mean()) if len(values) else 0.0
        parts[theme_of(feature)] = parts.get(theme_of(feature), 0.0) + part
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def _rows(logs: Sequence[AuditLog]) -> pd.DataFrame:
    """Rows of some recordings, with ``over``, the part of the run that is over."""
    frames = []
    for log in logs:
        frame = log.to_frame()
        last = max(int(frame["step"].max()), 1)
        frames.append(frame.assign(over=frame["phase"].fillna(frame["step"] / last)))
    return pd.concat(frames, ignore_index=True)


def _spread(rows: pd.DataFrame, column: str) -> dict[str, float]:
    values, over = rows[column].to_numpy(np.float64), rows["over"].to_numpy(np.float64)
    start, end = values[over < EDGE], values[over >= 1 - EDGE]
    # A recording may be too short to have a start or an end of its own.
    return {
        "median": float(np.median(values)),
        "low": float(np.quantile(values, 0.1)),
        "high": float(np.quantile(values, 0.9)),
        "start": float(np.median(start if len(start) else values)),
        "end": float(np.median(end if len(end) else values)),
    }


def write_report(
    folder: Path, name: str, found: Findings, answers: Sensitivity, recordings: Recordings
) -> list[Path]:
    """Write the pictures, ``inspection.md`` and ``inspection.json``.

    Args:
        folder: where to; made if it is missing.
        name: of the denoiser.
        found: from `findings`.
        answers: from `denograd.inspection.sensitivity`.
        recordings: by name.

    Returns:
        the files, pictures first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw(folder, answers, recordings)
    written = {
        "denograd_version": denograd.__version__,
        "denoiser": name,
        **found._asdict(),
        "sensitivity": json.loads(answers.to_frame().to_json(orient="records")),
    }
    data = folder / "inspection.json"
    data.write_text(json.dumps(written, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    lines = [f"# What is inside `{name}`", "", found.subject, ""]
    lines += ["## In short", "", *(f"- {line}" for line in in_short(found)), ""]
    lines += ["## In numbers", "", *table_lines(found), ""]
    lines += [
        "## Coefficient by coefficient",
        "",
        *(f"- {sentence(c)}" for c in found.coefficients),
        "",
    ]
    for path in pictures:
        lines += [f"## {CAPTIONS[path.stem]}", "", f"![{CAPTIONS[path.stem]}]({path.name})", ""]
    page = folder / "inspection.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    return [*pictures, page, data]


CAPTIONS = {
    "sensitivity": "Which features drive which coefficient",
    "dependence": "How coefficients change with the features that move them most",
    "phase": "Coefficients over the course of training",
    "layers": "Coefficients by layer",
    "energy": "Energy of the gradient, kept and removed",
}
"""The pictures, in the order of the page."""


def draw(
    folder: Path, answers: Sensitivity, recordings: Recordings, prefix: str = ""
) -> list[Path]:
    """Save every picture as PREFIX + its name + ``.png``."""
    from denograd import plot

    drawn: dict[str, Any] = {
        "sensitivity": plot.sensitivity(answers),
        "dependence": plot.dependence(answers),
        "phase": plot.phase(recordings),
        "layers": plot.layers(recordings),
        "energy": plot.energy(recordings),
    }
    files = []
    for name, picture in drawn.items():
        files.append(folder / f"{prefix}{name}.png")
        picture.savefig(files[-1], dpi=100)
    return files
