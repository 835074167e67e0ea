"""Values, gradients, fluxes, integrals and errors of solutions that evolve, against exact solutions at every time."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciml import Dirichlet, Equation, FiniteVolume, Grid, InputError, Mesh, Neumann, Solution, evolve
from sciml.boundary import Periodic
from sciml.solvers.time import ExponentialRungeKutta, ImplicitRungeKutta
from sciml.trajectories import take

TIMES = (0.0, 0.05, 0.1)
HEAT = Equation("u_t = laplacian(u)")
CLOCK = torch.tensor(TIMES, dtype=torch.float64)


def ring(n: int = 32, length: float = 2 * math.pi) -> Grid:
    return Grid((n,), (0.0,), (length,), boundary=Periodic())


@pytest.fixture(scope="module")
def waves() -> Solution:
    """Two rows of two decaying waves on a ring."""
    amplitude = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    (x,) = ring().coordinates
    return evolve(HEAT, ring(), initial=amplitude * (x.sin() + (3 * x).cos()), times=TIMES, step=0.05)


def wave(x: Tensor, t: Tensor | float) -> Tensor:
    t = torch.as_tensor(t)
    return torch.sin(x) * torch.exp(-t) + torch.cos(3 * x) * torch.exp(-9 * t)


def slope(x: Tensor, t: Tensor | float) -> Tensor:
    t = torch.as_tensor(t)
    return torch.cos(x) * torch.exp(-t) - 3 * torch.sin(3 * x) * torch.exp(-9 * t)


def test_a_fourier_series_has_its_exact_values_between_the_unknowns(waves: Solution) -> None:
    points = torch.tensor([[0.123], [2.5], [7.0], [-1.0]], dtype=torch.float64)
    values = waves.at(points)
    assert values.shape == (2, 3, 4)
    exact = wave(points[:, 0], CLOCK[:, None])
    torch.testing.assert_close(values, torch.stack((exact, 3 * exact)), rtol=0, atol=1e-13)


def test_a_fourier_series_has_its_exact_gradient(waves: Solution) -> None:
    (x,) = ring().coordinates
    found = waves.gradient()
    assert found.shape == (2, 3, 1, 32)
    exact = slope(x, CLOCK[:, None])[:, None]
    torch.testing.assert_close(found, torch.stack((exact, 3 * exact)), rtol=0, atol=1e-12)


def test_the_error_of_a_fourier_series_is_rounding(waves: Solution) -> None:
    found = waves.error(lambda x, t: torch.tensor([[1.0], [3.0]], dtype=torch.float64) * wave(x, t))
    assert found["L2"].shape == (2, 3)
    assert float(found["L2"].max()) < 1e-13
    assert float(found["H1"].max()) < 1e-12
    # Against zero the norms of the waves themselves: |u|^2 = pi (a^2 + b^2), |u'|^2 = pi (a^2 + 9 b^2).
    norms = waves.error(lambda x, t: 0.0 * x)
    a, b = torch.exp(-2 * CLOCK), torch.exp(-18 * CLOCK)
    torch.testing.assert_close(norms["L2"][0], (math.pi * (a + b)).sqrt())
    torch.testing.assert_close(norms["H1"][1], 3 * (math.pi * (2 * a + 10 * b)).sqrt())


def test_integrals_have_an_axis_of_time(waves: Solution) -> None:
    half = waves.integral(lambda x: x < math.pi)
    assert half.shape == (2, 3)
    torch.testing.assert_close(waves.integral(), torch.zeros(2, 3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float((half[1] / half[0] - 3.0).abs().max()) < 1e-12


@pytest.mark.parametrize("shape", [(12, 18), (9, 10), (8, 7, 6)])
@pytest.mark.parametrize("dealias", ["2/3", "none"])
def test_series_in_more_dimensions_and_their_values_at_the_unknowns(shape: tuple[int, ...], dealias: str) -> None:
    from sciml import Spectral

    grid = Grid(shape, (0.5,) * len(shape), tuple(1.0 + k for k in range(len(shape))), boundary=Periodic())
    noise = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    scheme = Spectral(dealias=dealias)
    solution = evolve(HEAT, grid, initial=noise, times=(0.0, 1e-3), step=1e-3, scheme=scheme)
    points = torch.stack([c.reshape(-1) for c in torch.broadcast_tensors(*grid.coordinates)], -1)
    torch.testing.assert_close(solution.at(points), solution.value.reshape(2, -1), rtol=0, atol=1e-12)
    # Values on both sides of points that are no unknowns, against the gradient from the formula for the unknowns.
    for axis in range(len(shape)):
        away = torch.zeros(len(shape), dtype=torch.float64)
        away[axis] = 1e-5
        quotient = (solution.at(points + away) - solution.at(points - away)) / 2e-5
        found = solution.gradient().select(1, axis).reshape(2, -1)
        if dealias == "2/3":
            torch.testing.assert_close(quotient, found, rtol=0, atol=1e-5 * float(found.abs().max()))


def test_values_at_points_carry_gradients() -> None:
    start = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (x,) = ring().coordinates
    solution = evolve(HEAT, ring(), initial=start * x.sin(), times=TIMES, step=0.05)
    points = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
    by_start, by_point = torch.autograd.grad(solution.at(points)[-1, 0], (start, points))
    assert float(by_start) == pytest.approx(math.sin(1.0) * math.exp(-0.1), abs=1e-13)
    assert float(by_point) == pytest.approx(math.cos(1.0) * math.exp(-0.1), abs=1e-13)


def plate(n: int) -> Grid:
    """u = sin(pi x) exp(-pi^2 t) + x t + 1: held on the left, its flux given on the right, both changing in time."""

    def out(x: Tensor, t: Tensor) -> Tensor:
        return -math.pi * torch.exp(-(math.pi**2) * t) + t

    sides = (Dirichlet(lambda x, t: 1.0 + 0.0 * t), Neumann(out))
    return Grid((n,), (0.0,), (1.0,), boundary={"x": sides})


def inside(x: Tensor, t: Tensor) -> Tensor:
    return torch.sin(math.pi * x) * torch.exp(-(math.pi**2) * t) + x * t + 1.0


def heated(n: int) -> Solution:
    equation = Equation("u_t = div(grad(u)) + f")
    return evolve(
        equation,
        plate(n),
        fields={"f": lambda x: x},
        initial=lambda x: inside(x, torch.zeros(())),
        times=TIMES,
        method=ImplicitRungeKutta.kvaerno5(),
        rtol=1e-9,
        atol=1e-10,
    )


def test_walls_have_the_values_of_their_time() -> None:
    errors = []
    for n in (20, 40):
        solution = heated(n)
        ends = solution.at([[0.0], [0.3], [1.0]])
        exact = torch.stack([inside(torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64), t) for t in CLOCK])
        assert float((ends[:, 0] - 1.0).abs().max()) < 1e-12  # what the condition says
        l2 = solution.error(inside)["L2"]
        slopes = solution.gradient()[:, 0]
        (x,) = plate(n).coordinates
        truth = math.pi * torch.cos(math.pi * x) * torch.exp(-(math.pi**2) * CLOCK)[:, None] + CLOCK[:, None]
        errors.append((float(l2[1:].max()), float((ends - exact)[1:].abs().max()), float((slopes - truth).abs().max())))
    for coarse, fine in zip(*errors, strict=True):
        assert math.log2(coarse / fine) > 1.8


def test_fluxes_balance_what_stays_inside_at_every_time() -> None:
    solution = heated(20)
    system: Any = solution.system
    rates = torch.stack([system.rate(u, t) for u, t in zip(solution.value, TIMES, strict=True)])
    inward = solution.flux("x_lower") + solution.flux("x_upper")
    source = 0.5
    torch.testing.assert_close(rates.mean(-1), inward + source, rtol=0, atol=1e-11)
    given = -math.pi * torch.exp(-(math.pi**2) * CLOCK) + CLOCK
    torch.testing.assert_close(solution.flux("x_upper"), given)


def square(n: int) -> Mesh:
    mesh = Mesh.box((n, n), (0.0, 0.0), (1.0, 1.0))
    return mesh.with_boundaries({"left": lambda x, y: x < 1e-9, "right": lambda x, y: x > 1 - 1e-9})


@pytest.mark.parametrize("lumped", [False, True])
def test_fluxes_on_a_mesh_balance_to_rounding(lumped: bool) -> None:
    from sciml import FiniteElement

    mesh = square(8)
    solution = evolve(
        Equation("u_t = div((1 + u**2)*grad(u)) + f"),
        mesh,
        fields={"f": lambda x, y, t: x + t},
        initial=lambda x, y: x * (1 - x) + y,
        boundary={
            "left": Dirichlet(lambda x, y, t: y + t),
            "right": Neumann(lambda x, y, t: torch.cos(t) * y),
            "rest": Neumann(0.0),
        },
        times=TIMES,
        method=ImplicitRungeKutta.sdirk2(),
        step=0.01,
        scheme=FiniteElement(lumped=lumped),
    )
    flux = {name: solution.flux(name) for name in ("left", "right", "exterior")}
    torch.testing.assert_close(flux["right"], torch.cos(CLOCK) * 0.5, rtol=1e-12, atol=1e-12)
    system: Any = solution.system
    rates = torch.stack([system.rate(u, t) for u, t in zip(solution.value, TIMES, strict=True)])
    stored = Solution(rates, solution.codes, {}, {}, system=system, times=solution.times).integral()
    source = 0.5 + CLOCK
    torch.testing.assert_close(stored, flux["exterior"] + source, rtol=0, atol=1e-10)


def test_values_on_a_mesh_against_a_separated_solution() -> None:
    mesh = square(24)
    solution = evolve(
        HEAT,
        mesh,
        initial=lambda x, y: torch.sin(math.pi * x) * torch.sin(math.pi * y),
        boundary={"exterior": Dirichlet(0.0)},
        times=TIMES,
        method=ImplicitRungeKutta.kvaerno5(),
        rtol=1e-8,
    )

    def exact(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return torch.sin(math.pi * x) * torch.sin(math.pi * y) * torch.exp(-2 * math.pi**2 * t)

    error = solution.error(exact)
    assert error["L2"].shape == (3,)
    assert float(error["L2"].max()) < 4e-3
    middle = solution.at([[0.5, 0.5]])[:, 0]
    assert float((middle - torch.exp(-2 * math.pi**2 * CLOCK)).abs().max()) < 1e-2
    assert solution.gradient().shape == (3, 2, len(mesh.points))
    amount = 4 / math.pi**2 * torch.exp(-2 * math.pi**2 * CLOCK)
    assert float((solution.integral() - amount).abs().max()) < 5e-3


def test_constraints_keep_out_of_values_and_stay_in_fields() -> None:
    flow = Equation(
        "w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w)", constraints=["laplacian(psi) = -w"], parameters={"nu": 0.01}
    )
    grid = Grid((16, 16), (0.0, 0.0), (2 * math.pi, 2 * math.pi), boundary=Periodic())
    solution = evolve(flow, grid, initial=lambda x, y: 2 * torch.cos(x) * torch.cos(y), times=TIMES, step=0.05)
    assert solution.at([[1.0, 1.0]]).shape == (3, 1)
    torch.testing.assert_close(solution.fields["psi"], solution.value / 2, rtol=0, atol=1e-13)  # Taylor and Green
    assert float(solution.at([[1.0, 2.0]])[-1, 0]) == pytest.approx(
        2 * math.cos(1.0) * math.cos(2.0) * math.exp(-2 * 0.01 * 0.1), abs=1e-12
    )


def test_ordinary_systems_have_an_error_and_no_points() -> None:
    system = Equation(["x_t = -y", "y_t = x"], coordinates=())
    solution = evolve(system, initial={"x": 1.0, "y": 0.0}, times=(0.0, 1.0, 2.0), rtol=1e-9)
    error = solution.error({"x": lambda t: torch.cos(t), "y": lambda t: torch.sin(t)})
    assert error["L2"].shape == (3, 2)
    assert float(error["L2"].max()) < 1e-8
    for ask in (lambda: solution.at([[0.0]]), solution.gradient, solution.integral, lambda: solution.flux("x")):
        with pytest.raises(InputError, match="no coordinates"):
            ask()


def test_an_exact_solution_without_t_is_refused(waves: Solution) -> None:
    with pytest.raises(InputError, match="coordinates and t, which comes last"):
        waves.error(lambda x: x)


def test_a_periodic_grid_has_no_boundary(waves: Solution) -> None:
    with pytest.raises(InputError, match="no boundary 'x_lower'"):
        waves.flux("x_lower")


def test_several_unknowns_and_second_order_have_their_channels() -> None:
    wave_equation = Equation("u_tt = u_xx")
    solution = evolve(
        wave_equation,
        ring(),
        initial={"u": torch.sin, "u_t": 0.0},
        times=(0.0, 1.0),
        method=ExponentialRungeKutta.etd4(),
        step=0.1,
    )
    values = solution.at([[0.7]])
    assert values.shape == (2, 2, 1)
    assert float(values[1, 0, 0]) == pytest.approx(math.sin(0.7) * math.cos(1.0), abs=1e-12)
    assert float(values[1, 1, 0]) == pytest.approx(-math.sin(0.7) * math.sin(1.0), abs=1e-12)
    assert solution.gradient().shape == (2, 2, 1, 32)


def test_shock_fluxes_at_the_walls() -> None:
    burgers = Equation("u_t = -div([u**2/2])")
    grid = Grid((40,), (0.0,), (1.0,), boundary={"x": (Dirichlet(1.0), Neumann(0.0))})
    solution = evolve(burgers, grid, initial=0.0, times=(0.0, 0.5, 1.0), scheme=FiniteVolume())
    inward = solution.flux("x_lower")
    assert float(inward[-1].abs()) == pytest.approx(0.5, abs=1e-6)  # u^2/2 of what flows in


@pytest.mark.parametrize("places", [[3], [-4], [7], [1, 100], [0.5], [True], []])
def test_times_that_there_are_not(waves: Solution, places: list[Any]) -> None:
    with pytest.raises(InputError, match="places: "):
        take(waves, places)


def test_some_times_copies_and_trees(waves: Solution) -> None:
    some = take(waves, [-3, 2, 0])
    assert torch.equal(some.value, waves.value[:, [0, 2, 0]])
    some = take(waves, [-1])
    assert some.times is not None
    assert some.times.tolist() == [0.1]
    assert torch.equal(some.value[:, 0], waves.value[:, -1])
    assert list(waves.fields) == ["u"]  # which the solution remembers
    twin = copy.deepcopy(waves)
    assert torch.equal(twin.at([[1.0]]), waves.at([[1.0]]))
    doubled = pytree.tree_map(lambda leaf: 2 * leaf if isinstance(leaf, Tensor) else leaf, waves)
    torch.testing.assert_close(doubled.at([[1.0]]), 2 * waves.at([[1.0]]))
    assert "at 3 times from 0 to 0.1" in repr(waves)
