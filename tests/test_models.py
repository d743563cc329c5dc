"""The models against their formulas, written out path by path and row by row."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call, grad, vmap

from denograd.denoisers import Layout
from denograd.models import (
    AdditiveNet,
    FeatureAttention,
    PrototypeNet,
    RuleNet,
    SoftForest,
    SoftTree,
    TabularModel,
    TemporalAttention,
)
from denograd.models.registry import KNOWN_MODELS, MODEL_NAMES, check_model, make_model
from denograd.noise import NoiseCapture, noise_variance

MODELS = [
    pytest.param(lambda f, c: SoftTree(f, c, depth=3), id="soft_tree"),
    pytest.param(lambda f, c: SoftTree(f, c, temperature=0.5), id="soft_tree_steep"),
    pytest.param(lambda f, c: SoftForest(f, c, trees=4), id="soft_forest"),
    pytest.param(lambda f, c: SoftForest(f, c, trees=5, oblivious=True), id="oblivious"),
    pytest.param(
        lambda f, c: SoftForest(f, c, trees=5, oblivious=True, choice="sparsemax"),
        id="oblivious_sparsemax",
    ),
    pytest.param(lambda f, c: FeatureAttention(f, c, width=6, heads=3), id="attention"),
    pytest.param(lambda f, c: FeatureAttention(f, c, normalize="entmax"), id="attention_entmax"),
    pytest.param(
        lambda f, c: FeatureAttention(f, c, normalize="sparsemax"), id="attention_sparsemax"
    ),
    pytest.param(lambda f, c: TemporalAttention(1, f, c), id="temporal"),
    pytest.param(
        lambda f, c: TemporalAttention(1, f, c, normalize="entmax", kernel=1), id="temporal_entmax"
    ),
    pytest.param(lambda f, c: RuleNet(f, c, rules=12), id="rule_net"),
    pytest.param(lambda f, c: RuleNet(f, c, rules=7, conditions=3), id="rule_net_odd"),
    pytest.param(lambda f, c: AdditiveNet(f, c, width=7), id="additive"),
    pytest.param(
        lambda f, c: AdditiveNet(f, c, width=7, pairs=[(0, 2)] + [(1, 3)] * (f > 3)),
        id="additive_pairs",
    ),
    pytest.param(lambda f, c: PrototypeNet(f, c, prototypes=6), id="prototype_net"),
]

OUTPUTS = pytest.mark.parametrize("classes", [3, None], ids=["classes", "regression"])


def losses_of_rows(output: Tensor) -> Tensor:
    """A loss for each row that treats rows and columns differently, ``(batch,)``."""
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    return (torch.sin(output) * weights + 0.1 * output.square()).sum(-1)


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


@OUTPUTS
@pytest.mark.parametrize("make", MODELS)
def test_stacked_models_equal_single_ones(make, classes: int | None) -> None:
    torch.manual_seed(0)
    models: list[TabularModel] = [make(4, classes).double() for _ in range(3)]
    stacked = {
        name: torch.stack([dict(m.named_parameters())[name] for m in models])
        for name, _ in models[0].named_parameters()
    }
    x = torch.randn(3, 7, 4, dtype=torch.double)

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return losses_of_rows(functional_call(models[0], p, (x,))).sum()

    together = vmap(lambda p, x: functional_call(models[0], p, (x,)))(stacked, x)
    alone = torch.stack([m(rows) for m, rows in zip(models, x, strict=True)])
    assert alone.shape == (3, 7, models[0].n_outputs)
    torch.testing.assert_close(together, alone)
    gradients = vmap(grad(loss))(stacked, x)
    for i, (model, rows) in enumerate(zip(models, x, strict=True)):
        losses_of_rows(model(rows)).sum().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][i], parameter.grad)


@OUTPUTS
@pytest.mark.parametrize("make", MODELS)
def test_second_derivatives_agree_with_those_of_the_plain_model(make, classes) -> None:
    # Meta-training differentiates a gradient that it took through `vmap`.
    torch.manual_seed(1)
    model = make(4, classes).double()
    own = dict(model.named_parameters())
    x = torch.randn(6, 4, dtype=torch.double)

    def squared_gradient(output: Tensor, parameters: list[Tensor]) -> Tensor:
        gradients = torch.autograd.grad(
            losses_of_rows(output).sum(), parameters, create_graph=True, allow_unused=True
        )
        return sum(g.square().sum() for g in gradients if g is not None)

    def second(total: Tensor, parameters: list[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(total, parameters, allow_unused=True)
        pairs = zip(found, parameters, strict=True)
        return [torch.zeros_like(p) if g is None else g for g, p in pairs]

    plain = second(squared_gradient(model(x), list(own.values())), list(own.values()))
    stacked = {name: p.detach()[None].clone().requires_grad_() for name, p in own.items()}
    output = vmap(lambda p, x: functional_call(model, p, (x,)))(stacked, x[None])[0]
    batched = second(squared_gradient(output, list(stacked.values())), list(stacked.values()))
    for one, many in zip(plain, batched, strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(many[0], one)


@OUTPUTS
@pytest.mark.parametrize("make", MODELS)
def test_noise_capture_gives_the_variance_over_rows(make, classes: int | None) -> None:
    torch.manual_seed(2)
    model = make(4, classes).double()
    parameters = list(model.parameters())
    x = torch.randn(6, 4, dtype=torch.double)
    rows = [
        torch.autograd.grad(losses_of_rows(model(x))[i], parameters, allow_unused=True)
        for i in range(len(x))
    ]
    capture = NoiseCapture(parameters, model)
    losses_of_rows(model(x)).sum().backward()
    assert capture.rows(parameters) == len(x)
    gradients = [p.grad for p in parameters]
    layout = Layout.of(gradients)
    found, known = noise_variance(
        torch.cat([g.flatten() for g in gradients]), layout, capture.records(parameters)
    )
    assert known.tolist() == [1.0] * len(parameters)
    for position, (part, parameter) in enumerate(zip(layout.split(found), parameters, strict=True)):
        each = [row[position] for row in rows]
        each = [torch.zeros_like(parameter) if g is None else g for g in each]
        expected = len(x) * torch.stack(each).var(0)
        torch.testing.assert_close(part.view_as(parameter), expected, rtol=1e-7, atol=1e-12)


@OUTPUTS
@pytest.mark.parametrize("make", MODELS)
def test_padding_changes_no_output_and_gets_no_gradient(make, classes: int | None) -> None:
    torch.manual_seed(3)
    narrow, wide = make(3, classes and 2).double(), make(5, classes and 4).double()
    features = torch.tensor([True] * 3 + [False] * 2)
    real = torch.ones(1, dtype=torch.bool) if classes is None else torch.arange(4) < 2
    masks = wide.padding_masks(features, real)
    with torch.no_grad():
        for name, parameter in wide.named_parameters():
            source = dict(narrow.named_parameters())[name]
            mask = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
            parameter.copy_(torch.where(mask, parameter, 0.0))
            parameter[mask] = source.flatten()
    x = torch.randn(6, 3, dtype=torch.double)
    padded = torch.cat([x, torch.randn(6, 2, dtype=torch.double)], dim=1)
    short, long = narrow(x), wide(padded, features, real)
    if classes is not None:
        short, long = short.log_softmax(-1), long.log_softmax(-1)
    outputs = int(real.sum())
    torch.testing.assert_close(long[:, :outputs], short)
    losses_of_rows(short).sum().backward()
    losses_of_rows(long[:, :outputs]).sum().backward()
    for name, parameter in wide.named_parameters():
        mask = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        expected = dict(narrow.named_parameters())[name].grad.flatten()
        torch.testing.assert_close(parameter.grad[mask], expected)
        assert (parameter.grad[~mask] == 0).all()


@OUTPUTS
@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e4, 1e8, 1e15])
def test_finite_inputs_give_finite_outputs_and_gradients(make, classes, size: float) -> None:
    torch.manual_seed(4)
    model = make(4, classes)
    output = model(size * torch.randn(5, 4))
    output = output if classes is None else output.log_softmax(-1)
    output.sum(-1).mean().backward()
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("make", MODELS)
def test_parameter_groups_hold_each_parameter_once(make) -> None:
    model = make(4, 3)
    groups = model.parameter_groups()
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    left = [p for group in groups if not group.get("denoise", True) for p in group["params"]]
    discrete = [model.choice.weight] if isinstance(model, RuleNet) else []
    assert [id(p) for p in left] == [id(p) for p in discrete]
    torch.optim.AdamW(groups)


@OUTPUTS
@pytest.mark.parametrize("make", MODELS)
def test_drawing_weights_anew_changes_them_and_follows_the_seed(make, classes) -> None:
    model = make(4, classes)
    torch.manual_seed(7)
    model.reset_parameters(fan_in=3)
    first = [p.detach().clone() for p in model.parameters()]
    model.reset_parameters(fan_in=3)
    second = [p.detach().clone() for p in model.parameters()]
    torch.manual_seed(7)
    model.reset_parameters(fan_in=3)
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, model.parameters(), strict=True))


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
def test_importance_of_a_regression_finds_the_only_feature_that_matters(make) -> None:
    torch.manual_seed(2)
    model = make(5, None)
    x = torch.randn(300, 5)
    y = 2 * x[:, 3:4] + 1
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * y.var().item()
    # A token of a sequence is made of its neighbours too.
    reach = getattr(model, "kernel", 1) // 2
    assert abs(model.feature_importance(x).argmax().item() - 3) <= reach


@pytest.mark.parametrize("make", MODELS)
def test_importance_of_equal_rows_is_still_a_share(make) -> None:
    model = make(5, 2)
    importance = model.feature_importance(torch.ones(3, 5))
    assert importance.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert (importance >= 0).all()


@pytest.mark.parametrize("make", MODELS)
def test_an_input_of_the_wrong_shape_is_named(make) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\).*\(batch, .*4\)"):
        make(4, 2)(torch.zeros(2, 3))


@pytest.mark.parametrize("make", MODELS)
def test_an_input_of_the_wrong_type_is_named(make) -> None:
    model = make(4, 2)
    with pytest.raises(ValueError, match=r"x is of type torch.int64; it must be .* x.float\(\)"):
        model(torch.ones(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="x is of type ndarray; it must be a tensor"):
        model(np.ones((2, 4)))


@OUTPUTS
@pytest.mark.parametrize("make", MODELS)
def test_gaps_become_gaps_of_their_row_alone(make, classes: int | None) -> None:
    torch.manual_seed(0)
    model = make(4, classes)
    x = torch.randn(3, 4)
    expected = model(x)
    x[1, 2] = float("nan")
    output = model(x)
    assert output[1].isnan().all()
    torch.testing.assert_close(output[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SoftTree(0, 2), "n_features=0"),
        (lambda: SoftTree(3, 1), "n_classes=1; it must be a whole number of at least 2"),
        (lambda: SoftTree(3, 2, depth=17), "at most 16"),
        (lambda: SoftTree(3, 2, depth=1.5), "depth=1.5"),  # type: ignore[arg-type]
        (lambda: SoftTree(3, True), "n_classes=True.*None for regression"),
        (lambda: SoftTree(3, 2, temperature=0.0), "temperature=0.0; it must be a number above 0"),
        (lambda: SoftTree(3, 2, temperature=float("nan")), "temperature=nan"),
        (lambda: SoftTree(3, 2, temperature=True), "temperature=True"),
        (lambda: SoftForest(3, 2, trees=0), "trees=0"),
        (lambda: SoftForest(3, 2, depth=30), "at most 16"),
        (lambda: SoftForest(3, 2, oblivious=True, choice="hard"), "normalize='hard'"),
        (lambda: FeatureAttention(3, 2, heads=0), "heads=0"),
        (lambda: FeatureAttention(3, 2, width=4, heads=5), "heads=5 is more than width=4"),
        (lambda: FeatureAttention(3, 2, normalize="max"), "use one of softmax, sparsemax, entmax"),
        (lambda: TemporalAttention(1, 0, 2), "length=0"),
        (lambda: TemporalAttention(1, 5, 2, width=2, heads=3), "heads=3 is more than width=2"),
        (lambda: TemporalAttention(1, 5, 2, kernel=4), "kernel=4; it must be odd"),
        (lambda: RuleNet(3, 2, rules=0), "rules=0"),
        (lambda: RuleNet(3, 2, thresholds=2.5), "thresholds=2.5"),
        (lambda: AdditiveNet(3, 2, width=-1), "width=-1"),
        (lambda: AdditiveNet(3, 2, pairs=[(0, 3)]), r"\(0, 3\); a pair is two different"),
        (lambda: AdditiveNet(3, 2, pairs=[(1, 1)]), r"\(1, 1\); a pair is two different"),
        (lambda: AdditiveNet(3, 2, pairs=[(0, 1), (1, 0)]), "twice"),
        (lambda: PrototypeNet(3, 2, prototypes=0), "prototypes=0"),
    ],
)
def test_bad_sizes_are_named(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("classes", [3, None])
@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_the_registry_makes_each_model(name: str, classes: int | None) -> None:
    model = make_model(name, 6, classes)
    assert model(torch.zeros(2, 6)).shape == (2, model.n_outputs)


def test_the_registry_makes_sequences_of_several_channels() -> None:
    model = make_model("temporal_attention", 6, 2, n_channels=2)
    assert (model.n_channels, model.length) == (2, 3)
    with pytest.raises(ValueError, match="n_features=7 is not a multiple of n_channels=2"):
        make_model("temporal_attention", 7, 2, n_channels=2)


def test_unknown_names_are_listed() -> None:
    with pytest.raises(ValueError, match=r"'svm' is not known; use one of soft_tree, .*temporal"):
        check_model("svm")
    assert set(MODEL_NAMES) <= set(KNOWN_MODELS)


def test_default_models_draw_the_weights_that_saved_results_were_made_with() -> None:
    torch.manual_seed(5)
    tree = SoftTree(3, 2, depth=2)
    torch.manual_seed(5)
    gates = torch.nn.Linear(3, 3)  # draws weights that are then drawn anew
    leaves = torch.zeros(4, 2)
    torch.nn.init.uniform_(gates.weight, -(3**-0.5), 3**-0.5)
    torch.nn.init.normal_(leaves, std=0.3)
    assert torch.equal(tree.gates.weight, gates.weight)
    assert torch.equal(tree.leaves.weight, leaves)
    names = [name for name, _ in FeatureAttention(3, 2).named_parameters()]
    assert names == [
        "tokenizer.weight",
        "tokenizer.bias",
        "score.weight",
        "value.weight",
        "value.bias",
        "classifier.weight",
        "classifier.bias",
    ]
