"""Relaxation and incomplete factorization, against plain loops over the entries of the matrix."""

from __future__ import annotations

import itertools
import math

import numpy
import pytest
import scipy.sparse.linalg
import torch

import sciml
from sciml.errors import InputError
from sciml.kernels import build
from sciml.solvers.linear import (
    ILU0,
    SOR,
    SSOR,
    Chebyshev,
    ConjugateGradient,
    Direct,
    IncompleteCholesky,
    Jacobi,
    triangular,
)
from sciml.solvers.linear.chebyshev import largest_eigenvalue
from sciml.solvers.linear.colouring import colouring, pattern_colouring, periodic_colouring
from sciml.solvers.linear.incomplete_factorization import IncompleteFactorization
from sciml.solvers.linear.inverse import Entries
from sciml.sparse import as_operator
from sciml.stencil import StencilOperator

NAMES = ["poisson 1D", "poisson 3D", "darcy 2D", "upwind 2D", "fourth order 2D", "coupled", "random general"]


def sweep(matrix, x, b, relaxation, order):
    """One Gauss-Seidel sweep with over-relaxation, unknown after unknown."""
    x = x.copy()
    for i in order:
        x[i] += relaxation * (b[i] - matrix[i] @ x) / matrix[i, i]
    return x


@pytest.mark.parametrize("relaxation", [1.0, 0.7, 1.6])
@pytest.mark.parametrize("ordering", ["natural", "multicolour"])
@pytest.mark.parametrize("name", NAMES)
def test_relaxation_is_the_plain_loop(name, ordering, relaxation, operators):
    operator = operators.named(name)
    matrix = operators.matrix_of(operator).toarray()
    x, b = operators.field(operator.space, seed=1), operators.field(operator.space, seed=2)
    order = numpy.arange(operator.size)
    if ordering == "multicolour":
        order = numpy.argsort(colouring(operator, Entries.of(operator)).numpy(), kind="stable")
    expected = sweep(matrix, x.numpy().reshape(-1), b.numpy().reshape(-1), relaxation, order)
    inverse = SOR(relaxation, ordering).prepare(operator)
    ours = x + inverse.apply(operator.residual(b, x))
    numpy.testing.assert_allclose(ours.numpy().reshape(-1), expected, rtol=1e-11, atol=1e-11)
    expected = sweep(matrix, expected, b.numpy().reshape(-1), relaxation, order[::-1])
    inverse = SSOR(relaxation, ordering).prepare(operator)
    ours = x + inverse.apply(operator.residual(b, x))
    numpy.testing.assert_allclose(ours.numpy().reshape(-1), expected, rtol=1e-10, atol=1e-10)


METHODS = [Jacobi(0.8), SOR(1.2), SOR(1.2, "multicolour"), SSOR(1.2), SSOR(1.2, "multicolour"), ILU0(), Chebyshev(4)]


@pytest.mark.parametrize("method", [*METHODS, Direct()], ids=lambda m: m.describe())
@pytest.mark.parametrize("name", ["darcy 2D", "upwind 2D", "coupled"])
def test_transposes_of_approximate_inverses(method, name, operators):
    operator = operators.named(name)
    prepared = method.prepare(operator)
    inverse = getattr(prepared, "state", prepared)
    x, y = operators.field((3, *operator.space), seed=1), operators.field((3, *operator.space), seed=2)
    there, back = (y * inverse.apply(x)).sum(), (x * inverse.transpose().apply(y)).sum()
    assert float(there) == pytest.approx(float(back), rel=1e-11)


