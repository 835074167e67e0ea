"""Implicit integrators: orders, stiff problems, algebraic rows, derivatives, and set-ups that are kept."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import cos, exp, log2, pi, sin
from typing import Any

import pytest
import torch
from scipy.integrate import solve_ivp
from torch.autograd import forward_ad

import sciml
from sciml.csr import csr_tensor
from sciml.evolving import EvolvingSystem, root_mean_square_ratio
from sciml.function_system import FunctionSystem
from sciml.ordinary import OrdinarySystem
from sciml.solvers.discretize import discretize
from sciml.solvers.linear import GMRES, ConjugateGradient, Jacobi, Multigrid
from sciml.solvers.time.bdf2 import Bdf2
from sciml.solvers.time.implicit import ImplicitRungeKutta
from sciml.solvers.time.implicit_explicit import ImplicitExplicit
from sciml.sparse import as_operator

F64 = torch.float64
IMPLICIT = [
    ImplicitRungeKutta.backward_euler(),
    ImplicitRungeKutta.crank_nicolson(),
    ImplicitRungeKutta.sdirk2(),
    Bdf2(),
    ImplicitRungeKutta.kvaerno3(),
    ImplicitRungeKutta.kvaerno4(),
    ImplicitRungeKutta.kvaerno5(),
]
ADDITIVE = [ImplicitExplicit.cnab2(), ImplicitExplicit.ark3(), ImplicitExplicit.ark4()]
ADAPTIVE = [method for method in IMPLICIT if isinstance(method, ImplicitRungeKutta) and method.tableau.embedded]


def named(methods):
    return pytest.mark.parametrize("method", methods, ids=lambda method: method.describe().split(",")[0])


def ordinary(*equations, **options):
    return OrdinarySystem(sciml.Equation(list(equations), coordinates=()), **options)


def march(method, system, y, end, steps, start=0.0):
    stepper = method.stepper(system)
    memory, h = stepper.begin(y, start), (end - start) / steps
    for step in range(steps):
        attempt = stepper.step(y, start + step * h, h, memory)
        assert attempt.solved is True
        y, memory = attempt.value, attempt.memory
    return y, stepper


@cache
def reference(system, start, end, solver="LSODA", rtol=1e-10):
    """By scipy."""
    found = solve_ivp(
        lambda t, y: system.slope(torch.from_numpy(y), t).numpy(), (0, end), start, solver, rtol=rtol, atol=1e-4 * rtol
    )
    return torch.tensor(found.y[:, -1])


# Orders

LINEAR = ordinary("x_t = -2*x + y + sin(t)", "y_t = x - 3*y + cos(2*t)")
NONLINEAR = ordinary("x_t = -2*x + y + sin(t)", "y_t = x - y - y*y*x")
START = torch.tensor([1.0, 0.5], dtype=F64)


@named(IMPLICIT + ADDITIVE)
@pytest.mark.parametrize("system", [LINEAR, NONLINEAR], ids=["linear", "nonlinear"])
def test_order(method, system):
    order = method.stepper(system).order
    steps = {1: 60, 2: 40, 4: 60, 5: 10}.get(order, 40)
    exact = reference(system, (1.0, 0.5), 1.0, "DOP853", 1e-13)
    coarse, fine = (float((march(method, system, START, 1.0, n)[0] - exact).norm()) for n in (steps, 2 * steps))
    assert log2(coarse / fine) == pytest.approx(order, abs=0.1)


@named(ADAPTIVE + ADDITIVE[1:])
def test_order_of_the_error_estimate(method):
    """Of one step: one more than that of the embedded solution."""

    def estimate(h):
        stepper = method.stepper(NONLINEAR)
        return float(stepper.step(START, 0.0, h, stepper.begin(START, 0.0)).error.norm())

    h = 0.02
    assert log2(estimate(h) / estimate(h / 2)) == pytest.approx(method.stepper(NONLINEAR).embedded + 1, abs=0.1)


@named(ADAPTIVE)
def test_dense_output(method):
    """Of order 4 where the tableau has one, else of order 3 as the cubic through both ends."""

    def error(h):
        stepper = method.stepper(NONLINEAR)
        attempt = stepper.step(START, 0.0, h, stepper.begin(START, 0.0))
        assert torch.equal(attempt.interpolate(1.0), attempt.value)
        within = march(ImplicitRungeKutta.kvaerno5(), NONLINEAR, START, 0.4 * h, 4)[0]
        return float((attempt.interpolate(0.4) - within).norm())

    order = 4 if method.tableau.dense else 3
    assert log2(error(0.05) / error(0.025)) >= order + 1 - 0.2


# Stiff problems


@named([method for method in IMPLICIT if "Crank" not in method.describe()])
def test_what_is_stiff_is_damped(method):
    """One step of y' = 1e8 (cos t - y) from far away comes down to the slow solution."""
    system = ordinary("y_t = k*(cos(t) - y)", parameters={}, fields={"k": 1e8})
    y, _ = march(method, system, torch.tensor(5.0, dtype=F64), 0.2, 2)
    assert abs(float(y) - cos(0.2)) < 1e-6


