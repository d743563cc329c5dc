"""DenoGrad as an optimizer: against the base it wraps, and against its formula."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import lr_scheduler

from denograd import Context, DenoGrad, Denoised, IdentityDenoiser, Layout, State, WienerDenoiser
from denograd.models import FeatureAttention, SoftTree

OPTIMIZERS: dict[str, Callable[[Iterable[Any]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "sgd maximize": lambda p: torch.optim.SGD(p, lr=1e-3, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adamw tensor lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
}

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 3),
    "multi step": lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "constant": lambda o: lr_scheduler.ConstantLR(o),
    "linear": lambda o: lr_scheduler.LinearLR(o),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 8),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 8),
    "warm restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=12),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [4]
    ),
}


class Probe:
    """Multiplies by constants, keeps state of both kinds, and remembers what it saw."""

    coefficient_names = ("clean", "gain")

    def __init__(
        self, clean: float = 0.5, gain: float | None = 0.7, decay: float | None = 0.3
    ) -> None:
        self.clean, self.gain, self.decay = clean, gain, decay
        self.calls: list[tuple[Tensor, Tensor, Tensor, Context]] = []
        self.poison: Callable[[Denoised, Context], Denoised] | None = None

    def init_state(self, parameter: Tensor, layout: Layout) -> State:
        return State(
            {"moment": torch.zeros_like(parameter), "start": parameter.clone()},
            {"steps": parameter.new_zeros(len(layout))},
        )

    def __call__(
        self, gradient: Tensor, noise: Tensor, parameter: Tensor, state: State, context: Context
    ) -> Denoised:
        self.calls.append((gradient, noise, parameter, context._replace(step=context.step.clone())))
        moment = 0.9 * state.element["moment"] + 0.1 * gradient
        steps = state.layer["steps"] + 1
        cleaned = self.clean * gradient + 0.1 * moment / context.layout.spread(steps)
        sizes = torch.stack((torch.full_like(steps, self.clean), steps), dim=-1)
        result = Denoised(
            cleaned,
            None if self.gain is None else torch.full_like(gradient, self.gain),
            None if self.decay is None else torch.full_like(steps, self.decay),
            State({"moment": moment, "start": state.element["start"]}, {"steps": steps}),
            sizes,
        )
        return result if self.poison is None else self.poison(result, context)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Net(nn.Module):
    """Layers of several ranks, a scalar, and a parameter that never gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.last = nn.Linear(6, 1)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.last(torch.tanh(self.norm(self.first(x))))


def batches(count: int, rows: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(rows, 4, generator=generator), torch.randn(rows, 1, generator=generator))
        for _ in range(count)
    ]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    dtype = next(model.parameters()).dtype
    return (model(batch[0].to(dtype)) - batch[1].to(dtype)).square().mean()


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: list[tuple[Tensor, Tensor]],
    scheduler: Any = None,
) -> None:
    for batch in data:
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss.detach())
        elif scheduler is not None:
            scheduler.step()


def assert_same(one: nn.Module, two: nn.Module) -> None:
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(p, q)


def twins() -> tuple[Net, Net]:
    model = Net()
    return model, copy.deepcopy(model)


def deno(net: nn.Module, denoiser: Any, make: str = "sgd", **options: Any) -> DenoGrad:
    return DenoGrad(OPTIMIZERS[make](net.parameters()), denoiser, **options)


# The identity is the base.


