"""Exponential Runge-Kutta methods: phi functions, orders, exact solutions, conservation, gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import exp, log2, pi
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.boundary import Periodic
from sciml.equations import Equation, catalogue
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.scheme import Spectral
from sciml.solution import Solution
from sciml.solvers.evolve import evolve
from sciml.solvers.time import Controller
from sciml.solvers.time.exponential import ExponentialRungeKutta, ExponentialStepper, Memory
from sciml.solvers.time.exponential_functions import PhiOfMatrices, phi
from sciml.spectral import SpectralSystem, discretize_spectral
from sciml.status import Status

METHODS = {
    method.name: method
    for method in (
        ExponentialRungeKutta.etd1(),
        ExponentialRungeKutta.etd2(),
        ExponentialRungeKutta.etd3(),
        ExponentialRungeKutta.etd4(),
        ExponentialRungeKutta.pair(),
    )
}
ALL = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def ring(*shape: int, length: Any = 2 * pi, lower: Any = 0.0) -> Grid:
    return Grid(shape, lower, length, boundary=Periodic())


def march(
    system: SpectralSystem, method: ExponentialRungeKutta, u: Tensor, stop: float, steps: int, start: float = 0.0
) -> Tensor:
    """The field after a number of equal steps."""
    stepper, y, h = method.stepper(system), system.encode(u), (stop - start) / steps
    memory = stepper.begin(y, start)
    for k in range(steps):
        attempt = stepper.step(y, start + k * h, h, memory)
        y, memory = attempt.value, attempt.memory
    return system.decode(y)


def largest(difference: Tensor) -> float:
    return float(difference.detach().abs().max())


# phi functions


def reference(z: complex, k: int) -> complex:
    """phi_k in 60 digits."""
    with mpmath.workdps(60):
        number = mpmath.mpc(z)
        if abs(number) < 1:
            return complex(sum(number**n / mpmath.factorial(n + k) for n in range(60)))
        value = mpmath.exp(number)
        for j in range(k):
            value = (value - 1 / mpmath.factorial(j)) / number
        return complex(value)


def reference_of_matrix(a: list[list[complex]], k: int) -> Tensor:
    """phi_k as a corner of the exponential of a larger matrix (Sidje, ACM Trans. Math. Softw. 24 (1998) 130-156)."""
    n = len(a)
    with mpmath.workdps(40):
        whole = mpmath.zeros(n * (k + 1))
        for i in range(n):
            for j in range(n):
                whole[i, j] = mpmath.mpc(a[i][j])
        for place in range(k * n):
            whole[place, place + n] = 1
        exponential = mpmath.expm(whole)
        rows = [[complex(exponential[i, k * n + j]) for j in range(n)] for i in range(n)]
    return torch.tensor(rows, dtype=torch.complex128)


def test_phi_functions() -> None:
    """Real, imaginary and complex arguments from 1e-12 to 1e9, at the seam of both formulas too."""
    arguments = [0, 1e-12, -1e-6, 0.1, -1, -3.999, -4.001, 3.9, 4.1, -50, -600, 30, 3.9j, 4.1j, 2j, 100j, 1e3j]
    arguments += [-1 + 30j, -3 + 2.6j, 3 - 2j, 2.8 + 2.9j]
    found = phi(torch.tensor(arguments, dtype=torch.complex128), 3)
    for k in range(4):
        for z, value in zip(arguments, found[k].tolist(), strict=True):
            expected = reference(z, k)
            assert abs(value - expected) < 1e-13 * abs(expected)
    far = phi(torch.tensor([-1e9 + 0j], dtype=torch.complex128), 3)
    assert abs(far[3].item() - reference(-1e9, 3)) < 1e-13 * abs(reference(-1e9, 3))


def test_phi_functions_of_matrices() -> None:
    """Waves, stiff pairs, defective and nearly defective ones, nilpotent ones, zero."""
    matrices: list[list[list[complex]]] = [
        [[0, 1], [0, 0]],
        [[0, 0.1], [-100, 0]],
        [[0, 1], [-1e4, 0]],
        [[-300, 1], [2, -1]],
        [[-200, 200], [200, -200]],
        [[1, 1], [0, 1]],
        [[1, 1], [1e-9, 1]],
        [[-2 + 3j, 1], [0.5, 1j]],
        [[0, 0], [0, 0]],
    ]
    a = torch.tensor(matrices, dtype=torch.complex128)
    for found in (PhiOfMatrices(a)(1.0, 3), PhiOfMatrices(a.clone().requires_grad_())(1.0, 3)):
        for k in range(4):
            for matrix, value in zip(matrices, found[k].detach(), strict=True):
                expected = reference_of_matrix(matrix, k)
                assert float((value - expected).norm()) < 1e-13 * float(expected.norm())


def test_slow_modes_next_to_fast_ones() -> None:
    """Exchange at a rate s keeps the sum: phi_k = (1/k! + phi_k(-2 s)) / 2 and (1/k! - phi_k(-2 s)) / 2."""
    for s in (1e2, 1e5, 1e8):
        a = torch.tensor([[[-s, s], [s, -s]]], dtype=torch.float64)
        fast = phi(torch.tensor([-2 * s], dtype=torch.float64), 3)
        for found in (PhiOfMatrices(a)(1.0, 3), PhiOfMatrices(a.requires_grad_())(1.0, 3)):
            for k, value in enumerate(found):
                same, other = (0.5 * (reference(0, k) + sign * fast[k]) for sign in (1, -1))
                assert largest(value - torch.stack([same, other, other, same], -1).reshape(1, 2, 2)) < 1e-15


def test_derivatives_of_phi_of_matrices() -> None:
    """phi_k(s A)' along E is a corner of phi_k of [[s A, s E], [0, s A]]; of simple, double and defective matrices."""
    generator = torch.Generator().manual_seed(5)
    a = torch.tensor([[[0, 1], [-90, 0]], [[1, 1], [0, 1]], [[2, 0], [0, 2]]], dtype=torch.complex128)
    e = torch.randn(a.shape, dtype=torch.complex128, generator=generator)
    found = torch.func.jvp(lambda x: torch.stack(PhiOfMatrices(x)(0.5, 2)), (a,), (e,))[1]
    for i in range(len(a)):
        block = torch.cat([torch.cat([a[i], e[i]], 1), torch.cat([torch.zeros_like(a[i]), a[i]], 1)]) * 0.5
        for k in (0, 2):
            expected = reference_of_matrix(block.tolist(), k)[:2, 2:]
            assert float((found[k, i] - expected).norm()) < 1e-12 * float(expected.norm())


