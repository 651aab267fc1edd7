"""Mistakes of the person at the command line, and how programs report them."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from experiments import PROJECT


class UserError(Exception):
    """A mistake the user can mend: one line that says what is wrong and what to do about it."""


def one_line(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())


def check_copy(program: str) -> None:
    """Raise UserError for a program of another copy of this project, whose own modules it would not import."""
    project = Path(program).resolve().parent.parent
    if os.path.isfile(project / Path(__file__).relative_to(PROJECT)) and not project.samefile(PROJECT):
        raise UserError(
            f"{program} would run the code of another copy of the project, {PROJECT}, which is the one that is "
            f"installed: use the Python of its own .venv, or set PYTHONPATH={project}"
        )


def reported(main: Callable[..., int]) -> Callable[..., int]:
    """`main` of a script, which returns 2 behind a line about its UserError, 141 when nobody reads what it prints."""

    @functools.wraps(main)
    def reporting(*arguments: list[str] | None) -> int:
        try:
            check_copy(sys.argv[0])
            status = main(*arguments)
            sys.stdout.flush()
            return status
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except BrokenPipeError:
            if not output_closed():
                raise
            return 128 + signal.SIGPIPE

    return reporting


def output_closed() -> bool:
    """Whether the reader of standard output has left, as `head` does; then the rest goes nowhere."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
