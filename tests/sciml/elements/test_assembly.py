"""Patterns, element matrices and loads against a slow assembly from polynomials."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy
import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sciml import Mesh
from sciml.elements.assembly import MatrixSum, load, load_on_facets
from sciml.elements.geometry import geometry_of
from sciml.elements.pattern import pattern_of
from sciml.elements.quadrature import PointRule

Array = numpy.ndarray


def basis(corners: Array) -> Array:
    """Row a: the constant and the slopes of the basis function of vertex a, by solving for them."""
    return numpy.linalg.inv(numpy.column_stack([numpy.ones(len(corners)), corners])).T


def measure(corners: Array) -> float:
    edges = corners[1:] - corners[0]
    gram = numpy.linalg.det(edges @ edges.T) ** 0.5
    return float(gram / [1, 1, 2, 6][len(edges)])


def slow(mesh: Mesh, kernel: Callable[[Array, float, int], Array]) -> Array:
    """The dense matrix that sums kernel(coefficients of the basis, volume, cell) over the cells."""
    points, cells = mesh.points.numpy(), mesh.cells.numpy()
    matrix = numpy.zeros((len(points), len(points)))
    for number, cell in enumerate(cells):
        local = kernel(basis(points[cell]), measure(points[cell]), number)
        for a, b in product(range(len(cell)), repeat=2):
            matrix[cell[a], cell[b]] += local[a, b]
    return matrix


def dense(mesh: Mesh, entries: Tensor) -> Array:
    pattern = pattern_of(mesh)
    size = (pattern.size, pattern.size)
    return csr_array((entries.numpy(), pattern.columns.numpy(), pattern.starts.numpy()), shape=size).toarray()


@pytest.fixture(params=[2, 3])
def mesh(request: pytest.FixtureRequest, unstructured: Callable[..., Mesh]) -> Mesh:
    return unstructured(4 if request.param == 2 else 3, request.param)


@pytest.fixture
def form(mesh: Mesh) -> MatrixSum:
    return MatrixSum(pattern_of(mesh), geometry_of(mesh))


def test_pattern_has_every_pair_of_points_in_a_cell_once_and_sorted(mesh: Mesh) -> None:
    pattern = pattern_of(mesh)
    wanted = {(i, j) for cell in mesh.cells.tolist() for i, j in product(cell, cell)}
    rows, columns = pattern.entries
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == sorted(wanted)
    assert torch.equal(rows[pattern.transposed], columns)
    assert torch.equal(rows[pattern.diagonal], torch.arange(pattern.size))
    assert torch.equal(columns[pattern.diagonal], torch.arange(pattern.size))
    assert pattern_of(mesh) is pattern


def test_parts_of_a_mesh_that_do_not_touch_are_counted() -> None:
    box = Mesh.box((2, 2), (0.0, 0.0), (1.0, 1.0))
    count = len(box.points)
    both = Mesh(torch.cat([box.points, box.points + 2.0]), torch.cat([box.cells, box.cells + count]))
    number, labels = pattern_of(both).components
    assert number == 2
    assert len(labels[:count].unique()) == len(labels[count:].unique()) == 1


def test_isotropic_diffusion(mesh: Mesh, form: MatrixSum) -> None:
    a = torch.rand(len(mesh.cells), generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    form.add_isotropic(a)
    expected = slow(mesh, lambda c, v, k: float(a[k]) * v * c[:, 1:] @ c[:, 1:].T)
    numpy.testing.assert_allclose(dense(mesh, form.entries(symmetric=True)), expected, atol=1e-13)


@pytest.mark.parametrize("symmetric", [True, False])
def test_tensor_diffusion(mesh: Mesh, form: MatrixSum, symmetric: bool) -> None:
    d = mesh.dimension
    full = numpy.arange(1.0, 1.0 + d * d).reshape(d, d)
    full = full + full.T if symmetric else full
    tensor = {(k, j): float(full[k, j]) for k, j in product(range(d), repeat=2)}
    (form.add_symmetric if symmetric else form.add_tensor)(tensor)
    expected = slow(mesh, lambda c, v, _: v * c[:, 1:] @ full @ c[:, 1:].T)
    numpy.testing.assert_allclose(dense(mesh, form.entries(symmetric=symmetric)), expected, atol=1e-12)


def test_advection_reaction_and_upwinding_together(mesh: Mesh, form: MatrixSum) -> None:
    d = mesh.dimension
    b = numpy.array([1.0, -2.0, 0.5])[:d]
    velocity = {k: float(b[k]) for k in range(d)}
    time = torch.linspace(0.1, 0.3, len(mesh.cells), dtype=torch.float64)
    form.add_advection(velocity)
    form.add_carried({k: 3.0 * speed for k, speed in velocity.items()})
    form.add_reaction(0.7)
    form.add_upwinding(velocity, time, 0.2)
    mass = (numpy.ones((d + 1, d + 1)) + numpy.eye(d + 1)) / ((d + 1) * (d + 2))

    def kernel(c: Array, v: float, k: int) -> Array:
        slopes = c[:, 1:] @ b
        plain = numpy.tile(slopes, (d + 1, 1)) / (d + 1)
        upwind = float(time[k]) * numpy.outer(slopes, slopes + 0.2 / (d + 1))
        return v * (plain - 3.0 * plain.T + 0.7 * mass + upwind)

    numpy.testing.assert_allclose(dense(mesh, form.entries(symmetric=False)), slow(mesh, kernel), atol=1e-13)


def test_facet_masses_and_loads_integrate_polynomials_exactly(mesh: Mesh, form: MatrixSum) -> None:
    part = mesh.boundary("x_upper")
    form.add_on_facets(part, 1.0)
    matrix = dense(mesh, form.entries(symmetric=True))
    y = mesh.points[:, 1].numpy()
    # Over the side x = 1 of the unit square or cube: the integrals of 1, y and y^2.
    numpy.testing.assert_allclose([matrix.sum(), y @ matrix.sum(1), y @ matrix @ y], [1.0, 1 / 2, 1 / 3], rtol=1e-12)
    assert abs(matrix[mesh.points[:, 0].numpy() < 1.0]).max() == 0.0
    vector = load_on_facets(geometry_of(mesh), part, torch.from_numpy(y)[geometry_of(mesh).facets[:, part]], len(y))
    numpy.testing.assert_allclose(vector.numpy(), matrix @ y, atol=1e-14)


def test_loads_and_masses_integrate_polynomials_exactly(mesh: Mesh, form: MatrixSum) -> None:
    pattern, geometry = pattern_of(mesh), geometry_of(mesh)
    form.add_reaction(1.0)
    matrix = dense(mesh, form.entries(symmetric=True))
    x = mesh.points[:, 0]
    assert x.numpy() @ matrix @ x.numpy() == pytest.approx(1 / 3, rel=1e-12)
    numpy.testing.assert_allclose(load(pattern, geometry, x, by_point=True).numpy(), matrix @ x.numpy(), atol=1e-14)
    by_cell = load(pattern, geometry, geometry.on_cells(x), by_point=False)
    assert float(by_cell.sum()) == pytest.approx(0.5, rel=1e-12)
    lumped = MatrixSum(pattern, geometry)
    lumped.add_reaction(1.0, lumped=True)
    numpy.testing.assert_allclose(dense(mesh, lumped.entries(symmetric=True)), numpy.diag(matrix.sum(1)), atol=1e-14)


@pytest.mark.parametrize("lumped", [False, True])
def test_rules_at_points_integrate_as_the_closed_formulas(mesh: Mesh, lumped: bool) -> None:
    pattern, geometry = pattern_of(mesh), geometry_of(mesh)
    vertices = mesh.dimension + 1
    rule = PointRule(vertices, lumped=lumped)
    x = mesh.points[:, 0]
    values = rule.at_points(x[geometry.cells], geometry.on_cells(x))
    square = ((values**2).mean(0) * geometry.volumes).sum()
    tested = pattern.point_sum((rule.tested(values) * geometry.volumes).flatten())
    masses = MatrixSum(pattern, geometry)
    masses.add_reaction(1.0, lumped=lumped)
    matrix = dense(mesh, masses.entries(symmetric=True))
    numpy.testing.assert_allclose(tested.numpy(), matrix @ x.numpy(), atol=1e-14)
    if not lumped:
        assert float(square) == pytest.approx(1 / 3, rel=1e-12)
    by_rule = MatrixSum(pattern, geometry)
    by_rule.add_reaction_at_points(torch.ones(1, len(mesh.cells), dtype=torch.float64), rule)
    numpy.testing.assert_allclose(dense(mesh, by_rule.entries(symmetric=True)), matrix, atol=1e-15)
    # The mean of r at the points, weighted by a basis function, is the derivative of u -> int r u.
    weight = torch.rand(vertices, len(mesh.cells), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weighted = MatrixSum(pattern, geometry)
    weighted.add_reaction_at_points(weight, rule)
    expected = pattern.point_sum((rule.tested(weight * values) * geometry.volumes).flatten())
    numpy.testing.assert_allclose(dense(mesh, weighted.entries(symmetric=True)) @ x.numpy(), expected, atol=1e-15)
    carried, plain = MatrixSum(pattern, geometry), MatrixSum(pattern, geometry)
    carried.add_advection_at_points({0: torch.full((1, len(mesh.cells)), 2.0, dtype=torch.float64)}, rule)
    plain.add_advection({0: 2.0})
    numpy.testing.assert_allclose(
        dense(mesh, carried.entries(symmetric=False)), dense(mesh, plain.entries(symmetric=False)), atol=1e-15
    )


def test_rule_on_facets_integrates_as_the_closed_formula(mesh: Mesh) -> None:
    pattern, geometry = pattern_of(mesh), geometry_of(mesh)
    facets = torch.arange(len(mesh.facets))
    by_rule, plain = MatrixSum(pattern, geometry), MatrixSum(pattern, geometry)
    by_rule.add_at_points_of_facets(torch.ones(1, len(facets), dtype=torch.float64), PointRule(mesh.dimension))
    plain.add_on_facets(facets, 1.0)
    numpy.testing.assert_allclose(
        dense(mesh, by_rule.entries(symmetric=True)), dense(mesh, plain.entries(symmetric=True)), atol=1e-15
    )


def test_tracked_and_plain_sums_agree_and_the_gradient_is_the_transpose(mesh: Mesh) -> None:
    pattern = pattern_of(mesh)
    for total in (pattern.edge_sum, pattern.end_sum, pattern.point_sum):
        values = torch.rand(2, len(total.order), dtype=torch.float64, requires_grad=True)
        tracked = total(values)
        with torch.no_grad():
            torch.testing.assert_close(tracked, total(values), rtol=1e-14, atol=1e-14)
        weights = torch.rand_like(tracked)
        (gradient,) = torch.autograd.grad((tracked * weights).sum(), values)
        assert torch.equal(gradient, weights[:, total.targets])


def test_points_of_the_mesh_carry_gradients() -> None:
    box = Mesh.box((3, 3), (0.0, 0.0), (1.0, 1.0))
    pattern = pattern_of(box)

    def energy(points: Tensor) -> Tensor:
        form = MatrixSum(pattern, geometry_of(Mesh(points, box.cells)))
        form.add_isotropic(1.0)
        return form.entries(symmetric=True).square().sum()

    assert torch.autograd.gradcheck(energy, (box.points.clone().requires_grad_(),))
