"""Input that is refused, and systems that a method cannot solve: what it says, and what becomes of the other rows."""

from __future__ import annotations

import math

import pytest
import torch

import sciml
from sciml.errors import InputError, SolveError
from sciml.linear_operator import BlockOperator, Identity
from sciml.solvers.linear import (
    GMRES,
    ILU0,
    MINRES,
    SOR,
    BiCGStab,
    Chebyshev,
    ConjugateGradient,
    Direct,
    FlexibleConjugateGradient,
    IncompleteCholesky,
    Jacobi,
)
from sciml.sparse import SparseOperator, as_operator
from sciml.status import Status
from sciml.stencil import StencilOperator

ALL = [ConjugateGradient(), FlexibleConjugateGradient(), MINRES(), GMRES(), BiCGStab(), Jacobi(), SOR(), Direct()]


def name(value):
    return value.describe() if hasattr(value, "describe") else None


def diagonal(*rows: list[float]) -> StencilOperator:
    """A batch of diagonal matrices."""
    return StencilOperator((len(rows[0]),), [(0,)], [torch.tensor(rows, dtype=torch.float64)], (False,), symmetric=True)


@pytest.mark.parametrize("solver", ALL, ids=name)
def test_refused_right_sides(solver, operators):
    operator = operators.poisson(5, 4)
    prepared = solver.prepare(operator)
    good = torch.ones(5, 4, dtype=torch.float64)
    bad = good.clone()
    bad[2, 1] = math.nan
    for b, message in [
        (bad, "1 NaN or infinite"),
        (torch.ones(4, 5, dtype=torch.float64), r"expected \(\*batch, \*\(5, 4\)\)"),
        (torch.ones(4, dtype=torch.float64), r"expected \(\*batch"),
        (good.float(), "float32 on cpu, the operator torch.float64"),
        (good.numpy(), "must be a tensor"),
    ]:
        with pytest.raises(InputError, match=message):
            prepared.solve(b)
    with pytest.raises(InputError, match="the start x0 has shape"):
        prepared.solve(good, x0=torch.ones(3, dtype=torch.float64))
    with pytest.raises(InputError, match=r"the start x0.*NaN"):
        prepared.solve(good, x0=bad)


def test_refused_matrices():
    for matrix, message in [
        (torch.ones(3, 2), "square"),
        (torch.ones(3, 3, dtype=torch.complex64), "real floating-point"),
        (torch.tensor([[1.0, math.inf], [0.0, 1.0]]), "1 entries that are NaN or infinite"),
        ([[1.0]], "expected a LinearOperator"),
        (torch.ones(3), "square"),
    ]:
        for solver in (GMRES(), Direct(), ILU0()):
            with pytest.raises(InputError, match=message):
                solver.prepare(matrix)


def test_an_operator_that_is_not_a_number():
    """Refused by every method, whatever the operator is made of."""
    stencil = diagonal([1.0, math.nan, 2.0], [1.0, 2.0, 3.0])
    for method in (*ALL, ILU0(), IncompleteCholesky()):
        with pytest.raises(InputError, match="the operator holds 1 entries that are NaN or infinite"):
            method.prepare(stencil)
    good = Identity((3,), torch.float64)
    values = torch.tensor([1.0, math.inf, -math.inf], dtype=torch.float64)
    sparse = SparseOperator(torch.eye(3, dtype=torch.float64).to_sparse_csr(), values=values)
    block = BlockOperator([[good, stencil[0]], [None, good]])
    scaled = torch.tensor([1.0, math.nan], dtype=torch.float64) * good
    for operator, count in [
        (sparse, 2),
        (good + sparse, 2),
        (stencil @ good, 1),
        (block, 1),
        (scaled, 1),
        (math.inf * good, 1),
    ]:
        with pytest.raises(InputError, match=f"the operator holds {count} entries that are NaN or infinite"):
            GMRES().prepare(operator)


def test_large_finite_entries_are_no_infinity():
    """Whose sum overflows."""
    ConjugateGradient().prepare(diagonal([1e308, 1e308, 1e308]))


@pytest.mark.parametrize("solver", [ConjugateGradient(), FlexibleConjugateGradient(), MINRES()], ids=name)
def test_methods_for_symmetric_operators_refuse_others(solver, operators):
    with pytest.raises(InputError, match=r"need.* a symmetric operator.*use GMRES or BiCGStab"):
        solver.prepare(operators.named("upwind 2D"))


