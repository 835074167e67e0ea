"""The compiled kernel for the errors of time steps."""

from __future__ import annotations

import ctypes
from math import prod

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import build, layout


def error_ratio(error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: float, axes: int) -> Tensor | None:
    """`sciml.evolving.root_mean_square_ratio` in one pass; None where there is no kernel for it: with gradients, off
    the CPU, and for tensors of other orders of memory than rows or columns contiguous.
    """
    shape, strides = error.shape, error.stride()
    if (
        error.device.type != "cpu"
        or torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or torch._C._functorch.maybe_current_level() is not None
        or before.stride() != strides
        or after.stride() != strides
        or before.shape != shape
        or after.shape != shape
        or (torch.is_grad_enabled() and (error.requires_grad or before.requires_grad or after.requires_grad))
        or not before.dtype == after.dtype == error.dtype
        or error.dtype not in layout.NAMES
    ):
        return None
    columns = not error.is_contiguous()
    if columns and not (axes == 1 and error.mT.is_contiguous()):
        return None
    library = build.library()
    if library is None:
        return None
    batch = shape[: error.ndim - axes]
    rows = prod(batch)
    ratio = torch.empty(batch, dtype=error.dtype)
    function = library.step_error_float64 if error.dtype == torch.float64 else library.step_error_float32
    function(
        ctypes.c_void_p(error.data_ptr()),
        ctypes.c_void_p(before.data_ptr()),
        ctypes.c_void_p(after.data_ptr()),
        ctypes.c_int64(rows),
        ctypes.c_int64(error.numel() // max(1, rows)),
        ctypes.c_int(columns),
        ctypes.c_double(rtol),
        ctypes.c_double(atol),
        ctypes.c_void_p(ratio.data_ptr()),
        layout.threads(),
    )
    return ratio
