"""Whole solves against other libraries, and iterations counted over many problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from sciml.solvers.linear import ConjugateGradient, Multigrid

from ..bench import Bench
from ..row import Row
from ..timing import Contender, Outcome
from .kernels import solve_bandwidth
from .peers import MULTIGRID_CG, RUGE_STUBEN, SMOOTHED_AGGREGATION, own, pyamg_cg
from .problems import Problem, darcy, poisson, voxels
from .synchronisation import count_synchronisations

LOOP = "CG + Multigrid, one after the other"
WORST = "CG + Multigrid, most iterations of all"

# Larger ones are left to the GPU alone: pyamg would take minutes and tens of gigabytes for each run.
_LARGEST_FOR_PEERS = 20_000_000
_LARGEST_FOR_CPU_PEERS_BESIDE_A_GPU = 3_000_000


def multigrid_cg(tolerance: float) -> ConjugateGradient:
    """The method that all of this is about."""
    return ConjugateGradient(preconditioner=Multigrid(), rtol=tolerance)


def poisson_case(shape: Sequence[int]) -> str:
    """Name of the case."""
    return f"Poisson {size(shape)} to 1e-8"


def voxel_case(n: int) -> str:
    """Name of the case."""
    return f"{size((n,) * 3)} voxels, 12 solid boxes, to 1e-6"


def darcy_case(n: int) -> str:
    """Name of the case."""
    return f"two-valued Darcy {size((n, n))} to 1e-8"


def boxes_case(dimension: int, tolerance: float) -> str:
    """Name of the case."""
    return f"boxes in {dimension}D to {tolerance:.0e}"


def batch_case(count: int, n: int) -> str:
    """Name of the case."""
    return f"{count} systems {size((n, n))} to 1e-8"


def size(shape: Sequence[int]) -> str:
    """A shape in words."""
    return "x".join(str(n) for n in shape)


def solve_poisson(shape: Sequence[int], peers: Sequence[str], bench: Bench) -> list[Row]:
    """Set-up and solve to 1e-8."""
    problem = poisson(shape, bench.device)
    rows = against_pyamg(poisson_case(shape), problem, peers, 1e-8, bench)
    rows[0] = solve_bandwidth(rows[0], problem, bench)
    if bench.device == "cuda":
        prepared = multigrid_cg(1e-8).prepare(problem.operator)
        count = count_synchronisations(partial(prepared.solve, problem.b, throw=False))
        rows[0] = replace(rows[0], extra={**rows[0].extra, "synchronisations": count})
    return rows


def solve_voxels(n: int, seeds: int, bench: Bench) -> list[Row]:
    """One set of random boxes timed, several counted."""
    case = voxel_case(n)
    rows = against_pyamg(case, voxels(n, bench.device), [SMOOTHED_AGGREGATION, RUGE_STUBEN], 1e-6, bench)
    problems = {f"seed {seed}": partial(voxels, n, bench.device, seed) for seed in range(seeds)}
    return [*rows, _most_iterations(case, problems, 1e-6, bench)]


def solve_darcy(n: int, seeds: int, bench: Bench) -> list[Row]:
    """One random coefficient timed; several counted, both with random right sides and with f = 1."""
    case = darcy_case(n)
    rows = against_pyamg(case, darcy(n, bench.device), [RUGE_STUBEN, SMOOTHED_AGGREGATION], 1e-8, bench)
    problems = {
        f"seed {seed}, f {'= 1' if smooth else 'random'}": partial(darcy, n, bench.device, [seed], smooth)
        for seed in range(seeds)
        for smooth in (False, True)
    }
    return [*rows, _most_iterations(case, problems, 1e-8, bench)]


def count_on_boxes(shapes: Sequence[Sequence[int]], tolerance: float, bench: Bench) -> list[Row]:
    """Iterations on boxes of many sizes with zero on all sides."""
    problems = {size(shape): partial(poisson, shape, bench.device) for shape in shapes}
    return [_most_iterations(boxes_case(len(shapes[0]), tolerance), problems, tolerance, bench)]


def solve_batch(count: int, n: int, bench: Bench) -> list[Row]:
    """Systems with different coefficients as one batch, against a loop over them."""
    problem = darcy(n, bench.device, range(count))
    solver = multigrid_cg(1e-8)
    together = own(problem, MULTIGRID_CG, solver)
    parts = [Problem(problem.operator[row], problem.b[row]) for row in range(count)]

    def finish(solutions: Any) -> Outcome:
        most = max(int(solution.statistics["iterations"]) for solution in solutions)
        return Outcome(torch.stack([solution.value for solution in solutions]), most)

    apart = replace(
        together,
        method=LOOP,
        prepare=lambda: [solver.prepare(part.operator) for part in parts],
        solve=lambda prepared: [one.solve(part.b, throw=False) for one, part in zip(prepared, parts, strict=True)],
        finish=finish,
    )
    return bench.compare(
        batch_case(count, n),
        [together, apart],
        unknowns=problem.unknowns,
        residual=problem.relative_residual,
        tolerance=1e-8,
    )


def against_pyamg(case: str, problem: Problem, peers: Sequence[str], tolerance: float, bench: Bench) -> list[Row]:
    """Multigrid-CG, timed against pyamg's methods where they would not take all day."""
    contenders: list[Contender] = [own(problem, MULTIGRID_CG, multigrid_cg(tolerance))]
    largest = _LARGEST_FOR_CPU_PEERS_BESIDE_A_GPU if bench.device == "cuda" else _LARGEST_FOR_PEERS
    if problem.unknowns <= largest:
        contenders += [pyamg_cg(problem, method, tolerance) for method in peers]
    return bench.compare(
        case, contenders, unknowns=problem.unknowns, residual=problem.relative_residual, tolerance=tolerance
    )


def _most_iterations(case: str, problems: Mapping[str, Callable[[], Problem]], tolerance: float, bench: Bench) -> Row:
    """A row without times: multigrid-CG on many problems, the most iterations and the largest residual of them."""
    solver = multigrid_cg(tolerance)
    counts: dict[str, int] = {}
    residuals = []
    most = 0
    for name, make in problems.items():
        bench.say(f"{case}: iterations on {name}")
        problem = make()
        solution = solver.solve(problem.operator, problem.b, throw=False)
        counts[name] = int(solution.statistics["iterations"])
        residuals.append(problem.relative_residual(solution.value))
        most = max(most, problem.unknowns)
    worst = max(residuals)
    return bench.row(
        case,
        WORST,
        unknowns=most,
        iterations=max(counts.values()),
        relative_residual=worst,
        extra={"tolerance": tolerance, "missed": not worst <= 1.01 * tolerance, "iterations_by_problem": counts},
    )
