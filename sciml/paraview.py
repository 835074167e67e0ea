"""Solutions on grids as files for ParaView: VTK XML ImageData (.vti), written without VTK."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import torch

from .errors import InputError
from .files import target, write_whole
from .grid import Grid

if TYPE_CHECKING:
    from .solution import Solution

_HIDDEN_CELL = 32  # vtkDataSetAttributes::HIDDENCELL: ParaView does not draw such cells
_VTK_TYPES = {torch.float64: "Float64", torch.float32: "Float32", torch.uint8: "UInt8"}


def write(solution: Solution, path: str | os.PathLike[str]) -> list[Path]:
    """Write the unknowns, and the coefficients that vary, to a .vti file; all lengths are dimensionless.

    An unknown stands in the middle of its cell, so it is written as cell data: ParaView then shows each value over
    exactly the volume that it stands for, and integrates by the rule of `Solution.integral`. Along a periodic axis the
    unknown i stands at lower + i h, its cell reaches half a spacing to both sides, and the drawn box is therefore
    shifted by -h/2 along that axis. Where every axis is periodic and no cell is solid, nothing is lost by point data,
    which ParaView interpolates smoothly: the values are then written at the points themselves, the first layer repeated
    at the upper end, so that the box is closed. Solid cells are marked as hidden.

    Args:
        path: ends in .vti. A batch becomes one file a row: "name_0.vti", "name_1.vti", ... in the order of the batch.

    Returns:
        The files written.

    Raises:
        InputError: the solution has no grid, or the path cannot become a file.
        OSError: the disk is full or not writable; nothing is left half written.
    """
    grid = solution.domain
    if grid is None:
        raise InputError("this solution belongs to a bare operator, without a grid: ParaView needs coordinates")
    if not isinstance(grid, Grid):
        raise InputError("this writes solutions on grids, as .vti; the solution is one on a mesh")
    final = target(path, (".vti",))
    fields = dict(solution.fields)
    if solution.system is not None:
        fields |= {name: field for name, field in solution.system.fields.items() if isinstance(field, torch.Tensor)}
    batch = tuple(solution.codes.shape)
    rows = {name: field.detach().expand(*batch, *grid.shape).reshape(-1, *grid.shape) for name, field in fields.items()}
    if not batch:
        write_whole(final, _document(grid, {name: row[0] for name, row in rows.items()}))
        return [final]
    paths = [final.with_name(f"{final.stem}_{index}{final.suffix}") for index in range(solution.codes.numel())]
    for index, single in enumerate(paths):
        write_whole(single, _document(grid, {name: row[index] for name, row in rows.items()}))
    return paths


def _document(grid: Grid, fields: dict[str, torch.Tensor]) -> bytes:
    at_points = all(grid.periodic) and grid.solid is None
    shift = [0.5 if periodic and not at_points else 0.0 for periodic in grid.periodic]
    lower = [a - s * h for a, s, h in zip(grid.lower, shift, grid.spacing, strict=True)]
    missing = 3 - grid.dimension
    extent = " ".join(f"0 {count}" for count in (*grid.shape, *(0,) * missing))
    origin = " ".join(repr(number) for number in (*lower, *(0.0,) * missing))
    spacing = " ".join(repr(number) for number in (*grid.spacing, *(1.0,) * missing))
    arrays, blocks = [], []
    offset = 0
    if grid.solid is not None:
        fields = {**fields, "vtkGhostType": grid.solid.to(torch.uint8) * _HIDDEN_CELL}
    for name, field in fields.items():
        if at_points:
            for axis in range(grid.dimension):
                field = torch.cat((field, field.narrow(axis, 0, 1)), axis)
        z_to_x = field.permute(*reversed(range(grid.dimension)))  # VTK runs through x fastest
        data = z_to_x.contiguous().cpu().numpy().tobytes()
        block = base64.b64encode(len(data).to_bytes(8, sys.byteorder) + data)
        arrays.append(
            f'<DataArray type="{_VTK_TYPES[field.dtype]}" Name={quoteattr(name)} format="appended" offset="{offset}"/>'
        )
        blocks.append(block)
        offset += len(block)
    section = "PointData" if at_points else "CellData"
    order = "LittleEndian" if sys.byteorder == "little" else "BigEndian"
    head = (
        f'<?xml version="1.0"?>\n<VTKFile type="ImageData" version="1.0" byte_order="{order}" header_type="UInt64">\n'
        f'<ImageData WholeExtent="{extent}" Origin="{origin}" Spacing="{spacing}">\n<Piece Extent="{extent}">\n'
        f"<{section} Scalars={quoteattr(next(iter(fields)))}>\n" + "\n".join(arrays) + f"\n</{section}>\n"
        '</Piece>\n</ImageData>\n<AppendedData encoding="base64">\n_'
    )
    return head.encode() + b"".join(blocks) + b"\n</AppendedData>\n</VTKFile>\n"
