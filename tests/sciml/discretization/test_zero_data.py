"""Data that are 0 and carry derivatives, as those of learned coefficients do at the start: nothing of them is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.boundary import Dirichlet, Neumann, Robin
from sciml.discretization import GridEvolution
from sciml.equations import Equation
from sciml.grid import Grid
from sciml.scheme import FiniteDifference, FiniteVolume

SIDES: dict[str, Any] = {
    "values": (Dirichlet(lambda x, t: torch.cos(t)), Dirichlet(lambda x, t: torch.sin(t) + 2.0)),
    "fluxes": (Neumann(lambda x, t: torch.cos(t)), Robin(1.5, lambda x, t: torch.sin(t) + 2.0)),
    "still": (Dirichlet(1.0), Neumann(0.5)),
}
CENTRAL = FiniteDifference(advection="central")
CASES: dict[str, tuple[str, Any, str, tuple[int, ...]]] = {
    "a parameter": ("u_t = a*u_xx", CENTRAL, "values", ()),
    "of fluxes": ("u_t = a*u_xx", CENTRAL, "fluxes", ()),
    "of still walls": ("u_t = a*u_xx", CENTRAL, "still", ()),
    "of order 4": ("u_t = a*u_xx", FiniteDifference(4, advection="central"), "values", ()),
    "of transport": ("u_t = -a*u_x", CENTRAL, "values", ()),
    "of a nonlinear term": ("u_t = -a*u*u_x", CENTRAL, "values", ()),
    "a field in a divergence": ("u_t = div(a*grad(u))", FiniteDifference(), "values", (6,)),
    "of finite volumes": ("u_t = div(a*grad(u))", FiniteVolume(), "values", (6,)),
    "of a nonlinear flux": ("u_t = div(a*u**2*grad(u))", FiniteVolume(), "still", (6,)),
    "a source": ("u_t = u_xx + a", CENTRAL, "values", (6,)),
}


def rate_of(case: str) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """The rate as a function of the coefficient, the coefficient 0, and a direction."""
    text, scheme, sides, shape = CASES[case]
    grid = Grid(6, upper=1.5, boundary={"x": SIDES[sides]})
    equation = Equation(text, parameters={} if shape else {"a": 1.0}, coefficients=("a",) if shape else ())
    u = torch.linspace(0.3, 1.2, 6, dtype=torch.float64).exp()
    weights = torch.linspace(-1.0, 2.0, 6, dtype=torch.float64)

    def rate(a: Tensor) -> Tensor:
        given = {"a": a}
        system = GridEvolution(
            equation, grid, given if shape else {}, {} if shape else given, None, scheme, lambda _: lambda b: b
        )
        return (system.rate(u, 0.7) * weights).sum()

    # Harmonic means at 0 have derivatives along equal coefficients only.
    return rate, torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64)


@pytest.mark.parametrize("case", CASES)
def test_derivatives_at_zero(case: str) -> None:
    rate, zero, along = rate_of(case)
    exact = float(rate(along) - rate(zero))  # the rate is linear in the coefficient
    assert abs(exact) > 0.1
    a = zero.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rate(a), a)
    assert float((gradient * along).sum()) == pytest.approx(exact, rel=1e-12)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(rate(forward_ad.make_dual(zero, along))).tangent
    assert float(tangent) == pytest.approx(exact, rel=1e-12)
    assert float(torch.func.jvp(rate, (zero,), (along,))[1]) == pytest.approx(exact, rel=1e-12)
