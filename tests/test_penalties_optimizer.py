"""Penalties at work in an optimizer: whatever the user's loop does, and whatever is wrong."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from denograd import DenoGrad
from denograd.denoisers import Layout
from denograd.models import AdditiveNet, FeatureAttention, SoftTree
from denograd.noise import noise_variance
from denograd.penalties import (
    Concurvity,
    Decorrelation,
    FeatureDecorrelation,
    HeadDisagreement,
    NodeDecorrelation,
    Penalty,
    Site,
    Whitening,
    correlation_penalty,
    node_correlation,
)

WEIGHT = 0.7


def rows(n: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    return torch.randn(n, 4, generator=generator, dtype=torch.float64) @ mixing


def targets(n: int = 16) -> Tensor:
    return torch.arange(n) % 3


def tree() -> SoftTree:
    torch.manual_seed(0)
    return SoftTree(4, 3, depth=3).double()


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def penalized(model: nn.Module, *penalties: Penalty, **options: Any) -> DenoGrad:
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    return DenoGrad(base, "identity", model=model, penalties=penalties, **options)


def nll(model: nn.Module, x: Tensor) -> Tensor:
    return F.cross_entropy(model(x), targets(len(x)))


def hidden(model: nn.Sequential, x: Tensor) -> Tensor:
    return torch.tanh(x @ model[0].weight.T + model[0].bias)  # type: ignore[operator]


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def of_loss(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12)


def full_loss(model: nn.Sequential, x: Tensor, weight: float = WEIGHT) -> Tensor:
    """``loss + weight * penalty`` of a model without hooks."""
    return nll(model, x) + weight * correlation_penalty(hidden(model, x))


@pytest.fixture
def pair() -> tuple[nn.Sequential, nn.Sequential, DenoGrad]:
    model = mlp()
    return model, copy.deepcopy(model), penalized(model, Decorrelation(WEIGHT))


Pair = tuple[nn.Sequential, nn.Sequential, DenoGrad]

# Loops of all kinds.


def test_steps_are_those_of_the_base_on_the_whole_loss() -> None:
    model = mlp()
    reference = copy.deepcopy(model)
    base = torch.optim.AdamW(model.parameters(), lr=0.05)
    optimizer = DenoGrad(base, "identity", model=model, penalties=[Decorrelation(WEIGHT)])
    other = torch.optim.AdamW(reference.parameters(), lr=0.05)
    for step in range(5):
        x = rows(seed=step)

        def closure(x: Tensor = x) -> float:
            optimizer.zero_grad()
            loss = nll(model, x)
            loss.backward()
            return loss.item()

        if step % 2:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        other.zero_grad()
        full_loss(reference, x).backward()
        other.step()
    for p, q in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-10)


def test_accumulated_gradients_are_those_of_the_sum(pair: Pair) -> None:
    model, reference, _optimizer = pair
    total = torch.zeros(()).double()
    for seed in range(3):
        nll(model, rows(8, seed)).backward()
        total = total + full_loss(reference, rows(8, seed))
    assert_close(gradients(model), of_loss(reference, total))


def test_two_forward_passes_before_one_backward_pass(pair: Pair) -> None:
    model, reference, _optimizer = pair
    (nll(model, rows(8, 1)) + 2 * nll(model, rows(8, 2))).backward()
    total = full_loss(reference, rows(8, 1)) + 2 * full_loss(reference, rows(8, 2), WEIGHT / 2)
    assert_close(gradients(model), of_loss(reference, total))


def test_two_losses_of_one_forward_pass_have_one_penalty(pair: Pair) -> None:
    model, reference, optimizer = pair
    for _ in range(2):
        outputs = model(rows())
        first, second = F.cross_entropy(outputs, targets(len(rows()))), outputs.square().mean()
        first.backward(retain_graph=True)
        second.backward()
        whole = full_loss(reference, rows()) + reference(rows()).square().mean()
        assert_close(gradients(model), of_loss(reference, whole))
        optimizer.step()  # Afterwards the same graph would be another step's.
        reference.load_state_dict(model.state_dict())
        optimizer.zero_grad()


@pytest.mark.parametrize("to_none", [True, False])
def test_a_gradient_that_is_reset_gets_the_penalty_anew(pair: Pair, to_none: bool) -> None:
    """As where a generator's outputs first teach the other model, then itself."""
    model, reference, optimizer = pair
    loss = nll(model, rows())
    for _ in range(2):
        loss.backward(retain_graph=True)
        assert_close(gradients(model), of_loss(reference, full_loss(reference, rows())))
        optimizer.zero_grad(set_to_none=to_none)


