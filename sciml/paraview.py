"""Solutions as files for ParaView: those on grids as VTK XML ImageData (.vti), written without VTK; those on meshes as
.vtu, .vtk or .xdmf, by way of meshio. Evolutions are a .pvd file that names one such file a time."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import sympy
import torch

from .elements import MeshSystem, NonlinearMeshSystem
from .errors import InputError
from .files import target, write_whole
from .grid import Grid
from .mesh_files import write_fields

if TYPE_CHECKING:
    from .mesh import Mesh
    from .solution import Solution

OF_MESHES = (".vtu", ".vtk", ".xdmf")

_HIDDEN_CELL = 32  # vtkDataSetAttributes::HIDDENCELL: ParaView does not draw such cells
_VTK_TYPES = {torch.float64: "Float64", torch.float32: "Float32", torch.uint8: "UInt8"}


def write(solution: Solution, path: str | os.PathLike[str]) -> list[Path]:
    """Write the unknowns, and the coefficients that vary; all lengths are in the unit of the problem.

    On a mesh, values at points and in cells are those of the discretization, and the names of boundaries and regions
    are kept as `sciml.mesh_files.write_fields` says; a coefficient that is a function is written at the points.

    On a grid, an unknown stands in the middle of its cell, so it is written as cell data: ParaView then shows each
    value over exactly the volume that it stands for, and integrates by the rule of `Solution.integral`. Along a
    periodic axis the unknown i stands at lower + i h, its cell reaches half a spacing to both sides, and the drawn
    box is therefore shifted by -h/2 along that axis. Where every axis is periodic and no cell is solid, nothing is
    lost by point data, which ParaView interpolates smoothly: the values are then written at the points themselves,
    the first layer repeated at the upper end, so that the box is closed. Solid cells are marked as hidden.

    Args:
        path: ends in .vti for a grid, in .vtu, .vtk or .xdmf for a mesh. A batch becomes one file a row: "name_0.vti",
            "name_1.vti", ... in the order of the batch. Of an evolution it ends in .pvd, and the files of the times,
            "name_0000.vti" or "name_0000.vtu" and so on, stand in the folder "name" beside it.

    Returns:
        The files written.

    Raises:
        InputError: the solution has no domain, the path cannot become a file, or the mesh has a name that cannot be
            kept in one.
        OSError: the disk is full or not writable; nothing is left half written.
    """
    domain = solution.domain
    if domain is None:
        whose = "belongs to a bare operator" if solution.system is None else "is one of ordinary differential equations"
        raise InputError(f"this solution {whose}, without a domain: ParaView needs coordinates")
    if solution.times is not None:
        return _write_series(solution, domain, path)
    final = target(path, (".vti",) if isinstance(domain, Grid) else OF_MESHES)
    fields = {**solution.fields, **_coefficients(solution)}
    batch = tuple(solution.codes.shape)
    rows = {}
    for name, field in fields.items():
        space = domain.shape if isinstance(domain, Grid) else field.shape[-1:]
        rows[name] = field.detach().expand(*batch, *space).reshape(-1, *space)
    count = solution.codes.numel()
    paths = [final.with_name(f"{final.stem}_{row}{final.suffix}") for row in range(count)] if batch else [final]
    for index, single in enumerate(paths):
        own = {name: row[index] for name, row in rows.items()}
        if isinstance(domain, Grid):
            write_whole(single, _document(domain, own))
        else:
            write_fields(single, domain, own)
    return paths


def _write_series(solution: Solution, domain: Grid | Mesh, path: str | os.PathLike[str]) -> list[Path]:
    """A .pvd file for each row, written last, so that it names files that are there."""
    final = target(path, (".pvd",))
    batch, count = tuple(solution.codes.shape), solution.codes.numel()
    axes = domain.dimension if isinstance(domain, Grid) else 1
    times = [] if solution.times is None else solution.times.tolist()
    fields = {}
    for name, field in solution.fields.items():
        fields[name] = field.detach().reshape(count, len(times), *field.shape[field.ndim - axes :])
    written = []
    digits = max(4, len(str(len(times) - 1)))
    for row in range(count):
        single = final.with_name(f"{final.stem}_{row}.pvd") if batch else final
        folder = single.with_suffix("")
        folder.mkdir(exist_ok=True)
        entries = []
        for place, t in enumerate(times):
            own = {name: field[row, place] for name, field in fields.items()}
            suffix = ".vti" if isinstance(domain, Grid) else ".vtu"
            part = folder / f"{single.stem}_{place:0{digits}d}{suffix}"
            if isinstance(domain, Grid):
                write_whole(part, _document(domain, own))
            else:
                write_fields(part, domain, own)
            written.append(part)
            name = quoteattr(f"{folder.name}/{part.name}")
            entries.append(f'<DataSet timestep="{t!r}" group="" part="0" file={name}/>')
        order = "LittleEndian" if sys.byteorder == "little" else "BigEndian"
        head = f'<?xml version="1.0"?>\n<VTKFile type="Collection" version="0.1" byte_order="{order}">\n<Collection>\n'
        write_whole(single, (head + "\n".join(entries) + "\n</Collection>\n</VTKFile>\n").encode())
        written.append(single)
    return written


def _coefficients(solution: Solution) -> dict[str, torch.Tensor]:
    """Those that vary in space; on a mesh `(*batch, n)` or `(*batch, m)`."""
    system = solution.system
    if system is None:
        return {}
    if not isinstance(system, MeshSystem | NonlinearMeshSystem):
        return {name: field for name, field in system.fields.items() if isinstance(field, torch.Tensor)}
    values, points = system.forms[0].values, len(system.domain.points)
    found = {}
    for name, field in system.fields.items():
        if isinstance(field, torch.Tensor):
            found[name] = field
        elif callable(field):
            try:
                sampled = values.find(sympy.Symbol(name), "points")
            except InputError:  # infinite at a point, and not needed there
                continue
            if isinstance(sampled, torch.Tensor):
                found[name] = sampled
    # A file tells values in cells from those at points by their number.
    return {
        name: field
        for name, field in found.items()
        if field.shape[-1] > 1 and not (name in values.by_cell and field.shape[-1] == points)
    }


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
