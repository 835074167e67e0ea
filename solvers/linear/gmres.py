"""The generalized minimal residual method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import Identity, Kind, LinearOperator
from sciml.status import Status

from .base import Iteration, LinearSolver, Preconditioner
from .preconditioning import check_preconditioner, describe_preconditioner, prepare_preconditioner


@dataclass(frozen=True)
class GMRES(LinearSolver):
    """Restarted GMRES for general operators, preconditioned from the right; flexible for a nonlinear preconditioner.

    Every iteration minimises the residual norm over the Krylov space since the last restart. The basis is made
    orthogonal by classical Gram-Schmidt, twice. Keeps `restart + 1` fields (`2 restart + 1` where flexible).

    Source: Saad and Schultz, SIAM J. Sci. Stat. Comput. 7 (1986) 856-869; flexible: Saad, SIAM J. Sci. Comput. 14 (1993)
    461-469; Gram-Schmidt: Giraud, Langou and Rozloznik, Comput. Math. Appl. 50 (2005) 1069-1075.

    Args:
        restart: iterations between restarts, at least 1.
        preconditioner: any approximation of the inverse, or None.
        rtol, atol, max_iterations: see LinearSolver.

    Raises:
        InputError: for a restart below 1.
    """

    restart: int = 30
    preconditioner: Preconditioner | None = None

    def validate(self) -> None:
        check_preconditioner(self.preconditioner)
        if self.restart < 1:
            raise InputError(f"GMRES needs restart >= 1, got {self.restart}")

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
            if step >= task.max_iterations or not bool(task.active().any()):
                break
            task.r = task.operator.residual(task.b, task.x, out=task.r)


class _KrylovSpace:
    """One cycle: A Z = V H with V orthonormal, and Q H = R triangular, all of it row by row of the batch.

    Rotations are kept multiplied out in Q, which makes one small product of what would be as many as there are columns.
    """

    def __init__(self, task: Iteration, inverse: LinearOperator, restart: int) -> None:
        self.task = task
        self.inverse = inverse
        self.plain = isinstance(inverse, Identity)
        self.flexible = inverse.kind is Kind.NONLINEAR
        rows, like = task.rows, task.x
        self.basis = like.new_empty(restart + 1, *like.shape)
        self.directions = like.new_empty(restart, *like.shape) if self.flexible else self.basis
        # (rows, vectors, size), so that projections are batched products
        self.vectors = self.basis.reshape(restart + 1, rows.count, rows.size).transpose(0, 1)
        self.rotations = torch.empty(rows.count, restart + 1, restart + 1, dtype=torch.float64, device=like.device)
        self.triangular = torch.empty(rows.count, restart, restart, dtype=torch.float64, device=like.device)

    def begin(self, residual: Tensor) -> None:
        """Start from a residual; rows at rest get an empty space."""
        rows = self.task.rows
        self.start = torch.where(self.task.active(), rows.norm(residual), 0.0)
        self.columns = torch.zeros_like(self.task.iterations)
        torch.mul(residual, rows.spread(_inverse_or_zero(self.start), residual), out=self.basis[0])
        self.rotations.copy_(torch.eye(self.rotations.shape[-1], dtype=torch.float64, device=residual.device))
        self.triangular.zero_()

    def extend(self, column: int) -> None:
        """One Arnoldi step and the rotation that makes its column triangular."""
        task, rows = self.task, self.task.rows
        direction = self.basis[column]
        if self.flexible:
            # A row at rest must not bring NaN into the sum of `correct`.
            moved = self.inverse.apply(direction)
            direction = self.directions[column].copy_(torch.where(rows.spread(task.active(), moved).bool(), moved, 0.0))
        elif not self.plain:
            direction = self.inverse.apply(direction)
        image = task.operator.apply(direction, out=self.basis[column + 1])
        before = rows.norm(image)
        projections = self._orthogonalise(column + 1)
        after = rows.norm(image)
        dependent = after <= 10 * torch.finfo(image.dtype).eps * before
        after = torch.where(dependent, 0.0, after)
        image.mul_(rows.spread(_inverse_or_zero(after), image))
        self._rotate(column, projections, after.reshape(-1), before)

    def _orthogonalise(self, count: int) -> Tensor:
        """Take the part in the first `count` vectors out of the next one; returns it, `(rows, count)`."""
        known, new = self.vectors[:, :count], self.vectors[:, count].unsqueeze(-1)
        total = torch.matmul(known, new)
        new.baddbmm_(known.mT, total, alpha=-1)
        again = torch.matmul(known, new)
        new.baddbmm_(known.mT, again, alpha=-1)
        return total.add_(again).squeeze(-1).double()

    def _rotate(self, column: int, projections: Tensor, after: Tensor, before: Tensor) -> None:
        task = self.task
        size = column + 1
        rotated = torch.matmul(self.rotations[:, :size, :size], projections.unsqueeze(-1)).squeeze(-1)
        pivot = rotated[:, column]
        diagonal = torch.hypot(pivot, after)
        inverse = _inverse_or_zero(diagonal)
        cosine, sine = (pivot * inverse).unsqueeze(-1), (after * inverse).unsqueeze(-1)
        self.triangular[:, :size, column] = rotated
        self.triangular[:, column, column] = diagonal
        above = self.rotations[:, column, :size].clone()
        self.rotations[:, column, :size] = cosine * above
        self.rotations[:, column, size] = sine.squeeze(-1)
        self.rotations[:, size, :size] = -sine * above
        self.rotations[:, size, size] = cosine.squeeze(-1)
        norms = self.start * self.rotations[:, size, 0].abs().reshape(self.start.shape)
        active = task.active()
        # A column that adds nothing to the space: the operator is singular on it.
        empty = diagonal.reshape(self.start.shape) <= 10 * torch.finfo(task.x.dtype).eps * before
        task.fail(active & empty, Status.BREAKDOWN)
        advanced = task.active()
        task.iterations += advanced
        self.columns += advanced & torch.isfinite(norms)
        task.record(torch.where(advanced, norms, task.history[-1]))

    def correct(self, count: int) -> None:
        """x += Z y with the y that minimises the residual of every row over the columns that it made."""
        task, rows = self.task, self.task.rows
        used = torch.arange(count, device=task.x.device) < self.columns.reshape(-1, 1)
        both = used.unsqueeze(-1) & used.unsqueeze(-2)
        unit = torch.eye(count, dtype=torch.float64, device=task.x.device)
        triangular = torch.where(both, self.triangular[:, :count, :count], unit)
        right = torch.where(used, self.start.reshape(-1, 1) * self.rotations[:, :count, 0], 0.0)
        weights = torch.linalg.solve_triangular(triangular, right.unsqueeze(-1), upper=True).to(task.x.dtype)
        directions = self.directions.reshape(-1, rows.count, rows.size)[:count].transpose(0, 1)
        update = torch.matmul(weights.mT, directions).reshape(task.x.shape)
        if not self.flexible and not self.plain:
            update = self.inverse.apply(update)
        task.x.add_(update)


def _inverse_or_zero(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.inf).reciprocal()
