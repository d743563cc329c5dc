"""SaliencyDecor: each term against plain autograd, what is masked, and whatever goes wrong."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from denograd import DenoGrad
from denograd.models import (
    AdditiveNet,
    FeatureAttention,
    PrototypeNet,
    RuleNet,
    SoftForest,
    SoftTree,
)
from denograd.penalties import (
    Decorrelation,
    FeatureDecorrelation,
    SaliencyDecor,
    Whitening,
    correlation_penalty,
    input_saliency,
    least_salient,
    prediction_divergence,
    whitening_distance,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(n: int = 16, seed: int = 0) -> Tensor:
    mixing = torch.randn(6, 6, generator=generator(99), dtype=torch.float64)
    return torch.randn(n, 6, generator=generator(seed), dtype=torch.float64) @ mixing


def images(n: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, 5, 5, generator=generator(seed), dtype=torch.float64)


def labels(n: int = 16) -> Tensor:
    return torch.arange(n) % 3


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def cnn(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    between = [nn.BatchNorm2d(4)] if norm else []
    conv = [nn.Conv2d(2, 4, 3), *between, nn.GELU()]
    return nn.Sequential(*conv, nn.Flatten(), nn.Linear(36, 3)).double()


# The terms once more, one row and one feature at a time.


def plain_mask(model: nn.Module, x: Tensor, y: Tensor, count: int, fill: Tensor) -> Tensor:
    """With ``fill`` in place of the ``count`` features with the smallest gradient."""
    result = x.clone()
    for i in range(len(x)):
        row = x[i : i + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(row)[0, y[i]], row)
        size = gradient[0].abs()
        places: list[tuple[int, ...]]
        if x.dim() == 4:
            places = [(h, w) for h in range(x.shape[2]) for w in range(x.shape[3])]
            places.sort(key=lambda p: float(size[:, p[0], p[1]].sum()))
            for h, w in places[:count]:
                result[i, :, h, w] = fill[i, :, h, w]
        else:
            for j in sorted(range(x.shape[1]), key=lambda j: float(size[j]))[:count]:
                result[i, j] = fill[i, j]
    return result


def plain_divergence(outputs: Tensor, masked: Tensor) -> Tensor:
    p, q = outputs.softmax(1), masked.softmax(1)
    return sum(
        (p[i, c] * (p[i, c] / q[i, c]).log() for i in range(len(p)) for c in range(p.shape[1])),
        torch.zeros(()),
    ) / len(p)


def plain_whitening(x: Tensor, shrinkage: float = 0.1) -> Tensor:
    """Of features that fit into one group."""
    z = (x - x.mean(0)) / x.std(0, correction=0)
    matrix = z.T @ z / len(z)
    values, vectors = torch.linalg.eigh(
        (1 - shrinkage) * matrix + shrinkage * torch.eye(len(matrix)).to(x)
    )
    white = z @ vectors @ torch.diag(values**-0.5) @ vectors.T
    return (white - z).square().sum(1).mean() / x.shape[1]


def hidden_of_mlp(model: nn.Sequential, x: Tensor) -> Tensor:
    return torch.tanh(x @ model[0].weight.T + model[0].bias)  # type: ignore[operator]


def hidden_of_cnn(model: nn.Sequential, x: Tensor) -> Tensor:
    y = F.gelu(model[0](x))
    return torch.stack([y[i, :, h, w] for i in range(len(y)) for h in range(3) for w in range(3)])


Case = tuple[
    Callable[[], nn.Sequential], Callable[[], Tensor], Callable[[Any, Tensor], Tensor], int
]
CASES: dict[str, Case] = {
    "table": (mlp, table, hidden_of_mlp, 3),
    "images": (cnn, images, hidden_of_cnn, 12),
}


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weights", [(0.6, 0.0), (0.0, 0.8), (0.6, 0.8)])
@pytest.mark.parametrize("random", [False, True])
def test_terms_and_gradients_are_those_of_plain_autograd(
    case: str, weights: tuple[float, float], random: bool
) -> None:
    make, draw, hidden, count = CASES[case]
    model, x, y = make(), draw(), labels()
    consistency, decorrelation = weights
    fill: dict[str, Any] = {} if random else {"baseline": 0.25}
    options: dict[str, Any] = {"consistency": consistency, "decorrelation": decorrelation}
    loss = SaliencyDecor(model, **options, **fill, generator=generator(5))
    total = loss(x, y)
    total.backward()

    # The draw is taken from the same seed, but which features get it is found out anew.
    every = SaliencyDecor(model, masked=1.0, **fill, generator=generator(5)).mask(x, y)
    masked = plain_mask(model, x, y, count, every)
    if random and consistency:
        assert not torch.equal(masked, x)
    reference = copy.deepcopy(model)
    parts = (
        F.cross_entropy(reference(x), y),
        plain_divergence(reference(x), reference(masked)),
        plain_whitening(hidden(reference, x)),
    )
    expected = parts[0] + consistency * parts[1] + decorrelation * parts[2]
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=0)
    expected.backward()
    assert_close(gradients(model), of(reference, expected, parts[0]))
    assert loss.parts is not None
    for part, weight, own in zip(loss.parts, (1, *weights), parts, strict=True):
        if weight == 0:
            assert part is None
        else:
            assert part is not None
            assert not part.requires_grad
            torch.testing.assert_close(part, own.detach(), rtol=1e-9, atol=0)


def of(model: nn.Module, total: Tensor, classification: Tensor) -> list[Tensor]:
    """The gradients of the whole, which must not be those of the classification alone."""
    found = gradients(model)
    model.zero_grad()
    assert total > classification + 1e-4
    return found


@pytest.mark.parametrize("case", CASES)
def test_with_zero_weights_it_is_plain_cross_entropy_bit_for_bit(case: str) -> None:
    make, draw, _, _ = CASES[case]
    model, x, y = make(), draw(), labels()
    other = copy.deepcopy(model)
    loss = SaliencyDecor(model, consistency=0, decorrelation=0.0)
    state = torch.random.get_rng_state()
    total, plain = loss(x, y), F.cross_entropy(other(x), y)
    assert torch.equal(total, plain)
    total.backward()
    plain.backward()
    for one, two in zip(gradients(model), gradients(other), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loss.parts == (total.detach(), None, None)
    assert loss.describe() == []


def test_scores_and_log_probabilities_are_the_same_predictions() -> None:
    """Every model of the package gives either, and what is added is right for both."""
    scores = torch.randn(8, 4, generator=generator(), dtype=torch.float64)
    other = torch.randn(8, 4, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(
        prediction_divergence(scores, other),
        prediction_divergence(scores.log_softmax(1), other.log_softmax(1)),
    )
    first, second = (torch.distributions.Categorical(logits=o) for o in (scores, other))
    by_torch = torch.distributions.kl_divergence(first, second).mean()
    torch.testing.assert_close(prediction_divergence(scores, other), by_torch)


def test_classes_that_a_model_excludes_have_no_part_and_no_nan() -> None:
    outputs = torch.tensor([[1.0, 0.5, -torch.inf], [0.0, -1e9, 3.0]]).requires_grad_()
    masked = torch.tensor([[0.2, 0.9, -torch.inf], [1.0, -1e9, 0.0]]).requires_grad_()
    value = prediction_divergence(outputs, masked)
    first = plain_divergence(outputs[:1, :2], masked[:1, :2])
    second = plain_divergence(outputs[1:, ::2], masked[1:, ::2])
    torch.testing.assert_close(value, (first + second) / 2)
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, (outputs, masked)))


# What is masked.


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_a_linear_model_loses_the_inputs_with_the_smallest_weights(seed: int, count: int) -> None:
    weight = torch.randn(3, 6, generator=generator(seed))
    model = nn.Linear(6, 3)
    model.weight.data.copy_(weight)
    x, y = torch.randn(9, 6, generator=generator(seed + 1)), labels(9)
    loss = SaliencyDecor(model, decorrelation=0, masked=count, baseline=77.0)
    masked = loss.mask(x, y) == 77
    assert (masked.sum(1) == count).all()
    for row, label in zip(masked, y, strict=True):
        size = weight[label].abs()
        kept = size[~row]
        assert len(kept) == 0 or size[row].max() <= kept.min()


def test_saliency_is_the_weights_and_changes_nothing() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3), nn.BatchNorm1d(3, affine=False))
    model[0].eval()
    before = copy.deepcopy(model.state_dict())
    x, y = table().float(), labels()
    with torch.inference_mode():
        said = input_saliency(model, x, y)
    scale = (1 + model[2].eps) ** -0.5  # type: ignore[operator, union-attr]
    torch.testing.assert_close(said, scale * model[1].weight[y].abs().detach())  # type: ignore[index, union-attr]
    assert [m.training for m in model.modules()] == [True, False, True, True]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_pixels_are_masked_in_all_channels_by_the_sum_over_them() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 4, 2, bias=False))
    channels = torch.tensor([[[1.0, 3.0], [0.0, 6.0]], [[4.0, 0.5], [1.0, 6.0]]])
    model[1].weight.data.copy_(torch.stack((channels.flatten(), -channels.flatten())))  # type: ignore[union-attr, operator]
    loss = SaliencyDecor(model, decorrelation=0, masked=2, baseline=9.0)
    masked = loss.mask(torch.zeros(1, 2, 2, 2), torch.tensor([0]))
    expected = torch.tensor([[0.0, 9.0], [9.0, 0.0]])
    assert torch.equal(masked, expected.expand(1, 2, 2, 2))


def test_ties_are_taken_by_lot_and_the_lot_by_the_generator() -> None:
    saliency = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]).expand(400, 5)
    chosen = least_salient(saliency, 2, generator=generator(3))
    assert torch.equal(chosen, least_salient(saliency, 2, generator=generator(3)))
    assert not torch.equal(chosen, least_salient(saliency, 2, generator=generator(4)))
    share = chosen.double().mean(0)
    assert share[4] == 0
    # Each of four has a half; four standard deviations of 400 draws are 0.1.
    assert ((share[:4] - 0.5).abs() < 0.1).all()


@pytest.mark.parametrize("draw", [table, images])
def test_random_values_are_uniform_within_the_range_of_the_batch(
    draw: Callable[[int], Tensor],
) -> None:
    x = draw(400)
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3)).double()
    loss = SaliencyDecor(model, decorrelation=0, masked=1.0, generator=generator())
    filled = loss.mask(x, labels(400))
    assert (filled != x).all()
    for channel in range(x.shape[1]):
        own, new = x[:, channel], filled[:, channel]
        assert own.min() <= new.min()
        assert new.max() <= own.max()
        unit = ((new - own.min()) / (own.max() - own.min())).flatten()
        assert abs(float(unit.mean()) - 0.5) < 0.06
        assert abs(float(unit.var()) - 1 / 12) < 0.02


def test_a_range_and_a_baseline_of_ones_own() -> None:
    x, y, model = table(), labels(), mlp()
    low, high = torch.arange(6.0), torch.arange(6.0) + 0.5
    loss = SaliencyDecor(model, masked=1.0, value_range=(low, high), generator=generator())
    filled = loss.mask(x, y)
    assert ((low <= filled) & (filled <= high)).all()
    loss = SaliencyDecor(model, masked=1.0, baseline=low)
    assert torch.equal(loss.mask(x, y), low.double().expand(16, 6))


def test_gaps_stay_gaps_and_count_as_masked() -> None:
    class Filled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.nan_to_num())  # type: ignore[no-any-return]

    x = table()
    x[0, :2] = torch.nan
    x[:, 5] = torch.nan
    loss = SaliencyDecor(Filled(), decorrelation=0, masked=3, generator=generator())
    masked = loss.mask(x, labels())
    assert torch.equal(masked.isnan(), x.isnan())
    assert torch.equal(masked[0, 2:5], x[0, 2:5])
    changed = (masked != x) & ~x.isnan()
    assert (changed[1:].sum(1) == 2).all()
    assert loss(x, labels()).isfinite()


def test_seeds_decide_and_the_global_one_is_left_alone() -> None:
    model, x, y = mlp(), table(), labels()
    state = torch.random.get_rng_state()
    one, two = (SaliencyDecor(model, generator=generator(7)) for _ in range(2))
    assert torch.equal(one(x, y), two(x, y))
    assert not torch.equal(one(x, y), SaliencyDecor(model, generator=generator(8))(x, y))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(1)
    first = SaliencyDecor(model)(x, y)
    torch.manual_seed(1)
    assert torch.equal(SaliencyDecor(model)(x, y), first)


@pytest.mark.parametrize(("masked", "expected"), [(0.3, 1), (0.5, 3), (1.0, 6), (0.01, 1), (2, 2)])
def test_shares_are_rounded_down_to_one_at_least(masked: float, expected: int) -> None:
    loss = SaliencyDecor(mlp(), masked=masked, baseline=50.0)
    assert ((loss.mask(table(), labels()) == 50).sum(1) == expected).all()


# Loops, modes and models.


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "RMSprop", "DenoGrad"])
@pytest.mark.parametrize("case", CASES)
def test_it_trains_with_any_optimizer(kind: str, case: str) -> None:
    make, draw, _, _ = CASES[case]
    model, y = make(), labels(64)
    x = draw(64) if case == "table" else images(64)
    x = x + y.reshape(-1, *[1] * (x.dim() - 1))
    optimizer: torch.optim.Optimizer
    if kind == "DenoGrad":
        optimizer = DenoGrad(torch.optim.AdamW(model.parameters(), lr=0.02), model=model)
    else:
        rate = 0.1 if kind == "SGD" else 0.01
        optimizer = getattr(torch.optim, kind)(model.parameters(), lr=rate)
    loss = SaliencyDecor(model, generator=generator())
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        total = loss(x, y)
        total.backward()
        optimizer.step()
        values.append(float(total.detach()))
    assert sum(values[-5:]) < 0.9 * sum(values[:5])
    assert all(p.isfinite().all() for p in model.parameters())


def test_with_denograds_identity_steps_are_those_of_the_base() -> None:
    model = mlp()
    other = copy.deepcopy(model)
    base = torch.optim.AdamW(model.parameters(), lr=0.01)
    ours: torch.optim.Optimizer = DenoGrad(base, "identity", model=model)
    theirs = torch.optim.AdamW(other.parameters(), lr=0.01)
    for net, optimizer in ((model, ours), (other, theirs)):
        loss = SaliencyDecor(net, generator=generator())
        for step in range(5):
            optimizer.zero_grad()
            loss(table(seed=step), labels()).backward()
            optimizer.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_noise_of_a_row_is_that_of_its_whole_and_masked_input_together() -> None:
    """Sums of squares of the rows' gradients, each by a backward pass of its own."""
    model, x, y = mlp(), table(), labels()
    optimizer = DenoGrad(torch.optim.SGD(model.parameters(), lr=0.1), "identity", model=model)
    loss = SaliencyDecor(model, decorrelation=0, baseline=0.0)
    loss(x, y).backward()
    assert optimizer._capture is not None
    records = optimizer._capture.records(list(model.parameters()))
    rows = []
    for i in range(len(x)):
        reference = copy.deepcopy(model)
        SaliencyDecor(reference, decorrelation=0, baseline=0.0)(
            x[i : i + 1], y[i : i + 1]
        ).backward()
        rows.append(gradients(reference))
    for k, record in enumerate(records):
        assert record is not None
        assert record.rows == len(x)
        each = torch.stack([row[k] for row in rows]) / len(x)
        torch.testing.assert_close(record.total, each.sum(0))
        torch.testing.assert_close(record.squares, each.square().sum(0), rtol=1e-6, atol=1e-14)


