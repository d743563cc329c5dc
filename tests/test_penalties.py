"""Each form of penalty: its value, its gradient through the hooks, and where it looks."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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
    TemporalAttention,
)
from denograd.penalties import (
    Concurvity,
    Decorrelation,
    FeatureDecorrelation,
    HeadDisagreement,
    NodeDecorrelation,
    Penalty,
    Whitening,
    concurvity,
    correlation_penalty,
    covariance_penalty,
    head_agreement,
    node_correlation,
    whitening_distance,
)

WEIGHT = 0.7


# The forms once more, in the plainest way.


def plain_correlation(x: Tensor) -> Tensor:
    matrix = torch.corrcoef(x.T)
    pairs = [(i, j) for i in range(len(matrix)) for j in range(len(matrix)) if i != j]
    return torch.stack([matrix[i, j] ** 2 for i, j in pairs]).mean()


def plain_covariance(x: Tensor) -> Tensor:
    matrix = torch.cov(x.T, correction=0)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / 2


def plain_whitening(x: Tensor, size: int = 16, shrinkage: float = 0.1) -> Tensor:
    total = x.new_zeros(())
    for start in range(0, x.shape[1], size):
        part = x[:, start : start + size]
        z = (part - part.mean(0)) / part.std(0, correction=0)
        matrix = torch.cov(z.T, correction=0).reshape(z.shape[1], z.shape[1])
        shrunk = (1 - shrinkage) * matrix + shrinkage * torch.diag(matrix.diagonal())
        values, vectors = torch.linalg.eigh(shrunk)
        white = z @ vectors @ torch.diag(values**-0.5) @ vectors.T
        total = total + (white - z).square().sum(1).mean()
    return total / x.shape[1]


def plain_nodes(gates: Tensor, depth: int) -> Tensor:
    """``gates``: probabilities of going right, ``(N, T, nodes)``."""
    above: list[Tensor] = []
    below: list[Tensor] = []
    for t in range(gates.shape[1]):
        for node in range(1, 2**depth - 1):
            ancestors, reach, place = [], torch.ones_like(gates[:, 0, 0]), node
            while place:
                parent = (place - 1) // 2
                p = gates[:, t, parent]
                reach = reach * (p if place == 2 * parent + 2 else 1 - p)
                ancestors.append(parent)
                place = parent
            for ancestor in ancestors:
                pair = torch.stack((gates[:, t, node], gates[:, t, ancestor]))
                matrix = torch.cov(pair, aweights=reach.detach(), correction=0)
                # The library takes weights as constants; here they are part of the function.
                share = reach / reach.sum()
                centred = pair - (pair * share).sum(1, keepdim=True)
                matrix = centred * share @ centred.T
                square = matrix[0, 1] ** 2 / (matrix[0, 0] * matrix[1, 1])
                above.append(reach.mean() * square)
                below.append(reach.mean() * len(ancestors) / len(ancestors))
    return torch.stack(above).sum() / torch.stack(below).sum()


def plain_heads(weights: Tensor, cosine: bool = True) -> Tensor:
    heads, found = weights.shape[1], []
    for i in range(heads):
        for j in range(heads):
            if i != j:
                one, other = weights[:, i], weights[:, j]
                found.append(
                    F.cosine_similarity(one, other, dim=-1).mean()
                    if cosine
                    else (one * other).sum(-1).mean()
                )
    return torch.stack(found).mean()


def plain_concurvity(parts: Tensor) -> Tensor:
    """``(N, p, outputs)``."""
    found = []
    for output in range(parts.shape[2]):
        matrix = torch.corrcoef(parts[:, :, output].T)
        for i in range(parts.shape[1]):
            found += [matrix[i, j].abs() for j in range(i)]
    return torch.stack(found).mean()


def centred_classes(parts: Tensor) -> Tensor:
    return parts - parts.mean(-1, keepdim=True)


def rows(n: int = 16, d: int = 5, seed: int = 0) -> Tensor:
    """Correlated rows, so that no penalty is near 0."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing


