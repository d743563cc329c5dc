"""The `denograd` command."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as RichTable

from denograd import __version__
from denograd._cli_inspect import register as register_inspect
from denograd._console import (
    NOTES,
    OUTPUT,
    ManyValues,
    UsageError,
    clear_errors,
    examples,
    fail,
    note,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from denograd.data import Table
    from denograd.evaluation import EvaluationConfig
    from denograd.evaluation.journal import Restart

# The parts of the package are imported where they are used: a command that does not
# evaluate need not wait for scikit-learn, pandas and matplotlib.

app = typer.Typer(
    name="denograd",
    help="Meta-learned gradient denoising for interpretable models on small data.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)
_MODELS = (
    "soft_tree, soft_forest, attention, rule_net, additive_net, prototype_net, temporal_attention"
)
_RIVALS = (
    "adamw_default, adam_default, sgd, sgd_momentum, weight_average, schedule_free, lookahead, "
    "sam, lion, grokfast, gradient_centralisation, adabelief, muon, gsnr_element, gsnr_layer, "
    "sgdf, msvag, and_mask, rm3, evidence_stop"
)
_DEMO_TABLES = ("breast_cancer", "wine", "digits3")


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Meta-learned gradient denoising for interpretable models on small data."""
    if version:
        OUTPUT.print(f"denograd {__version__}", highlight=False)
        raise typer.Exit


@app.command(
    cls=ManyValues,
    epilog=examples(
        "denograd evaluate --data patients.csv --target outcome --out results",
        "denograd evaluate --data visits.csv --target outcome --group patient_id --out results",
        "denograd evaluate --data a.csv b.parquet --sizes 32,64 --seeds 10 --out results",
        "denograd evaluate --builtin wine iris --models soft_tree --out results",
        "denograd evaluate --data gait.csv --channels 3 --models temporal_attention --out results",
        "denograd evaluate --data a.csv --optimizers adamw,denograd:mine.safetensors --out new",
        "denograd evaluate --data tables/ --seeds 10 --backend ray --jobs 16 --out results",
    ),
)
def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for results; an interrupted run goes on.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="CSV or Parquet files, or folders of them.", metavar="FILE..."),
    ] = None,
    builtin: Annotated[
        list[str] | None,
        typer.Option(
            help="Tables that scikit-learn ships: breast_cancer, wine, iris, digits3; diabetes "
            "(regression).",
            metavar="NAME...",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Column to predict, classes or a number; default: the last.")
    ] = None,
    task: Annotated[
        str,
        typer.Option(help="classification, regression, or auto: what the target looks like."),
    ] = "auto",
    group: Annotated[
        str | None,
        typer.Option(
            help="Column that tells which rows belong together (a patient's number): they are "
            "never split between training and test, nor by the inner folds of what tunes itself "
            "(adamw_cv, models outside torch)."
        ),
    ] = None,
    channels: Annotated[
        int,
        typer.Option(
            help="Rows are sequences of so many channels, and the columns their steps, channel by "
            "channel (for --models temporal_attention; others take each step for a column)."
        ),
    ] = 0,
    models: Annotated[
        str, typer.Option(help=f"Models, with commas between: {_MODELS}.")
    ] = "soft_tree,attention",
    optimizers: Annotated[
        str,
        typer.Option(
            help="Optimizers, with commas between: adamw (the control, tuned on other tables), "
            "adamw_cv (tuned on each table anew: 48 more trainings a run), denograd, "
            "denograd:NAME (default, regression, sequences, history) or denograd:PATH for another "
            "denoiser than the one for the kind of target, or a rival, tuned as the control was, "
            "but at 32 and 128 rows and for classes alone, or, as NAME:default, as it comes: "
            f"{_RIVALS}."
        ),
    ] = "adamw,denograd",
    sizes: Annotated[
        str,
        typer.Option(
            help="Numbers of training rows, with commas between; test rows are those that the "
            "largest leaves over."
        ),
    ] = "32,64,128",
    seeds: Annotated[
        int,
        typer.Option(
            help="Number of seeds; ten or more make the means of a table steady. A verdict that "
            "holds beyond your tables takes six tables or more."
        ),
    ] = 5,
    steps: Annotated[int, typer.Option(help="Optimizer steps of each run.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Rows of a batch.")] = 32,
    engine: Annotated[
        str,
        typer.Option(
            help="batched: all seeds in one stack; loop: one at a time, the same results but for "
            "rounding, which DenoGrad on few rows can amplify to percents of a run's loss."
        ),
    ] = "batched",
    context: Annotated[
        bool,
        typer.Option(
            "--context/--no-context",
            help="Also fit models outside torch, such as boosting and a random forest.",
        ),
    ] = True,
    jobs: Annotated[int, typer.Option(help="Processes; -1: one a core.")] = -1,
    backend: Annotated[
        str,
        typer.Option(
            help="Where they run: loky (this machine), ray or dask (a cluster), sequential."
        ),
    ] = "loky",
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what the folder holds of a run before.")
    ] = False,
) -> None:
    """Compare optimizers on your own small data.

    Every optimizer gets the same initial weights, batches and rows. Writes report.html,
    results.csv, summary.json and learning curves to the folder. If it is interrupted,
    start it again with the same arguments: it goes on where it stopped.
    """
    from denograd.data import builtin_table
    from denograd.evaluation import EvaluationConfig

    with clear_errors():
        if bool(data) == bool(builtin):
            raise UsageError("give either --data FILE... or --builtin NAME..., and not both")
        if builtin and target is not None:
            raise UsageError("--target is for --data; the built-in tables have their own target")
        if builtin and group is not None:
            raise UsageError("--group is for --data; no row of a built-in table belongs to another")
        if builtin and channels:
            raise UsageError("--channels is for --data; the built-in tables hold no sequences")
        if channels < 0:
            raise UsageError(f"--channels {channels}; give the number of channels of a sequence")
        config = EvaluationConfig(
            tuple(_names(models)),
            tuple(_names(optimizers)),
            tuple(_numbers("--sizes", sizes)),
            seeds,
            steps,
            batch_size,
            engine,
            context,
        )
        if data:
            tables, optional = _read(data, target, task, group, channels)
        else:
            tables, optional = [builtin_table(name) for name in builtin or []], set()
        _evaluate(tables, config, out, jobs, backend, restart, optional)


