"""Block-diagonal preconditioning of systems of several unknowns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import BlockOperator, Kind, LinearOperator, MatrixFreeOperator

from .base import Preconditioner
from .multigrid import Multigrid
from .preconditioning import check_preconditioner


@dataclass(frozen=True)
class BlockDiagonal:
    """Treat every unknown of a system by itself: the couplings between unknowns are left to the outer method.

    Args:
        inner: preconditioner of each diagonal block.

    Raises:
        InputError: from `prepare`, for an operator that is no BlockOperator.
    """

    inner: Preconditioner = field(default_factory=Multigrid)

    def __post_init__(self) -> None:
        check_preconditioner(self.inner)

    def describe(self) -> str:
        """Name and inner preconditioner."""
        name = self.inner.describe() if hasattr(self.inner, "describe") else type(self.inner).__name__
        return f"block-diagonal {name}"

    def prepare(self, operator: LinearOperator, /) -> LinearOperator:
        """The inverse of the block diagonal, as far as `inner` goes."""
        if not isinstance(operator, BlockOperator):
            raise InputError(
                f"BlockDiagonal needs a system of several unknowns, got {operator!r}: use its inner method"
            )
        diagonal = [operator.blocks[i][i] for i in range(operator.space[0])]
        return _BlockDiagonalInverse(operator, [self.inner.prepare(block) for block in diagonal if block is not None])


class _BlockDiagonalInverse(MatrixFreeOperator):
    def __init__(self, operator: LinearOperator, inverses: Sequence[LinearOperator]) -> None:
        kinds = {inverse.kind for inverse in inverses}
        kind = Kind.NONLINEAR if Kind.NONLINEAR in kinds else kinds.pop() if len(kinds) == 1 else Kind.LINEAR
        super().__init__(operator.space, operator.batch, operator.dtype, operator.device, kind=kind)
        self.inverses = tuple(inverses)

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        axis = -len(self.space)
        parts = zip(self.inverses, x.unbind(axis), strict=True)
        result = torch.stack([inverse.apply(part.contiguous()) for inverse, part in parts], dim=axis)
        return result if out is None else out.copy_(result)

    def transpose(self) -> LinearOperator:
        return _BlockDiagonalInverse(self, [inverse.transpose() for inverse in self.inverses])

    def to(self, dtype: torch.dtype) -> LinearOperator:
        return _BlockDiagonalInverse(self, [inverse.to(dtype) for inverse in self.inverses])

    def detach(self) -> LinearOperator:
        return _BlockDiagonalInverse(self, [inverse.detach() for inverse in self.inverses])

    def __getitem__(self, row: int) -> LinearOperator:
        return _BlockDiagonalInverse(self, [inverse[row] for inverse in self.inverses])
