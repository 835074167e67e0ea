"""Gradients of P1 basis functions on triangles and tetrahedra, and products of them, in one pass over the cells."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import build, layout


def gradients(points: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """The gradients of the basis functions and the volumes of cells; None where that is left to torch.

    Args:
        points: `(n, d)`, d = 2 or 3.
        cells: `(m, d + 1)`, int64.

    Returns:
        The cells as `(d + 1, m)`, the gradients `(d + 1, d, m)` and the volumes `(m,)`, signed.
    """
    library = _library(points)
    if library is None:
        return None
    points, cells = points.contiguous(), cells.contiguous()
    (m, corners), d = cells.shape, points.shape[1]
    columns, volumes = cells.new_empty(corners, m), points.new_empty(m)
    result = points.new_empty(corners, d, m)
    run = getattr(library, f"gradients_of_simplices_{layout.NAMES[points.dtype]}")
    tensors = (points, cells, columns, result, volumes)
    run(ctypes.c_int(d), ctypes.c_int64(m), *map(layout.pointer, tensors), layout.threads())
    return columns, result, volumes


def products(gradients: Tensor, volumes: Tensor) -> Tensor | None:
    """`(pairs, m)`, volume times the product of the gradients of the vertices 01, 02, .., 12, ..; None as above."""
    library = _library(gradients)
    if library is None:
        return None
    corners, d, m = gradients.shape
    result = volumes.new_empty(corners * d // 2, m)
    run = getattr(library, f"products_of_gradients_{layout.NAMES[volumes.dtype]}")
    tensors = (gradients.contiguous(), volumes.contiguous(), result)
    run(ctypes.c_int(d), ctypes.c_int64(m), *map(layout.pointer, tensors), layout.threads())
    return result


def _library(values: Tensor) -> ctypes.CDLL | None:
    tracked = (torch.is_grad_enabled() and values.requires_grad) or forward_ad._current_level >= 0
    return None if tracked or values.device.type != "cpu" else build.library()
