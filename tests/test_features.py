"""A second version of the features and the filter, in loops over single numbers.

Moments are weighted averages over the whole history here, not running updates, and nothing
of the package is called to get an expected number, save the coefficients where given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from denograd.denoisers import Context, Denoised, Layout, WienerDenoiser
from denograd.denoisers.wiener import COEFFICIENTS
from denograd.statistics import (
    FEATURES,
    LayerStatistics,
    init_statistics,
    layer_features,
    update_statistics,
)

SIZES, NDIMS = (6, 3, 1, 4, 2), (2, 1, 0, 3, 2)
STARTS = (0, 6, 9, 10, 14)
LAYERS = range(len(SIZES))
KNOWN = ("111111111", "000000000", "001011001", "100100000", "010101010")
"""For each layer, the steps at which its noise was measured."""

Number = Callable[[int, int], float]
"""The number of element ``i`` at step ``t``."""


class Run(NamedTuple):
    gradient: Number
    noise: Number
    parameter: Number
    steps: int
    known: tuple[str, ...] = KNOWN
    padding: int = 0


class Told(NamedTuple):
    total: float = 20.0
    rows: float = 40.0
    batch: float = 16.0
    first_step: int = 0


class Moments(NamedTuple):
    gradient: float
    fast: float
    slow: float
    second: float
    noise: float
    parameter: float
    displacement: float


def uneven(i: int, t: int) -> float:
    """A gradient that shrinks, save in the last layer, where it stays zero."""
    return 0.0 if i >= STARTS[4] else 0.8**t * (math.sin(1.3 * i + 0.9 * t * (1 + i % 4)) + 0.3)


EVEN = Run(
    lambda i, t: math.sin(i + t),
    lambda i, t: 0.1 * (1 + (i + t) % 3),
    lambda i, t: math.cos(0.7 * i) + 0.01 * t * math.sin(1 + i * t),
    steps=5,
)
UNEVEN = EVEN._replace(gradient=uneven, noise=lambda i, t: 0.02 * (i % 5) / (1 + t), steps=9)
PADDED = UNEVEN._replace(padding=2)
RUNS = {"even": EVEN, "uneven": UNEVEN, "padded": PADDED}


def average(values: list[float], beta: float) -> float:
    """The newest value weighs 1, the one before it ``beta``, and so on."""
    weights = [beta**age for age in reversed(range(len(values)))]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def moments(run: Run, layer: int, t: int) -> list[Moments]:
    """What is known of each element of a layer after step ``t``."""
    found = []
    for i in range(STARTS[layer], STARTS[layer] + SIZES[layer]):
        drawn = [run.gradient(i, s) for s in range(t + 1)]
        measured = [run.noise(i, s) for s in range(t + 1) if run.known[layer][s] == "1"]
        slow, second = average(drawn, 0.99), average([g * g for g in drawn], 0.99)
        noise = average(measured, 0.9) if measured else max(second - slow * slow, 0.0)
        moved = run.parameter(i, t) - run.parameter(i, t - 1) if t else 0.0
        fast = average(drawn, 0.9)
        found.append(Moments(drawn[-1], fast, slow, second, noise, run.parameter(i, t), moved))
    return found


def quarter_log(a: float, b: float) -> float:
    return 0.25 * min(max(math.log((a + 1e-20) / (b + 1e-20)), -16.0), 16.0)


def cosine(a: list[float], b: list[float]) -> float:
    norms = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def plain_features(run: Run, layer: int, t: int, told: Told) -> dict[str, float]:
    g, m, slow, second, noise, p, moved = map(list, zip(*moments(run, layer, t), strict=True))
    n, step = SIZES[layer], told.first_step + t

    def energy(values: list[float]) -> float:
        return sum(v * v for v in values)

    peak = max(sum(e.second for e in moments(run, layer, s)) / n for s in range(t + 1))
    features = {
        "log_fast_snr": quarter_log(energy(m), sum(noise)),
        "log_slow_snr": quarter_log(energy(slow), sum(noise)),
        "log_gradient_snr": quarter_log(energy(g), sum(noise)),
        "log_fast_over_second": quarter_log(energy(m), sum(second)),
        "log_slow_over_second": quarter_log(energy(slow), sum(second)),
        "log_noise_over_second": quarter_log(sum(noise), sum(second)),
        "log_second_over_peak": quarter_log(sum(second) / n, peak),
        "cos_gradient_fast": cosine(g, m),
        "cos_fast_slow": cosine(m, slow),
        "cos_gradient_parameter": cosine(g, p),
        "cos_gradient_displacement": cosine(g, moved),
        "cos_fast_displacement": cosine(m, moved),
        "log_parameter": math.log(energy(p) / n + 1e-8) / 4,
        "log_displacement": math.log(energy(moved) / n + 1e-12) / 4 + 2,
        "log_displacement_over_parameter": 2
        + (math.log(energy(moved) / n + 1e-12) - math.log(energy(p) / n + 1e-8)) / 4,
        "log_elements": math.log(n) / 4 - 1,
        "is_matrix": 1.0 if NDIMS[layer] >= 2 else 0.0,
        "noise_known": 1.0 if "1" in run.known[layer][: t + 1] else 0.0,
        "log_step": math.log(step + 1) / 4,
    }
    masked = dict.fromkeys(("horizon_known", "phase", "early_phase", "log_horizon"), 0.0)
    if told.total > 0:
        phase = min(step / told.total, 1.5)
        log_horizon = math.log(told.total) / 2 - 2.5
        masked = dict(zip(masked, (1.0, phase, math.exp(-8 * phase), log_horizon), strict=True))
    features |= masked
    masked = dict.fromkeys(("rows_known", "log_rows", "log_parameters_per_row", "log_epochs"), 0.0)
    if told.rows > 0 and told.batch > 0:
        each = math.log(sum(SIZES) / told.rows) / 2
        epochs = math.log(max((step + 1) * told.batch / told.rows, 1e-3)) / 4
        numbers = (1.0, math.log(told.rows) / 2 - 2, each, epochs)
        masked = dict(zip(masked, numbers, strict=True))
    return features | masked


def flat(run: Run, number: Number, t: int) -> Tensor:
    values: list[float] = []
    for start, size in zip(STARTS, SIZES, strict=True):
        values += [number(i, t) for i in range(start, start + size)] + [0.0] * run.padding
    return torch.tensor(values, dtype=torch.double)


def package_steps(run: Run, told: Told) -> Iterator[tuple[Tensor, Tensor, Tensor, Context]]:
    """Gradient, noise, parameters and context of each step, as the package takes them."""
    layout = Layout(tuple(n + run.padding for n in SIZES), NDIMS)
    for t in range(run.steps):
        known = torch.tensor([float(word[t]) for word in run.known], dtype=torch.double)
        # What stands where the noise was not measured must not matter.
        noise = flat(run, run.noise, t) + 100.0 * layout.spread(1 - known)
        run_wide = (told.first_step + t, told.total, told.rows, told.batch)
        numbers = (torch.tensor(x, dtype=torch.double) for x in run_wide)
        counts = torch.tensor(SIZES, dtype=torch.double)
        context = Context(layout, counts, known, *numbers)
        yield flat(run, run.gradient, t), noise, flat(run, run.parameter, t), context


@cache
def package_features(run: Run, told: Told) -> list[tuple[LayerStatistics, list[list[float]]]]:
    found = []
    state = None
    for gradient, noise, parameter, context in package_steps(run, told):
        state = state or init_statistics(parameter, context.layout)
        statistics, state = update_statistics(gradient, noise, parameter, state, context)
        found.append((statistics, layer_features(statistics, context).tolist()))
    return found


@cache
def twin_features(run: Run, told: Told) -> list[list[dict[str, float]]]:
    return [[plain_features(run, k, t, told) for k in LAYERS] for t in range(run.steps)]


def near(number: float | list[float]) -> object:
    return pytest.approx(number, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["fast", "slow", "second", "noise", "noise_seen", "peak"])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_statistics_equal_averages_over_the_history(run: Run, name: str) -> None:
    peaks = [0.0 for _ in LAYERS]
    for t, (statistics, _) in enumerate(package_features(run, Told())):
        found = getattr(statistics, name)
        for k in LAYERS:
            elements = moments(run, k, t)
            peaks[k] = max(peaks[k], sum(e.second for e in elements) / SIZES[k])
            if name == "peak":
                assert found[k].item() == near(peaks[k]), f"layer {k}, step {t}"
            elif name == "noise_seen":
                assert found[k].item() == float("1" in run.known[k][: t + 1])
            else:
                values = of_layer(found, run, k)
                expected = [getattr(e, name) for e in elements]
                assert values == near(expected), f"layer {k}, step {t}"


def of_layer(values: Tensor, run: Run, layer: int) -> list[float]:
    start = STARTS[layer] + layer * run.padding
    return values[start : start + SIZES[layer]].tolist()


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_feature(run: Run, name: str) -> None:
    twin = twin_features(run, Told())
    assert tuple(twin[0][0]) == FEATURES
    for t, (_, features) in enumerate(package_features(run, Told())):
        for k in LAYERS:
            found = features[k][FEATURES.index(name)]
            assert found == near(twin[t][k][name]), f"{name}, layer {k}, step {t}"


CASES = [
    *map(Told, *zip(*product((0.0, 20.0), (0.0, 40.0), (0.0, 16.0)), strict=True)),
    Told(total=6.0, first_step=3),
    Told(total=1.0, rows=1.0, batch=1.0),
    Told(rows=1e6, batch=1.0),
]


@pytest.mark.parametrize("told", CASES, ids=str)
def test_features_where_the_run_is_partly_unknown(told: Told) -> None:
    run = EVEN._replace(steps=3)
    for t, (_, features) in enumerate(package_features(run, told)):
        for k in LAYERS:
            twin = plain_features(run, k, t, told)
            for name, found in zip(FEATURES, features[k], strict=True):
                assert found == near(twin[name]), f"{name}, layer {k}, step {t}"


def make_denoiser(seed: int = 5, pooled: bool = True) -> WienerDenoiser:
    """A denoiser in double precision whose layers get clearly different coefficients."""
    generator = torch.Generator().manual_seed(seed)
    denoiser = WienerDenoiser(hidden=7, pooled=pooled).double()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
            parameter.copy_(0.4 * drawn)
    return denoiser


def dense(linear: nn.Linear, inputs: list[float]) -> list[float]:
    weight, bias = linear.weight.tolist(), linear.bias.tolist()
    return [
        sum(w * x for w, x in zip(row, inputs, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]


def plain_coefficients(denoiser: WienerDenoiser, features: list[list[float]]) -> list[list[float]]:
    mean = [sum(column) / len(features) for column in zip(*features, strict=True)]
    found = []
    for own in features:
        hidden = [math.tanh(x) for x in dense(denoiser.first, own + mean * denoiser.pooled)]
        hidden = [math.tanh(x) for x in dense(denoiser.second, hidden)]
        raw = dict(zip(COEFFICIENTS, dense(denoiser.last, hidden), strict=True))
        values = {name: math.tanh(x) for name, x in raw.items()}
        for name, bound in (("gradient_gain", 1.5), ("update_gain", 2.5)):
            values[name] = math.exp(bound * values[name])
        for part in ("fast", "slow"):
            values[f"{part}_filter"] = 1 / (1 + math.exp(-raw[f"{part}_filter"]))
            values[f"{part}_kappa"] = math.exp(4 * values[f"{part}_kappa"])
        values["decay"] = 0.05 * math.exp(3 * values["decay"])
        found.append(list(values.values()))
    return found


def wiener(moment: float, variance: float) -> float:
    return moment**2 / (moment**2 + variance) if moment or variance else 1.0


def check_filter(run: Run, k: int, t: int, given: list[float], result: Denoised) -> None:
    c = dict(zip(COEFFICIENTS, given, strict=True))
    cleaned, gain = [], []
    for e in moments(run, k, t):
        w_fast = wiener(e.fast, c["fast_kappa"] * e.noise)
        w_slow = wiener(e.slow, c["slow_kappa"] * e.noise)
        kept = 1 - c["fast_filter"] * (1 - w_fast)
        additions = c["add_fast"] * e.fast + c["add_slow"] * e.slow
        cleaned.append(c["gradient_gain"] * kept * e.gradient + additions)
        gain.append(c["update_gain"] * (1 - c["slow_filter"] * (1 - w_slow)))
    where = f"layer {k}, step {t}"
    assert result.gain is not None
    assert result.decay is not None
    assert of_layer(result.gradient, run, k) == near(cleaned), where
    assert of_layer(result.gain, run, k) == near(gain), where
    assert result.decay[k].item() == near(c["decay"]), where


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_whole_denoiser_over_several_steps(run: Run, pooled: bool) -> None:
    denoiser, told = make_denoiser(pooled=pooled), Told()
    state = None
    for t, (gradient, noise, parameter, context) in enumerate(package_steps(run, told)):
        features = [list(row.values()) for row in twin_features(run, told)[t]]
        with torch.no_grad():
            state = state or denoiser.init_state(parameter, context.layout)
            result = denoiser(gradient, noise, parameter, state, context)
            given = denoiser.coefficients(torch.tensor(features, dtype=torch.double))
        state = result.state
        assert result.coefficients is not None
        plain = plain_coefficients(denoiser, features)
        for k, (told_layer, by_hand) in enumerate(zip(given.tolist(), plain, strict=True)):
            assert result.coefficients[k].tolist() == near(told_layer), f"layer {k}, step {t}"
            assert told_layer == near(by_hand), f"layer {k}, step {t}"
            check_filter(run, k, t, told_layer, result)
        spread = given.amax(0) - given.amin(0)
        assert (spread > 0.01).all(), "layers must differ for this test to see mix-ups"


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("gradient_gain", math.exp(-1.5), math.exp(1.5)),
        ("fast_filter", 0.0, 1.0),
        ("fast_kappa", math.exp(-4), math.exp(4)),
        ("add_fast", -1.0, 1.0),
        ("add_slow", -1.0, 1.0),
        ("update_gain", math.exp(-2.5), math.exp(2.5)),
        ("slow_filter", 0.0, 1.0),
        ("slow_kappa", math.exp(-4), math.exp(4)),
        ("decay", 0.05 * math.exp(-3), 0.05 * math.exp(3)),  # documented as 0.0025 and 1
    ],
)
def test_bounds_of_a_coefficient(name: str, low: float, high: float) -> None:
    index = COEFFICIENTS.index(name)
    features = torch.tensor([[0.1 * i for i in range(len(FEATURES))]] * 2, dtype=torch.double)
    before = make_denoiser().coefficients(features)[0].tolist()
    for raw, bound in ((-1e4, low), (1e4, high)):
        denoiser = make_denoiser()
        with torch.no_grad():
            denoiser.last.bias[index] = raw
            found = denoiser.coefficients(features)[0].tolist()
        assert found[index] == near(bound)
        assert found[:index] + found[index + 1 :] == near(before[:index] + before[index + 1 :])
