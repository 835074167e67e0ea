"""Limits of steps: of scalar equations against the literature, of discretized ones against what happens beyond them."""

from __future__ import annotations

import math

import numpy
import pytest
import torch

import sciml
from sciml import Dirichlet, Equation, Grid, Mesh, Neumann, Periodic
from sciml.solvers.time import AdamsBashforth3, ExplicitRungeKutta, ImplicitExplicit, ImplicitRungeKutta, Leapfrog
from sciml.solvers.time.choice import stability_limit, unstable_step
from sciml.solvers.time.spectrum import eigenvalues, mean_eigenvalues, settled
from sciml.solvers.time.stability import growth_of, limit

F64 = torch.float64


def numbers(*values):
    return torch.tensor(values, dtype=torch.complex128)


@pytest.mark.parametrize(
    ("method", "decay", "oscillation"),
    [
        (ExplicitRungeKutta.euler(), 2.0, 0.0),
        (ExplicitRungeKutta.heun(), 2.0, 0.0),
        (ExplicitRungeKutta.bogacki_shampine(), 2.5127, 3**0.5),
        (ExplicitRungeKutta.rk4(), 2.7853, 8**0.5),
        (ExplicitRungeKutta.dormand_prince(), 3.3066, None),
        (ExplicitRungeKutta.tsit5(), 3.5068, None),
        (ExplicitRungeKutta.prince_dormand(), 5.1666, None),
        (AdamsBashforth3(), 6 / 11, 0.7236),
        (Leapfrog(0.0), 0.0, 1.0),
    ],
    ids=lambda value: value.describe().split(",")[0] if hasattr(value, "describe") else None,
)
def test_limits_on_both_axes(method, decay, oscillation):
    """Hairer and Wanner II, sections IV.2 and V.1; Durran, Mon. Wea. Rev. 119 (1991) 702-720."""
    growth = growth_of(method)
    assert limit(growth, numbers(-3.0)) * 3.0 == pytest.approx(decay, rel=2e-3)
    if oscillation is not None:
        assert limit(growth, numbers(2j, -2j)) * 2.0 == pytest.approx(oscillation, rel=2e-3)


def test_the_limit_of_euler_on_a_damped_oscillation():
    """|1 + h lambda| = 1 at h = -2 Re(lambda) / |lambda|^2, here small but not 0."""
    growth = growth_of(ExplicitRungeKutta.euler())
    assert limit(growth, numbers(-0.05 + 2j, -0.05 - 2j)) == pytest.approx(0.1 / 4.0025, rel=5e-3)
    assert limit(growth, numbers()) == limit(growth, numbers(0.0)) == math.inf


def test_of_several_eigenvalues_the_strictest_counts():
    growth = growth_of(ExplicitRungeKutta.rk4())
    assert limit(growth, numbers(-100.0, 1j, -1j, -3.0)) == pytest.approx(0.027853, rel=1e-3)


# Estimates of eigenvalues


def wave(grid, extra=""):
    return sciml.discretize(Equation("u_tt = u_xx" + extra), grid, scheme=sciml.FiniteDifference())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("boundary", "n"), [(Dirichlet(0.0), 24), (Neumann(0.0), 200), (Periodic(), 200)])
def test_waves_have_imaginary_eigenvalues(boundary, n, dtype):
    """Their Jacobian is far from normal: its norm is 4 n^2, its largest eigenvalue 2 n i. The wave is at rest."""
    grid = Grid(n, boundary=boundary, dtype=dtype)
    u = torch.cos(math.pi * grid.coordinates[0])
    found = settled(eigenvalues(wave(grid), torch.stack((u, 0 * u)), 0.0))
    assert len(found) > 4
    assert float(found.real.abs().max()) == 0.0
    assert float(found.imag.max()) == pytest.approx(2 * n, rel=0.03)


def test_heat_on_a_mesh_has_real_eigenvalues():
    """In the inner product of the mass matrix; all of them by the slopes of unit vectors."""
    points = torch.rand(120, 2, dtype=F64, generator=torch.Generator().manual_seed(3))
    system = sciml.discretize(Equation("u_t = laplacian(u)"), Mesh.delaunay(points), boundary=Neumann(0.0))
    y = torch.rand(system.state_space, dtype=F64, generator=torch.Generator().manual_seed(4))
    n = y.numel()
    with torch.no_grad():
        columns = [system.slope(row, 0.0) for row in torch.eye(n, dtype=F64)]
    exact = numpy.linalg.eigvals(torch.stack(columns, 1).numpy())
    found = eigenvalues(system, y, 0.0)
    assert float(found.imag.abs().max()) < 1e-3 * float(found.abs().max())
    assert float(found.abs().max()) == pytest.approx(abs(exact).max(), rel=0.02)


def test_rows_and_unknowns_of_different_sizes():
    """Exact ones of small systems, of the row that has the largest; u and v differ by 1e8 in size."""
    equation = Equation(["u_t = -k*u + 1e8*v", "v_t = -1e-8*u - k*v"], coordinates=(), parameters={"k": 1.0})
    rates = torch.tensor([1.0, 50.0, 7.0], dtype=F64)
    system = sciml.discretize(equation, parameters={"k": rates})
    found = eigenvalues(system, torch.tensor([[1.0, 1e-8]] * 3, dtype=F64), 0.0)
    assert len(found) == 6
    torch.testing.assert_close(found.real.sort().values, -rates.repeat_interleave(2).sort(descending=True).values)
    torch.testing.assert_close(found.imag.abs(), torch.ones(6, dtype=F64))