# Orders


def smooth_problem(equation: Equation, fields: Mapping[str, Any]) -> tuple[SpectralSystem, Tensor]:
    grid = ring(32)
    (x,) = grid.coordinates
    system = discretize_spectral(equation, grid, fields, {}, Spectral())
    return system, 0.8 * torch.cos(x) + 0.3 * torch.sin(2 * x) + 1


ORDER_PROBLEMS = {
    "linear with a source": (
        Equation("u_t = 0.1*u_xx + u_x + f"),
        {"f": lambda x, t: torch.sin(x) * torch.exp(torch.sin(torch.as_tensor(3.0 * t, dtype=torch.float64)))},
        2.0,
        (16, 32, 64),
    ),
    "nonlinear": (Equation("u_t = 0.05*u_xx - 0.4*u*u_x + u - 0.5*u**3"), {}, 1.0, (16, 32, 64)),
    "wave": (Equation("u_tt = u_xx - u**3"), {}, 1.0, (32, 64, 128)),
}


@ALL
@pytest.mark.parametrize("problem", ORDER_PROBLEMS.values(), ids=ORDER_PROBLEMS.keys())
def test_orders(
    method: ExponentialRungeKutta, problem: tuple[Equation, dict[str, Any], float, tuple[int, ...]]
) -> None:
    """Against a method of order 4 with an eighth of the smallest step."""
    equation, fields, stop, counts = problem
    system, u = smooth_problem(equation, fields)
    if system.channels == 2:
        u = torch.stack([u - 1, torch.roll(u - 1, 5, -1)])
    with torch.no_grad():
        exact = march(system, ExponentialRungeKutta.pair(), u, stop, 8 * counts[-1])
        errors = [float((march(system, method, u, stop, count) - exact).norm()) for count in counts[-2:]]
    assert abs(log2(errors[-2] / errors[-1]) - expected_order(method, fields)) < 0.1


def expected_order(method: ExponentialRungeKutta, fields: Mapping[str, Any]) -> int:
    """Where the nonlinear part is a source, weights alone matter: those of ETDRK3 are Simpson's, of order 4."""
    return 4 if fields and method.order == 3 else method.order