@pytest.mark.parametrize("audited", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_identity_equals_the_base_bit_for_bit(name: str, audited: bool) -> None:
    plain, wrapped = twins()
    base = OPTIMIZERS[name](plain.parameters())
    optimizer = DenoGrad(OPTIMIZERS[name](wrapped.parameters()), "identity", model=wrapped)
    optimizer.audit.record_every = int(audited)
    data = batches(12)
    train(plain, base, data)
    train(wrapped, optimizer, data)
    assert_same(plain, wrapped)
    ours, theirs = optimizer.state_dict(), base.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for p, q in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert base.state[p].keys() == optimizer.base.state[q].keys()


@pytest.mark.parametrize("side", ["wrapper", "base"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_work_from_either_side(name: str, side: str) -> None:
    plain, wrapped = twins()
    base = OPTIMIZERS["momentum"](plain.parameters())
    optimizer = deno(wrapped, "identity", "momentum")
    data = batches(10)
    train(plain, base, data, SCHEDULERS[name](base))
    train(
        wrapped,
        optimizer,
        data,
        SCHEDULERS[name](optimizer if side == "wrapper" else optimizer.base),
    )
    assert_same(plain, wrapped)
    assert optimizer.param_groups[0]["lr"] == base.param_groups[0]["lr"]


def test_identity_equals_the_base_in_half_precision() -> None:
    plain, wrapped = twins()
    plain, wrapped = plain.bfloat16(), wrapped.bfloat16()
    optimizer = deno(wrapped, "identity", "adamw", model=wrapped)
    optimizer.audit.record_every = 1
    train(plain, OPTIMIZERS["adamw"](plain.parameters()), batches(5))
    train(wrapped, optimizer, batches(5))
    assert_same(plain, wrapped)


# The formula.


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("gain", "decay"), [(0.7, 0.3), (None, 0.3), (1.4, None), (None, None)])
def test_a_step_is_the_formula(name: str, gain: float | None, decay: float | None) -> None:
    plain, wrapped = (model.double() for model in twins())
    base, probe = OPTIMIZERS[name](plain.parameters()), Probe(0.5, gain, decay)
    optimizer = deno(wrapped, probe, name)
    moments = {p: torch.zeros_like(p) for p in plain.parameters()}
    for step, batch in enumerate(batches(5), start=1):
        base.zero_grad()
        loss_of(plain, batch).backward()
        before = {p: p.detach().clone() for p in plain.parameters()}
        for p in plain.parameters():
            if p.grad is not None:
                moments[p] = 0.9 * moments[p] + 0.1 * p.grad
                p.grad = 0.5 * p.grad + 0.1 * moments[p] / step
        base.step()
        lr = float(base.param_groups[0]["lr"])
        with torch.no_grad():
            for p, old in before.items():
                if p.grad is not None:
                    new = old + (1.0 if gain is None else gain) * (p - old)
                    p.copy_(new - lr * (decay or 0.0) * old)
        train(wrapped, optimizer, [batch])
        for p, q in zip(plain.parameters(), wrapped.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)
            if p.grad is not None:
                torch.testing.assert_close(q.grad, p.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1), torch.tensor([0.1])], ids=str)
def test_each_group_decays_with_its_own_learning_rate(lr: float | Tensor) -> None:
    model = Net()
    base = torch.optim.SGD(
        [
            {"params": model.first.parameters(), "lr": lr},
            {"params": model.last.parameters(), "lr": 0.02},
        ],
        lr=1.0,
        foreach=False,
    )
    optimizer = DenoGrad(base, Probe(clean=0.0, gain=0.0, decay=1.0))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, optimizer, batches(1))
    rates = {"first": 0.1, "last": 0.02, "norm": 0.0, "scale": 0.0, "unused": 0.0}
    for name, p in model.named_parameters():
        rate = rates[name.split(".")[0]]
        torch.testing.assert_close(p.detach(), before[name] * (1 - rate))


@pytest.mark.parametrize(("decay", "left"), [(4.0, 0.6), (5.0, 0.5), (20.0, 0.5), (1e6, 0.5)])
def test_the_extra_decay_takes_at_most_half_in_a_step(decay: float, left: float) -> None:
    model = Net()
    optimizer = deno(model, Probe(clean=0.0, gain=0.0, decay=decay))
    before = model.first.weight.detach().clone()
    train(model, optimizer, batches(1))
    torch.testing.assert_close(model.first.weight.detach(), before * left)


def test_a_live_edit_of_the_learning_rate_counts() -> None:
    model = Net()
    optimizer = deno(model, Probe(clean=0.0, gain=0.0, decay=1.0))
    optimizer.base.param_groups[0]["lr"] = 0.5
    before = model.first.weight.detach().clone()
    train(model, optimizer, batches(1))
    torch.testing.assert_close(model.first.weight.detach(), before * 0.5)


def test_the_denoiser_minimizes_where_the_base_maximizes() -> None:
    plain, wrapped = twins()
    up = Probe(0.5, 0.7, 0.3)
    optimizer = DenoGrad(torch.optim.SGD(plain.parameters(), lr=0.1, maximize=True), up)
    down = Probe(0.5, 0.7, 0.3)
    reference = DenoGrad(torch.optim.SGD(wrapped.parameters(), lr=0.1), down)
    for batch in batches(3):
        optimizer.zero_grad()
        (-loss_of(plain, batch)).backward()
        optimizer.step()
    train(wrapped, reference, batches(3))
    assert_same(plain, wrapped)
    for one, two in zip(up.calls, down.calls, strict=True):
        assert torch.equal(one[0], two[0])
    assert plain.first.weight.grad is not None
    assert torch.equal(plain.first.weight.grad, -wrapped.first.weight.grad)  # type: ignore[operator]


def test_half_precision_is_denoised_in_float32() -> None:
    model = Net()
    model.last.bfloat16()
    model.last.forward = lambda x: nn.Linear.forward(model.last, x.bfloat16()).float()  # type: ignore[method-assign]
    probe = Probe()
    optimizer = deno(model, probe)
    before = model.last.weight.detach().float()
    train(model, optimizer, batches(2))
    assert len(probe.calls) == 2, "one call a step, whatever the precision of the layers"
    assert probe.calls[0][0].dtype == torch.float32
    assert model.last.weight.dtype == torch.bfloat16
    assert not torch.equal(model.last.weight.detach().float(), before)


