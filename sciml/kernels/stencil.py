"""The compiled stencil kernel, called for one operator."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import build, layout

if TYPE_CHECKING:
    from ..stencil import StencilOperator

_MODES = {"apply": 0, "residual": 1, "relax": 2, "scale": 3}


class CompiledStencil:
    """One operator's coefficients laid out for the compiled kernel. Holds no reference back to the operator: the cycle
    would keep its memory until it is collected."""

    def __init__(self, operator: StencilOperator) -> None:
        self.space, self.batch, self.size = operator.space, operator.batch, operator.size
        self.function: Callable[..., None] = getattr(build.library(), f"stencil_{layout.NAMES[operator.dtype]}")
        dimension = len(operator.space)
        self.table = layout.TermTable(operator.coefficients, operator.space, operator.batch)
        # The kernel takes a diagonal off the coefficients itself if each part varies along one axis at most.
        diagonal_on_the_fly = all(
            coefficient.ndim == dimension and sum(n > 1 for n in coefficient.shape) <= 1
            for offset, coefficient in zip(operator.offsets, self.table.held, strict=True)
            if not any(offset)
        ) and not any(
            any(offset)
            and all(
                o == 0 or (p and o % n == 0) for o, p, n in zip(offset, operator.periodic, operator.space, strict=True)
            )
            for offset in operator.offsets
        )
        self.inverse_diagonal = None if diagonal_on_the_fly else operator.diagonal().detach().reciprocal()
        self.fixed = (
            ctypes.c_int64(max(1, prod(operator.batch))),
            layout.integers(*layout.padded(operator.space, 1)),
            ctypes.c_int(self.table.count),
            layout.integers(*(o for offset in operator.offsets for o in layout.padded(offset, 0))),
            self.table.addresses,
            self.table.strides,
            layout.flags(*layout.padded(operator.periodic, 0)),
        )

    def __call__(
        self,
        mode: str,
        x: Tensor,
        b: Tensor | None,
        inverse_diagonal: Tensor | None,
        omega: float,
        out: Tensor | None,
        products: Tensor | None = None,
    ) -> Tensor:
        dimension = len(self.space)
        shape = (*broadcast(self.batch, x.shape[: x.ndim - dimension]), *self.space)
        if b is not None:
            shape = broadcast(shape, b.shape)
        in_place = writable(out, x, shape)
        x, x_stride = _rows(x, shape, self.size)
        result = out if in_place and out is not None else torch.empty(shape, dtype=x.dtype)
        b_pointer, b_stride, d_pointer, d_stride = 0, 0, 0, 0
        if b is not None:
            b, b_stride = _rows(b, shape, self.size)
            b_pointer = b.data_ptr()
        if mode in ("relax", "scale"):
            inverse_diagonal = self.inverse_diagonal if inverse_diagonal is None else inverse_diagonal
            if inverse_diagonal is not None:
                full = inverse_diagonal.expand(*self.batch, *self.space)
                inverse_diagonal, d_stride = _rows(full, (*shape[: len(shape) - full.ndim], *full.shape), self.size)
                d_pointer = inverse_diagonal.data_ptr()
        self.function(
            ctypes.c_int(_MODES[mode]),
            ctypes.c_void_p(x.data_ptr()),
            ctypes.c_int64(x_stride),
            ctypes.c_void_p(b_pointer),
            ctypes.c_int64(b_stride),
            ctypes.c_void_p(d_pointer),
            ctypes.c_int64(d_stride),
            ctypes.c_double(omega),
            ctypes.c_void_p(result.data_ptr()),
            ctypes.c_int64(self.size),
            ctypes.c_int64(prod(shape[: len(shape) - dimension])),
            *self.fixed,
            ctypes.c_void_p(0 if products is None else products.data_ptr()),
            layout.threads(),
        )
        return result if out is None or out is result else out.copy_(result)


def writable(out: Tensor | None, x: Tensor, shape: Sequence[int]) -> bool:
    """Whether a kernel may write its result for x straight into `out`."""
    return (
        out is not None
        and out.is_contiguous()
        and tuple(out.shape) == tuple(shape)
        and out.dtype == x.dtype
        and out.device == x.device
        and out.data_ptr() != x.data_ptr()
    )


def _rows(field: Tensor, shape: Sequence[int], size: int) -> tuple[Tensor, int]:
    """The field as contiguous rows for a result of `shape`, and the stride from row to row (0 if all share one)."""
    if field.numel() == size:
        return field.contiguous(), 0
    return field.expand(shape).contiguous(), size


def broadcast(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """The shape of two broadcast together; `torch.broadcast_shapes` costs as much as a small stencil."""
    if not second or first == second:
        return tuple(first)
    return tuple(second) if not first else tuple(torch.broadcast_shapes(first, second))
