"""First and second derivatives of solves, backward and forward, and what a failing row contributes to them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import sciml
from sciml.csr import csr_from_starts
from sciml.errors import SolveError
from sciml.linear_operator import BlockOperator, Identity, LinearOperator
from sciml.solvers.linear import (
    GMRES,
    ILU0,
    MINRES,
    SOR,
    SSOR,
    BiCGStab,
    Chebyshev,
    ConjugateGradient,
    Direct,
    IncompleteCholesky,
    Multigrid,
)
from sciml.solvers.linear.inverse import Entries
from sciml.sparse import SparseOperator
from sciml.status import Status
from sciml.stencil import StencilOperator

SPACE = (3, 2)
OFFSETS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def stencil(a: Tensor, tilt: float = 0.0) -> StencilOperator:
    """A diagonal that depends on the coefficient, and neighbours that depend on it where the operator is tilted."""
    one = torch.ones(1, 1, dtype=a.dtype)
    east = -(1 + tilt * a.tanh()) if tilt else -one
    return StencilOperator(SPACE, OFFSETS, [5 + a.exp(), east, -one, -one, -one], (False, False), symmetric=not tilt)


def csr(values: Tensor) -> SparseOperator:
    """With the entries in the CSR tensor itself."""
    pattern = stencil(torch.zeros(SPACE, dtype=torch.float64)).to_sparse()
    matrix = csr_from_starts(pattern.crow_indices(), pattern.col_indices(), values, pattern.shape)
    return SparseOperator(matrix, SPACE)


def entries(values: Tensor) -> SparseOperator:
    """With the entries apart."""
    return SparseOperator(stencil(torch.zeros(SPACE, dtype=torch.float64)).to_sparse(), SPACE, values=values)


def coupled(a: Tensor) -> LinearOperator:
    identity = Identity(SPACE, a.dtype)
    corner = 0.1 * (stencil(a, 0.3) @ identity) - a.exp().mean() * identity
    return BlockOperator([[stencil(a), corner], [identity, stencil(a, 0.3)]])


TIGHT = 1e-13
# solver, tilt of the operator
ROWS = [
    (ConjugateGradient(rtol=TIGHT), 0.0),
    (ConjugateGradient(IncompleteCholesky(), rtol=TIGHT), 0.0),
    (ConjugateGradient(Chebyshev(), rtol=TIGHT), 0.0),
    (ConjugateGradient(Multigrid(), rtol=TIGHT), 0.0),
    (MINRES(rtol=TIGHT), 0.0),
    (GMRES(rtol=TIGHT), 0.3),
    (GMRES(preconditioner=ILU0(), rtol=TIGHT), 0.3),
    (BiCGStab(rtol=TIGHT), 0.3),
    (SOR(rtol=TIGHT), 0.3),
    (Direct(rtol=TIGHT), 0.3),
]


@pytest.mark.parametrize(("solver", "tilt"), ROWS, ids=lambda v: v.describe() if hasattr(v, "describe") else "")
def test_first_and_second_derivatives(solver, tilt):
    def solve(a: Tensor, b: Tensor) -> Tensor:
        return solver.solve(stencil(a, tilt), b).value

    inputs = (normal(*SPACE), normal(2, *SPACE, seed=1))
    assert gradcheck(solve, inputs, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(solve, inputs, fast_mode=True)


def test_every_entry_of_the_derivatives():
    """What the fast mode of the other checks leaves out."""

    def solve(a: Tensor, b: Tensor) -> Tensor:
        return Direct(rtol=TIGHT).solve(stencil(a, 0.3), b).value

    inputs = (normal(*SPACE), normal(2, *SPACE, seed=1))
    assert gradcheck(solve, inputs, check_forward_ad=True)
    assert gradgradcheck(solve, inputs)


@pytest.mark.parametrize("make", [csr, entries], ids=["in the tensor", "apart"])
@pytest.mark.parametrize("solver", [GMRES(rtol=TIGHT), Direct(rtol=TIGHT)], ids=lambda v: v.describe())
def test_derivatives_by_the_entries_of_a_matrix(solver, make):
    generator = torch.Generator().manual_seed(2)
    regular = stencil(torch.zeros(SPACE, dtype=torch.float64)).to_sparse().values()
    values = regular + 0.2 * torch.randn(len(regular), generator=generator, dtype=torch.float64)

    def solve(values: Tensor, b: Tensor) -> Tensor:
        return solver.solve(make(values), b).value

    inputs = (values.requires_grad_(), normal(*SPACE, seed=1))
    fast = make is entries and not isinstance(
        solver, Direct
    )  # each entry once is enough; CSR tensors know no fast mode
    assert gradcheck(solve, inputs, check_forward_ad=make is entries, fast_mode=fast)
    assert gradgradcheck(solve, inputs, fast_mode=fast)


def test_derivatives_of_coupled_unknowns():
    def solve(a: Tensor, b: Tensor) -> Tensor:
        return GMRES(rtol=TIGHT).solve(coupled(a), b).value

    inputs = (normal(*SPACE), normal(2, *SPACE, seed=1))
    assert gradcheck(solve, inputs, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(solve, inputs, fast_mode=True)


def test_derivatives_of_a_batch_of_operators():
    def solve(a: Tensor, b: Tensor) -> Tensor:
        return ConjugateGradient(rtol=TIGHT).solve(stencil(a), b).value

    inputs = (normal(2, *SPACE), normal(*SPACE, seed=1))
    assert gradcheck(solve, inputs, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(solve, inputs, fast_mode=True)


@pytest.mark.parametrize(
    "solver",
    [ConjugateGradient(rtol=TIGHT), MINRES(rtol=TIGHT), Direct(rtol=TIGHT)],
    ids=lambda v: v.describe(),
)
def test_derivatives_on_the_complement_of_a_null_space(solver):
    grid = sciml.Grid((4, 3), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Neumann(0.0))
    equation = sciml.Equation("-div(a*grad(u)) = f")

    def solve(a: Tensor, b: Tensor) -> Tensor:
        operator = sciml.discretize(equation, grid, {"a": a.exp(), "f": 0.0}).operator
        return solver.solve(operator, b - b.mean()).value

    inputs = (normal(4, 3), normal(4, 3, seed=1))
    assert gradcheck(solve, inputs, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(solve, inputs, fast_mode=True)


def test_forward_derivatives_are_solutions():
    """dx = A^-1 (db - dA x), with the method's own tolerance."""
    a, b = normal(*SPACE).detach(), normal(*SPACE, seed=1).detach()
    da, db = normal(*SPACE, seed=2).detach(), normal(*SPACE, seed=3).detach()
    operator = stencil(a)
    x = Direct().solve(operator, b).value
    expected = Direct().solve(operator, db - a.exp() * da * x).value
    with forward_ad.dual_level():
        dual = stencil(forward_ad.make_dual(a, da))
        solution = ConjugateGradient(rtol=1e-12).solve(dual, forward_ad.make_dual(b, db))
        torch.testing.assert_close(forward_ad.unpack_dual(solution.value).tangent, expected)