def test_one_call_a_precision() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    model[1].double()
    probe = Probe()
    optimizer = deno(model, probe)
    x = torch.randn(5, 4)
    model[1](model[0](x).double()).sum().backward()
    optimizer.step()
    assert [call[0].dtype for call in probe.calls] == [torch.float32, torch.float64]


@pytest.mark.parametrize("model", [SoftTree(4, 1 + 1), FeatureAttention(4, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_filter_net_trains_in_any_precision(model: nn.Module, dtype: torch.dtype) -> None:
    model = copy.deepcopy(model).to(dtype)
    optimizer = deno(model, WienerDenoiser(hidden=4), "adamw", model=model, total_steps=30)
    x = torch.randn(32, 4, dtype=dtype)
    y = (x[:, 0] > 0).long()
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert optimizer.fallbacks == 0


def test_new_weights_of_the_denoiser_reach_its_copies() -> None:
    model = nn.Linear(3, 1).double()
    denoiser = WienerDenoiser(hidden=4)
    optimizer = deno(model, denoiser)

    def gradient() -> Tensor:
        model.zero_grad()
        model(torch.ones(2, 3, dtype=torch.float64)).sum().backward()
        optimizer.step()
        assert model.weight.grad is not None
        return model.weight.grad.clone()

    gradient()
    with torch.no_grad():
        denoiser.last.weight.zero_()
        denoiser.last.bias.zero_()
        denoiser.last.bias[denoiser.coefficient_names.index("gradient_gain")] = -20.0
        denoiser.last.bias[denoiser.coefficient_names.index("fast_filter")] = -20.0
    torch.testing.assert_close(
        gradient(), torch.full((1, 3), 2 * torch.e**-1.5, dtype=torch.float64), rtol=1e-5, atol=0
    )


# Context.


def test_what_the_denoiser_is_told() -> None:
    model, probe = Net(), Probe()
    optimizer = deno(model, probe, model=model, total_steps=50, dataset_size=40)
    train(model, optimizer, batches(3))
    for step, (gradient, noise, parameter, context) in enumerate(probe.calls):
        assert context.layout.sizes == (1, 24, 6, 6, 6, 6, 1)
        assert gradient.shape == noise.shape == parameter.shape == (context.layout.total,)
        assert context.counts.tolist() == list(context.layout.sizes)
        numbers = (context.step, context.total_steps, context.rows, context.batch_size)
        assert [number.item() for number in numbers] == [step, 50, 40, 8]
        assert {number.shape for number in numbers} == {torch.Size(())}
        # Every layer but the bare scalar parameter has a rule.
        assert context.noise_known.tolist() == [0, 1, 1, 1, 1, 1, 1]


def test_what_is_not_known_is_zero() -> None:
    model, probe = Net(), Probe()
    train(model, deno(model, probe), batches(1))
    context = probe.calls[0][3]
    assert (context.total_steps, context.rows, context.batch_size) == (0, 0, 0)
    assert not context.noise_known.any()


def test_noise_from_accumulated_gradients_without_a_model() -> None:
    model, probe = Net(), Probe()
    optimizer = deno(model, probe)
    parts = []
    for batch in batches(4):
        used = [p for name, p in model.named_parameters() if name != "unused"]
        parts.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss_of(model, batch), used)])
        )
        loss_of(model, batch).backward()
    optimizer.step()
    _, noise, _, context = probe.calls[0]
    order = [p for p in optimizer.param_groups[0]["params"] if p.grad is not None]
    assert [p.numel() for p in order] == list(context.layout.sizes)
    assert context.noise_known.all()
    torch.testing.assert_close(noise, 4 * torch.stack(parts).var(0), rtol=1e-4, atol=1e-8)


def test_noise_follows_gradient_clipping() -> None:
    one, two = twins()
    free, clipped = Probe(), Probe()
    optimizers = deno(one, free, model=one), deno(two, clipped, model=two)
    (batch,) = batches(1)
    for model in (one, two):
        loss_of(model, batch).backward()
    norm = torch.nn.utils.clip_grad_norm_(two.parameters(), 1e-2)
    for optimizer in optimizers:
        optimizer.step()
    ratio = (1e-2 / norm).square()
    assert torch.equal(free.calls[0][3].noise_known, clipped.calls[0][3].noise_known)
    torch.testing.assert_close(clipped.calls[0][1], free.calls[0][1] * ratio, rtol=1e-3, atol=0)


@pytest.mark.parametrize("unscaled", [False, True])
def test_noise_follows_the_gradient_scaler(unscaled: bool) -> None:
    one, two = twins()
    free, scaled = Probe(), Probe()
    plain, wrapped = deno(one, free, model=one), deno(two, scaled, model=two)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for batch in batches(3):
        plain.zero_grad()
        loss_of(one, batch).backward()
        plain.step()
        wrapped.zero_grad()
        scaler.scale(loss_of(two, batch)).backward()
        if unscaled:
            scaler.unscale_(wrapped)
        scaler.step(wrapped)
        scaler.update()
    for a, b in zip(free.calls, scaled.calls, strict=True):
        assert torch.equal(a[3].noise_known, b[3].noise_known)
        torch.testing.assert_close(b[1], a[1], rtol=1e-3, atol=1e-10)


