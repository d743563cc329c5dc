"""What attention, additive and prototype models say of themselves, against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from entmax import entmax15, sparsemax
from sklearn.datasets import load_diabetes, load_wine
from torch import Tensor
from torch.nn import functional as F

from denograd.models import AdditiveNet, FeatureAttention, PrototypeNet, TemporalAttention

# Attention over features.


@pytest.mark.parametrize(("name", "function"), [("sparsemax", sparsemax), ("entmax", entmax15)])
def test_sparse_attention_is_the_packages(name: str, function) -> None:
    torch.manual_seed(0)
    model, x = FeatureAttention(8, 3, width=4, normalize=name), 3 * torch.randn(20, 8)
    tokens = model.tokenizer(x)
    scores = 5 * model.score(torch.tanh(tokens)).transpose(1, 2)
    with torch.no_grad():
        model.score.weight.mul_(5)
    weights = model.attention(x)
    torch.testing.assert_close(weights, function(scores, dim=-1))
    torch.testing.assert_close(weights.sum(-1), torch.ones(20, 2))
    assert (weights == 0).any()


# Attention over steps.


def test_temporal_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    model = TemporalAttention(2, 5, 3, width=4, heads=2).double()
    x = torch.randn(2, 5, dtype=torch.double)
    periods = [2.0**k for k in range(2, 11)]
    tokens = []
    for t in range(5):
        token = model.embed.bias.clone()
        for offset in (-1, 0, 1):
            if 0 <= t + offset < 5:
                token = token + model.embed.weight[:, :, offset + 1] @ x[:, t + offset]
        sines = [math.sin(2 * math.pi * t / p) for p in periods]
        cosines = [math.cos(2 * math.pi * t / p) for p in periods]
        tokens.append(token + model.place.weight @ torch.tensor(sines + cosines).double())
    read = []
    for head in range(2):
        scores = torch.stack([model.score(torch.tanh(t))[head] for t in tokens])
        weights = scores.exp() / scores.exp().sum()
        torch.testing.assert_close(model.attention(x[None])[0, head], weights, rtol=1e-5, atol=1e-6)
        values = [model.value(F.gelu(t)) for t in tokens]
        read.append(sum(w * v for w, v in zip(weights, values, strict=True)))
    expected = model.classifier(torch.cat(read))
    torch.testing.assert_close(model(x[None])[0], expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(model(x[None]), model(x.flatten()[None]))


@pytest.mark.parametrize("normalize", ["softmax", "sparsemax", "entmax"])
def test_padded_steps_weigh_nothing_and_change_nothing(normalize: str) -> None:
    torch.manual_seed(0)
    long = TemporalAttention(2, 9, 3, normalize=normalize)
    short = TemporalAttention(2, 6, 3, normalize=normalize)
    short.load_state_dict(long.state_dict())
    x = torch.randn(4, 2, 6)
    padded = torch.cat([x, torch.full((4, 2, 3), float("nan"))], dim=-1)
    mask = (torch.arange(9) < 6).expand(4, 9)
    weights = long.attention(padded, mask)
    assert (weights[..., 6:] == 0).all()
    torch.testing.assert_close(weights[..., :6], short.attention(x))
    torch.testing.assert_close(long(padded, step_mask=mask), short(x))
    importance = long.feature_importance(padded, mask).view(2, 9)
    assert (importance[:, 6:] == 0).all()
    torch.testing.assert_close(
        importance[:, :6].flatten(), short.feature_importance(x), atol=0.2, rtol=1
    )


def test_each_row_has_its_own_padding() -> None:
    torch.manual_seed(1)
    model, x = TemporalAttention(1, 6, 2), torch.randn(3, 1, 6)
    lengths = torch.tensor([6, 4, 0])
    mask = torch.arange(6) < lengths[:, None]
    together = model(x, step_mask=mask)
    for i in range(3):
        torch.testing.assert_close(model(x[i : i + 1], step_mask=mask[i : i + 1])[0], together[i])
    weights = model.attention(x, mask)
    torch.testing.assert_close(weights.sum(-1), (lengths > 0).float()[:, None].expand(3, 2))
    assert torch.isfinite(together).all()


def test_positions_tell_where_something_happens() -> None:
    torch.manual_seed(0)
    steps = torch.randint(0, 12, (96,))
    x = F.one_hot(steps, 12).float()[:, None]
    y = (steps >= 6).long()
    model = TemporalAttention(1, 12, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert (model(x).argmax(1) == y).float().mean() > 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.zeros(3, 5, 2)), r"shape \(3, 5, 2\).*\(batch, 2, 5\)"),
        (lambda m: m(torch.zeros(3, 9)), r"shape \(3, 9\).*\(batch, 10\)"),
        (
            lambda m: m.attention(torch.zeros(3, 10), torch.ones(3, 4, dtype=torch.bool)),
            r"step_mask has shape \(3, 4\).*\(3, 5\)",
        ),
        (lambda m: m.attention(torch.zeros(3, 10), torch.ones(3, 5)), "must be boolean"),
    ],
)
def test_wrong_sequences_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(TemporalAttention(2, 5, 3))


# Additive nets.


def additive(classes: int | None = 3) -> AdditiveNet:
    torch.manual_seed(0)
    return AdditiveNet(4, classes, width=5, pairs=[(2, 0), (1, 3)])


def test_contributions_are_their_formula_and_sum_to_the_output() -> None:
    model, x = additive(), torch.randn(6, 4)
    parts = model.contributions(x)
    assert parts.shape == (6, 6, 3)
    assert torch.equal(parts.sum(1) + model.bias.weight, model(x))
    for j in range(4):
        hidden = F.gelu(x[:, j : j + 1] * model.hidden.weight[j] + model.hidden.bias[j])
        torch.testing.assert_close(parts[:, j], hidden @ model.output.weight[j])
    for p, pair in enumerate([[2, 0], [1, 3]]):
        hidden = F.gelu(x[:, pair] @ model.pair_hidden.weight[p] + model.pair_hidden.bias[p])
        torch.testing.assert_close(parts[:, 4 + p], hidden @ model.pair_output.weight[p])


def test_a_contribution_depends_on_its_feature_alone() -> None:
    model, x = additive(), torch.randn(6, 4)
    changed = x.clone()
    changed[:, 2] += 1
    moved = (model.contributions(changed) - model.contributions(x)).abs().sum((0, 2)) > 0
    assert moved.tolist() == [False, False, True, False, True, False]


def test_shape_functions_are_the_contributions_over_a_grid() -> None:
    model, x = additive(), torch.randn(6, 4)
    torch.testing.assert_close(model.shape_function(1, x[:, 1]), model.contributions(x)[:, 1])
    surface = model.pair_function(0, x[:, 2], x[:3, 0])
    assert surface.shape == (6, 3, 3)
    for i in range(3):
        torch.testing.assert_close(surface[i, i], model.contributions(x)[i, 4])


def test_it_finds_the_shape_of_each_feature() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 3)
    y = x[:, 0].square() - 2 * x[:, 1]
    model = AdditiveNet(3, None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        F.mse_loss(model(x)[:, 0], y).backward()
        optimizer.step()
    grid = torch.linspace(-1.5, 1.5, 21)
    for feature, truth in ((0, grid.square()), (1, -2 * grid)):
        shape = model.shape_function(feature, grid)[:, 0]
        error = (shape - shape.mean() - (truth - truth.mean())).abs().max()
        assert error < 0.3
    assert model.feature_importance(x)[2] < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.shape_function(4, torch.zeros(2)), "feature=4.* 0 to 3"),
        (lambda m: m.shape_function(0, torch.zeros(2, 1)), r"grid has shape \(2, 1\)"),
        (lambda m: m.pair_function(2, torch.zeros(2), torch.zeros(2)), "pair=2.* 2 pairs"),
        (lambda m: m.pair_function(0, torch.zeros(2), torch.zeros(())), r"second \(\)"),
    ],
)
def test_wrong_questions_to_an_additive_net_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(additive())


# Prototypes.


def wine(rows: int) -> tuple[Tensor, Tensor]:
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[:rows]
    x = (x - x.mean(0)) / x.std(0)
    return torch.tensor(x[order], dtype=torch.float32), torch.tensor(y[order])


@torch.no_grad()
def test_prototypes_are_their_formula() -> None:
    torch.manual_seed(0)
    model = PrototypeNet(3, 2, prototypes=4).double()
    model.relevance.weight.normal_()
    model.sharpness.weight.normal_()
    row = torch.randn(3, dtype=torch.double)
    joint = torch.zeros(2, dtype=torch.double)
    for p in range(4):
        distance = 0.0
        for j in range(3):
            share = model.relevance.weight[j].exp() / model.relevance.weight.exp().sum()
            distance += share * (row[j] - model.centers.weight[p, j]) ** 2
        kernel = torch.exp(-torch.log1p(model.sharpness.weight[p].exp()) * distance)
        torch.testing.assert_close(model.similarities(row[None])[0, p], kernel)
        joint += model.components.weight[p].exp() * kernel
    torch.testing.assert_close(model(row[None])[0].exp(), joint / joint.sum())


@torch.no_grad()
def test_a_regression_averages_the_values_of_near_prototypes() -> None:
    torch.manual_seed(0)
    model, x = PrototypeNet(3, None, prototypes=4), torch.randn(5, 3)
    near = model.similarities(x)
    expected = (near * model.components.weight[:, 0]).sum(1) / near.sum(1)
    torch.testing.assert_close(model(x)[:, 0], expected)


@torch.no_grad()
def test_nearest_rows_are_those_of_the_models_own_distance() -> None:
    torch.manual_seed(0)
    model, reference, x = PrototypeNet(4, 2), torch.randn(30, 4), torch.randn(7, 4)
    model.relevance.weight.copy_(torch.tensor([3.0, 0.0, -3.0, 1.0]))
    lam = torch.softmax(model.relevance.weight, 0)
    found = model.nearest_rows(x, reference, k=3)
    for i in range(7):
        distances = [(lam * (x[i] - row).square()).sum().item() for row in reference]
        assert found[i].tolist() == np.argsort(distances)[:3].tolist()
    of_prototypes = model.prototype_rows(reference)
    assert (
        of_prototypes.tolist() == model.nearest_rows(model.centers.weight, reference)[:, 0].tolist()
    )
    assert model.nearest_rows(reference, reference)[:, 0].tolist() == list(range(30))


def test_prototypes_start_from_rows_of_their_class() -> None:
    torch.manual_seed(0)
    x, y = wine(30)
    model = PrototypeNet(13, 3, prototypes=7)
    model.start_from_rows(x, y)
    rows = model.prototype_rows(x)
    assert torch.equal(model.centers.weight.detach(), x[rows])
    assert y[rows].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert len(set(rows.tolist())) == 7
    regression = PrototypeNet(13, None, prototypes=5)
    regression.start_from_rows(x)
    assert len(set(regression.prototype_rows(x).tolist())) == 5


def test_a_regression_of_prototypes_learns_real_data() -> None:
    torch.manual_seed(0)
    x, y = load_diabetes(return_X_y=True, scaled=True)
    x = torch.tensor(x / x.std(0), dtype=torch.float32)
    y = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)
    model = PrototypeNet(10, None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        F.mse_loss(model(x[:64])[:, 0], y[:64]).backward()
        optimizer.step()
    assert F.mse_loss(model(x[64:])[:, 0], y[64:]) < 0.8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.nearest_rows(torch.zeros(1, 3), torch.zeros(4, 3), k=5), "k=5.* 1 to the 4"),
        (lambda m: m.nearest_rows(torch.zeros(1, 3), torch.zeros(4, 3), k=0), "k=0"),
        (lambda m: m.nearest_rows(torch.zeros(1, 3), torch.zeros(4, 2)), r"shape \(4, 2\)"),
        (lambda m: m.start_from_rows(torch.zeros(0, 3)), "x has no rows"),
        (lambda m: m.start_from_rows(torch.zeros(4, 3), torch.zeros(3)), r"y has shape \(3,\)"),
    ],
)
def test_wrong_questions_to_prototypes_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(PrototypeNet(3, 2))
