"""The Jacobian of a spectral system, as implicit methods need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from ..differentiation import directional_derivative
from ..errors import InputError
from ..linear_operator import LinearOperator, MatrixFreeOperator, require_batch
from .operator import FourierOperator


@final
class ShiftedJacobian(MatrixFreeOperator):
    """1 - step * d(slope)/dy at a state, applied by forward differentiation.

    Args:
        slope: dy/dt as a function of the state alone.
        y: the state, `(*batch, *space)`.
        step: dimensionless or in the unit of time.
        batch, space: shapes of the operator.

    Attributes:
        preconditioner: the inverse of 1 - step * (linear part).
    """

    def __init__(
        self,
        slope: Callable[[Tensor], Tensor],
        y: Tensor,
        step: float,
        batch: tuple[int, ...],
        space: tuple[int, ...],
        preconditioner: FourierOperator,
    ) -> None:
        super().__init__(space, batch, y.dtype, y.device)
        self.slope, self.y, self.step = slope, y, step
        self.preconditioner = preconditioner

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        shape = torch.broadcast_shapes(x.shape, (*self.batch, *self.space))
        x = x.expand(shape)
        tangent = directional_derivative(self.slope, self.y.expand(shape).contiguous(), x.contiguous())
        found = x - self.step * tangent
        return found if out is None else out.copy_(found)

    def transpose(self) -> LinearOperator:
        return _Transposed(self)

    def to(self, dtype: torch.dtype) -> LinearOperator:
        if dtype != self.dtype:
            raise InputError(f"the Jacobian of a system in {self.dtype} is not available in {dtype}")
        return self

    def detach(self) -> LinearOperator:
        return ShiftedJacobian(
            self.slope, self.y.detach(), self.step, self.batch, self.space, self.preconditioner.detach()
        )

    def __getitem__(self, row: int) -> LinearOperator:
        require_batch(self)
        raise InputError("the Jacobian of a batch of Fourier series is not taken apart by rows")


@final
class _Transposed(MatrixFreeOperator):
    def __init__(self, jacobian: ShiftedJacobian) -> None:
        super().__init__(jacobian.space, jacobian.batch, jacobian.dtype, jacobian.device)
        self.jacobian = jacobian
        self.preconditioner = jacobian.preconditioner.transpose()

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        own = self.jacobian
        shape = torch.broadcast_shapes(x.shape, (*own.batch, *own.space))
        pull = torch.func.vjp(own.slope, own.y.expand(shape))[1]
        found = x.expand(shape) - own.step * pull(x.expand(shape))[0]
        return found if out is None else out.copy_(found)

    def transpose(self) -> LinearOperator:
        return self.jacobian

    def to(self, dtype: torch.dtype) -> LinearOperator:
        return self.jacobian.to(dtype).transpose()

    def detach(self) -> LinearOperator:
        return self.jacobian.detach().transpose()

    def __getitem__(self, row: int) -> LinearOperator:
        return self.jacobian[row]
