"""Vector operations of the iterative methods, one scalar a row of the batch, compiled on the CPU where they can be."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from math import prod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sciml.kernels import build, layout
from sciml.linear_operator import LinearOperator


@runtime_checkable
class FusedProduct(Protocol):
    """An operator that takes x . A x in the pass that computes A x."""

    def apply_and_dot(self, x: Tensor, out: Tensor) -> Tensor:
        """A x into `out`; returns x . A x in float64, row by row."""


class Rows:
    """Operations on fields of shape `(*batch, *space)` taken as rows, with scalars of shape `batch` in float64.

    Args:
        batch: the batch shape, every field's.
        space: the shape of one row.
    """

    def __init__(self, batch: Sequence[int], space: Sequence[int]) -> None:
        self.batch = tuple(batch)
        self.space = tuple(space)
        self.count = prod(batch)
        self.size = prod(space)

    def scalars(self, value: float, device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
        """One scalar a row, all equal."""
        return torch.full(self.batch, value, dtype=dtype, device=device)

    def spread(self, scalars: Tensor, like: Tensor) -> Tensor:
        """Row scalars shaped to multiply a field."""
        return scalars.to(like.dtype).reshape(*self.batch, *([1] * len(self.space)))

    def dot(self, x: Tensor, y: Tensor) -> Tensor:
        """x . y, row by row."""
        kernel = self._kernel("dot", x, y)
        if kernel is None:
            return torch.linalg.vecdot(self._flat(x), self._flat(y)).double()
        total = torch.empty(self.batch, dtype=torch.float64)
        kernel(layout.pointer(x), layout.pointer(y), *self._sizes(), layout.pointer(total), layout.threads())
        return total

    def apply_and_dot(self, operator: LinearOperator, p: Tensor, out: Tensor) -> Tensor:
        """out = A p; returns p . A p, row by row."""
        if isinstance(operator, FusedProduct):
            return operator.apply_and_dot(p, out)
        return self.dot(p, operator.apply(p, out=out))

    def norm(self, x: Tensor) -> Tensor:
        """|x|, row by row."""
        return self.dot(x, x).sqrt_()

    def descend(self, x: Tensor, r: Tensor, p: Tensor, q: Tensor, alpha: Tensor) -> Tensor:
        """x += alpha p and r -= alpha q in place; returns r . r."""
        kernel = self._kernel("descend", x, r, p, q)
        if kernel is None:
            step = self.spread(alpha, x)
            x.addcmul_(step, p)
            r.addcmul_(step, q, value=-1)
            return self.dot(r, r)
        total = torch.empty(self.batch, dtype=torch.float64)
        alpha = alpha.contiguous()
        kernel(
            *(layout.pointer(field) for field in (x, r, p, q, alpha)),
            *self._sizes(),
            layout.pointer(total),
            layout.threads(),
        )
        return total

    def redirect(self, p: Tensor, z: Tensor, beta: Tensor) -> None:
        """p = z + beta p in place."""
        kernel = self._kernel("redirect", p, z)
        if kernel is None:
            p.mul_(self.spread(beta, p)).add_(z)
            return
        beta = beta.contiguous()
        kernel(layout.pointer(p), layout.pointer(z), layout.pointer(beta), *self._sizes(), layout.threads())

    def rescale(self, x: Tensor, scale: Tensor, out: Tensor) -> Tensor:
        """out = scale x, converted to the dtype of `out`."""
        wide = x if x.dtype == torch.float64 else out
        return torch.mul(x, self.spread(scale, wide), out=out)

    def project_out(self, x: Tensor, null_space: Tensor) -> Tensor:
        """Subtract from x, in place, its part in an orthonormal null space; returns that part's norm, row by row."""
        flat = self._flat(x)
        square = self.scalars(0.0, x.device)
        for vector in null_space.to(x.dtype):
            basis = vector.reshape(-1)
            component = flat @ basis
            flat.sub_(component.unsqueeze(-1) * basis)
            square += component.double() ** 2
        return square.sqrt_()

    def _flat(self, x: Tensor) -> Tensor:
        return x.reshape(*self.batch, self.size)

    def _sizes(self) -> tuple[ctypes.c_int64, ctypes.c_int64]:
        return ctypes.c_int64(self.count), ctypes.c_int64(self.size)

    def _kernel(self, name: str, *fields: Tensor) -> Callable[..., None] | None:
        """The compiled form, if every field is a whole contiguous CPU tensor of one floating type."""
        if torch._C._functorch.maybe_current_level() is not None:
            return None
        dtype = fields[0].dtype
        for field in fields:
            if field.dtype != dtype or field.device.type != "cpu" or not field.is_contiguous():
                return None
            if field.numel() != self.count * self.size:
                return None
        library = build.library() if dtype in layout.NAMES else None
        return None if library is None else getattr(library, f"{name}_{layout.NAMES[dtype]}")


def power_of_two(peak: Tensor) -> Tensor | None:
    """Powers of two by which to divide rows whose squares would leave their dtype's range; None if all are within."""
    tiny, huge = torch.finfo(peak.dtype).tiny ** 0.25, torch.finfo(peak.dtype).max ** 0.25
    unsafe = (peak > 0) & ((peak < tiny) | (peak > huge))
    if not bool(unsafe.any()):
        return None
    exponent = torch.frexp(peak.double()).exponent
    return torch.where(unsafe, torch.ldexp(torch.ones_like(peak, dtype=torch.float64), exponent), 1.0)
