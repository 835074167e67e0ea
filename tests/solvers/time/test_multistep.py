"""Adams-Bashforth 3 and leapfrog: orders, restarts, the filter, derivatives, and memory that is left alone."""

from __future__ import annotations

from itertools import pairwise
from math import cos, log2, pi, sin

import pytest
import torch
from torch.autograd import forward_ad

import sciml
from sciml.function_system import FunctionSystem
from sciml.ordinary import OrdinarySystem
from sciml.solvers.time.multistep import AdamsBashforth3, Leapfrog

OSCILLATOR = OrdinarySystem(sciml.Equation(["x_t = y", "y_t = -x + 0.5*cos(2*t)"], coordinates=()))
PENDULUM = OrdinarySystem(sciml.Equation(["x_t = y", "y_t = -sin(x)"], coordinates=()))
METHODS = [AdamsBashforth3(), Leapfrog(0.0), Leapfrog()]
NAMED = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.describe())


def march(method, system, y, end, steps, start=0.0, memory=None):
    stepper = method.stepper(system)
    h = (end - start) / steps
    memory = stepper.begin(y, start) if memory is None else memory
    for step in range(steps):
        attempt = stepper.step(y, start + step * h, h, memory)
        y, memory = attempt.value, attempt.memory
    return y, memory, stepper.counts()["evaluations"]


def oscillation(t):
    """From (1, 0): x = (7 cos t - cos 2 t) / 6."""
    return torch.tensor([(7 * cos(t) - cos(2 * t)) / 6, (-7 * sin(t) + 2 * sin(2 * t)) / 6], dtype=torch.float64)


def pendulum(t):
    """From (0, 1), of energy 1/2: sin(x/2) = k sn(t, k) with k = 1/2."""
    from scipy.special import ellipj

    sn, cn, _, _ = ellipj(t, 0.25)
    return torch.tensor([2 * torch.asin(torch.tensor(0.5 * sn, dtype=torch.float64)), cn], dtype=torch.float64)


@NAMED
@pytest.mark.parametrize(
    ("system", "start", "exact"),
    [(OSCILLATOR, (1.0, 0.0), oscillation), (PENDULUM, (0.0, 1.0), pendulum)],
    ids=["linear", "nonlinear"],
)
def test_order(method, system, start, exact):
    steps = (1600, 3200) if method == Leapfrog() else (200, 400)
    y = torch.tensor(start, dtype=torch.float64)
    coarse, fine = (float((march(method, system, y, 3.0, n)[0] - exact(3.0)).norm()) for n in steps)
    assert log2(coarse / fine) == pytest.approx(method.stepper(system).order, abs=0.1)


@NAMED
def test_one_evaluation_a_step_after_the_start(method):
    first = 4 if isinstance(method, AdamsBashforth3) else 1
    assert march(method, OSCILLATOR, oscillation(0.0), 1.0, 50)[2] == 50 + first


@NAMED
def test_the_order_survives_a_change_of_step(method):
    def error(refinement):
        y, memory, _ = march(method, OSCILLATOR, oscillation(0.0), 1.0, 40 * refinement)
        y, _, _ = march(method, OSCILLATOR, y, 3.0, 60 * refinement, 1.0, memory)
        return float((y - oscillation(3.0)).norm())

    refinement = 16 if method == Leapfrog() else 2
    order = method.stepper(OSCILLATOR).order
    assert log2(error(refinement) / error(2 * refinement)) == pytest.approx(order, abs=0.1)


@NAMED
def test_a_step_changes_neither_its_state_nor_its_memory(method):
    stepper, y = method.stepper(PENDULUM), pendulum(0.0)
    memory = stepper.begin(y, 0.0)
    for step in range(4):
        state, kept = y.clone(), [part.clone() for part in memory if isinstance(part, torch.Tensor)]
        first, again = (stepper.step(y, 0.1 * step, 0.1, memory) for _ in range(2))
        assert torch.equal(y, state)
        assert all(map(torch.equal, [part for part in memory if isinstance(part, torch.Tensor)], kept))
        assert torch.equal(first.value, again.value)
        y, memory = first.value, first.memory


def test_the_filter_damps_the_mode_that_changes_its_sign_at_every_step():
    """Of y' = 0 a jump between even and odd steps stays without the filter; with it z_n - y_n falls by 1 - 2 filter."""
    still = FunctionSystem(lambda u, t: torch.zeros_like(u))
    for method, factor in ((Leapfrog(0.0), 1.0), (Leapfrog(0.1), 0.8)):
        stepper = method.stepper(still)
        y, memory = torch.tensor(1.0, dtype=torch.float64), (0.1, torch.tensor(-1.0, dtype=torch.float64))
        jumps = []
        for step in range(20):
            attempt = stepper.step(y, 0.1 * step, 0.1, memory)
            y, memory = attempt.value, attempt.memory
            jumps.append(float(y - memory[1]))
        ratios = [abs(after / before) for before, after in pairwise(jumps)]
        assert ratios == pytest.approx([factor] * 19, abs=1e-12)


def test_adams_bashforth_is_stable_up_to_its_limit_on_the_negative_axis():
    decay = FunctionSystem(lambda u, t: -u)
    one = torch.ones((), dtype=torch.float64)
    for h, bounded in ((0.99 * 6 / 11, True), (1.01 * 6 / 11, False)):
        assert (abs(float(march(AdamsBashforth3(), decay, one, 1000 * h, 1000)[0])) < 1) is bounded


@NAMED
def test_derivatives_with_respect_to_state_and_parameter(method):
    equation = sciml.Equation(["x_t = y", "y_t = -k*sin(x)"], coordinates=(), parameters={"k": 1.0})

    def end(y, k):
        return march(method, OrdinarySystem(equation, parameters={"k": k}), y, 1.0, 8)[0]

    y, k = torch.tensor([0.3, 1.0], dtype=torch.float64), torch.tensor(1.2, dtype=torch.float64)
    assert torch.autograd.gradcheck(end, (y.requires_grad_(), k.requires_grad_()), rtol=1e-6)
    dy, dk = torch.tensor([0.4, -0.7], dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64)
    with torch.no_grad(), forward_ad.dual_level():
        value = end(forward_ad.make_dual(y.detach(), dy), forward_ad.make_dual(k.detach(), dk))
        tangent = forward_ad.unpack_dual(value).tangent
    with torch.no_grad():
        difference = (end(y + 1e-6 * dy, k + 1e-6 * dk) - end(y - 1e-6 * dy, k - 1e-6 * dk)) / 2e-6
    torch.testing.assert_close(tangent, difference, rtol=1e-6, atol=1e-9)


@NAMED
def test_rows_of_a_batch_and_float32(method):
    y = torch.stack([pendulum(t) for t in (0.0, 0.7, 2.0)])
    together = march(method, PENDULUM, y, pi, 50)[0]
    torch.testing.assert_close(together, torch.stack([march(method, PENDULUM, row, pi, 50)[0] for row in y]))
    single = march(method, OrdinarySystem(PENDULUM.equation, dtype=torch.float32), y.float(), pi, 50)[0]
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=2e-5, atol=2e-5)


def test_a_filter_out_of_range_is_refused():
    with pytest.raises(sciml.InputError, match=r"filter must be a number in \[0, 1\), got 1"):
        Leapfrog(1.0)