# Values.


@pytest.mark.parametrize(
    ("fast", "plain"),
    [
        (correlation_penalty, plain_correlation),
        (covariance_penalty, plain_covariance),
        (whitening_distance, plain_whitening),
        (lambda x: whitening_distance(x, 3, 0.3), lambda x: plain_whitening(x, 3, 0.3)),
        (lambda x: whitening_distance(x, iterations=30), plain_whitening),
        (lambda x: concurvity(x), lambda x: plain_concurvity(x.unsqueeze(-1))),
        (
            lambda x: concurvity(x[:, :6].unflatten(1, (3, 2))),
            lambda x: plain_concurvity(x[:, :6].unflatten(1, (3, 2))),
        ),
        (
            lambda x: node_correlation(x[:, None, :7], 3),
            lambda x: plain_nodes(torch.sigmoid(x[:, None, :7]), 3),
        ),
        (
            lambda x: node_correlation(x[:, :6].unflatten(1, (2, 3)), 2),
            lambda x: plain_nodes(torch.sigmoid(x[:, :6].unflatten(1, (2, 3))), 2),
        ),
        (
            lambda x: head_agreement(x[:, :6].unflatten(1, (3, 2)).softmax(-1)),
            lambda x: plain_heads(x[:, :6].unflatten(1, (3, 2)).softmax(-1)),
        ),
        (
            lambda x: head_agreement(x[:, :6].unflatten(1, (3, 2)).softmax(-1), "product"),
            lambda x: plain_heads(x[:, :6].unflatten(1, (3, 2)).softmax(-1), cosine=False),
        ),
    ],
)
def test_values_and_gradients_are_those_of_plain_code(
    fast: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor]
) -> None:
    x = rows(24, 7).requires_grad_()
    ours, theirs = fast(x), plain(x)
    assert ours.dim() == 0
    assert ours > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    (g,), (h,) = torch.autograd.grad(ours, x), torch.autograd.grad(theirs, x)
    assert h.norm() > 1e-4
    torch.testing.assert_close(g, h, rtol=1e-7, atol=1e-9 * float(h.abs().max()))


def test_heads_with_queries_agree_with_one_query_after_another() -> None:
    weights = rows(6, 60).unflatten(1, (3, 4, 5)).softmax(-1)
    each = torch.stack([plain_heads(weights[:, :, q]) for q in range(4)]).mean()
    torch.testing.assert_close(head_agreement(weights), each)


def test_newton_schulz_agrees_with_eigenvalues_where_rows_are_few() -> None:
    # 16 rows, groups of 16: half of the groups' correlations have no inverse.
    x = rows(16, 40).requires_grad_()
    exact, steps = whitening_distance(x), whitening_distance(x, iterations=12)
    torch.testing.assert_close(steps, exact, rtol=1e-4, atol=0)
    (g,), (h,) = torch.autograd.grad(exact, x), torch.autograd.grad(steps, x)
    assert (g - h).norm() < 1e-3 * g.norm()
    loose = whitening_distance(x, iterations=5)
    assert loose < exact


def test_white_features_have_no_distance_and_repeated_ones_have() -> None:
    white = torch.linalg.qr(torch.cat((torch.ones(32, 1), torch.randn(32, 6)), 1).double())[0]
    assert whitening_distance(white[:, 1:]) < 1e-12
    assert correlation_penalty(white[:, 1:]) < 1e-20
    same = white[:, 1:2].expand(-1, 4)
    torch.testing.assert_close(correlation_penalty(same), torch.ones(()).double())
    # Eigenvalues 4 and three times 0, of which only the first has a part in the distance.
    expected = 4 * ((0.9 * 4 + 0.1) ** -0.5 - 1) ** 2 / 4
    torch.testing.assert_close(whitening_distance(same), torch.tensor(expected).double())


