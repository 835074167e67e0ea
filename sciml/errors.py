"""The two exceptions that callers are meant to catch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .solution import Solution


class InputError(ValueError):
    """The input was refused; the message says what was wrong, where, and what would be right."""


class SolveError(RuntimeError):
    """A solve failed; `solution` holds what was reached, row by row."""

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution
