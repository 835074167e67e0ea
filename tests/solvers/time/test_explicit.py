"""Explicit Runge-Kutta methods and the loop over steps, against exact solutions and scipy."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy
import pytest
import scipy.integrate
import torch

import sciml
from sciml import Equation, InputError, SolveError, Status
from sciml.equations import catalogue
from sciml.function_system import FunctionSystem
from sciml.kernels import build
from sciml.solvers.time import AdamsBashforth3, Controller, Event, ExplicitRungeKutta
from sciml.solvers.time.march import integrate
from sciml.solvers.time.rows import integrate_rows
from sciml.solvers.time.trajectory import Task

ALL = [
    ExplicitRungeKutta.euler(),
    ExplicitRungeKutta.heun(),
    ExplicitRungeKutta.rk4(),
    ExplicitRungeKutta.bogacki_shampine(),
    ExplicitRungeKutta.dormand_prince(),
    ExplicitRungeKutta.tsit5(),
    ExplicitRungeKutta.prince_dormand(),
]
METHODS = pytest.mark.parametrize("method", ALL, ids=lambda method: method.tableau.name)
ADAPTIVE = pytest.mark.parametrize(
    "method", [m for m in ALL if m.tableau.error is not None], ids=lambda method: method.tableau.name
)

OSCILLATOR = Equation(["x_t = y", "y_t = -x"], coordinates=())
LOGISTIC = Equation("u_t = u*(1 - u)*cos(t)", coordinates=())


def oscillation(t):
    return torch.stack((torch.cos(t), -torch.sin(t)), -1)


def logistic(t):
    grown = torch.exp(torch.sin(t))
    return 0.2 * grown / (0.8 + 0.2 * grown)


def points(end, count):
    return torch.linspace(0, end, count, dtype=torch.float64)


MATHIEU = Equation(["x_t = v", "v_t = -x*(1 + cos(3*t)/2)"], coordinates=())
TRIANGULAR = Equation(["x_t = -x*(1 + cos(3*t)) + y", "y_t = -y*cos(t)"], coordinates=())
KEPLER = Equation(["x_t = v", "y_t = w", "v_t = -x/(x**2 + y**2)**1.5", "w_t = -y/(x**2 + y**2)**1.5"], coordinates=())
# By order: numbers of steps at which the leading term of the error stands out from the next and from rounding.
COUNTS = {
    "linear": {1: (1600, 3200), 2: (400, 800), 3: (200, 400), 4: (320, 640), 5: (256, 512), 8: (24, 36)},
    "nonlinear": {1: (1600, 3200), 2: (400, 800), 3: (200, 400), 4: (160, 320), 5: (40, 60), 8: (24, 36)},
}


@cache
def end_of(equation, start, end):
    """By steps of order 8, shorter than those whose errors are measured."""
    initial = torch.tensor(start, dtype=torch.float64)
    return sciml.evolve(equation, initial=initial, times=[0.0, end], step=6e-3, method=ALL[-1]).value[-1]


@METHODS
@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_observed_order(method, kind):
    order = method.tableau.order
    if kind == "linear":
        equation, start = (MATHIEU, (1.0, 0.0)) if order == 8 else (TRIANGULAR, (1.0, 1.0))
    else:
        equation, start = (KEPLER, (0.8, 0.0, 0.0, 1.5**0.5)) if order == 8 else (LOGISTIC, 0.2)
    end = 3.0 if equation is LOGISTIC else 6.0
    initial, times = torch.tensor(start, dtype=torch.float64), [0.0, end]
    exact = logistic(torch.tensor(end, dtype=torch.float64))
    if equation is not LOGISTIC:
        exact = end_of(equation, start, end)
    errors = []
    for count in COUNTS[kind][order]:
        solution = sciml.evolve(equation, initial=initial, times=times, step=end / count, method=method)
        assert int(solution.statistics["steps"]) == count
        errors.append(float(torch.linalg.vector_norm(solution.value[-1] - exact)))
    few, many = COUNTS[kind][order]
    assert math.log(errors[0] / errors[1]) / math.log(many / few) == pytest.approx(order, abs=0.1)


# Hull, Enright, Fellen and Sedgwick, SIAM J. Numer. Anal. 9 (1972) 603-637: one problem of each class.
DETEST = {
    "A3": (["x_t = x*cos(t)"], [1.0]),
    "B1": (["x_t = 2*(x - x*y)", "y_t = -(y - x*y)"], [1.0, 3.0]),
    "B5": (["x_t = y*z", "y_t = -x*z", "z_t = -0.51*x*y"], [0.0, 1.0, 1.0]),
    "D1": (
        ["x_t = v", "y_t = w", "v_t = -x/(x**2 + y**2)**1.5", "w_t = -y/(x**2 + y**2)**1.5"],
        [0.9, 0.0, 0.0, math.sqrt(1.1 / 0.9)],
    ),
    "E2": (["x_t = y", "y_t = (1 - x**2)*y - x"], [2.0, 0.0]),
}


@ADAPTIVE
@pytest.mark.parametrize("problem", DETEST)
def test_error_over_tolerance(method, problem):
    """DETEST's measure: the largest error of a step, begun on the numerical solution, over the tolerance; here of up
    to 40 steps."""
    tolerance = 1e-3 if method.tableau.order == 2 else 1e-5
    text, initial = DETEST[problem]
    equation = Equation(text, coordinates=())
    start = torch.tensor(initial if len(initial) > 1 else initial[0], dtype=torch.float64)
    given = {"method": method, "rtol": tolerance, "atol": tolerance}
    history = sciml.evolve(equation, initial=start, times=[0.0, 20.0], **given).history
    ends = [0.0, *(history["time"] + history["step"])[history["accepted"]].tolist()]
    solution = sciml.evolve(equation, initial=start, times=ends, **given)
    system, states = solution.system, solution.value.numpy().reshape(len(ends), -1)
    ratios = []
    for place in numpy.unique(numpy.linspace(0, len(ends) - 2, 40).astype(int)):
        exact = scipy.integrate.solve_ivp(
            lambda t, y: system.rate(torch.from_numpy(y).reshape(start.shape), t).numpy().reshape(-1),
            (ends[place], ends[place + 1]),
            states[place],
            method="DOP853",
            rtol=1e-12,
            atol=1e-14,
        ).y[:, -1]
        largest = numpy.maximum(numpy.abs(states[place]), numpy.abs(states[place + 1]))
        error = (states[place + 1] - exact) / (tolerance + tolerance * largest)
        ratios.append(numpy.sqrt(numpy.mean(error**2)))
    assert 0.01 < max(ratios) < 10


def test_the_choice_for_several_methods_agrees_with_scipy():
    lorenz = catalogue.get("lorenz").equation
    start = torch.tensor([1.0, 2.0, 20.0], dtype=torch.float64)
    times = points(3.0, 30)
    reference = scipy.integrate.solve_ivp(
        lambda t, u: [10 * (u[1] - u[0]), u[0] * (28 - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]],
        (0.0, 3.0),
        start.numpy(),
        method="DOP853",
        rtol=1e-12,
        atol=1e-12,
        t_eval=times.numpy(),
    ).y.T
    for method in (
        ExplicitRungeKutta.tsit5(),
        ExplicitRungeKutta.dormand_prince(),
        ExplicitRungeKutta.prince_dormand(),
    ):
        solution = sciml.evolve(lorenz, initial=start, times=times, method=method, rtol=1e-10, atol=1e-10)
        numpy.testing.assert_allclose(solution.value.numpy(), reference, atol=2e-6)


@pytest.mark.parametrize("dense", [True, False])
def test_outputs_do_not_depend_on_how_steps_meet_them(dense):
    method = replace(ExplicitRungeKutta.tsit5(), dense=dense)
    times = torch.cat((points(6.0, 7), points(6.0, 100)[1:-1])).unique()
    solution = sciml.evolve(
        OSCILLATOR, initial=torch.tensor([1.0, 0.0], dtype=torch.float64), times=times, method=method
    )
    torch.testing.assert_close(solution.value, oscillation(times), rtol=0, atol=2e-5)
    ends = solution.history["time"] + solution.history["step"]
    on_outputs = (times[1:, None] - ends[solution.history["accepted"]]).abs().amin(-1) < 1e-12
    assert bool(on_outputs.all()) is (not dense)
    assert bool(on_outputs[-1])


def test_batch_rows_equal_single_runs_with_steps_of_their_own():
    pol = catalogue.get("van_der_pol").equation
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(6, 2, dtype=torch.float64, generator=generator)
    mu = torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    times = points(7.0, 23)
    together = sciml.evolve(pol, initial=start, times=times, parameters={"mu": mu}, control="row", rtol=1e-6, atol=1e-6)
    for row in range(len(mu)):
        alone = sciml.evolve(
            pol, initial=start[row], times=times, parameters={"mu": float(mu[row])}, control="row", rtol=1e-6, atol=1e-6
        )
        torch.testing.assert_close(together.value[row], alone.value, rtol=1e-9, atol=1e-9)
        for count in ("steps", "rejected", "evaluations"):
            assert int(together.statistics[count][row]) == int(alone.statistics[count])
        joint = sciml.evolve(
            pol, initial=start[row], times=times, parameters={"mu": float(mu[row])}, rtol=1e-6, atol=1e-6
        )
        torch.testing.assert_close(together.value[row], joint.value, rtol=1e-4, atol=1e-4)
    steps = together.statistics["steps"]
    assert int(steps.max()) > 2 * int(steps.min())


def test_both_controls_agree_on_one_row():
    solutions = [
        sciml.evolve(
            LOGISTIC,
            initial=torch.tensor(0.2, dtype=torch.float64),
            times=[0.0, 10.0],
            method=replace(ExplicitRungeKutta.tsit5(), record=True),
            control=control,
            rtol=1e-7,
            atol=1e-7,
        )
        for control in ("joint", "row")
    ]
    joint, row = solutions
    torch.testing.assert_close(joint.value, row.value, rtol=1e-6, atol=0)
    counts = [int(solution.statistics["steps"]) for solution in solutions]
    assert counts[1] == pytest.approx(counts[0], rel=0.05)


def test_rows_alone_agree_with_and_without_the_kernel(monkeypatch):
    """Over several chunks of steps, with a right-hand side that depends on the time."""
    equation = Equation(["x_t = y", "y_t = mu*(1 - x**2)*y - x + cos(3*t)"], coordinates=(), parameters={"mu": 2.0})
    start = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    arguments = {"initial": start, "times": points(8.0, 9), "control": "row", "rtol": 1e-7, "atol": 1e-7}
    compiled = sciml.evolve(equation, **arguments)
    monkeypatch.setattr(build, "library", lambda: None)
    plain = sciml.evolve(equation, **arguments)
    torch.testing.assert_close(compiled.value, plain.value, rtol=1e-9, atol=1e-9)
    for count in ("steps", "rejected"):
        torch.testing.assert_close(compiled.statistics[count], plain.statistics[count])


def test_compiled_steps_equal_eager_ones():
    weight = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    system = FunctionSystem(lambda u, t: torch.tanh(u @ weight) - u, (3,))
    start = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    task = Task((0.0, 1.0, 2.5), rtol=1e-6, atol=1e-6)
    eager = ExplicitRungeKutta.dormand_prince()
    compiled = replace(eager, compile=True)
    with torch.no_grad():
        torch.testing.assert_close(
            integrate(compiled, system, start, task).states, integrate(eager, system, start, task).states
        )
        torch.testing.assert_close(
            integrate_rows(compiled, system, start, task).states, integrate_rows(eager, system, start, task).states
        )
        pair = [integrate(replace(m, record=True), system, start, task).history for m in (compiled, eager)]
    assert pair[0].keys() == pair[1].keys() and "stiffness" in pair[0]
    for name, value in pair[1].items():
        torch.testing.assert_close(pair[0][name], value, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("gradients", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_network_is_compiled_once_for_all_runs(gradients):
    """Every training step makes a system of its own, of other weights and initial states."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 3).double().requires_grad_(gradients)
    eager = replace(ExplicitRungeKutta.heun(), record=True)
    for run in range(3):
        start = (1.0 + run) * torch.randn(5, 3, dtype=torch.float64)
        found = []
        for method in (replace(eager, compile=True), eager):
            system = FunctionSystem(lambda u, t: -network(u).tanh(), (3,))
            with torch.compiler.set_stance("fail_on_recompile" if run else "default"):
                solution = sciml.evolve(system, initial=start, times=[0.0, 1.0 + run], method=method, rtol=1e-2)
            loss = solution.value.square().mean() + solution.history["error"].mean()
            found.append(torch.autograd.grad(loss, network.weight)[0] if gradients else loss)
        torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-9)
        with torch.no_grad():
            network.weight.mul_(1.1)