def test_a_gate_that_repeats_one_above_it_is_what_costs() -> None:
    root, other = 2 * torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    left = torch.stack((root, root, other), -1).unsqueeze(1)
    neither = torch.stack((root, other, other), -1).unsqueeze(1)
    assert node_correlation(left, 2) > node_correlation(neither, 2) + 0.3


@pytest.mark.parametrize(
    "function",
    [
        correlation_penalty,
        covariance_penalty,
        whitening_distance,
        lambda x: whitening_distance(x, iterations=8),
        concurvity,
        lambda x: node_correlation(x[:, None, :3], 2),
        lambda x: head_agreement(x[:, :4].unflatten(1, (2, 2)).softmax(-1)),
    ],
)
@given(
    values=st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 1.0, -3.0, 1e4, 1e-6, 0.1]), min_size=4, max_size=4),
        min_size=1,
        max_size=9,
    ),
    double=st.booleans(),
)
def test_whatever_the_columns_hold_value_and_gradient_are_finite(
    function: Callable[[Tensor], Tensor], values: list[list[float]], double: bool
) -> None:
    x = torch.tensor(values, dtype=torch.float64 if double else torch.float32).requires_grad_()
    value = function(x)
    assert value.isfinite()
    assert value >= -1e-5
    if function is not covariance_penalty:
        assert value <= 1.0001
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.isfinite().all()


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-50, 50))
def test_correlation_forms_know_no_scale_and_no_shift(
    seed: int, scale: float, shift: float
) -> None:
    x = rows(12, 4, seed)
    for function in (correlation_penalty, whitening_distance, concurvity):
        torch.testing.assert_close(function(scale * x + shift), function(x), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 1.0, 1e30, 0.1, 1e-30])
def test_constant_features_have_no_correlation_and_no_gradient(constant: float) -> None:
    x = torch.cat((rows(16, 3), torch.full((16, 2), constant).double()), 1).float()
    x.requires_grad_()
    torch.testing.assert_close(
        correlation_penalty(x) * 20, correlation_penalty(x[:, :3]) * 6, rtol=1e-5, atol=1e-6
    )
    for function in (correlation_penalty, whitening_distance, concurvity):
        (gradient,) = torch.autograd.grad(function(x), x)
        assert (gradient[:, 3:] == 0).all()
        assert gradient[:, :3].isfinite().all()
        assert (gradient[:, :3] != 0).any()


# Gradients through the hooks.


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3))


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.GELU(), nn.Flatten(), nn.Linear(8, 3)
    )


def gates_of_forest(model: SoftForest, x: Tensor) -> Tensor:
    if not model.oblivious:
        logits = x @ model.gates.weight.T + model.gates.bias
        return torch.sigmoid(logits / model.temperature).unflatten(-1, (model.trees, -1))
    tree_gates = []
    chosen = x @ model.choice.shares().T
    for t in range(model.trees):
        for level in range(model.depth):
            unit = t * model.depth + level
            scaled = chosen[:, unit] * model.gates.weight[unit] + model.gates.bias[unit]
            tree_gates += [torch.sigmoid(scaled / model.temperature)] * 2**level
    return torch.stack(tree_gates, 1).unflatten(1, (model.trees, -1))


def layers(model: nn.Sequential, x: Tensor, wanted: tuple[int, ...]) -> list[Tensor]:
    found = []
    for index, layer in enumerate(model):
        x = layer(x)
        if index in wanted:
            found.append(x)
    return found


def channels(x: Tensor) -> Tensor:
    return torch.cat([x[:, :, i, j] for i in range(x.shape[2]) for j in range(x.shape[3])])


def what_heads_read(model: FeatureAttention, x: Tensor) -> Tensor:
    values = model.value(F.gelu(model.tokenizer(x)))
    weights = model.attention(x)
    return torch.stack([torch.einsum("bf,bfd->bd", weights[:, h], values) for h in range(2)], 1)


Case = tuple[Callable[[], nn.Module], Callable[[], Penalty], Callable[[Any, Tensor], Tensor]]

