"""The three engines against one another, and `higher` on models that can't be batched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denograd import IdentityDenoiser, WienerDenoiser
from denograd.meta import (
    Backprop,
    Episode,
    Estimator,
    MetaLoss,
    PriorFamily,
    TaskBatch,
    TaskGradients,
    TruncatedBackprop,
    assemble_episode,
)
from denograd.meta.engines import ENGINES, BatchedEngine, Engine, HigherEngine, TorchoptEngine
from denograd.meta.episode import reparametrise
from denograd.meta.forwards import DEEPEST, stacked_forward
from denograd.meta.plain import PlainModel
from denograd.models import (
    AdditiveNet,
    FeatureAttention,
    RuleNet,
    SoftTree,
    TabularModel,
    TemporalAttention,
)

REFERENCES: list[type[Engine]] = [TorchoptEngine, HigherEngine]
STEPS = 4
BASES = {"sgd": 0.0, "momentum": 0.0, "adam": 0.0, "adamw": 0.4}
"""Weight decay by base; ``adamw`` is ``adam`` with decoupled decay."""


def tasks_of_different_shape(count: int = 3) -> TaskBatch:
    """Tasks that differ in rows, features and classes, so that there is padding."""
    rng = np.random.default_rng(5)
    family = PriorFamily(max_classes=3)
    drawn = [family.draw(rng, 16 + 4 * i, 12, 3 + 2 * i) for i in range(count)]
    tasks = TaskBatch.stack(drawn, dtype=torch.double)
    assert not tasks.feature_mask.all()
    return tasks


def soft_tree(features: int, classes: int) -> TabularModel:
    return SoftTree(features, classes, depth=2).double()


def attention(features: int, classes: int) -> TabularModel:
    return FeatureAttention(features, classes, width=4).double()


def additive_net(features: int, classes: int) -> TabularModel:
    """Its noise is measured without copies of the weights where each row counts."""
    return AdditiveNet(features, classes, width=3).double()


def rule_net(features: int, classes: int) -> TabularModel:
    """One of its layers is left to the base."""
    return RuleNet(features, classes, rules=3).double()


def with_batch_norm(features: int, classes: int) -> TabularModel:
    # With a bias before the norm, whose true gradient is 0, Adam would follow rounding errors.
    first, norm = nn.Linear(features, 5, bias=False), nn.BatchNorm1d(5)
    net = nn.Sequential(first, norm, nn.Tanh(), nn.Linear(5, classes))
    return PlainModel(net, features, classes).double()


def episode(
    make: Callable[[int, int], TabularModel] = soft_tree,
    *,
    base: str = "adam",
    decay: float | None = None,
    micro: int = 4,
    steps: int = STEPS,
    known: tuple[float, ...] = (1.0, 0.0, 1.0),
) -> Episode:
    tasks = tasks_of_different_shape()
    told = torch.tensor(known), torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 1.0])
    return assemble_episode(
        np.random.default_rng(7),
        tasks,
        make(tasks.x_train.shape[-1], int(tasks.classes.max())),
        steps=steps,
        batch_size=8,
        micro=micro,
        base="adam" if base == "adamw" else base,
        learning_rate=torch.tensor([[0.05], [0.1], [0.02]]) * (1 if "adam" in base else 6),
        weight_decay=BASES[base] if decay is None else decay,
        told=told,
    )


def denoiser(seed: int = 11) -> WienerDenoiser:
    """Weights well away from the start, so that every coefficient matters."""
    torch.manual_seed(seed)
    net = WienerDenoiser(hidden=6).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
        net.last.weight.mul_(4)
        net.last.bias.mul_(0.3)
    return net


@pytest.mark.parametrize("make", [soft_tree, attention])
def test_first_order_differs_only_where_a_gradient_depends_on_an_earlier_step(
    make: Callable[[int, int], TabularModel],
) -> None:
    net, loss, e = denoiser(), MetaLoss(every=2), episode(make)
    first, second = BatchedEngine(second_order=False), BatchedEngine()
    one_by_one = list(range(1, STEPS + 1))
    exact = TruncatedBackprop()(net, e, loss, cuts=one_by_one, engine=second)
    assert_same(TruncatedBackprop()(net, e, loss, cuts=one_by_one, engine=first), exact)
    whole = [Backprop()(net, e, loss, cuts=[STEPS], engine=x) for x in (first, second)]
    torch.testing.assert_close(whole[0].losses, whole[1].losses, rtol=0, atol=1e-12)
    names = exact.gradients
    apart = [(whole[0].gradients[n] - whole[1].gradients[n]).abs().max() for n in names]
    assert max(apart) > 1e-3


def assert_same(found: TaskGradients, expected: TaskGradients) -> None:
    """Losses and meta-gradients to 1e-8, in the gradients' own unit if that is larger."""
    torch.testing.assert_close(found.losses, expected.losses, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.final, expected.final, rtol=0, atol=1e-8)
    for task, scale in enumerate(expected.norms().clamp_min(1.0)):
        for name, gradient in expected.gradients.items():
            error = (found.gradients[name][task] - gradient[task]).abs().max()
            assert error <= 1e-8 * scale, f"{name} of task {task}: {error:.2e} of {scale:.2e}"


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("make", [soft_tree, attention, additive_net, rule_net])
@pytest.mark.parametrize(
    ("micro", "estimator", "cuts"),
    [
        (4, TruncatedBackprop(), [STEPS]),
        (8, TruncatedBackprop(), [3, STEPS]),
        (4, Backprop(), [2, STEPS]),
    ],
)
def test_engines_give_the_same_losses_and_meta_gradients(
    make: Callable[[int, int], TabularModel],
    base: str,
    micro: int,
    estimator: Estimator,
    cuts: list[int],
) -> None:
    net, loss, e = denoiser(), MetaLoss(every=2), episode(make, base=base, micro=micro)
    expected = estimator(net, e, loss, cuts=cuts, engine=BatchedEngine())
    assert (expected.norms() > 1e-3).all(), "gradients too small to tell a difference"
    for engine in REFERENCES:
        assert_same(estimator(net, e, loss, cuts=cuts, engine=engine()), expected)


