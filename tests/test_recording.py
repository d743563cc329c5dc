"""What an optimizer records of a run, against what it follows from."""

from __future__ import annotations

import copy
import io
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from denograd import Context, DenoGrad, Denoised, IdentityDenoiser, Layout, State, WienerDenoiser
from denograd.audit import AuditLog, RecordingError
from denograd.statistics import FEATURES

STEPS = 12
COLUMNS = [f"feature.{name}" for name in FEATURES]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Listening(WienerDenoiser):
    """Keeps the features that its net is given, and what the filter made of a gradient."""

    def __init__(self, hidden: int = 6) -> None:
        super().__init__(hidden)
        with torch.no_grad():
            self.last.weight.mul_(10)
        self.features: list[Tensor] = []
        self.pairs: list[tuple[Tensor, Tensor, Layout]] = []

    def coefficients(self, features: Tensor) -> Tensor:
        self.features.append(features.clone())
        return super().coefficients(features)

    def forward(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        result = super().forward(gradient, noise, parameter, state, context)
        self.pairs.append((gradient.clone(), result.gradient.clone(), context.layout))
        return result


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def train(net: nn.Module, optimizer: DenoGrad, steps: int = STEPS, first: int = 0) -> None:
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 3, generator=generator).to(next(net.parameters()).dtype)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), (x.sum(1) > 0).long()).backward()
        optimizer.step()


def recorded(
    every: int = 3, net: nn.Module | None = None, denoiser: Any = None, **options: Any
) -> tuple[DenoGrad, nn.Module]:
    net = small_net() if net is None else net
    base = torch.optim.AdamW(net.parameters(), lr=0.05)
    known = {"model": net, "total_steps": STEPS, "dataset_size": 40, **options}
    denoiser = Listening() if denoiser is None else denoiser
    return DenoGrad(base, denoiser, record=every, **known), net


# What is recorded.


@pytest.mark.parametrize("every", [1, 2, 3, 5, 100])
def test_exactly_every_kth_step_is_recorded(every: int) -> None:
    optimizer, net = recorded(every)
    train(net, optimizer)
    frame = optimizer.recording.to_frame()
    assert frame["step"].unique().tolist() == list(range(0, STEPS, every))
    assert (frame.groupby("step")["layer"].count() == 4).all()
    assert frame["phase"].tolist() == (frame["step"] / STEPS).tolist()
    assert frame["layer"].tolist()[:4] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert frame["elements"].tolist()[:4] == [15, 5, 10, 2]