def test_parameters_that_are_reached_one_after_the_other_all_get_the_penalty(pair: Pair) -> None:
    model, reference, _optimizer = pair
    loss = nll(model, rows())
    for parameter in model.parameters():
        loss.backward(inputs=[parameter], retain_graph=True)
    assert_close(gradients(model), of_loss(reference, full_loss(reference, rows())))


def test_what_is_not_differentiated_leaves_nothing_behind(pair: Pair) -> None:
    model, reference, optimizer = pair
    x = rows()
    model(rows(8, 5))
    value = optimizer.penalties[0].value
    with torch.no_grad():
        model(rows(8, 6))
    model.eval()
    nll(model, rows(8, 7)).backward()
    assert_close(gradients(model), of_loss(reference, nll(reference, rows(8, 7))))
    assert value is not None
    assert optimizer.penalties[0].value is value
    model.train().zero_grad()
    nll(model, x).backward()
    assert_close(gradients(model), of_loss(reference, full_loss(reference, x)))


def test_a_forward_pass_alone_is_freed_with_its_output() -> None:
    model = mlp()
    optimizer = penalized(model, Decorrelation(WEIGHT))
    kept: list[weakref.ref[Tensor]] = []
    handle = model[1].register_forward_hook(lambda m, a, out: kept.append(weakref.ref(out)))
    output = model(rows())
    handle.remove()
    # What the penalty's hook handed on lives as long as the graph, and needs no collector.
    gc.disable()
    try:
        tapped = kept[0]()
        assert tapped is not None
        assert tapped._backward_hooks
        del tapped, output
        assert kept[0]() is None
    finally:
        gc.enable()
    assert optimizer.penalties[0].value is not None


def test_torch_autograd_grad_sees_the_plain_loss(pair: Pair) -> None:
    model, reference, _optimizer = pair
    x = rows().requires_grad_()
    ours = torch.autograd.grad(nll(model, x), [x])
    theirs = torch.autograd.grad(nll(reference, x), [x])
    assert_close(list(ours), list(theirs))
    assert_close(of_loss(model, nll(model, x)), of_loss(reference, nll(reference, x)))


def test_a_gradient_penalty_of_the_user_and_ours_add_up(pair: Pair) -> None:
    model, reference, _optimizer = pair

    def smooth(net: nn.Module, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(nll(net, x), x, create_graph=True)
        return slope.square().sum()

    # The inner pass does not count; the forward pass of it does, as the loss depends on it.
    (nll(model, rows()) + smooth(model, rows(8, 3))).backward()
    both = full_loss(reference, rows()) + smooth(reference, rows(8, 3))
    both = both + WEIGHT * correlation_penalty(hidden(reference, rows(8, 3)))
    assert_close(gradients(model), of_loss(reference, both))


def test_backward_with_a_graph_of_its_own_is_refused(pair: Pair) -> None:
    model, _, _optimizer = pair
    with (
        pytest.warns(UserWarning, match="create_graph"),
        pytest.raises(RuntimeError, match=r"create_graph=True.*'1' \(Tanh\).*torch.autograd.grad"),
    ):
        nll(model, rows()).backward(create_graph=True)


def test_backward_for_some_parameters_only(pair: Pair) -> None:
    model, reference, _optimizer = pair
    first, last = model[0].weight, model[2].weight
    nll(model, rows()).backward(inputs=[first])  # type: ignore[list-item]
    assert last.grad is None
    (expected,) = torch.autograd.grad(full_loss(reference, rows()), [reference[0].weight])  # type: ignore[list-item]
    torch.testing.assert_close(first.grad, expected, rtol=1e-6, atol=1e-12)


def test_frozen_layers_and_layers_of_another_optimizer() -> None:
    model, reference = mlp(), mlp()
    base = torch.optim.SGD(model[2].parameters(), lr=0.1)
    optimizer = DenoGrad(base, "identity", model=model, penalties=[Decorrelation(WEIGHT)])
    nll(model, rows()).backward()
    assert_close(gradients(model), of_loss(reference, full_loss(reference, rows())))
    for p in model[0].parameters():
        p.requires_grad_(False)
    optimizer.zero_grad()
    nll(model, rows()).backward()
    assert_close(gradients(model[2]), of_loss(reference[2], nll(reference, rows())))
    # Nothing to train there, so nothing to warn of.
    optimizer.step()


def test_a_module_that_runs_twice_counts_twice() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3)
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.act(self.two(self.act(self.one(x)))))

    torch.manual_seed(0)
    model = Shared().double()
    reference = copy.deepcopy(model)
    optimizer = penalized(model, Decorrelation(WEIGHT, ["act", "one"]))
    for _ in range(2):
        optimizer.zero_grad()
        nll(model, rows()).backward()
    early = reference.one(rows())
    middle = torch.relu(early)
    late = torch.relu(reference.two(middle))
    total = sum(map(correlation_penalty, (early, middle, late)))
    loss = F.cross_entropy(reference.last(late), targets())
    assert_close(gradients(model), of_loss(reference, loss + WEIGHT * total))
    torch.testing.assert_close(optimizer.penalties[0].value, total.detach())  # type: ignore[union-attr]


