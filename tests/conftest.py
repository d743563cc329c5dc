"""What holds for every test."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# A deadline for each example would fail tests on a machine that is busy with other things;
# pytest's own timeout stops what hangs.
settings.register_profile("denograd", deadline=None, derandomize=False)
settings.load_profile("denograd")


@pytest.fixture
def script_named(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script of `scripts/` by its name, as if it were started there."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    return importlib.import_module
