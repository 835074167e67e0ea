"""The compiled incomplete factorizations without fill, and the matrices of stencils that they begin from."""

from __future__ import annotations

import ctypes
from math import prod

import torch
from torch import Tensor

from . import build, layout
from .sparse import csr_table
from .stencil import CompiledStencil

Parts = tuple[Tensor, Tensor, Tensor]


class CsrPartsTable(ctypes.Structure):
    """`CsrParts` of factorization.hpp."""

    _fields_ = (("starts", ctypes.c_void_p), ("columns", ctypes.c_void_p), ("values", ctypes.c_void_p))


def stencil_rows(stencil: CompiledStencil, *, lower: bool = False) -> Parts | None:
    """The block-diagonal matrix of all rows of a stencil's batch, its entries by row and then by column.

    Args:
        stencil: the operator.
        lower: leave out what stands right of the diagonal.

    Returns:
        Starts and columns, int32, and values of a CSR tensor; None where there are too many entries for that.
    """
    rows = stencil.size * prod(stencil.batch)
    most = rows * stencil.terms.count
    if most >= 2**31:
        return None
    starts, columns, values = _empty(rows, most, stencil.dtype)
    kernel = getattr(build.library(), f"stencil_rows_{layout.NAMES[stencil.dtype]}")
    kernel.restype = ctypes.c_int64
    parts = map(layout.pointer, (starts, columns, values))
    count = kernel(ctypes.byref(stencil.plain), ctypes.c_int(lower), *parts)
    return starts, columns[:count], values[:count]


def diagonal_places(matrix: Tensor) -> Tensor:
    """Where the diagonal entries of a CSR tensor stand, int32 `(rows,)`, -1 where there is none.

    Args:
        matrix: CSR tensor that `sparse.compilable` takes, columns ascending.
    """
    starts, columns = matrix.crow_indices(), matrix.col_indices()
    places = torch.empty(matrix.shape[0], dtype=torch.int32)
    parts = map(layout.pointer, (starts, columns, places))
    build.library().diagonal_places_int32(ctypes.c_int64(len(places)), *parts)  # type: ignore[union-attr]
    return places


def incomplete_cholesky(lower: Tensor, shifts: Tensor, least: float, factor: Tensor, todo: Tensor) -> Tensor:
    """Incomplete Cholesky factors of A + shift D, D being the diagonal, for a batch of matrices.

    Args:
        lower: the lower triangle of the block-diagonal matrix of the batch, CSR tensor that `sparse.compilable` takes,
            columns ascending, every diagonal entry there.
        shifts: float64 `(systems,)`.
        least: fraction of its diagonal entry above which a pivot must be.
        factor: float64 `(entries,)`, in which L is written where lower has its entries.
        todo: bool `(systems,)`, which of them to factorize.

    Returns:
        bool `(systems,)`: which of them failed.
    """
    table, failed = csr_table(lower), todo.to(torch.int32)
    getattr(build.library(), f"incomplete_cholesky_{layout.NAMES[lower.dtype]}")(
        ctypes.byref(table),
        ctypes.c_int64(len(shifts)),
        layout.pointer(shifts),
        ctypes.c_double(least),
        layout.pointer(factor),
        layout.pointer(failed),
        layout.threads(),
    )
    return failed.bool()


def incomplete_lu(matrix: Tensor, diagonal: Tensor, systems: int) -> tuple[Tensor, Tensor]:
    """Incomplete LU factors of a batch of matrices.

    Args:
        matrix: block-diagonal matrix of the batch, CSR tensor that `sparse.compilable` takes, columns ascending.
        diagonal: its `diagonal_places`, none of them missing.
        systems: number of matrices.

    Returns:
        float64 `(entries,)`: U, and left of it L, whose diagonal is 1; int64 `(systems,)`: the first row of each whose
        pivot is zero to rounding or not finite, -1 where there is none. What follows that row is undefined.
    """
    table = csr_table(matrix)
    factors = torch.empty(len(matrix.values()), dtype=torch.float64)
    bad = torch.empty(systems, dtype=torch.int64)
    getattr(build.library(), f"incomplete_lu_{layout.NAMES[matrix.dtype]}")(
        ctypes.byref(table),
        ctypes.c_int64(systems),
        *map(layout.pointer, (diagonal, factors, bad)),
        layout.threads(),
    )
    return factors, bad


def split_factors(matrix: Tensor, diagonal: Tensor, factors: Tensor) -> tuple[Parts, Parts]:
    """The triangles of factors in the pattern of a matrix: L with ones as its diagonal, and U.

    Args:
        matrix, diagonal: see `incomplete_lu`.
        factors: its result.

    Returns:
        Starts, columns and values of either as a CSR tensor of the matrix's dtype.
    """
    rows, starts, columns = matrix.shape[0], matrix.crow_indices(), matrix.col_indices()
    left = int((diagonal - starts[:-1]).sum())
    lower = _empty(rows, left + rows, matrix.dtype)
    upper = _empty(rows, len(columns) - left, matrix.dtype)
    tables = [CsrPartsTable(*map(Tensor.data_ptr, parts)) for parts in (lower, upper)]
    getattr(build.library(), f"split_factors_{layout.NAMES[matrix.dtype]}")(
        ctypes.c_int64(rows),
        *map(layout.pointer, (starts, columns, diagonal, factors)),
        *map(ctypes.byref, tables),
    )
    return lower, upper


def _empty(rows: int, entries: int, dtype: torch.dtype) -> Parts:
    index = torch.empty(rows + 1, dtype=torch.int32), torch.empty(entries, dtype=torch.int32)
    return *index, torch.empty(entries, dtype=dtype)