def test_penalties_of_the_optimizer_look_at_the_whole_and_at_the_masked_pass() -> None:
    model, x, y = mlp(), table(), labels()
    reference = copy.deepcopy(model)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = DenoGrad(base, "identity", model=model, penalties=[FeatureDecorrelation(0.7)])
    loss = SaliencyDecor(model, decorrelation=0, baseline=0.0)
    loss(x, y).backward()
    masked = plain_mask(reference, x, y, 3, torch.zeros_like(x))
    expected = F.cross_entropy(reference(x), y)
    expected = expected + plain_divergence(reference(x), reference(masked))
    for seen in (x, masked):
        expected = expected + 0.7 * correlation_penalty(hidden_of_mlp(reference, seen))
    expected.backward()
    assert_close(gradients(model), gradients(reference))
    optimizer.step()


@pytest.mark.parametrize(
    "kind", [SoftTree, SoftForest, RuleNet, AdditiveNet, FeatureAttention, PrototypeNet]
)
def test_every_model_of_the_package_has_a_loss_with_all_terms(kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(6, 3).double()
    loss = SaliencyDecor(model, generator=generator())
    assert loss.describe()
    loss(table(), labels()).backward()
    assert loss.parts is not None
    torch.testing.assert_close(
        loss.parts.classification, F.cross_entropy(model(table()), labels()).detach()
    )
    assert loss.parts.consistency is not None
    assert loss.parts.consistency > 0
    assert loss.parts.decorrelation is not None
    assert loss.parts.decorrelation > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert any(p.grad is not None and (p.grad != 0).any() for p in model.parameters())


def test_what_is_picked_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "denograd.penalties"):
        loss = SaliencyDecor(SoftTree(6, 3))
    assert loss.describe()[0].startswith("'gates' (Linear): squared correlation of gates")
    assert "Decorrelation in SoftTree, at 'gates'" in caplog.text
    assert "masked=0.5" in repr(loss)


