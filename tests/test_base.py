"""The base optimizer that a card recommends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import denograd
from denograd.base import base_settings, make_base
from denograd.baselines import describe_optimizer, make_optimizer
from denograd.estimators import FeatureAttentionClassifier, SoftTreeClassifier
from denograd.estimators._optimizers import make_optimizer as estimator_optimizer
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
    rules = make_model("rule_net", 3, 2)
    base = denograd.recommended_base(rules, "identity")
    assert [group.get("denoise", True) for group in base.param_groups] == [
        group.get("denoise", True) for group in rules.parameter_groups()
    ]


def test_bases_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(denograd.DenoiserFileError, match="base optimizer 'lion' is not known"):
        make_base(nn.Linear(1, 1), {"name": "lion", "lr": 0.1})
    with pytest.raises(denograd.DenoiserFileError, match="base optimizer 'sgd' takes no beta"):
        make_base(nn.Linear(1, 1), {"name": "sgd", "lr": 0.1, "beta": 1})
    assert isinstance(make_base(nn.Linear(1, 1), {"name": "sgd", "lr": 0.1}), torch.optim.SGD)
