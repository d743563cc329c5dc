"""The script that ships a denoiser: which learning rates its card recommends."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine

from denograd.data import builtin_table
from denograd.denoisers import IdentityDenoiser, WienerDenoiser
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


def test_what_is_judged_is_not_judged_again(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(MetaValidation, rows=(16,), steps=5)
    monkeypatch.setattr(script, "MetaValidation", small)
    tables, denoiser = [encode_source(builtin_table("wine"))], WienerDenoiser(hidden=4)

    def judged(rates: list[float]) -> dict[float, dict[Judged, float]]:
        found: dict[float, dict[Judged, float]] = script.judge(
            denoiser, tables, "soft_tree", 1, rates, tmp_path
        )
        return found

    first = judged([0.01])
    assert first[0.01] == small(tables, ["soft_tree"], seeds=1).log_ratios(denoiser, 0.01)
    (path,) = tmp_path.iterdir()
    # What is read from the file is told from what is run anew by a number that no run gives.
    content = json.loads(path.read_text())
    content["log_ratios"][0][1] = 7.0
    path.write_text(json.dumps(content))
    assert list(judged([0.01, 0.03])[0.01].values()) == [7.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "soft_tree-0.01-1.json",
        "soft_tree-0.03-1.json",
    ]
    monkeypatch.setattr(script, "code", lambda: "another")
    assert judged([0.01]) == first


def test_columns_become_targets_and_what_was_the_target_a_feature(
    script_named: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    """Against what the columns of wine are: numbers, cut at the median or the terciles."""
    frame = load_wine(as_frame=True).frame.assign(
        alone=["only", "value"] + ["only"] * 176, half=np.arange(178) % 2
    )
    (tmp_path / "meta_train").mkdir()
    frame.to_parquet(tmp_path / "meta_train" / "cellar.parquet")
    pd.DataFrame({"file": ["meta_train/cellar.parquet"], "task": ["multi"]}).to_csv(
        tmp_path / "catalog.csv", index=False
    )
    made = script_named("_development_tables").tables_of_columns(tmp_path, "meta_train")
    again = script_named("_development_tables").tables_of_columns(tmp_path, "meta_train")
    assert [t.name for t in made] == [t.name for t in again]
    assert len(made) == len({t.name for t in made}) == 8
    for place, table in enumerate(made):
        column = table.name.removeprefix("cellar, ")
        assert column not in ("alone", "target")  # One row of another class is no target.
        values = frame[column]
        if column == "half":
            expected = values
        else:
            shares = [0.5] if place % 2 == 0 else [1 / 3, 2 / 3]
            expected = np.searchsorted(np.quantile(values, shares), values)
        np.testing.assert_array_equal(table.labels, expected)
        # All columns but itself, the old target one of them, of which one says nothing.
        assert table.columns.shape[0] == 178
        assert any(
            abs(np.corrcoef(feature, frame["target"])[0, 1]) > 0.999 for feature in table.columns.T
        )
        assert all(abs(np.corrcoef(feature, values)[0, 1]) < 0.999 for feature in table.columns.T)


def test_two_denoisers_are_compared_table_by_table(
    script_named: Callable[[str], ModuleType],
) -> None:
    cells = [Judged("soft_tree", rows, t) for t in ("wine", "iris") for rows in (16, 128)]
    second = dict(zip(cells, np.log([0.9, 0.8, 1.1, 1.0]), strict=True))
    changes = np.log([0.5, 2.0, 0.25, 1.0])
    first = {cell: second[cell] + c for cell, c in zip(cells, changes, strict=True)}
    line = script_named("two_denoisers").line_of("soft_tree", first, second)
    own = [float(np.exp(np.mean(list(logs.values())))) for logs in (first, second)]
    assert line[:3] == ["soft_tree", f"{own[0]:.3f}", f"{own[1]:.3f}"]
    # Two tables, whose means are 1 and 0.5: no draw of tables lies outside of them.
    assert line[3] == "0.707 (0.500 to 1.000)"
    assert line[4:] == ["50%", "2.00", "16: 0.354, 128: 1.414"]
