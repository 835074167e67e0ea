"""The gradient of a solve, linear or not, written once for all methods.

x with F(x, theta) = 0 is computed without gradients. Then the residual r = -F(x, theta), zero but for the tolerance, is
evaluated with gradients, and x is returned through a function of (x, r) that acts as x + A^-1 r, A being the derivative
dF/dx: its derivative with respect to r is A^-1, so that dx = -A^-1 dF/dtheta, the implicit function theorem. Of a
linear equation r = b - A(theta) x. The backward pass solves the adjoint system A^T lambda = g through the same public
path, hence can be differentiated again.

For that the x inside the residual has to be differentiable itself, or the second derivative would lack what comes of
dA dx. So there are two stages: an anchor x1, made from the residual at the constant x, and the value, made from the
residual at x1. The value does not depend on x1 to first order: what the residual sends back to x1, -A^T lambda, is
cancelled by what the value sends back, and the anchor's backward does nothing but in second derivatives. Third
derivatives are not provided for.

Forward the anchor's tangent is A^-1 times that of the residual, taken as a constant. Where derivatives of it are asked
for in turn, backward, they are those of the value's tangent, which adds A^-1 times the tangent of r(x1): 0 but for
rounding, so that only its derivative is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.differentiation import in_transform
from sciml.errors import SolveError
from sciml.solution import AdjointRecord, Solution
from sciml.status import Status

if TYPE_CHECKING:
    from sciml.linear_operator import LinearOperator

    from .base import Prepared


def attach_gradient(
    prepared: Prepared,
    b: Tensor,
    solution: Solution,
    throw: bool,
    solved_by: Callable[[LinearOperator], Prepared] | None = None,
) -> Solution:
    """The solution with its value made differentiable with respect to b and the operator's coefficients.

    Args:
        prepared: by which it was found.
        b: the right side.
        solution: with a value without gradients.
        throw: whether a failing adjoint solve raises.
        solved_by: the operator -> what solves in derivatives, if that is not `prepared`.
    """
    operator = prepared.operator

    def linearization(_: Tensor) -> Prepared:
        return prepared if solved_by is None else solved_by(operator)

    return attach_implicit_gradient(lambda x: operator.residual(b, x), linearization, operator.space, solution, throw)


def attach_implicit_gradient(
    residual: Callable[[Tensor], Tensor],
    linearization: Callable[[Tensor], Prepared],
    space: tuple[int, ...],
    solution: Solution,
    throw: bool,
) -> Solution:
    """The solution with its value made differentiable with respect to all that goes into its residual.

    Args:
        residual: x -> r, zero at the solution, differentiable in x and in the data.
        linearization: x -> a solver prepared for -dr/dx, whose operator carries gradients where x does.
        space: shape of one field.
        solution: with `value` the x, without gradients; rows that failed get none.
        throw: whether a failing adjoint solve raises.
    """
    good = solution.codes == Status.CONVERGED
    mask = good.reshape(*good.shape, *[1] * len(space))
    # A failed row may hold NaN, which zero times would carry into the gradients of the others.
    safe = solution.value if bool(good.all()) else torch.where(mask, solution.value, 0.0)
    left = residual(safe)
    tangent = forward_ad.unpack_dual(left).tangent
    # Inside torch.func nothing is seen of what is differentiated outside of it.
    recorded = left.requires_grad or (tangent is not None and tangent.requires_grad) or in_transform()
    if not recorded and tangent is None:
        return solution
    adjoint = _Adjoint(linearization, len(space), good, AdjointRecord(), throw)
    value, marker = _Anchor.apply(safe, left, adjoint)
    if recorded:
        value = _ImplicitSolve.apply(value, marker, residual(value), adjoint)
    if safe is not solution.value:
        value = torch.where(mask, value, solution.value)
    return replace(solution, value=value, adjoint=adjoint.record)


@dataclass(frozen=True)
class _Adjoint:
    """What the backward passes of one solve share."""

    linearization: Callable[[Tensor], Prepared]
    axes: int
    converged: Tensor
    record: AdjointRecord
    throw: bool

    def solve(self, prepared: Prepared, right: Tensor) -> Tensor:
        return _solve_rows(prepared, right, self.converged, self.record, self.throw)


class _Anchor(torch.autograd.Function):
    """(x, r) -> x1, and a marker by which the value's backward says what it sends to x1 to first order."""

    @staticmethod
    def forward(x: Tensor, residual: Tensor, adjoint: _Adjoint) -> tuple[Tensor, Tensor]:
        return x.clone(), torch.zeros_like(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.adjoint = inputs[2]
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, cancelling = gradients
        if gradient is None:
            return None, None, None
        (x,) = ctx.saved_tensors
        prepared = ctx.adjoint.linearization(x)
        if cancelling is not None:
            # What is left of the two is rounding, and solving for it would cost as much as for a gradient.
            total, axes = gradient + cancelling, tuple(range(-ctx.adjoint.axes, 0))
            norms = (torch.linalg.vector_norm(field.detach(), dim=axes, keepdim=True) for field in (total, cancelling))
            left, first_order = norms
            negligible = left <= prepared.solver.relative_tolerance(x.dtype) * first_order
            if bool(negligible.all()):
                return None, None, None
            gradient = torch.where(negligible, 0.0, total)
        return None, ctx.adjoint.solve(prepared.transpose(), gradient), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, Tensor]:
        if tangents[1] is None:
            raise RuntimeError("the residual of an implicit solve has no tangent")
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            solved = ctx.adjoint.solve(ctx.adjoint.linearization(x), tangents[1].detach())
        return solved, torch.zeros_like(tangents[1])


class _ImplicitSolve(torch.autograd.Function):
    """(x1, marker, r(x1)) -> x."""

    @staticmethod
    def forward(x: Tensor, marker: Tensor, residual: Tensor, adjoint: _Adjoint) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.adjoint = inputs[3]
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        transposed = ctx.adjoint.linearization(x).transpose()
        adjoint = ctx.adjoint.solve(transposed, gradients[0])
        return None, transposed.operator.apply(adjoint), adjoint, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor | None:
        if tangents[0] is None or tangents[2] is None:
            return tangents[0]
        (x,) = ctx.saved_tensors
        return tangents[0] + _Correction.apply(tangents[2], x.detach(), ctx.adjoint)


class _Correction(torch.autograd.Function):
    """A^-1 times the tangent of r(x1), which is 0, with its derivative."""

    @staticmethod
    def forward(tangent: Tensor, x: Tensor, adjoint: _Adjoint) -> Tensor:
        return torch.zeros_like(tangent)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.adjoint = inputs[2]
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return ctx.adjoint.solve(ctx.adjoint.linearization(x).transpose(), gradients[0]), None, None


def _solve_rows(prepared: Prepared, right: Tensor, wanted: Tensor, record: AdjointRecord, throw: bool) -> Tensor:
    """Solve for the rows wanted; every other row, and every row that fails, is exactly zero."""
    space = (1,) * len(prepared.space)
    zero = torch.zeros((), dtype=right.dtype, device=right.device)
    right = torch.where(wanted.reshape(*wanted.shape, *space), right, zero)
    try:
        solution = prepared.solve(_without_null_space(right, prepared), throw=throw)
    except SolveError as error:
        record.codes = error.solution.codes
        raise SolveError(f"the adjoint solve failed: {error}", error.solution) from None
    record.codes = solution.codes
    good = wanted & (solution.codes == Status.CONVERGED)
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
