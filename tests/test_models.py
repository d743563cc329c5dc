"""The models against their formulas, written out path by path and row by row."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, vmap

from denograd.models import FeatureAttention, SoftTree, TabularModel

MODELS = [
    pytest.param(lambda f, c: SoftTree(f, c, depth=3), id="soft_tree"),
    pytest.param(lambda f, c: FeatureAttention(f, c, width=6, heads=3), id="attention"),
]


@torch.no_grad()
def by_enumeration(tree: SoftTree, row: torch.Tensor) -> torch.Tensor:
    """Frosst and Hinton's mixture for one row: every path, gate by gate."""
    total = torch.zeros(tree.n_classes, dtype=row.dtype)
    for leaf, turns in enumerate(itertools.product([0, 1], repeat=tree.depth)):
        probability, node = 1.0, 0
        for level, turn in enumerate(turns):
            gate = 2**level - 1 + node
            right = 1 / (
                1 + math.exp(-float(tree.gates.weight[gate] @ row + tree.gates.bias[gate]))
            )
            probability *= right if turn else 1 - right
            node = 2 * node + turn
        assert node == leaf
        total += probability * torch.softmax(tree.leaves.weight[leaf], dim=0)
    return total


@settings(max_examples=25, deadline=None)
@given(depth=st.integers(1, 5), features=st.integers(1, 6), classes=st.integers(2, 4))
def test_soft_tree_is_the_mixture_of_its_paths(depth: int, features: int, classes: int) -> None:
    torch.manual_seed(depth + 10 * features)
    tree = SoftTree(features, classes, depth).double()
    torch.nn.init.normal_(tree.gates.bias)
    x = torch.randn(3, features, dtype=torch.double)
    expected = torch.stack([by_enumeration(tree, row) for row in x])
    torch.testing.assert_close(tree(x).exp(), expected)


def test_deep_tree_with_steep_gates_does_not_underflow() -> None:
    tree = SoftTree(3, 2, depth=12)
    with torch.no_grad():
        tree.gates.weight.mul_(300)
    x = torch.randn(8, 3)
    output = tree(x)
    output[:, 0].sum().backward()
    assert tree.log_path_probabilities(x).min() < -200
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(p.grad).all() for p in tree.parameters())


def test_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    model = FeatureAttention(4, 3, width=5, heads=2).double()
    row = torch.randn(4, dtype=torch.double)
    tokens = [row[j] * model.tokenizer.weight[j] + model.tokenizer.bias[j] for j in range(4)]
    read = []
    for head in range(2):
        scores = torch.stack([model.score(torch.tanh(t))[head] for t in tokens])
        weights = scores.exp() / scores.exp().sum()
        torch.testing.assert_close(model.attention(row[None])[0, head], weights)
        values = [model.value(torch.nn.functional.gelu(t)) for t in tokens]
        read.append(sum(w * v for w, v in zip(weights, values, strict=True)))
    torch.testing.assert_close(model(row[None])[0], model.classifier(torch.cat(read)))


@pytest.mark.parametrize("make", MODELS)
def test_stacked_models_equal_single_ones(make) -> None:
    models: list[TabularModel] = [make(4, 3) for _ in range(3)]
    stacked = {
        name: torch.stack([dict(m.named_parameters())[name] for m in models])
        for name, _ in models[0].named_parameters()
    }
    x = torch.randn(3, 7, 4)
    together = vmap(lambda p, x: functional_call(models[0], p, (x,)))(stacked, x)
    alone = torch.stack([m(rows) for m, rows in zip(models, x, strict=True)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("make", MODELS)
def test_padding_changes_no_output_and_gets_no_gradient(make) -> None:
    narrow, wide = make(3, 2).double(), make(5, 4).double()
    features = torch.tensor([True] * 3 + [False] * 2)
    classes = torch.tensor([True] * 2 + [False] * 2)
    masks = wide.padding_masks(features, classes)
    with torch.no_grad():
        for name, parameter in wide.named_parameters():
            source = dict(narrow.named_parameters())[name]
            mask = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
            parameter.copy_(torch.where(mask, parameter, 0.0))
            parameter[mask] = source.flatten()
    x = torch.randn(6, 3, dtype=torch.double)
    padded = torch.cat([x, torch.zeros(6, 2, dtype=torch.double)], dim=1)
    short, long = narrow(x).log_softmax(-1), wide(padded, features, classes).log_softmax(-1)
    torch.testing.assert_close(long[:, :2], short)
    (short.square().sum() + 0).backward()
    long[:, :2].square().sum().backward()
    for name, parameter in wide.named_parameters():
        mask = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        expected = dict(narrow.named_parameters())[name].grad.flatten()
        torch.testing.assert_close(parameter.grad[mask], expected)
        assert (parameter.grad[~mask] == 0).all()


@pytest.mark.parametrize("make", MODELS)
def test_importance_finds_the_only_feature_that_matters(make) -> None:
    torch.manual_seed(1)
    model = make(5, 2)
    x = torch.randn(300, 5)
    y = (x[:, 2] > 0).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    importance = model.feature_importance(x)
    assert importance.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert importance.argmax().item() == 2


@pytest.mark.parametrize("make", MODELS)
def test_an_input_of_the_wrong_shape_is_named(make) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\).*\(batch, 4\)"):
        make(4, 2)(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SoftTree(0, 2), "n_features=0"),
        (lambda: SoftTree(3, 1), "n_classes=1; it must be a whole number of at least 2"),
        (lambda: SoftTree(3, 2, depth=17), "at most 16"),
        (lambda: SoftTree(3, 2, depth=1.5), "depth=1.5"),  # type: ignore[arg-type]
        (lambda: FeatureAttention(3, 2, heads=0), "heads=0"),
    ],
)
def test_bad_sizes_are_named(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
