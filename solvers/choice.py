"""Which linear solver suits an operator, and why."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sciml.elements.operator import negated as negated_matrix
from sciml.linear_operator import BlockOperator, LinearOperator
from sciml.stencil import StencilOperator

from .linear import GMRES, ILU0, MINRES, BiCGStab, BlockDiagonal, ConjugateGradient, Direct, Jacobi, Multigrid
from .linear.base import LinearSolver
from .mesh_methods import algebraic_multigrid_is_possible

# Where a sparse factorization is still quick, in unknowns by dimension of the grid.
_DIRECT_LIMIT = {1: 5_000_000, 2: 1_000_000, 3: 15_000}
_DIRECT_LIMIT_SYSTEM = 50_000


def choose_linear(operator: LinearOperator, dimension: int, *, definite: bool) -> tuple[LinearSolver, str]:
    """The method for an operator on a grid, and the reason in a few words.

    Args:
        operator: of one unknown or several.
        dimension: number of axes of the grid.
        definite: the operator is symmetric and certainly definite, on the complement of its null space.
    """
    direct = direct_is_possible(operator, dimension)
    if dimension == 1 and direct:
        return Direct(), "one axis: banded matrices factorize in linear time"
    if isinstance(operator, BlockOperator):
        if direct and operator.size <= _DIRECT_LIMIT_SYSTEM:
            return Direct(), f"several unknowns, {operator.size} in all: few enough to factorize"
        return GMRES(preconditioner=BlockDiagonal(), restart=60), "several unknowns, too many to factorize"
    if definite:
        return ConjugateGradient(preconditioner=Multigrid()), "the operator is symmetric and definite"
    if operator.symmetric:
        if direct:
            return Direct(), "symmetric but perhaps indefinite, and small enough to factorize"
        return MINRES(), "symmetric but perhaps indefinite, and too large to factorize"
    if advective_share(operator) <= 0.5:
        return GMRES(preconditioner=Multigrid(cycle=1), max_iterations=300), "not symmetric, diffusion prevails"
    if direct:
        return Direct(), "not symmetric, advection prevails, and small enough to factorize"
    if operator.batch or operator.device.type != "cpu":
        return BiCGStab(preconditioner=Jacobi()), "not symmetric, and advection prevails"
    return GMRES(preconditioner=ILU0(), restart=60), "not symmetric, and advection prevails"


def slower_but_surer(chosen: LinearSolver, operator: LinearOperator) -> LinearSolver | None:
    """What is to take over where geometric multigrid does not converge soon, as for coefficients that jump from cell to
    cell; None where nothing better is known."""
    if not isinstance(chosen, ConjugateGradient | GMRES) or not isinstance(chosen.preconditioner, Multigrid):
        return None
    if not algebraic_multigrid_is_possible(operator):
        return None
    from .linear import AlgebraicMultigrid

    return replace(chosen, preconditioner=AlgebraicMultigrid())


def direct_is_possible(operator: LinearOperator, dimension: int) -> bool:
    """Whether a factorization is quick enough, and there is one matrix alone."""
    return not operator.batch and operator.device.type == "cpu" and operator.size <= _DIRECT_LIMIT[dimension]


def advective_share(operator: LinearOperator) -> float:
    """The largest |a(+o) - a(-o)| / (|a(+o)| + |a(-o)|) over pairs of neighbours, a mean over the grid each: 0 without
    advection, half the cell Peclet number for central and near 1 for upwind differences where it prevails."""
    if not isinstance(operator, StencilOperator):
        return 1.0
    terms: dict[tuple[int, ...], Tensor] = {}
    for offset, coefficient in zip(operator.offsets, operator.coefficients, strict=True):
        terms[offset] = terms[offset] + coefficient.detach() if offset in terms else coefficient.detach()
    share = 0.0
    for offset, forward in terms.items():
        backward = terms.get(tuple(-o for o in offset))
        if sum(map(abs, offset)) == 1 and backward is not None:
            total = float((forward.abs() + backward.abs()).mean())
            share = max(share, float((forward - backward).abs().mean()) / total if total else 0.0)
    return share


def positive_diagonal(operator: LinearOperator) -> tuple[LinearOperator, float]:
    """The operator times the sign of its diagonal's mean, as definite solvers want it, and that sign."""
    if isinstance(operator, BlockOperator) or float(torch.sum(operator.diagonal().detach())) >= 0.0:
        return operator, 1.0
    return negated(operator), -1.0


def negated(operator: LinearOperator) -> LinearOperator:
    """Minus an operator, as one of the same kind."""
    return operator.negated() if isinstance(operator, StencilOperator) else negated_matrix(operator)