def test_means_show_sources_alone():
    equation = Equation(["u_t = laplacian(u) - 3*u + 2*v", "v_t = -diff(v, x) - 400*v"])
    system = sciml.discretize(equation, Grid(32, boundary=Periodic()), scheme=sciml.FiniteDifference())
    u = torch.rand(2, 2, 32, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = mean_eigenvalues(system, u, 0.0)
    torch.testing.assert_close(
        found.real.sort().values, torch.tensor([-400.0, -400.0, -3.0, -3.0], dtype=F64), rtol=1e-5, atol=0.0
    )


def test_what_is_not_finite_has_no_eigenvalues():
    system = sciml.discretize(Equation("u_t = u_xx + log(u)"), Grid(16))
    assert len(eigenvalues(system, -torch.ones(16, dtype=F64), 0.0)) == 0
    assert stability_limit(ExplicitRungeKutta.rk4(), system, -torch.ones(16, dtype=F64), 0.0) is None


# Of methods for systems


def largest_after(method, system, y, h, steps):
    stepper = method.stepper(system)
    memory = stepper.begin(y, 0.0)
    with torch.no_grad():
        for k in range(steps):
            attempt = stepper.step(y, k * h, h, memory)
            y, memory = attempt.value, attempt.memory
    return float(y.abs().max())


@pytest.mark.parametrize(
    "method",
    [ExplicitRungeKutta.rk4(), AdamsBashforth3(), Leapfrog(0.0), Leapfrog()],
    ids=lambda method: method.describe(),
)
def test_waves_grow_beyond_the_limit_and_not_below(method):
    grid = Grid(40)
    u = torch.rand(40, dtype=F64, generator=torch.Generator().manual_seed(0))
    system, y = wave(grid), torch.stack((u, 0 * u))
    found = stability_limit(method, system, y, 0.0)
    assert largest_after(method, system, y, 0.97 * found, 500) < 500.0
    assert not largest_after(method, system, y, 1.05 * found, 500) < 1e5


@pytest.mark.parametrize("nu", [0.02, 0.5])
@pytest.mark.parametrize(
    "method",
    [ImplicitExplicit.cnab2(), ImplicitExplicit.ark3(), ImplicitExplicit.ark4()],
    ids=lambda method: method.describe().split(",")[0],
)
def test_transport_taken_explicitly_grows_beyond_the_limit_and_not_below(method, nu):
    """It depends on how much diffusion, which is taken implicitly, damps at the same wavenumbers."""
    grid = Grid(64, upper=2 * math.pi, boundary=Periodic())
    given = {"fields": {"c": lambda x: 1 + torch.sin(x) / 2}, "parameters": {"nu": nu}}
    system = sciml.discretize(Equation("u_t = nu*u_xx - c*u_x", parameters={"nu": 1.0}), grid, **given)
    x = grid.coordinates[0]
    y = system.encode(sum(torch.sin(k * x + k * k) for k in range(1, 22)))
    found, start = stability_limit(method, system, y, 0.0), float(y.abs().max())
    assert largest_after(method, system, y, 0.9 * found, 250) < 3 * start
    assert not largest_after(method, system, y, 1.5 * found, 250) < 3 * start


def test_methods_without_a_limit():
    system = wave(Grid(16))
    y = torch.ones(2, 16, dtype=F64)
    assert stability_limit(ImplicitRungeKutta.sdirk2(), system, y, 0.0) is None
    assert unstable_step(ExplicitRungeKutta.rk4(), system, y, 0.0, 1e-3) is None


@pytest.mark.parametrize("method", [ExplicitRungeKutta.euler(), ExplicitRungeKutta.heun()])
def test_where_every_step_is_unstable_it_is_said(method):
    grid = Grid(32)
    u = torch.rand(32, dtype=F64, generator=torch.Generator().manual_seed(0))
    arguments = {"initial": {"u": u, "u_t": 0.0}, "times": [0.0, 40.0], "step": 0.04}
    with pytest.raises(sciml.SolveError, match=r"Every step is unstable.*waves, grow.*rk4\(\).* about 0\.044"):
        sciml.evolve(Equation("u_tt = u_xx"), grid, method=method, **arguments)
    sciml.evolve(Equation("u_tt = u_xx"), grid, method=ExplicitRungeKutta.rk4(), **arguments)


@pytest.mark.parametrize(
    ("method", "step", "words"),
    [
        (AdamsBashforth3(), 0.02, r"The step 0\.02 is unstable: .* about 0\.011"),
        (Leapfrog(0.0), 0.02, r"The step 0\.02 is unstable: .* about 0\.016"),
    ],
)
def test_limits_of_multistep_methods_are_said(method, step, words):
    u = torch.rand(32, dtype=F64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(sciml.SolveError, match=words):
        sciml.evolve(
            Equation("u_tt = u_xx"),
            Grid(32),
            initial={"u": u, "u_t": 0.0},
            times=[0.0, 60.0],
            step=step,
            method=method,
        )


def test_leapfrog_on_what_is_damped():
    system = sciml.discretize(Equation("u_t = u_xx"), Grid(32))
    said = unstable_step(Leapfrog(0.0), system, torch.ones(32, dtype=F64), 0.0, 1e-6)
    assert said is not None and "Every step is unstable" in said and "damped, as by diffusion" in said
