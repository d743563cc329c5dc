"""Seeds as one stack: the same runs as one at a time, whatever the optimizer and the model."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

import denograd
from denograd.baselines import CONTROL, CROSS_VALIDATED, RIVALS, make_optimizer
from denograd.baselines import stacked as optimizers
from denograd.data import ColumnPlan, Encoder, Table, builtin_table, nested_split, plan_columns
from denograd.denoisers import Context, Denoised, IdentityDenoiser, Layout, State
from denograd.evaluation import (
    Cell,
    CellData,
    CellResult,
    EvaluationConfig,
    evaluate,
    stacked,
    train_cell,
)
from denograd.evaluation.running_units import columns_of, encode, group_cells
from denograd.evaluation.stacked import train_stack
from denograd.evaluation.train import draw_batches, initial_model
from denograd.models.registry import KNOWN_MODELS

SEEDS = 3
TRAINED_LIKE_ADAM = ("adamw_default", "adam_default", "sgd")


@pytest.fixture
def double() -> Iterator[None]:
    """Models in double precision, where two ways to compute differ by rounding alone."""
    torch.set_default_dtype(torch.double)
    yield
    torch.set_default_dtype(torch.float32)


def wine(seed: int, size: int = 40, dtype: type[np.floating[Any]] = np.float64) -> CellData:
    table = builtin_table("wine")
    split = nested_split(table.codes, [size], seed)
    train = table.features.iloc[split.train[size]]
    encoder = Encoder(plan_columns(table)).fit(train)
    return CellData(
        encoder.transform(train).astype(dtype),  # type: ignore[arg-type]
        table.codes[split.train[size]],
        encoder.transform(table.features.iloc[split.test]).astype(dtype),  # type: ignore[arg-type]
        table.codes[split.test],
        3,
    )


def both(
    model: str, optimizer: str, data: list[CellData], steps: int, batch_size: int = 16
) -> tuple[list[CellResult], list[CellResult], list[str]]:
    """Results one at a time and as a stack, and the stack's notes."""
    size = len(data[0].y_train)
    cells = [Cell("wine", model, optimizer, size, seed) for seed in range(len(data))]
    loop = [train_cell(c, d, steps, batch_size) for c, d in zip(cells, data, strict=True)]
    done = train_stack(cells, data, steps, batch_size)
    return loop, done.results, done.notes


def check_equal(loop: list[CellResult], stack: list[CellResult], tolerance: float) -> None:
    for one, other in zip(loop, stack, strict=True):
        assert list(one.row) == list(other.row)
        for name, value in one.row.items():
            if isinstance(value, str):
                assert other.row[name] == value
            elif name != "train_seconds":
                assert other.row[name] == pytest.approx(value, rel=tolerance), name
        assert one.curve["step"] == other.curve["step"]
        for name in ("train_loss", "test_loss"):
            assert other.curve[name] == pytest.approx(one.curve[name], rel=tolerance)
        assert one.importance is not None
        assert other.importance == pytest.approx(one.importance, rel=1e-4 + tolerance, abs=1e-7)
        assert other.row["train_seconds"] > 0
        assert sorted(other.curve["seconds"]) == other.curve["seconds"]


def names_of_rivals() -> list[Any]:
    return [
        pytest.param(
            name if name in TRAINED_LIKE_ADAM else f"{name}:default",
            id=name,
            marks=pytest.mark.skipif(
                rival.package is not None and find_spec(rival.package) is None,
                reason="the extra 'rivals' is not installed",
            ),
        )
        for name, rival in RIVALS.items()
    ]


@pytest.mark.parametrize(
    "optimizer", [CONTROL, CROSS_VALIDATED, "denograd", "denograd:identity", *names_of_rivals()]
)
@pytest.mark.usefixtures("double")
def test_every_optimizer_trains_a_stack_as_it_trains_one_run(optimizer: str) -> None:
    # The engine's Adam has 1e-20 under its root: of no weight, but above double's rounding.
    loop, stack, notes = both("soft_tree", optimizer, [wine(s) for s in range(SEEDS)], steps=12)
    assert notes == []
    check_equal(loop, stack, 1e-6)
    ends = [result.curve["test_loss"][-1] for result in stack]
    assert len(set(ends)) == SEEDS