@named(ADDITIVE[1:])
def test_what_is_stiff_in_the_linear_part_is_damped(method):
    system = ordinary("y_t = -k*y", "z_t = y - z", parameters={}, fields={"k": 1e8})
    y, _ = march(method, system, torch.tensor([5.0, 1.0], dtype=F64), 0.2, 2)
    assert abs(float(y[0])) < 1e-6
    assert float(y[1]) == pytest.approx(exp(-0.2), abs=1e-4)


# Algebraic rows and masses


class Rod(EvolvingSystem):
    """Heat u_t = u_xx - r u^2 in a rod of unit length by P1 elements: flux 0 on the left, u = held(t) on the right.

    The convention is that of meshes: the last row is 0 = s (held(t) - u), and nothing else depends on the last value.
    """

    def __init__(self, n, held, slope, reaction: Any = 0.0):
        self.n, self.held, self.held_slope, self.reaction = n, held, slope, reaction
        self.domain, self.axes, self.batch, self.dtype, self.device = None, 1, (), F64, torch.device("cpu")
        self.space = self.state_space = (n,)
        h = 1 / (n - 1)
        eye, off = torch.eye(n, dtype=F64), torch.diag(torch.ones(n - 1, dtype=F64), 1)
        lumps, ends = eye.clone(), torch.tensor([1, *[2] * (n - 2), 1], dtype=F64)
        self.consistent = h / 6 * (2 * torch.diag(ends) + off + off.T)
        self.lumps = h / 2 * torch.diag(ends)
        self.stiffness = (torch.diag(ends) - off - off.T) / h
        self.free = lumps.diagonal().clone()
        self.free[-1] = 0.0
        self.scale = 2 / h
        self.linear_part = as_operator(csr(-self.stiffness))

    def lifted(self, y, t):
        return torch.cat([y[..., :-1], torch.as_tensor(self.held(t), dtype=F64).expand(*y.shape[:-1], 1)], -1)

    def _force(self, y, t, linear):
        u = self.lifted(y, t)
        known = torch.zeros_like(u)
        known[..., -1] = self.held(t)
        force = -(u if linear else known) @ self.stiffness - self.reaction * (u * u) @ self.lumps
        force = force - self.consistent[-1] * self.held_slope(t)
        away = self.scale * (self.held(t) - (y[..., -1:] if linear else 0.0 * y[..., -1:]))
        return torch.cat([force[..., :-1], away], -1)

    def apply_mass(self, y):
        return self.free * ((self.free * y) @ self.consistent)

    def force(self, y, t):
        return self._force(y, t, True)

    def explicit_force(self, y, t):
        return self._force(y, t, False)

    def _shifted(self, step, jacobian):
        inner = self.free[:, None] * (self.consistent - step * jacobian) * self.free
        return inner + torch.diag((1 - self.free) * step * self.scale)

    def shifted(self, y, t, step):
        u = self.lifted(y, t)
        return as_operator(csr(self._shifted(step, -self.stiffness - torch.diag(2 * self.reaction * u @ self.lumps))))

    def shifted_linear(self, step):
        return as_operator(csr(self._shifted(step, -self.stiffness)))

    def error_ratio(self, error, before, after, rtol, atol):
        return root_mean_square_ratio(error, before, after, rtol, atol, 1)

    def free_rate(self, t, y):
        """du/dt of all but the last value."""
        full = torch.cat([torch.tensor(y), torch.tensor([self.held(t)], dtype=F64)])
        return torch.linalg.solve(self.consistent[:-1, :-1], self.force(full, t)[:-1]).numpy()

    rate = nonlinear_part = constrained = hold = encode = decode = slope = None  # type: ignore[assignment]