def test_a_penalty_of_ones_own() -> None:
    model, x, y = mlp(), table(), labels()
    penalty = Whitening(0.4, ["0"], group_size=3)
    loss = SaliencyDecor(model, consistency=0, decorrelation=penalty)
    value = whitening_distance(model[0](x), 3)
    torch.testing.assert_close(loss(x, y), F.cross_entropy(model(x), y) + 0.4 * value)
    penalty.weight = 2.0
    torch.testing.assert_close(loss(x, y), F.cross_entropy(model(x), y) + 2.0 * value)
    with pytest.raises(ValueError, match="works for another"):
        SaliencyDecor(model, decorrelation=penalty)


def test_running_means_learn_from_whole_inputs_only() -> None:
    model = cnn(norm=True)
    other = copy.deepcopy(model)
    loss = SaliencyDecor(model, generator=generator())
    for seed in range(3):
        loss(images(seed=seed), labels()).backward()
        other(images(seed=seed))
    for key, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    assert model.training


def test_evaluation_mode_stays_and_gives_the_same_value_twice() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), *mlp().float(), nn.Dropout(0.0)).double().eval()
    loss = SaliencyDecor(model, baseline=0.0)
    with torch.no_grad():
        value = loss(table(), labels())
        assert torch.equal(loss(table(), labels()), value)
    assert not value.requires_grad
    assert not any(m.training for m in model.modules())
    with torch.inference_mode():
        assert torch.equal(loss(table(), labels()), value)


