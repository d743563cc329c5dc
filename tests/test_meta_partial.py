"""A denoiser for some of a model's layers."""

from __future__ import annotations

from typing import Any

import torch

import denograd
from denograd.denoisers import Context, IdentityDenoiser, Layout
from denograd.meta import BatchedModel
from denograd.meta.partial import SomeLayers, for_denoised_layers
from denograd.models import RuleNet, SoftTree


class NothingDenoised(SoftTree):
    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "denoise": False}]


def test_a_denoiser_is_shown_what_the_groups_of_the_model_allow() -> None:
    denoiser = denograd.WienerDenoiser(hidden=4)
    assert for_denoised_layers(denoiser, BatchedModel(SoftTree(3, 2))) is denoiser
    rules = BatchedModel(RuleNet(3, 2))
    some = for_denoised_layers(denoiser, rules)
    assert isinstance(some, SomeLayers)
    left = [name for i, name in enumerate(rules.names) if i not in some.kept]
    assert left == ["choice.weight"]
    identity = IdentityDenoiser()
    assert for_denoised_layers(identity, rules) is identity
    nothing = for_denoised_layers(denoiser, BatchedModel(NothingDenoised(3, 2)))
    assert isinstance(nothing, IdentityDenoiser)


def test_layers_kept_from_the_denoiser_stay_with_the_base() -> None:
    """`SomeLayers` against the denoiser itself on the layers that it is shown."""
    layout, kept = Layout((3, 2, 4), (2, 1, 1)), [0, 2]
    torch.manual_seed(0)
    denoiser = denograd.WienerDenoiser(hidden=4)
    some = SomeLayers(denoiser, kept)
    assert some.coefficient_names == denoiser.coefficient_names
    g, noise, p = torch.randn(2, 9), torch.rand(2, 9), torch.randn(2, 9)
    shown = [0, 1, 2, 5, 6, 7, 8]
    number = torch.full((2,), 5.0)

    def context(layout: Layout) -> Context:
        sizes = torch.tensor([float(n) for n in layout.sizes]).expand(2, -1)
        return Context(layout, sizes, torch.ones_like(sizes), number, number, number, number)

    inner = Layout((3, 4), (2, 1))
    with torch.no_grad():
        whole = some(g, noise, p, some.init_state(p, layout), context(layout))
        part = denoiser(
            g[:, shown],
            noise[:, shown],
            p[:, shown],
            denoiser.init_state(p[:, shown], inner),
            context(inner),
        )
    assert torch.equal(whole.gradient[:, shown], part.gradient)
    assert torch.equal(whole.gradient[:, 3:5], g[:, 3:5])
    assert whole.gain is not None
    assert part.gain is not None
    assert torch.equal(whole.gain[:, shown], part.gain)
    assert (whole.gain[:, 3:5] == 1).all()
    assert whole.decay is not None
    assert part.decay is not None
    assert torch.equal(whole.decay[:, kept], part.decay)
    assert (whole.decay[:, 1] == 0).all()
