"""What a section of the tour leaves behind: texts, pictures and tables for the page, and the numbers they rest on."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from ..discretization import System
from ..elements import MeshSystem
from ..evolving import EvolvingSystem
from ..grid import Grid
from . import figures

if TYPE_CHECKING:
    from ..equations import Equation
    from ..solution import Solution


@dataclass(frozen=True)
class Paragraph:
    """Text in which `words between backticks` are code."""

    text: str


@dataclass(frozen=True)
class Formula:
    """An equation as it was written, and set in type: one SVG a line, with its LaTeX."""

    text: str
    lines: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Code:
    """The source of a function that ran."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Short labels with their values."""

    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Claim:
    """A statement that the run has checked."""

    text: str
    holds: bool


@dataclass(frozen=True)
class Pictures:
    """Panels side by side, each an SVG with a description for those who cannot see it, under one caption.

    `broad`: on a narrow screen they are scrolled rather than shrunk.
    """

    panels: tuple[tuple[bytes, str], ...]
    caption: str
    broad: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first of each its name; `strong` are the numbers of the rows to be marked."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    strong: frozenset[int] = frozenset()


Block = Paragraph | Formula | Code | Facts | Claim | Pictures | Table


class Chapter:
    """The blocks of one section in the order of the page, and its numbers.

    Attributes:
        blocks: what the page shows.
        numbers: what demo.json keeps: numbers, texts and lists of them.
        headline: one line on the result, for the contents of the page.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.numbers: dict[str, Any] = {}
        self.headline = ""

    @property
    def claims(self) -> list[Claim]:
        """The statements that were checked."""
        return [block for block in self.blocks if isinstance(block, Claim)]

    def say(self, text: str) -> None:
        """A paragraph; words between backticks are code."""
        self.blocks.append(Paragraph(" ".join(text.split())))

    def equation(self, equation: Equation) -> None:
        """An equation, as text and set in type."""
        lines = tuple((line, figures.formula(line)) for line in equation.latex_lines())
        self.blocks.append(Formula(str(equation), lines))

    def code(self, *functions: Callable[..., Any]) -> None:
        """The source of functions that this section runs."""
        self.blocks.append(Code("\n\n".join(textwrap.dedent(inspect.getsource(f)).strip() for f in functions)))

    def facts(self, entries: Mapping[str, str]) -> None:
        """Labels and values."""
        self.blocks.append(Facts(tuple(entries.items())))

    def claim(self, text: str, holds: bool) -> None:
        """A statement and whether it turned out true; a section with a false one counts as failed."""
        self.blocks.append(Claim(text, bool(holds)))

    def pictures(self, caption: str, *panels: tuple[Figure, str]) -> None:
        """Figures side by side, each with a description in words."""
        broad = any(figure.get_figwidth() > figures.HALF for figure, _ in panels)
        self.blocks.append(Pictures(tuple((figures.svg(figure), words) for figure, words in panels), caption, broad))

    def table(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, strong: Sequence[int] = ()
    ) -> None:
        """A table whose first column names the rows."""
        self.blocks.append(Table(tuple(head), tuple(tuple(row) for row in rows), caption, frozenset(strong)))


@dataclass(frozen=True)
class Section:
    """One part of the tour.

    Args:
        name: its key in demo.json and its anchor in the page.
        title: its heading.
        write: solves and fills a chapter; `write(chapter, quick)`, where quick asks for small sizes.
        needs: import names of libraries that not every installation has; without them the section is left out.
        extra: the extra of the distribution that brings those.
    """

    name: str
    title: str
    write: Callable[[Chapter, bool], None]
    needs: tuple[str, ...] = ()
    extra: str = "demo"


@dataclass
class Outcome:
    """What became of a section.

    Attributes:
        section: the section.
        chapter: what it wrote, up to where it failed if it did.
        status: "done", "failed" or "left out".
        reason: why it failed or was left out.
        seconds: how long it took.
    """

    section: Section
    chapter: Chapter = field(default_factory=Chapter)
    status: str = "done"
    reason: str = ""
    seconds: float = 0.0


def system_of(solution: Solution) -> System:
    """What a solution of a linear equation on a grid stands on.

    Raises:
        RuntimeError: for another solution.
    """
    if not isinstance(solution.system, System):
        raise RuntimeError("this solution does not belong to a linear equation on a grid")
    return solution.system


def mesh_system_of(solution: Solution) -> MeshSystem:
    """What a solution on a mesh stands on.

    Raises:
        RuntimeError: for another solution.
    """
    if not isinstance(solution.system, MeshSystem):
        raise RuntimeError("this solution does not belong to an equation on a mesh")
    return solution.system


def grid_of(solution: Solution) -> Grid:
    """Where a solution on a grid lives.

    Raises:
        RuntimeError: for another solution.
    """
    if not isinstance(solution.domain, Grid):
        raise RuntimeError("this solution does not belong to a grid")
    return solution.domain


def evolving_system_of(solution: Solution) -> EvolvingSystem:
    """What a solution that evolves stands on.

    Raises:
        RuntimeError: for another solution.
    """
    if not isinstance(solution.system, EvolvingSystem):
        raise RuntimeError("this solution does not belong to an evolving equation")
    return solution.system
