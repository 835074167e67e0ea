"""Right-hand sides of spectral systems against closed forms, identities and finer grids."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import pi

import pytest
import torch
from torch import Tensor

from sciml.equations import Equation, catalogue
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.scheme import Spectral
from sciml.spectral import SpectralSystem, discretize_spectral

DEALIASINGS = ("2/3", "3/2", "none")
Rings = Callable[..., Grid]
Fields = Callable[..., Tensor]


def largest(difference: Tensor) -> float:
    return float(difference.abs().max())


def navier_stokes(grid: Grid, dealias: str = "2/3", nu: float = 0.1) -> SpectralSystem:
    equation = catalogue.get("navier_stokes", nu=nu).equation
    return discretize_spectral(equation, grid, {"f": 0.0}, {}, Spectral(dealias))


# Against closed forms


@pytest.mark.parametrize("dealias", DEALIASINGS)
@pytest.mark.parametrize("shape", [(24, 20), (21, 15), (24, 15)])
def test_vorticity_equation(ring: Rings, dealias: str, shape: tuple[int, int]) -> None:
    """w = -laplacian(psi) of two waves, on a box that is twice as long as wide."""
    grid = ring(*shape, length=(4 * pi, 2 * pi))
    x, y = grid.coordinates
    a, b = 0.5 * x, y
    psi = torch.sin(a) * torch.cos(b) + 0.3 * torch.cos(2 * a + b)
    psi_x = 0.5 * torch.cos(a) * torch.cos(b) - 0.3 * torch.sin(2 * a + b)
    psi_y = -torch.sin(a) * torch.sin(b) - 0.3 * torch.sin(2 * a + b)
    w = 1.25 * torch.sin(a) * torch.cos(b) + 0.6 * torch.cos(2 * a + b)
    w_x = 0.625 * torch.cos(a) * torch.cos(b) - 0.6 * torch.sin(2 * a + b)
    w_y = -1.25 * torch.sin(a) * torch.sin(b) - 0.6 * torch.sin(2 * a + b)
    laplacian = -1.25 * 1.25 * torch.sin(a) * torch.cos(b) - 2 * 0.6 * torch.cos(2 * a + b)
    system = navier_stokes(grid, dealias)
    assert largest(system.rate(w, 0.0) - (psi_x * w_y - psi_y * w_x + 0.1 * laplacian)) < 1e-13
    assert largest(system.constrained(w, 0.0)["psi"] - psi) < 1e-14
    assert system.linear_part is not None
    assert largest(system.linear_part.apply(w) - 0.1 * laplacian) < 1e-13


def test_quasi_geostrophic_flow(ring: Rings) -> None:
    """Both layers from stream functions, with every linear term of the catalogue's equation."""
    grid = ring(24, 24)
    x, y = grid.coordinates
    values = {"beta": 0.3, "F1": 1.2, "F2": 0.7, "U1": 1.0, "U2": 0.2, "r": 0.1}
    system = discretize_spectral(catalogue.get("quasi_geostrophic", **values).equation, grid, {}, {})
    p1 = torch.sin(x + 2 * y)
    p2 = torch.cos(2 * x - y)
    p1x, p1y, p2x, p2y = torch.cos(x + 2 * y), 2 * torch.cos(x + 2 * y), -2 * torch.sin(2 * x - y), torch.sin(2 * x - y)
    q1, q2 = -5 * p1 + 1.2 * (p2 - p1), -5 * p2 + 0.7 * (p1 - p2)
    q1x, q1y = -6.2 * p1x + 1.2 * p2x, -6.2 * p1y + 1.2 * p2y
    q2x, q2y = -5.7 * p2x + 0.7 * p1x, -5.7 * p2y + 0.7 * p1y
    first = p1y * q1x - p1x * q1y - 1.0 * q1x - (0.3 + 1.2 * 0.8) * p1x
    second = p2y * q2x - p2x * q2y - 0.2 * q2x - (0.3 - 0.7 * 0.8) * p2x - 0.1 * -5 * p2
    rate = system.rate(torch.stack([q1, q2]), 0.0)
    assert largest(rate - torch.stack([first, second])) < 1e-12
    found = system.constrained(torch.stack([q1, q2]), 0.0)
    assert largest(found["psi1"] - p1) < 1e-14 and largest(found["psi2"] - p2) < 1e-14
    assert (len(system.plan.inputs), len(system.plan.products)) == (4, 5)