CASES: dict[str, Case] = {
    "tree": (
        lambda: SoftTree(5, 3, depth=3),
        lambda: Decorrelation(WEIGHT),
        lambda m, x: plain_nodes(torch.sigmoid(x @ m.gates.weight.T + m.gates.bias)[:, None], 3),
    ),
    "hard regression tree": (
        lambda: SoftTree(5, None, depth=2, temperature=0.5),
        lambda: NodeDecorrelation(WEIGHT),
        lambda m, x: plain_nodes(torch.sigmoid(2 * m.gates(x))[:, None], 2),
    ),
    "features of a tree": (
        lambda: SoftTree(5, 3, depth=3),
        lambda: FeatureDecorrelation(WEIGHT, ["gates"], kind="covariance"),
        lambda m, x: plain_covariance(m.gates(x)),
    ),
    "forest": (
        lambda: SoftForest(5, 3, trees=3, depth=3, temperature=0.7),
        lambda: Decorrelation(WEIGHT),
        lambda m, x: plain_nodes(gates_of_forest(m, x), 3),
    ),
    "oblivious forest": (
        lambda: SoftForest(5, None, trees=3, depth=3, oblivious=True),
        lambda: Decorrelation(WEIGHT),
        lambda m, x: plain_nodes(gates_of_forest(m, x), 3),
    ),
    "attention": (
        lambda: FeatureAttention(5, 3, heads=3),
        lambda: Decorrelation(WEIGHT),
        lambda m, x: plain_heads(m.attention(x)),
    ),
    "sparse attention": (
        lambda: FeatureAttention(5, 3, heads=3, normalize="entmax"),
        lambda: HeadDisagreement(WEIGHT, measure="product"),
        lambda m, x: plain_heads(m.attention(x), cosine=False),
    ),
    "features of attention": (
        lambda: FeatureAttention(5, 3),
        lambda: Whitening(WEIGHT, group_size=5),
        lambda m, x: plain_whitening(what_heads_read(m, x).flatten(1), 5),
    ),
    "attention over time": (
        lambda: TemporalAttention(1, 5, 3, heads=2),
        lambda: Decorrelation(WEIGHT),
        lambda m, x: plain_heads(m.attention(x)),
    ),
    "features over time": (
        lambda: TemporalAttention(1, 5, None),
        lambda: FeatureDecorrelation(WEIGHT),
        lambda m, x: plain_correlation(
            (m.attention(x) @ m.value(F.gelu(m._tokens(x.unsqueeze(1))))).flatten(1)
        ),
    ),
    "additive": (
        lambda: AdditiveNet(5, 3),
        lambda: Decorrelation(WEIGHT),
        lambda m, x: plain_concurvity(centred_classes(m.contributions(x))),
    ),
    "additive regression with pairs": (
        lambda: AdditiveNet(5, None, pairs=[(0, 1), (2, 4)]),
        lambda: Concurvity(WEIGHT),
        lambda m, x: plain_concurvity(m.contributions(x)),
    ),
    "rules": (
        lambda: RuleNet(5, 3, rules=6, temperature=1.0),
        lambda: Decorrelation(WEIGHT),
        # A rule that holds for all rows, or none, is correlated with nothing.
        lambda m, x: varying_correlation(m._activations(x, None)),
    ),
    "prototypes": (
        lambda: PrototypeNet(5, 3, prototypes=4),
        lambda: Decorrelation(WEIGHT),
        lambda m, x: plain_correlation(m.similarities(x)),
    ),
    "white prototypes": (
        lambda: PrototypeNet(5, None, prototypes=4),
        lambda: Whitening(WEIGHT),
        lambda m, x: plain_whitening(m.similarities(x)),
    ),
    "mlp": (
        mlp,
        lambda: Decorrelation(WEIGHT),
        lambda m, x: sum(plain_correlation(h) for h in layers(m, x, (1, 3))),
    ),
    "mlp covariance": (
        mlp,
        lambda: FeatureDecorrelation(WEIGHT, kind="covariance"),
        lambda m, x: sum(plain_covariance(h) for h in layers(m, x, (1, 3))),
    ),
    "white mlp": (
        mlp,
        lambda: Whitening(WEIGHT, ["3"], group_size=4, shrinkage=0.2),
        lambda m, x: plain_whitening(layers(m, x, (3,))[0], 4, 0.2),
    ),
    "iteratively white mlp": (
        mlp,
        lambda: Whitening(WEIGHT, ["3"], iterations=40),
        lambda m, x: plain_whitening(layers(m, x, (3,))[0]),
    ),
    "the output too": (
        mlp,
        lambda: Decorrelation(WEIGHT, [""]),
        lambda m, x: plain_correlation(m(x)),
    ),
    "convolution": (
        convolutional,
        lambda: Decorrelation(WEIGHT, ["1", "2"]),
        lambda m, x: sum(plain_correlation(channels(h)) for h in layers(m, x, (1, 2))),
    ),
}


