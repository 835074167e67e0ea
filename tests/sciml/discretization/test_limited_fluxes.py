"""Conservation laws by limited fluxes: conservation, total variation, shock speeds, orders, walls."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml.boundary import Dirichlet, Neumann, Periodic
from sciml.discretization import GridEvolution
from sciml.discretization.limiters import SLOPES, spectral_radius
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.scheme import FiniteVolume

LIMITERS = tuple(SLOPES)
SHALLOW = Equation(
    ["h_t = -div([p, q])", "p_t = -div([p**2/h + g*h**2/2, p*q/h])", "q_t = -div([p*q/h, q**2/h + g*h**2/2])"],
    parameters={"g": 9.81},
)
EULER = Equation(
    [
        "r_t = -div([m])",
        "m_t = -div([m**2/r + (gamma - 1)*(E - m**2/(2*r))])",
        "E_t = -div([m/r*(E + (gamma - 1)*(E - m**2/(2*r)))])",
    ],
    parameters={"gamma": 1.4},
)


def evolution(equation: Equation | str, grid: Grid, scheme: Any = None, **arguments: Any) -> GridEvolution:
    if isinstance(equation, str):
        equation = Equation(equation)
    fields, parameters, boundary = (arguments.get(name) for name in ("fields", "parameters", "boundary"))
    return GridEvolution(equation, grid, fields or {}, parameters or {}, boundary, scheme, no_solver)


def no_solver(_: Any) -> Callable[[Tensor], Tensor]:
    raise InputError("nothing is to be solved here")


def march(system: GridEvolution, u: Tensor, end: float, steps: int) -> Tensor:
    """Heun's method in the form that keeps total variations (Shu and Osher 1988)."""
    h = end / steps
    for number in range(steps):
        first = u + h * system.rate(u, number * h)
        u = 0.5 * (u + first + h * system.rate(first, (number + 1) * h))
    return u


def total_variation(u: Tensor) -> float:
    return float((u.roll(-1) - u).abs().sum())