def test_several_penalties_on_one_module_and_weights_set_anew() -> None:
    model = mlp()
    reference = copy.deepcopy(model)
    first, second = FeatureDecorrelation(0.3, ["1"]), FeatureDecorrelation(0.0, [model[1]])
    optimizer = penalized(model, first, second)
    assert optimizer.penalties == (first, second)
    nll(model, rows()).backward()
    assert_close(gradients(model), of_loss(reference, full_loss(reference, rows(), 0.3)))
    assert torch.equal(first.value, second.value)  # type: ignore[arg-type]
    optimizer.step()
    optimizer.zero_grad()
    model.load_state_dict(reference.state_dict())
    first.weight, second.weight = 1.0, 0.5
    nll(model, rows()).backward()
    assert_close(gradients(model), of_loss(reference, full_loss(reference, rows(), 1.5)))


def test_a_weight_of_zero_is_the_base_bit_for_bit() -> None:
    model = mlp()
    reference = copy.deepcopy(model)
    optimizer = penalized(model, Decorrelation(0.0), Whitening(0))
    other = torch.optim.SGD(reference.parameters(), lr=0.1)
    for seed in range(3):
        optimizer.zero_grad()
        nll(model, rows(seed=seed)).backward()
        optimizer.step()
        other.zero_grad()
        nll(reference, rows(seed=seed)).backward()
        other.step()
    assert all(map(torch.equal, model.parameters(), reference.parameters()))
    assert optimizer.penalties[0].value > 0  # type: ignore[operator]


def test_a_group_that_is_not_denoised_gets_its_penalty_all_the_same() -> None:
    model = tree()
    reference = copy.deepcopy(model)
    groups = [
        {"params": list(model.gates.parameters()), "denoise": False},
        {"params": list(model.leaves.parameters())},
    ]
    base = torch.optim.SGD(groups, lr=0.1)
    optimizer = DenoGrad(base, model=model, penalties=[Decorrelation(WEIGHT)])
    before = model.gates.weight.detach().clone()
    nll(model, rows()).backward()
    term = node_correlation(reference.gates(rows())[:, None], 3)
    expected = of_loss(reference, nll(reference, rows()) + WEIGHT * term)
    assert_close(gradients(model), expected)
    optimizer.step()
    torch.testing.assert_close(model.gates.weight, before - 0.1 * expected[0])


def test_activation_checkpoints_count_once(pair: Pair) -> None:
    from torch.utils.checkpoint import checkpoint

    model, reference, _optimizer = pair
    for reentrant in (False, True):
        model.zero_grad()
        x = rows().requires_grad_()
        inner = checkpoint(model[:2], x, use_reentrant=reentrant)
        F.cross_entropy(model[2](inner), targets()).backward()
        assert_close(gradients(model), of_loss(reference, full_loss(reference, rows())))


def test_functional_transforms_of_a_model_with_penalties_go_their_own_way(pair: Pair) -> None:
    model, reference, _optimizer = pair
    values = dict(reference.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, parameters, x[None]), y[None])

    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(values, rows(), targets())
    ours = [part.mean(0) for part in each.values()]
    assert_close(ours, of_loss(reference, nll(reference, rows())))


def test_batch_dimensions_of_a_tree_in_a_larger_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), SoftTree(5, 3, depth=2)).double()
    reference = copy.deepcopy(model)
    optimizer = penalized(model, Decorrelation(WEIGHT))
    nll(model, rows()).backward()
    h = hidden(reference, rows())
    term = correlation_penalty(h) + node_correlation(reference[2].gates(h)[:, None], 2)  # type: ignore[operator,union-attr]
    assert_close(gradients(model), of_loss(reference, nll(reference, rows()) + WEIGHT * term))
    assert len(optimizer.penalties[0].describe()) == 2


# Scaled losses and low precision.


def scaled_step(
    scaler: torch.amp.GradScaler, model: nn.Module, optimizer: DenoGrad, x: Tensor
) -> list[Tensor]:
    optimizer.zero_grad()
    scaler.scale(nll(model, x)).backward()
    scaler.unscale_(optimizer)
    found = gradients(model)
    scaler.step(optimizer)
    scaler.update()
    return found