def test_features_are_those_that_the_net_was_given() -> None:
    optimizer, net = recorded(1)
    train(net, optimizer)
    denoiser = optimizer.denoiser
    assert isinstance(denoiser, Listening)
    frame = optimizer.recording.to_frame()
    assert optimizer.recording.feature_names == FEATURES
    for step, given_features in enumerate(denoiser.features):
        rows = frame[frame["step"] == step]
        found = torch.tensor(rows[COLUMNS].to_numpy())
        assert torch.equal(found, given_features)
    assert (frame["noise_known"] == 1).all()
    assert frame["feature.rows_known"].eq(1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("known", [True, False])
def test_coefficients_follow_from_the_recorded_features(known: bool, dtype: torch.dtype) -> None:
    options = {} if known else {"model": None, "total_steps": None, "dataset_size": None}
    optimizer, net = recorded(2, net=small_net().to(dtype), **options)
    train(net, optimizer)
    net_of_it = copy.deepcopy(optimizer.denoiser)
    assert isinstance(net_of_it, WienerDenoiser)
    net_of_it = net_of_it.to(dtype)
    assert len(list(optimizer.recording.entries)) == STEPS // 2
    for entry in optimizer.recording.entries:
        at = dict(zip(entry.columns, entry.numbers.unbind(-1), strict=True))
        features = torch.stack([at[f"feature.{name}"] for name in entry.features], dim=-1)
        coefficients = torch.stack([at[name] for name in entry.coefficients], dim=-1)
        assert entry.coefficients == net_of_it.coefficient_names
        assert coefficients.dtype == dtype
        assert torch.equal(net_of_it.coefficients(features), coefficients)
    frame = optimizer.recording.to_frame()
    assert frame["phase"].notna().all() == known


def test_energies_are_sums_of_squares() -> None:
    optimizer, net = recorded(1)
    train(net, optimizer)
    denoiser = optimizer.denoiser
    assert isinstance(denoiser, Listening)
    frame = optimizer.recording.to_frame()
    for step, (plain, cleaned, layout) in enumerate(denoiser.pairs):
        rows = frame[frame["step"] == step].reset_index(drop=True)
        start = 0
        for layer, size in enumerate(layout.sizes):
            g, c = plain[start : start + size].tolist(), cleaned[start : start + size].tolist()
            start += size
            assert rows["energy_before"][layer] == pytest.approx(sum(x * x for x in g), rel=1e-4)
            assert rows["energy_after"][layer] == pytest.approx(sum(x * x for x in c), rel=1e-4)
            gone = sum((x - y) ** 2 for x, y in zip(g, c, strict=True))
            assert rows["energy_removed"][layer] == pytest.approx(gone, rel=1e-4)
            kept = sum(x * x for x in c) / sum(x * x for x in g)
            assert rows["energy_kept"][layer] == pytest.approx(kept, rel=1e-4)


def test_a_denoiser_without_features_records_the_rest() -> None:
    optimizer, net = recorded(4, denoiser=IdentityDenoiser())
    train(net, optimizer)
    recording = optimizer.recording
    assert recording.feature_names == recording.coefficient_names == ()
    frame = recording.to_frame()
    assert (frame["energy_removed"] == 0).all()
    assert (frame["energy_before"] == frame["energy_after"]).all()


def test_layers_of_another_precision_are_another_block() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    net[1].double()
    optimizer = DenoGrad(torch.optim.SGD(net.parameters(), lr=0.1), Listening(), record=1)
    net[1](net[0](torch.randn(5, 3)).double()).sum().backward()
    optimizer.step()
    frame = optimizer.recording.to_frame()
    assert frame["block"].tolist() == [0, 0, 1, 1]
    assert frame["layer"].tolist() == [f"group 0, parameter {i}" for i in range(4)]


def test_a_layer_that_is_not_finite_is_recorded_as_it_was_seen() -> None:
    optimizer, net = recorded(1)
    train(net, optimizer, steps=2)
    optimizer.zero_grad()
    net(torch.randn(8, 3)).square().mean().backward()
    first = next(net.parameters())
    assert first.grad is not None
    first.grad[0, 0] = math.inf
    optimizer.step()
    frame = optimizer.recording.to_frame()
    last = frame[frame["step"] == 2]
    assert last["fell_back"].tolist() == [1, 0, 0, 0]
    denoiser = optimizer.denoiser
    assert isinstance(denoiser, Listening)
    assert torch.equal(torch.tensor(last[COLUMNS].to_numpy()), denoiser.features[-1])


def test_the_denoiser_minimizes_in_the_record_too() -> None:
    up, down = small_net(), small_net()
    down.load_state_dict(up.state_dict())
    frames = []
    for net, maximize in ((up, True), (down, False)):
        torch.manual_seed(4)
        base = torch.optim.SGD(net.parameters(), lr=0.1, maximize=maximize)
        optimizer = DenoGrad(base, Listening(), model=net, record=1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = net(torch.ones(4, 3) * torch.arange(4).view(4, 1)).square().mean()
            (-loss if maximize else loss).backward()
            optimizer.step()
        frames.append(optimizer.recording.to_frame())
    pd.testing.assert_frame_equal(frames[0], frames[1])


# Recording changes nothing.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("denoiser", [Listening(), IdentityDenoiser()], ids=["wiener", "identity"])
def test_training_is_the_same_bit_for_bit(denoiser: Any, dtype: torch.dtype) -> None:
    start = small_net().to(dtype)
    nets = []
    for every in (0, 1, 3):
        optimizer, net = recorded(every, copy.deepcopy(start), copy.deepcopy(denoiser))
        train(net, optimizer)
        nets.append(net)
    assert not torch.equal(next(start.parameters()), next(nets[0].parameters()))
    for net in nets[1:]:
        for p, q in zip(nets[0].parameters(), net.parameters(), strict=True):
            assert torch.equal(p, q)


def test_nothing_is_kept_when_it_is_off() -> None:
    optimizer, net = recorded(0)
    train(net, optimizer)
    assert len(optimizer.recording) == 0
    assert "recording" not in optimizer.state_dict()["denograd"]
    assert optimizer.recording is optimizer.audit


@pytest.mark.parametrize("value", [-1, 1.5, True, "10", None])
def test_what_record_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=rf"DenoGrad: record={value!r}; it must be a whole number"):
        recorded(value)


# Bounded memory.


@given(
    keep=st.integers(1, 8),
    written=st.lists(st.integers(1, 3), min_size=0, max_size=12),
    late=st.booleans(),
)
@settings(max_examples=40)
def test_only_the_newest_records_are_kept(keep: int, written: list[int], late: bool) -> None:
    log = AuditLog(1, None if late else keep)
    layout, one = Layout((2,), (1,)), torch.ones(1)
    for step, blocks in enumerate(written):
        for block in range(blocks):
            result = Denoised(torch.ones(2), None, None, State({}, {}))
            log.record(step, ["a"], [], layout, torch.ones(2), result, one, one, block=block)
    log.keep = keep
    steps = log.to_frame()["step"].unique().tolist()
    assert steps == list(range(len(written)))[-keep:]
    assert len(log) == sum(written[-keep:])


@pytest.mark.parametrize("value", [0, -2, 1.5, True])
def test_what_keep_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=f"keep={value!r}"):
        AuditLog(1, keep=value)


# Checkpoints, copies, files.


