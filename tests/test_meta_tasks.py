"""Where tasks come from, and how they are stacked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denograd.data import Table, TableError, builtin_table
from denograd.denoisers import IdentityDenoiser
from denograd.meta import (
    BatchedEngine,
    EpisodeDistribution,
    MixedFamily,
    PriorFamily,
    SourceTable,
    TableFamily,
    TaskBatch,
    draw_batches,
    draw_episode,
    draw_prior_table,
    encode_source,
    load_sources,
    make_task,
)
from denograd.meta.family import merge_classes

SMALL = EpisodeDistribution(tasks=4, rows=(16, 40), steps=(5, 9), test_rows=30, max_features=9)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(2, 200),
    features=st.integers(1, 20),
    classes=st.integers(2, 6),
)
def test_the_prior_draws_usable_tables(seed: int, rows: int, features: int, classes: int) -> None:
    x, y = draw_prior_table(np.random.default_rng(seed), rows, features, classes)
    assert x.shape == (rows, features)
    assert y.shape == (rows,)
    assert np.isfinite(x).all()
    assert y.min() >= 0
    assert y.max() < classes


def test_the_prior_draws_signals_from_none_to_strong() -> None:
    """A forest's accuracy over guessing, on many draws, spreads widely."""
    from sklearn.ensemble import RandomForestClassifier

    gains = []
    for seed in range(25):
        x, y = draw_prior_table(np.random.default_rng(seed), 400, 8, 2)
        forest = RandomForestClassifier(50, random_state=0, n_jobs=1).fit(x[:200], y[:200])
        majority = max(y[200:].mean(), 1 - y[200:].mean())
        gains.append(forest.score(x[200:], y[200:]) - majority)
    assert max(gains) > 0.2
    assert min(gains) < 0.05


