"""The script that ships a denoiser: which learning rates its card recommends."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from denograd.data import builtin_table
from denograd.denoisers import IdentityDenoiser
from denograd.meta.tables import encode_source
from denograd.meta.validation import Judged, MetaValidation, score_of

RATIOS = {
    # rate: soft tree, attention, rule net; the common rate is the one that is best for all
    0.001: (1.00, 0.95, 1.00),
    0.01: (0.90, 1.00, 0.900),
    0.1: (0.95, 1.20, 0.895),
}


@pytest.fixture
def script(script_named: Callable[[str], ModuleType]) -> ModuleType:
    return script_named("ship_denoiser")


def test_an_architecture_has_its_own_rate_where_that_matters(script: ModuleType) -> None:
    models = ("soft_tree", "attention", "rule_net")
    scores = {
        rate: score_of(
            {Judged(m, 16, "wine"): np.log(r) for m, r in zip(models, found, strict=True)}
        )
        for rate, found in RATIOS.items()
    }
    # The rule net gains half a per cent at 0.1, which is less than matters.
    assert script.choose_rates(scores) == (0.01, {"attention": 0.001})


def test_a_score_is_made_of_geometric_means() -> None:
    logs = {
        Judged("soft_tree", 16, "wine"): np.log(0.5),
        Judged("soft_tree", 64, "iris"): np.log(1.0),
        Judged("attention", 16, "wine"): np.log(4.0),
    }
    score = score_of(logs)
    assert score.ratio == pytest.approx(2 ** (1 / 3))
    assert (score.wins, score.worst) == (pytest.approx(1 / 3), pytest.approx(4.0))
    assert score.by_model == {"attention": pytest.approx(4.0), "soft_tree": pytest.approx(0.5**0.5)}
    assert score.by_rows == {16: pytest.approx(2**0.5), 64: pytest.approx(1.0)}
    assert score.by_table == {"iris": pytest.approx(1.0), "wine": pytest.approx(2**0.5)}


def test_a_score_of_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="logs is empty"):
        score_of({})


def test_cells_of_several_rates_can_be_put_together() -> None:
    """What a model gets at its own rate is what a validation at that rate alone gives it."""
    tables = [encode_source(builtin_table("wine"))]
    denoiser, rates = IdentityDenoiser(), {"soft_tree": 0.03, "attention": 0.003}
    both = MetaValidation(tables, tuple(rates), rows=(16,), steps=5, seeds=1)
    cells = {rate: both.log_ratios(denoiser, rate) for rate in rates.values()}
    together = score_of({c: cells[rates[c.model]][c] for c in cells[0.03]})
    for model, rate in rates.items():
        alone = MetaValidation(tables, (model,), rows=(16,), steps=5, seeds=1)
        assert together.by_model[model] == pytest.approx(alone.score(denoiser, rate).ratio)