@pytest.mark.parametrize("method", [*METHODS, Direct()], ids=lambda m: m.describe())
def test_approximate_inverses_can_be_differentiated_through(method, operators):
    inverse = method.prepare(operators.darcy(3, 2, batch=(2,)))
    inverse = getattr(inverse, "state", inverse)
    x = operators.field((3, 2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: inverse.apply(x.sin()), (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: inverse.apply(x.sin()), (x,))


@pytest.mark.parametrize("method", [*METHODS, IncompleteCholesky(), Direct()], ids=lambda m: m.describe())
@pytest.mark.parametrize("batch", [(3,), (2, 3), (1,)], ids=str)
def test_batched_approximate_inverses(method, batch, operators):
    """Every shape of batch that broadcasts against the operator's."""
    contrast = torch.rand(*batch, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operator = operators.darcy(6, 7, batch=batch, contrast=contrast)
    inverse = method.prepare(operator)
    singles = {}
    for index in itertools.product(*map(range, batch)):
        single = operator
        for i in index:
            single = single[i]
        singles[index] = method.prepare(single)
    for lead in [(), batch, (4, *batch), (5, *[1] * len(batch)), (4, *batch[:-1], 1)]:
        x = operators.field((*lead, *operator.space), seed=5)
        result = inverse.apply(x)
        shape = torch.broadcast_shapes(lead, batch)
        assert result.shape == (*shape, *operator.space)
        assert result.is_contiguous()
        spread, expected = x.expand(*shape, *operator.space), torch.empty_like(result)
        for index in itertools.product(*map(range, shape)):
            expected[index] = singles[index[len(shape) - len(batch) :] if len(batch) else ()].apply(spread[index])
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-12)
        out = torch.empty_like(result)
        assert inverse.apply(x, out=out) is out
        assert torch.equal(out, result)


def triangular_entries(operator, upper, dtype=torch.float64):
    entries = Entries.of(operator.to(dtype))
    return entries.select(entries.rows <= entries.columns if upper else entries.rows >= entries.columns)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_triangular_solves_agree(upper, columns, dtype, operators, monkeypatch):
    entries = triangular_entries(operators.named("random general"), upper, dtype)
    dense = entries.csr().to_dense()
    b = operators.field((entries.size, columns), seed=3, dtype=dtype)
    bounds = list(range(entries.size + 1))
    solvers = [triangular.BlockTriangle(entries, upper, bounds), triangular.SuperLUTriangle(entries)]
    solvers.append(triangular.triangle(entries, upper=upper))
    monkeypatch.setattr(build, "library", lambda: None)
    solvers.append(triangular.triangle(entries, upper=upper))
    monkeypatch.setattr(triangular, "torch_solves_triangles", lambda device: False)
    assert isinstance(triangular.triangle(entries, upper=upper), triangular.SuperLUTriangle)
    monkeypatch.undo()
    for solver in solvers:
        torch.testing.assert_close(solver.solve(b), torch.linalg.solve(dense, b))
        torch.testing.assert_close(solver.solve_transposed(b), torch.linalg.solve(dense.T, b))


@pytest.mark.skipif(build.library() is None, reason="no C++ compiler")
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("columns", [1, 3])
def test_compiled_triangles_fall_into_the_rows_of_a_batch(upper, columns, operators):
    """Large enough for threads, each of which has rows of its own."""
    entries = triangular_entries(operators.darcy(40, 41, batch=(9,)), upper)
    solver = triangular.triangle(entries, upper=upper)
    assert list(solver.bounds) == [1640 * row for row in range(10)]
    matrix = operators.matrix_of(as_operator(entries.csr()))
    b = operators.field((entries.size, columns), seed=4)
    for ours, a in ((solver.solve(b), matrix), (solver.solve_transposed(b), matrix.T)):
        expected = scipy.sparse.linalg.spsolve_triangular(a.tocsr(), b.numpy(), lower=upper == (a is not matrix))
        numpy.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("upper", [False, True])
def test_a_diagonal_matrix_is_cut_into_few_pieces(upper):
    size = 1000
    diagonal = Entries(torch.arange(size), torch.arange(size), torch.full((size,), 4.0), size)
    solver = triangular.triangle(diagonal, upper=upper)
    assert torch.equal(solver.solve(torch.ones(size, 2)), torch.full((size, 2), 0.25))
    if build.library() is not None:
        assert 2 < len(solver.bounds) <= 66


def valid(colours, entries):
    apart = entries.rows != entries.columns
    return bool((colours[entries.rows[apart]] != colours[entries.columns[apart]]).all())


STENCILS = [
    # offsets reach along axes, diagonals too, space, periodic, colours
    (1, False, (7, 6), (False, False), 2),
    (1, False, (8, 6), (True, False), 2),
    (1, False, (9, 6), (True, False), 3),
    (2, False, (7, 6), (False, False), 3),
    (1, True, (7, 6), (False, False), 4),
    (1, True, (5, 4, 6), (False, False, False), 8),
    (1, False, (7, 11), (True, True), None),
    (1, False, (1, 2), (True, True), 2),
]


@pytest.mark.parametrize(("reach", "diagonals", "space", "periodic", "colours"), STENCILS)
def test_colourings_of_stencils(reach, diagonals, space, periodic, colours):
    box = itertools.product(range(-reach, reach + 1), repeat=len(space))
    offsets = [o for o in box if diagonals or sum(map(abs, o)) == max(map(abs, o))]
    operator = StencilOperator(
        space, offsets, [torch.ones((1,) * len(space), dtype=torch.float64) for _ in offsets], periodic
    )
    entries = Entries.of(operator)
    found = periodic_colouring(operator)
    if colours is None:
        assert found is None
    else:
        assert int(found.max()) + 1 == colours
    assert valid(colouring(operator, entries), entries)


@pytest.mark.parametrize("name", ["poisson CSR", "random general", "coupled"])
def test_colourings_of_patterns(name, operators):
    operator = operators.named(name)
    entries = Entries.of(operator)
    colours = pattern_colouring(entries)
    assert valid(colours, entries)
    degree = int(torch.bincount(torch.cat([entries.rows, entries.columns])).max())
    assert int(colours.max()) < degree
    assert torch.equal(colours, pattern_colouring(entries))


def incomplete_lu(matrix):
    """IKJ elimination (Saad 2003, algorithm 10.4) on a dense array, where the pattern of the matrix allows it."""
    size, factors, pattern = len(matrix), matrix.copy(), matrix != 0
    for i in range(1, size):
        for k in range(i):
            if pattern[i, k]:
                factors[i, k] /= factors[k, k]
                for j in range(k + 1, size):
                    if pattern[i, j]:
                        factors[i, j] -= factors[i, k] * factors[k, j]
    return numpy.tril(factors, -1) + numpy.eye(size), numpy.triu(factors)


@pytest.mark.parametrize("name", NAMES)
def test_ilu_is_elimination_within_the_pattern(name, operators):
    operator = operators.named(name)
    lower, upper = incomplete_lu(operators.matrix_of(operator).toarray())
    r = operators.field(operator.space, seed=1)
    expected = numpy.linalg.solve(upper, numpy.linalg.solve(lower, r.numpy().reshape(-1)))
    ours = ILU0().prepare(operator).apply(r).numpy().reshape(-1)
    numpy.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12 * abs(expected).max())


@pytest.mark.parametrize("seed", range(6))
def test_ilu_on_small_random_patterns(seed):
    """Unsymmetric patterns of every density, whose rows have long chains of dependencies."""
    generator = numpy.random.default_rng(seed)
    size = 14
    matrix = generator.standard_normal((size, size)) * (generator.random((size, size)) < 0.1 + 0.15 * seed)
    matrix[range(size), range(size)] = 4.0 + generator.random(size)
    entries = Entries.of(as_operator(torch.from_numpy(matrix)))
    lower, upper = incomplete_lu(matrix)
    factors = IncompleteFactorization(entries).factorize(entries.values.numpy())
    expected = (lower - numpy.eye(size) + upper)[entries.rows, entries.columns]
    numpy.testing.assert_allclose(factors, expected, rtol=1e-12, atol=1e-14)


def incomplete_cholesky(matrix):
    """Column-oriented IC(0) on a dense array."""
    size, lower = len(matrix), numpy.tril(matrix)
    pattern = lower != 0
    for k in range(size):
        lower[k, k] = math.sqrt(lower[k, k])
        lower[k + 1 :, k] /= lower[k, k]
        for j in range(k + 1, size):
            rows = numpy.flatnonzero(pattern[j:, j]) + j
            lower[rows, j] -= lower[rows, k] * lower[j, k]
    return lower * pattern


@pytest.mark.parametrize("name", ["poisson 1D", "poisson 3D", "darcy 2D", "random symmetric"])
def test_incomplete_cholesky_is_elimination_within_the_pattern(name, operators):
    operator = operators.named(name)
    lower = incomplete_cholesky(operators.matrix_of(operator).toarray())
    r = operators.field(operator.space, seed=1)
    expected = numpy.linalg.solve(lower.T, numpy.linalg.solve(lower, r.numpy().reshape(-1)))
    ours = IncompleteCholesky().prepare(operator).apply(r).numpy().reshape(-1)
    numpy.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12 * abs(expected).max())


