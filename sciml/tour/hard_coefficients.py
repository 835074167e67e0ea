"""Section: coefficients that jump by a million, unequal spacings, tensors that point across the grid."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sciml.solvers.linear import ConjugateGradient, Jacobi, Multigrid
from sciml.solvers.linear.base import LinearSolver
from sciml.solvers.solve import solve

from ..benchmarks.linear.problems import Problem, gaussian_field, random_right_side
from ..boundary import Dirichlet
from ..equations import Equation
from ..grid import Grid
from ..solution import Solution
from ..stencil import StencilOperator
from . import figures
from .chapter import Chapter, Section, system_of

Method = LinearSolver | None


def solve_rock(a: Tensor, f: Tensor | float, method: Method = None) -> Solution:
    """The cells are those of the coefficient, on the unit square."""
    equation = Equation("-div(a*grad(u)) = f")
    square = Grid(tuple(a.shape), boundary=Dirichlet(0.0))
    fields = {"a": a, "f": f}
    return solve(equation, square, fields=fields, method=method, throw=False)


def solve_fibres(angle: Tensor, f: Tensor, method: Method = None) -> Solution:
    """Heat goes 100 times better along fibres at an angle to x than across."""
    equation = Equation("-div([p*u_x + q*u_y, q*u_x + r*u_y]) = f")
    square = Grid(tuple(f.shape), boundary=Dirichlet(0.0))
    c, s = angle.cos(), angle.sin()
    tensor = {"p": 100 * c * c + s * s, "q": 99 * c * s, "r": 100 * s * s + c * c}
    fields = {**tensor, "f": f}
    return solve(equation, square, fields=fields, method=method, throw=False)


def write(chapter: Chapter, quick: bool) -> None:
    cells = 105 if quick else 211  # no powers of two, which geometric multigrid likes best
    rocks = {"two values": _two_values(cells), "blocks": _blocks(cells)}
    _show_rocks(chapter, rocks["blocks"])
    _show_fibres(chapter, cells)
    _compare(chapter, rocks, cells, 300 if quick else 500)


def _two_values(cells: int) -> Tensor:
    return torch.where(gaussian_field((cells, cells), 0) > 0, 1e6, 1.0).to(torch.float64)


def _blocks(cells: int) -> Tensor:
    """10 to a power between -3 and 3, drawn for each block of 8 x 8 cells."""
    generator = torch.Generator().manual_seed(0)
    exponents = 6 * torch.rand(-(-cells // 8), -(-cells // 8), generator=generator, dtype=torch.float64) - 3
    return (10**exponents).repeat_interleave(8, 0).repeat_interleave(8, 1)[:cells, :cells]


def _turning(cells: int) -> Tensor:
    """Fibres in waves, radians."""
    x, y = Grid((cells, cells)).coordinates
    return 0.9 * torch.cos(2.5 * math.pi * x + 0.5) * torch.cos(0.8 * math.pi * (y - 0.5))


def _show_rocks(chapter: Chapter, blocks: Tensor) -> None:
    solution = solve_rock(blocks, 1.0)
    square = system_of(solution).domain
    speed = _flux(square, blocks, solution.value)
    out = -sum(float(solution.flux(side)) for side in square.boundaries)
    decades = (1e-3, 1e-1, 1e1, 1e3)
    low, high = (float(speed.quantile(share)) for share in (0.02, 0.998))
    chapter.say(
        "Multigrid in its simplest form, and with it most simple solvers, fails where a coefficient jumps by orders of "
        "magnitude, where cells are much longer than wide, and where a tensor points across the grid. First a jump by "
        "up to a million between random blocks."
    )
    chapter.equation(system_of(solution).equation)
    chapter.code(solve_rock)
    chapter.pictures(
        f"Random blocks on {square.shape[0]} x {square.shape[1]} cells: the coefficient, the solution for a source of "
        "1 everywhere, and the flux |a grad u|, which runs where there is a way through well-conducting blocks. "
        "Coefficient and flux in logarithmic colours.",
        (
            figures.map_figure(
                square, blocks, title="a", colours="cividis", logarithmic=True, limits=(1e-3, 1e3), ticks=decades
            ),
            "map of blocks of very different brightness",
        ),
        (figures.map_figure(square, solution.value, title="u"), "map of the solution, constant in many blocks"),
        (
            figures.map_figure(
                square,
                speed.clamp(low, high),
                title="|a grad u|",
                colours="magma",
                logarithmic=True,
                ticks=(1e-3, 1e-2, 1e-1, 1, 1e1),
            ),
            "map of the flux along ways between the blocks",
        ),
    )
    chapter.claim(
        f"The source, 1 in all, flows out through the four sides: {out:.9f}, off by {abs(out - 1):.1e}.",
        abs(out - 1) <= 1e-6,
    )
    chapter.numbers["imbalance"] = abs(out - 1)


def _flux(square: Grid, a: Tensor, u: Tensor) -> Tensor:
    """|a grad u| from the fluxes through the faces of a cell, with the harmonic means that the scheme takes there."""
    parts = []
    for axis, spacing in enumerate(square.spacing):
        one, other = a.narrow(axis, 0, a.shape[axis] - 1), a.narrow(axis, 1, a.shape[axis] - 1)
        inner = 2 * one * other / (one + other) * u.diff(dim=axis) / spacing
        first, last = (2 * (a * u).narrow(axis, place, 1) / spacing for place in (0, a.shape[axis] - 1))
        faces = torch.cat([first, inner, -last], axis)
        parts.append(0.5 * (faces.narrow(axis, 0, a.shape[axis]) + faces.narrow(axis, 1, a.shape[axis])))
    return torch.stack(parts).norm(dim=0)


def _show_fibres(chapter: Chapter, cells: int) -> None:
    grid = Grid((cells, cells))
    x, y = grid.coordinates
    angles = {"at 30 degrees": torch.full_like(x, math.pi / 6), "in waves": _turning(cells)}
    panels, lengths = [], []
    for name, angle in angles.items():
        spot = torch.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.04**2)
        solution = solve_fibres(angle, spot)
        panels.append((_fibres(grid, solution, angle, f"fibres {name}"), f"a spot drawn out along fibres {name}"))
        if name == "at 30 degrees":
            equation = system_of(solution).equation
            half = solution.value >= 0.5 * solution.value.max()
            c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
            for part in (c * (x - 0.5) + s * (y - 0.5), c * (y - 0.5) - s * (x - 0.5)):
                lengths.append(float(part[half].max() - part[half].min()))
    along, across = lengths
    chapter.say(
        "Next a composite that conducts a hundred times better along its fibres than across: the coefficient is a "
        "tensor, turned against the axes of the grid, and it may turn from place to place."
    )
    chapter.equation(equation)
    chapter.code(solve_fibres)
    chapter.pictures(
        f"The temperature that a hot spot makes in the middle; thin lines are fibres. On the left it is above half of "
        f"its peak over a length of {along:.2f} along the fibres and {across:.2f} across.",
        *panels,
    )
    chapter.numbers["lengths"] = lengths


def _compare(chapter: Chapter, rocks: Mapping[str, Tensor], cells: int, most: int) -> None:
    """Iterations of three methods on the same matrices with the same random right sides; simple ones stop at `most`."""
    noise = random_right_side((cells, cells), "cpu")
    straight = torch.zeros(cells, cells, dtype=torch.float64)
    runs: dict[str, Callable[[LinearSolver], Solution]] = {
        "jumps by 1e6, two values": partial(solve_rock, rocks["two values"], noise),
        "jumps by 1e6, blocks": partial(solve_rock, rocks["blocks"], noise),
    }
    for ratio in (2, 8, 32):
        shape = (256, 256 // ratio)
        ones, thin = torch.ones(shape, dtype=torch.float64), random_right_side(shape, "cpu")
        runs[f"spacings {ratio} to 1"] = partial(solve_rock, ones, thin)
    fibres = {"along x": straight, "at 30 degrees": straight + math.pi / 6, "in waves": _turning(cells)}
    for name, angle in fibres.items():
        runs[f"fibres {name}"] = partial(solve_fibres, angle, noise)

    peer = importlib.util.find_spec("pyamg") is not None
    rows, worst = [], 0.0
    counts: dict[str, dict[str, int]] = {}
    for name, run in runs.items():
        simple = run(ConjugateGradient(preconditioner=Jacobi(), max_iterations=most))
        solution = run(ConjugateGradient(preconditioner=Multigrid()))
        problem = _problem(solution)
        worst = max(worst, problem.relative_residual(solution.value))
        counts[name] = {"Jacobi": _count(simple), "multigrid": _count(solution)}
        if peer:
            counts[name]["Ruge-Stuben"], theirs = _ruge_stuben(problem)
            worst = max(worst, theirs)
        theirs_too = [str(counts[name]["Ruge-Stuben"])] if peer else []
        simply = str(counts[name]["Jacobi"]) if bool(simple.converged) else f"over {most:,}"
        rows.append([name, str(counts[name]["multigrid"]), *theirs_too, simply, f"{problem.unknowns:,}"])
    head = ["problem", "multigrid", *(["Ruge-Stüben (pyamg)"] if peer else []), "Jacobi", "unknowns"]
    chapter.say(
        "The same in numbers, with Poisson's equation on 256 x 128, 32 and 8 cells of the unit square for unequal "
        "spacings, and numbers of cells that are no powers of two elsewhere, since geometric multigrid likes those. "
        "How many iterations do conjugate gradients take to a residual of 1e-8? With Jacobi's preconditioner; with the "
        "geometric multigrid that `solve` chooses by itself, which coarsens only where the coupling is strong and "
        "interpolates by the operator; "
        + (
            "and with the algebraic multigrid of Ruge and Stüben as pyamg has it, on the same matrix with the same "
            "right side of random numbers."
            if peer
            else "with random right sides. The comparison with the algebraic multigrid of pyamg is left out, since it "
            "is not installed here; `pip install 'sciml-torch[demo]'` brings it."
        )
    )
    chapter.table(
        head,
        rows,
        "Iterations are not seconds: one of pyamg's works with a matrix on one thread, one of ours without. How long "
        "methods take is compared in the last section. " + (_verdict(counts) if peer else ""),
    )
    aligned = [each["multigrid"] for name, each in counts.items() if name.startswith(("spacings", "fibres along"))]
    chapter.claim(
        f"Where only two values, unequal spacings or fibres along an axis are the difficulty, multigrid takes at most "
        f"12 iterations: here {max(*aligned, counts['jumps by 1e6, two values']['multigrid'])}.",
        max(*aligned, counts["jumps by 1e6, two values"]["multigrid"]) <= 12,
    )
    if peer:
        over = max(each["multigrid"] / each["Ruge-Stuben"] for each in counts.values())
        chapter.claim(
            f"Nowhere does it take more than twice as many as Ruge-Stüben: at most {over:.2f} times as many.",
            over <= 2,
        )
    chapter.claim(
        f"The residuals, computed afresh by numpy, are at most {worst:.1e} of the right sides.", worst <= 1.01e-8
    )
    chapter.headline = f"at most {max(each['multigrid'] for each in counts.values())} iterations of multigrid" + (
        f", {max(each['Ruge-Stuben'] for each in counts.values())} of pyamg's Ruge-Stüben" if peer else ""
    )
    chapter.numbers |= {"iterations": counts, "residual": worst, "compared_with_pyamg": peer}


def _count(solution: Solution) -> int:
    return int(solution.statistics["iterations"])


def _problem(solution: Solution) -> Problem:
    """The discrete system of a solution, as other libraries take it."""
    system = system_of(solution)
    if not isinstance(system.operator, StencilOperator):
        raise RuntimeError("the operator of a single unknown on a grid is a stencil")
    return Problem(system.operator, system.right_side)


def _ruge_stuben(problem: Problem) -> tuple[int, float]:
    """Iterations, and the residual afresh."""
    import pyamg

    norms: list[float] = []
    hierarchy: Any = pyamg.ruge_stuben_solver(problem.matrix)
    x = hierarchy.solve(problem.right_side, tol=1e-8, maxiter=500, accel="cg", residuals=norms)
    return len(norms) - 1, problem.relative_residual(x)


def _verdict(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Who needs fewer iterations how often."""
    ours = sum(each["multigrid"] < each["Ruge-Stuben"] for each in counts.values())
    theirs = sum(each["multigrid"] > each["Ruge-Stuben"] for each in counts.values())
    total = len(counts)
    return f"Of the {total} problems the geometric multigrid takes fewer iterations in {ours}, Ruge-Stüben in {theirs}."


def _fibres(grid: Grid, solution: Solution, angle: Tensor, title: str) -> Figure:
    figure = figures.map_figure(grid, solution.value, 4.3, title=title, colours="inferno")
    axes = figure.axes[0]
    x, y = (line.numpy() for line in grid.axis_coordinates)
    lines = axes.streamplot(
        x, y, angle.cos().T.numpy(), angle.sin().T.numpy(), density=0.7, color="white", linewidth=0.4, arrowstyle="-"
    )
    lines.lines.set_alpha(0.45)
    for arrow in list(axes.patches):
        arrow.remove()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return figure


SECTION = Section("hard-coefficients", "Where simple solvers fail", write)
