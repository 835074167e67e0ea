"""What a benchmark suite is: cases that give rows, and figures computed from all rows together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from .row import Rows

if TYPE_CHECKING:
    from .bench import Bench
    from .row import Row


BOUND: Mapping[str, str] = {"OMP_PROC_BIND": "true"}
"""Environment of cases in which methods of two threads take turns with others of one thread: of two threads that may
move, the one that has slept for seconds wakes on the core of the other, and shares it for some 50 milliseconds."""


class Size(StrEnum):
    """How large the problems are."""

    TINY = "tiny"
    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Device(StrEnum):
    """Where this package's methods run."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class Case:
    """One problem, with the methods that are timed on it in turn.

    Args:
        name: what is solved, the `case` of its rows.
        measure: does it, and returns one row a method.
        environment: variables to set before torch is loaded; cases that differ in them run in processes of their own.
    """

    name: str
    measure: Callable[[Bench], Sequence[Row]]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A number to reach, and how it follows from the rows.

    Args:
        what: the number in words.
        goal: what it should be at most.
        form: how it is written: "share" of a peer's time (0.04 is 1/25), "times" a peer's time, "count", "number" or
            "seconds".
        reached: the number, or None where its rows were not measured. A row that is missing is a LookupError, which
            means the same.
        note: what to say beside the number, or None.
    """

    what: str
    goal: float
    form: Literal["share", "times", "count", "number", "seconds"]
    reached: Callable[[Rows], float | None]
    note: Callable[[Rows], str] | None = None


@dataclass(frozen=True)
class Plan:
    """The cases of a suite at one size on one kind of device, and its figures there."""

    cases: tuple[Case, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Suite:
    """A named set of cases.

    Args:
        name: as the command line has it.
        summary: one line for people.
        plan: (size, device) -> Plan; loads what it needs when it is called.
        picture: rows -> the content of a PNG file, or None where there is nothing to draw; None if it has no picture.
    """

    name: str
    summary: str
    plan: Callable[[str, str], Plan]
    picture: Callable[[Sequence[Row]], bytes | None] | None = None
