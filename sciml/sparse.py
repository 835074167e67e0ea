"""Sparse matrices as linear operators."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from .errors import InputError
from .linear_operator import LinearOperator


class SparseOperator(LinearOperator):
    """A CSR matrix acting on fields flattened from `space` (`(n,)` unless given).

    Raises:
        InputError: if the tensor is not a square CSR matrix that fits the space.
    """

    def __init__(self, matrix: Tensor, space: Sequence[int] | None = None, *, symmetric: bool | None = None) -> None:
        if matrix.layout != torch.sparse_csr or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"expected a square CSR matrix, got {matrix.layout} of shape {tuple(matrix.shape)}")
        space = (matrix.shape[0],) if space is None else tuple(space)
        super().__init__(
            space,
            (),
            matrix.dtype,
            matrix.device,
            symmetric=is_symmetric(matrix) if symmetric is None else symmetric,
        )
        if self.size != matrix.shape[0]:
            raise InputError(f"a matrix of {matrix.shape[0]} rows does not act on fields of shape {space}")
        self.matrix = matrix

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        batch = x.shape[: x.ndim - len(self.space)]
        if not batch:
            product = torch.mv(self.matrix, x.reshape(-1)).reshape(x.shape)
        else:
            product = torch.mm(self.matrix, x.reshape(-1, self.size).mT).mT.reshape(x.shape)
        return product if out is None else out.copy_(product)

    def residual(self, b: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.sub(b, self.apply(x), out=out)

    def transpose(self) -> LinearOperator:
        if self.symmetric:
            return self
        entries = self.matrix.to_sparse_coo()
        indices, values = entries.indices().flip(0), entries.values()
        transposed = torch.sparse_coo_tensor(indices, values, entries.shape).coalesce().to_sparse_csr()
        return SparseOperator(transposed, self.space, symmetric=False)

    def diagonal(self) -> Tensor:
        rows, columns, values = csr_entries(self.matrix)
        on = rows == columns
        diagonal = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        return diagonal.index_add(0, rows[on], values[on]).reshape(self.space)

    def to_sparse(self) -> Tensor:
        return self.matrix

    def to(self, dtype: torch.dtype) -> LinearOperator:
        return SparseOperator(self.matrix.to(dtype), self.space, symmetric=self.symmetric)

    def detach(self) -> LinearOperator:
        return SparseOperator(self.matrix.detach(), self.space, symmetric=self.symmetric)

    def __getitem__(self, row: int) -> LinearOperator:
        raise InputError("a sparse operator has no batch axis to pick a row of")


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
            csr = matrix if matrix.layout == torch.sparse_csr else matrix.to_sparse_csr()
        elif hasattr(matrix, "tocsr"):
            scipy_csr = matrix.tocsr()
            scipy_csr.sum_duplicates()
            parts = (scipy_csr.indptr.astype(numpy.int64), scipy_csr.indices.astype(numpy.int64), scipy_csr.data)
            csr = torch.sparse_csr_tensor(*(torch.from_numpy(numpy.ascontiguousarray(p)) for p in parts), matrix.shape)
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


def csr_entries(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row indices, column indices and values of a CSR tensor, each of length nnz."""
    counts = matrix.crow_indices().diff()
    rows = torch.repeat_interleave(torch.arange(matrix.shape[0], device=matrix.device), counts)
    return rows, matrix.col_indices(), matrix.values()


def is_symmetric(matrix: Tensor) -> bool:
    """Whether a CSR matrix equals its transpose to rounding."""
    rows, columns, values = csr_entries(matrix.detach())
    size = matrix.shape[0]
    here, order = torch.sort(rows * size + columns)
    there, transposed_order = torch.sort(columns * size + rows)
    if not torch.equal(here, there):
        return False
    difference = (values[order] - values[transposed_order]).abs().max() if len(values) else values.new_zeros(())
    return bool(difference <= 16 * torch.finfo(matrix.dtype).eps * values.abs().max()) if len(values) else True
