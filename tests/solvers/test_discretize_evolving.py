"""discretize for evolving equations: what it makes of which equation, and constraints on grids with walls."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml import Dirichlet, Equation, Grid, InputError, Mesh, Neumann, Periodic, SolveError, Status
from sciml.discretization import GridEvolution, System
from sciml.evolving import EvolvingSystem
from sciml.linear_operator import Kind
from sciml.ordinary import OrdinarySystem
from sciml.solvers.discretize import preparation
from sciml.spectral import SpectralSystem

RING = Grid(16, boundary=Periodic())
BOX = Grid((8, 6))
VORTICITY = Equation(
    "w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w) + f", constraints="laplacian(psi) = -w", parameters={"nu": 0.1}
)
ROW = torch.zeros(16, dtype=torch.bool)
ROW[3] = True


@pytest.mark.parametrize(
    ("text", "domain", "scheme", "kind"),
    [
        ("-laplacian(u) = 1", BOX, None, System),
        ("u_t = laplacian(u)", BOX, None, GridEvolution),
        ("u_t = -u*u_x - u_xx - u_xxxx", RING, None, SpectralSystem),
        ("u_t = -u*u_x", RING, None, SpectralSystem),
        ("u_t = -div([u**2/2])", RING, None, GridEvolution),
        ("u_t = -div([c*u])", RING, None, GridEvolution),
        ("u_t = -div([u**2/2 - 0.1*u_x])", RING, None, SpectralSystem),
        ("u_t = -div([u**2/2])", RING, sciml.Spectral(), SpectralSystem),
        ("u_t = u_xx", RING, sciml.FiniteDifference(4), GridEvolution),
        ("u_t = u_xx", Grid(16, boundary=Periodic(), solid=ROW), None, GridEvolution),
    ],
)
def test_what_is_made_of_which_equation(text: str, domain: Grid, scheme: Any, kind: type) -> None:
    system = sciml.discretize(Equation(text), domain, {"c": 1.0} if "c*" in text else {}, scheme=scheme)
    assert isinstance(system, kind)
    if isinstance(system, EvolvingSystem):
        u = torch.rand(system.space, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert system.rate(u, 0.0).shape == u.shape


def test_ordinary_systems_need_no_domain() -> None:
    lorenz = sciml.equations.catalogue.lorenz().equation
    system = sciml.discretize(lorenz)
    assert isinstance(system, OrdinarySystem)
    with pytest.raises(InputError, match="has no boundary and needs no scheme"):
        sciml.discretize(lorenz, scheme=sciml.FiniteDifference())
    with pytest.raises(InputError, match="expected a Grid or a Mesh"):
        sciml.discretize(Equation("u_t = u_xx"))


@pytest.mark.parametrize(
    ("text", "scheme", "message"),
    [
        ("u_t = laplacian(u)", sciml.FiniteElement(), "is for meshes"),
        ("-laplacian(u) = 1", sciml.Spectral(), "is for evolving equations"),
        ("u_t = laplacian(u)", sciml.Spectral(), "periodic"),
    ],
)
def test_schemes_that_do_not_fit_are_refused(text: str, scheme: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sciml.discretize(Equation(text), BOX, scheme=scheme)


def stream(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(2.0 * x + 0.3) * torch.cos(1.5 * y)


def test_a_stream_function_in_a_box_is_of_second_order() -> None:
    """laplacian(psi) = -w with psi given on the walls; w = 6.25 psi makes the advection vanish."""
    errors = []
    for n in (12, 24):
        grid = Grid((n, n), upper=(1.0, 1.2))
        sides = {"w": Dirichlet(lambda x, y: 6.25 * stream(x, y)), "psi": Dirichlet(stream)}
        system = sciml.discretize(VORTICITY, grid, {"f": 0.0}, boundary=sides)
        x, y = grid.coordinates
        psi = stream(x, y)
        errors.append(float((system.constrained(6.25 * psi, 0.0)["psi"] - psi).square().mean().sqrt()))
        rate = system.rate(6.25 * psi, 0.0) + 0.1 * 6.25**2 * psi
        inside = ((x - 0.5).abs() < 0.25) & ((y - 0.6).abs() < 0.3)
        errors.append(float(rate[inside].square().mean().sqrt()))
    for coarse, fine in zip(errors[:2], errors[2:], strict=True):
        assert 1.8 < math.log2(coarse / fine) < 2.4


def test_constraints_that_couple_and_depend_on_time() -> None:
    """Two layers: laplacian(p) + q - p = v and laplacian(q) + p - q + t = w, against the equations themselves."""
    equation = Equation(
        ["v_t = p_x", "w_t = q_y"],
        unknowns=["v", "w", "p", "q"],
        constraints=["laplacian(p) + q - p = v", "laplacian(q) + p - q + t = w"],
    )
    errors = []
    for n in (10, 20):
        grid = Grid((n, n), boundary={"x": (Dirichlet(stream), Dirichlet(stream)), "y": Dirichlet(stream)})
        system = sciml.discretize(equation, grid)
        psi = stream(*grid.coordinates)
        found = system.constrained(torch.stack([-6.25 * psi, 0.7 - 6.25 * psi]), 0.7)
        errors.append(max(float((found[name] - psi).abs().max()) for name in "pq"))
    assert 1.8 < math.log2(errors[0] / errors[1]) < 2.4


CLOSED = Grid((16, 12), boundary=Neumann(0.0))


def test_constants_that_nothing_fixes() -> None:
    """A constraint between closed walls takes the solution of zero mean; a mean of its right side is refused."""
    system = sciml.discretize(VORTICITY, CLOSED, {"f": 0.0})
    x, y = CLOSED.coordinates
    w = torch.cos(math.pi * x) * torch.cos(2.0 * math.pi * y)
    psi = system.constrained(system.encode(w), 0.0)["psi"]
    assert float(psi.mean().abs()) < 1e-15
    assert torch.allclose(psi, w / (5.0 * math.pi**2), rtol=0.05, atol=2e-4)
    with pytest.raises(InputError, match=r"mean of the right side must be zero.*2\.0.e-03"):
        system.hold(w + 1e-3, 0.0)
    unsteady = sciml.discretize(VORTICITY, CLOSED, {"f": lambda x, y, t: t * x})
    with pytest.raises(InputError, match="mean of the right side"):
        unsteady.hold(w + 1e-3, 0.0)
    for constraint, known in (
        ("laplacian(psi) = w**2", {}),
        ("laplacian(psi) = g", {"g": lambda x, y, t: x * t - 0.5}),
    ):
        equation = Equation("w_t = psi", unknowns=["w", "psi"], constraints=constraint)
        with pytest.raises(InputError, match=r"constraint on psi.*mean of the right side"):
            sciml.discretize(equation, CLOSED, known).hold(w, 0.0)


@pytest.mark.parametrize("constraint", ["psi_x = w", "laplacian(psi) + 16*(2 - sqrt(2))*psi = w"])
def test_constraints_that_are_singular_beyond_constants_are_refused(constraint: str) -> None:
    """A derivative that every second value may leave alone; an eigenvalue of the five-point Laplacian on 8 x 8."""
    equation = Equation("w_t = psi_x", unknowns=["w", "psi"], constraints=constraint)
    grid = Grid((8, 8), upper=(2.0, 2.0) if "laplacian" in constraint else (1.0, 1.0), boundary=Periodic())
    with pytest.raises(InputError, match="do not determine psi, and not only up to a constant"):
        sciml.discretize(equation, grid, scheme=sciml.FiniteDifference())


@pytest.mark.parametrize("grid", [BOX, CLOSED], ids=["factors", "null space"])
def test_derivatives_pass_through_constraints(grid: Grid) -> None:
    system = sciml.discretize(VORTICITY, grid, {"f": lambda x, y, t: t * x})
    u, v = torch.randn(2, 3, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, v = (field - field.mean((1, 2), keepdim=True) for field in (u, v))
    tangent = torch.func.jvp(lambda y: system.rate(y, 0.3), (u,), (v,))[1]
    difference = (system.rate(u + 1e-6 * v, 0.3) - system.rate(u - 1e-6 * v, 0.3)) / 2e-6
    assert torch.allclose(tangent, difference, rtol=1e-6, atol=1e-6)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(u, v)
        assert torch.allclose(torch.autograd.forward_ad.unpack_dual(system.rate(dual, 0.3)).tangent, tangent)
    weights = torch.cos(torch.arange(u.numel()).double()).reshape(u.shape)
    start = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((system.rate(start, 0.3) * weights).sum(), start)
    assert float((gradient * v).sum()) == pytest.approx(float((tangent * weights).sum()), rel=1e-10)
    operator = system.shifted(u, 0.3, 0.05)
    assert torch.allclose(operator.apply(v), v - 0.05 * tangent, rtol=1e-9, atol=1e-10)
    pairing = (operator.transpose().apply(u) * v).sum()
    assert float(pairing) == pytest.approx(float((operator.apply(v) * u).sum()), rel=1e-10)
    near = operator.preconditioner.apply(operator.near.apply(v))
    assert torch.allclose(near, v, rtol=1e-9, atol=1e-9)


def test_gradients_with_respect_to_what_a_constraint_is_made_of() -> None:
    def rate(a: Tensor, wall: Tensor) -> Tensor:
        equation = Equation("w_t = psi_x + psi*w", constraints="div(a*grad(psi)) = -w")
        sides = {
            "w": Neumann(0.0),
            "psi": {"x": (Dirichlet(lambda x, y, t: wall * t * y), Neumann(0.0)), "y": Neumann(0.0)},
        }
        x, y = BOX.coordinates
        system = sciml.discretize(equation, BOX, {"a": 1.0 + a * x}, boundary=sides)
        value: Tensor = system.rate(torch.cos(3.0 * x * y), 0.4)
        return value

    values = [torch.tensor(0.5).double(), torch.tensor(1.3).double()]
    jacobian = torch.autograd.functional.jacobian(rate, tuple(values))
    for place in range(2):
        moved = [[v + s * (i == place) for i, v in enumerate(values)] for s in (1e-6, -1e-6)]
        expected = (rate(*moved[0]) - rate(*moved[1])) / 2e-6
        assert float(expected.abs().max()) > 1e-3
        assert torch.allclose(jacobian[place], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "definite"), [((30,), True), ((20, 24), True), ((22, 22, 20), True), ((9, 9), False)]
)
def test_preparation(shape: tuple[int, ...], definite: bool) -> None:
    """Solutions to 1e-12 by factors and, where these are large, by conjugate gradients; NaN stays in its row."""
    grid = Grid(shape)
    system = sciml.discretize(Equation("u_t = laplacian(u)" + ("" if definite else " - 50*u_x")), grid)
    operator = system.shifted_linear(0.1)
    assert (operator.kind is Kind.SYMMETRIC_POSITIVE) == definite
    solve: Callable[[Tensor], Tensor] = preparation(grid)(operator)
    x = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = operator.apply(x)
    assert float((operator.apply(solve(b)) - b).norm()) < 1e-11 * float(b.norm())
    b[1].view(-1)[3] = torch.nan
    found = solve(b)
    assert torch.allclose(found[0], x[0], rtol=1e-8, atol=1e-9)
    assert bool(found[1].isnan().all())
    large = torch.full(shape, 1e306, dtype=torch.float64)  # finite, though its sum is not
    torch.testing.assert_close(solve(large) / 1e306, solve(torch.ones_like(large)), rtol=1e-10, atol=0)


@pytest.mark.parametrize("side", [Dirichlet(0.0), Neumann(0.0)], ids=["held", "closed"])
def test_large_constraints_in_single_precision(side: Any) -> None:
    """By conjugate gradients, whose own rounding in single precision would be too large; also where gradients of the
    coefficients are asked for."""
    results = []
    for dtype in (torch.float32, torch.float64):
        grid = Grid((22, 20, 24), boundary={"w": Neumann(0.0), "psi": side}, dtype=dtype)
        a = torch.ones(22, 20, 24, dtype=dtype).requires_grad_()
        system = sciml.discretize(Equation("w_t = psi", constraints="div(a*grad(psi)) = -w"), grid, {"a": a})
        x, y, _ = grid.coordinates
        rate = system.rate(torch.cos(math.pi * x) * torch.cos(2.0 * math.pi * y), 0.0)
        (gradient,) = torch.autograd.grad(rate.square().sum(), a)
        results.append((rate.detach().double(), gradient.double()))
    for single, double in zip(*results, strict=True):
        assert torch.allclose(single, double, rtol=1e-4, atol=1e-5 * float(double.abs().max()))


def test_single_precision() -> None:
    grid = Grid((8, 6), dtype=torch.float32)
    w = torch.rand(8, 6, generator=torch.Generator().manual_seed(0))
    rates = [sciml.discretize(VORTICITY, g, {"f": 0.0}).rate(w.to(g.dtype), 0.0) for g in (grid, BOX)]
    assert rates[0].dtype == torch.float32
    assert torch.allclose(rates[0].double(), rates[1], rtol=1e-4, atol=1e-4)


def test_forward_derivatives_of_the_operator_of_a_constraint() -> None:
    """By torch.func.jvp and dual numbers; other transforms are refused, for which torch.autograd does the same."""

    def rate(a: Tensor) -> Tensor:
        equation = Equation("w_t = psi", constraints="div(a*grad(psi)) = -w")
        value: Tensor = sciml.discretize(equation, BOX, {"a": a}).rate(torch.ones(8, 6, dtype=torch.float64), 0.0)
        return value

    a = torch.ones(8, 6, dtype=torch.float64)
    with pytest.raises(InputError, match="supported by jvp alone"):
        torch.func.vjp(rate, a)
    assert torch.allclose(torch.func.jvp(rate, (a,), (a,))[1], -rate(a), rtol=1e-9)  # psi goes like 1/a
    with torch.autograd.forward_ad.dual_level():
        tangent = torch.autograd.forward_ad.unpack_dual(rate(torch.autograd.forward_ad.make_dual(a, a))).tangent
    assert torch.allclose(tangent, -rate(a), rtol=1e-9)  # psi goes like 1/a


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda system: pickle.loads(pickle.dumps(system))])
def test_systems_are_copied_and_pickled(copied: Callable[[Any], Any]) -> None:
    sides = {"w": Dirichlet(0.0), "psi": {"x": Dirichlet(0.2), "y": Neumann(0.0)}}
    box = Grid((8, 6), boundary=sides)
    for system in (
        sciml.discretize(VORTICITY, box, {"f": torch.ones(8, 6, dtype=torch.float64)}),
        sciml.discretize(Equation("u_t = -div([u**2/2, t*u])"), BOX),
    ):
        u = torch.rand(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert torch.equal(copied(system).rate(u, 0.3), system.rate(u, 0.3))


@pytest.mark.parametrize("kind", ["grid", "mesh"])
def test_a_row_whose_constraint_loses_its_solution_ends_there(kind: str, tmp_path: Path) -> None:
    """A source that gives w a mean, which the operator of psi cannot reach, in one row of two."""
    if kind == "grid":
        domain: Any = Grid((8, 6), boundary=Neumann(0.0))
        x, y = domain.coordinates
    else:
        domain = Mesh.box((8, 6), (0.0, 0.0), (1.0, 1.0))
        x, y = domain.coordinates
    w = torch.cos(math.pi * x) * torch.cos(2.0 * math.pi * y)
    if kind == "mesh":
        mass = sciml.discretize(Equation("w_t = laplacian(w)"), domain, boundary=Neumann(0.0)).apply_mass(x**0)
        w = w - (mass * w).sum() / mass.sum()
    source = torch.tensor([0.0, 1.0], dtype=w.dtype).reshape(2, *[1] * w.ndim)
    boundary = None if kind == "grid" else Neumann(0.0)
    given: dict[str, Any] = {"fields": {"f": source}, "boundary": boundary, "times": [0.0, 0.01, 0.02]}
    solution = sciml.evolve(VORTICITY, domain, initial=w, throw=False, **given)
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE)
    assert 0.0 <= float(solution.statistics["failed_at"][1]) <= 0.01
    psi = solution.fields["psi"].flatten(2).isfinite().all(-1)
    assert psi.tolist() == [[True, True, True], [True, False, False]]
    solution.save(tmp_path / "solution.h5")
    with pytest.raises(SolveError, match="NON_FINITE by time"):
        sciml.evolve(VORTICITY, domain, initial=w, **given)


@pytest.mark.parametrize("place", ["a field", "a value", "a flux"])
@pytest.mark.parametrize("kind", ["grid", "mesh"])
def test_what_is_given_may_end_in_one_row(kind: str, place: str) -> None:
    """A function of the time that is NaN from t = 0.1 on in the second row of two."""
    domain: Any = Grid((4, 3)) if kind == "grid" else Mesh.box((3, 3), (0.0, 0.0), (1.0, 1.0))
    ends = torch.tensor([1.0, 0.1], dtype=torch.float64).reshape(
        2, *[1] * (2 if kind == "grid" and place == "a field" else 1)
    )

    def moving(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return torch.sqrt(ends - t) * (1.0 + x)

    given: dict[str, Any] = {"fields": {"f": 0.0}, "boundary": Dirichlet(0.0)}
    if place == "a field":
        given["fields"] = {"f": moving}
    else:
        given["boundary"] = (Dirichlet if place == "a value" else Neumann)(moving)
    equation = Equation("u_t = laplacian(u) + f", unknowns=["u"])
    solution = sciml.evolve(equation, domain, initial=0.5, times=[0.0, 0.05, 0.2], step=0.002, throw=False, **given)
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE)
    assert 0.1 <= float(solution.statistics["failed_at"][1]) < 0.104
    finite = solution.value.isfinite().flatten(2).all(-1)
    assert finite.tolist() == [[True, True, True], [True, True, False]]
