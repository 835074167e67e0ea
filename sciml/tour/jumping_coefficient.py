"""Section: a coefficient that jumps."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.solvers.linear import ConjugateGradient, Jacobi, Multigrid
from sciml.solvers.linear.base import LinearSolver
from sciml.solvers.solve import solve

from ..benchmarks.linear.problems import darcy_coefficient
from ..boundary import Dirichlet
from ..equations import Equation
from ..grid import Grid
from ..solution import Solution
from . import figures
from .chapter import Chapter, Section, system_of


def solve_darcy(a: Tensor, method: LinearSolver | None = None) -> Solution:
    equation = Equation("-div(a*grad(u)) = f")
    rock = Grid(tuple(a.shape), boundary=Dirichlet(0.0))
    return solve(equation, rock, fields={"a": a, "f": 1.0}, method=method)


def write(chapter: Chapter, quick: bool) -> None:
    cells = 127 if quick else 421
    a = darcy_coefficient((cells, cells), seed=26)
    solution = solve_darcy(a)
    system = system_of(solution)
    rock = system.domain
    iterations = int(solution.statistics["iterations"])
    outflow = -sum(float(solution.flux(name)) for name in rock.boundaries)
    speed = torch.linalg.vector_norm(a * solution.gradient(), dim=0)

    chapter.say(
        "Pressure in rock of two kinds, one four times as permeable as the other; where is decided by the sign of a "
        "Gaussian random field, as in the Darcy problems that neural operators are trained on. Finite volumes with "
        "harmonic means on the faces keep the flux continuous where the coefficient jumps, and multigrid interpolates "
        "by the operator itself, so that the jumps do not slow it down."
    )
    chapter.equation(system.equation)
    chapter.code(solve_darcy)
    others = {"Jacobi": Jacobi(), "multigrid": Multigrid()}
    solutions = {name: solve_darcy(a, ConjugateGradient(preconditioner=inner)) for name, inner in others.items()}
    counts = {name: int(each.statistics["iterations"]) for name, each in solutions.items()}
    histories = {
        name: each.history["residual_norm"] / each.history["residual_norm"][0] for name, each in solutions.items()
    }
    chapter.pictures(
        f"The coefficient (12 and 3), the pressure for a source of 1 everywhere, and the speed |a grad u| on {cells} x "
        f"{cells} cells: the flow is fast where much of it has gathered, and seeks the permeable rock.",
        (
            figures.map_figure(rock, a, title="a", colours="cividis", ticks=(3.0, 12.0)),
            "black and white map of the two-valued coefficient",
        ),
        (figures.map_figure(rock, solution.value, title="u", contours=8), "map of the pressure, a bent hill"),
        (
            figures.map_figure(rock, speed, title="|a grad u|", colours="magma"),
            "map of the speed, brightest near the sides and in the permeable channels",
        ),
    )
    chapter.pictures(
        "Conjugate gradients with two preconditioners, on a logarithmic count of iterations: "
        + ", ".join(f"{name} {count}" for name, count in counts.items())
        + " to a residual of 1e-8.",
        (
            figures.history_figure(
                {name: norms[1:] for name, norms in histories.items()},
                figures.HALF,
                abscissas={name: torch.arange(1, len(norms)) for name, norms in histories.items()},
                logarithmic=True,
            ),
            "residuals of two preconditioners against iterations; that of multigrid falls far sooner",
        ),
    )
    least = float(solution.value.min())
    imbalance = abs(outflow - 1.0)
    jacobi = counts["Jacobi"]
    spread = max(float((each.value - solution.value).abs().max()) for each in solutions.values())
    relative = spread / float(solution.value.max())
    chapter.claim(
        f"Pressure is positive everywhere, as the maximum principle demands: the least value is {least:.1e}.", least > 0
    )
    chapter.claim(
        f"The source, 1 in all, flows out through the four sides: {outflow:.9f}, off by {imbalance:.1e}.",
        imbalance <= 1e-6,
    )
    chapter.claim(
        f"Both methods agree: their solutions differ by {relative:.1e} of the largest value.", relative <= 1e-5
    )
    chapter.headline = (
        f"{cells * cells:,} unknowns, {iterations} iterations with multigrid, {jacobi} with Jacobi's preconditioner"
    )
    chapter.numbers = {
        "unknowns": cells * cells,
        "iterations": {"chosen": iterations, **counts},
        "imbalance": imbalance,
        "minimum": least,
        "spread": relative,
        "seconds_setup": {name: each.statistics["seconds_setup"] for name, each in solutions.items()},
        "seconds_solve": {name: each.statistics["seconds_solve"] for name, each in solutions.items()},
    }


SECTION = Section("jumping-coefficient", "A coefficient that jumps", write)
