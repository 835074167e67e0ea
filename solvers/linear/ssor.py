"""Symmetric successive over-relaxation."""

from __future__ import annotations

from dataclasses import dataclass

from sciml.linear_operator import LinearOperator

from .relaxation import relaxation_inverse
from .stationary import StationaryMethod
from .successive_over_relaxation import Ordering, check_relaxation


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
        return relaxation_inverse(operator, "SSOR", "symmetric", self.relaxation, self.ordering)
