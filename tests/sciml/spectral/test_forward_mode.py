"""Forward derivatives of a flow with a stream function: by torch.func.jvp, by dual numbers, by differences."""

from __future__ import annotations

from math import pi

import pytest
import torch
from torch.autograd import forward_ad

import sciml
from sciml import Equation, Grid, Periodic
from sciml.solvers.time import ExplicitRungeKutta, ExponentialRungeKutta, ImplicitRungeKutta

FLOW = Equation(
    "w_t = -psi_y*w_x + psi_x*w_y + nu*laplacian(w) + f", constraints=["laplacian(psi) = -w"], parameters={"nu": 0.1}
)
FORCES = {"steady": lambda x, y: torch.sin(y), "moving": lambda x, y, t: torch.cos(x) * torch.cos(torch.as_tensor(t))}


@pytest.mark.parametrize("force", FORCES)
@pytest.mark.parametrize(
    "method",
    [ExplicitRungeKutta.rk4(), ExponentialRungeKutta.etd4(), ImplicitRungeKutta.sdirk2()],
    ids=["rk4", "etd4", "sdirk2"],
)
def test_a_run_with_a_constraint(method, force):
    square = Grid((16, 16), upper=2 * pi, boundary=Periodic())

    def run(nu):
        return sciml.evolve(
            FLOW,
            square,
            initial=lambda x, y: torch.cos(x) * torch.sin(y) + 0.3 * torch.sin(2 * x + y),
            parameters={"nu": nu},
            fields={"f": FORCES[force]},
            times=(0.0, 0.2),
            step=0.05,
            method=method,
        ).value[-1]

    nu = torch.tensor(0.1, dtype=torch.float64)
    _, found = torch.func.jvp(run, (nu,), (torch.ones_like(nu),))
    quotient = (run(nu + 1e-5) - run(nu - 1e-5)) / 2e-5
    assert float((found - quotient).abs().max() / quotient.abs().max()) < 1e-8
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(run(forward_ad.make_dual(nu, torch.ones_like(nu)))).tangent
    assert float((dual - found).abs().max()) < 1e-14