@pytest.mark.parametrize("enabled", [True, False])
def test_a_scaled_loss_and_its_penalty_are_unscaled_alike(enabled: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1, enabled=enabled)
    model = mlp()
    reference = copy.deepcopy(model)
    optimizer = penalized(model, Decorrelation(WEIGHT, scaler=scaler))
    for seed in range(3):
        reference.load_state_dict(model.state_dict())
        found = scaled_step(scaler, model, optimizer, rows(seed=seed))
        assert_close(found, of_loss(reference, full_loss(reference, rows(seed=seed))))
    assert scaler.get_scale() == (8192.0 if enabled else 1.0)
    before = [p.detach().clone() for p in reference.parameters()]
    assert not all(map(torch.equal, before, model.parameters()))


def test_a_scaler_that_the_penalty_does_not_know_is_an_error_and_takes_no_step() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    model = mlp()
    optimizer = penalized(model, Decorrelation(WEIGHT))
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match=r"GradScaler.*Decorrelation.*scaler=scaler"):
        scaled_step(scaler, model, optimizer, rows())
    assert all(map(torch.equal, before, model.parameters()))


def test_a_scaler_that_takes_no_part_is_an_error_and_there_is_no_step() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    model = mlp()
    optimizer = penalized(model, Decorrelation(WEIGHT, scaler=scaler))
    before = [p.detach().clone() for p in model.parameters()]
    nll(model, rows()).backward()
    with pytest.raises(RuntimeError, match=r"Decorrelation has a scaler.*scaler.step\(optimizer\)"):
        optimizer.step()
    assert all(map(torch.equal, before, model.parameters()))


def test_a_copy_leaves_its_scaler_behind_and_says_so() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    model = mlp()
    optimizer = penalized(model, Decorrelation(WEIGHT, scaler=scaler))
    other, twin = copy.deepcopy((optimizer, model))
    assert other.penalties[0].scaler is None
    with pytest.raises(RuntimeError, match="on a copy"):
        scaled_step(scaler, twin, other, rows())
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    other.penalties[0].scaler = scaler
    reference = copy.deepcopy(twin)
    found = scaled_step(scaler, twin, other, rows())
    assert_close(found, of_loss(reference, full_loss(reference, rows())))


@pytest.mark.parametrize("penalties", [(), (Decorrelation(0),)])
def test_without_penalties_a_scaler_is_no_ones_business(penalties: tuple[Penalty, ...]) -> None:
    model = mlp()
    optimizer = penalized(model, *penalties)
    scaler = torch.amp.GradScaler("cpu")
    before = model[0].weight.detach().clone()
    scaled_step(scaler, model, optimizer, rows())
    assert not torch.equal(before, model[0].weight)  # type: ignore[arg-type]


def test_a_scale_that_overflows_skips_the_step_and_is_lowered() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-100)
    model = mlp().float()
    optimizer = penalized(model, Decorrelation(1e6, scaler=scaler))
    before = [p.detach().clone() for p in model.parameters()]
    scaled_step(scaler, model, optimizer, rows().float())
    assert all(map(torch.equal, before, model.parameters()))
    assert optimizer.penalties[0].dropped == 0
    scaled_step(scaler, model, optimizer, rows().float())
    assert not all(map(torch.equal, before, model.parameters()))
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("build", [tree, mlp])
def test_under_autocast_the_penalty_is_computed_in_single_precision(
    build: Callable[[], nn.Module],
) -> None:
    model = build().float()
    reference = copy.deepcopy(model)
    optimizer = penalized(model, Decorrelation(WEIGHT))
    kept: list[Tensor] = []
    site = model.gates if isinstance(model, SoftTree) else model[0]  # type: ignore[index]
    x = rows().float()
    handle = site.register_forward_hook(lambda m, a, out: kept.append(out.detach()))
    with torch.autocast("cpu", torch.bfloat16):
        loss = nll(model, x)
    handle.remove()
    loss.backward()
    assert kept[0].dtype == torch.bfloat16
    assert optimizer.penalties[0].value.dtype == torch.float32  # type: ignore[union-attr]
    if isinstance(reference, SoftTree):
        term = node_correlation(reference.gates(x)[:, None], 3)
    else:
        term = correlation_penalty(hidden(reference, x))  # type: ignore[arg-type]
    expected = of_loss(reference, nll(reference, x) + WEIGHT * term)
    ours, plain = gradients(model), of_loss(reference, nll(reference, x))
    for one, other in zip(ours, expected, strict=True):
        assert (one - other).norm() < 0.05 * other.norm() + 1e-3
    assert (ours[0] - plain[0]).norm() > 3 * (ours[0] - expected[0]).norm()


