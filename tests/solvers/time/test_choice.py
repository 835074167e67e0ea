"""What method=None chooses: implicit methods where many steps of explicit ones are small for their stability alone."""

from __future__ import annotations

import math

import pytest
import torch

import sciml
from sciml import Dirichlet, Equation, FiniteDifference, FunctionSystem, Grid, Neumann, Periodic
from sciml.equations import catalogue
from sciml.solvers.time import ExplicitRungeKutta
from sciml.solvers.time.choice import choose

F64 = torch.float64


def ordinary(*texts):
    return sciml.discretize(Equation(list(texts), coordinates=()))


def vector(*numbers):
    return torch.tensor(numbers, dtype=F64)


def van_der_pol(mu):
    return ordinary("x_t = v", f"v_t = {mu}*(1 - x**2)*v - x")


FORCED = ordinary("u_t = -1e5*(u - cos(t))")
LORENZ = sciml.discretize(catalogue.get("lorenz").equation)
ROBERTSON = ordinary("x_t = -0.04*x + 1e4*y*z", "y_t = 0.04*x - 1e4*y*z - 3e7*y**2", "z_t = 3e7*y**2")
KEPLER = ordinary("x_t = v", "y_t = w", "v_t = -x/(x**2 + y**2)**1.5", "w_t = -y/(x**2 + y**2)**1.5")
OSCILLATOR = ordinary("x_t = 100*y", "y_t = -100*x")


@pytest.mark.parametrize(
    ("system", "start", "end", "stiff"),
    [
        (FORCED, vector(1.0)[0], 0.5, True),
        (FORCED, vector(1.0)[0], 1e-3, False),
        (van_der_pol(1000.0), vector(2.0, 0.0), 2000.0, True),
        (van_der_pol(5.0), vector(2.0, 0.0), 20.0, False),
        (van_der_pol(5.0), vector(2.0, 0.0), 2000.0, False),
        # Nothing in the Jacobian at the start says what comes.
        (ROBERTSON, vector(1.0, 0.0, 0.0), 40.0, True),
        (ROBERTSON, vector(1.0, 0.0, 0.0), 0.1, False),
        # Thousands of steps, but small for accuracy.
        (LORENZ, vector(1.0, 2.0, 20.0), 10.0, False),
        (LORENZ, vector(1.0, 2.0, 20.0), 1000.0, False),
        (LORENZ, vector(1.0, 2.0, 20.0) + torch.arange(300, dtype=F64).reshape(100, 3) / 100, 100.0, False),
        (KEPLER, vector(0.1, 0.0, 0.0, 19**0.5), 500.0, False),
        (OSCILLATOR, vector(1.0, 0.0), 1000.0, False),
        (ordinary("u_t = -u + cos(t)"), vector(1.0)[0], 1e4, False),
        (ordinary("u_t = u**2"), vector(1.0)[0], 5.0, False),
        (FunctionSystem(lambda u, t: -1e5 * (u - math.cos(t)), (2,)), vector(1.0, 1.0), 0.5, True),
        (FunctionSystem(lambda u, t: torch.tanh(u).flip(-1), (2,)), vector(1.0, 0.0), 5.0, False),
        (LORENZ, torch.zeros(0, 3, dtype=F64), 1.0, False),
    ],
)
def test_ordinary_differential_equations(system, start, end, stiff):
    method, why = choose(system, start, (0.0, end), None, "joint", 1e-6, 1e-6)
    assert method.describe().startswith("Kvaerno 5(4)" if stiff else "Tsitouras 5(4)")
    assert why.startswith("stiff: stable steps" if stiff else "ordinary differential equations, not stiff")
    assert choose(system, start, (0.0, end), None, "row", 1e-6, 1e-6)[0] == ExplicitRungeKutta.tsit5()


def test_rows_that_are_not_finite_have_no_say():
    for system, start, end in ((FORCED, vector(math.nan, 1.0), 0.5), (LORENZ, vector(1.0, math.nan, 0.0), 1000.0)):
        atol = torch.where(torch.isfinite(start), 1e-6, math.nan) if system is FORCED else 1e-6
        method, _ = choose(system, start, (0.0, end), None, "joint", 1e-6, atol)
        assert method.describe().startswith("Kvaerno" if system is FORCED else "Tsitouras")
    system = sciml.discretize(Equation("u_t = u_xx"), Grid(256))
    u = torch.ones(2, 256, dtype=F64)
    u[0, 3] = math.inf
    assert "Kvaerno" in choose(system, u, (0.0, 0.1), None, "joint", 1e-6, 1e-6)[0].describe()


def test_choosing_takes_a_small_part_of_the_evaluations_of_a_run():
    count = 0

    def slope(u, t):
        nonlocal count
        count += 1
        x, y, z = u.unbind(-1)
        return torch.stack((10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z), -1)

    system, start = FunctionSystem(slope, (3,)), vector(1.0, 2.0, 20.0)
    for end in (1.0, 10.0, 40.0):
        count = 0
        choose(system, start, (0.0, end), None, "joint", 1e-6, 1e-6)
        needed, count = count, 0
        sciml.evolve(system, initial=start, times=[0.0, end], method=ExplicitRungeKutta.tsit5())
        assert needed <= 0.1 * count


def test_a_stiff_equation_is_solved_in_few_steps():
    """u' = -k (u - cos t) from 1: u = (k^2 cos t + k sin t + exp(-k t)) / (1 + k^2)."""
    k = 1e5
    solution = sciml.evolve(FORCED.equation, initial=1.0, times=[0.0, 0.25, 0.5])
    t = solution.times[1:]
    exact = (k * k * torch.cos(t) + k * torch.sin(t)) / (1 + k * k)
    torch.testing.assert_close(solution.value[1:], exact, rtol=0.0, atol=2e-6)
    assert int(solution.statistics["steps"]) < 50