def test_hooks_are_gone_afterwards_even_after_an_error() -> None:
    model = mlp()
    loss = SaliencyDecor(model)
    loss(table(), labels())
    with pytest.raises(RuntimeError):
        loss(table()[:, :4], labels())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_layers_that_work_in_place_do_not_change_what_is_looked_at() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)).double()
    loss = SaliencyDecor(model, consistency=0, decorrelation=Whitening(0.5, ["0"]))
    expected = F.cross_entropy(model(table()), labels()) + 0.5 * whitening_distance(
        model[0](table())
    )
    total = loss(table(), labels())
    torch.testing.assert_close(total, expected)
    ours = torch.autograd.grad(total, list(model.parameters()))
    assert_close(list(ours), list(torch.autograd.grad(expected, list(model.parameters()))))


def test_a_module_that_runs_twice_counts_twice_and_one_that_does_not_is_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.act = nn.Linear(6, 6), nn.Tanh()
            self.idle, self.head = nn.ReLU(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.act(self.body(self.act(self.body(x)))))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = Odd().double()
    loss = SaliencyDecor(model, consistency=0, decorrelation=0.5)
    with pytest.warns(UserWarning, match=r"no part in this loss at 'idle' \(ReLU\), which did not"):
        total = loss(table(), labels())
    first = torch.tanh(model.body(table()))
    both = whitening_distance(first) + whitening_distance(torch.tanh(model.body(first)))
    torch.testing.assert_close(total, F.cross_entropy(model(table()), labels()) + 0.5 * both)
    loss(table(), labels())


