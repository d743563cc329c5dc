"""Gradients that are averaged over processes: the noise of all of them, the same on each."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

from denograd import DenoGrad

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo")

ROWS, STEPS = 12, 6

RUN = """
import sys, warnings
import torch
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from denograd import DenoGrad
sys.path.insert(0, sys.argv[2])
from test_noise_processes import ROWS, STEPS, batch, network

distributed.init_process_group("gloo")
rank, world = distributed.get_rank(), distributed.get_world_size()
model = network()
wrapped = DistributedDataParallel(model)
given = model if "inner" in sys.argv else wrapped
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    optimizer = DenoGrad(
        torch.optim.AdamW(model.parameters(), lr=0.01), model=given, total_steps=STEPS,
        dataset_size=100, record=1,
    )
for step in range(STEPS):
    x, y = (part.chunk(world)[rank] for part in batch(step))
    optimizer.zero_grad()
    F.cross_entropy(wrapped(x), y).backward()
    optimizer.step()
known = optimizer.recording.to_frame()["noise_known"].mean()
torch.save(
    {
        "weights": model.state_dict(),
        "known": float(known),
        "said": [str(w.message) for w in caught if "several processes" in str(w.message)],
    },
    f"{sys.argv[1]}/{rank}.pt",
)
distributed.destroy_process_group()
"""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)).double()


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(ROWS, 4, generator=generator, dtype=torch.double)
    return x, torch.randint(3, (ROWS,), generator=generator)


def two_processes(folder: Path, *options: str) -> list[dict[str, object]]:
    """What each of two processes that share every batch came to."""
    script = folder / "run.py"
    script.write_text(RUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(script), str(folder)]
    command += [str(Path(__file__).parent), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_train_as_one_with_the_whole_batch(tmp_path: Path) -> None:
    model = network()
    optimizer = DenoGrad(
        torch.optim.AdamW(model.parameters(), lr=0.01), model=model, total_steps=STEPS,
        dataset_size=100, record=1,
    )  # fmt: skip
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert optimizer.recording.to_frame()["noise_known"].mean() == 1
    first, second = two_processes(tmp_path)
    assert first["known"] == second["known"] == 1
    assert not first["said"]
    for name, weight in model.state_dict().items():
        own = [found["weights"][name] for found in (first, second)]  # type: ignore[index]
        torch.testing.assert_close(own[0], own[1], rtol=0, atol=0)
        torch.testing.assert_close(own[0], weight, rtol=1e-6, atol=1e-8)


def test_a_model_that_is_not_wrapped_is_told_of(tmp_path: Path) -> None:
    for found in two_processes(tmp_path, "inner"):
        (said,) = found["said"]  # type: ignore[misc]
        assert "Give the wrapped model (model=ddp_model)" in said


def test_one_process_is_not_told_anything() -> None:
    assert not distributed.is_initialized()
    model = network()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DenoGrad(torch.optim.AdamW(model.parameters(), lr=0.01), model=model)
