"""Successive over-relaxation as an approximate inverse: compiled on the CPU where it can be, otherwise by triangles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import inf, prod
from typing import Any

import torch
from torch import Tensor

from sciml.kernels import build, layout
from sciml.kernels.relaxation import CompiledLines, CompiledRelaxation, CompiledRows, CourseTable
from sciml.linear_operator import Kind, LinearOperator
from sciml.sparse import SparseOperator
from sciml.stencil import StencilOperator

from .base import Iteration
from .colouring import periodic_weights
from .inverse import ApproximateInverse, Entries, MatrixInverse, positive_diagonal
from .split_patterns import split_matrices, split_stencils
from .successive_over_relaxation import Ordering, Splitting

_TRANSPOSED = {"forward": "backward", "backward": "forward", "symmetric": "symmetric"}
_UPDATES = 20_000_000  # unknowns times steps of one call, about a second, so that Ctrl-C is heard
_ABREAST = 5  # fields from which on as many side by side as a vector holds are faster than one after the other,
_NEAR = 32_768  # if so many numbers of each, the matrix and six fields, stay in the cache


def relaxation_inverse(
    operator: LinearOperator, method: str, way: str, relaxation: float, ordering: Ordering
) -> LinearOperator:
    """The inverse that a sweep stands for.

    Args:
        operator: what it approximately inverts.
        method: its name, for messages.
        way: "forward", "backward" or, one after the other, "symmetric".
        relaxation, ordering: see SOR.

    Raises:
        InputError: for a diagonal with zeros, or "natural" on a device where torch has no sparse triangular solve.
    """
    definite = positive_diagonal(operator, method) and operator.symmetric and way == "symmetric"
    kind = Kind.SYMMETRIC_POSITIVE if definite else Kind.LINEAR
    remake = functools.partial(relaxation_inverse, method=method, way=way, relaxation=relaxation, ordering=ordering)
    if operator.device.type == "cpu" and operator.dtype in layout.NAMES and build.library() is not None:
        compiled = _lines(operator, ordering) or _rows(operator, ordering)
        if compiled is not None:
            return RelaxationInverse(operator, kind, way, relaxation, ordering, compiled, remake)
    return _by_triangles(operator, kind, way, relaxation, ordering, remake)


class RelaxationInverse(ApproximateInverse):
    """Sweeps from zero, by the compiled kernels.

    Args:
        operator: what it approximately inverts.
        kind: what may be assumed of it.
        way: "forward", "backward" or "symmetric".
        relaxation, ordering: see SOR.
        compiled: the matrices of its batch, in order.
        remake: what made it from the operator, and makes its copies and its transpose.
    """

    def __init__(
        self,
        operator: LinearOperator,
        kind: Kind,
        way: str,
        relaxation: float,
        ordering: Ordering,
        compiled: CompiledRelaxation,
        remake: Callable[..., LinearOperator],
    ) -> None:
        super().__init__(operator, kind)
        self._operator = operator
        self._way = way
        self._relaxation = relaxation
        self._ordering: Ordering = ordering
        self._compiled = compiled
        self._remake = remake

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by what it was made from: addresses in memory stay in this process."""
        return self._remake, (self._operator,)

    def multiply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        x = x.resolve_neg()
        batch = torch.broadcast_shapes(self.batch, x.shape[: x.ndim - len(self.space)])
        field = x.expand(*batch, *self.space)
        if self._takes(batch):
            field = field.contiguous()
            inside = out is not None and out.is_contiguous() and out.shape == field.shape and out.dtype == x.dtype
            result = out if inside and out is not None else torch.empty_like(field)
            if result.data_ptr() == field.data_ptr():
                result = torch.empty_like(field)
            self._compiled.relax(self._way, self._relaxation, field, result)
            return result if out is None or out is result else out.copy_(result)
        # The axes of the operator's own batch come last, and fields belong to its rows in turn.
        own = (1,) * (len(batch) - len(self.batch)) + self.batch
        order = sorted(range(field.ndim), key=lambda axis: axis >= len(own) or own[axis] > 1)
        moved = field.permute(order).contiguous()
        result = torch.empty_like(moved)
        self._compiled.relax(self._way, self._relaxation, moved, result)
        result = result.permute(sorted(range(field.ndim), key=order.__getitem__))
        return result.contiguous() if out is None else out.copy_(result)

    def transpose(self) -> LinearOperator:
        return self if self.symmetric else self._remake(self._operator.transpose(), way=_TRANSPOSED[self._way])

    def advance(self, task: Iteration, *, descend: bool) -> bool:
        """Run the stationary iteration or (`descend`) conjugate gradients on a task, if that is possible.

        The compiled steps multiply by the matrix that is relaxed: it must be the task's operator.
        """
        fields = task.b, task.x, task.r
        if not self._takes(task.rows.batch) or not _same_matrix(task.operator, self._operator):
            return False
        if not all(field.is_contiguous() and field.dtype == self.dtype for field in fields):
            return False
        _run(task, self._abreast(task.rows.count), self._way, self._relaxation, descend)
        return True

    def _takes(self, batch: tuple[int, ...]) -> bool:
        """Whether fields of a batch belong to the operator's rows in turn."""
        return self._compiled.systems == 1 or batch[len(batch) - len(self.batch) :] == self.batch

    def _abreast(self, fields: int) -> CompiledRelaxation:
        """The matrices in the form that suits a number of fields."""
        if fields < _ABREAST or isinstance(self._compiled, CompiledRows):
            return self._compiled
        operator = self._operator
        if not isinstance(operator, StencilOperator):
            return self._compiled
        if operator.size * (len(operator.offsets) + 6) > _NEAR:
            return self._compiled
        if self._rows is None:
            self._rows = _rows(operator, self._ordering)
        return self._compiled if self._rows is None else self._rows

    _rows: CompiledRows | None = None


