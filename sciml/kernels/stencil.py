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
        self.dtype = operator.dtype
        self.periodic = operator.periodic
        self.function: Callable[..., None] = getattr(build.library(), f"stencil_{layout.NAMES[operator.dtype]}")
        dimension = len(operator.space)
        self.terms = layout.TermTable(operator.offsets, operator.coefficients, operator.space, operator.batch)
        # The kernel takes a diagonal off the coefficients itself if each part varies along one axis at most.
        self.knows_diagonal = all(
            coefficient.ndim == dimension and sum(n > 1 for n in coefficient.shape) <= 1
            for offset, coefficient in zip(operator.offsets, self.terms.held, strict=True)
            if not any(offset)
        ) and not any(
            any(offset)
            and all(
                o == 0 or (p and o % n == 0) for o, p, n in zip(offset, operator.periodic, operator.space, strict=True)
            )
            for offset in operator.offsets
        )
        self.plain = self.table(None)

    def whole(self, inverse_diagonal: Tensor) -> Tensor:
        """An inverse diagonal with every entry in its place, as the kernel reads it."""
        batch = self.batch if inverse_diagonal.ndim > len(self.space) else ()
        return inverse_diagonal.expand(*batch, *self.space).contiguous()

    def table(self, inverse: Tensor | None, *, flat: bool = False) -> layout.StencilTable:
        """The kernel's table.

        Args:
            inverse: a whole inverse diagonal; None for one that the kernel takes off the coefficients.
            flat: promise of a flat stencil, see stencil.hpp.
        """
        return layout.StencilTable(
            max(1, prod(self.batch)),
            0,
            flat,
            layout.three(self.space, 1),
            layout.three(self.periodic, 0),
            self.terms.count,
            layout.address(self.terms.offsets),
            layout.address(self.terms.addresses),
            layout.address(self.terms.strides),
            None if inverse is None else inverse.data_ptr(),
            0 if inverse is None or inverse.ndim == len(self.space) else self.size,
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
        b_pointer, b_stride = 0, 0
        if b is not None:
            b, b_stride = _rows(b, shape, self.size)
            b_pointer = b.data_ptr()
        table = self.plain
        if mode in ("relax", "scale"):
            inverse = None if inverse_diagonal is None else self.whole(inverse_diagonal)
            table = self.table(inverse)
        self.function(
            ctypes.byref(table),
            ctypes.c_int(_MODES[mode]),
            ctypes.c_void_p(x.data_ptr()),
            ctypes.c_int64(x_stride),
            ctypes.c_void_p(b_pointer),
            ctypes.c_int64(b_stride),
            ctypes.c_double(omega),
            ctypes.c_void_p(result.data_ptr()),
            ctypes.c_int64(prod(shape[: len(shape) - dimension])),
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
