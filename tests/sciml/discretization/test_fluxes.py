"""Discrete conservation, fluxes through boundaries, values on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sciml.boundary import Dirichlet, Neumann, Periodic, Robin
from sciml.discretization import discretize
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.scheme import FiniteDifference, FiniteVolume

ALL_KINDS = {"x": (Dirichlet(lambda x, y: y), Neumann(0.7)), "y": (Robin(2.0, lambda x, y: x), Dirichlet(1.0))}
MIXED = {"x": (Robin(lambda x, y: 1 + y, 3.0), Neumann(lambda x, y: y)), "y": Periodic()}
SOLID = torch.zeros(6, 5, dtype=torch.bool)
SOLID[0, 0] = SOLID[2:4, 1:3] = SOLID[5, 3:] = True


def random(seed: int) -> torch.Tensor:
    return torch.rand(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


CONSERVATIVE = [
    ("-div(a*grad(u)) = f", -1.0, None),
    ("div(a*grad(u)) = f", 1.0, None),
    ("-2*div(a*grad(u)) = f", -2.0, FiniteVolume(average="arithmetic")),
    ("-div(a*grad(u)) = f", -1.0, FiniteDifference()),
    ("-div([a*u_x, 3*u_y]) = f", -1.0, None),
    ("-div(a*grad(u)) - div(2*grad(u)) = f", -1.0, None),
    ("-div(a*grad(u)) - 3*div(grad(u)) = f", -1.0, None),
    ("div([b*u, -a*u]) - div(a*grad(u)) = f", -1.0, FiniteVolume(advection="central")),
    ("div([b*u, -a*u]) - div(a*grad(u)) = f", -1.0, FiniteVolume(advection="upwind")),
    ("2*div([b*u, x*u]) = f", 2.0, FiniteVolume(advection="upwind")),
    ("-laplacian(u) = f", -1.0, None),
]


@pytest.mark.parametrize("solid", [None, SOLID], ids=["box", "obstacles"])
@pytest.mark.parametrize("boundary", [ALL_KINDS, MIXED], ids=["walls", "periodic in y"])
@pytest.mark.parametrize(("text", "factor", "scheme"), CONSERVATIVE)
def test_fluxes_balance_what_the_operator_sums_to(
    text: str, factor: float, scheme: Any, boundary: Any, solid: Any
) -> None:
    """For every field, not only solutions: sum (A u - b) h^2 = factor sum of fluxes - sum f h^2."""
    for walls in (Neumann(0.3), Dirichlet(2.0), Robin(1.0, 2.0)):
        grid = Grid((6, 5), upper=(1.0, 1.5), boundary=boundary, solid=solid, walls=walls)
        equation = Equation(text, unknowns=["u"])
        given = {"a": 0.1 + random(0), "b": random(1) - 0.5, "f": random(2)}
        system = discretize(equation, grid, {n: given[n] for n in equation.coefficients}, scheme=scheme)
        fluid = ~SOLID if solid is not None else torch.ones(6, 5, dtype=torch.bool)
        u = random(3)
        if solid is not None:
            u[SOLID] = 0.0
        total = (system.operator.apply(u) - system.right_side)[fluid].sum() * grid.cell_volume
        source = given["f"][fluid].sum() * grid.cell_volume
        fluxes = [system.flux(u, name) for name in grid.boundaries]
        assert float(total + source) == pytest.approx(factor * float(sum(fluxes)), abs=1e-12)


@pytest.mark.parametrize("scheme", [None, FiniteDifference(order=4)])
def test_fluxes_converge_to_those_of_the_exact_solution(scheme: Any) -> None:
    def errors(n: int) -> list[float]:
        a, u = (lambda x, y: 1 + x * y), (lambda x, y: torch.sin(2 * x + y))
        slope = lambda x, y: torch.cos(2 * x + y)  # noqa: E731
        sides = {"x": (Neumann(lambda x, y: -2 * a(x, y) * slope(x, y)), Dirichlet(u)), "y": (Dirichlet(u),) * 2}
        grid = Grid((n, n), boundary=sides)
        system = discretize(Equation("-div(a*grad(u)) = f"), grid, {"a": a, "f": 0.0}, scheme=scheme)
        value, h = u(*grid.coordinates), grid.spacing[0]
        place = grid.axis_coordinates[0]
        one = torch.ones_like(place)
        exact = {
            "x_lower": -2 * a(0 * one, place) * slope(0 * one, place),
            "x_upper": 2 * a(one, place) * slope(one, place),
            "y_upper": a(place, one) * slope(place, one),
        }
        found = [abs(float(system.flux(value, name) - density.sum() * h)) for name, density in exact.items()]
        face = system.boundary_value(value, 0, 0) - u(0 * one, place)
        return [*found, float(face.abs().max())]

    order = 2 if scheme is None else 4
    for coarse, fine in zip(errors(20), errors(40), strict=True):
        # The one-sided difference in the face formula of second order is of first order on a given field.
        assert fine < 1e-13 or fine < 1.15 * 2.0 ** -(order if order == 4 else 1) * coarse


def test_values_on_boundaries_meet_their_conditions() -> None:
    for scheme in (None, FiniteDifference(4)):
        boundary = {"x": (Dirichlet(lambda x, y: y), Neumann(0.7)), "y": (Robin(2.0, lambda x, y: x), Neumann(0.0))}
        grid = Grid((6, 5), boundary=boundary)
        system = discretize(Equation("-div(a*grad(u)) = f"), grid, {"a": 2.0, "f": 1.0}, scheme=scheme)
        u = random(0)
        torch.testing.assert_close(system.boundary_value(u, 0, 0), grid.axis_coordinates[1])
        robin = system.boundary_value(u, 1, 0)
        flux = system.flux(u, "y_lower")
        held = (grid.axis_coordinates[0] - 2.0 * robin).sum() * grid.spacing[0]
        torch.testing.assert_close(flux, held)
        assert float(system.flux(u, "x_upper")) == pytest.approx(0.7)
    torch.testing.assert_close(
        discretize(Equation("-laplacian(u) = 0"), grid).boundary_value(u, 0, 1), u[-1] + 0.5 * 0.7 / 6
    )


def test_a_solution_conserves_to_rounding(solve: Callable) -> None:
    grid = Grid((40, 30), boundary=ALL_KINDS)
    a = lambda x, y: torch.where(x > 0.5, 1e3, 1.0 + 0.0 * x)  # noqa: E731
    system = discretize(Equation("-div(a*grad(u)) = f"), grid, {"a": a, "f": lambda x, y: x + y})
    out = sum(float(system.flux(solve(system), name)) for name in grid.boundaries)
    assert out == pytest.approx(-float(sum(grid.coordinates).sum() * grid.cell_volume), rel=1e-9)


@pytest.mark.parametrize("n", [10, 11])
def test_harmonic_means_are_exact_for_two_layers(n: int, solve: Callable) -> None:
    """The exact solution is piecewise linear, and its kink lies on a face."""
    interface = 5 / n
    grid = Grid(n, boundary={"x": (Dirichlet(1.0), Dirichlet(3.0))})
    a = torch.where(grid.coordinates[0] < interface, 12.0, 0.003 + 0.0 * grid.coordinates[0])
    flux = 2.0 / (interface / 12.0 + (1.0 - interface) / 0.003)
    x = grid.coordinates[0]
    exact = torch.where(x < interface, 1.0 + flux * x / 12.0, 3.0 - flux * (1.0 - x) / 0.003)
    system = discretize(Equation("-div(a*grad(u)) = 0", unknowns=["u"]), grid, {"a": a})
    torch.testing.assert_close(solve(system), exact, rtol=1e-12, atol=0.0)
    assert float(system.flux(exact, "x_upper")) == pytest.approx(flux, rel=1e-12)


def test_zeros_of_the_coefficient_close_faces() -> None:
    a = torch.tensor([1.0, 0.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    system = discretize(Equation("-div(a*grad(u)) + u = f"), Grid(4), {"a": a, "f": 1.0})
    image = system.operator.apply(torch.arange(4, dtype=torch.float64))
    torch.testing.assert_close(image, torch.tensor([0.0, 1.0, 2.0, 3.0 + 2.0 * 2.0 * 16.0 * 3.0]).double())
    (gradient,) = torch.autograd.grad(image.sum(), a)
    assert torch.isfinite(gradient).all()
    assert not system.definite


def test_fluxes_of_a_system() -> None:
    equation = Equation(["-div(a*grad(u)) - div(2*grad(v)) = 1", "-laplacian(v) + u = 0"], unknowns=["u", "v"])
    grid = Grid((6, 5), boundary={"u": Neumann(0.25), "v": Dirichlet(1.0)})
    system = discretize(equation, grid, {"a": 0.5 + random(0)})
    value = torch.stack([random(1), random(2)])
    total = (system.operator.apply(value) - system.right_side).sum((-1, -2)) * grid.cell_volume
    flux = torch.stack([system.flux(value, name) for name in grid.boundaries]).sum(0)
    assert flux.shape == (2,)
    torch.testing.assert_close(total[0] + 1.0, -flux[0])
    torch.testing.assert_close(total[1] - value[0].sum() * grid.cell_volume, -flux[1])
    assert system.boundary_value(value, 0, 0).shape == (2, 5)


@pytest.mark.parametrize(
    ("text", "call", "message"),
    [
        ("-laplacian(u) = 1", lambda s, u: s.flux(u, "left"), "no boundary 'left'; the grid has: x_lower, x_upper"),
        (
            "-laplacian(u) = 1",
            lambda s, u: s.flux(u[1:], "x_lower"),
            r"shape \(5, 5\), expected \(\*batch, \*\(6, 5\)\)",
        ),
        ("-laplacian(u) = 1", lambda s, u: s.boundary_value(u, 1, 0), "axis y is periodic and has no sides"),
        ("u_x + u = 1", lambda s, u: s.flux(u, "x_lower"), "neither div.* nor second derivatives"),
    ],
)
def test_refused(text: str, call: Any, message: str) -> None:
    system = discretize(Equation(text), Grid((6, 5), boundary={"x": Dirichlet(), "y": Periodic()}))
    with pytest.raises(InputError, match=message):
        call(system, random(0))
