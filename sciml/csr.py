"""CSR tensors: made from entries and taken apart."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from .differentiation import detached


def csr_entries(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row indices, column indices (both int64) and values of a CSR tensor, each of length nnz."""
    counts = matrix.crow_indices().diff()
    rows = torch.repeat_interleave(torch.arange(matrix.shape[0], device=matrix.device), counts)
    return rows, matrix.col_indices().long(), matrix.values()


def sorted_entries(rows: Tensor, columns: Tensor, values: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The entries of a matrix with `width` columns by row and then by column, those in one place added up."""
    places = rows * width + columns
    if bool((places.diff() > 0).all()):
        return rows, columns, values
    order = ascending(places)
    places, values = places[order], values[order]
    first = torch.ones_like(places, dtype=torch.bool)
    torch.ne(places[1:], places[:-1], out=first[1:])
    if not bool(first.all()):
        values = values.new_zeros(int(first.sum())).index_add(0, first.cumsum(0) - 1, values)
        places = places[first]
    return torch.div(places, width, rounding_mode="floor"), places % width, values


def ascending(keys: Tensor) -> Tensor:
    """The order that sorts integers, equal ones as they stand; numpy's is ten times as fast as torch's on the CPU."""
    if keys.device.type == "cpu":
        return torch.from_numpy(numpy.argsort(detached(keys).numpy(), kind="stable"))
    return torch.argsort(keys, stable=True)


def csr_tensor(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A CSR tensor from entries sorted by row and then by column."""
    starts = torch.zeros(shape[0] + 1, dtype=torch.int64, device=rows.device)
    torch.cumsum(torch.bincount(rows, minlength=shape[0]), 0, out=starts[1:])
    return csr_from_starts(starts, columns, values, shape)


def csr_from_starts(starts: Tensor, columns: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """A CSR tensor from its parts, with 32-bit indices where they suffice."""
    index = torch.int32 if max(*shape, len(values)) < 2**31 else torch.int64
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts.to(index), columns.to(index), values, tuple(shape), check_invariants=False
        )


def with_short_indices(matrix: Tensor) -> Tensor:
    """The same matrix with 32-bit indices, which save MKL a conversion in every product."""
    return csr_from_starts(matrix.crow_indices(), matrix.col_indices(), matrix.values(), matrix.shape)


def is_symmetric(matrix: Tensor) -> bool:
    """Whether a CSR matrix equals its transpose to the rounding of an assembly: eps^(3/4) of its largest entry."""
    rows, columns, values = csr_entries(matrix.detach())
    if not len(values):
        return True
    size = matrix.shape[0]
    here, there = rows * size + columns, columns * size + rows
    order, transposed_order = ascending(here), ascending(there)
    if not torch.equal(here[order], there[transposed_order]):
        return False
    difference = (values[order] - values[transposed_order]).abs().max()
    return bool(difference <= torch.finfo(matrix.dtype).eps ** 0.75 * values.abs().max())