def test_iteration_counts_of_incomplete_cholesky(operators):
    """The figures of an independent implementation, for the 255 x 255 five-point Laplacian and a random right side."""
    space = (255, 255)
    offsets = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    values = [torch.full((1, 1), v, dtype=torch.float64) for v in (4.0, -1.0, -1.0, -1.0, -1.0)]
    operator = StencilOperator(space, offsets, values, (False, False), symmetric=True)
    b = operators.field(space)
    for preconditioner, expected in ((None, (636, 880)), (IncompleteCholesky(), (189, 281))):
        history = ConjugateGradient(preconditioner, rtol=1e-10).solve(operator, b).history["residual_norm"]
        for rtol, count in zip((1e-6, 1e-10), expected, strict=True):
            steps = int((history <= rtol * history[0]).nonzero()[0])
            assert abs(steps - count) <= 0.02 * count


def test_incomplete_cholesky_shifts_where_a_pivot_breaks_down(operators):
    """Kershaw's matrix is positive definite, and its incomplete factorization has a negative pivot; row by row."""
    kershaw = torch.tensor([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]], dtype=torch.float64)
    easy = torch.diag(torch.full((4,), 10.0, dtype=torch.float64)) + torch.diag(torch.ones(3).double(), 1)
    easy = easy + torch.diag(torch.ones(3).double(), -1)
    assert float(torch.linalg.eigvalsh(kershaw).min()) > 0
    entries = Entries.of(as_operator(kershaw))
    pattern = IncompleteFactorization(entries)
    assert pattern.factorize(entries.values.numpy())[pattern.pivots].min() < 0
    inverse = IncompleteCholesky().prepare(as_operator(kershaw))
    matrix = inverse.apply(torch.eye(4, dtype=torch.float64))
    assert float(torch.linalg.eigvalsh(0.5 * (matrix + matrix.T)).min()) > 0
    solution = ConjugateGradient(IncompleteCholesky()).solve(kershaw, torch.ones(4, dtype=torch.float64))
    assert solution.converged.all()
    # as one batch: the row that needs no shift gets none
    offsets = [(k,) for k in range(-3, 4)]
    diagonals = [
        torch.stack([torch.nn.functional.pad(m.diagonal(k), (max(-k, 0), max(k, 0))) for m in (easy, kershaw)])
        for k in range(-3, 4)
    ]
    batched = StencilOperator((4,), offsets, diagonals, (False,), symmetric=True)
    r = operators.field((2, 4), seed=1)
    result = IncompleteCholesky().prepare(batched).apply(r)
    torch.testing.assert_close(result[0], torch.linalg.solve(easy, r[0]))
    torch.testing.assert_close(result[1], IncompleteCholesky().prepare(batched[1]).apply(r[1]))


