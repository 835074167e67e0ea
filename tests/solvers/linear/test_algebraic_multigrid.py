"""Algebraic multigrid: iterations against pyamg's own cycles, the algebra of the cycle, refusals."""

from __future__ import annotations

import copy
import itertools
import pickle
import sys

import numpy
import pytest
import scipy.sparse
import torch

import sciml
from sciml.errors import InputError
from sciml.kernels import build
from sciml.linear_operator import Kind
from sciml.solvers.linear import GMRES, AlgebraicMultigrid, ConjugateGradient, Direct
from sciml.solvers.linear.algebraic_hierarchy import hierarchy
from sciml.sparse import as_operator

pyamg = pytest.importorskip("pyamg")

KINDS = ["ruge-stuben", "smoothed aggregation"]


def second_difference(n):
    return scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))


def laplacian(*weights, n):
    """-sum w_i u_ii on n points an axis, Dirichlet."""
    eye, total = scipy.sparse.eye_array(n), 0
    for axis, weight in enumerate(weights):
        term = scipy.sparse.eye_array(1)
        for other in range(len(weights)):
            term = scipy.sparse.kron(term, weight * second_difference(n) if other == axis else eye)
        total = total + term
    return scipy.sparse.csr_array(total)


def jumping(n=96, contrast=1e6):
    """-div(a grad u) with a coefficient of two values on squares of 8 x 8 cells, by harmonic means."""
    squares = numpy.random.default_rng(0).random((n // 8, n // 8)) < 0.5
    a = torch.from_numpy(numpy.where(squares, 1.0, contrast).repeat(8, 0).repeat(8, 1))
    operator = sciml.discretize(sciml.Equation("-div(a*grad(u)) = f"), sciml.Grid((n, n)), {"a": a, "f": 0.0}).operator
    tensor = operator.to_sparse()
    parts = (tensor.values().numpy(), tensor.col_indices().numpy(), tensor.crow_indices().numpy())
    return scipy.sparse.csr_array(parts, shape=tuple(tensor.shape))


def tetrahedra(n, seed=0):
    """Linear elements for -laplacian(u) on n^3 cubes of six tetrahedra, inner points shaken, Dirichlet."""
    axis = numpy.linspace(0.0, 1.0, n + 1)
    points = numpy.stack(numpy.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    index = numpy.arange((n + 1) ** 3).reshape(n + 1, n + 1, n + 1)
    corners = [index[i : n + i, j : n + j, k : n + k].ravel() for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    paths = [numpy.cumsum([0, *path]) for path in itertools.permutations([4, 2, 1])]
    cells = numpy.concatenate([numpy.stack([corners[c] for c in path], axis=1) for path in paths])
    inner = ((points > 1e-9) & (points < 1 - 1e-9)).all(axis=1)
    points = points + inner[:, None] * (numpy.random.default_rng(seed).random(points.shape) - 0.5) * 0.4 / n
    edges = points[cells[:, 1:]] - points[cells[:, :1]]
    inverse = numpy.linalg.inv(edges)
    gradients = numpy.concatenate([-inverse.sum(axis=2, keepdims=True), inverse], axis=2)
    entries = numpy.einsum("cdi,cdj,c->cij", gradients, gradients, abs(numpy.linalg.det(edges)) / 6)
    places = (numpy.repeat(cells, 4, axis=1).ravel(), numpy.tile(cells, (1, 4)).ravel())
    matrix = scipy.sparse.coo_array((entries.ravel(), places)).tocsr()
    return scipy.sparse.csr_array(matrix[inner][:, inner])


MATRICES = {
    "plane": lambda: laplacian(1.0, 1.0, n=100),
    "space": lambda: laplacian(1.0, 1.0, 1.0, n=22),
    "anisotropic": lambda: laplacian(100.0, 1.0, n=100),
    "jumping": jumping,
    "tetrahedra": lambda: tetrahedra(24),
}


def iterations(matrix, b, **settings):
    solver = ConjugateGradient(AlgebraicMultigrid(**settings), rtol=1e-8)
    solution = solver.solve(matrix, torch.from_numpy(b))
    assert numpy.linalg.norm(b - matrix @ solution.value.numpy()) <= 1.001e-8 * numpy.linalg.norm(b)
    return int(solution.statistics["iterations"])


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("kind", [*KINDS, None])
def test_needs_as_few_iterations_as_pyamg(name, kind):
    """Against its default cycles, smoothed by symmetric Gauss-Seidel sweeps; for the kind None, the better of both."""
    matrix = MATRICES[name]()
    b = numpy.random.default_rng(1).standard_normal(matrix.shape[0])
    builders = {"ruge-stuben": pyamg.ruge_stuben_solver, "smoothed aggregation": pyamg.smoothed_aggregation_solver}
    theirs = []
    for builder in builders.values() if kind is None else [builders[kind]]:
        residuals = []
        builder(matrix).solve(b, accel="cg", tol=1e-8, maxiter=400, residuals=residuals)
        theirs.append(len(residuals) - 1)
    assert iterations(matrix, b, kind=kind) <= 1.2 * min(theirs) + 2


def test_iterations_do_not_grow_with_the_number_of_unknowns():
    counts = [iterations(matrix, numpy.ones(matrix.shape[0])) for matrix in (tetrahedra(10), tetrahedra(30))]
    assert counts[1] <= counts[0] + 4
    counts = [iterations(matrix, numpy.ones(matrix.shape[0])) for matrix in (laplacian(1, 1, n=n) for n in (40, 160))]
    assert counts[1] <= counts[0] + 1


@pytest.mark.parametrize("cycle", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sweeps", [1, 2])
def test_the_cycle_is_symmetric_positive_definite_and_contracts(kind, cycle, sweeps):
    matrix = tetrahedra(8)
    settings = AlgebraicMultigrid(kind=kind, cycle=cycle, sweeps=sweeps, coarsest=20, precision=None)
    inverse = settings.prepare(matrix)
    assert inverse.kind is Kind.SYMMETRIC_POSITIVE
    dense = inverse.apply(torch.eye(matrix.shape[0], dtype=torch.float64)).numpy()
    numpy.testing.assert_allclose(dense, dense.T, atol=1e-12 * abs(dense).max())
    root = numpy.linalg.cholesky(matrix.toarray())
    spectrum = numpy.linalg.eigvalsh(root.T @ dense @ root)  # of B A
    assert spectrum.min() > 0.3
    # A W-cycle smooths between its two visits by a polynomial that changes sign.
    assert spectrum.max() < (1.0 + 1e-10 if cycle == 1 else 1.1)


@pytest.mark.skipif(build.library() is None, reason="no C++ compiler")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cycle", [1, 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_cycle_equals_the_eager_one(kind, cycle, threads, monkeypatch):
    matrix = tetrahedra(14)
    inverse = AlgebraicMultigrid(kind=kind, cycle=cycle, sweeps=3, precision=None, coarsest=30).prepare(matrix)
    r = torch.randn(2, 3, matrix.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r[1, 1] *= 1e-200
    r[0, 2] = 0.0
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    compiled = torch.empty_like(r)
    product = inverse.state.apply_and_dot(r, compiled)
    torch.set_num_threads(before)
    monkeypatch.setattr(build, "library", lambda: None)
    eager = inverse.apply(r)
    largest = eager.abs().amax(dim=-1, keepdim=True).clamp(min=1e-300)
    torch.testing.assert_close(compiled / largest, eager / largest, rtol=0, atol=1e-12)
    torch.testing.assert_close(product, (r * eager).sum(-1), rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_single_precision_cycles_serve_both_precisions(dtype):
    operator = as_operator(tetrahedra(12)).to(dtype)
    b = torch.ones(operator.size, dtype=dtype)
    solution = ConjugateGradient(AlgebraicMultigrid()).solve(operator, b)
    expected = Direct().solve(operator.to(torch.float64), b.double()).value
    assert float((solution.value - expected).norm() / expected.norm()) < (1e-4 if dtype == torch.float32 else 1e-7)


def test_is_a_solver_itself():
    matrix = laplacian(1.0, 1.0, n=60)
    b = torch.ones(3600, dtype=torch.float64)
    solution = AlgebraicMultigrid().solve(matrix, b)
    assert int(solution.statistics["iterations"]) <= 15
    torch.testing.assert_close(solution.value, Direct().solve(matrix, b).value, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_operators_that_are_not_symmetric(kind, operators):
    operator = operators.advection(48, 47, scheme=sciml.FiniteDifference(2))
    b = operators.field(operator.space, seed=1)
    prepared = AlgebraicMultigrid(kind=kind, precision=None, coarsest=40).prepare(operator)
    assert prepared.kind is Kind.LINEAR
    solution = GMRES(preconditioner=AlgebraicMultigrid(kind=kind)).solve(operator, b)
    assert int(solution.statistics["iterations"]) <= 20
    torch.testing.assert_close(solution.value, Direct().solve(operator, b).value, rtol=1e-5, atol=1e-9)
    x, y = operators.field(operator.space, seed=2), operators.field(operator.space, seed=3)
    there, back = (y * prepared.apply(x)).sum(), (x * prepared.transpose().apply(y)).sum()
    assert float(there) == pytest.approx(float(back), rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_pure_neumann(kind, operators):
    operator = operators.poisson(60, 50, boundary=sciml.Neumann(0.0))
    assert operator.null_space is not None
    exact = operators.field(operator.space, seed=1)
    exact -= exact.mean()
    solution = ConjugateGradient(AlgebraicMultigrid(kind=kind)).solve(operator, operator.apply(exact))
    assert int(solution.statistics["iterations"]) <= 14
    torch.testing.assert_close(solution.value - solution.value.mean(), exact, rtol=0, atol=1e-5)


def elasticity(n):
    """-div(sigma) on bilinear squares, clamped at one side, and its rigid motions; Lame parameters 1 and 1."""
    ends = numpy.array([-1, 1]) / 3**0.5
    corners = numpy.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    stiffness = numpy.array([[3.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
    block = numpy.zeros((8, 8))
    for x, y in itertools.product(ends, ends):
        slopes = corners * (1 + corners[:, ::-1] * [[y, x]]) / 4
        strain = numpy.zeros((3, 8))
        strain[0, ::2], strain[1, 1::2], strain[2, ::2], strain[2, 1::2] = *slopes.T, slopes[:, 1], slopes[:, 0]
        block += strain.T @ stiffness @ strain
    index = numpy.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    cells = numpy.stack([index[i : n + i, j : n + j].ravel() for i in (0, 1) for j in (0, 1)], axis=1)
    cells = (2 * cells[:, :, None] + [0, 1]).reshape(len(cells), 8)
    places = (numpy.repeat(cells, 8, axis=1).ravel(), numpy.tile(cells, (1, 8)).ravel())
    matrix = scipy.sparse.coo_array((numpy.tile(block.ravel(), len(cells)), places)).tocsr()
    x, y = (axis.ravel() / n for axis in numpy.indices((n + 1, n + 1)))
    motions = numpy.zeros((3, 2 * (n + 1) ** 2))
    motions[0, ::2], motions[1, 1::2], motions[2, ::2], motions[2, 1::2] = 1.0, 1.0, -y, x
    assert abs(matrix @ motions.T).max() < 1e-12
    free = 2 * (n + 1)
    return scipy.sparse.csr_array(matrix[free:][:, free:]), torch.from_numpy(motions[:, free:].copy())


def test_rigid_motions_help_elasticity():
    matrix, motions = elasticity(48)
    b = numpy.random.default_rng(0).standard_normal(matrix.shape[0])
    with_them = iterations(matrix, b, near_null_space=motions)
    assert with_them <= 20
    assert with_them <= 0.6 * iterations(matrix, b)


def test_systems_of_several_unknowns_have_a_constant_each(operators):
    operator = operators.named("coupled")
    b = operators.field(operator.space, seed=1)
    solution = GMRES(preconditioner=AlgebraicMultigrid(coarsest=20)).solve(operator, b)
    assert int(solution.statistics["iterations"]) <= 20
    torch.testing.assert_close(solution.value, Direct().solve(operator, b).value, rtol=1e-5, atol=1e-8)


def test_gradients(operators):
    tensor = operators.poisson(9, 8).to_sparse()
    values = tensor.values().clone().requires_grad_()
    b = operators.field((72,), seed=1).requires_grad_()
    solver = ConjugateGradient(AlgebraicMultigrid(coarsest=10), rtol=1e-13)

    def solve(values, b):
        symmetric = sciml.sparse.SparseOperator(tensor, values=values, symmetric=True)
        return solver.solve(symmetric, b).value

    ours = torch.autograd.grad(solve(values, b).square().sum(), (values, b))
    rows = torch.repeat_interleave(torch.arange(72), tensor.crow_indices().diff())
    dense = torch.zeros(72, 72, dtype=torch.float64).index_put((rows, tensor.col_indices().long()), values)
    expected = torch.autograd.grad(torch.linalg.solve(dense, b).square().sum(), (values, b))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cycle_can_be_differentiated_through(kind, operators):
    operator = operators.advection(4, 3)
    inverse = AlgebraicMultigrid(kind=kind, precision=None, coarsest=4).prepare(operator)
    x = operators.field((2, 4, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: inverse.apply(x.sin()), (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: inverse.apply(x.sin()), (x,))


def test_matrices_of_every_origin_are_the_same(operators):
    operator = operators.darcy(20, 21)
    csr, matrix = operator.to_sparse(), operators.matrix_of(operator)
    shuffled = scipy.sparse.coo_array(matrix)
    order = numpy.random.default_rng(0).permutation(shuffled.nnz)
    halves = numpy.concatenate([order, order])
    twice = (numpy.concatenate([0.25 * shuffled.data[order], 0.75 * shuffled.data[order]]), shuffled.coords)
    coo = scipy.sparse.coo_array((twice[0], tuple(c[halves] for c in shuffled.coords)), shape=matrix.shape)
    b = operators.field((420,), seed=1)
    expected = AlgebraicMultigrid(precision=None, coarsest=30).prepare(operator).apply(b.reshape(20, 21)).reshape(-1)
    for other in (csr, csr.to_sparse_coo(), matrix, coo, csr.to_dense()):
        applied = AlgebraicMultigrid(precision=None, coarsest=30).prepare(other).apply(b)
        torch.testing.assert_close(applied, expected, rtol=1e-9, atol=1e-12)


def test_entries_of_the_users_matrix_stay_as_they_are():
    starts, columns = torch.tensor([0, 2, 4]), torch.tensor([1, 0, 1, 0])  # out of order
    values = torch.tensor([-1.0, 2.0, 2.0, -1.0], dtype=torch.float64)
    matrix = torch.sparse_csr_tensor(starts, columns, values.clone(), (2, 2))
    AlgebraicMultigrid(coarsest=1).prepare(matrix)
    assert torch.equal(matrix.values(), values)
    assert torch.equal(matrix.col_indices(), columns)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies(copied, operators):
    matrix, b = laplacian(1.0, 1.0, n=30), operators.field((900,), seed=1)
    prepared = ConjugateGradient(AlgebraicMultigrid(coarsest=30)).prepare(matrix)
    torch.testing.assert_close(copied(prepared).solve(b).value, prepared.solve(b).value, rtol=0, atol=0)
    inverse = AlgebraicMultigrid(coarsest=30).prepare(operators.advection(12, 13)).state
    x = operators.field((12, 13), seed=2)
    for one in (inverse, inverse.transpose()):
        torch.testing.assert_close(copied(one).apply(x), one.apply(x), rtol=0, atol=0)


def test_set_up_leaves_random_numbers_alone_and_is_the_same_every_time():
    matrix, b = tetrahedra(10), torch.ones(9**3, dtype=torch.float64)
    numpy.random.seed(3)
    expected = numpy.random.random()
    numpy.random.seed(3)
    results = [AlgebraicMultigrid(kind=kind, coarsest=30).prepare(matrix).apply(b) for kind in (*KINDS, *KINDS)]
    assert numpy.random.random() == expected
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 5, 700])
@pytest.mark.parametrize("compiled", [True, False])
def test_matrices_without_couplings(kind, size, compiled, monkeypatch):
    """Nothing can be coarsened: smoothing, or the dense inverse, does it all."""
    if not compiled:
        monkeypatch.setattr(build, "library", lambda: None)
    diagonal = numpy.linspace(1.0, 1e6, size)
    matrix = scipy.sparse.diags_array(diagonal).tocsr()
    for coarsest in (300, 10):
        solver = ConjugateGradient(AlgebraicMultigrid(kind=kind, coarsest=coarsest))
        solution = solver.solve(matrix, torch.ones(size, dtype=torch.float64))
        assert int(solution.statistics["iterations"]) <= 2
        numpy.testing.assert_allclose(solution.value.numpy(), 1 / diagonal, rtol=1e-7)


def test_the_kind_follows_the_signs_of_the_couplings():
    for name, split in (("plane", True), ("jumping", True), ("tetrahedra", False)):
        matrix = MATRICES[name]()
        steps, _ = hierarchy(matrix, True, None, None, None, 300)
        first = steps[0].prolongation
        # Ruge-Stuben keeps unknowns: a row of the prolongation for each of them is a unit vector.
        kept = int(((numpy.diff(first.indptr) == 1) & (numpy.add.reduceat(first.data, first.indptr[:-1]) == 1.0)).sum())
        assert (kept >= first.shape[1]) == split


REFUSED = [
    ({"kind": "classical"}, "kind must be one of 'ruge-stuben', 'smoothed aggregation', got 'classical'"),
    ({"strength": 1.0}, r"strength must be a number in \[0, 1\), got 1.0"),
    ({"sweeps": 0}, "sweeps must be a whole number of at least 1, got 0"),
    ({"coarsest": 1.5}, "coarsest must be a whole number of at least 1, got 1.5"),
    ({"cycle": 3}, r"cycle must be 1 \(V\) or 2 \(W\), got 3"),
    ({"precision": torch.float16}, "precision must be torch.float32"),
    ({"smoothing_interval": 0.0}, r"smoothing_interval must be a number in \(0, 1\)"),
    ({"near_null_space": [1.0]}, "near_null_space must be a tensor or None, got list"),
    ({"kind": "ruge-stuben", "near_null_space": torch.ones(1, 4)}, "near_null_space is for smoothed aggregation"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        AlgebraicMultigrid(**settings)


def test_operators_that_do_not_fit_are_refused(operators, monkeypatch):
    with pytest.raises(InputError, match=r"batch \(3,\) of operators.*operator\[i\]"):
        AlgebraicMultigrid().prepare(operators.darcy(6, 5, batch=(3,)))
    with pytest.raises(InputError, match="36 of its 36 entries are not positive: use -A"):
        AlgebraicMultigrid().prepare(-1.0 * operators.poisson(6, 6))
    with pytest.raises(InputError, match=r"near_null_space has shape \(36,\), expected \(k, \*\(36,\)\)"):
        AlgebraicMultigrid(near_null_space=torch.ones(36)).prepare(operators.poisson(6, 6).to_sparse())
    monkeypatch.setitem(sys.modules, "pyamg", None)
    for kind in KINDS:
        with pytest.raises(InputError, match="needs pyamg for its set-up: pip install pyamg"):
            AlgebraicMultigrid(kind=kind).prepare(operators.poisson(6, 6))
