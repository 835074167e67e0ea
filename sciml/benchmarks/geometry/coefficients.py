"""Grid problems on which simple multigrid fails: high contrast, unequal spacings, anisotropic tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import cos, radians, sin

import torch
from torch import Tensor

from sciml.solvers.linear import AlgebraicMultigrid, ConjugateGradient

from ...boundary import Dirichlet
from ...discretization import discretize
from ...equations import Equation
from ...grid import Grid
from ...stencil import StencilOperator
from ..bench import Bench
from ..linear.peers import RUGE_STUBEN, SMOOTHED_AGGREGATION, own, pyamg_cg
from ..linear.problems import Problem, gaussian_field, random_right_side
from ..linear.solves import multigrid_cg
from ..row import Row

TOLERANCE = 1e-8
CONTRAST = 1e6
OWN = "CG + Multigrid"
MOST = "CG + Multigrid, most iterations of all"

DIFFUSION = Equation("-div(a*grad(u)) = f")
TENSOR = Equation("-div([p*u_x + q*u_y, q*u_x + s*u_y]) = f")


def thresholded(n: int, device: str, seed: int = 0) -> Problem:
    """a is CONTRAST where a smooth random field is positive and 1 elsewhere; zero on all sides, f random."""
    a = torch.where(gaussian_field((n, n), seed) >= 0, CONTRAST, 1.0).to(torch.float64)
    return _diffusion(a, device, seed)


def rough(n: int, device: str, seed: int = 0) -> Problem:
    """The same with a field whose correlation length is a two-hundredth of the side: about two cells of 421."""
    a = torch.where(gaussian_field((n, n), seed, shift=4e4, power=4.0) >= 0, CONTRAST, 1.0).to(torch.float64)
    return _diffusion(a, device, seed)


def blocks(n: int, device: str, seed: int = 0, width: int = 8) -> Problem:
    """a is constant on blocks of `width` x `width` cells, 10 to a power uniform in [-3, 3]."""
    generator = torch.Generator().manual_seed(seed)
    count = -(-n // width)
    exponents = 6 * torch.rand(count, count, generator=generator, dtype=torch.float64) - 3
    a = (10**exponents).repeat_interleave(width, 0).repeat_interleave(width, 1)[:n, :n]
    return _diffusion(a, device, seed)


def stretched(ratio: int, device: str, cells: int = 256, swapped: bool = False) -> Problem:
    """-laplacian(u) = f on the unit square with `cells` by `cells`/`ratio` cells."""
    shape = (cells // ratio, cells) if swapped else (cells, cells // ratio)
    grid = Grid(shape, boundary=Dirichlet(0.0), device=device)
    operator = _stencil(Equation("-laplacian(u) = f"), grid, {"f": 0.0})
    return Problem(operator, random_right_side(shape, device))


def anisotropic(n: int, angle: float, device: str, ratio: float = 100.0) -> Problem:
    """A tensor with eigenvalues `ratio` and 1, the first along an axis at `angle` degrees to x; zero on all sides."""
    c, s = cos(radians(angle)), sin(radians(angle))
    entries = {"p": ratio * c * c + s * s, "q": (ratio - 1.0) * c * s, "s": ratio * s * s + c * c}
    grid = Grid((n, n), boundary=Dirichlet(0.0), device=device)
    return Problem(_stencil(TENSOR, grid, {**entries, "f": 0.0}), random_right_side((n, n), device))


def _diffusion(a: Tensor, device: str, seed: int) -> Problem:
    shape = tuple(a.shape)
    grid = Grid(shape, boundary=Dirichlet(0.0), device=device)
    operator = _stencil(DIFFUSION, grid, {"a": a.to(device), "f": 0.0})
    return Problem(operator, random_right_side(shape, device, seed))


def _stencil(equation: Equation, grid: Grid, fields: Mapping[str, Tensor | float]) -> StencilOperator:
    operator = discretize(equation, grid, fields).operator
    if not isinstance(operator, StencilOperator):
        raise TypeError(f"{equation} on {grid} became {operator}")
    return operator


# The cases


def thresholded_case(n: int) -> str:
    """Name of the case."""
    return f"contrast {CONTRAST:.0e}, thresholded field {n}x{n}, to 1e-8"


def rough_case(n: int) -> str:
    """Name of the case."""
    return f"contrast {CONTRAST:.0e}, rough thresholded field {n}x{n}, to 1e-8"


def blocks_case(n: int) -> str:
    """Name of the case."""
    return f"contrast {CONTRAST:.0e}, blocks of 8x8 cells {n}x{n}, to 1e-8"


def stretched_case(cells: int) -> str:
    """Name of the case."""
    return f"unequal spacings, {cells} cells on the longer axis, to 1e-8"


def anisotropic_case(n: int, angle: float) -> str:
    """Name of the case."""
    return f"tensor 100:1 at {angle:g} degrees {n}x{n} to 1e-8"


def measure_thresholded(n: int, seeds: int, bench: Bench) -> list[Row]:
    """One field timed against pyamg, several counted."""
    return _measure(
        thresholded_case(n), {f"seed {s}": partial(thresholded, n, bench.device, s) for s in range(seeds)}, bench
    )


def measure_rough(n: int, bench: Bench) -> list[Row]:
    """A field too rough for geometric multigrid; `sciml.solve` leaves it to algebraic multigrid after 60 iterations."""
    problem = rough(n, bench.device)
    algebraic = ConjugateGradient(preconditioner=AlgebraicMultigrid(), rtol=TOLERANCE)
    contenders = [
        own(problem, "CG + AlgebraicMultigrid", algebraic),
        own(problem, OWN, multigrid_cg(TOLERANCE)),
        pyamg_cg(problem, RUGE_STUBEN, TOLERANCE),
    ]
    return bench.compare(
        rough_case(n), contenders, unknowns=problem.unknowns, residual=problem.relative_residual, tolerance=TOLERANCE
    )


def measure_blocks(n: int, seeds: int, bench: Bench) -> list[Row]:
    """The same for coefficients constant on blocks."""
    return _measure(blocks_case(n), {f"seed {s}": partial(blocks, n, bench.device, s) for s in range(seeds)}, bench)


def measure_stretched(cells: int, ratios: tuple[int, ...], bench: Bench) -> list[Row]:
    """Spacings of all ratios along either axis; the largest ratio timed against pyamg."""
    problems = {
        f"{ratio}:1{' along y' if swapped else ''}": partial(stretched, ratio, bench.device, cells, swapped)
        for ratio in reversed(ratios)
        for swapped in (False, True)
    }
    return _measure(stretched_case(cells), problems, bench)


def measure_anisotropic(n: int, angle: float, bench: Bench) -> list[Row]:
    """One tensor, timed against pyamg."""
    case = anisotropic_case(n, angle)
    return _measure(case, {"all": partial(anisotropic, n, angle, bench.device)}, bench)


def _measure(case: str, problems: Mapping[str, Callable[[], Problem]], bench: Bench) -> list[Row]:
    """The first problem timed against pyamg's two methods; the iterations of this package's on all."""
    first = next(iter(problems.values()))()
    contenders = [
        own(first, OWN, multigrid_cg(TOLERANCE)),
        *(pyamg_cg(first, method, TOLERANCE) for method in (RUGE_STUBEN, SMOOTHED_AGGREGATION)),
    ]
    rows = bench.compare(
        case, contenders, unknowns=first.unknowns, residual=first.relative_residual, tolerance=TOLERANCE
    )
    if len(problems) == 1:
        return rows
    solver = multigrid_cg(TOLERANCE)
    counts, worst = {}, 0.0
    for name, make in problems.items():
        bench.say(f"{case}: iterations on {name}")
        problem = make()
        solution = solver.solve(problem.operator, problem.b, throw=False)
        counts[name] = int(solution.statistics["iterations"])
        worst = max(worst, problem.relative_residual(solution.value))
    extra = {"tolerance": TOLERANCE, "missed": not worst <= 1.01 * TOLERANCE, "iterations_by_problem": counts}
    most = bench.row(
        case, MOST, unknowns=first.unknowns, iterations=max(counts.values()), relative_residual=worst, extra=extra
    )
    return [*rows, most]