def varying_correlation(x: Tensor) -> Tensor:
    varies = x.detach().std(0) > 1e-9
    count, width = int(varies.sum()), x.shape[1]
    assert count >= 2
    return plain_correlation(x[:, varies]) * count * (count - 1) / (width * (width - 1))


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    target = torch.arange(len(x), device=x.device) % 3
    output = model(x)
    if output.shape[1] == 1:
        return F.mse_loss(output[:, 0], target.to(x))
    return F.cross_entropy(output, target)


def made(name: str, seed: int = 0, **options: Any) -> tuple[nn.Module, Any, DenoGrad, Any]:
    """A model, an untouched copy of it, an optimizer with the penalty, and the plain penalty."""
    torch.manual_seed(seed)
    build, penalty, plain = CASES[name]
    model = build().double()
    reference = copy.deepcopy(model)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = DenoGrad(base, "identity", model=model, penalties=[penalty()], **options)
    return model, reference, optimizer, plain


def assert_same_gradients(model: nn.Module, reference: nn.Module) -> None:
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert p.grad is not None, name
        assert q.grad is not None, name
        scale = float(q.grad.abs().max())
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-9 * scale + 1e-15)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_loss_plus_penalty(name: str) -> None:
    model, reference, optimizer, plain = made(name)
    x = rows(16, 6 if name == "convolution" else 5)
    loss = loss_of(model, x)
    loss.backward()
    plain_loss, term = loss_of(reference, x), plain(reference, x)
    # The forward pass is what it was, bit for bit.
    assert torch.equal(loss, plain_loss)
    (plain_loss + WEIGHT * term).backward()
    assert_same_gradients(model, reference)
    penalty = optimizer.penalties[0]
    assert penalty.value is not None
    assert not penalty.value.requires_grad
    torch.testing.assert_close(penalty.value, term.detach(), rtol=1e-9, atol=0)
    # It does make a difference.
    alone = copy.deepcopy(reference)
    alone.zero_grad()
    loss_of(alone, x).backward()
    pairs = zip(alone.parameters(), model.parameters(), strict=True)
    assert max(float((p.grad - q.grad).abs().max()) for p, q in pairs) > 1e-5  # type: ignore[operator]
    optimizer.step()
    assert penalty.dropped == 0


