"""Stiff problems of the literature by adaptive implicit methods, against scipy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy
import pytest
import torch
from scipy.integrate import solve_ivp

import sciml
from sciml.ordinary import OrdinarySystem
from sciml.solvers.time.implicit import ImplicitRungeKutta

F64 = torch.float64
ADAPTIVE = [ImplicitRungeKutta.kvaerno3(), ImplicitRungeKutta.kvaerno4(), ImplicitRungeKutta.kvaerno5()]


def ordinary(*equations):
    return OrdinarySystem(sciml.Equation(list(equations), coordinates=()))


@dataclass
class Run:
    y: torch.Tensor
    accepted: int = 0
    rejected: int = 0
    evaluations: int = 0


@torch.no_grad()
def adapt(method, system, y, end, rtol, atol, h=1e-5, stepper=None):
    """The elementary controller."""
    stepper = stepper or method.stepper(system, rtol, atol)
    run, t, memory = Run(y), 0.0, stepper.begin(y, 0.0)
    while t < end * (1 - 1e-14):
        h = min(h, end - t)
        attempt = stepper.step(run.y, t, h, memory)
        run.evaluations = stepper.counts()["evaluations"]
        ratio = numpy.inf
        if attempt.solved:
            ratio = float(system.error_ratio(attempt.error, run.y, attempt.value, rtol, atol).max())
        if ratio <= 1.0:
            run.y, memory, t = attempt.value, attempt.memory, t + h
            run.accepted += 1
        else:
            run.rejected += 1
        h *= min(5.0, max(0.2, 0.9 * max(ratio, 1e-10) ** (-1 / (stepper.embedded + 1))))
        assert run.accepted + run.rejected < 20_000
    return run


@cache
def reference(system, start, end, solver="LSODA", rtol=1e-10):
    """By scipy."""
    found = solve_ivp(
        lambda t, y: system.slope(torch.from_numpy(y), t).numpy(), (0, end), start, solver, rtol=rtol, atol=1e-4 * rtol
    )
    return torch.tensor(found.y[:, -1])


ROBERTSON = ordinary("x_t = -0.04*x + 1e4*y*z", "y_t = 0.04*x - 1e4*y*z - 3e7*y*y", "z_t = 3e7*y*y")
VAN_DER_POL = ordinary("x_t = y", "y_t = 1000*(1 - x*x)*y - x")
# D1 and D4 of the STIFF DETEST set, Enright, Hull and Lindberg, BIT 15 (1975) 10-48, and HIRES, Hairer and Wanner
# II, section IV.10.
D1 = ordinary("x_t = 0.2*(y - x)", "y_t = 10*x - (60 - 0.125*z)*y + 0.125*z", "z_t = 1")
D4 = ordinary("x_t = -0.013*x - 1000*x*z", "y_t = -2500*y*z", "z_t = -0.013*x - 1000*x*z - 2500*y*z")
HIRES = ordinary(
    "a_t = -1.71*a + 0.43*b + 8.32*c + 0.0007",
    "b_t = 1.71*a - 8.75*b",
    "c_t = -10.03*c + 0.43*d + 0.035*p",
    "d_t = 8.32*b + 1.71*c - 1.12*d",
    "p_t = -1.745*p + 0.43*q + 0.43*r",
    "q_t = -280*q*s + 0.69*d + 1.71*p - 0.43*q + 0.69*r",
    "r_t = 280*q*s - 1.81*r",
    "s_t = -280*q*s + 1.81*r",
)
PLAIN = {
    "Robertson": (
        lambda t, y: [
            -0.04 * y[0] + 1e4 * y[1] * y[2],
            0.04 * y[0] - 1e4 * y[1] * y[2] - 3e7 * y[1] ** 2,
            3e7 * y[1] ** 2,
        ],
        lambda t, y: [
            [-0.04, 1e4 * y[2], 1e4 * y[1]],
            [0.04, -1e4 * y[2] - 6e7 * y[1], -1e4 * y[1]],
            [0.0, 6e7 * y[1], 0.0],
        ],
    ),
    "van der Pol": (
        lambda t, y: [y[1], 1000 * (1 - y[0] ** 2) * y[1] - y[0]],
        lambda t, y: [[0.0, 1.0], [-2000 * y[0] * y[1] - 1, 1000 * (1 - y[0] ** 2)]],
    ),
}


@cache
def radau(name, start, end, rtol):
    """By scipy, without tensors, and with the Jacobian."""
    rate, jacobian = PLAIN[name]
    return torch.tensor(solve_ivp(rate, (0, end), start, "Radau", rtol=rtol, atol=1e-4 * rtol, jac=jacobian).y[:, -1])


STIFF = {
    "Robertson": (ROBERTSON, (1.0, 0.0, 0.0), 40.0, 1e-4),
    "van der Pol": (VAN_DER_POL, (2.0, 0.0), 900.0, 1e-2),
    "D1": (D1, (0.0, 0.0, 0.0), 400.0, 1e-1),
    "D4": (D4, (1.0, 1.0, 0.0), 50.0, 1e-4),
    "HIRES": (HIRES, (1.0, 0, 0, 0, 0, 0, 0, 0.0057), 10.0, 1e-3),
}


@pytest.mark.parametrize(
    ("order", "name"), [*((5, name) for name in STIFF), (4, "D1"), (4, "D4"), (4, "Robertson"), (3, "D1"), (3, "D4")]
)
def test_error_against_tolerance(order, name):
    system, start, end, share = STIFF[name]
    method, rtol = ADAPTIVE[order - 3], 1e-5 if order == 5 else 1e-4
    run = adapt(method, system, torch.tensor(start, dtype=F64), end, rtol, share * rtol)
    exact = radau(name, start, end, 1e-8) if name in PLAIN else reference(system, start, end)
    ratio = float(system.error_ratio(run.y - exact, exact, exact, rtol, share * rtol))
    assert 0.01 < ratio < 10, run
    assert run.accepted < 300


def test_robertson_to_the_end():
    """To 1e9, where nearly all has become z, of which the sum of the three tells nothing: x against Radau."""
    start = (1.0, 0.0, 0.0)
    run = adapt(ImplicitRungeKutta.kvaerno5(), ROBERTSON, torch.tensor(start, dtype=F64), 1e9, 1e-6, 1e-13)
    exact = radau("Robertson", start, 1e9, 1e-7)
    torch.testing.assert_close(run.y, exact, rtol=1e-4, atol=0.0)
    assert float(run.y.sum()) == pytest.approx(1.0, abs=1e-12)
    assert run.accepted < 400
