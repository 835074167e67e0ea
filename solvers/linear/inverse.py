"""Approximate inverses that a set-up computes, and the matrix of a batch of operators that some are computed from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.csr import csr_entries, csr_tensor, sorted_entries
from sciml.errors import InputError
from sciml.linear_operator import Kind, LinearOperator, MatrixFreeOperator
from sciml.stencil import StencilOperator, narrow, shifted_slices


class ApproximateInverse(MatrixFreeOperator):
    """Base of the operators that a preconditioner's set-up returns.

    They hold factors or coefficients without gradients, made for one dtype and one batch; for another, prepare again.
    What they are applied to may carry gradients.

    Args:
        operator: what it approximately inverts.
        kind: what may be assumed of it.
    """

    def __init__(self, operator: LinearOperator, kind: Kind) -> None:
        symmetric = kind is Kind.SYMMETRIC_POSITIVE
        super().__init__(
            operator.space, operator.batch, operator.dtype, operator.device, symmetric=symmetric, kind=kind
        )

    @abstractmethod
    def multiply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The product with a field `(*batch, *space)`, without gradients."""

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        self._check(x)
        if (torch.is_grad_enabled() and x.requires_grad) or forward_ad._current_level >= 0:
            batch = torch.broadcast_shapes(self.batch, x.shape[: x.ndim - len(self.space)])
            product: Tensor = _Product.apply(x.expand(*batch, *self.space), self)
            return product if out is None else out.copy_(product)
        if out is not None and (out.dtype, out.device) != (x.dtype, x.device):
            return out.copy_(self.multiply(x))
        return self.multiply(x, out)

    def _check(self, x: Tensor) -> None:
        """Compiled kernels read memory as they were told at the set-up."""
        leading = max(x.ndim - len(self.space), 0)
        if (x.shape[leading:], x.dtype, x.device) != (self.space, self.dtype, self.device):
            raise InputError(
                f"a field of shape {tuple(x.shape)}, {x.dtype}, on {x.device}, and the preconditioner was prepared for "
                f"(*batch, {', '.join(map(str, self.space))}), {self.dtype}, on {self.device}"
            )

    def to(self, dtype: torch.dtype) -> LinearOperator:
        raise InputError("prepare the preconditioner on operator.to(dtype) instead")

    def detach(self) -> LinearOperator:
        return self

    def __getitem__(self, row: int) -> LinearOperator:
        raise InputError("prepare the preconditioner on operator[row] instead")


