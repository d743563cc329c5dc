"""RuleNet: what its rules say is what it predicts, in text and as objects."""

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

from denograd.models import Condition, Rule, RuleNet, SoftTree, in_units, predict_from_rules
from denograd.models.rules import bare, number, shortest, significant


def split(load, rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y = load(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[:rows], order[rows:]
    x = (x - x[train].mean(0)) / x[train].std(0)
    as_tensor = [torch.tensor(x[i], dtype=torch.float32) for i in (train, test)]
    return as_tensor[0], torch.tensor(y[train]), as_tensor[1], torch.tensor(y[test])


def trained(model: RuleNet, x: Tensor, y: Tensor, steps: int = 300, lr: float = 0.02) -> RuleNet:
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        output = model(x)
        loss = (
            F.mse_loss(output[:, 0], y) if model.n_classes is None else F.cross_entropy(output, y)
        )
        loss.backward()
        optimizer.step()
    return model


def by_reading(text: str, x: NDArray[np.float32], columns: int) -> NDArray[np.float64]:
    """Scores of rows from the printed lines alone."""
    scores = np.zeros((len(x), columns))
    for line in text.splitlines():
        premise, _, added = line.partition(" ADD ")
        held = np.ones(len(x), dtype=bool)
        if premise != "ALWAYS":
            any_of = " OR " in premise
            parts = premise.removeprefix("IF ").split(" OR " if any_of else " AND ")
            met = []
            for part in parts:
                found = re.fullmatch(r"x(\d+) (>|<=) (\S+)", part)
                assert found, part
                column, bound = x[:, int(found[1])], np.float32(found[3])
                met.append(column > bound if found[2] == ">" else column <= bound)
            held = np.any(met, axis=0) if any_of else np.all(met, axis=0)
        values = [float(part.split()[-1]) for part in added.split(" [")[0].split(", ")]
        assert len(values) == columns
        scores[held] += values
    return scores


@pytest.mark.parametrize(("load", "classes"), [(load_breast_cancer, 2), (load_wine, 3)])
def test_text_predicts_what_the_model_predicts_after_training(load, classes: int) -> None:
    torch.manual_seed(0)
    x, y, x_test, _ = split(load, 64)
    model = trained(RuleNet(x.shape[1], classes), x, y, steps=100)
    with torch.no_grad():
        output = model(x_test)
    said = predict_from_rules(model.to_rules(x=x), x_test.numpy())
    read = by_reading(model.to_text(x=x), x_test.numpy(), classes)
    assert said.argmax(1).tolist() == output.argmax(1).tolist()
    assert read.argmax(1).tolist() == output.argmax(1).tolist()
    np.testing.assert_allclose(said, output, atol=1e-5)
    np.testing.assert_allclose(read, said, atol=1e-9)


def test_text_predicts_what_a_regression_predicts() -> None:
    torch.manual_seed(0)
    x, y, x_test, y_test = split(load_diabetes, 64)
    mean, scale = y.mean(), y.std()
    model = trained(RuleNet(10, None), x, ((y - mean) / scale).float(), steps=80)
    with torch.no_grad():
        output = model(x_test)
    np.testing.assert_allclose(
        predict_from_rules(model.to_rules(), x_test.numpy()), output, atol=1e-5
    )
    np.testing.assert_allclose(by_reading(model.to_text(), x_test.numpy(), 1), output, atol=1e-5)
    error = (output[:, 0] * scale + mean - y_test).square().mean()
    assert error < 0.9 * y_test.double().var()


@settings(max_examples=30)
@given(
    features=st.integers(1, 4),
    rules=st.integers(1, 9),
    conditions=st.integers(1, 4),
    thresholds=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_rules_are_the_model_whatever_its_size(
    features: int, rules: int, conditions: int, thresholds: int, seed: int
) -> None:
    # Few literals and many places: repeated, contradictory and empty rules come up.
    torch.manual_seed(seed)
    model = RuleNet(features, 2, rules, conditions, thresholds)
    with torch.no_grad():
        model.choice.weight[torch.rand_like(model.choice.weight) < 0.1] += 5
    x = torch.randn(40, features)
    x[:10] = model._hard_thresholds(model.thresholds.weight)[:, 0]  # exactly on a threshold
    found = model.to_rules(x=x)
    np.testing.assert_allclose(predict_from_rules(found, x.numpy()), model(x).detach(), atol=1e-5)
    activations = model.activations(x)
    assert set(activations.unique().tolist()) <= {0.0, 1.0}
    for rule in found[:-1]:
        held = activations[:, rule.index].bool().numpy()
        assert (rule.holds(x.numpy()) == held).all()
        assert rule.support == pytest.approx(held.mean())
        assert len(rule.conditions) == len(rule.tests) <= conditions
    missing = set(range(rules)) - {rule.index for rule in found}
    assert not activations[:, sorted(missing)].any()


def test_what_runs_is_discrete_and_what_is_differentiated_is_continuous() -> None:
    torch.manual_seed(0)
    model = RuleNet(3, 2, rules=1, conditions=1, thresholds=1).double()
    with torch.no_grad():
        model.thresholds.weight.copy_(torch.tensor([[0.2], [-0.3], [0.5]]))
        model.choice.weight.copy_(torch.tensor([[3.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]]))
    x = torch.tensor([[0.3, 1.0, -2.0], [0.1, 1.0, -2.0]], dtype=torch.double)
    assert model.activations(x)[:, 0].tolist() == [1.0, 0.0]
    held = model._activations(x, None)
    held.sum().backward()
    # The gradient is that of the softmax mixture of sigmoids.
    thresholds = model.thresholds.weight.detach().clone().requires_grad_()
    weight = model.choice.weight.detach().clone().requires_grad_()
    above = torch.sigmoid((x - thresholds[:, 0]) / model.temperature)
    literals = torch.cat([above, 1 - above, torch.ones(2, 1)], dim=1)
    (literals @ weight.softmax(-1).T).sum().backward()
    torch.testing.assert_close(model.thresholds.weight.grad, thresholds.grad)
    torch.testing.assert_close(model.choice.weight.grad, weight.grad)


def test_conditions_are_merged_and_impossible_rules_left_out() -> None:
    model = RuleNet(2, 2, rules=4, conditions=2, thresholds=2)
    with torch.no_grad():
        model.thresholds.weight.copy_(torch.tensor([[-0.5, 0.5], [0.0, 1.0]]))
    # Literals: above x0 -0.5, x0 0.5, x1 0, x1 1 are 0 to 3, not above them 4 to 7.
    assert [t.text(["a", "b"]) for t in model._merged([0, 1], False)] == ["a > 0.5"]
    assert [t.text(["a", "b"]) for t in model._merged([0, 5], False)] == ["a > -0.5", "a <= 0.5"]
    assert model._merged([1, 4], False) is None
    assert model._merged([8, 8], False) == []
    assert [t.text(["a", "b"]) for t in model._merged([8, 6], False)] == ["b <= 0"]
    # In a disjunction each literal stands for its opposite.
    assert [t.text(["a", "b"]) for t in model._merged([0, 1], True)] == ["a <= 0.5"]
    assert [t.text(["a", "b"]) for t in model._merged([1, 7], True)] == ["a <= 0.5", "b > 1"]
    assert model._merged([1, 4], True) == []
    assert model._merged([8, 8], True) is None


def test_weight_and_prediction_of_a_rule() -> None:
    model = RuleNet(2, 3, rules=1, conditions=1)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0], [-1.0], [0.5]]))
        model.head.bias.zero_()
    rule, bias = model.to_rules(class_names=["a", "b", "c"])
    assert (rule.prediction, rule.weight, rule.scores) == ("a", 1.25, (1.0, -1.0, 0.5))
    assert (bias.conditions, bias.index) == ((), None)


