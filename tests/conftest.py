"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A deadline for each example would fail tests on a machine that is busy with other things;
# pytest's own timeout stops what hangs.
settings.register_profile("denograd", deadline=None, derandomize=False)
settings.load_profile("denograd")
