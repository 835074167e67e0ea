"""The systems of the suite `linear`, and the residuals that it reports."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from scipy.sparse.linalg import spsolve

from sciml.benchmarks.linear.problems import Problem, darcy, darcy_coefficient, gaussian_field, poisson, voxels
from sciml.boundary import Neumann, Periodic
from sciml.discretization import discretize
from sciml.equations import Equation
from sciml.grid import Grid

PROBLEMS = {
    "line": lambda: poisson((40,), "cpu"),
    "plane": lambda: poisson((12, 17), "cpu"),
    "space": lambda: poisson((5, 6, 7), "cpu"),
    "voxels": lambda: voxels(12, "cpu", seed=3),
    "Darcy": lambda: darcy(15, "cpu"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_residuals_are_those_of_the_matrix(name: str) -> None:
    problem = PROBLEMS[name]()
    matrix, b = problem.matrix, problem.right_side
    assert matrix.shape == (problem.unknowns, problem.unknowns)
    assert matrix.indices.dtype == numpy.int32
    generator = numpy.random.default_rng(0)
    x = generator.standard_normal(problem.unknowns)
    expected = numpy.linalg.norm(b - matrix @ x) / numpy.linalg.norm(b)
    assert problem.relative_residual(x) == pytest.approx(expected, rel=1e-12)
    exact = spsolve(matrix.tocsc(), b)
    assert problem.relative_residual(exact) < 1e-12
    field = torch.zeros(problem.operator.space, dtype=torch.float64)
    fluid = torch.ones_like(field, dtype=torch.bool) if problem.solid is None else ~problem.solid
    field[fluid] = torch.from_numpy(exact)
    assert problem.relative_residual(field) < 1e-12


def test_the_residual_of_a_batch_is_its_largest() -> None:
    batch = darcy(9, "cpu", seeds=[0, 1, 2])
    assert batch.unknowns == 3 * 81
    x = torch.stack(
        [torch.from_numpy(spsolve(darcy(9, "cpu", [i]).matrix.tocsc(), batch.b[i].numpy().ravel())) for i in range(3)]
    )
    x = x.reshape(3, 9, 9)
    assert batch.relative_residual(x) < 1e-12
    x[1] *= 0.75
    assert batch.relative_residual(x) == pytest.approx(0.25, rel=1e-9)


def test_periodic_neighbours_wrap() -> None:
    sides = {"x": Neumann(0.0), "y": Periodic()}
    system = discretize(Equation("-laplacian(u) + u = f"), Grid((6, 5), boundary=sides), {"f": 0.0})
    b = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problem = Problem(system.operator, b)  # type: ignore[arg-type]
    assert problem.relative_residual(spsolve(problem.matrix.tocsc(), problem.right_side)) < 1e-12


def test_the_same_seed_gives_the_same_problem() -> None:
    for make in (lambda seed: voxels(12, "cpu", seed), lambda seed: darcy(12, "cpu", [seed])):
        first, again, other = make(0), make(0), make(1)
        assert torch.equal(first.b, again.b)
        assert (first.matrix != again.matrix).nnz == 0
        assert not torch.equal(first.b, other.b)


def test_voxels_are_open_on_one_side_only() -> None:
    """Row sums, times h^2, are 2 at the side where u is zero and 0 elsewhere: what leaves through walls is nothing."""
    problem = voxels(16, "cpu", seed=1)
    assert problem.solid is not None
    sums = torch.zeros(problem.operator.space, dtype=torch.float64)
    sums[~problem.solid] = torch.from_numpy(numpy.asarray(problem.matrix.sum(axis=1)).ravel() / 16**2)
    assert sums[1:].abs().max() < 1e-10
    open_side = sums[0][~problem.solid[0]]
    torch.testing.assert_close(open_side, torch.full_like(open_side, 2.0))
    assert 0 < int(problem.solid.sum()) < 16**3 // 4


# The Gaussian random field and the Darcy coefficient


def samples(n: int, count: int) -> numpy.ndarray:
    return numpy.stack([gaussian_field((n, n), seed).numpy() for seed in range(count)])


def test_coefficients_of_the_field_have_the_variances_of_the_covariance() -> None:
    """Projected on the cosines of the unit square, the field's coefficients vary by (pi^2 |k|^2 + 9)^-2."""
    n, count = 16, 4000
    places = (numpy.arange(n) + 0.5) / n
    fields = samples(n, count)
    for k in [(0, 1), (1, 0), (1, 1), (2, 0), (3, 2)]:
        waves = [math.sqrt(2.0 if m else 1.0) * numpy.cos(math.pi * m * places) for m in k]
        found = numpy.einsum("sij,i,j->s", fields, *waves) / n**2
        expected = (math.pi**2 * (k[0] ** 2 + k[1] ** 2) + 9.0) ** -2
        assert found.var() == pytest.approx(expected, rel=4 * math.sqrt(2 / count)), k
        assert abs(found.mean()) < 4 * math.sqrt(expected / count)


def test_the_field_has_zero_mean_and_no_constant() -> None:
    fields = samples(12, 50)
    assert numpy.abs(fields.mean(axis=(1, 2))).max() < 1e-12


def test_the_field_does_not_depend_on_the_resolution_in_law() -> None:
    """The variance at the centre is the same series, cut off where its terms are small."""

    def variance(n: int) -> float:
        k = numpy.arange(n)
        at_centre = numpy.where(k == 0, 1.0, 2.0 * numpy.cos(math.pi * k * (n // 2 + 0.5) / n) ** 2)
        terms = (math.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + 9.0) ** -2.0
        terms[0, 0] = 0.0
        return float(at_centre @ terms @ at_centre)

    for n in (9, 33):
        values = samples(n, 3000)[:, n // 2, n // 2]
        assert values.var() == pytest.approx(variance(n), rel=4 * math.sqrt(2 / 3000))
    assert variance(9) == pytest.approx(variance(33), rel=0.04)


def test_the_darcy_coefficient_takes_two_values_on_about_equal_areas() -> None:
    fields = torch.stack([darcy_coefficient((32, 32), seed) for seed in range(100)])
    assert fields.dtype == torch.float64
    assert set(fields.unique().tolist()) == {3.0, 12.0}
    share = (fields == 12.0).double().mean(dim=(1, 2))
    assert float(share.mean()) == pytest.approx(0.5, abs=4 * float(share.std()) / 10)
    jumps = (fields[:, 1:] != fields[:, :-1]).double().mean()
    assert float(jumps) < 0.1, "neighbours mostly agree: the field is smooth"