def csr(matrix):
    rows, columns = torch.nonzero(matrix, as_tuple=True)
    return csr_tensor(rows, columns, matrix[rows, columns], tuple(matrix.shape))


ROD = Rod(4, lambda t: 1 + sin(3 * t), lambda t: 3 * cos(3 * t), reaction=2.0)
ROD_START = torch.linspace(0, 1, 4, dtype=F64) ** 2


@cache
def rod_at(t):
    found = solve_ivp(ROD.free_rate, (0, t), ROD_START[:-1], "DOP853", rtol=1e-13, atol=1e-14)
    return torch.tensor(found.y[:, -1])


@named(IMPLICIT + ADDITIVE)
def test_algebraic_rows_are_met_exactly_and_keep_the_order(method):
    rod, start = ROD, ROD_START
    end, order, errors = 0.1, method.stepper(rod).order, []
    steps = {3: 30, 4: 40, 5: 10}.get(order, 20)
    for n in (steps, 2 * steps):
        y, _ = march(method, rod, start, end, n)
        assert float(y[-1]) == pytest.approx(rod.held(end), abs=1e-14)
        errors.append(float((y[:-1] - rod_at(end)).norm()))
    assert log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@named(ADDITIVE[1:])
def test_boundary_values_that_move_do_not_spoil_additive_methods(method):
    """Steps are 40 times those that are stable explicitly, and the source that holds the value is as stiff as the
    linear part. Of stages of order 2, order 3 is left of stiff sources."""
    rod, end, errors = Rod(25, lambda t: sin(3 * t), lambda t: 3 * cos(3 * t)), 0.5, []
    exact, _ = march(ImplicitRungeKutta.kvaerno5(), rod, torch.zeros(25, dtype=F64), end, 40)
    for n in (20, 40):
        errors.append(float((march(method, rod, torch.zeros(25, dtype=F64), end, n)[0] - exact).abs().max()))
    assert errors[1] < 1e-5
    assert log2(errors[0] / errors[1]) > 2.6


@named(IMPLICIT + ADDITIVE)
def test_an_inconsistent_start_is_put_right_in_the_first_step(method):
    rod = Rod(6, lambda t: 1.0, lambda t: 0.0)
    y, _ = march(method, rod, torch.zeros(6, dtype=F64), 0.01, 1)
    assert float(y[-1]) == pytest.approx(1.0, abs=1e-13)


# Set-ups


def plate(n, equation="u_t = laplacian(u)", **options):
    grid = sciml.Grid(shape=(n, n), lower=(0.0, 0.0), upper=(1.0, 1.0), boundary=sciml.Dirichlet(0.0))
    system = discretize(sciml.Equation(equation, **options), grid)
    x, y = grid.coordinates
    return system, torch.sin(pi * x) * torch.sin(pi * y)


@named([*IMPLICIT, ADDITIVE[0], ADDITIVE[2]])
@pytest.mark.parametrize("linear", [None, ConjugateGradient(preconditioner=Multigrid())], ids=["factors", "multigrid"])
def test_heat_on_a_plate_is_set_up_once_for_a_step_size(method, linear):
    system, start = plate(128)
    method = replace(method, linear=linear)
    stepper = method.stepper(system, 1e-7, 1e-7)
    h, y, memory = 2e-3, start, None
    eigenvalue = -2 * (2 * 128) ** 2 * 2 * sin(pi / 256) ** 2 / 2
    with torch.no_grad():
        memory = stepper.begin(y, 0.0)
        for step in range(3):
            attempt = stepper.step(y, step * h, h, memory)
            y, memory = attempt.value, attempt.memory
    worker = stepper.solver if hasattr(stepper, "solver") else stepper.part
    # BDF2 begins by another method.
    assert worker.setups == (2 if isinstance(method, Bdf2) else 1)
    assert float((y - exp(3 * h * eigenvalue) * start).abs().max()) < {1: 5e-3, 2: 2e-4}.get(stepper.order, 1e-6)


