"""The gradient of a linear solve, written once for all methods.

x = A^-1 b is computed without gradients. Then the residual r = b - A(theta) x, zero but for the tolerance, is evaluated
once with gradients, and x is returned through a function of (x, r) that acts as x + A^-1 r: its derivative with respect
to r is A^-1, so that dx = A^-1 (db - dA x), the implicit function theorem. The backward pass solves the adjoint system
A^T lambda = g through the same public path, hence can be differentiated again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.errors import SolveError
from sciml.solution import AdjointRecord, Solution
from sciml.status import Status

if TYPE_CHECKING:
    from .base import Prepared


def attach_gradient(prepared: Prepared, b: Tensor, solution: Solution, throw: bool) -> Solution:
    """The solution with its value made differentiable with respect to b and the operator's coefficients."""
    residual = prepared.operator.residual(b, solution.value)
    tracked = residual.requires_grad or forward_ad.unpack_dual(residual).tangent is not None
    if not tracked:
        return solution
    record = AdjointRecord()
    converged = solution.codes == Status.CONVERGED
    value = _ImplicitSolve.apply(solution.value, residual, prepared, converged, record, throw)
    return replace(solution, value=value, adjoint=record)


class _ImplicitSolve(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, residual: Tensor, prepared: Prepared, converged: Tensor, record: AdjointRecord, throw: bool
    ) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, ctx.prepared, ctx.converged, ctx.record, ctx.throw = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        adjoint = _solve_rows(ctx.prepared.transpose(), gradients[0], ctx.converged, ctx.record, ctx.throw)
        return None, adjoint, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        if tangents[1] is None:
            raise RuntimeError("the residual of an implicit solve has no tangent")
        return _solve_rows(ctx.prepared, tangents[1], ctx.converged, ctx.record, ctx.throw)


def _solve_rows(prepared: Prepared, right: Tensor, wanted: Tensor, record: AdjointRecord, throw: bool) -> Tensor:
    """Solve for the rows wanted; every other row, and every row that fails, is exactly zero."""
    space = (1,) * len(prepared.space)
    zero = torch.zeros((), dtype=right.dtype, device=right.device)
    right = torch.where(wanted.reshape(*wanted.shape, *space), right, zero)
    projected = _without_null_space(right, prepared)
    solution = prepared.solve(projected, throw=False)
    record.codes = solution.codes
    good = wanted & (solution.codes == Status.CONVERGED)
    if throw and not bool(good.all() if bool(wanted.all()) else (good == wanted).all()):
        raise SolveError("the adjoint solve failed: " + str(solution.status[0].advice), solution)
    return torch.where(good.reshape(*good.shape, *space), solution.value, zero)


def _without_null_space(right: Tensor, prepared: Prepared) -> Tensor:
    """A singular system's solution lives in the complement of the null space, and so does its derivative."""
    null_space = prepared.operator.null_space
    if null_space is None:
        return right
    axes = len(prepared.space)
    for vector in null_space.to(right.dtype):
        component = (right * vector).sum(dim=tuple(range(-axes, 0)), keepdim=True)
        right = right - component * vector
    return right