def test_error_estimate() -> None:
    """Of order h**4 as the embedded solution of order 3 says, and of the size of its error."""
    system, u = smooth_problem(*ORDER_PROBLEMS["nonlinear"][:2])
    stepper, y = ExponentialRungeKutta.pair().stepper(system), system.encode(u)
    assert (stepper.order, stepper.embedded, stepper.even) == (4, 3, True)
    sizes = []
    for h in (0.04, 0.02):
        attempt = stepper.step(y, 0.0, h, stepper.begin(y, 0.0))
        assert attempt.error is not None
        sizes.append(float(attempt.error.norm()))
        exact = system.encode(march(system, ExponentialRungeKutta.etd4(), u, h, 50))
        embedded = attempt.value - attempt.error
        assert 0.9 < float((embedded - exact).norm()) / sizes[-1] < 1.1
        assert float((attempt.value - exact).norm()) < 0.1 * sizes[-1]
    assert abs(log2(sizes[0] / sizes[1]) - 4) < 0.1


def test_the_first_stage_is_the_last_of_the_step_before() -> None:
    system, u = smooth_problem(*ORDER_PROBLEMS["nonlinear"][:2])
    stepper, y = ExponentialRungeKutta.pair().stepper(system), system.encode(u)
    first = stepper.step(y, 0.0, 0.1, stepper.begin(y, 0.0))
    assert stepper.counts()["evaluations"] == 1 + 4
    assert largest(first.memory.force - stepper.begin(first.value, 0.1).force) < 1e-14
    with_memory = stepper.step(first.value, 0.1, 0.05, first.memory)
    without = stepper.step(first.value, 0.1, 0.05, stepper.begin(first.value, 0.1))
    assert largest(with_memory.value - without.value) < 1e-15


# Exact solutions


@ALL
def test_taylor_green_vortex_decays_exactly(method: ExponentialRungeKutta) -> None:
    """w = 2 cos(x) cos(y) exp(-2 nu t): the nonlinear part vanishes, and the linear one is exact for any step."""
    grid = ring(24, 24)
    x, y = grid.coordinates
    system = discretize_spectral(catalogue.get("navier_stokes", nu=0.3).equation, grid, {"f": 0.0}, {})
    w = 2 * torch.cos(x) * torch.cos(y)
    found = march(system, method, w, 1.5, 3)
    assert largest(found - w * exp(-2 * 0.3 * 1.5)) < 1e-14


def test_waves_are_exact() -> None:
    """u = cos(x - 2 t) + sin(3 x + 6 t) of u_tt = 4 u_xx, and its constant mode, whose matrix is defective."""
    grid = ring(16)
    (x,) = grid.coordinates
    system = discretize_spectral(Equation("u_tt = 4*u_xx"), grid, {}, {})
    start = torch.stack([torch.cos(x) + torch.sin(3 * x) + 1, 2 * torch.sin(x) + 6 * torch.cos(3 * x) + 0.5])
    t = 10.0
    stop = torch.stack(
        [
            torch.cos(x - 2 * t) + torch.sin(3 * x + 6 * t) + 1 + 0.5 * t,
            2 * torch.sin(x - 2 * t) + 6 * torch.cos(3 * x + 6 * t) + 0.5,
        ]
    )
    assert largest(march(system, ExponentialRungeKutta.etd4(), start, t, 2) - stop) < 1e-12


@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_waves_are_exact_over_many_periods(length: float) -> None:
    """To rounding times the phase, whatever the unit of length; with gradients the same numbers."""
    grid, periods, mode = ring(32, length=length), 1e5, 3
    (x,) = grid.coordinates
    k = 2 * pi * mode / length
    u = torch.stack([torch.sin(k * x), torch.zeros_like(x)])
    stop = (periods + 0.3) * length
    with mpmath.workdps(40):
        exact = float(mpmath.cos(2 * mpmath.pi * mode * (mpmath.mpf(stop) / mpmath.mpf(length))))
    rounding = 5 * torch.finfo(torch.float64).eps * k * stop
    for steps in (1, 50):
        found = []
        for recorded in (False, True):
            c = torch.tensor(1.0, dtype=torch.float64, requires_grad=recorded)
            system = discretize_spectral(Equation("u_tt = c**2*u_xx", parameters={"c": 1.0}), grid, {}, {"c": c})
            found.append(march(system, ExponentialRungeKutta.pair(), u, stop, steps).detach())
        assert largest(found[0][0] - exact * torch.sin(k * x)) < rounding
        assert largest(found[1] - found[0]) <= 1e-15 * largest(found[0])
    solution = evolve(Equation("u_tt = u_xx"), grid, initial=u, times=[0.0, stop])
    assert largest(solution.fields["u"][-1] - exact * torch.sin(k * x)) < rounding


