"""What can be wrong, or worth knowing, about a user's data."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TableError(ValueError):
    """A table that cannot be used; the message names what is wrong and the remedy."""


class TableWarning(UserWarning):
    """Something was decided about a table that its owner should know of."""


def listing(names: Iterable[object], limit: int = 20) -> str:
    """Names for an error message, cut after ``limit``.

    Example:
        >>> listing(["a", "b", "c"], limit=2)
        "'a', 'b' and 1 more"
    """
    quoted = [repr(str(name)) for name in names]
    shown = ", ".join(quoted[:limit])
    return shown if len(quoted) <= limit else f"{shown} and {len(quoted) - limit} more"


def suggestion(wrong: str, names: Iterable[object]) -> str:
    """``" Did you mean 'x'?"`` if a name is close to ``wrong``, else nothing.

    Example:
        >>> suggestion("ouctome", ["age", "outcome"])
        " Did you mean 'outcome'?"
        >>> suggestion("zzz", ["age", "outcome"])
        ''
    """
    known = {str(name).lower(): str(name) for name in names}
    close = get_close_matches(wrong.lower(), known, n=1)
    return f" Did you mean {known[close[0]]!r}?" if close else ""