def test_a_jacobian_is_renewed_when_the_iteration_slows_down():
    system, start = plate(16, "u_t = 0.1*laplacian(u) + k*u*(1 - u)", parameters={"k": 40.0})
    method = ImplicitRungeKutta.kvaerno3()
    y, stepper = march(method, system, 0.02 * start, 0.4, 20)
    finer, _ = march(method, system, 0.02 * start, 0.4, 40)
    assert 1 < stepper.solver.setups < 20
    torch.testing.assert_close(y, finer, rtol=0.0, atol=1e-3)


def test_step_sizes_that_return_find_their_set_up():
    system, y = plate(16)
    stepper = ImplicitRungeKutta.kvaerno4().stepper(system, 1e-6, 1e-6)
    memory, t = stepper.begin(y, 0.0), 0.0
    for h in (1e-3, 2e-3, 4e-3, 2e-3, 1e-3, 4e-3):
        attempt = stepper.step(y, t, h, memory)
        y, memory, t = attempt.value, attempt.memory, t + h
    assert stepper.solver.setups == 3


# Rows, types, failures


@named(IMPLICIT + ADDITIVE)
def test_rows_of_a_batch_and_float32(method):
    starts = torch.stack([START, 2 * START, START.flip(0)])
    together, _ = march(method, NONLINEAR, starts, 0.5, 4)
    alone = torch.stack([march(method, NONLINEAR, row, 0.5, 4)[0] for row in starts])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    single, _ = march(method, OrdinarySystem(NONLINEAR.equation, dtype=torch.float32), starts.float(), 0.5, 4)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=2e-5, atol=2e-5)


@named(IMPLICIT + ADDITIVE)
def test_a_row_that_blows_up_takes_no_other_down(method):
    """u' = u^2 - u from 2 is infinite at t = log 2, from 0.1 it decays. The equations of a step lose their solution at
    some step before, and only at that one the row is said to have failed."""
    system = ordinary("u_t = u*u - u")
    stepper = method.stepper(system)
    y = torch.tensor([0.1, 2.0], dtype=F64)
    memory, alone = stepper.begin(y, 0.0), y[:1]
    memory_alone = stepper.begin(alone, 0.0)
    with torch.no_grad():
        for step in range(12):
            attempt = stepper.step(y, 0.2 * step, 0.2, memory)
            lost = bool(torch.isfinite(y[1])) and not bool(torch.isfinite(attempt.value[1]))
            if isinstance(method, ImplicitExplicit) or not lost:
                assert attempt.solved is True
            else:
                assert attempt.solved.tolist() == [True, False] and step < 4
            y, memory = attempt.value, attempt.memory
            attempt = stepper.step(alone, 0.2 * step, 0.2, memory_alone)
            alone, memory_alone = attempt.value, attempt.memory
    torch.testing.assert_close(y[:1], alone, rtol=1e-11, atol=0.0)
    assert isinstance(method, ImplicitExplicit) or bool(torch.isnan(y[1]))


def test_a_row_without_a_solution_leaves_the_others_theirs():
    """The second row has passed its pole: no smaller step and no other Jacobian helps it."""
    system = ordinary("u_t = u*u - u")
    stepper = ImplicitRungeKutta.kvaerno5().stepper(system, 1e-6, 1e-6)
    y = torch.tensor([0.1, 3e13, 0.5], dtype=F64)
    attempt = stepper.step(y, 0.0, 1e-13, stepper.begin(y, 0.0))
    assert attempt.solved.tolist() == [True, False, True]
    torch.testing.assert_close(attempt.value[::2], y[::2])
    assert bool(torch.isnan(attempt.value[1])) and bool(torch.isnan(attempt.error[1]))


