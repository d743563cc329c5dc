"""Meta-train the default's design with parts left out, all for the same few meta-steps.

Each variant is a run of `scripts/meta_train_default.py`; the table at the end compares them
on meta-validation (soft tree and attention, 16 to 256 rows, 200 steps) with the tuned
control. A small budget: it ranks the parts, it does not show what each could reach.
Started again, it goes on with what is missing.

    python scripts/ablations.py --data ../shared/data --out runs/ablations
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

VARIANTS = {
    "full": "the default's design",
    "noise": "no noise within the batch (time statistics alone)",
    "filter": "gains without the filter",
    "gains": "the filter without gains and decay",
    "pooling": "each layer sees its own features alone",
}


def last_step(out: Path) -> int:
    """Meta-steps done at the last meta-validation of a run."""
    history = out / "history.json"
    return int(json.loads(history.read_text())[-1]["step"]) if history.exists() else 0


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with catalog.csv")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--tasks", type=int, default=16)
    arguments = parser.parse_args()
    script = Path(__file__).with_name("meta_train_default.py")
    rows = ["| variant | ratio to the control | cells won | worst cell | soft tree | attention |"]
    rows.append("|---|---|---|---|---|---|")
    for name, meaning in VARIANTS.items():
        out = arguments.out / name
        if last_step(out) < arguments.steps:
            command = [sys.executable, str(script), "--data", str(arguments.data)]
            command += ["--out", str(out), "--steps", str(arguments.steps)]
            command += ["--tasks", str(arguments.tasks)]
            command += ["--ablate", name] if name != "full" else []
            command += ["--resume"] if (out / "checkpoint.safetensors").exists() else []
            subprocess.run(command, check=True)
        last = json.loads((out / "history.json").read_text())[-1]
        models = last["by_model"]
        rows.append(
            f"| {meaning} | {last['ratio']:.3f} | {100 * last['wins']:.0f} % | "
            f"{last['worst']:.2f} | {models['soft_tree']:.3f} | {models['attention']:.3f} |"
        )
        print("\n".join(rows), flush=True)


if __name__ == "__main__":
    main()