def test_a_resumed_run_has_one_recording() -> None:
    straight, net = recorded(3)
    start = copy.deepcopy(net.state_dict())
    weights = copy.deepcopy(straight.denoiser)
    train(net, straight)

    first = small_net()
    first.load_state_dict(start)
    one, _ = recorded(3, first, copy.deepcopy(weights))
    train(first, one, steps=7)
    file = io.BytesIO()
    torch.save([first.state_dict(), one.state_dict()], file)
    train(first, one, steps=2, first=7)
    file.seek(0)
    parameters, saved = torch.load(file, weights_only=True)

    second = small_net()
    second.load_state_dict(parameters)
    two, _ = recorded(3, second, copy.deepcopy(weights))
    train(second, two, steps=1)
    second.load_state_dict(parameters)
    two.load_state_dict(saved)
    train(second, two, steps=STEPS - 7, first=7)
    pd.testing.assert_frame_equal(two.recording.to_frame(), straight.recording.to_frame())


def test_a_checkpoint_without_a_recording_empties_it() -> None:
    silent, net = recorded(0)
    train(net, silent)
    optimizer, other = recorded(2)
    train(other, optimizer)
    optimizer.load_state_dict(silent.state_dict())
    assert len(optimizer.recording) == 0
    assert optimizer.recording.record_every == 2


def test_a_recording_of_another_schema_changes_nothing() -> None:
    optimizer, net = recorded(2)
    train(net, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["denograd"]["recording"]["schema"] = 9
    before = optimizer.recording.to_frame()
    with pytest.raises(ValueError, match="recording of schema 9"):
        optimizer.load_state_dict(saved)
    pd.testing.assert_frame_equal(optimizer.recording.to_frame(), before)


def test_a_saved_recording_shares_no_memory() -> None:
    optimizer, net = recorded(2)
    train(net, optimizer)
    saved = optimizer.state_dict()["denograd"]["recording"]
    saved["entries"][0][-1].zero_()
    assert next(optimizer.recording.entries).numbers.abs().sum() > 0


def test_a_copy_records_by_itself() -> None:
    optimizer, net = recorded(2)
    train(net, optimizer, steps=4)
    twin, copied = copy.deepcopy((optimizer, net))
    train(copied, twin, steps=4, first=4)
    assert len(optimizer.recording) == 8
    assert len(twin.recording) == 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_file_holds_every_number(tmp_path: Path, dtype: torch.dtype) -> None:
    optimizer, net = recorded(2, net=small_net().to(dtype))
    train(net, optimizer)
    path = tmp_path / "deep" / "run.json"
    optimizer.recording.save(path)
    again = AuditLog.read(path)
    assert again.feature_names == optimizer.recording.feature_names
    assert again.coefficient_names == optimizer.recording.coefficient_names
    for one, two in zip(again.entries, optimizer.recording.entries, strict=True):
        assert one[:-1] == two[:-1]
        assert torch.equal(one.numbers.to(dtype), two.numbers)


def test_a_table_for_a_spreadsheet(tmp_path: Path) -> None:
    optimizer, net = recorded(2)
    train(net, optimizer)
    optimizer.recording.save(tmp_path / "run.csv")
    read = pd.read_csv(tmp_path / "run.csv")
    frame = optimizer.recording.to_frame()
    assert list(read.columns) == list(frame.columns)
    pd.testing.assert_frame_equal(read, frame, check_dtype=False, rtol=1e-6)


def test_a_file_without_nan(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    optimizer = DenoGrad(torch.optim.SGD(net.parameters(), lr=0.1), "identity", record=1)
    (net(torch.ones(3, 2)) * 0.0).sum().backward()
    optimizer.step()
    assert optimizer.recording.to_frame()["cosine"].isna().all()
    optimizer.recording.save(tmp_path / "run.json")
    assert "NaN" not in (tmp_path / "run.json").read_text()
    assert AuditLog.read(tmp_path / "run.json").to_frame()["cosine"].isna().all()


def test_files_that_are_refused(tmp_path: Path) -> None:
    optimizer, net = recorded(4)
    train(net, optimizer)
    with pytest.raises(ValueError, match=r"must end in \.csv for a table"):
        optimizer.recording.save(tmp_path / "run.parquet")
    path = tmp_path / "run.json"
    optimizer.recording.save(path)
    good = json.loads(path.read_text())

    def refused(found: Any, message: str) -> None:
        path.write_text(found if isinstance(found, str) else json.dumps(found))
        with pytest.raises(RecordingError, match=message):
            AuditLog.read(path)

    refused("{", "no JSON file")
    refused([1], "nothing of a recording")
    refused({**good, "schema": 7}, "schema 7")
    refused({**good, "entries": [{}]}, "damaged")
    short = copy.deepcopy(good)
    short["entries"][0]["numbers"][1] = short["entries"][0]["numbers"][1][:-1]
    refused(short, "damaged|wrong length")
    less = copy.deepcopy(good)
    less["entries"][0]["layers"].pop()
    refused(less, "rows of the wrong length")
    for key, value, message in (
        ("layers", ["weight"], "no text"),
        ("features", None, "no text"),
        ("elements", "8", "no numbers"),
    ):
        odd = copy.deepcopy(good)
        odd["entries"][0][key][0] = value
        refused(odd, message)
    odd = copy.deepcopy(good)
    odd["entries"][0]["elements"].append(8)
    refused(odd, "rows of the wrong length")
    with pytest.raises(RecordingError, match="no such file"):
        AuditLog.read(tmp_path / "none.json")
