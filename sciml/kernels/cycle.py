"""The compiled multigrid cycle: a whole hierarchy handed to one call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from . import build, layout


class CompiledCycle:
    """The tables of one hierarchy and the fields that a cycle works on, for one batch shape.

    Args:
        levels: finest first, a stencil and a transfer table each, with the weights of the smoother.
        spaces: the shapes of all grids, the coarsest, which has no level, included.
        inverse: `(*batch, size, size)`, dense inverse on the coarsest grid.
        visits, branching: how often the next grid is visited, and on how many levels.
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
        rows: int,
        held: object,
    ) -> None:
        self.dtype, self.rows = inverse.dtype, rows
        inverse = inverse.contiguous()
        fields = [[torch.empty(rows, *space, dtype=self.dtype) for _ in range(3)] for space in spaces]
        omegas = [(ctypes.c_double * len(weights))(*weights) for _, _, weights in levels]
        tables = (layout.LevelTable * len(levels))(
            *(
                layout.LevelTable(
                    stencil, transfer, len(weights), layout.address(weights), *map(Tensor.data_ptr, three)
                )
                for (stencil, transfer, _), weights, three in zip(levels, omegas, fields, strict=False)
            )
        )
        size = prod(spaces[-1])
        self.held = (held, inverse, fields, omegas, tables)
        self.table = layout.HierarchyTable(
            layout.address(tables),
            len(levels),
            visits,
            branching,
            inverse.data_ptr(),
            inverse.numel() // size**2,
            size,
            fields[-1][0].data_ptr(),
            fields[-1][1].data_ptr(),
        )

    def __call__(self, r: Tensor, out: Tensor, dots: Tensor) -> None:
        """out = B r and dots = r . B r, row by row, for contiguous fields of one dtype."""
        name = f"cycle_{layout.NAMES[r.dtype]}_{layout.NAMES[self.dtype]}"
        getattr(build.library(), name)(
            ctypes.byref(self.table),
            layout.pointer(r),
            layout.pointer(out),
            ctypes.c_int64(self.rows),
            layout.pointer(dots),
            layout.threads(),
        )
