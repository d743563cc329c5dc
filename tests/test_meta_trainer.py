"""The outer loop: it learns, it survives a kill, and it refuses what makes no sense."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from rich.console import Console
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from denograd import load_denoiser
from denograd.data import TableError, builtin_table
from denograd.denoisers import IdentityDenoiser, read_card
from denograd.evaluation.trained_on import seen_before
from denograd.meta import (
    BatchedEngine,
    EpisodeDistribution,
    MetaLoss,
    MetaTrainer,
    MetaTrainingError,
    MetaValidation,
    PriorFamily,
    Progress,
    TrainerConfig,
    Truncation,
    draw_episode,
    encode_source,
    run_episode,
)
from denograd.meta.cli import run_meta_training
from denograd.meta.view import View

SMALL = EpisodeDistribution(
    models=("soft_tree",), tasks=4, rows=(16, 20), steps=(4, 6), test_rows=20, max_features=8
)
CONFIG = TrainerConfig(seed=1, steps=6, hidden=4, truncation=Truncation((2, 3)), warm_up=2)


def trainer(out: Path, config: TrainerConfig = CONFIG, **options) -> MetaTrainer:
    return MetaTrainer(PriorFamily(), SMALL, config, out, **options)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    trainer(tmp_path / "whole").run()
    trainer(tmp_path / "parts", replace(CONFIG, steps=3)).run()
    # Its learning rate follows its own length, so only the weights of the first part are
    # compared with a run of the same length; the second goes on from there exactly.
    first = trainer(tmp_path / "again", replace(CONFIG, steps=3))
    first.run()
    half = load_file(tmp_path / "parts" / "checkpoint.safetensors")
    for name, value in load_file(tmp_path / "again" / "checkpoint.safetensors").items():
        assert torch.equal(half[name], value), name
    continued = trainer(tmp_path / "parts")
    continued.run(resume=True)
    for _ in range(3):
        # The same object, never stopped, with the length it was resumed with.
        first.config = CONFIG
        first.meta_step()
    for (name, a), b in zip(
        continued.denoiser.named_parameters(), first.denoiser.parameters(), strict=True
    ):
        assert torch.equal(a, b), name
    for a, b in zip(continued.average.parameters(), first.average.parameters(), strict=True):
        assert torch.equal(a, b)


RUN = """
import sys
from pathlib import Path
from denograd.data import builtin_table
from denograd.meta import *

