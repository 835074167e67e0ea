"""Nonlinear residuals: their derivative, what they share with the linear scheme, conservation, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml.boundary import Dirichlet, Neumann, Periodic, Robin
from sciml.discretization import NonlinearSystem, discretize, discretize_nonlinear
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.linear_operator import LinearOperator
from sciml.scheme import FiniteDifference, FiniteVolume

SOLID = torch.zeros(7, 6, dtype=torch.bool)
SOLID[2:4, 3:5] = True
GIVEN = Dirichlet(lambda x, y: 0.3 + x * y)
FLUXES = {"x": (GIVEN, Neumann(0.4)), "y": (Robin(0.7, 0.2), Neumann(0.0))}
VALUES = {"x": (GIVEN, Neumann(0.0)), "y": (Neumann(0.0), GIVEN)}
WRAPPED = {"x": Periodic(), "y": (GIVEN, Robin(0.7, 0.2))}


def make(
    text: str | Sequence[str], sides: Any, scheme: Any = None, solid: Tensor | None = None, walls: Any = None
) -> NonlinearSystem:
    unknowns = ["u"] if isinstance(text, str) else ["u", "v"]
    equation = Equation(text, unknowns=unknowns, parameters={"p": 1.3} if re.search(r"\bp\b", str(text)) else {})
    grid = Grid((7, 6), upper=(1.0, 1.2), boundary=sides, solid=solid, walls=walls or Neumann(0.0))
    fields = {name: lambda x, y: 1.0 + x * y**2 for name in equation.coefficients}
    return discretize_nonlinear(equation, grid, fields, scheme=scheme)


def random_fields(system: NonlinearSystem, count: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    u, v = (torch.rand(count, *system.space, dtype=torch.float64, generator=generator) + 0.1 for _ in range(2))
    if system.domain.solid is not None:
        u = torch.where(system.domain.solid, 0.0, u)
    return u, v - 0.6


CASES = {
    "coefficient of u": ("-div((1 + u**2)*grad(u)) = f", FLUXES, None, None),
    "harmonic mean of a field": ("-div(a*(1 + u**2)*grad(u)) + u**3 = f", FLUXES, None, SOLID),
    "harmonic mean of both": ("-div((a + u**2)*grad(u)) + exp(u) = f", FLUXES, FiniteVolume(), None),
    "arithmetic mean": ("-div((a + u**2)*grad(u)) + exp(u) = f", FLUXES, FiniteVolume("arithmetic"), None),
    "a periodic axis": ("-div(a*(1 + u**2)*grad(u)) = f", WRAPPED, None, SOLID),
    "reaction": ("-laplacian(u) = p*exp(u)", FLUXES, None, SOLID),
    "first derivatives": ("-laplacian(u) + u*u_x + u_y**2 = f", FLUXES, None, SOLID),
    "upwind": ("-laplacian(u) + u*u_x - u*u_y = f", FLUXES, FiniteDifference(advection="upwind"), None),
    "order 4": ("-laplacian(u) + u*u_x + u_y**2 = f", FLUXES, FiniteDifference(4), None),
    "order 4, flux": ("-div((1 + u**2)*grad(u)) = f", VALUES, FiniteDifference(4), None),
    "minimal surface": ("-div(a*grad(u)/sqrt(1 + dot(grad(u), grad(u)))) + u*u_x = f", VALUES, None, SOLID),
    "p-Laplacian": ("-div((0.1 + dot(grad(u), grad(u)))**p*grad(u)) = f", {"x": Periodic(), "y": GIVEN}, None, None),
    "advective flux": ("-div((1 + u**2)*grad(u)) + div([u*u/2, a*u*u]) = f", FLUXES, None, None),
    "divergence in a product": ("-u*div(a*grad(u)) + u**2 = f", VALUES, None, None),
    "Cahn-Hilliard": ("div(grad(u**3 - u - p*laplacian(u))) = f", {"x": Periodic(), "y": Periodic()}, None, None),
    "thermistor": (["-div((1 + v**2)*grad(u)) = f", "-laplacian(v) = dot(grad(u), grad(u))"], VALUES, None, None),
    "cross diffusion": (["-div((1 + v**2)*grad(u) + u*grad(v)) = f", "-laplacian(v) = u*v*v"], FLUXES, None, SOLID),
}


@pytest.mark.parametrize("case", CASES)
def test_jacobian_is_the_derivative_of_the_residual(case: str) -> None:
    text, sides, scheme, solid = CASES[case]
    system = make(text, sides, scheme, solid, None if "sqrt" in text or case == "cross diffusion" else Robin(0.3, 0.1))
    u, v = random_fields(system)
    _, expected = torch.autograd.functional.jvp(system.residual, u, v)
    jacobian = system.jacobian(u)
    assert float((jacobian.apply(v) - expected).abs().max()) < 1e-12 * float(expected.abs().max())
    if jacobian.symmetric:
        assert torch.equal(jacobian.apply(v), jacobian.transpose().apply(v))


def operator_at_zero(text: str, sides: Any, solid: Tensor | None) -> LinearOperator:
    system = make(text, sides, None, solid)
    return system.jacobian(torch.zeros(system.space, dtype=torch.float64))


@pytest.mark.parametrize("solid", [None, SOLID], ids=["box", "solid cells"])
@pytest.mark.parametrize(
    "sides",
    [{**FLUXES, "x": (Dirichlet(0.0), Neumann(0.4))}, {"x": Periodic(), "y": (Dirichlet(0.0), Robin(0.7, 0.2))}],
    ids=["walls", "periodic"],
)
def test_nonlinear_flux_becomes_that_of_the_linear_scheme(sides: Any, solid: Tensor | None) -> None:
    """At u = 0 the coefficient a (1 + u**2) is a, and its derivative vanishes."""
    found = operator_at_zero("-div(a*(1 + u**2)*grad(u)) = f", sides, solid)
    equation = Equation("-div(a*grad(u)) = f")
    grid = Grid((7, 6), upper=(1.0, 1.2), boundary=sides, solid=solid)
    fields = {name: lambda x, y: 1.0 + x * y**2 for name in "af"}
    expected = discretize(equation, grid, fields).operator
    torch.testing.assert_close(found.to_sparse().to_dense(), expected.to_sparse().to_dense(), rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("text", ["-div(a*grad(u)) + 2*u = f", "-laplacian(u) + a*u_x = f", "div([a*u, u]) = f"])
def test_linear_equation_has_the_linear_residual(text: str) -> None:
    system = make(text, FLUXES)
    fields = {name: lambda x, y: 1.0 + x * y**2 for name in system.equation.coefficients}
    linear = discretize(system.equation, system.domain, fields)
    u, _ = random_fields(system)
    torch.testing.assert_close(system.residual(u), linear.operator.apply(u) - linear.right_side, rtol=1e-13, atol=1e-11)
    torch.testing.assert_close(system.lagged(u).apply(u), linear.operator.apply(u), rtol=1e-13, atol=1e-11)


@pytest.mark.parametrize("solid", [None, SOLID], ids=["box", "solid cells"])
@pytest.mark.parametrize("text", ["-div(a*(1 + u**2)*grad(u) + [u**2, 0]) = 0", "-div(a*grad(u)) + div([u**2, u]) = 0"])
def test_fluxes_balance_the_divergence(text: str, solid: Tensor | None) -> None:
    """The sum of F over the cells, times their volume, is what leaves through the boundary, whatever u is."""
    system = make(text, FLUXES, None, solid, Robin(0.3, 0.1))
    u, _ = random_fields(system)
    inside = system.residual(u) if solid is None else torch.where(solid, 0.0, system.residual(u))
    total = inside.sum((-2, -1)) * system.domain.cell_volume
    outflow = sum(system.flux(u, name) for name in system.domain.boundaries)
    torch.testing.assert_close(total, -outflow, rtol=1e-12, atol=1e-12)


def test_flux_given_by_a_neumann_condition() -> None:
    """It is that of the condition, although the coefficient depends on the solution."""
    system = make("-div(a*(1 + u**2)*grad(u)) = f", FLUXES)
    u, _ = random_fields(system)
    torch.testing.assert_close(system.flux(u, "x_upper"), torch.full((2,), 0.4 * 1.2, dtype=torch.float64))


def test_lagged_operator_reproduces_what_is_quasilinear() -> None:
    """A(u) u - b is F(u) where every nonlinear term holds a derivative, to the first power."""
    system = make("-div(a*(1 + u**2)*grad(u)) = 0", {"x": (Dirichlet(0.0), Neumann(0.0)), "y": Dirichlet(0.0)})
    u, _ = random_fields(system)
    torch.testing.assert_close(system.lagged(u).apply(u), system.residual(u), rtol=1e-12, atol=1e-12)


def test_batch_equals_rows() -> None:
    system = make("-div(a*(1 + u**2)*grad(u)) + u*u_x = f", VALUES)
    u, v = random_fields(system, 3)
    jacobian = system.jacobian(u)
    for row in range(3):
        torch.testing.assert_close(system.residual(u)[row], system.residual(u[row]))
        torch.testing.assert_close(jacobian.apply(v)[row], system.jacobian(u[row]).apply(v[row]))


def test_parameters_are_replaced() -> None:
    system = make("-laplacian(u) = p*exp(u)", VALUES)
    u, _ = random_fields(system)
    other = system.with_parameters({"p": 2.3})
    torch.testing.assert_close(system.residual(u) - other.residual(u), u.exp(), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(
    ("text", "sides", "message"),
    [
        ("-div((1 + u**2)*grad(u)) + u*u_x = f", FLUXES, "boundary x_upper: the condition on the flux of 'u' has a"),
        ("-div((1 + u**2)*grad(u)) + f*u_y = 0", FLUXES, "boundary y_lower: the condition on the flux of 'u' has a"),
        (
            "-div(grad(u)/sqrt(1 + dot(grad(u), grad(u)))) = f",
            {"x": (GIVEN, Robin(1.0, 1.0)), "y": GIVEN},
            "boundary x_upper: .*leaves that derivative implicit",
        ),
        ("-div(grad(u)/(1 + u_xy**2)) = f", VALUES, "mixed derivatives are taken along axis x and y"),
        ("u_t = laplacian(u)", VALUES, "has time derivatives"),
    ],
)
def test_refused(text: str, sides: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(text, sides)


def test_a_field_of_another_shape_is_refused() -> None:
    system = make("-laplacian(u) = p*exp(u)", VALUES)
    with pytest.raises(InputError, match=r"u has shape \(6, 7\), expected \(\*batch, \*\(7, 6\)\)"):
        system.residual(torch.zeros(6, 7, dtype=torch.float64))
