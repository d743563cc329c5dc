"""Where units run: in this process, in others, or on a cluster, by joblib.

Results come back as they are finished and are put on disk one by one. ray's joblib backend
hands results back a round at a time; rounds are as short as two units a worker then.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from denograd.evaluation.config import EvaluationError
from denograd.evaluation.journal import Journal
from denograd.evaluation.running_units import Outcome, Unit, run_unit

BACKENDS = ("loky", "ray", "dask", "sequential")
"""Names that `finish` takes: processes of this machine, clusters, or this process alone."""

_ROUND = 2
"""Units a worker in a round, where a backend hands back whole rounds."""


def check_backend(backend: str, jobs: int) -> None:
    """Raise an `EvaluationError` if units cannot be run like that.

    Example:
        >>> check_backend("loky", -1)
        >>> check_backend("threads", 2)
        Traceback (most recent call last):
        ...
        denograd.evaluation.config.EvaluationError: backend 'threads' is not known; use one of ...
    """
    if jobs == 0 or jobs < -1:
        raise EvaluationError(f"jobs={jobs}; use a number of processes, or -1 for one a core")
    if backend not in BACKENDS:
        raise EvaluationError(f"backend {backend!r} is not known; use one of {', '.join(BACKENDS)}")
    needed = {"ray": "ray.util.joblib", "dask": "distributed"}.get(backend)
    if needed is not None:
        _import(backend, needed)


def run_units(units: Iterable[Unit], jobs: int, backend: str) -> Generator[Outcome, None, None]:
    """Run units, and hand back what became of each as soon as it is known.

    Args:
        units: what to run; taken as workers get free.
        jobs: workers; -1 for one a core (on a cluster: all of its cores).
        backend: one of `BACKENDS`.
    """
    calls = (delayed(run_unit)(unit) for unit in units)
    if backend == "ray":
        yield from _run_on_ray(calls, jobs)
        return
    with ExitStack() as stack:
        if backend == "dask":
            stack.enter_context(_dask_client(jobs))
            # Left again before units are made: scikit-learn, too, would run what it does on the
            # cluster, and wait for itself in the thread that hands units out. Not an argument of
            # Parallel: joblib knows dask by parallel_config alone.
            with parallel_config(backend="dask", n_jobs=-1):
                parallel = Parallel(return_as="generator_unordered", batch_size=1)
        else:
            workers = 1 if backend == "sequential" else jobs
            kind = "loky" if workers != 1 else "sequential"
            parallel = Parallel(
                n_jobs=workers, backend=kind, return_as="generator_unordered", batch_size=1
            )
        # Closing the generator stops the workers when this process is interrupted.
        yield from stack.enter_context(closing(parallel(calls)))


def finish(
    units: Iterable[Unit],
    total: int,
    journal: Journal,
    *,
    jobs: int,
    backend: str,
    console: Console,
    note: Callable[[str], None],
) -> None:
    """Run units with a progress bar, and put each cell on disk when it is finished.

    Args:
        units: what to run.
        total: number of their cells.
        journal: where results go.
        jobs: workers; see `run_units`.
        backend: see `run_units`.
        console: for the bar and for what failed.
        note: says what a user should know; the same note is said once.

    Raises:
        EvaluationError: a worker process was killed.
    """
    if total == 0:
        return
    if backend == "ray":
        note("ray hands results back in rounds: what is finished is on disk after each round")
    progress = Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
    )
    said: set[str] = set()
    try:
        with progress, closing(run_units(units, min(jobs, total), backend)) as outcomes:
            task = progress.add_task("cells", total=total)
            for outcome in outcomes:
                for cell, result in outcome.cells:
                    if isinstance(result, str):
                        journal.append_error(cell, result)
                        console.print(f"failed: {cell}: {result}", style="red", markup=False)
                    else:
                        journal.append(cell, result)
                for message in outcome.notes:
                    if message not in said:
                        said.add(message)
                        note(message)
                progress.advance(task, len(outcome.cells))
    except TerminatedWorkerError as error:
        raise EvaluationError(
            f"{journal.folder}: a worker process was killed, perhaps for want of memory. "
            "Finished cells are kept: start again, with fewer --jobs if it happens again."
        ) from error


def _run_on_ray(calls: Iterator[Any], jobs: int) -> Iterator[Outcome]:
    ray = _import("ray", "ray")
    with _ray(ray, jobs):
        _import("ray", "ray.util.joblib").register_ray()
        workers = int(ray.cluster_resources()["CPU"]) if jobs == -1 else jobs
        # Without `parallel_config`, which scikit-learn would obey while units are made.
        with Parallel(n_jobs=workers, backend="ray", batch_size=1, pre_dispatch="all") as parallel:
            while batch := list(itertools.islice(calls, _ROUND * workers)):
                yield from parallel(batch)


@contextmanager
def _ray(ray: Any, jobs: int) -> Iterator[None]:
    """A ray to run on: the one that runs, the cluster of ``RAY_ADDRESS``, or a local one.

    One that was started here is shut down again.
    """
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" not in os.environ:
        cores = cpu_count() if jobs == -1 else jobs
        options |= {"num_cpus": cores, "include_dashboard": False}
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _dask_client(jobs: int) -> Iterator[Any]:
    """A dask client: of ``DASK_SCHEDULER_ADDRESS``, or of a local cluster of its own."""
    distributed = _import("dask", "distributed")
    if "DASK_SCHEDULER_ADDRESS" in os.environ:
        options: dict[str, Any] = {"address": os.environ["DASK_SCHEDULER_ADDRESS"]}
    else:
        cores = cpu_count() if jobs == -1 else jobs
        options = {
            "n_workers": cores,
            "threads_per_worker": 1,
            "dashboard_address": None,
            # A worker that is slow to end is no news to a user.
            "silence_logs": logging.ERROR,
        }
    with distributed.Client(**options) as client:
        yield client


def _import(backend: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EvaluationError(
            f"backend {backend!r} cannot be used ({error}); install it with: "
            "pip install 'denograd-optim[cluster]'"
        ) from error