@pytest.mark.parametrize("make", [soft_tree, attention])
@pytest.mark.parametrize("base", ["momentum", "adam"])
def test_engines_agree_on_reparametrised_episodes(
    make: Callable[[int, int], TabularModel], base: str
) -> None:
    net, loss, e = denoiser(), MetaLoss(every=2), episode(make, base=base)
    factors = torch.rand(len(e), len(e.model.layout), dtype=torch.double) + 0.5
    other = reparametrise(e, factors)
    expected = Backprop()(net, other, loss, cuts=[2, STEPS], engine=BatchedEngine())
    plain = Backprop()(net, e, loss, cuts=[2, STEPS], engine=BatchedEngine())
    assert (expected.losses - plain.losses).abs().min() > 1e-6, "the factors make a difference"
    for engine in REFERENCES:
        assert_same(Backprop()(net, other, loss, cuts=[2, STEPS], engine=engine()), expected)


@pytest.mark.parametrize("engine", REFERENCES)
def test_truncation_differs_where_checkpoints_do_not(engine: type[Engine]) -> None:
    """Two stretches: checkpointing gives the gradient of one, truncation another one."""
    net, e, loss = denoiser(), episode(), MetaLoss(every=2)
    whole = TruncatedBackprop()(net, e, loss, cuts=[STEPS], engine=engine())
    assert_same(Backprop()(net, e, loss, cuts=[1, 3, STEPS], engine=engine()), whole)
    cut = TruncatedBackprop()(net, e, loss, cuts=[3, STEPS], engine=engine())
    torch.testing.assert_close(cut.losses, whole.losses, rtol=0, atol=1e-10)
    with pytest.raises(AssertionError):
        assert_same(cut, whole)


def run(engine: Engine, e: Episode, net: object, **options: object) -> tuple[Tensor, object]:
    state = engine.start(e, net)
    for _ in range(e.steps):
        state = engine.advance(e, net, state, graph=False, **options)
    return engine.held_out_losses(e, state), state