@pytest.mark.parametrize("dealias", DEALIASINGS)
def test_everything_that_varies_stands_in_the_nonlinear_part(ring: Rings, dealias: str) -> None:
    """Coefficients of space, of space and time, coordinates, t and a constant source, each against its formula."""
    grid = ring(32, 24)
    x, y = grid.coordinates
    equation = Equation(
        "u_t = nu*laplacian(u) + a*u_xx + div(b*grad(u)) + c*u_y + t*u + s + sin(x)", parameters={"nu": 0.2}
    )
    fields = {
        "a": torch.cos(x),
        "b": lambda x, y: 2 + torch.sin(y),
        "c": lambda x, y, t: t * torch.cos(x + y),
        "s": lambda x, y: torch.cos(y),
    }
    system = discretize_spectral(equation, grid, fields, {}, Spectral(dealias))
    u, t = torch.sin(2 * x + y), 0.7
    slope = torch.cos(2 * x + y)
    expected = (0.2 * -5 - 4 * torch.cos(x)) * u + (2 + torch.sin(y)) * -5 * u + torch.cos(y) * slope
    expected = expected + t * torch.cos(x + y) * slope + t * u + torch.cos(y) + torch.sin(x)
    assert largest(system.rate(u, t) - expected) < 1e-12
    assert system.linear_part is not None
    assert largest(system.linear_part.apply(u) + u) < 1e-13
    assert largest(system.nonlinear_part(u, t) - (expected + u)) < 1e-12


def test_rows_with_their_own_times(ring: Rings, smooth: Fields) -> None:
    grid = ring(32)
    equation = Equation("u_t = u_xx + cos(t)*u**2 + f")
    system = discretize_spectral(equation, grid, {"f": lambda x, t: torch.sin(x) * t * t}, {})
    u, times = smooth(grid, 3), torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    together = system.rate(u, times)
    for row in range(3):
        assert largest(together[row] - system.rate(u[row], float(times[row]))) < 1e-13
    with torch.no_grad():
        assert largest(system.slope(system.encode(u), times) - system.encode(together)) < 1e-13


def test_products_that_are_no_polynomials(ring: Rings) -> None:
    """A high power stays one product, and a divergence is differentiated after the transform."""
    grid = ring(32)
    (x,) = grid.coordinates
    system = discretize_spectral(Equation("u_t = u**8 + div(exp(u)*grad(u))"), grid, {}, {}, Spectral("none"))
    u = 0.1 * torch.cos(x)
    expected = u**8 + torch.exp(u) * (0.01 * torch.sin(x) ** 2 - u)
    assert largest(system.rate(u, 0.0) - expected) < 1e-14
    with torch.no_grad():
        assert largest(system.decode(system.slope(system.encode(u), 0.0)) - expected) < 1e-14
    assert abs(float((system.rate(u, 0.0) - u**8).mean())) < 1e-16
    assert sorted(str(product) for product in system.plan.products) == ["u**8", "u_x*exp(u)"]


def test_three_axes(ring: Rings) -> None:
    grid = ring(12, 15, 16, length=(2 * pi, 4 * pi, 2 * pi))
    x, y, z = grid.coordinates
    u = torch.sin(x) * torch.cos(0.5 * y) + torch.cos(z)
    for dealias in DEALIASINGS:
        system = discretize_spectral(
            Equation("u_t = 0.5*laplacian(u) - u*u_z + u_xyy"), grid, {}, {}, Spectral(dealias)
        )
        wave = torch.sin(x) * torch.cos(0.5 * y)
        expected = 0.5 * (-1.25 * wave - torch.cos(z)) + u * torch.sin(z) - 0.25 * torch.cos(x) * torch.cos(0.5 * y)
        assert largest(system.rate(u, 0.0) - expected) < 1e-13


