"""Section: preconditioners that were learned, on problems that no training has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sciml.solvers.linear import ConjugateGradient, Direct, IncompleteCholesky, Multigrid
from sciml.solvers.linear.base import LinearSolver, Preconditioner
from sciml.solvers.linear.learned import CoarseningNetwork, DeepConjugateDirection, LearnedMultigrid
from sciml.solvers.solve import solve

from ..benchmarks.learned.problems import BOX, COEFFICIENTS, GEOMETRIES, INCLUSIONS, SPHERES, make, without_pockets
from ..benchmarks.linear.problems import Problem, stencil_product
from ..boundary import Dirichlet, Neumann
from ..equations import Equation
from ..grid import Grid
from ..solution import Solution
from ..stencil import StencilOperator
from . import figures
from .chapter import Chapter, Section, system_of

CG, IC, GEOMETRIC = "CG", "CG + IC(0)", "CG + Multigrid"
LEARNED, UNTRAINED, RANDOM = "CG + LearnedMultigrid", "the same, untrained", "the same, random weights"
RTOL, TO_COMPARE = 1e-8, 1e-6


def solve_block(a: Tensor, solid: Tensor, method: LinearSolver) -> Solution:
    """Heat from x = 0 to x = 1, around what is solid and along what conducts."""
    equation = Equation("-div(a*grad(u)) = 0")
    ends, closed = (Dirichlet(1.0), Dirichlet(0.0)), Neumann(0.0)
    sides = {"x": ends, "y": closed, "z": closed}
    block = Grid(tuple(a.shape), boundary=sides, solid=solid, walls=closed)
    given: dict[str, Any] = {"fields": {"a": a}, "method": method, "rtol": 1e-8}
    return solve(equation, block, throw=False, **given)


def preconditioned(most: int) -> dict[str, LinearSolver]:
    """Conjugate gradients, which stop after so many iterations where alone."""
    learned = LearnedMultigrid.pretrained("poisson-3d")
    chosen: dict[str, Preconditioner] = {
        "CG + IC(0)": IncompleteCholesky(),
        "CG + Multigrid": Multigrid(),
        "CG + LearnedMultigrid": learned,
        "the same, untrained": LearnedMultigrid(),
    }
    made: dict[str, LinearSolver] = {"CG": ConjugateGradient(max_iterations=most)}
    for name, way in chosen.items():
        made[name] = ConjugateGradient(preconditioner=way)
    return made


def write(chapter: Chapter, quick: bool) -> None:
    cells, most = (24, 400) if quick else (56, 1000)
    a, solid = make_block(cells)
    methods = preconditioned(most)
    solutions = {name: solve_block(a, solid, method) for name, method in methods.items()}
    solutions[RANDOM] = solve_block(a, solid, with_random_weights(0, most))
    trained = solutions[LEARNED]
    counts = {name: count(solution) for name, solution in solutions.items()}
    residuals = {name: residual(solution) for name, solution in solutions.items() if name != CG}
    fluid = int((~solid).sum())

    chapter.say(
        "A preconditioner may be learned without a risk: conjugate gradients ask of it only that it is linear, "
        "symmetric and positive definite, and they stop by the residual of the true equations. LearnedMultigrid is so "
        "by construction. A network with a few hundred weights looks once at every pair of neighbouring cells, their "
        "coefficients and what surrounds them, and says how a coarser grid is made of them; what is then applied is "
        "one multigrid cycle with the sparsest operators on all grids. It was trained on random obstacles, jumps and "
        "directions, and its weights ship with the package. Here is a block that it has "
        "never seen, with bodies that nothing enters, and rods and balls that conduct up to ten thousand times as well."
    )
    chapter.equation(system_of(trained).equation)
    chapter.code(solve_block, preconditioned)
    chapter.pictures(
        f"The plane z = 1/2 of {cells} x {cells} x {cells} cells: the coefficient in logarithmic colours, and the "
        "solution between its hot side on the left and its cold one. Solid cells are grey; what conducts well has "
        "nearly one temperature.",
        *_planes(a, solid, trained),
    )
    chapter.pictures(
        f"The residual against iterations, and against milliseconds from the start of the set-up, in the one run that "
        f"was taken, as if all iterations of a method took the same time. CG alone is stopped after {most:,}.",
        (_by_iterations(solutions), "residuals, of which that of CG alone falls slowest"),
        (_by_time(solutions), "residuals against time, of which that with the learned preconditioner ends early"),
    )
    chapter.table(
        ["method", "iterations", "set-up", "solve", "true residual"],
        [
            [name, counted(solution), *times(solution), f"{residual(solution):.1e}"]
            for name, solution in solutions.items()
        ],
        f"{fluid:,} unknowns, to {RTOL:.0e}. The milliseconds are those of one run each, and a busy machine spoils "
        "them; `sciml bench learned` measures with care. " + _verdict(counts),
        strong=[list(solutions).index(LEARNED)],
    )
    exact = compare_with_direct(12 if quick else 18)
    chapter.claim(
        f"Its true residual, computed afresh by numpy, is {residuals[LEARNED]:.1e} of the right side.",
        residuals[LEARNED] <= 1.01 * RTOL,
    )
    chapter.claim(
        f"On a smaller block of the same kind the solution is that of a factorization, but for {exact:.1e}.",
        exact <= 1e-5,
    )
    chapter.claim(
        f"It takes {counts[LEARNED]} iterations, IC(0) {counts[IC]}, CG alone {counted(solutions[CG])}.",
        counts[LEARNED] < counts[IC] and 3 * counts[LEARNED] <= counts[CG],
    )
    found, spread = sabotage(24)
    chapter.claim(
        f"Networks whose weights are random numbers cost time and never the truth: on {24**3:,} cells five of them "
        f"take {', '.join(found[:-1])} and {found[-1]} iterations, and wherever these converge, "
        f"the solution is the same but for {spread:.1e}.",
        spread <= 1e-5 and any("over" not in one for one in found),
    )
    families = _families(chapter, 24 if quick else 32, quick)
    directions = _directions(chapter, 24 if quick else 32)
    chapter.headline = (
        f"{counts[LEARNED]} iterations with a learned preconditioner, {counts[IC]} with IC(0), "
        f"{counted(solutions[CG])} without"
    )
    chapter.numbers = {
        "unknowns": fluid,
        "iterations": counts,
        "residuals": residuals,
        "random": found,
        "spread": spread,
        "direct": exact,
        "families": families,
        "directions": directions,
    }


def make_block(n: int) -> tuple[Tensor, Tensor]:
    """Coefficient and solid cells of a cube, the same places for every n: three bars, a sphere; rods and balls."""
    x, y, z = Grid((n, n, n)).coordinates
    a = torch.ones_like(x)
    generator = torch.Generator().manual_seed(4)
    for number in range(40):
        centre = torch.rand(3, generator=generator, dtype=torch.float64)
        centre[2] = 0.5 + 0.6 * (centre[2] - 0.5)
        size, power, axis = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        far = [place - float(c) for place, c in zip((x, y, z), centre, strict=True)]
        if number % 2:
            far[int(3 * axis)] = far[int(3 * axis)] / 6  # a rod
        inside = torch.stack(far).square().sum(0) < (0.03 + 0.06 * size) ** 2
        a[inside] = 10 ** (1 + 3 * power)
    solid = (x - 0.3) ** 2 + (y - 0.62) ** 2 + (z - 0.45) ** 2 < 0.17**2
    solid |= ((x - 0.62).abs() < 0.06) & (y < 0.55)
    solid |= ((x - 0.82).abs() < 0.05) & (y > 0.3) & (z > 0.2)
    solid |= ((y - 0.25).abs() < 0.05) & (x < 0.4) & (z < 0.8)
    return a, without_pockets(solid)


def scramble(seed: int) -> CoarseningNetwork:
    """A network whose weights are independent random numbers, as large as networks are usually begun with."""
    network, generator = CoarseningNetwork(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            fan = weight.shape[-1] if weight.ndim > 1 else 1
            weight.copy_(torch.randn(weight.shape, generator=generator) / fan**0.5)
    return network


def count(solution: Solution) -> int:
    """Of iterations."""
    return int(solution.statistics["iterations"])


def counted(solution: Solution) -> str:
    """In words, where it was stopped before its end."""
    return f"{count(solution):,}" if bool(solution.converged) else f"over {count(solution):,}"


def times(solution: Solution) -> list[str]:
    """Of set-up and solve."""
    return [f"{1e3 * solution.statistics[name]:.0f} ms" for name in ("seconds_setup", "seconds_solve")]


def residual(solution: Solution) -> float:
    """|b - A x| / |b| afresh."""
    system = system_of(solution)
    if not isinstance(system.operator, StencilOperator):
        raise RuntimeError("the operator of a single unknown on a grid is a stencil")
    b = system.right_side.numpy()
    left = b - stencil_product(system.operator, solution.value.numpy())
    return float(numpy.linalg.norm(left) / numpy.linalg.norm(b))


def compare_with_direct(cells: int) -> float:
    """Relative distance of the solution with the learned preconditioner from that of a factorization."""
    a, solid = make_block(cells)
    learned = LearnedMultigrid.pretrained("poisson-3d")
    found = solve_block(a, solid, ConjugateGradient(preconditioner=learned)).value
    exact = solve_block(a, solid, Direct()).value
    return float((found - exact).norm() / exact.norm())


def with_random_weights(seed: int, most: int) -> LinearSolver:
    """At most so many iterations."""
    return ConjugateGradient(preconditioner=LearnedMultigrid(scramble(seed)), max_iterations=most)


def sabotage(cells: int) -> tuple[list[str], float]:
    """Iterations with networks of random weights, and the largest distance of a solution that says to have converged
    from that of the trained network, relative to it."""
    a, solid = make_block(cells)
    trained = solve_block(a, solid, ConjugateGradient(preconditioner=LearnedMultigrid.pretrained("poisson-3d")))
    found = [solve_block(a, solid, with_random_weights(seed, 500)) for seed in range(5)]
    sound = [solution.value for solution in found if bool(solution.converged)]
    spread = max((float((value - trained.value).norm() / trained.value.norm()) for value in sound), default=0.0)
    return [counted(solution) for solution in found], spread


def _planes(a: Tensor, solid: Tensor, solution: Solution) -> list[tuple[Figure, str]]:
    middle = a.shape[2] // 2
    plane = Grid(tuple(a.shape[:2]), solid=solid[:, :, middle])
    return [
        (
            figures.map_figure(
                plane,
                a[:, :, middle],
                figures.HALF,
                title="a",
                colours="viridis",  # no grey in it, unlike cividis: that is what solid cells are
                logarithmic=True,
                limits=(1.0, 1e4),
                ticks=(1, 1e1, 1e2, 1e3, 1e4),
            ),
            "map of a coefficient with bright spots and bars, and grey obstacles",
        ),
        (
            figures.map_figure(
                plane, solution.value[:, :, middle], figures.HALF, title="u", colours="inferno", limits=(0.0, 1.0)
            ),
            "map of the solution, which falls from left to right around the obstacles",
        ),
    ]


def _relative(solutions: Mapping[str, Solution]) -> dict[str, Tensor]:
    histories = {name: solution.history["residual_norm"] for name, solution in solutions.items()}
    return {name: (norms / norms[0])[1:] for name, norms in histories.items()}


def _by_iterations(solutions: Mapping[str, Solution]) -> Figure:
    norms = _relative(solutions)
    places = {name: torch.arange(1, len(line) + 1) for name, line in norms.items()}
    return _with_legend_above(figures.history_figure(norms, figures.HALF, 3.9, places, logarithmic=True))


def _by_time(solutions: Mapping[str, Solution]) -> Figure:
    norms = _relative(solutions)
    places = {}
    for name, solution in solutions.items():
        setup, rest = (1e3 * solution.statistics[key] for key in ("seconds_setup", "seconds_solve"))
        places[name] = setup + rest * torch.arange(1, len(norms[name]) + 1) / len(norms[name])
    return _with_legend_above(
        figures.history_figure(
            norms, figures.HALF, 3.9, places, label="milliseconds, set-up included", logarithmic=True
        )
    )


def _with_legend_above(figure: Figure) -> Figure:
    """Six lines leave no room for their names."""
    with figures.style():
        figure.axes[0].legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, handlelength=1.4)
        return figure


def _verdict(counts: Mapping[str, int]) -> str:
    """Where the learned one loses, in words, read off the iterations."""
    words = []
    if counts[GEOMETRIC] < counts[LEARNED]:
        words.append(
            f"Geometric multigrid takes fewer iterations here, {counts[GEOMETRIC]} against {counts[LEARNED]}, with "
            "a cycle and a set-up that cost more."
        )
    gain = counts[UNTRAINED] - counts[LEARNED]
    if gain <= max(2, counts[UNTRAINED] // 5):
        words.append(
            "Most of its quality is in how it is built: without any training it takes "
            f"{counts[UNTRAINED]} iterations, and what it learned spares {gain if gain > 0 else 'none'} of them."
        )
    return " ".join(words)


@dataclass(frozen=True)
class _Family:
    """Iterations on one problem by method; None where it was stopped."""

    name: str
    counts: dict[str, int]
    stopped: bool


def _families(chapter: Chapter, cells: int, quick: bool) -> dict[str, dict[str, int]]:
    names = (SPHERES, INCLUSIONS, COEFFICIENTS[-1]) if quick else (*GEOMETRIES, *COEFFICIENTS)
    methods = preconditioned(300)
    found = [_family(name, make(name, (cells,) * 3, "cpu"), methods) for name in names]
    chapter.say(
        f"The same on {len(names)} other problems that differ from what it was trained on, at {cells} cells an axis, "
        f"each with a random right side, to {TO_COMPARE:.0e}."
    )
    heads = [LEARNED, UNTRAINED, GEOMETRIC, IC, CG]
    losses = [each.name for each in found if each.counts[GEOMETRIC] < each.counts[LEARNED]]
    chapter.table(
        ["problem", "learned", "untrained", "Multigrid", "IC(0)", "CG alone"],
        [
            [
                each.name,
                *(
                    f"over {each.counts[name]}" if name == CG and each.stopped else f"{each.counts[name]}"
                    for name in heads
                ),
            ]
            for each in found
        ],
        "Iterations of CG with these preconditioners. Geometric multigrid takes fewer than the learned one in "
        f"{len(losses)} of {len(found)}" + (f": {'; '.join(losses)}." if losses else "."),
    )
    worst = max(each.counts[LEARNED] / each.counts[IC] for each in found)
    share = max(each.counts[LEARNED] / each.counts[CG] for each in found)
    chapter.claim(
        f"On every one of them it takes at most {share:.0%} of the iterations of CG alone, and {worst:.0%} of those "
        "with IC(0).",
        share <= 1 / 3 and worst < 1,
    )
    return {each.name: each.counts for each in found}


def _family(name: str, problem: Problem, methods: Mapping[str, LinearSolver]) -> _Family:
    counts, stopped = {}, False
    for method, solver in methods.items():
        solution = replace(solver, rtol=TO_COMPARE).solve(problem.operator, problem.b, throw=False)
        counts[method] = count(solution)
        stopped |= method == CG and not bool(solution.converged)
    return _Family(name, counts, stopped)


def _directions(chapter: Chapter, cells: int) -> dict[str, float]:
    """Deep conjugate directions on the class of problems that their network was trained for, and on another."""
    most = 30
    solver = DeepConjugateDirection.pretrained("box-3d", rtol=1e-4, max_iterations=most)
    own, other = (make(name, (cells,) * 3, "cpu") for name in (BOX, SPHERES))
    deep, strange = (solver.solve(each.operator, each.b, throw=False) for each in (own, other))
    plain, plain_strange = (
        ConjugateGradient(rtol=1e-4, max_iterations=1000).solve(each.operator, each.b) for each in (own, other)
    )
    left = float(strange.statistics["relative_residual"])
    end = (
        f"converge in {count(strange)} iterations, CG in {count(plain_strange)}"
        if bool(strange.converged)
        else f"have come to a residual of {left:.1e} after {most} iterations; CG needs {count(plain_strange)} to 1e-4"
    )
    chapter.say(
        "The published method of this kind, deep conjugate directions (Kaneda et al., ICML 2023), has a network "
        "propose every direction from the residual alone. It knows nothing of the matrix but what it was trained with, "
        f"a box without obstacles. There it takes {count(deep)} iterations to 1e-4 on {cells} cells an axis, "
        f"{float(deep.statistics['seconds_solve']):.1f} s of convolutions, and CG {count(plain)} in "
        f"{1e3 * plain.statistics['seconds_solve']:.0f} ms. Around spheres, of which it knows nothing, deep conjugate "
        f"directions {end}. Where a proposal is worse than the residual itself, the residual is taken: the error falls "
        "in any case."
    )
    chapter.claim(
        f"On a box like those of its training the directions take {count(deep)} iterations, at most a quarter of CG's "
        f"{count(plain)}.",
        bool(deep.converged) and 4 * count(deep) <= count(plain),
    )
    return {"deep": count(deep), "CG": count(plain), "unseen": count(strange), "unseen_residual": left}


SECTION = Section("learned-solvers", "Preconditioners that were learned", write)
