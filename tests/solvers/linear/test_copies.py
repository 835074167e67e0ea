"""Copies and pickles of prepared solvers: they stand on their own, or are refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import sciml
from sciml.errors import InputError
from sciml.linear_operator import BlockOperator
from sciml.solvers.linear import (
    GMRES,
    ILU0,
    SOR,
    SSOR,
    AlgebraicMultigrid,
    BiCGStab,
    BlockDiagonal,
    Chebyshev,
    ConjugateGradient,
    Direct,
    FlexibleConjugateGradient,
    IncompleteCholesky,
    Jacobi,
    Multigrid,
)

COPIES = [copy.deepcopy, lambda prepared: pickle.loads(pickle.dumps(prepared))]
SOLVERS = [
    ConjugateGradient(Multigrid()),
    ConjugateGradient(IncompleteCholesky()),
    ConjugateGradient(AlgebraicMultigrid(coarsest=30)),
    ConjugateGradient(SSOR()),
    FlexibleConjugateGradient(GMRES(max_iterations=5)),
    GMRES(preconditioner=ILU0()),
    BiCGStab(Direct()),
    Direct(),
    Multigrid(),
    Chebyshev(8),
    Jacobi(max_iterations=5000),
    SOR(1.5),
    SOR(1.5, "multicolour"),
]


def name(value):
    return value.describe() if hasattr(value, "describe") else None


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_a_copy_solves_without_its_original(solver, copied, operators):
    operator = operators.darcy(16, 15)
    prepared, b = solver.prepare(operator), operators.field((16, 15))
    expected = prepared.solve(b).value
    again = copied(prepared)
    del prepared
    assert again.operator is not operator
    torch.testing.assert_close(again.solve(b).value, expected, rtol=0, atol=0)
    torch.testing.assert_close(again.transpose().solve(b).value, expected)


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle"])
def test_copies_of_sparse_matrices(copied, operators):
    operator, b = operators.named("random general"), operators.field((150,))
    prepared = GMRES(preconditioner=ILU0()).prepare(operator)
    torch.testing.assert_close(copied(prepared).solve(b).value, prepared.solve(b).value, rtol=0, atol=0)
    again = copied(operator)
    assert (again.symmetric, again.space) == (operator.symmetric, operator.space)
    assert torch.equal(again.to_sparse().to_dense(), operator.to_sparse().to_dense())
    transposed = copied(Direct().prepare(operator).transpose())
    torch.testing.assert_close(transposed.solve(b).value, Direct().solve(operator.transpose(), b).value)


@pytest.mark.parametrize("copied", [copy.copy, *COPIES], ids=["copy", "deepcopy", "pickle"])
@pytest.mark.parametrize(
    "method", [ILU0(), IncompleteCholesky(), IncompleteCholesky(0.1), BlockDiagonal(ILU0())], ids=name
)
def test_factors_alone(method, copied, operators):
    """Preconditioners that are no solvers prepare nothing but their factors."""
    block = operators.darcy(9, 8)
    operator = BlockOperator([[block, None], [None, block]]) if isinstance(method, BlockDiagonal) else block
    inverse, x = method.prepare(operator), operators.field(operator.space)
    torch.testing.assert_close(copied(inverse).apply(x), inverse.apply(x), rtol=0, atol=0)
    torch.testing.assert_close(copied(inverse.transpose()).apply(x), inverse.transpose().apply(x), rtol=0, atol=0)


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle"])
def test_transposed_factors_of_a_matrix_that_is_not_symmetric(copied, operators):
    operator, b = operators.named("upwind 2D"), operators.field(operators.named("upwind 2D").space)
    inverse = ILU0().prepare(operator)
    assert not torch.allclose(inverse.apply(b), inverse.transpose().apply(b))
    torch.testing.assert_close(copied(inverse.transpose()).apply(b), inverse.transpose().apply(b), rtol=0, atol=0)
    torch.testing.assert_close(copied(inverse.transpose()).transpose().apply(b), inverse.apply(b), rtol=0, atol=0)


def test_gradients_that_cannot_be_copied_are_refused():
    a = (1 + torch.zeros(8, 8, dtype=torch.float64, requires_grad=True)).exp()
    equation, grid = sciml.Equation("-div(a*grad(u)) = 1"), sciml.Grid((8, 8))
    solution = sciml.solve(equation, grid, fields={"a": a})
    with pytest.raises(InputError, match=r"the operator of a prepared solver.*computed with gradients.*torch.no_grad"):
        copy.deepcopy(Direct().prepare(solution.system.operator))
    with pytest.raises(InputError, match=r"the solution.*computed with gradients.*torch.no_grad"):
        copy.deepcopy(solution)
    plain = sciml.solve(equation, grid, fields={"a": a.detach()})
    for copied in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain)), pickle.loads(pickle.dumps(solution))):
        assert torch.equal(copied.value.detach(), plain.value)
        assert copied.status == plain.status
        torch.testing.assert_close(copied.flux("x_lower").detach(), plain.flux("x_lower"))
