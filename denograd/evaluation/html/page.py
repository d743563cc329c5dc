"""The page that an evaluation ends in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from denograd._files import write_whole
from denograd.evaluation.html import classes, described, measures, overview, record
from denograd.evaluation.html.parts import Part, Section
from denograd.evaluation.html.phrases import counted
from denograd.evaluation.html.words import Verdict, caveats, first_verdicts, verdicts
from denograd.evaluation.train import Cell, CellResult


def write_report(
    summary: Mapping[str, Any],
    finished: Mapping[Cell, CellResult],
    errors: Sequence[tuple[Cell, str]],
    folder: Path,
) -> Path:
    """Write an evaluation's report, one HTML file that needs nothing else.

    No script and nothing from outside: it can be mailed, archived and printed, and it
    follows the reader's choice of light or dark. Whatever came from outside (names of data
    sets and models, errors, the command) is escaped.

    Args:
        summary: as in ``summary.json``, schema 2.
        finished: cells with their curves, for the learning curves.
        errors: cells that failed, each with its message.
        folder: where to write ``report.html``.

    Returns:
        the file.

    Raises:
        ValueError: the summary has another schema.
        OSError: the folder cannot be written to.
    """
    path = folder / "report.html"
    page = render(summary, finished, errors)
    write_whole(path, page.encode())
    return path


def render(
    summary: Mapping[str, Any],
    finished: Mapping[Cell, CellResult],
    errors: Sequence[tuple[Cell, str]],
) -> str:
    """The page's text; the arguments are those of `write_report`.

    Example:
        >>> nothing = {"schema": 2, "reference": "adamw", "cells_failed": 0}
        >>> "Nothing was compared" in render(nothing, {}, [])
        True
    """
    if summary.get("schema") != 2:
        raise ValueError(
            f"the summary has schema {summary.get('schema')!r}; give one of schema 2, which "
            "denograd evaluate writes, or run the evaluation again"
        )
    # A summary of runs that all failed has neither.
    summary = {"cases": [], "comparisons": {}, **summary}
    environment = Environment(
        loader=PackageLoader("denograd.evaluation.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    style, _, _ = environment.loader.get_source(environment, "style.css")  # type: ignore[union-attr]
    found = verdicts(summary)
    first = first_verdicts(found)
    return environment.get_template("report.html").render(
        style=Markup(style),
        title=_title(summary),
        subtitle=_subtitle(summary),
        verdicts=found[:first],
        others=found[first:],
        caveats=caveats(summary) if found else [],
        comparison=_comparison(summary, found),
        sections=_sections(summary, finished, errors),
    )


def _sections(
    summary: Mapping[str, Any],
    finished: Mapping[Cell, CellResult],
    errors: Sequence[tuple[Cell, str]],
) -> list[Section]:
    measured = [
        overview.matrix(summary),
        overview.curves(summary, finished),
        overview.ranks(summary),
        overview.ratios(summary),
        measures.stability(summary),
        measures.convergence(summary),
        measures.calibration(summary),
        *classes.classes(summary),
        measures.consistency(summary),
        measures.cost(summary),
        measures.context(summary),
        record.worst_cases(summary),
    ]
    return [
        *(measured if summary["cases"] else []),
        record.failures(summary, errors),
        *([described.data(summary)] if summary.get("data") else []),
        record.making(summary),
    ]


def _comparison(summary: Mapping[str, Any], found: Sequence[Verdict]) -> list[Part]:
    """The table of all optimizers, where the verdicts alone do not say everything."""
    return overview.comparison_table(summary) if len(found) > 1 else []


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore."""
    return Markup("_<wbr>").join(str(name).split("_"))


def _title(summary: Mapping[str, Any]) -> str:
    tables = list((summary.get("settings") or {}).get("tables") or ())
    if not tables:
        tables = list(dict.fromkeys(case["dataset"] for case in summary["cases"]))
    if len(tables) == 1:
        return f"Optimizers compared on {tables[0]}"
    return f"Optimizers compared on {counted(len(tables), 'data set')}" if tables else "Optimizers"


def _subtitle(summary: Mapping[str, Any]) -> str:
    runs = counted(summary.get("cells_finished", 0), "training run")
    finished_at = str(summary.get("finished_at") or "")[:10]
    made = (summary.get("versions") or {}).get("denograd-optim")
    by = f"denograd {made}" if made and made[0].isdigit() else "denograd"
    return ", ".join(filter(None, [f"Made by {by}", runs, finished_at]))
