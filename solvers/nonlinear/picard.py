"""Picard's iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sciml.linear_operator import LinearOperator

from ..linear.settings import check_number
from .base import AnySystem, NonlinearSolver
from .forcing import EisenstatWalker
from .line_search import Backtracking


@dataclass(frozen=True, kw_only=True)
class Picard(NonlinearSolver):
    """Picard's iteration: coefficients evaluated at the last iterate, the linear equation solved with these.

    It converges linearly, and from further away than Newton's method where the coefficients vary mildly. What it
    lags: see `NonlinearSystem.lagged`. Steps are whole by default, since |F| need not fall from the first on.

    Args:
        rtol, atol, max_iterations, linear, line_search: see `NonlinearSolver`.
        accuracy: relative tolerance of the linear equations, dimensionless, in (0, 1).
    """

    max_iterations: int = 200
    line_search: Backtracking | None = None
    accuracy: float = 1e-2

    name: ClassVar[str] = "Picard's iteration"

    def validate(self) -> None:
        check_number(self.accuracy, "Picard: accuracy", 0.0, 1.0)

    def operator(self, system: AnySystem, u: Tensor) -> LinearOperator:
        return system.lagged(u)

    def tolerances(self) -> EisenstatWalker:
        return EisenstatWalker(largest=self.accuracy, smallest=self.accuracy)