def test_under_autocast_the_terms_are_taken_in_full_precision() -> None:
    model = mlp().float()
    loss = SaliencyDecor(model, baseline=0.0)
    exact = loss(table().float(), labels())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = loss(table().float(), labels())
    total.backward()
    assert loss.parts is not None
    assert loss.parts.decorrelation is not None
    assert loss.parts.decorrelation.dtype == torch.float32
    torch.testing.assert_close(total, exact, rtol=0.05, atol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# Bad input.


def fills() -> Iterator[Tensor]:
    yield torch.zeros(8, 6)
    yield torch.full((8, 6), 1e4)
    yield torch.cat((torch.randn(8, 3, generator=generator()), torch.ones(8, 3)), 1)
    yield torch.randn(8, 6, generator=generator()) * 1e6


@pytest.mark.parametrize("x", list(fills()), ids=["zeros", "large", "some constant", "huge"])
@pytest.mark.parametrize("make", [mlp, lambda: SoftTree(6, 3), lambda: RuleNet(6, 3)])
def test_constant_features_leave_no_nan(make: Callable[[], nn.Module], x: Tensor) -> None:
    model = make().float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss = SaliencyDecor(model, generator=generator())
    for _ in range(3):
        optimizer.zero_grad()
        total = loss(x, labels(8))
        assert total.isfinite()
        total.backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_batch_of_one_row_has_its_classification_and_what_it_can() -> None:
    model, x, y = mlp(), table(1), labels(1)
    loss = SaliencyDecor(model)
    torch.testing.assert_close(loss(x, y), F.cross_entropy(model(x), y))
    assert loss.parts is not None
    assert loss.parts.consistency == 0
    assert loss.parts.decorrelation == 0
    ranged = SaliencyDecor(model, value_range=(-3.0, 3.0), generator=generator())
    total = ranged(x, y)
    assert total > F.cross_entropy(model(x), y)
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_mask_that_is_larger_than_the_input() -> None:
    loss = SaliencyDecor(mlp(), masked=7)
    with pytest.raises(ValueError, match=r"masked: 7 features .* \(6,\) has 6; mask at most"):
        loss(table(), labels())
    model = cnn()
    with pytest.raises(ValueError, match=r"masked: 26 features .* \(2, 5, 5\) has 25"):
        SaliencyDecor(model, masked=26)(images(), labels())
    SaliencyDecor(model, masked=25)(images(), labels())


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), True, "1", None])
@pytest.mark.parametrize("name", ["consistency", "decorrelation"])
def test_weights_that_are_none(name: str, weight: Any) -> None:
    with pytest.raises(ValueError, match=rf"SaliencyDecor: {name}=.*at least 0"):
        SaliencyDecor(mlp(), **{name: weight})