@pytest.mark.parametrize("limiter", LIMITERS)
def test_limiters_stay_in_sweby_s_region(limiter: str) -> None:
    """0 <= slope/a <= min(2, 2 b/a), second order where both differences agree, symmetric; Sweby 1984, figure 1."""
    a, b = torch.randn(2, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slope = SLOPES[limiter](a, b)
    assert torch.equal(slope, SLOPES[limiter](b, a))
    assert torch.allclose(SLOPES[limiter](a, a), a, rtol=1e-15, atol=0.0)
    assert not bool(slope[a * b <= 0].any())
    assert bool((slope.abs() <= 2.0 * torch.minimum(a.abs(), b.abs()) * (1 + 1e-15)).all())
    assert bool((slope * a >= 0).all())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_spectral_radius(size: int) -> None:
    """Exact up to three rows of real eigenvalues, a close upper bound beyond, and of complex ones."""
    generator = torch.Generator().manual_seed(size)
    vectors = torch.randn(200, size, size, dtype=torch.float64, generator=generator) + 2.0 * torch.eye(size)
    values = torch.randn(200, size, dtype=torch.float64, generator=generator)
    for matrix in (vectors @ torch.diag_embed(values) @ torch.linalg.inv(vectors), vectors):
        expected = torch.linalg.eigvals(matrix).abs().amax(-1)
        found = spectral_radius([[matrix[:, i, j] for j in range(size)] for i in range(size)])
        assert bool((found >= expected * (1.0 - 1e-6)).all())
        ratio = found / expected
        if size <= 2 or (size == 3 and matrix is not vectors):
            assert float((ratio - 1.0).abs().max()) < 1e-5
        assert float(ratio.median()) < 1.1


@pytest.mark.parametrize("limiter", LIMITERS)
@pytest.mark.parametrize("text", ["u_t = -div([u**2/2])", "u_t = -div([u**2/(u**2 + (1 - u)**2)])", "u_t = div([2*u])"])
def test_scalar_laws_conserve_and_diminish_total_variation(limiter: str, text: str) -> None:
    """Of jumps and noise, at Courant number 1/2; Buckley and Leverett's flux is not convex."""
    grid = Grid(60, boundary=Periodic())
    system = evolution(text, grid, FiniteVolume(limiter=limiter))
    (x,) = grid.coordinates
    u = torch.where(x < 0.4, 1.0, 0.0) + 0.3 * torch.rand(60, generator=torch.Generator().manual_seed(0)).double()
    mass, variation = float(u.sum()), total_variation(u)
    low, high = float(u.min()), float(u.max())
    fastest = 2.6
    for _ in range(60):
        u = march(system, u, 0.5 / 60 / fastest, 1)
        assert total_variation(u) <= variation * (1.0 + 1e-14)
        variation = total_variation(u)
    assert float(u.sum()) == pytest.approx(mass, rel=1e-13)
    assert low - 1e-12 <= float(u.min()) and float(u.max()) <= high + 1e-12


@pytest.mark.parametrize("limiter", ["van_leer", "mc"])
def test_smooth_solutions_are_of_second_order(limiter: str) -> None:
    """Burgers before the shock, against characteristics: u = sin(2 pi (x - u t)) / 4 + 1/2."""
    errors, end = [], 0.3
    for n in (80, 160):
        grid = Grid(n, boundary=Periodic())
        (x,) = grid.coordinates
        system = evolution("u_t = -div([u**2/2])", grid, FiniteVolume(limiter=limiter))
        u = 0.25 * torch.sin(2 * math.pi * x) + 0.5
        for _ in range(60):
            u = u - (u - 0.25 * torch.sin(2 * math.pi * (x - u * end)) - 0.5) / (
                1.0 + 0.5 * math.pi * end * torch.cos(2 * math.pi * (x - u * end))
            )
        found = march(system, 0.25 * torch.sin(2 * math.pi * x) + 0.5, end, n)
        errors.append(float((found - u).abs().mean()))
    assert 1.8 < math.log2(errors[0] / errors[1]) < 2.6


def test_two_axes_and_a_velocity_field() -> None:
    """Solid rotation of a smooth hill with a source that changes in time, second order in the mean."""
    errors = []
    for n in (24, 48):
        grid = Grid((n, n), lower=-1.0, upper=1.0, boundary=Dirichlet(0.0))
        x, y = grid.coordinates

        def hill(t: float, x: Tensor = x, y: Tensor = y) -> Tensor:
            a, b = x * math.cos(t) + y * math.sin(t), y * math.cos(t) - x * math.sin(t)
            return torch.exp(-20.0 * ((a - 0.35) ** 2 + b**2))

        system = evolution("u_t = -div([-y*u, c*u]) + t*f", grid, fields={"c": lambda x, y: x, "f": 1.0})
        assert "limited by van_leer" in " ".join(system.notes)
        found = march(system, hill(0.0), 0.8, 2 * n) - 0.5 * 0.8**2
        inside = (x.abs() < 0.7) & (y.abs() < 0.7)
        errors.append(float((found - hill(0.8))[inside].abs().mean()))
    assert 1.6 < math.log2(errors[0] / errors[1]) < 2.6


def test_the_shock_of_burgers_moves_at_its_speed() -> None:
    """Rankine and Hugoniot: half of 1 + 0.2; from an inflow that is given to an outflow that is free."""
    grid = Grid(200, boundary={"x": (Dirichlet(1.0), Dirichlet(-7.0))})
    (x,) = grid.coordinates
    system = evolution("u_t = -div([u**2/2])", grid, boundary={"x": (Dirichlet(1.0), Neumann(0.0))})
    start = torch.where(x < 0.2, 1.0, 0.2).double()
    u = march(system, start, 0.75, 300)
    mean = float(u.sum()) / 200
    place = (mean - 0.2) / 0.8
    assert place == pytest.approx(0.2 + 0.6 * 0.75, abs=1e-7)
    assert int(((u > 0.21) & (u < 0.99)).sum()) <= 4
    assert float((x[u > 0.6]).max()) == pytest.approx(0.65, abs=0.01)


def test_a_rarefaction_through_the_sonic_point_has_no_jump() -> None:
    grid = Grid(200, lower=-1.0, boundary={"x": (Dirichlet(-1.0), Dirichlet(1.0))})
    (x,) = grid.coordinates
    system = evolution("u_t = -div([u**2/2])", grid)
    u = march(system, torch.sign(x), 0.5, 150)
    assert float((u - (x / 0.5).clamp(-1.0, 1.0)).abs().mean()) < 4e-3


def test_one_unknown_leaves_freely_whatever_is_given_where_it_leaves() -> None:
    """Values given at an outflow have no effect; at an inflow they do; walls balance the mass."""
    grid = Grid((30, 8), boundary={"x": (Dirichlet(1.0), Dirichlet(0.3)), "y": Periodic()})
    system = evolution("u_t = -div([u**2/2, 0])", grid)
    assert not bool(system.rate(torch.ones(30, 8, dtype=torch.float64), 0.0).any())
    u = 1.0 + 0.1 * torch.rand(30, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rate = system.rate(u, 0.0)
    out = u[-1] + 0.5 * (u[-1] - u[-2])
    expected = -(out**2 / 2 - 0.5).sum() * grid.spacing[1]
    assert float(rate.sum()) * grid.cell_volume == pytest.approx(float(expected), rel=1e-12)


def test_sod_s_shock_tube() -> None:
    """The plateaus of Sod's problem, J. Comput. Phys. 27 (1978) 1-31: p* = 0.30313, u* = 0.92745, r* = 0.42632 and
    0.26557, from the exact solution of the Riemann problem."""
    grid = Grid(200, boundary=Neumann(0.0))
    (x,) = grid.coordinates
    left = (x < 0.5).double()
    density, pressure = 0.125 + 0.875 * left, 0.1 + 0.9 * left
    start = torch.stack([density, 0.0 * x, pressure / 0.4])
    system = evolution(EULER, grid)
    r, m, energy = march(system, start, 0.2, 200)
    velocity = m / r
    found = 0.4 * (energy - m**2 / (2 * r))
    plateau = (x > 0.55) & (x < 0.65), (x > 0.72) & (x < 0.82)
    for region, expected in zip(plateau, (0.42632, 0.26557), strict=True):
        assert float((r[region] - expected).abs().mean()) < 2e-3
        assert float((velocity[region] - 0.92745).abs().mean()) < 2e-3
        assert float((found[region] - 0.30313).abs().mean()) < 1e-3
    assert float(r.sum()) == pytest.approx(float(density.sum()), rel=1e-12)
    # The shock has moved at 1.75216.
    assert float(x[r > 0.2].max()) == pytest.approx(0.5 + 0.2 * 1.75216, abs=0.006)


def test_water_between_walls() -> None:
    """No mass passes walls where the flow across them is 0; water at rest stays; a symmetric start stays symmetric."""
    sides = {
        "h": Neumann(0.0),
        "p": {"x": Dirichlet(0.0), "y": Neumann(0.0)},
        "q": {"x": Neumann(0.0), "y": Dirichlet(0.0)},
    }
    grid = Grid((24, 20), upper=(1.2, 1.0), boundary=sides)
    x, y = grid.coordinates
    system = evolution(SHALLOW, grid)
    rest = torch.stack([torch.full_like(x, 0.7), 0 * x, 0 * x])
    assert float(system.rate(rest, 0.0).abs().max()) < 1e-13
    hill = 1.0 + 0.4 * ((x - 0.6) ** 2 + (y - 0.5) ** 2 < 0.05).double()
    found = march(system, torch.stack([hill, 0 * x, 0 * x]), 0.12, 60)
    assert float(found[0].sum()) == pytest.approx(float(hill.sum()), rel=1e-13)
    assert torch.allclose(found[0], found[0].flip(0), atol=1e-12)
    assert torch.allclose(found[2], -found[2].flip(1), atol=1e-12)
    assert float((found[0] - hill).abs().max()) > 0.1


def test_three_axes_agree_with_one() -> None:
    line = Grid(20, boundary=Periodic())
    box = Grid((3, 20, 4), boundary=Periodic())
    u = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = evolution("u_t = -div([u**3])", line).rate(u, 0.0)
    found = evolution("u_t = -div([0, u**3, 0])", box).rate(u.reshape(20, 1).expand(3, 20, 4), 0.0)
    assert torch.allclose(found, expected.reshape(20, 1).expand(3, 20, 4), rtol=1e-13, atol=1e-13)


def test_obstacles_and_batches() -> None:
    """Nothing flows into solid cells where the velocity vanishes at them; rows of a batch are alone."""
    solid = torch.zeros(12, 10, dtype=torch.bool)
    solid[5:8, 4:7] = True
    grid = Grid((12, 10), boundary=Periodic(), solid=solid)
    far = torch.ones(12, 10, dtype=torch.float64)
    far[3:10, 2:9] = 0.0
    system = evolution("u_t = -div([c*u**2, -c*u])", grid, fields={"c": far})
    u = system.encode(torch.rand(3, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    rate = system.rate(u, 0.0)
    assert not bool(rate[:, solid].any())
    assert float(rate.flatten(1).sum(1).abs().max()) < 1e-12 * float(rate.abs().sum())
    for row in range(3):
        assert torch.allclose(system.rate(u[row], 0.0), rate[row], rtol=1e-13, atol=1e-13)


def test_which_fluxes_are_limited() -> None:
    grid = Grid(16, boundary=Periodic())
    u = torch.rand(16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    viscous = Equation("u_t = -div([u**2/2 - nu*u_x])", parameters={"nu": 0.01})
    assert not any("limited" in note for note in evolution(viscous, grid).notes)
    limited = evolution(viscous, grid, FiniteVolume(limiter="mc"))
    assert any("limited by mc" in note for note in limited.notes)
    assert limited.linear_part is not None  # the diffusion, apart
    inviscid = evolution("u_t = -div([u**2/2])", grid, FiniteVolume(limiter="mc")).rate(u, 0.0)
    diffusion = evolution("u_t = 0.01*u_xx", grid).rate(u, 0.0)
    assert torch.allclose(limited.rate(u, 0.0), inviscid + diffusion, rtol=1e-12, atol=1e-12)
    central = evolution("u_t = -div([u**2/2])", grid, FiniteVolume(limiter="none")).rate(u, 0.0)
    assert torch.allclose(central, -(u.roll(-1) ** 2 - u.roll(1) ** 2) / (4 * grid.spacing[0]), rtol=1e-12)
    assert any("limiters act on divergences" in note for note in evolution("u_t = -u*u_x", grid, FiniteVolume()).notes)


@pytest.mark.parametrize("text", ["u_t = -u*u_x", "u_t = 0.1*u_xx", "u_t = -a*u_x"])
def test_a_limiter_that_finds_no_flux_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"limiter='minmod'\) has nothing to limit.*-div\(\[u\*\*2/2\]\) in place of"):
        evolution(
            text,
            Grid(16, boundary=Periodic()),
            FiniteVolume(limiter="minmod"),
            fields={"a": 1.0} if "a" in text else {},
        )


def test_central_fluxes_warn_beyond_their_cell_peclet_number() -> None:
    """|u| h / nu, the largest over cells: of one unknown, of waves of two on two axes, and of diffusion that varies."""
    grid = Grid((8, 4), upper=(2.0, 3.0), boundary=Periodic())
    u = torch.rand(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 0.5
    water = Equation(
        ["h_t = -div([p, 0]) + nu*laplacian(h)", "p_t = -div([p**2/h + g*h**2/2, 0]) + nu*laplacian(p)"],
        parameters={"g": 9.81, "nu": 1.0},
    )
    state = torch.stack([u + 2.0, u])
    fastest = float((u.abs() / (u + 2.0) + (9.81 * (u + 2.0)).sqrt()).max())
    k = 1.0 + torch.arange(32.0).double().reshape(8, 4)
    cases: list[tuple[Any, dict[str, Any], Tensor, float]] = [
        ("u_t = -div([0, u**2/2]) + nu*laplacian(u)", {"nu": 1.0}, u, float(u.abs().max()) * 0.75),
        (water, {"nu": 1.0}, state, fastest * 0.25),
        ("u_t = -div([u**2/2, 0]) + div(k*grad(u))", {"k": k}, u, float((u.abs() / k).max()) * 0.25),
    ]
    for text, given, initial, unit in cases:
        name, value = next(iter(given.items()))
        equation = Equation(text, parameters={"nu": 1.0} if name == "nu" else {}) if isinstance(text, str) else text
        for peclet in (1.99, 2.01):
            changed = {"parameters" if name == "nu" else "fields": {name: value * (unit / peclet)}}
            system = evolution(equation, grid, FiniteVolume(average="arithmetic"), **changed)
            assert any("central, no limiter (there is diffusion" in note for note in system.notes)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                system.hold(initial, 0.0)
            assert [f"is {peclet:.3g} at the start" in str(one.message) for one in caught] == [True] * (peclet > 2.0)
    quiet = evolution("u_t = -div([u**2/2, 0]) + 1e-9*laplacian(u)", grid, FiniteVolume(limiter="none"))
    assert any("no limiter (as asked)" in note for note in quiet.notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet.hold(u, 0.0)


def test_gradients_flow_through_limited_fluxes() -> None:
    """With respect to the unknowns, a parameter and the value at the inflow, backward and forward."""
    grid = Grid(12, boundary=Neumann(0.0))
    u = 1.0 + torch.rand(3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def rate(u: Tensor, g: Tensor, wall: Tensor) -> Tensor:
        sides = {"h": {"x": (Dirichlet(wall), Neumann(0.0))}, "p": Neumann(0.0), "q": Neumann(0.0)}
        texts = ["h_t = -div([p])", "p_t = -div([p**2/h + g*h**2/2])", "q_t = -div([p*q/h])"]
        return evolution(Equation(texts, parameters={"g": 1.0}), grid, parameters={"g": g}, boundary=sides).rate(u, 0.0)

    values = (u, torch.tensor(9.81).double(), torch.tensor(1.2).double())
    for place in range(3):
        direction = torch.cos(torch.arange(values[place].numel()).double()).reshape(values[place].shape)
        moved = [[v + s * direction if i == place else v for i, v in enumerate(values)] for s in (1e-6, -1e-6)]
        expected = (rate(*moved[0]) - rate(*moved[1])) / 2e-6
        tangents = tuple(direction if i == place else torch.zeros_like(v) for i, v in enumerate(values))
        _, found = torch.autograd.functional.jvp(rate, values, tangents)
        assert float(expected.abs().max()) > 1e-2
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_limited_fluxes_have_no_matrix() -> None:
    system = evolution("u_t = -div([u**2/2])", Grid(12, boundary=Periodic()))
    u = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    operator = system.shifted(u, 0.0, 0.1)
    v = torch.cos(torch.arange(12).double())
    step = 1e-6
    slope = (system.rate(u + step * v, 0.0) - system.rate(u - step * v, 0.0)) / (2 * step)
    assert torch.allclose(operator.apply(v), v - 0.1 * slope, rtol=1e-6, atol=1e-6)
    several = operator.apply(v.expand(3, 12))
    assert torch.equal(several, operator.apply(v).expand(3, 12))
    assert float((several * v).sum()) == pytest.approx(3 * float((operator.transpose().apply(v) * v).sum()), rel=1e-12)
    with pytest.raises(InputError, match="limiter is one of auto, none, minmod"):
        FiniteVolume(limiter="weno")
