"""The script that compares agreement with and without labels: its figures on known cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import spearmanr

from denograd.data import builtin_table


@pytest.fixture
def script(script_named: Callable[[str], ModuleType]) -> ModuleType:
    return script_named("shuffled_labels")


def test_a_shuffled_table_has_the_same_labels_elsewhere(script: ModuleType) -> None:
    table = builtin_table("wine")
    other = script.shuffled(table)
    assert other.name == "wine (shuffled)"
    assert other.features.equals(table.features)
    assert sorted(other.target) == sorted(table.target)
    assert other.target.index.equals(table.target.index)
    assert 0.2 < (other.codes == table.codes).mean() < 0.6
    assert other.target.equals(script.shuffled(table).target)


def test_agreements_are_means_of_scipys_correlations(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 4, 5))
    fits = [
        script.Fit("a", "soft_tree", 32, optimizer, seed, bare, list(sign * kind[seed]))
        for optimizer, sign in (("adamw", 1), ("denograd", np.array([1, 0, 1, 1, 1])))
        for seed in range(4)
        for bare, kind in ((False, one), (True, other))
    ]
    # A seed that has one kind alone is left out, and a case with a single seed is none.
    fits += [script.Fit("a", "soft_tree", 32, "adamw", 9, False, [5.0, 4.0, 3.0, 2.0, 1.0])]
    fits += [script.Fit("b", "soft_tree", 32, "adamw", 0, bare, [1, 2]) for bare in (False, True)]
    found = script.agreements(fits)
    assert found["table"].tolist() == ["a", "a"]
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    for kind, first, second in (
        ("labels", one, one),
        ("shuffled", other, other),
        ("across", one, other),
    ):
        for row, sign in ((0, 1), (1, np.array([1, 0, 1, 1, 1]))):
            each = [spearmanr(sign * first[i], sign * second[j]).statistic for i, j in pairs]
            assert found[kind][row] == pytest.approx(np.mean(each))
    adamw, denograd = (found.iloc[i] for i in (0, 1))
    cells = [f"{case[kind]:.3f}" for case in (adamw, denograd) for kind in script.KINDS]
    line = f"| soft_tree | {' | '.join(cells)} |"
    assert line in script.table_by(found, "model").splitlines()
    more = (denograd["labels"] - denograd["across"]) - (adamw["labels"] - adamw["across"])
    assert abs(more) > 0.001
    said = script.differences(found).splitlines()
    assert f"- labels less across, DenoGrad less AdamW: {more:+.3f} (nan to nan)" in said


def test_the_main_job(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(script, "BUILTIN", ("breast_cancer",))
    words = ["--builtin", "--models", "soft_tree", "--sizes", "64", "--seeds", "3"]
    monkeypatch.setattr("sys.argv", ["shuffled_labels.py", *words, "--out", str(tmp_path / "out")])
    script.main()
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("| breast_cancer |"))
    labels, bare, across = (float(value) for value in line.split("|")[2:5])
    assert labels > max(bare, across) + 0.1