def test_incomplete_cholesky_of_a_singular_operator(operators):
    """In one dimension the factorization is exact, and the last pivot zero."""
    operator = operators.poisson(30, boundary=sciml.Neumann(0.0))
    b = operators.field((30,), seed=1)
    solution = ConjugateGradient(IncompleteCholesky()).solve(operator, b - b.mean())
    assert int(solution.statistics["iterations"]) < 20


def test_factorizations_refuse_what_they_cannot_do(operators):
    with pytest.raises(InputError, match="symmetric operator"):
        IncompleteCholesky().prepare(operators.named("upwind 2D"))
    with pytest.raises(InputError, match="diagonal entries are not positive"):
        IncompleteCholesky().prepare(-1.0 * operators.named("poisson 1D"))
    with pytest.raises(InputError, match=r"shift must be a number in \[0, inf\), got -1.0"):
        IncompleteCholesky(shift=-1.0)
    hollow = torch.tensor([[1.0, 2.0, 0.0], [2.0, 0.0, 1.0], [0.0, 1.0, 1.0]]).to_sparse_csr()
    with pytest.raises(InputError, match="row 1 has no diagonal entry"):
        ILU0().prepare(hollow)
    for method in (Jacobi(), SOR(), SSOR(ordering="multicolour"), Chebyshev()):
        with pytest.raises(InputError, match="1 of its entries are zero"):
            method.prepare(hollow)
    with pytest.raises(InputError, match="zero pivot in row 1"):
        ILU0().prepare(torch.tensor([[1.0, 2.0], [2.0, 4.0]]))
    with pytest.raises(InputError, match="positive diagonal"):
        Chebyshev().prepare(-1.0 * operators.named("poisson 1D"))