def test_preconditioners_that_do_not_fit(operators):
    operator = operators.named("poisson 2D")
    changing = ConjugateGradient(rtol=0.1)
    for method, message in [(ConjugateGradient, "FlexibleConjugateGradient"), (MINRES, "GMRES"), (BiCGStab, "GMRES")]:
        with pytest.raises(InputError, match=f"nonlinear: use {message}"):
            method(changing).prepare(operator)
    for method in (ConjugateGradient, MINRES):
        with pytest.raises(InputError, match="this one is linear"):
            method(SOR()).prepare(operator)
    b = operators.field(operator.space)
    for solver in (FlexibleConjugateGradient(changing), GMRES(preconditioner=changing)):
        assert solver.solve(operator, b).converged
    for wrong in (Jacobi, "jacobi", 3):
        with pytest.raises(InputError, match="preconditioner must be None or an object with prepare"):
            GMRES(preconditioner=wrong)


def test_settings_out_of_range():
    for make, message in [
        (lambda: ConjugateGradient(rtol=1.0), r"rtol must be a number in \[0, 1\), got 1.0"),
        (lambda: GMRES(rtol=math.nan), r"rtol must be a number in \[0, 1\), got nan"),
        (lambda: MINRES(atol=-1.0), r"atol must be a number in \[0, inf\)"),
        (lambda: BiCGStab(max_iterations=0), "max_iterations must be a whole number of at least 1, got 0"),
        (lambda: Jacobi(max_iterations=2.5), "max_iterations must be a whole number of at least 1, got 2.5"),
        (lambda: Direct(max_iterations=True), "max_iterations must be a whole number of at least 1, got True"),
        (lambda: GMRES(restart=0), "GMRES: restart must be a whole number of at least 1, got 0"),
        (lambda: GMRES(restart=2.5), "GMRES: restart must be a whole number of at least 1, got 2.5"),
        (lambda: GMRES(restart="3"), "GMRES: restart must be a whole number of at least 1, got '3'"),
        (lambda: Chebyshev(degree=2.5), "Chebyshev: degree must be a whole number of at least 1, got 2.5"),
    ]:
        with pytest.raises(InputError, match=message):
            make()


@pytest.mark.parametrize("solver", [ConjugateGradient(), FlexibleConjugateGradient()], ids=name)
def test_an_indefinite_matrix_given_to_conjugate_gradients(solver, operators):
    operator = operators.named("indefinite 2D")
    b = operators.field(operator.space)
    with pytest.raises(SolveError, match=r"INDEFINITE.*use MINRES") as failure:
        solver.solve(operator, b)
    assert failure.value.solution.status == (Status.INDEFINITE,)
    assert bool(torch.isfinite(failure.value.solution.value).all())
    assert MINRES().solve(operator, b).converged


def test_one_row_fails_and_the_others_are_solved(operators):
    """Definite, indefinite, slow, definite: each ends its own way; values and counts of the good rows are their own."""
    rows = [[1.0, 2.0, 3.0, 4.0], [1.0, -2.0, 3.0, 4.0], [1.0, 1e3, 1e6, 1e9], [5.0, 5.0, 5.0, 5.0]]
    operator, b = diagonal(*rows), torch.ones(4, dtype=torch.float64)
    solution = ConjugateGradient(max_iterations=4).solve(operator, b, throw=False)
    status = (Status.CONVERGED, Status.INDEFINITE, Status.MAX_ITERATIONS, Status.CONVERGED)
    assert solution.status == status
    assert [int(solution.statistics["iterations"][row]) for row in (0, 3)] == [4, 1]
    for row in (0, 3):
        torch.testing.assert_close(solution.value[row], b / torch.tensor(rows[row], dtype=torch.float64))
    with pytest.raises(SolveError, match=r"row 1 \(2 of 4 rows failed\) ended with INDEFINITE") as failure:
        ConjugateGradient(max_iterations=4).solve(operator, b)
    assert failure.value.solution.status == status
    assert "MINRES" in solution.status[1].advice and "max_iterations" in solution.status[2].advice