class _Product(torch.autograd.Function):
    """(x, B) -> B x, linear in x."""

    @staticmethod
    def forward(x: Tensor, inverse: ApproximateInverse) -> Tensor:
        return inverse.multiply(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.inverse = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.inverse.transpose().apply(gradients[0]), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return ctx.inverse.apply(tangents[0])


class MatrixInverse(ApproximateInverse):
    """An inverse computed from the block-diagonal matrix of all rows of the operator's batch.

    Args:
        operator: what it, or its transpose, approximately inverts.
        kind: what may be assumed of it.
        solve, solve_transposed: map `(rows * size, columns)` to the same shape.
        remake: what made it from the operator, and makes its copies.
        transposed: whether it is the transpose of what `remake` makes.
    """

    def __init__(
        self,
        operator: LinearOperator,
        kind: Kind,
        solve: Callable[[Tensor], Tensor],
        solve_transposed: Callable[[Tensor], Tensor],
        remake: Callable[[LinearOperator], LinearOperator],
        *,
        transposed: bool = False,
    ) -> None:
        super().__init__(operator, kind)
        self._operator = operator
        self._solve = solve
        self._solve_transposed = solve_transposed
        self._remake = remake
        self._is_transposed = transposed

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by what it was made from: addresses in memory stay in this process."""
        return _made_again, (self._remake, self._operator, self._is_transposed)

    def multiply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        batch = torch.broadcast_shapes(self.batch, x.shape[: x.ndim - len(self.space)])
        field = x.expand(*batch, *self.space)
        # Rows of the operator's own batch lie in one long column; the other batch axes of x are columns of their own.
        own = (1,) * (len(batch) - len(self.batch)) + self.batch
        order = sorted(range(field.ndim), key=lambda axis: axis >= len(own) or own[axis] > 1)
        moved = field.permute(order)
        columns = moved.reshape(-1, prod(self.batch) * self.size).mT.contiguous()
        solved = self._solve(columns).mT.reshape(moved.shape)
        inverse_order = sorted(range(field.ndim), key=order.__getitem__)
        result = solved.permute(inverse_order)
        return result.contiguous() if out is None else out.copy_(result)

    def transpose(self) -> LinearOperator:
        if self.symmetric:
            return self
        return MatrixInverse(
            self._operator,
            self.kind,
            self._solve_transposed,
            self._solve,
            self._remake,
            transposed=not self._is_transposed,
        )


def _made_again(
    remake: Callable[[LinearOperator], LinearOperator], operator: LinearOperator, transposed: bool
) -> LinearOperator:
    made = remake(operator)
    return made.transpose() if transposed else made


@dataclass(frozen=True)
class Entries:
    """A square sparse matrix by its entries, sorted by row and then by column, no place twice.

    Attributes:
        rows, columns: int64 `(entries,)`.
        values: `(entries,)`.
        size: number of rows of the matrix.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    size: int

    @staticmethod
    def of(operator: LinearOperator) -> Entries:
        """The block-diagonal matrix of all rows of an operator's batch.

        Raises:
            InputError: if it holds NaN or infinity.
        """
        if isinstance(operator, StencilOperator) and operator.batch:
            rows, columns, values = _entries_of_stencils(operator)
        else:
            parts = [csr_entries(single.to_sparse()) for single in unbatched(operator)]
            rows = torch.cat([part[0] + i * operator.size for i, part in enumerate(parts)])
            columns = torch.cat([part[1] + i * operator.size for i, part in enumerate(parts)])
            values = torch.cat([part[2] for part in parts])
        size = operator.size * prod(operator.batch)
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise InputError(f"the operator holds {bad} entries that are NaN or infinite")
        return Entries.from_places(rows, columns, values, size)

    @staticmethod
    def from_places(rows: Tensor, columns: Tensor, values: Tensor, size: int) -> Entries:
        """From entries in any order; those in one place are added."""
        return Entries(*sorted_entries(rows, columns, values, size), size)

    def select(self, kept: Tensor) -> Entries:
        """The entries under a mask."""
        places = torch.nonzero(kept).squeeze(-1)
        return Entries(self.rows[places], self.columns[places], self.values[places], self.size)

    def with_values(self, values: Tensor) -> Entries:
        """Other values in the same places."""
        return Entries(self.rows, self.columns, values, self.size)

    def transpose(self) -> Entries:
        """The transposed matrix."""
        return Entries.from_places(self.columns, self.rows, self.values, self.size)

    def diagonal(self) -> Tensor:
        """`(size,)`, 0 where no entry is."""
        on = self.rows == self.columns
        diagonal = torch.zeros(self.size, dtype=self.values.dtype, device=self.values.device)
        diagonal[self.rows[on]] = self.values[on]
        return diagonal

    def csr(self) -> Tensor:
        """As a CSR tensor."""
        return csr_tensor(self.rows, self.columns, self.values, (self.size, self.size))


def _entries_of_stencils(operator: StencilOperator) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and values of all matrices of a batch, in any order."""
    index = torch.arange(operator.size, device=operator.device).reshape(operator.space)
    rows, columns, values = [], [], []
    for offset, coefficient in zip(operator.offsets, operator.coefficients, strict=True):
        for here, there in shifted_slices(operator.space, offset, operator.periodic):
            rows.append(index[here].reshape(-1))
            columns.append(index[there].reshape(-1))
            weight = narrow(coefficient, here).expand(*operator.batch, *index[here].shape)
            values.append(weight.reshape(-1, rows[-1].numel()))
    first = operator.size * torch.arange(prod(operator.batch), device=operator.device).unsqueeze(-1)
    return (
        (first + torch.cat(rows)).reshape(-1),
        (first + torch.cat(columns)).reshape(-1),
        torch.cat(values, 1).reshape(-1),
    )


def unbatched(operator: LinearOperator) -> Iterator[LinearOperator]:
    """The single operators of a batch, last axis fastest; the operator itself without a batch."""
    if not operator.batch:
        yield operator
        return
    for row in range(operator.batch[0]):
        yield from unbatched(operator[row])


def positive_diagonal(operator: LinearOperator, method: str) -> bool:
    """Whether the diagonal is positive everywhere.

    Raises:
        InputError: if the method divides by an entry that is zero.
    """
    diagonal = operator.diagonal()
    zeros = int((diagonal == 0).sum())
    if zeros:
        raise InputError(f"{method} divides by the diagonal, and {zeros} of its entries are zero: use GMRES or Direct")
    return bool((diagonal > 0).all())
