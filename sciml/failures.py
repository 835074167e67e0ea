"""How commands of the program say that something went wrong."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from .errors import InputError


@contextmanager
def failures() -> Iterator[None]:
    """Turn what can go wrong outside the program into one message and an exit code."""
    try:
        yield
    except InputError as error:
        complain(str(error))
        raise typer.Exit(2) from error
    except OSError as error:
        complain(f"{error.filename or 'file'}: {error.strerror or error}")
        raise typer.Exit(1) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("out of memory|allocate memory|enough memory", str(error)):
            raise
        complain("there is not enough memory for a problem of this size")
        raise typer.Exit(1) from error


@contextmanager
def remarks(quiet: bool) -> Iterator[list[str]]:
    """Warnings become lines of the program, and are kept."""
    said: list[str] = []

    def say(message: Warning | str, *_: object, **__: object) -> None:
        said.append(str(message))
        if not quiet:
            complain(f"note: {message}")

    with warnings.catch_warnings():
        # torch's remarks on the age of its sparse matrices say nothing to someone who runs a program.
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
        warnings.showwarning = say
        yield said


def complain(message: str) -> None:
    """Say it on the error stream."""
    print("\n".join(f"sciml: {line}" for line in message.splitlines()), file=sys.stderr)