def test_second_order_in_time(ring: Rings) -> None:
    grid = ring(16)
    (x,) = grid.coordinates
    system = discretize_spectral(Equation("u_tt = 4*u_xx - u_t - u**3"), grid, {}, {})
    u, v = torch.sin(x), torch.cos(2 * x)
    expected = torch.stack([v, -4 * u - v - u**3])
    assert system.unknowns == ("u", "u_t")
    assert largest(system.rate(torch.stack([u, v]), 0.0) - expected) < 1e-13


def test_pressure_from_a_nonlinear_constraint(ring: Rings) -> None:
    """The plane Taylor-Green vortex: the pressure of its closed form, and a rate that is viscous alone."""
    grid = ring(16, 16)
    x, y = grid.coordinates
    equation = Equation(
        ["u_t = -div([u*u, u*v]) - p_x + 0.1*laplacian(u)", "v_t = -div([u*v, v*v]) - p_y + 0.1*laplacian(v)"],
        constraints=["laplacian(p) = -(u_x**2 + 2*u_y*v_x + v_y**2)"],
    )
    system = discretize_spectral(equation, grid, {}, {})
    flow = torch.stack([torch.cos(x) * torch.sin(y), -torch.sin(x) * torch.cos(y)])
    assert largest(system.constrained(flow, 0.0)["p"] + 0.25 * (torch.cos(2 * x) + torch.cos(2 * y))) < 1e-14
    assert largest(system.rate(flow, 0.0) + 0.2 * flow) < 1e-14


def test_screened_constraint_with_a_source(ring: Rings) -> None:
    """psi - psi_xx = w + g is regular for all wavenumbers; its source enters products too."""
    grid = ring(32)
    (x,) = grid.coordinates
    equation = Equation("w_t = -psi*w_x", constraints=["psi - psi_xx = w + g"], unknowns=("w",))
    system = discretize_spectral(equation, grid, {"g": lambda x: 3 + torch.cos(2 * x)}, {})
    w = torch.sin(x)
    psi = 0.5 * torch.sin(x) + 3 + 0.2 * torch.cos(2 * x)
    assert largest(system.constrained(w, 0.0)["psi"] - psi) < 1e-14
    assert largest(system.rate(w, 0.0) + psi * torch.cos(x)) < 1e-13
    with torch.no_grad():
        assert largest(system.decode(system.slope(system.encode(w), 0.0)) + psi * torch.cos(x)) < 1e-13


# Conservation and dealiasing


