"""Events: where they are found, what happens afterwards, and how they move with what a run depends on."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import forward_ad

import sciml
from sciml import Equation, FunctionSystem, Grid, InputError, Periodic, Status
from sciml.solvers.time import (
    AdamsBashforth3,
    Bdf2,
    Event,
    ExplicitRungeKutta,
    ExponentialRungeKutta,
    ImplicitExplicit,
    ImplicitRungeKutta,
)
from sciml.solvers.time.events import locate

DOUBLE = torch.float64
RAMP = Equation("u_t = 1", unknowns=["u"], coordinates=())
DECAY = Equation("u_t = -k*u", coordinates=(), parameters={"k": 1.0})
BALL = Equation(["x_t = v", "v_t = -g"], coordinates=(), parameters={"g": 9.81})
GROUND = Event(lambda u, t: u[..., 0], direction=-1)
# Steps that can be interpolated, and steps that must be taken again.
WAYS = {
    "dense": {},
    "row": {"control": "row"},
    "cubic": {"method": ExplicitRungeKutta.bogacki_shampine()},
    "fixed": {"method": ExplicitRungeKutta.rk4(), "step": 0.05},
    "order 8": {"method": ExplicitRungeKutta.prince_dormand()},
    "multistep": {"method": AdamsBashforth3(), "step": 0.02},
    "implicit": {"method": ImplicitRungeKutta.kvaerno5()},
    "two steps": {"method": Bdf2(), "step": 0.05},
}


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def at(level: float | torch.Tensor, **given: object) -> Event:
    return Event(lambda u, t: u - level, **given)


# Where they are


def test_zeros_of_many_functions_at_once():
    """Each row has a zero of its own and a shape of its own: steep, flat at the zero, at an end, nearly linear."""
    roots = numbers(0.3, 0.9999, 1.0, 0.5, 1e-7)
    shapes = (lambda x: x**3, lambda x: torch.expm1(20 * x), lambda x: x, lambda x: torch.atan(1e6 * x), lambda x: x)
    calls = []

    def function(x, rows):
        calls.append(int(rows.sum()))
        return torch.stack([shape(x[i] - roots[i]) for i, shape in enumerate(shapes)])

    every = torch.ones(5, dtype=torch.bool)
    left, right = function(torch.zeros(5, dtype=DOUBLE), every), function(torch.ones(5, dtype=DOUBLE), every)
    asked = torch.tensor([True, True, True, True, False])
    found = locate(function, left, right, asked, 1e-12)
    torch.testing.assert_close(found[:4], roots[:4], rtol=0, atol=2e-12)
    assert float(found[4]) == 1.0, "a row that is not asked for"
    assert len(calls) < 70


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_time_and_value_to_the_accuracy_of_the_steps(way):
    """u0 exp(-t) comes to be larger than exp(-2 t) at t = -log(u0), which is after the end for the last row."""
    start = numbers(0.9, 0.5, 0.2, 0.01)
    event = Event(lambda u, t: u - torch.exp(-2 * t), stop=False, direction=1)
    solution = sciml.evolve(DECAY, initial=start, times=[0.0, 0.5, 2.0], events=event, **way)
    (found,) = solution.events
    exact = -torch.log(start)
    tolerance = 2e-3 if isinstance(way.get("method"), Bdf2) else 2e-5
    torch.testing.assert_close(found["time"][:3], exact[:3], rtol=0, atol=tolerance)
    torch.testing.assert_close(found["value"][:3], start[:3] ** 2, rtol=0, atol=tolerance)
    # The function is zero there, however large the error of the steps is.
    value = found["value"] - torch.exp(-2 * found["time"])
    assert float(value[:3].abs().max()) < 1e-11
    assert bool(found["time"][3].isnan()) and bool(found["value"][3].isnan())


@pytest.mark.parametrize("control", ["joint", "row"])
def test_times_are_of_double_precision_whatever_the_state_is(control):
    start = torch.zeros(2)
    solution = sciml.evolve(RAMP, initial=start, times=(1e6, 1e6 + 2), events=at(0.53), control=control)
    time, value = solution.events[0]["time"], solution.events[0]["value"]
    assert (time.dtype, value.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(time, torch.full_like(time, 1e6 + 0.53), rtol=0, atol=1e-6)
    torch.testing.assert_close(value, torch.full_like(value, 0.53))


@pytest.mark.parametrize(
    ("method", "step"),
    [
        (None, None),
        (ExponentialRungeKutta.etd4(), 0.1),
        (ImplicitExplicit.ark4(), None),
        (ImplicitRungeKutta.crank_nicolson(), 0.01),
    ],
    ids=["default", "etdrk4", "ark4", "crank_nicolson"],
)
def test_fields_on_a_ring(method, step):
    """Heat: cos(x) decays like exp(-t), and its largest value is 0.5 at t = log(2 a) where it began as a."""
    heat, ring = Equation("u_t = laplacian(u)"), Grid(32, upper=2 * math.pi, boundary=Periodic())
    size = numbers(1.0, 2.0)
    start = size[:, None] * torch.cos(ring.coordinates[0])
    peak = Event(lambda u, t: u.amax(-1) - 0.5)
    solution = sciml.evolve(heat, ring, initial=start, times=[0.0, 2.0], events=peak, method=method, step=step)
    exponential = step is not None and isinstance(method, ExponentialRungeKutta)
    tolerance = 1e-11 if exponential else 5e-5  # exact in the linear part, however long the step is
    torch.testing.assert_close(solution.events[0]["time"], torch.log(2 * size), rtol=0, atol=tolerance)
    torch.testing.assert_close(solution.value[:, -1], (0.5 * start / size[:, None]), rtol=0, atol=1e-9)


# Rows that stop


@pytest.mark.parametrize("way", [WAYS["dense"], WAYS["row"], WAYS["fixed"]], ids=["joint", "row", "fixed"])
def test_nothing_is_reported_after_a_row_has_stopped(way):
    """Both events lie within the same step, and rows come to them at different times or never."""
    start = numbers(0.0, -0.3, -5.0)
    for levels in ((0.5, 0.52), (0.52, 0.5)):
        events = (at(levels[0]), at(levels[1]), at(0.49, stop=False), at(0.51, stop=False))
        solution = sciml.evolve(RAMP, initial=start, times=(0.0, 0.6, 1.0, 2.0), events=events, **way)
        times = {level: found["time"] for level, found in zip((*levels, 0.49, 0.51), solution.events, strict=True)}
        torch.testing.assert_close(times[0.5][:2], 0.5 - start[:2], rtol=0, atol=5e-12)
        torch.testing.assert_close(times[0.49][:2], 0.49 - start[:2], rtol=0, atol=5e-12)
        assert bool(times[0.52].isnan().all() and times[0.51].isnan().all() and times[0.5][2].isnan())
        stays = numbers(0.5, 0.5, -3.0)
        torch.testing.assert_close(solution.value[:, -1], stays, rtol=0, atol=5e-12)
        torch.testing.assert_close(solution.value[:, 1], numbers(0.5, 0.3, -4.4), rtol=0, atol=5e-12)
        assert solution.status == (Status.CONVERGED,) * 3


@pytest.mark.parametrize("control", ["joint", "row"])
def test_a_row_that_stopped_has_no_part_in_the_steps_of_the_others(control):
    """u = 1/(1/u0 - t) is about to blow up where it stops; the other row needs a handful of steps."""
    growth = Equation("u_t = k*u**2", coordinates=(), parameters={"k": 1.0})
    given = {"times": (0.0, 10.0), "events": at(100.0), "control": control}
    both = sciml.evolve(growth, initial=numbers(1.0, 1e-3), **given)
    alone = sciml.evolve(growth, initial=numbers(1.0), **given)
    torch.testing.assert_close(both.events[0]["time"], numbers(0.99, math.nan), rtol=0, atol=1e-5, equal_nan=True)
    torch.testing.assert_close(both.value[:, -1], numbers(100.0, 1 / 990), rtol=1e-6, atol=0)
    steps = both.statistics["steps"]
    assert int(steps[0]) == int(alone.statistics["steps"][0])
    assert int(steps[1]) < (8 if control == "row" else int(steps[0]) + 10)


def test_rows_that_failed_report_nothing():
    """The row that blows up at t = 0.1 does not pass for the one that takes its place in later steps."""
    growth = Equation("u_t = u**2", coordinates=())
    for control in ("joint", "row"):
        solution = sciml.evolve(
            growth,
            initial=numbers(10.0, 0.5),
            times=(0.0, 1.0),
            events=at(0.7, stop=False),
            control=control,
            throw=False,
        )
        assert solution.converged.tolist() == [False, True]
        torch.testing.assert_close(
            solution.events[0]["time"], numbers(math.nan, 2 - 1 / 0.7), rtol=0, atol=1e-5, equal_nan=True
        )


def test_rows_of_their_own_end_where_they_would_end_alone():
    """Steps, outputs before and after the event, and what an observer is told."""
    speed = numbers(1.0, 2.0, 30.0)
    start = torch.stack((torch.zeros_like(speed), speed), -1)
    told = []
    given = {"times": torch.linspace(0, 1, 6, dtype=DOUBLE), "events": GROUND, "control": "row"}
    solution = sciml.evolve(
        BALL, initial=start, observer=lambda place, t, u: told.append((place, t, u.clone())), **given
    )
    for row in range(3):
        alone = sciml.evolve(BALL, initial=start[row], **given)
        torch.testing.assert_close(solution.value[row], alone.value, rtol=0, atol=1e-10)
        torch.testing.assert_close(
            solution.events[0]["time"][row], alone.events[0]["time"], rtol=0, atol=1e-10, equal_nan=True
        )
        assert int(solution.statistics["steps"][row]) == int(alone.statistics["steps"])
    assert [place for place, _, _ in told] == list(range(6))
    torch.testing.assert_close(torch.stack([u for _, _, u in told], 1), solution.value, rtol=0, atol=0)


# Derivatives


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_derivatives_against_finite_differences(way):
    """Of time and value of the event and of the value at the end, with respect to the initial state, a parameter of the
    equation and one of the event, in both modes."""
    start = numbers(0.9, 0.5)
    given = {**way, "times": [0.0, 1.5]}

    def results(scale, k, level):
        event = Event(lambda u, t: u * (1 + 0.1 * t) - level)
        solution = sciml.evolve(DECAY, initial=scale * start, parameters={"k": k}, events=event, **given)
        return torch.cat([solution.events[0]["time"], solution.events[0]["value"], solution.value[:, -1]])

    inputs = tuple(numbers(*x).squeeze() for x in ((1.0,), (1.2,), (0.3,)))
    reverse = torch.autograd.functional.jacobian(results, inputs)
    for place, derivative in enumerate(reverse):
        step = 1e-6
        ends = [results(*(x + sign * step * (place == i) for i, x in enumerate(inputs))).detach() for sign in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * step)
        # Where steps adapt, their sizes are not differentiated.
        tolerance = 1e-6 if "step" in way else 1e-4
        torch.testing.assert_close(derivative, difference, rtol=tolerance, atol=tolerance)
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(x, torch.ones_like(x)) if place == i else x for i, x in enumerate(inputs)]
            forward = forward_ad.unpack_dual(results(*duals)).tangent
        torch.testing.assert_close(forward, derivative, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("control", ["joint", "row"])
def test_tensors_of_the_function_alone(control):
    """Nothing else asks for derivatives: u = t, and the event at u = c is at time c with value c."""
    level = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    solution = sciml.evolve(RAMP, initial=numbers(0.0, -5.0), times=(0.0, 2.0), events=at(level), control=control)
    for found in (solution.events[0]["time"][0], solution.events[0]["value"][0], solution.value[0, -1]):
        (slope,) = torch.autograd.grad(found, level, retain_graph=True)
        assert float(slope) == pytest.approx(1.0, abs=1e-10)

    def time(c):
        return sciml.evolve(RAMP, initial=0.0, times=(0.0, 2.0), events=at(c), control=control).events[0]["time"]

    assert float(torch.func.grad(time)(level.detach())) == pytest.approx(1.0, abs=1e-10)
    with torch.no_grad():
        held = sciml.evolve(RAMP, initial=numbers(0.0), times=(0.0, 2.0), events=at(level), control=control)
    assert not held.events[0]["time"].requires_grad and not held.value.requires_grad


def test_a_function_that_is_infinite_at_other_rows_leaves_the_derivative_alone():
    """log(u - 1) has an infinite derivative at the row that does not come there."""
    level = torch.tensor(1.0, dtype=DOUBLE, requires_grad=True)
    event = Event(lambda u, t: torch.sqrt(u - level) - 1.0)
    solution = sciml.evolve(RAMP, initial=numbers(1.5, 1.0 - 2.0), times=(0.0, 2.0), events=event)
    (slope,) = torch.autograd.grad(solution.events[0]["time"][0], level)
    assert float(slope) == pytest.approx(1.0, abs=1e-9)


# Work


def test_evaluations_of_the_search_are_counted():
    calls = 0

    def rate(u, t):
        nonlocal calls
        calls += 1
        return -u

    system = FunctionSystem(rate, ())
    for method, step in ((ExplicitRungeKutta.rk4(), 0.1), (ExplicitRungeKutta.prince_dormand(), None)):
        calls = 0
        with torch.no_grad():
            solution = sciml.evolve(
                system, initial=numbers(0.7, 1.0), times=(0.0, 2.0), events=at(0.5), method=method, step=step
            )
        assert int(solution.statistics["evaluations"].max()) == calls


# Input


def test_refused_input():
    given = {"initial": numbers(1.0, 2.0), "times": (0.0, 1.0)}
    with pytest.raises(InputError, match=r"torch\.sin\(t\), not math\.sin\(t\)"):
        sciml.evolve(DECAY, events=Event(lambda u, t: u - math.sin(t)), **given)
    with pytest.raises(InputError, match=r"returned torch\.bool, \(2,\), expected real numbers"):
        sciml.evolve(DECAY, events=Event(lambda u, t: u > 0.5), **given)
    with pytest.raises(InputError, match=r"returned torch\.float64, \(\), expected real numbers"):
        sciml.evolve(DECAY, events=Event(lambda u, t: u.sum()), **given)
    with pytest.raises(InputError, match="direction is -1, 0 or 1"):
        Event(lambda u, t: u, direction=2)
    for control in ("joint", "row"):
        with pytest.raises(InputError, match=r"gradient='recorded'|take 'recorded'"):
            sciml.evolve(DECAY, events=at(0.5), gradient="checkpointed", control=control, **given)
