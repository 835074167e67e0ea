"""What one row of a batch may and may not do to the others, and where steps of one size for all of them end."""

from __future__ import annotations

from dataclasses import replace
from math import pi, sqrt

import pytest
import torch

import sciml
from sciml import Equation, Grid, InputError, Periodic, Status
from sciml.solvers.time import (
    AdamsBashforth3,
    Bdf2,
    Controller,
    Event,
    ExplicitRungeKutta,
    ExponentialRungeKutta,
    ImplicitRungeKutta,
)

BLOWUP = Equation("u_t = a*u**2", coordinates=(), parameters={"a": 1.0})
DECAY = Equation("u_t = -u", coordinates=())


def tensor(*numbers, requires_grad=False):
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=requires_grad)


@pytest.mark.parametrize(
    ("method", "step", "gradient"),
    [
        (ExplicitRungeKutta.rk4(), 0.02, "recorded"),
        (ExplicitRungeKutta.rk4(), 0.02, "checkpointed"),
        (AdamsBashforth3(), 0.02, "recorded"),
        (Bdf2(), 0.02, "recorded"),
        (ExplicitRungeKutta.tsit5(), None, "recorded"),
        (ExplicitRungeKutta.tsit5(), None, "checkpointed"),
        (ImplicitRungeKutta.sdirk2(), 0.02, "recorded"),
    ],
    ids=["rk4", "rk4-checkpointed", "ab3", "bdf2", "tsit5", "tsit5-checkpointed", "sdirk2"],
)
def test_a_row_that_blows_up_leaves_the_gradients_of_the_others_alone(method, step, gradient):
    """u = u0 / (1 - a u0 t), and du/da = u**2 t; the second row has no solution beyond t = 1/10."""

    def gradient_of(start):
        a = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        solution = sciml.evolve(
            BLOWUP,
            initial=start,
            parameters={"a": a},
            times=(0.0, 2.0, 4.0),
            method=method,
            step=step,
            gradient=gradient,
            throw=False,
        )
        solution.value[0].sum().backward()
        return solution, a.grad

    solution, found = gradient_of(tensor(0.1, 10.0))
    exact = sum(t * (0.1 / (1 - 0.1 * t)) ** 2 for t in (0.0, 2.0, 4.0))
    assert float(found) == pytest.approx(exact, rel=2e-3)
    alone = gradient_of(tensor(0.1))[1]
    assert float(found) == pytest.approx(float(alone), rel=1e-8 if step else 2e-3)
    assert Status(int(solution.codes[0])) is Status.CONVERGED
    assert Status(int(solution.codes[1])) in (Status.NON_FINITE, Status.STEP_UNDERFLOW, Status.STAGNATED)
    assert bool(solution.value[1, 1:].isnan().all())
    assert bool(solution.value[1, 0] == 10.0)


def test_a_row_that_blows_up_under_the_default_of_a_ring():
    x = Grid((32,), upper=(2 * pi,), boundary=Periodic())
    nu = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    start = torch.stack((0.1 * torch.sin(x.coordinates[0]), 5.0 + torch.sin(x.coordinates[0])))
    solution = sciml.evolve(
        Equation("u_t = nu*u_xx + u**3", parameters={"nu": 0.1}),
        x,
        initial=start,
        parameters={"nu": nu},
        times=(0.0, 1.0),
        throw=False,
    )
    solution.value[0, -1].square().sum().backward()
    assert solution.codes[0] == Status.CONVERGED
    assert solution.codes[1] != Status.CONVERGED
    alone = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    single = sciml.evolve(
        Equation("u_t = nu*u_xx + u**3", parameters={"nu": 0.1}),
        x,
        initial=start[0],
        parameters={"nu": alone},
        times=(0.0, 1.0),
    )
    single.value[-1].square().sum().backward()
    assert float(nu.grad) == pytest.approx(float(alone.grad), rel=1e-4)


@pytest.mark.parametrize("method", [ExplicitRungeKutta.rk4(), AdamsBashforth3(), Bdf2()], ids=["rk4", "ab3", "bdf2"])
def test_steps_of_fixed_size_say_when_a_row_failed(method):
    """It fails at the same step as where every step is an output, and its counts end there."""
    start, settings = tensor(0.1, 10.0), {"step": 0.02, "method": method, "throw": False}
    every = sciml.evolve(BLOWUP, initial=start, times=[0.02 * k for k in range(201)], **settings)
    number = int(every.value[1].isfinite().sum())
    solution = sciml.evolve(BLOWUP, initial=start, times=(0.0, 2.0, 4.0), **settings)
    assert solution.statistics["failed_at"].isnan().tolist() == [True, False]
    assert float(solution.statistics["failed_at"][1]) == pytest.approx(0.02 * number)
    assert int(solution.statistics["steps"][0]) == 200
    assert int(solution.statistics["steps"][1]) <= number


