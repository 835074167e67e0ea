"""The compiled incomplete factorizations, against elimination level by level and against dense loops."""

from __future__ import annotations

import math

import numpy
import pytest
import scipy.sparse
import torch

from sciml.csr import csr_from_starts
from sciml.errors import InputError
from sciml.kernels import build, factorization
from sciml.linear_operator import LinearOperator
from sciml.solvers.linear import GMRES, ILU0, ConjugateGradient, IncompleteCholesky
from sciml.solvers.linear.incomplete_factorization import IncompleteFactorization, matrix_of
from sciml.solvers.linear.inverse import Entries
from sciml.sparse import as_operator
from sciml.stencil import StencilOperator

pytestmark = pytest.mark.skipif(build.library() is None, reason="no C++ compiler")

SYMMETRIC = ["poisson 1D", "poisson 2D", "poisson 3D", "darcy 2D", "poisson CSR", "random symmetric"]
GENERAL = ["upwind 2D", "fourth order 2D", "coupled", "random general"]
TYPES = [torch.float32, torch.float64]


def uncompiled(make, monkeypatch):
    """What `make` makes without the kernels."""
    with monkeypatch.context() as patch:
        patch.setattr(build, "library", lambda: None)
        return make()


def dense_cholesky(matrix):
    """IC(0) by its definition: L in the pattern of the lower triangle, L L^T = A there."""
    lower = numpy.zeros_like(matrix)
    for i in range(len(matrix)):
        for j in numpy.flatnonzero(matrix[i, :i]):
            lower[i, j] = (matrix[i, j] - lower[i, :j] @ lower[j, :j]) / lower[j, j]
        lower[i, i] = math.sqrt(matrix[i, i] - lower[i, :i] @ lower[i, :i])
    return lower


def dense_lu(matrix):
    """ILU(0) by its definition: L and U in the pattern of A, L U = A there."""
    lower, upper = numpy.eye(len(matrix)), numpy.zeros_like(matrix)
    for i in range(len(matrix)):
        for j in numpy.flatnonzero(matrix[i]):
            if j < i:
                lower[i, j] = (matrix[i, j] - lower[i, :j] @ upper[:j, j]) / upper[j, j]
            else:
                upper[i, j] = matrix[i, j] - lower[i, :i] @ upper[:i, j]
    return lower, upper


def compiled_cholesky(operator: LinearOperator):
    lower = matrix_of(operator, lower=True)
    assert not isinstance(lower, Entries)
    systems = max(1, math.prod(operator.batch))
    factor = torch.zeros(len(lower.values()), dtype=torch.float64)
    zero, all_of_them = torch.zeros(systems, dtype=torch.float64), torch.ones(systems, dtype=torch.bool)
    failed = factorization.incomplete_cholesky(lower, zero, 1e-8, factor, all_of_them)
    return lower, factor, failed


def compiled_lu(operator: LinearOperator):
    matrix = matrix_of(operator)
    assert not isinstance(matrix, Entries)
    diagonal = factorization.diagonal_places(matrix)
    factors, bad = factorization.incomplete_lu(matrix, diagonal, max(1, math.prod(operator.batch)))
    return matrix, diagonal, factors, bad


def dense(parts, size):
    starts, columns, values = (part.numpy() for part in parts)
    return scipy.sparse.csr_array((values, columns, starts), shape=(size, size)).toarray()


def parts_of(matrix):
    return matrix.crow_indices(), matrix.col_indices(), matrix.values()