# Noise within the batch.


def one_row_contributions(model: nn.Module, x: Tensor, term: Callable[[Tensor], Tensor]) -> Tensor:
    """What each row adds to the gradient of ``gates.weight``, one row at a time."""
    gates = model.gates(x).detach().requires_grad_()  # type: ignore[operator]
    (of_penalty,) = torch.autograd.grad(WEIGHT * term(gates), gates)
    found = []
    for i in range(len(x)):
        row = F.cross_entropy(model(x[i : i + 1]), targets(len(x))[i : i + 1]) / len(x)
        (alone,) = torch.autograd.grad(row, model.gates.weight)  # type: ignore[list-item,union-attr]
        found.append(alone + torch.outer(of_penalty[i], x[i]))
    return torch.stack(found)


def test_captured_rows_include_their_part_of_the_penalty_and_add_up() -> None:
    model = tree()
    reference = copy.deepcopy(model)
    optimizer = penalized(model, Decorrelation(WEIGHT))
    nll(model, rows()).backward()
    each = one_row_contributions(reference, rows(), lambda g: node_correlation(g[:, None], 3))
    parameters = list(model.parameters())
    assert optimizer._capture is not None
    records = optimizer._capture.records(parameters)
    for parameter, record in zip(parameters, records, strict=True):
        assert record is not None
        assert record.rows == 16
        assert record.valid
        torch.testing.assert_close(record.total, parameter.grad)
    gates = records[0]
    assert gates is not None
    torch.testing.assert_close(gates.squares, each.square().sum(0))
    torch.testing.assert_close(gates.total, each.sum(0))


@pytest.mark.parametrize(
    ("model", "penalty"),
    [
        (AdditiveNet(4, 3), Concurvity(WEIGHT)),
        (AdditiveNet(4, 3, pairs=[(0, 1)]), Concurvity(WEIGHT)),
        (FeatureAttention(4, 3, heads=3), HeadDisagreement(WEIGHT)),
        (FeatureAttention(4, 3, heads=3), Decorrelation(WEIGHT, ["score", "value"])),
        (nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), FeatureDecorrelation(WEIGHT)),
        (
            nn.Sequential(nn.Sequential(nn.Linear(4, 5), nn.Identity()), nn.Linear(5, 3)),
            Decorrelation(WEIGHT, ["0", "0.0", "0.1"]),
        ),
    ],
)
def test_noise_stays_known_whatever_module_is_watched(model: nn.Module, penalty: Penalty) -> None:
    model.double()
    optimizer = penalized(model, penalty)
    for attached in range(2):
        optimizer.zero_grad()
        if attached:
            optimizer.attach_capture(model)
            optimizer.attach_penalties(model)
        nll(model, rows()).backward()
        parameters = list(model.parameters())
        assert optimizer._capture is not None
        records = optimizer._capture.records(parameters)
        for parameter, record in zip(parameters, records, strict=True):
            assert record is not None
            assert record.valid
            assert record.rows == 16
            torch.testing.assert_close(record.total, parameter.grad)
        layout = Layout([p.numel() for p in parameters], [p.dim() for p in parameters])
        flat = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
        noise, known = noise_variance(flat, layout, records)
        assert (known == 1).all()
        assert noise.isfinite().all()
        assert (noise >= 0).all()
        optimizer.step()


def test_training_with_the_shipped_denoiser_lowers_loss_and_penalty() -> None:
    data, labels = load_wine(return_X_y=True)
    torch.manual_seed(0)
    chosen = torch.randperm(len(data))[:48].numpy()
    x = torch.tensor(StandardScaler().fit_transform(data[chosen]), dtype=torch.float32)
    y = torch.tensor(labels[chosen])
    model = SoftTree(x.shape[1], 3, depth=3)
    found = []
    start = copy.deepcopy(model.state_dict())
    for penalties in ([], [Decorrelation(1.0)]):
        model.load_state_dict(start)
        base = torch.optim.AdamW(model.parameters(), lr=0.03)
        optimizer = DenoGrad(base, model=model, penalties=penalties, total_steps=80)
        before = F.nll_loss(model(x), y).item()
        for _ in range(80):
            optimizer.zero_grad()
            loss = F.nll_loss(model(x), y)
            loss.backward()
            optimizer.step()
        assert loss < before / 2
        assert all(p.isfinite().all() for p in model.parameters())
        assert optimizer.fallbacks == 0
        found.append(node_correlation(model.gates(x)[:, None], 3).item())
    assert found[1] < found[0] / 2


