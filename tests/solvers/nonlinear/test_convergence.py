"""Orders of convergence of nonlinear equations towards manufactured solutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml import Dirichlet, FiniteDifference, FiniteVolume, Neumann, Periodic, Robin

Function = Callable[..., Tensor]


def wave(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(2 * x + 0.3) * torch.cos(1.5 * y) + 0.4 * x


def gentle(x: Tensor, y: Tensor) -> Tensor:
    """For equations of mean curvature and Hamilton-Jacobi, which have no solution for large sources."""
    return 0.2 * wave(x, y)


def other(x: Tensor, y: Tensor) -> Tensor:
    return 0.5 + 0.3 * torch.cos(2 * x) * torch.sin(1 + y)


def periodic(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(2 * torch.pi * x) * torch.exp(y) * 0.3


def medium(x: Tensor, y: Tensor) -> Tensor:
    return 1.5 + x * torch.sin(3 * y)


def dirichlet(exact: Function) -> Any:
    return Dirichlet(exact)


CASES = {
    "heat": ("-div((1 + u**2)*grad(u)) = f", {}, {}, None),
    "heat in a medium": ("-div(a*(1 + u**2)*grad(u)) = f", {"a": medium}, {}, None),
    "heat in a mixture": ("-div((a + u**2)*grad(u)) = f", {"a": medium}, {}, FiniteVolume("arithmetic")),
    "Bratu": ("-laplacian(u) = p*exp(u) + f", {}, {"p": 2.0}, None),
    "Burgers": ("u*u_x + u*u_y - p*laplacian(u) = f", {}, {"p": 0.3}, None),
    "Burgers, conservative": ("div([u*u/2, u*u/2]) - p*laplacian(u) = f", {}, {"p": 0.3}, None),
    "Allen-Cahn": ("-p**2*laplacian(u) + u**3 - u = f", {}, {"p": 0.5}, None),
    "p-Laplacian": ("-div((0.1 + dot(grad(u), grad(u)))**p*grad(u)) = f", {}, {"p": 0.5}, None),
    "minimal surface": ("-div(grad(u)/sqrt(1 + dot(grad(u), grad(u)))) = f", {}, {}, None),
    "advective flux": ("-div((1 + u**2)*grad(u) - a*u**2*[1, 2]) = f", {"a": medium}, {}, None),
    "Hamilton-Jacobi": ("u + dot(grad(u), grad(u)) - p*laplacian(u) = f", {}, {"p": 0.3}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_second_order(case: str, problem: Any) -> None:
    text, fields, parameters, scheme = CASES[case]
    exact = gentle if case in ("minimal surface", "Hamilton-Jacobi") else wave
    manufactured = problem(text, {"u": exact}, dirichlet, fields, parameters, scheme=scheme)
    assert manufactured.order(20, rtol=1e-10) == pytest.approx(2.0, abs=0.15)


def test_fourth_order(problem: Any) -> None:
    manufactured = problem("-div((1 + u**2)*grad(u)) + u*u_x = f", {"u": wave}, dirichlet, scheme=FiniteDifference(4))
    assert manufactured.order(16, rtol=1e-11) == pytest.approx(4.0, abs=0.3)


def test_first_order_against_the_wind(problem: Any) -> None:
    scheme = FiniteDifference(advection="upwind")
    manufactured = problem("u*u_x - u*u_y - p*laplacian(u) = f", {"u": wave}, dirichlet, {}, {"p": 0.01}, scheme=scheme)
    assert manufactured.order(40) == pytest.approx(1.0, abs=0.2)


def test_conditions_on_the_flux(problem: Any, partial: Any) -> None:
    """a (1 + u**2) du/dn is given, with and without a multiple of u."""

    def sides(exact: Function) -> Any:
        def flux(axis: int, sign: float) -> Function:
            slope = partial(exact, axis)
            return lambda *c: (sign * medium(*c) * (1 + exact(*c) ** 2) * slope(*c)).detach()

        return {
            "x": (Dirichlet(exact), Neumann(flux(0, 1.0))),
            "y": (Robin(1.5, lambda *c: flux(1, -1.0)(*c) + 1.5 * exact(*c)), Neumann(flux(1, 1.0))),
        }

    manufactured = problem("-div(a*(1 + u**2)*grad(u) + [u**2, u**2]) = f", {"u": wave}, sides, {"a": medium})
    assert manufactured.order(20, rtol=1e-10) == pytest.approx(2.0, abs=0.15)


def test_periodic_axis(problem: Any) -> None:
    manufactured = problem(
        "-div((1 + dot(grad(u), grad(u)))*grad(u)) + u*u_x = f",
        {"u": periodic},
        lambda exact: {"x": Periodic(), "y": Dirichlet(exact)},
    )
    assert manufactured.order(40, rtol=1e-10) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize(
    "text",
    [
        ["-div((1 + v**2)*grad(u)) = f0", "-laplacian(v) - (1 + v**2)*dot(grad(u), grad(u)) = f1"],
        ["-p*laplacian(u) + u*v**2 - 0.04*(1 - u) = f0", "-p*laplacian(v) - u*v**2 + 0.1*v = f1"],
    ],
    ids=["thermistor", "Gray-Scott"],
)
def test_systems(text: list[str], problem: Any) -> None:
    parameters = {"p": 0.3} if "p*" in text[0] else {}
    manufactured = problem(text, {"u": wave, "v": other}, dirichlet, {}, parameters)
    assert manufactured.order(12, rtol=1e-10) == pytest.approx(2.0, abs=0.2)


def test_three_dimensions(problem: Any) -> None:
    manufactured = problem(
        "-div((1 + u**2)*grad(u)) = f", {"u": lambda x, y, z: wave(x, y) * (1 + z**2)}, dirichlet, dimension=3
    )
    assert manufactured.order(8, rtol=1e-9) == pytest.approx(2.0, abs=0.25)


@pytest.mark.parametrize(("n", "share"), [(24, 0.02), (48, 0.01), (96, 0.005)])
def test_a_coefficient_that_nearly_vanishes_on_the_boundary_does_not_shut_it(n, share):
    """With K(u) = 0.01 u + u^5 / 5, whose derivative is the coefficient, K is linear in x between the two sides."""
    equation = sciml.Equation("-div((0.01 + u**4)*grad(u)) = 0", unknowns=("u",))
    sides = {"x": (sciml.Dirichlet(0.0), sciml.Dirichlet(3.0)), "y": sciml.Neumann(0.0)}
    grid = sciml.Grid((n, 3), boundary=sides)
    solution = sciml.solve(equation, grid, rtol=1e-11)
    through = 0.03 + 3.0**5 / 5
    assert float(solution.flux("x_upper")) == pytest.approx(through, rel=share)
    assert float(solution.flux("x_lower")) == pytest.approx(-float(solution.flux("x_upper")), rel=1e-9)
    u = solution.value[:, 0]
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    torch.testing.assert_close(0.01 * u + u**5 / 5, through * x, rtol=0.0, atol=share * through)
