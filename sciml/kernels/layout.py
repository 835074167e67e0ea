"""How tensors are handed to the compiled kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

PADDING = 64  # numbers around the fields of flat stencils and transfers, see transfer.hpp
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


def padding(reach: int) -> int:
    """Numbers before and behind a field of which neighbours up to `reach` numbers away are read."""
    return -(-max(reach, 1) // PADDING) * PADDING


def flags(*values: bool | int) -> object:
    """An array of C ints."""
    return (ctypes.c_int * len(values))(*values)


def addresses(tensors: Sequence[Tensor | None]) -> object:
    """An array of pointers, null for None."""
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


def address(array: object) -> int:
    """The address of a ctypes array."""
    return ctypes.addressof(array)  # type: ignore[arg-type]


def padded(values: Sequence[int], fill: int) -> list[int]:
    """Values of one to three axes as three, the missing leading ones filled."""
    return [fill] * (3 - len(values)) + list(values)


Three = ctypes.c_int64 * 3


def three(values: Sequence[int], fill: int) -> ctypes.Array[ctypes.c_int64]:
    """`padded` as C integers."""
    return Three(*padded(values, fill))


class TermTable:
    """Coefficients of stencil terms with their strides over (batch, i, j, k), 0 where they do not vary.

    The kernels know one batch axis, so several are flattened into one, which copies only coefficients that are
    broadcast over some of them.
    """

    def __init__(
        self,
        offsets: Sequence[Sequence[int]],
        coefficients: Sequence[Tensor],
        space: Sequence[int],
        batch: Sequence[int],
    ) -> None:
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
        self.offsets = integers(*(o for offset in offsets for o in padded(offset, 0)))
        self.addresses = addresses(self.held)
        self.strides = integers(*strides)


# The structures of the C++ headers, field by field; every pointer's target is kept alive by whoever fills them.


class StencilTable(ctypes.Structure):
    """`Stencil` of stencil.hpp."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("flat", ctypes.c_int64),
        ("space", Three),
        ("periodic", Three),
        ("terms", ctypes.c_int64),
        ("offsets", ctypes.c_void_p),
        ("coefficients", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("inverse_diagonal", ctypes.c_void_p),
        ("diagonal_batch", ctypes.c_int64),
    )


class AxesTable(ctypes.Structure):
    """`Axes` of transfer.hpp."""

    _fields_ = (("fine", Three), ("coarse", Three), ("step", Three), ("start", Three), ("wraps", Three))


class TransferTable(ctypes.Structure):
    """`Transfer` of transfer.hpp."""

    _fields_ = (
        ("axes", AxesTable),
        ("batch", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("stride", ctypes.c_int64),
        ("prolongation", ctypes.c_void_p),
        ("restriction", ctypes.c_void_p),
    )


class LevelTable(ctypes.Structure):
    """`Level` of cycle.hpp."""

    _fields_ = (
        ("stencil", StencilTable),
        ("transfer", TransferTable),
        ("sweeps", ctypes.c_int64),
        ("omegas", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("spare", ctypes.c_void_p),
    )


class HierarchyTable(ctypes.Structure):
    """`Hierarchy` of cycle.hpp."""

    _fields_ = (
        ("levels", ctypes.c_void_p),
        ("depth", ctypes.c_int64),
        ("visits", ctypes.c_int64),
        ("branching", ctypes.c_int64),
        ("inverse", ctypes.c_void_p),
        ("inverse_batch", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("coarse_size", ctypes.c_int64),
        ("b", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("workers", ctypes.c_int64),
        ("workspace", ctypes.c_int64),
    )


class DescentTable(ctypes.Structure):
    """`Descent` of descent.hpp."""

    _fields_ = (
        ("stencil", StencilTable),
        ("x", ctypes.c_void_p),
        ("r", ctypes.c_void_p),
        ("p", ctypes.c_void_p),
        ("rz", ctypes.c_void_p),
        ("tolerance", ctypes.c_void_p),
        ("iterations", ctypes.c_void_p),
        ("outcome", ctypes.c_void_p),
    )