def test_soliton_of_korteweg_and_de_vries() -> None:
    """u = 3 c sech(sqrt(c) (x - c t) / 2)**2 of u_t = -u u_x - u_xxx keeps its shape and its speed c."""
    c, length, stop = 1.0, 60.0, 10.0
    grid = ring(256, length=length)
    (x,) = grid.coordinates
    system = discretize_spectral(catalogue.get("kdv", alpha=1.0, beta=1.0).equation, grid, {}, {}, Spectral("3/2"))

    def soliton(centre: float) -> Tensor:
        distance = torch.remainder(x - centre + length / 2, length) - length / 2
        return 3 * c / torch.cosh(0.5 * c**0.5 * distance) ** 2

    found = march(system, ExponentialRungeKutta.pair(), soliton(20.0), stop, 1600)
    assert largest(found - soliton(20.0 + c * stop)) < 1e-8


def test_burgers_equation_by_cole_and_hopf() -> None:
    """u = -2 nu phi_x / phi, phi_t = nu phi_xx with phi = 1.5 + cos(x) exp(-nu t) (Hopf, Comm. Pure Appl. Math. 3
    (1950) 201-230)."""
    nu, stop = 0.1, 2.0
    grid = ring(128)
    (x,) = grid.coordinates

    def exact(t: float) -> Tensor:
        decay = torch.exp(torch.tensor(-nu * t, dtype=torch.float64))
        return 2 * nu * torch.sin(x) * decay / (1.5 + torch.cos(x) * decay)

    system = discretize_spectral(catalogue.get("burgers", nu=nu).equation, grid, {}, {})
    assert largest(march(system, ExponentialRungeKutta.etd4(), exact(0.0), stop, 100) - exact(stop)) < 1e-8


