"""Pages with figures between two markers, which scripts replace."""

from __future__ import annotations

from pathlib import Path

BEGIN, END = "<!-- figures:start -->", "<!-- figures:end -->"


def around_figures(path: Path) -> tuple[str, str]:
    """What stands before the figures of a page and after them, markers included.

    Raises:
        SystemExit: the page does not hold both markers, each once.
    """
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{path}: it must hold {BEGIN} and {END}, each once")
    return f"{text.split(BEGIN)[0]}{BEGIN}\n", f"\n{END}{text.split(END)[1]}"
