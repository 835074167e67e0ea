"""Chebyshev polynomials of the operator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import Kind, LinearOperator

from .inverse import ApproximateInverse, positive_diagonal
from .rows import Rows
from .settings import check_count, check_number
from .stationary import StationaryMethod

_LANCZOS_STEPS = 10
_POWER_STEPS = 20


@dataclass(frozen=True)
class Chebyshev(StationaryMethod):
    """The polynomial in D^-1 A that comes nearest to its inverse on an interval of the spectrum, D being the diagonal.

    Needs nothing but products with A: as parallel as these. The upper end of the interval is a bound on the largest
    eigenvalue of D^-1 A, found row by row in a few Lanczos steps (power steps where A is not symmetric); `fraction` of
    it is the lower end. Symmetric positive definite for a symmetric positive definite operator. Made for operators
    whose D^-1 A has its spectrum near the positive real axis.

    Source: Saad (2003), algorithm 12.1; the bound: Zhou, Saad, Tiago and Chelikowsky, J. Comput. Phys. 219 (2006).

    Args:
        degree: products with D^-1 in one application, one more than those with A; at least 1.
        fraction: lower end of the interval over its upper end, in (0, 1), dimensionless.
        rtol, atol, max_iterations: see LinearSolver; used where it is the solver itself.

    Raises:
        InputError: for settings out of range; from `prepare`, for a diagonal that is not positive.
    """

    degree: int = 4
    fraction: float = 0.02

    def validate(self) -> None:
        check_count(self.degree, "Chebyshev: degree")
        check_number(self.fraction, "Chebyshev: fraction", 0.0, 1.0)

    def describe(self) -> str:
        return f"Chebyshev (degree {self.degree}, fraction {self.fraction:g})"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        if not positive_diagonal(operator, "Chebyshev"):
            raise InputError("Chebyshev needs a positive diagonal: use -A where it is negative, or ILU0")
        return ChebyshevPolynomial(operator, self.degree, self.fraction, largest_eigenvalue(operator))


class ChebyshevPolynomial(ApproximateInverse):
    """p(D^-1 A) D^-1, with `upper` of batch shape bounding the eigenvalues of D^-1 A."""

    def __init__(self, operator: LinearOperator, degree: int, fraction: float, upper: Tensor) -> None:
        super().__init__(operator, Kind.SYMMETRIC_POSITIVE if operator.symmetric else Kind.LINEAR)
        self.operator = operator
        self.degree = degree
        self.fraction = fraction
        self.upper = upper
        centre = 0.5 * (1 + fraction) * upper
        # In units of the centre, so that the recurrence's coefficients are the same numbers for every row.
        axes = [1] * len(operator.space)
        self.scale = operator.diagonal().reciprocal() / centre.to(operator.dtype).reshape(*operator.batch, *axes)
        self.coefficients = chebyshev_coefficients(degree, (1 - fraction) / (1 + fraction))

    def multiply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        direction = x * self.scale
        total = direction.clone() if out is None else out.copy_(direction)
        residual = torch.empty_like(total)
        for keep, add in self.coefficients:
            self.operator.residual(x, total, out=residual)
            direction.mul_(keep).addcmul_(residual, self.scale, value=add)
            total.add_(direction)
        return total

    def transpose(self) -> LinearOperator:
        if self.symmetric:
            return self
        return ChebyshevPolynomial(self.operator.transpose(), self.degree, self.fraction, self.upper)


def chebyshev_coefficients(degree: int, radius: float) -> list[tuple[float, float]]:
    """(keep, add) of every step direction <- keep direction + add residual, for eigenvalues within `radius` of 1.

    Saad (2003), algorithm 12.1, with theta = 1 and delta = radius.
    """
    previous = radius
    steps = []
    for _ in range(degree - 1):
        current = 1 / (2 / radius - previous)
        steps.append((current * previous, 2 * current / radius))
        previous = current
    return steps


def largest_eigenvalue(operator: LinearOperator) -> Tensor:
    """A bound on the largest eigenvalue of D^-1 A, of batch shape, float64; a firm one if A is symmetric."""
    rows = Rows(operator.batch, operator.space)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(operator.space, generator=generator, dtype=operator.dtype).to(operator.device)
    start = start.expand(*operator.batch, *operator.space).contiguous()
    return _lanczos_bound(operator, rows, start) if operator.symmetric else _power_bound(operator, rows, start)


def _lanczos_bound(operator: LinearOperator, rows: Rows, start: Tensor) -> Tensor:
    """The largest Ritz value of D^-1/2 A D^-1/2 plus the norm of the last Lanczos residual."""
    root = operator.diagonal().rsqrt()
    vector = start / rows.spread(rows.norm(start), start)
    previous, beta = torch.zeros_like(vector), rows.scalars(0.0, operator.device)
    steps = min(_LANCZOS_STEPS, operator.size)
    tridiagonal = torch.zeros(*operator.batch, steps, steps, dtype=torch.float64, device=operator.device)
    for step in range(steps):
        image = operator.apply(vector * root) * root
        alpha = rows.dot(vector, image)
        image -= rows.spread(alpha, image) * vector + rows.spread(beta, image) * previous
        tridiagonal[..., step, step] = alpha
        if step:
            tridiagonal[..., step, step - 1] = tridiagonal[..., step - 1, step] = beta
        beta = rows.norm(image)
        previous, vector = vector, image * rows.spread(torch.where(beta > 0, beta, 1.0).reciprocal(), image)
    return torch.linalg.eigvalsh(tridiagonal)[..., -1] + beta


def _power_bound(operator: LinearOperator, rows: Rows, vector: Tensor) -> Tensor:
    """The largest growth in late power steps, and a tenth more."""
    inverse = operator.diagonal().reciprocal()
    bound = rows.scalars(0.0, operator.device)
    for step in range(_POWER_STEPS):
        vector = vector / rows.spread(rows.norm(vector), vector)
        vector = operator.apply(vector) * inverse
        if 2 * step >= _POWER_STEPS:
            bound = torch.maximum(bound, rows.norm(vector))
    return 1.1 * bound
