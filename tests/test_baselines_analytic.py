"""Analytic denoisers against their formulas in plain loops, autograd and other people's code."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import denograd
from denograd import Context, Denoiser, Layout
from denograd.baselines import BaselineError
from denograd.baselines.analytic import (
    AndMaskDenoiser,
    EvidenceStopDenoiser,
    GsnrDenoiser,
    MsvagDenoiser,
    RollingMedianDenoiser,
    SgdfDenoiser,
    and_mask,
    expected_agreement,
)

LAYOUT = Layout((4, 3), (2, 1))
EVERY: dict[str, Callable[[], Denoiser]] = {
    "gsnr": GsnrDenoiser,
    "gsnr layer": lambda: GsnrDenoiser(scope="layer", target="update", kappa=0.5),
    "sgdf": SgdfDenoiser,
    "sgdf root": lambda: SgdfDenoiser(gamma=0.5),
    "msvag": MsvagDenoiser,
    "and mask": AndMaskDenoiser,
    "rm3": RollingMedianDenoiser,
    "rm5": lambda: RollingMedianDenoiser(window=5),
    "evidence": lambda: EvidenceStopDenoiser(smoothing=0.5),
    "evidence layer": lambda: EvidenceStopDenoiser(scope="layer"),
}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


def context(known: float = 1.0, lead: tuple[int, ...] = ()) -> Context:
    counts = torch.tensor(LAYOUT.sizes, dtype=torch.double).expand(*lead, 2)
    number = torch.zeros(lead, dtype=torch.double)
    return Context(LAYOUT, counts, torch.full_like(counts, known), number, number, number, number)


def draw(steps: int, seed: int, *lead: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (steps, *lead, LAYOUT.total)
    gradients = torch.randn(shape, generator=generator, dtype=torch.double)
    return gradients + 0.3, torch.rand(shape, generator=generator, dtype=torch.double)


def walk(
    denoiser: Denoiser, gradients: Tensor, noise: Tensor, known: float = 1.0
) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
    now = context(known, tuple(gradients.shape[1:-1]))
    state = denoiser.init_state(gradients[0], LAYOUT)
    for g, v in zip(gradients, noise, strict=True):
        result = denoiser(g, v, g, state, now)
        state = result.state
        yield result.gradient, result.gain, result.coefficients


few = settings(max_examples=25)
seeds, some_steps = st.integers(0, 2**31), st.integers(1, 12)


@few
@given(seeds, st.floats(0.1, 4))
def test_gsnr_is_wieners_gain(seed: int, kappa: float) -> None:
    gradients, noise = draw(1, seed)
    g, v = gradients[0].tolist(), noise[0].tolist()
    element = [x * x / (x * x + kappa * n) for x, n in zip(g, v, strict=True)]
    layer: list[float] = []
    for part in (slice(0, 4), slice(4, 7)):
        signal = sum(x * x for x in g[part])
        layer += [signal / (signal + kappa * sum(v[part]))] * len(g[part])
    for scope, gains in (("element", element), ("layer", layer)):
        (scaled,) = walk(GsnrDenoiser(scope, "gradient", kappa), gradients, noise)
        (stepped,) = walk(GsnrDenoiser(scope, "update", kappa), gradients, noise)
        expected = torch.tensor(gains, dtype=torch.double)
        torch.testing.assert_close(scaled[0], expected * gradients[0])
        assert scaled[1] is None
        assert stepped[0] is gradients[0] or torch.equal(stepped[0], gradients[0])
        torch.testing.assert_close(stepped[1], expected)
        means = torch.stack([expected[:4].mean(), expected[4:].mean()])
        torch.testing.assert_close(scaled[2][:, 0], means)  # type: ignore[index]


def test_gsnr_from_per_sample_gradients_of_autograd() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 2).double(), torch.randn(9, 3).double(), torch.arange(9) % 2
    rows = []
    for i in range(9):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())]))
    per_sample = torch.stack(rows)
    mean, variance = per_sample.mean(0), per_sample.var(0, unbiased=True)
    expected = mean * mean**2 / (mean**2 + variance / 9)

    optimizer = denograd.DenoGrad(
        torch.optim.SGD(model.parameters(), lr=0.1), GsnrDenoiser(), model=model
    )
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    found = torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(found, expected)


def sgdf_twin(values: list[float], beta1: float, beta2: float, gamma: float) -> list[float]:
    m = s = 0.0
    found = []
    for t, g in enumerate(values, start=1):
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2
        mean = m / (1 - beta1**t)
        variance = s * (1 - beta1) * (1 - beta1 ** (2 * t)) / ((1 + beta1) * (1 - beta2**t))
        bottom = variance + (g - mean) ** 2
        gain = variance / bottom if bottom > 0 else 1.0
        found.append(mean + gain**gamma * (g - mean))
    return found


@few
@given(seeds, some_steps, st.sampled_from([0.5, 1.0]))
def test_sgdf_is_its_formula(seed: int, steps: int, gamma: float) -> None:
    gradients, noise = draw(steps, seed)
    found = torch.stack([r[0] for r in walk(SgdfDenoiser(0.9, 0.999, gamma), gradients, noise)])
    for k in range(LAYOUT.total):
        expected = sgdf_twin(gradients[:, k].tolist(), 0.9, 0.999, gamma)
        assert found[:, k].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def msvag_twin(values: list[float], beta: float) -> list[float]:
    found = []
    for t in range(1, len(values) + 1):
        weights = [(1 - beta) * beta ** (t - i) / (1 - beta**t) for i in range(1, t + 1)]
        m = sum(w * g for w, g in zip(weights, values, strict=False))
        v = sum(w * g * g for w, g in zip(weights, values, strict=False))
        # rho is the variance of a weighted mean, in units of that of one gradient.
        rho = sum(w * w for w in weights)
        s = (v - m * m) / (1 - rho) if t > 1 else 0.0
        found.append(m * m * m / (m * m + rho * s))
    return found


@few
@given(seeds, some_steps, st.sampled_from([0.5, 0.9]))
def test_msvag_is_its_formula(seed: int, steps: int, beta: float) -> None:
    gradients, noise = draw(steps, seed)
    found = torch.stack([r[0] for r in walk(MsvagDenoiser(beta), gradients, noise)])
    for k in range(LAYOUT.total):
        expected = msvag_twin(gradients[:, k].tolist(), beta)
        assert found[:, k].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_msvag_is_the_librarys() -> None:
    library = pytest.importorskip("pytorch_optimizer")
    ours, theirs = (nn.Parameter(torch.ones(7, dtype=torch.double)) for _ in range(2))
    wrapped = denograd.DenoGrad(torch.optim.SGD([ours], lr=0.1), MsvagDenoiser(0.9))
    reference = library.MSVAG([theirs], lr=0.1, beta=0.9)
    for g in draw(20, 3)[0]:
        ours.grad, theirs.grad = g.clone(), g.clone()
        wrapped.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@few
@given(seeds, st.integers(1, 9), st.floats(0, 0.999))
def test_and_mask_is_the_papers(seed: int, parts: int, threshold: float) -> None:
    gradients, _ = draw(parts, seed)
    found = and_mask(gradients, threshold)
    for k, column in enumerate(gradients.T.tolist()):
        agreement = abs(sum(math.copysign(1, g) for g in column))
        assert found[k].item() == float(agreement >= threshold * parts - 1e-5)


def test_expected_agreement_is_the_mean_over_draws_of_the_parts() -> None:
    mean, noise, parts, draws = 0.4, 0.09, 4, 400_000
    generator = torch.Generator().manual_seed(0)
    spread = math.sqrt(parts * noise)
    drawn = mean + spread * torch.randn(draws, parts, generator=generator, dtype=torch.double)
    assert drawn.mean(1).var().item() == pytest.approx(noise, rel=0.02)
    found = expected_agreement(torch.tensor(mean), torch.tensor(noise), parts).item()
    assert found == pytest.approx(drawn.sign().mean().item(), abs=0.005)
    # The mask asks for just this agreement.
    g, v = (torch.full((1, 7), x, dtype=torch.double) for x in (mean, noise))
    for threshold, kept in ((found - 0.01, 1.0), (found + 0.01, 0.0)):
        ((cleaned, _, coefficients),) = walk(AndMaskDenoiser(threshold, parts), g, v)
        assert torch.equal(cleaned, kept * g[0])
        assert coefficients is not None
        assert coefficients.tolist() == [[kept], [kept]]


@few
@given(seeds, some_steps, st.sampled_from([3, 5]))
def test_rolling_median_is_the_median(seed: int, steps: int, window: int) -> None:
    gradients, noise = draw(steps, seed)
    for t, (found, gain, _) in enumerate(walk(RollingMedianDenoiser(window), gradients, noise)):
        if t + 1 < window:
            expected = gradients[t].tolist()
        else:
            recent = gradients[t + 1 - window : t + 1]
            expected = [statistics.median(column) for column in recent.T.tolist()]
        assert found.tolist() == expected
        assert gain is None


@few
@given(seeds, some_steps, st.sampled_from(["all", "layer"]), st.sampled_from([0.0, 0.7]))
def test_evidence_stops_as_the_criterion_says(
    seed: int, steps: int, scope: str, smoothing: float
) -> None:
    gradients, noise = draw(steps, seed)
    noise[:, 2] = 0.0
    denoiser = EvidenceStopDenoiser(scope, smoothing)
    found = list(walk(denoiser, gradients, noise))
    parts = {"all": [[0, 1, 3, 4, 5, 6]] * 2, "layer": [[0, 1, 3], [4, 5, 6]]}[scope]
    for layer, columns in enumerate(parts):
        stopped, seen = False, []
        for t in range(steps):
            ratios = [gradients[t, k].item() ** 2 / noise[t, k].item() for k in columns]
            seen.append(1 - sum(ratios) / len(ratios))
            weights = [smoothing ** (t - i) for i in range(t + 1)]
            average = sum(w * c for w, c in zip(weights, seen, strict=True)) / sum(weights)
            stopped = stopped or average > 0
            _, gain, coefficients = found[t]
            assert gain is not None
            assert coefficients is not None
            assert coefficients[layer].tolist() == pytest.approx([average, float(stopped)])
            assert LAYOUT.split(gain)[layer].eq(float(not stopped)).all()


def test_what_is_stopped_stays_where_it_is() -> None:
    p = nn.Parameter(torch.zeros(40))
    optimizer = denograd.DenoGrad(
        torch.optim.SGD([p], lr=0.1, weight_decay=0.01), EvidenceStopDenoiser(smoothing=0.5)
    )
    generator = torch.Generator().manual_seed(0)
    path = []
    for _ in range(60):
        for _ in range(32):
            # A loss of (p - 1)^2 / 2 with noise on its gradient, in 32 micro-batches.
            pull = p.detach() - 1 + torch.randn(40, generator=generator)
            (p * pull / 32).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        path.append(p.detach().clone())
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(path)]
    assert moved[0]
    assert not moved[-1]
    assert moved == sorted(moved, reverse=True)
    assert 0.2 < path[-1].mean().item() < 1.2


@pytest.mark.parametrize("name", ["gsnr", "gsnr layer", "and mask", "evidence", "evidence layer"])
def test_unmeasured_noise_leaves_the_plain_gradient(name: str) -> None:
    gradients, noise = draw(4, 0)
    for t, (cleaned, gain, _) in enumerate(walk(EVERY[name](), gradients, noise, known=0.0)):
        assert torch.equal(cleaned, gradients[t])
        assert gain is None or bool((gain == 1).all())


@every
@few
@given(seed=seeds, steps=some_steps)
def test_stacked_tasks_are_single_ones(make: Callable[[], Denoiser], seed: int, steps: int) -> None:
    gradients, noise = draw(steps, seed, 3)
    stacked = list(walk(make(), gradients, noise))
    for task in range(3):
        for t, single in enumerate(walk(make(), gradients[:, task], noise[:, task])):
            for whole, one in zip(stacked[t], single, strict=True):
                assert (whole is None) == (one is None)
                if whole is not None and one is not None:
                    torch.testing.assert_close(whole[task], one)


@every
def test_inputs_stay_as_they_are_and_meta_gradients_are_finite(
    make: Callable[[], Denoiser],
) -> None:
    denoiser = make()
    assert isinstance(denoiser, Denoiser)
    gradients, noise = draw(6, 1)
    gradients[:, 0], noise[:, 0] = 0.0, 0.0
    kept = gradients.clone(), noise.clone()
    state = denoiser.init_state(gradients[0], LAYOUT)
    scale = torch.ones((), dtype=torch.double, requires_grad=True)
    total = torch.zeros((), dtype=torch.double)
    for g, v in zip(gradients, noise, strict=True):
        before = {k: x.detach().clone() for k, x in (state.element | state.layer).items()}
        result = denoiser(scale * g, v, g, state, context())
        for name, x in (state.element | state.layer).items():
            assert torch.equal(x, before[name])
        state = result.state
        total = total + result.gradient.sum()
        if result.gain is not None:
            total = total + result.gain.sum() + 0 * scale
    (slope,) = torch.autograd.grad(total, scale)
    assert slope.isfinite()
    assert torch.equal(gradients, kept[0])
    assert torch.equal(noise, kept[1])


@every
def test_a_saved_run_goes_on(make: Callable[[], Denoiser]) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(16, 3), torch.arange(16) % 2

    def start() -> tuple[nn.Module, denograd.DenoGrad]:
        torch.manual_seed(1)
        model = nn.Linear(3, 2)
        base = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, denograd.DenoGrad(base, make(), model=model)

    def train(model: nn.Module, optimizer: denograd.DenoGrad, steps: range) -> None:
        for step in steps:
            batch = torch.arange(8) + step % 8
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        assert optimizer.fallbacks == 0

    whole, optimizer = start()
    train(whole, optimizer, range(12))
    cut, first = start()
    train(cut, first, range(5))
    other, second = start()
    other.load_state_dict(cut.state_dict())
    second.load_state_dict(first.state_dict())
    train(other, second, range(5, 12))
    for a, b in zip(whole.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GsnrDenoiser(scope="row"), "scope='row'; it must be one of element, layer"),
        (lambda: GsnrDenoiser(target="p"), "target='p'; it must be one of gradient, update"),
        (lambda: GsnrDenoiser(kappa=-1.0), r"kappa=-1\.0; it must be a number at least 0"),
        (lambda: SgdfDenoiser(beta1=1.0), r"beta1=1\.0; it must be a number at least 0 and below"),
        (lambda: SgdfDenoiser(gamma=0.0), r"gamma=0\.0; it must be a number above 0 and finite"),
        (lambda: MsvagDenoiser(beta=0.0), r"beta=0\.0; it must be a number above 0 and below 1"),
        (lambda: AndMaskDenoiser(threshold=1.5), r"threshold=1\.5"),
        (lambda: AndMaskDenoiser(threshold=math.nan), "threshold=nan"),
        (lambda: AndMaskDenoiser(parts=0), "parts=0; it must be a number at least 1"),
        (lambda: RollingMedianDenoiser(window=4), "window=4; it must be an odd whole number"),
        (lambda: EvidenceStopDenoiser(scope="one"), "scope='one'"),
        (lambda: EvidenceStopDenoiser(smoothing=1.0), r"smoothing=1\.0"),
    ],
)
def test_values_that_make_no_sense(make: Callable[[], Denoiser], message: str) -> None:
    with pytest.raises(BaselineError, match=message):
        make()