def test_cahn_hilliard_keeps_the_mass() -> None:
    grid = ring(32, 32)
    system = discretize_spectral(catalogue.get("cahn_hilliard", epsilon=0.3).equation, grid, {}, {})
    u = 0.2 + 0.3 * torch.randn(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = march(system, ExponentialRungeKutta.etd2(), u, 0.5, 200)
    assert largest(found - u) > 0.3
    assert abs(float(found.mean() - u.mean())) < 1e-12


def test_inviscid_flow_keeps_energy_to_the_order() -> None:
    """Halving the step divides the drift of energy and enstrophy by 16 or more."""
    grid = ring(24, 24)
    system = discretize_spectral(catalogue.get("navier_stokes", nu=0.0).equation, grid, {"f": 0.0}, {})
    x, y = grid.coordinates
    w = torch.cos(x) + torch.sin(2 * y + x) + torch.cos(3 * x - y)

    def invariants(field: Tensor) -> Tensor:
        return torch.stack([(system.constrained(field, 0.0)["psi"] * field).mean(), field.square().mean()])

    drifts = []
    for steps in (20, 40):
        drifts.append(invariants(march(system, ExponentialRungeKutta.etd4(), w, 1.0, steps)) - invariants(w))
    assert bool((drifts[0].abs() > 15 * drifts[1].abs()).all())
    assert largest(drifts[1]) < 1e-6


def test_unstable_modes_stay_real() -> None:
    """Rounding errors that belong to no real field would grow by exp(40) here."""
    grid = ring(16, 12)
    system = discretize_spectral(Equation("u_t = 4*u"), grid, {}, {})
    u = torch.randn(16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    stepper, y = ExponentialRungeKutta.etd1().stepper(system), system.encode(u)
    for _ in range(100):
        y = stepper.step(y, 0.0, 0.1, Memory()).value
    column = torch.view_as_complex(y)[:, 0]
    mirrored = torch.roll(column.flip(0), 1).conj()
    assert largest(column - mirrored) <= 1e-15 * largest(column)


# Batches, memory, gradients


@ALL
@pytest.mark.parametrize("name", ["kuramoto_sivashinsky", "quasi_geostrophic", "wave"])
def test_kernels_equal_torch_and_batches_equal_loops(method: ExponentialRungeKutta, name: str) -> None:
    grid = ring(16, 12, length=(8.0, 6.0)) if name == "quasi_geostrophic" else ring(48, length=20.0)
    system = discretize_spectral(catalogue.get(name).equation, grid, {}, {})
    u = torch.randn(700, *system.space, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    if name == "quasi_geostrophic":
        u = (u - u.mean((-2, -1), keepdim=True))[:30]
    with torch.no_grad():
        fast = march(system, method, u, 0.02, 2)
        single = march(system, method, u[17], 0.02, 2)
    plain = march(system, method, u.clone().requires_grad_(), 0.02, 2).detach()
    assert largest(fast - plain) < 1e-13 * largest(plain)
    assert largest(single - plain[17]) < 1e-13 * largest(plain)


def test_parameters_of_rows() -> None:
    grid = ring(32)
    (x,) = grid.coordinates
    equation = catalogue.get("burgers").equation
    nu = torch.tensor([0.05, 0.2, 1.0], dtype=torch.float64)
    system = discretize_spectral(equation, grid, {}, {"nu": nu})
    with torch.no_grad():
        together = march(system, ExponentialRungeKutta.etd4(), torch.sin(x), 0.3, 10)
    for row in range(3):
        single = discretize_spectral(equation, grid, {}, {"nu": float(nu[row])})
        assert largest(together[row] - march(single, ExponentialRungeKutta.etd4(), torch.sin(x), 0.3, 10)) < 1e-14


def test_steps_leave_state_and_memory_alone() -> None:
    system, u = smooth_problem(*ORDER_PROBLEMS["nonlinear"][:2])
    stepper, y = ExponentialRungeKutta.pair().stepper(system), system.encode(u)
    with torch.no_grad():
        memory = stepper.begin(y, 0.0)
        kept = y.clone(), memory.force.clone()
        first = stepper.step(y, 0.0, 0.1, memory)
        value = first.value.clone()
        for h in (0.05, 0.025, 0.1):
            again = stepper.step(y, 0.0, h, memory)
    assert torch.equal(y, kept[0]) and torch.equal(memory.force, kept[1])
    assert torch.equal(again.value, value) and torch.equal(first.value, value)


@pytest.mark.parametrize("method", [ExponentialRungeKutta.etd4(), ExponentialRungeKutta.pair()], ids=("etd4", "pair"))
@pytest.mark.parametrize("text", ["u_t = -nu*u*u_x - nu*u_xx - u_xxxx", "u_tt = nu*u_xx - u**3"])
def test_gradients(method: ExponentialRungeKutta, text: str) -> None:
    """With respect to the state and a parameter of both parts: reverse against differences, forward against reverse."""
    grid = ring(12)
    equation = Equation(text, parameters={"nu": 1.0})
    generator = torch.Generator().manual_seed(3)
    space = (12,) if "u_tt" not in text else (2, 12)
    u, weights, tangent = (torch.randn(*space, dtype=torch.float64, generator=generator) for _ in range(3))
    nu, shift = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64)

    def measured(state: Tensor, parameter: Tensor) -> Tensor:
        system = discretize_spectral(equation, grid, {}, {"nu": parameter})
        return (march(system, method, state, 0.02, 2) * weights).sum()

    point = (u.clone().requires_grad_(), nu.clone().requires_grad_())
    along = torch.autograd.grad(measured(*point), point)
    slope = float((along[0] * tangent).sum() + along[1] * shift)
    h = 1e-5
    with torch.no_grad():
        ahead, behind = (measured(u + s * tangent, nu + s * shift) for s in (h, -h))
    assert abs(slope - float(ahead - behind) / (2 * h)) < 1e-6 * abs(slope)
    forward = torch.func.jvp(measured, (u, nu), (tangent, shift))[1]
    assert abs(float(forward) - slope) < 1e-11 * abs(slope)


@pytest.mark.parametrize("gradient", ["recorded", "checkpointed"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_coefficients_are_formed_once_under_gradients(
    monkeypatch: pytest.MonkeyPatch, gradient: str, adaptive: bool
) -> None:
    """Once a step size, and once more where a part of the recording is run again; the gradient is that of
    differences."""
    formed: list[float] = []
    plain = ExponentialStepper._formed
    monkeypatch.setattr(ExponentialStepper, "_formed", lambda self, h: (formed.append(h), plain(self, h))[1])
    equation = Equation(["u_t = nu*u_xx + v - u*v", "v_t = 0.1*v_xx - u + u*v"], parameters={"nu": 1.0})
    grid = ring(16)
    (x,) = grid.coordinates
    u = torch.stack([torch.sin(x), torch.cos(x)])
    settings: dict[str, Any] = {"rtol": 1e-9} if adaptive else {"step": 0.02, "method": ExponentialRungeKutta.etd4()}

    def measured(nu: Tensor) -> Tensor:
        times = [0.0, 0.2, 0.4]
        solution = evolve(equation, grid, initial=u, times=times, parameters={"nu": nu}, gradient=gradient, **settings)
        return solution.value.square().sum()

    nu = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(measured(nu), nu)
    assert len(formed) <= len(set(formed)) * (2 if gradient == "checkpointed" else 1)
    with torch.no_grad():
        difference = (measured(nu + 1e-4) - measured(nu - 1e-4)) / 2e-4
    assert abs(float(slope - difference)) < 1e-6 * abs(float(slope))


@pytest.mark.parametrize("method", [ExponentialRungeKutta.etd3(), ExponentialRungeKutta.pair()], ids=("etd3", "pair"))
@pytest.mark.parametrize("name", ["kuramoto_sivashinsky", "quasi_geostrophic", "klein_gordon"])
def test_derivatives_along_directions_of_the_state(method: ExponentialRungeKutta, name: str) -> None:
    """Forwards, by torch.func and by dual numbers, against differences; of value, error and memory."""
    grid = ring(10, 9) if name == "quasi_geostrophic" else ring(20)
    equation = catalogue.get(name).equation if name != "klein_gordon" else Equation("u_tt = u_xx - u - sin(u)*cos(x)")
    system = discretize_spectral(equation, grid, {}, {})
    generator = torch.Generator().manual_seed(4)
    u, v = (torch.randn(2, *system.space, dtype=torch.float64, generator=generator) for _ in range(2))
    axes = tuple(range(-grid.dimension, 0))
    y, d = (system.encode(part - part.mean(axes, keepdim=True)) for part in (u, v))
    stepper = method.stepper(system)

    def two_steps(state: Tensor) -> Tensor:
        first = stepper.step(state, 0.0, 0.5, stepper.begin(state, 0.0))
        second = stepper.step(first.value, 0.5, 0.5, first.memory)
        return torch.stack([part for part in (second.value, second.error, second.memory.force) if part is not None])

    h = 1e-5
    with torch.no_grad():
        expected = (two_steps(y + h * d) - two_steps(y - h * d)) / (2 * h)
    found = torch.func.jvp(two_steps, (y,), (d,))
    assert largest(found[0] - two_steps(y)) < 1e-12
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(two_steps(forward_ad.make_dual(y, d))).tangent
    assert dual is not None
    for part, other, reference_part in zip(found[1], dual, expected, strict=True):
        assert largest(part - reference_part) < 1e-6 * largest(reference_part)
        assert largest(part - other) < 1e-11 * largest(reference_part)


# Settings


def test_the_controller_decides_the_steps_of_the_pair() -> None:
    """A smaller safety means smaller errors; and a run ends where it has no more steps."""
    grid = ring(32)
    (x,) = grid.coordinates

    def run(controller: Controller, **settings: Any) -> Solution:
        method = replace(ExponentialRungeKutta.pair(), controller=controller)
        equation = Equation("u_t = 0.1*u_xx - u*u_x")
        return evolve(equation, grid, initial=torch.sin(x), times=[0.0, 1.0], method=method, **settings)

    exact = run(Controller(), rtol=1e-12).value[-1]
    errors = [largest(run(Controller(safety=safety)).value[-1] - exact) for safety in (0.9, 0.3)]
    assert errors[1] < 0.2 * errors[0]
    assert run(Controller(max_steps=3), throw=False).status == (Status.MAX_STEPS,)


# Refusals


def test_refused_systems() -> None:
    class Other:
        pass

    with pytest.raises(InputError, match=r"number or a small matrix for each wavenumber.*ImplicitRungeKutta"):
        ExponentialRungeKutta.etd4().stepper(Other())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"write ExponentialRungeKutta.etd4\(\)"):
        ExponentialRungeKutta("ETDRK5")
    with pytest.raises(TypeError):
        ExponentialRungeKutta("ETDRK4", 7)  # type: ignore[misc]
