"""How tensors are handed to the compiled kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

NAMES = {torch.float32: "float32", torch.float64: "float64"}


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """The address of a tensor's data."""
    return ctypes.c_void_p(tensor.data_ptr())


def threads() -> ctypes.c_int:
    """The number of threads that torch uses."""
    return ctypes.c_int(torch.get_num_threads())


def integers(*values: int) -> object:
    """An array of 64-bit integers."""
    return (ctypes.c_int64 * len(values))(*values)


def flags(*values: bool | int) -> object:
    """An array of C ints."""
    return (ctypes.c_int * len(values))(*values)


def addresses(tensors: Sequence[Tensor | None]) -> object:
    """An array of pointers, null for None."""
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


def padded(values: Sequence[int], fill: int) -> list[int]:
    """Values of one to three axes as three, the missing leading ones filled."""
    return [fill] * (3 - len(values)) + list(values)


class TermTable:
    """Coefficients of stencil terms with their strides over (batch, i, j, k), 0 where they do not vary.

    The kernels know one batch axis, so several are flattened into one, which copies only coefficients that are
    broadcast over some of them.
    """

    def __init__(self, coefficients: Sequence[Tensor], space: Sequence[int], batch: Sequence[int]) -> None:
        dimension = len(space)
        self.held: list[Tensor] = []
        strides: list[int] = []
        for coefficient in coefficients:
            coefficient = coefficient.detach()
            inner = coefficient.shape[coefficient.ndim - dimension :]
            if len(batch) > 1 and coefficient.ndim > dimension:
                coefficient = coefficient.expand(*batch, *inner).reshape(prod(batch), *inner)
            if coefficient.shape[-1] > 1 and coefficient.stride(-1) not in (0, 1):
                coefficient = coefficient.contiguous()
            steps = [0 if n == 1 else s for n, s in zip(coefficient.shape, coefficient.stride(), strict=True)]
            strides += [steps[-dimension - 1] if len(steps) > dimension else 0, *padded(steps[-dimension:], 0)]
            self.held.append(coefficient)
        self.count = len(self.held)
        self.addresses = addresses(self.held)
        self.strides = integers(*strides)
