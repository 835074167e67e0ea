"""discretize on a mesh: what it makes of coefficients and conditions, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.sparse import csr_array

from sciml import Dirichlet, Equation, FiniteElement, InputError, Mesh, MeshSystem, Neumann, Periodic, Robin, discretize

POISSON = Equation("-div(a*grad(u)) = f")
ZERO = Dirichlet(0.0)


@pytest.fixture(scope="module")
def box() -> Mesh:
    return Mesh.box((4, 4), (0.0, 0.0), (1.0, 1.0)).with_regions({"left": lambda x, y: x < 0.5})


def matrix_of(system: MeshSystem) -> csr_array:
    matrix = system.operator.to_sparse()
    parts = (matrix.values().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy())
    return csr_array(parts, shape=tuple(matrix.shape))


def entries(box: Mesh, a: Any, f: Any = 1.0) -> MeshSystem:
    return discretize(POISSON, box, {"a": a, "f": f}, boundary=ZERO)


def same(first: MeshSystem, second: MeshSystem) -> bool:
    close = abs(matrix_of(first) - matrix_of(second)).max() < 1e-14
    return bool(close) and torch.allclose(first.right_side, second.right_side, rtol=0, atol=1e-15)


def test_ways_to_give_a_coefficient_agree(box: Mesh) -> None:
    x = box.points[:, 0]
    by_function = entries(box, lambda x, y: 1.0 + x, lambda x, y: 2.0 - x)
    assert same(by_function, entries(box, 1.0 + x, 2.0 - x))
    by_region = entries(box, {"left": 3.0, "rest": 1.0})
    assert same(by_region, entries(box, lambda x, y: torch.where(x < 0.5, 3.0, 1.0).double()))
    assert same(by_region, entries(box, torch.where(box.cell_centres[:, 0] < 0.5, 3.0, 1.0).double()))
    written = discretize(Equation("-div((1 + x)*grad(u)) = 2 - x"), box, boundary=ZERO)
    assert same(by_function, written)


def test_divergence_and_expanded_forms_agree_for_linear_coefficients(box: Mesh) -> None:
    together = discretize(Equation("-div(a*grad(u)) = 1"), box, {"a": lambda x, y: 1.0 + x - 0.3 * y}, boundary=ZERO)
    apart = discretize(
        Equation("-a*laplacian(u) - a_x*u_x - a_y*u_y = 1", unknowns=["u"], coefficients=["a"]),
        box,
        {"a": lambda x, y: 1.0 + x - 0.3 * y},
        boundary=ZERO,
        scheme=FiniteElement(stabilization="none"),
    )
    assert abs(matrix_of(together) - matrix_of(apart)).max() < 1e-13


def test_operator_is_symmetric_with_the_boundary_eliminated(box: Mesh) -> None:
    conditions = {"x_lower": Dirichlet(2.0), "rest": Robin(1.0)}
    system = discretize(POISSON, box, {"a": lambda x, y: 1.0 + x * y, "f": 1.0}, boundary=conditions)
    matrix = matrix_of(system)
    assert abs(matrix - matrix.T).max() == 0.0
    assert system.operator.symmetric and system.definite
    held = box.boundary_points("x_lower")
    diagonal = torch.from_numpy(matrix.diagonal())[held]
    assert abs(matrix[held.numpy()]).sum() == pytest.approx(float(diagonal.sum()))
    torch.testing.assert_close(system.right_side[held], 2.0 * diagonal)
    free = torch.from_numpy(matrix.diagonal())
    assert free[held].max() <= free.max() and free[held].min() > 0.1 * free.max()


def test_sign_of_the_equation_does_not_matter(box: Mesh) -> None:
    plus = discretize(Equation("-laplacian(u) = 1"), box, boundary={"x_lower": ZERO, "rest": Neumann(0.5)})
    minus = discretize(Equation("laplacian(u) = -1"), box, boundary={"x_lower": ZERO, "rest": Neumann(0.5)})
    operator, right_side = minus.with_positive_diagonal()
    assert minus.sign == -1 and minus.definite
    assert torch.equal(operator.to_sparse().values(), plus.operator.to_sparse().values())
    assert torch.equal(right_side, plus.right_side)


def test_null_space_is_one_constant_a_part(box: Mesh) -> None:
    free = discretize(Equation("-laplacian(u) = 0"), box, boundary=Neumann(0.0))
    assert free.operator.null_space is not None and free.operator.null_space.shape == (1, len(box.points))
    assert float(free.operator.apply(free.operator.null_space).abs().max()) < 1e-14
    assert discretize(Equation("-laplacian(u) = 0"), box, boundary=Robin(1.0)).operator.null_space is None
    assert discretize(Equation("-laplacian(u) + u = 0"), box, boundary=Neumann(0.0)).operator.null_space is None


def test_peclet_number_decides_on_stabilization(box: Mesh) -> None:
    def notes(nu: float, **settings: Any) -> str:
        scheme = FiniteElement(**settings)
        equation = Equation("-nu*laplacian(u) + u_x = 0", parameters={"nu": nu})
        return " ".join(discretize(equation, box, boundary=ZERO, scheme=scheme).notes)

    # |b| h / (2 nu) with h = 1/4, the length along b of a cell of this mesh.
    assert "not stabilized (largest element Peclet number 0.125 <= 1)" in notes(1.0)
    assert "streamline-upwind Petrov-Galerkin (largest element Peclet number 12.5 > 1)" in notes(0.01)
    assert "not stabilized (as asked; largest element Peclet number 12.5)" in notes(0.01, stabilization="none")


BOUNDARY_REFUSALS = [
    (None, "a mesh has no conditions of its own"),
    (
        {"x_lower": ZERO},
        r"nothing is said about 12 of 16 facets \(x from 0 to 1, y from 0 to 1\); give a",
    ),
    ({"x_lower": ZERO, "exterior": ZERO}, "4 facets belong to more than one of x_lower, exterior"),
    ({"inlet": ZERO, "rest": ZERO}, "no boundary 'inlet'"),
    (Periodic(), "belongs to the axes of a grid"),
    ({"x_lower": 1.0, "rest": ZERO}, "expected Dirichlet, Neumann or Robin, got 1.0"),
    (Dirichlet(torch.zeros(3, dtype=torch.float64)), r"has shape \(3,\), expected \(\*batch, 25\)"),
    (Neumann(torch.zeros(3, dtype=torch.float64)), r"expected \(\*batch, 16\), one value a facet"),
    (Dirichlet(lambda x: x), "does not take the 2 coordinates"),
    (Dirichlet(torch.zeros(25)), "has dtype torch.float32, the mesh torch.float64"),
]


@pytest.mark.parametrize(("boundary", "message"), BOUNDARY_REFUSALS)
def test_boundary_refusals(box: Mesh, boundary: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        discretize(Equation("-laplacian(u) = 0"), box, boundary=boundary)


FIELD_REFUSALS = [
    (torch.ones(7, dtype=torch.float64), r"field 'a' has shape \(7,\), expected \(\*batch, 25\), one value a point"),
    ({"left": 1.0}, "16 of 32 cells lie in none of the regions left"),
    ({"right": 1.0, "rest": 2.0}, "no region 'right'"),
    (lambda x, y: x - 0.5, "the diffusion coefficient a changes sign: in 16 of 32 cells"),
    ("one", "expected a number, a tensor by point or by cell, a dict by region, or a function"),
]


@pytest.mark.parametrize(("value", "message"), FIELD_REFUSALS)
def test_field_refusals(box: Mesh, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        entries(box, value)


def test_batches_that_do_not_broadcast_are_refused(box: Mesh) -> None:
    three, two = torch.ones(3, 32, dtype=torch.float64), torch.ones(2, 25, dtype=torch.float64)
    with pytest.raises(InputError, match=r"the batch shapes do not broadcast: a \(3,\), f \(2,\)"):
        discretize(POISSON, box, {"a": three, "f": two}, boundary=ZERO)
    with pytest.raises(InputError, match=r"do not broadcast: a \(3,\), boundary of u \(2,\)"):
        discretize(POISSON, box, {"a": three, "f": 1.0}, boundary=Dirichlet(two))
    by_region = {"left": torch.ones(3, dtype=torch.float64), "rest": torch.ones(2, dtype=torch.float64)}
    with pytest.raises(InputError, match=r"do not broadcast: field 'a' in region 'left' \(3,\), field 'a' in region"):
        discretize(POISSON, box, {"a": by_region, "f": 1.0}, boundary=ZERO)
    with pytest.raises(InputError, match=r"field 'a': a tensor of shape \(0, 32\) holds no values"):
        discretize(POISSON, box, {"a": three[:0], "f": 1.0}, boundary=ZERO)


def test_a_part_called_rest_is_not_what_is_left(box: Mesh) -> None:
    named = Mesh(box.points, box.cells, {"rest": box.boundary("x_lower")}, {"rest": torch.arange(4)})
    conditions = {"exterior": ZERO}
    with pytest.raises(InputError, match=r"a boundary called 'rest', .*mesh.with_boundaries.*mesh.boundary\('rest'\)"):
        discretize(Equation("-laplacian(u) = 0"), named, boundary={"rest": ZERO})
    with pytest.raises(InputError, match=r"field 'a': the mesh has a region called 'rest', .*mesh.with_regions"):
        discretize(POISSON, named, {"a": {"rest": 1.0}, "f": 1.0}, boundary=conditions)
    other = named.with_regions({"other": named.region("rest")})
    with pytest.raises(InputError, match="28 of 32 cells lie in none of the regions other"):
        discretize(POISSON, other, {"a": {"other": 1.0}, "f": 1.0}, boundary=conditions)


def test_tensors_that_are_not_elliptic_are_told(box: Mesh) -> None:
    equation = Equation("-div([a*u_x + b*u_y, b*u_x + c*u_y]) = 1")

    def notes(a: Any, b: Any, c: Any) -> str:
        return " ".join(discretize(equation, box, {"a": a, "b": b, "c": c}, boundary=ZERO).notes)

    last = torch.where(torch.arange(32) < 30, 1.0, torch.tensor(-5.0, dtype=torch.float64))
    assert "the diffusion tensor of u is indefinite in 32 of 32 cells" in notes(1.0, 2.0, 1.0)
    assert "indefinite in 2 of 32 cells" in notes(last, 0.0, 1.0)
    for fine in ((2.0, 0.5, 1.0), (-2.0, 0.5, -1.0), (1.0, 1.0, 1.0), (last * 0.0, 0.0, 1.0)):
        assert "indefinite" not in notes(*fine)
    skew = Equation("-div([u_x + 3*u_y, u_y - 3*u_x]) = 1")
    assert "indefinite" not in " ".join(discretize(skew, box, boundary=ZERO).notes)


EQUATION_REFUSALS: list[tuple[Any, dict[str, Any], str]] = [
    ("-laplacian(u) + u**2 = 1", {}, "is not linear in its unknowns.*take discretize_nonlinear"),
    ("-u_xx - u_yy - u_zz = 1", {}, "needs 3 axes, the mesh has 2"),
    ("u_xxx = 1", {}, "derivatives of order 3"),
    ("-a*laplacian(u) = 1", {"a": {"left": 1.0, "rest": 2.0}}, "has no values at the points of the mesh"),
    ("-a*b*laplacian(u) = 1", {"a": {"left": 1.0, "rest": 2.0}, "b": 1.0}, r"coefficient -a\*b has no values at the"),
    ("-laplacian(u) = a_x", {"a": {"left": 1.0, "rest": 2.0}}, "a derivative of field 'a', which is given by cell"),
]


@pytest.mark.parametrize(("text", "fields", "message"), EQUATION_REFUSALS)
def test_equation_refusals(box: Mesh, text: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        discretize(Equation(text, unknowns=["u"], coefficients=list(fields)), box, fields, boundary=ZERO)


def test_factors_outside_of_different_second_derivatives_have_no_flux(box: Mesh) -> None:
    equation = Equation("-2*u_xx - u_yy = 1")
    discretize(equation, box, boundary={"x_lower": ZERO, "rest": Neumann(0.0)})
    with pytest.raises(InputError, match=r"have the factors -2, -1"):
        discretize(equation, box, boundary=Neumann(1.0))


def test_memory_of_a_mesh_ends_with_it() -> None:
    import gc
    import weakref

    mesh = Mesh.box((3, 3), (0.0, 0.0), (1.0, 1.0))
    discretize(Equation("-laplacian(u) = 1"), mesh, boundary=ZERO)
    reference = weakref.ref(mesh)
    del mesh
    gc.collect()
    assert reference() is None


def test_single_precision(unstructured: Callable[..., Mesh]) -> None:
    mesh = unstructured(6, 2)
    equation, conditions = Equation("-laplacian(u) + u_x = x"), {"x_lower": ZERO, "rest": Robin(1.0, 2.0)}
    wide = discretize(equation, mesh, boundary=conditions)
    narrow = discretize(equation, mesh.to(dtype=torch.float32), boundary=conditions)
    assert narrow.right_side.dtype == narrow.operator.dtype == torch.float32
    difference = narrow.operator.to_sparse().values().double() - wide.operator.to_sparse().values()
    assert float(difference.abs().max()) < 1e-5
    torch.testing.assert_close(narrow.right_side.double(), wide.right_side, rtol=1e-5, atol=1e-6)
