"""Incomplete factorization without fill: level after level of rows that do not depend on each other, where no compiled
kernel goes row by row."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy
import torch
from torch import Tensor

from sciml.csr import csr_from_starts
from sciml.errors import InputError
from sciml.kernels import factorization, sparse
from sciml.linear_operator import LinearOperator
from sciml.sparse import SparseOperator
from sciml.stencil import StencilOperator

from .inverse import Entries

Array = numpy.ndarray[Any, numpy.dtype[Any]]

_CHUNK = 1 << 22


def matrix_of(operator: LinearOperator, *, lower: bool = False) -> Tensor | Entries:
    """The block-diagonal matrix of all rows of an operator's batch.

    Args:
        operator: the operator.
        lower: leave out what stands right of the diagonal.

    Returns:
        CSR tensor, columns ascending, if the compiled kernels take it; otherwise all its entries.

    Raises:
        InputError: if it holds NaN or infinity.
    """
    if isinstance(operator, StencilOperator) and operator.compiled is not None:
        finite = all(map(_is_finite, operator.coefficients))
        parts = factorization.stencil_rows(operator.compiled, lower=lower) if finite else None
        if parts is not None:
            rows = len(parts[0]) - 1
            return csr_from_starts(*parts, (rows, rows))
    if isinstance(operator, SparseOperator) and sparse.compilable(matrix := operator.to_sparse()) and _is_plain(matrix):
        return _lower(matrix) if lower else matrix
    entries = Entries.of(operator)
    if not sparse.takes(entries.values):
        return entries
    matrix = (entries.select(entries.columns <= entries.rows) if lower else entries).csr()
    return matrix if sparse.compilable(matrix) else entries


def _is_plain(matrix: Tensor) -> bool:
    """Whether a CSR tensor is finite, columns ascending."""
    starts, columns = matrix.crow_indices().numpy(), matrix.col_indices().numpy()
    ascends = numpy.ones(len(columns) + 1, dtype=bool)
    numpy.less(columns[:-1], columns[1:], out=ascends[1:-1])
    ascends[starts] = True
    return bool(ascends.all()) and _is_finite(matrix.values())


def _is_finite(values: Tensor) -> bool:
    """Whether there is neither NaN nor infinity; a finite sum, which is quicker, tells that."""
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def _lower(matrix: Tensor) -> Tensor:
    """The entries of a CSR tensor that do not stand right of the diagonal."""
    starts, columns = matrix.crow_indices().numpy(), matrix.col_indices().numpy()
    kept = columns <= numpy.repeat(numpy.arange(len(starts) - 1, dtype=columns.dtype), numpy.diff(starts))
    before = numpy.zeros(len(columns) + 1, dtype=starts.dtype)
    numpy.cumsum(kept, out=before[1:])
    values = torch.from_numpy(matrix.values().numpy()[kept])
    return csr_from_starts(torch.from_numpy(before[starts]), torch.from_numpy(columns[kept]), values, matrix.shape)


def missing_diagonal(rows: Array) -> InputError:
    """That there are rows without a diagonal entry."""
    return InputError(
        f"row {rows[0]} has no diagonal entry ({len(rows)} such rows): incomplete factorizations need one in every "
        "row; reorder the unknowns, or use Direct"
    )


class IncompleteFactorization:
    """A = L U + (what falls outside the pattern of A), with a unit diagonal of L: the pattern's part of the work.

    Rows whose lower neighbours are all done form a level. Inside a level the p-th lower entry of every row is
    eliminated at once: these entries lie in different rows, so that no place is updated twice. The number of levels is
    the length of the longest chain of dependencies: nx + ny - 1 for a five-point stencil, n for a tridiagonal matrix.

    Source: Saad, Iterative Methods for Sparse Linear Systems (2003), algorithm 10.4 and section 11.6.3 (levels).

    Args:
        entries: the matrix.

    Raises:
        InputError: if a diagonal entry is not in the pattern.
    """

    def __init__(self, entries: Entries) -> None:
        rows, columns = entries.rows.cpu().numpy(), entries.columns.cpu().numpy()
        size = entries.size
        self.rows, self.columns = rows, columns
        self.pivots = numpy.flatnonzero(rows == columns)
        if len(self.pivots) != size:
            raise missing_diagonal(numpy.setdiff1d(numpy.arange(size), rows[self.pivots]))
        self.lower = numpy.flatnonzero(columns < rows)
        starts = numpy.searchsorted(rows, numpy.arange(size + 1))
        levels = dependency_levels(rows[self.lower], columns[self.lower], size)
        turn = self.lower - starts[rows[self.lower]]
        group = levels[rows[self.lower]] * (turn.max(initial=0) + 1) + turn
        order = numpy.argsort(group, kind="stable")
        self.eliminated = self.lower[order]
        first = numpy.flatnonzero(numpy.diff(group[order], prepend=-1))
        self.bounds = numpy.append(first, len(order)).tolist()
        self._find_updates(starts)

    def _find_updates(self, starts: Array) -> None:
        """Triples (i, k), (k, j), (i, j) of places in the pattern with k < i and k < j, in the order of elimination."""
        size = len(self.pivots)
        places = self.rows * size + self.columns
        factors, sources, targets = [], [], []
        for begin in range(0, len(self.eliminated), max(1, _CHUNK // max(1, len(places) // size))):
            factor = self.eliminated[begin : begin + max(1, _CHUNK // max(1, len(places) // size))]
            pivot_row = self.columns[factor]
            source, owner = ranges(self.pivots[pivot_row] + 1, starts[pivot_row + 1])
            place = self.rows[factor][owner] * size + self.columns[source]
            target = numpy.searchsorted(places, place)
            present = places[numpy.minimum(target, len(places) - 1)] == place
            factors.append(begin + owner[present])
            sources.append(source[present])
            targets.append(target[present])
        empty = numpy.zeros(0, dtype=numpy.int64)
        self.factors = numpy.concatenate(factors or [empty])
        self.sources = numpy.concatenate(sources or [empty])
        self.targets = numpy.concatenate(targets or [empty])
        self.update_bounds = numpy.searchsorted(self.factors, self.bounds).tolist()

    def factorize(self, values: Array) -> Array:
        """The entries of L (below the diagonal) and U for values in this pattern; not finite where a pivot is zero."""
        values = values.copy()
        pivots = self.pivots[self.columns[self.eliminated]]
        factors = self.eliminated[self.factors]
        with numpy.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for (start, stop), (first, last) in zip(pairwise(self.bounds), pairwise(self.update_bounds), strict=True):
                values[self.eliminated[start:stop]] /= values[pivots[start:stop]]
                if last > first:
                    update = values[factors[first:last]] * values[self.sources[first:last]]
                    values[self.targets[first:last]] -= update
        return values


def dependency_levels(rows: Array, columns: Array, size: int) -> Array:
    """Level of every row: 0 without lower entries (rows, columns), else one above the highest level it depends on."""
    by_column = numpy.argsort(columns, kind="stable")
    dependents = rows[by_column]
    starts = numpy.searchsorted(columns[by_column], numpy.arange(size + 1))
    waiting = numpy.bincount(rows, minlength=size)
    levels = numpy.zeros(size, dtype=numpy.int64)
    ready, level = numpy.flatnonzero(waiting == 0), 0
    while len(ready):
        levels[ready] = level
        places, _ = ranges(starts[ready], starts[ready + 1])
        touched = dependents[places]
        numpy.subtract.at(waiting, touched, 1)
        ready = numpy.unique(touched[waiting[touched] == 0])
        level += 1
    return levels


def ranges(starts: Array, stops: Array) -> tuple[Array, Array]:
    """The integers of all ranges one after the other, and the number of the range that each comes from."""
    counts = stops - starts
    owner = numpy.repeat(numpy.arange(len(counts)), counts)
    before = numpy.cumsum(counts) - counts
    return numpy.arange(len(owner)) - before[owner] + starts[owner], owner