@pytest.mark.parametrize("seed", range(5))
def test_factors_of_random_matrices_are_those_of_the_definition(seed):
    generator = numpy.random.default_rng(seed)
    size = 24
    matrix = generator.standard_normal((size, size)) * (generator.random((size, size)) < 0.05 + 0.2 * seed)
    matrix[range(size), range(size)] = 6.0 + abs(matrix).sum(1)
    pattern, diagonal, factors, bad = compiled_lu(as_operator(torch.from_numpy(matrix)))
    assert bad.tolist() == [-1]
    for ours, expected in zip(factorization.split_factors(pattern, diagonal, factors), dense_lu(matrix), strict=True):
        numpy.testing.assert_allclose(dense(ours, size), expected, rtol=1e-13, atol=1e-15)
    matrix = matrix + matrix.T
    lower, factor, failed = compiled_cholesky(as_operator(torch.from_numpy(matrix)))
    assert not failed.any()
    ours = dense((*parts_of(lower)[:2], factor), size)
    numpy.testing.assert_allclose(ours, dense_cholesky(matrix), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", SYMMETRIC + GENERAL)
def test_factors_are_those_of_elimination_by_levels(name, dtype, operators):
    operator = operators.named(name).to(dtype)
    entries = Entries.of(operator)
    pattern = IncompleteFactorization(entries)
    expected = pattern.factorize(entries.values.double().numpy())
    matrix, _, factors, bad = compiled_lu(operator)
    assert bad.tolist() == [-1]
    numpy.testing.assert_array_equal(matrix.col_indices().numpy(), entries.columns.numpy())
    numpy.testing.assert_allclose(factors.numpy(), expected, rtol=1e-12, atol=1e-12 * abs(expected).max())
    if name in SYMMETRIC:
        _, factor, failed = compiled_cholesky(operator)
        assert not failed.any()
        root = numpy.sqrt(expected[pattern.pivots])
        expected[pattern.lower] *= root[pattern.columns[pattern.lower]]
        expected[pattern.pivots] = root
        below = expected[pattern.columns <= pattern.rows]
        # the levels read the upper triangle, which equals the lower one to the rounding of its type
        rounding = 1e-12 if dtype == torch.float64 else 1e-6
        numpy.testing.assert_allclose(factor.numpy(), below, rtol=rounding, atol=rounding * below.max())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("method", "name"),
    [(IncompleteCholesky(), name) for name in [*SYMMETRIC, "batch"]]
    + [(IncompleteCholesky(shift=0.1), "darcy 2D")]
    + [(ILU0(), name) for name in ["darcy 2D", *GENERAL, "batch"]],
    ids=str,
)
def test_inverses_are_those_without_kernels(method, name, dtype, operators, monkeypatch):
    operator = operators.darcy(9, 8, batch=(2, 3)) if name == "batch" else operators.named(name)
    operator = operator.to(dtype)
    ours = method.prepare(operator)
    expected = uncompiled(lambda: method.prepare(operator), monkeypatch)
    r = operators.field((4, *operator.batch, *operator.space), seed=2, dtype=dtype)
    torch.testing.assert_close(ours.apply(r), expected.apply(r))
    torch.testing.assert_close(ours.transpose().apply(r), expected.transpose().apply(r))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_is_factorized_as_each_of_its_matrices(threads, operators):
    """Large enough for threads, each of which has matrices of its own."""
    operator = operators.darcy(40, 41, batch=(7,))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _, together, failed = compiled_cholesky(operator)
        _, _, lu, bad = compiled_lu(operator)
    finally:
        torch.set_num_threads(before)
    assert not failed.any()
    assert bad.tolist() == [-1] * 7
    assert torch.equal(together, torch.cat([compiled_cholesky(operator[row])[1] for row in range(7)]))
    assert torch.equal(lu, torch.cat([compiled_lu(operator[row])[2] for row in range(7)]))


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    ("space", "periodic"),
    [
        ((6,), (True,)),
        ((5, 4), (True, False)),
        ((2, 3), (True, True)),
        ((3, 1, 4), (False, True, True)),
        ((1,), (True,)),
    ],
)
def test_rows_of_stencils(space, periodic, lower, operators):
    """Neighbours that wrap are out of order, and on short axes several terms share a place; coefficients broadcast."""
    dimension = len(space)
    generator = numpy.random.default_rng(3)
    offsets = [tuple(int(o) for o in generator.integers(-3, 4, dimension)) for _ in range(9)] + [(0,) * dimension]
    shapes = [space, (1,) * dimension, (2, *space), (2, *space[:-1], 1), (2, 1, *space)]
    coefficients = [operators.field(shapes[k % 5], seed=k) for k in range(10)]
    operator = StencilOperator(space, offsets, coefficients, periodic)
    assert operator.batch == (2, 2)
    entries = Entries.of(operator)
    expected = entries.select(entries.columns <= entries.rows) if lower else entries
    ours = matrix_of(operator, lower=lower)
    assert not isinstance(ours, Entries)
    reference = expected.csr()
    assert torch.equal(ours.crow_indices(), reference.crow_indices())
    assert torch.equal(ours.col_indices(), reference.col_indices())
    torch.testing.assert_close(ours.values(), reference.values(), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", ["darcy 2D", "poisson 3D", "random symmetric", "upwind 2D", "random general"])
def test_iteration_counts_are_those_without_kernels(name, operators, monkeypatch):
    operator = operators.named(name)
    method = ConjugateGradient(IncompleteCholesky()) if operator.symmetric else GMRES(preconditioner=ILU0())
    b = operators.field(operator.space, seed=4)

    def iterations():
        return int(method.solve(operator, b).statistics["iterations"])

    assert iterations() == uncompiled(iterations, monkeypatch)


def kershaw_and_others():
    """Three matrices as a batch of stencils: only Kershaw's, in the middle, has a negative pivot."""
    kershaw = torch.tensor([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]], dtype=torch.float64)
    easy = torch.diag(torch.full((4,), 10.0, dtype=torch.float64)) + kershaw.triu(1) + kershaw.tril(-1)
    matrices = torch.stack([easy, kershaw, 2 * easy])
    offsets = (-3, -1, 0, 1, 3)  # nothing stands two off the diagonal, and fill there is dropped
    diagonals = [
        torch.stack([torch.nn.functional.pad(m.diagonal(k), (max(-k, 0), max(k, 0))) for m in matrices])
        for k in offsets
    ]
    return matrices, StencilOperator((4,), [(k,) for k in offsets], diagonals, (False,), symmetric=True)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_shift_is_found_matrix_by_matrix(dtype, operators, monkeypatch):
    """The first of 0, 0.001, 0.002, 0.004 ... for which the pivots are positive, for the matrix that needs one."""
    matrices, operator = kershaw_and_others()
    operator = operator.to(dtype)
    _, _, failed = compiled_cholesky(operator)
    assert failed.tolist() == [False, True, False]
    ours = IncompleteCholesky().prepare(operator)
    r = operators.field((3, 4), seed=1, dtype=dtype)
    expected = uncompiled(lambda: IncompleteCholesky().prepare(operator), monkeypatch)
    torch.testing.assert_close(ours.apply(r), expected.apply(r))
    shift, factor = 0.001, None
    while factor is None:
        shifted = matrices[1] + shift * torch.diag(matrices[1].diagonal())
        try:
            factor = dense_cholesky(shifted.numpy())
        except ValueError:  # the root of a negative pivot
            shift *= 2
    inverse = torch.from_numpy(numpy.linalg.inv(factor @ factor.T)).to(dtype)
    torch.testing.assert_close(ours.apply(r)[1], inverse @ r[1])


