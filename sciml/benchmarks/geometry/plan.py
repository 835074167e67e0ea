"""The cases of the suite `geometry` at each size, and the figures that it is to reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ..linear.peers import RUGE_STUBEN, SMOOTHED_AGGREGATION
from ..row import Rows
from ..suite import Case, Figure, Plan
from . import coefficients, scans


@dataclass(frozen=True)
class Extent:
    """How large the cases are at one size; numbers of cells along an axis."""

    contrast: int
    seeds: int
    stretched: int
    ratios: tuple[int, ...]
    anisotropic: int
    voxels: Sequence[int]


_MEDIUM = Extent(contrast=421, seeds=5, stretched=256, ratios=(2, 4, 8, 16, 32), anisotropic=256, voxels=(128, 256))
EXTENTS = {
    "tiny": Extent(contrast=31, seeds=2, stretched=32, ratios=(2, 4), anisotropic=24, voxels=(16,)),
    "small": Extent(contrast=211, seeds=3, stretched=256, ratios=(2, 8, 32), anisotropic=128, voxels=(64, 128)),
    "medium": _MEDIUM,
    "large": Extent(
        contrast=1023, seeds=5, stretched=1024, ratios=(2, 8, 32, 128), anisotropic=1024, voxels=(128, 256, 512)
    ),
}
ANGLES = (0.0, 30.0)


def plan(size: str, device: str) -> Plan:
    """The cases at a size on a device, and all figures; those of other sizes are then not measured."""
    return Plan(tuple(_cases(EXTENTS[size])), FIGURES)


def _cases(extent: Extent) -> Iterator[Case]:
    n, seeds = extent.contrast, extent.seeds
    yield Case(coefficients.thresholded_case(n), partial(coefficients.measure_thresholded, n, seeds))
    yield Case(coefficients.blocks_case(n), partial(coefficients.measure_blocks, n, seeds))
    name = coefficients.stretched_case(extent.stretched)
    yield Case(name, partial(coefficients.measure_stretched, extent.stretched, extent.ratios))
    for angle in ANGLES:
        name = coefficients.anisotropic_case(extent.anisotropic, angle)
        yield Case(name, partial(coefficients.measure_anisotropic, extent.anisotropic, angle))
    for n in extent.voxels:
        yield Case(scans.voxels_case(n), partial(scans.measure_voxels, n))


# The figures


def _iterations(case: str, method: str, rows: Rows) -> float | None:
    return rows.one(case, method).iterations


def _over_fewest(case: str, peers: Sequence[str], rows: Rows) -> float | None:
    own = rows.one(case, coefficients.OWN).iterations
    others = [rows.one(case, peer).iterations for peer in peers]
    fewest = min((count for count in others if count), default=None)
    return None if own is None or fewest is None else own / fewest


def _seconds(case: str, rows: Rows) -> float | None:
    return rows.one(case, scans.VOXELIZE).solve_seconds


def _error(case: str, rows: Rows) -> float | None:
    return rows.one(case, scans.VOXELIZE).error


def _figures() -> Iterator[Figure]:
    case = coefficients.thresholded_case(421)
    yield Figure(f"iterations, {case}, at most", 12, "count", partial(_iterations, case, coefficients.MOST))
    case = coefficients.blocks_case(421)
    reached = partial(_over_fewest, case, [RUGE_STUBEN])
    yield Figure(f"iterations, {case}, over Ruge-Stuben + CG", 2, "times", reached)
    case = coefficients.stretched_case(256)
    yield Figure(f"iterations, {case}, at most", 12, "count", partial(_iterations, case, coefficients.MOST))
    case = coefficients.anisotropic_case(256, 0.0)
    yield Figure(f"iterations, {case}", 12, "count", partial(_iterations, case, coefficients.OWN))
    case = coefficients.anisotropic_case(256, 30.0)
    reached = partial(_over_fewest, case, [RUGE_STUBEN, SMOOTHED_AGGREGATION])
    yield Figure(f"iterations, {case}, over the fewer of pyamg's two", 2, "times", reached)
    yield Figure(scans.voxels_case(128), 2.0, "seconds", partial(_seconds, scans.voxels_case(128)))
    what = f"volume of the cells inside, {scans.voxels_case(256)}, relative error"
    yield Figure(what, 0.01, "number", partial(_error, scans.voxels_case(256)))


FIGURES = tuple(_figures())
