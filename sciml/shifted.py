"""M - step J of an evolving system, where a part of the derivative J is known by its action alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from .errors import InputError
from .evolving import Prepare
from .linear_operator import LinearOperator, MatrixFreeOperator

Action = Callable[[Tensor], Tensor]


@final
class ShiftedOperator(MatrixFreeOperator):
    """A matrix plus something known by its action.

    Args:
        near: the matrix.
        forward: x -> the action of the rest.
        backward: x -> that of its transpose.
        prepare: see `sciml.evolving`.
    """

    def __init__(self, near: LinearOperator, forward: Action, backward: Action, prepare: Prepare) -> None:
        super().__init__(near.space, near.batch, near.dtype, near.device)
        self.near = near
        self._forward = forward
        self._backward = backward
        self._prepare = prepare

    @cached_property
    def preconditioner(self) -> LinearOperator:
        """The inverse of the matrix."""
        return _Inverse(self.near.detach(), self._prepare)

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        total = self.near.apply(x) + self._forward(x)
        return total if out is None else out.copy_(total)

    def transpose(self) -> LinearOperator:
        return ShiftedOperator(self.near.transpose(), self._backward, self._forward, self._prepare)

    def to(self, dtype: torch.dtype) -> LinearOperator:
        def cast(action: Action) -> Action:
            return lambda x: action(x.to(self.dtype)).to(dtype)

        return ShiftedOperator(self.near.to(dtype), cast(self._forward), cast(self._backward), self._prepare)

    def detach(self) -> LinearOperator:
        def still(action: Action) -> Action:
            return lambda x: action(x).detach()

        return ShiftedOperator(self.near.detach(), still(self._forward), still(self._backward), self._prepare)

    def __getitem__(self, row: int) -> LinearOperator:
        raise InputError("an operator that is known by its action on a whole batch has no rows to pick")


Table = Sequence[Sequence[LinearOperator | None]]
"""Blocks by row and column, None standing for 0."""


def shifted_through(
    near: LinearOperator,
    step: float,
    outer: Table,
    inner: Table,
    solve: Action,
    solve_transposed: Action,
    prepare: Prepare,
    *,
    axes: int,
    solid: Tensor | None = None,
) -> ShiftedOperator:
    """M - a dG/du where G depends on u also through what constraints determine: S - a C A^-1 B.

    Args:
        near: S, M - a dG/du with the constrained fields kept.
        step: a.
        outer: C, the derivative of -G, by unknown and constrained field.
        inner: B, that of the constraints, by constrained field and unknown.
        solve, solve_transposed: by A, the derivative of the constraints by the fields that they determine.
        prepare: see `sciml.evolving`.
        axes: of one unknown's field.
        solid: where everything is 0.
    """

    def product(table: Table, x: Tensor, columns: int) -> Tensor:
        parts = (x,) if columns == 1 else x.unbind(-1 - axes)
        results = []
        for row in table:
            total = torch.zeros_like(parts[0])
            for block, part in zip(row, parts, strict=True):
                if block is not None:
                    total = total + block.apply(part.contiguous())
            results.append(total if solid is None else torch.where(solid, 0.0, total))
        return results[0] if len(results) == 1 else torch.stack(torch.broadcast_tensors(*results), dim=-1 - axes)

    def transposed(table: Table) -> Table:
        return [
            [None if block is None else block.transpose() for block in column] for column in zip(*table, strict=True)
        ]

    def forward(x: Tensor) -> Tensor:
        return -step * product(outer, solve(product(inner, x, len(outer))), len(inner))

    def backward(x: Tensor) -> Tensor:
        change = solve_transposed(product(transposed(outer), x, len(outer)))
        return -step * product(transposed(inner), change, len(inner))

    return ShiftedOperator(near, forward, backward, prepare)


@final
class _Inverse(MatrixFreeOperator):
    """The inverse of an operator, by a prepared solver."""

    def __init__(self, operator: LinearOperator, prepare: Prepare) -> None:
        super().__init__(operator.space, operator.batch, operator.dtype, operator.device, symmetric=operator.symmetric)
        self.operator = operator
        self._prepare = prepare
        self._solve = prepare(operator)

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        solved = self._solve(x)
        return solved if out is None else out.copy_(solved)

    def transpose(self) -> LinearOperator:
        return self if self.symmetric else _Inverse(self.operator.transpose(), self._prepare)

    def to(self, dtype: torch.dtype) -> LinearOperator:
        return _Inverse(self.operator.to(dtype), self._prepare)

    def detach(self) -> LinearOperator:
        return self

    def __getitem__(self, row: int) -> LinearOperator:
        return _Inverse(self.operator[row], self._prepare)
