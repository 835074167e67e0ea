"""Named equations: exact solutions leave no residual, and what has none is compared with its formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml.equations import catalogue
from sciml.equations.catalogue import CatalogueEntry
from sciml.errors import InputError

Check = Callable[..., None]


def constant(value: float) -> Callable[[Tensor], Tensor]:
    return lambda t: value + 0 * t


@pytest.fixture
def solves(values_of: Any) -> Check:
    """solves(entry, dimension, fields): the fields, functions of the coordinates, leave no residual."""

    def check(entry: CatalogueEntry, dimension: int, **fields: Callable[..., Any]) -> None:
        equation = entry.equation
        values = values_of(fields, equation.required(dimension), "xyz"[:dimension] + "t")
        residual = equation.residual(values, dimension)
        for row in residual if isinstance(residual, tuple) else (residual,):
            largest = max(float(value.detach().abs().max()) for value in values.values())
            assert float(row.detach().abs().max()) <= 1e-10 * largest

    return check


def test_poisson(solves: Check) -> None:
    solves(
        catalogue.poisson(),
        2,
        u=lambda x, y: torch.sin(math.pi * x) * torch.sin(2 * math.pi * y),
        f=lambda x, y: 5 * math.pi**2 * torch.sin(math.pi * x) * torch.sin(2 * math.pi * y),
    )
    solves(catalogue.poisson(), 3, u=lambda x, y, z: x**2 + y**2 + z**2, f=lambda x: -6 + 0 * x)


def test_diffusion(solves: Check) -> None:
    solves(
        catalogue.diffusion(),
        2,
        u=lambda x, y: x**2 * y,
        a=lambda x, y: 1 + x + y**2,
        f=lambda x, y: -(2 * x * y + 2 * y * (1 + x + y**2) + 2 * y * x**2),
    )


@pytest.mark.parametrize("dimension", [2, 3])
def test_anisotropic_diffusion(solves: Check, dimension: int) -> None:
    """-div(A grad(x**2 + x*y + 3*y**2)) with constant A is -(2*a11 + 2*a12 + 6*a22)."""
    tensor = {"a11": 3.0, "a12": 0.5, "a22": 2.0, "a13": 0.25, "a23": 0.125, "a33": 5.0}
    entry = catalogue.anisotropic_diffusion(dimension=dimension)
    fields = {name: constant(tensor[name]) for name in entry.equation.coefficients if name != "f"}
    solves(entry, dimension, u=lambda x, y: x**2 + x * y + 3 * y**2, f=lambda x: -19.0 + 0 * x, **fields)


def test_anisotropic_diffusion_with_varying_tensor(solves: Check) -> None:
    solves(
        catalogue.anisotropic_diffusion(),
        2,
        u=lambda x, y: x * y,
        a11=lambda x: x**2,
        a12=lambda x, y: x + y,
        a22=lambda y: 1 + y**2,
        f=lambda x, y: -(4 * x * y + 3 * x + 3 * y),
    )


def test_helmholtz(solves: Check) -> None:
    solves(
        catalogue.helmholtz(k=7.0),
        2,
        u=lambda x, y: torch.cos(7 * (0.6 * x + 0.8 * y)),
        f=lambda x: 0 * x,
    )


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_advection_diffusion(solves: Check, dimension: int) -> None:
    """The profile of an outflow boundary layer."""
    velocity = {"b1": 0.5, "b2": -0.25, "b3": 1.0}
    nu = 0.5
    entry = catalogue.advection_diffusion(nu=nu, dimension=dimension)
    fields = {name: constant(velocity[name]) for name in entry.equation.coefficients if name != "f"}
    solves(entry, dimension, u=lambda x: torch.exp(0.5 * x / nu), f=lambda x: 0 * x, **fields)


def test_heat(solves: Check) -> None:
    solves(
        catalogue.heat(alpha=0.3),
        2,
        u=lambda x, y, t: torch.sin(2 * x) * torch.cos(3 * y) * torch.exp(-0.3 * 13 * t),
    )


def test_wave(solves: Check) -> None:
    solves(catalogue.wave(c=2.0), 2, u=lambda x, y, t: torch.sin(3 * x + 4 * y - 10 * t))


def test_klein_gordon(solves: Check) -> None:
    frequency = math.sqrt(4 * 25 + 9)
    solves(catalogue.klein_gordon(c=2.0, m=3.0), 2, u=lambda x, y, t: torch.cos(3 * x - 4 * y - frequency * t))


@pytest.mark.parametrize(("m", "dimension"), [(2.0, 1), (3.0, 1), (2.0, 2), (2.5, 3)])
def test_porous_medium(solves: Check, m: float, dimension: int) -> None:
    """Barenblatt's source solution, inside its front."""
    alpha = dimension / (dimension * (m - 1) + 2)
    k = alpha / dimension * (m - 1) / (2 * m)

    def barenblatt(x: Tensor, y: Tensor, z: Tensor, t: Tensor) -> Tensor:
        radius = x**2 + (y**2 if dimension > 1 else 0) + (z**2 if dimension > 2 else 0)
        return t**-alpha * (2 - k * radius * t ** (-2 * alpha / dimension)) ** (1 / (m - 1))

    source = {
        1: lambda x, t: barenblatt(x, x, x, t),
        2: lambda x, y, t: barenblatt(x, y, y, t),
        3: barenblatt,
    }[dimension]
    solves(catalogue.porous_medium(m=m), dimension, u=source)