def test_second_derivative_of_a_functional_by_differences():
    """Hessian times a vector of |x|^2 / 2 by the coefficient, at the default tolerance of a real problem."""
    grid = sciml.Grid((12, 11), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Dirichlet(0.0))
    equation = sciml.Equation("-div(a*grad(u)) = f")
    f, direction = normal(12, 11, seed=1).detach(), normal(12, 11, seed=2).detach()

    def gradient(a: Tensor, create_graph: bool = False) -> Tensor:
        system = sciml.discretize(equation, grid, {"a": a.exp(), "f": f})
        x = ConjugateGradient(Multigrid(), rtol=1e-12).solve(system.operator, system.right_side).value
        return torch.autograd.grad(0.5 * (x * x).sum(), a, create_graph=create_graph)[0]

    a = normal(12, 11)
    (product,) = torch.autograd.grad((gradient(a, create_graph=True) * direction).sum(), a)
    step = 1e-4
    ahead, behind = ((a + s * step * direction).detach().requires_grad_() for s in (1, -1))
    difference = (gradient(ahead) - gradient(behind)) / (2 * step)
    assert float((product - difference).norm() / difference.norm()) < 1e-6


def test_a_first_derivative_costs_one_adjoint_solve(monkeypatch):
    """What the residual sends back to the solution in first derivatives is cancelled, not solved for."""
    solves = []
    iterate = ConjugateGradient.iterate

    def counted(self, task, state):
        solves.append(1)
        return iterate(self, task, state)

    monkeypatch.setattr(ConjugateGradient, "iterate", counted)
    grid = sciml.Grid((31, 30), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Dirichlet(0.0))
    a = normal(31, 30)
    system = sciml.discretize(sciml.Equation("-div(a*grad(u)) = f"), grid, {"a": a.exp(), "f": 1.0})
    x = ConjugateGradient().solve(system.operator, system.right_side).value
    solves.clear()
    x.sin().sum().backward()
    assert len(solves) == 1


