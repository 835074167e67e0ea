"""The cases of the suite `learned` at each size, and the figures that it is to reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ..linear.peers import MULTIGRID_CG, RUGE_STUBEN, SMOOTHED_AGGREGATION
from ..row import Row, Rows
from ..suite import BOUND, Case, Figure, Plan
from .methods import CG, DEEP, IC, LEARNED, V_CYCLE
from .problems import ALONG, BOX, COEFFICIENTS, GEOMETRIES, INCLUSIONS, REGIONS
from .solves import TIMED, TOLERANCES, case_of, measure


@dataclass(frozen=True)
class Extent:
    """How large the cases are at one size; numbers of cells along an axis.

    Args:
        cubes, squares: of the problems that no training has seen.
        boxes: cubes of the class of problems that the directions were trained for.
    """

    cubes: Sequence[int]
    squares: Sequence[int]
    boxes: Sequence[int]


EXTENTS = {
    "tiny": Extent((12,), (24,), (12,)),
    "small": Extent((32,), (128,), (32,)),
    "medium": Extent((64,), (512,), (32, 64)),
    "large": Extent((128,), (1024,), (64, 128)),
}


def plan(size: str, device: str) -> Plan:
    """The cases and the figures at a size on a device; with tiny problems, which say nothing of the figures, those of
    medium ones, which are then not measured."""
    extent = EXTENTS[size]
    if device == "cuda" and size == "large":
        extent = Extent((*extent.cubes, 256), extent.squares, extent.boxes)
    return Plan(tuple(_cases(extent)), tuple(figures(EXTENTS["medium"] if size == "tiny" else extent)))


def _problems(extent: Extent) -> Iterator[tuple[str, tuple[int, ...]]]:
    for n in extent.cubes:
        for name in (*GEOMETRIES, *COEFFICIENTS):
            yield name, (n, n, n)
    for n in extent.squares:
        for name in COEFFICIENTS:
            yield name, (n, n)
    for n in extent.boxes:
        yield BOX, (n, n, n)


def _cases(extent: Extent) -> Iterator[Case]:
    for name, shape in _problems(extent):
        for tolerance in TOLERANCES:
            yield Case(case_of(name, shape, tolerance), partial(measure, name, shape, tolerance), BOUND)


def figures(extent: Extent) -> Iterator[Figure]:
    """What is to be reached on the problems of an extent."""
    for n in extent.cubes:
        for name in (*GEOMETRIES, *COEFFICIENTS):
            case = case_of(name, (n, n, n), TIMED)
            what = f"learned multigrid, {case}, iterations over"
            yield Figure(
                f"{what} CG's", 1 / 3, "share", partial(_iterations, case, LEARNED, CG), partial(_counts, case)
            )
            yield Figure(f"{what} IC(0)'s", 1.0, "times", partial(_iterations, case, LEARNED, IC))
    for shape in (*[(n, n, n) for n in extent.cubes], *[(n, n) for n in extent.squares]):
        for name in (INCLUSIONS, ALONG, REGIONS):
            case = case_of(name, shape, TIMED)
            for peer, methods in (
                ("the quicker geometric cycle", (MULTIGRID_CG, V_CYCLE)),
                ("the quicker of pyamg's two", (RUGE_STUBEN, SMOOTHED_AGGREGATION)),
            ):
                what = f"learned multigrid, {case}, set-up and solve over {peer}"
                yield Figure(what, 1.0, "times", partial(_seconds, case, methods))
    for n in extent.boxes:
        case = case_of(BOX, (n, n, n), 1e-4)
        what = f"deep conjugate directions, {case}, iterations over CG's"
        yield Figure(what, 1 / 5, "share", partial(_iterations, case, DEEP, CG))
    if {64, 128} <= set(extent.boxes):
        large, small = (case_of(BOX, (n, n, n), 1e-4) for n in (128, 64))
        what = "deep conjugate directions, iterations at 128x128x128 over those at 64x64x64, to 1e-4"
        yield Figure(what, 1.5, "times", partial(_growth, large, small))


def _iterations(case: str, method: str, peer: str, rows: Rows) -> float | None:
    """None where the method missed the tolerance; a peer that did would have needed more iterations still."""
    found, other = rows.one(case, method), rows.one(case, peer)
    return None if found.missed else _quotient(found, other)


def _counts(case: str, rows: Rows) -> str:
    return ", ".join(f"{method} {rows.one(case, method).iterations}" for method in (LEARNED, CG, IC))


def _seconds(case: str, peers: Sequence[str], rows: Rows) -> float | None:
    return rows.ratio(case, LEARNED, peers)


def _growth(large: str, small: str, rows: Rows) -> float | None:
    found, other = rows.one(large, DEEP), rows.one(small, DEEP)
    return None if found.missed or other.missed else _quotient(found, other)


def _quotient(found: Row, other: Row) -> float | None:
    return found.iterations / other.iterations if found.iterations and other.iterations else None
