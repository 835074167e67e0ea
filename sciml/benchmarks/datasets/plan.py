"""The cases of the suite `datasets` at each size, and the figures that it is to reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from ..evolution.one_core import ENVIRONMENT
from ..linear.peers import RUGE_STUBEN
from ..row import Rows
from ..suite import Case, Figure, Plan
from . import darcy


@dataclass(frozen=True)
class Extent:
    """How large the cases are at one size.

    Args:
        generation: samples by cells along an axis.
        kinds: cells and samples of the other kinds of coefficients.
    """

    generation: Mapping[int, int]
    kinds: tuple[int, int]


_MEDIUM = Extent(generation={64: 64, 128: 64, 256: 16, 422: 8, 512: 8}, kinds=(256, 16))
EXTENTS = {
    "tiny": Extent(generation={16: 3}, kinds=(16, 3)),
    "small": Extent(generation={64: 32, 128: 16, 256: 4}, kinds=(128, 8)),
    "medium": _MEDIUM,
    "large": _MEDIUM,
}
ON_GPU = Extent(generation={128: 256, 256: 256}, kinds=(256, 64))

_GOALS = {64: 3.0, 128: 6.0, 256: 6.0}  # times as many samples a second as SuperLU
_SAMPLE_ON_GPU = 1e-3  # seconds


def plan(size: str, device: str) -> Plan:
    """The cases at a size on a device, and all figures; those of other sizes are then not measured."""
    extent = ON_GPU if device == "cuda" and size != "tiny" else EXTENTS[size]
    return Plan(tuple(_cases(extent, device)), FIGURES[device])


def _cases(extent: Extent, device: str) -> Iterator[Case]:
    environment = {} if device == "cuda" else ENVIRONMENT
    for n, samples in extent.generation.items():
        yield Case(darcy.generation_case(n), partial(darcy.measure_generation, n, samples), environment)
    n, samples = extent.kinds
    yield Case(darcy.kinds_case(n), partial(darcy.measure_kinds, n, samples), environment)


# The figures


def _share(n: int, peer: str, rows: Rows) -> float | None:
    return rows.ratio(darcy.generation_case(n), darcy.OWN, [peer])


def _seconds_per_sample(n: int, rows: Rows) -> float | None:
    row = rows.one(darcy.generation_case(n), darcy.OWN)
    if row.device != "cuda" or row.total_seconds is None:
        return None
    return row.total_seconds / float(row.extra["samples"])


def _cpu_figures() -> Iterator[Figure]:
    for n, goal in _GOALS.items():
        what = f"{darcy.generation_case(n)}, over SuperLU with its default ordering"
        yield Figure(what, 1 / goal, "share", partial(_share, n, darcy.SUPERLU))
    what = f"{darcy.generation_case(128)}, over pyamg Ruge-Stuben + CG"
    yield Figure(what, 1.0, "share", partial(_share, 128, RUGE_STUBEN))


def _gpu_figures() -> Iterator[Figure]:
    what = f"{darcy.generation_case(256)}, on an H200, a sample"
    yield Figure(what, _SAMPLE_ON_GPU, "seconds", partial(_seconds_per_sample, 256))


FIGURES = {"cpu": tuple(_cpu_figures()), "cuda": tuple(_gpu_figures())}
