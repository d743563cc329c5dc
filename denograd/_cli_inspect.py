"""``denograd inspect``: what a denoiser learned, and what it did in a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from denograd._console import (
    NOTES,
    OUTPUT,
    ManyValues,
    UsageError,
    clear_errors,
    examples,
)

if TYPE_CHECKING:
    from denograd._inspection_words import Findings
    from denograd.inspection import Recordings

EXAMPLES = examples(
    "denograd inspect default",
    "denograd inspect mine.safetensors --out inside --builtin wine iris",
    "denograd inspect default --models soft_tree,rule_net --rows 32 --steps 200",
    "denograd inspect default --run recording.json --out my-run",
)


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command("inspect", cls=ManyValues, epilog=EXAMPLES)(inspect)


def inspect(
    denoiser: Annotated[
        str,
        typer.Argument(
            help="A shipped name, the path of saved weights, or hf://OWNER/NAME on the Hugging "
            "Face Hub."
        ),
    ] = "default",
    out: Annotated[Path, typer.Option(help="Folder for pictures, inspection.md and .json.")] = Path(
        "denograd-inspection"
    ),
    builtin: Annotated[
        list[str] | None,
        typer.Option(
            help="Tables of the reference trainings: breast_cancer, wine, iris, digits3, "
            "diabetes. Default: wine breast_cancer iris; for the denoiser regression, diabetes.",
            metavar="NAME...",
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Their models, with commas between. Default: soft_tree,attention."),
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Their training rows. Default: 64.")] = None,
    steps: Annotated[int | None, typer.Option(help="Their steps. Default: 120.")] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Look at this finished run instead: what optimizer.recording.save(FILE.json) "
            "wrote, of a run with DenoGrad(..., record=10).",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Look into a denoiser: which features of a layer drive which of its coefficients.

    Trains small models on tables that scikit-learn ships, for some seconds, and watches the
    denoiser; or takes the recording of a run of yours. Draws what it sees, says it in words,
    and gives the numbers.
    """
    import torch

    from denograd._inspection_report import findings, write_report
    from denograd.audit import RecordingError
    from denograd.inspection import InspectionError, readable, sensitivity

    reference = {"--builtin": builtin, "--models": models, "--rows": rows, "--steps": steps}
    threads = torch.get_num_threads()
    with clear_errors(InspectionError, RecordingError, OSError):
        given = [flag for flag, value in reference.items() if value not in (None, [])]
        if run is not None and given:
            raise UsageError(
                f"{', '.join(given)} is about reference trainings; leave it out with --run"
            )
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out}: it is a file; name a folder, which may be new")
        inside = readable(denoiser)
        # Models this small are several times slower on several threads.
        torch.set_num_threads(1)
        try:
            if run is None:
                subject, recordings = _reference(denoiser, builtin, models, rows, steps)
            else:
                subject, recordings = _recorded(run)
            answers = sensitivity(inside, [log for logs in recordings.values() for log in logs])
        finally:
            torch.set_num_threads(threads)
        found = findings(subject, answers, recordings)
        files = write_report(out, denoiser, found, answers, recordings)
    OUTPUT.print(_table(found))
    OUTPUT.print(found.subject, highlight=False)
    OUTPUT.print(f"In words: {files[-2]}. Numbers: {files[-1]}", soft_wrap=True)
    OUTPUT.print(f"Pictures: {', '.join(str(path) for path in files[:-2])}", soft_wrap=True)


def _reference(
    denoiser: str,
    builtin: list[str] | None,
    models: str | None,
    rows: int | None,
    steps: int | None,
) -> tuple[str, Recordings]:
    """Train the reference models, with a progress bar."""
    from denograd.inspection import MODELS, ROWS, STEPS, by_model, reference_runs, tables_for

    tables = builtin or list(tables_for(denoiser))
    named = list(MODELS)
    if models is not None:
        named = [name.strip() for name in models.split(",") if name.strip()]
    rows, steps = ROWS if rows is None else rows, STEPS if steps is None else steps
    progress = Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=NOTES,
    )
    with progress:
        task = progress.add_task("reference trainings", total=len(tables) * len(named))

        def finished(name: str) -> None:
            progress.advance(task)

        runs = reference_runs(denoiser, tables, named, rows=rows, steps=steps, progress=finished)
    subject = (
        f"Seen in {len(runs)} reference trainings: {', '.join(named)} on {rows} rows each of "
        f"{', '.join(tables)}, {steps} steps."
    )
    return subject, by_model(runs)


def _recorded(path: Path) -> tuple[str, Recordings]:
    from denograd.audit import AuditLog

    log = AuditLog.read(path)
    steps = sorted({entry.step for entry in log.entries})
    layers = {name for entry in log.entries for name in entry.layers}
    subject = (
        f"Seen in {path}: {len(steps)} recorded steps of a run, {len(layers)} layers."
        if steps
        else f"{path} is empty."
    )
    return subject, {path.stem: [log]}


def _table(found: Findings) -> RichTable:
    from denograd._inspection_words import figure, moved_by

    table = RichTable("coefficient", "as a rule", "10 % to 90 %", "moved most by")
    for c in found.coefficients:
        table.add_row(
            c["name"],
            figure(c["median"]),
            f"{figure(c['low'])} to {figure(c['high'])}",
            moved_by(c, most=2).replace("; ", "\n"),
        )
    return table
