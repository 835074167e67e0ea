"""Matrices on the points of a mesh, one or a batch of them with one pattern."""

from __future__ import annotations

from functools import cached_property
from math import prod

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..csr import csr_from_starts
from ..differentiation import detached, in_transform
from ..errors import InputError
from ..linear_operator import LinearOperator, refuse_batch, require_batch
from ..sparse import SparseOperator
from .pattern import Pattern


def matrix_operator(
    pattern: Pattern, values: Tensor, *, symmetric: bool, null_space: Tensor | None = None
) -> LinearOperator:
    """The operator with the entries `(*batch, entries)`: a SparseOperator, or with a batch a SparseBatch."""
    if values.ndim > 1 or in_transform():  # there are no CSR tensors in those
        return SparseBatch(pattern, values, symmetric=symmetric, null_space=null_space)
    matrix = csr_from_starts(pattern.starts, pattern.columns, values.detach(), (pattern.size, pattern.size))
    tracked = values if values.requires_grad or forward_ad._current_level >= 0 else None
    return SparseOperator(matrix, values=tracked, symmetric=symmetric, null_space=null_space)


def negated(operator: LinearOperator) -> LinearOperator:
    """Minus an operator that `matrix_operator` made, as one of the same kind."""
    if isinstance(operator, SparseBatch):
        return SparseBatch(
            operator.pattern, -operator.values, symmetric=operator.symmetric, null_space=operator.null_space
        )
    if isinstance(operator, SparseOperator):
        matrix, values = operator.matrix, -operator.values
        return SparseOperator(matrix, values=values, symmetric=operator.symmetric, null_space=operator.null_space)
    return -operator


class SparseBatch(LinearOperator):
    """A batch of sparse matrices that share their pattern.

    Args:
        pattern: where the entries stand.
        values: `(*batch, entries)`, in the order of the pattern.
        symmetric: promise that every matrix equals its transpose.
        null_space: see LinearOperator.
    """

    def __init__(
        self, pattern: Pattern, values: Tensor, *, symmetric: bool = False, null_space: Tensor | None = None
    ) -> None:
        super().__init__(
            (pattern.size,),
            values.shape[:-1],
            values.dtype,
            values.device,
            symmetric=symmetric,
            null_space=null_space,
        )
        self.pattern = pattern
        self.values = values

    def __getstate__(self) -> dict[str, object]:
        """Without the matrix of all blocks: torch does not copy CSR tensors."""
        return {name: value for name, value in self.__dict__.items() if name != "_blocks"}

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        tracked = torch.is_grad_enabled() and (x.requires_grad or self.values.requires_grad)
        batch = torch.broadcast_shapes(self.batch, x.shape[:-1])
        own = len(batch) - len(self.batch)
        if tracked or forward_ad._current_level >= 0 or batch[own:] != self.batch:
            rows, columns = self.pattern.entries
            products = (self.values * x[..., columns]).expand(*batch, -1)
            result = products.new_zeros(*batch, self.size).index_add(-1, rows, products)
        else:
            fields = x.expand(*batch, self.size).reshape(-1, prod(self.batch) * self.size)
            result = torch.stack([torch.mv(self._blocks, field) for field in fields]).reshape(*batch, self.size)
        return result if out is None else out.copy_(result)

    def residual(self, b: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.sub(b, self.apply(x), out=out)

    def transpose(self) -> LinearOperator:
        if self.symmetric:
            return self
        return self._with(self.values[..., self.pattern.transposed])

    def diagonal(self) -> Tensor:
        return self.values[..., self.pattern.diagonal]

    def to_sparse(self) -> Tensor:
        refuse_batch(self)
        raise InputError("a batch of matrices is not one matrix")

    def to(self, dtype: torch.dtype) -> LinearOperator:
        null_space = None if self.null_space is None else self.null_space.to(dtype)
        return SparseBatch(self.pattern, self.values.to(dtype), symmetric=self.symmetric, null_space=null_space)

    def detach(self) -> LinearOperator:
        null_space = None if self.null_space is None else detached(self.null_space)
        return matrix_operator(self.pattern, detached(self.values), symmetric=self.symmetric, null_space=null_space)

    def __getitem__(self, row: int) -> LinearOperator:
        require_batch(self)
        return matrix_operator(self.pattern, self.values[row], symmetric=self.symmetric, null_space=self.null_space)

    def _with(self, values: Tensor) -> SparseBatch:
        return SparseBatch(self.pattern, values, symmetric=self.symmetric, null_space=self.null_space)

    @cached_property
    def _blocks(self) -> Tensor:
        """All matrices as one block-diagonal one."""
        pattern, rows = self.pattern, prod(self.batch)
        entries = len(pattern.places)
        shift = torch.arange(rows, device=self.device)[:, None]
        starts = (pattern.starts[:-1] + entries * shift).reshape(-1)
        starts = torch.cat([starts, starts.new_tensor([rows * entries])])
        columns = (pattern.columns + pattern.size * shift).reshape(-1)
        values = self.values.detach().reshape(-1)
        return csr_from_starts(starts, columns, values, (rows * pattern.size, rows * pattern.size))
