"""The rivals: what their records say, how they train, and what tunes them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import denograd
from denograd.baselines import (
    CROSS_VALIDATED,
    OPTIMIZER_NAMES,
    RIVALS,
    BaselineError,
    Recipe,
    Rival,
    TrainingRows,
    build_rival,
    check_optimizer,
    cross_validate_adamw,
    describe_optimizer,
    make_optimizer,
    registry,
)
from denograd.baselines.cross_validation import CONFIGURATIONS, candidates, draw_folds
from denograd.baselines.rival import HasModes, LogRange, Options, TwoStage
from denograd.baselines.weight_average import AveragedAdamW
from denograd.data import builtin_table, nested_split, plan_columns
from denograd.data.encoder import Encoder
from denograd.models.registry import make_model

STEPS = 12
TUNED = [rival for rival in RIVALS.values() if rival.space]


def available(rivals: Any) -> list[Any]:
    """Parameters for pytest; what is not installed is skipped."""
    return [
        pytest.param(
            rival,
            id=rival.name,
            marks=pytest.mark.skipif(
                rival.package is not None and find_spec(rival.package) is None,
                reason="the extra 'rivals' is not installed",
            ),
        )
        for rival in rivals
    ]


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def new_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_model("soft_tree", 3, 2)


X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def train(model: nn.Module, recipe: Recipe, steps: int = STEPS) -> None:
    """The loop that the docstring of `Recipe` asks for."""
    for step in range(steps):
        batch = (torch.arange(16) + step) % 24

        def gradients(batch: Tensor = batch) -> Tensor:
            recipe.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X[batch]), Y[batch])
            loss.backward()
            return loss

        gradients()
        recipe.optimizer.step(gradients if recipe.needs_closure else None)  # type: ignore[arg-type]
        if recipe.scheduler is not None:
            recipe.scheduler.step()


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("rival", available(RIVALS.values()))
def test_every_rival_trains_as_its_record_says(rival: Rival) -> None:
    model = new_model()
    settings = {**rival.defaults}
    if rival.space:
        settings |= rival.draw(np.random.default_rng(3)) | {"lr": rival.defaults["lr"]}
        if "schedule" in rival.space:
            settings["schedule"] = "linear"
    recipe = build_rival(rival, model, settings, steps=STEPS, rows=24)
    assert recipe.needs_closure == rival.needs_closure == isinstance(recipe.optimizer, TwoStage)
    assert rival.has_modes == isinstance(recipe.optimizer, HasModes)
    assert (recipe.scheduler is not None) == ("schedule" in rival.space)
    before = flat(model)
    train(model, recipe)
    trained = flat(model)
    assert trained.isfinite().all()
    assert not torch.equal(trained, before)
    with recipe.evaluating():
        judged = flat(model)
        assert torch.equal(judged, trained) == (not rival.has_modes)
    assert torch.allclose(flat(model), trained, atol=1e-6)
    if recipe.scheduler is not None:
        assert all(rate == 0 for rate in recipe.scheduler.get_last_lr())
        # The rate of an optimizer inside another one has to follow its schedule.
        train(model, recipe, steps=1)
        if rival.name != "lookahead":
            assert torch.equal(flat(model), trained)


@pytest.mark.parametrize("rival", available(RIVALS.values()))
def test_every_rival_learns_as_it_comes(rival: Rival) -> None:
    model = new_model()
    recipe = make_optimizer(
        rival.name if not rival.space else f"{rival.name}:default",
        model,
        model_name="soft_tree",
        steps=STEPS,
        rows=24,
    )

    def loss() -> float:
        with torch.no_grad(), recipe.evaluating():
            return nn.functional.cross_entropy(model(X), Y).item()

    before = loss()
    train(model, recipe, steps=60)
    assert loss() < before


@pytest.mark.parametrize("rival", available(TUNED))
def test_draws_lie_in_the_space_and_build(rival: Rival) -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        settings = rival.draw(rng)
        rival.check(json.loads(json.dumps(settings)))
        model = new_model()
        recipe = build_rival(rival, model, settings, steps=STEPS, rows=24)
        rates = [g.get("initial_lr", g["lr"]) for g in recipe.optimizer.param_groups]
        scale = 1 + settings["lamb"] if "lamb" in settings else 1
        assert rates[0] * scale == pytest.approx(settings["lr"])
        assert all(g["weight_decay"] == settings["weight_decay"]
                   for g in recipe.optimizer.param_groups)  # fmt: skip
    with pytest.raises(BaselineError, match=f"{rival.name}: lr=1000.0 is outside"):
        rival.check({**rival.draw(rng), "lr": 1000.0})
    with pytest.raises(BaselineError, match=f"{rival.name}: its settings are lr, "):
        rival.check({"lr": 0.1})


def test_records_are_whole() -> None:
    assert len(set(OPTIMIZER_NAMES)) == len(OPTIMIZER_NAMES)
    for name, rival in RIVALS.items():
        assert name == rival.name
        assert any(year in rival.source for year in map(str, range(1949, 2026)))
        assert (rival.build is None) == (rival.denoiser is not None) == (rival.base is not None)
        assert not rival.space or set(rival.defaults) == set(rival.space) - {"schedule"}


def test_denoisers_wrap_the_base_of_their_record() -> None:
    for rival in RIVALS.values():
        if rival.denoiser is None:
            continue
        optimizer = build_rival(rival, new_model(), None, steps=9, rows=24).optimizer
        assert isinstance(optimizer, denograd.DenoGrad)
        expected = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}[str(rival.base)]
        assert type(optimizer.base) is expected
        assert (optimizer.total_steps, optimizer.dataset_size) == (9, 24)


def test_what_is_drawn_is_contained() -> None:
    rng = np.random.default_rng(0)
    values = LogRange(0.01, 1.0, zero=0.5)
    drawn = [values.draw(rng) for _ in range(400)]
    assert all(values.contains(v) for v in drawn)
    assert 0.4 < np.mean([v == 0 for v in drawn]) < 0.6
    assert np.median([math.log10(v) for v in drawn if v]) == pytest.approx(-1, abs=0.15)
    assert not any(values.contains(v) for v in (0.005, 2.0, -0.1, True, "0.1", math.nan))
    assert {Options((1, 2)).draw(rng) for _ in range(50)} == {1, 2}


def test_averages_of_weights_are_the_formula() -> None:
    p, twin = (nn.Parameter(torch.ones(3, dtype=torch.double)) for _ in range(2))
    unused = nn.Parameter(torch.ones(2))
    optimizer = AveragedAdamW([p, unused], decay=0.8, lr=0.1, weight_decay=0.3)
    reference = torch.optim.AdamW([twin], lr=0.1, weight_decay=0.3)
    average = p.detach().tolist()
    for step in range(1, 60):
        p.grad = torch.tensor([0.3, -1.0, math.sin(step)], dtype=torch.double)
        twin.grad = p.grad.clone()
        optimizer.step()
        reference.step()
        rate = 1 - min(0.8, step / (step + 9))
        average = [a + rate * (x - a) for a, x in zip(average, twin.tolist(), strict=True)]
        assert torch.equal(p, twin)
        optimizer.eval()
        optimizer.eval()
        assert p.tolist() == pytest.approx(average)
        with pytest.raises(RuntimeError, match=r"call train\(\) before step\(\)"):
            optimizer.step()
        optimizer.train()
        assert torch.equal(p, twin)
    assert unused.tolist() == [1.0, 1.0]
    with pytest.raises(BaselineError, match=r"decay=1\.0; it must be at least 0 and below 1"):
        AveragedAdamW([p], decay=1.0)


@needs("pytorch_optimizer")
def test_sam_is_its_formula() -> None:
    rho, lr = 0.3, 0.05
    model, twin = new_model(), new_model()
    settings = {"lr": lr, "weight_decay": 0.1, "rho": rho}
    recipe = build_rival(RIVALS["sam"], model, settings, steps=3, rows=24)
    reference = torch.optim.AdamW(twin.parameters(), lr=lr, weight_decay=0.1)

    def slope() -> list[Tensor]:
        loss = nn.functional.cross_entropy(twin(X[batch]), Y[batch])
        return list(torch.autograd.grad(loss, list(twin.parameters())))

    for step in range(3):
        batch = (torch.arange(16) + step) % 24
        plain = slope()
        norm = math.sqrt(sum(float(g.square().sum()) for g in plain))
        start = [p.detach().clone() for p in twin.parameters()]
        with torch.no_grad():
            for p, g in zip(twin.parameters(), plain, strict=True):
                p.add_(g, alpha=rho / norm)
        there = slope()
        with torch.no_grad():
            for p, s, g in zip(twin.parameters(), start, there, strict=True):
                p.copy_(s)
                p.grad = g
        reference.step()
    train(model, recipe, steps=3)
    assert torch.allclose(flat(model), flat(twin), atol=1e-5)


@needs("pytorch_optimizer")
def test_centralised_gradients_have_no_mean() -> None:
    model = nn.Linear(4, 3)
    recipe = build_rival(RIVALS["gradient_centralisation"], model, None, steps=5, rows=24)
    nn.functional.cross_entropy(model(torch.randn(9, 4)), torch.arange(9) % 3).backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    recipe.optimizer.step()
    rows = before["weight"] - before["weight"].mean(1, keepdim=True)
    assert model.weight.grad is not None
    torch.testing.assert_close(model.weight.grad, rows)
    assert model.bias.grad is not None
    assert torch.equal(model.bias.grad, before["bias"])


@needs("schedulefree")
def test_schedule_free_warms_up_for_its_share_of_the_steps() -> None:
    settings = {"lr": 0.1, "weight_decay": 0.0, "warmup": 0.1}
    recipe = build_rival(RIVALS["schedule_free"], new_model(), settings, steps=200, rows=24)
    assert recipe.scheduler is None
    assert recipe.optimizer.param_groups[0]["warmup_steps"] == 20


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(BaselineError, match=r"pytorch_optimizer.*'denograd-optim\[rivals\]'"):
        check_optimizer("lion:default", ("soft_tree",), 10)
    with pytest.raises(BaselineError, match=r"pip install 'denograd-optim\[rivals\]'"):
        build_rival(RIVALS["lion"], new_model(), None, steps=10, rows=20)


def tuned_file(path: Path, *changes: dict[str, Any], schema: object = 1) -> Path:
    entry = {
        "optimizer": "sgd_momentum",
        "model": "soft_tree",
        "steps": 100,
        "rows": 64,
        "settings": {"lr": 0.5, "weight_decay": 0.0, "schedule": "linear"},
    }
    entries = [{**entry, **change} for change in changes]
    path.write_text(json.dumps({"schema": schema, "made_by": "a test", "settings": entries}))
    return path


def slow_rate(lr: float) -> dict[str, Any]:
    return {"lr": lr, "weight_decay": 0.0, "schedule": "linear"}


def test_tuned_settings_are_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tuned_file(
        tmp_path / "rivals.json",
        {"steps": 50, "rows": 16, "settings": slow_rate(0.11)},
        {"steps": 50, "rows": 64, "settings": slow_rate(0.12)},
        {"steps": 200, "rows": 16, "settings": slow_rate(0.13)},
    )
    monkeypatch.setattr(registry, "RIVALS_FILE", path)
    for steps, rows, expected in ((60, 20, 0.11), (90, 60, 0.12), (110, 999, 0.13)):
        recipe = make_optimizer(
            "sgd_momentum", new_model(), model_name="soft_tree", steps=steps, rows=rows
        )
        assert recipe.optimizer.param_groups[0]["initial_lr"] == expected
        assert recipe.scheduler is not None
    check_optimizer("sgd_momentum", ("soft_tree",), 100)
    described = describe_optimizer("sgd_momentum", ("soft_tree", "attention"))
    assert [t["settings"]["lr"] for t in described["soft_tree"]] == [0.11, 0.12, 0.13]
    assert described["attention"] == []
    assert json.loads(json.dumps(described)) == described
    with pytest.raises(BaselineError, match=r"not tuned for the model 'attention'.*tune_rivals"):
        check_optimizer("sgd_momentum", ("soft_tree", "attention"), 100)


def test_what_is_not_tuned_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "RIVALS_FILE", tmp_path / "none.json")
    with pytest.raises(BaselineError, match=r"take it untuned, as 'rm3:default'"):
        check_optimizer("rm3", ("soft_tree",), 100)
    check_optimizer("rm3:default", ("soft_tree",), 100)
    for name in ("sgd", "sgd:default", "adam_default", "adamw_default", CROSS_VALIDATED):
        check_optimizer(name, ("soft_tree",), 100)
    assert describe_optimizer("rm3:default", ("soft_tree",))["settings"]["window"] == 3
    for name in ("rm3:tuned", "adamw:default", "adamw_cv:default", "rm3:"):
        with pytest.raises(BaselineError, match="is not known; use one of adamw, adamw_cv, "):
            check_optimizer(name, ("soft_tree",), 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adamax"}, r"settings\[0\]: optimizer 'adamax' is not known"),
        ({"steps": 0}, "steps is 0"),
        ({"rows": 1.5}, r"rows is 1\.5"),
        ({"settings": slow_rate(50.0)}, r"lr=50\.0 is outside"),
        ({"settings": {"lr": 0.1}}, "its settings are lr, weight_decay, schedule, not lr"),
        ({"settings": 3}, "settings is 3"),
    ],
)
def test_tuned_values_that_make_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(registry, "RIVALS_FILE", tuned_file(tmp_path / "r.json", change))
    with pytest.raises(BaselineError, match=message + ".*scripts/tune_rivals"):
        check_optimizer("sgd_momentum", ("soft_tree",), 100)


def test_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.json"
    monkeypatch.setattr(registry, "RIVALS_FILE", broken)
    for text, message in (("{", "not readable JSON"), ("[]", "schema is None"),
                          ('{"schema": 1}', "no list 'settings'")):  # fmt: skip
        broken.write_text(text)
        with pytest.raises(BaselineError, match=message):
            check_optimizer("rm3", ("soft_tree",), 100)


def iris(n: int, seed: int = 0) -> tuple[TrainingRows, Tensor, Tensor]:
    """Training rows of a built-in table, and its test rows."""
    table = builtin_table("iris")
    split = nested_split(table.codes, (n,), seed)
    train_part = table.features.iloc[split.train[n]]
    encoder = Encoder(plan_columns(table)).fit(train_part)
    rows = TrainingRows(
        encoder.transform(train_part), table.codes[split.train[n]], len(table.classes), 16, seed
    )
    test = torch.from_numpy(encoder.transform(table.features.iloc[split.test]))
    return rows, test, torch.from_numpy(table.codes[split.test])


def test_folds_cut_every_class_evenly() -> None:
    y = np.array([0] * 7 + [1] * 5 + [2] * 2)
    for seed in range(4):
        folds = draw_folds(y, 3, seed)
        assert sorted(np.bincount(folds)) == [4, 5, 5]
        for label in range(3):
            counts = np.bincount(folds[y == label], minlength=3)
            assert counts.max() - counts.min() <= 1
    assert not np.array_equal(draw_folds(y, 3, 0), draw_folds(y, 3, 1))


def test_candidates_are_sixteen_and_spread_out() -> None:
    assert len(candidates()) == CONFIGURATIONS == 16
    rates, decays, schedules = zip(*candidates(), strict=True)
    assert min(rates) == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(0.2)
    assert min(decays) == 0
    assert {schedules.count(name) for name in set(schedules)} == {5, 6}


def test_cross_validation_follows_from_the_seed_and_leaves_torchs_generator() -> None:
    rows, _, _ = iris(24)
    state = torch.random.get_rng_state()
    first, second = (cross_validate_adamw(rows, "soft_tree", steps=12) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.random.get_rng_state())
    assert (first.lr, first.weight_decay, first.schedule) in candidates()
    assert 1 <= first.stop <= 12
    assert 0 < first.loss < math.log(3)
    other, _, _ = iris(24, seed=1)
    assert cross_validate_adamw(other, "soft_tree", steps=12).loss != first.loss


def test_cross_validation_trains_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from denograd.baselines import cross_validation
    from denograd.meta.engines import BatchedEngine

    rows, _, _ = iris(24)
    kept: list[Any] = []
    start = BatchedEngine.start

    def keep(self: Any, episode: Any, denoiser: Any) -> Any:
        kept.append(episode)
        return start(self, episode, denoiser)

    monkeypatch.setattr(BatchedEngine, "start", keep)
    found = cross_validation.cross_validate_adamw(rows, "soft_tree", steps=20, folds=2)
    (episode,) = kept
    chosen = candidates().index((found.lr, found.weight_decay, found.schedule))
    losses = []
    for fold in range(2):
        model = make_model("soft_tree", rows.x.shape[1], 3)
        initial = episode.model.layout.split(episode.initial[2 * chosen + fold])
        with torch.no_grad():
            for p, values in zip(model.parameters(), initial, strict=True):
                p.copy_(values.view_as(p))
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=found.lr, weight_decay=found.weight_decay
        )
        task = 2 * chosen + fold
        n = int(episode.tasks.rows[task])
        x, y = episode.tasks.x_train[task][:n], episode.tasks.y_train[task][:n]
        for step in range(found.stop):
            optimizer.param_groups[0]["lr"] = found.lr * found.factor(step, 20)
            batch = episode.batches[step, task]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        held_out = draw_folds(rows.y, 2, rows.seed) == fold
        with torch.no_grad():
            scores = model(torch.from_numpy(rows.x[held_out]))
        losses.append(
            nn.functional.cross_entropy(scores, torch.from_numpy(rows.y[held_out])).item()
        )
    assert found.loss == pytest.approx(sum(losses) / 2, rel=1e-3)


def test_cross_validated_training_stops_where_it_was_told() -> None:
    rows, x_test, y_test = iris(48)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_model("soft_tree", rows.x.shape[1], 3)
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    recipe = make_optimizer(
        CROSS_VALIDATED, model, model_name="soft_tree", steps=60, rows=48, data=rows
    )
    found = cross_validate_adamw(rows, "soft_tree", 60)
    path = []
    for _ in range(60):
        recipe.optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        recipe.optimizer.step()
        assert recipe.scheduler is not None
        recipe.scheduler.step()
        path.append(flat(model))
    for step in range(found.stop, 60):
        assert torch.equal(path[step], path[found.stop - 1])
    assert not torch.equal(path[0], path[found.stop - 1])
    with torch.no_grad():
        assert (model(x_test).argmax(1) == y_test).double().mean() > 0.8


def test_cross_validation_refuses_what_it_cannot_do() -> None:
    rows, _, _ = iris(16)
    few = TrainingRows(rows.x[:5], rows.y[:5], 3, 16, 0)
    with pytest.raises(BaselineError, match="5 rows are too few for 3 folds; give at least 6"):
        cross_validate_adamw(few, "soft_tree", 10)
    with pytest.raises(BaselineError, match="folds=1; it must be at least 2"):
        cross_validate_adamw(rows, "soft_tree", 10, folds=1)
    with pytest.raises(BaselineError, match="steps=0; it must be at least 1"):
        cross_validate_adamw(rows, "soft_tree", 0)
    bad = TrainingRows(np.full_like(rows.x, np.nan), rows.y, 3, 16, 0)
    with pytest.raises(BaselineError, match="every configuration diverged on soft_tree"):
        cross_validate_adamw(bad, "soft_tree", 3)
    with pytest.raises(BaselineError, match="tunes itself on the rows of the run"):
        make_optimizer(CROSS_VALIDATED, new_model(), model_name="soft_tree", steps=9, rows=16)


def draw_episode(count: int, steps: int) -> Any:
    from denograd.meta.episode import assemble_episode
    from denograd.meta.task import Task, TaskBatch

    rng = np.random.default_rng(0)
    tasks = []
    for i in range(count):
        x = rng.standard_normal((48, 3)).astype(np.float32)
        y = (x[:, 0] + rng.standard_normal(48) > 0).astype(np.int64)
        tasks.append(Task(f"task {i}", x[:24], y[:24], x[24:], y[24:], 2))
    stacked = TaskBatch.stack(tasks, torch.double)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        template = make_model("soft_tree", 3, 2).double()
    return assemble_episode(
        rng,
        stacked,
        template,
        steps=steps,
        batch_size=12,
        micro=12,
        base="adam",
        learning_rate=torch.full((count, 1), 0.05),
        weight_decay=0.1,
    )


def load(model: nn.Module, episode: Any, weights: Tensor) -> None:
    with torch.no_grad():
        for p, part in zip(model.parameters(), episode.model.layout.split(weights), strict=True):
            p.copy_(part.view_as(p))


@pytest.mark.parametrize(
    "rival", [pytest.param(r, id=r.name) for r in RIVALS.values() if r.denoiser is not None]
)
def test_stacked_tasks_train_as_the_wrapper_does(rival: Rival) -> None:
    """The engine of meta-training against `DenoGrad`, which measures noise by its own means."""
    from dataclasses import replace

    from denograd.meta.engines import run_episode

    steps = 8
    episode = replace(draw_episode(3, steps), base=str(rival.base))
    settings = {**rival.defaults, "lr": 0.05, "weight_decay": 0.1}
    assert rival.denoiser is not None
    losses = run_episode(episode, rival.denoiser(settings))
    for task in range(3):
        model = make_model("soft_tree", 3, 2).double()
        load(model, episode, episode.initial[task])
        optimizer = build_rival(rival, model, settings, steps=steps, rows=24).optimizer
        for step in range(steps):
            rows = episode.batches[step, task]
            optimizer.zero_grad()
            nn.functional.cross_entropy(
                model(episode.tasks.x_train[task][rows]), episode.tasks.y_train[task][rows]
            ).backward()
            optimizer.step()
        assert optimizer.fallbacks == 0  # type: ignore[attr-defined]
        with torch.no_grad():
            loss = nn.functional.cross_entropy(
                model(episode.tasks.x_test[task]), episode.tasks.y_test[task]
            )
        assert losses[task].item() == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("rival", available(r for r in TUNED if r.denoiser is None))
def test_tuning_trains_stacked_tasks_as_single_ones(
    rival: Rival, script_named: Callable[[str], ModuleType]
) -> None:
    tune_rivals = script_named("tune_rivals")
    steps = 8
    episode = draw_episode(3, steps)
    settings = {**rival.defaults, "lr": 0.05, "weight_decay": 0.1}
    if "schedule" in rival.space:
        settings["schedule"] = "cosine"
    losses = tune_rivals.train(episode, rival, settings)
    for task in range(3):
        model = make_model("soft_tree", 3, 2).double()
        load(model, episode, episode.initial[task])
        recipe = build_rival(rival, model, settings, steps=steps, rows=24)
        for step in range(steps):
            rows = episode.batches[step, task]
            x, y = episode.tasks.x_train[task][rows], episode.tasks.y_train[task][rows]

            def gradients(x: Tensor = x, y: Tensor = y, model: nn.Module = model) -> Tensor:
                model.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                return loss

            gradients()
            recipe.optimizer.step(gradients if recipe.needs_closure else None)  # type: ignore[arg-type]
            if recipe.scheduler is not None:
                recipe.scheduler.step()
        with torch.no_grad(), recipe.evaluating():
            loss = nn.functional.cross_entropy(
                model(episode.tasks.x_test[task]), episode.tasks.y_test[task]
            )
        assert losses[task].item() == pytest.approx(loss.item(), rel=1e-5)


def test_tuning_keeps_the_best_of_what_it_drew(script_named: Callable[[str], ModuleType]) -> None:
    tune_rivals = script_named("tune_rivals")
    first, second = draw_episode(2, 6), draw_episode(4, 6)
    for name in ("rm3", "sgd_momentum"):
        rival = RIVALS[name]
        found = tune_rivals.tune(rival, first, second, tried=5, kept=3)
        rival.check(found["settings"])
        assert found == tune_rivals.tune(rival, first, second, tried=5, kept=3)
        # The draws do not depend on the tasks; rank them again by hand.
        rng = np.random.default_rng([0, 6])
        drawn = [tune_rivals._rounded(rival.draw(rng)) for _ in range(5)]
        kept = sorted(drawn, key=lambda s, r=rival: tune_rivals.score(first, r, s))[:3]
        scores = [tune_rivals.score(second, rival, s) for s in kept]
        assert found["settings"] == kept[scores.index(min(scores))]
        assert found["meta_loss"] == pytest.approx(min(scores), abs=1e-4)
        ranks = [tune_rivals.score(first, rival, s) for s in drawn]
        assert max(ranks) > min(ranks)