def test_a_step_that_the_scaler_skips() -> None:
    model, probe = Net(), Probe()
    optimizer = deno(model, probe, model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    before = copy.deepcopy(model)
    scaler.scale(loss_of(model, batches(1)[0]) * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert_same(model, before)
    assert not probe.calls
    train(model, optimizer, batches(1))
    assert probe.calls[0][3].noise_known.sum() == 6


# Numbers that are not finite.

POISONS: dict[str, Callable[[Denoised, Tensor], Denoised]] = {
    "gradient": lambda r, x: r._replace(gradient=r.gradient + x[0]),
    "gain": lambda r, x: r._replace(gain=x[0] + 0.7),
    "decay": lambda r, x: r._replace(decay=x[1] + 0.3),
    "element": lambda r, x: r._replace(
        state=State({**r.state.element, "moment": r.state.element["moment"] + x[0]}, r.state.layer)
    ),
    "layer": lambda r, x: r._replace(
        state=State(r.state.element, {"steps": r.state.layer["steps"] + x[1]})
    ),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", POISONS)
def test_a_layer_that_is_not_finite_keeps_its_plain_gradient(where: str, value: float) -> None:
    model, plain, clean = (copy.deepcopy(m) for m in [Net()] * 3)
    probe = Probe()
    optimizer, base = deno(model, probe), OPTIMIZERS["sgd"](plain.parameters())
    healthy = deno(clean, Probe())
    train(model, optimizer, batches(1))
    train(clean, healthy, batches(1))
    plain.load_state_dict(model.state_dict())
    state = {k: v.clone() for k, v in optimizer.state[model.first.weight]["element"].items()}

    def poison(result: Denoised, context: Context) -> Denoised:
        element = torch.zeros_like(result.gradient)
        layer = torch.zeros_like(context.counts)
        at = context.layout.sizes.index(24)
        element[sum(context.layout.sizes[:at]) + 5] = value
        layer[at] = value
        return POISONS[where](result, (element, layer))  # type: ignore[arg-type]

    probe.poison = poison
    train(model, optimizer, batches(1))
    train(plain, base, batches(1))
    train(clean, healthy, batches(1))
    assert optimizer.fallbacks == 1
    assert torch.equal(model.first.weight, plain.first.weight)
    assert torch.equal(model.first.weight.grad, plain.first.weight.grad)  # type: ignore[arg-type]
    for name, kept in optimizer.state[model.first.weight]["element"].items():
        assert torch.equal(kept, state[name])
    assert optimizer.state[model.first.weight]["layer"]["steps"] == 1
    assert optimizer.state[model.first.bias]["layer"]["steps"] == 2
    assert torch.equal(model.last.weight, clean.last.weight)


@pytest.mark.parametrize("denoiser", [Probe(), WienerDenoiser(hidden=4), IdentityDenoiser()])
def test_a_gradient_that_is_not_finite_goes_to_the_base_as_it_is(denoiser: Any) -> None:
    model = Net()
    optimizer = deno(model, denoiser, model=model)
    optimizer.audit.record_every = 1
    train(model, optimizer, batches(2))
    optimizer.zero_grad()
    loss_of(model, batches(1)[0]).backward()
    grad = model.first.weight.grad
    assert grad is not None
    grad[0, 0], grad[1, 1] = float("nan"), float("inf")
    expected = grad.clone()
    optimizer.step()
    torch.testing.assert_close(model.first.weight.grad, expected, equal_nan=True, rtol=0, atol=0)
    assert optimizer.fallbacks == 1
    for name, p in model.named_parameters():
        if name != "first.weight":
            assert torch.isfinite(p).all()
    for piece in optimizer.state.values():
        for values in piece.values():
            assert all(torch.isfinite(x).all() for x in values.values())


@pytest.mark.parametrize("where", ["gradient", "parameter"])
def test_a_layer_whose_squares_overflow_is_the_only_one_that_falls_back(where: str) -> None:
    model = Net()
    optimizer = deno(model, WienerDenoiser(hidden=4), model=model)
    train(model, optimizer, batches(2))
    optimizer.zero_grad()
    loss_of(model, batches(1)[0]).backward()
    weight = model.first.weight
    assert weight.grad is not None
    with torch.no_grad():
        (weight.grad if where == "gradient" else weight)[0, 0] = 1e20
    expected = weight.grad.clone()
    optimizer.step()
    assert optimizer.fallbacks == 1
    assert torch.equal(weight.grad, expected)


def test_a_denoiser_of_the_wrong_shape_is_named() -> None:
    model, probe = Net(), Probe()
    probe.poison = lambda result, _: result._replace(gain=torch.ones(3))
    before = copy.deepcopy(model)
    optimizer = deno(model, probe)
    with pytest.raises(ValueError, match=r"Probe returned gain of shape \(3,\)"):
        train(model, optimizer, batches(1))
    assert_same(model, before)


# Which parameters take part.


def test_groups_that_are_left_alone() -> None:
    plain, wrapped = twins()

    def base(model: Net) -> torch.optim.Optimizer:
        rest = [model.last.weight, model.last.bias, model.scale]
        return torch.optim.AdamW(
            [
                {"params": rest, "denoise": False},
                {"params": model.first.parameters()},
            ]
        )

    probe = Probe(clean=2.0)
    optimizer = DenoGrad(base(wrapped), probe, model=wrapped)
    loss_of(plain, batches(1)[0]).backward()
    base(plain).step()
    train(wrapped, optimizer, batches(1))
    assert torch.equal(wrapped.last.weight, plain.last.weight)
    assert torch.equal(wrapped.last.weight.grad, plain.last.weight.grad)  # type: ignore[arg-type]
    assert not torch.equal(wrapped.first.weight, plain.first.weight)
    assert set(probe.calls[0][3].layout.sizes) == {24, 6}
    assert set(optimizer.state) == set(wrapped.first.parameters())


def test_statistics_follow_parameters_through_changes_of_the_active_set() -> None:
    model, probe = Net(), Probe()
    optimizer = deno(model, probe, model=model)
    first, second, third, fourth = batches(4)
    train(model, optimizer, [first])
    model.norm.requires_grad_(False)
    train(model, optimizer, [second])
    model.norm.requires_grad_(True)
    model.first.requires_grad_(False)
    train(model, optimizer, [third])
    model.first.requires_grad_(True)
    late = nn.Parameter(torch.randn(4, 1))
    optimizer.add_param_group({"params": [late], "lr": 0.5})
    optimizer.zero_grad()
    (loss_of(model, fourth) + (fourth[0] @ late).square().mean()).backward()
    optimizer.step()
    steps = {p: int(piece["layer"]["steps"]) for p, piece in optimizer.state.items()}
    assert {steps[p] for p in model.norm.parameters()} == {3}
    assert {steps[p] for p in model.first.parameters()} == {3}
    assert {steps[p] for p in model.last.parameters()} == {4}
    assert steps[late] == 1
    assert model.unused not in steps
    sizes = [call[3].layout.total for call in probe.calls]
    assert sizes == [50, 38, 20, 54]


def test_frozen_with_a_gradient_is_the_bases_business() -> None:
    plain, wrapped = twins()
    optimizer = deno(wrapped, Probe())
    for model in (plain, wrapped):
        loss_of(model, batches(1)[0]).backward()
        model.first.requires_grad_(False)
    OPTIMIZERS["sgd"](plain.parameters()).step()
    optimizer.step()
    assert torch.equal(plain.first.weight, wrapped.first.weight)


def test_scalars_empty_groups_and_empty_parameters() -> None:
    scalar, empty = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(0, 3))
    base = torch.optim.SGD([{"params": [scalar, empty]}, {"params": []}], lr=0.1)
    optimizer = DenoGrad(base, WienerDenoiser(hidden=4))
    for _ in range(3):
        optimizer.zero_grad()
        (scalar.square() + empty.sum()).backward()
        optimizer.step()
    assert scalar.item() < 2.0
    assert optimizer.fallbacks == 0


def test_a_step_without_any_gradient() -> None:
    model, probe = Net(), Probe()
    deno(model, probe).step()
    assert not probe.calls


def test_non_contiguous_parameters() -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    twin = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    for m in (model, twin):
        optimizer = deno(m, Probe(), model=m)
        for _ in range(3):
            optimizer.zero_grad()
            m(torch.ones(2, 3, 5, 5)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(model.weight, twin.weight, check_stride=False)


def test_complex_parameters_are_refused_by_name() -> None:
    model = nn.Module()
    model.register_parameter("wave", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="'wave' is complex"):
        DenoGrad(base, "identity", model=model)
    with pytest.raises(TypeError, match="'group 0, parameter 0' is complex"):
        DenoGrad(base, "identity")
    base.param_groups[0]["denoise"] = False
    DenoGrad(base, Probe(), model=model)

    optimizer = DenoGrad(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), "identity")
    with pytest.raises(TypeError, match="'group 1, parameter 0' is complex"):
        optimizer.add_param_group({"params": list(model.parameters())})
    assert len(optimizer.param_groups) == 1


def test_sparse_gradients_are_refused_by_name_before_anything_changes() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Embedding(5, 2, sparse=True))
    optimizer = deno(model, Probe(), model=model)
    before = copy.deepcopy(model)
    (model[0](torch.ones(1, 2)).sum() + model[1](torch.tensor([1, 2])).sum()).backward()
    with pytest.raises(RuntimeError, match=r"'1\.weight' has a sparse gradient"):
        optimizer.step()
    assert_same(model, before)
    assert not optimizer.state

    base = torch.optim.SGD(
        [
            {"params": model[0].parameters()},
            {"params": model[1].parameters(), "denoise": False},
        ],
        lr=0.1,
    )
    DenoGrad(base, Probe(), model=model).step()
    assert not torch.equal(model[1].weight, before[1].weight)


def test_names_come_from_the_groups_without_a_model() -> None:
    model = nn.Sequential(nn.Embedding(5, 2, sparse=True))
    optimizer = DenoGrad(torch.optim.SGD(model.named_parameters(), lr=0.1), Probe())
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r"'0\.weight'"):
        optimizer.step()