@pytest.mark.parametrize("model", KNOWN_MODELS)
@pytest.mark.usefixtures("double")
def test_every_model_trains_in_a_stack_as_alone(model: str) -> None:
    data = [wine(seed) for seed in range(2)]
    for optimizer in ("denograd", "sgd"):
        loop, stack, notes = both(model, optimizer, data, steps=8)
        assert notes == []
        check_equal(loop, stack, 1e-6)


@pytest.mark.usefixtures("double")
def test_on_few_rows_engines_and_stacks_of_any_size_agree_but_for_rounding() -> None:
    """Single precision parts them by percents within 200 steps, so it has to be rounding alone."""
    data = [wine(seed, size=16) for seed in range(4)]
    loop, four, _ = both("soft_tree", "denograd", data, steps=80, batch_size=32)
    _, two, _ = both("soft_tree", "denograd", data[:2], steps=80, batch_size=32)
    check_equal(loop, four, 1e-6)
    check_equal(two, four[:2], 1e-9)
    _, again, _ = both("soft_tree", "denograd", data[:2], steps=80, batch_size=32)
    assert [run.curve["test_loss"] for run in again] == [run.curve["test_loss"] for run in two]


@pytest.mark.parametrize("model", ["soft_tree", "attention"])
@pytest.mark.parametrize("optimizer", [CONTROL, "denograd"])
def test_in_single_precision_runs_part_no_sooner_than_rounding_makes_them(
    model: str, optimizer: str
) -> None:
    """What differs by 1e-7 at a step grows from step to step, so only the start is close."""
    data = [wine(seed, dtype=np.float32) for seed in range(2)]
    loop, stack, _ = both(model, optimizer, data, steps=100)
    for one, other in zip(loop, stack, strict=True):
        for name in ("train_loss", "test_loss"):
            expected, found = (np.array(r.curve[name]) for r in (one, other))
            assert found[:7] == pytest.approx(expected[:7], rel=1e-4)
            assert found == pytest.approx(expected, rel=0.05, abs=0.01)


class Recorder:
    """A denoiser that keeps what it is told, and changes nothing."""

    coefficient_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.told: list[tuple[Tensor, Tensor, Tensor, Context]] = []

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        return State({}, {})

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        # The optimizer counts its steps in place.
        context = context._replace(step=context.step.clone())
        self.told.append((gradient.clone(), noise.clone(), parameter.clone(), context))
        return Denoised(gradient, None, None, state)