@pytest.mark.parametrize("compiled", [True, False])
def test_what_cannot_be_factorized(compiled, operators, monkeypatch):
    """The same refusals with and without the kernels."""
    if not compiled:
        monkeypatch.setattr(build, "library", lambda: None)
    far = torch.tensor([[1.0, 1e4], [1e4, 1.0]])
    with pytest.raises(InputError, match="not positive even with a large shift: the operator is far from positive"):
        IncompleteCholesky().prepare(far)
    for hollow, bad in (
        (torch.tensor([[0.0, 1.0], [1.0, 2.0]]), 1),
        (torch.diag(torch.tensor([-1.0, 2.0, -3.0])), 2),
        (torch.zeros(3, 3), 3),
        (torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), 2),
    ):
        with pytest.raises(InputError, match=f"{bad} of its diagonal entries are not positive"):
            IncompleteCholesky().prepare(hollow)
    with pytest.raises(InputError, match=r"row 1 has no diagonal entry \(2 such rows\)"):
        ILU0().prepare(torch.tensor([[1.0, 2.0, 0.0], [2.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    with pytest.raises(InputError, match="zero pivot in row 2:"):
        ILU0().prepare(torch.tensor([[2.0, 0, 0, 0], [0, 1.0, 3.0, 0], [0, 2.0, 6.0, 1.0], [0, 0, 1.0, 1.0]]))
    one = torch.ones(3, 2, dtype=torch.float64)
    two = torch.stack([2 * one[0], one[0], one[0]])
    singular = StencilOperator((2,), [(0,), (1,), (-1,)], [two, one, one], (False,), symmetric=True)
    with pytest.raises(InputError, match="zero pivot in row 1 of system 1:"):
        ILU0().prepare(singular)
    broken = operators.darcy(6, 5)
    spoilt = [c.clone() for c in broken.coefficients]
    spoilt[broken.offsets.index((0, 0))].view(-1)[7] = math.nan
    for method in (IncompleteCholesky(), ILU0()):
        with pytest.raises(InputError, match="the operator holds 1 entries that are NaN or infinite"):
            method.prepare(StencilOperator((6, 5), broken.offsets, spoilt, broken.periodic, symmetric=True))


def test_entries_in_any_order(operators):
    """A CSR tensor whose columns do not ascend, or name a place twice, is the matrix with them in order."""
    matrix = operators.random_matrix(60, symmetric=True)
    order = numpy.concatenate(
        [numpy.arange(a, b)[::-1] for a, b in zip(matrix.indptr, matrix.indptr[1:], strict=False)]
    )
    starts, columns, values = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    turned = csr_from_starts(starts, columns[order], values[order], matrix.shape)
    halves = (2 * starts, columns.repeat_interleave(2), 0.5 * values.repeat_interleave(2))
    twice = csr_from_starts(*halves, matrix.shape)
    r = operators.field((60,), seed=3)
    for method in (IncompleteCholesky(), ILU0()):
        expected = method.prepare(matrix).apply(r)
        for other in (turned, twice):
            torch.testing.assert_close(method.prepare(other).apply(r), expected, rtol=1e-12, atol=1e-14)


def test_a_coefficient_beyond_the_edge_is_no_entry(operators):
    """What a coefficient holds where there is no neighbour does not matter, NaN included."""
    diagonal, beside = operators.field((8,), seed=1).abs() + 3.0, -torch.ones(8, dtype=torch.float64)
    right, left = beside.clone(), beside.clone()
    right[-1] = left[0] = math.nan
    spoilt = StencilOperator((8,), [(0,), (1,), (-1,)], [diagonal, right, left], (False,), symmetric=True)
    whole = StencilOperator((8,), [(0,), (1,), (-1,)], [diagonal, beside, beside], (False,), symmetric=True)
    r = operators.field((8,), seed=2)
    for method in (IncompleteCholesky(), ILU0()):
        torch.testing.assert_close(method.prepare(spoilt).apply(r), method.prepare(whole).apply(r))
