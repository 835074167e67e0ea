"""The compiled kernels of successive over-relaxation, for stencils and for sparse matrices."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import build, layout
from .stencil import CompiledStencil

WAYS = {"forward": 1, "backward": 2, "symmetric": 3}


class RelaxedTable(ctypes.Structure):
    """`Relaxed` of line_sweeps.hpp."""

    _fields_ = (("stencil", layout.StencilTable), ("period", ctypes.c_int64), ("weights", layout.Three))


class SplitTable(ctypes.Structure):
    """`Split` of row_sweeps.hpp."""

    _fields_ = (
        ("size", ctypes.c_int64),
        ("systems", ctypes.c_int64),
        ("entries", ctypes.c_int64),
        ("apart", ctypes.c_int64),
        ("starts", ctypes.c_void_p),
        ("middles", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("colours", ctypes.c_int64),
        ("bounds", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("inverse", ctypes.c_void_p),
    )


class CourseTable(ctypes.Structure):
    """`Course` of relaxation.hpp."""

    _fields_ = (
        ("b", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("r", ctypes.c_void_p),
        ("p", ctypes.c_void_p),
        ("rz", ctypes.c_void_p),
        ("tolerance", ctypes.c_void_p),
        ("iterations", ctypes.c_void_p),
        ("outcome", ctypes.c_void_p),
    )


class CompiledRelaxation(ABC):
    """Matrices split for relaxation.

    Attributes:
        dtype: of the matrices and of the fields.
        systems: how many they are; fields belong to them in turn.
        size: number of unknowns of a field.
    """

    dtype: torch.dtype
    systems: int
    size: int

    @property
    @abstractmethod
    def _name(self) -> str:
        """What its kernels end with."""

    @property
    @abstractmethod
    def _table(self) -> ctypes.Structure:
        """The matrices as the kernels take them."""

    def relax(self, way: str, relaxation: float, r: Tensor, out: Tensor) -> None:
        """out = M^-1 r for contiguous fields of its dtype, a whole number of times as many as there are systems."""
        self._kernel("relax")(
            ctypes.byref(self._table),
            ctypes.c_int(WAYS[way]),
            ctypes.c_double(relaxation),
            layout.pointer(r),
            layout.pointer(out),
            ctypes.c_int64(r.numel() // self.size),
            layout.threads(),
        )

    def advance(self, way: str, relaxation: float, course: CourseTable, descend: bool, norms: Tensor) -> None:
        """Steps of the stationary iteration or (`descend`) of conjugate gradients.

        Args:
            way: of `WAYS`.
            relaxation: omega.
            course: the fields and their state, changed in place.
            descend: which method.
            norms: float64 `(steps, fields)`, the residual norms after every step.
        """
        steps, fields = norms.shape
        self._kernel("course")(
            ctypes.byref(self._table),
            ctypes.c_int(WAYS[way]),
            ctypes.c_double(relaxation),
            ctypes.byref(course),
            ctypes.c_int(descend),
            ctypes.c_int64(fields),
            ctypes.c_int64(steps),
            layout.pointer(norms),
            layout.threads(),
        )

    def _kernel(self, action: str) -> Callable[..., None]:
        kernel: Callable[..., None] = getattr(build.library(), f"{action}_{self._name}_{layout.NAMES[self.dtype]}")
        return kernel


class CompiledLines(CompiledRelaxation):
    """A stencil, relaxed from its coefficients as they are.

    Args:
        stencil: the operator.
        inverse: its whole inverse diagonal.
        colours: the period and the weights of a colouring, see `periodic_weights`; None for natural order.
    """

    def __init__(
        self, stencil: CompiledStencil, inverse: Tensor, colours: tuple[int, tuple[int, ...]] | None = None
    ) -> None:
        self.held = stencil, inverse
        period, weights = (0, (0,)) if colours is None else colours
        self.table = RelaxedTable(stencil.table(inverse), period, layout.three(weights, 0))
        self.dtype, self.systems, self.size = stencil.dtype, self.table.stencil.batch, stencil.size

    @property
    def _name(self) -> str:
        return "lines"

    @property
    def _table(self) -> ctypes.Structure:
        return self.table


@dataclass(frozen=True)
class SplitPattern:
    """Where entries stand: in each row first those relaxed before its unknown, then its own, then those after it.

    Attributes:
        size: number of unknowns of a system.
        starts: int32 `(size + 1,)`; `(systems * size + 1,)` if the systems have patterns of their own.
        middles: int32, the places of the diagonal entries, one a row.
        columns: int32, counted within a system.
        order: int32, in which the unknowns are relaxed, counted within a system; None as they stand.
        bounds: int64 `(colours + 1,)`, `(systems, colours + 1)` of patterns apart: unknowns of a colour are relaxed at
            once.
        apart: whether the systems have patterns of their own.
    """

    size: int
    starts: Tensor
    middles: Tensor
    columns: Tensor
    order: Tensor | None
    bounds: Tensor
    apart: bool


class CompiledRows(CompiledRelaxation):
    """Sparse matrices, relaxed in any order.

    Args:
        pattern: where the entries stand.
        values: `(systems, entries)`, or `(entries,)` of patterns apart.
        systems: how many.
    """

    def __init__(self, pattern: SplitPattern, values: Tensor, systems: int) -> None:
        diagonal = values.index_select(-1, pattern.middles)
        inverse = diagonal.reciprocal()
        self.held = pattern, values, inverse
        self.dtype, self.systems, self.size = values.dtype, systems, pattern.size
        self.table = SplitTable(
            pattern.size,
            systems,
            0 if pattern.apart else values.shape[-1],
            pattern.apart,
            *map(Tensor.data_ptr, (pattern.starts, pattern.middles, pattern.columns)),
            None if pattern.order is None else pattern.order.data_ptr(),
            pattern.bounds.shape[-1] - 1,
            pattern.bounds.data_ptr(),
            values.data_ptr(),
            inverse.data_ptr(),
        )

    @property
    def _name(self) -> str:
        return "rows"

    @property
    def _table(self) -> ctypes.Structure:
        return self.table