@pytest.mark.parametrize(
    "solver",
    [
        ConjugateGradient(),
        FlexibleConjugateGradient(GMRES(rtol=0.1)),
        MINRES(),
        GMRES(),
        GMRES(preconditioner=ConjugateGradient(rtol=0.1)),
        BiCGStab(),
        Jacobi(),
        Direct(),
    ],
    ids=name,
)
def test_a_row_that_overflows_leaves_the_others_alone(solver):
    operator = diagonal([1e200, 1e-200, 1.0], [1.0, 2.0, 3.0], [1e300, 1e300, 1e308])
    solution = solver.solve(operator, torch.ones(3, dtype=torch.float64), throw=False)
    assert solution.status[1] is Status.CONVERGED
    torch.testing.assert_close(solution.value[1], torch.tensor([1.0, 1 / 2, 1 / 3], dtype=torch.float64))


@pytest.mark.parametrize("solver", [ConjugateGradient(), MINRES(), GMRES(), BiCGStab(), Jacobi(), Direct()], ids=name)
@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_right_sides_whose_squares_leave_the_range(solver, size):
    operator = diagonal([1.0, 2.0, 3.0])
    solution = solver.solve(operator, torch.full((3,), size, dtype=torch.float64))
    expected = torch.tensor([1.0, 1 / 2, 1 / 3], dtype=torch.float64)
    torch.testing.assert_close(solution.value.reshape(3) / size, expected)
    assert float(solution.statistics["residual_norm"]) <= 2e-8 * size


@pytest.mark.parametrize("solver", ALL[:6], ids=name)
def test_iterations_are_limited(solver, operators):
    operator = operators.poisson(20, 20)
    b = operators.field((20, 20))
    limited = type(solver)(max_iterations=3)
    solution = limited.solve(operator, b, throw=False)
    assert solution.status == (Status.MAX_ITERATIONS,)
    assert int(solution.statistics["iterations"]) == 3
    assert len(solution.history["residual_norm"]) == 4
    recomputed = torch.linalg.vector_norm(b - operator.apply(solution.value))
    assert float(solution.statistics["residual_norm"]) == pytest.approx(float(recomputed))


def test_breakdowns():
    """Rotations by a right angle: r and A r are orthogonal, which BiCGStab divides by and GMRES does not mind."""
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([1.0, 2.0], dtype=torch.float64)
    solution = BiCGStab().solve(turn, b, throw=False)
    assert solution.status == (Status.BREAKDOWN,)
    assert "GMRES" in solution.status[0].advice
    torch.testing.assert_close(GMRES().solve(turn, b).value, torch.linalg.solve(turn, b))


def test_singular_matrices_without_a_named_null_space(operators):
    """Solvable right sides are solved; for others GMRES stops where the space ends, and Direct refuses either."""
    singular = as_operator(torch.diag(torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)))
    consistent = torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    for solver in (GMRES(), MINRES(), ConjugateGradient()):
        assert solver.solve(singular, consistent).converged
    inconsistent = torch.ones(4, dtype=torch.float64)
    for solver in (GMRES(), MINRES()):
        solution = solver.solve(singular, inconsistent, throw=False)
        assert solution.status[0] in (Status.BREAKDOWN, Status.MAX_ITERATIONS, Status.STAGNATED)
        assert bool(torch.isfinite(solution.value).all())
        assert float(solution.statistics["residual_norm"]) == pytest.approx(1.0)
    with pytest.raises(InputError, match="singular to working precision"):
        Direct().prepare(singular)


@pytest.mark.parametrize("shape", [(300,), (14, 14), (40, 33), (7, 6, 9)], ids=str)
@pytest.mark.parametrize("boundary", [sciml.Neumann(0.0), sciml.Periodic()], ids=["neumann", "periodic"])
def test_direct_notices_singular_grids(shape, boundary, operators):
    """Whose last pivot is rounding, and not zero."""
    matrix = operators.poisson(*shape, boundary=boundary).to_sparse()
    with pytest.raises(InputError, match="singular to working precision"):
        Direct().prepare(matrix)


def test_direct_does_not_mistake_scaling_for_singularity(operators):
    """Rows and columns of very different size, in no order."""
    size = 15 * 14
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    scale = torch.logspace(-7, 7, size, dtype=torch.float64)[order]
    matrix = operators.named("poisson CSR").to_sparse().to_dense()
    for left, right in ((scale, scale), (scale, torch.ones(size)), (scale.sqrt(), 1 / scale.sqrt())):
        skewed = as_operator(left[:, None] * matrix * right[None, :])
        b = left * operators.field((size,))
        x = Direct(rtol=1e-12).solve(skewed, b).value
        torch.testing.assert_close(right * x, torch.linalg.solve(matrix, b / left), rtol=1e-9, atol=1e-12)