def test_porous_medium_is_finite_where_there_is_no_gas() -> None:
    equation = catalogue.porous_medium(m=2.0).equation
    values = {name: torch.zeros(3, dtype=torch.float64) for name in equation.required(1)}
    assert torch.equal(equation.residual(values, 1), torch.zeros(3, dtype=torch.float64))


def test_burgers(solves: Check) -> None:
    """A shock layer that travels."""
    nu, a, c = 0.1, 0.4, 0.7
    solves(catalogue.burgers(nu=nu), 1, u=lambda x, t: c - a * torch.tanh(a * (x - c * t) / (2 * nu)))


def test_allen_cahn(solves: Check) -> None:
    """The standing wall, at an angle, and the decay of a mixture without walls."""
    width = 0.3
    solves(
        catalogue.allen_cahn(epsilon=width),
        2,
        u=lambda x, y: torch.tanh((0.6 * x + 0.8 * y - 0.5) / (math.sqrt(2) * width)),
    )
    solves(catalogue.allen_cahn(), 1, u=lambda t: (1 + 3 * torch.exp(-2 * t)) ** -0.5)


def test_cahn_hilliard(solves: Check) -> None:
    """The standing wall; and for small waves the growth rate k**2 - epsilon**2*k**4."""
    width = 0.3
    solves(
        catalogue.cahn_hilliard(epsilon=width),
        2,
        u=lambda x, y: torch.tanh((0.6 * x + 0.8 * y - 0.5) / (math.sqrt(2) * width)),
    )
    rate = 5 - width**2 * 25
    solves(
        catalogue.cahn_hilliard(epsilon=width),
        2,
        u=lambda x, y, t: 1e-8 * torch.sin(x + 2 * y) * torch.exp(rate * t),
    )


@pytest.mark.parametrize(("alpha", "beta"), [(6.0, 1.0), (1.0, 0.022**2)])
def test_kdv(solves: Check, alpha: float, beta: float) -> None:
    """The soliton."""
    speed = 0.8 * beta**0.5

    def soliton(x: Tensor, t: Tensor) -> Tensor:
        return 3 * speed / alpha / torch.cosh(math.sqrt(speed / (4 * beta)) * (x - 0.3 - speed * (t - 1))) ** 2

    solves(catalogue.kdv(alpha=alpha, beta=beta), 1, u=soliton)


def test_kuramoto_sivashinsky(solves: Check) -> None:
    """A travelling front (N. A. Kudryashov, J. Appl. Math. Mech. 52 (1988) 361-365)."""
    k, speed = 0.5 * math.sqrt(11 / 19), 0.6

    def front(x: Tensor, t: Tensor) -> Tensor:
        wave = torch.tanh(k * (x - speed * t))
        return speed + 15 / 19 * math.sqrt(11 / 19) * (11 * wave**3 - 9 * wave)

    solves(catalogue.kuramoto_sivashinsky(), 1, u=front)