@pytest.mark.parametrize("dealias", ["2/3", "3/2"])
def test_inviscid_flow_keeps_energy_and_enstrophy(ring: Rings, dealias: str) -> None:
    """Of a state with all wavenumbers, since truncated quadratic terms are exact."""
    grid = ring(32, 24, length=(2 * pi, 3.0))
    system = navier_stokes(grid, dealias, nu=0.0)
    w = torch.randn(4, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w = system.decode(system.encode(w - w.mean((-2, -1), keepdim=True)))
    rate, psi = system.rate(w, 0.0), system.constrained(w, 0.0)["psi"]
    size = (rate.square().mean() * w.square().mean()).sqrt()
    assert largest((w * rate).mean((-2, -1))) < 1e-14 * float(size)
    assert largest((psi * rate).mean((-2, -1))) < 1e-14 * float(size)


def test_both_dealiasings_are_the_same_truncation(ring: Rings) -> None:
    """3/2 on 32 x 20 points and 2/3 on 48 x 30 keep the same wavenumbers, and both are exact for quadratic terms."""
    coarse, fine = navier_stokes(ring(32, 20), "3/2"), navier_stokes(ring(48, 30), "2/3")
    assert coarse.state_space == fine.state_space
    w = torch.randn(48, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = fine.encode(w - w.mean())
    assert largest(coarse.slope(y, 0.0) - fine.slope(y, 0.0)) < 1e-12 * largest(fine.slope(y, 0.0))


@pytest.mark.parametrize("n", [32, 33])
def test_products_are_those_of_a_finer_grid(ring: Rings, n: int) -> None:
    equation = catalogue.get("kuramoto_sivashinsky").equation
    coarse = discretize_spectral(equation, ring(n), {}, {})
    fine = discretize_spectral(equation, ring(4 * n), {}, {}, Spectral("none"))
    u = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    y = coarse.encode(u)
    padded = torch.zeros(*fine.state_space, dtype=torch.float64)
    padded[: y.shape[0]] = y
    expected = fine.slope(padded, 0.0)[: y.shape[0]]
    assert largest(coarse.slope(y, 0.0) - expected) < 1e-13 * largest(expected)


@pytest.mark.parametrize("shape", [(16,), (15,), (12, 10), (9, 7)])
@pytest.mark.parametrize("dealias", DEALIASINGS)
def test_states(ring: Rings, shape: tuple[int, ...], dealias: str) -> None:
    """A field is the sum of its waves; without dealiasing nothing is dropped; norms by Parseval's theorem."""
    grid = ring(*shape)
    system = discretize_spectral(Equation("u_t = laplacian(u)"), grid, {}, {}, Spectral(dealias))
    u = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    y = system.encode(u)
    kept = system.decode(y)
    assert largest(system.encode(kept) - y) < 1e-14
    if dealias == "none":
        assert largest(kept - u) < 1e-14
    mean_square = kept.square().flatten(1).mean(1)
    assert largest(system.error_ratio(y, 0 * y, 0 * y, 0.0, 2.0) - mean_square.sqrt() / 2) < 1e-14
    assert largest(system.error_ratio(y, y, 3 * y, 0.5, 0.0) - 1 / 1.5) < 1e-14


def test_odd_derivatives_do_not_see_the_highest_cosine(ring: Rings) -> None:
    grid = ring(8, 8)
    x, y = grid.coordinates
    system = discretize_spectral(Equation("u_t = u_x + u_yy"), grid, {}, {}, Spectral("none"))
    u = torch.cos(4 * x) + torch.cos(4 * y)
    assert largest(system.rate(u, 0.0) + 16 * torch.cos(4 * y)) < 1e-13


# Batches, devices of evaluation, gradients


@pytest.mark.parametrize("name", ["kuramoto_sivashinsky", "quasi_geostrophic", "gray_scott", "cahn_hilliard"])
@pytest.mark.parametrize("dealias", DEALIASINGS)
def test_kernels_equal_torch_and_batches_equal_loops(ring: Rings, name: str, dealias: str) -> None:
    equation = catalogue.get(name).equation
    grid = ring(40) if equation.dimension == 1 and name == "kuramoto_sivashinsky" else ring(18, 15)
    system = discretize_spectral(equation, grid, {}, {}, Spectral(dealias))
    u = torch.randn(2, 11, *system.space, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    axes = tuple(range(-grid.dimension, 0))
    y = system.encode(u - u.mean(axes, keepdim=True))
    for function in (system.slope, system.explicit_force):
        plain = function(y.clone().requires_grad_(), 0.0).detach()
        with torch.no_grad():
            assert largest(function(y, 0.0) - plain) < 1e-14 * largest(plain)
            assert largest(function(y[1, 4], 0.0) - plain[1, 4]) < 1e-14 * largest(plain)
        with torch.inference_mode():
            assert largest(function(y, 0.0) - plain) < 1e-14 * largest(plain)


@pytest.mark.parametrize("name", ["kuramoto_sivashinsky", "navier_stokes"])
def test_threads_share_rows(ring: Rings, name: str) -> None:
    """Bit for bit the same on one thread and on two, which have buffers of their own."""
    equation = catalogue.get(name).equation
    grid = ring(256) if equation.dimension == 1 and name == "kuramoto_sivashinsky" else ring(32, 32)
    system = discretize_spectral(equation, grid, {"f": 1.0} if name == "navier_stokes" else {}, {})
    y = torch.randn(300, *system.state_space, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    y.flatten(1, -2)[:, 0] = 0.0  # the mean of the vorticity
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.no_grad():
                found.append(system.slope(y, 0.0))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])


def test_forcing_alone(ring: Rings) -> None:
    """A right-hand side that needs no fields on the grid but its forcing, and one that is linear alone."""
    grid = ring(16)
    (x,) = grid.coordinates
    u = torch.cos(2 * x)
    forced = discretize_spectral(Equation("u_t = u_xx + f"), grid, {"f": lambda x, t: t * torch.sin(x)}, {})
    linear = discretize_spectral(Equation("u_t = u_xx"), grid, {}, {})
    rounding = 2 * 8**2 * 2.0**-52  # of u_xx at the highest wavenumber
    with torch.no_grad():
        assert largest(forced.decode(forced.slope(forced.encode(u), 2.0)) - (2 * torch.sin(x) - 4 * u)) < rounding
        assert largest(linear.decode(linear.slope(linear.encode(u), 2.0)) + 4 * u) < rounding
        assert largest(linear.explicit_force(linear.encode(u), 2.0)) == 0


def test_parameters_of_rows(ring: Rings, smooth: Fields) -> None:
    equation = catalogue.get("kuramoto_sivashinsky").equation + "c*u**2"
    equation = equation.with_parameters(c=1.0)
    grid = ring(32)
    nu, c = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), torch.tensor([[0.1], [3.0]], dtype=torch.float64)
    system = discretize_spectral(equation, grid, {}, {"nu": nu, "c": c})
    assert system.batch == (2, 3)
    y = system.encode(smooth(grid, 3))
    with torch.no_grad():
        together = system.slope(y, 0.0)
    for i in range(2):
        for j in range(3):
            single = discretize_spectral(equation, grid, {}, {"nu": float(nu[j]), "c": float(c[i, 0])})
            assert largest(together[i, j] - single.slope(y[j], 0.0)) < 1e-13 * largest(together)


def test_constraints_of_rows(ring: Rings, smooth: Fields) -> None:
    """A coupling of the layers for each row, with a pseudo-inverse for each row's mean."""
    grid = ring(12, 12)
    equation = catalogue.get("quasi_geostrophic").equation
    coupling = torch.tensor([0.5, 2.0], dtype=torch.float64)
    system = discretize_spectral(equation, grid, {}, {"F1": coupling})
    q = smooth(grid, 2, 2)
    with torch.no_grad():
        together = system.slope(system.encode(q), 0.0)
    for row in range(2):
        single = discretize_spectral(equation, grid, {}, {"F1": float(coupling[row])})
        assert largest(together[row] - single.slope(single.encode(q[row]), 0.0)) < 1e-14
        assert largest(system.constrained(q, 0.0)["psi2"][row] - single.constrained(q[row], 0.0)["psi2"]) < 1e-14


def test_a_copy_works_alone(ring: Rings, smooth: Fields) -> None:
    system = navier_stokes(ring(16, 16))
    y = system.encode(smooth(system.domain))
    with torch.no_grad():
        before = system.slope(y, 0.0)
        assert torch.equal(copy.deepcopy(system).slope(y, 0.0), before)


def test_float32(ring: Rings, smooth: Fields) -> None:
    u = smooth(ring(24, 24))
    double, single = navier_stokes(ring(24, 24)), navier_stokes(ring(24, 24, dtype=torch.float32))
    expected = double.rate(u, 0.0)
    assert largest(single.rate(u.float(), 0.0).double() - expected) < 2e-6 * largest(expected)
    with torch.no_grad():
        slope = single.slope(single.encode(u.float()), 0.0)
    assert slope.dtype == torch.float32
    assert largest(single.decode(slope).double() - expected) < 2e-6 * largest(expected)


def test_gradients(ring: Rings, smooth: Fields) -> None:
    """With respect to the state, a parameter of the linear part and of the constraint, and a coefficient field."""
    grid = ring(10, 9)
    equation = Equation(
        "w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w) + a*w**2",
        constraints=["laplacian(psi) - k*psi = -w"],
        parameters={"nu": 0.1, "k": 1.0},
    )

    def rate(w: Tensor, nu: Tensor, k: Tensor, a: Tensor) -> Tensor:
        return discretize_spectral(equation, grid, {"a": a}, {"nu": nu, "k": k}).rate(w, 0.0)

    values = (smooth(grid), torch.tensor(0.3), torch.tensor(1.7), smooth(grid, seed=3))
    point = tuple(v.double().requires_grad_() for v in values)
    assert torch.autograd.gradcheck(rate, point, eps=1e-6, atol=1e-7, fast_mode=True)
    tangents = tuple(torch.randn_like(v) for v in point)
    along = torch.func.jvp(rate, tuple(v.detach() for v in point), tangents)[1]
    h = 1e-6
    ahead = rate(*(v.detach() + h * d for v, d in zip(point, tangents, strict=True)))
    behind = rate(*(v.detach() - h * d for v, d in zip(point, tangents, strict=True)))
    assert largest(along - (ahead - behind) / (2 * h)) < 1e-6 * largest(along)


# Operators


@pytest.mark.parametrize("name", ["kuramoto_sivashinsky", "wave", "quasi_geostrophic"])
def test_linear_operators(ring: Rings, name: str) -> None:
    """The linear part, its shift on states, which solves itself, and transposes."""
    equation = catalogue.get(name).equation
    grid = ring(12, 10) if name == "quasi_geostrophic" else ring(20)
    system = discretize_spectral(equation, grid, {}, {})
    generator = torch.Generator().manual_seed(6)
    u, v = (torch.randn(3, *system.space, dtype=torch.float64, generator=generator) for _ in range(2))
    u = u - u.mean(tuple(range(-grid.dimension, 0)), keepdim=True)
    linear = system.linear_part
    assert linear is not None
    assert largest(linear.apply(u) + system.nonlinear_part(u, 0.0) - system.rate(u, 0.0)) < 1e-10
    left, right = (linear.apply(u) * v).sum(), (u * linear.transpose().apply(v)).sum()
    assert abs(float(left - right)) < 1e-10 * float(linear.apply(u).norm() * v.norm())
    y = torch.randn(3, *system.state_space, dtype=torch.float64, generator=generator)
    shifted = system.shifted_linear(0.3)
    assert largest(shifted.solve(shifted.apply(y)) - y) < 1e-11
    assert largest(shifted.apply(y) - (y - 0.3 * (system.multiplied(system.symbol, y)))) < 1e-10


def test_jacobian(ring: Rings, smooth: Fields) -> None:
    """Against differences of the slope; the adjoint identity; its preconditioner at a state of rest."""
    system = navier_stokes(ring(14, 12))
    y = system.encode(smooth(system.domain))
    generator = torch.Generator().manual_seed(7)
    v, w = (torch.randn(y.shape, dtype=torch.float64, generator=generator) for _ in range(2))
    jacobian = system.shifted(y, 0.0, 0.05)
    ahead, behind = system.slope(y + 1e-6 * v, 0.0), system.slope(y - 1e-6 * v, 0.0)
    assert largest(jacobian.apply(v) - (v - 0.05 * (ahead - behind) / 2e-6)) < 1e-8
    assert abs(float((jacobian.apply(v) * w).sum() - (v * jacobian.transpose().apply(w)).sum())) < 1e-10
    rest = system.shifted(0 * y, 0.0, 0.05)
    assert largest(rest.preconditioner.apply(rest.apply(v)) - v) < 1e-12


# Refusals


def test_refused_grids(ring: Rings) -> None:
    equation = Equation("u_t = laplacian(u)")
    with pytest.raises(InputError, match=r"periodic in all axes, and x, y has walls.*FiniteDifference"):
        discretize_spectral(equation, Grid((8, 8)), {}, {})
    solid = torch.zeros(8, 8, dtype=torch.bool)
    solid[3, 3] = True
    periodic = ring(8, 8)
    with pytest.raises(InputError, match="no solid cells"):
        discretize_spectral(equation, Grid((8, 8), boundary=periodic.boundary, solid=solid), {}, {})
    with pytest.raises(InputError, match="does not evolve"):
        discretize_spectral(Equation("-laplacian(u) = f"), periodic, {"f": 1.0}, {})
    with pytest.raises(InputError, match="2 to 3 axes, the grid has 1"):
        discretize_spectral(Equation("u_t = u_xy"), ring(8), {}, {})


def test_refused_constraints(ring: Rings) -> None:
    grid = ring(16, 16)
    with pytest.raises(InputError, match=r"singular at the wavenumbers \(x, y\) = .*\(0, 1\)"):
        discretize_spectral(
            Equation("w_t = psi_x*w_y", constraints=["laplacian(psi) + psi = -w"], unknowns=("w",)), grid, {}, {}
        )
    with pytest.raises(InputError, match=r"psi to stand in it linearly with constant coefficients"):
        discretize_spectral(
            Equation("w_t = psi_x*w_y", constraints=["div(a*grad(psi)) = -w"], unknowns=("w",)), grid, {"a": 1.0}, {}
        )
    with pytest.raises(InputError, match="a Fourier discretization handles one of both"):
        discretize_spectral(
            Equation("w_t = psi_x*w_y", constraints=["laplacian(psi) = -w**2"], unknowns=("w",)), grid, {}, {}
        )


def test_a_right_side_whose_mean_is_not_zero(ring: Rings, smooth: Fields) -> None:
    system = navier_stokes(ring(16, 16))
    w = smooth(system.domain, 2)
    assert torch.equal(system.hold(w, 0.0), w)
    uneven = w + torch.tensor([0.0, 0.5], dtype=torch.float64).reshape(2, 1, 1)
    with pytest.raises(InputError, match=r"constraint on psi: .*mean of the right side must be zero, and it is"):
        system.hold(uneven, 0.0)
    for found in (system.rate(uneven, 0.0), system.constrained(uneven, 0.0)["psi"]):
        assert bool(torch.isfinite(found[0]).all()) and bool(torch.isnan(found[1]).all())
    layers = discretize_spectral(catalogue.get("quasi_geostrophic").equation, ring(8, 8), {}, {})
    q = torch.ones(2, 8, 8, dtype=torch.float64)
    q[1] = -1.0
    assert torch.equal(layers.hold(q, 0.0), q)
    with pytest.raises(InputError, match="constraint on psi1, psi2"):
        layers.hold(q.abs(), 0.0)


def test_refused_fields(ring: Rings) -> None:
    grid = ring(8)
    with pytest.raises(InputError, match="coefficient f, and no value"):
        discretize_spectral(Equation("u_t = u_xx + f"), grid, {}, {})
    with pytest.raises(InputError, match="no 'g'"):
        discretize_spectral(Equation("u_t = u_xx + f"), grid, {"f": 1.0, "g": 2.0}, {})
    with pytest.raises(InputError, match="dealias is one of 2/3, 3/2, none"):
        Spectral("1/2")
    with pytest.raises(InputError, match="expected"):
        discretize_spectral(Equation("u_t = u_xx"), grid, {}, {}).encode(torch.zeros(9))
