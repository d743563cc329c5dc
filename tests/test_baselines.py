"""Schedules, tuned settings and the registry of optimizers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import denograd
from denograd import DenoGrad, WienerDenoiser
from denograd.base import base_settings
from denograd.baselines import (
    OPTIMIZER_NAMES,
    SCHEDULES,
    BaselineError,
    check_optimizer,
    control_settings,
    describe_optimizer,
    make_optimizer,
    read_control,
    schedule_factor,
)
from denograd.baselines.control import CONTROL_FILE, REGRESSION_CONTROL_FILE
from denograd.baselines.registry import denoiser_of
from denograd.denoisers import resolve_denoiser
from denograd.models.registry import MODEL_NAMES, make_model

ENTRY = {
    "model": "soft_tree",
    "steps": 100,
    "rows": 64,
    "lr": 0.5,
    "weight_decay": 0.1,
    "schedule": "linear",
}


def control_file(tmp_path: Path, *entries: dict[str, Any], schema: object = 1) -> Path:
    path = tmp_path / "control.json"
    path.write_text(json.dumps({"schema": schema, "made_by": "a test", "settings": entries}))
    return path


def test_cosine_equals_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    for step in range(41):
        assert schedule_factor("cosine", step, 40) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


@given(st.sampled_from(SCHEDULES), st.integers(1, 1000), st.integers(0, 2000))
def test_schedules_start_at_one_and_never_rise(name: str, total: int, step: int) -> None:
    assert schedule_factor(name, 0, total) == 1.0
    now, after = (schedule_factor(name, s, total) for s in (step, step + 1))
    assert 0.0 <= after <= now <= 1.0
    if step >= total:
        assert now == pytest.approx(1.0 if name == "constant" else 0.0)


def test_linear_is_a_line() -> None:
    assert [schedule_factor("linear", s, 4) for s in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_schedule_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="name='step' is not known; use one of constant, cosine"):
        schedule_factor("step", 0, 10)
    with pytest.raises(ValueError, match="total_steps=0"):
        schedule_factor("cosine", 0, 0)


def test_the_nearest_number_of_steps_counts_in_ratios(tmp_path: Path) -> None:
    path = control_file(tmp_path, *({**ENTRY, "steps": steps} for steps in (50, 100, 400)))
    for asked, expected in ((1, 50), (70, 50), (72, 100), (190, 100), (210, 400), (9999, 400)):
        assert control_settings("soft_tree", asked, 64, path).steps == expected


def test_the_nearest_number_of_rows_counts_after_steps(tmp_path: Path) -> None:
    cells = [(50, 16), (50, 64), (100, 16), (100, 256)]
    path = control_file(tmp_path, *({**ENTRY, "steps": s, "rows": r} for s, r in cells))
    for steps, rows, expected in ((60, 30, (50, 16)), (60, 33, (50, 64)), (90, 63, (100, 16))):
        found = control_settings("soft_tree", steps, rows, path)
        assert (found.steps, found.rows) == expected


def test_unknown_model_lists_the_tuned_ones(tmp_path: Path) -> None:
    path = control_file(tmp_path, ENTRY)
    with pytest.raises(BaselineError, match=r"model='mlp'.*tuned are soft_tree.*tune_control"):
        control_settings("mlp", 100, 64, path)
    with pytest.raises(BaselineError, match="steps=0"):
        control_settings("soft_tree", 0, 64, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": -1}, r"settings\[0\]: lr is -1"),
        ({"lr": "big"}, "lr is 'big'"),
        ({"weight_decay": math.inf}, "weight_decay is inf"),
        ({"steps": 0}, "steps is 0"),
        ({"rows": 0}, "rows is 0"),
        ({"schedule": "step"}, "schedule is 'step'; it must be one of constant"),
    ],
)
def test_settings_that_make_no_sense(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(BaselineError, match=message):
        read_control(control_file(tmp_path, {**ENTRY, **change}))


def test_damaged_control_files(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="no such file; make it anew"):
        read_control(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(BaselineError, match="not readable JSON"):
        read_control(broken)
    with pytest.raises(BaselineError, match="schema is 2, not 1"):
        read_control(control_file(tmp_path, ENTRY, schema=2))
    with pytest.raises(BaselineError, match="no list 'settings'"):
        read_control(control_file(tmp_path))
    with pytest.raises(BaselineError, match="'lr' is missing"):
        read_control(control_file(tmp_path, {k: v for k, v in ENTRY.items() if k != "lr"}))


def test_shipped_settings_cover_every_model() -> None:
    assert {entry.model for entry in read_control()} >= set(MODEL_NAMES)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, after_step: Any = None) -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    for step in range(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        if after_step is not None:
            after_step(step)


def new_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_model("soft_tree", 3, 2)


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_control_is_adamw_with_the_tuned_schedule() -> None:
    ours, theirs = new_model(), new_model()
    recipe = make_optimizer("adamw", ours, model_name="soft_tree", steps=8, rows=20)
    assert recipe.scheduler is not None
    train(ours, recipe.optimizer, lambda _: recipe.scheduler.step())  # type: ignore[union-attr]

    tuned = control_settings("soft_tree", 8, 20)
    reference = torch.optim.AdamW(theirs.parameters(), lr=tuned.lr, weight_decay=tuned.weight_decay)

    def set_rate(step: int) -> None:
        reference.param_groups[0]["lr"] = tuned.lr * schedule_factor(tuned.schedule, step + 1, 8)

    train(theirs, reference, set_rate)
    assert same(ours, theirs)


@pytest.mark.parametrize("measured", [False, True])
def test_denograd_is_the_denoiser_for_the_kind_of_target(measured: bool) -> None:
    """Weights and base are its own, for single runs and for stacks."""
    name = "regression" if measured else "default"
    recipe = make_optimizer(
        "denograd", new_model(), model_name="attention", steps=20, rows=32, measured=measured
    )
    assert isinstance(recipe.optimizer, DenoGrad)
    shipped = resolve_denoiser(name)
    assert isinstance(shipped, WienerDenoiser)
    found, expected = (d.state_dict() for d in (recipe.optimizer.denoiser, shipped))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    settings = base_settings(name, "attention")
    assert recipe.optimizer.base.param_groups[0]["lr"] == settings["lr"]
    described = describe_optimizer("denograd", ("attention",), measured)
    assert described["denoiser"] == name
    assert described["attention"] == settings
    assert denoiser_of("denograd:default", measured) == "default"


@pytest.mark.parametrize("measured", [False, True])
def test_the_control_has_what_was_tuned_for_the_kind_of_target(measured: bool) -> None:
    recipe = make_optimizer(
        "adamw", new_model(), model_name="soft_tree", steps=200, rows=32, measured=measured
    )
    files = {False: CONTROL_FILE, True: REGRESSION_CONTROL_FILE}
    chosen, other = (
        control_settings("soft_tree", 200, 32, files[m]) for m in (measured, not measured)
    )
    assert recipe.optimizer.param_groups[0]["initial_lr"] == chosen.lr != other.lr
    assert describe_optimizer("adamw", ("soft_tree",), measured)["soft_tree"] == [
        asdict(entry) for entry in read_control(files[measured]) if entry.model == "soft_tree"
    ]
    with pytest.raises(BaselineError, match="'mlp' has no tuned settings"):
        check_optimizer("adamw", ("mlp",), 200, measured)


def test_defaults_are_torchs() -> None:
    ours, theirs = new_model(), new_model()
    recipe = make_optimizer("adamw_default", ours, model_name="soft_tree", steps=8, rows=20)
    train(ours, recipe.optimizer)
    train(theirs, torch.optim.AdamW(theirs.parameters()))
    assert recipe.scheduler is None
    assert same(ours, theirs)


def test_denograd_wraps_the_base_of_its_card() -> None:
    ours, theirs = new_model(), new_model()
    recipe = make_optimizer("denograd:identity", ours, model_name="soft_tree", steps=8, rows=20)
    assert isinstance(recipe.optimizer, denograd.DenoGrad)
    train(ours, recipe.optimizer)
    train(theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.0))
    assert same(ours, theirs)


@pytest.mark.parametrize("name", ["adam", "denograd:", "identity:denograd", ""])
def test_unknown_optimizers_list_the_known(name: str) -> None:
    with pytest.raises(BaselineError, match="is not known; use one of adamw, ") as error:
        check_optimizer(name, MODEL_NAMES, 100)
    assert all(known in str(error.value) for known in OPTIMIZER_NAMES)


def test_denoisers_are_checked_before_any_run() -> None:
    check_optimizer("denograd:identity", MODEL_NAMES, 100)
    with pytest.raises(BaselineError, match=r"denograd:nowhere\.safetensors.*no such file"):
        check_optimizer("denograd:nowhere.safetensors", MODEL_NAMES, 100)


def test_descriptions_tell_denoisers_apart(tmp_path: Path) -> None:
    specs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        path = tmp_path / f"{seed}.safetensors"
        denograd.save_denoiser(denograd.WienerDenoiser(hidden=4), path, {})
        specs.append(describe_optimizer(f"denograd:{path}", MODEL_NAMES))
        check_optimizer(f"denograd:{path}", MODEL_NAMES, 100)
    assert specs[0]["sha256"] != specs[1]["sha256"]
    assert json.loads(json.dumps(specs)) == specs
    assert set(describe_optimizer("adamw", MODEL_NAMES)) == set(MODEL_NAMES)