@pytest.mark.parametrize(
    ("system", "step", "name"),
    [(FORCED, 1e-3, "Alexander"), (FORCED, 2e-5, "classical"), (OSCILLATOR, 0.05, "classical")],
)
def test_fixed_steps_of_ordinary_differential_equations(system, step, name):
    start = torch.ones(system.space, dtype=F64)
    assert choose(system, start, (0.0, 1.0), step, "joint", 1e-6, 1e-6)[0].describe().startswith(name)


WALLS = Grid(64, boundary=Neumann(0.0))
RING = Grid(256, upper=2 * math.pi, boundary=Periodic())


def cosine(x):
    return torch.cos(math.pi * x)


@pytest.mark.parametrize(
    ("text", "grid", "given", "end", "stiff"),
    [
        ("u_tt = u_xx", WALLS, {}, 100.0, False),
        ("u_tt = u_xx - 1e4*u", WALLS, {}, 100.0, False),
        ("u_tt = u_xx - u_t", WALLS, {}, 300.0, False),
        ("u_tt = u_xx + 0.001*diff(u_t, x, 2)", WALLS, {}, 0.3, False),
        ("u_tt = u_xx + 5*diff(u_t, x, 2)", WALLS, {}, 0.3, True),
        ("u_tt = u_xx - 1e5*u_t", WALLS, {}, 1.0, True),
        ("u_tt = -u_xxxx", Grid(64, boundary=Periodic()), {"scheme": FiniteDifference()}, 3.0, True),
        ("u_tt = -u_xxxx", Grid(64, boundary=Periodic()), {"scheme": FiniteDifference()}, 0.001, False),
        ("u_t = -u_x", Grid(512, boundary=Dirichlet(0.0)), {}, 1000.0, False),
        ("u_t = -u_x - 1e5*(u - 1)", Grid(256, boundary=Dirichlet(0.0)), {}, 1.0, True),
        ("u_t = -div([u**2/2])", RING, {}, 1.0, False),
        ("u_t = a*u_xx", RING, {"fields": {"a": lambda x: 1 + torch.cos(x) / 2}}, 0.1, True),
        ("u_t = a*u_xx", RING, {"fields": {"a": lambda x: 1 + torch.cos(x) / 2}}, 0.001, False),
        ("u_t = (1 + cos(t)/2)*u_xx", RING, {}, 0.1, True),
        ("u_t = u*u_x", RING, {}, 0.1, False),
    ],
)
def test_on_grids(text, grid, given, end, stiff):
    system = sciml.discretize(Equation(text), grid, **given)
    u = cosine(grid.coordinates[0])
    if "u_tt" in text:
        u = torch.stack((u, 0 * u))
    method, why = choose(system, u, (0.0, end), None, "joint", 1e-6, 1e-6)
    assert method.describe().startswith("Kvaerno 5(4)" if stiff else "Tsitouras 5(4)")
    assert why.startswith("stiff: stable steps" if stiff else ("waves and transport, ", "not stiff: "))


def test_an_implicit_method_needs_a_jacobian():
    """That of u**m may be 0/0 in Fourier series where u is 0, as at x = pi here, and nowhere for larger u."""
    system = sciml.discretize(catalogue.get("porous_medium").equation, RING)
    for least in (0.0, 0.5):
        u = least + 1 + torch.cos(RING.coordinates[0])
        y = system.encode(u)
        exists = bool(torch.isfinite(system.shifted(y, 0.0, 1.0).apply(y)).all())
        method, why = choose(system, u, (0.0, 5.0), None, "joint", 1e-6, 1e-6)
        assert method.describe().startswith("Kvaerno" if exists else "Tsitouras") and why.startswith("stiff")
        assert exists or not least


def test_a_strongly_damped_wave():
    """cos(pi x) stays an eigenvector of the differences, and its amplitude obeys a'' = -k (a + 5 a')."""
    solution = sciml.evolve(
        Equation("u_tt = u_xx + 5*diff(u_t, x, 2)"), WALLS, initial={"u": cosine, "u_t": 0.0}, times=[0.0, 0.3]
    )
    assert "Kvaerno" in solution.method and int(solution.statistics["steps"]) < 100
    k = (128 * math.sin(math.pi / 128)) ** 2
    root = math.sqrt((2.5 * k) ** 2 - k)
    slow, fast = -2.5 * k + root, -2.5 * k - root
    amplitude = (fast * math.exp(0.3 * slow) - slow * math.exp(0.3 * fast)) / (fast - slow)
    torch.testing.assert_close(solution.fields["u"][-1], amplitude * cosine(WALLS.coordinates[0]), rtol=0, atol=5e-6)


@pytest.mark.parametrize("n", [128, 512])
def test_diffusion_with_a_coefficient_on_a_ring(n):
    """u_t = (1 + cos(t)/2) u_xx from sin x is exp(-t - sin(t)/2) sin x."""
    grid = Grid(n, upper=2 * math.pi, boundary=Periodic())
    solution = sciml.evolve(Equation("u_t = (1 + cos(t)/2)*u_xx"), grid, initial=torch.sin, times=[0.0, 0.5])
    assert "Kvaerno" in solution.method and int(solution.statistics["steps"]) < 50
    exact = math.exp(-0.5 - math.sin(0.5) / 2) * torch.sin(grid.coordinates[0])
    torch.testing.assert_close(solution.value[-1], exact, rtol=0, atol=1e-5)