@pytest.mark.parametrize("name", ["tree", "attention", "additive", "prototypes", "mlp"])
def test_in_single_precision_too(name: str) -> None:
    model, reference, _, plain = made(name)
    model.float()
    x = rows()
    loss_of(model, x.float()).backward()
    (loss_of(reference, x) + WEIGHT * plain(reference, x)).backward()
    for p, q in zip(model.parameters(), reference.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert (p.grad - q.grad).norm() < 1e-4 * q.grad.norm() + 1e-7


def test_padded_steps_are_no_part_of_the_penalty() -> None:
    model, reference, optimizer, _ = made("attention over time")
    x = rows()
    mask = torch.arange(5) < torch.arange(16).unsqueeze(1) % 5
    target = torch.arange(16) % 3
    F.cross_entropy(model(x, step_mask=mask), target).backward()
    # Row 0 has no real step: all of its weights are 0, and it counts as no agreement.
    weights = reference.attention(x, mask)
    term = plain_heads(weights[mask.any(1)]) * 12 / 16
    assert mask.any(1).sum() == 12
    (F.cross_entropy(reference(x, step_mask=mask), target) + WEIGHT * term).backward()
    torch.testing.assert_close(optimizer.penalties[0].value, term.detach())
    assert_same_gradients(model, reference)


# Where a penalty looks.


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (SoftTree(4, 2), ["'gates' (Linear): squared correlation of gates"]),
        (
            SoftForest(4, 2, oblivious=True),
            ["'gates' (FeatureTokenizer): squared correlation"],
        ),
        (FeatureAttention(4, 2), ["'attended' (Identity): agreement (cosine) of what the heads"]),
        (TemporalAttention(2, 4, 2), ["'attended' (Identity): agreement (cosine)"]),
        (AdditiveNet(4, 2), ["'parts' (Identity): concurvity"]),
        (RuleNet(4, 2), ["the input of 'head' (Linear): squared correlation of which rules hold"]),
        (PrototypeNet(4, 2), ["'nearness' (Identity): squared correlation of similarities"]),
        (
            mlp(),
            ["'1' (ReLU): squared correlation of hidden", "'3' (Tanh): squared correlation"],
        ),
        (
            # Activations that are no modules: all layers but the last.
            nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2)),
            ["'0' (Linear): squared correlation", "'1' (Linear): squared correlation"],
        ),
        (
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(), SoftTree(4, 2)),
            [
                "'1' (ReLU): squared correlation of hidden",
                "'2.gates' (Linear): squared",
            ],
        ),
    ],
)
def test_the_form_that_suits_the_module_is_picked_and_said(
    model: nn.Module, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    penalty = Decorrelation(0.5)
    assert penalty.describe() == []
    assert repr(penalty) == "<Decorrelation(weight=0.5)>"
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    with caplog.at_level(logging.INFO, logger="denograd.penalties"):
        optimizer = DenoGrad(base, "identity", model=model, penalties=[penalty])
        assert len(caplog.messages) == len(expected)
        optimizer.attach_penalties(model)
        copy.deepcopy(optimizer)
    said = penalty.describe()
    assert len(said) == len(expected)
    for line, start, message in zip(said, expected, caplog.messages, strict=True):
        assert line.startswith(start)
        assert message.endswith(line)
        assert "Decorrelation" in message
        assert line in repr(penalty)


def test_modules_are_named_or_given() -> None:
    model = mlp()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = DenoGrad(
        base, "identity", model=model, penalties=[Decorrelation(0.1, ["0", model[3], model[3]])]
    )
    places = [line.split(":")[0] for line in optimizer.penalties[0].describe()]
    assert places == ["'0' (Linear)", "'3' (Tanh)"]


def test_the_dimension_of_features_can_be_told() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.unsqueeze(1).expand(-1, 3, -1) * torch.arange(1, 4).unsqueeze(-1))

    torch.manual_seed(0)
    model = Tokens().double()
    x = rows()
    for dim, flat in ((None, lambda h: h.flatten(0, 1)), (1, lambda h: h.mT.flatten(0, 1))):
        base = torch.optim.SGD(model.parameters(), lr=0.1)
        penalty = FeatureDecorrelation(WEIGHT, ["inner"], dim=dim)
        optimizer = DenoGrad(base, "identity", model=model, penalties=[penalty])
        hidden = model(x)
        assert penalty.value is not None
        torch.testing.assert_close(penalty.value, plain_correlation(flat(hidden.detach())))
        optimizer.detach_penalties()
