"""Noise within the batch, against gradients that autograd computes one row at a time."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from denograd.denoisers import Layout
from denograd.models import BroadcastParameter, FeatureAttention, FeatureTokenizer, SoftTree
from denograd.noise import Dense, NoiseCapture, noise_variance, register_noise_rule, rule_for
from denograd.noise import _rows as rows_module
from denograd.noise._rules import _RULES

B = 5


def floats(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(B, *shape, dtype=torch.float64)


def indices(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, 7, (B, *shape))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "linear rank 2": (lambda: nn.Linear(4, 3), floats(4)),
    "linear rank 3": (lambda: nn.Linear(4, 3), floats(6, 4)),
    "linear rank 5": (lambda: nn.Linear(4, 3), floats(2, 3, 2, 4)),
    "linear one output": (lambda: nn.Linear(4, 1), floats(4)),
    "linear no bias": (lambda: nn.Linear(4, 3, bias=False), floats(2, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3), floats(2, 9)),
    "conv1d strided": (lambda: nn.Conv1d(2, 4, 3, stride=3, padding=2), floats(2, 10)),
    "conv1d same": (lambda: nn.Conv1d(2, 3, 4, padding="same"), floats(2, 9)),
    "conv1d valid": (lambda: nn.Conv1d(2, 3, 4, padding="valid"), floats(2, 9)),
    "conv1d circular": (
        lambda: nn.Conv1d(2, 3, 3, padding=2, padding_mode="circular"),
        floats(2, 9),
    ),
    "conv2d": (lambda: nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(2, 1)), floats(2, 7, 6)),
    "conv2d dilated": (lambda: nn.Conv2d(2, 3, 3, dilation=(2, 1), stride=2), floats(2, 9, 8)),
    "conv2d groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), floats(4, 5, 5)),
    "conv2d depthwise": (lambda: nn.Conv2d(3, 6, 3, groups=3, bias=False), floats(3, 5, 5)),
    "conv2d reflect": (
        lambda: nn.Conv2d(2, 2, 3, padding=(1, 2), padding_mode="reflect"),
        floats(2, 5, 5),
    ),
    "conv2d replicate same": (
        lambda: nn.Conv2d(2, 2, (2, 3), padding="same", padding_mode="replicate", dilation=2),
        floats(2, 6, 5),
    ),
    "conv3d": (lambda: nn.Conv3d(2, 2, 2, stride=(1, 2, 1), padding=1), floats(2, 3, 4, 3)),
    "embedding rank 1": (lambda: nn.Embedding(7, 3), indices()),
    "embedding rank 2": (lambda: nn.Embedding(7, 3), indices(9)),
    "embedding rank 3": (lambda: nn.Embedding(7, 3), indices(2, 4)),
    "embedding padding": (lambda: nn.Embedding(7, 3, padding_idx=2), indices(9)),
    "layer norm": (lambda: nn.LayerNorm(6), floats(6)),
    "layer norm rank 3": (lambda: nn.LayerNorm(6), floats(4, 6)),
    "layer norm two axes": (lambda: nn.LayerNorm((4, 3)), floats(2, 4, 3)),
    "group norm": (lambda: nn.GroupNorm(2, 4), floats(4, 5)),
    "group norm rank 2": (lambda: nn.GroupNorm(2, 6), floats(6)),
    "instance norm": (lambda: nn.InstanceNorm1d(3, affine=True), floats(3, 5)),
    "instance norm 2d": (lambda: nn.InstanceNorm2d(3, affine=True), floats(3, 4, 3)),
    "instance norm eval": (
        lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True).eval(),
        floats(3, 5),
    ),
    "batch norm train": (lambda: nn.BatchNorm1d(3), floats(3)),
    "batch norm eval": (lambda: nn.BatchNorm1d(3).eval(), floats(3, 4)),
    "batch norm 2d": (lambda: nn.BatchNorm2d(3, track_running_stats=False), floats(3, 4, 2)),
    "batch norm 3d": (lambda: nn.BatchNorm3d(2), floats(2, 2, 3, 2)),
    "tokenizer": (lambda: FeatureTokenizer(4, 3), floats(4)),
}

MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "soft tree": (lambda: SoftTree(4, 3, depth=3), floats(4)),
    "attention": (lambda: FeatureAttention(4, 3, width=5, heads=2), floats(4)),
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), floats(4)),
    "in-place relu": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)),
        floats(4),
    ),
    "text": (
        lambda: nn.Sequential(nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
        indices(6),
    ),
    "image": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(36, 2)
        ),
        floats(2, 5, 5),
    ),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def row_losses(output: Tensor, reduction: str = "sum") -> Tensor:
    """A loss for each row, different for each row and element, ``(B,)``."""
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    losses = (torch.sin(output) * weights + output.square()).flatten(1).sum(1)
    return losses / len(losses) if reduction == "mean" else losses


def contributions(losses: Tensor, parameter: Tensor) -> Tensor:
    """Each row's gradient by plain autograd, ``(B, *parameter.shape)``."""
    rows = []
    for loss in losses:
        (row,) = torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)
        rows.append(torch.zeros_like(parameter) if row is None else row)
    return torch.stack(rows)


