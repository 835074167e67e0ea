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
    library = _library(keys)
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


def runs_of_pairs(low: Tensor, high: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of integers sorted by the first, then by the second, then as they stand, and the runs of equal ones.

    Args:
        low, high: `(k,)`, int32 or int64, from 0 to count - 1.
        count: bound of both.

    Returns:
        `order` `(k,)`, the places of the pairs; `begins` `(r + 1,)`, where in it each run starts, and the last ends;
        and the two numbers of each run, `(r,)`; all of the type of the pairs.
    """
    library = _library(low)
    if library is None:
        _, order = buckets(high, count)
        order = order.index_select(0, buckets(low.index_select(0, order), count)[1])
        low, high = low.index_select(0, order), high.index_select(0, order)
        opens = torch.ones(len(order), dtype=torch.bool, device=low.device)
        torch.logical_or(low[1:] != low[:-1], high[1:] != high[:-1], out=opens[1:])
        begins = torch.nonzero(opens).squeeze(-1)
        ends = begins.new_tensor([len(order)])
        return order, torch.cat([begins, ends]).to(low.dtype), low.index_select(0, begins), high.index_select(0, begins)
    low, high = low.contiguous(), high.contiguous()
    order, begins, run_low, run_high = (low.new_empty(len(low) + extra) for extra in (0, 1, 0, 0))
    library.runs_of_pairs_int32.restype = ctypes.c_int64
    found = library.runs_of_pairs_int32(
        ctypes.c_int64(len(low)),
        layout.pointer(low),
        layout.pointer(high),
        ctypes.c_int64(count),
        *map(layout.pointer, (order, begins, run_low, run_high)),
        layout.threads(),
    )
    # Copies, so that what is kept is no longer than it needs to be.
    return order, begins[: found + 1].clone(), run_low[:found].clone(), run_high[:found].clone()


def _library(keys: Tensor) -> ctypes.CDLL | None:
    return build.library() if keys.device.type == "cpu" and keys.dtype == torch.int32 else None
