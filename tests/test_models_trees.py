"""Hard trees read off soft ones, against an interpreter of what is printed."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from torch import Tensor
from torch.nn import functional as F

from denograd.models import SoftForest, SoftTree, predict_from_rules
from denograd.models._trees import TreeModel

KINDS = {
    "tree": lambda f, c: SoftTree(f, c),
    "steep tree": lambda f, c: SoftTree(f, c, depth=4, temperature=0.3),
    "forest": lambda f, c: SoftForest(f, c, trees=3),
    "oblivious": lambda f, c: SoftForest(f, c, trees=4, oblivious=True),
}
KIND = pytest.mark.parametrize("kind", KINDS)


def standardised(load, rows: int | None = None) -> tuple[Tensor, Tensor]:
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[:rows]
    x = (x - x.mean(0)) / x.std(0)
    return torch.tensor(x[order], dtype=torch.float32), torch.tensor(y[order])


def trained(model: TreeModel, x: Tensor, y: Tensor, steps: int = 120) -> TreeModel:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        output = model(x)
        loss = F.mse_loss(output[:, 0], y) if model.n_classes is None else F.nll_loss(
            output.log_softmax(-1), y
        )  # fmt: skip
        loss.backward()
        optimizer.step()
    return model


def by_reading(text: str, row: NDArray[np.float32], columns: int) -> NDArray[np.float64]:
    """Scores of one row, by going through the printed text line by line."""
    total = np.zeros(columns)
    path = [True]
    for line in text.splitlines():
        body = line.strip()
        level = (len(line) - len(body)) // 2
        if body.startswith(("fidelity", "tree ")):
            path = [True]
            continue
        path = path[: level + 1]
        if body.startswith("if "):
            condition = re.fullmatch(r"if (.*) (>|<=|<|>=) (\S+):", body)
            assert condition, body
            left, relation, right = condition.groups()
            value = 0.0
            for sign, size, index in re.findall(r"([+-]?) ?(?:([\d.e-]+) )?x(\d+)", left):
                weight = float(size or 1) * (-1 if sign == "-" else 1)
                value += weight * float(row[int(index)])
            bound = float(np.float32(right))
            met = {">": value > bound, "<=": value <= bound}.get(relation)
            if met is None:
                met = value < bound if relation == "<" else value >= bound
            path.append(path[-1] and met)
        elif path[-1]:
            scores = re.search(r"scores: ([^)]*)\)", body)
            if scores:
                total += [float(part.split()[1]) for part in scores[1].split(", ")]
            else:
                total += float(body.split(" [")[0])
    return total


@KIND
@pytest.mark.parametrize("max_terms", [1, 3, None])
def test_text_rules_and_hard_prediction_say_the_same(kind: str, max_terms: int | None) -> None:
    torch.manual_seed(0)
    x, y = standardised(load_wine, 60)
    model = trained(KINDS[kind](13, 3), x, y)
    rules = model.to_rules(x=x, max_terms=max_terms)
    text = model.to_text(x=x, max_terms=max_terms)
    hard = model.hard_predict(x, max_terms=max_terms)
    from_rules = predict_from_rules(rules, x.numpy())
    assert from_rules.argmax(1).tolist() == hard.tolist()
    read = np.stack([by_reading(text, row, 3) for row in x.numpy()])
    np.testing.assert_allclose(read, from_rules, atol=1e-9)
    np.testing.assert_allclose(model.hard_scores(x, max_terms), from_rules, rtol=1e-5, atol=1e-6)
    agreed = (hard == model(x).argmax(-1)).double().mean().item()
    assert model.fidelity(x, max_terms=max_terms) == pytest.approx(agreed)


@KIND
def test_regression_trees_say_the_same(kind: str) -> None:
    torch.manual_seed(0)
    x, y = standardised(load_diabetes, 60)
    y = ((y - y.mean()) / y.std()).float()
    model = trained(KINDS[kind](10, None), x, y)
    hard = model.hard_predict(x)
    from_rules = predict_from_rules(model.to_rules(), x.numpy())[:, 0]
    np.testing.assert_allclose(hard, from_rules, rtol=1e-5, atol=1e-6)
    text = model.to_text()
    read = np.array([by_reading(text, row, 1)[0] for row in x.numpy()])
    np.testing.assert_allclose(read, from_rules, atol=1e-9)
    soft = model(x)[:, 0].detach().double()
    expected = 1 - ((hard - soft) ** 2).sum() / ((soft - soft.mean()) ** 2).sum()
    assert model.fidelity(x) == pytest.approx(expected.item(), rel=1e-5)


@KIND
def test_a_row_meets_one_rule_of_each_tree_and_support_counts_them(kind: str) -> None:
    torch.manual_seed(1)
    model, x = KINDS[kind](4, 2), torch.randn(50, 4)
    rules = model.to_rules(x=x)
    trees = {rule.index for rule in rules}
    assert len(rules) == len(trees) * 2**model.depth
    for tree in trees:
        held = np.stack([rule.holds(x.numpy()) for rule in rules if rule.index == tree])
        assert (held.sum(0) == 1).all()
        support = [rule.support for rule in rules if rule.index == tree]
        np.testing.assert_allclose(support, held.mean(1))


@KIND
def test_near_temperature_zero_the_tree_is_its_full_rules(kind: str) -> None:
    torch.manual_seed(2)
    model, x = KINDS[kind](5, 3).double(), torch.randn(200, 5, dtype=torch.double)
    model.temperature = 1e-4
    assert model.fidelity(x, max_terms=None, digits=9) == 1.0
    hard = model.hard_scores(x, max_terms=None, digits=12)
    assert (torch.isclose(hard, model(x), atol=1e-6).all(-1)).double().mean() > 0.95


@settings(max_examples=20)
@given(
    trees=st.integers(1, 3), depth=st.integers(1, 3), oblivious=st.booleans(),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_a_forest_is_the_sum_over_trees_and_paths(
    trees: int, depth: int, oblivious: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    forest = SoftForest(3, 2, trees, depth, oblivious, temperature=0.7).double()
    x = torch.randn(4, 3, dtype=torch.double)
    weight, threshold, leaves = (part.detach() for part in forest._hard_trees())
    expected = torch.zeros(4, 2, dtype=torch.double)
    for tree in range(trees):
        for leaf in range(2**depth):
            probability, node = torch.ones(4, dtype=torch.double), 0
            for level in reversed(range(depth)):
                right = leaf >> level & 1
                log_odds = (x @ weight[tree, node] - threshold[tree, node]) / 0.7
                probability = probability * torch.sigmoid(log_odds if right else -log_odds)
                node = 2 * node + 1 + right
            expected += probability[:, None] * leaves[tree, leaf]
    torch.testing.assert_close(forest(x), expected)


def test_nodes_of_a_level_share_a_sparse_gate_in_oblivious_trees() -> None:
    torch.manual_seed(0)
    forest = SoftForest(12, 2, trees=3, depth=3, oblivious=True)
    weight, threshold, _ = forest._hard_trees()
    for level in (1, 2):
        nodes = slice(2**level - 1, 2 ** (level + 1) - 1)
        assert (weight[:, nodes] == weight[:, nodes][:, :1]).all()
        assert (threshold[:, nodes] == threshold[:, nodes][:, :1]).all()
    assert (weight == 0).float().mean() > 0.2


def test_names_and_terms_appear_as_asked() -> None:
    tree = SoftTree(3, 2, depth=1)
    with torch.no_grad():
        tree.gates.weight.copy_(torch.tensor([[2.0, -0.5, 0.1]]))
        tree.gates.bias.fill_(1.0)
        tree.leaves.weight.copy_(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
    names = {"feature_names": ["age", "dose", "sex"], "class_names": ["well", "ill"]}
    left, right = tree.to_rules(**names, max_terms=2)
    assert (left.conditions, left.prediction) == (("age - 0.25 dose <= -0.5",), "ill")
    assert (right.conditions, right.prediction) == (("age - 0.25 dose > -0.5",), "well")
    assert tree.to_rules(**names, max_terms=1)[0].conditions == ("age <= -0.5",)
    with torch.no_grad():
        tree.gates.weight.neg_()
    assert tree.to_rules(**names, max_terms=1)[0].conditions == ("age >= 0.5",)
    text = tree.to_text(**names, max_terms=1, x=torch.zeros(4, 3))
    assert text.splitlines()[0] == "fidelity 1.000 (of rows agree with the soft model, 4 rows)"
    assert text.splitlines()[1:3] == ["if age < 0.5:", "  well (scores: well -0.313, ill -1.31) [100 % of rows]"]  # noqa: E501  # fmt: skip


def test_a_gate_without_weights_is_still_a_condition() -> None:
    tree = SoftTree(2, 2, depth=1)
    with torch.no_grad():
        tree.gates.weight.zero_()
        tree.gates.bias.fill_(1.0)
    left, right = tree.to_rules()
    assert (left.conditions, right.conditions) == (("0 <= -1",), ("0 > -1",))
    assert tree.hard_predict(torch.zeros(1, 2)).item() == tree.leaves.weight[1].argmax().item()


def test_a_constant_regression_has_a_fidelity() -> None:
    tree = SoftTree(2, None, depth=1)
    with torch.no_grad():
        tree.leaves.weight.fill_(0.5)
    assert tree.fidelity(torch.randn(5, 2)) == 1.0
    with torch.no_grad():
        tree.leaves.weight.fill_(0.123456)
    assert tree.fidelity(torch.randn(5, 2)) == 0.0


def test_fidelity_with_all_terms_is_high_on_real_data() -> None:
    torch.manual_seed(0)
    x, y = standardised(load_breast_cancer, 64)
    tree = trained(SoftTree(30, 2), x, y, steps=200)
    assert tree.fidelity(x, max_terms=None) > 0.95
    assert tree.fidelity(x, max_terms=None) > tree.fidelity(x, max_terms=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.to_rules(feature_names=["a"]), "feature_names has 1 entries.* list of 3"),
        (lambda m: m.to_rules(feature_names="abc"), "feature_names has 3 entries"),
        (lambda m: m.to_text(class_names=["a"]), "class_names has 1 entries"),
        (lambda m: m.to_rules(max_terms=0), "max_terms=0; it must be a whole number above 0"),
        (lambda m: m.fidelity(torch.zeros(1, 3), digits=1.5), "digits=1.5"),
        (lambda m: m.fidelity(torch.zeros(0, 3)), "x has no rows"),
        (lambda m: m.to_rules(x=torch.zeros(0, 3)), "x has no rows"),
        (lambda m: m.hard_predict(torch.zeros(2, 4)), r"shape \(2, 4\)"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(SoftTree(3, 2))
