"""The Jacobi method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.linear_operator import Kind, LinearOperator

from .inverse import ApproximateInverse, positive_diagonal
from .settings import check_number
from .stationary import StationaryMethod


@dataclass(frozen=True)
class Jacobi(StationaryMethod):
    """Division by the diagonal: x <- x + damping D^-1 (b - A x).

    As a preconditioner it is symmetric positive definite wherever the diagonal is positive, and `damping` is of no
    consequence. As a solver it converges for diagonally dominant operators.

    Source: Saad, Iterative Methods for Sparse Linear Systems (2003), section 4.1.

    Args:
        damping: in (0, 2), dimensionless.
        rtol, atol, max_iterations: see LinearSolver; used where it is the solver itself.

    Raises:
        InputError: for a damping out of range; from `prepare`, for a diagonal with zeros.
    """

    damping: float = 1.0

    def validate(self) -> None:
        check_number(self.damping, "Jacobi: damping", 0.0, 2.0)

    def describe(self) -> str:
        return "Jacobi" if self.damping == 1 else f"Jacobi (damping {self.damping:g})"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        positive = positive_diagonal(operator, "Jacobi")
        return DiagonalInverse(
            operator, self.damping / operator.diagonal(), Kind.SYMMETRIC_POSITIVE if positive else Kind.LINEAR
        )


class DiagonalInverse(ApproximateInverse):
    """Multiplication by a field."""

    def __init__(self, operator: LinearOperator, weight: Tensor, kind: Kind) -> None:
        super().__init__(operator, kind)
        self.weight = weight

    def multiply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.mul(x, self.weight, out=out)

    def transpose(self) -> LinearOperator:
        return self
