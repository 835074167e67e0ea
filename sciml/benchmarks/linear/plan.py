"""The cases of the suite `linear` at each size, and the figures that it is to reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ..row import Rows
from ..suite import Case, Figure, Plan
from . import gradients, kernels, manufactured, solves, table
from .peers import MULTIGRID_CG, RUGE_STUBEN, SCIPY_CG, SMOOTHED_AGGREGATION

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Extent:
    """How large the cases are at one size; numbers of cells along an axis."""

    apply: Sequence[int]
    iterations: tuple[int, int]  # cells, iterations
    planes: Sequence[int]
    cubes: Sequence[int]
    boxes: Sequence[Sequence[Shape]]
    voxels: int
    darcy: int
    seeds: int
    batch: tuple[int, int]  # systems, cells
    tables: Sequence[Shape]


def _squares(*cells: int) -> list[Shape]:
    return [(n, n) for n in cells]


def _cubes(*cells: int) -> list[Shape]:
    return [(n, n, n) for n in cells]


_ALL_PLANES = [
    *_squares(31, 32, 33, 47, 50, 63, 64, 90, 100, 127, 128, 150, 200, 255, 256, 300, 341, 400, 500),
    *_squares(511, 512, 600, 700, 777, 850, 900, 1000, 1023),
    *[(31, 1023), (64, 500), (333, 777), (1000, 127)],
]
_ALL_CUBES = [*_cubes(31, 32, 40, 47, 50, 63, 64, 75, 90, 100, 111, 127), (31, 64, 127), (127, 100, 33)]

_MEDIUM = Extent(
    apply=(1024, 4096),
    iterations=(1023, 100),
    planes=(1023,),
    cubes=(127,),
    boxes=(_ALL_PLANES, _ALL_CUBES),
    voxels=64,
    darcy=421,
    seeds=5,
    batch=(16, 63),
    tables=((255, 255), (63, 63, 63)),
)
EXTENTS = {
    "tiny": Extent(
        apply=(64,),
        iterations=(63, 10),
        planes=(63,),
        cubes=(15,),
        boxes=(_squares(31, 40), _cubes(8, 11)),
        voxels=12,
        darcy=31,
        seeds=2,
        batch=(3, 31),
        tables=((31, 31),),
    ),
    "small": Extent(
        apply=(1024,),
        iterations=(511, 100),
        planes=(511,),
        cubes=(63,),
        boxes=(_squares(31, 64, 100, 255, 341), _cubes(31, 40, 63)),
        voxels=64,
        darcy=211,
        seeds=3,
        batch=(16, 63),
        tables=((127, 127), (31, 31, 31)),
    ),
    "medium": _MEDIUM,
    "large": Extent(
        apply=(1024, 4096, 8192),
        iterations=_MEDIUM.iterations,
        planes=(1023, 4096),
        cubes=(127, 256),
        boxes=_MEDIUM.boxes,
        voxels=_MEDIUM.voxels,
        darcy=_MEDIUM.darcy,
        seeds=10,
        batch=_MEDIUM.batch,
        tables=_MEDIUM.tables,
    ),
}


def plan(size: str, device: str) -> Plan:
    """The cases at a size on a device, and all figures; those of other sizes are then not measured."""
    return Plan(tuple(_cases(EXTENTS[size], device)), FIGURES[device])


def _cases(extent: Extent, device: str) -> Iterator[Case]:
    for n in extent.apply:
        yield Case(kernels.apply_case(n, True), partial(kernels.apply, n, True))
    if device == "cpu":
        for n in extent.apply:
            name = kernels.apply_case(n, False)
            yield Case(name, partial(kernels.apply, n, False), kernels.WITHOUT_KERNELS)
    yield Case(kernels.iterations_case(*extent.iterations), partial(kernels.iterations, *extent.iterations))
    for n in extent.planes:
        peers = [RUGE_STUBEN, SMOOTHED_AGGREGATION]
        yield Case(solves.poisson_case((n, n)), partial(solves.solve_poisson, (n, n), peers))
    cubes = [*extent.cubes, 256] if device == "cuda" and 127 in extent.cubes else extent.cubes
    for n in dict.fromkeys(cubes):
        cube = (n, n, n)
        yield Case(solves.poisson_case(cube), partial(solves.solve_poisson, cube, [SMOOTHED_AGGREGATION]))
    for boxes in extent.boxes:
        for tolerance in (1e-6, 1e-10):
            name = solves.boxes_case(len(boxes[0]), tolerance)
            yield Case(name, partial(solves.count_on_boxes, boxes, tolerance))
    yield Case(solves.voxel_case(extent.voxels), partial(solves.solve_voxels, extent.voxels, extent.seeds))
    yield Case(solves.darcy_case(extent.darcy), partial(solves.solve_darcy, extent.darcy, extent.seeds))
    yield Case(solves.batch_case(*extent.batch), partial(solves.solve_batch, *extent.batch))
    for order in (2, 4):
        yield Case(manufactured.orders_case(order), partial(manufactured.measure_orders, order))
    yield Case(gradients.GRADIENTS, gradients.measure_gradients)
    for shape in extent.tables:
        yield Case(table.table_case(shape), partial(table.compare_all, shape))


# The figures


def _time_of_copies(n: int, compiled: bool, rows: Rows) -> float | None:
    case, method = kernels.apply_case(n, compiled), kernels.COMPILED if compiled else kernels.SLICES
    return _quotient(rows.one(case, method).solve_seconds, rows.one(case, kernels.COPY).solve_seconds)


def _iteration_of_scipy(n: int, count: int, rows: Rows) -> float | None:
    case = kernels.iterations_case(n, count)
    per = [rows.one(case, method).extra.get("seconds_per_iteration") for method in (kernels.PLAIN_CG, SCIPY_CG)]
    return _quotient(*per)


def _quotient(own: float | None, other: float | None) -> float | None:
    return None if own is None or other is None else own / other


def _ratio(case: str, method: str, peers: Sequence[str], rows: Rows) -> float | None:
    return rows.ratio(case, method, peers)


def _most(cases: Sequence[str], rows: Rows) -> float | None:
    return max(rows.one(case, solves.WORST).iterations or 0 for case in cases)


def _error(case: str, method: str, rows: Rows) -> float | None:
    return rows.one(case, method).error


def _seconds(case: str, rows: Rows) -> float | None:
    row = rows.one(case, MULTIGRID_CG)
    return row.solve_seconds if row.device == "cuda" else None


def _bandwidth_note(case: str, rows: Rows) -> str:
    row = rows.one(case, MULTIGRID_CG)
    parts = [f"set-up {1e3 * (row.setup_seconds or 0):.0f} ms apart"]
    if "bytes_per_second" in row.extra:
        achieved, limit = row.extra["bytes_per_second"] / 1e12, row.extra["copy_bytes_per_second"] / 1e12
        parts.append(f"{achieved:.2f} of {limit:.2f} TB/s")
    if "synchronisations" in row.extra:
        parts.append(f"{row.extra['synchronisations']} waits for {row.iterations} iterations")
    return ", ".join(parts)


def _cpu_figures() -> Iterator[Figure]:
    for n in (1024, 4096):
        for compiled in (True, False):
            words = "compiled kernel" if compiled else "torch operations"
            what = f"one 5-point apply {n}x{n}, {words}, over copying the field"
            yield Figure(what, 2.5 if compiled else 6.0, "times", partial(_time_of_copies, n, compiled))
    what = "an iteration of CG 1023x1023 over scipy's cg with a CSR matrix"
    yield Figure(what, 0.35, "times", partial(_iteration_of_scipy, 1023, 100))
    shares = [
        (solves.poisson_case((1023, 1023)), "pyamg Ruge-Stuben + CG", 22, [RUGE_STUBEN]),
        (solves.poisson_case((127, 127, 127)), "pyamg smoothed aggregation + CG", 40, [SMOOTHED_AGGREGATION]),
        (solves.voxel_case(64), "pyamg smoothed aggregation + CG", 8, [SMOOTHED_AGGREGATION]),
        (solves.darcy_case(421), "the quicker of pyamg's two", 6, [RUGE_STUBEN, SMOOTHED_AGGREGATION]),
    ]
    for case, peer, share, peers in shares:
        yield Figure(
            f"multigrid-CG, {case}, over {peer}", 1 / share, "share", partial(_ratio, case, MULTIGRID_CG, peers)
        )


def _iteration_figures() -> Iterator[Figure]:
    for tolerance, goal in ((1e-6, 6), (1e-10, 9)):
        cases = [solves.boxes_case(dimension, tolerance) for dimension in (2, 3)]
        yield Figure(f"iterations on boxes to {tolerance:.0e}, at most", goal, "count", partial(_most, cases))
    for case in (solves.voxel_case(64), solves.darcy_case(421)):
        yield Figure(f"iterations, {case}, at most", 9, "count", partial(_most, [case]))
    case = solves.batch_case(16, 63)
    yield Figure(
        "a batch of 16 systems 63x63 over a loop", 1 / 5, "share", partial(_ratio, case, MULTIGRID_CG, [solves.LOOP])
    )


def _truth_figures() -> Iterator[Figure]:
    for order in (2, 4):
        reached = partial(_error, manufactured.orders_case(order), f"order {order}")
        yield Figure(f"measured order of convergence, distance to {order}", 0.1, "number", reached)
    for method in (gradients.FIRST, gradients.SECOND):
        reached = partial(_error, gradients.GRADIENTS, method)
        yield Figure(f"adjoint gradients against finite differences, {method}", 1e-6, "number", reached)


def _gpu_figures() -> Iterator[Figure]:
    for shape, goal in (((1023, 1023), 0.020), ((256, 256, 256), 0.150)):
        case = solves.poisson_case(shape)
        note = partial(_bandwidth_note, case)
        yield Figure(f"multigrid-CG, {case}, on an H200", goal, "seconds", partial(_seconds, case), note)


FIGURES = {
    "cpu": (*_cpu_figures(), *_iteration_figures(), *_truth_figures()),
    "cuda": (*_gpu_figures(), *_iteration_figures(), *_truth_figures()),
}
