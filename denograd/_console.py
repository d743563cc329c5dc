"""What the commands share: options with several values, notes, and clear errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperCommand

OUTPUT = Console()
NOTES = Console(stderr=True)


class ManyValues(TyperCommand):
    """Lets an option take several values after one flag: ``--data a.csv b.csv``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        many = {flag for option in self.params if option.multiple for flag in option.opts}
        rest: list[str] = super().parse_args(ctx, repeat_flags(args, many))
        return rest


def repeat_flags(args: list[str], many: set[str]) -> list[str]:
    """Put the flag in front of each of its values, for flags that take several.

    Example:
        >>> repeat_flags(["--data", "a", "b", "--seeds", "3"], {"--data"})
        ['--data', 'a', '--data', 'b', '--seeds', '3']
    """
    repeated: list[str] = []
    flag, has_value = "", False
    for position, token in enumerate(args):
        if token == "--":
            return repeated + args[position:]
        if token.startswith("-") and len(token) > 1:
            head, equals, _ = token.partition("=")
            flag, has_value = (head, bool(equals)) if head in many else ("", False)
        elif flag:
            if has_value:
                repeated.append(flag)
            has_value = True
        repeated.append(token)
    return repeated


def examples(*commands: str) -> str:
    """A help text's last part: commands to copy."""
    return "\n\n".join(["**Examples**", *(f"`{command}`" for command in commands)])


class UsageError(ValueError):
    """Arguments that do not go together."""


def note(message: str) -> None:
    """Print what a user should know, on standard error."""
    NOTES.print(f"note: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def fail(message: str, code: int) -> NoReturn:
    """Print what went wrong, on standard error, and end with an exit code."""
    NOTES.print(f"denograd: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def clear_errors(*more: type[Exception]) -> Iterator[None]:
    """Turn a user's mistakes into one message, and warnings about tables into notes.

    Only errors that are meant for users are caught, so that a bug keeps its traceback.
    An interruption ends with code 130 and the message it carries, or one of its own.
    """
    from denograd.baselines import BaselineError
    from denograd.data import TableError, TableWarning
    from denograd.denoisers import DenoiserFileError
    from denograd.evaluation import EvaluationError

    ours = (UsageError, TableError, BaselineError, DenoiserFileError, EvaluationError)
    expected: tuple[type[Exception], ...] = (*ours, *more)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", TableWarning)
            usual = warnings.showwarning

            def show(
                message: Warning | str, category: type[Warning], *rest: Any, **named: Any
            ) -> None:
                if issubclass(category, TableWarning):
                    note(str(message))
                else:
                    usual(message, category, *rest, **named)

            warnings.showwarning = show
            yield
    except expected as error:
        fail(str(error), code=2)
    except KeyboardInterrupt as error:
        fail(str(error) or "interrupted; what is finished is on disk", code=130)
