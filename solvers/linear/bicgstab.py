"""The stabilised biconjugate gradient method."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sciml.linear_operator import Identity, LinearOperator
from sciml.status import Status

from .base import Iteration, LinearSolver, Preconditioner
from .preconditioning import (
    check_preconditioner,
    describe_preconditioner,
    prepare_preconditioner,
    require_linear,
)


@dataclass(frozen=True)
class BiCGStab(LinearSolver):
    """BiCGStab for general operators, preconditioned from the right; two products an iteration, eight fields of memory.

    Source: van der Vorst, SIAM J. Sci. Stat. Comput. 13 (1992) 631-644.

    Args:
        preconditioner: linear approximation of the inverse, or None.
        rtol, atol, max_iterations: see LinearSolver.

    Raises:
        InputError: from `prepare`, for a nonlinear preconditioner. A recurrence that breaks down ends with
            Status.BREAKDOWN.
    """

    preconditioner: Preconditioner | None = None

    def validate(self) -> None:
        check_preconditioner(self.preconditioner)

    def describe(self) -> str:
        return f"BiCGStab{describe_preconditioner(self.preconditioner)}"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        inverse = prepare_preconditioner(self.preconditioner, operator)
        require_linear(inverse, "BiCGStab", "GMRES")
        return inverse

    def iterate(self, task: Iteration, state: LinearOperator) -> None:
        """In the paper's notation: shadow residual r~, direction p, images v = A B p and t = A B s."""
        operator, rows, x, r = task.operator, task.rows, task.x, task.r
        plain = isinstance(state, Identity)
        shadow, p = r.clone(), r.clone()
        v, t = torch.empty_like(r), torch.empty_like(r)
        moved_p, moved_s = (p, r) if plain else (torch.empty_like(r), torch.empty_like(r))
        rho = rows.dot(shadow, r)
        zero = torch.zeros_like(rho)
        # Cosines below this are rounding, and steps along them noise.
        least = torch.finfo(r.dtype).eps ** 2 * rho
        for step in range(1, task.max_iterations + 1):
            if not plain:
                moved_p = state.apply(p, out=moved_p)
            operator.apply(moved_p, out=v)
            projection = rows.dot(shadow, v)
            task.fail(projection == 0, Status.BREAKDOWN)
            active = task.active()
            alpha = torch.where(active, rho / projection, zero)
            rows.descend(x, r, moved_p, v, alpha)
            if not plain:
                moved_s = state.apply(r, out=moved_s)
            operator.apply(moved_s, out=t)
            length = rows.dot(t, t)
            omega = torch.where(active & (length > 0), rows.dot(t, r) / length, zero)
            square = rows.descend(x, r, moved_s, t, omega)
            task.iterations += active
            task.record(square.sqrt_())
            previous, rho = rho, rows.dot(shadow, r)
            task.fail((omega == 0) | (rho.abs() <= least), Status.BREAKDOWN)
            if task.finished(step):
                break
            beta = torch.where(task.active(), alpha * rho / (omega * previous), zero)
            p.addcmul_(rows.spread(omega, p), v, value=-1)
            rows.redirect(p, r, beta)