def test_a_stage_without_a_solution_is_reported():
    """u = r + a (u^2 + 1) has no real solution for large a."""
    stepper = ImplicitRungeKutta.backward_euler().stepper(ordinary("u_t = u*u + 1"), 1e-6, 1e-6)
    y = torch.tensor(1.0, dtype=F64)
    attempt = stepper.step(y, 0.0, 2.0, stepper.begin(y, 0.0))
    assert not attempt.solved and stepper.counts()["evaluations"] > 1


@named([ImplicitRungeKutta.kvaerno3(), Bdf2(), ImplicitExplicit.cnab2()])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_rows_with_finite_entries_whose_sum_overflows(method, batch):
    """u' = -u in single precision, where the largest number is 3.4e38."""
    system = FunctionSystem(lambda u, t: -u, (64,), dtype=torch.float32)
    if isinstance(method, ImplicitExplicit):
        grid = sciml.Grid(64, boundary=sciml.Neumann(), dtype=torch.float32)
        system = discretize(sciml.Equation("u_t = 1e-6*laplacian(u) - u"), grid)
    y = torch.full((*batch, 64), 3e37, dtype=torch.float32)
    y[..., -1] *= 2.0
    stepper = method.stepper(system)
    memory = stepper.begin(y, 0.0)
    with torch.no_grad():
        for step in range(3):
            attempt = stepper.step(y, 0.01 * step, 0.01, memory)
            assert attempt.solved is True
            y, memory = attempt.value, attempt.memory
    start = torch.full((*batch, 32), 3e37, dtype=torch.float32)
    torch.testing.assert_close(y[..., :32], start * exp(-0.03), rtol=2e-5, atol=0.0)


@named(IMPLICIT + ADDITIVE)
def test_all_work_is_counted(method):
    calls = 0

    class Counting(Rod):
        def force(self, y, t):
            nonlocal calls
            calls += 1
            return super().force(y, t)

        def explicit_force(self, y, t):
            nonlocal calls
            calls += 1
            return super().explicit_force(y, t)

    system = Counting(12, lambda t: 1 + sin(3 * t), lambda t: 3 * cos(3 * t))
    stepper = method.stepper(system)
    y = torch.ones(12, dtype=F64)
    with torch.no_grad():
        memory = stepper.begin(y, 0.0)
        for h in (0.1, 0.01, 0.1):
            stepper.step(y, 0.0, h, memory)
    counts = stepper.counts()
    assert counts["evaluations"] == calls
    assert counts["setups"] >= 2 and counts["linear_iterations"] >= 3
    if isinstance(method, ImplicitRungeKutta):
        stages = method.tableau.stages - method.tableau.explicit_first
        # A linear system: one iteration a stage, and perhaps one more that finds nothing left.
        assert 3 * stages <= counts["iterations"] <= 6 * stages


def test_rejected_steps_leave_no_trace():
    stepper = ImplicitRungeKutta.kvaerno4().stepper(NONLINEAR)
    memory = stepper.begin(START, 0.0)
    first = stepper.step(START, 0.0, 0.1, memory).value
    for h in (3.0, 0.01, 0.7):
        stepper.step(START, 0.0, h, memory)
    torch.testing.assert_close(stepper.step(START, 0.0, 0.1, memory).value, first, rtol=1e-14, atol=1e-15)


def test_what_does_not_fit_is_refused():
    quadratic = ordinary("u_t = u*u")
    with pytest.raises(sciml.InputError, match=r"no linear part .* use ImplicitRungeKutta"):
        ImplicitExplicit.ark4().stepper(quadratic)
    with pytest.raises(sciml.InputError, match=r"ImplicitRungeKutta\.kvaerno5\(\)"):
        ImplicitRungeKutta("kvaerno5")  # type: ignore[arg-type]
    with pytest.raises(sciml.InputError, match="linear must be a linear solver"):
        Bdf2(linear="gmres")  # type: ignore[arg-type]
    advection, start = plate(16, "u_t = laplacian(u) - 5*u_x")
    stepper = ImplicitRungeKutta(ImplicitRungeKutta.sdirk2().tableau, linear=ConjugateGradient()).stepper(advection)
    with pytest.raises(sciml.InputError, match="conjugate gradients need a symmetric operator"):
        stepper.step(start, 0.0, 0.01, stepper.begin(start, 0.0))