@pytest.mark.parametrize("engine", REFERENCES)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("whole", [IdentityDenoiser(), denoiser()])
def test_rates_decay_and_schedule_reach_every_engine(
    base: str, engine: type[Engine], whole: object
) -> None:
    """Without a graph; rates differ from task to task, and so does the schedule."""
    e = episode(base=base, decay=0.3)
    factors = torch.tensor([[1.0], [0.5], [2.0]], dtype=torch.double)
    for schedule in (lambda s: 1 - s / 9, lambda s: factors / (1 + s)):
        expected, _ = run(BatchedEngine(), e, whole, schedule=schedule)
        found, state = run(engine(), e, whole, schedule=schedule)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        constant, _ = run(BatchedEngine(), e, whole)
        assert (constant - expected).abs().min() > 1e-6
        assert not any(before.grad_fn for before, _ in engine().cut(state)[1])


@pytest.mark.parametrize("engine", [BatchedEngine, *REFERENCES])
def test_a_cut_state_is_a_copy(engine: type[Engine]) -> None:
    """What happens to the copy changes nothing in the state it was cut from."""
    e, net, own = episode(steps=4), denoiser(), engine()
    state = own.start(e, net)
    for _ in range(2):
        state = own.advance(e, net, state, graph=True)
    before = own.held_out_losses(e, state).detach()
    copy_, pairs = own.cut(state)
    assert all(after.is_leaf and after.requires_grad for _, after in pairs)
    assert all(torch.equal(old, new) for old, new in pairs)
    assert any(old.grad_fn is not None for old, _ in pairs)
    advanced = own.advance(e, net, copy_, graph=False)
    assert not torch.allclose(own.held_out_losses(e, advanced), before)
    torch.testing.assert_close(own.held_out_losses(e, state).detach(), before, rtol=0, atol=0)


def plain_loop(e: Episode, task: int) -> tuple[Tensor, nn.Module]:
    """One task trained by torch alone; its held-out loss and the model."""
    model = copy.deepcopy(e.model.template)
    parts = e.model.layout.split(e.initial[task])
    with torch.no_grad():
        for parameter, part in zip(model.parameters(), parts, strict=True):
            parameter.copy_(part.reshape(parameter.shape))
    rate = float(e.learning_rate[task])
    makers = {
        "adam": lambda p: torch.optim.AdamW(p, lr=rate, weight_decay=e.weight_decay),
        "momentum": lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9),
    }
    optimizer = makers[e.base](model.parameters())
    masks = e.tasks.feature_mask[task], e.tasks.class_mask[task]
    for rows in e.batches[:, task]:
        optimizer.zero_grad()
        scores = model(e.tasks.x_train[task][rows], *masks)
        F.cross_entropy(scores, e.tasks.y_train[task][rows]).backward()
        optimizer.step()
    real = e.tasks.y_test[task] >= 0
    with torch.no_grad():
        scores = model.eval()(e.tasks.x_test[task][real], *masks)
    return F.cross_entropy(scores, e.tasks.y_test[task][real]), model


@pytest.mark.parametrize("engine", REFERENCES)
@pytest.mark.parametrize("base", ["adam", "momentum"])
def test_batch_norm_equals_a_plain_loop_running_statistics_and_all(
    base: str, engine: type[Engine]
) -> None:
    e = episode(with_batch_norm, base=base, decay=0.2 if base == "adam" else 0.0)
    found, state = run(engine(), e, IdentityDenoiser())
    for task in range(len(e)):
        expected, model = plain_loop(e, task)
        torch.testing.assert_close(found[task], expected, rtol=1e-8, atol=1e-10)
        norm, own = model.module[1], state.loops[task].model.module[1]
        assert not torch.equal(norm.running_mean, torch.zeros(5, dtype=torch.double))
        torch.testing.assert_close(own.running_mean, norm.running_mean)
        torch.testing.assert_close(own.running_var, norm.running_var)
        assert int(own.num_batches_tracked) == e.steps
    assert int(e.model.template.module[1].num_batches_tracked) == 0


