"""The script that says what each feature is worth: what it leaves out, and how it compares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from denograd import WienerDenoiser
from denograd.denoisers import Context, Layout
from denograd.meta.validation import Judged
from denograd.statistics import FEATURES


@pytest.fixture
def script(script_named: Callable[[str], ModuleType]) -> ModuleType:
    return script_named("feature_worth")


def trained() -> WienerDenoiser:
    torch.manual_seed(4)
    denoiser = WienerDenoiser(hidden=6)
    with torch.no_grad():
        denoiser.last.weight.mul_(20)
    return denoiser


def coefficients(denoiser: WienerDenoiser, step: int) -> torch.Tensor:
    """Of a second step, which depend on the gradients and on the step."""
    layout = Layout((4, 2), (2, 1))
    torch.manual_seed(step)
    parameter, first, second = torch.randn(3, 6)
    counts, known = torch.tensor([[4.0, 2.0], [1.0, 1.0]])
    run_wide = [torch.tensor(float(x)) for x in (step, 50, 32, 16)]
    context = Context(layout, counts, known, *run_wide)
    state = denoiser.init_state(parameter, layout)
    state = denoiser(first, first.square(), parameter, state, context).state
    found = denoiser(second, 0.3 * second.square(), parameter, state, context).coefficients
    assert found is not None
    return found.detach()


def test_with_nothing_left_out_it_is_the_trained_one(script: ModuleType) -> None:
    assert torch.equal(coefficients(script.Without(trained()), 3), coefficients(trained(), 3))


def test_a_feature_that_is_held_changes_nothing_any_more(script: ModuleType) -> None:
    held = script.Without(trained(), {"phase": 0.25, "cos_gradient_fast": 0.5})
    seen = trained()
    before = seen.observe

    def at_those_values(*arguments: object) -> object:
        features, *rest = before(*arguments)  # type: ignore[arg-type]
        features[:, FEATURES.index("phase")] = 0.25
        features[:, FEATURES.index("cos_gradient_fast")] = 0.5
        return features, *rest

    seen.observe = at_those_values  # type: ignore[method-assign, assignment]
    for step in (1, 40):
        assert torch.equal(coefficients(held, step), coefficients(seen, step))
        assert not torch.equal(coefficients(held, step), coefficients(trained(), step))


def test_a_coefficient_that_is_left_out_does_nothing(script: ModuleType) -> None:
    found = coefficients(script.Without(trained(), coefficient="update_gain"), 3)
    whole = coefficients(trained(), 3)
    place = trained().coefficient_names.index("update_gain")
    assert (found[:, place] == 1).all()
    assert (whole[:, place] != 1).all()
    found[:, place] = whole[:, place]
    assert torch.equal(found, whole)


def test_medians_are_those_of_what_was_seen(script: ModuleType) -> None:
    watched = script.Watched(trained())
    for step in (0, 7, 10, 20):
        coefficients(watched, step)
    # Steps that ten divides are kept, and each was gone through twice.
    assert len(watched.kept) == 6
    found = watched.medians()
    assert found["phase"] == pytest.approx(0.2)
    assert not {"log_horizon", "horizon_known", "noise_known", "log_rows"} & set(found)
    assert {"is_matrix", "log_elements", "log_fast_snr"} <= set(found)
    watched.kept[0][0, 3] = torch.nan
    assert watched.medians().keys() == found.keys()


def test_comparison_is_the_mean_over_cells_and_the_interval_over_tables(script: ModuleType) -> None:
    cells = [Judged("soft_tree", rows, table) for rows in (16, 32) for table in "abcdef"]
    cells += [Judged("soft_tree", rows, "a") for rows in (64, 128)]
    whole = dict.fromkeys(cells, 0.3)
    changed = {cell: 0.3 + (0.1 if cell.table in "abcd" else -0.02) for cell in cells}
    found = script.compare(changed, whole)
    assert found["ratio"] == pytest.approx(np.exp((10 * 0.1 - 4 * 0.02) / 14))
    assert found["worse"] == pytest.approx(10 / 14)
    low, high = found["interval"]
    assert np.exp(-0.02) <= low < found["ratio"] < high <= np.exp(0.1) + 1e-12
    same = script.compare(whole, whole)
    assert same == {"ratio": 1.0, "interval": [1.0, 1.0], "worse": 0.0}


def test_figures_of_other_settings_are_refused(script: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "worth.json"
    assert script.read_done(file, {"denoiser": "a"}) == {}
    file.write_text(json.dumps({"settings": {"denoiser": "a"}, "found": {"phase": 1}}))
    assert script.read_done(file, {"denoiser": "a"}) == {"phase": 1}
    with pytest.raises(SystemExit, match=r"worth.json: is of another denoiser or other tables"):
        script.read_done(file, {"denoiser": "b"})
