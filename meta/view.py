"""What one sees of a running meta-training: a live panel, or a line now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from denograd.meta.checkpoint import Progress
from denograd.meta.trainer import MetaTrainer

LINE_SECONDS = 30.0
"""Time between lines where the output is no terminal."""


def clock(seconds: float) -> str:
    """Seconds as hours, minutes and seconds.

    Example:
        >>> clock(4000), clock(59.6)
        ('1:06:40', '0:01:00')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


class View:
    """Shows a trainer's progress while it runs.

    Figures of single meta-steps jump about, because each has tasks of its own, so their
    running means are shown.

    Args:
        trainer: what is watched.
        console: where to draw; a terminal gets a live panel, anything else plain lines.
    """

    def __init__(self, trainer: MetaTrainer, console: Console) -> None:
        self.trainer, self.console = trainer, console
        self.means: dict[str, float] = {}
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None
        self._spoken = time.monotonic()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, progress: Progress, figures: dict[str, float]) -> None:
        """Take in the figures of a meta-step."""
        for name, value in figures.items():
            before = self.means.get(name, value)
            self.means[name] = before + 0.1 * (value - before)
        if self._live:
            self._live.update(self.panel(progress))
        elif time.monotonic() - self._spoken > LINE_SECONDS or self.trainer.fraction() >= 1:
            self._spoken = time.monotonic()
            text = "  ".join(f"{name} {value}" for name, value in self.rows(progress))
            self.console.print(text, highlight=False, soft_wrap=True)

    def time_left(self, progress: Progress) -> float:
        """Seconds to the end, as far as the past tells."""
        share = self.trainer.fraction()
        return progress.elapsed * (1 - share) / share if share > 0 else 0.0

    def rows(self, progress: Progress) -> list[tuple[str, str]]:
        """What is shown: names and values."""
        config, means = self.trainer.config, self.means
        step = f"{progress.step:,}" + (f" of {config.steps:,}" if config.steps else "")
        left_out = progress.left_out / max(progress.tasks, 1)
        rows = [
            ("meta-step", step),
            ("meta-loss", f"{means['meta_loss']:+.4f}"),
            ("held-out loss at the end", f"{means['final_loss']:.4f}"),
            ("tasks left out", f"{progress.left_out:,} ({left_out:.1%})"),
            ("task-steps per second", f"{means['task_steps_per_second']:,.0f}"),
        ]
        if progress.history:
            last = progress.history[-1]
            rows.append(
                (
                    "meta-validation, loss / control",
                    f"{last['ratio']:.3f} at meta-step {last['step']:,} "
                    f"(best {progress.best:.3f}; {last['wins']:.0%} of cells won)",
                )
            )
        elif self.trainer.validation is not None:
            rows.append(("meta-validation", f"first after {config.validate_every:,} meta-steps"))
        rows.append(("time", f"{clock(progress.elapsed)}, {clock(self.time_left(progress))} left"))
        return rows

    def panel(self, progress: Progress) -> RenderableType:
        """The live panel."""
        table = Table.grid(padding=(0, 2))
        for name, value in self.rows(progress):
            table.add_row(f"[dim]{name}[/dim]", value)
        bar = ProgressBar(total=1.0, completed=self.trainer.fraction())
        return Panel(Group(table, bar), title=f"meta-training into {self.trainer.out}")
