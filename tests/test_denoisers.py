"""Statistics, features and the filter against closed forms and invariances."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denograd import Context, Denoiser, IdentityDenoiser, Layout, WienerDenoiser
from denograd.denoisers.wiener import COEFFICIENTS
from denograd.statistics import FEATURES, init_statistics, layer_features, update_statistics

LAYOUT = Layout((6, 3, 1), (2, 1, 0))


def context(
    step: int = 0, known: float = 1.0, lead: tuple[int, ...] = (), layout: Layout = LAYOUT
) -> Context:
    counts = torch.tensor(layout.sizes, dtype=torch.double).expand(*lead, len(layout))

    def number(value: float) -> torch.Tensor:
        return torch.full(lead, value, dtype=torch.double)

    return Context(
        layout,
        counts,
        torch.full_like(counts, known),
        number(step),
        number(100.0),
        number(40.0),
        number(20.0),
    )


def gradients(steps: int, seed: int = 0, layout: Layout = LAYOUT) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(steps, layout.total, generator=generator, dtype=torch.double)
    return drawn + 0.5


def run(steps: int, scale: float = 1.0, known: float = 1.0, seed: int = 0):
    """Statistics after some steps of a fixed trajectory."""
    drawn, noise = gradients(steps, seed), gradients(steps, seed + 1).square()
    parameter = gradients(1, 7)[0]
    state = init_statistics(parameter, LAYOUT)
    for step in range(steps):
        now = context(step, known)
        statistics, state = update_statistics(
            scale * drawn[step], scale**2 * noise[step], parameter + 0.01 * step, state, now
        )
    return statistics, now


@given(steps=st.integers(1, 30))
def test_moments_are_adams_bias_corrected_ones(steps: int) -> None:
    drawn, noise = gradients(steps), gradients(steps, 1).square()
    statistics, _ = run(steps)
    for found, beta, values in [
        (statistics.fast, 0.9, drawn),
        (statistics.slow, 0.99, drawn),
        (statistics.second, 0.99, drawn.square()),
        (statistics.noise, 0.9, noise),
    ]:
        moment = torch.zeros(LAYOUT.total, dtype=torch.double)
        for value in values:
            moment = beta * moment + (1 - beta) * value
        torch.testing.assert_close(found, moment / (1 - beta**steps))


def test_noise_without_a_measurement_is_the_variance_over_time() -> None:
    statistics, _ = run(20, known=0.0)
    torch.testing.assert_close(
        statistics.noise, (statistics.second - statistics.slow.square()).clamp_min(0)
    )
    assert (statistics.noise_seen == 0).all()


@given(scale=st.floats(1e-4, 1e4), steps=st.integers(2, 10))
def test_no_feature_depends_on_the_scale_of_the_loss(scale: float, steps: int) -> None:
    plain, now = run(steps)
    scaled, _ = run(steps, scale)
    torch.testing.assert_close(
        layer_features(scaled, now), layer_features(plain, now), rtol=1e-6, atol=1e-6
    )


def test_features_have_their_names_and_mask_what_is_unknown() -> None:
    statistics, now = run(3)
    known = layer_features(statistics, now)
    assert known.shape == (3, len(FEATURES))
    zero = torch.zeros((), dtype=torch.double)
    unknown = layer_features(statistics, now._replace(total_steps=zero, rows=zero, batch_size=zero))
    for name in FEATURES:
        column = unknown[:, FEATURES.index(name)]
        told = known[:, FEATURES.index(name)]
        if any(word in name for word in ("phase", "horizon", "rows", "per_row", "epochs")):
            assert (column == 0).all(), name
        else:
            torch.testing.assert_close(column, told)


def test_rows_without_the_size_of_a_batch_count_as_unknown() -> None:
    statistics, now = run(3)
    zero = torch.zeros((), dtype=torch.double)
    alone = layer_features(statistics, now._replace(batch_size=zero))
    neither = layer_features(statistics, now._replace(batch_size=zero, rows=zero))
    torch.testing.assert_close(alone, neither)


def test_padding_changes_no_statistic_of_real_elements() -> None:
    """Zeros in front of, between and behind real elements, as padding puts them."""
    padded_layout = Layout((9, 5, 1), (2, 1, 0))
    real = torch.tensor([0, 1, 3, 4, 6, 7, 9, 11, 13, 14])
    denoiser = trained()
    parameter = gradients(1, 7)[0]
    wide = torch.zeros(padded_layout.total, dtype=torch.double)
    state = denoiser.init_state(parameter, LAYOUT)
    wide_state = denoiser.init_state(wide.index_copy(0, real, parameter), padded_layout)
    for step in range(6):
        gradient, noise = gradients(6)[step], gradients(6, 1)[step].square()
        now = context(step)
        result = denoiser(gradient, noise, parameter, state, now)
        padded = denoiser(
            wide.index_copy(0, real, gradient),
            wide.index_copy(0, real, noise),
            wide.index_copy(0, real, parameter),
            wide_state,
            now._replace(layout=padded_layout),
        )
        torch.testing.assert_close(padded.gradient[real], result.gradient)
        torch.testing.assert_close(padded.gain[real], result.gain)
        torch.testing.assert_close(padded.decay, result.decay)
        assert padded.gradient.count_nonzero() == len(real)
        state, wide_state = result.state, padded.state


def trained(seed: int = 3, scale: float = 3.0, **config) -> WienerDenoiser:
    """A denoiser with large random weights, so that nothing is near its start."""
    torch.manual_seed(seed)
    denoiser = WienerDenoiser(hidden=8, **config).double()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.mul_(scale)
    return denoiser


def test_leading_dimensions_equal_one_at_a_time() -> None:
    denoiser = trained()
    drawn, noise = gradients(12).reshape(4, 3, -1), gradients(12, 1).reshape(4, 3, -1).square()
    parameter = gradients(3, 5)
    together = denoiser.init_state(parameter, LAYOUT)
    alone = [denoiser.init_state(p, LAYOUT) for p in parameter]
    for step in range(4):
        batch = denoiser(drawn[step], noise[step], parameter, together, context(step, lead=(3,)))
        together = batch.state
        for i in range(3):
            one = denoiser(drawn[step, i], noise[step, i], parameter[i], alone[i], context(step))
            alone[i] = one.state
            torch.testing.assert_close(batch.gradient[i], one.gradient)
            torch.testing.assert_close(batch.gain[i], one.gain)
            torch.testing.assert_close(batch.decay[i], one.decay)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 1000),
    exponent=st.floats(-18, 18),
    zero=st.booleans(),
    known=st.sampled_from([0.0, 1.0]),
)
def test_outputs_are_finite_and_bounded(
    seed: int, exponent: float, zero: bool, known: float
) -> None:
    denoiser = trained(seed, scale=10.0).float()
    parameter = torch.randn(LAYOUT.total)
    state = denoiser.init_state(parameter, LAYOUT)
    now = Context(*(v.float() if isinstance(v, torch.Tensor) else v for v in context(0, known)))
    for _step in range(5):
        gradient = torch.randn(LAYOUT.total) * (0.0 if zero else 10.0**exponent)
        result = denoiser(gradient, gradient.square(), parameter, state, now)
        state = result.state
        if exponent < 16:
            assert torch.isfinite(result.gradient).all()
        assert (result.gain >= 0).all()
        assert (result.gain <= torch.e**2.5 + 1e-3).all()
        assert (result.decay > 0).all()
        assert (result.decay <= 1.01).all()
        largest = gradient.abs().max() * torch.e**1.5 + 2 * state.element["slow"].abs().max()
        largest = largest + 2 * state.element["fast"].abs().max()
        assert (result.gradient.abs() <= largest * 1.01).all()


def test_wiener_gain_is_one_without_noise_and_small_without_signal() -> None:
    denoiser = WienerDenoiser(hidden=4).double()
    with torch.no_grad():
        denoiser.last.weight.zero_()
        denoiser.last.bias.zero_()
        for name in ("fast_filter", "slow_filter"):
            denoiser.last.bias[list(COEFFICIENTS).index(name)] = 50.0
    parameter, gradient = torch.zeros(LAYOUT.total).double(), gradients(1)[0]
    state = denoiser.init_state(parameter, LAYOUT)
    clean = denoiser(gradient, torch.zeros_like(gradient), parameter, state, context())
    torch.testing.assert_close(clean.gradient, gradient)
    torch.testing.assert_close(clean.gain, torch.ones_like(gradient))
    noisy = denoiser(gradient, 1e8 * gradient.square(), parameter, state, context())
    assert (noisy.gain < 1e-7).all()
    even = denoiser(gradient, gradient.square(), parameter, state, context())
    torch.testing.assert_close(even.gain, torch.full_like(gradient, 0.5))


@pytest.mark.parametrize("part", sorted(WienerDenoiser.PARTS))
def test_a_disabled_part_does_nothing(part: str) -> None:
    denoiser = trained(disabled=WienerDenoiser.PARTS[part])
    parameter, gradient = gradients(1, 5)[0], gradients(1)[0]
    state = denoiser.init_state(parameter, LAYOUT)
    one = denoiser(gradient, gradient.square(), parameter, state, context())
    if part == "gains":
        assert (one.decay == 0).all()
        assert one.gain.max() <= 1.0
    else:
        other = denoiser(gradient, 50 * gradient.square(), parameter, state, context())
        assert len(one.gain[:6].unique()) == 1
        assert len(other.gain[:6].unique()) == 1


def test_untrained_it_starts_near_the_base_optimizer() -> None:
    denoiser = WienerDenoiser()
    coefficients = denoiser.coefficients(torch.randn(50, len(FEATURES)))
    named = dict(zip(COEFFICIENTS, coefficients.unbind(-1), strict=True))
    assert (named["gradient_gain"].log().abs() < 0.3).all()
    assert (named["update_gain"].log().abs() < 0.5).all()
    assert (named["slow_filter"] < 0.2).all()
    assert (named["decay"] < 0.06).all()


def test_meta_gradients_are_finite_at_zero() -> None:
    denoiser = WienerDenoiser()
    parameter = torch.zeros(LAYOUT.total)
    gradient = torch.zeros(LAYOUT.total, requires_grad=True)
    state = denoiser.init_state(parameter, LAYOUT)
    now = Context(*(v.float() if isinstance(v, torch.Tensor) else v for v in context()))
    for _ in range(3):
        result = denoiser(gradient, gradient.square(), parameter, state, now)
        state = result.state
    (result.gradient.sum() + result.gain.sum() + result.decay.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in denoiser.parameters())
    assert torch.isfinite(gradient.grad).all()


def test_both_denoisers_follow_the_protocol() -> None:
    assert isinstance(IdentityDenoiser(), Denoiser)
    assert isinstance(WienerDenoiser(), Denoiser)


def test_layout_cuts_and_joins() -> None:
    flat = torch.arange(20.0).reshape(2, 10)
    assert [p.shape[-1] for p in LAYOUT.split(flat)] == [6, 3, 1]
    torch.testing.assert_close(LAYOUT.sum(flat)[1], torch.tensor([75.0, 51.0, 19.0]))
    assert LAYOUT.spread(torch.tensor([1.0, 2.0, 3.0])).tolist() == [1.0] * 6 + [2.0] * 3 + [3.0]


@pytest.mark.parametrize("bad", [{"hidden": 0}, {"hidden": True}, {"disabled": ["speed"]}])
def test_bad_arguments_are_named(bad: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
        WienerDenoiser(**bad)
