"""Which linear solver suits an operator on a mesh."""

from __future__ import annotations

from importlib.util import find_spec
from math import prod

from sciml.linear_operator import BlockOperator, LinearOperator

from .linear import GMRES, ILU0, MINRES, BiCGStab, BlockDiagonal, ConjugateGradient, Direct, IncompleteCholesky, Jacobi
from .linear.base import LinearSolver

# Up to how many unknowns of all rows a factorization is quicker than iterating, by dimension.
_SMALL = {2: 20_000, 3: 4_000}

# Up to how many it still is where nothing is known that is sure to converge, and where something likely is.
_POSSIBLE = {2: 300_000, 3: 20_000}
_TOLERABLE = {2: 300_000, 3: 8_000}

# Up to which share of advection algebraic multigrid converges in some twenty iterations, whatever the mesh.
_DIFFUSIVE = 0.3


# After how many iterations a step of Newton's method is left to another solver.
_PATIENCE = 100


def choose_for_jacobian(operator: LinearOperator, dimension: int) -> tuple[LinearSolver, str]:
    """The method for the steps of a nonlinear iteration, and the reason in a few words.

    A symmetric operator is taken for a definite one, and another for one in which diffusion prevails: the caller takes
    a method that asks for less where that fails.
    """
    unknowns = prod(operator.batch) * operator.size
    if operator.device.type == "cpu" and unknowns <= _SMALL[dimension]:
        return Direct(), f"{unknowns} unknowns, few enough to factorize"
    if operator.symmetric:
        return _conjugate_gradients(operator), "the Jacobian is symmetric"
    if algebraic_multigrid_is_possible(operator) and not isinstance(operator, BlockOperator):
        from .linear import AlgebraicMultigrid

        return GMRES(preconditioner=AlgebraicMultigrid(), max_iterations=_PATIENCE), "the Jacobian is not symmetric"
    return choose_on_mesh(operator, dimension, definite=False)


def choose_on_mesh(operator: LinearOperator, dimension: int, *, definite: bool) -> tuple[LinearSolver, str]:
    """The method for an operator on a mesh, and the reason in a few words.

    Args:
        operator: of one unknown or several.
        dimension: of the mesh.
        definite: the operator is symmetric and certainly definite, on the complement of its null space.
    """
    unknowns = prod(operator.batch) * operator.size
    on_cpu = operator.device.type == "cpu"
    if on_cpu and unknowns <= _SMALL[dimension]:
        return Direct(), f"{unknowns} unknowns, few enough to factorize"
    tolerable = on_cpu and unknowns <= _TOLERABLE[dimension]
    if isinstance(operator, BlockOperator):
        if tolerable:
            return Direct(), "several unknowns, few enough to factorize"
        return GMRES(preconditioner=BlockDiagonal(ILU0()), restart=60), "several unknowns, too many to factorize"
    if definite:
        return _conjugate_gradients(operator), "the operator is symmetric and definite"
    if operator.symmetric:
        if factorization_is_possible(operator, dimension):
            return Direct(), "symmetric but perhaps indefinite, and small enough to factorize"
        return MINRES(), "symmetric but perhaps indefinite, and too large to factorize"
    if algebraic_multigrid_is_possible(operator) and advective_share(operator) <= _DIFFUSIVE:
        from .linear import AlgebraicMultigrid

        return GMRES(preconditioner=AlgebraicMultigrid()), "not symmetric, diffusion prevails"
    if tolerable:
        return Direct(), "not symmetric, and small enough to factorize"
    if not on_cpu:
        return BiCGStab(preconditioner=Jacobi()), "not symmetric, and too large to factorize"
    return GMRES(preconditioner=ILU0(), restart=60), "not symmetric, and too large to factorize"


def factorization_is_possible(operator: LinearOperator, dimension: int) -> bool:
    """Whether a factorization takes bearable time and memory, where another method fails."""
    return operator.device.type == "cpu" and prod(operator.batch) * operator.size <= _POSSIBLE[dimension]


def surer_on_mesh(chosen: LinearSolver, operator: LinearOperator) -> LinearSolver | None:
    """What is to take over where algebraic multigrid does not converge soon on a matrix that is not symmetric."""
    if (
        isinstance(chosen, GMRES)
        and not isinstance(operator, BlockOperator)
        and not isinstance(chosen.preconditioner, ILU0)
    ):
        return GMRES(preconditioner=ILU0(), restart=60)
    return None


def advective_share(operator: LinearOperator) -> float:
    """The sum of |a_ij - a_ji| over that of |a_ij| + |a_ji|, i < j: 0 of a symmetric matrix, near 1 of pure upwind
    differences."""
    plain = operator.detach()
    entries, mirrored = plain.to_sparse().values(), plain.transpose().to_sparse().values()  # of one pattern on a mesh
    apart, size = (entries - mirrored).abs().sum(), entries.abs().sum() - plain.diagonal().abs().sum()
    return float(apart / (2.0 * size)) if float(size) else 0.0


def _conjugate_gradients(operator: LinearOperator) -> ConjugateGradient:
    if algebraic_multigrid_is_possible(operator):
        from .linear import AlgebraicMultigrid

        return ConjugateGradient(preconditioner=AlgebraicMultigrid())
    return ConjugateGradient(preconditioner=IncompleteCholesky())


def algebraic_multigrid_is_possible(operator: LinearOperator) -> bool:
    """Whether pyamg is installed, and the operator one matrix that its smoother suits."""
    if find_spec("pyamg") is None or operator.batch:
        return False
    return bool((operator.diagonal().detach() > 0.0).all())