@pytest.mark.parametrize("engine", REFERENCES)
def test_meta_gradient_through_batch_norm_equals_finite_differences(engine: type[Engine]) -> None:
    """The loss is taken on the way too, in evaluation mode, between steps in training mode.

    Running statistics are data, through which no gradient flows; so that finite
    differences see it the same way, they stay where they began.
    """

    def frozen(features: int, classes: int) -> TabularModel:
        model = with_batch_norm(features, classes)
        model.module[1].momentum = 0.0
        return model

    e, net, loss = episode(frozen, steps=4), denoiser(), MetaLoss(every=2)

    def total() -> Tensor:
        own, losses = engine(), torch.zeros(len(e), dtype=torch.double)
        state, shares = own.start(e, net), loss.shares(e.steps)
        for step in range(1, e.steps + 1):
            state = own.advance(e, net, state, graph=False)
            if step in shares:
                held_out = own.held_out_losses(e, state).detach()
                losses = losses + shares[step] * loss(held_out, e.tasks.classes)
        return losses

    found = TruncatedBackprop()(net, e, loss, cuts=[4], engine=engine())
    assert_same(Backprop()(net, e, loss, cuts=[2, 4], engine=engine()), found)
    generator, step = torch.Generator().manual_seed(1), 1e-5
    for name, parameter in net.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
        with torch.no_grad():
            parameter.add_(step * direction)
            above = total()
            parameter.sub_(2 * step * direction)
            below = total()
            parameter.add_(step * direction)
        slopes = (found.gradients[name] * direction).flatten(1).sum(1)
        torch.testing.assert_close(slopes, (above - below) / (2 * step), rtol=1e-4, atol=1e-6)


def test_an_unknown_base_is_named() -> None:
    for engine in REFERENCES:
        e = replace(episode(), base="adagrad")
        with pytest.raises(ValueError, match=f"{engine.__name__}: base='adagrad'; use one of adam"):
            engine().start(e, IdentityDenoiser())


def test_shared_parameters_need_higher() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.two(torch.tanh(self.one(x)))

    def tied(features: int, classes: int) -> TabularModel:
        return PlainModel(
            nn.Sequential(nn.Linear(features, 4), Tied(), nn.Linear(4, classes)), features, classes
        ).double()

    e = episode(tied, base="momentum")
    with pytest.raises(ValueError, match="layers of PlainModel share parameters"):
        TorchoptEngine().start(e, IdentityDenoiser())
    found, _ = run(HigherEngine(), e, IdentityDenoiser())
    for task in range(len(e)):
        torch.testing.assert_close(found[task], plain_loop(e, task)[0], rtol=1e-8, atol=1e-10)


def test_plain_model_asks_for_initial_weights() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    with pytest.raises(ValueError, match=r"parameters in '1' \(Own\) without .* reset_parameters"):
        PlainModel(nn.Sequential(nn.Linear(3, 3), Own()), 3, 3)


def test_plain_model_masks_and_explains() -> None:
    model = PlainModel(nn.Linear(3, 2), 3, 2)
    with torch.no_grad():
        model.module.weight.copy_(torch.tensor([[1.0, -3.0, 0.0], [1.0, -3.0, 0.0]]))
    x = torch.randn(4, 3)
    changed = x + torch.tensor([0.0, 0.0, 9.0])
    mask = torch.tensor([True, True, False])
    torch.testing.assert_close(model(x, mask), model(changed, mask))
    torch.testing.assert_close(model.feature_importance(x), torch.tensor([0.25, 0.75, 0.0]))


def test_a_frozen_batch_norm_stays_in_evaluation_mode() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    model = PlainModel(module, 3, 2)
    module[0].eval()
    model.feature_importance(torch.randn(4, 3))
    assert (module[0].training, module[1].training, model.training) == (False, True, True)


