"""What evolving systems on meshes promise to integrators: derivatives, parts, masses, held points, gradients."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml import Dirichlet, Equation, FiniteElement, InputError, Mesh, Neumann, Robin, discretize, discretize_nonlinear
from sciml.elements import MeshEvolution
from sciml.elements.mass import InverseMass, make_mass
from sciml.shifted import ShiftedOperator

T = 0.7
QG = ["laplacian(psi) + 2*(phi - psi) = q", "laplacian(phi) + 2*(psi - phi) = r"]
LAYERS = ["q_t = psi_x*q_y - psi_y*q_x", "r_t = phi_x*r_y - phi_y*r_x + laplacian(r) - phi_x"]
VORTICITY = "w_t = psi_x*w_y - psi_y*w_x + 0.1*laplacian(w) - psi_y"
POISSON = ["laplacian(psi) = -w**2 + w_x"]


def moving(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return torch.sin(t) * y + x


HELD = {"x_lower": Dirichlet(moving), "rest": Neumann(lambda x, y, t: t * y)}

# Text, constraints, boundary, and whether `shifted` is symmetric.
CASES: dict[str, tuple[str | list[str], list[str], Any, bool]] = {
    "heat": ("u_t = laplacian(u) + a", [], {**HELD, "x_upper": Robin(2.0, 1.0), "rest": Neumann(1.0)}, True),
    "reaction": ("u_t = laplacian(u) - exp(u)*m", [], HELD, True),
    "capacity": ("c*u_t = div(k*grad(u)) - u**3", [], HELD, True),
    "coefficients in time": ("u_t = (1 + sin(t))*laplacian(u) - m*u_x + cos(t)*u*u_y", [], HELD, False),
    "film in time": (
        "u_t = (1 + sin(t))*laplacian(u)",
        [],
        {"x_upper": Robin(lambda x, y, t: 1 + t * y, moving), "rest": Neumann(1.0)},
        True,
    ),
    "coefficient of u": ("u_t = div(m*(1 + u**2)*grad(u)) + div([a*u, u*u])", [], HELD, False),
    "wave": ("u_tt = 2*laplacian(u) - u**3 - 0.1*u_t", [], HELD, False),
    "damped": ("u_tt = div((1 + u**2)*grad(u)) + 0.1*laplacian(u_t) + sin(t)*laplacian(u_t)", [], HELD, False),
    "Gray-Scott": (["u_t = 2*laplacian(u) - u*v**2 + 1 - u", "v_t = laplacian(v) + u*v**2"], [], HELD, False),
    "vorticity": (VORTICITY, POISSON, {"w": HELD, "psi": Dirichlet(moving)}, False),
    "two layers": (LAYERS, QG, {"q": Neumann(0.0), "r": HELD, "psi": Dirichlet(1.0), "phi": HELD}, False),
}


def make(case: str, mesh: Mesh, **options: Any) -> MeshEvolution:
    text, constraints, boundary, _ = CASES[case]
    equation = Equation(text, constraints=constraints)
    generator = torch.Generator().manual_seed(2)
    c, k = torch.rand(2, len(mesh.cells), generator=generator, dtype=torch.float64) + 0.5
    given: dict[str, Any] = {"a": lambda x, y: 1.0 + x, "c": c, "k": k, "m": lambda x, y, t: 1.0 + x * t}
    fields = {name: given[name] for name in equation.coefficients}
    return discretize(equation, mesh, fields, boundary=boundary, **options)


def states(system: MeshEvolution, count: int = 2) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.rand(2, *system.space, dtype=torch.float64, generator=generator) for _ in range(count))


def held_points(system: MeshEvolution) -> Tensor:
    held = torch.stack([row.held for row in system.rows])
    return held if len(system.rows) > 1 else held[0]


@pytest.fixture
def mesh(unstructured: Callable[..., Mesh]) -> Mesh:
    return unstructured(4, 2)


@pytest.mark.parametrize("lumped", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_shifted_is_the_derivative_of_mass_and_force(case: str, lumped: bool, mesh: Mesh) -> None:
    system = make(case, mesh, scheme=FiniteElement(lumped=lumped))
    u, v, w = states(system, 3)
    a = 0.3
    shifted = system.shifted(u, T, a)
    _, slope = torch.autograd.functional.jvp(lambda y: system.force(y, T), u, v)
    expected = system.apply_mass(v) - a * slope
    torch.testing.assert_close(shifted.apply(v), expected, rtol=1e-12, atol=1e-13)
    h = 1e-5
    differences = (system.force(u + h * v, T) - system.force(u - h * v, T)) / (2 * h)
    torch.testing.assert_close(slope, differences, rtol=1e-7, atol=1e-8)
    left, right = (shifted.apply(v) * w).sum(), (shifted.transpose().apply(w) * v).sum()
    assert float((left - right).abs()) < 1e-13 * float((shifted.apply(v) * w).abs().sum())
    assert shifted.symmetric == CASES[case][-1]
    assert isinstance(shifted, ShiftedOperator) == bool(system.equation.constrained)
    if isinstance(shifted, ShiftedOperator):
        return
    row = shifted[1] if shifted.batch else shifted
    torch.testing.assert_close(row.apply(v[1]), expected[1], rtol=1e-12, atol=1e-13)
    if shifted.symmetric:
        matrix = row.to_sparse().to_dense()
        torch.testing.assert_close(matrix, matrix.mT, rtol=0, atol=1e-15)


@pytest.mark.parametrize("lumped", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_parts_of_the_rate(case: str, lumped: bool, mesh: Mesh) -> None:
    system = make(case, mesh, scheme=FiniteElement(lumped=lumped))
    u, v = states(system)
    rate, held = system.rate(u, T), held_points(system)
    linear = torch.zeros_like(u) if system.linear_part is None else system.linear_part.apply(u)
    size = float(rate.abs().max())
    assert float((rate - linear - system.nonlinear_part(u, T)).abs().max()) < 1e-13 * size
    # M du/dt = G, where dg/dt at held points is a part of G.
    assert float((system.apply_mass(rate) - system.force(u, T))[..., ~held].abs().max()) < 1e-13 * size
    linear_force = system.force(u, T) - system.explicit_force(u, T)
    torch.testing.assert_close(
        system.apply_mass(u) - 0.4 * linear_force, system.shifted_linear(0.4).apply(u), rtol=1e-12, atol=1e-13
    )
    if system.linear_part is not None:
        left, right = (system.linear_part.apply(u) * v).sum(), (system.linear_part.transpose().apply(v) * u).sum()
        assert float((left - right).abs()) < 1e-12 * float((system.linear_part.apply(u) * v).abs().sum())


def test_constrained_derivatives_bring_a_preconditioner(mesh: Mesh) -> None:
    system = make("vorticity", mesh)
    u, v = states(system)
    shifted = system.shifted(u[0], T, 1e-3)
    assert isinstance(shifted, ShiftedOperator)
    for operator in (shifted, shifted.transpose()):
        assert isinstance(operator, ShiftedOperator)
        inverse = operator.preconditioner
        torch.testing.assert_close(inverse.apply(operator.near.apply(v)), v, rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(
            inverse.transpose().apply(operator.near.transpose().apply(v)), v, rtol=1e-10, atol=1e-11
        )
        # What it leaves out goes with the step.
        assert float((inverse.apply(operator.apply(v)) - v).abs().max()) < 0.05


@pytest.mark.parametrize("case", CASES)
def test_held_points_follow_their_values_and_nothing_depends_on_them(case: str, mesh: Mesh) -> None:
    system = make(case, mesh)
    u, v = states(system)
    held = held_points(system)
    other = torch.where(held, v, u)
    assert torch.equal(system.hold(u, T)[..., ~held], u[..., ~held])
    assert torch.equal(system.hold(u, T), system.hold(other, T))
    torch.testing.assert_close(system.rate(u, T), system.rate(other, T), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(system.apply_mass(u), system.apply_mass(other), rtol=0, atol=0)
    h = 1e-5
    change = (system.hold(u, T + h) - system.hold(u, T - h)) / (2 * h)
    torch.testing.assert_close(system.rate(u, T)[..., held], change[..., held], rtol=1e-8, atol=1e-9)
    assert float(system.apply_mass(u)[..., held].abs().sum()) == 0.0
    # One step of Newton's method from anywhere ends at the values, with all else as it would be there.
    matrix = system.shifted(u, T, 0.2)
    if not isinstance(matrix, ShiftedOperator) and held.any():
        matrix = (matrix[0] if matrix.batch else matrix).to_sparse().to_dense()
        off = matrix - torch.diag(matrix.diagonal())
        places = held.reshape(-1)
        assert float(off[places].abs().sum() + off[:, places].abs().sum()) == 0.0
        assert float(matrix.diagonal()[places].min()) > 0.0
    assert float(system.force(system.hold(u, T), T)[..., held].abs().sum()) == 0.0


@pytest.mark.parametrize("case", ["coefficients in time", "film in time", "wave", "vorticity"])
def test_rows_with_times_of_their_own(case: str, mesh: Mesh) -> None:
    system = make(case, mesh)
    u, v = states(system)
    times = torch.tensor([0.2, 0.9], dtype=torch.float64)
    together = system.rate(u, times)
    alone = torch.stack([system.rate(part, float(t)) for part, t in zip(u, times, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    shifted = system.shifted(u, times, 0.1).apply(v)
    rows = [system.shifted(a, float(t), 0.1).apply(b) for a, b, t in zip(u, v, times, strict=True)]
    torch.testing.assert_close(shifted, torch.stack(rows), rtol=1e-12, atol=1e-13)


def test_batches_of_everything_equal_loops(mesh: Mesh) -> None:
    equation = Equation("c*u_t = div(k*grad(u)) + p*u*(1 - u) + f", parameters={"p": 1.0})
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64) + 0.5

    count = len(mesh.points)
    k, c, p, g = draw(2, len(mesh.cells)), draw(2, len(mesh.cells)), draw(2), draw(2, 1)
    u = draw(2, count)

    def system(rows: slice | int) -> MeshEvolution:
        fields = {"k": k[rows], "c": c[rows], "f": lambda x, y, t: g[rows] * torch.sin(t * x)}
        boundary = {"x_lower": Dirichlet(lambda x, y, t: g[rows] * t * y), "rest": Neumann(0.3)}
        return discretize(equation, mesh, fields, {"p": p[rows]}, boundary)

    whole = system(slice(None))
    assert whole.batch == (2,)
    for i in range(2):
        torch.testing.assert_close(whole.rate(u, T)[i], system(i).rate(u[i], T), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            whole.shifted(u, T, 0.1).apply(u)[i], system(i).shifted(u[i], T, 0.1).apply(u[i]), rtol=1e-12, atol=1e-13
        )
        row = whole.linear_part[i]
        torch.testing.assert_close(row.apply(u[i]), system(i).linear_part.apply(u[i]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("text", ["u_t = f", "u_t = laplacian(u) + f", "u_t = cos(t)"])
def test_results_have_the_shape_of_the_state_and_may_be_changed(text: str, mesh: Mesh) -> None:
    equation = Equation(text, unknowns=["u"])
    for boundary in (Neumann(0.0), Dirichlet(1.0)):
        system = discretize(equation, mesh, dict.fromkeys(equation.coefficients, 2.0), boundary=boundary)
        u = torch.rand(3, len(mesh.points), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for result in (system.rate(u, T), system.nonlinear_part(u, T), system.force(u, T), system.explicit_force(u, T)):
            assert result.shape == u.shape
            before = u.clone()
            result[0] += 1.0
            assert torch.equal(u, before)
        again = system.rate(u, T)
        again += 1.0
        torch.testing.assert_close(again, system.rate(u, T) + 1.0, rtol=0, atol=0)
        value = math.cos(T) if "cos" in text else 2.0
        if "laplacian" not in text and isinstance(boundary, Neumann):
            torch.testing.assert_close(system.rate(u, T), torch.full_like(u, value))


@pytest.mark.parametrize(("dimension", "n"), [(2, 5), (2, 24), (3, 3), (3, 7)])
def test_consistent_masses_are_inverted_to_rounding(dimension: int, n: int, unstructured: Callable[..., Mesh]) -> None:
    """The larger ones by compiled kernels where there are any."""
    from sciml.elements.geometry import geometry_of
    from sciml.elements.pattern import pattern_of

    mesh = unstructured(n, dimension)
    generator = torch.Generator().manual_seed(0)
    # Weights that jump by five orders of magnitude: the bounds do not depend on them.
    weight = 10.0 ** (5 * torch.rand(len(mesh.cells), generator=generator, dtype=torch.float64))
    held = mesh.points[:, 0] < 0.3
    for dtype, tolerance in ((torch.float64, 3e-14), (torch.float32, 2e-5)):
        mass = make_mass(pattern_of(mesh), geometry_of(mesh), weight, held, lumped=False).changed(
            partial(Tensor.to, dtype=dtype)
        )
        u = torch.where(held, 0.0, torch.rand(3, len(mesh.points), generator=generator).to(dtype))
        found = mass.solve(mass.apply(u))
        assert float((found - u).abs().max()) < tolerance
    inverse = InverseMass((mass,), (len(mesh.points),))
    assert inverse.symmetric
    wide = inverse.to(torch.float64).apply(u.double())
    assert float((wide - inverse.apply(u)).abs().max()) < 1e-5 * float(wide.abs().max())


def rate_of(mesh: Mesh, lumped: bool) -> Callable[..., Tensor]:
    """The rate as a function of a state, a field, a parameter, a boundary value and the points."""
    equation = Equation("c*u_t = div(k*(1 + u**2)*grad(u)) + p*u_x - u**3 + laplacian(u)", parameters={"p": 1.0})

    def rate(u: Tensor, k: Tensor, p: Tensor, g: Tensor, c: Tensor) -> Tensor:
        boundary = {
            "x_lower": Dirichlet(lambda x, y, t: g * torch.sin(t * y)),
            "x_upper": Neumann(lambda x, y, t: g * t + 0.0 * x),
            "rest": Robin(0.5, 1.0),
        }
        scheme = FiniteElement(lumped=lumped)
        return discretize(equation, mesh, {"k": k, "c": c}, {"p": p}, boundary, scheme).rate(u, T)

    return rate


def data(mesh: Mesh) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    shapes = ((len(mesh.points),), (len(mesh.cells),), (), (), (len(mesh.cells),))
    return tuple(torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5 for shape in shapes)


@pytest.mark.parametrize("lumped", [False, True])
def test_gradients_of_the_rate(lumped: bool, unstructured: Callable[..., Mesh]) -> None:
    mesh = unstructured(2, 2)
    rate, given = rate_of(mesh, lumped), tuple(part.requires_grad_() for part in data(mesh))
    assert torch.autograd.gradcheck(rate, given, check_forward_ad=True, rtol=1e-6, fast_mode=True)
    if lumped:
        assert torch.autograd.gradgradcheck(rate, given, rtol=1e-5, fast_mode=True)


def test_gradients_without_a_record_of_the_iteration(unstructured: Callable[..., Mesh]) -> None:
    mesh = unstructured(2, 2)
    system = make("wave", mesh)
    u = states(system)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda y: system.rate(y, T), (u,), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda y: system.rate(y, T), (u,), fast_mode=True)
    assert not system.rate(u.detach(), T).requires_grad


@pytest.mark.parametrize("case", ["reaction", "wave", "two layers"])
def test_forward_derivatives(case: str, mesh: Mesh) -> None:
    system = make(case, mesh)
    u, v = states(system)
    h = 1e-6
    expected = (system.rate(u + h * v, T) - system.rate(u - h * v, T)) / (2 * h)
    _, found = torch.func.jvp(lambda y: system.rate(y, T), (u,), (v,))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
    with torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.unpack_dual(system.rate(forward_ad.make_dual(u, v), T)).tangent
    torch.testing.assert_close(dual, found, rtol=1e-10, atol=1e-10)


def test_of_two_values_at_a_point_the_first_named_holds(mesh: Mesh) -> None:
    """As in steady equations; parts that hold nothing are not asked for values."""
    first, second = (Dirichlet(lambda x, y, t, c=c: c * t + 0.0 * x) for c in (1.0, 2.0))
    boundary = {"x_lower": first, "others": second, "rest": Dirichlet(lambda x, y, t: x / 0.0)}
    others = torch.ones(len(mesh.facets), dtype=torch.bool)
    others[mesh.boundary("x_lower")] = False
    named = mesh.with_boundaries({"others": others})
    system = discretize(Equation("u_t = laplacian(u)"), named, boundary=boundary)
    held = system.hold(torch.zeros(len(mesh.points), dtype=torch.float64), 3.0)
    x, _ = mesh.coordinates
    expected = torch.where(x == 0.0, 3.0, 6.0)
    points = mesh.boundary_points()
    torch.testing.assert_close(held[points], expected[points].double(), rtol=0, atol=0)
    assert float(system.rate(held, 3.0)[points].sum()) == float(expected[points].sum()) / 3


@pytest.mark.parametrize("case", ["capacity", "wave", "vorticity"])
def test_systems_can_be_copied(case: str, mesh: Mesh) -> None:
    system = make(case, mesh)
    u = states(system)[0]
    twin = copy.deepcopy(system)
    assert torch.equal(twin.rate(u, T), system.rate(u, T))
    assert twin.rows[0].mass is not system.rows[0].mass
    plain = discretize(Equation("u_t = laplacian(u) - u**3"), mesh, boundary=Dirichlet(0.0))
    again = pickle.loads(pickle.dumps(plain))
    first = u.reshape(-1, len(mesh.points))[0]
    assert torch.equal(again.rate(first, T), plain.rate(first, T))


def test_single_precision_and_inference(mesh: Mesh) -> None:
    wide, narrow = (make("coefficient of u", m) for m in (mesh, mesh.to(dtype=torch.float32)))
    u = states(wide)[0]
    with torch.inference_mode():
        found = make("coefficient of u", mesh).rate(u, T)
    torch.testing.assert_close(found, wide.rate(u, T), rtol=0, atol=0)
    rate = narrow.rate(u.float(), T)
    assert rate.dtype == narrow.dtype == torch.float32
    expected = wide.rate(u, T)
    assert float((rate.double() - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_what_was_chosen_is_told(mesh: Mesh) -> None:
    assert make("reaction", mesh).notes == ("P1 finite elements, consistent masses",)
    lumped = make("coefficient of u", mesh, scheme=FiniteElement(lumped=True))
    assert lumped.notes == ("P1 finite elements, lumped masses", "first derivatives: Galerkin, not stabilized")
    assert set(make("wave", mesh).boundary) == {"u", "u_t"}


ZERO = Dirichlet(0.0)

REFUSALS: list[tuple[Any, dict[str, Any], str]] = [
    ("u_t = u_xxx", {}, "derivatives of order 3"),
    ("u_t = (1 + u)*u_xx", {}, r"holds u_xx in a nonlinear term"),
    ("u_t = (1 + x*t)*u_xx", {}, r"holds u_xx in a nonlinear term"),
    (["u_t = laplacian(v)", "v_t = laplacian(v)"], {}, "the equation of u holds second derivatives of v"),
    (["u_t = div(sin(t)*grad(v))", "v_t = laplacian(v)"], {}, "derivatives of another unknown"),
    (
        "c*u_t = u_xx",
        {"c": lambda x, y: x - 0.5},
        "the factor c before the time derivative of u ranges from -0.4.*it must be positive everywhere",
    ),
    ("u_t = u_xx + f", {"f": lambda x, t: x}, r"field 'f': a function of the time takes all 2 coordinates"),
    ("u_t = u_xx + u_yy + u_zz", {}, "needs 3 axes, the mesh has 2"),
]


@pytest.mark.parametrize(("text", "fields", "message"), REFUSALS)
def test_refusals(text: Any, fields: dict[str, Any], message: str, mesh: Mesh) -> None:
    with pytest.raises(InputError, match=message):
        discretize(Equation(text, coefficients=list(fields)), mesh, fields, boundary=ZERO)


def test_refusals_of_constraints(mesh: Mesh) -> None:
    for constraint in ("laplacian(psi) = psi**2 - w", "(1 + t)*laplacian(psi) = -w"):
        equation = Equation("w_t = psi_x*w_y", constraints=[constraint], unknowns=["w", "psi"])
        with pytest.raises(InputError, match="is not linear in psi, or has a coefficient there that varies in time"):
            discretize(equation, mesh, boundary=ZERO)


def test_refusals_of_boundaries_and_schemes(mesh: Mesh) -> None:
    heat, wave = Equation("u_t = laplacian(u)"), Equation("u_tt = laplacian(u)")
    with pytest.raises(InputError, match=r"streamline.* is for steady linear equations"):
        discretize(heat, mesh, boundary=ZERO, scheme=FiniteElement(stabilization="streamline"))
    with pytest.raises(InputError, match=r"has time derivatives: take sciml\.evolve"):
        discretize_nonlinear(heat, mesh, boundary=ZERO)
    hidden = discretize(heat, mesh, boundary=Dirichlet(lambda x, y, t: x * math.sin(t.item())))
    with pytest.raises(InputError, match=r"boundary 'exterior', Dirichlet value changes in time.*not math.sin"):
        hidden.rate(torch.zeros(hidden.space, dtype=torch.float64), T)
    with pytest.raises(InputError, match=r"the coefficient of Robin.* says nothing of the rate of the unknown"):
        discretize(wave, mesh, boundary=Robin(lambda x, y, t: t + 0.0 * x, 1.0))
    system = discretize(heat, mesh, boundary=ZERO)
    with pytest.raises(InputError, match=r"u has shape \(3,\), expected \(\*batch, 25\)"):
        system.rate(torch.zeros(3, dtype=torch.float64), 0.0)
    with pytest.raises(InputError, match="boundary: a mesh has no conditions of its own"):
        discretize(heat, mesh)
