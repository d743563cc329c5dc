"""What explodes is left out and counted; the rest is averaged as it should be."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denograd.meta import Curriculum, MetaLoss, TaskGradients, Truncation, combine


def gradients(values: torch.Tensor) -> TaskGradients:
    """Two parameters, cut from the columns of ``(T, 6)``."""
    losses = torch.arange(len(values), dtype=values.dtype)
    parts = {"a": values[:, :4].reshape(-1, 2, 2), "b": values[:, 4:]}
    return TaskGradients(parts, losses, losses + 10)


def test_tame_gradients_are_summed_as_they_are() -> None:
    values = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    result = combine(gradients(values), 100.0, explosion=8.0, clip=2.0)
    torch.testing.assert_close(result.gradients["a"].flatten(), values[:, :4].sum(0))
    torch.testing.assert_close(result.gradients["b"], values[:, 4:].sum(0))
    torch.testing.assert_close(result.norms, values.norm(dim=1))
    assert result.kept.all()
    assert (float(result.loss), float(result.final)) == (10.0, 60.0)


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan, 1e16])
def test_exploding_members_are_left_out_and_counted(bad: float) -> None:
    values = torch.ones(5, 6)
    values[2, 3] = bad
    result = combine(gradients(values), None, explosion=8.0, clip=2.0)
    assert result.kept.tolist() == [True, True, False, True, True]
    torch.testing.assert_close(result.gradients["b"], torch.full((2,), 4.0))
    torch.testing.assert_close(result.gradients["a"], torch.full((2, 2), 4.0))
    assert float(result.loss) == 0 + 1 + 3 + 4


def test_a_loss_that_is_not_finite_leaves_its_task_out() -> None:
    tasks = gradients(torch.ones(3, 6))
    tasks.losses[1] = torch.nan
    result = combine(tasks, None, explosion=8.0, clip=2.0)
    assert result.kept.tolist() == [True, False, True]
    assert float(result.loss) == 2.0
    assert result.norms[1] == torch.inf


def test_a_gradient_of_exactly_zero_is_a_task_that_diverged() -> None:
    """Beyond the clip the meta-loss is flat; such tasks neither count nor set the norm."""
    values = torch.zeros(5, 6)
    values[4] = 0.01
    result = combine(gradients(values), None, explosion=8.0, clip=2.0)
    assert result.kept.tolist() == [False, False, False, False, True]
    torch.testing.assert_close(result.gradients["b"], torch.full((2,), 0.01))


def test_batch_of_nothing_but_explosions_gives_zeros() -> None:
    result = combine(gradients(torch.full((3, 6), torch.nan)), None, explosion=8.0, clip=2.0)
    assert not result.kept.any()
    assert all((g == 0).all() for g in result.gradients.values())


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=6, max_size=60), st.floats(1e-3, 1e3))
def test_no_task_counts_more_than_the_clip(values: list[float], reference: float) -> None:
    matrix = torch.tensor(values[: len(values) // 6 * 6], dtype=torch.double).reshape(-1, 6)
    result = combine(gradients(matrix), reference, explosion=8.0, clip=2.0)
    expected = torch.zeros(6, dtype=torch.double)
    for row in matrix:
        norm = float(row.norm())
        if 0 < norm <= 8 * reference:
            expected += row * min(1.0, 2 * reference / norm)
    found = torch.cat([result.gradients["a"].flatten(), result.gradients["b"]])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * reference)
    assert found.norm() <= 2 * reference * int(result.kept.sum()) * (1 + 1e-9)


@given(st.integers(1, 500), st.integers(1, 80), st.integers(0, 80), st.integers(0, 10**6))
def test_cuts_cover_every_step_once(steps: int, low: int, more: int, seed: int) -> None:
    cuts = Truncation((low, low + more)).cuts(np.random.default_rng(seed), steps)
    assert cuts[-1] == steps
    lengths = np.diff([0, *cuts])
    assert (lengths >= 1).all()
    assert (lengths <= low + more).all()
    inner = lengths[1:-1]
    assert (inner == inner[:1]).all()
    assert (inner >= low).all()


def test_offsets_spread_the_cuts_over_all_steps() -> None:
    truncation = Truncation((20, 20))
    first = [truncation.cuts(np.random.default_rng(i), 100)[0] for i in range(400)]
    assert set(first) == set(range(1, 21))


def test_curriculum_grows_to_the_full_horizon_and_stays() -> None:
    curriculum = Curriculum(start=30, full_at=0.4)
    longest = [curriculum.longest((20, 300), share) for share in np.linspace(0, 1, 41)]
    assert longest[0] == 30
    assert longest == sorted(longest)
    assert longest[16:] == [300] * 25
    assert Curriculum(start=10).longest((50, 300), 0.0) == 300


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Truncation((0, 4)), r"window=\(0, 4\)"),
        (lambda: Truncation((5, 4)), r"window=\(5, 4\)"),
        (lambda: Curriculum(start=0), "start=0"),
        (lambda: Curriculum(full_at=1.5), "full_at=1.5"),
    ],
)
def test_bad_horizons_are_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@given(st.integers(1, 3000), st.integers(1, 200))
def test_shares_of_the_meta_loss_add_up(steps: int, every: int) -> None:
    shares = MetaLoss(every=every).shares(steps)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert max(shares) == steps
    assert min(shares) >= 1
    assert shares[steps] == max(shares.values())
