"""The base optimizer that a card recommends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import denograd
from denograd import inspection
from denograd.base import base_settings, make_base
from denograd.baselines import describe_optimizer, make_optimizer
from denograd.baselines.stacked import stacked_run
from denograd.estimators import FeatureAttentionClassifier, SoftTreeClassifier
from denograd.estimators._optimizers import make_optimizer as estimator_optimizer
from denograd.meta import PriorFamily, TaskBatch, assemble_episode
from denograd.models.registry import KNOWN_MODELS, make_model, name_of

SILENT = {"name": "adamw", "lr": 1e-2, "weight_decay": 0.0}
BASE = {"name": "adamw", "lr": 0.02, "weight_decay": 0.1, "lr_by_model": {"attention": 0.003}}


def saved(tmp_path: Path, **card: Any) -> str:
    """A denoiser whose card says this."""
    path = tmp_path / "mine.safetensors"
    denograd.save_denoiser(denograd.WienerDenoiser(hidden=4), path, {"training": {}, **card})
    return str(path)


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_every_model_that_can_be_made_has_its_name(name: str) -> None:
    assert name_of(make_model(name, 4, 2)) == name


def test_other_models_have_no_name() -> None:
    class Deeper(type(make_model("soft_tree", 4, 2))):  # type: ignore[misc]
        pass

    assert name_of(nn.Linear(2, 2)) is None
    assert name_of(Deeper(4, 2)) is None


@pytest.mark.parametrize("where", ["card", "training"])
def test_a_card_says_its_base_and_the_rate_of_a_model(tmp_path: Path, where: str) -> None:
    card = {"base": BASE} if where == "card" else {"training": {"base": BASE}}
    path = saved(tmp_path, **card)
    common = {"name": "adamw", "lr": 0.02, "weight_decay": 0.1}
    assert base_settings(path, "soft_tree") == base_settings(path, None) == common
    assert base_settings(path, "attention") == {**common, "lr": 0.003}


@pytest.mark.parametrize("card", [{}, {"base": "adamw"}, {"base": {}}])
def test_what_a_card_does_not_say_is_adamw(tmp_path: Path, card: dict[str, Any]) -> None:
    assert base_settings(saved(tmp_path, **card), "soft_tree") == SILENT
    assert base_settings("identity", "attention") == SILENT


def test_a_card_may_name_another_optimizer(tmp_path: Path) -> None:
    base = {"name": "sgd", "lr": 0.5}
    for card in ({"base": base}, {"training": {"base": base}}):
        path = saved(tmp_path, **card)
        settings = base_settings(path, "soft_tree")
        assert (settings["name"], settings["lr"]) == ("sgd", 0.5)
        assert isinstance(denograd.recommended_base(nn.Linear(1, 1), path), torch.optim.SGD)


def test_everything_that_steps_takes_the_rate_of_the_model(tmp_path: Path) -> None:
    path = saved(tmp_path, base=BASE)
    name = f"denograd:{path}"
    for model_name, rate in (("attention", 0.003), ("soft_tree", 0.02)):
        model = make_model(model_name, 3, 2)
        recipe = make_optimizer(name, model, model_name=model_name, steps=5, rows=20)
        for optimizer in (
            denograd.recommended_base(model, path),
            recipe.optimizer,
            estimator_optimizer(name, None, model, 5, 20),
        ):
            assert [g["lr"] for g in optimizer.param_groups] == [rate]
            assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1]
        assert describe_optimizer(name, (model_name,))[model_name]["lr"] == rate
        chosen = estimator_optimizer(name, 0.5, model, 5, 20)
        assert [g["lr"] for g in chosen.param_groups] == [0.5]


def test_estimators_train_with_the_rate_of_their_model(tmp_path: Path) -> None:
    name = f"denograd:{saved(tmp_path, base=BASE)}"
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).numpy()
    y = (x[:, 0] > 0).astype(int)
    for estimator, rate in ((FeatureAttentionClassifier, 0.003), (SoftTreeClassifier, 0.02)):
        fitted = estimator(optimizer=name, max_steps=2, random_state=0).fit(x, y)
        assert fitted._run.optimizer.param_groups[0]["lr"] == rate


def test_layers_that_are_not_to_be_denoised_keep_their_own_group() -> None:
    base = denograd.recommended_base(make_model("rule_net", 3, 2), "identity")
    assert [group.get("denoise", True) for group in base.param_groups] == [True, False]


BAD = [
    ([1], "'base' must be a JSON object"),
    (None, "'base' must be a JSON object"),
    ({"lr_by_model": 5}, "'lr_by_model' must be a JSON object"),
    ({"lr_by_model": "attention"}, "'lr_by_model' must be a JSON object"),
    ({"lr_by_model": {"attention": -1}}, "rate -1 for 'attention'"),
    ({"lr_by_model": {"attention": "0.1"}}, "rate '0.1' for 'attention'"),
    ({"lr": 0}, "rate 0 for 'lr'"),
    ({"lr": None}, "rate None for 'lr'"),
    ({"lr": float("inf")}, "rate inf for 'lr'"),
    ({"name": ["adamw"]}, "is not known; use one of adamw, adam, sgd"),
    ({"params": 1}, "takes no params; it takes lr, "),
]


@pytest.mark.parametrize(("base", "message"), BAD)
def test_a_bad_card_says_what_is_wrong_with_it(tmp_path: Path, base: Any, message: str) -> None:
    path = saved(tmp_path)
    file = Path(path).with_suffix(".json")
    # By hand, for `save_denoiser` would not write all of these.
    card = json.dumps({**json.loads(file.read_text()), "base": base})
    file.write_text(card.replace("Infinity", "1e999"))
    with pytest.raises(denograd.DenoiserFileError, match=re.escape(message)):
        denograd.recommended_base(make_model("attention", 3, 2), path)


def test_an_instance_has_no_card() -> None:
    with pytest.raises(TypeError, match="has no card to read; give a name or a path"):
        denograd.recommended_base(nn.Linear(2, 2), denograd.WienerDenoiser())  # type: ignore[arg-type]


def test_the_rates_of_the_default_are_those_that_the_readme_gives() -> None:
    rates = {name: base_settings("default", name)["lr"] for name in KNOWN_MODELS}
    own = {"attention": 0.001, "additive_net": 0.03}
    assert rates == {name: own.get(name, 0.01) for name in KNOWN_MODELS}
    assert base_settings("default", None)["lr"] == 0.01


def test_stacks_and_reference_trainings_take_the_rate_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, base=BASE)
    rates = {"attention": 0.003, "soft_tree": 0.02}
    used: list[float] = []

    def make(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
        used.append(settings["lr"])
        return make_base(model, settings)

    monkeypatch.setattr(inspection, "make_base", make)
    inspection.reference_runs(path, ["wine"], list(rates), rows=16, steps=2, every=1)
    assert used == list(rates.values())

    tasks = TaskBatch.stack([PriorFamily().draw(np.random.default_rng(0), 16, 20, 4)])
    for name, rate in rates.items():
        episode = assemble_episode(
            np.random.default_rng(0),
            tasks,
            make_model(name, tasks.x_train.shape[-1], int(tasks.classes.max())),
            steps=2,
            batch_size=8,
            micro=1,
            base="adam",
            learning_rate=torch.ones(1, 1),
            weight_decay=0.0,
        )
        run = stacked_run(f"denograd:{path}", episode, model_name=name)
        assert run._episode.learning_rate.tolist() == [[pytest.approx(rate)]]


def test_reference_trainings_of_history_know_their_rows() -> None:
    (run,) = inspection.reference_runs("history", ["wine"], ["soft_tree"], steps=3, every=1)
    assert (run.recording.to_frame()["feature.rows_known"] == 1).all()


def test_bases_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(denograd.DenoiserFileError, match="base optimizer 'lion' is not known"):
        make_base(nn.Linear(1, 1), {"name": "lion", "lr": 0.1})
    with pytest.raises(denograd.DenoiserFileError, match="base optimizer 'sgd' takes no beta"):
        make_base(nn.Linear(1, 1), {"name": "sgd", "lr": 0.1, "beta": 1})
    assert isinstance(make_base(nn.Linear(1, 1), {"name": "sgd", "lr": 0.1}), torch.optim.SGD)
