"""The page of what happens far from what the denoiser was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

LN2 = math.log(2)


@pytest.fixture
def page(script_named: Callable[[str], ModuleType]) -> ModuleType:
    return script_named("_robustness_page")


def results() -> pd.DataFrame:
    """Known ratios: rates 0.8 and 1.25 of the best, a diverged run, a large one."""
    rows = []

    def add(part: str, setting: str, optimizer: str, losses: list[float]) -> None:
        for number, loss in enumerate(losses):
            where = {"part": part, "setting": setting, "model": "soft_tree", "rows": 64}
            rows.append({**where, "dataset": f"t__{number}", "optimizer": optimizer,
                         "log_loss": loss, "blind": LN2})  # fmt: skip

    for rate, times in (("0.1", 1.25), ("1", 1.0), ("10", 2.0)):
        add("rate", rate, "denograd", [0.4 * times, 0.2 * times])
        add("rate", rate, "adamw", [0.5, 0.1])
    add("scale", "horizon", "denograd", [0.25, 0.5])
    add("scale", "horizon", "adamw", [0.5, math.nan])
    add("scale", "width", "adamw", [0.5, 0.5])
    add("large", "0.001", "denograd", [0.3])
    add("large", "0.001", "adamw", [0.4])
    add("large", "0.003", "adamw", [0.2])
    return pd.DataFrame(rows)


def test_the_figures_are_those_of_the_runs(page: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- figures:start -->\n<!-- figures:end -->\nafter\n")
    page.write_page(path, results())
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()]
    ours = next(row for row in cells if row[:2] == ["soft_tree", "DenoGrad"])
    assert ours[2:] == ["1.250", "1.000", "2.000", "0"]
    theirs = next(row for row in cells if row[:2] == ["soft_tree", "the control"])
    assert theirs[2:] == ["1.000", "1.000", "1.000", "0"]
    # A run without a number counts with four blind guesses; what is half done is left out.
    (horizon,) = [row for row in cells if row[:1] == ["horizon"]]
    ratio = math.sqrt(0.5 * 0.5 / (4 * LN2))
    assert horizon[1:] == ["soft_tree", "2", "0", "1", f"{ratio:.3f}", "0.50"]
    assert not any(row[:1] == ["width"] for row in cells)
    large = [row[-1] for row in cells if len(row) == 5 and row[1].startswith(("Deno", "AdamW"))]
    assert sorted(large) == ["1.000", "1.500", "2.000"]


def test_a_page_is_not_emptied(page: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("<!-- figures:start -->\nfigures\n<!-- figures:end -->\n")
    with pytest.raises(SystemExit, match="no run is done"):
        page.write_page(path, results().iloc[:0])
    assert "figures\n" in path.read_text()