# Copies and saved runs.


def test_a_detached_or_forgotten_optimizer_leaves_the_loss_plain(pair: Pair) -> None:
    model, reference, optimizer = pair
    x = rows()
    optimizer.detach_penalties()
    nll(model, x).backward()
    plain = of_loss(reference, nll(reference, x))
    assert_close(gradients(model), plain)
    optimizer.attach_penalties(model)
    penalty = optimizer.penalties[0]
    model.zero_grad()
    nll(model, x).backward()
    assert_close(gradients(model), of_loss(reference, full_loss(reference, x)))
    other = mlp()
    second = penalized(other, FeatureDecorrelation(WEIGHT))
    del second
    gc.collect()
    nll(other, x).backward()
    assert_close(gradients(other), plain)
    assert not other[1]._forward_hooks
    # What one has let go of, another may take on.
    optimizer.detach_penalties()
    assert penalized(other, penalty).penalties[0] is penalty


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_have_penalties_of_their_own(pair: Pair, how: str) -> None:
    model, reference, optimizer = pair
    nll(model, rows(8, 9)).backward()
    optimizer.zero_grad()
    if how == "deepcopy":
        twin, other = copy.deepcopy((model, optimizer))
    else:
        twin, other = pickle.loads(pickle.dumps((model, optimizer)))  # noqa: S301
    assert other.penalties[0] is not optimizer.penalties[0]
    assert other.penalties[0].value is None
    assert other.penalties[0].describe() == optimizer.penalties[0].describe()
    nll(twin, rows()).backward()
    assert_close(gradients(twin), of_loss(reference, full_loss(reference, rows())))
    assert all(p.grad is None for p in model.parameters())
    nll(model, rows(8)).backward()
    assert_close(gradients(model), of_loss(reference, full_loss(reference, rows(8))))


def test_penalties_and_capture_are_attached_apart(pair: Pair) -> None:
    model, reference, optimizer = pair
    optimizer.attach_capture(None)
    twin, other = copy.deepcopy((model, optimizer))
    nll(twin, rows()).backward()
    assert_close(gradients(twin), of_loss(reference, full_loss(reference, rows())))
    other.detach_penalties()
    third, plain = copy.deepcopy((twin, other))
    third.zero_grad()
    nll(third, rows()).backward()
    assert_close(gradients(third), of_loss(reference, nll(reference, rows())))
    assert len(plain.penalties) == 1


def test_copies_of_modules_given_as_modules() -> None:
    model = mlp()
    optimizer = penalized(model, Decorrelation(WEIGHT, [model[1]]))
    twin, other = copy.deepcopy((model, optimizer))
    nll(twin, rows()).backward()
    reference = mlp()
    assert_close(gradients(twin), of_loss(reference, full_loss(reference, rows())))
    assert other.penalties[0].modules[0] is twin[1]


def test_a_copy_of_the_model_alone_has_no_penalty(pair: Pair) -> None:
    model, reference, _optimizer = pair
    twin = copy.deepcopy(model)
    nll(twin, rows()).backward()
    assert_close(gradients(twin), of_loss(reference, nll(reference, rows())))


def test_a_model_that_holds_its_optimizer_is_told_to_attach_the_penalties() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()
            self.optimizer = penalized(self, Decorrelation(WEIGHT))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)  # type: ignore[no-any-return]

    holder = Holder()
    with pytest.warns(UserWarning, match="attach_penalties"):
        twin = copy.deepcopy(holder)
    twin.optimizer.attach_penalties(twin)
    nll(twin, rows()).backward()
    reference = mlp()
    assert_close(gradients(twin), of_loss(reference, full_loss(reference, rows())))


def test_saved_runs_go_on_and_know_nothing_of_penalties(pair: Pair) -> None:
    model, _, optimizer = pair
    nll(model, rows()).backward()
    optimizer.step()
    plain = penalized(mlp())
    assert optimizer.state_dict()["denograd"].keys() == plain.state_dict()["denograd"].keys()
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    twin = mlp()
    twin.load_state_dict(weights)
    other = penalized(twin, Decorrelation(WEIGHT))
    other.load_state_dict(state)
    for net, run in ((model, optimizer), (twin, other)):
        run.zero_grad()
        nll(net, rows(8)).backward()
        run.step()
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


# Bad input.


