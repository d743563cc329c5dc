"""The audit log, against what it is told."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from denograd import DenoGrad, Denoised, Layout, State, WienerDenoiser
from denograd.audit import MEASURES, AuditLog

LAYOUT = Layout((2, 3), (1, 1))
PLACE = ["step", "phase", "block", "layer", "elements"]


def filled(gain: torch.Tensor | None, coefficients: torch.Tensor | None) -> AuditLog:
    log = AuditLog()
    plain = torch.tensor([3.0, 4.0, 1.0, 0.0, 0.0])
    cleaned = torch.tensor([3.0, 0.0, -2.0, 0.0, 0.0])
    result = Denoised(cleaned, gain, None, State({}, {}), coefficients)
    known, fell_back = torch.tensor([1.0, 0.0]), torch.tensor([False, True])
    log.record(7, ["a", "b"], ["kappa"], LAYOUT, plain, result, known, fell_back)
    return log


def test_the_measures() -> None:
    gain = torch.tensor([1.0, 3.0, 0.5, 0.5, 0.5])
    frame = filled(gain, torch.tensor([[0.1], [0.2]])).to_frame()
    assert list(frame.columns) == [*PLACE, *MEASURES, "kappa"]
    assert frame["step"].tolist() == [7, 7]
    assert frame["phase"].isna().all(), "the length of the run was not told"
    assert frame["layer"].tolist() == ["a", "b"]
    assert frame["elements"].tolist() == [2, 3]
    assert frame["energy_before"].tolist() == [25.0, 1.0]
    assert frame["energy_after"].tolist() == [9.0, 4.0]
    assert frame["energy_removed"].tolist() == [16.0, 9.0]
    assert frame["energy_kept"].tolist() == pytest.approx([9 / 25, 4.0])
    assert frame["cosine"].tolist() == pytest.approx([0.6, -1.0])
    assert frame["mean_gain"].tolist() == pytest.approx([2.0, 0.5])
    assert frame["noise_known"].tolist() == [1.0, 0.0]
    assert frame["fell_back"].tolist() == [0.0, 1.0]
    assert frame["kappa"].tolist() == pytest.approx([0.1, 0.2])


def test_no_gain_is_a_gain_of_one_and_no_coefficients_no_columns() -> None:
    frame = filled(None, None).to_frame()
    assert frame["mean_gain"].tolist() == [1.0, 1.0]
    assert list(frame.columns) == [*PLACE, *MEASURES]


def test_an_empty_log() -> None:
    log = AuditLog()
    assert len(log) == 0
    assert not log.due(0)
    assert log.to_frame().empty
    assert "cosine" in log.to_frame().columns


@pytest.mark.parametrize("value", [-1, 1.5, True, "2"])
def test_what_record_every_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=f"record_every={value!r}"):
        AuditLog().record_every = value


def test_recording_a_run() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    plain = copy.deepcopy(model)
    runs = []
    for net, every in ((model, 2), (plain, 0)):
        denoiser = WienerDenoiser(hidden=4)
        denoiser.load_state_dict(runs[0].denoiser.state_dict() if runs else denoiser.state_dict())
        optimizer = DenoGrad(torch.optim.AdamW(net.parameters()), denoiser, model=net)
        optimizer.audit.record_every = every
        for step in range(5):
            optimizer.zero_grad()
            net(torch.linspace(-1, step, 18).view(6, 3)).square().mean().backward()
            optimizer.step()
        runs.append(optimizer)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q), "recording changed the run"
    frame = runs[0].audit.to_frame()
    assert len(runs[0].audit) == len(frame) == 12
    assert len(runs[1].audit) == 0
    assert sorted(set(frame["step"])) == [0, 2, 4]
    assert frame["layer"].tolist()[:4] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    learned = [*denoiser.coefficient_names, *(f"feature.{name}" for name in denoiser.feature_names)]
    assert list(frame.columns) == [*PLACE, *MEASURES, *learned]
    assert frame.drop(columns="phase").notna().all(axis=None)
    assert (frame["noise_known"] == 1).all()
    runs[0].audit.clear()
    assert len(runs[0].audit) == 0
