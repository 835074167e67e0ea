"""Inverses of small dense matrices."""

from __future__ import annotations

import ctypes
from math import prod

import torch
from torch import Tensor

from ..one_thread import one_thread
from . import build, layout


def inverse(matrices: Tensor) -> Tensor | None:
    """The inverses of `(*batch, n, n)`, None if one of them has none.

    A batch is compiled where it can be: the library's threads, started inside one another for many small matrices, have
    been seen to wait for each other for ever.
    """
    library = build.library() if matrices.device.type == "cpu" and matrices.ndim > 2 else None
    if library is None:
        with one_thread():
            result, failed = torch.linalg.inv_ex(matrices)
        whole = not bool(failed.any()) and bool(torch.isfinite(result).all())
        return result if whole else None
    wide = matrices.detach().to(torch.float64, copy=True).contiguous()
    count = prod(wide.shape[:-2])
    succeeded = (ctypes.c_int * max(1, count))()
    library.invert_float64(
        layout.pointer(wide), ctypes.c_int64(count), ctypes.c_int64(wide.shape[-1]), succeeded, layout.threads()
    )
    return wide.to(matrices.dtype) if all(succeeded[:count]) else None