def test_a_module_that_never_ran_is_named_once() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle, self.last = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)
            self.on = False

        def forward(self, x: Tensor) -> Tensor:
            if self.on:
                self.idle(x)
            return self.last(self.used(x))  # type: ignore[no-any-return]

    model = Idle().double()
    optimizer = penalized(model, FeatureDecorrelation(WEIGHT, ["used", "idle"]))
    nll(model, rows()).backward()
    with pytest.warns(
        UserWarning, match=r"FeatureDecorrelation had no part.*'idle' \(Linear\)"
    ) as w:
        optimizer.step()
    assert len(w) == 1
    optimizer.zero_grad()
    nll(model, rows()).backward()
    optimizer.step()
    # Run, but not part of the loss.
    model.on = True
    optimizer.detach_penalties()
    optimizer.attach_penalties(model)
    optimizer.zero_grad()
    nll(model, rows()).backward()
    with pytest.warns(UserWarning, match="'idle'"):
        optimizer.step()


def test_a_batch_of_one_row_has_no_penalty() -> None:
    for model, penalty in (
        (tree(), NodeDecorrelation(WEIGHT)),
        (mlp(), Whitening(WEIGHT)),
        (FeatureAttention(4, 3).double(), HeadDisagreement(WEIGHT)),
        (AdditiveNet(4, 3).double(), Concurvity(WEIGHT)),
    ):
        reference = copy.deepcopy(model)
        optimizer = penalized(model, penalty)
        nll(model, rows(1)).backward()
        assert penalty.value == 0
        assert_close(gradients(model), of_loss(reference, nll(reference, rows(1))))
        optimizer.step()


@pytest.mark.parametrize("fill", [0.0, 3.0, 1e15])
def test_constant_columns_and_equal_rows_make_no_nan(fill: float) -> None:
    for model, penalty in (
        (tree(), NodeDecorrelation(WEIGHT)),
        (mlp(), Whitening(WEIGHT)),
        (mlp(), Whitening(WEIGHT, iterations=5)),
        (mlp(), FeatureDecorrelation(WEIGHT)),
        (FeatureAttention(4, 3).double(), HeadDisagreement(WEIGHT)),
        (FeatureAttention(4, 3).double(), HeadDisagreement(WEIGHT, measure="product")),
        (AdditiveNet(4, 3).double(), Concurvity(WEIGHT)),
    ):
        optimizer = penalized(model, penalty)
        x = torch.full((8, 4), fill).double()
        nll(model, x).backward()
        optimizer.step()
        assert penalty.dropped == 0
        assert all(p.isfinite().all() for p in model.parameters())


class Broken(Penalty):
    """A penalty whose value or gradient is not finite wherever its argument says so."""

    def __init__(self, how: str) -> None:
        super().__init__(WEIGHT)
        self.how = how

    def sites_of(self, name: str, module: nn.Module) -> list[Site]:
        return [Site(name, module, self.broken, "broken")] if isinstance(module, nn.Tanh) else []

    def broken(self, x: Tensor) -> Tensor:
        if self.how == "gradient":
            return (x * 0).sqrt().sum()
        if self.how == "value":
            return x.sum() * float("nan")
        return x.sum() * 1e300 * 1e300


@pytest.mark.parametrize("how", ["gradient", "value", "overflow"])
def test_a_gradient_that_is_not_finite_is_left_out_and_counted(how: str) -> None:
    model = mlp()
    reference = copy.deepcopy(model)
    penalty = Broken(how)
    optimizer = penalized(model, penalty)
    for step in range(1, 3):
        optimizer.zero_grad()
        reference.load_state_dict(model.state_dict())
        nll(model, rows()).backward()
        assert_close(gradients(model), of_loss(reference, nll(reference, rows())))
        optimizer.step()
        assert penalty.dropped == step
    nll(model, rows())
    assert penalty.dropped == 2
    assert copy.deepcopy(optimizer).penalties[0].dropped == 2


def test_activations_that_are_not_finite_are_an_error_of_no_penalty() -> None:
    for penalty in (Whitening(WEIGHT), Whitening(WEIGHT, iterations=3), Decorrelation(WEIGHT)):
        model = mlp()
        optimizer = penalized(model, penalty)
        x = rows()
        x[0] = float("nan")
        model(x)
        assert penalty.value is not None
        assert penalty.value.isnan()
        F.cross_entropy(model(x)[1:], targets()[1:]).backward()
        assert penalty.dropped == 1
        assert optimizer.penalties == (penalty,)


