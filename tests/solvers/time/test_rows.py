"""Rows with steps of their own: how their sizes follow from errors, what is recorded, and rows that end early."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import sciml
from sciml import Equation, InputError, Status
from sciml.kernels import build
from sciml.solvers.time import Controller, ExplicitRungeKutta

DOUBLE = torch.float64
POL = Equation(["x_t = y", "y_t = mu*(1 - x**2)*y - x"], coordinates=(), parameters={"mu": 5.0})
RECORDING = replace(ExplicitRungeKutta.tsit5(), record=True)


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=DOUBLE)


@pytest.mark.parametrize("derivative", [0.0, 0.2])
@pytest.mark.parametrize("kernel", [True, False])
def test_the_controller_is_that_of_joint_steps(derivative, kernel, monkeypatch):
    """One row alone takes the same steps, rejected ones among them, whatever P, I and D are."""
    if not kernel:
        monkeypatch.setattr(build, "library", lambda: None)
    method = replace(RECORDING, controller=Controller(integral=0.25, proportional=0.35, derivative=derivative))
    given = {"initial": numbers(2.0, 0.0), "times": (0.0, 12.0), "method": method, "rtol": 1e-6, "atol": 1e-6}
    with torch.no_grad():
        joint, row = (sciml.evolve(POL, control=control, **given) for control in ("joint", "row"))
    rejected = int(joint.statistics["rejected"])
    assert rejected > 5
    assert abs(int(row.statistics["rejected"]) - rejected) <= 1
    # The last two steps may be halves of what is left.
    assert abs(int(row.statistics["steps"]) - int(joint.statistics["steps"])) <= 1
    count = len(joint.history["step"]) - 3
    for name in ("step", "error"):
        torch.testing.assert_close(row.history[name][:count], joint.history[name][:count], rtol=1e-4, atol=1e-10)
    assert torch.equal(row.history["accepted"][:count], joint.history["accepted"][:count])


def test_three_terms_are_not_two():
    """Without the third factor of the controller the steps would be others."""
    given = {"initial": numbers(2.0, 0.0), "times": (0.0, 12.0), "control": "row", "rtol": 1e-6, "atol": 1e-6}
    steps = [
        sciml.evolve(POL, method=replace(RECORDING, controller=Controller(*gains)), **given).history["step"]
        for gains in ((0.3, 0.4, 0.2), (0.5, 0.4, 0.0))
    ]
    assert float((steps[0][3:9] / steps[1][3:9] - 1).abs().max()) > 0.01


@pytest.mark.parametrize("control", ["joint", "row"])
@pytest.mark.parametrize("kernel", [True, False])
def test_a_first_step_that_is_far_too_small_is_outgrown_at_once(control, kernel, monkeypatch):
    """By the largest factor while the error is negligible, and then by the one that leads to the target."""
    if not kernel:
        monkeypatch.setattr(build, "library", lambda: None)
    oscillator = Equation(["x_t = y", "y_t = -x"], coordinates=())
    given = {"initial": numbers(1.0, 0.0), "times": (0.0, 10.0), "control": control, "rtol": 1e-8, "atol": 1e-8}
    eager, cautious = (
        sciml.evolve(
            oscillator, method=replace(RECORDING, controller=Controller(first_step=1e-4, far_below=low)), **given
        )
        for low in (0.2, 0.0)
    )
    steps, errors = eager.history["step"].flatten(), eager.history["error"].flatten()
    target = 0.9**5
    torch.testing.assert_close(steps[:3], numbers(1e-4, 1e-3, 1e-2), rtol=1e-6, atol=0)
    assert float(errors[2]) < 1e-5
    assert float(steps[3]) == pytest.approx(0.1), "ten times is the largest factor"
    # Behind it the gain of P and I counts, and none of what was far too small.
    assert float(steps[4] / steps[3]) == pytest.approx(float(errors[3] / target) ** (-0.7 / 5), rel=1e-6)
    assert float(steps[5] / steps[4]) == pytest.approx(
        float(errors[4] / target) ** (-0.7 / 5) * float(errors[3] / target) ** (0.4 / 5), rel=1e-6
    )
    assert int(eager.statistics["steps"].max()) < int(cautious.statistics["steps"].max())


@pytest.mark.parametrize("control", ["joint", "row"])
@pytest.mark.parametrize("kernel", [True, False])
def test_bounds_of_the_step(control, kernel, monkeypatch):
    """A pulse of width 0.05 is not passed over; its integral is 100 * 0.05 * sqrt(pi)."""
    if not kernel:
        monkeypatch.setattr(build, "library", lambda: None)
    pulse = Equation("u_t = 100*exp(-((t - 5)/0.05)**2)", unknowns=["u"], coordinates=())
    controller = Controller(largest_step=0.1, first_step=0.03)
    solution = sciml.evolve(
        pulse,
        initial=numbers(0.0, 1.0),
        times=(0.0, 10.0),
        control=control,
        atol=1e-6,
        method=replace(RECORDING, controller=controller),
    )
    exact = 5 * math.sqrt(math.pi)
    torch.testing.assert_close(solution.value[:, -1], numbers(exact, 1 + exact), rtol=0, atol=1e-4)
    assert float(solution.statistics["largest_step"].max()) == pytest.approx(0.1)
    torch.testing.assert_close(solution.history["step"][0], numbers(0.03, 0.03))
    # The remainder of the run is no step that the tolerance asked for.
    tried = solution.history["step"][solution.history["accepted"]]
    assert float(solution.statistics["smallest_step"].min()) >= float(tried.min())


def test_the_history_holds_what_was_tried():
    """Rows of very different work: nothing is accepted, and no error is known, after a row has ended."""
    rate = numbers(1.0, 300.0)
    solution = sciml.evolve(
        Equation("u_t = -k*u", coordinates=(), parameters={"k": 1.0}),
        initial=numbers(1.0, 1.0),
        times=(0.0, 1.0),
        parameters={"k": rate},
        control="row",
        method=RECORDING,
    )
    history, statistics = solution.history, solution.statistics
    assert int(statistics["steps"][1]) > 5 * int(statistics["steps"][0])
    torch.testing.assert_close(history["accepted"].sum(0), statistics["steps"])
    active = history["step"] > 0
    torch.testing.assert_close((active & ~history["accepted"]).sum(0), statistics["rejected"])
    for name in ("error", "stiffness"):
        assert torch.equal(history[name].isnan(), ~active)
    torch.testing.assert_close((history["step"] * history["accepted"]).sum(0), numbers(1.0, 1.0))
    whole = history["accepted"] & (history["time"] + history["step"] < 1.0)
    sizes = torch.where(whole, history["step"], torch.inf).amin(0)
    torch.testing.assert_close(statistics["smallest_step"], sizes)


def test_gradients_of_the_history_with_rows_that_have_ended():
    """Of two unknowns, against the same sum of one row at a time."""
    oscillator = Equation(["x_t = w*y", "y_t = -w*x"], coordinates=(), parameters={"w": 1.0})

    def gradient(start, speed):
        w = speed.clone().requires_grad_()
        history = sciml.evolve(
            oscillator, initial=start, times=(0.0, 3.0), parameters={"w": w}, control="row", method=RECORDING
        ).history
        torch.nansum(history["error"]).backward()
        return w.grad

    start, speed = torch.eye(2, dtype=DOUBLE), numbers(0.5, 20.0)
    both = gradient(start, speed)
    alone = torch.stack([gradient(start[row], speed[row]) for row in range(2)])
    torch.testing.assert_close(both, alone, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("control", ["joint", "row"])
def test_steps_that_were_rejected_as_not_finite_leave_gradients_alone(control):
    """u' = -a sqrt(u): u = (sqrt(u0) - a t/2)^2; the second row ends at u = 0, where steps reach negative values."""
    fall = Equation("u_t = -a*sqrt(u)", coordinates=(), parameters={"a": 1.0})
    a = torch.tensor(1.0, dtype=DOUBLE, requires_grad=True)
    solution = sciml.evolve(
        fall, initial=numbers(1.0, 1e-3), times=(0.0, 1.0, 1.9), parameters={"a": a}, control=control, throw=False
    )
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE)
    assert int(solution.statistics["rejected"][0]) > 2
    assert float(solution.statistics["failed_at"][1]) == pytest.approx(2 * math.sqrt(1e-3), rel=1e-3)
    (slope,) = torch.autograd.grad(solution.value[0].sum(), a)
    # d/da of 0.25 and 0.0025.
    assert float(slope) == pytest.approx(-(0.5 * 1.0 + 0.05 * 1.9), abs=1e-4)