# Derivatives


@named(IMPLICIT + ADDITIVE)
def test_derivatives_with_respect_to_state_and_parameter(method):
    equation = sciml.Equation(["x_t = -k*x + y", "y_t = x - y - y*y*x"], coordinates=(), parameters={"k": 1.0})

    def end(y, k):
        return march(method, OrdinarySystem(equation, parameters={"k": k}), y, 0.4, 2)[0]

    y, k = START.clone().requires_grad_(), torch.tensor(1.7, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (y, k), rtol=1e-6, atol=1e-9)
    assert torch.autograd.gradcheck(lambda k: end(START, k), (k,), rtol=1e-6, atol=1e-9)
    dy, dk = torch.tensor([0.4, -0.7], dtype=F64), torch.tensor(0.9, dtype=F64)
    with torch.no_grad(), forward_ad.dual_level():
        value = end(forward_ad.make_dual(y.detach(), dy), forward_ad.make_dual(k.detach(), dk))
        tangent = forward_ad.unpack_dual(value).tangent
    with torch.no_grad():
        difference = (end(y + 1e-5 * dy, k + 1e-5 * dk) - end(y - 1e-5 * dy, k - 1e-5 * dk)) / 2e-5
    torch.testing.assert_close(tangent, difference, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("method", "linear"),
    [
        (ImplicitRungeKutta.kvaerno3(), None),
        (ImplicitRungeKutta.kvaerno3(), ConjugateGradient(preconditioner=Multigrid())),
        (Bdf2(), GMRES(preconditioner=Jacobi())),
        (ImplicitExplicit.ark3(), None),
        (ImplicitExplicit.cnab2(), ConjugateGradient(preconditioner=Multigrid())),
    ],
    ids=["factors", "multigrid", "gmres", "additive factors", "additive multigrid"],
)
def test_derivatives_on_a_grid(method, linear):
    """With respect to the initial state, a coefficient field and a parameter, against central differences."""
    grid = sciml.Grid(shape=(10, 10), lower=(0.0, 0.0), upper=(1.0, 1.0), boundary=sciml.Dirichlet(0.0))
    equation = sciml.Equation("u_t = div(a*grad(u)) - k*u*u*u", parameters={"k": 1.0})
    x, z = grid.coordinates
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(10, 10, generator=generator, dtype=F64)
    method = replace(method, linear=linear)

    def end(u, a, k):
        system = discretize(equation, grid, {"a": a}, {"k": k})
        return (weight * march(method, system, u, 0.02, 2)[0]).sum()

    given = [torch.sin(pi * x) * z, 1 + 0.3 * x * z, torch.tensor(2.0, dtype=F64)]
    end(*(part.requires_grad_() for part in given)).backward()
    for place, part in enumerate(given):
        direction = torch.rand(part.shape, generator=generator, dtype=F64)
        with torch.no_grad():
            moved = [[p + s * direction if q == place else p for q, p in enumerate(given)] for s in (1e-5, -1e-5)]
            difference = float(end(*moved[0]) - end(*moved[1])) / 2e-5
        assert float((part.grad * direction).sum()) == pytest.approx(difference, rel=1e-6, abs=1e-10)


def test_second_derivatives():
    system = ordinary("x_t = -x + y", "y_t = x - y*y*x")

    def end(y):
        return march(ImplicitRungeKutta.kvaerno3(), system, y, 0.4, 2)[0]

    assert torch.autograd.gradgradcheck(end, (START.clone().requires_grad_(),), rtol=1e-5, atol=1e-7)


def test_no_graph_is_kept_where_nothing_is_tracked():
    value, _ = march(ImplicitRungeKutta.kvaerno4(), NONLINEAR, START, 0.2, 2)
    assert not value.requires_grad
