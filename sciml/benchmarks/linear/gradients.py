"""Adjoint gradients of a solve, first and second, against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sciml.solvers.linear import ConjugateGradient, Multigrid
from sciml.solvers.solve import solve

from ...boundary import Dirichlet, Neumann
from ...equations import Equation
from ...grid import Grid
from ..bench import Bench
from ..row import Row

GRADIENTS = "adjoint gradients"
FIRST, SECOND = "first derivative", "second derivative"

_CELLS = 24
_STEP = 1e-4
# Central differences of these orders: truncation and rounding stay below 1e-9 relative.
_NEAR, _FAR = 8.0 / 12.0, -1.0 / 12.0


def measure_gradients(bench: Bench) -> list[Row]:
    """Derivatives of a functional of the solution of -div(a*grad(u)) = f in a, f and boundary values."""
    scalar, point = _functional(bench.device)
    generator = torch.Generator().manual_seed(1)
    along = [_draw(x.shape, generator, bench.device) for x in point]
    other = [_draw(x.shape, generator, bench.device) for x in point]

    def moved(shift: float) -> list[Tensor]:
        return [(x + shift * d).requires_grad_() for x, d in zip(point, along, strict=True)]

    def slope(shift: float, direction: Sequence[Tensor]) -> Tensor:
        places = moved(shift)
        gradient = torch.autograd.grad(scalar(places), places, create_graph=True)
        return _inner(gradient, direction)

    bench.say(f"{GRADIENTS}: {FIRST}")
    first = float(slope(0.0, along).detach())
    with torch.no_grad():
        expected = _difference(lambda shift: float(scalar(moved(shift))))
    bench.say(f"{GRADIENTS}: {SECOND}")
    places = [x.clone().requires_grad_() for x in point]
    gradient = torch.autograd.grad(scalar(places), places, create_graph=True)
    second = float(_inner(torch.autograd.grad(_inner(gradient, other), places), along))
    bend = _difference(lambda shift: float(slope(shift, other).detach()))
    pairs = {FIRST: (first, expected), SECOND: (second, bend)}
    return [
        bench.row(
            GRADIENTS,
            method,
            unknowns=_CELLS**2,
            error=abs(found - reference) / abs(reference),
            extra={"adjoint": found, "finite_differences": reference},
        )
        for method, (found, reference) in pairs.items()
    ]


def _functional(device: str) -> tuple[Callable[[Sequence[Tensor]], Tensor], list[Tensor]]:
    """A smooth scalar of the solution as a function of a, f, boundary values and fluxes, and where to take it."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(_CELLS, _CELLS), (_CELLS, _CELLS), (_CELLS,), (_CELLS,)]
    point = [1.5 + 0.5 * _draw(shape, generator, device) for shape in shapes]
    equation = Equation("-div(a*grad(u)) = f")
    method = ConjugateGradient(preconditioner=Multigrid(), rtol=1e-13)

    def scalar(values: Sequence[Tensor]) -> Tensor:
        a, f, value, flux = values
        sides = {"x": (Dirichlet(value), Neumann(flux)), "y": Dirichlet(0.0)}
        grid = Grid((_CELLS, _CELLS), boundary=sides, device=device)
        solution = solve(equation, grid, fields={"a": a, "f": f}, method=method)
        return (solution.value**2).mean() + solution.value.mean()

    return scalar, point


def _difference(function: Callable[[float], float]) -> float:
    """f'(0) to fourth order."""
    near = function(_STEP) - function(-_STEP)
    far = function(2 * _STEP) - function(-2 * _STEP)
    return (_NEAR * near + _FAR * far) / _STEP


def _inner(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(left, right, strict=True)]).sum()


def _draw(shape: Sequence[int], generator: torch.Generator, device: str) -> Tensor:
    return (2 * torch.rand(*shape, dtype=torch.float64, generator=generator) - 1).to(device)
