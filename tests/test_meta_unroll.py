"""The batched inner loop against plain training loops, one task at a time."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call

from denograd import DenoGrad, IdentityDenoiser, WienerDenoiser
from denograd.meta import (
    Backprop,
    BatchedEngine,
    BatchedModel,
    Episode,
    MetaLoss,
    PriorFamily,
    TaskBatch,
    TruncatedBackprop,
    assemble_episode,
    base_transform,
)
from denograd.meta.episode import reparametrise
from denograd.models import (
    AdditiveNet,
    FeatureAttention,
    PrototypeNet,
    RuleNet,
    SoftForest,
    SoftTree,
)

ENGINE = BatchedEngine()
start, advance = ENGINE.start, ENGINE.advance
MODELS = {"soft_tree": SoftTree, "attention": FeatureAttention}
ALL = {
    **MODELS,
    "additive_net": AdditiveNet,
    "prototype_net": PrototypeNet,
    "rule_net": RuleNet,
    "soft_forest": SoftForest,
}


def episode(
    model: str = "soft_tree",
    *,
    base: str = "adam",
    steps: int = 6,
    micro: int = 4,
    count: int = 3,
    decay: float = 0.0,
    features: int | None = None,
    measured: bool = False,
) -> Episode:
    """Tasks of different width, in float64."""
    rng = np.random.default_rng(5)
    family = PriorFamily(max_classes=3, measured=measured)
    drawn = [family.draw(rng, 16 + 4 * i, 20, features or 3 + 2 * i) for i in range(count)]
    tasks = TaskBatch.stack(drawn, dtype=torch.double)
    template = ALL[model](tasks.x_train.shape[-1], tasks.n_classes).double()
    return assemble_episode(
        rng,
        tasks,
        template,
        steps=steps,
        batch_size=8,
        micro=micro,
        base=base,
        learning_rate=torch.tensor([[0.01], [0.03], [0.02]])[:count],
        weight_decay=decay,
    )


def denoiser(scale: float = 2.0) -> WienerDenoiser:
    torch.manual_seed(11)
    net = WienerDenoiser(hidden=6).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(scale)
    return net


def module_for(e: Episode, task: int) -> torch.nn.Module:
    """The task's model alone, padding and all, as a plain module."""
    module = type(e.model.template)(
        e.model.template.n_features, e.model.template.n_classes
    ).double()
    parts = e.model.layout.split(e.initial[task])
    with torch.no_grad():
        for parameter, part in zip(module.parameters(), parts, strict=True):
            parameter.copy_(part.reshape(parameter.shape))
    return module


def train_alone(e: Episode, task: int, make_optimizer) -> torch.Tensor:
    """A plain training loop of one task; its final parameters, flat."""
    module, masks = module_for(e, task), (e.tasks.feature_mask[task], e.tasks.class_mask[task])
    optimizer = make_optimizer(module)
    for rows in e.batches[:, task]:
        optimizer.zero_grad()
        output, y = module(e.tasks.x_train[task][rows], *masks), e.tasks.y_train[task][rows]
        if e.tasks.n_classes is None:
            loss = torch.nn.functional.mse_loss(output.squeeze(-1), y)
        else:
            loss = torch.nn.functional.cross_entropy(output, y)
        loss.backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("base", "make"),
    [
        ("sgd", lambda p, lr: torch.optim.SGD(p, lr=lr)),
        ("momentum", lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)),
        ("adam", lambda p, lr: torch.optim.Adam(p, lr=lr)),
    ],
)
def test_identity_unroll_equals_a_plain_loop_for_each_task(model: str, base: str, make) -> None:
    e = episode(model, base=base)
    state = start(e, IdentityDenoiser())
    for _ in range(e.steps):
        state = advance(e, IdentityDenoiser(), state, graph=False)
    mask = e.model.element_mask(e.tasks)
    for task in range(3):
        rate = float(e.learning_rate[task])
        alone = train_alone(e, task, lambda m, lr=rate: make(m.parameters(), lr))
        torch.testing.assert_close(state.parameters[task], alone * mask[task], rtol=1e-7, atol=1e-9)


