"""First and second derivatives of operator and right side with respect to everything that goes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml.boundary import Dirichlet, Neumann, Periodic, Robin
from sciml.discretization import discretize
from sciml.equations import Equation
from sciml.grid import Grid
from sciml.scheme import FiniteDifference, FiniteVolume

SOLID = torch.zeros(5, 5, dtype=torch.bool)
SOLID[1:3, 2:4] = True
FD4 = FiniteDifference(4, "central")

CASES = [
    ("-div(a*grad(u)) + k*u = f", None, None),
    ("-div(a*grad(u)) + k*u = f", None, SOLID),
    ("-div(a*grad(u)) + k*u = f", FiniteDifference(), None),
    ("-div(a*grad(u)) + k*u = f", FD4, None),
    ("-k*div([a*u_x, f*u_y]) = f", None, None),
    ("-a*u_xx - k*u_yy + sin(f)*u_x = a*x", FiniteDifference(advection="central"), None),
    ("-a*u_xx - k*u_yy + sin(f)*u_x = a*x", FiniteDifference(advection="upwind"), SOLID),
    ("-a*u_xx - k*u_yy + a*u_x = f", FD4, None),
    ("div([f*u, -k*u]) - div(a*grad(u)) = f", FiniteVolume(advection="upwind"), SOLID),
    ("div([f*u, -k*u]) - div(a*grad(u)) = f", FiniteVolume(advection="central"), None),
    ("a*u_x + a_x*u + k*u = f", FiniteDifference(advection="central"), None),
]


def draw(*shape: int, generator: torch.Generator) -> Tensor:
    return 0.5 + torch.rand(shape, dtype=torch.float64, generator=generator)


def inputs(generator: torch.Generator) -> list[Tensor]:
    shapes = [(5, 5), (5, 5), (2,), (5,), (), (2, 5), (2, 1), (5, 5)]
    return [draw(*shape, generator=generator) for shape in shapes]


def scalar_of(text: str, scheme: Any, solid: Any, periodic: bool, generator: torch.Generator) -> Callable[..., Tensor]:
    """A random linear combination of all that a system gives, as a function of all that goes into it."""
    equation = Equation(text, parameters={"k": 1.0}, unknowns=["u"])

    def discrete(a: Tensor, f: Tensor, k: Tensor, g: Tensor, q: Tensor, alpha: Tensor, w: Tensor, u: Tensor) -> Any:
        other = Periodic() if periodic else (Robin(0.5, w), Dirichlet(lambda x, y: q * x))
        sides = {"x": (Dirichlet(g), Robin(alpha, q)), "y": other}
        grid = Grid((5, 5), boundary=sides, solid=solid, walls=Neumann(q) if "div" in text else Robin(k[0], q))
        fields = {name: {"a": a, "f": f}[name] for name in equation.coefficients}
        system = discretize(equation, grid, fields, {"k": k}, scheme=scheme)
        names = ("x_lower", "x_upper") if "div" in text or "u_xx" in text else ()
        return system.operator.apply(u), system.right_side, *(system.flux(u, name) for name in names)

    shapes = [out.shape for out in discrete(*inputs(generator))]
    weights = [draw(*shape, generator=generator) - 1.0 for shape in shapes]

    def scalar(*values: Tensor) -> Tensor:
        return torch.stack([(out * w).sum() for out, w in zip(discrete(*values), weights, strict=True)]).sum()

    return scalar


@pytest.mark.parametrize("periodic", [False, True], ids=["walls", "periodic in y"])
@pytest.mark.parametrize(("text", "scheme", "solid"), CASES)
def test_derivatives_along_random_directions(text: str, scheme: Any, solid: Any, periodic: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    scalar = scalar_of(text, scheme, solid, periodic, generator)
    point = inputs(generator)

    def slope(shift: float, along: list[Tensor], second: list[Tensor]) -> tuple[float, Tensor, list[Tensor]]:
        places = [(x + shift * d).requires_grad_() for x, d in zip(point, along, strict=True)]
        value = scalar(*places)
        gradient = torch.autograd.grad(value, places, create_graph=True, materialize_grads=True)
        return float(value.detach()), sum((g * d).sum() for g, d in zip(gradient, second, strict=True)), places

    for _ in range(2):
        first, second = ([draw(*x.shape, generator=generator) - 1.0 for x in point] for _ in range(2))
        step = 1e-5
        (ahead, slope_ahead, _), (behind, slope_behind, _) = (slope(s, first, second) for s in (step, -step))
        _, found, _ = slope(0.0, first, first)
        assert float(found.detach()) == pytest.approx((ahead - behind) / (2 * step), rel=1e-6, abs=1e-6)
        _, found, places = slope(0.0, first, second)
        curvature = torch.autograd.grad(found, places, materialize_grads=True)
        bend = sum(float((c * d).sum()) for c, d in zip(curvature, first, strict=True))
        assert bend == pytest.approx(float((slope_ahead - slope_behind).detach()) / (2 * step), rel=1e-6, abs=1e-6)


def test_every_entry_of_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    scalar = scalar_of("-div(a*grad(u)) + k*u = f", None, SOLID, False, generator)
    point = [x.requires_grad_() for x in inputs(generator)]
    assert torch.autograd.gradcheck(scalar, point, atol=1e-6, rtol=1e-6)


def test_first_and_second_derivatives_reach_the_entries() -> None:
    """Of -(a u')' on three cells by hand: the face between cells 0 and 1 is 2 a0 a1/(a0 + a1)."""
    a = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    system = discretize(
        Equation("-div(a*grad(u)) = 0", unknowns=["u"]), Grid(3, upper=3.0, boundary=Neumann()), {"a": a}
    )
    entry = system.operator.apply(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))[0]
    torch.testing.assert_close(entry, -2 * a[0] * a[1] / (a[0] + a[1]))
    (first,) = torch.autograd.grad(entry, a, create_graph=True)
    torch.testing.assert_close(first, torch.tensor([-2 * 4 / 9, -2 / 9, 0.0]).double())
    (second,) = torch.autograd.grad(first[0], a)
    torch.testing.assert_close(second, torch.tensor([4 * 4 / 27, -2 * 4 / 27, 0.0]).double())


def test_zeros_inside_obstacles_leave_gradients_finite() -> None:
    a = torch.ones(5, 5, dtype=torch.float64).masked_fill(SOLID, 0.0).requires_grad_()
    equation = Equation("-div(a*grad(u)) + div([u, u]) = 1")
    for walls in (Neumann(0.5), Robin(1.0, 2.0), Dirichlet(1.0)):
        system = discretize(equation, Grid((5, 5), solid=SOLID, walls=walls), {"a": a})
        total = system.operator.apply(torch.ones(5, 5, dtype=torch.float64)).sum() + system.right_side.sum()
        (gradient,) = torch.autograd.grad(total + system.flux(torch.ones_like(a), "walls"), a)
        assert torch.isfinite(gradient).all()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch.func itself calls it
def test_forward_mode() -> None:
    generator = torch.Generator().manual_seed(0)
    scalar = scalar_of(
        "div([f*u, -k*u]) - div(a*grad(u)) = f", FiniteVolume(advection="upwind"), SOLID, False, generator
    )
    point = tuple(inputs(generator))
    along = tuple(draw(*x.shape, generator=generator) for x in point)
    _, ahead = torch.func.jvp(scalar, point, along)
    _, expected = torch.autograd.functional.jvp(scalar, point, along)
    torch.testing.assert_close(ahead, expected)