@pytest.mark.parametrize("control", ["joint", "row"])
def test_rows_of_very_different_size_each_meet_their_tolerance(control):
    """With one absolute tolerance for both the small one would be noise."""
    solution = sciml.evolve(
        DECAY, initial=tensor(1e-3, 1e6), times=(0.0, 1.0, 5.0), method=ExplicitRungeKutta.tsit5(), control=control
    )
    exact = tensor(1e-3, 1e6)[:, None] * torch.exp(-tensor(0.0, 1.0, 5.0))
    assert float((solution.value / exact - 1).abs().max()) < 1e-4


def test_one_fast_row_among_many_slow_ones_is_as_exact_as_alone():
    w = torch.full((2000,), 1e-3, dtype=torch.float64)
    w[7] = 5.0
    oscillator = Equation(["u_t = v", "v_t = -w**2*u"], coordinates=(), parameters={"w": 1.0})
    start = tensor(1.0, 0.0)

    def error(frequencies, row):
        solution = sciml.evolve(
            oscillator,
            initial=start,
            parameters={"w": frequencies},
            times=(0.0, 20.0),
            method=ExplicitRungeKutta.tsit5(),
        )
        u = solution.value if row is None else solution.value[row]
        return float((u[-1, 0] - torch.cos(tensor(100.0))).abs())

    assert error(w, 7) < 2 * error(w[7], None) + 1e-6


def test_from_rest_the_forcing_sets_the_scale():
    """u'' = -400 u + 4e-7 from rest swings between 0 and 2e-9."""
    equation = Equation(["u_t = v", "v_t = -400*u + 4e-7"], coordinates=())
    solution = sciml.evolve(equation, initial={"u": 0.0, "v": 0.0}, times=(0.0, 1.0), method=ExplicitRungeKutta.tsit5())
    exact = 1e-9 * (1 - torch.cos(tensor(20.0)))
    assert float((solution.value[-1, 0] - exact).abs()) < 1e-11


def test_a_gradient_that_begins_in_the_course_of_time_is_recorded():
    theta = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    equation = Equation("u_t = f", coordinates=())
    for control in ("joint", "row"):
        solution = sciml.evolve(
            equation,
            initial=tensor(0.0, 1.0),
            fields={"f": lambda t: torch.where(torch.as_tensor(t) > 1.0, theta * torch.as_tensor(t), 0.0)},
            times=(0.0, 1.0, 2.0),
            method=ExplicitRungeKutta.tsit5(),
            control=control,
        )
        (found,) = torch.autograd.grad(solution.value[0, -1], theta)
        assert float(found) == pytest.approx(1.5, rel=1e-4)


def test_the_largest_step_finds_a_pulse():
    pulse = Equation("u_t = 100*exp(-((t - 5)/0.05)**2)", coordinates=())
    exact = 100 * 0.05 * sqrt(pi)
    method = replace(ExplicitRungeKutta.tsit5(), controller=Controller(largest_step=0.1))
    solution = sciml.evolve(pulse, initial=tensor(0.0), times=(0.0, 10.0), method=method, atol=1e-6)
    assert float(solution.value[0, -1]) == pytest.approx(exact, rel=1e-5)
    assert float(solution.statistics["largest_step"]) <= 0.1


@pytest.mark.parametrize(
    "method", [ExplicitRungeKutta.tsit5(), ImplicitRungeKutta.kvaerno5()], ids=["tsit5", "kvaerno5"]
)
def test_the_first_step_is_the_one_given(method):
    method = replace(method, controller=Controller(first_step=0.003))
    solution = sciml.evolve(DECAY, initial=tensor(1.0), times=(0.0, 10.0), method=method)
    assert float(solution.history["step"][0]) == 0.003


def test_a_sum_that_overflows_is_no_failure():
    grid = Grid((1024,), upper=(1024.0,), boundary=sciml.Neumann(), dtype=torch.float32)
    solution = sciml.evolve(
        Equation("u_t = u_xx"), grid, initial=1e36, times=(0.0, 0.1), step=0.1, method=ExplicitRungeKutta.rk4()
    )
    torch.testing.assert_close(solution.value[-1], torch.full((1024,), 1e36))


def test_no_absolute_tolerance_and_an_unknown_that_stays_zero():
    equation = Equation(["u_t = -u", "v_t = -2*v"], coordinates=())
    solution = sciml.evolve(equation, initial={"u": 1.0, "v": 0.0}, times=(0.0, 1.0), rtol=1e-8, atol=0.0)
    assert float(solution.value[-1, 0]) == pytest.approx(float(torch.exp(tensor(-1.0))), rel=1e-6)
    assert float(solution.value[-1, 1]) == 0.0


