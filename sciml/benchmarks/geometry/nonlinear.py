"""A nonlinear equation: Newton's method in units of one linear solve, and its gradient against differences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sciml.solvers.linear import ConjugateGradient, Multigrid
from sciml.solvers.nonlinear import Newton
from sciml.solvers.solve import solve

from ...boundary import Dirichlet
from ...equations import Equation
from ...grid import Grid
from ...solution import Solution
from ...status import Status
from ..bench import Bench, version_of
from ..linear.peers import own
from ..linear.problems import poisson
from ..row import Row
from ..timing import Contender, Outcome

NEWTON = "Newton"
LINEAR = "one linear solve, CG + Multigrid"
EQUATION = Equation("-div((1 + u**2)*grad(u)) = f", unknowns=("u",))
GRADIENT = "gradient of a nonlinear solve"

_CELLS = 24
_STEP = 1e-4


def newton_case(n: int) -> str:
    """Name of the case."""
    return f"-div((1+u**2)*grad(u)) = f, {n}x{n}, to 1e-10"


def measure_newton(n: int, bench: Bench) -> list[Row]:
    """From zero to |F(u)| <= 1e-10 |F(0)|, beside one linear solve of Poisson's equation on the same grid."""
    grid = Grid((n, n), boundary=Dirichlet(0.0), device=bench.device)
    x, y = grid.coordinates
    source = 50.0 * torch.sin(torch.pi * x) * torch.sin(torch.pi * y)
    linear = poisson((n, n), bench.device)

    def finish(solution: Solution) -> Outcome:
        worst = Status(int(solution.codes.max()))
        note = None if worst is Status.CONVERGED else worst.name
        return Outcome(None, int(solution.statistics["iterations"].max()), note)

    newton = Contender(
        NEWTON,
        "sciml",
        version_of("sciml"),
        lambda _: solve(EQUATION, grid, fields={"f": source}, method=Newton(), rtol=1e-10, throw=False),
        finish,
        device=bench.device,
    )
    single = own(linear, LINEAR, ConjugateGradient(preconditioner=Multigrid(), rtol=1e-10))
    return bench.compare(newton_case(n), [newton, single], unknowns=n * n)


def measure_gradient(bench: Bench) -> list[Row]:
    """The derivative of a functional of the solution with respect to the source and a boundary value."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(_CELLS, _CELLS), (_CELLS,)]
    point = [10 * torch.rand(shape, generator=generator, dtype=torch.float64).to(bench.device) for shape in shapes]
    along = [torch.rand(shape, generator=generator, dtype=torch.float64).to(bench.device) for shape in shapes]

    def scalar(values: list[Tensor]) -> Tensor:
        f, side = values
        sides: Any = {"x": (Dirichlet(0.1 * side), Dirichlet(0.0)), "y": Dirichlet(0.0)}
        grid = Grid((_CELLS, _CELLS), boundary=sides, device=bench.device)
        value = solve(EQUATION, grid, fields={"f": f}, method=Newton(), rtol=1e-13).value
        return (value**2).mean() + value.mean()

    places = [part.clone().requires_grad_() for part in point]
    gradient = torch.autograd.grad(scalar(places), places)
    found = float(sum((g * d).sum() for g, d in zip(gradient, along, strict=True)))
    with torch.no_grad():
        moved = [
            float(scalar([part + shift * d for part, d in zip(point, along, strict=True)])) for shift in (_STEP, -_STEP)
        ]
    expected = (moved[0] - moved[1]) / (2 * _STEP)
    extra = {"adjoint": found, "finite_differences": expected}
    error = abs(found - expected) / abs(expected)
    return [bench.row(GRADIENT, NEWTON, unknowns=_CELLS**2, error=error, extra=extra)]