@pytest.mark.parametrize("masked", [0, 0.0, -1, 1.5, -0.5, float("nan"), True, "half", None])
def test_masks_that_are_none(masked: Any) -> None:
    with pytest.raises(ValueError, match=r"masked=.*share above 0.0 and up to 1.0.*consistency=0"):
        SaliencyDecor(mlp(), masked=masked)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SaliencyDecor(nn.Linear(6, 3)), r"Linear has no hidden.*decorrelation=0, or"),
        (lambda: SaliencyDecor(mlp(), baseline=0.0, value_range=(0, 1)), "both given"),
        (
            lambda: SaliencyDecor(mlp(), decorrelation=Decorrelation(1, ["9"])),
            "'9', which is no module",
        ),
        (
            lambda: SaliencyDecor(
                mlp(), decorrelation=Whitening(1, scaler=torch.amp.GradScaler("cpu"))
            ),
            "with a scaler; leave it out",
        ),
        (
            lambda: SaliencyDecor(mlp(), baseline=torch.zeros(5))(table(), labels()),
            r"baseline has shape \(5,\).*\(6,\)",
        ),
        (
            lambda: SaliencyDecor(mlp(), value_range=(0, torch.ones(2)))(table(), labels()),
            r"value_range has shape \(2,\)",
        ),
        (lambda: SaliencyDecor(mlp())(table().long(), labels()), r"x is torch.int64 \(16, 6\)"),
        (lambda: SaliencyDecor(mlp())(table()[0], labels()), r"x is torch.float64 \(6,\)"),
        (lambda: SaliencyDecor(mlp())(table(0), labels(0)), "with at least a row"),
        (lambda: SaliencyDecor(mlp())(table(), labels(15)), r"y is torch.int64 \(15,\).*\(16,\)"),
        (lambda: SaliencyDecor(mlp())(table(), labels().float()), "y is torch.float32"),
        (lambda: SaliencyDecor(mlp())(table(), [0] * 16), "y is list"),  # type: ignore[arg-type]
        (
            lambda: SaliencyDecor(nn.Sequential(mlp(), nn.Linear(3, 1).double()))(
                table(), labels()
            ),
            r"output is \(16, 1\); it must be \(16, classes\)",
        ),
    ],
)
def test_arguments_that_make_no_sense(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_types_that_make_no_sense() -> None:
    bad: Any = "model"
    with pytest.raises(TypeError, match="model is a str"):
        SaliencyDecor(bad)
    bad = 3.0
    with pytest.raises(TypeError, match=r"value_range=3\.0; it must be a pair"):
        SaliencyDecor(mlp(), value_range=bad)
    model = nn.Sequential(nn.LSTM(6, 3))
    loss = SaliencyDecor(model, decorrelation=FeatureDecorrelation(0.1, ["0"]))
    with pytest.raises(TypeError, match=r"'0' \(LSTM\) gave a tuple"):
        loss(table().float(), labels())


# The script of the ablation.


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, script_named: Callable[[str], ModuleType]
) -> ModuleType:
    pytest.importorskip("captum")
    reproduce_saliency_decor = script_named("reproduce_saliency_decor")
    monkeypatch.setattr(reproduce_saliency_decor, "STEPS", 4)
    return reproduce_saliency_decor