class Pairs(nn.Module):
    """Gives two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LSTM(4, 3)
        self.count = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        self.count(x.long()) if x.dtype == torch.float32 else None
        return self.inner(x)[0]  # type: ignore[no-any-return]


def test_a_module_that_gives_no_tensor_of_numbers_is_an_error() -> None:
    model = Pairs()
    optimizer = penalized(model, FeatureDecorrelation(WEIGHT, ["inner"]))
    with pytest.raises(TypeError, match=r"'inner' \(LSTM\), which gave a tuple"):
        model(rows().float())
    optimizer.detach_penalties()
    optimizer = penalized(model, FeatureDecorrelation(WEIGHT, ["count"]))
    with pytest.raises(TypeError, match=r"'count' \(Flatten\), which gave a torch.int64"):
        model(rows().float())


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), True, "1", None])
def test_weights_that_are_none(weight: Any) -> None:
    for kind in (Decorrelation, Whitening, NodeDecorrelation, HeadDisagreement, Concurvity):
        with pytest.raises(ValueError, match=rf"{kind.__name__}: weight=.*at least 0"):
            kind(weight)
    penalty = Decorrelation(0.1)
    with pytest.raises(ValueError, match="weight="):
        penalty.weight = weight
    assert penalty.weight == 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Whitening(1, group_size=1), "group_size=1"),
        (lambda: Whitening(1, group_size=2.0), "group_size=2.0"),  # type: ignore[arg-type]
        (lambda: Whitening(1, shrinkage=0), "shrinkage=0;"),
        (lambda: Whitening(1, shrinkage=1.0), "shrinkage=1.0"),
        (lambda: Whitening(1, shrinkage=float("nan")), "shrinkage=nan"),
        (lambda: Whitening(1, iterations=0), "iterations=0"),
        (lambda: FeatureDecorrelation(1, kind="both"), "kind='both'; use one of correlation"),  # type: ignore[arg-type]
        (lambda: FeatureDecorrelation(1, dim=0), "dim=0"),
        (lambda: HeadDisagreement(1, measure="dot"), "measure='dot'; use one of cosine"),  # type: ignore[arg-type]
        (lambda: Decorrelation(1, []), "modules is empty"),
        (
            lambda: penalized(mlp(), Decorrelation(1, ["2.gate"])),
            r"'2.gate', which is no module.*'2'",
        ),
        (
            lambda: penalized(mlp(), Decorrelation(1, [nn.ReLU()])),
            "ReLU that is not in the model Seq",
        ),
        (
            lambda: penalized(mlp(), NodeDecorrelation(1)),
            "Sequential has no part that this penalty",
        ),
        (lambda: penalized(mlp(), HeadDisagreement(1, ["0"])), "'0', a Linear, which this penalty"),
        (lambda: penalized(nn.Linear(4, 2), Decorrelation(1)), "Linear has no part"),
        (lambda: penalized(tree(), Whitening(1)), "SoftTree has no part.*modules="),
    ],
)
def test_arguments_that_make_no_sense(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_types_that_make_no_sense() -> None:
    model = mlp()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    bad: Any = Decorrelation(0.1)
    with pytest.raises(TypeError, match=r"penalties is a Decorrelation; it must be a list"):
        DenoGrad(base, model=model, penalties=bad)
    bad = [0.1]
    with pytest.raises(TypeError, match="penalties holds a float"):
        DenoGrad(base, model=model, penalties=bad)
    for modules in ("0", model, 3):
        bad = modules
        with pytest.raises(TypeError, match=r"modules is a .*a list of modules"):
            Decorrelation(0.1, bad)
    bad = [3]
    with pytest.raises(TypeError, match="modules holds a int"):
        DenoGrad(base, model=model, penalties=[Decorrelation(0.1, bad)])
    bad = 1024.0
    with pytest.raises(TypeError, match="scaler is a float"):
        Decorrelation(0.1, scaler=bad)


def test_penalties_need_a_model_and_a_loss_that_is_minimized() -> None:
    model = mlp()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="penalties without model="):
        DenoGrad(base, penalties=[Decorrelation(0.1)])
    penalty = Decorrelation(0.1)
    with pytest.raises(ValueError, match="the same penalty twice"):
        DenoGrad(base, model=model, penalties=[penalty, penalty])
    optimizer = penalized(model, penalty)
    with pytest.raises(ValueError, match="without model="):
        optimizer.attach_penalties(None)
    with pytest.raises(ValueError, match=r"another DenoGrad already.*detach_penalties"):
        penalized(mlp(), penalty)
    rising = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    with pytest.raises(ValueError, match="group 0 has maximize=True"):
        DenoGrad(rising, model=model, penalties=[Decorrelation(0.1)])
    extra = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match="group 1 has maximize=True"):
        optimizer.add_param_group({"params": [extra], "maximize": True})
    assert len(optimizer.param_groups) == 1


def test_nothing_is_said_where_all_is_well(pair: Pair) -> None:
    model, _, optimizer = pair
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            optimizer.zero_grad()
            nll(model, rows()).backward()
            optimizer.step()