@pytest.mark.parametrize("name", ["poisson 2D", "poisson 3D", "darcy 2D", "random symmetric", "upwind 2D", "coupled"])
def test_bounds_of_the_spectrum(name, operators):
    operator = operators.named(name)
    matrix = operators.matrix_of(operator).toarray()
    largest = abs(numpy.linalg.eigvals(matrix / matrix.diagonal()[:, None])).max()
    assert largest <= float(largest_eigenvalue(operator)) <= 1.35 * largest


@pytest.mark.parametrize(("degree", "fraction"), [(1, 0.3), (2, 0.1), (5, 0.05)])
def test_chebyshev_is_the_scaled_chebyshev_polynomial(degree, fraction):
    """I - B A on the eigenvectors of a circulant matrix with unit diagonal, whose eigenvalues are known."""
    size = 24
    weights = [torch.tensor([w], dtype=torch.float64) for w in (1.0, -0.5, -0.5)]
    operator = StencilOperator((size,), [(0,), (1,), (-1,)], weights, (True,), symmetric=True)
    inverse = Chebyshev(degree, fraction).setup(operator)
    upper = float(inverse.upper)
    angles = 2 * math.pi * torch.arange(size // 2 + 1, dtype=torch.float64) / size
    modes = torch.cos(angles[:, None] * torch.arange(size, dtype=torch.float64))
    left = modes - inverse.apply(operator.apply(modes))
    centre, radius = 0.5 * (1 + fraction) * upper, 0.5 * (1 - fraction) * upper
    polynomial = torch.special.chebyshev_polynomial_t((centre - (1 - torch.cos(angles))) / radius, degree)
    polynomial /= torch.special.chebyshev_polynomial_t(torch.tensor(centre / radius, dtype=torch.float64), degree)
    torch.testing.assert_close(left, polynomial[:, None] * modes, rtol=1e-10, atol=1e-12)


def test_relaxation_out_of_range():
    for relaxation in (0.0, 2.0, -1.0, math.nan):
        for method in (SOR, SSOR):
            with pytest.raises(InputError, match=r"relaxation must be a number in \(0, 2\)"):
                method(relaxation)
    with pytest.raises(InputError, match="ordering must be one of"):
        SOR(1.0, "red-black")
    with pytest.raises(InputError, match=r"damping must be a number in \(0, 2\)"):
        Jacobi(2.0)
    for fraction in (0.0, 1.0):
        with pytest.raises(InputError, match=r"fraction must be a number in \(0, 1\)"):
            Chebyshev(fraction=fraction)