def test_planted_patches_say_the_class_and_lie_where_the_truth_says(script: ModuleType) -> None:
    from _saliency_data import PATCH, planted

    x, y, truth = planted(40, 0)
    assert (truth.reshape(40, -1).sum(1) == PATCH**2).all()
    patches = x.numpy()[truth].reshape(40, PATCH**2)
    # The brightest half of a patch is its pattern, and the same for all of a class.
    pattern = patches > 0.6
    for label in range(4):
        own = pattern[y.numpy() == label]
        assert (own.mean(0) > 0.8).sum() == (own.mean(0) > 0.5).sum() == 8
    corners = {tuple(np.argwhere(t[0])[0]) for t in truth}
    assert len(corners) > 20
    assert torch.equal(planted(40, 0)[0], x)
    assert not torch.equal(planted(40, 1)[0], x)


def test_curves_of_accuracy_are_those_of_a_model_that_reads_one_feature(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.choice([-1.0, 1.0], size=(60, 10)), dtype=torch.float32)
    x = torch.cat((x, -x))
    y = (x[:, 3] > 0).long()
    model = nn.Sequential(nn.Linear(10, 2))
    model[0].weight.data.zero_()  # type: ignore[union-attr, operator]
    model[0].weight.data[1, 3], model[0].bias.data[:] = 1.0, torch.tensor([0.0, -0.1])  # type: ignore[union-attr, index, operator]
    data = script.Data(x, y, x, y, None)
    said = np.tile(np.eye(10)[3], (120, 1))
    assert script.curve(model, data, said, "top", 0) == [1.0] + [0.5] * 9
    assert script.curve(model, data, said, "least", 0) == [1.0] * 10
    lot = script.curve(model, data, said, "random", 0)
    # A feature is gone with the probability that the curve's share says, and half are right.
    np.testing.assert_allclose(lot, 1 - np.arange(10) / 20, atol=0.12)


