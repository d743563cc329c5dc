"""The script that compares two optimizers by every metric."""

from collections.abc import Callable
from types import ModuleType

import pandas as pd
import pytest


def test_ratios_and_differences_are_those_of_the_means_over_seeds(
    script_named: Callable[[str], ModuleType],
) -> None:
    rows = [
        {
            "dataset": name,
            "model": "soft_tree",
            "n_train": size,
            "seed": seed,
            "optimizer": optimizer,
            "rmse": error * (1 + seed),
            "r2": 1 - error,
            "nll": error,
            "crps": error,
            "train_loss": error,
        }
        for name in ("a", "b")
        for size in (16, 32)
        for seed in (0, 1)
        for optimizer, error in (("mine", 0.1 if name == "a" else 0.4), ("theirs", 0.2))
    ]
    script = script_named("two_optimizers")
    found = {line[0]: line[1:] for line in script.compare(pd.DataFrame(rows), "mine", "theirs")}
    assert found["rmse"] == ["ratio 1.000", "0.500 to 2.000", "50%", "16: 1.000, 32: 1.000"]
    assert found["nll"][0] == "median difference +0.050"
    assert found["r2"][0] == "median difference -0.050"
    assert list(found) == ["rmse", "r2", "nll", "crps", "train_loss"]
    with pytest.raises(SystemExit, match="no case has both mine and ours"):
        script.compare(pd.DataFrame(rows), "mine", "ours")
