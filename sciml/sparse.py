"""Sparse matrices as linear operators."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.autograd import forward_ad

from .csr import csr_from_starts, csr_tensor, is_symmetric, with_short_indices
from .errors import InputError
from .kernels.sparse import CompiledMatrix, compilable
from .linear_operator import LinearOperator

_LONG = 2_000  # entries from which one product a row beats one for all rows, which has to transpose the fields


class SparseOperator(LinearOperator):
    """A CSR matrix acting on fields flattened from `space` (`(n,)` unless given).

    Args:
        matrix: square CSR tensor.
        space: shape of one field.
        values: `(entries,)`, the entries of the matrix where they carry gradients, in its order. A CSR tensor may carry
            them too, but torch differentiates it only once, and only backward.
        symmetric: promise that it equals its transpose; None looks.
        null_space: see LinearOperator.

    Raises:
        InputError: if the tensor is not a square CSR matrix that fits the space.
    """

    def __init__(
        self,
        matrix: Tensor,
        space: Sequence[int] | None = None,
        *,
        values: Tensor | None = None,
        symmetric: bool | None = None,
        null_space: Tensor | None = None,
    ) -> None:
        if matrix.layout != torch.sparse_csr or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"expected a square CSR matrix, got {matrix.layout} of shape {tuple(matrix.shape)}")
        if values is not None:
            matrix = csr_from_starts(matrix.crow_indices(), matrix.col_indices(), values.detach(), matrix.shape)
        space = (matrix.shape[0],) if space is None else tuple(space)
        super().__init__(
            space,
            (),
            matrix.dtype,
            matrix.device,
            symmetric=is_symmetric(matrix) if symmetric is None else symmetric,
            null_space=null_space,
        )
        if self.size != matrix.shape[0]:
            raise InputError(f"a matrix of {matrix.shape[0]} rows does not act on fields of shape {space}")
        self.matrix = matrix
        self.values = matrix.values() if values is None else values
        self._plain = with_short_indices(matrix.detach())
        self._indices = matrix.crow_indices(), matrix.col_indices()  # torch.func takes no CSR tensors apart

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by the parts of the matrix: torch does not copy CSR tensors."""
        parts = (self.matrix.crow_indices(), self.matrix.col_indices(), self.values, tuple(self.matrix.shape))
        return _from_parts, (*parts, self.space, self.symmetric, self.null_space)

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        tracked = torch.is_grad_enabled() and (x.requires_grad or self.values.requires_grad)
        if tracked or forward_ad._current_level >= 0:
            product = self._gathered(x)
            return product if out is None else out.copy_(product)
        if out is None or not out.is_contiguous():
            result = torch.empty_like(x, memory_format=torch.contiguous_format)
        else:
            result = out
        if self.compiled is not None and x.dtype == self.dtype:
            self.compiled.multiply(x.contiguous(), result)
        elif x.ndim == len(self.space):
            torch.mv(self._plain, x.reshape(-1), out=result.view(-1))
        elif x.device.type == "cpu" and self._plain._nnz() > _LONG:
            for field, product in zip(x.reshape(-1, self.size), result.view(-1, self.size), strict=True):
                torch.mv(self._plain, field, out=product)
        else:
            result.copy_((self._plain @ x.reshape(-1, self.size).mT.contiguous()).mT.reshape(x.shape))
        return result if out is None or out is result else out.copy_(result)

    @functools.cached_property
    def compiled(self) -> CompiledMatrix | None:
        """The matrix for compiled products; None where there are none, or it is small."""
        return CompiledMatrix(self._plain) if self._plain._nnz() > _LONG and compilable(self._plain) else None

    def _gathered(self, x: Tensor) -> Tensor:
        """The product in operations that can be differentiated twice, and forward."""
        rows, columns = self._places
        fields = x.reshape(-1, self.size)
        return torch.zeros_like(fields).index_add(1, rows, self.values * fields[:, columns]).reshape(x.shape)

    @functools.cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Row and column of every entry."""
        starts, columns = self._indices
        return torch.repeat_interleave(torch.arange(self.size, device=self.device), starts.diff()), columns.long()

    def residual(self, b: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.sub(b, self.apply(x), out=out)

    def transpose(self) -> LinearOperator:
        if self.symmetric:
            return self
        rows, columns = self._places
        order = torch.argsort(columns * self.size + rows)
        values = self.values[order]
        pattern = csr_tensor(columns[order], rows[order], values.detach(), (self.size, self.size))
        return SparseOperator(pattern, self.space, values=values, symmetric=False, null_space=self.null_space)

    def diagonal(self) -> Tensor:
        if self.device.type == "cpu" and not self.values.requires_grad and forward_ad._current_level < 0:
            from scipy import sparse

            parts = (self._plain.values(), self._plain.col_indices(), self._plain.crow_indices())
            matrix = sparse.csr_array(tuple(part.numpy() for part in parts), shape=tuple(self._plain.shape))
            return torch.from_numpy(matrix.diagonal()).reshape(self.space)
        rows, columns = self._places
        on = rows == columns
        diagonal = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        return diagonal.index_add(0, rows[on], self.values[on]).reshape(self.space)

    def to_sparse(self) -> Tensor:
        if self.matrix.requires_grad or not self.values.requires_grad:
            return self.matrix
        return csr_from_starts(self.matrix.crow_indices(), self.matrix.col_indices(), self.values, self.matrix.shape)

    def to(self, dtype: torch.dtype) -> LinearOperator:
        null_space = None if self.null_space is None else self.null_space.to(dtype)
        values = self.values.to(dtype)
        return SparseOperator(
            self._plain.to(dtype), self.space, values=values, symmetric=self.symmetric, null_space=null_space
        )

    def detach(self) -> LinearOperator:
        return SparseOperator(self._plain, self.space, symmetric=self.symmetric, null_space=self.null_space)

    def __getitem__(self, row: int) -> LinearOperator:
        raise InputError("a sparse operator has no batch axis to pick a row of")


def _from_parts(
    starts: Tensor,
    columns: Tensor,
    values: Tensor,
    shape: Sequence[int],
    space: Sequence[int],
    symmetric: bool,
    null_space: Tensor | None,
) -> SparseOperator:
    pattern = csr_from_starts(starts, columns, values.detach(), shape)
    return SparseOperator(pattern, space, values=values, symmetric=symmetric, null_space=null_space)


def as_operator(matrix: LinearOperator | Tensor | object) -> LinearOperator:
    """An operator from an operator, a square torch matrix (CSR, COO or dense) or a scipy sparse matrix or array.

    Raises:
        InputError: if it is none of these, not square, not real, or holds NaN or infinity.
    """
    if isinstance(matrix, LinearOperator):
        return matrix
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        if isinstance(matrix, Tensor):
            if matrix.ndim != 2:
                raise InputError(f"expected a square matrix, got a tensor of shape {tuple(matrix.shape)}")
            csr = matrix if matrix.layout == torch.sparse_csr else matrix.to_sparse_csr()
        elif hasattr(matrix, "tocsr"):
            scipy_csr = matrix.tocsr()
            scipy_csr.sum_duplicates()
            parts = (scipy_csr.indptr, scipy_csr.indices, scipy_csr.data)
            starts, columns, values = (torch.from_numpy(numpy.ascontiguousarray(part)) for part in parts)
            csr = csr_from_starts(starts, columns, values, scipy_csr.shape)
        else:
            raise InputError(
                f"expected a LinearOperator, a torch matrix or a scipy sparse matrix, got {type(matrix).__name__}"
            )
    if not csr.dtype.is_floating_point:
        raise InputError(f"expected a real floating-point matrix, got {csr.dtype}")
    bad = int((~torch.isfinite(csr.values())).sum())
    if bad:
        raise InputError(f"the matrix holds {bad} entries that are NaN or infinite")
    return SparseOperator(csr)
