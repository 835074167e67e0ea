"""Solid angles of strips from the open edges of a surface up to infinity, for winding numbers."""

from __future__ import annotations

import ctypes
from math import pi

import torch
from torch import Tensor

from . import build, layout

# Numbers held at once in a temporary: what stays in the cache of a CPU, what fills a GPU.
_BLOCK = {"cpu": 2**18, "cuda": 2**24}


def strip_turns(across: Tensor, along: Tensor, squares: Tensor, heights: Tensor, z: Tensor) -> Tensor:
    """Half the solid angles of strips over edges, in turns of 2 pi and summed up, seen from the points of columns.

    For an edge from a to b, seen from a point, it is the angle whose tangent is det(a, b, up) over
    (|a| + a_z)(|b| + b_z) + a_x b_x + a_y b_y.

    Args:
        across: det(a, b, up), of shape `(columns, edges)`, float64.
        along: a_x b_x + a_y b_y, of the same shape.
        squares: a_x^2 + a_y^2, and the same of b, `(2, columns, edges)`.
        heights: z coordinates of a, and of b, `(2, edges)`.
        z: z coordinates of the points of every column, `(z,)`.

    Returns:
        `(columns, z)`.
    """
    library = build.library() if z.device.type == "cpu" else None
    if library is None:
        step = max(1, _BLOCK.get(z.device.type, _BLOCK["cpu"]) // max(1, heights.shape[1] * len(z)))
        parts = zip(across.split(step), along.split(step), squares.split(step, dim=1), strict=True)
        return torch.cat([_sum_of_angles(*part, heights, z) for part in parts])
    turns = z.new_empty((len(across), len(z)))
    tables = [table.contiguous() for table in (across, along, *squares, *heights, z, turns)]
    sizes = (ctypes.c_int64(n) for n in (*across.shape, len(z)))
    library.strip_turns_float64(*sizes, *map(layout.pointer, tables), layout.threads())
    return turns


def _sum_of_angles(across: Tensor, along: Tensor, squares: Tensor, heights: Tensor, z: Tensor) -> Tensor:
    up = heights[:, None, :, None] - z
    lift = torch.hypot(squares[..., None].sqrt(), up).add_(up)
    return torch.atan2(across[..., None], (lift[0] * lift[1]).add_(along[..., None])).sum(1).div_(2 * pi)