@pytest.mark.parametrize(
    ("load", "classes", "lr"), [(load_breast_cancer, 2, 0.05), (load_wine, 3, 0.02)]
)
def test_it_learns_from_64_rows_nearly_as_well_as_a_soft_tree(
    load, classes: int, lr: float
) -> None:
    x, y, x_test, y_test = split(load, 64, seed=1)
    rates = {}
    for name, kind in (("rules", RuleNet), ("tree", SoftTree)):
        torch.manual_seed(1)
        model = trained(kind(x.shape[1], classes), x, y, steps=150, lr=lr)
        rates[name] = (model(x_test).argmax(1) == y_test).double().mean().item()
    majority = (y_test == y.mode().values).double().mean().item()
    assert rates["rules"] > majority + 0.2
    assert rates["rules"] > rates["tree"] - 0.08


def test_rules_move_to_the_units_of_the_table() -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal([50, -3], [10, 0.1], size=(30, 2))
    mean, scale = raw.mean(0), raw.std(0)
    x = (raw - mean) / scale
    tests = (
        Condition(((0, 1.0),), ">", 0.3),
        Condition(((0, 1.0), (1, -0.5)), "<=", 0.1),
    )
    rule = Rule(("", ""), "yes", scores=(0.0, 1.0), tests=tests)
    (moved,) = in_units([rule], mean, scale, ["age", "dose"])
    assert (moved.holds(raw) == rule.holds(x)).all()
    assert moved.conditions[0].startswith("age > 5")
    with pytest.raises(ValueError, match="scale holds a value that is not above 0"):
        in_units([rule], mean, [1.0, 0.0], ["age", "dose"])
    with pytest.raises(ValueError, match=r"mean has shape \(2,\).* 1 feature_names"):
        in_units([rule], mean, scale, ["age"])