def variance(rows: Tensor) -> Tensor:
    """Variance of a sum of independent contributions: their number times their variance."""
    return len(rows) * rows.var(0, correction=1)


def noise(capture: NoiseCapture, parameters: list[nn.Parameter]) -> list[tuple[Tensor, float]]:
    """Variance and whether it is known, a parameter each, at the gradients of now."""
    grads = [p.grad for p in parameters if p.grad is not None]
    layout = Layout.of(grads)
    joined = torch.cat([g.reshape(-1) for g in grads])
    flat, known = noise_variance(joined, layout, capture.records(parameters))
    parts = zip(layout.split(flat), grads, known.tolist(), strict=True)
    return [(part.view_as(g), k) for part, g, k in parts]


def check(model: nn.Module, x: Tensor, reduction: str = "sum") -> None:
    parameters = list(model.parameters())
    reference = [contributions(row_losses(model(x), reduction), p) for p in parameters]
    plain = copy.deepcopy(model)
    row_losses(plain(x), reduction).sum().backward()

    capture = NoiseCapture(parameters, model)
    row_losses(model(x), reduction).sum().backward()

    assert capture.rows(list(model.parameters())) == B
    found = noise(capture, parameters)
    for p, q, rows, (got, known) in zip(
        parameters, plain.parameters(), reference, found, strict=True
    ):
        assert q.grad is not None
        assert p.grad is not None
        assert torch.equal(p.grad, q.grad), "capturing changed a gradient"
        assert known == 1.0
        torch.testing.assert_close(got, variance(rows), rtol=1e-7, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("case", CASES)
def test_each_rule_agrees_with_rows_one_at_a_time(case: str, reduction: str) -> None:
    make, data = CASES[case]
    check(make().double(), data(), reduction)


@pytest.mark.parametrize("case", MODELS)
def test_whole_models_agree_with_rows_one_at_a_time(case: str) -> None:
    make, data = MODELS[case]
    check(make().double(), data(), "mean")


@pytest.mark.parametrize("case", MODELS)
def test_a_row_alone_gives_the_same_contributions_as_within_its_batch(case: str) -> None:
    # The reference of the other tests masks the loss; this one sends rows one at a time.
    make, data = MODELS[case]
    model, x = make().double(), data()
    whole = row_losses(model(x))
    for p in model.parameters():
        alone = []
        for i in range(B):
            output = model(x[i : i + 1])
            weights = torch.linspace(-1, 2, B * output.numel(), dtype=output.dtype).view(B, -1)[i]
            flat = output.flatten()
            loss = (torch.sin(flat) * weights + flat.square()).sum()
            alone.append(torch.autograd.grad(loss, p, allow_unused=True)[0])
        torch.testing.assert_close(torch.stack(alone), contributions(whole, p))


@settings(max_examples=25)
@given(
    rows=st.integers(2, 6),
    shape=st.lists(st.integers(1, 3), max_size=3),
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_linear_of_any_rank(
    rows: int, shape: list[int], inputs: int, outputs: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(inputs, outputs).double()
    x = torch.randn(rows, *shape, inputs, dtype=torch.float64)
    reference = [contributions(row_losses(layer(x)), p) for p in layer.parameters()]
    capture = NoiseCapture(layer.parameters(), layer)
    row_losses(layer(x)).sum().backward()
    found = noise(capture, list(layer.parameters()))
    for contribution, (got, known) in zip(reference, found, strict=True):
        assert known == 1.0
        torch.testing.assert_close(got, variance(contribution), rtol=1e-6, atol=1e-10)


@settings(max_examples=25)
@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    groups=st.sampled_from([1, 2]),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
)
def test_convolutions_of_any_geometry(
    kernel: int, stride: int, dilation: int, padding: int, groups: int, mode: str
) -> None:
    torch.manual_seed(1)
    layer = nn.Conv1d(
        4, 2, kernel, stride, padding, dilation, groups=groups, padding_mode=mode
    ).double()
    check(layer, torch.randn(B, 4, 8, dtype=torch.float64))


def test_rows_are_summed_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "CHUNK", 30)
    check(nn.Linear(4, 3).double(), floats(6, 4)())


def test_half_precision_is_measured_in_float32() -> None:
    layer = nn.Linear(4, 3).to(torch.bfloat16)
    x = torch.randn(64, 4, dtype=torch.bfloat16)
    reference = [contributions(row_losses(layer(x)), p).float() for p in layer.parameters()]
    capture = NoiseCapture(layer.parameters(), layer)
    row_losses(layer(x)).sum().backward()
    record = capture.records([layer.weight])[0]
    assert record is not None
    assert record.squares is not None
    assert record.squares.dtype == torch.float32
    for rows, (got, known) in zip(reference, noise(capture, [*layer.parameters()]), strict=True):
        assert known == 1.0
        torch.testing.assert_close(got.float(), variance(rows), rtol=0.05, atol=0.05)


def test_autocast_is_measured_in_float32() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    x = torch.randn(64, 4)
    reference = [contributions(row_losses(model(x)), p) for p in model.parameters()]
    capture = NoiseCapture(model.parameters(), model)
    with torch.autocast("cpu", torch.bfloat16):
        row_losses(model(x).float()).sum().backward()
    for rows, (got, known) in zip(reference, noise(capture, [*model.parameters()]), strict=True):
        assert known == 1.0
        expected = variance(rows)
        assert (got - expected).norm() < 0.05 * expected.norm()


# A parameter that is used more than once.


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 7)
        self.out.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.embedding(x)))


