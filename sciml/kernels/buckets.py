"""Counting sorts of integers."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from . import build, layout


def buckets(keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Where each of the keys 0 .. count - 1 stands in a vector of them.

    Args:
        keys: `(k,)`, int32 or int64, from 0 to count - 1.
        count: number of buckets.

    Returns:
        `starts` `(count + 1,)` and `order` `(k,)`, of the type of the keys: `order[starts[i]:starts[i + 1]]` are the
        places of the keys equal to i, ascending.
    """
    library = build.library() if keys.device.type == "cpu" and keys.dtype == torch.int32 else None
    if library is None:
        starts = keys.new_zeros(count + 1)
        starts[1:] = torch.bincount(keys, minlength=count).cumsum(0)
        return starts, torch.argsort(keys, stable=True).to(keys.dtype)
    keys = keys.contiguous()
    starts, order = keys.new_empty(count + 1), torch.empty_like(keys)
    library.buckets_int32(
        ctypes.c_int64(len(keys)),
        layout.pointer(keys),
        ctypes.c_int64(count),
        layout.pointer(starts),
        layout.pointer(order),
        layout.threads(),
    )
    return starts, order