def test_a_row_that_stopped_no_longer_decides_the_steps():
    """The first row comes to its event at t = 0.99 on the way to infinity at t = 1."""
    equation = Equation("u_t = k*u**2", coordinates=(), parameters={"k": 1.0})
    solution = sciml.evolve(
        equation,
        initial=tensor(1.0, 1e-3),
        times=(0.0, 100.0),
        method=ExplicitRungeKutta.tsit5(),
        events=Event(lambda u, t: u - 100),
    )
    assert float(solution.events[0]["time"][0]) == pytest.approx(0.99, rel=1e-5)
    assert int(solution.statistics["steps"][1]) < 200
    assert int(solution.statistics["steps"][0]) < int(solution.statistics["steps"][1])
    assert float(solution.value[1, -1]) == pytest.approx(1e-3 / 0.9, rel=1e-5)


def test_the_history_of_steps_of_fixed_size():
    method = replace(ExplicitRungeKutta.tsit5(), record=True)
    solution = sciml.evolve(DECAY, initial=tensor(1.0, 2.0), times=(0.0, 1.0), step=0.25, method=method)
    assert solution.history["step"][:, 0].tolist() == [0.25] * 4
    assert solution.history["error"].shape == (4, 2)
    # The error estimate of the first step is linear in the state, and the scale as well.
    assert float(solution.history["error"][0, 0]) == pytest.approx(float(solution.history["error"][0, 1]), rel=1e-12)
    with pytest.raises(InputError, match="take 'recorded'"):
        sciml.evolve(
            DECAY,
            initial=tensor(1.0, requires_grad=True),
            times=(0.0, 1.0),
            step=0.25,
            method=method,
            gradient="checkpointed",
        )


def test_the_last_of_equal_steps_takes_what_is_left():
    """An exact method stays exact where the time is not quite a multiple of the step."""
    grid = Grid((32,), upper=(2 * pi,), boundary=Periodic())
    x = grid.coordinates[0]
    end = 1000 * (1 + 9e-10)
    solution = sciml.evolve(
        Equation("u_t = -u_x"),
        grid,
        initial=torch.sin(x),
        times=(0.0, end),
        step=0.1,
        method=ExponentialRungeKutta.etd4(),
    )
    assert float((solution.value[-1] - torch.sin(x - end)).abs().max()) < 2e-11


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("01", "list of numbers"),
        (["a", 1], "list of numbers"),
        ((1e15, 1e15 + 1), "too close for float64"),
        ((0.0, 1.0, 1.0), r"times\[1\] is 1.0"),
        ((1.0,), "at least one more"),
    ],
)
def test_times_that_make_no_sense(times, message):
    with pytest.raises(InputError, match=message):
        sciml.evolve(DECAY, initial=1.0, times=times)


def test_a_tolerance_below_the_dtype_warns():
    with pytest.warns(UserWarning, match="float32"):
        sciml.evolve(
            DECAY,
            initial=torch.tensor(1.0),
            times=(0.0, 0.1),
            rtol=1e-12,
            method=replace(ExplicitRungeKutta.tsit5(), controller=Controller(max_steps=50)),
            throw=False,
        )


def test_a_run_with_a_failed_row_goes_on():
    first = sciml.evolve(BLOWUP, initial=tensor(0.1, 10.0), times=(0.0, 1.0), throw=False)
    second = sciml.evolve(BLOWUP, initial=first, times=(1.0, 4.0), throw=False)
    assert second.codes[0] == Status.CONVERGED
    assert second.codes[1] == first.codes[1] != Status.CONVERGED
    assert float(second.value[0, -1]) == pytest.approx(0.1 / 0.6, rel=1e-5)
    assert bool(second.value[1].isnan().all())


def test_a_backward_pass_through_a_forward_derivative_of_a_run():
    """u = u0 exp(-k t): the derivative of du/du0 with respect to k is -t exp(-k t)."""
    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    equation = Equation("u_t = -k*u", coordinates=(), parameters={"k": 1.0})

    def run(start):
        settings = {"step": 0.02, "method": ExplicitRungeKutta.rk4()}
        return sciml.evolve(equation, initial=start, parameters={"k": k}, times=(0.0, 2.0), **settings).value[0, -1]

    _, slope = torch.func.jvp(run, (tensor(3.0),), (tensor(1.0),))
    (found,) = torch.autograd.grad(slope, k)
    assert float(found) == pytest.approx(-2.0 * float(torch.exp(-2.0 * k.detach())), rel=1e-7)
