"""Evolving equations on meshes: orders against known solutions, conservation, energy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import atan, cos, exp, log2, pi, sin
from typing import Any

import pytest
import torch
from scipy.special import j0, jn_zeros
from torch import Tensor

from sciml import Dirichlet, Equation, FiniteElement, InputError, Mesh, Neumann, Robin, discretize
from sciml.elements import MeshEvolution
from sciml.solvers.linear import Direct

Exact = Callable[..., Tensor]
LUMPED = [False, True]


def at(function: Exact, mesh: Mesh, t: float) -> Tensor:
    return function(*mesh.coordinates, torch.tensor(t, dtype=mesh.dtype))


def norm(error: Tensor, mesh: Mesh) -> float:
    """The root of the integral of the square, by the vertices of the cells."""
    return float(((error[..., mesh.cells] ** 2).mean(-1) * mesh.volumes).sum().sqrt())


def march(system: MeshEvolution, u: Tensor, end: float, steps: int, *, linear: bool = True) -> Tensor:
    """Alexander's SDIRK method of order 2, by `apply_mass`, `force` and `shifted` alone."""
    gamma, h = 1.0 - 0.5**0.5, end / steps
    a = gamma * h
    solver = Direct().prepare(system.shifted(u, 0.0, a))
    for step in range(steps):
        start = u
        for place, c in ((start, gamma), (None, 1.0)):
            r = start + (1.0 - gamma) / gamma * (u - start) if place is None else start
            t = (step + c) * h
            for _ in range(1 if linear else 3):
                if not linear:
                    solver = Direct().prepare(system.shifted(u, t, a))
                left = system.apply_mass(r - u) + a * system.force(u, t)
                u = u + solver.solve(left).value
    return u


def orders(errors: list[float]) -> list[float]:
    return [log2(a / b) for a, b in pairwise(errors)]


