"""Counting sorts against numpy's, compiled and not."""

from __future__ import annotations

import numpy
import pytest
import torch

from sciml.kernels.buckets import buckets, runs_of_pairs

SIZES = pytest.mark.parametrize(("size", "count"), [(0, 3), (1, 1), (500, 7), (60_000, 400), (60_000, 90_000)])
TYPES = pytest.mark.parametrize("dtype", [torch.int32, torch.int64])  # those of 64 bits are left to torch


@TYPES
@SIZES
def test_buckets_are_a_stable_sort(size: int, count: int, dtype: torch.dtype) -> None:
    keys = torch.randint(0, count, (size,), generator=torch.Generator().manual_seed(size)).to(dtype)
    starts, order = buckets(keys, count)
    assert starts.dtype == order.dtype == dtype
    numpy.testing.assert_array_equal(order.numpy(), numpy.argsort(keys.numpy(), kind="stable"))
    numpy.testing.assert_array_equal(starts.diff().numpy(), numpy.bincount(keys.numpy(), minlength=count))


@TYPES
@SIZES
def test_runs_of_pairs(size: int, count: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(size)
    low, high = (torch.randint(0, count, (size,), generator=generator).to(dtype) for _ in range(2))
    order, begins, run_low, run_high = runs_of_pairs(low, high, count)
    numpy.testing.assert_array_equal(order.numpy(), numpy.lexsort((high.numpy(), low.numpy())))
    pairs, lengths = numpy.unique(torch.stack([low, high], 1).numpy().reshape(-1, 2), axis=0, return_counts=True)
    numpy.testing.assert_array_equal(torch.stack([run_low, run_high], 1).numpy(), pairs)
    numpy.testing.assert_array_equal(begins.diff().numpy(), lengths)
    assert int(begins[0]) == 0
    assert int(begins[-1]) == size