@pytest.mark.parametrize(
    "solver", [Direct(), GMRES(preconditioner=ILU0()), BiCGStab(SSOR())], ids=lambda v: v.describe()
)
def test_the_adjoint_solve_uses_the_same_factors(solver, monkeypatch):
    made = []
    monkeypatch.setattr(Entries, "of", lambda operator, of=Entries.of: made.append(1) or of(operator))
    b = normal(*SPACE)
    solver.solve(stencil(normal(*SPACE, seed=1), 0.3), b).value.sum().backward()
    assert len(made) <= 1  # relaxation takes a stencil as it is


def failing_problem(dtype: torch.dtype = torch.float64) -> tuple[StencilOperator, Tensor, Tensor]:
    """Row 1 is indefinite, rows 0 and 2 are definite."""
    diagonal = torch.stack([torch.full(SPACE, d, dtype=dtype) for d in (6.0, 0.5, 5.0)]).requires_grad_()
    one = torch.ones(1, 1, dtype=dtype)
    operator = StencilOperator(SPACE, OFFSETS, [diagonal, -one, -one, -one, -one], (False, False), symmetric=True)
    return operator, diagonal, normal(3, *SPACE, seed=4)


def test_a_failing_row_contributes_a_zero_gradient_and_no_other_row_suffers():
    operator, diagonal, b = failing_problem()
    solver = ConjugateGradient(rtol=1e-12)
    solution = solver.solve(operator, b, throw=False)
    assert solution.status == (Status.CONVERGED, Status.INDEFINITE, Status.CONVERGED)
    assert "MINRES" in solution.status[1].advice
    solution.value.square().sum().backward()
    assert bool((diagonal.grad[1] == 0).all()) and bool((b.grad[1] == 0).all())
    for row in (0, 2):
        single, own = operator[row].detach(), b[row].detach().requires_grad_()
        solver.solve(single, own).value.square().sum().backward()
        torch.testing.assert_close(b.grad[row], own.grad)


def test_rows_that_are_not_a_number_do_not_reach_the_gradient():
    operator, diagonal, b = failing_problem()
    solution = GMRES(max_iterations=3).solve(operator, b, throw=False)
    assert solution.status == (Status.MAX_ITERATIONS,) * 3
    value = torch.where(solution.converged[:, None, None], solution.value, torch.nan)
    value.sum().backward()
    assert bool((b.grad == 0).all()) and bool((diagonal.grad == 0).all())


def test_a_failing_adjoint_is_reported_and_raised():
    """The adjoint meets an iteration limit that the solve itself stays under, its right side being harder."""
    grid = sciml.Grid((20, 20), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Dirichlet(0.0))
    operator = sciml.discretize(sciml.Equation("-laplacian(u) = f"), grid, {"f": 0.0}).operator
    x, y = grid.coordinates
    smooth = torch.sin(torch.pi * x) * torch.sin(torch.pi * y)
    easy = torch.stack([smooth, smooth]).requires_grad_()
    solver = ConjugateGradient(max_iterations=5)
    weights = torch.stack([smooth, normal(20, 20).detach()])
    solution = solver.solve(operator, easy, throw=False)
    assert solution.converged.all()
    assert solution.adjoint_status is None
    (solution.value * weights).sum().backward()
    assert solution.adjoint_status == (Status.CONVERGED, Status.MAX_ITERATIONS)
    assert bool((easy.grad[1] == 0).all()) and not bool((easy.grad[0] == 0).any())
    solution = solver.solve(operator, easy)
    with pytest.raises(SolveError, match=r"adjoint.*row 1.*max_iterations") as failure:
        (solution.value * weights).sum().backward()
    assert failure.value.solution.status == (Status.CONVERGED, Status.MAX_ITERATIONS)


def test_no_gradient_is_made_where_none_is_asked_for():
    operator, _, b = failing_problem()
    plain = operator[0].detach()
    assert Direct().solve(plain, b[0].detach()).adjoint is None
    with torch.no_grad():
        assert not Direct().solve(operator[0], b[0]).value.requires_grad
    assert Direct().solve(operator[0], b[0].detach()).value.requires_grad
