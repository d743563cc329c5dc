"""What training loops do with a model and its optimizer between and around the steps."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denograd import DenoGrad
from denograd.penalties import Decorrelation

ROWS, HIDDEN = 9, 37


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 3))


def wrapped(model: nn.Module, **options: Any) -> DenoGrad:
    base = torch.optim.SGD(model.parameters(), lr=0.01)
    return DenoGrad(base, model=model, **{"total_steps": 9, "dataset_size": 50, **options})


def penalized() -> list[Decorrelation]:
    return [Decorrelation(weight=0.1, modules=["0"])]


def alive(shape: tuple[int, ...]) -> int:
    gc.collect()
    # Of some objects of torch's own, isinstance would ask for what is deprecated.
    return sum(type(x) is Tensor and x.shape == shape for x in gc.get_objects())


@pytest.mark.parametrize("penalties", [[], penalized()], ids=["noise", "penalties"])
def test_a_loss_that_is_kept_keeps_no_activations(penalties: list[Any]) -> None:
    model = network()
    optimizer = wrapped(model, penalties=penalties)
    losses = []
    for _ in range(3):
        loss = model(torch.randn(ROWS, 4)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
    assert alive((ROWS, HIDDEN)) == 0
    assert len(losses) == 3


def test_a_graph_that_is_kept_can_be_gone_through_again() -> None:
    """A gradient of the input first, then the loss itself: the rows are still told."""
    model = network()
    optimizer = wrapped(model, record=1)
    x = torch.randn(ROWS, 4, requires_grad=True)
    loss = model(x).square().mean()
    torch.autograd.grad(loss, x, retain_graph=True)
    loss.backward()
    optimizer.step()
    assert (optimizer.recording.to_frame()["noise_known"] == 1).all()


def test_a_backward_pass_in_two_parts_shows_the_rows() -> None:
    model = network()
    optimizer = wrapped(model, record=1)
    hidden = model[0](torch.randn(ROWS, 4))
    (slope,) = torch.autograd.grad(model[2](torch.tanh(hidden)).square().mean(), [hidden])
    hidden.backward(slope)
    optimizer.step()
    frame = optimizer.recording.to_frame().set_index("layer")["noise_known"]
    assert frame["0.weight"] == frame["0.bias"] == 1


class NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> None:
        return None


def test_a_parameter_without_a_gradient_is_passed_by() -> None:
    model = network()
    optimizer = wrapped(model)
    model(torch.randn(ROWS, 4)).sum().backward()
    kept = model[0].bias.grad.clone()
    (NoGradient.apply(model[0].bias).sum() + model[2].bias.sum()).backward()
    assert torch.equal(model[0].bias.grad, kept)
    optimizer.step()


@pytest.mark.parametrize("penalties", [[], penalized()], ids=["noise", "penalties"])
def test_an_output_without_a_gradient_is_passed_by(penalties: list[Any]) -> None:
    model = network()
    optimizer = wrapped(model, penalties=penalties)
    hidden = model[0](torch.randn(ROWS, 4))
    (NoGradient.apply(hidden).sum() + model[2](torch.randn(ROWS, HIDDEN)).sum()).backward()
    assert model[0].weight.grad is None or not model[0].weight.grad.any()
    assert not penalties or optimizer.penalties[0].value is not None


def vectorized_jacobian(model: nn.Module, x: Tensor) -> Tensor:
    found: Any = torch.autograd.functional.jacobian(model, x, vectorize=True)
    return found


def batched_grads(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    output = model(x)
    pulls = torch.eye(output.numel()).reshape(-1, *output.shape)
    return torch.autograd.grad(output, x, pulls, is_grads_batched=True)[0]


@pytest.mark.parametrize("differentiate", [vectorized_jacobian, batched_grads])
@pytest.mark.parametrize("penalties", [[], penalized()], ids=["noise", "penalties"])
def test_many_backward_passes_at_once_are_those_of_the_plain_model(
    differentiate: Callable[[nn.Module, Tensor], Tensor], penalties: list[Any]
) -> None:
    x, model = torch.randn(ROWS, 4), network()
    expected = differentiate(copy.deepcopy(model), x)
    wrapped(model, penalties=penalties)
    torch.testing.assert_close(differentiate(model, x), expected)


class Failing(torch.optim.SGD):
    fails = False

    def step(self, closure: Any = None) -> Any:
        if self.fails:
            raise RuntimeError("out of memory")
        return super().step(closure)


def test_a_step_that_failed_can_be_tried_again() -> None:
    ends = []
    for fails in (False, True):
        model = network()
        base = Failing(model.parameters(), lr=0.01)
        optimizer = DenoGrad(base, model=model, total_steps=9, dataset_size=50, record=1)
        for step in range(3):
            torch.manual_seed(step)
            optimizer.zero_grad()
            model(torch.randn(ROWS, 4)).square().mean().backward()
            base.fails = fails and step == 1
            if base.fails:
                with pytest.raises(RuntimeError, match="out of memory"):
                    optimizer.step()
                base.fails = False
            optimizer.step()
        assert optimizer.recording.to_frame().groupby("step").size().tolist() == [4, 4, 4]
        ends.append([p.detach().clone() for p in model.parameters()])
    for plain, again in zip(*ends, strict=True):
        assert torch.equal(plain, again)


def test_a_plain_checkpoint_leaves_to_the_base_what_is_left_to_it() -> None:
    model = network()
    groups = [
        {"params": list(model[0].parameters()), "denoise": False},
        {"params": list(model[2].parameters())},
    ]
    optimizer = DenoGrad(torch.optim.SGD(groups, lr=0.01), model=model)
    plain = torch.optim.SGD([{"params": g["params"]} for g in groups], lr=0.5)
    with pytest.warns(UserWarning, match="plain optimizer"):
        optimizer.load_state_dict(plain.state_dict())
    assert [g.get("denoise", True) for g in optimizer.param_groups] == [False, True]
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.5]


def test_layers_that_are_added_later_show_their_noise() -> None:
    model = network()
    optimizer = wrapped(model, record=1)
    model(torch.randn(ROWS, 4)).square().mean().backward()
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    optimizer.step()  # What was captured before stays.
    assert (optimizer.recording.to_frame()["noise_known"] == 1).all()
    optimizer.recording.clear()
    optimizer.zero_grad()
    model.append(nn.Linear(3, 2))
    optimizer.add_param_group({"params": list(model[3].parameters())})
    model(torch.randn(ROWS, 4)).square().mean().backward()
    optimizer.step()
    frame = optimizer.recording.to_frame().set_index("layer")
    assert frame["noise_known"].to_dict() == dict.fromkeys(
        [name for name, _ in model.named_parameters()], 1.0
    )


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_copies_of_copies_have_no_more_hooks_than_the_first() -> None:
    model = network()
    optimizer = wrapped(model, penalties=penalized())
    count = hooks(model)
    for _ in range(3):
        model, optimizer = copy.deepcopy((model, optimizer))
        assert hooks(model) == count
    optimizer.detach_capture()
    optimizer.detach_penalties()
    assert hooks(model) == 0


def test_rows_are_those_of_the_layers_that_take_the_step() -> None:
    model = network()
    optimizer = wrapped(model)
    model(torch.randn(64, 4)).sum().backward()
    optimizer.zero_grad()
    model[0].requires_grad_(False)
    model(torch.randn(5, 4)).sum().backward()
    assert optimizer._capture is not None
    assert optimizer._capture.rows(list(model[2].parameters())) == 5


def test_whole_and_real_numbers_of_numpy_are_taken() -> None:
    model = network()
    optimizer = wrapped(model, record=np.int64(3))
    assert optimizer.recording.record_every == 3
    assert Decorrelation(weight=np.float32(0.5)).weight == 0.5


def test_parameters_that_are_cut_up_over_processes_are_refused() -> None:
    model = network()
    model[0].weight.device_mesh = object()  # As those of fully_shard have one.
    with pytest.raises(TypeError, match=r"'0.weight' is cut up over processes"):
        wrapped(model)