def test_direct_names_the_singular_row():
    with pytest.raises(InputError, match="system 1 of the batch is singular"):
        Direct().prepare(diagonal([1.0, 2.0], [0.0, 1.0], [1.0, 1.0]))
    size = 300
    rows = torch.ones(3, size, dtype=torch.float64)
    rows[2, 7] = 0.0
    with pytest.raises(InputError, match="system 2 of the batch is singular"):
        Direct().prepare(StencilOperator((size,), [(0,)], [rows], (False,), symmetric=True))


def test_direct_with_several_null_vectors(operators):
    """Two floating components, each with its constant."""
    part = operators.poisson(9, boundary=sciml.Neumann(0.0)).to_sparse().to_dense()
    matrix = torch.block_diag(part, part, torch.eye(1, dtype=torch.float64)).to_sparse_csr()
    null_space = torch.zeros(2, 19, dtype=torch.float64)
    null_space[0, :9] = null_space[1, 9:18] = 1 / 3
    mixed = torch.stack([null_space[0] + null_space[1], null_space[0] - null_space[1]]) / math.sqrt(2)
    operator = SparseOperator(matrix, null_space=mixed)
    b = operators.field((19,))
    for vector in mixed:
        b -= (b @ vector) * vector
    x = Direct().solve(operator, b).value
    torch.testing.assert_close(x, torch.linalg.pinv(matrix.to_dense()) @ b)


def test_a_tolerance_that_rounding_forbids(operators):
    """The recursive residual falls on, the true one does not: stopped, and said."""
    operator = operators.poisson(60, 60).to(torch.float32)
    b = operators.field((60, 60), dtype=torch.float32)
    with pytest.warns(UserWarning, match="level of rounding"):
        solution = ConjugateGradient(rtol=1e-9).solve(operator, b, throw=False)
    assert float(solution.statistics["relative_residual"]) > 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("zero_diagonal", [False, True])
def test_direct_with_a_tolerance_that_rounding_forbids(dtype, zero_diagonal):
    """Converged with a warning, in one iteration; the size of A is seen without its diagonal too."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(50, 50, generator=generator, dtype=torch.float64)
    if zero_diagonal:
        matrix.fill_diagonal_(0.0)
    b = torch.randn(50, generator=generator, dtype=torch.float64)
    advice = "Use a larger rtol" if dtype is torch.float64 else "Use float64 or a larger rtol"
    with pytest.warns(UserWarning, match=f"level of rounding. {advice}"):
        solution = Direct(rtol=1e-30).solve(matrix.to(dtype), b.to(dtype))
    assert solution.status == (Status.CONVERGED,)
    assert int(solution.statistics["iterations"]) == 1
    torch.testing.assert_close(solution.value.double(), torch.linalg.solve(matrix, b), rtol=1e-3, atol=1e-3)


def test_direct_does_not_take_any_residual_for_rounding():
    """Of a matrix that float32 cannot resolve: the residual is large, and x = 0 has a smaller one."""
    places = torch.arange(12)
    hilbert = (1 / (places[:, None] + places + 1.0)).float()
    solution = Direct().solve(hilbert, torch.ones(12).where(places % 2 == 0, -1.0), throw=False)
    assert float(solution.statistics["relative_residual"]) > 1
    assert solution.status == (Status.STAGNATED,)


def test_absolute_tolerance(operators):
    operator = operators.poisson(20, 20)
    b = operators.field((2, 20, 20))
    b[1] *= 1e-9
    solution = ConjugateGradient(rtol=0.0, atol=1e-6).solve(operator, b)
    assert bool((solution.statistics["residual_norm"] <= 1e-6).all())
    assert int(solution.statistics["iterations"][1]) == 0


def test_preconditioner_of_another_operator_is_told_apart(operators):
    inverse = IncompleteCholesky().prepare(operators.named("poisson 2D"))
    with pytest.raises(InputError, match="prepare the preconditioner on"):
        inverse.to(torch.float32)
    with pytest.raises(InputError, match="prepare the preconditioner on"):
        inverse[0]
    assert inverse.detach() is inverse
    assert Identity((3,), torch.float64).kind.value == "symmetric positive definite"
