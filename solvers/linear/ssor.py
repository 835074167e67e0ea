"""Symmetric successive over-relaxation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sciml.linear_operator import Kind, LinearOperator

from .inverse import MatrixInverse, positive_diagonal
from .stationary import StationaryMethod
from .successive_over_relaxation import Ordering, Splitting, check_relaxation


@dataclass(frozen=True)
class SSOR(StationaryMethod):
    """Symmetric successive over-relaxation, a sweep forward and one backward.

    x <- x + M^-1 (b - A x) with M = relaxation / (2 - relaxation) (D / relaxation + L) D^-1 (D / relaxation + U).
    Symmetric positive definite for a symmetric operator with a positive diagonal. As a preconditioner on n^d grids it
    halves the iterations at least, and takes their number from O(n) to O(n^(1/2)) with a relaxation of 2 - O(1/n), in
    natural order only: after two colours a relaxation beyond 1 gains nothing.

    Source: Young, Iterative Solution of Large Linear Systems (1971); Saad (2003), section 10.2, equation 10.7; the
    growth with n: Axelsson, BIT 12 (1972) 443-467.

    Args:
        relaxation: in (0, 2), dimensionless.
        ordering: "natural" relaxes the unknowns one after the other as they stand in the field; "multicolour" colour
            after colour, all of a colour at once, which is as parallel as a sparse product.
        rtol, atol, max_iterations: see LinearSolver; used where it is the solver itself.

    Raises:
        InputError: for settings out of range; from `prepare`, for a diagonal with zeros, or "natural" on a device
            where torch has no sparse triangular solve.
    """

    relaxation: float = 1.0
    ordering: Ordering = "natural"

    def validate(self) -> None:
        check_relaxation(self.relaxation, self.ordering, "SSOR")

    def describe(self) -> str:
        return f"{self.ordering} SSOR (relaxation {self.relaxation:g})"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        definite = positive_diagonal(operator, "SSOR") and operator.symmetric
        splitting = Splitting.of(operator, self.ordering)
        lower, upper = splitting.lower(self.relaxation), splitting.upper(self.relaxation)
        middle = ((2 - self.relaxation) / self.relaxation * splitting.diagonal).unsqueeze(-1)

        def solve(b: Tensor) -> Tensor:
            return upper.solve(lower.solve(b).mul_(middle))

        def solve_transposed(b: Tensor) -> Tensor:
            return lower.solve_transposed(upper.solve_transposed(b).mul_(middle))

        return MatrixInverse(
            operator,
            Kind.SYMMETRIC_POSITIVE if definite else Kind.LINEAR,
            splitting.in_own_order(solve),
            splitting.in_own_order(solve_transposed),
            self.setup,
        )