def three_of(
    make: Callable[[], TabularModel],
) -> tuple[list[TabularModel], dict[str, Tensor]]:
    """Three models with weights of their own, and their weights as a stack."""
    modules = [make().double() for _ in range(3)]
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
    names = [name for name, _ in modules[0].named_parameters()]
    return modules, {
        n: torch.stack([dict(m.named_parameters())[n] for m in modules]) for n in names
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftTree(5, 3, depth=1),
        lambda: SoftTree(5, 3, depth=4, temperature=0.7),
        lambda: SoftTree(5, 3, depth=DEEPEST + 1),
        lambda: FeatureAttention(5, 3, width=4, heads=1),
        lambda: FeatureAttention(5, 3, width=6, heads=3),
        lambda: FeatureAttention(5, 3, width=4, heads=2, normalize="entmax"),
        lambda: AdditiveNet(5, 3, width=4),
        lambda: TemporalAttention(1, 5, 3, width=4),
        lambda: TemporalAttention(1, 5, 3, width=6, heads=3, normalize="entmax", kernel=1),
    ],
)
def test_stacked_forward_equals_the_module_one_task_at_a_time(
    make: Callable[[], TabularModel],
) -> None:
    """Scores, gradients in the parameters and second derivatives, padding included."""
    torch.manual_seed(3)
    modules, stacked = three_of(make)
    x = torch.randn(3, 6, 5, dtype=torch.double)
    features = torch.arange(5) < torch.tensor([[5], [3], [1]])
    classes = torch.arange(3) < torch.tensor([[3], [2], [3]])
    forward = stacked_forward(modules[0])
    assert forward is not None
    scores = forward(stacked, x, features, classes)
    pull = torch.randn(3, 6, 3, dtype=torch.double) * classes.unsqueeze(1)

    def derivatives(value: Tensor, parameters: list[Tensor]) -> list[Tensor]:
        firsts = torch.autograd.grad(value, parameters, create_graph=True)
        size = sum(g.square().sum() for g in firsts)
        return [*firsts, *torch.autograd.grad(size, parameters, allow_unused=True)]

    found = derivatives((scores.softmax(-1) * pull).sum(), list(stacked.values()))
    for task, module in enumerate(modules):
        own = module(x[task], features[task], classes[task])
        real = classes[task]
        torch.testing.assert_close(scores[task][:, real], own[:, real])
        assert (scores[task][:, ~real] < -1e8).all()
        expected = derivatives((own.softmax(-1) * pull[task]).sum(), list(module.parameters()))
        for stack, alone in zip(found, expected, strict=True):
            torch.testing.assert_close(stack[task], alone, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftTree(5, None, depth=4, temperature=0.7),
        lambda: SoftTree(5, None, depth=DEEPEST + 1),
        lambda: FeatureAttention(5, None, width=6, heads=3),
        lambda: AdditiveNet(5, None, width=4),
        lambda: TemporalAttention(1, 5, None, width=4),
    ],
)
def test_stacked_forward_of_measured_targets_equals_the_module(
    make: Callable[[], TabularModel],
) -> None:
    torch.manual_seed(4)
    modules, stacked = three_of(make)
    x = torch.randn(3, 6, 5, dtype=torch.double)
    features = torch.arange(5) < torch.tensor([[5], [3], [1]])
    forward = stacked_forward(modules[0])
    assert forward is not None
    predicted = forward(stacked, x, features, torch.ones(3, 1, dtype=torch.bool))
    found = torch.autograd.grad(predicted.square().sum(), list(stacked.values()))
    for task, module in enumerate(modules):
        own = module(x[task], features[task])
        torch.testing.assert_close(predicted[task], own)
        expected = torch.autograd.grad(own.square().sum(), list(module.parameters()))
        for stack, alone in zip(found, expected, strict=True):
            torch.testing.assert_close(stack[task], alone, rtol=1e-8, atol=1e-10)


def test_models_without_a_stacked_forward_are_left_to_vmap() -> None:
    class Other(SoftTree):
        """Might compute anything."""

    assert stacked_forward(Other(3, 2)) is None
    assert stacked_forward(AdditiveNet(3, 2, pairs=[(0, 1)])) is None
    assert stacked_forward(PlainModel(nn.Linear(3, 2), 3, 2)) is None


def test_engines_are_chosen_by_name() -> None:
    assert {name: engine().name for name, engine in ENGINES.items()} == {
        "batched": "batched",
        "torchopt": "torchopt",
        "higher": "higher",
    }
