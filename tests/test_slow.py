"""What users start from the shell, at full length; minutes, so only for `make slow`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from denograd import load_denoiser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FIRST_COLUMNS = (
    "dataset,model,optimizer,n_train,seed,steps,log_loss,brier,calibration_error,accuracy,"
    "balanced_accuracy,roc_auc,train_seconds"
)
PNG = b"\x89PNG"


def denograd(folder: Path, arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "denograd", *arguments.split()],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def environment() -> dict[str, str]:
    """The package is found from any folder, where it is not installed too."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path))),
    }


def check_results(folder: Path, rows: int) -> pd.DataFrame:
    assert (folder / "results.csv").read_text(encoding="utf-8").startswith(f"{FIRST_COLUMNS},")
    frame = pd.read_csv(folder / "results.csv")
    assert len(frame) == rows
    assert frame.notna().all(axis=None)
    assert frame["accuracy"].between(0, 1).all()
    assert (frame["train_seconds"] > 0).all()
    assert not (folder / "errors.csv").exists()
    datasets = frame["dataset"].unique()
    for picture in ("ratios.png", *(f"curves_{name}.png" for name in datasets)):
        assert (folder / picture).read_bytes().startswith(PNG)
    return frame


def test_demo_from_end_to_end(tmp_path: Path) -> None:
    done = denograd(tmp_path, "demo --out tmp")
    # 3 tables, 2 models, 2 optimizers, 3 sizes, 5 seeds.
    frame = check_results(tmp_path / "tmp", rows=180)
    assert set(frame["dataset"]) == {"breast_cancer", "wine", "digits3"}
    assert set(frame["optimizer"]) == {"adamw", "denograd"}
    assert "denograd against adamw: lower log loss in" in done.stdout
    again = denograd(tmp_path, "demo --out tmp")
    assert "180 of 180 cells are already finished" in again.stderr


def test_meta_train_then_evaluate_with_its_weights(tmp_path: Path) -> None:
    denograd(tmp_path, "meta-train --tasks prior --steps 20 --out mine")
    weights = Path("mine", "denoiser.safetensors")
    load_denoiser(tmp_path / weights)
    card = json.loads(denograd(tmp_path, f"denoisers {weights}").stdout)
    assert card["training"]["meta_steps"] == 20
    optimizer = f"denograd:{weights}"
    denograd(
        tmp_path,
        "evaluate --builtin wine --sizes 32 --seeds 2 --steps 50 --no-context --out results "
        f"--optimizers adamw_default,{optimizer}",
    )
    frame = check_results(tmp_path / "results", rows=8)
    assert set(frame["optimizer"]) == {"adamw_default", optimizer}


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_an_interrupted_meta_training_is_saved_and_goes_on(tmp_path: Path) -> None:
    arguments = "meta-train --tasks prior --models soft_tree --out mine --steps"
    process = subprocess.Popen(
        [sys.executable, "-m", "denograd", *arguments.split(), "100000"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    events, deadline = tmp_path / "mine" / "tensorboard", time.monotonic() + 300
    try:
        while not events.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "nterrupted" in said

    def steps() -> int:
        shown = denograd(tmp_path, "denoisers mine/denoiser.safetensors").stdout
        return int(json.loads(shown)["training"]["meta_steps"])

    done = steps()
    denograd(tmp_path, f"{arguments} {done + 1} --resume")
    assert steps() == done + 1