# Gradients


def forced(mu, nu):
    equation = Equation(["x_t = mu*y + nu*sin(t)", "y_t = -x*y"], coordinates=(), parameters={"mu": 1.0, "nu": 1.0})
    return equation, {"mu": mu, "nu": nu}


@pytest.mark.parametrize("control", ["joint", "row"])
def test_gradients_are_those_of_the_recorded_steps(control):
    """The same steps taken again, with perturbed data, give the differences."""
    start = torch.tensor([[0.3, 0.9], [1.1, 0.4]], dtype=torch.float64)
    data = torch.tensor([1.2, 0.4, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    equation, parameters = forced(data[0], data[1])
    solution = sciml.evolve(
        equation,
        initial=start + data[2:],
        times=[0.0, 0.7, 3.0],
        parameters=parameters,
        method=replace(ExplicitRungeKutta.tsit5(), record=True),
        control=control,
        rtol=1e-5,
        atol=1e-5,
    )
    weights = torch.randn(solution.value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    (gradient,) = torch.autograd.grad((solution.value * weights).sum(), data)
    differences = []
    for k in range(len(data)):
        unit = torch.zeros_like(data)
        unit[k] = 1e-4
        values = []
        for factor in (1, -1, 2, -2):
            values.append((replay(solution, data.detach() + factor * unit, start) * weights).sum())
        differences.append((8 * (values[0] - values[1]) - (values[2] - values[3])) / 12e-4)
    torch.testing.assert_close(gradient, torch.stack(differences), rtol=1e-6, atol=1e-8)


def replay(solution, data, start):
    """The solution's accepted steps, taken again for other data by a plain loop, with their dense output."""
    tableau = ExplicitRungeKutta.tsit5().tableau
    history, times = solution.history, solution.times[1:].tolist()

    def rate(u, t):
        return torch.stack((data[0] * u[1] + data[1] * math.sin(t), -u[0] * u[1]))

    def combined(u, weights, slopes, h):
        return u + h * sum((w * k for w, k in zip(weights, slopes, strict=True)), start=torch.zeros(2))

    found = []
    for row in range(len(start)):
        u = start[row] + data[2:]
        outputs = [u]
        kept = history["accepted"][:, row] & (history["step"][:, row] > 0)
        for t, h in zip(history["time"][kept, row].tolist(), history["step"][kept, row].tolist(), strict=True):
            slopes = []
            for i in range(tableau.stages):
                slopes.append(rate(combined(u, tableau.a[i], slopes, h), t + tableau.c[i] * h))
            for time in times:
                if t < time <= t + h * (1 + 1e-12):
                    powers = [((time - t) / h) ** (p + 1) for p in range(4)]
                    weights = [sum(c * p for c, p in zip(row_, powers, strict=True)) for row_ in tableau.dense]
                    outputs.append(combined(u, weights, slopes, h))
            u = combined(u, tableau.b, slopes, h)
        found.append(torch.stack(outputs))
    return torch.stack(found)


@pytest.mark.parametrize("step", [None, 0.05])
def test_checkpointed_gradients_equal_plain_ones(step):
    start = torch.tensor([0.3, 0.9], dtype=torch.float64)
    gradients = []
    for gradient in ("recorded", "checkpointed"):
        data = torch.tensor([1.2, 0.4], dtype=torch.float64, requires_grad=True)
        equation, parameters = forced(*data)
        solution = sciml.evolve(
            equation, initial=start, times=[0.0, 0.5, 2.0], parameters=parameters, gradient=gradient, step=step
        )
        gradients.append(torch.autograd.grad(solution.value.square().sum(), data)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-13, atol=0)


def test_checkpointing_keeps_a_number_of_states_that_grows_like_the_square_root():
    """What the graph holds, counted by hooks on saved tensors."""

    def held(gradient, steps):
        rate = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        system = FunctionSystem(lambda u, t: rate * torch.sin(u), (50,))
        start = torch.linspace(0.1, 1.0, 50, dtype=torch.float64)
        alive = 0

        class Kept:
            def __init__(self, tensor):
                nonlocal alive
                self.tensor = tensor
                alive += tensor.numel()

        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            integrate(ExplicitRungeKutta.rk4(), system, start, Task((0.0, 1.0), step=1.0 / steps, gradient=gradient))
        return alive

    assert held("recorded", 400) == pytest.approx(4 * held("recorded", 100), rel=0.05)
    assert held("checkpointed", 400) < 0.05 * held("recorded", 400)


def test_forward_mode_equals_reverse_mode():
    start = torch.tensor([0.3, 0.9], dtype=torch.float64)
    method = ExplicitRungeKutta.tsit5()

    def final(data):
        equation, parameters = forced(data[0], data[1])
        return sciml.evolve(
            equation, initial=start + data[2], times=[0.0, 1.0], parameters=parameters, step=0.1, method=method
        ).value[-1]

    data = torch.tensor([1.2, 0.4, 0.1], dtype=torch.float64)
    backward = torch.autograd.functional.jacobian(final, data)
    for k in range(3):
        unit = torch.zeros_like(data)
        unit[k] = 1.0
        _, tangent = torch.func.jvp(final, (data,), (unit,))
        torch.testing.assert_close(tangent, backward[:, k], rtol=1e-12, atol=1e-12)


def test_errors_and_stiffness_estimates_carry_gradients():
    """For u' = -a u the two stages at the same time tell |a| exactly, and the error is a multiple of (a h)^5."""
    method = replace(ExplicitRungeKutta.dormand_prince(), record=True)
    for control in ("joint", "row"):
        a = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        equation = Equation("u_t = -a*u", coordinates=(), parameters={"a": 1.0})
        solution = sciml.evolve(
            equation,
            initial=torch.tensor([1.0, 2.0], dtype=torch.float64),
            times=[0.0, 1.0],
            parameters={"a": a},
            method=method,
            control=control,
            rtol=1e-5,
            atol=1e-5,
        )
        accepted = solution.history["accepted"] & (solution.history["step"] > 0)
        stiffness = solution.history["stiffness"][accepted]
        torch.testing.assert_close(stiffness.detach(), torch.full_like(stiffness.detach(), 3.0), rtol=1e-6, atol=0)
        (slope,) = torch.autograd.grad(stiffness.sum(), a, retain_graph=True)
        assert float(slope) == pytest.approx(len(stiffness), rel=1e-6)
        (error_slope,) = torch.autograd.grad(solution.history["error"][accepted].sum(), a)
        assert float(error_slope) > 0


# Rows that fail


@pytest.mark.parametrize("control", ["joint", "row"])
def test_a_row_that_blows_up_does_not_take_the_others_down(control):
    """u' = u^2 is 1/(1/u_0 - t)."""
    equation = Equation("u_t = u**2", coordinates=())
    start = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    times = [0.0, 0.5, 3.0]
    solution = sciml.evolve(equation, initial=start, times=times, control=control, throw=False, rtol=1e-8)
    assert solution.status == (Status.STEP_UNDERFLOW, Status.STEP_UNDERFLOW, Status.CONVERGED)
    torch.testing.assert_close(
        solution.statistics["failed_at"][:2], torch.tensor([1.0, 2.0], dtype=torch.float64), rtol=1e-6, atol=0
    )
    assert bool(solution.statistics["failed_at"][2].isnan())
    exact = 1 / (1 / start[:, None] - torch.tensor(times[:2], dtype=torch.float64))
    torch.testing.assert_close(solution.value[:, :2], exact, rtol=1e-6, atol=0)
    assert solution.value[:2, 2].isnan().all()
    assert float(solution.value[2, 2]) == pytest.approx(1 / 7, rel=1e-6)
    with pytest.raises(SolveError, match=r"row 0 \(2 of 3 rows failed\) ended with STEP_UNDERFLOW by time 1\b"):
        sciml.evolve(equation, initial=start, times=times, control=control, rtol=1e-8)


def test_an_unstable_step_says_what_the_limit_is():
    decay = Equation("u_t = -1000*(u - cos(t))", coordinates=())
    with pytest.raises(SolveError, match=r"step 0\.01 is unstable.*limit of this method is about 0\.0028") as raised:
        sciml.evolve(decay, initial=2.0, times=points(10.0, 11), step=0.01, method=ExplicitRungeKutta.rk4())
    solution = raised.value.solution
    assert solution.status == (Status.NON_FINITE,)
    assert math.isfinite(float(solution.value[0]))
    assert math.isnan(float(solution.value[-1]))


def test_times_in_single_precision_leave_fixed_steps_as_they_are():
    """Methods that remember earlier steps would begin anew at every other length."""
    solution = sciml.evolve(
        OSCILLATOR,
        initial=torch.tensor([1.0, 0.0], dtype=torch.float64),
        times=torch.linspace(0, 1, 101),
        step=0.01,
        method=AdamsBashforth3(),
    )
    assert int(solution.statistics["steps"]) == 100
    assert int(solution.statistics["evaluations"]) == 104


def test_a_limit_of_steps_ends_a_run():
    method = replace(ExplicitRungeKutta.tsit5(), controller=Controller(max_steps=20))
    start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for control in ("joint", "row"):
        solution = sciml.evolve(
            OSCILLATOR, initial=start, times=points(100.0, 101), method=method, control=control, throw=False
        )
        assert solution.status == (Status.MAX_STEPS,)
        reached = ~solution.value[:, 0].isnan()
        assert 1 < int(reached.sum()) < 101
        torch.testing.assert_close(solution.value[reached], oscillation(solution.times[reached]), rtol=0, atol=1e-4)


# Continuation, events, observers


def test_a_run_goes_on_from_the_end_of_another():
    start = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    first = sciml.evolve(OSCILLATOR, initial=start, times=[0.0, 1.0], rtol=1e-9)
    second = sciml.evolve(OSCILLATOR, initial=first, times=[1.0, 2.5], rtol=1e-9)
    torch.testing.assert_close(
        second.value[0, -1], oscillation(torch.tensor(2.5, dtype=torch.float64)), rtol=0, atol=1e-7
    )
    with pytest.raises(InputError, match=r"ends at time 1\.0, and times begins at 2\.0"):
        sciml.evolve(OSCILLATOR, initial=first, times=[2.0, 3.0])


@pytest.mark.parametrize(
    "method", [ExplicitRungeKutta.tsit5(), ExplicitRungeKutta.prince_dormand()], ids=["dense", "steps"]
)
def test_events_are_located_and_stop_rows(method):
    """A ball thrown up at speed v is back at time 2 v / g."""
    ball = Equation(["x_t = v", "v_t = -g"], coordinates=(), parameters={"g": 9.81})
    speed = torch.tensor([1.0, 2.0, 30.0], dtype=torch.float64)
    start = torch.stack((torch.zeros_like(speed), speed), -1)
    ground = Event(lambda u, t: u[..., 0], direction=-1)
    top = Event(lambda u, t: u[..., 1], stop=False)
    solution = sciml.evolve(ball, initial=start, times=points(1.0, 5), events=[ground, top], method=method)
    back, highest = solution.events
    torch.testing.assert_close(back["time"][:2], 2 * speed[:2] / 9.81, rtol=1e-9, atol=0)
    assert bool(back["time"][2].isnan()) and bool(back["value"][2].isnan().all())
    torch.testing.assert_close(back["value"][:2, 1], -speed[:2], rtol=1e-9, atol=0)
    torch.testing.assert_close(highest["time"][:2], speed[:2] / 9.81, rtol=1e-9, atol=0)
    torch.testing.assert_close(highest["value"][:2, 0], speed[:2] ** 2 / (2 * 9.81), rtol=1e-9, atol=0)
    # Afterwards the rows stay where they were.
    torch.testing.assert_close(solution.value[:2, -1], back["value"][:2])
    torch.testing.assert_close(solution.value[2, -1, 0], speed[2] - 9.81 / 2)
    assert solution.status == (Status.CONVERGED,) * 3


def test_the_time_of_an_event_is_differentiable():
    ball = Equation(["x_t = v", "v_t = -g"], coordinates=(), parameters={"g": 9.81})
    speed = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    start = torch.stack((torch.zeros_like(speed), speed))
    (ground,) = sciml.evolve(
        ball, initial=start, times=[0.0, 3.0], events=Event(lambda u, t: u[..., 0], direction=-1)
    ).events
    (slope,) = torch.autograd.grad(ground["time"], speed, retain_graph=True)
    assert float(slope) == pytest.approx(2 / 9.81, rel=1e-8)
    (slope,) = torch.autograd.grad(ground["value"][1], speed)
    assert float(slope) == pytest.approx(-1.0, rel=1e-8)


@pytest.mark.parametrize("given", [{"rtol": 1e-6}, {"step": 0.1}, {"rtol": 1e-6, "control": "row"}])
@METHODS
def test_evaluations_are_counted(method, given):
    """All that happen, but the one that looks for gradients and happens with these on alone."""
    if (method.tableau.error is None and "rtol" in given) or (method.tableau.dense is None and "control" in given):
        return
    count = 0

    def rate(u, t):
        nonlocal count
        count += 1
        return -u

    system = FunctionSystem(rate, (1,))
    task = Task((0.0, 1.0, 2.0), given.get("step"), given.get("rtol", 0.0), 1e-6)
    start = torch.ones(1, dtype=torch.float64)
    with torch.no_grad():
        if "control" in given:
            trajectory = integrate_rows(method, system, start, task)
            tried = int(trajectory.statistics["steps"] + trajectory.statistics["rejected"])
            # Rows that have ended are still evaluated, with steps of 0, until the next look.
            assert int(trajectory.statistics["evaluations"]) == 2 + tried * (method.tableau.stages - 1) <= count
        else:
            assert int(integrate(method, system, start, task).statistics["evaluations"]) == count
            count = 0
            stepper = method.stepper(system)
            memory = stepper.begin(start, 0.0)
            for h in (0.1, 0.2):
                memory = stepper.step(start, 0.0, h, memory).memory
            assert stepper.counts() == {"evaluations": count}


def test_an_observer_sees_every_output_at_once():
    seen = []
    solution = sciml.evolve(
        OSCILLATOR,
        initial=torch.tensor([1.0, 0.0], dtype=torch.float64),
        times=points(2.0, 9),
        observer=lambda place, t, u: seen.append((place, t, u)),
    )
    assert [place for place, _, _ in seen] == list(range(9))
    torch.testing.assert_close(torch.stack([u for _, _, u in seen]), solution.value)
    assert [t for _, t, _ in seen] == solution.times.tolist()


def test_float32_states_stay_float32():
    start = torch.tensor([1.0, 0.0])
    for control in ("joint", "row"):
        solution = sciml.evolve(OSCILLATOR, initial=start, times=[0.0, 2.0], control=control)
        assert solution.value.dtype == torch.float32
        torch.testing.assert_close(solution.value[-1], oscillation(torch.tensor(2.0)), rtol=0, atol=1e-3)


# Input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"times": [0.0, 1.0, 1.0]}, r"times must increase: times\[1\] is 1\.0 and times\[2\] is 1\.0"),
        ({"times": [1.0, 0.0]}, "go back in time"),
        ({"times": [0.0]}, "at least one more, got 1"),
        ({"times": [0.0, math.nan]}, "times must increase"),
        ({"times": 3.0}, "times is a list of numbers"),
        ({"step": 0.1, "rtol": 1e-3}, "give either step"),
        ({"step": -0.1}, "step must be positive"),
        ({"rtol": 0.0}, "rtol must be positive"),
        ({"control": "rows"}, "control is 'joint' or 'row'"),
        ({"gradient": "none"}, "gradient is 'recorded' or 'checkpointed'"),
        ({"method": "tsit5"}, "method must be an integrator"),
        ({"initial": torch.zeros(3, dtype=torch.float64)}, r"initial has shape \(3,\), expected \(\*batch, 2\)"),
        ({"initial": torch.tensor([1.0, math.nan])}, "1 of 2 values are NaN"),
        ({"initial": {"x": 1.0}}, "no value is given for y"),
        ({"initial": {"x": 1.0, "y": 0.0, "z": 0.0}}, "'z' is not an unknown"),
        ({"method": ExplicitRungeKutta.rk4()}, "no error estimate: give step="),
        ({"method": ExplicitRungeKutta.rk4(), "control": "row"}, "control='row' needs a method with an error estimate"),
        ({"control": "row", "step": 0.1}, "adapts the steps of every row"),
    ],
)
def test_refused_input(given, message):
    arguments = {"initial": torch.tensor([1.0, 0.0], dtype=torch.float64), "times": [0.0, 1.0], **given}
    with pytest.raises(InputError, match=message):
        sciml.evolve(OSCILLATOR, **arguments)


def test_steady_equations_are_refused():
    with pytest.raises(InputError, match=r"steady, take sciml\.solve"):
        sciml.evolve(Equation("-laplacian(u) = 1"), sciml.Grid(8), initial=0.0, times=[0.0, 1.0])
