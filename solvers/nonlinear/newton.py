"""Newton's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import LinearOperator

from .base import AnySystem, NonlinearSolver
from .forcing import EisenstatWalker


@dataclass(frozen=True, kw_only=True)
class Newton(NonlinearSolver):
    """Newton's method with the exact Jacobian of the discrete equation, inexact steps and a line search.

    Args:
        rtol, atol, max_iterations, linear, line_search: see `NonlinearSolver`.
        forcing: how accurately steps are solved for, relative to |F|.
    """

    forcing: EisenstatWalker = EisenstatWalker()  # noqa: RUF009 (frozen)

    name: ClassVar[str] = "Newton's method"

    def validate(self) -> None:
        if not isinstance(self.forcing, EisenstatWalker):
            raise InputError(f"Newton: forcing must be EisenstatWalker(...), got {self.forcing!r}")

    def operator(self, system: AnySystem, u: Tensor) -> LinearOperator:
        return system.jacobian(u)

    def tolerances(self) -> EisenstatWalker:
        return self.forcing