def test_a_task_is_standardised_on_its_training_rows_alone() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(3, 5, (40, 3)), rng.normal(3, 5, (60, 3))
    train[:, 1] = 7.0
    test[0, 0] = 1e6
    labels = rng.integers(2, size=100)
    task = make_task("t", train, labels[:40], test, labels[40:], 2)
    assert task.x_train.shape == (40, 2), "the constant column is left out"
    np.testing.assert_allclose(task.x_train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(task.x_train.std(0), 1, atol=1e-6)
    expected = (test[1:, 2] - train[:, 2].mean()) / train[:, 2].std()
    np.testing.assert_allclose(task.x_test[1:, 1], expected, rtol=1e-5)
    assert task.x_test[0, 0] == 8.0
    with pytest.raises(ValueError, match="constant"):
        make_task("t", train[:, [1]], labels[:40], test[:, [1]], labels[40:], 2)


def test_tables_are_cut_into_rows_that_never_meet() -> None:
    columns = np.arange(300, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    table = SourceTable("rows", columns, np.arange(300) % 3)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        task = TableFamily([table]).draw(rng, 40, 100, 4)
        train = set(np.round(task.x_train[:, 0], 4))
        test = set(np.round(task.x_test[:, 0], 4))
        assert len(train) == 40
        assert not train & test


def test_a_real_table_is_encoded_once_with_all_its_rows() -> None:
    table = builtin_table("wine")
    source = encode_source(table)
    assert source.columns.shape == (178, 13)
    assert source.n_classes == 3
    expected = table.features.to_numpy(float)
    expected = (expected - expected.mean(0)) / expected.std(0)
    np.testing.assert_allclose(source.columns, expected, atol=1e-4)


def test_text_columns_become_numbers() -> None:
    frame = pd.DataFrame({"x": [1.0, None, 3, 4] * 10, "c": ["a", "b", "c", "a"] * 10})
    source = encode_source(Table("t", frame, pd.Series(["yes", "no"] * 20)))
    assert source.columns.shape[1] == 5
    assert np.isfinite(source.columns).all()


def test_load_sources_says_why_no_table_can_be_used(tmp_path) -> None:
    (tmp_path / "one.csv").write_text("x,y\n1,a\n2,a\n3,a\n")
    with pytest.raises(TableError, match=r"(?s)none of the 1 tables.*only the value"):
        load_sources([str(tmp_path)])


@given(
    rows=st.lists(st.integers(3, 30), min_size=1, max_size=4),
    steps=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_batches_are_a_stream_of_reshuffled_epochs(rows: list[int], steps: int, seed: int) -> None:
    size = min(rows)
    batches = draw_batches(np.random.default_rng(seed), rows, steps, size)
    assert batches.shape == (steps, len(rows), size)
    for i, n in enumerate(rows):
        stream = batches[:, i].flatten().tolist()
        for start in range(0, len(stream) - n + 1, n):
            assert sorted(stream[start : start + n]) == list(range(n))


def test_an_episode_depends_on_its_seed_alone() -> None:
    family = MixedFamily(
        [(PriorFamily(), 0.5), (TableFamily([encode_source(builtin_table("wine"))]), 0.5)]
    )
    first = draw_episode([3, 8], family, SMALL)
    torch.rand(5)
    draw_episode([3, 9], family, SMALL)
    again, other = draw_episode([3, 8], family, SMALL), draw_episode([4, 8], family, SMALL)
    assert again.description == first.description
    assert again.tasks.names == first.tasks.names
    assert torch.equal(again.initial, first.initial)
    assert torch.equal(again.batches, first.batches)
    assert torch.equal(again.tasks.x_test, first.tasks.x_test)
    assert first.tasks.x_train.shape != other.tasks.x_train.shape or not torch.equal(
        first.tasks.x_train, other.tasks.x_train
    )


def test_stacking_pads_with_masks() -> None:
    rng = np.random.default_rng(0)
    tasks = [
        make_task(
            f"t{f}",
            rng.normal(size=(n, f)),
            np.arange(n) % c,
            rng.normal(size=(9, f)),
            np.arange(9) % c,
            c,
        )
        for n, f, c in [(20, 3, 2), (30, 5, 4)]
    ]
    batch = TaskBatch.stack(tasks)
    assert batch.x_train.shape == (2, 30, 5)
    assert batch.feature_mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert batch.class_mask.sum(1).tolist() == [2, 4]
    assert (batch.x_train[0, :, 3:] == 0).all()
    with pytest.raises(ValueError, match="at least one task"):
        TaskBatch.stack([])


@pytest.mark.parametrize(("classes", "rows"), [(10, 200), (10, 256), (12, 100)])
def test_many_small_classes_lend_as_many_as_the_rows_need(classes: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(300) % classes
    table = SourceTable("t", rng.normal(size=(300, 4)).astype(np.float32), labels)
    task = TableFamily([table]).draw(rng, rows, 50, 4)
    assert len(task.y_train) == rows
    assert len(task.y_test) >= 20
    assert task.n_classes > 3


def test_a_size_that_no_table_has_is_refused() -> None:
    family = TableFamily([encode_source(builtin_table("wine"))])
    with pytest.raises(ValueError, match="no table has 220 rows"):
        family.draw(np.random.default_rng(0), 200, 20, 5)
    with pytest.raises(ValueError, match="tables is empty"):
        TableFamily([])


@given(st.lists(st.integers(0, 6), min_size=3, max_size=60), st.integers(0, 10**6))
def test_merged_classes_are_unions_of_classes(labels: list[int], seed: int) -> None:
    before = np.array(labels)
    merged = merge_classes(np.random.default_rng(seed), before)
    groups = {c: set(merged[before == c].tolist()) for c in set(labels)}
    assert all(len(group) == 1 for group in groups.values()), "a class is never torn apart"
    kept = len(np.unique(merged))
    if len(groups) > 2:
        assert 2 <= kept < len(groups)
    else:
        assert kept == len(groups)


def test_tasks_are_drawn_from_memory_alone(tmp_path: Path, monkeypatch) -> None:
    """Once the tables are read, their files may be gone."""
    for name in ("wine", "iris"):
        table = builtin_table(name)
        table.features.assign(kind=table.target).to_csv(tmp_path / f"{name}.csv", index=False)
    sources, errors = load_sources([str(tmp_path)])
    assert len(sources) == 2, errors
    for file in tmp_path.iterdir():
        file.unlink()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened while drawing")

    monkeypatch.setattr("builtins.open", refuse)
    episode = draw_episode([1, 2], TableFamily(sources), SMALL)
    assert set(episode.tasks.names) <= {"wine", "iris"}


def test_reparametrised_episodes_begin_as_the_same_models() -> None:
    """The same draw with and without: other units, the same losses at the start."""
    engine, losses = BatchedEngine(), []
    for share in (0.0, 1.0):
        e = draw_episode([4, 2], PriorFamily(), replace(SMALL, rescale=share))
        assert e.scale is not None
        assert bool((e.scale == 1).all()) == (share == 0)
        losses.append(engine.held_out_losses(e, engine.start(e, IdentityDenoiser())))
    torch.testing.assert_close(*losses)


def test_wrong_labels_weaken_the_signal_as_often_and_as_much_as_asked() -> None:
    source = encode_source(builtin_table("iris"))

    def right(often: float, most: float) -> list[float]:
        """Share of the labels that are what the same draw has without wrong ones."""
        found = []
        for seed in range(60):
            plain, drawn = (
                TableFamily([source], wrong_labels=shares).draw(
                    np.random.default_rng(seed), 60, 60, 4
                )
                for shares in ((0.0, 0.0), (often, most))
            )
            if np.array_equal(plain.x_train, drawn.x_train):
                found.append(float(np.mean(plain.y_train == drawn.y_train)))
        return found

    assert min(right(1.0, 0.0)) == 1.0
    always, seldom = right(1.0, 0.9), right(0.2, 0.9)
    assert len(always) > 40
    assert np.mean(np.array(always) < 0.99) > 0.9
    assert np.mean(np.array(seldom) < 0.99) < 0.4
    # Of the labels that are drawn anew a half or a third comes out right by chance.
    assert 0.55 < np.mean(always) < 0.85
    with pytest.raises(ValueError, match=r"wrong_labels=\(0.5, 1.5\); both shares must be between"):
        TableFamily([source], wrong_labels=(0.5, 1.5))