class Functional(nn.Module):
    """Uses a weight once through its module and once behind its back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.layer(x)), self.layer.weight)


class Both(nn.Module):
    """Calls one layer twice, and keeps what it gave apart."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), self.layer(x + 1)


@pytest.mark.parametrize(("make", "data"), [(Twice, floats(4)), (Tied, indices(3))])
def test_uses_of_a_parameter_are_added_before_they_are_squared(
    make: Callable[[], nn.Module], data: Callable[[], Tensor]
) -> None:
    check(make().double(), data())


def test_a_use_that_no_rule_sees_makes_the_noise_unknown() -> None:
    model = Functional().double()
    capture = NoiseCapture(model.parameters(), model)
    row_losses(model(floats(4)())).sum().backward()
    weight, bias = noise(capture, list(model.parameters()))
    assert weight[1] == 0.0
    assert not weight[0].any()
    assert bias[1] == 1.0


def test_a_penalty_in_the_loss_makes_the_noise_unknown() -> None:
    layer = nn.Linear(4, 3).double()
    capture = NoiseCapture(layer.parameters(), layer)
    (row_losses(layer(floats(4)())).mean() + 10 * layer.weight.square().sum()).backward()
    weight, bias = noise(capture, list(layer.parameters()))
    assert (weight[1], bias[1]) == (0.0, 1.0)


