"""The compiled multigrid cycle, and conjugate gradients around it: a whole hierarchy handed to one call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from . import build, layout

_LINE = 16  # fields begin at multiples of as many numbers


class CompiledCycle:
    """The tables of one hierarchy and the fields that a cycle works on.

    Args:
        levels: finest first, a stencil and a transfer table each, with the weights of the smoother.
        spaces: the shapes of all grids, the coarsest, which has no level, included.
        inverse: `(*batch, size, size)`, dense inverse on the coarsest grid.
        visits, branching: how often the next grid is visited, and on how many levels.
        padding: zeros before and behind the fields of every level, at least.
        rows: number of fields in the batch.
        held: whatever the tables point to.
    """

    def __init__(
        self,
        levels: Sequence[tuple[layout.StencilTable, layout.TransferTable, Sequence[float]]],
        spaces: Sequence[Sequence[int]],
        inverse: Tensor,
        visits: int,
        branching: int,
        padding: Sequence[int],
        rows: int,
        held: object,
    ) -> None:
        self.dtype, self.rows, self.threads = inverse.dtype, rows, torch.get_num_threads()
        workers = 1 if 2 * rows <= self.threads else min(rows, self.threads)
        self.splits_rows = self.threads == 1 or workers > 1
        inverse = inverse.contiguous()
        sizes = [prod(space) for space in spaces]
        places, total = [], 0
        for size, reach in zip(sizes, (*padding, 0), strict=True):
            zeros = layout.padding(reach)
            length = zeros + -(-size // _LINE) * _LINE
            places.append([total + zeros + i * length for i in range(3)])
            total += 3 * length + zeros
        fields = torch.zeros(workers, total, dtype=self.dtype)
        addresses = [[fields.data_ptr() + place * fields.element_size() for place in three] for three in places]
        omegas = [(ctypes.c_double * len(weights))(*weights) for _, _, weights in levels]
        tables = (layout.LevelTable * len(levels))(
            *(
                layout.LevelTable(stencil, transfer, len(weights), layout.address(weights), *three)
                for (stencil, transfer, _), weights, three in zip(levels, omegas, addresses, strict=False)
            )
        )
        self.held = (held, inverse, fields, omegas, tables)
        self.table = layout.HierarchyTable(
            layout.address(tables),
            len(levels),
            visits,
            branching,
            inverse.data_ptr(),
            inverse.numel() // sizes[-1] ** 2,
            0,
            sizes[-1],
            *addresses[-1][:2],
            workers,
            total,
        )

    def __call__(self, r: Tensor, out: Tensor, dots: Tensor) -> None:
        """out = B r and dots = r . B r, row by row, for contiguous fields of one dtype."""
        self._function("cycle", r.dtype)(
            ctypes.byref(self.table),
            layout.pointer(r),
            layout.pointer(out),
            ctypes.c_int64(self.rows),
            layout.pointer(dots),
            ctypes.c_int(self.threads),
        )

    def descend(self, descent: layout.DescentTable, dtype: torch.dtype, norms: Tensor) -> None:
        """As many steps of conjugate gradients as `norms`, `(steps, rows)`, has place for: see descent.hpp. Only where
        rows are shared out among the threads, `splits_rows`."""
        self._function("descend_rows", dtype)(
            ctypes.byref(self.table),
            ctypes.byref(descent),
            ctypes.c_int64(self.rows),
            ctypes.c_int64(norms.shape[0]),
            layout.pointer(norms),
            ctypes.c_int(self.threads),
        )

    def _function(self, name: str, dtype: torch.dtype) -> Callable[..., None]:
        kernel: Callable[..., None] = getattr(
            build.library(), f"{name}_{layout.NAMES[dtype]}_{layout.NAMES[self.dtype]}"
        )
        return kernel
