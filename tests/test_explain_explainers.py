"""Explainers: what attributions sum to, for modules and through estimators, and captum's."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from torch import Tensor, nn

from denograd import DenoGrad, explain
from denograd.estimators import (
    AdditiveNetClassifier,
    AdditiveNetRegressor,
    FeatureAttentionClassifier,
    PrototypeNetRegressor,
    RuleNetClassifier,
    SoftForestClassifier,
    SoftTreeClassifier,
    SoftTreeRegressor,
    TemporalAttentionClassifier,
)
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

F = 5
MAKERS: dict[str, Callable[[int | None], TabularModel]] = {
    "soft_tree": lambda c: SoftTree(F, c, depth=3, temperature=0.7),
    "soft_forest": lambda c: SoftForest(F, c, trees=3, depth=2),
    "oblivious": lambda c: SoftForest(F, c, trees=3, depth=2, oblivious=True, temperature=1.3),
    "additive_net": lambda c: AdditiveNet(F, c, pairs=[(0, 2), (1, 4)]),
    "rule_net": lambda c: RuleNet(F, c, rules=10),
    "attention": lambda c: FeatureAttention(F, c, normalize="entmax"),
    "prototype_net": lambda c: PrototypeNet(F, c),
}
CLASSES = [None, 2, 4]


def made(name: str, classes: int | None, seed: int = 0) -> tuple[TabularModel, Tensor]:
    torch.manual_seed(seed)
    model = MAKERS[name](classes).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model, torch.randn(12, F, dtype=torch.float64)


def margin(scores: Tensor, target: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """A class's score less the mean of the others', one row at a time."""
    if target is None:
        return scores[:, 0].numpy()
    rows = []
    for row, label in zip(scores.tolist(), target.tolist(), strict=True):
        others = [score for number, score in enumerate(row) if number != label]
        rows.append(row[label] - sum(others) / len(others))
    return np.array(rows)


# ----------------------------------------------------------------- what attributions sum to


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("name", ["soft_tree", "soft_forest", "oblivious", "additive_net"])
@pytest.mark.parametrize("chosen", ["predicted", "other"])
@torch.no_grad()
def test_parts_sum_to_the_output_less_the_baselines(
    name: str, classes: int | None, chosen: str
) -> None:
    model, x = made(name, classes)
    base = torch.randn(F, dtype=torch.float64)
    target = None
    if classes is not None:
        target = model(x).argmax(-1).numpy()
        if chosen == "other":
            target = (target + np.arange(12)) % classes
    given = None if chosen == "predicted" else target
    said = explain.OwnExplainer(model, baseline=base)(x, given)
    here, there = model(x), model(base.expand(12, F))
    if name == "soft_tree" and target is not None:
        each = np.arange(12)
        expected = here.exp().numpy()[each, target] - there.exp().numpy()[each, target]
    else:
        expected = margin(here, target) - margin(there, target)
    assert said.shape == (12, F)
    assert said.sum(1) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("classes", CLASSES)
@torch.no_grad()
def test_rules_that_hold_sum_to_the_output_less_the_rules_without_features(
    classes: int | None,
) -> None:
    model, x = made("rule_net", classes, seed=3)
    assert isinstance(model, RuleNet)
    target = None if classes is None else model(x).argmax(-1).numpy()
    said = explain.OwnExplainer(model)(x)
    always = model.head.bias.expand(12, -1).clone()
    for rule in model.to_rules():
        if rule.index is not None and not rule.tests:
            always += model.head.weight[:, rule.index]
    assert said.sum(1) == pytest.approx(margin(model(x), target) - margin(always, target), abs=1e-9)
    named = {i for rule in model.to_rules() for test in rule.tests for i, _ in test.terms}
    assert not said[:, [i for i in range(F) if i not in named]].any()


@torch.no_grad()
def test_a_rule_shares_its_weight_among_the_features_that_make_it_hold() -> None:
    model = RuleNet(4, 2, rules=2, conditions=2, thresholds=1)
    model.thresholds.weight.zero_()
    model.choice.weight.fill_(-5.0)
    # x0 > 0 AND x1 > 0; and NOT (x2 <= 0 AND x3 <= 0), which is x2 > 0 OR x3 > 0.
    for place, literal in enumerate((0, 1, 4 + 2, 4 + 3)):
        model.choice.weight[place, literal] = 5.0
    model.head.weight.copy_(torch.tensor([[0.0, 0.0], [2.0, 6.0]]))
    premises = [rule.premise for rule in model.to_rules()]
    assert premises == ["IF x0 > 0 AND x1 > 0", "IF x2 > 0 OR x3 > 0", "ALWAYS"]
    x = torch.tensor([[1.0, 1, 1, -1], [1, -1, 1, 1], [-1, -1, -1, -1]])
    assert explain.OwnExplainer(model)(x, 1).tolist() == [[1, 1, 6, 0], [0, 0, 3, 3], [0, 0, 0, 0]]
    assert explain.OwnExplainer(model)(x, 0).tolist()[0] == [-1, -1, -6, 0]


@torch.no_grad()
def test_a_tree_of_one_gate_shares_its_change_in_proportion_to_the_terms() -> None:
    tree = SoftTree(3, None, depth=1).double()
    tree.gates.weight.copy_(torch.tensor([[2.0, -1.0, 0.0]]))
    tree.gates.bias.fill_(0.5)
    tree.leaves.weight.copy_(torch.tensor([[-1.0], [3.0]]))
    x = torch.tensor([[1.0, 0.5, 9.0]], dtype=torch.float64)
    change = 4 * (torch.sigmoid(torch.tensor(2.0)) - torch.sigmoid(torch.tensor(0.5)))
    expected = [[float(change) * 2.0 / 1.5, float(change) * -0.5 / 1.5, 0.0]]
    assert explain.OwnExplainer(tree)(x) == pytest.approx(np.array(expected))


@pytest.mark.parametrize("name", ["soft_tree", "soft_forest"])
@torch.no_grad()
def test_a_row_that_hardly_differs_from_the_baseline_has_the_slope(name: str) -> None:
    model, x = made(name, 3)
    base = x[0]
    explainer = explain.OwnExplainer(model, baseline=base)
    for step in (1e-3, 1e-6):
        near = base + step * x[1:2]
        expected = explainer(near, 1).sum()
        here, there = model(near), model(base[None])
        if name == "soft_tree":
            right = float(here.exp()[0, 1] - there.exp()[0, 1])
        else:
            label = np.array([1])
            right = float(margin(here, label)[0] - margin(there, label)[0])
        assert expected == pytest.approx(right, rel=1e-5)
    assert not explainer(base[None]).any()


@torch.no_grad()
def test_attention_is_the_mean_of_the_heads() -> None:
    model, x = made("attention", 3)
    assert isinstance(model, FeatureAttention)
    said = explain.OwnExplainer(model)(x)
    assert said == pytest.approx(model.attention(x).mean(1).numpy())
    assert said.sum(1) == pytest.approx(np.ones(12))
    assert (explain.OwnExplainer(model)(x, 2) == said).all()


@torch.no_grad()
def test_attention_to_a_step_goes_to_what_its_token_was_made_of() -> None:
    torch.manual_seed(0)
    model = TemporalAttention(2, 6, 3, kernel=3, normalize="sparsemax").double()
    x = torch.randn(4, 12, dtype=torch.float64)
    said = explain.OwnExplainer(model)(x).reshape(4, 2, 6)
    assert said.sum((1, 2)) == pytest.approx(np.ones(4))
    steps = model.attention(x).mean(1).numpy()
    kernel = model.embed.weight.abs().sum(0).numpy()
    for row in range(4):
        plain = np.zeros((2, 8))
        for step in range(6):
            plain[:, step : step + 3] += steps[row, step] * kernel
        plain = plain[:, 1:7]
        assert said[row] == pytest.approx(plain / plain.sum())


@pytest.mark.parametrize("classes", [2, 4])
@torch.no_grad()
def test_prototypes_parts_are_the_log_odds_if_each_class_has_one_prototype(classes: int) -> None:
    # With one prototype for the target and one for all others, no shares are left to spread.
    torch.manual_seed(0)
    model = PrototypeNet(F, classes, prototypes=2).double()
    own = torch.full((2, classes), -40.0, dtype=torch.float64)
    own[0, 1], own[1] = 0.0, 0.0
    own[1, 1] = -40.0
    model.components.weight.copy_(own)
    x = torch.randn(9, F, dtype=torch.float64)
    said = explain.OwnExplainer(model)(x, 1)
    log = model(x)
    others = log[:, [i for i in range(classes) if i != 1]].logsumexp(-1)
    # Each of the others has a component of weight 1 there, which is no part of a distance.
    expected = (log[:, 1] - others).numpy() + np.log(classes - 1)
    assert said.sum(1) == pytest.approx(expected, abs=1e-6)
    part = model.relevances() * torch.nn.functional.softplus(model.sharpness.weight)[:, None]
    parts = part * (x[:, None] - model.centers.weight).square()
    assert said == pytest.approx((parts[:, 1] - parts[:, 0]).numpy(), abs=1e-6)


@pytest.mark.parametrize("classes", CLASSES)
def test_prototypes_parts_are_the_derivative_by_the_weight_of_a_feature(
    classes: int | None,
) -> None:
    # Scale what a feature does to all distances by t: the output's derivative at t = 1.
    model, x = made("prototype_net", classes)
    assert isinstance(model, PrototypeNet)
    said = explain.OwnExplainer(model)(x, None if classes is None else 1)
    steep = torch.nn.functional.softplus(model.sharpness.weight).detach()[:, None]
    parts = (steep * model.relevances() * (x[:, None] - model.centers.weight).square()).detach()
    weight = model.components.weight.detach()
    for row in range(len(x)):
        t = torch.ones(F, dtype=torch.float64, requires_grad=True)
        near = -(parts[row] * t).sum(-1)
        if classes is None:
            output = (near.softmax(-1) * weight[:, 0]).sum()
        else:
            joint = (near[:, None] + weight).logsumexp(0)
            rest = [i for i in range(classes) if i != 1]
            output = joint[1] - joint[rest].logsumexp(0)
        (expected,) = torch.autograd.grad(output, t)
        assert said[row] == pytest.approx(expected.numpy(), abs=1e-9)


@pytest.mark.parametrize("name", list(MAKERS))
def test_own_explanations_leave_the_model_as_it_was(name: str) -> None:
    model, x = made(name, 3)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    said = explain.OwnExplainer(model)(x.numpy())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all((value == before[key]).all() for key, value in model.state_dict().items())
    assert said == pytest.approx(explain.OwnExplainer(model)(x))
    # A row's explanation does not depend on the rows beside it.
    assert said[3:4] == pytest.approx(explain.OwnExplainer(model)(x[3:4]), abs=1e-12)
    single = explain.OwnExplainer(model.float())(x)
    assert single == pytest.approx(said, abs=1e-4)


# ------------------------------------------------------------------------------ estimators


@pytest.fixture(scope="module")
def mixed() -> tuple[pd.DataFrame, pd.Series[Any]]:
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    x = x.iloc[:120, :3].copy()
    x["size"] = pd.cut(x["mean radius"], 4, labels=["s", "m", "l", "xl"]).astype(str)
    x["constant"] = 1.0
    x.loc[x.index[:9], "mean texture"] = np.nan
    return x, y.iloc[:120].map({0: "malignant", 1: "benign"})


@pytest.mark.parametrize(
    "kind",
    [SoftTreeClassifier, SoftForestClassifier, RuleNetClassifier, FeatureAttentionClassifier],
)
def test_estimators_are_explained_by_the_columns_of_x(
    kind: Any, mixed: tuple[pd.DataFrame, pd.Series[Any]]
) -> None:
    x, y = mixed
    model = kind(optimizer="adamw", max_steps=40, random_state=0).fit(x, y)
    said = explain.OwnExplainer(model)(x)
    encoded, _ = model._encoded(x)
    inner = explain.OwnExplainer(model.model_)(encoded)
    assert said.shape == x.shape
    assert said.sum(1) == pytest.approx(inner.sum(1))
    assert not said[:, 4].any()
    for column in range(5):
        own = [i for i, source in enumerate(model._encoder.sources) if source == column]
        assert said[:, column] == pytest.approx(inner[:, own].sum(1))
    if kind is FeatureAttentionClassifier:
        assert said == pytest.approx(model.explain(x).to_numpy())
    benign = explain.OwnExplainer(model)(x, "benign")
    assert benign == pytest.approx(explain.OwnExplainer(model.model_)(encoded, 0) @ columns(model))
    each = explain.OwnExplainer(model)(x, y.to_numpy())
    assert each[(y == "benign").to_numpy()] == pytest.approx(benign[(y == "benign").to_numpy()])


def columns(model: Any) -> NDArray[np.float64]:
    """Which encoded feature belongs to which column."""
    return np.eye(model.n_features_in_)[model._encoder.sources]


def test_an_additive_estimators_parts_are_those_of_its_explain_but_for_a_constant() -> None:
    x, y = load_iris(return_X_y=True, as_frame=True)
    model = AdditiveNetClassifier(optimizer="adamw", max_steps=40, random_state=0).fit(
        x[y < 2], y[y < 2]
    )
    said = explain.OwnExplainer(model)(x[y < 2], 1)
    gap = said - model.explain(x[y < 2])[list(x.columns)].to_numpy()
    assert gap == pytest.approx(np.tile(gap[0], (len(gap), 1)))


@pytest.mark.parametrize("kind", [SoftTreeRegressor, AdditiveNetRegressor, PrototypeNetRegressor])
def test_regressors_are_explained_without_a_target(kind: Any) -> None:
    x, y = load_diabetes(return_X_y=True)
    model = kind(optimizer="adamw", max_steps=30, random_state=0).fit(x[:100], y[:100])
    assert explain.OwnExplainer(model)(x[:20]).shape == (20, 10)
    with pytest.raises(ValueError, match="target=1, but the model has one output"):
        explain.OwnExplainer(model)(x[:20], 1)


def test_padding_of_sequences_gets_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2, 8))
    x[:10, :, 5:] = np.nan
    y = rng.integers(2, size=30)
    model = TemporalAttentionClassifier(optimizer="adamw", max_steps=5, random_state=0).fit(x, y)
    said = explain.OwnExplainer(model)(x).reshape(30, 2, 8)
    assert not said[:10, :, 5:].any()
    assert (said[10:] > 0).all()
    assert said.sum((1, 2)) == pytest.approx(np.ones(30))
    with pytest.raises(ValueError, match=r"^x: it holds NaN"):
        explain.CaptumExplainer(model)(x)


def test_a_further_fit_is_explained_by_its_own_model() -> None:
    x, y = load_iris(return_X_y=True)
    model = SoftTreeClassifier(optimizer="adamw", max_steps=5, random_state=0)
    explainer = explain.OwnExplainer(model)
    with pytest.raises(ValueError, match="is not fitted; call fit first"):
        explainer(x)
    first = explainer(x) if model.fit(x, y) else None
    model.set_params(random_state=1).fit(x, y)
    assert not np.allclose(explainer(x), first)


# ---------------------------------------------------------------------------------- captum

METHODS = (
    "integrated_gradients",
    "saliency",
    "input_x_gradient",
    "gradient_shap",
    "shapley_sampling",
)


@pytest.mark.parametrize("method", METHODS)
def test_captums_methods_on_a_linear_model_are_known(method: Any) -> None:
    pytest.importorskip("captum")
    model = nn.Linear(3, 2).double()
    weight = model.weight.detach().numpy()
    x = np.random.default_rng(0).normal(size=(6, 3))
    base = np.array([0.5, -1.0, 0.0])
    target = np.array([0, 1, 1, 0, 1, 0])
    said = explain.CaptumExplainer(model, method, baseline=base)(x, target)
    expected = {
        "saliency": np.abs(weight[target]),
        "input_x_gradient": weight[target] * x,
    }.get(method, weight[target] * (x - base))
    # captum adds sampled Shapley values up in single precision.
    tolerance = 1e-6 if method == "shapley_sampling" else 1e-8
    assert said == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("name", ["soft_tree", "additive_net", "attention", "prototype_net"])
@torch.no_grad()
def test_integrated_gradients_sum_to_the_change_of_the_score(name: str) -> None:
    pytest.importorskip("captum")
    model, x = made(name, 3)
    base = torch.randn(F, dtype=torch.float64)
    explainer = explain.CaptumExplainer(model, baseline=base, steps=400)
    said = explainer(x, 1)
    change = model(x)[:, 1] - model(base[None])[:, 1]
    assert said.sum(1) == pytest.approx(change.numpy(), abs=2e-3)


@torch.no_grad()
def test_integrated_gradients_of_an_additive_net_are_its_own_parts() -> None:
    pytest.importorskip("captum")
    torch.manual_seed(0)
    model = AdditiveNet(F, None).double()
    x = torch.randn(8, F, dtype=torch.float64)
    own = explain.OwnExplainer(model)(x)
    found = explain.CaptumExplainer(model, "integrated_gradients", steps=500)(x)
    assert found == pytest.approx(own, abs=1e-4)
    shapley = explain.CaptumExplainer(model, "shapley_sampling", samples=3)(x)
    assert shapley == pytest.approx(own, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_captum_leaves_everything_as_it_was(method: Any) -> None:
    pytest.importorskip("captum")
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    model[2].eval()
    x = torch.randn(5, 4)
    explainer = explain.CaptumExplainer(model, method, seed=3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = explainer(x, 2)
    assert (first == explainer(x, 2)).all()
    assert [part.training for part in model] == [True, True, False]
    assert model.training
    assert (torch.get_rng_state() == states[0]).all()
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not x.requires_grad


def test_the_seed_of_captums_draws_counts() -> None:
    pytest.importorskip("captum")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    x = torch.randn(5, 4)
    for method in ("gradient_shap", "shapley_sampling"):
        first, other = (
            explain.CaptumExplainer(model, method, samples=3, seed=seed)(x, 2)  # type: ignore[arg-type]
            for seed in (3, 4)
        )
        assert not np.allclose(first, other, atol=1e-4)


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_training_does_not_notice_explanations(moment: str) -> None:
    pytest.importorskip("captum")

    def trained(explained: bool) -> Tensor:
        torch.manual_seed(0)
        model, x, y = SoftTree(5, 3), torch.randn(16, 5), torch.arange(16) % 3
        base = torch.optim.AdamW(model.parameters(), lr=0.01)
        optimizer = DenoGrad(base, model=model, total_steps=10, dataset_size=16)

        def look(now: str) -> None:
            if explained and now == moment:
                explain.CaptumExplainer(model, steps=5)(x[:7])
                explain.OwnExplainer(model)(x)

        for _ in range(4):
            optimizer.zero_grad()
            look("before")
            output = model(x)
            look("between")
            nn.functional.cross_entropy(output, y).backward()
            look("after")
            optimizer.step()
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(trained(True), trained(False))


def test_images_and_single_outputs_can_be_explained() -> None:
    pytest.importorskip("captum")
    images = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 4, 5))
    assert explain.CaptumExplainer(images, "saliency")(torch.randn(3, 1, 6, 6)).shape == (3, 36)
    one = nn.Linear(3, 1)
    x = torch.randn(4, 3)
    said = explain.CaptumExplainer(one)(x)
    assert said == pytest.approx((one.weight * x).detach().numpy(), abs=1e-5)


def test_gradient_shap_draws_from_rows_of_baselines() -> None:
    pytest.importorskip("captum")
    model = nn.Linear(3, 2).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    rows = torch.randn(20, 3, dtype=torch.float64)
    said = explain.CaptumExplainer(model, "gradient_shap", baseline=rows, samples=4000)(x, 1)
    expected = (model.weight[1] * (x - rows.mean(0))).detach().numpy()
    assert said == pytest.approx(expected, abs=0.1)


def test_estimators_can_be_explained_by_captum(
    mixed: tuple[pd.DataFrame, pd.Series[Any]],
) -> None:
    pytest.importorskip("captum")
    x, y = mixed
    model = SoftTreeClassifier(optimizer="adamw", max_steps=40, random_state=0).fit(x, y)
    said = explain.CaptumExplainer(model, steps=300)(x, "malignant")
    output = model.predict_log_proba(x)[:, 1]
    middle = model.model_(torch.zeros(1, len(model.encoded_names_)).double())[0, 1].item()
    assert said.shape == x.shape
    assert said.sum(1) == pytest.approx(output - middle, abs=1e-2)


def test_without_captum_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "captum":
            raise ImportError("No module named 'captum'")
        return real(name, *args, **kwargs)

    for name in [n for n in sys.modules if n.split(".")[0] == "captum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'denograd-optim\[explain\]'"):
        explain.CaptumExplainer(nn.Linear(2, 2))
    # Nothing else needs it.
    assert explain.OwnExplainer(SoftTree(2, 2))(torch.zeros(1, 2)).shape == (1, 2)


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("kind", [explain.OwnExplainer, explain.CaptumExplainer])
def test_rows_and_targets_that_cannot_be_used_are_named(kind: Any) -> None:
    if kind is explain.CaptumExplainer:
        pytest.importorskip("captum")
    explainer = kind(SoftTree(3, 2))
    x = np.zeros((4, 3))
    for target, message in [
        (2, "target holds 2, which is no class; classes are 0, 1"),
        ("a", "target holds 'a', which is no class"),
        ([0, 1], r"target has shape \(2,\); it must be one class, or \(4,\)"),
        (0.5, "target holds 0.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            explainer(x, target)
    for rows, message in [
        (np.zeros(3), r"^x: it has shape \(3,\)"),
        (np.zeros((0, 3)), r"^x: it has shape \(0, 3\)"),
        ([["a"]], "^x: it does not hold numbers"),
        (np.zeros((4, 2)), r"x has shape \(4, 2\)"),
        (np.full((4, 3), np.nan), "NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            explainer(rows)
    with pytest.raises(ValueError, match=r"^baseline: it has shape \(2,\); it must be"):
        kind(SoftTree(3, 2), baseline=[0.0, 1.0])(x)
    with pytest.raises(ValueError, match=r"^baseline: .* NaN"):
        kind(SoftTree(3, 2), baseline=[0.0, np.nan, 0.0])
    with pytest.raises(TypeError, match="model is a str"):
        kind("model")


def test_arguments_of_captum_are_checked() -> None:
    pytest.importorskip("captum")
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="method='lime'; use one of integrated_gradients, sal"):
        explain.CaptumExplainer(model, "lime")  # type: ignore[arg-type]
    for name in ("steps", "samples"):
        with pytest.raises(ValueError, match=f"^{name}=0"):
            explain.CaptumExplainer(model, **{name: 0})
    with pytest.raises(ValueError, match=r"the model's output has shape \(4, 2, 2\)"):
        explain.CaptumExplainer(model)(torch.zeros(4, 2, 2))


class Weighted(nn.Linear):
    pass


def test_a_module_without_an_explanation_of_its_own_is_refused_and_can_be_given_one() -> None:
    with pytest.raises(TypeError, match=r"Weighted has no explanation of its own.*CaptumExplainer"):
        explain.OwnExplainer(Weighted(3, 2))

    @explain.own_attributions.register
    def weighted(model: Weighted, x: Tensor, target: Tensor | None, baseline: Tensor) -> Tensor:
        assert target is not None
        return model.weight[target] * (x - baseline)

    model = Weighted(3, 2)
    said = explain.OwnExplainer(model)(torch.ones(1, 3), 1)
    assert said[0] == pytest.approx(model.weight[1].detach().numpy())