@given(st.sampled_from([">", "<=", "<", ">="]), st.sampled_from([-2.0, -0.5, 0.5, 4.0]), st.data())
def test_a_bare_condition_says_the_same(relation: str, weight: float, data) -> None:
    # Whole numbers and powers of two, so that equality is met often and exactly.
    threshold = data.draw(st.integers(-3, 3)) * weight
    rows = np.arange(-4.0, 5.0)[:, None]
    condition = Condition(((0, weight),), relation, threshold)
    assert (bare(condition).holds(rows) == condition.holds(rows)).all()
    assert bare(condition).terms == ((0, 1.0),)


def test_thresholds_are_taken_in_the_precision_of_the_rows() -> None:
    condition = Condition(((0, 1.0),), ">", 0.1)
    assert not condition.holds(np.array([[0.1]], dtype=np.float32))[0]
    assert not condition.holds(np.array([[0.1]]))[0]
    assert Condition(((0, 1.0),), ">", 2).holds(np.array([[3], [2]])).tolist() == [True, False]


def test_disjunctions_hold_if_one_condition_does() -> None:
    tests = (Condition(((0, 1.0),), ">", 0), Condition(((1, 1.0),), ">", 0))
    rule = Rule(("a > 0", "b > 0"), "yes", tests=tests, any_of=True)
    assert rule.holds([[1, -1], [-1, 1], [-1, -1]]).tolist() == [True, True, False]
    assert rule.premise == "IF a > 0 OR b > 0"
    assert str(Rule((), "no")) == "ALWAYS THEN no (weight 0)"


def test_predicting_needs_rules_of_one_model() -> None:
    with pytest.raises(ValueError, match=r"rules hold \[\] scores"):
        predict_from_rules([], [[1.0]])
    with pytest.raises(ValueError, match=r"rules hold \[1, 2\] scores"):
        predict_from_rules([Rule((), "", scores=(1.0,)), Rule((), "", scores=(1.0, 2.0))], [[1.0]])


@given(st.floats(-1e6, 1e6))
def test_numbers_are_printed_in_full(value: float) -> None:
    assert float(number(value)) == value
    (short,) = shortest(torch.tensor([value], dtype=torch.float32))
    assert np.float32(short) == np.float32(value)
    rounded = significant(torch.tensor([value], dtype=torch.double), 3).item()
    assert rounded == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.to_rules(feature_names=["a"]), "feature_names has 1 entries.* list of 3"),
        (lambda m: m.to_text(class_names=["a", "b", "c"]), "class_names has 3 entries"),
        (lambda m: m.to_rules(x=torch.zeros(0, 3)), "x has no rows"),
        (lambda m: m.activations(torch.zeros(2, 4)), r"shape \(2, 4\)"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(RuleNet(3, 2))
