"""Linear operators on fields: what the solvers of `sciml.solvers.linear` act on.

An operator maps a field of shape `(*batch, *space)` to one of the same space. Its own batch axes (one matrix a row) and
those of the field broadcast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from math import prod

import torch
from torch import Tensor

from .csr import csr_entries, csr_tensor, sorted_entries
from .differentiation import detached
from .errors import InputError


class Kind(Enum):
    """What an iterative method may assume of an operator used as its preconditioner."""

    SYMMETRIC_POSITIVE = "symmetric positive definite"
    LINEAR = "linear"
    NONLINEAR = "nonlinear"


class LinearOperator(ABC):
    """A square linear map on fields.

    Attributes:
        space: shape of one field, `(n,)` for a matrix.
        batch: shape of the operator's own batch; `()` for a single matrix.
        symmetric: True is a promise that the operator equals its transpose.
        null_space: `(k, *space)`, orthonormal, spanning the kernel of the operator and of its transpose, or None.
        kind: what may be assumed of it as a preconditioner.
    """

    def __init__(
        self,
        space: Sequence[int],
        batch: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        *,
        symmetric: bool = False,
        null_space: Tensor | None = None,
        kind: Kind = Kind.LINEAR,
    ) -> None:
        self.space = tuple(space)
        self.batch = tuple(batch)
        self.dtype = dtype
        self.device = device
        self.symmetric = symmetric
        self.null_space = null_space
        self.kind = kind

    @abstractmethod
    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """A x for a field `(*batch, *space)`; `out` receives the result and is only for use without gradients."""

    @abstractmethod
    def residual(self, b: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
        """b - A x, in one pass where the operator can."""

    @abstractmethod
    def transpose(self) -> LinearOperator:
        """The transposed operator."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """The diagonal, of a shape that broadcasts to `(*batch, *space)`."""

    @abstractmethod
    def to_sparse(self) -> Tensor:
        """The matrix as a CSR tensor over the flattened space. Raises InputError for a batched operator."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> LinearOperator:
        """The operator with its coefficients in another dtype."""

    @abstractmethod
    def detach(self) -> LinearOperator:
        """The operator without gradients."""

    @abstractmethod
    def __getitem__(self, row: int) -> LinearOperator:
        """One row of the first batch axis."""

    @property
    def size(self) -> int:
        """Number of unknowns of one row."""
        return prod(self.space)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(*batch, size, size)`."""
        return (*self.batch, self.size, self.size)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return SumOperator((self, _same_space(self, other)))

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return SumOperator((self, ScaledOperator(-1.0, _same_space(self, other))))

    def __mul__(self, scale: float | Tensor) -> LinearOperator:
        return ScaledOperator(scale, self)

    def __rmul__(self, scale: float | Tensor) -> LinearOperator:
        return ScaledOperator(scale, self)

    def __neg__(self) -> LinearOperator:
        return ScaledOperator(-1.0, self)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return ProductOperator(self, _same_space(self, other))

    def __repr__(self) -> str:
        batch = f", batch {self.batch}" if self.batch else ""
        return f"{type(self).__name__}(space {self.space}{batch}, {self.dtype}, {self.device})"


class MatrixFreeOperator(LinearOperator):
    """Base of operators known by their action alone: matrix and diagonal are read off by applying unit vectors."""

    def residual(self, b: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.sub(b, self.apply(x), out=out)

    def diagonal(self) -> Tensor:
        return torch.stack([matrix.diagonal() for matrix in self._dense()]).reshape(*self.batch, *self.space)

    def to_sparse(self) -> Tensor:
        refuse_batch(self)
        matrix = self._dense()[0]
        rows, columns = torch.nonzero(matrix, as_tuple=True)
        return csr_tensor(rows, columns, matrix[rows, columns], (self.size, self.size))

    def _dense(self) -> Tensor:
        """`(rows, size, size)` by one application to the identity, for small operators."""
        unit = torch.eye(self.size, dtype=self.dtype, device=self.device)
        columns = unit.reshape(self.size, *([1] * len(self.batch)), *self.space).expand(
            self.size, *self.batch, *self.space
        )
        return self.apply(columns.contiguous()).reshape(self.size, -1, self.size).permute(1, 2, 0)


class Identity(MatrixFreeOperator):
    """The identity on a space."""

    def __init__(self, space: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        super().__init__(space, (), dtype, torch.device(device), symmetric=True, kind=Kind.SYMMETRIC_POSITIVE)

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return x.clone() if out is None else out.copy_(x)

    def transpose(self) -> LinearOperator:
        return self

    def to(self, dtype: torch.dtype) -> LinearOperator:
        return Identity(self.space, dtype, self.device)

    def detach(self) -> LinearOperator:
        return self

    def __getitem__(self, row: int) -> LinearOperator:
        require_batch(self)
        return self


class ScaledOperator(MatrixFreeOperator):
    """c A, with c a number or a tensor of batch shape."""

    def __init__(self, scale: float | Tensor, operator: LinearOperator) -> None:
        batch = tuple(scale.shape) if isinstance(scale, Tensor) else ()
        super().__init__(
            operator.space,
            torch.broadcast_shapes(operator.batch, batch),
            operator.dtype,
            operator.device,
            symmetric=operator.symmetric,
            null_space=operator.null_space,
        )
        self.scale = scale
        self.operator = operator

    def _factor(self) -> float | Tensor:
        if isinstance(self.scale, Tensor):
            return self.scale.reshape(*self.scale.shape, *([1] * len(self.space)))
        return self.scale

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.mul(self.operator.apply(x, out), self._factor(), out=out)

    def transpose(self) -> LinearOperator:
        return ScaledOperator(self.scale, self.operator.transpose())

    def to(self, dtype: torch.dtype) -> LinearOperator:
        scale = self.scale.to(dtype) if isinstance(self.scale, Tensor) else self.scale
        return ScaledOperator(scale, self.operator.to(dtype))

    def detach(self) -> LinearOperator:
        scale = detached(self.scale) if isinstance(self.scale, Tensor) else self.scale
        return ScaledOperator(scale, self.operator.detach())

    def __getitem__(self, row: int) -> LinearOperator:
        require_batch(self)
        scale = self.scale
        if isinstance(scale, Tensor) and scale.ndim == len(self.batch):
            scale = scale[row if len(scale) > 1 else 0]
        return ScaledOperator(scale, _row_of(self.operator, self.batch, row))


class SumOperator(MatrixFreeOperator):
    """A + B + ..."""

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        first = operators[0]
        super().__init__(
            first.space,
            torch.broadcast_shapes(*(operator.batch for operator in operators)),
            first.dtype,
            first.device,
            symmetric=all(operator.symmetric for operator in operators),
        )
        self.operators = tuple(operators)

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        total = self.operators[0].apply(x)
        for operator in self.operators[1:]:
            total = total + operator.apply(x)
        return total if out is None else out.copy_(total)

    def transpose(self) -> LinearOperator:
        return SumOperator([operator.transpose() for operator in self.operators])

    def to(self, dtype: torch.dtype) -> LinearOperator:
        return SumOperator([operator.to(dtype) for operator in self.operators])

    def detach(self) -> LinearOperator:
        return SumOperator([operator.detach() for operator in self.operators])

    def __getitem__(self, row: int) -> LinearOperator:
        require_batch(self)
        return SumOperator([_row_of(operator, self.batch, row) for operator in self.operators])


class ProductOperator(MatrixFreeOperator):
    """A B, applied right to left."""

    def __init__(self, left: LinearOperator, right: LinearOperator) -> None:
        super().__init__(left.space, torch.broadcast_shapes(left.batch, right.batch), left.dtype, left.device)
        self.left = left
        self.right = right

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return self.left.apply(self.right.apply(x), out)

    def transpose(self) -> LinearOperator:
        return ProductOperator(self.right.transpose(), self.left.transpose())

    def to(self, dtype: torch.dtype) -> LinearOperator:
        return ProductOperator(self.left.to(dtype), self.right.to(dtype))

    def detach(self) -> LinearOperator:
        return ProductOperator(self.left.detach(), self.right.detach())

    def __getitem__(self, row: int) -> LinearOperator:
        require_batch(self)
        return ProductOperator(_row_of(self.left, self.batch, row), _row_of(self.right, self.batch, row))


class BlockOperator(LinearOperator):
    """A system of several unknowns: a square table of operators on one grid, None standing for zero.

    Its space is `(channel, *grid)`.

    Args:
        blocks: `blocks[i][j]` acts on unknown j in row i.
        null_space: see LinearOperator.

    Raises:
        InputError: if the table is not square, or a row has no diagonal block.
    """

    def __init__(self, blocks: Sequence[Sequence[LinearOperator | None]], *, null_space: Tensor | None = None) -> None:
        channels = len(blocks)
        if any(len(row) != channels for row in blocks):
            raise InputError(f"a block operator is a square table, got rows of {[len(row) for row in blocks]} blocks")
        present = [block for row in blocks for block in row if block is not None]
        if any(blocks[i][i] is None for i in range(channels)):
            raise InputError("every row of a block operator needs a diagonal block")
        super().__init__(
            (channels, *present[0].space),
            torch.broadcast_shapes(*(block.batch for block in present)),
            present[0].dtype,
            present[0].device,
            null_space=None if null_space is None else null_space.to(present[0].dtype),
        )
        self.blocks = tuple(tuple(row) for row in blocks)

    def _map(self, change: Callable[[LinearOperator], LinearOperator]) -> BlockOperator:
        blocks = [[None if block is None else change(block) for block in row] for row in self.blocks]
        return BlockOperator(blocks, null_space=self.null_space)

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        axis = -len(self.space)
        channels = x.unbind(axis)
        rows = []
        for row in self.blocks:
            parts = [block.apply(channels[j]) for j, block in enumerate(row) if block is not None]
            rows.append(sum(parts[1:], parts[0]))
        shape = torch.broadcast_shapes(*(row.shape for row in rows))
        result = torch.stack([row.expand(shape) for row in rows], dim=axis)
        return result if out is None else out.copy_(result)

    def residual(self, b: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.sub(b, self.apply(x), out=out)

    def transpose(self) -> LinearOperator:
        columns = zip(*self.blocks, strict=True)
        blocks = [[None if block is None else block.transpose() for block in column] for column in columns]
        return BlockOperator(blocks, null_space=self.null_space)

    def diagonal(self) -> Tensor:
        space = self.space[1:]
        parts = [self.blocks[i][i].diagonal() for i in range(self.space[0])]  # type: ignore[union-attr]
        return torch.stack([part.expand(*self.batch, *space) for part in parts], dim=-len(self.space))

    def to_sparse(self) -> Tensor:
        refuse_batch(self)
        size = prod(self.space[1:])
        rows, columns, values = [], [], []
        for i, row in enumerate(self.blocks):
            for j, block in enumerate(row):
                if block is not None:
                    block_rows, block_columns, block_values = csr_entries(block.to_sparse())
                    rows.append(block_rows + i * size)
                    columns.append(block_columns + j * size)
                    values.append(block_values)
        entries = sorted_entries(torch.cat(rows), torch.cat(columns), torch.cat(values), self.size)
        return csr_tensor(*entries, (self.size, self.size))

    def to(self, dtype: torch.dtype) -> LinearOperator:
        return self._map(lambda block: block.to(dtype))

    def detach(self) -> LinearOperator:
        null_space = None if self.null_space is None else detached(self.null_space)
        blocks = [[None if block is None else block.detach() for block in row] for row in self.blocks]
        return BlockOperator(blocks, null_space=null_space)

    def __getitem__(self, row: int) -> LinearOperator:
        require_batch(self)
        return self._map(lambda block: _row_of(block, self.batch, row))


def refuse_batch(operator: LinearOperator) -> None:
    """Raise InputError for an operator with batch axes, where one matrix is needed."""
    if operator.batch:
        raise InputError(
            f"a batch {operator.batch} of operators is not one matrix: take one row of it, operator[i], at a time"
        )


def require_batch(operator: LinearOperator) -> None:
    """Raise InputError for an operator without batch axes, where a row of them is asked for."""
    if not operator.batch:
        raise InputError("the operator has no batch axis to pick a row of")


def _row_of(part: LinearOperator, batch: tuple[int, ...], row: int) -> LinearOperator:
    """What of a part belongs to one row of the whole, along the first axis of whose batch the part may not vary."""
    if len(part.batch) < len(batch):
        return part
    return part[row if part.batch[0] > 1 else 0]


def _same_space(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    if not isinstance(right, LinearOperator):
        raise InputError(f"expected a LinearOperator, got {type(right).__name__}; add numbers as c * Identity(...)")
    if (left.dtype, left.device) != (right.dtype, right.device):
        raise InputError(f"operators of {left.dtype} on {left.device} and {right.dtype} on {right.device}: convert one")
    if left.space != right.space:
        raise InputError(f"operators on different spaces: {left.space} and {right.space}")
    return right
