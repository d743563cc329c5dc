"""Processes that train together: the same weights as one, and no silent losses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from denograd.meta import (
    EpisodeDistribution,
    MetaTrainer,
    MetaTrainingError,
    PriorFamily,
    Processes,
    TrainerConfig,
)
from denograd.meta.cli import run_meta_training

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo, signals and /proc")

RUN = """
import os, signal, sys
from pathlib import Path
import torch
from denograd.data import builtin_table
from denograd.meta import *

processes = Processes.join(torch.device("cpu"))
distribution = EpisodeDistribution(
    tasks=5, rows=(16, 20), steps=(4, 8), test_rows=20, max_features=8
)
config = TrainerConfig(
    seed=1, steps=int(sys.argv[2]), hidden=4, truncation=Truncation((2, 3)), validate_every=3,
    estimator=sys.argv[3],
)
validation = MetaValidation(
    [encode_source(builtin_table("wine"))], ("soft_tree",), rows=(16, 32), steps=5, seeds=1
)

def stop(progress, figures):
    if progress.step == 4:
        os.kill(os.getpid(), signal.SIGTERM)

def die(progress, figures):
    if progress.step == 4:
        os.kill(int(os.environ["VICTIM"]), signal.SIGKILL)

if "die" in sys.argv:
    from torch import distributed as dist
    pids = torch.zeros(2, dtype=torch.long)
    pids[processes.rank] = os.getpid()
    dist.all_reduce(pids)
    os.environ["VICTIM"] = str(int(pids[1]))
trainer = MetaTrainer(
    PriorFamily(), distribution, config, Path(sys.argv[1]), validation=validation,
    processes=processes,
)
try:
    listener = {"die": die, "stop": stop}.get(sys.argv[-1])
    trainer.run(resume="resume" in sys.argv, listener=listener)
except MetaTrainingError as error:
    print(error, file=sys.stderr, flush=True)
    sys.exit(3)
processes.leave()

def name(thread):
    try:
        return Path("/proc/self/task", thread, "comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it ended between the listing and the reading

if any("gloo" in name(thread) for thread in os.listdir("/proc/self/task")):
    # A thread that outlives the interpreter aborts the process, now and then.
    sys.exit("leave() left threads of gloo behind")
"""


def run(folder: Path, *arguments: str, together: int = 1) -> subprocess.CompletedProcess[str]:
    script = folder / "run.py"
    script.write_text(RUN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = [] if together == 1 else ["-m", "torch.distributed.run", "--standalone"]
    launcher += [] if together == 1 else ["--nproc-per-node", str(together)]
    command = [sys.executable, *launcher, str(script), *arguments]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=250
    )


@pytest.mark.parametrize("estimator", ["truncated", "pes"])
def test_two_processes_end_with_the_weights_of_one(tmp_path: Path, estimator: str) -> None:
    """And with the same meta-validation; only the rounding of sums may differ."""
    one = run(tmp_path, "one", "7", estimator)
    two = run(tmp_path, "two", "7", estimator, together=2)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    alone, together = (load_file(tmp_path / n / "checkpoint.safetensors") for n in ("one", "two"))
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-6, msg=name)
    ratios = [
        re.findall(r'"ratio": ([\d.]+)', (tmp_path / n / "history.json").read_text())
        for n in ("one", "two")
    ]
    assert len(ratios[0]) == len(ratios[1]) == 3
    assert [float(r) for r in ratios[0]] == pytest.approx([float(r) for r in ratios[1]], rel=1e-4)


def test_a_lost_process_stops_the_run_with_an_error_and_a_checkpoint(tmp_path: Path) -> None:
    lost = run(tmp_path, "run", "7", "truncated", "die", together=2)
    assert lost.returncode != 0
    assert "a process of this run was lost" in lost.stderr
    assert "--resume" in lost.stderr
    done = re.search(r"the first (\d+) meta-steps are in", lost.stderr)
    assert done is not None
    assert int(done.group(1)) == 4
    more = run(tmp_path, "run", "7", "truncated", "resume")
    assert more.returncode == 0, more.stderr
    whole = run(tmp_path, "whole", "7", "truncated")
    assert whole.returncode == 0, whole.stderr
    resumed, fresh = (load_file(tmp_path / n / "checkpoint.safetensors") for n in ("run", "whole"))
    for name, value in fresh.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path: Path) -> None:
    stopped = run(tmp_path, "run", "100000", "truncated", "stop", together=2)
    assert stopped.returncode == 0, stopped.stderr
    assert "lost" not in stopped.stderr
    with safe_open(tmp_path / "run" / "checkpoint.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["progress"])["step"] == 5


@given(st.integers(0, 200), st.integers(1, 9))
def test_shares_are_everything_once(count: int, world: int) -> None:
    shares = [range(count)[Processes(rank, world).share(count)] for rank in range(world)]
    assert [i for share in shares for i in share] == list(range(count))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_more_processes_than_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MetaTrainingError, match="3 processes for 2 tasks"):
        MetaTrainer(
            PriorFamily(),
            EpisodeDistribution(tasks=2),
            TrainerConfig(steps=1),
            tmp_path / "run",
            processes=Processes(0, 3),
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named(tmp_path: Path) -> None:
    with pytest.raises(MetaTrainingError, match="--device cuda: this machine has no GPU"):
        run_meta_training(tasks=["prior"], out=tmp_path / "run", device="cuda")
    with pytest.raises(MetaTrainingError, match="--device gpu: use cpu, cuda"):
        run_meta_training(tasks=["prior"], out=tmp_path / "run", device="gpu")
    assert not (tmp_path / "run").exists()
