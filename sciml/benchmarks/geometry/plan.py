"""The cases of the suite `geometry` at each size, and the figures that it is to reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ..linear.peers import RUGE_STUBEN, SMOOTHED_AGGREGATION
from ..row import Rows
from ..suite import Case, Figure, Plan
from . import coefficients, meshes, nonlinear, scans


@dataclass(frozen=True)
class Extent:
    """How large the cases are at one size; numbers of cells along an axis."""

    contrast: int
    seeds: int
    stretched: int
    ratios: tuple[int, ...]
    anisotropic: int
    voxels: Sequence[int]
    outside: int
    assembled: Sequence[tuple[int, ...]]
    tetrahedra: int
    newton: int


_MEDIUM = Extent(
    contrast=421,
    seeds=5,
    stretched=256,
    ratios=(2, 4, 8, 16, 32),
    anisotropic=256,
    voxels=(128, 256),
    outside=96,
    assembled=((224, 224), (30, 30, 30)),
    tetrahedra=58,
    newton=512,
)
EXTENTS = {
    "tiny": Extent(
        contrast=31,
        seeds=2,
        stretched=32,
        ratios=(2, 4),
        anisotropic=24,
        voxels=(16,),
        outside=12,
        assembled=((12, 12), (4, 4, 4)),
        tetrahedra=6,
        newton=24,
    ),
    "small": Extent(
        contrast=211,
        seeds=3,
        stretched=256,
        ratios=(2, 8, 32),
        anisotropic=128,
        voxels=(64, 128),
        outside=32,
        assembled=((224, 224), (16, 16, 16)),
        tetrahedra=30,
        newton=128,
    ),
    "medium": _MEDIUM,
    "large": Extent(
        contrast=1023,
        seeds=5,
        stretched=1024,
        ratios=(2, 8, 32, 128),
        anisotropic=1024,
        voxels=(128, 256, 512),
        outside=512,
        assembled=((1000, 1000), (118, 118, 118)),
        tetrahedra=118,
        newton=1024,
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
    yield Case(coefficients.rough_case(n), partial(coefficients.measure_rough, n))
    name = coefficients.stretched_case(extent.stretched)
    yield Case(name, partial(coefficients.measure_stretched, extent.stretched, extent.ratios))
    for angle in ANGLES:
        name = coefficients.anisotropic_case(extent.anisotropic, angle)
        yield Case(name, partial(coefficients.measure_anisotropic, extent.anisotropic, angle))
    for n in extent.voxels:
        yield Case(scans.voxels_case(n), partial(scans.measure_voxels, n))
    yield Case(scans.outside_case(extent.outside), partial(scans.measure_outside, extent.outside))
    for shape in extent.assembled:
        yield Case(meshes.assembly_case(shape), partial(meshes.measure_assembly, shape))
    yield Case(meshes.tetrahedra_case(extent.tetrahedra), partial(meshes.measure_tetrahedra, extent.tetrahedra))
    for dimension in (2, 3):
        yield Case(meshes.orders_case(dimension), partial(meshes.measure_orders, dimension))
    yield Case(nonlinear.newton_case(extent.newton), partial(nonlinear.measure_newton, extent.newton))
    yield Case(nonlinear.GRADIENT, nonlinear.measure_gradient)


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


def _error(case: str, method: str, rows: Rows) -> float | None:
    return rows.one(case, method).error


def _ratio(case: str, method: str, peers: Sequence[str], rows: Rows) -> float | None:
    return rows.ratio(case, method, peers)


def _solve_share(case: str, method: str, peer: str, rows: Rows) -> float | None:
    own, other = (rows.one(case, name).solve_seconds for name in (method, peer))
    return None if own is None or other is None else own / other


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
    yield Figure(what, 0.01, "number", partial(_error, scans.voxels_case(256), scans.VOXELIZE))
    case = meshes.assembly_case((224, 224))
    reached = partial(_solve_share, case, meshes.ASSEMBLY, meshes.SKFEM)
    yield Figure(f"{case}, over scikit-fem's Basis and assemble", 1 / 6, "share", reached)
    reached = partial(_solve_share, case, meshes.KEPT, meshes.SKFEM_KEPT)
    yield Figure(f"{case}, pattern kept, over scikit-fem's assemble", 1 / 5, "share", reached)
    case = meshes.tetrahedra_case(58)
    reached = partial(_ratio, case, meshes.OWN, [SMOOTHED_AGGREGATION, RUGE_STUBEN])
    yield Figure(f"{case}, over the quicker of pyamg's two", 1.0, "times", reached)
    for dimension in (2, 3):
        case = meshes.orders_case(dimension)
        for norm, order in (("L2", 2), ("H1", 1)):
            yield Figure(f"{case}, distance to {order} in {norm}", 0.1, "number", partial(_error, case, norm))
    case = nonlinear.newton_case(512)
    yield Figure(f"Newton steps, {case}", 6, "count", partial(_iterations, case, nonlinear.NEWTON))
    reached = partial(_ratio, case, nonlinear.NEWTON, [nonlinear.LINEAR])
    yield Figure(f"{case}, over one linear solve", 15, "times", reached)
    reached = partial(_error, nonlinear.GRADIENT, nonlinear.NEWTON)
    yield Figure(f"{nonlinear.GRADIENT} against finite differences", 1e-6, "number", reached)


FIGURES = tuple(_figures())
