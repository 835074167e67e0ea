"""Finite-element matrices that pyamg ships, and the iteration counts of an independent implementation on them."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import scipy.io
import scipy.sparse.linalg
import torch

from sciml.errors import InputError
from sciml.solvers.linear import (
    GMRES,
    ILU0,
    MINRES,
    SSOR,
    BiCGStab,
    Chebyshev,
    ConjugateGradient,
    Direct,
    IncompleteCholesky,
    Jacobi,
)
from sciml.sparse import SparseOperator, as_operator
from sciml.status import Status

pyamg = pytest.importorskip("pyamg")

# Conjugate gradients to 1e-8 alone, with Jacobi, and with IC(0), from a start of zero and a random right side.
COUNTS = {
    "airfoil": (52, 50, 17),
    "bar": (183, 128, 51),
    "knot": (60, 60, 23),
    "unit_cube": (37, 10, 5),
    "local_disc_galerkin_diffusion": (377, 299, 26),
}


def load(name: str) -> tuple[scipy.sparse.csr_array, torch.Tensor]:
    folder = Path(pyamg.__file__).parent / "gallery" / "example_data"
    matrix = scipy.sparse.csr_array(scipy.io.loadmat(folder / f"{name}.mat")["A"]).astype(float)
    b = numpy.random.default_rng(0).standard_normal(matrix.shape[0])
    return matrix, torch.from_numpy(b)


def check(matrix, b, solution):
    assert solution.converged
    residual = numpy.linalg.norm(b.numpy() - matrix @ solution.value.numpy())
    assert residual <= 1.0001e-8 * numpy.linalg.norm(b.numpy())


@pytest.mark.parametrize("name", COUNTS)
def test_iterations_on_symmetric_matrices(name):
    matrix, b = load(name)
    operator = as_operator(matrix)
    assert operator.symmetric
    for preconditioner, expected in zip((None, Jacobi(), IncompleteCholesky()), COUNTS[name], strict=True):
        solution = ConjugateGradient(preconditioner).solve(operator, b)
        check(matrix, b, solution)
        assert abs(int(solution.statistics["iterations"]) - expected) <= max(2, 0.02 * expected)
    for solver in (
        ConjugateGradient(SSOR()),
        ConjugateGradient(SSOR(ordering="multicolour")),
        ConjugateGradient(Chebyshev()),
        MINRES(IncompleteCholesky()),
        BiCGStab(ILU0()),
        Direct(),
    ):
        check(matrix, b, solver.solve(operator, b))


def test_a_recirculating_flow():
    matrix, b = load("recirc_flow")
    operator = as_operator(matrix)
    assert not operator.symmetric
    expected = torch.from_numpy(scipy.sparse.linalg.spsolve(matrix.tocsc(), b.numpy()))
    for solver, limit in ((GMRES(preconditioner=ILU0()), 20), (BiCGStab(ILU0()), 15), (Direct(), 1)):
        solution = solver.solve(operator, b)
        check(matrix, b, solution)
        assert int(solution.statistics["iterations"]) <= limit
        torch.testing.assert_close(solution.value, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="symmetric"):
        ConjugateGradient().prepare(operator)


def test_a_singular_matrix():
    """Pure Neumann conditions: refused or failing where nothing says so, solved where the null space is named."""
    matrix, b = load("unit_square")
    with pytest.raises(InputError, match="singular"):
        Direct().prepare(matrix)
    assert ConjugateGradient().solve(matrix, b, throw=False).status != (Status.CONVERGED,)
    constant = torch.full((1, len(b)), len(b) ** -0.5, dtype=torch.float64)
    operator = SparseOperator(as_operator(matrix).to_sparse(), null_space=constant)
    with pytest.raises(InputError, match="not orthogonal to its null space"):
        Direct().solve(operator, b)
    b = b - b.mean()
    for solver in (ConjugateGradient(IncompleteCholesky()), MINRES(), GMRES(preconditioner=ILU0()), Direct()):
        solution = solver.solve(operator, b)
        check(matrix, b, solution)
        assert abs(float(solution.value.mean())) < 1e-12
