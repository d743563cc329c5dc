"""Estimators of the meta-gradient on an inner problem with a closed form.

The inner loop starts at ``x = 1`` and takes ``x <- (1 - exp(theta)) x``; the meta-loss of a
task is ``h x_t^2``, averaged over every step with equal weights. With ``theta`` perturbed by
a Gaussian, expectations have no closed form, but the exact gradient has::

    d/dtheta sum_t w h x_t^2 = sum_t w h 2 t (1 - e^theta)^(2t - 1) (-e^theta)

and the bias of the smoothing is of order sigma^2, far below what the tests can see.
"""

import math
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from denograd import WienerDenoiser
from denograd.meta import (
    ESTIMATORS,
    Backprop,
    BatchedEngine,
    EvolutionStrategies,
    MetaLoss,
    PersistentES,
    PriorFamily,
    TaskBatch,
    TaskWeights,
    TruncatedBackprop,
    assemble_episode,
)
from denograd.models import SoftTree

STEPS, THETA, SIGMA, CURVATURE = 12, -2.5, 0.01, 3.0


class Rate(nn.Module):
    """A denoiser with one weight, the logarithm of a learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.tensor([THETA], dtype=torch.double))


class Quadratic:
    """An engine for ``x <- x - exp(theta) x``."""

    name = "quadratic"

    def start(self, episode, denoiser):
        return episode.initial

    def advance(self, episode, denoiser, state, *, graph, schedule=None):
        weights = denoiser.weights["log_rate"]
        return state - weights.exp() * state

    def held_out_losses(self, episode, state):
        return CURVATURE * state.squeeze(-1) ** 2

    def cut(self, state):
        leaf = state.detach().requires_grad_()
        return leaf, [(state, leaf)]


class PlainLoss(MetaLoss):
    """The loss itself, with the same weight at every step."""

    def __call__(self, losses, classes):
        return losses

    def shares(self, steps):
        return dict.fromkeys(range(1, steps + 1), 1 / steps)


class Episode(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.initial)


def episode(tasks: int, offset: int = 0) -> Episode:
    return Episode(
        steps=STEPS,
        initial=torch.ones(tasks, 1, dtype=torch.double),
        tasks=SimpleNamespace(classes=torch.full((tasks,), 2)),
        offset=offset,
    )


def exact(cuts: list[int]) -> float:
    """The meta-gradient when each stretch forgets how its beginning came about."""
    rate, total, begin = np.exp(THETA), 0.0, 0
    for end in cuts:
        for t in range(begin + 1, end + 1):
            x = (1 - rate) ** t
            total += 2 * CURVATURE * x * x * (t - begin) / (1 - rate) * -rate / STEPS
        begin = end
    return total


def estimate(estimator, cuts: list[int], tasks: int, seed: int = 0) -> np.ndarray:
    result = estimator(
        Rate(), episode(tasks), PlainLoss(), cuts=cuts, engine=Quadratic(), seed=seed
    )
    return result.gradients["log_rate"].squeeze(-1).numpy()


def test_closed_form_is_right() -> None:
    """Against central differences of the meta-loss."""

    def loss(theta: float) -> float:
        x = (1 - np.exp(theta)) ** np.arange(1, STEPS + 1)
        return float(CURVATURE * np.mean(x**2))

    numeric = (loss(THETA + 1e-5) - loss(THETA - 1e-5)) / 2e-5
    assert exact([STEPS]) == pytest.approx(numeric, rel=1e-8)


@pytest.mark.parametrize("cuts", [[12], [4, 8, 12], [1, 7, 12]])
def test_backpropagation_is_exact_in_full_and_biased_when_truncated(cuts: list[int]) -> None:
    assert estimate(Backprop(), cuts, 2) == pytest.approx(exact([STEPS]), rel=1e-12)
    truncated = estimate(TruncatedBackprop(), cuts, 2)
    assert truncated == pytest.approx(exact(cuts), rel=1e-12)
    if len(cuts) > 1:
        assert abs(exact(cuts)) < 0.6 * abs(exact([STEPS])), "the bias is large here"


SAMPLES = 4000
"""Independent estimates, one a task."""


@pytest.mark.parametrize(
    ("estimator", "cuts"),
    [
        (EvolutionStrategies(SIGMA), [12]),
        (EvolutionStrategies(SIGMA), [4, 8, 12]),
        (PersistentES(SIGMA), [12]),
        (PersistentES(SIGMA), [4, 8, 12]),
        (PersistentES(SIGMA), [1, 7, 12]),
        (PersistentES(SIGMA, pairs=3), [4, 8, 12]),
    ],
)
def test_strategies_are_unbiased_where_truncation_is_not(estimator, cuts: list[int]) -> None:
    """A two-sided t-test of the mean at the level 1e-3 does not reject the exact gradient.

    The same test would see the bias of truncated back-propagation: its power against
    that alternative, from the noncentral t distribution, is above 0.999.
    """
    values = estimate(estimator, cuts, SAMPLES)
    error = values.std(ddof=1) / np.sqrt(SAMPLES)
    assert stats.ttest_1samp(values, exact([STEPS])).pvalue > 1e-3
    alternative = abs(exact([4, 8, 12]) - exact([STEPS])) / error
    critical = stats.t.ppf(1 - 5e-4, SAMPLES - 1)
    power = 1 - stats.nct.cdf(critical, SAMPLES - 1, alternative)
    assert power > 0.999
    if len(cuts) > 1:
        biased = estimate(TruncatedBackprop(), [4, 8, 12], 1)[0]
        assert stats.ttest_1samp(values, biased).pvalue < 1e-6, "the truncated one is rejected"


def test_strategies_that_forget_their_perturbations_would_be_rejected() -> None:
    """The test above can fail: without what was met before, PES is truncated ES."""

    class Forgetful(PersistentES):
        def stretch(self, denoiser, episode, loss, particles, **options):
            particles.met = {k: torch.zeros_like(v) for k, v in particles.met.items()}
            return super().stretch(denoiser, episode, loss, particles, **options)

    values = estimate(Forgetful(SIGMA), [4, 8, 12], SAMPLES)
    assert stats.ttest_1samp(values, exact([STEPS])).pvalue < 1e-6
    assert stats.ttest_1samp(values, exact([4, 8, 12])).pvalue > 1e-3


def test_same_seed_same_estimate_and_pairs_average() -> None:
    for name in ("es", "pes"):
        estimator = ESTIMATORS[name](SIGMA)
        once, again = (estimate(estimator, [6, 12], 5, seed=3) for _ in range(2))
        assert (once == again).all()
        assert (once != estimate(estimator, [6, 12], 5, seed=4)).all()
        few = estimate(estimator, [6, 12], 800).std()
        many = estimate(ESTIMATORS[name](SIGMA, pairs=9), [6, 12], 800).std()
        assert many == pytest.approx(few / 3, rel=0.15)


def test_losses_are_those_of_the_unperturbed_run_to_second_order() -> None:
    plain = TruncatedBackprop()(Rate(), episode(3), PlainLoss(), cuts=[12], engine=Quadratic())
    for name in ("es", "pes"):
        found = ESTIMATORS[name](1e-5)(
            Rate(), episode(3), PlainLoss(), cuts=[5, 12], engine=Quadratic()
        )
        torch.testing.assert_close(found.losses, plain.losses, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found.final, plain.final, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["es", "pes"])
def test_a_task_is_perturbed_alike_whoever_runs_it(name: str) -> None:
    estimator, options = ESTIMATORS[name](SIGMA, pairs=2), {"cuts": [5, 12], "engine": Quadratic()}

    def gradients(part: Episode) -> torch.Tensor:
        result = estimator(Rate(), part, PlainLoss(), seed=7, **options)
        return result.gradients["log_rate"]

    whole = gradients(episode(5))
    parts = torch.cat([gradients(episode(2)), gradients(episode(3, offset=2))])
    assert torch.equal(parts, whole)
    assert len(set(whole.flatten().tolist())) == 5, "each task has perturbations of its own"


def test_pes_agrees_with_backpropagation_on_the_batched_engine() -> None:
    """On a real inner loop, by the same statistical test, with copies of one task."""
    rng = np.random.default_rng(3)
    task = PriorFamily(max_classes=2).draw(rng, 16, 30, 3)
    tasks = TaskBatch.stack([task], dtype=torch.double)
    one = assemble_episode(
        rng,
        tasks,
        SoftTree(tasks.x_train.shape[-1], 2, depth=1).double(),
        steps=6,
        batch_size=8,
        micro=4,
        base="sgd",
        learning_rate=torch.tensor([[0.5]]),
        weight_decay=0.0,
    )
    net = WienerDenoiser(hidden=1, pooled=False).double()
    copies = 1500

    def repeated(x: torch.Tensor, dimension: int = 0) -> torch.Tensor:
        return x.repeat_interleave(copies, dim=dimension)

    many = replace(
        one,
        tasks=TaskBatch(
            names=one.tasks.names * copies,
            **{
                f.name: repeated(getattr(one.tasks, f.name))
                for f in fields(TaskBatch)
                if f.name not in ("names", "n_channels")
            },
        ),
        batches=repeated(one.batches, 1),
        **{
            name: repeated(getattr(one, name))
            for name in (
                "initial",
                "learning_rate",
                "counts",
                "noise_known",
                "total_steps",
                "rows",
                "batch_size",
            )
        },
    )
    loss, engine = MetaLoss(every=2), BatchedEngine()
    expected = Backprop()(net, one, loss, cuts=[6], engine=engine).gradients["last.bias"][0]
    biased = TruncatedBackprop()(net, one, loss, cuts=[2, 4, 6], engine=engine)
    wrong = biased.gradients["last.bias"][0]
    found = PersistentES(1e-3)(net, many, loss, cuts=[2, 4, 6], engine=engine)
    values = found.gradients["last.bias"].numpy()
    chosen = int((expected - wrong).abs().argmax())
    assert stats.ttest_1samp(values[:, chosen], float(expected[chosen])).pvalue > 1e-3
    assert stats.ttest_1samp(values[:, chosen], float(wrong[chosen])).pvalue < 1e-3


@given(
    st.lists(st.floats(1e-3, 50), min_size=1, max_size=8),
    st.integers(2, 9),
    st.floats(0.5, 4),
)
def test_the_meta_loss_goes_on_along_its_tangent(
    values: list[float], classes: int, above: float
) -> None:
    losses = torch.tensor(values, dtype=torch.double, requires_grad=True)
    count = torch.full((len(values),), classes)
    loss = MetaLoss(clip=math.inf, linear_above=above)
    found = loss(losses, count)
    (slope,) = torch.autograd.grad(found.sum(), losses)
    knee = above * math.log(classes)
    for value, one, rate in zip(values, found.tolist(), slope.tolist(), strict=True):
        at = min(value, knee)
        tangent = 1 / (at + loss.floor)
        assert one == pytest.approx(math.log(at + loss.floor) + (value - at) * tangent)
        assert rate == pytest.approx(tangent)
    plain = MetaLoss(clip=math.inf)(losses, count)
    assert bool((found >= plain - 1e-12).all())
    torch.testing.assert_close(plain, torch.log(losses + loss.floor))


def test_a_tangent_from_nowhere_is_refused() -> None:
    for above in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="linear_above="):
            MetaLoss(linear_above=above)


def test_beyond_its_clip_the_meta_loss_is_flat() -> None:
    losses = torch.tensor([1.0, 2.7, 2.8, math.inf], requires_grad=True)
    for above in (1.0, None):
        found = MetaLoss(clip=4.0, linear_above=above)(losses, torch.full((4,), 2))
        assert found[2] == found[3]
        (slope,) = torch.autograd.grad(found.sum(), losses)
        assert (slope > 0).tolist() == [True, True, False, False]


@pytest.mark.parametrize("name", ["es", "pes"])
def test_bad_settings_are_named(name: str) -> None:
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"sigma={sigma}"):
            ESTIMATORS[name](sigma)
    with pytest.raises(ValueError, match="pairs=0"):
        ESTIMATORS[name](0.1, pairs=0)


def test_copies_share_no_memory_with_the_denoiser() -> None:
    net = Rate()
    copies = TaskWeights.copies(net, 2).weights["log_rate"]
    with torch.no_grad():
        copies.add_(1)
    assert net.log_rate.item() == THETA