def _same_matrix(first: LinearOperator, second: LinearOperator) -> bool:
    """Whether two operators are known to be one matrix: made of the same tensors."""
    if first is second:
        return True
    if isinstance(first, StencilOperator) and isinstance(second, StencilOperator):
        parts = zip(first.coefficients, second.coefficients, strict=False)
        alike = (first.space, first.offsets, first.periodic) == (second.space, second.offsets, second.periodic)
        return alike and all(one is two or _same_tensor(one, two) for one, two in parts)
    if isinstance(first, SparseOperator) and isinstance(second, SparseOperator):
        return first.space == second.space and _same_tensor(first.values, second.values)
    return False


def _same_tensor(first: Tensor, second: Tensor) -> bool:
    layouts = ((t.data_ptr(), t.dtype, t.shape, t.stride()) for t in (first, second))
    return next(layouts) == next(layouts)


def _lines(operator: LinearOperator, ordering: Ordering) -> CompiledLines | None:
    """A stencil as it is; None for other operators, and where its colours do not repeat along the axes."""
    if not isinstance(operator, StencilOperator) or operator.compiled is None:
        return None
    colours = None
    if ordering == "multicolour":
        colours = periodic_weights(operator.space, operator.offsets, operator.periodic)
        if colours is None:
            return None
    return CompiledLines(operator.compiled, operator.compiled.whole(operator.diagonal().reciprocal()), colours)


def _rows(operator: LinearOperator, ordering: Ordering) -> CompiledRows | None:
    """The matrices of an operator's batch, split; None where they have too many entries for 32-bit indices."""
    if isinstance(operator, StencilOperator):
        if operator.size * len(operator.offsets) >= 2**31:
            return None
        pattern, values = split_stencils(operator, ordering)
    else:
        entries = Entries.of(operator)
        if len(entries.values) >= 2**31:
            return None
        pattern, values = split_matrices(operator, entries, ordering)
    return CompiledRows(pattern, values, max(1, prod(operator.batch)))


def _by_triangles(
    operator: LinearOperator,
    kind: Kind,
    way: str,
    relaxation: float,
    ordering: Ordering,
    remake: Callable[[LinearOperator], LinearOperator],
) -> LinearOperator:
    splitting = Splitting.of(operator, ordering)
    if way != "symmetric":
        triangle = splitting.lower(relaxation) if way == "forward" else splitting.upper(relaxation)
        solve, solve_transposed = triangle.solve, triangle.solve_transposed
    else:
        lower, upper = splitting.lower(relaxation), splitting.upper(relaxation)
        middle = ((2 - relaxation) / relaxation * splitting.diagonal).unsqueeze(-1)

        def solve(b: Tensor) -> Tensor:
            return upper.solve(lower.solve(b).mul_(middle))

        def solve_transposed(b: Tensor) -> Tensor:
            return lower.solve_transposed(upper.solve_transposed(b).mul_(middle))

    return MatrixInverse(
        operator, kind, splitting.in_own_order(solve), splitting.in_own_order(solve_transposed), remake
    )


def _run(task: Iteration, compiled: CompiledRelaxation, way: str, relaxation: float, descend: bool) -> None:
    """Advance a task, as StationaryMethod and ConjugateGradient do in torch."""
    rows = task.rows
    p = torch.empty_like(task.r) if descend else task.r
    rz = torch.full((rows.count,), -1.0, dtype=torch.float64)
    tolerance = task.tolerance.expand(rows.batch).to(torch.float64).contiguous()
    outcome, iterations = task.codes.clone(), task.iterations.clone()
    course = CourseTable(*map(Tensor.data_ptr, (task.b, task.x, task.r, p, rz, tolerance, iterations, outcome)))
    left = task.max_iterations
    least, updates = (8, _UPDATES) if task.deadline == inf else (1, _UPDATES // 100)
    while left > 0 and not task.expired and bool((outcome == Iteration.RUNNING).any()):
        steps = min(left, max(least, updates // p.numel()))
        norms = torch.empty(steps, rows.count, dtype=torch.float64)
        before = iterations.clone()
        compiled.advance(way, relaxation, course, descend, norms)
        used = max(1, int((iterations - before).max()))
        task.history.extend(norms[:used].reshape(used, *rows.batch).unbind(0))
        left -= steps
    task.codes, task.iterations = outcome, iterations