def test_arms_start_alike_and_a_cut_line_is_a_fit_that_is_not_done(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cells = [script.Cell("wine", arm, 0) for arm in ("none", "both 1")]
    journal = script.Journal(tmp_path)
    for cell in cells:
        journal.append(script.run(cell))
    lines = script.Journal(tmp_path).read()
    assert len(lines) == 2
    filled = [c for c in lines if not c.endswith(("mass", "pointing"))]
    assert lines[filled].notna().all(axis=None)
    assert lines["log_loss"].nunique() == 2
    again = script.run(cells[1])
    assert float(lines["log_loss"][1]) == pytest.approx(again["log_loss"], rel=1e-6)
    text = journal.path.read_text(encoding="utf-8")
    journal.path.write_text(text[:-10], encoding="utf-8")
    assert script.Journal(tmp_path).finished() == {cells[0]}
    monkeypatch.setattr(script, "STEPS", 0)
    data = script.read("wine", 0)
    first, second = (script.fit(cell, data) for cell in cells)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_page_compares_seed_by_seed(script: ModuleType, tmp_path: Path) -> None:
    import _saliency_page as page
    import pandas as pd
    from _page import BEGIN, END

    rng = np.random.default_rng(0)
    rows = []
    for dataset in ("digits", "planted"):
        for seed in range(4):
            for k, arm in enumerate(page.MAIN):
                row: dict[str, Any] = dict.fromkeys(script.COLUMNS, 0.5)
                row |= {c: "1.0;0.9" for c in script.COLUMNS if c.endswith("curve")}
                row |= {"dataset": dataset, "arm": arm, "seed": seed, "cpu_seconds": 1.0}
                # More is lost, and more is won, from arm to arm, by a little noise.
                row["correlation"] = 0.9 - 0.1 * k + 0.2 * seed
                row["gradient_gini"] = 0.1 * k + seed + 0.01 * rng.normal()
                rows.append(row)
    lines = pd.DataFrame(rows, columns=script.COLUMNS)
    unfinished = lines.iloc[:-1]
    kept = page.complete(unfinished)
    assert len(kept) == len(lines) - len(page.MAIN)
    assert list(page.paired(lines[lines["dataset"] == "planted"], "correlation").iloc[2]) == (
        pytest.approx([-0.1 * page.MAIN.index(a) for a in sorted(page.MAIN) if a != "none"])
    )
    mean, low, high = page.interval(pd.Series([1.0, 2.0, 3.0, 6.0]))
    expected = stats.t.interval(0.95, 3, 3.0, stats.sem([1.0, 2.0, 3.0, 6.0]))
    assert (mean, low, high) == pytest.approx((3.0, *expected))
    own = lines[lines["dataset"] == "digits"]
    assert page.rank_correlation(page.gains(own, page.ALONE)).startswith("+0.")
    perfect = np.arange(8.0).reshape(4, 2)[:, None]
    assert page.rank_correlation(perfect) == "+1.00 (+1.00 to +1.00)"
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter", encoding="utf-8")
    page.write_page(path, lines)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter")
    assert "old" not in text
    assert "56 fits, 4 seeds" in text
    page.draw(lines, tmp_path, (0.0, 0.1))
    assert {p.name for p in tmp_path.glob("*.png")} == {
        "saliency-decor-masking.png",
        "saliency-decor-orthogonality.png",
    }
    path.write_text("no markers", encoding="utf-8")
    with pytest.raises(SystemExit, match="must hold"):
        page.write_page(path, lines)