@app.command(epilog=examples("denograd demo", "denograd demo --out pictures --jobs 2"))
def demo(
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("denograd-demo"),
    jobs: Annotated[int, typer.Option(help="Processes; -1: one a core.")] = -1,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what the folder holds of a run before.")
    ] = False,
) -> None:
    """See the default denoiser against a tuned AdamW, in under three minutes.

    Trains a soft tree and an attention model on three real tables that scikit-learn
    ships, none of which the denoiser was meta-trained on. Started again, it goes on where
    it stopped, or starts anew if the denoiser or the control changed since.
    """
    from denograd.data import builtin_table
    from denograd.evaluation import EvaluationConfig

    with clear_errors():
        tables = [builtin_table(name) for name in _DEMO_TABLES]
        _evaluate(tables, EvaluationConfig(), out, jobs, "loky", restart or "changed")


@app.command(
    "meta-train",
    cls=ManyValues,
    epilog=examples(
        "denograd meta-train --tasks prior --minutes 30 --out my-denoiser",
        "denograd meta-train --tasks prior hospital-tables/ --target outcome --out my-denoiser",
        "denograd meta-train --tasks a.csv b.csv --models soft_tree --steps 500 --out my-denoiser",
        "denograd meta-train --tasks prior doses/ --task regression --steps 500 --out my-denoiser",
        "denograd meta-train --tasks prior --minutes 60 --out my-denoiser --resume",
        "torchrun --nproc-per-node 2 -m denograd.meta --tasks prior --steps 1000 --out my-denoiser",
    ),
)
def meta_train(
    tasks: Annotated[
        list[str],
        typer.Option(
            help="'prior' for synthetic tasks, CSV or Parquet files, folders of them.",
            metavar="prior|PATH...",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the denoiser.")],
    target: Annotated[
        str | None, typer.Option(help="Column to predict; default: the last.")
    ] = None,
    task: Annotated[
        str,
        typer.Option(help="classification, or regression for targets that are measured."),
    ] = "classification",
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Stop after so many meta-steps; default, without --minutes: 1000."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the folder.")
    ] = False,
    models: Annotated[
        str,
        typer.Option(help=f"Models to meta-train on, with commas between: {_MODELS}."),
    ] = "soft_tree,attention",
    estimator: Annotated[
        str, typer.Option(help="Of the meta-gradient: truncated, full, es or pes.")
    ] = "truncated",
    engine: Annotated[
        str, typer.Option(help="That runs the inner loops: batched, torchopt or higher.")
    ] = "batched",
    task_count: Annotated[int, typer.Option(help="Tasks in a meta-step.")] = 24,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many meta-validations without a better one."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Meta-train a denoiser on synthetic tasks, your own tables, or both.

    Ctrl-C, or a kill, loses no more than the last minute: start again with --resume.
    Several processes, on one machine or many, share the work when torchrun starts them.
    """
    from denograd.meta import MetaTrainingError

    with clear_errors(MetaTrainingError, OSError):
        if minutes is not None and steps is not None:
            raise UsageError("give --minutes or --steps, not both")
        from denograd.meta.cli import run_meta_training

        run_meta_training(
            tasks=tasks,
            out=out,
            target=target,
            task=task,
            minutes=minutes,
            steps=steps,
            seed=seed,
            resume=resume,
            models=_names(models),
            task_count=task_count,
            estimator=estimator,
            engine=engine,
            patience=patience,
            device=device,
        )


@app.command(
    epilog=examples(
        "denograd denoisers", "denograd denoisers default", "denograd denoisers hf://owner/name"
    )
)
def denoisers(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Show the whole card of this one: a name, a path, or a repository of the Hugging "
            "Face Hub, hf://OWNER/NAME."
        ),
    ] = None,
) -> None:
    """List the denoisers that come with the package, or show the card of one.

    For each shipped one, the list says where it should and should not be used.
    """
    from denograd.base import settings_by_model
    from denograd.denoisers import read_card, shipped_denoisers
    from denograd.models.registry import KNOWN_MODELS

    with clear_errors(ValueError):
        if name is not None:
            OUTPUT.print_json(data=read_card(name))
            return
        advice = []
        table = RichTable("name", "kind", "weights", "meta-steps", "minutes", "made with")
        for shipped in shipped_denoisers():
            if shipped == "identity":
                table.add_row("identity", "leaves every gradient as it is", "0", "-", "-", "-")
                continue
            card = read_card(shipped)
            training = card["training"]
            weights = sum(math.prod(shape) for shape in card["tensors"].values())
            table.add_row(
                shipped,
                card["kind"],
                str(weights),
                str(training.get("meta_steps", "-")),
                str(training.get("minutes", "-")),
                f"denograd {card['denograd_version']}",
            )
            for key, words in (("intended_use", "use it for"), ("not_for", "don't use it for")):
                if card.get(key):
                    advice.append(f"{shipped}, {words}: {card[key]}")
            bases = settings_by_model(shipped, [None, *sorted(KNOWN_MODELS)])
            common = bases.pop(None)
            own = {m: base["lr"] for m, base in bases.items() if base != common}
            rates = "".join(f", {m} {rate:g}" for m, rate in own.items())
            advice.append(
                f"{shipped}, base: {common['name']} with a rate of {common['lr']:g}{rates}"
            )
        OUTPUT.print(table)
        for line in advice:
            OUTPUT.print(line, markup=False, highlight=False)
        OUTPUT.print("denograd denoisers NAME shows the whole card.")


register_inspect(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; where the installed script starts.

    Args:
        arguments: what was typed after ``denograd``; default: what the shell handed over.
    """
    app(arguments, prog_name="denograd")


def _evaluate(
    tables: list[Table],
    config: EvaluationConfig,
    out: Path,
    jobs: int,
    backend: str,
    restart: bool | Restart,
    optional: Collection[str] = (),
) -> None:
    from denograd.evaluation import evaluate as run
    from denograd.evaluation import results_table, verdict
    from denograd.evaluation.html.phrases import few

    done = run(
        tables,
        config,
        out,
        jobs=jobs,
        backend=backend,
        restart=restart,
        optional=optional,
        command=shlex.join(["denograd", *sys.argv[1:]]),
        console=NOTES,
    )
    if len(done.results):
        OUTPUT.print(results_table(done.summary))
        for sentence in verdict(done.summary):
            OUTPUT.print(sentence, markup=False, highlight=False)
    if done.report:
        _say(f"Report: {done.report}")
    _say(f"Results: {done.folder}/results.csv, {done.folder}/summary.json")
    if done.pictures:
        _say(f"Pictures: {few(done.pictures, 6)}")
    if done.errors:
        fail(
            f"{len(done.errors)} cells failed; {done.folder}/errors.csv says why. "
            "Run the same command to try them again.",
            code=1,
        )


def _say(line: str) -> None:
    """Print paths as they are, however long."""
    OUTPUT.print(line, markup=False, soft_wrap=True)


def _read(
    paths: list[Path], target: str | None, task: str, group: str | None, channels: int
) -> tuple[list[Table], set[str]]:
    """Tables of files and folders, and names of those that came from a folder.

    Only a folder's files may be unreadable, or of no use.
    """
    from denograd.data import TableError, check_task, read_tables

    tables, errors = read_tables(paths, target, check_task(task), group, channels)
    # The same file may be named and lie in a named folder, under two spellings.
    named = {path.resolve() for path in paths}
    for path, message in errors.items():
        if Path(path).resolve() in named:
            raise TableError(message)
        note(f"left out: {message}")
    if not tables:
        folders = ", ".join(sorted(map(str, paths)))
        raise TableError(
            f"{folders}: none of the files there can be used, the notes say why; give others"
        )
    return tables, {t.name for t in tables if t.path and t.path.resolve() not in named}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(name) for name in _names(text)]
    except ValueError:
        raise UsageError(f"{option} is {text!r}; give whole numbers with commas between") from None
