"""The compiled kernels for sparse matrices: triangular solves and the cycle of algebraic multigrid."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from . import build, layout


class CsrTable(ctypes.Structure):
    """`Csr` of sparse.hpp."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("starts", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
    )


class TriangleTable(ctypes.Structure):
    """`Triangle` of sparse.hpp."""

    _fields_ = (
        ("matrix", CsrTable),
        ("pieces", ctypes.c_int64),
        ("bounds", ctypes.c_void_p),
        ("upper", ctypes.c_int),
    )


class SparseLevelTable(ctypes.Structure):
    """`SparseLevel` of sparse_cycle.hpp."""

    _fields_ = (
        ("matrix", CsrTable),
        ("prolongation", CsrTable),
        ("restriction", CsrTable),
        ("inverse_diagonal", ctypes.c_void_p),
        ("sweeps", ctypes.c_int64),
        ("omegas", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("spare", ctypes.c_void_p),
    )


class SparseHierarchyTable(ctypes.Structure):
    """`SparseHierarchy` of sparse_cycle.hpp."""

    _fields_ = (
        ("levels", ctypes.c_void_p),
        ("depth", ctypes.c_int64),
        ("visits", ctypes.c_int64),
        ("inverse", ctypes.c_void_p),
        ("coarse_size", ctypes.c_int64),
        ("b", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
    )


def takes(values: Tensor) -> bool:
    """Whether there are kernels for numbers like these: on the CPU, float32 or float64."""
    return values.device.type == "cpu" and values.dtype in layout.NAMES and build.library() is not None


def compilable(*matrices: Tensor) -> bool:
    """Whether the kernels take these CSR tensors: on the CPU, float32 or float64, with 32-bit indices."""
    found = build.library() is not None  # also where there is no matrix
    return found and all(takes(m) and m.crow_indices().dtype == torch.int32 for m in matrices)


def csr_table(matrix: Tensor) -> CsrTable:
    """The kernels' table of a CSR tensor, which the caller keeps alive."""
    parts = (matrix.crow_indices(), matrix.col_indices(), matrix.values())
    return CsrTable(matrix.shape[0], *map(Tensor.data_ptr, parts))


class CompiledMatrix:
    """A square matrix for compiled products.

    Args:
        matrix: CSR tensor that `compilable` takes.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.held = (matrix.crow_indices(), matrix.col_indices(), matrix.values())
        self.table = CsrTable(matrix.shape[0], *map(Tensor.data_ptr, self.held))
        library, name = build.library(), layout.NAMES[matrix.dtype]
        self._multiply = getattr(library, f"multiply_csr_{name}")
        self._chebyshev = getattr(library, f"chebyshev_{name}")

    def multiply(self, x: Tensor, out: Tensor) -> None:
        """out = A x for contiguous fields `(*batch, size)` of the matrix's dtype."""
        batch = ctypes.c_int64(x.numel() // self.table.rows)
        self._multiply(ctypes.byref(self.table), layout.pointer(x), layout.pointer(out), batch, layout.threads())

    def chebyshev(self, factors: Sequence[tuple[float, float]], b: Tensor, x: Tensor) -> Tensor:
        """The last of the fields that follow from x, and 0 before it, by x + first (x - before) + second (b - A x).

        Args:
            factors: of the steps, a pair each.
            b, x: contiguous fields `(*batch, size)` of the matrix's dtype; x is scratch afterwards.
        """
        table = (ctypes.c_double * (2 * len(factors)))(*(factor for pair in factors for factor in pair))
        before = torch.zeros_like(x)
        self._chebyshev(
            ctypes.byref(self.table),
            ctypes.byref(table),
            ctypes.c_int64(len(factors)),
            *map(layout.pointer, (b, x, before)),
            ctypes.c_int64(x.numel() // self.table.rows),
            layout.threads(),
        )
        return before if len(factors) % 2 else x


def sum_segments(starts: Tensor, places: Tensor, values: Tensor) -> Tensor | None:
    """The sums of the values at each segment of a list of places; None where that is left to torch.

    Args:
        starts: `(count + 1,)`, where the segments begin.
        places: `(k,)`.
        values: `(*batch, size)`, without gradients.

    Returns:
        `(*batch, count)`.
    """
    library = build.library() if values.device.type == "cpu" and values.dtype in layout.NAMES else None
    if library is None or starts.dtype != torch.int32 or places.dtype != torch.int32:
        return None
    values, count = values.contiguous(), len(starts) - 1
    result = values.new_empty(*values.shape[:-1], count)
    getattr(library, f"sum_segments_{layout.NAMES[values.dtype]}")(
        ctypes.c_int64(count),
        *map(layout.pointer, (starts, places, values)),
        ctypes.c_int64(values.shape[-1]),
        layout.pointer(result),
        ctypes.c_int64(result.numel() // max(1, count)),
        layout.threads(),
    )
    return result


class CompiledTriangle:
    """A triangular matrix laid out for the compiled solve, row after row.

    Args:
        matrix: triangular CSR tensor that `compilable` takes, columns ascending, every diagonal entry there and not 0.
        upper: which triangle.
        bounds: 0, ..., size, where the rows fall into pieces that do not depend on one another.
    """

    def __init__(self, matrix: Tensor, upper: bool, bounds: Sequence[int]) -> None:
        starts, columns, values = matrix.crow_indices(), matrix.col_indices(), matrix.values().clone()
        diagonal = starts[:-1].long() if upper else starts[1:].long() - 1
        values[diagonal] = values[diagonal].reciprocal()
        limits = layout.integers(*bounds)
        self.held = (starts, columns, values, limits)
        csr = CsrTable(matrix.shape[0], *map(Tensor.data_ptr, (starts, columns, values)))
        self.table = TriangleTable(csr, len(bounds) - 1, layout.address(limits), int(upper))
        self.dtype, self.bounds = matrix.dtype, tuple(bounds)

    def solve(self, b: Tensor) -> Tensor:
        """A^-1 b for `(size, columns)` of the matrix's dtype."""
        return self._substitute(b, transposed=False)

    def solve_transposed(self, b: Tensor) -> Tensor:
        """A^-T b."""
        return self._substitute(b, transposed=True)

    def _substitute(self, b: Tensor, transposed: bool) -> Tensor:
        b = b.contiguous()
        x = torch.empty_like(b)
        getattr(build.library(), f"solve_triangle_{layout.NAMES[self.dtype]}")(
            ctypes.byref(self.table),
            ctypes.c_int(transposed),
            layout.pointer(b),
            layout.pointer(x),
            ctypes.c_int64(b.shape[1]),
            layout.threads(),
        )
        return x


class CompiledSparseCycle:
    """The tables of one hierarchy of sparse matrices and the fields that a cycle works on.

    Args:
        levels: finest first: matrix, prolongation and restriction as CSR tensors that `compilable` takes, the inverse
            diagonal, and the weights of the smoother.
        inverse: `(size, size)`, dense inverse of the coarsest matrix.
        visits: how often the next level is visited.
    """

    def __init__(
        self,
        levels: Sequence[tuple[Tensor, Tensor, Tensor, Tensor, Sequence[float]]],
        inverse: Tensor,
        visits: int,
    ) -> None:
        self.dtype = inverse.dtype
        inverse = inverse.contiguous()
        sizes = [*(level[0].shape[0] for level in levels), len(inverse)]
        fields = [[torch.empty(size, dtype=self.dtype) for _ in range(3)] for size in sizes]
        omegas = [(ctypes.c_double * len(level[4]))(*level[4]) for level in levels]
        tables = (SparseLevelTable * len(levels))(
            *(
                SparseLevelTable(
                    *map(csr_table, level[:3]),
                    level[3].data_ptr(),
                    len(weights),
                    layout.address(weights),
                    *map(Tensor.data_ptr, three),
                )
                for level, weights, three in zip(levels, omegas, fields, strict=False)
            )
        )
        self.held = (levels, inverse, fields, omegas, tables)
        self.table = SparseHierarchyTable(
            layout.address(tables),
            len(levels),
            visits,
            inverse.data_ptr(),
            len(inverse),
            fields[-1][0].data_ptr(),
            fields[-1][1].data_ptr(),
        )

    def __call__(self, r: Tensor, out: Tensor, dots: Tensor) -> None:
        """out = B r and dots = r . B r, field by field, for contiguous fields of one dtype and float64 dots."""
        name = f"sparse_cycle_{layout.NAMES[r.dtype]}_{layout.NAMES[self.dtype]}"
        getattr(build.library(), name)(
            ctypes.byref(self.table),
            layout.pointer(r),
            layout.pointer(out),
            ctypes.c_int64(dots.numel()),
            layout.pointer(dots),
            layout.threads(),
        )