# What is refused.


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (Net(), "base is a Net; it must be an instance"),
        (torch.optim.AdamW, "base is a type; it must be an instance"),
        (torch.optim.LBFGS(Net().parameters()), "LBFGS, which evaluates the loss several"),
        (deno(Net(), "identity"), "base is a DenoGrad already"),
    ],
)
def test_bases_that_are_refused(base: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        DenoGrad(base, "identity")


def test_a_differentiable_base_is_refused() -> None:
    base = torch.optim.SGD(Net().parameters(), lr=0.1, differentiable=True)
    with pytest.raises(ValueError, match="differentiable=True"):
        DenoGrad(base, "identity")


@pytest.mark.parametrize("name", ["total_steps", "dataset_size", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10"])
def test_counts_that_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        deno(Net(), "identity", **{name: value})


def test_models_that_are_refused() -> None:
    with pytest.raises(TypeError, match="model is a dict"):
        deno(Net(), "identity", model={})
    with pytest.raises(ValueError, match="model Linear shares no parameter"):
        deno(Net(), "identity", model=nn.Linear(2, 2))


# The optimizer's interface.


def test_it_is_an_optimizer_on_the_bases_own_groups() -> None:
    model = Net()
    optimizer = deno(model, "identity", "adamw")
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups is optimizer.base.param_groups
    assert optimizer.defaults is optimizer.base.defaults
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is optimizer.base.param_groups
    assert "lr: 0.01" in repr(optimizer)


def test_a_closure_is_called_once_with_gradients_on() -> None:
    plain, wrapped = twins()
    base, optimizer = OPTIMIZERS["sgd"](plain.parameters()), deno(wrapped, "identity")
    (batch,) = batches(1)
    calls = []

    def closure() -> Any:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = loss_of(wrapped, batch)
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert calls == [True]
    assert loss == loss_of(plain, batch)
    train(plain, base, [batch])
    assert_same(plain, wrapped)


def test_step_hooks_of_both_are_called() -> None:
    model = Net()
    optimizer = deno(model, Probe())
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(f"pre {type(o).__name__}"))
    optimizer.register_step_post_hook(lambda o, *_: seen.append(f"post {type(o).__name__}"))
    optimizer.base.register_step_pre_hook(lambda o, *_: seen.append(f"pre {type(o).__name__}"))
    optimizer.base.register_step_post_hook(lambda o, *_: seen.append(f"post {type(o).__name__}"))
    train(model, optimizer, batches(1))
    assert seen == ["pre DenoGrad", "pre SGD", "post SGD", "post DenoGrad"]


def test_state_dict_hooks_are_called() -> None:
    optimizer = deno(Net(), Probe())
    seen: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda _: seen.append("before saving"))
    optimizer.register_state_dict_post_hook(lambda _, saved: {**saved, "mine": 1})
    optimizer.register_load_state_dict_pre_hook(lambda _, saved: seen.append(saved["mine"]))  # type: ignore[func-returns-value]
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("after loading"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before saving", 1, "after loading"]


def test_zero_grad_reaches_all_parameters() -> None:
    model = Net()
    optimizer = deno(model, "identity")
    loss_of(model, batches(1)[0]).backward()
    optimizer.zero_grad(set_to_none=False)
    assert model.scale.grad is not None
    assert model.scale.grad == 0
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


# Saving, copying, resuming.


def pickled(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))  # noqa: S301


def denoisers() -> list[Any]:
    torch.manual_seed(5)
    return [Probe(), WienerDenoiser(hidden=4)]


@pytest.mark.parametrize("denoiser", denoisers(), ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_a_resumed_run_equals_a_straight_one(name: str, denoiser: Any) -> None:
    straight, resumed = twins()
    data = batches(40)
    one = deno(straight, denoiser, name, model=straight, total_steps=40, dataset_size=64)
    schedule = lr_scheduler.CosineAnnealingLR(one, 40)
    train(straight, one, data, schedule)

    two = deno(resumed, denoiser, name, model=resumed, total_steps=40, dataset_size=64)
    schedule = lr_scheduler.CosineAnnealingLR(two, 40)
    train(resumed, two, data[:20], schedule)
    file = io.BytesIO()
    torch.save([resumed.state_dict(), two.state_dict(), schedule.state_dict()], file)
    file.seek(0)
    weights, saved, scheduled = torch.load(file, weights_only=True)

    fresh = Net()
    three = deno(fresh, denoiser, name, model=fresh)
    schedule = lr_scheduler.CosineAnnealingLR(three, 40)
    fresh.load_state_dict(weights)
    three.load_state_dict(saved)
    schedule.load_state_dict(scheduled)
    assert (three.total_steps, three.dataset_size) == (40, 64)
    train(fresh, three, data[20:], schedule)
    assert_same(straight, fresh)


def test_a_plain_state_dict_is_accepted_with_a_warning() -> None:
    model = Net()
    base = OPTIMIZERS["adamw"](model.parameters())
    train(model, base, batches(3))
    optimizer = deno(model, Probe(), "adamw", total_steps=9)
    train(model, optimizer, batches(2))
    with pytest.warns(UserWarning, match="statistics start fresh"):
        optimizer.load_state_dict(base.state_dict())
    assert optimizer.total_steps == 9
    assert not optimizer.state
    assert optimizer.base.state[model.scale]["step"] == 3
    train(model, optimizer, batches(1))


def test_a_saved_state_loads_into_a_plain_base() -> None:
    model = Net()
    optimizer = deno(model, Probe(), "adamw")
    train(model, optimizer, batches(3))
    base = OPTIMIZERS["adamw"](model.parameters())
    base.load_state_dict(optimizer.state_dict())
    assert base.state[model.scale]["step"] == 3


def test_saved_statistics_hold_no_memory_of_others() -> None:
    model = Net()
    optimizer = deno(model, Probe())
    train(model, optimizer, batches(2))
    saved = optimizer.state_dict()["denograd"]
    assert saved["schema"] == 1
    assert saved["step"] == 2
    assert list(saved["parameters"]) == [0, 2, 3, 4, 5, 6, 7], "number 1 has no gradient"
    piece = saved["parameters"][0]
    assert piece["element"]["moment"].shape == ()
    assert piece["element"]["moment"].untyped_storage().nbytes() == 4


def broken(saved: dict[str, Any], how: str) -> dict[str, Any]:
    saved = copy.deepcopy(saved)
    part = saved["denograd"]
    if how == "schema":
        part["schema"] = 99
    elif how == "shape":
        part["parameters"][2]["element"]["moment"] = torch.zeros(3, 3)
    elif how == "names":
        del part["parameters"][2]["element"]["moment"]
    elif how == "index":
        part["parameters"][77] = part["parameters"][2]
    elif how == "count":
        part["total_steps"] = -4
    return saved


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("schema", "schema 99"),
        ("shape", r"'moment' of parameter 2 in shape \(3, 3\)"),
        ("names", "use the denoiser that was saved"),
        ("index", "statistics of parameter 77"),
        ("count", "total_steps=-4"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(how: str, message: str) -> None:
    model = Net()
    optimizer = deno(model, Probe(), "adamw")
    train(model, optimizer, batches(2))
    saved = optimizer.state_dict()
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(broken(saved, how))
    again = optimizer.state_dict()
    assert again["denograd"]["step"] == 2
    train(model, optimizer, batches(1))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_copies_go_on_alike_and_apart(duplicate: Callable[[Any], Any]) -> None:
    model = Net()
    optimizer = deno(model, WienerDenoiser(hidden=4), "adamw", model=model, total_steps=9)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9)
    data = batches(8)
    train(model, optimizer, data[:4], scheduler)
    twin, double = duplicate((model, optimizer))
    assert double.total_steps == 9
    start = copy.deepcopy(twin)
    train(model, optimizer, data[4:])
    assert_same(twin, start)
    train(twin, double, data[4:])
    assert_same(model, twin)
    assert double.param_groups is double.base.param_groups


def test_a_model_that_holds_its_optimizer_is_copied_with_a_warning() -> None:
    model = Net()
    model.optimizer = deno(model, Probe(), model=model)  # type: ignore[assignment]
    with pytest.warns(UserWarning, match="attach_capture"):
        twin = copy.deepcopy(model)
    held: Any = twin.optimizer
    held.attach_capture(twin)
    train(twin, held, batches(1))


def test_detaching_the_capture() -> None:
    model, probe = Net(), Probe()
    optimizer = deno(model, probe, model=model)
    optimizer.detach_capture()
    assert not model.first._forward_hooks
    train(model, optimizer, batches(1))
    assert not probe.calls[-1][3].noise_known.any()
    optimizer.attach_capture(model)
    train(model, optimizer, batches(1))
    assert probe.calls[-1][3].noise_known.sum() == 6


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=4),
    clean=st.floats(-2, 2),
    gain=st.floats(0, 3),
    decay=st.floats(0, 1),
)
def test_parameters_of_any_shape(
    shapes: list[list[int]], clean: float, gain: float, decay: float
) -> None:
    parameters = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
    probe = Probe(clean, gain, decay)
    optimizer = DenoGrad(torch.optim.SGD(parameters, lr=0.1), probe)
    before = [p.detach().clone() for p in parameters]
    torch.stack([p.square().sum() for p in parameters]).sum().backward()
    optimizer.step()
    for p, old in zip(parameters, before, strict=True):
        step = 0.1 * (clean + 0.01) * 2 * old
        torch.testing.assert_close(p.detach(), old - gain * step - 0.1 * decay * old)


