"""Which linear solver suits a system on a mesh."""

from __future__ import annotations

from importlib.util import find_spec
from math import prod

from sciml.elements import MeshSystem
from sciml.linear_operator import BlockOperator

from .linear import GMRES, ILU0, MINRES, BiCGStab, BlockDiagonal, ConjugateGradient, Direct, IncompleteCholesky, Jacobi
from .linear.base import LinearSolver

# Up to how many unknowns of all rows a factorization is quicker than iterating, by dimension.
_SMALL = {2: 20_000, 3: 4_000}

# Up to how many it still is where nothing is known that is sure to converge.
_POSSIBLE = {2: 300_000, 3: 20_000}


def choose_on_mesh(system: MeshSystem) -> tuple[LinearSolver, str]:
    """The method for a system on a mesh, and the reason in a few words."""
    operator, dimension = system.operator, system.domain.dimension
    unknowns = prod(operator.batch) * operator.size
    on_cpu = operator.device.type == "cpu"
    if on_cpu and unknowns <= _SMALL[dimension]:
        return Direct(), f"{unknowns} unknowns, few enough to factorize"
    possible = on_cpu and unknowns <= _POSSIBLE[dimension]
    if isinstance(operator, BlockOperator):
        if possible:
            return Direct(), "several unknowns, few enough to factorize"
        return GMRES(preconditioner=BlockDiagonal(ILU0()), restart=60), "several unknowns, too many to factorize"
    if system.definite:
        if find_spec("pyamg") is not None and not operator.batch:
            from .linear import AlgebraicMultigrid

            method = ConjugateGradient(preconditioner=AlgebraicMultigrid())
            return method, "the operator is symmetric and definite"
        return ConjugateGradient(preconditioner=IncompleteCholesky()), "the operator is symmetric and definite"
    if possible:
        kind = "symmetric but perhaps indefinite" if operator.symmetric else "not symmetric"
        return Direct(), f"{kind}, and small enough to factorize"
    if operator.symmetric:
        return MINRES(), "symmetric but perhaps indefinite, and too large to factorize"
    if not on_cpu:
        return BiCGStab(preconditioner=Jacobi()), "not symmetric, and too large to factorize"
    return GMRES(preconditioner=ILU0(), restart=60), "not symmetric, and too large to factorize"
