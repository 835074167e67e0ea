"""What the Krylov methods ask of their preconditioners."""

from __future__ import annotations

from typing import Any

from sciml.errors import InputError
from sciml.linear_operator import Identity, Kind, LinearOperator

from .base import Preconditioner


def check_preconditioner(preconditioner: Any) -> None:
    """Raise InputError for something that is no preconditioner."""
    if preconditioner is None or (
        isinstance(preconditioner, Preconditioner) and not isinstance(preconditioner, type | str)
    ):
        return
    hint = f"write {preconditioner.__name__}()" if isinstance(preconditioner, type) else "for example Multigrid()"
    raise InputError(f"preconditioner must be None or an object with prepare(operator), {hint}; got {preconditioner!r}")


def prepare_preconditioner(preconditioner: Preconditioner | None, operator: LinearOperator) -> LinearOperator:
    """The approximate inverse; the identity for None."""
    if preconditioner is None:
        return Identity(operator.space, operator.dtype, operator.device)
    return preconditioner.prepare(operator)


def require_linear(inverse: LinearOperator, method: str, instead: str) -> None:
    """Refuse a nonlinear preconditioner."""
    if inverse.kind is Kind.NONLINEAR:
        raise InputError(f"{method} needs a linear preconditioner, this one is nonlinear: use {instead}")


def describe_preconditioner(preconditioner: Preconditioner | None) -> str:
    """ " with ..." for the description of a solver, empty for None."""
    if preconditioner is None:
        return ""
    name = preconditioner.describe() if hasattr(preconditioner, "describe") else type(preconditioner).__name__
    return f" with {name}"
