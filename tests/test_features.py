"""A second version of the features and the filter, in loops over single numbers.

Moments are weighted averages over the whole history here, not running updates, and nothing
of the package is called for an expected number, save the coefficients that a filter is given.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from denograd.denoisers import Context, Layout, WienerDenoiser
from denograd.denoisers.wiener import COEFFICIENTS
from denograd.statistics import FEATURES, init_statistics, layer_features, update_statistics

SIZES, NDIMS, STARTS = (6, 3, 1, 4, 2), (2, 1, 0, 3, 2), (0, 6, 9, 10, 14)
LAYERS = range(len(SIZES))
KNOWN = ("111111111", "000000000", "001011001", "100100000", "010101010")
"""For each layer, the steps at which its noise was measured."""

Run = namedtuple("Run", "gradient noise parameter steps padding", defaults=(0,))
Told = namedtuple("Told", "total rows batch first_step", defaults=(20.0, 40.0, 16.0, 0))
Moments = namedtuple("Moments", "gradient fast slow second noise parameter moved")


def uneven(i: int, t: int) -> float:
    """A gradient that shrinks, save in the last layer, where it stays zero."""
    return 0.0 if i >= STARTS[4] else 0.8**t * (math.sin(1.3 * i + 0.9 * t * (1 + i % 4)) + 0.3)


EVEN = Run(
    lambda i, t: math.sin(i + t),
    lambda i, t: 0.1 * (1 + (i + t) % 3),
    lambda i, t: math.cos(0.7 * i) + 0.01 * t * math.sin(1 + i * t),
    steps=5,
)
UNEVEN = Run(uneven, lambda i, t: 0.02 * (i % 5) / (1 + t), EVEN.parameter, steps=9, padding=2)
each_run = pytest.mark.parametrize("run", [EVEN, UNEVEN], ids=["even", "uneven"])


def average(values: list[float], beta: float) -> float:
    """The newest value weighs 1, the one before it ``beta``, and so on."""
    weights = [beta**age for age in reversed(range(len(values)))]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


@cache
def moments(run: Run, layer: int, t: int) -> list[Moments]:
    """What is known of each element of a layer after step ``t``."""
    found = []
    for i in range(STARTS[layer], STARTS[layer] + SIZES[layer]):
        drawn = [run.gradient(i, s) for s in range(t + 1)]
        measured = [run.noise(i, s) for s in range(t + 1) if KNOWN[layer][s] == "1"]
        fast, slow = average(drawn, 0.9), average(drawn, 0.99)
        second = average([g * g for g in drawn], 0.99)
        noise = average(measured, 0.9) if measured else max(second - slow * slow, 0.0)
        now, before = run.parameter(i, t), run.parameter(i, max(t - 1, 0))
        found.append(Moments(drawn[-1], fast, slow, second, noise, now, now - before))
    return found


def mean_second_peak(run: Run, layer: int, t: int) -> float:
    seconds = [[e.second for e in moments(run, layer, s)] for s in range(t + 1)]
    return max(sum(step) / len(step) for step in seconds)


def energy(values: list[float]) -> float:
    return sum(v * v for v in values)


def quarter_log(a: float, b: float) -> float:
    return 0.25 * min(max(math.log((a + 1e-20) / (b + 1e-20)), -16.0), 16.0)


def cosine(a: list[float], b: list[float]) -> float:
    norms = math.sqrt(energy(a)) * math.sqrt(energy(b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


@cache
def plain_features(run: Run, layer: int, t: int, told: Told) -> dict[str, float]:
    g, m, slow, second, noise, p, moved = map(list, zip(*moments(run, layer, t), strict=True))
    n, step = SIZES[layer], told.first_step + t
    size, move = energy(p) / n + 1e-8, energy(moved) / n + 1e-12
    timed, sized = told.total > 0, told.rows > 0 and told.batch > 0
    phase = min(step / told.total, 1.5) if timed else 0.0
    epochs = max((step + 1) * told.batch / told.rows, 1e-3) if sized else 1.0
    return {
        "log_fast_snr": quarter_log(energy(m), sum(noise)),
        "log_slow_snr": quarter_log(energy(slow), sum(noise)),
        "log_gradient_snr": quarter_log(energy(g), sum(noise)),
        "log_fast_over_second": quarter_log(energy(m), sum(second)),
        "log_slow_over_second": quarter_log(energy(slow), sum(second)),
        "log_noise_over_second": quarter_log(sum(noise), sum(second)),
        "log_second_over_peak": quarter_log(sum(second) / n, mean_second_peak(run, layer, t)),
        "cos_gradient_fast": cosine(g, m),
        "cos_fast_slow": cosine(m, slow),
        "cos_gradient_parameter": cosine(g, p),
        "cos_gradient_displacement": cosine(g, moved),
        "cos_fast_displacement": cosine(m, moved),
        "log_parameter": math.log(size) / 4,
        "log_displacement": math.log(move) / 4 + 2,
        "log_displacement_over_parameter": math.log(move / size) / 4 + 2,
        "log_elements": math.log(n) / 4 - 1,
        "is_matrix": 1.0 if NDIMS[layer] >= 2 else 0.0,
        "noise_known": 1.0 if "1" in KNOWN[layer][: t + 1] else 0.0,
        "log_step": math.log(step + 1) / 4,
        "horizon_known": 1.0 if timed else 0.0,
        "phase": phase,
        "early_phase": math.exp(-8 * phase) if timed else 0.0,
        "log_horizon": math.log(told.total) / 2 - 2.5 if timed else 0.0,
        "rows_known": 1.0 if sized else 0.0,
        "log_rows": math.log(told.rows) / 2 - 2 if sized else 0.0,
        "log_parameters_per_row": math.log(sum(SIZES) / told.rows) / 2 if sized else 0.0,
        "log_epochs": math.log(epochs) / 4,
    }


def flat(run: Run, number: Callable[[int, int], float], t: int) -> Tensor:
    values: list[float] = []
    for start, size in zip(STARTS, SIZES, strict=True):
        values += [number(i, t) for i in range(start, start + size)] + [0.0] * run.padding
    return torch.tensor(values, dtype=torch.double)


def of_layer(values: Tensor, run: Run, layer: int) -> list[float]:
    start = STARTS[layer] + layer * run.padding
    return [float(v) for v in values[start : start + SIZES[layer]]]


def package_steps(run: Run, told: Told) -> Iterator[tuple[Tensor, Tensor, Tensor, Context]]:
    """Gradient, noise, parameters and context of each step, as the package takes them."""
    layout = Layout(tuple(n + run.padding for n in SIZES), NDIMS)
    for t in range(run.steps):
        known = torch.tensor([float(word[t]) for word in KNOWN], dtype=torch.double)
        # What stands where the noise was not measured must not matter.
        noise = flat(run, run.noise, t) + 100.0 * layout.spread(1 - known)
        run_wide = (told.first_step + t, told.total, told.rows, told.batch)
        numbers = (torch.tensor(x, dtype=torch.double) for x in run_wide)
        context = Context(layout, torch.tensor(SIZES, dtype=torch.double), known, *numbers)
        yield flat(run, run.gradient, t), noise, flat(run, run.parameter, t), context


@cache
def package(run: Run, told: Told) -> list[tuple[Any, list[list[float]]]]:
    found, state = [], None
    for gradient, noise, parameter, context in package_steps(run, told):
        state = state or init_statistics(parameter, context.layout)
        statistics, state = update_statistics(gradient, noise, parameter, state, context)
        found.append((statistics, layer_features(statistics, context).tolist()))
    return found


def near(number: float | list[float]) -> object:
    return pytest.approx(number, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["fast", "slow", "second", "noise", "peak"])
@each_run
def test_statistics_equal_averages_over_the_history(run: Run, name: str) -> None:
    for (t, (statistics, _)), k in product(enumerate(package(run, Told())), LAYERS):
        found: Any = getattr(statistics, name)
        if name == "peak":
            assert found[k].item() == near(mean_second_peak(run, k, t)), f"layer {k}, step {t}"
        else:
            expected = [getattr(e, name) for e in moments(run, k, t)]
            assert of_layer(found, run, k) == near(expected), f"layer {k}, step {t}"


TOLD = [Told(*told) for told in product((0.0, 20.0), (0.0, 40.0), (0.0, 16.0))]
TOLD += [Told(6.0, first_step=3), Told(6.0, first_step=8), Told(1.0, 1.0, 1.0), Told(9.0, 1e6, 1.0)]


@pytest.mark.parametrize("name", FEATURES)
def test_feature(name: str) -> None:
    for run, told in [(UNEVEN, Told()), *((EVEN, told) for told in TOLD)]:
        for (t, (_, features)), k in product(enumerate(package(run, told)), LAYERS):
            twin = plain_features(run, k, t, told)
            assert tuple(twin) == FEATURES
            assert features[k][FEATURES.index(name)] == near(twin[name]), (k, t, told)


def make_denoiser() -> WienerDenoiser:
    """A denoiser in double precision whose layers get clearly different coefficients."""
    generator = torch.Generator().manual_seed(167)
    denoiser = WienerDenoiser(hidden=7).double()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
            parameter.copy_(0.25 * drawn)
    return denoiser


def wiener(moment: float, variance: float) -> float:
    return moment**2 / (moment**2 + variance) if moment or variance else 1.0


@each_run
def test_whole_denoiser_over_several_steps(run: Run) -> None:
    denoiser, state = make_denoiser(), None
    for t, (gradient, noise, parameter, context) in enumerate(package_steps(run, Told())):
        features = [list(plain_features(run, k, t, Told()).values()) for k in LAYERS]
        with torch.no_grad():
            state = state or denoiser.init_state(parameter, context.layout)
            cleaned, gain, decay, state, told = denoiser(gradient, noise, parameter, state, context)
            given = denoiser.coefficients(torch.tensor(features, dtype=torch.double)).tolist()
        for name, column in zip(COEFFICIENTS, zip(*given, strict=True), strict=True):
            assert max(column) - min(column) > 0.01, f"{name} is the same in all layers"
        for k in LAYERS:
            assert told[k].tolist() == near(given[k]), f"layer {k}, step {t}"
            c = dict(zip(COEFFICIENTS, given[k], strict=True))
            by_hand, gain_by_hand = [], []
            for e in moments(run, k, t):
                kept = 1 - c["fast_filter"] * (1 - wiener(e.fast, c["fast_kappa"] * e.noise))
                added = c["add_fast"] * e.fast + c["add_slow"] * e.slow
                by_hand.append(c["gradient_gain"] * kept * e.gradient + added)
                kept = 1 - c["slow_filter"] * (1 - wiener(e.slow, c["slow_kappa"] * e.noise))
                gain_by_hand.append(c["update_gain"] * kept)
            assert of_layer(cleaned, run, k) == near(by_hand), f"layer {k}, step {t}"
            assert of_layer(gain, run, k) == near(gain_by_hand), f"layer {k}, step {t}"
            assert decay[k].item() == near(c["decay"]), f"layer {k}, step {t}"


UNIT, KAPPA, ADDITION = (0.0, 1.0), (math.exp(-4), math.exp(4)), (-1.0, 1.0)
GRADIENT_GAIN, UPDATE_GAIN = (math.exp(-1.5), math.exp(1.5)), (math.exp(-2.5), math.exp(2.5))
DECAY = (0.05 * math.exp(-3), 0.05 * math.exp(3))  # documented as 0.0025 and 1
BOUNDS = (GRADIENT_GAIN, UNIT, KAPPA, ADDITION, ADDITION, UPDATE_GAIN, UNIT, KAPPA, DECAY)
NAMES = "gradient_gain fast_filter fast_kappa add_fast add_slow update_gain slow_filter slow_kappa"


@pytest.mark.parametrize(("index", "name"), list(enumerate([*NAMES.split(), "decay"])))
def test_bounds_of_a_coefficient_and_of_no_other(index: int, name: str) -> None:
    features = torch.linspace(-1, 1, 2 * len(FEATURES), dtype=torch.double).reshape(2, -1)
    expected = make_denoiser().coefficients(features)[0].tolist()
    assert list(COEFFICIENTS)[index] == name
    for raw, bound in zip((-1e4, 1e4), BOUNDS[index], strict=True):
        denoiser = make_denoiser()
        with torch.no_grad():
            denoiser.last.bias[index] = raw
        expected[index] = bound
        assert denoiser.coefficients(features)[0].tolist() == near(expected)