def test_rows_that_had_failed_stay_failed():
    growth = Equation("u_t = u**2", coordinates=())
    first = sciml.evolve(growth, initial=numbers(2.0, 0.5), times=(0.0, 1.0), control="row", throw=False)
    assert first.status[0] is not Status.CONVERGED
    told = []
    second = sciml.evolve(
        growth,
        initial=first,
        times=(1.0, 1.2, 1.5),
        control="row",
        throw=False,
        observer=lambda place, t, u: told.append(u),
    )
    assert second.status == (first.status[0], Status.CONVERGED)
    torch.testing.assert_close(second.value[1], 1 / (2 - numbers(1.0, 1.2, 1.5)), rtol=1e-5, atol=0)
    assert bool(second.value[0].isnan().all())
    assert int(second.statistics["steps"][0]) == 0
    torch.testing.assert_close(torch.stack(told, 1), second.value, rtol=0, atol=0, equal_nan=True)


def test_functions_of_one_time_are_refused():
    forced = Equation("u_t = f", unknowns=["u"], coordinates=())
    given = {"initial": numbers(0.0, 0.0), "times": (0.0, 1.0)}
    sine = sciml.evolve(forced, fields={"f": lambda t: torch.sin(torch.as_tensor(t))}, control="row", **given)
    torch.testing.assert_close(sine.value[:, -1], torch.full((2,), 1 - math.cos(1.0), dtype=DOUBLE), rtol=0, atol=1e-5)
    for function in (lambda t: math.sin(t), lambda t: 1.0 if t > 0.5 else 0.0):
        with pytest.raises(InputError, match=r"torch\.sin\(t\), not math\.sin\(t\), and torch\.where in place of if"):
            sciml.evolve(forced, fields={"f": function}, control="row", **given)
