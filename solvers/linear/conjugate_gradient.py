"""Conjugate gradients, preconditioned and flexible."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sciml.errors import InputError
from sciml.linear_operator import Identity, Kind, LinearOperator
from sciml.status import Status

from .base import Iteration, LinearSolver, Preconditioner, Prepared
from .multigrid import MultigridCycle
from .preconditioning import check_preconditioner, describe_preconditioner, prepare_preconditioner
from .relaxation import RelaxationInverse


@dataclass(frozen=True)
class ConjugateGradient(LinearSolver):
    """Preconditioned conjugate gradients for symmetric positive definite operators.

    Source: Hestenes and Stiefel (1952); Saad, Iterative Methods for Sparse Linear Systems (2003), algorithm 9.1.

    Args:
        preconditioner: symmetric positive definite approximation of the inverse, or None.
        rtol, atol, max_iterations: see LinearSolver.

    Raises:
        InputError: from `prepare`, for an operator known not to be symmetric or a preconditioner that is not symmetric
            positive definite. An indefinite operator ends with Status.INDEFINITE.
    """

    preconditioner: Preconditioner | None = None

    def validate(self) -> None:
        check_preconditioner(self.preconditioner)

    def describe(self) -> str:
        return f"conjugate gradients{describe_preconditioner(self.preconditioner)}"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        _require_symmetric(operator)
        inverse = prepare_preconditioner(self.preconditioner, operator)
        if inverse.kind is not Kind.SYMMETRIC_POSITIVE:
            raise InputError(
                f"conjugate gradients need a symmetric positive definite preconditioner, this one is "
                f"{inverse.kind.value}: use FlexibleConjugateGradient, or GMRES"
            )
        return inverse

    def iterate(self, task: Iteration, state: LinearOperator) -> None:
        inverse = state.state if isinstance(state, Prepared) and state.solver.stationary else state
        if isinstance(inverse, MultigridCycle):
            compiled = inverse.descend(task)
        else:
            compiled = isinstance(inverse, RelaxationInverse) and inverse.advance(task, descend=True)
        if not compiled:
            _descend(task, state, flexible=False)


@dataclass(frozen=True)
class FlexibleConjugateGradient(LinearSolver):
    """Conjugate gradients that allow the preconditioner to change from step to step, or to be nonlinear.

    One more inner product a step than ConjugateGradient. Source: Notay, Flexible conjugate gradients, SIAM J. Sci.
    Comput. 22 (2000) 1444-1460, truncated to one direction (the Polak-Ribiere formula).

    Args:
        preconditioner: any approximation of the inverse, or None.
        rtol, atol, max_iterations: see LinearSolver.

    Raises:
        InputError: from `prepare`, for an operator known not to be symmetric.
    """

    preconditioner: Preconditioner | None = None

    def validate(self) -> None:
        check_preconditioner(self.preconditioner)

    def describe(self) -> str:
        return f"flexible conjugate gradients{describe_preconditioner(self.preconditioner)}"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        _require_symmetric(operator)
        return prepare_preconditioner(self.preconditioner, operator)

    def iterate(self, task: Iteration, state: LinearOperator) -> None:
        _descend(task, state, flexible=True)


def _require_symmetric(operator: LinearOperator) -> None:
    if not operator.symmetric:
        raise InputError(
            "conjugate gradients need a symmetric operator, and this one is not known to be: use GMRES or BiCGStab"
        )


def _descend(task: Iteration, inverse: LinearOperator, flexible: bool) -> None:
    """The method in the notation of Saad: direction p, image q = A p, preconditioned residual z, steps alpha, beta."""
    operator, rows, x, r = task.operator, task.rows, task.x, task.r
    plain = isinstance(inverse, Identity)
    z = r if plain else torch.empty_like(r)
    rz = rows.dot(r, r) if plain else rows.apply_and_dot(inverse, r, out=z)
    p = z.clone()
    q = torch.empty_like(p)
    zero = torch.zeros_like(rz)
    task.fail(rz < 0, Status.INDEFINITE)
    for step in range(1, task.max_iterations + 1):
        curvature = rows.apply_and_dot(operator, p, out=q)
        task.fail(curvature <= 0, Status.INDEFINITE)
        active = task.active()
        alpha = torch.where(active, rz / curvature, zero)
        square = rows.descend(x, r, p, q, alpha)
        task.iterations += active
        task.record(square.sqrt())
        if task.finished(step):
            break
        previous, rz = rz, square if plain else rows.apply_and_dot(inverse, r, out=z)
        task.fail(rz < 0, Status.INDEFINITE)
        beta = -alpha * rows.dot(z, q) / previous if flexible else rz / previous
        rows.redirect(p, z, torch.where(task.active(), beta, zero))
