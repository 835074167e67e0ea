"""evolve on domains: what it chooses, physics, gradients, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

import sciml
from sciml import Dirichlet, Equation, Grid, InputError, Neumann, Periodic, SolveError, Status
from sciml.equations import catalogue
from sciml.solvers.time import (
    AdamsBashforth3,
    Bdf2,
    ExplicitRungeKutta,
    ExponentialRungeKutta,
    ImplicitExplicit,
    ImplicitRungeKutta,
    Leapfrog,
)
from sciml.solvers.time.march import integrate
from sciml.solvers.time.trajectory import Task

HEAT = Equation("u_t = alpha*laplacian(u)", parameters={"alpha": 0.1})
RING = Grid(64, upper=2 * math.pi, boundary=Periodic())


def sine(x):
    return torch.sin(math.pi * x)


@pytest.mark.parametrize(
    ("equation", "grid", "given", "words"),
    [
        (HEAT, Grid(16), {"step": 1e-4}, "classical Runge-Kutta, explicit (not stiff"),
        (HEAT, Grid(256), {}, "Kvaerno 5(4), implicit (stiff: stable steps"),
        (HEAT, RING, {}, "exponential 4(3)"),
        (catalogue.get("kuramoto_sivashinsky").equation, RING, {"step": 0.1}, "ETDRK4"),
        (Equation("u_t = -div([u**2/2])"), RING, {}, "Tsitouras 5(4), explicit (waves and transport"),
        (HEAT, RING, {"scheme": sciml.FiniteDifference(order=4)}, "Tsitouras 5(4), explicit (not stiff"),
    ],
)
def test_the_choice_and_its_reason(equation, grid, given, words):
    solution = sciml.evolve(equation, grid, initial=sine, times=[0.0, 0.01 if "step" in given else 0.1], **given)
    assert words in solution.method
    assert solution.status == (Status.CONVERGED,)


@pytest.mark.parametrize(
    ("method", "step", "tolerance"),
    [
        (None, None, 2e-5),
        (ExplicitRungeKutta.tsit5(), None, 2e-5),
        (ExplicitRungeKutta.rk4(), 1e-3, 1e-9),
        (ImplicitRungeKutta.kvaerno5(), None, 2e-5),
        (ImplicitRungeKutta.crank_nicolson(), 0.01, 2e-5),
        (ImplicitExplicit.ark4(), None, 2e-5),
        (ImplicitExplicit.cnab2(), 0.01, 2e-5),
        (Bdf2(), 0.005, 2e-4),
        (AdamsBashforth3(), 1e-3, 1e-6),
    ],
    ids=lambda value: value.describe() if hasattr(value, "describe") else None,
)
def test_heat_decays_as_the_discrete_operator_says(method, step, tolerance):
    """sin(pi x) is an eigenvector of the differences with walls, of eigenvalue -(2/h)^2 sin(pi h/2)^2."""
    grid = Grid(20)
    h = grid.spacing[0]
    rate = 0.1 * (2 / h * math.sin(math.pi * h / 2)) ** 2
    times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    solution = sciml.evolve(HEAT, grid, initial=sine, times=times, method=method, step=step)
    exact = torch.exp(-rate * times)[:, None] * sine(grid.coordinates[0])
    torch.testing.assert_close(solution.value, exact, rtol=0, atol=tolerance)


def test_time_dependent_boundary_values_and_forcing():
    """u = x^2 cos(t) + sin(t) solves u_t = u_xx + f; the walls are of second order."""
    equation = Equation("u_t = u_xx + f")

    def exact(x, t):
        return x**2 * torch.cos(torch.as_tensor(t, dtype=x.dtype)) + math.sin(t)

    def source(x, t):
        time = torch.as_tensor(t, dtype=x.dtype)
        return -(x**2) * torch.sin(time) + torch.cos(time) - 2 * torch.cos(time)

    boundary = {
        "x": (
            Dirichlet(lambda x, t: exact(x, t)),
            Neumann(lambda x, t: 2 * x * torch.cos(torch.as_tensor(t, dtype=x.dtype))),
        )
    }
    errors = []
    for n in (16, 32):
        grid = Grid(n)
        solution = sciml.evolve(
            equation,
            grid,
            initial=lambda x: exact(x, 0.0),
            times=[0.0, 0.5, 1.5],
            fields={"f": source},
            boundary=boundary,
            rtol=1e-8,
        )
        exact_values = torch.stack([exact(grid.coordinates[0], t) for t in solution.times.tolist()])
        errors.append(float((solution.value - exact_values).abs().max()))
    assert errors[1] < 3e-4
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


def test_leading_lyapunov_exponent_of_kuramoto_sivashinsky():
    """For L = 22: 0.043 to 0.048 in the literature (Cvitanović, Davidchack and Siminos, SIAM J. Appl. Dyn. Syst. 9
    (2010) 1-33: 0.048). Growth of small differences, over many rows, after the transient."""
    grid = Grid(48, upper=22.0, boundary=Periodic())
    system = sciml.discretize(catalogue.get("kuramoto_sivashinsky").equation, grid)
    method = ExponentialRungeKutta.etd4()
    generator = torch.Generator().manual_seed(7)
    rows, stretch = 48, 4.0
    x = grid.coordinates[0] * (2 * math.pi / 22)
    waves = torch.stack([f(k * x) for k in (1, 2, 3) for f in (torch.sin, torch.cos)])
    u = torch.randn(rows, 6, dtype=torch.float64, generator=generator) @ waves
    u = integrate(method, system, system.encode(u), Task((0.0, 150.0), step=0.25)).states[:, -1]
    near = u + 1e-7 * system.encode(torch.randn(rows, 6, dtype=torch.float64, generator=generator) @ waves)
    sizes = []
    for k in range(60):
        both = integrate(method, system, torch.stack((u, near)), Task((0.0, stretch), step=0.25)).states[:, :, -1]
        difference = both[1] - both[0]
        size = system.decode(difference).square().mean(-1, keepdim=True).sqrt()[..., None]
        if k >= 10:
            sizes.append((size / 1e-6).log().mean())
        u, near = both[0], both[0] + difference * (1e-6 / size)
    exponent = float(torch.stack(sizes).mean()) / stretch
    assert 0.040 < exponent < 0.050


def test_cahn_hilliard_keeps_its_mass():
    grid = Grid((32, 32), boundary=Periodic())
    noise = 0.1 * torch.randn(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solution = sciml.evolve(
        catalogue.get("cahn_hilliard").equation, grid, initial=noise, times=[0.0, 0.01, 0.05], rtol=1e-4
    )
    mass = solution.value.mean((-2, -1))
    torch.testing.assert_close(mass, mass[:1].expand(3), rtol=0, atol=1e-12)
    assert float(solution.value[-1].abs().max()) > 0.5


@pytest.mark.parametrize(
    "method", [ExponentialRungeKutta.etd4(), ExplicitRungeKutta.rk4(), AdamsBashforth3(), Leapfrog()]
)
def test_taylor_green_vortices_decay_exactly(method):
    """psi = cos(x) cos(y) with w = 2 psi: the nonlinear terms cancel, and w decays like exp(-2 nu t)."""
    grid = Grid((32, 32), upper=2 * math.pi, boundary=Periodic())
    solution = sciml.evolve(
        catalogue.get("navier_stokes", nu=0.05).equation,
        grid,
        initial=lambda x, y: 2 * torch.cos(x) * torch.cos(y),
        times=[0.0, 1.0],
        fields={"f": 0.0},
        method=method,
        step=0.01,
    )
    x, y = grid.coordinates
    shape = 2 * torch.cos(x) * torch.cos(y)
    tolerance = (
        1e-13 if isinstance(method, ExponentialRungeKutta) else 1e-6 if not isinstance(method, Leapfrog) else 1e-4
    )
    torch.testing.assert_close(solution.value[-1], math.exp(-0.1) * shape, rtol=0, atol=tolerance)
    torch.testing.assert_close(solution.fields["psi"][-1], solution.value[-1] / 2, rtol=0, atol=1e-12)


def test_burgers_against_cole_and_hopf():
    """u = -2 nu theta_x / theta with theta = 1 + e^{-nu t} cos(x)/2 solves u_t = -u u_x + nu u_xx."""
    nu, grid = 0.05, Grid(128, upper=2 * math.pi, boundary=Periodic())

    def exact(x, t):
        decayed = math.exp(-nu * t) / 2
        return 2 * nu * decayed * torch.sin(x) / (1 + decayed * torch.cos(x))

    solution = sciml.evolve(
        catalogue.get("burgers", nu=nu).equation,
        grid,
        initial=lambda x: exact(x, 0.0),
        times=[0.0, 1.0, 4.0],
        rtol=1e-9,
    )
    for place, t in enumerate((0.0, 1.0, 4.0)):
        torch.testing.assert_close(solution.value[place], exact(grid.coordinates[0], t), rtol=0, atol=1e-8)


def test_a_shock_of_burgers_moves_at_the_mean_of_both_sides():
    grid = Grid(200, upper=2.0, boundary={"x": (Dirichlet(1.0), Neumann(0.0))})
    solution = sciml.evolve(
        Equation("u_t = -div([u**2/2])"),
        grid,
        initial=lambda x: torch.where(x < 0.5, 1.0, 0.0).to(x),
        times=[0.0, 1.0, 2.0],
        method=ExplicitRungeKutta.heun(),
        step=0.004,
    )
    # The mass to the right of the inflow is that of a step at 0.5 + t/2.
    mass = solution.value.sum(-1) * grid.spacing[0]
    torch.testing.assert_close(mass, torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64), rtol=0, atol=1e-3)
    variation = solution.value.diff(dim=-1).abs().sum(-1)
    assert float(variation.max()) < 1 + 1e-12  # Heun's method keeps what limited fluxes promise


# Gradients


@pytest.mark.parametrize(
    ("method", "scheme", "tolerance"),
    [
        (ExplicitRungeKutta.rk4(), None, 1e-6),
        (ExponentialRungeKutta.etd4(), None, 1e-6),
        (ImplicitRungeKutta.crank_nicolson(), sciml.FiniteDifference(), 1e-6),
        (ImplicitRungeKutta.sdirk2(), None, 1e-6),
        (ImplicitExplicit.cnab2(), None, 1e-6),
        (ImplicitExplicit.cnab2(), sciml.FiniteDifference(), 1e-6),
        (AdamsBashforth3(), None, 1e-6),
    ],
    ids=str,
)
@pytest.mark.parametrize("gradient", ["recorded", "checkpointed"])
def test_gradients_of_burgers_against_differences(method, scheme, tolerance, gradient):
    grid = Grid(24, upper=2 * math.pi, boundary=Periodic())
    weights = torch.randn(2, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(data, gradient="recorded"):
        solution = sciml.evolve(
            Equation("u_t = -u*u_x + nu*u_xx + f", parameters={"nu": 0.1}),
            grid,
            initial=torch.sin(grid.coordinates[0]) * data[1],
            times=[0.0, 0.2],
            parameters={"nu": data[0]},
            fields={"f": data[2] * torch.cos(grid.coordinates[0])},
            method=method,
            scheme=scheme,
            step=0.02,
            gradient=gradient,
        )
        return (solution.value * weights).sum()

    data = torch.tensor([0.1, 1.0, 0.3], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(loss(data, gradient), data)
    for k in range(3):
        unit = torch.zeros(3, dtype=torch.float64)
        unit[k] = 1e-4
        values = [loss(data.detach() + factor * unit) for factor in (1, -1, 2, -2)]
        difference = (8 * (values[0] - values[1]) - (values[2] - values[3])) / 12e-4
        assert float(found[k]) == pytest.approx(float(difference), rel=tolerance)


def test_one_step_forward_in_state_and_parameters():
    """The derivative of one exponential step along both, against differences."""
    grid = Grid(32, upper=22.0, boundary=Periodic())
    equation = catalogue.get("kuramoto_sivashinsky").equation
    u = torch.cos(2 * math.pi * grid.coordinates[0] / 22) * 2

    def step(u, nu):
        return sciml.evolve(
            equation,
            grid,
            initial=u,
            times=[0.0, 0.05],
            parameters={"nu": nu},
            step=0.05,
            method=ExponentialRungeKutta.etd4(),
        ).value[-1]

    nu, direction = torch.tensor(1.0, dtype=torch.float64), torch.sin(4 * math.pi * grid.coordinates[0] / 22)
    _, tangent = torch.func.jvp(step, (u, nu), (direction, torch.ones_like(nu)))
    difference = (step(u + 1e-5 * direction, nu + 1e-5) - step(u - 1e-5 * direction, nu - 1e-5)) / 2e-5
    torch.testing.assert_close(tangent, difference, rtol=1e-7, atol=1e-8)


def test_batches_of_parameters_and_initial_values_equal_single_runs():
    nu = torch.tensor([0.05, 0.2], dtype=torch.float64)
    start = torch.stack([torch.sin(k * RING.coordinates[0]) for k in (1, 2)])
    burgers = catalogue.get("burgers").equation
    for scheme in (None, sciml.FiniteDifference()):
        together = sciml.evolve(
            burgers, RING, initial=start, times=[0.0, 0.5], parameters={"nu": nu}, scheme=scheme, step=0.01
        )
        for row in range(2):
            alone = sciml.evolve(
                burgers,
                RING,
                initial=start[row],
                times=[0.0, 0.5],
                parameters={"nu": float(nu[row])},
                scheme=scheme,
                step=0.01,
            )
            torch.testing.assert_close(together.value[row], alone.value, rtol=1e-10, atol=1e-12)


# Input


@pytest.mark.parametrize(
    ("equation", "grid", "given", "message"),
    [
        (HEAT, Grid(16), {"scheme": sciml.Spectral()}, "periodic"),
        (HEAT, Grid(16), {"method": ExponentialRungeKutta.etd4(), "step": 0.1}, "Spectral"),
        (HEAT, Grid(16), {"initial": torch.zeros(15, dtype=torch.float64)}, r"shape \(15,\)"),
        (HEAT, Grid(16), {"initial": torch.full((16,), math.nan, dtype=torch.float64)}, "16 of 16 values are NaN"),
        (HEAT, Grid(16), {"initial": {"v": 0.0}}, "'v' is not an unknown"),
        (catalogue.get("wave").equation, Grid(16), {"initial": {"u": 0.0}}, "no value is given for u_t"),
        (catalogue.get("lorenz").equation, None, {"scheme": sciml.FiniteDifference()}, "needs no scheme"),
        (HEAT, None, {}, "domain: expected a Grid or a Mesh"),
        (
            Equation("w_t = psi_x*w_y", constraints=["laplacian(psi) + psi = -w"]),
            Grid((16, 16), upper=2 * math.pi, boundary=Periodic()),
            {"initial": lambda x, y: torch.sin(2 * x)},
            "singular",
        ),
        (
            catalogue.get("navier_stokes").equation,
            Grid((16, 16), upper=2 * math.pi, boundary=Periodic()),
            {"initial": 1.0, "fields": {"f": 0.0}},
            "mean",
        ),
    ],
)
def test_refused_problems(equation, grid, given, message):
    arguments = {"initial": 0.0, "times": [0.0, 1.0], **given}
    with pytest.raises(InputError, match=message):
        sciml.evolve(equation, grid, **arguments)


def test_an_unstable_step_of_the_heat_equation():
    with pytest.raises(SolveError, match="unstable: at the initial state the limit of this method is about") as raised:
        sciml.evolve(HEAT, Grid(64), initial=sine, times=[0.0, 5.0], step=0.01, method=ExplicitRungeKutta.rk4())
    limit = float(str(raised.value).split("about ")[1].split(". Take")[0])
    assert limit == pytest.approx(2.785 / (4 * 0.1 * 64**2), rel=0.1)