distribution = EpisodeDistribution(
    models=("soft_tree", "attention"), tasks=4, rows=(16, 20), steps=(4, 8), test_rows=20,
    max_features=8,
)
config = TrainerConfig(
    seed=1, steps=40, hidden=4, truncation=Truncation((2, 3)), curriculum=Curriculum(4, 0.5),
    validate_every=7, save_seconds=float(sys.argv[3]), estimator=sys.argv[2], patience=50,
)
validation = MetaValidation(
    [encode_source(builtin_table("wine"))], ("soft_tree",), rows=(16,), steps=5, seeds=1
)
trainer = MetaTrainer(
    PriorFamily(), distribution, config, Path(sys.argv[1]), validation=validation
)
trainer.run(resume=trainer.checkpoint.exists())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(("estimator", "save_seconds"), [("truncated", "0.3"), ("pes", "0")])
def test_a_killed_and_resumed_run_ends_with_the_same_weights(
    tmp_path: Path, estimator: str, save_seconds: str
) -> None:
    """Killed at random moments, again and again, until it ends by itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    rng = np.random.default_rng()

    def begin(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path / name), estimator, save_seconds],
            env=environment,
            cwd=tmp_path,
        )

    whole = begin("whole")
    checkpoint, kills = tmp_path / "killed" / "checkpoint.safetensors", 0
    while True:
        process, seen = begin("killed"), checkpoint.stat().st_mtime_ns if kills else 0
        # Python and torch take their time to start; what counts is the time after that.
        while process.poll() is None and kills < 2:
            time.sleep(0.02)
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns > seen:
                time.sleep(rng.uniform(0.0, 0.8))
                process.send_signal(signal.SIGKILL)
                break
        if process.wait(120) == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    assert whole.wait(120) == 0
    assert kills >= 1
    for name in ("checkpoint.safetensors", "denoiser.safetensors"):
        ended, resumed = (load_file(tmp_path / run / name) for run in ("whole", "killed"))
        assert ended.keys() == resumed.keys()
        for key, value in ended.items():
            assert torch.equal(value, resumed[key]), (name, key)
    # What was run twice is logged once.
    log = EventAccumulator(str(tmp_path / "killed" / "tensorboard"))
    log.Reload()
    assert [e.step for e in log.Scalars("train/meta_loss")] == list(range(1, 41))


def test_meta_training_lowers_the_loss_on_unseen_tasks(tmp_path: Path) -> None:
    """From a learning rate that is too high, which it must learn to make up for."""
    config = TrainerConfig(
        seed=3, steps=25, learning_rate=1e-2, warm_up=1, truncation=Truncation((30, 30)), hidden=8
    )
    distribution = replace(SMALL, tasks=8, steps=(30, 30), learning_rate=(0.05, 0.1))
    run = MetaTrainer(PriorFamily(), distribution, config, tmp_path / "run")
    unseen = [draw_episode([99, i], PriorFamily(), distribution) for i in range(4)]

    def score() -> float:
        losses = [run_episode(e, run.denoiser).log().mean() for e in unseen]
        return float(torch.stack(losses).mean())

    before = score()
    for _ in range(25):
        run.meta_step()
    assert score() < before - 0.02


def test_what_is_saved_can_be_used_and_says_where_it_came_from(tmp_path: Path) -> None:
    card = {"command": "x", "data_sets": {"meta_train": ["synthetic prior"]}}
    trainer(tmp_path / "run", card=card).run()
    saved = tmp_path / "run" / "denoiser.safetensors"
    assert load_denoiser(saved).hidden == 4
    training = read_card(saved)["training"]
    assert training["command"] == "x"
    assert training["meta_steps"] == 6
    assert training["config"]["seed"] == 1
    assert training["distribution"]["rows"] == [16, 20]
    assert (tmp_path / "run" / "tensorboard").is_dir()


def test_a_run_killed_at_once_can_be_resumed(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run")
    run.out.mkdir()
    run._open(resume=False)
    assert trainer(tmp_path / "run").run(resume=True).step == CONFIG.steps


def test_an_interrupted_run_leaves_its_last_weights(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", replace(CONFIG, steps=1000))

    def interrupt(progress: Progress, figures: dict[str, float]) -> None:
        if progress.step == 4:
            signal.raise_signal(signal.SIGTERM)

    run.run(listener=interrupt)
    assert run.interrupted
    assert read_card(tmp_path / "run" / "denoiser.safetensors")["training"]["meta_steps"] == 4
    saved = load_denoiser(tmp_path / "run" / "denoiser.safetensors")
    for a, b in zip(saved.parameters(), run.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_meta_step_in_which_every_task_explodes_changes_nothing(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run")
    run.progress.norms = [1e-9] * 20
    before = [p.clone() for p in run.denoiser.parameters()]
    figures = run.meta_step()
    assert figures["left_out"] == run.progress.tasks == SMALL.tasks
    assert all(torch.equal(a, b) for a, b in zip(before, run.denoiser.parameters(), strict=True))


def test_folders_in_use_or_of_another_run_are_refused(tmp_path: Path) -> None:
    trainer(tmp_path / "run").run()
    with pytest.raises(MetaTrainingError, match="add --resume"):
        trainer(tmp_path / "run").run()
    with pytest.raises(MetaTrainingError, match=r"config\.seed \(was \d, now 2\)"):
        trainer(tmp_path / "run", replace(CONFIG, seed=2)).run(resume=True)
    with pytest.raises(MetaTrainingError, match=r"otherwise: .*data"):
        MetaTrainer(PriorFamily(max_classes=2), SMALL, CONFIG, tmp_path / "run").run(resume=True)
    with pytest.raises(MetaTrainingError, match="otherwise: validation"):
        trainer(tmp_path / "run", validation=wine_validation()).run(resume=True)
    with pytest.raises(MetaTrainingError, match="no checkpoint"):
        trainer(tmp_path / "empty").run(resume=True)
    with FileLock(tmp_path / "run" / "lock"), pytest.raises(MetaTrainingError, match="in use"):
        trainer(tmp_path / "run").run(resume=True)
    config = tmp_path / "run" / "config.json"
    written = config.read_text()
    older = json.loads(written)
    del older["config"]["second_order"]
    config.write_text(json.dumps(older))
    with pytest.raises(MetaTrainingError, match=r"second_order \(unknown to the version that"):
        trainer(tmp_path / "run").run(resume=True)
    config.write_text(written)
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(MetaTrainingError, match="cannot be read"):
        trainer(tmp_path / "run").run(resume=True)
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(MetaTrainingError, match=r"config\.json cannot be read"):
        trainer(tmp_path / "run").run(resume=True)
    with pytest.raises(MetaTrainingError, match="steps or minutes"):
        trainer(tmp_path / "x", replace(CONFIG, steps=None))


def test_meta_loss_is_clipped_late_and_scale_free() -> None:
    loss, two = MetaLoss(floor=0.0, clip=4.0), torch.tensor([2, 2, 2])
    values = loss(torch.tensor([0.1, 0.2, 100.0]), two)
    assert values[1] - values[0] == pytest.approx(np.log(2), abs=1e-6)
    assert values[2] == pytest.approx(np.log(4 * np.log(2)), abs=1e-6)


def test_validation_compares_cells_with_the_tuned_control() -> None:
    tables = [encode_source(builtin_table(name)) for name in ("wine", "breast_cancer")]
    validation = MetaValidation(tables, ("soft_tree",), rows=(16, 200), steps=10, seeds=2)
    assert len(validation.cells) == 4
    assert validation.cells[-1][2].tasks.names == ("breast_cancer",), "wine is too small for 200"
    score = validation.score(IdentityDenoiser())
    assert set(score.by_table) == {"wine", "breast_cancer"}
    assert set(score.by_rows) == {16, 200}
    assert 0 <= score.wins <= 1
    assert score.worst >= score.ratio > 0
    expected = np.exp(
        (2 * np.log(score.by_table["breast_cancer"]) + np.log(score.by_table["wine"])) / 3
    )
    assert score.ratio == pytest.approx(expected)


def test_command_meta_trains_on_a_users_tables(tmp_path: Path) -> None:
    for name in ("wine", "iris"):
        table = builtin_table(name)
        table.features.assign(kind=table.target.astype(str)).to_csv(
            tmp_path / f"{name}.csv", index=False
        )
    (tmp_path / "broken.csv").write_text("a,b\n1,x\n")
    saved = run_meta_training(
        tasks=["prior", str(tmp_path)],
        out=tmp_path / "run",
        steps=2,
        models=["soft_tree"],
        task_count=3,
        max_rows=20,
    )
    card = json.loads(saved.with_suffix(".json").read_text())
    names = card["training"]["data_sets"]["meta_train"]
    assert names == ["synthetic prior", "iris", "wine"]
    assert card["training"]["task"] == "classification"
    # An evaluation tells from the card that these tables are nothing new to it.
    told = seen_before(["adamw", f"denograd:{saved}"], ["wine", "digits"], "classification")
    assert told == [
        f"'{saved}' was meta-trained on a table named 'wine': what it wins there, if that is the "
        "same table, it has not won on data that it never saw."
    ]


def test_a_finished_run_that_is_resumed_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"tasks": ["prior"], "out": tmp_path / "run", "task_count": 2, "models": ["soft_tree"]}
    run_meta_training(**run, steps=2)
    assert "Nothing was left to do" not in capsys.readouterr().err
    run_meta_training(**run, steps=2, resume=True)
    assert "the run in" in " ".join((said := capsys.readouterr().err).split())
    assert "has had 2 meta-steps; for more, raise --steps" in " ".join(said.split())
    run_meta_training(**run, steps=3, resume=True)
    assert "Nothing was left to do" not in capsys.readouterr().err


def test_a_file_is_no_folder_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a,b\n")
    with pytest.raises(MetaTrainingError, match=r"mine\.csv is a file; give a folder"):
        run_meta_training(tasks=["prior"], out=tmp_path / "mine.csv", steps=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tasks": []}, TableError, "--tasks is empty"),
        ({"tasks": ["nowhere.csv"]}, TableError, "no such file"),
        ({"tasks": ["prior"], "models": ["forest"]}, MetaTrainingError, "forest: choose from"),
        ({"tasks": ["prior", "nowhere.csv"]}, TableError, "no such file"),
        ({"tasks": ["prior"], "seed": -1}, MetaTrainingError, "--seed -1"),
        ({"tasks": ["prior"], "steps": 0}, MetaTrainingError, "--steps 0"),
        ({"tasks": ["prior"], "minutes": -1}, MetaTrainingError, "--minutes -1"),
        ({"tasks": ["prior"], "patience": 0}, MetaTrainingError, "--patience 0: it must"),
        ({"tasks": ["prior"], "patience": 2}, MetaTrainingError, "no meta-validation to wait"),
        ({"tasks": ["prior"], "task_count": 0}, MetaTrainingError, "task_count=0"),
        ({"tasks": ["prior"], "engine": "steam"}, MetaTrainingError, "engine='steam'"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options: dict, error, message: str) -> None:
    with pytest.raises(error, match=message):
        run_meta_training(out=tmp_path / "run", **options)


def wine_validation() -> MetaValidation:
    return MetaValidation(
        [encode_source(builtin_table("wine"))], ("soft_tree",), rows=(16,), steps=3, seeds=1
    )


def test_a_validation_full_of_nan_is_the_worst_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path / "run", validation=wine_validation())
    run.out.mkdir()
    run.validation.control_losses()
    monkeypatch.setattr(
        "denograd.meta.validation.run_episode",
        lambda episode, denoiser: torch.full((len(episode),), torch.nan),
    )
    run._validate(lambda name, value: None)
    assert run.progress.history[-1]["worst"] > 50
    run.progress.best = None
    run.progress.history = [{"ratio": float("nan"), "step": 1}] * 3
    run.config = replace(CONFIG, patience=2)
    assert run.stopped_early()


def test_a_signal_in_the_middle_of_a_step_is_not_lost(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", replace(CONFIG, steps=1000))
    add_up = run.processes.sum

    def interrupted(values: torch.Tensor) -> torch.Tensor:
        total = add_up(values)
        if run.progress.step == 3 and not run._signalled:
            signal.raise_signal(signal.SIGTERM)
        return total

    run.processes.sum = interrupted
    assert run.run().step == 4
    assert run.interrupted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warm_up": 0}, "warm_up=0; it must be a whole number of at least 1"),
        ({"validate_every": 0}, "validate_every=0"),
        ({"seed": -1}, "seed=-1"),
        ({"hidden": 2.5}, "hidden=2.5"),
        ({"patience": 0}, "patience=0; it must be above 0, or None"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"explosion": float("inf")}, "explosion=inf"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"average": 1.0}, "average=1.0"),
    ],
)
def test_bad_configurations_are_named(changes: dict, message: str) -> None:
    with pytest.raises(MetaTrainingError, match=message):
        replace(CONFIG, **changes)


def test_a_family_that_runs_dry_ends_with_an_error_and_a_checkpoint(tmp_path: Path) -> None:
    class Dry(PriorFamily):
        def draw(self, rng, rows, test_rows, max_features):
            raise ValueError("no task left")

    run = trainer(tmp_path / "run", replace(CONFIG, steps=8))
    with pytest.raises(MetaTrainingError, match="meta-step 1: no task left"):
        run.run(listener=lambda progress, figures: setattr(run, "family", Dry()))
    assert trainer(tmp_path / "run", replace(CONFIG, steps=8)).run(resume=True).step == 8


def test_early_stop_waits_for_its_patience(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", replace(CONFIG, patience=2, steps=1000))

    def history(*ratios: float) -> None:
        run.progress.history = [{"ratio": r, "step": i} for i, r in enumerate(ratios)]

    for ratios, stopped in [
        ((), False),
        ((0.9,), False),
        ((0.9, 0.95), False),
        ((0.9, 0.95, 0.91), True),
        ((0.9, 0.95, 0.89, 0.9), False),
        ((0.9, 0.9, 0.9), True),
    ]:
        history(*ratios)
        assert run.stopped_early() is stopped, ratios
    assert run.run().step == 0, "a run whose patience is used up takes no step"


def test_rate_warms_up_and_falls_to_a_tenth(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", replace(CONFIG, steps=100, warm_up=10, learning_rate=1.0))
    rates = []
    for step in range(100):
        run.progress.step = step
        rates.append(run._rate())
    assert rates[:10] == sorted(rates[:10])
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, rel=0.02)


def test_view_shows_what_matters(tmp_path: Path) -> None:
    for terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=100)
        run = trainer(tmp_path / f"run-{terminal}")
        with View(run, console) as view:
            run.run(listener=view)
        text = out.getvalue()
        for part in ("meta-step", "6 of 6", "meta-loss", "task-steps per second", "0:00:00 left"):
            assert part in text, (terminal, part)
        run.progress.history = [{"ratio": 0.9, "step": 4, "wins": 0.75}]
        run.progress.best = 0.9
        shown = dict(view.rows(run.progress))
        assert "0.900 at meta-step 4" in shown["meta-validation, loss / control"]
        assert "75% of cells won" in shown["meta-validation, loss / control"]


def test_tensorboard_log_has_the_figures(tmp_path: Path) -> None:
    validation = MetaValidation(
        [encode_source(builtin_table("wine"))], ("soft_tree",), rows=(16,), steps=3, seeds=1
    )
    trainer(tmp_path / "run", replace(CONFIG, validate_every=3), validation=validation).run()
    log = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    log.Reload()
    names = set(log.Tags()["scalars"])
    assert {"train/meta_loss", "train/gradient_norm", "train/left_out"} <= names
    assert {"train/learning_rate", "train/task_steps_per_second"} <= names
    assert {"validation/ratio", "validation/wins", "validation/by_model/soft_tree"} <= names
    assert [e.step for e in log.Scalars("train/meta_loss")] == [1, 2, 3, 4, 5, 6]
    assert [e.step for e in log.Scalars("validation/ratio")] == [3, 6]


@pytest.mark.parametrize("measured", [False, True], ids=["classes", "measured"])
@pytest.mark.parametrize("engine", ["torchopt", "higher"])
def test_every_engine_trains_as_the_batched_one(
    tmp_path: Path, engine: str, measured: bool
) -> None:
    """The same episodes, reparametrised ones among them, to single precision."""
    distribution = replace(SMALL, rescale=1.0, steps=(3, 3))
    config, weights = replace(CONFIG, steps=2, truncation=Truncation((2, 2))), {}
    for name in ("batched", engine):
        chosen = replace(config, engine=name)
        family = PriorFamily(measured=measured)
        run = MetaTrainer(family, distribution, chosen, tmp_path / name)
        run.run()
        weights[name] = torch.cat([p.detach().flatten() for p in run.denoiser.parameters()])
    torch.testing.assert_close(weights[engine], weights["batched"], rtol=1e-3, atol=1e-5)


def test_a_table_with_one_rare_case_is_left_out_before_training(tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": np.linspace(0, 1, 60000) ** 2, "y": ["no"] * 60000})
    rows.loc[[5, 9], "y"] = "yes"
    rows.to_csv(tmp_path / "rare.csv", index=False)
    with pytest.raises(TableError, match=r"rare: of 100 draws of 16 rows none"):
        run_meta_training(tasks=[str(tmp_path)], out=tmp_path / "run", steps=1)
    assert not (tmp_path / "run").exists()


def test_without_second_derivatives_the_engine_leaves_them_out(tmp_path: Path) -> None:
    first = trainer(tmp_path / "first", replace(CONFIG, second_order=False))
    assert isinstance(first.engine, BatchedEngine)
    assert not first.engine.second_order
    first.run()
    both = trainer(tmp_path / "both", CONFIG)
    both.run()
    pairs = zip(first.denoiser.parameters(), both.denoiser.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    with pytest.raises(MetaTrainingError, match="second_order=False with engine='torchopt'"):
        trainer(tmp_path / "x", replace(CONFIG, second_order=False, engine="torchopt"))


@pytest.mark.parametrize("estimator", ["full", "es", "pes"])
def test_every_estimator_trains(tmp_path: Path, estimator: str) -> None:
    run = trainer(tmp_path / "run", replace(CONFIG, estimator=estimator, steps=3))
    before = [p.clone() for p in run.denoiser.parameters()]
    run.run()
    assert any(
        not torch.equal(a, b) for a, b in zip(before, run.denoiser.parameters(), strict=True)
    )
    with pytest.raises(MetaTrainingError, match="estimator='newton'; use one of truncated, full"):
        trainer(tmp_path / "x", replace(CONFIG, estimator="newton"))
    with pytest.raises(MetaTrainingError, match="engine='steam'; use one of batched"):
        trainer(tmp_path / "x", replace(CONFIG, engine="steam"))
