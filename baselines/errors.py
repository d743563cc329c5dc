"""The error of this package."""


class BaselineError(ValueError):
    """An optimizer or tuned setting that does not exist or cannot be read."""
