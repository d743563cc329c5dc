"""Architectures that meta-training draws, and those that judge it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from denograd import IdentityDenoiser
from denograd.baselines import read_control
from denograd.meta import EpisodeDistribution, PriorFamily
from denograd.meta.architectures import draw_model
from denograd.meta.engines import run_episode
from denograd.meta.episode import draw_episode
from denograd.meta.validation import UNSEEN, judging_models
from denograd.models.registry import KNOWN_MODELS, MODEL_NAMES, make_model


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_every_architecture_is_drawn_in_several_sizes_and_runs_stacked(name: str) -> None:
    rng = np.random.default_rng(0)
    kind = type(make_model(name, 6, 3))
    drawn = [draw_model(rng, name, 6, 3) for _ in range(20)]
    assert {type(model) for model in drawn} == {kind}
    assert len({sum(p.numel() for p in model.parameters()) for model in drawn}) > 1
    distribution = EpisodeDistribution(
        models=(name,), tasks=3, rows=(20, 20), steps=(3, 3), max_features=8, test_rows=20
    )
    losses = run_episode(draw_episode([0], PriorFamily(), distribution), IdentityDenoiser())
    assert losses.shape == (3,)
    assert torch.isfinite(losses).all()


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ValueError, match=r"model 'forest' is not known; use one of soft_tree, "):
        draw_model(np.random.default_rng(0), "forest", 4, 2)


def test_an_architecture_judges_that_training_never_draws() -> None:
    judges = judging_models(MODEL_NAMES)
    assert UNSEEN in judges
    assert set(judges) <= {entry.model for entry in read_control()}
    unseen = type(make_model(UNSEEN, 4, 2))
    trained = EpisodeDistribution(tasks=1, steps=(1, 1))
    for seed in range(40):
        episode = draw_episode([seed], PriorFamily(), trained)
        assert not isinstance(episode.model.template, unseen)
