"""Successive over-relaxation."""

from __future__ import annotations

from dataclasses import dataclass

from sciml.linear_operator import LinearOperator

from .relaxation import relaxation_inverse
from .stationary import StationaryMethod
from .successive_over_relaxation import Ordering, check_relaxation


@dataclass(frozen=True)
class SOR(StationaryMethod):
    """Successive over-relaxation: x <- x + M^-1 (b - A x) with M = D / relaxation + L; relaxation 1 is Gauss-Seidel.

    Converges for symmetric positive definite operators with any relaxation in (0, 2). As a preconditioner it is linear
    and not symmetric: conjugate gradients need SSOR.

    Source: Young, Iterative Solution of Large Linear Systems (1971); Saad (2003), section 4.1.

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
        check_relaxation(self.relaxation, self.ordering, "SOR")

    def describe(self) -> str:
        return f"{self.ordering} SOR (relaxation {self.relaxation:g})"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        return relaxation_inverse(operator, "SOR", "forward", self.relaxation, self.ordering)
