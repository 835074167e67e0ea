"""The generalized minimal residual method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.linear_operator import Identity, Kind, LinearOperator
from sciml.status import Status

from .base import Iteration, LinearSolver, Preconditioner
from .preconditioning import check_preconditioner, describe_preconditioner, prepare_preconditioner
from .settings import check_count


@dataclass(frozen=True)
class GMRES(LinearSolver):
    """Restarted GMRES for general operators, preconditioned from the right; flexible for a nonlinear preconditioner.

    Every iteration minimises the residual norm over the Krylov space since the last restart. The basis is made
    orthogonal by classical Gram-Schmidt, twice. Keeps `restart + 1` fields (`2 restart + 1` where flexible).

    Source: Saad and Schultz, SIAM J. Sci. Stat. Comput. 7 (1986) 856-869; flexible: Saad, SIAM J. Sci. Comput. 14
    (1993) 461-469; Gram-Schmidt: Giraud, Langou and Rozloznik, Comput. Math. Appl. 50 (2005) 1069-1075; the residual
    norm: Ayachour, J. Comput. Appl. Math. 159 (2003) 269-283.

    Args:
        restart: iterations between restarts, at least 1.
        preconditioner: any approximation of the inverse, or None.
        rtol, atol, max_iterations: see LinearSolver.

    Raises:
        InputError: for a restart that is not a whole number of at least 1.
    """

    restart: int = 30
    preconditioner: Preconditioner | None = None

    def validate(self) -> None:
        check_preconditioner(self.preconditioner)
        check_count(self.restart, "GMRES: restart")

    def describe(self) -> str:
        return f"GMRES({self.restart}){describe_preconditioner(self.preconditioner)}"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        return prepare_preconditioner(self.preconditioner, operator)

    def iterate(self, task: Iteration, state: LinearOperator) -> None:
        restart = min(self.restart, task.max_iterations, task.operator.size)
        space = _KrylovSpace(task, state, restart)
        step = 0
        while step < task.max_iterations:
            steps = min(restart, task.max_iterations - step)
            space.begin(task.r)
            for column in range(steps):
                space.extend(column)
                if task.finished(step + column + 1):
                    break
            space.correct(column + 1)
            step += column + 1
            if step >= task.max_iterations or task.expired or not bool(task.active().any()):
                break
            task.r = task.operator.residual(task.b, task.x, out=task.r)


class _KrylovSpace:
    """One cycle: A Z = V H with V orthonormal and H of Hessenberg form, row by row of the batch.

    The residual norm follows from the vector n with n H = 0 and n_0 = 1, which grows by one number a column: it is
    |r_0| / |n|. The least squares problem itself is solved once, at the end of the cycle.
    """

    def __init__(self, task: Iteration, inverse: LinearOperator, restart: int) -> None:
        self.task = task
        self.inverse = inverse
        self.plain = isinstance(inverse, Identity)
        self.flexible = inverse.kind is Kind.NONLINEAR
        rows, like = task.rows, task.x
        self.tiny = 10 * torch.finfo(like.dtype).eps
        self.basis = like.new_empty(restart + 1, *like.shape)
        self.directions = like.new_empty(restart, *like.shape) if self.flexible else self.basis
        # (rows, vectors, size), so that projections are batched products
        self.vectors = self.basis.reshape(restart + 1, rows.count, rows.size).transpose(0, 1)
        self.hessenberg = torch.empty(*rows.batch, restart + 1, restart, dtype=torch.float64, device=like.device)
        self.left = torch.empty(*rows.batch, restart + 1, dtype=torch.float64, device=like.device)

    def begin(self, residual: Tensor) -> None:
        """Start from a residual; rows at rest get an empty space."""
        rows = self.task.rows
        self.start = torch.where(self.task.active(), rows.norm(residual), 0.0)
        self.ratio = torch.ones_like(self.start)
        self.columns = torch.zeros_like(self.task.iterations)
        torch.mul(residual, rows.spread(_inverse_or_zero(self.start), residual), out=self.basis[0])
        self.hessenberg.zero_()
        self.left[..., 0] = 1.0

    def extend(self, column: int) -> None:
        """One Arnoldi step, and the norm of the residual after it."""
        task, rows = self.task, self.task.rows
        direction = self.basis[column]
        if self.flexible:
            # A row at rest must not bring NaN into the sum of `correct`.
            moved = self.inverse.apply(direction)
            direction = self.directions[column].copy_(torch.where(rows.spread(task.active(), moved).bool(), moved, 0.0))
        elif not self.plain:
            direction = self.inverse.apply(direction)
        image = task.operator.apply(direction, out=self.basis[column + 1])
        projections = self._orthogonalise(column + 1)
        after = rows.norm(image)
        least = self.tiny * torch.linalg.vector_norm(projections, dim=-1)
        after = torch.where(after <= least, 0.0, after)
        inverse = _inverse_or_zero(after)
        image.mul_(rows.spread(inverse, image))
        self.hessenberg[..., : column + 1, column] = projections
        self.hessenberg[..., column + 1, column] = after
        product = torch.linalg.vecdot(self.left[..., : column + 1], projections)
        self.left[..., column + 1] = -product * inverse
        pivot = torch.hypot(product * self.ratio, after)
        # A column that adds nothing to the image of the space: the operator is singular on it.
        task.fail(pivot <= least, Status.BREAKDOWN)
        self.ratio = self.ratio * after * _inverse_or_zero(pivot)
        norms = self.start * self.ratio
        active = task.active()
        task.iterations += active
        self.columns += active & torch.isfinite(norms)
        task.record(torch.where(active, norms, task.history[-1]))

    def _orthogonalise(self, count: int) -> Tensor:
        """Take the part in the first `count` vectors out of the next one; returns it, `(*batch, count)`."""
        known, new = self.vectors[:, :count], self.vectors[:, count].unsqueeze(-1)
        total = torch.matmul(known, new)
        new.baddbmm_(known.mT, total, alpha=-1)
        again = torch.matmul(known, new)
        new.baddbmm_(known.mT, again, alpha=-1)
        return total.add_(again).double().reshape(*self.task.rows.batch, count)

    def correct(self, count: int) -> None:
        """x += Z y with the y that minimises the residual of every row over the columns that it made."""
        task, rows = self.task, self.task.rows
        used = (torch.arange(count, device=task.x.device) < self.columns.unsqueeze(-1)).unsqueeze(-2)
        # Unit columns, orthogonal to all others, stand for those that a row did not make: their weight is zero.
        unit = torch.eye(count + 1, count + 1, dtype=torch.float64, device=task.x.device)[:, 1:]
        hessenberg = torch.where(used, self.hessenberg[..., : count + 1, :count], unit)
        orthogonal, triangular = torch.linalg.qr(hessenberg)
        right = self.start[..., None, None] * orthogonal[..., :1, :].mT
        weights = torch.where(used.mT, torch.linalg.solve_triangular(triangular, right, upper=True), 0.0)
        weights = weights.to(task.x.dtype).reshape(rows.count, 1, count)
        directions = self.directions.reshape(-1, rows.count, rows.size)[:count].transpose(0, 1)
        update = torch.matmul(weights, directions).reshape(task.x.shape)
        if not self.flexible and not self.plain:
            update = self.inverse.apply(update)
        task.x.add_(update)


def _inverse_or_zero(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.inf).reciprocal()
