"""Derivatives of steps by torch.func.jvp and by dual numbers, with respect to the state and parameters at once, against
central differences: explicit and implicit methods, on periodic and bounded grids and on meshes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import sciml
from sciml import (
    Dirichlet,
    Equation,
    FiniteDifference,
    FiniteElement,
    FiniteVolume,
    Grid,
    InputError,
    Mesh,
    Neumann,
    Periodic,
    Robin,
)
from sciml.solvers.time import Bdf2, ExplicitRungeKutta, ImplicitExplicit, ImplicitRungeKutta

METHODS: dict[str, Any] = {
    "rk4": ExplicitRungeKutta.rk4(),
    "backward Euler": ImplicitRungeKutta.backward_euler(),
    "kvaerno3": ImplicitRungeKutta.kvaerno3(),
    "cnab2": ImplicitExplicit.cnab2(),
    "ark3": ImplicitExplicit.ark3(),
    "bdf2": Bdf2(),
}
CENTRAL = FiniteDifference(advection="central")
MOVING = {"x": (Dirichlet(lambda x, t: torch.cos(3.0 * t)), Robin(1.0, lambda x, t: torch.sin(t)))}
STREAM = "u_t = nu*laplacian(u) + c*u_x*p_y - u_y*p_x"
SQUARE = Mesh.box((3, 3), (0.0, 0.0), (1.0, 1.0))
RIM = Dirichlet(lambda x, y, t: torch.cos(3.0 * t) + 0.0 * x)

CASES: dict[str, tuple[str, str, Grid | Mesh, dict[str, Any]]] = {
    "a ring": ("u_t = nu*u_xx - u*u_x + c*u**2", "", Grid(8, boundary=Periodic()), {"scheme": CENTRAL}),
    "walls": ("u_t = nu*u_xx - c*u_x", "", Grid(8, boundary=MOVING), {"scheme": CENTRAL}),
    "order 4": ("u_t = nu*u_xx - c*u*u_x", "", Grid(8, boundary=MOVING), {"scheme": FiniteDifference(4)}),
    "a nonlinear flux": ("u_t = div((1 + nu*u**2)*grad(u)) + c*u", "", Grid(8, boundary=Dirichlet(1.0)), {}),
    "limited": ("u_t = -div([c*u + u**2/2]) + nu*u", "", Grid(8, boundary=Dirichlet(0.5)), {"scheme": FiniteVolume()}),
    "sparse factors": ("u_t = nu*laplacian(u) - c*u*u_x", "", Grid((15, 14)), {}),
    "a constraint": (STREAM, "laplacian(p) - c*p = -u", Grid((4, 3)), {}),
    "free constants": (STREAM, "laplacian(p) = -u", Grid((4, 3), boundary=Neumann(0.0)), {}),
    "a mesh": ("u_t = nu*laplacian(u) + c*u**2", "", SQUARE, {"boundary": RIM}),
    "lumped masses": (
        "u_tt = nu*laplacian(u) + c*u",
        "",
        SQUARE,
        {"boundary": RIM, "scheme": FiniteElement(lumped=True)},
    ),
    "a constraint on a mesh": (STREAM, "laplacian(p) - c*p = -u", SQUARE, {"boundary": Dirichlet(0.0)}),
}

# One method of a kind everywhere; all of them, and coefficients that are 0, in some places.
PAIRS = [(case, method, False) for case in CASES for method in ("rk4", "backward Euler", "cnab2")]
PAIRS.remove(("a nonlinear flux", "cnab2", False))  # it has no linear part
PAIRS += [(case, method, False) for case in ("walls", "a mesh") for method in ("kvaerno3", "ark3", "bdf2")]
PAIRS += [(case, method, True) for case in ("walls", "a constraint", "a mesh") for method in ("rk4", "backward Euler")]

Function = Callable[[Tensor, Tensor, Tensor], Tensor]


def steps(case: str, method: str) -> tuple[Function, Tensor]:
    """Two steps as a function of the state, nu and c, and a state."""
    text, constraint, domain, given = CASES[case]
    equation = Equation(text, constraints=constraint or (), parameters={"nu": 0.1, "c": 0.3})
    generator = torch.Generator().manual_seed(5)
    shape = domain.shape if isinstance(domain, Grid) else (len(domain.points),)
    u = torch.rand(len(equation.unknowns), *shape, generator=generator, dtype=torch.float64) + 0.5
    if case == "free constants":
        u = u - u.mean()

    def run(u: Tensor, nu: Tensor, c: Tensor) -> Tensor:
        solution = sciml.evolve(
            equation,
            domain,
            initial=u,
            times=[0.0, 0.004],
            step=0.002,
            parameters={"nu": nu, "c": c},
            method=METHODS[method],
            **given,
        )
        return solution.value[..., -1, :] if isinstance(domain, Mesh) and len(u) == 1 else solution.value

    return run, u if len(u) > 1 else u[0]


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("case", "method", "at_zero"), PAIRS)
def test_forward_derivatives(case: str, method: str, at_zero: bool) -> None:
    run, u = steps(case, method)
    nu, c = (0.0, 0.0) if at_zero else (0.1, 0.3)
    direction = torch.rand(u.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64) - 0.5
    if case == "free constants":
        direction = direction - direction.mean()
    point, along = (u, scalar(nu), scalar(c)), (direction, scalar(0.7), scalar(-0.4))
    h = 1e-5
    before, after = (run(*(x + sign * h * d for x, d in zip(point, along, strict=True))) for sign in (-1.0, 1.0))
    expected = (after - before) / (2.0 * h)
    found = torch.func.jvp(run, point, along)[1]
    with forward_ad.dual_level():
        duals = (forward_ad.make_dual(x, d) for x, d in zip(point, along, strict=True))
        tangent = forward_ad.unpack_dual(run(*duals)).tangent
    size = float(expected.abs().max())
    assert float((found - expected).abs().max()) < 2e-7 * size
    assert tangent is not None and float((tangent - found).abs().max()) < 1e-9 * size


@pytest.mark.parametrize("method", ["rk4", "backward Euler", "ark3"])
def test_gradients_of_forward_derivatives(method: str) -> None:
    """Backward through the derivative along nu, with respect to the state."""
    run, u = steps("a ring", method)
    weights, along = torch.linspace(-1.0, 2.0, 8).double(), torch.linspace(1.0, 3.0, 8).double().cos()

    def slope(u: Tensor) -> Tensor:
        with forward_ad.dual_level():
            nu = forward_ad.make_dual(scalar(0.1), scalar(1.0))
            tangent = forward_ad.unpack_dual(run(u, nu, scalar(0.3))).tangent
        assert tangent is not None
        return (tangent[-1] * weights).sum()

    h = 1e-4
    expected = float(slope(u + h * along) - slope(u - h * along)) / (2.0 * h)
    state = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(slope(state), state)
    assert float(gradient @ along) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["grid", "mesh"])
def test_domains_that_are_used_in_a_transform_first(kind: str) -> None:
    """What is kept with them serves afterwards, outside of it."""
    solid = torch.zeros(6, 5, dtype=torch.bool)
    solid[2, 2] = True
    box: Any = Grid((6, 5), boundary=RIM, solid=solid) if kind == "grid" else Mesh.box((4, 4), (0.0, 0.0), (1.0, 1.0))
    equation = Equation("u_t = nu*laplacian(u) + x*u + f", parameters={"nu": 0.1})

    def run(nu: Tensor, method: Any = METHODS["rk4"]) -> Tensor:
        given: dict[str, Any] = {"fields": {"f": lambda x, y: x * y.sin()}, "boundary": None if kind == "grid" else RIM}
        given |= {"initial": lambda x, y: x * y, "times": [0.0, 0.01], "step": 0.005, "parameters": {"nu": nu}}
        value: Tensor = sciml.evolve(equation, box, method=method, **given).value[-1].sum()
        return value

    found = float(torch.func.jvp(run, (scalar(0.1),), (scalar(1.0),))[1])
    for name in ("rk4", "kvaerno3", "ark3"):
        difference = (run(scalar(0.1001), METHODS[name]) - run(scalar(0.0999), METHODS[name])) / 2e-4
        assert float(difference) == pytest.approx(found, rel=1e-3)


def test_other_transforms_say_what_would_do() -> None:
    run, u = steps("walls", "kvaerno3")
    nu = scalar(0.1)
    many = ((torch.stack([u, u]), nu, nu), (u, torch.stack([nu, nu]), nu))
    for place, arguments in enumerate(many):
        rows = tuple(0 if k == place else None for k in range(3))
        with pytest.raises(InputError, match=r"inside torch.func.vmap.*leading axes of fields, parameters and initial"):
            torch.func.vmap(run, rows)(*arguments)
    for other in (torch.func.grad(lambda x: run(u, x, nu).sum()), torch.func.jacfwd(lambda x: run(u, x, nu))):
        with pytest.raises(InputError, match=r"supported by jvp alone|inside torch.func.vmap"):
            other(nu)