def test_decoupled_decay_and_schedule_equal_adamw() -> None:
    e = episode(decay=0.3)
    state = start(e, IdentityDenoiser())
    for _ in range(e.steps):
        state = advance(e, IdentityDenoiser(), state, graph=False, schedule=lambda s: 1 - s / 6)
    for task in range(3):
        rate = float(e.learning_rate[task])

        def scheduled(module: torch.nn.Module, lr: float = rate) -> torch.optim.Optimizer:
            optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.3)

            def lower(*_: object) -> None:
                optimizer.param_groups[0]["lr"] -= lr / 6

            optimizer.register_step_post_hook(lower)
            return optimizer

        alone = train_alone(e, task, scheduled)
        torch.testing.assert_close(state.parameters[task], alone, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("measured", [False, True], ids=["classes", "measured"])
@pytest.mark.parametrize("model", ALL)
def test_what_is_meta_trained_is_what_the_optimizer_runs(model: str, measured: bool) -> None:
    """The batched unroll equals a loop with `DenoGrad` around AdamW, noise and all.

    The groups are the model's own: a rule net leaves one layer to the base.
    """
    e = episode(model, micro=8, measured=measured)
    net = denoiser()
    state = start(e, net)
    with torch.no_grad():
        for _ in range(e.steps):
            state = advance(e, net, state, graph=False)

    def wrapped(module: torch.nn.Module, task: int) -> DenoGrad:
        rate = float(e.learning_rate[task])
        base = torch.optim.AdamW(module.parameter_groups(), lr=rate, weight_decay=0.0)
        rows = int(e.tasks.rows[task])
        return DenoGrad(base, net, model=module, total_steps=e.steps, dataset_size=rows)

    full = [
        i for i in range(3) if bool(e.tasks.feature_mask[i].all() & e.tasks.class_mask[i].all())
    ]
    assert full, "no task of the episode is without padding"
    for task in full:
        alone = train_alone(e, task, lambda m, t=task: wrapped(m, t))
        torch.testing.assert_close(state.parameters[task], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize("model", [*MODELS, "additive_net", "rule_net"])
def test_gradient_and_noise_equal_autograd_one_sample_at_a_time(model: str, units: bool) -> None:
    """The noise of a layer that is left to the base is not asked for, and stays 0."""
    e = episode(model, micro=8)
    layout = e.model.layout
    factors = torch.rand(len(e), len(layout), dtype=torch.double) + 0.5
    scale = layout.spread(factors if units else torch.ones_like(factors))
    told = layout.spread(torch.tensor([float(i in e.model.denoised) for i in range(len(layout))]))
    rows = e.batches[0]
    x = torch.take_along_dim(e.tasks.x_train, rows.unsqueeze(-1), dim=1)
    y = torch.take_along_dim(e.tasks.y_train, rows, dim=1)
    gradient, noise, loss = e.model.gradient(
        e.initial / scale, x, y, e.tasks, 8, graph=False, scale=scale if units else None
    )
    for task in range(3):
        samples, losses = [], []
        for i in range(8):
            module = module_for(e, task)
            logits = module(
                x[task, i : i + 1], e.tasks.feature_mask[task], e.tasks.class_mask[task]
            )
            one = torch.nn.functional.cross_entropy(logits, y[task, i : i + 1])
            one.backward()
            losses.append(one.detach())
            samples.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
        stacked = torch.stack(samples)
        stacked = stacked * scale[task]
        torch.testing.assert_close(gradient[task], stacked.mean(0))
        torch.testing.assert_close(noise[task], told * stacked.var(0) / 8)
        torch.testing.assert_close(loss[task], torch.stack(losses).mean())


def test_micro_batches_and_samples_estimate_the_same_noise() -> None:
    """Over many random cuts of one batch the two agree in the mean."""
    e = episode(count=1)
    x, y = e.tasks.x_train[:, :16], e.tasks.y_train[:, :16]
    _, by_sample, _ = e.model.gradient(e.initial, x, y, e.tasks, 16, graph=False)
    generator = torch.Generator().manual_seed(0)
    cuts = []
    for _ in range(600):
        order = torch.randperm(16, generator=generator)
        cuts.append(
            e.model.gradient(e.initial, x[:, order], y[:, order], e.tasks, 4, graph=False)[1]
        )
    ratio = torch.stack(cuts).mean(0).sum() / by_sample.sum()
    assert ratio.item() == pytest.approx(1.0, abs=0.05)


ONCE, OFTEN = MetaLoss(every=1000), MetaLoss(every=1)


def loss_of(net: WienerDenoiser, e: Episode) -> torch.Tensor:
    """The meta-loss of each task, taken at the end."""
    state = start(e, net)
    for _ in range(e.steps):
        state = advance(e, net, state, graph=True)
    return ONCE(ENGINE.held_out_losses(e, state), e.tasks.classes)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("base", ["adam", "momentum"])
def test_meta_gradient_equals_finite_differences(model: str, base: str) -> None:
    e, net = episode(model, base=base, steps=4), denoiser(1.0)
    gradients = TruncatedBackprop()(net, e, ONCE, cuts=[4], engine=ENGINE).gradients
    generator = torch.Generator().manual_seed(1)
    step = 1e-4
    for name, parameter in net.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
        with torch.no_grad():
            parameter.add_(step * direction)
            above = loss_of(net, e)
            parameter.sub_(2 * step * direction)
            below = loss_of(net, e)
            parameter.add_(step * direction)
        numeric = (above - below) / (2 * step)
        found = (gradients[name] * direction).flatten(1).sum(1)
        torch.testing.assert_close(found, numeric, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("base", ["adam", "momentum"])
def test_checkpointed_gradient_equals_that_of_one_stretch(base: str) -> None:
    e, net = episode(base=base, steps=9), denoiser(1.0)
    whole = TruncatedBackprop()(net, e, OFTEN, cuts=[9], engine=ENGINE)
    for cuts in ([9], [2, 3, 7, 9], list(range(1, 10))):
        parts = Backprop()(net, e, OFTEN, cuts=cuts, engine=ENGINE)
        torch.testing.assert_close(parts.losses, whole.losses)
        torch.testing.assert_close(parts.final, whole.final)
        for name, gradient in whole.gradients.items():
            torch.testing.assert_close(parts.gradients[name], gradient, rtol=1e-9, atol=1e-12)


def test_truncation_cuts_the_graph_and_nothing_else() -> None:
    """The losses of a truncated unroll are those of the full one; gradients differ."""
    e, net = episode(steps=8), denoiser(1.0)
    full = TruncatedBackprop()(net, e, OFTEN, cuts=[8], engine=ENGINE)
    cut = TruncatedBackprop()(net, e, OFTEN, cuts=[3, 8], engine=ENGINE)
    torch.testing.assert_close(cut.losses, full.losses)
    torch.testing.assert_close(cut.final, full.final)
    assert any(not torch.allclose(g, cut.gradients[k]) for k, g in full.gradients.items())


def test_gradients_of_tasks_add_up_to_that_of_their_sum() -> None:
    """Against plain autograd on the denoiser's own weights."""
    e, net = episode(steps=5), denoiser(1.0)
    loss_of(net, e).sum().backward()
    tasks = TruncatedBackprop()(net, e, ONCE, cuts=[5], engine=ENGINE)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(tasks.gradients[name].sum(0), parameter.grad)
    squares = [(g.flatten(1) ** 2).sum(1) for g in tasks.gradients.values()]
    torch.testing.assert_close(tasks.norms(), sum(squares).sqrt())


def test_episode_of_some_tasks_equals_that_part_of_all() -> None:
    e, net = episode(), denoiser()
    whole = TruncatedBackprop()(net, e, OFTEN, cuts=[3, 6], engine=ENGINE)
    for part in (slice(0, 1), slice(1, 3)):
        some = TruncatedBackprop()(net, e.take(part), OFTEN, cuts=[3, 6], engine=ENGINE)
        torch.testing.assert_close(some.losses, whole.losses[part])
        for name, gradient in whole.gradients.items():
            torch.testing.assert_close(some.gradients[name], gradient[part])


def test_stacked_tasks_equal_one_at_a_time_through_the_denoiser() -> None:
    e, net = episode(features=4), denoiser()
    state = start(e, net)
    for _ in range(e.steps):
        state = advance(e, net, state, graph=False)
    for task in range(3):
        pick = slice(task, task + 1)
        values = {k: v[pick] for k, v in vars(e.tasks).items() if k != "n_channels"}
        alone = replace(
            e,
            tasks=TaskBatch(**values),
            initial=e.initial[pick],
            batches=e.batches[:, pick],
            learning_rate=e.learning_rate[pick],
            counts=e.counts[pick],
            noise_known=e.noise_known[pick],
            total_steps=e.total_steps[pick],
            rows=e.rows[pick],
            batch_size=e.batch_size[pick],
        )
        single = start(alone, net)
        for _ in range(e.steps):
            single = advance(alone, net, single, graph=False)
        torch.testing.assert_close(single.parameters[0], state.parameters[task])


def test_reparametrised_episode_equals_scaled_gradients_by_hand() -> None:
    """With SGD: ``p = s q``, so a step of ``q`` moves ``p`` by ``s^2`` times as much."""
    e = episode(base="sgd", steps=1)
    factors = torch.tensor([[3.0, 0.5, 2.0]]).expand(3, -1)
    scale = e.model.layout.spread(factors).double()
    other = reparametrise(e, factors)
    torch.testing.assert_close(held_out(other), held_out(e))
    plain = advance(e, IdentityDenoiser(), start(e, IdentityDenoiser()), graph=False)
    moved = advance(other, IdentityDenoiser(), start(other, IdentityDenoiser()), graph=False)
    torch.testing.assert_close(
        moved.parameters * scale - e.initial, scale**2 * (plain.parameters - e.initial)
    )


@pytest.mark.parametrize("model", MODELS)
def test_padding_changes_no_real_coordinate(model: str) -> None:
    """Each task alone, in a model of its own size, has the same gradients and statistics."""
    e, net = episode(model, base="momentum"), denoiser()
    masks = e.model.element_mask(e.tasks) > 0
    assert not masks.all(), "nothing is padded"
    for task in range(3):
        f, c = int(e.tasks.features[task]), int(e.tasks.classes[task])
        one, mask = e.take(slice(task, task + 1)), masks[task]
        tasks = replace(
            one.tasks,
            x_train=one.tasks.x_train[..., :f],
            x_test=one.tasks.x_test[..., :f],
            feature_mask=one.tasks.feature_mask[:, :f],
            class_mask=one.tasks.class_mask[:, :c],
        )
        small = BatchedModel(MODELS[model](f, c).double())
        alone = replace(
            one,
            tasks=tasks,
            model=small,
            initial=one.initial[:, mask],
            counts=small.layout.sum(torch.ones(1, small.layout.total, dtype=torch.double)),
        )
        torch.testing.assert_close(alone.counts, one.counts)
        padded, bare = start(one, net), start(alone, net)
        for step in range(e.steps):
            gradients = [
                x.model.gradient(s.parameters, *x.batch(step), x.tasks, 4, graph=False)
                for x, s in ((one, padded), (alone, bare))
            ]
            for with_padding, without in zip(gradients[0][:2], gradients[1][:2], strict=True):
                torch.testing.assert_close(with_padding[:, mask], without)
                assert (with_padding[:, ~mask] == 0).all()
            padded = advance(one, net, padded, graph=False)
            bare = advance(alone, net, bare, graph=False)
            for name, value in bare.denoiser.element.items():
                torch.testing.assert_close(padded.denoiser.element[name][:, mask], value)
            for name, value in bare.denoiser.layer.items():
                torch.testing.assert_close(padded.denoiser.layer[name], value)
            torch.testing.assert_close(padded.parameters[:, mask], bare.parameters)
        torch.testing.assert_close(
            ENGINE.held_out_losses(one, padded), ENGINE.held_out_losses(alone, bare)
        )


def graph_size(estimator: TruncatedBackprop | Backprop, steps: int, window: int) -> int:
    """Most numbers that the graph of an unroll holds at any time."""
    e = episode(steps=steps, count=1, features=3)
    cuts = [*range(window, steps, window), steps]
    alive, most = 0, 0

    class Held:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal alive, most
            self.tensor = tensor.detach()  # an output would hold on to its own graph
            alive += tensor.numel()
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= self.tensor.numel()

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        result = estimator(denoiser(1.0), e, MetaLoss(), cuts=cuts, engine=ENGINE)
    gc.collect()
    assert all(g.isfinite().all() for g in result.gradients.values())
    return most


@pytest.mark.parametrize("estimator", [TruncatedBackprop(), Backprop()])
@pytest.mark.parametrize("steps", [400, pytest.param(2000, marks=pytest.mark.slow)])
def test_long_unrolls_need_no_more_memory_than_short_ones(
    estimator: TruncatedBackprop | Backprop, steps: int
) -> None:
    """What the graph holds grows with the stretch and not with the horizon."""
    short = graph_size(estimator, 100, 25)
    assert graph_size(estimator, steps, 25) < 1.2 * short
    assert graph_size(estimator, 100, 100) > 2 * short, "longer stretches do show"


def test_padding_keeps_its_zero() -> None:
    e, net = episode("attention"), denoiser()
    state = start(e, net)
    for _ in range(e.steps):
        state = advance(e, net, state, graph=False)
    padding = e.model.element_mask(e.tasks) == 0
    assert padding.any()
    assert (state.parameters[padding] == 0).all()


def held_out(e: Episode) -> torch.Tensor:
    return ENGINE.held_out_losses(e, start(e, IdentityDenoiser()))


def test_held_out_loss_ignores_padded_rows() -> None:
    e = episode()
    parameters = e.initial
    plain = held_out(e)
    tasks = e.tasks
    longer = replace(
        tasks,
        x_test=torch.cat([tasks.x_test, 9 * torch.ones_like(tasks.x_test)], dim=1),
        y_test=torch.cat([tasks.y_test, torch.full_like(tasks.y_test, -100)], dim=1),
    )
    torch.testing.assert_close(held_out(replace(e, tasks=longer)), plain)
    logits = functional_call(
        e.model.template,
        {
            n: p.reshape(s)
            for n, p, s in zip(
                e.model.names, e.model.layout.split(parameters[0]), e.model.shapes, strict=True
            )
        },
        (tasks.x_test[0], tasks.feature_mask[0], tasks.class_mask[0]),
    )
    expected = torch.nn.functional.cross_entropy(logits, tasks.y_test[0])
    torch.testing.assert_close(plain[0], expected)


def test_unknown_bases_and_bad_cuts_are_named() -> None:
    with pytest.raises(ValueError, match="name='adagrad'; use one of adam, sgd"):
        base_transform("adagrad")
    for cuts in ([], [0, 6], [3], [4, 3, 6], [6, 6]):
        for estimator in (TruncatedBackprop(), Backprop()):
            with pytest.raises(ValueError, match="rise from at least 1 to the last of 6"):
                estimator(denoiser(), episode(), ONCE, cuts=cuts, engine=ENGINE)