def test_a_step_reads_nothing_back_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    optimizer = deno(model, WienerDenoiser(hidden=4), "sgd", model=model)
    train(model, optimizer, batches(2))

    def forbidden(*_: Any) -> Any:
        raise AssertionError("a step waited for the device")

    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, name, forbidden)
    optimizer.zero_grad(set_to_none=False)
    for batch in batches(2):
        loss_of(model, batch).backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("term", "named"),
    [
        (lambda m: 0.3 * m.first.weight.square().sum(), ["first.weight"]),
        (lambda m: 0.1 * m.first.weight.abs().sum(), ["first.weight"]),
        (lambda m: 0.0, []),
    ],
)
def test_a_term_of_the_loss_that_hides_the_noise_is_told_of(
    term: Callable[[nn.Module], Any], named: list[str]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("first", nn.Linear(3, 4))
    model.add_module("act", nn.Tanh())
    model.add_module("last", nn.Linear(4, 1))
    base = torch.optim.SGD(model.parameters(), lr=1e-3)
    optimizer = DenoGrad(base, model=model)
    scheduler = lr_scheduler.LinearLR(optimizer)  # it wraps the step
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(30):
            x = torch.randn(16, 3)
            optimizer.zero_grad()
            ((model(x) - x[:, :1]).square().mean() + term(model)).backward()
            optimizer.step()
            scheduler.step()
    assert len(caught) == (1 if named else 0)  # once a run
    for name in named:
        message = str(caught[0].message)
        assert message.startswith(f"DenoGrad: the gradients of {name} are not what the rows")
        assert caught[0].filename == __file__


class Sideways(nn.Module):
    """Gives its layer another number of rows than it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(-1, 3))


@pytest.mark.parametrize(
    ("model", "rows", "told"),
    [(Sideways(), 4, True), (nn.Linear(6, 1), 1, True), (nn.Linear(6, 1), 4, False)],
)
def test_noise_that_is_measured_nowhere_is_told_of_once(
    model: nn.Module, rows: int, told: bool
) -> None:
    optimizer = DenoGrad(torch.optim.SGD(model.parameters(), lr=1e-3), model=model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(30):
            optimizer.zero_grad()
            model(torch.randn(rows, 6)).square().mean().backward()
            optimizer.step()
    assert len(caught) == told
    if told:
        assert "the noise within the batch was measured in no layer" in str(caught[0].message)
        assert caught[0].filename == __file__


def test_a_lazy_module_is_refused_with_what_to_do() -> None:
    lazy = nn.Sequential(nn.LazyLinear(2), nn.Linear(2, 1))
    base = torch.optim.SGD(lazy[1].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"0\.weight of Sequential has no shape yet.*model\(x\)"):
        DenoGrad(base, model=lazy)


def test_gradients_that_are_no_numbers_are_another_matter() -> None:
    model = nn.Linear(6, 1)
    optimizer = DenoGrad(torch.optim.SGD(model.parameters(), lr=0.0), model=model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(12):
            optimizer.zero_grad()
            (model(torch.randn(4, 6)).mean() * torch.nan).backward()
            optimizer.step()


@pytest.mark.parametrize("to_none", [True, False])
def test_a_base_with_another_default_of_zero_grad(to_none: bool) -> None:
    class Zeroing(torch.optim.SGD):
        def zero_grad(self, set_to_none: bool = False) -> None:
            super().zero_grad(set_to_none)

    model = nn.Linear(3, 1)
    optimizer = DenoGrad(Zeroing(model.parameters(), lr=0.1), "identity")
    model(torch.ones(2, 3)).sum().backward()
    optimizer.zero_grad(set_to_none=to_none)
    assert (model.weight.grad is None) == to_none


def test_a_base_whose_zero_grad_takes_nothing() -> None:
    class Old(torch.optim.SGD):
        def zero_grad(self) -> None:  # type: ignore[override]
            super().zero_grad()

    model = nn.Linear(3, 1)
    optimizer = DenoGrad(Old(model.parameters(), lr=0.1), "identity")
    model(torch.ones(2, 3)).sum().backward()
    optimizer.zero_grad()
    assert model.weight.grad is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripting_a_model_with_hooks_says_what_to_do() -> None:
    model, x = nn.Linear(3, 1), torch.ones(2, 3)
    optimizer = DenoGrad(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    with pytest.raises(AttributeError, match=r"optimizer\.detach_capture"):
        torch.jit.script(model)
    optimizer.detach_capture()
    torch.testing.assert_close(torch.jit.script(model)(x), model(x))


def test_training_raises_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Net()
        train(model, deno(model, WienerDenoiser(hidden=4), "adamw", model=model), batches(2))