def decaying(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return torch.exp(-t) * torch.sin(2 * x + t) * torch.cos(y)


def decaying_x(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return 2 * torch.exp(-t) * torch.cos(2 * x + t) * torch.cos(y)


def decaying_y(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return -torch.exp(-t) * torch.sin(2 * x + t) * torch.sin(y)


def decaying_source(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return 4 * decaying(x, y, t) + decaying_x(x, y, t) / 2


def film(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return 1.0 + x * t


MIXED = {
    "x_lower": Dirichlet(decaying),
    "x_upper": Neumann(decaying_x),
    "y_lower": Neumann(0.0),
    "y_upper": Robin(film, lambda x, y, t: decaying_y(x, y, t) + film(x, y, t) * decaying(x, y, t)),
}


@pytest.mark.parametrize("lumped", LUMPED)
def test_heat_with_values_fluxes_and_sources_that_change(lumped: bool, unstructured: Callable[..., Mesh]) -> None:
    errors = []
    for n in (8, 16):
        mesh = unstructured(n, 2)
        system = discretize(
            Equation("u_t = laplacian(u) + f"), mesh, {"f": decaying_source}, {}, MIXED, FiniteElement(lumped=lumped)
        )
        u = march(system, at(decaying, mesh, 0.0), 0.5, 24)
        held = system.rows[0].held
        torch.testing.assert_close(u[held], at(decaying, mesh, 0.5)[held], rtol=1e-13, atol=1e-14)
        errors.append(norm(u - at(decaying, mesh, 0.5), mesh))
    assert min(orders(errors)) > 1.85
    assert errors[-1] < 2e-3


@pytest.mark.parametrize("lumped", LUMPED)
def test_rate_of_an_eigenfunction(lumped: bool, unstructured: Callable[..., Mesh]) -> None:
    """As a functional on smooth functions the rate is of order 2; on meshes of unlike cells no more is true."""
    errors = []
    for n in (8, 16, 32):
        mesh = unstructured(n, 2)
        x, y = mesh.coordinates
        u, v = torch.sin(pi * x) * torch.sin(2 * pi * y), x * (1 - x) * y * (1 - y) * torch.exp(x - y)
        system = discretize(
            Equation("u_t = laplacian(u)"), mesh, boundary=Dirichlet(0.0), scheme=FiniteElement(lumped=lumped)
        )
        wrong = system.rate(u, 0.0) + 5 * pi**2 * u
        errors.append(abs(float((v * system.apply_mass(wrong)).sum())))
    assert orders(errors)[-1] > 1.85


def test_explicit_steps_of_a_lumped_eigenfunction() -> None:
    errors = []
    for n in (4, 8):
        mesh = Mesh.box((n, n), (0.0, 0.0), (1.0, 1.0))
        x, y = mesh.coordinates
        system = discretize(
            Equation("u_t = laplacian(u)"), mesh, boundary=Dirichlet(0.0), scheme=FiniteElement(lumped=True)
        )
        start = u = torch.sin(pi * x) * torch.sin(pi * y)
        steps = 2 * n * n
        for step in range(steps):
            h = 0.05 / steps
            k1 = system.slope(u, step * h)
            k2 = system.slope(u + h / 2 * k1, (step + 0.5) * h)
            k3 = system.slope(u + h / 2 * k2, (step + 0.5) * h)
            u = u + h / 6 * (k1 + 2 * k2 + 2 * k3 + system.slope(u + h * k3, (step + 1) * h))
        errors.append(norm(u - torch.exp(torch.tensor(-0.1 * pi**2)) * start, mesh))
    assert min(orders(errors)) > 1.9


def disc(n: int) -> Mesh:
    """Circles of points around the centre."""
    circles = [torch.zeros(1, 2, dtype=torch.float64)]
    for ring in range(1, n + 1):
        angle = 2 * pi * (torch.arange(6 * ring, dtype=torch.float64) + ring / 2) / (6 * ring)
        circles.append(ring / n * torch.stack([angle.cos(), angle.sin()], -1))
    return Mesh.delaunay(torch.cat(circles))


def test_heat_on_a_disc() -> None:
    zero = float(jn_zeros(0, 1)[0])
    errors = []
    for n in (6, 12):
        mesh = disc(n)
        start = torch.from_numpy(j0(zero * mesh.points.norm(dim=1).numpy()))
        system = discretize(Equation("u_t = laplacian(u)"), mesh, boundary=Dirichlet(0.0))
        exact = torch.exp(torch.tensor(-(zero**2) * 0.2, dtype=torch.float64)) * start
        errors.append(norm(march(system, start, 0.2, 24) - exact, mesh))
    assert min(orders(errors)) > 1.85


def test_heat_in_space(unstructured: Callable[..., Mesh]) -> None:
    def exact(x: Tensor, y: Tensor, z: Tensor, t: Tensor) -> Tensor:
        return torch.exp(-3 * t) * torch.sin(x) * torch.cos(y) * torch.sin(z + 0.3) + x

    boundary = {
        "x_lower": Dirichlet(exact),
        "z_upper": Neumann(lambda x, y, z, t: torch.exp(-3 * t) * torch.sin(x) * torch.cos(y) * torch.cos(z + 0.3)),
        "rest": Dirichlet(exact),
    }
    errors = []
    for n in (3, 6):
        mesh = unstructured(n, 3)
        system = discretize(Equation("u_t = laplacian(u)"), mesh, boundary=boundary)
        u = march(system, at(exact, mesh, 0.0), 0.3, 12)
        errors.append(norm(u - at(exact, mesh, 0.3), mesh))
    assert min(orders(errors)) > 1.7


def test_moving_hill_in_a_wind() -> None:
    """u_t + b . grad u = nu lap u, from a Gaussian."""
    nu, b = 0.02, (1.0, 0.5)

    def exact(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        width = 0.05 + 4 * nu * t
        return 0.05 / width * torch.exp(-((x - 0.3 - b[0] * t) ** 2 + (y - 0.4 - b[1] * t) ** 2) / width)

    errors = []
    for n in (12, 24):
        mesh = Mesh.box((n, n), (0.0, 0.0), (1.0, 1.0))
        equation = Equation("u_t = nu*laplacian(u) - div([p*u, q*u])", parameters={"nu": nu, "p": b[0], "q": b[1]})
        system = discretize(equation, mesh, boundary=Dirichlet(exact))
        errors.append(norm(march(system, at(exact, mesh, 0.0), 0.3, 32) - at(exact, mesh, 0.3), mesh))
    assert min(orders(errors)) > 1.8


@pytest.mark.parametrize("lumped", LUMPED)
def test_fisher_wave(lumped: bool) -> None:
    """u = (1 + exp((x - 5t/sqrt 6)/sqrt 6))^-2 (Ablowitz and Zeppetella, Bull. Math. Biol. 41 (1979) 835-840)."""
    root = 6**0.5

    def exact(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return (1 + torch.exp((x - 5 * t / root) / root)) ** -2

    boundary = {"x_lower": Dirichlet(exact), "x_upper": Dirichlet(exact), "rest": Neumann(0.0)}
    errors = []
    for n in (4, 8):
        mesh = Mesh.box((3 * n, n // 2), (-4.0, 0.0), (8.0, 2.0))
        scheme = FiniteElement(lumped=lumped)
        system = discretize(Equation("u_t = laplacian(u) + u*(1 - u)"), mesh, boundary=boundary, scheme=scheme)
        u = march(system, at(exact, mesh, 0.0), 1.0, 10, linear=False)
        errors.append(norm(u - at(exact, mesh, 1.0), mesh))
    assert min(orders(errors)) > 1.8


@pytest.mark.parametrize("lumped", LUMPED)
@pytest.mark.parametrize(
    "text",
    ["u_t = div((1 + u**2)*grad(u))", "u_t = div(a*(2 + cos(t))*grad(u))", "c*u_t = div(a*grad(u)) - div([0*x, 0*u])"],
)
def test_what_no_flux_leaves_is_kept(text: str, lumped: bool, unstructured: Callable[..., Mesh]) -> None:
    mesh = unstructured(5, 2)
    generator = torch.Generator().manual_seed(1)
    c, a = torch.rand(2, len(mesh.cells), generator=generator, dtype=torch.float64) + 0.5
    equation = Equation(text, unknowns=["u"])
    fields = {name: {"a": a, "c": c}[name] for name in equation.coefficients}
    system = discretize(equation, mesh, fields, boundary=Neumann(0.0), scheme=FiniteElement(lumped=lumped))
    u = torch.rand(3, len(mesh.points), generator=generator, dtype=torch.float64)
    rate = system.rate(u, 0.4)
    weight = c if "c" in fields else torch.ones_like(c)
    change = ((rate[..., mesh.cells].mean(-1)) * weight * mesh.volumes).sum(-1)
    size = (rate[..., mesh.cells].mean(-1).abs() * weight * mesh.volumes).sum(-1)
    assert float((change / size).abs().max()) < 1e-14


def test_a_factor_before_the_rate_that_jumps() -> None:
    """Two slabs with c = 1 and c = 4: sin(a x) meets B cos(2 a (1 - x)) with its derivative."""
    a = 2 * atan(5**-0.5)
    errors = []
    for n in (4, 8):
        mesh = Mesh.box((n, 2), (0.0, 0.0), (1.0, 0.25)).with_regions({"left": lambda x, y: x < 0.5})
        x, _ = mesh.coordinates
        start = torch.where(x < 0.5, torch.sin(a * x), sin(a / 2) / cos(a) * torch.cos(2 * a * (1 - x)))
        system = discretize(
            Equation("c*u_t = laplacian(u)"),
            mesh,
            {"c": {"left": 1.0, "rest": 4.0}},
            boundary={"x_lower": Dirichlet(0.0), "rest": Neumann(0.0)},
        )
        assert system.shifted(x, 0.0, 0.1).symmetric
        errors.append(norm(march(system, start, 2.0, 60) - exp(-2 * a * a) * start, mesh))
    assert min(orders(errors)) > 1.85


def test_waves_keep_their_energy(unstructured: Callable[..., Mesh]) -> None:
    mesh = unstructured(6, 2)
    system = discretize(
        Equation("u_tt = c*laplacian(u) - u**3", parameters={"c": 2.0}),
        mesh,
        boundary={"x_lower": Dirichlet(0.0), "rest": Neumann(0.0)},
    )
    assert system.unknowns == ("u", "u_t")
    free = ~system.rows[0].held
    generator = torch.Generator().manual_seed(1)
    y = torch.rand(2, len(mesh.points), generator=generator, dtype=torch.float64) * free
    rate = system.rate(y, 0.0)
    # dE = (u_t, M u_tt) - (G, u_t), G being the force on u_t at u.
    power = (rate[1] * system.apply_mass(y)[1]).sum() - (system.force(y, 0.0)[1] * y[1])[free].sum()
    assert abs(float(power)) < 1e-13 * float((rate[1] * system.apply_mass(y)[1]).abs().sum())
    # The force is minus the gradient of a potential: its derivative is symmetric.
    block = system.shifted(y, 0.0, 1.0).blocks[1][0]
    torch.testing.assert_close(block.to_sparse().to_dense(), block.to_sparse().to_dense().mT, rtol=0, atol=1e-14)


def test_standing_wave() -> None:
    errors = []
    for n in (8, 16):
        mesh = Mesh.box((n, n), (0.0, 0.0), (1.0, 1.0))
        x, y = mesh.coordinates
        shape = torch.sin(pi * x) * torch.cos(pi * y)
        system = discretize(
            Equation("u_tt = laplacian(u)"),
            mesh,
            boundary={"u": {"x_lower": Dirichlet(0.0), "x_upper": Dirichlet(0.0), "rest": Neumann(0.0)}},
        )
        u = march(system, torch.stack([shape, 0.0 * shape]), 0.3, 40)
        omega = torch.tensor(2**0.5 * pi * 0.3, dtype=torch.float64)
        errors.append(norm(u[0] - shape * torch.cos(omega), mesh))
    assert min(orders(errors)) > 1.85


def test_the_rate_of_an_unknown_inherits_its_conditions(unstructured: Callable[..., Mesh]) -> None:
    """u_tt = lap u + nu lap u_t + f with values and fluxes that change: what conditions on u say of u_t."""

    def exact(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return torch.sin(x + t) * torch.cos(y)

    def speed(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return torch.cos(x + t) * torch.cos(y)

    boundary = {
        "x_lower": Dirichlet(exact),
        "x_upper": Neumann(speed),
        "y_upper": Robin(2.0, lambda x, y, t: 2 * exact(x, y, t) - torch.sin(x + t) * torch.sin(y)),
        "rest": Neumann(0.0),
    }
    errors = []
    for n in (6, 12):
        mesh = unstructured(n, 2)
        equation = Equation("u_tt = laplacian(u) + nu*laplacian(u_t) + f", parameters={"nu": 0.5})

        def source(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
            return exact(x, y, t) + speed(x, y, t)

        system = discretize(equation, mesh, {"f": source}, boundary=boundary)
        y = march(system, torch.stack([at(exact, mesh, 0.0), at(speed, mesh, 0.0)]), 0.4, 24)
        held = system.rows[1].held
        torch.testing.assert_close(y[1][held], at(speed, mesh, 0.4)[held], rtol=1e-12, atol=1e-13)
        rate = system.rate(y, 0.4)[:, held]
        expected = torch.stack([at(speed, mesh, 0.4), -at(exact, mesh, 0.4)])[:, held]
        torch.testing.assert_close(rate, expected, rtol=1e-13, atol=1e-14)
        errors.append(norm(y[0] - at(exact, mesh, 0.4), mesh) + norm(y[1] - at(speed, mesh, 0.4), mesh))
    assert min(orders(errors)) > 1.8


def test_factors_of_the_time_before_a_laplacian() -> None:
    mesh = Mesh.box((5, 4), (0.0, 0.0), (1.0, 1.0))
    boundary = {"x_lower": Dirichlet(1.0), "x_upper": Neumann(0.3), "rest": Robin(2.0, 0.5)}
    u = torch.rand(2, len(mesh.points), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for text in ("u_t = (1 + t**2)*(laplacian(u) + u_xy)", "u_t = (1 + t**2)*div([u_x + u_y/2, u_y + u_x/2])"):
        moving = discretize(Equation(text), mesh, boundary=boundary)
        still = discretize(Equation("u_t = 5*(laplacian(u) + u_xy)"), mesh, boundary=boundary)
        torch.testing.assert_close(moving.rate(u, 2.0), still.rate(u, 0.0), rtol=1e-12, atol=1e-11)
        a, b = moving.shifted(u[0], 2.0, 0.1), still.shifted(u[0], 0.0, 0.1)
        assert a.symmetric and b.symmetric
        free = ~still.rows[0].held
        x = u[1] * free
        torch.testing.assert_close(a.apply(x), b.apply(x), rtol=1e-12, atol=1e-13)


def on_walls(**values: Any) -> Mapping[str, Any]:
    return {name: Dirichlet(value) for name, value in values.items()}


def stream(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return torch.exp(-t) * torch.sin(pi * x) * torch.sin(pi * y) + t * x


def vorticity(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return 2 * pi**2 * torch.exp(-t) * torch.sin(pi * x) * torch.sin(pi * y)


def test_constraint_of_a_stream_function(unstructured: Callable[..., Mesh]) -> None:
    values, rates = [], []
    for n in (6, 12, 24):
        mesh = unstructured(n, 2)
        equation = Equation("w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w)", constraints=["laplacian(psi) = -w"])
        system = discretize(equation, mesh, {"nu": 0.1}, boundary=on_walls(w=0.0, psi=stream))
        w = at(vorticity, mesh, 0.3)
        found = system.constrained(w, 0.3)["psi"]
        values.append(norm(found - at(stream, mesh, 0.3), mesh))
        x, y = mesh.coordinates
        # psi_x w_y - psi_y w_x = t w_y, the rest being functions of one another.
        expected = 0.3 * 2 * pi**3 * torch.exp(torch.tensor(-0.3)) * torch.sin(pi * x) * torch.cos(pi * y)
        expected = expected - 0.2 * pi**2 * w
        test = x * (1 - x) * y * (1 - y) * torch.exp(x)
        rates.append(abs(float((test * system.apply_mass(system.rate(w, 0.3) - expected)).sum())))
    assert min(orders(values)) > 1.85
    assert min(orders(rates)) > 1.7


def test_constraint_that_nothing_holds_takes_the_mean_0(unstructured: Callable[..., Mesh]) -> None:
    mesh = unstructured(8, 2)
    x, y = mesh.coordinates
    system = discretize(
        Equation("w_t = psi_x*w_y - psi_y*w_x", constraints=["laplacian(psi) = -w"]), mesh, boundary=Neumann(0.0)
    )
    w = torch.cos(pi * x) * torch.cos(2 * pi * y)
    mass = system.apply_mass(torch.ones_like(w))
    w = w - (mass * w).sum() / mass.sum()
    psi = system.constrained(w, 0.0)["psi"]
    assert abs(float((mass * psi).sum())) < 1e-14
    assert norm(psi - w / (5 * pi**2), mesh) < 2e-3
    with pytest.raises(InputError, match="mean of the right side must be zero"):
        system.hold(w + 0.1, 0.0)
    rates = system.rate(torch.stack([w, w + 0.1]), 0.0)
    assert bool(rates[0].isfinite().all()) and bool(rates[1].isnan().all())


def test_flow_along_walls_keeps_the_integral_of_what_it_carries(unstructured: Callable[..., Mesh]) -> None:
    mesh = unstructured(6, 2)
    equation = Equation("w_t = psi_x*w_y - psi_y*w_x", constraints=["laplacian(psi) = -w"])
    system = discretize(equation, mesh, boundary={"w": Neumann(0.0), "psi": Dirichlet(2.0)})
    w = torch.rand(len(mesh.points), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rate = system.apply_mass(system.rate(w, 0.0))
    assert abs(float(rate.sum())) < 1e-14 * float(rate.abs().sum())
