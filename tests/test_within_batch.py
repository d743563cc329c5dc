"""Denoisers that do not read the noise within the batch, and loops that do not show it."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denograd import (
    DenoGrad,
    WienerDenoiser,
    load_denoiser,
    recommended_base,
    save_denoiser,
)
from denograd.data import builtin_table, plan_columns
from denograd.denoisers import Context, Layout, resolve_denoiser
from denograd.denoisers._base import reads_noise
from denograd.estimators import SoftTreeClassifier
from denograd.evaluation import Cell, train_cell
from denograd.evaluation.running_units import encode
from denograd.evaluation.stacked import train_stack
from denograd.meta import (
    EpisodeDistribution,
    MetaTrainer,
    PriorFamily,
    TrainerConfig,
    Truncation,
)
from denograd.models import SoftTree

BATCH = 16


def denoiser(within_batch: bool, seed: int = 3) -> WienerDenoiser:
    """Weights well away from the start, so that every coefficient matters."""
    torch.manual_seed(seed)
    found = WienerDenoiser(hidden=8, within_batch=within_batch).double()
    with torch.no_grad():
        found.last.weight.mul_(10)
    return found


def model_of(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batches(steps: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(steps, BATCH, 4, generator=generator, dtype=torch.double)
    return [(rows, rows[:, :3].argmax(1)) for rows in x]


def train(model: nn.Module, optimizer: DenoGrad, data: list[tuple[Tensor, Tensor]]) -> None:
    for x, y in data:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def test_noise_that_is_not_read_is_noise_that_is_not_known() -> None:
    layout = Layout((5, 2), (2, 1))
    torch.manual_seed(1)
    deaf, hearing = denoiser(False), denoiser(True)
    states = [net.init_state(torch.zeros(7).double(), layout) for net in (deaf, deaf, hearing)]
    for step in range(4):
        gradient, parameter = torch.randn(2, 7).double()
        noise = torch.rand(7).double()
        numbers = [torch.tensor(float(n)).double() for n in (step, 50, 64, 16)]
        known = Context(layout, torch.tensor([5.0, 2.0]).double(), torch.ones(2), *numbers)
        unknown = known._replace(noise_known=torch.zeros(2).double())
        told = deaf(gradient, noise, parameter, states[0], known)
        other = deaf(gradient, 9 * noise, parameter, states[1], unknown)
        plain = hearing(gradient, torch.zeros(7).double(), parameter, states[2], unknown)
        for name in ("gradient", "gain", "decay", "coefficients"):
            assert torch.equal(getattr(told, name), getattr(other, name))
            assert torch.equal(getattr(told, name), getattr(plain, name))
        states = [told.state, other.state, plain.state]


def test_the_optimizer_measures_no_noise_for_it_and_is_told_the_batch_size() -> None:
    with_model, without = model_of(), model_of()
    data = batches(12)
    one = DenoGrad(
        adamw(with_model), denoiser(False), model=with_model, dataset_size=64, batch_size=BATCH
    )
    assert not any(module._forward_hooks for module in with_model.modules())
    assert not any(p._backward_hooks for p in with_model.parameters())
    train(with_model, one, data)
    two = DenoGrad(adamw(without), denoiser(False), dataset_size=64, batch_size=BATCH)
    train(without, two, data)
    assert torch.equal(weights(with_model), weights(without))
    # And the number of rows is used, which takes the size of a batch to be known.
    unsized = model_of()
    train(unsized, DenoGrad(adamw(unsized), denoiser(False), dataset_size=64), data)
    assert not torch.equal(weights(unsized), weights(without))


def test_a_batch_size_that_the_model_shows_stands() -> None:
    shown, said = model_of(), model_of()
    for model, size in ((shown, None), (said, 3)):
        options: dict[str, Any] = {"model": model, "dataset_size": 64, "batch_size": size}
        train(model, DenoGrad(adamw(model), denoiser(True), **options), batches(6))
    assert torch.equal(weights(shown), weights(said))


def test_a_resumed_run_knows_the_batch_size() -> None:
    straight, first = model_of(), model_of()
    data = batches(10)
    options: dict[str, Any] = {"dataset_size": 64, "total_steps": 10, "batch_size": BATCH}
    train(straight, DenoGrad(adamw(straight), denoiser(False), **options), data)
    optimizer = DenoGrad(adamw(first), denoiser(False), **options)
    train(first, optimizer, data[:5])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = copy.deepcopy(first)
    resumed = DenoGrad(adamw(second), denoiser(False))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.batch_size == BATCH
    train(second, resumed, data[5:])
    assert torch.equal(weights(straight), weights(second))
    pair = copy.deepcopy((first, optimizer))
    assert pair[1].batch_size == BATCH
    train(*pair, data[5:])
    assert torch.equal(weights(straight), weights(pair[0]))
    # A state that was saved before there was a batch size.
    saved = optimizer.state_dict()
    del saved["denograd"]["batch_size"]
    resumed.load_state_dict(saved)
    assert resumed.batch_size == BATCH


def test_a_recording_shows_what_the_net_read() -> None:
    model = model_of()
    optimizer = DenoGrad(adamw(model), denoiser(False), model=model, record=1)
    train(model, optimizer, batches(3))
    frame = optimizer.recording.to_frame()
    assert (frame["noise_known"] == 0).all()
    assert (frame["feature.noise_known"] == 0).all()


def test_what_is_no_yes_or_no_is_refused() -> None:
    with pytest.raises(ValueError, match="within_batch='no'; it must be True or False"):
        WienerDenoiser(within_batch="no")  # type: ignore[arg-type]


def test_saved_weights_remember_it(tmp_path: Path) -> None:
    for within_batch in (True, False):
        path = tmp_path / f"{within_batch}.safetensors"
        save_denoiser(denoiser(within_batch).float(), path, {})
        assert reads_noise(load_denoiser(path)) is within_batch


def test_stacks_train_as_single_runs(tmp_path: Path) -> None:
    path = tmp_path / "deaf.safetensors"
    save_denoiser(denoiser(False).float(), path, {})
    table = builtin_table("wine")
    cells = [Cell("wine", "soft_tree", f"denograd:{path}", 40, seed) for seed in range(2)]
    data = []
    for cell in cells:
        split = table.split([40], cell.seed)
        data.append(encode(table, plan_columns(table), split.train[40], split.test))
    stack = train_stack(cells, data, 8, BATCH)
    assert stack.notes == []
    for cell, rows, found in zip(cells, data, stack.results, strict=True):
        alone = train_cell(cell, rows, 8, BATCH)
        assert found.curve["test_loss"] == pytest.approx(alone.curve["test_loss"], rel=1e-3)


def test_estimators_tell_the_batch_size() -> None:
    table = builtin_table("iris")
    model = SoftTreeClassifier(max_steps=3, batch_size=20, optimizer="denograd", random_state=0)
    model.fit(table.features, table.target)
    optimizer = model._run.optimizer
    assert isinstance(optimizer, DenoGrad)
    assert optimizer.batch_size == 20


def test_a_batch_size_of_the_users_own_stands() -> None:
    table = builtin_table("iris")

    def make(parameters: Any) -> DenoGrad:
        return DenoGrad(torch.optim.AdamW(parameters, lr=0.01), batch_size=7)

    model = SoftTreeClassifier(
        max_steps=2, batch_size=20, optimizer=make, warm_start=True, random_state=0
    )
    for _ in range(2):
        model.fit(table.features, table.target)
        optimizer = model._run.optimizer
        assert isinstance(optimizer, DenoGrad)
        assert optimizer.batch_size == 7


def test_meta_training_makes_one(tmp_path: Path) -> None:
    distribution = EpisodeDistribution(
        models=("soft_tree",), tasks=2, rows=(16, 16), steps=(3, 3), test_rows=20, max_features=6
    )
    config = TrainerConfig(steps=1, hidden=4, truncation=Truncation((2, 2)), within_batch=False)
    MetaTrainer(PriorFamily(), distribution, config, tmp_path / "run").run()
    assert not reads_noise(load_denoiser(tmp_path / "run" / "denoiser.safetensors"))


@pytest.mark.parametrize(("name", "reads"), [("default", True), ("history", False)])
def test_what_is_shipped_says_whether_it_reads_the_noise(name: str, reads: bool) -> None:
    assert reads_noise(resolve_denoiser(name)) is reads


def test_history_does_the_same_with_and_without_the_model() -> None:
    table = builtin_table("wine")
    x = torch.tensor(table.features.to_numpy()[:32], dtype=torch.float32)
    x, y = (x - x.mean(0)) / x.std(0), torch.from_numpy(table.codes[:32])
    models = []
    for given in (True, False):
        torch.manual_seed(0)
        model = SoftTree(x.shape[1], 3)
        base = recommended_base(model, "history")
        owner = model if given else None
        optimizer = DenoGrad(base, "history", model=owner, dataset_size=len(x), batch_size=BATCH)
        for step in range(6):
            rows = slice(BATCH * (step % 2), BATCH * (step % 2 + 1))
            optimizer.zero_grad()
            F.nll_loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
        models.append(model)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