def test_gray_scott(solves: Check, values_of: Any) -> None:
    """The mixture without V, the steady mixture, and diffusion against a formula."""
    F, k = 0.04, 0.06
    entry = catalogue.gray_scott(F=F, k=k)
    solves(entry, 2, u=lambda t: 1 - 0.5 * torch.exp(-F * t), v=lambda t: 0 * t)
    F = 0.08
    u = (1 - math.sqrt(1 - 4 * (F + k) ** 2 / F)) / 2
    solves(catalogue.gray_scott(F=F, k=k), 1, u=constant(u), v=constant((F + k) / u))
    equation = entry.equation
    fields = {"u": lambda x, y, t: torch.sin(x) * y * t, "v": lambda x, y, t: torch.cos(y) + x * t}
    values = values_of(fields, equation.required(2))
    x, y, t = values_of({}, "xyt").values()
    u, v = torch.sin(x) * y * t, torch.cos(y) + x * t
    first, second = equation.residual(values, 2)
    torch.testing.assert_close(first, torch.sin(x) * y + 2e-5 * u + u * v**2 - 0.04 * (1 - u))
    torch.testing.assert_close(second, x + 1e-5 * torch.cos(y) - u * v**2 + 0.1 * v)


@pytest.mark.parametrize("wind", [0.0, 0.7])
def test_navier_stokes(solves: Check, wind: float) -> None:
    """Taylor and Green's vortices, at rest and carried by a wind, which gives the advection its sign."""
    nu = 0.05

    def psi(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return torch.cos(2 * (x - wind * t)) * torch.cos(3 * y) * torch.exp(-13 * nu * t)

    solves(
        catalogue.navier_stokes(nu=nu),
        2,
        psi=lambda x, y, t: psi(x, y, t) + wind * y,
        w=lambda x, y, t: 13 * psi(x, y, t),
        f=lambda x: 0 * x,
    )


def test_navier_stokes_is_the_curl_of_the_velocity_equation(values_of: Any) -> None:
    """For any flow: w_t + u w_x + v w_y - nu laplacian(w) - f with (u, v) = (psi_y, -psi_x)."""
    equation = catalogue.navier_stokes(nu=0.1).equation
    fields = {
        "psi": lambda x, y, t: torch.sin(x + t) * y**3 + x**2 * y,
        "w": lambda x, y, t: torch.exp(x * t) * torch.cos(y),
        "f": lambda x, y: x * y,
    }
    values = values_of(fields, {*equation.required(2), "psi_x", "psi_y", "w_x", "w_y", "w_t"})
    u, v = values["psi_y"], -values["psi_x"]
    material = values["w_t"] + u * values["w_x"] + v * values["w_y"]
    expected = material - 0.1 * (values["w_xx"] + values["w_yy"]) - values["f"]
    torch.testing.assert_close(equation.residual(values, 2)[0], expected)


def test_quasi_geostrophic_rossby_wave(solves: Check) -> None:
    """A barotropic Rossby wave in a uniform wind, exact in spite of the nonlinear terms."""
    wind, extra, beta, k, m = 0.4, 0.3, 0.7, 2.0, 3.0
    frequency = (wind + extra) * k - beta * k / (k**2 + m**2)

    def wave(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return torch.cos(k * x + m * y - frequency * t)

    entry = catalogue.quasi_geostrophic(beta=beta, U1=wind, U2=wind, r=0.0)
    fields = {f"psi{layer}": lambda x, y, t: wave(x, y, t) - extra * y for layer in (1, 2)}
    fields |= {f"q{layer}": lambda x, y, t: -(k**2 + m**2) * wave(x, y, t) for layer in (1, 2)}
    solves(entry, 2, **fields)


def test_quasi_geostrophic_conserves_potential_vorticity(values_of: Any) -> None:
    """For any flow: the total potential vorticity is carried by the total velocity, but for the drag."""
    parameters = {"beta": 0.7, "F1": 1.3, "F2": 0.8, "U1": 0.9, "U2": -0.2, "r": 0.15}
    equation = catalogue.quasi_geostrophic(**parameters).equation
    beta, F1, F2, U1, U2, r = parameters.values()

    def psi1(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return torch.sin(x + 2 * y + t) * torch.exp(x * y)

    def psi2(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return torch.cos(x - y * t) + x**2 * y

    x, y, t = values_of({}, "xyt").values()

    def grad(value: Tensor, variable: Tensor) -> Tensor:
        return torch.autograd.grad(value.sum(), variable, create_graph=True)[0]

    def laplacian(value: Tensor) -> Tensor:
        return grad(grad(value, x), x) + grad(grad(value, y), y)

    streams = psi1(x, y, t), psi2(x, y, t)
    totals = streams[0] - U1 * y, streams[1] - U2 * y
    vorticities = (
        laplacian(streams[0]) + F1 * (streams[1] - streams[0]),
        laplacian(streams[1]) + F2 * (streams[0] - streams[1]),
    )
    total_vorticities = (
        laplacian(totals[0]) + F1 * (totals[1] - totals[0]) + beta * y,
        laplacian(totals[1]) + F2 * (totals[0] - totals[1]) + beta * y,
    )
    carried = [
        grad(q, t) - grad(psi, y) * grad(q, x) + grad(psi, x) * grad(q, y)
        for psi, q in zip(totals, total_vorticities, strict=True)
    ]
    expected = [carried[0], carried[1] + r * laplacian(streams[1])]
    values: dict[str, Tensor] = {}
    for layer in (1, 2):
        for name, value in ((f"psi{layer}", streams[layer - 1]), (f"q{layer}", vorticities[layer - 1])):
            values |= {name: value, f"{name}_x": grad(value, x), f"{name}_y": grad(value, y)}
            values |= {f"{name}_xx": grad(grad(value, x), x), f"{name}_yy": grad(grad(value, y), y)}
            values[f"{name}_t"] = grad(value, t)
    residual = equation.residual(values, 2)
    for found, wanted in zip(residual, [*expected, torch.zeros_like(x), torch.zeros_like(x)], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_lorenz(solves: Check) -> None:
    entry = catalogue.lorenz()
    root = math.sqrt(8 / 3 * 27)
    for sign in (1, -1):
        solves(entry, 0, x=constant(sign * root), y=constant(sign * root), z=constant(27.0))
    values = {"x": 1.0, "y": 2.0, "z": 3.0, "x_t": 0.0, "y_t": 0.0, "z_t": 0.0}
    assert entry.equation.residual(values, 0) == pytest.approx((-10.0, -23.0, 6.0))


def test_van_der_pol(solves: Check) -> None:
    solves(catalogue.van_der_pol(mu=0.0), 0, x=lambda t: 3 * torch.cos(t))
    equation = catalogue.van_der_pol(mu=5.0).equation
    assert equation.residual({"x": 2.0, "x_t": 3.0, "x_tt": 7.0}, 0) == 7 - 5 * (1 - 4) * 3 + 2
    assert equation.unknowns == ("x", "x_t")


@pytest.mark.parametrize("name", catalogue.names())
def test_entries_are_complete(name: str) -> None:
    entry = catalogue.get(name)
    equation = entry.equation
    assert entry.name == name
    assert entry.description.endswith(".")
    assert entry.source
    needed = {*equation.unknowns, *equation.constrained, *equation.coefficients, *equation.parameters}
    assert set(entry.symbols) == needed
    assert hash(entry) == hash(catalogue.get(name))


@pytest.mark.parametrize(
    ("name", "unknowns", "order", "time_order", "linear"),
    [
        ("poisson", ("u",), 2, 0, True),
        ("helmholtz", ("u",), 2, 0, True),
        ("klein_gordon", ("u", "u_t"), 2, 2, True),
        ("porous_medium", ("u",), 2, 1, False),
        ("cahn_hilliard", ("u",), 4, 1, False),
        ("kdv", ("u",), 3, 1, False),
        ("gray_scott", ("u", "v"), 2, 1, False),
        ("navier_stokes", ("w",), 2, 1, False),
        ("quasi_geostrophic", ("q1", "q2"), 2, 1, False),
        ("lorenz", ("x", "y", "z"), 0, 1, False),
    ],
)
def test_what_the_equations_know(name: str, unknowns: Any, order: int, time_order: int, linear: bool) -> None:
    equation = catalogue.get(name).equation
    found = equation.unknowns, equation.order, equation.time_order, equation.linear, equation.evolving
    assert found == (unknowns, order, time_order, linear, time_order > 0)


def test_parameters_are_set() -> None:
    assert catalogue.get("burgers", nu=0.5).equation.parameters == {"nu": 0.5}
    assert len(catalogue.names()) == 19


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("poison", {}, "did you mean 'poisson'"),
        ("zzz", {}, "there are poisson, diffusion"),
        ("burgers", {"nv": 1}, "did you mean 'nu'"),
        ("poisson", {"nu": 1}, "it has none"),
        ("heat", {"alpha": float("inf")}, "must be finite"),
        ("advection_diffusion", {"dimension": 4}, "1 to 3 axes"),
        ("anisotropic_diffusion", {"dimension": 1}, "2 or 3 axes"),
    ],
)
def test_refusals(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        catalogue.get(name, **parameters)