class Folded(nn.Module):
    """Hides the batch in dimension 0, together with the features."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(-1, 2)).reshape(len(x), -1)


def test_a_module_with_another_number_of_rows_is_left_out() -> None:
    model = Folded()
    capture = NoiseCapture(model.parameters(), model)
    model(torch.randn(B, 4)).sum().backward()
    assert [known for _, known in noise(capture, list(model.parameters()))] == [0.0, 0.0]
    assert capture.rows(list(model.parameters())) == 0


def test_a_model_whose_parts_are_called_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)).double()
    x, parameters = floats(4)(), list(model.parameters())
    capture = NoiseCapture(parameters, model)
    losses = row_losses(model[1](model[0](x)))
    reference = [contributions(losses, p) for p in parameters]
    losses.sum().backward()
    for rows, (got, known) in zip(reference, noise(capture, parameters), strict=True):
        assert known == 1.0
        torch.testing.assert_close(got, variance(rows))


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"y": self.layer(input=batch["inputs"][0])}


def test_rows_are_found_inside_containers() -> None:
    model = Nested()
    capture = NoiseCapture(model.parameters(), model)
    model({"inputs": [torch.randn(B, 4)]})["y"].sum().backward()
    assert capture.rows(list(model.parameters())) == B


# What is not known.


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Linear(4, 3), torch.randn(4)),
        (nn.Conv2d(2, 3, 2), torch.randn(2, 4, 4)),
        (nn.LayerNorm(4), torch.randn(4)),
        (nn.InstanceNorm1d(3, affine=True), torch.randn(3, 5)),
        (nn.Embedding(7, 3), torch.tensor(2)),
        (nn.Embedding(7, 3, scale_grad_by_freq=True), torch.tensor([1, 1, 2])),
        (nn.Linear(4, 3), torch.randn(1, 4)),
        (nn.Bilinear(2, 2, 2), torch.randn(3, 2)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_without_rows_the_noise_is_unknown(module: nn.Module, x: Tensor) -> None:
    capture = NoiseCapture(module.parameters(), module)
    output = module(x, x) if isinstance(module, nn.Bilinear) else module(x)
    output.sum().backward()
    assert {known for _, known in noise(capture, list(module.parameters()))} == {0.0}


def test_an_empty_batch_is_no_error() -> None:
    layer = nn.Linear(4, 3)
    capture = NoiseCapture(layer.parameters(), layer)
    layer(torch.zeros(0, 4)).sum().backward()
    assert [known for _, known in noise(capture, list(layer.parameters()))] == [0.0, 0.0]


def test_a_subclass_with_its_own_forward_has_no_rule() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    class Named(nn.Linear):
        pass

    assert rule_for(Doubled(2, 2)) is None
    assert rule_for(Named(2, 2)) is rule_for(nn.Linear(2, 2))


def test_weight_norm_leaves_the_weight_to_backward_calls() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3).double())
    capture = NoiseCapture(layer.parameters(), layer)
    row_losses(layer(floats(4)())).sum().backward()
    names = [name for name, _ in layer.named_parameters()]
    known = [k for _, k in noise(capture, list(layer.parameters()))]
    assert known == [1.0 if name == "bias" else 0.0 for name in names]


# Passes that must leave nothing behind.


def test_evaluation_and_saliency_leave_no_trace() -> None:
    model, x = SoftTree(4, 3).double(), floats(4)()
    parameters = list(model.parameters())
    reference = [contributions(row_losses(model(x)), p) for p in parameters]
    capture = NoiseCapture(parameters, model)
    with torch.no_grad():
        model(x)
    model.eval()(x)
    watched = x.clone().requires_grad_()
    for _ in range(10):
        torch.autograd.grad(row_losses(model(watched)).sum(), watched)
        torch.autograd.grad(row_losses(model(x)).sum(), parameters)
    assert len(capture._passes) <= 4
    assert capture.rows(list(model.parameters())) == 0
    row_losses(model.train()(x)).sum().backward()
    torch.autograd.grad(row_losses(model(watched)).sum(), watched)
    torch.autograd.grad(row_losses(model(x)).sum(), parameters)
    for rows, (got, known) in zip(reference, noise(capture, parameters), strict=True):
        assert known == 1.0
        torch.testing.assert_close(got, variance(rows))
    capture.clear()
    assert not capture._passes
    assert capture.records(parameters) == [None] * len(parameters)


def test_second_derivatives_are_right_or_unknown() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    parameters = [p for name, p in model.named_parameters() if name != "2.bias"]
    x = floats(4)().requires_grad_()

    def slopes() -> Tensor:
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return slope.square().sum(1)

    reference = [contributions(slopes(), p) for p in parameters]
    capture = NoiseCapture(parameters, model)
    slopes().sum().backward()
    found = noise(capture, parameters)
    # The weights enter the slope directly, the first bias only through its module's output.
    assert [known for _, known in found] == [0.0, 1.0, 0.0]
    torch.testing.assert_close(found[1][0], variance(reference[1]))


def test_checkpointing_the_activations() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x, parameters = floats(4)(), list(model.parameters())
    reference = [contributions(row_losses(model(x)), p) for p in parameters]
    capture = NoiseCapture(parameters, model)
    output = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
    row_losses(output).sum().backward()
    for rows, (got, known) in zip(reference, noise(capture, parameters), strict=True):
        assert known == 1.0
        torch.testing.assert_close(got, variance(rows))


def test_functional_calls_are_left_alone() -> None:
    model, x = SoftTree(4, 3).double(), floats(4)()
    capture = NoiseCapture(model.parameters(), model)
    own = {name: p.detach().clone() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        return row_losses(torch.func.functional_call(model, parameters, (row[None],))).sum()

    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(own, x)
    assert {g.shape[0] for g in each.values()} == {B}
    assert capture.rows(list(model.parameters())) == 0


def test_a_failing_forward_does_not_confuse_the_next() -> None:
    model = Folded()
    capture = NoiseCapture(model.parameters(), model)
    with pytest.raises(RuntimeError):
        model(torch.randn(3, 3))
    model.layer(torch.randn(7, 2)).sum().backward()
    assert capture.rows(list(model.parameters())) == 7


# Gradients that add up over backward calls.


@pytest.fixture(params=["zeroed", "none"])
def reset(request: pytest.FixtureRequest) -> Callable[[nn.Module], None]:
    to_none = request.param == "none"
    return lambda model: model.zero_grad(set_to_none=to_none)


def test_rows_add_up_over_backward_calls(reset: Callable[[nn.Module], None]) -> None:
    model, parameters_of = SoftTree(4, 3).double(), lambda m: list(m.parameters())
    parameters = parameters_of(model)
    capture = NoiseCapture(parameters, model)
    row_losses(model(floats(4)())).sum().backward()
    reset(model)
    batches = [floats(4)() for _ in range(3)]
    reference = [
        torch.cat([contributions(row_losses(model(x)), p) for x in batches]) for p in parameters
    ]
    for x in batches:
        row_losses(model(x)).sum().backward()
    assert capture.rows(list(model.parameters())) == 3 * B
    for rows, (got, known) in zip(reference, noise(capture, parameters), strict=True):
        assert known == 1.0
        torch.testing.assert_close(got, variance(rows))


def test_single_rows_add_up_over_backward_calls() -> None:
    layer, x = nn.Linear(4, 3).double(), floats(4)()
    reference = [contributions(row_losses(layer(x)), p) for p in layer.parameters()]
    capture = NoiseCapture(layer.parameters(), layer)
    weights = torch.linspace(-1, 2, B * 3, dtype=torch.float64).view(B, 3)
    for i in range(B):
        output = layer(x[i : i + 1])
        (torch.sin(output) * weights[i] + output.square()).sum().backward()
    for rows, (got, known) in zip(reference, noise(capture, [*layer.parameters()]), strict=True):
        assert known == 1.0
        torch.testing.assert_close(got, variance(rows))


@pytest.mark.parametrize("calls", [2, 3, 5])
def test_backward_calls_tell_the_noise_without_rules(
    calls: int, reset: Callable[[nn.Module], None]
) -> None:
    model = nn.Bilinear(3, 3, 2).double()
    parameters = list(model.parameters())
    capture = NoiseCapture(parameters)

    def loss(x: Tensor) -> Tensor:
        return row_losses(model(x, x)).sum()

    loss(floats(3)()).backward()
    reset(model)
    batches = [floats(3)() for _ in range(calls)]
    parts = [[torch.autograd.grad(loss(x), p)[0] for x in batches] for p in parameters]
    for x in batches:
        loss(x).backward()
    for rows, (got, known) in zip(parts, noise(capture, parameters), strict=True):
        assert known == 1.0
        torch.testing.assert_close(got, variance(torch.stack(rows)))


def test_one_backward_call_without_rules_tells_nothing() -> None:
    model = nn.Linear(3, 2)
    capture = NoiseCapture(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    assert [known for _, known in noise(capture, list(model.parameters()))] == [0.0, 0.0]


def test_a_gradient_from_before_makes_the_noise_unknown() -> None:
    layer = nn.Linear(4, 3)
    layer(torch.randn(B, 4)).sum().backward()
    capture = NoiseCapture(layer.parameters(), layer)
    layer(torch.randn(B, 4)).sum().backward()
    assert [known for _, known in noise(capture, list(layer.parameters()))] == [0.0, 0.0]


def test_a_gradient_changed_between_backward_calls_makes_the_noise_unknown() -> None:
    layer = nn.Linear(4, 3)
    capture = NoiseCapture(layer.parameters(), layer)
    layer(torch.randn(B, 4)).sum().backward()
    assert layer.weight.grad is not None
    layer.weight.grad.mul_(0.5)
    layer(torch.randn(B, 4)).sum().backward()
    assert [known for _, known in noise(capture, list(layer.parameters()))] == [0.0, 1.0]


def test_two_losses_of_one_forward_pass_make_the_noise_unknown() -> None:
    """Of their sum it is known, and so it is in the next step."""
    layer = nn.Linear(4, 3).double()
    capture = NoiseCapture(layer.parameters(), layer)
    parameters = list(layer.parameters())
    for _ in range(2):
        outputs = layer(floats(4)())
        outputs.square().sum().backward(retain_graph=True)
        outputs.sum().backward()
        assert [known for _, known in noise(capture, parameters)] == [0.0, 0.0]
        assert capture.rows(parameters) == B  # No row counts twice.
        capture.clear()
        layer.zero_grad()
        outputs = layer(floats(4)())
        (outputs.square().sum() + outputs.sum()).backward()
        assert [known for _, known in noise(capture, parameters)] == [1.0, 1.0]
        capture.clear()
        layer.zero_grad()


def test_rows_that_a_layer_sees_twice_in_a_pass_are_told_of_in_one_backward_alone() -> None:
    model = Both().double()
    capture = NoiseCapture(model.parameters(), model)
    for apart in (True, False):
        first, second = (row_losses(outputs).sum() for outputs in model(floats(4)()))
        if apart:
            first.backward()
            second.backward()
        else:
            (first + second).backward()
        known = [known for _, known in noise(capture, list(model.parameters()))]
        assert known == ([0.0, 0.0] if apart else [1.0, 1.0])
        assert capture.rows(list(model.parameters())) == B
        capture.clear()
        model.zero_grad()


def test_rules_in_some_backward_calls_only_make_the_noise_unknown() -> None:
    layer = nn.Linear(4, 3)
    capture = NoiseCapture(layer.parameters(), layer)
    layer(torch.randn(B, 4)).sum().backward()
    F.linear(torch.randn(B, 4), layer.weight, layer.bias).sum().backward()
    assert [known for _, known in noise(capture, list(layer.parameters()))] == [0.0, 0.0]


@pytest.mark.parametrize("factor", [1e-3, 0.3, 7.0])
@pytest.mark.parametrize("with_model", [True, False])
def test_rescaled_gradients_have_rescaled_noise(factor: float, with_model: bool) -> None:
    model = nn.Linear(4, 3).double()
    parameters = list(model.parameters())
    capture = NoiseCapture(parameters, model if with_model else None)
    for _ in range(3):
        row_losses(model(floats(4)())).sum().backward()
    before = noise(capture, parameters)
    for p in parameters:
        assert p.grad is not None
        p.grad.mul_(factor)
    for (plain, known), (scaled, still) in zip(before, noise(capture, parameters), strict=True):
        assert known == still == 1.0
        torch.testing.assert_close(scaled, plain * factor**2)


def test_a_masked_gradient_makes_the_noise_unknown() -> None:
    layer = nn.Linear(4, 3)
    capture = NoiseCapture(layer.parameters(), layer)
    row_losses(layer(torch.randn(B, 4))).sum().backward()
    assert layer.weight.grad is not None
    layer.weight.grad[0] = 0
    assert [known for _, known in noise(capture, list(layer.parameters()))] == [0.0, 1.0]


def test_a_gradient_of_zero_has_no_noise() -> None:
    layer = nn.Linear(4, 3)
    capture = NoiseCapture(layer.parameters(), layer)
    (layer(torch.randn(B, 4)) * 0).sum().backward()
    for got, known in noise(capture, list(layer.parameters())):
        assert known == 1.0
        assert not got.any()


def test_equal_rows_have_no_noise() -> None:
    layer = nn.Linear(4, 3).double()
    capture = NoiseCapture(layer.parameters(), layer)
    layer(torch.ones(B, 4, dtype=torch.float64)).sum().backward()
    for got, known in noise(capture, list(layer.parameters())):
        assert known == 1.0
        assert (got >= 0).all()
        assert got.max() < 1e-12


def test_the_estimate_is_the_variance_over_batches() -> None:
    layer = nn.Linear(3, 1).double()
    capture = NoiseCapture(layer.parameters(), layer)
    means, estimates = [], []
    for _ in range(600):
        layer.zero_grad()
        layer(torch.randn(8, 3, dtype=torch.float64)).square().mean().backward()
        estimates.append(noise(capture, [layer.weight])[0][0])
        assert layer.weight.grad is not None
        means.append(layer.weight.grad.clone())
    observed = torch.stack(means).var(0)
    torch.testing.assert_close(torch.stack(estimates).mean(0), observed, rtol=0.25, atol=0)


# Frozen parameters, copies, and the end.


def test_a_thawed_layer_is_measured_at_once() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    model[0].requires_grad_(False)
    capture = NoiseCapture(model.parameters(), model)
    model(torch.randn(B, 4)).sum().backward()
    assert capture.records(model[0].parameters()) == [None, None]
    model[0].requires_grad_(True)
    model.zero_grad()
    row_losses(model(torch.randn(B, 4))).sum().backward()
    assert [known for _, known in noise(capture, list(model.parameters()))] == [1.0] * 4


def hooks_of(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        yield from module._forward_hooks.values()
        yield from module._forward_pre_hooks.values()
    for p in model.parameters():
        yield from (p._backward_hooks or {}).values()
        yield from (p._post_accumulate_grad_hooks or {}).values()


@pytest.mark.parametrize("how", ["detach", "forget"])
def test_hooks_go_with_the_capture(how: str) -> None:
    model = SoftTree(4, 3)
    capture: NoiseCapture | None = NoiseCapture(model.parameters(), model)
    assert list(hooks_of(model))
    assert capture is not None
    if how == "detach":
        capture.detach()
    capture = None
    gc.collect()
    assert not list(hooks_of(model))
    model(torch.randn(B, 4)).sum().backward()


def pickled(model: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(model))  # noqa: S301


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_copies_of_the_model_do_not_report(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    model = SoftTree(4, 3)
    capture = NoiseCapture(model.parameters(), model)
    twin = duplicate(model)
    twin(torch.randn(B, 4)).sum().backward()
    assert capture.rows(list(model.parameters())) == 0
    model(torch.randn(B, 4)).sum().backward()
    assert capture.rows(list(model.parameters())) == B


def test_two_captures_watch_their_own_parameters() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    one = NoiseCapture(model[0].parameters(), model)
    two = NoiseCapture(model[1].parameters(), model)
    row_losses(model(torch.randn(B, 4))).sum().backward()
    assert [k for _, k in noise(one, list(model[0].parameters()))] == [1.0, 1.0]
    assert [k for _, k in noise(two, list(model[1].parameters()))] == [1.0, 1.0]
    assert one.records(model[1].parameters()) == [None, None]


# Rules of one's own.


class Shift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def test_a_rule_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("denograd.noise._rules._RULES", dict(_RULES))
    assert rule_for(Shift()) is None
    register_noise_rule(Shift, lambda module, inputs, gradient: {"shift": Dense(gradient)})
    check(Shift().double(), floats(3)())


def test_a_wrong_rule_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("denograd.noise._rules._RULES", dict(_RULES))
    register_noise_rule(Shift, lambda module, inputs, gradient: {"shift": Dense(2 * gradient)})
    model = Shift()
    capture = NoiseCapture(model.parameters(), model)
    row_losses(model(torch.randn(B, 3))).sum().backward()
    assert noise(capture, [model.shift])[0][1] == 0.0


def test_a_broadcast_parameter_of_any_shape() -> None:
    module = BroadcastParameter(2, 3).double()
    capture = NoiseCapture(module.parameters(), module)
    losses = row_losses(torch.tanh(module(batch_size=B)))
    rows = contributions(losses, module.weight)
    losses.sum().backward()
    ((got, known),) = noise(capture, [module.weight])
    assert known == 1.0
    torch.testing.assert_close(got, variance(rows))


@pytest.mark.parametrize(
    ("kind", "rule", "message"),
    [(int, len, "module_type"), (nn.Linear(1, 1), len, "module_type"), (nn.Linear, 3, "rule=3")],
)
def test_what_register_noise_rule_refuses(kind: Any, rule: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        register_noise_rule(kind, rule)