@pytest.mark.parametrize("model", KNOWN_MODELS)
@pytest.mark.parametrize("batch_size", [16, 1])
@pytest.mark.usefixtures("double")
def test_a_denoiser_is_told_the_same_in_a_stack(
    model: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per-sample gradients against what `DenoGrad` captures, and everything of the context."""
    steps, data = 4, [wine(seed) for seed in range(2)]
    together = Recorder()
    monkeypatch.setattr(optimizers, "resolve_denoiser", lambda _: together)
    cells = [Cell("wine", model, "denograd:identity", 40, seed) for seed in range(2)]
    train_stack(cells, data, steps, batch_size)
    assert len(together.told) == steps
    for seed, rows in enumerate(data):
        alone, net = Recorder(), initial_model(model, 13, 3, seed)
        base = torch.optim.AdamW(net.parameter_groups(), lr=0.01, weight_decay=0.0)
        optimizer = denograd.DenoGrad(
            base, alone, model=net, total_steps=steps, dataset_size=len(rows.y_train)
        )
        for batch in draw_batches(40, steps, batch_size, seed):
            optimizer.zero_grad()
            x, y = torch.from_numpy(rows.x_train)[batch], torch.from_numpy(rows.y_train)[batch]
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        for one, other in zip(alone.told, together.told, strict=True):
            for expected, found in zip(one[:3], other[:3], strict=True):
                scale = float(expected.abs().max())
                torch.testing.assert_close(found[seed], expected, rtol=1e-6, atol=1e-7 * scale)
            expected_context, found_context = one[3], other[3]
            assert found_context.layout == expected_context.layout
            for name in Context._fields[1:]:
                expected = getattr(expected_context, name)
                assert torch.equal(getattr(found_context, name)[seed], expected), name
            assert bool(expected_context.noise_known.all()) == (batch_size > 1)


@pytest.mark.usefixtures("double")
def test_seeds_of_other_widths_are_not_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, other = wine(1), wine(2)
    narrow = CellData(narrow.x_train[:, :9], narrow.y_train, narrow.x_test[:, :9], narrow.y_test, 3)
    data, seen = [wine(0), narrow, other], []
    real = stacked.stacked_run

    def spy(name: str, episode: Any, **options: Any) -> Any:
        seen.append((len(episode), bool(episode.tasks.feature_mask.all())))
        return real(name, episode, **options)

    monkeypatch.setattr(stacked, "stacked_run", spy)
    loop, stack, _ = both("attention", "sgd", data, steps=6)
    assert seen == [(2, True), (1, True)]
    check_equal(loop, stack, 1e-6)
    assert [result.row["seed"] for result in stack] == [0, 1, 2]
    assert [result.row["n_features"] for result in stack] == [13, 9, 13]


@pytest.mark.usefixtures("double")
def test_results_do_not_depend_on_who_else_is_in_the_stack() -> None:
    data = [wine(seed) for seed in range(SEEDS)]
    cells = [Cell("wine", "soft_tree", "denograd", 40, seed) for seed in range(SEEDS)]
    together = train_stack(cells, data, 10, 16).results
    alone = [train_stack(cells[i : i + 1], data[i : i + 1], 10, 16).results[0] for i in range(3)]
    check_equal(alone, together, 1e-9)
    with pytest.raises(ValueError, match="differ in more than their seed"):
        train_stack([cells[0], cells[1]._replace(n_train=41)], data[:2], 10, 16)


def denoiser_with_base(path: Path, base: dict[str, Any]) -> str:
    torch.manual_seed(0)
    denograd.save_denoiser(denograd.WienerDenoiser(hidden=4), path, {"training": {"base": base}})
    return f"denograd:{path}"


def test_a_base_that_the_engine_has_not_runs_one_seed_at_a_time(tmp_path: Path) -> None:
    base = {"name": "sgd", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.9}
    name = denoiser_with_base(tmp_path / "d.safetensors", base)
    loop, stack, notes = both("soft_tree", name, [wine(s, dtype=np.float32) for s in (0, 1)], 6)
    assert len(notes) == 1
    assert "one seed at a time, because its base" in notes[0]
    assert "momentum" in notes[0]
    for one, other in zip(loop, stack, strict=True):
        assert one.curve["test_loss"] == other.curve["test_loss"]


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_run_whose_numbers_overflow_is_run_by_itself(tmp_path: Path) -> None:
    """DenoGrad puts such numbers right layer by layer, which a stack does not do."""
    name = denoiser_with_base(tmp_path / "d.safetensors", {"name": "sgd", "lr": 1e25})
    loop, stack, notes = both("soft_tree", name, [wine(s, dtype=np.float32) for s in (0, 1)], 6)
    assert [note.split(": ")[1] for note in notes] == [
        "run by itself, because a number was not finite"
    ] * 2
    for one, other in zip(loop, stack, strict=True):
        assert one.curve["test_loss"] == other.curve["test_loss"]


def test_one_run_that_diverges_leaves_the_others_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = [wine(seed, dtype=np.float32) for seed in range(SEEDS)]
    wild = data[1]
    data[1] = CellData(wild.x_train * 1e30, wild.y_train, wild.x_test, wild.y_test, 3)
    loop, stack, notes = both("additive_net", "sgd", data, steps=12)
    assert notes == []
    assert [result.diverged for result in stack] == [False, True, False]
    assert [result.diverged for result in loop] == [False, True, False]
    check_equal([loop[0], loop[2]], [stack[0], stack[2]], 1e-3)
    assert stack[1].curve["step"] == loop[1].curve["step"]
    assert stack[1].importance is None


@pytest.mark.usefixtures("double")
def test_wide_rows_are_predicted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = [wine(seed) for seed in range(2)]
    cells = [Cell("wine", "attention", "sgd", 40, seed) for seed in range(2)]
    whole = train_stack(cells, data, 4, 16).results
    monkeypatch.setattr(stacked, "_CHUNK", 2 * 13 * 7)
    check_equal(whole, train_stack(cells, data, 4, 16).results, 1e-12)


def test_a_tuned_rival_has_its_tuned_settings_in_a_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from denograd.baselines import registry

    settings = {"lr": 0.5, "weight_decay": 0.0, "schedule": "linear"}
    entry = {"optimizer": "sgd_momentum", "model": "soft_tree", "steps": 9, "rows": 40}
    path = tmp_path / "rivals.json"
    path.write_text(json.dumps({"schema": 1, "settings": [{**entry, "settings": settings}]}))
    monkeypatch.setattr(registry, "RIVALS_FILE", path)
    loop, stack, _ = both("soft_tree", "sgd_momentum", [wine(0, dtype=np.float32)], steps=9)
    check_equal(loop, stack, 1e-4)
    _, untuned, _ = both("soft_tree", "sgd_momentum:default", [wine(0, dtype=np.float32)], steps=9)
    assert stack[0].row["log_loss"] != pytest.approx(untuned[0].row["log_loss"], rel=1e-3)


def test_the_control_runs_around_the_identity() -> None:
    """No noise is measured where nothing looks at it."""
    data = [wine(0, dtype=np.float32)]
    cells = [Cell("wine", "soft_tree", CONTROL, 40, 0)]
    models = [initial_model("soft_tree", 13, 3, 0)]
    episode = stacked._episode(cells, data, models, 5, 16)
    run = optimizers.stacked_run(CONTROL, episode, model_name="soft_tree")
    assert isinstance(run, optimizers.StackedDenoiser)
    assert isinstance(run._denoiser, IdentityDenoiser)
    assert run._episode.micro == 1
    optimizer = make_optimizer(
        CONTROL, models[0], model_name="soft_tree", steps=5, rows=40
    ).optimizer
    rate = optimizer.param_groups[0]["initial_lr"]
    assert run._episode.learning_rate.item() == pytest.approx(rate)


def test_importance_is_of_columns_and_sums_their_features() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "x": rng.normal(size=60),
        "y": rng.normal(size=60),
        "c": rng.choice(list("abc"), 60),
        "c=a": rng.choice(list("uv"), 60),
        "when": pd.date_range("2020-01-01", periods=60, freq="31D"),
    })  # fmt: skip
    frame.loc[::7, "x"] = np.nan
    plan = ColumnPlan(("x", "y"), ("c", "c=a"), {"when": None})
    codes = np.arange(60) % 2
    table = Table("d", frame, pd.Series(codes))
    data = encode(table, plan, np.arange(40), np.arange(40, 60))
    names = Encoder(plan).fit(frame[:40]).feature_names_
    columns = ("x", "y", "when", "c", "c=a")
    owners = {name: columns[i] for name, i in zip(names, columns_of(names, plan), strict=True)}
    assert owners["x"] == owners["x_missing"] == "x"
    assert owners["when_days"] == owners["when_year"] == "when"
    assert owners["c=b"] == "c"
    assert [owners[name] for name in names if name.startswith("c=a=")] == ["c=a"]
    result = train_cell(Cell("d", "attention", "sgd", 40, 0), data, 3, 16)
    assert result.importance is not None
    assert len(result.importance) == 5
    # Attention's weights sum to 1 over features, so they do over columns.
    assert sum(result.importance) == pytest.approx(1, rel=1e-4)


def test_units_hold_the_seeds_of_one_thing() -> None:
    cells = [
        Cell("d", model, optimizer, 16, seed)
        for seed in range(3)
        for model, optimizer in (("soft_tree", "sgd"), ("soft_tree", "adamw"), ("forest", "fit"))
    ]
    groups = group_cells(cells, "batched")
    assert sorted(len(group) for group in groups) == [1, 1, 1, 3, 3]
    assert sorted(cell for group in groups for cell in group) == sorted(cells)
    assert all(len(group) == 1 for group in group_cells(cells, "loop"))


def test_both_engines_write_the_same_results(tmp_path: Path) -> None:
    table = builtin_table("wine")
    mixed = Table(
        "mixed", table.features.assign(c=list("abcdefg") * 25 + list("abc")), table.target
    )
    frames = {}
    for engine in ("batched", "loop"):
        config = EvaluationConfig(
            ("attention",), ("adamw", "denograd"), (24,), seeds=2, steps=8, engine=engine
        )
        console = Console(quiet=True)
        done = evaluate([mixed], config, tmp_path / engine, jobs=1, console=console)
        assert not done.errors
        frames[engine] = done.results.drop(columns="train_seconds")
    pd.testing.assert_frame_equal(frames["batched"], frames["loop"], rtol=1e-3)
