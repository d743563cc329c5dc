"""Layers that models are stacked from: their formulas, and the noise rules that see them."""

from __future__ import annotations

import pytest
import torch
from entmax import entmax15, sparsemax
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import grad, jacrev, vmap

from denograd.denoisers import Layout
from denograd.models import Choice, StackedLinear
from denograd.models._sparse import normalized
from denograd.noise import NoiseCapture, noise_variance, rule_for

REFERENCE = {
    "softmax": lambda s: torch.softmax(s, -1),
    "sparsemax": lambda s: sparsemax(s, dim=-1),
    "entmax": lambda s: entmax15(s, dim=-1),
}
NORMALIZE = pytest.mark.parametrize("name", REFERENCE)


@NORMALIZE
@settings(max_examples=20)
@given(
    size=st.integers(1, 12), scale=st.sampled_from([0.01, 1.0, 10.0, 1e4]), seed=st.integers(0, 99)
)
def test_weights_and_gradients_are_those_of_the_package(
    name: str, size: int, scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    scores = (scale * torch.randn(3, size, dtype=torch.double)).requires_grad_()
    found, expected = normalized(scores, name), REFERENCE[name](scores)
    torch.testing.assert_close(found, expected)
    along = torch.randn_like(scores)
    torch.testing.assert_close(
        torch.autograd.grad((found * along).sum(), scores),
        torch.autograd.grad((expected * along).sum(), scores),
    )


@NORMALIZE
def test_derivatives_of_weights_are_right_twice(name: str) -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: normalized(s, name), scores)
    assert torch.autograd.gradgradcheck(lambda s: normalized(s, name), scores)


@NORMALIZE
def test_weights_run_under_nested_transformations(name: str) -> None:
    scores = torch.randn(3, 5, 4, dtype=torch.double)
    alone = torch.stack([normalized(s, name) for s in scores.flatten(0, 1)]).view_as(scores)
    torch.testing.assert_close(vmap(vmap(lambda s: normalized(s, name)))(scores), alone)
    torch.testing.assert_close(
        vmap(lambda s: normalized(s, name), in_dims=1)(scores), alone.swapaxes(0, 1)
    )

    def curvature(s: Tensor) -> Tensor:
        return jacrev(grad(lambda t: normalized(t, name).pow(3).sum()))(s)

    together = vmap(curvature)(scores[0])
    torch.testing.assert_close(together, torch.stack([curvature(s) for s in scores[0]]))


@NORMALIZE
def test_what_is_hidden_has_no_weight_in_single_precision(name: str) -> None:
    scores = torch.tensor([[0.3, -1e9, 0.1, -1e9], [1e4, -1e9, -1e4, -1e9]])
    weights = normalized(scores, name)
    assert (weights[:, [1, 3]] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2))
    torch.testing.assert_close(weights[0, [0, 2]], REFERENCE[name](scores[0, [0, 2]]))


def test_stacked_linear_is_one_linear_layer_a_group() -> None:
    layer, x = StackedLinear(4, 3, 2), torch.randn(5, 4, 3)
    for group in range(4):
        expected = x[:, group] @ layer.weight[group] + layer.bias[group]
        torch.testing.assert_close(layer(x)[:, group], expected)
    assert StackedLinear(4, 3, 2, bias=False).bias is None


def test_choice_reads_a_mixture_that_leaves_out_padding() -> None:
    layer, x = Choice(6, 5), torch.randn(3, 5)
    shares = layer.shares()
    torch.testing.assert_close(shares.sum(-1), torch.ones(6))
    torch.testing.assert_close(layer(x), x @ shares.T)
    mask = torch.tensor([True, True, False, True, False])
    assert (layer.shares(mask)[:, ~mask] == 0).all()
    torch.testing.assert_close(layer.shares(mask)[:, mask], entmax15(layer.weight[:, mask], dim=-1))


CASES = {
    "stacked": (lambda: StackedLinear(4, 3, 2), (4, 3)),
    "stacked without bias": (lambda: StackedLinear(2, 1, 5, bias=False), (2, 1)),
    "choice softmax": (lambda: Choice(6, 5, "softmax"), (5,)),
    "choice sparsemax": (lambda: Choice(6, 5, "sparsemax"), (5,)),
    "choice entmax": (lambda: Choice(6, 5, "entmax"), (5,)),
}


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_rules_agree_with_rows_one_at_a_time(case: str, mask: bool) -> None:
    torch.manual_seed(1)
    make, shape = CASES[case]
    layer: nn.Module = make().double()
    extra = ()
    if mask:
        if not isinstance(layer, Choice):
            pytest.skip("only a choice takes a mask")
        extra = (torch.tensor([True, False, True, True, False]),)
    assert rule_for(layer) is not None
    x = torch.randn(7, *shape, dtype=torch.double)

    def losses() -> Tensor:
        output = layer(x, *extra)
        weights = torch.linspace(-1, 2, output.numel(), dtype=torch.double).view_as(output)
        return (torch.sin(output) * weights).flatten(1).sum(1)

    parameters = list(layer.parameters())
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses()]
    capture = NoiseCapture(parameters, layer)
    losses().sum().backward()
    gradients = [p.grad for p in parameters]
    layout = Layout.of(gradients)
    joined = torch.cat([g.flatten() for g in gradients])
    found, known = noise_variance(joined, layout, capture.records(parameters))
    assert known.tolist() == [1.0] * len(parameters)
    for i, part in enumerate(layout.split(found)):
        expected = len(x) * torch.stack([row[i] for row in rows]).var(0)
        torch.testing.assert_close(part.view_as(parameters[i]), expected)
