"""Small dense matrices, one or a batch of them, as linear operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .differentiation import detached
from .linear_operator import LinearOperator, refuse_batch, require_batch


class DenseOperator(LinearOperator):
    """Dense matrices on a small space.

    Args:
        matrices: `(*batch, n, n)`.
        space: shape of one field, with n entries; `(n,)` if None.
    """

    def __init__(self, matrices: Tensor, space: Sequence[int] | None = None) -> None:
        space = (matrices.shape[-1],) if space is None else tuple(space)
        super().__init__(space, matrices.shape[:-2], matrices.dtype, matrices.device)
        self.matrices = matrices

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        batch = x.shape[: x.ndim - len(self.space)]
        flat = torch.matmul(self.matrices, x.reshape(*batch, self.size, 1))
        result = flat.reshape((*flat.shape[:-2], *self.space))
        return result if out is None else out.copy_(result)

    def residual(self, b: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.sub(b, self.apply(x), out=out)

    def transpose(self) -> LinearOperator:
        return DenseOperator(self.matrices.mT, self.space)

    def diagonal(self) -> Tensor:
        return self.matrices.diagonal(dim1=-2, dim2=-1).reshape((*self.batch, *self.space))

    def to_sparse(self) -> Tensor:
        refuse_batch(self)
        return self.matrices.to_sparse_csr()

    def to(self, dtype: torch.dtype) -> LinearOperator:
        return DenseOperator(self.matrices.to(dtype), self.space)

    def detach(self) -> LinearOperator:
        return DenseOperator(detached(self.matrices), self.space)

    def __getitem__(self, row: int) -> LinearOperator:
        require_batch(self)
        return DenseOperator(self.matrices[row], self.space)
