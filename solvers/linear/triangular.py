"""Solves with sparse triangular matrices, row after row or block after block of independent rows."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from sciml.csr import csr_tensor
from sciml.errors import InputError
from sciml.kernels import sparse

from .inverse import Entries

_PIECES = 64  # as many as threads can use


class Triangle(Protocol):
    """A triangular matrix to solve with; right sides are `(size, columns)`."""

    def solve(self, b: Tensor) -> Tensor: ...

    def solve_transposed(self, b: Tensor) -> Tensor: ...


def triangle(entries: Entries, *, upper: bool = False, bounds: Sequence[int] | None = None) -> Triangle:
    """What solves fastest with a triangular matrix.

    Args:
        entries: the matrix, with a diagonal free of zeros; entries on the other side of it must not be there.
        upper: which triangle.
        bounds: 0, ..., size where the rows fall into blocks whose own part of the matrix is diagonal; None if they do
            not, and rows are solved for one after the other.
    """
    if bounds is not None:
        return BlockTriangle(entries, upper, bounds)
    if sparse.compilable(matrix := entries.csr()):
        return compiled_triangle(matrix, upper)
    if torch_solves_triangles(entries.values.device.type):
        return TorchTriangle(entries, upper)
    if entries.values.device.type != "cpu":
        raise InputError(
            f"torch has no sparse triangular solve on {entries.values.device}: use ordering='multicolour', or Chebyshev"
        )
    return SuperLUTriangle(entries)


class TorchTriangle:
    """Through torch, which hands it to MKL or cuSPARSE."""

    def __init__(self, entries: Entries, upper: bool) -> None:
        self.matrix = entries.csr()
        self.upper = upper

    def solve(self, b: Tensor) -> Tensor:
        return torch.triangular_solve(b, self.matrix, upper=self.upper).solution

    def solve_transposed(self, b: Tensor) -> Tensor:
        return torch.triangular_solve(b, self.matrix, upper=self.upper, transpose=True).solution


class SuperLUTriangle:
    """Through scipy, where torch is built without MKL: a triangular matrix factorizes into itself without fill."""

    def __init__(self, entries: Entries) -> None:
        places = (entries.rows.numpy(), entries.columns.numpy())
        matrix = scipy.sparse.csc_array((entries.values.numpy(), places), shape=(entries.size, entries.size))
        self.factors = scipy.sparse.linalg.splu(
            matrix, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )

    def solve(self, b: Tensor) -> Tensor:
        return torch.from_numpy(self.factors.solve(b.numpy()))

    def solve_transposed(self, b: Tensor) -> Tensor:
        return torch.from_numpy(self.factors.solve(b.numpy(), trans="T"))


class BlockTriangle:
    """One sparse product a block of rows; as parallel as the blocks are long."""

    def __init__(self, entries: Entries, upper: bool, bounds: Sequence[int]) -> None:
        self.entries = entries
        self.upper = upper
        self.bounds = tuple(bounds)
        self.inverse_diagonal = entries.diagonal().reciprocal().unsqueeze(-1)
        outside = entries.select(entries.rows != entries.columns)
        self.blocks = []
        for start, stop in pairwise(self.bounds):
            inside = outside.select((outside.rows >= start) & (outside.rows < stop))
            first = stop if upper else 0
            width = entries.size - stop if upper else start
            place = (inside.rows - start, inside.columns - first)
            self.blocks.append(csr_tensor(*place, inside.values, (stop - start, width)))

    def solve(self, b: Tensor) -> Tensor:
        x = b * self.inverse_diagonal
        blocks = list(zip(pairwise(self.bounds), self.blocks, strict=True))
        for (start, stop), matrix in reversed(blocks) if self.upper else blocks:
            if matrix.values().numel():
                known = x[stop:] if self.upper else x[:start]
                x[start:stop].addcmul_(matrix @ known, self.inverse_diagonal[start:stop], value=-1)
        return x

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self._transposed.solve(b)

    @functools.cached_property
    def _transposed(self) -> BlockTriangle:
        return BlockTriangle(self.entries.transpose(), not self.upper, self.bounds)


def compiled_triangle(matrix: Tensor, upper: bool) -> Triangle:
    """A triangular CSR tensor for compiled solves.

    Args:
        matrix: as `sparse.CompiledTriangle` takes it.
        upper: which triangle.
    """
    return sparse.CompiledTriangle(matrix, upper, _pieces(matrix, upper))


def _pieces(matrix: Tensor, upper: bool) -> list[int]:
    """0, ..., size: where a triangular matrix falls into parts that are not coupled, as the rows of a batch."""
    starts, columns = matrix.crow_indices().numpy(), matrix.col_indices().numpy()
    numbers = numpy.arange(len(starts) - 1)
    if upper:
        reach = numpy.maximum.accumulate(columns[starts[1:] - 1])
        cuts = numbers[:-1][reach[:-1] == numbers[:-1]] + 1
    else:
        reach = numpy.minimum.accumulate(columns[starts[:-1]][::-1])[::-1]
        cuts = numbers[1:][reach[1:] == numbers[1:]]
    return [0, *cuts[:: len(cuts) // _PIECES + 1].tolist(), len(numbers)]


@functools.cache
def torch_solves_triangles(device: str) -> bool:
    """Whether torch was built with a sparse triangular solve for a kind of device."""
    index = torch.tensor([0, 1], dtype=torch.int32, device=device)
    one = torch.ones(1, 1, device=device)
    matrix = torch.sparse_csr_tensor(index, index[:1], one[0], (1, 1), check_invariants=False)
    try:
        torch.triangular_solve(one, matrix, upper=False)
    except (RuntimeError, AttributeError):
        return False
    return True
