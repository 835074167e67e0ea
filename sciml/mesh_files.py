"""Mesh files, read and written by way of meshio: groups of cells become named boundaries and regions, and back."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from .errors import InputError
from .files import target, write_whole
from .mesh_formats import DIMENSIONS, load
from .mesh_input import tensor_of
from .mesh_simplices import exterior_facets, find_rows, oriented, row_keys

if TYPE_CHECKING:
    import meshio

    from .mesh import Mesh

WRITTEN = (".msh", ".vtk", ".vtu", ".xdmf")
_FACET_OF = {"triangle": "line", "tetra": "triangle"}
_NOT_IN_NAMES = "\"'\\<>&"  # formats quote them in different ways, and meshio does not in all
# Integers by which formats number the groups of cells; 0 is no group.
_TAGS = ("gmsh:physical", "medit:ref", "nastran:ref", "netgen:index", "su2:tag", "tetgen:ref", "ugrid:ref")
# scikit-fem's way to name parts in any format that has data of cells: bit i of "skfem:b:NAME" says that facet i of the
# cell belongs to the boundary NAME, "skfem:s:NAME" is 1 in the cells of the region NAME. Its order of facets:
_BOUNDARY, _REGION = "skfem:b:", "skfem:s:"
_BIT_FACETS = {2: ((0, 1), (1, 2), (0, 2)), 3: ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3))}


@dataclass
class Parts:
    """What a file holds: points `(n, d)`, cells `(m, d + 1)`, named facets `(k, d)` by their points, named cells."""

    points: Tensor
    cells: Tensor
    boundaries: dict[str, Tensor] = field(default_factory=dict)
    regions: dict[str, Tensor] = field(default_factory=dict)


def read_parts(path: str | os.PathLike[str]) -> Parts:
    """The simplices of highest dimension in a mesh file, and its groups; points that they do not use are dropped.

    Raises:
        InputError: the file is missing, of no known format, damaged, or holds something else than triangles in a plane
            or tetrahedra.
    """
    content = load(path)
    kinds = {block.type for block in content.cells if len(block.data)}
    _check_kinds(kinds, path)
    d = 3 if "tetra" in kinds else 2
    points = _points(content, path)
    blocks = [(block.type, numpy.asarray(block.data, dtype=numpy.int64)) for block in content.cells]
    cells = numpy.concatenate([rows for kind, rows in blocks if DIMENSIONS[kind] == d])
    named = numpy.concatenate([rows.reshape(-1) for _, rows in blocks])
    if named.min() < 0 or named.max() >= len(points):
        raise InputError(f"{path}: its cells name points that do not exist; there are {len(points)}")
    used = numpy.unique(cells)
    numbers = numpy.full(len(points), -1)
    numbers[used] = numpy.arange(len(used))
    points = points[used]
    parts = Parts(torch.tensor(points[:, _columns(points, d, path)]), torch.tensor(numbers[cells]))
    _add_tagged(parts, content, [(kind, numbers[rows]) for kind, rows in blocks], d)
    _add_bits(parts, content, d)
    return parts


def read_surface(path: str | os.PathLike[str]) -> tuple[Tensor, Tensor]:
    """The triangles of a surface file (STL, OBJ, PLY, OFF, ...), or those around the tetrahedra of a mesh file.

    Points at the same place, which STL has one of a triangle, are made one. Polygons are cut into fans of
    triangles. Triangles with a corner twice are dropped.

    Returns:
        `(n, 3)` float64 points in the unit of length of the file, and `(m, 3)` int64 triangles.

    Raises:
        InputError: the file is missing, of no known format or damaged, or holds no triangles in space.
    """
    content = load(path)
    blocks = {"triangle": [], "quad": [], "polygon": [], "tetra": []}  # type: dict[str, list[Tensor]]
    other = set()
    for block in content.cells:
        if len(block.data) and block.type in blocks:
            blocks[block.type].append(torch.tensor(numpy.asarray(block.data, dtype=numpy.int64)))
        elif len(block.data) and block.type not in ("vertex", "line"):
            other.add(block.type)
    if other:
        raise InputError(
            f"{path}: a surface is made of triangles and other polygons, or lies around tetrahedra; this file holds "
            f"{', '.join(sorted(other))} as well: cut them up or leave them out"
        )
    if not any(blocks.values()):
        kinds = ", ".join(sorted({block.type for block in content.cells if len(block.data)})) or "no cells"
        raise InputError(f"{path}: a surface is made of triangles; this file holds {kinds}")
    points = torch.tensor(_points(content, path))
    if points.shape[1] != 3:
        raise InputError(f"{path}: the points of a surface have 3 coordinates, here they have {points.shape[1]}")
    named = torch.cat([rows.reshape(-1) for rows in itertools.chain(*blocks.values())])
    if int(named.min()) < 0 or int(named.max()) >= len(points):
        raise InputError(f"{path}: its cells name points that do not exist; there are {len(points)}")
    if blocks["tetra"]:
        try:
            tetrahedra = oriented(points, torch.cat(blocks["tetra"]))
            triangles = exterior_facets(tetrahedra, len(points))[0]
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    else:
        # Of a plane polygon that is not convex some triangles of the fan are turned, and cancel what is too much.
        faces = [*blocks["quad"], *blocks["polygon"]]
        fans = [rows[:, [0, k, k + 1]] for rows in faces for k in range(1, rows.shape[1] - 1)]
        triangles = torch.cat([*blocks["triangle"], *fans])
    used, triangles = triangles.unique(return_inverse=True)
    # Adding 0 makes -0 and 0 the same.
    _, first, numbers = numpy.unique(points[used].numpy() + 0.0, axis=0, return_index=True, return_inverse=True)
    triangles = torch.from_numpy(numbers.reshape(-1))[triangles]
    a, b, c = triangles.unbind(1)
    triangles = triangles[(a != b) & (b != c) & (a != c)]
    return points[used][torch.from_numpy(first)], triangles


def write_fields(path: str | os.PathLike[str], mesh: Mesh, fields: Mapping[str, Tensor]) -> None:
    """Write a mesh with its names, and fields on it; all or nothing.

    In .msh (Gmsh 2.2, binary) names become physical groups. The other formats get them as data of cells in the way of
    scikit-fem, which it and `Mesh.read` understand: `skfem:b:NAME` (bit i is set where facet i of the cell belongs to
    the boundary), `skfem:s:NAME` (1 in the cells of the region). Points get a third coordinate 0 where there are two.

    Args:
        path: ends in .msh, .vtk, .vtu or .xdmf; ParaView reads the last three.
        mesh: what to write.
        fields: name -> values at the points, `(n,)` or `(n, k)`, or in the cells, `(m,)` or `(m, k)`; masks become 0
            and 1, and vectors of two components get a third, 0.

    Raises:
        InputError: the path cannot become a file, a field has another shape, or a name cannot be kept in the format.
        OSError: the disk is full or not writable; what stood there before is unharmed.
    """
    import meshio

    final = target(path, WRITTEN)
    points = mesh.points.detach().cpu().to(torch.float64)
    points = torch.cat((points, points.new_zeros(len(points), 3 - mesh.dimension)), 1)
    at_points, in_cells = _split_fields(mesh, fields)
    for name in (*mesh.boundaries, *mesh.regions, *at_points, *in_cells):
        if any(sign in _NOT_IN_NAMES or not sign.isprintable() for sign in name) or name != name.strip():
            raise InputError(
                f"the name {name!r} cannot be kept in a file: {' '.join(_NOT_IN_NAMES)}, signs that do not print, and "
                "spaces at the ends are not allowed"
            )
    kind = "triangle" if mesh.dimension == 2 else "tetra"
    if final.suffix.lower() == ".msh":
        cells, tags, names = _physical_groups(mesh, kind)
        if in_cells:
            raise InputError(f"{path}: .msh files get no fields in cells ({', '.join(in_cells)}); write .vtu")
        for name, values in at_points.items():
            if values.ndim == 2 and values.shape[1] not in (1, 3, 9):
                raise InputError(
                    f"the field {name!r} has {values.shape[1]} components; .msh files hold 1, 3 or 9: write .vtu"
                )
        data = {"gmsh:physical": tags, "gmsh:geometrical": tags}
        content = meshio.Mesh(points.numpy(), cells, point_data=at_points, cell_data=data, field_data=names)
        options: dict[str, Any] = {"file_format": "gmsh22"}
    else:
        rows = mesh.cells.cpu().numpy()
        data = {name: [values] for name, values in {**in_cells, **_bits(mesh)}.items()}
        spaced = [name for name in (*at_points, *data) if final.suffix.lower() == ".vtk" and len(name.split()) != 1]
        if spaced:
            raise InputError(f"{path}: names in .vtk files have no spaces, {spaced[0]!r} has; write .vtu")
        content = meshio.Mesh(points.numpy(), [(kind, rows)], point_data=at_points, cell_data=data)
        options = {"data_format": "XML"} if final.suffix.lower() == ".xdmf" else {}
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / f"mesh{final.suffix.lower()}"
        content.write(draft, **options)
        write_whole(final, draft.read_bytes())


def attach(mesh: Mesh, rows: Mapping[str, Tensor], path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Which facets of a mesh the named rows of points are; warns of those that are not on its surface."""
    found = {}
    for name, facets in rows.items():
        places = find_rows(facets, mesh.facets, len(mesh.points))
        lost = int((places < 0).sum())
        if lost:
            warnings.warn(
                f"{os.fspath(path)}: {lost} of the {len(facets)} facets of the group {name!r} are not on the surface "
                "of the mesh but inside or beside it, and are left out",
                stacklevel=3,
            )
        if (lost < len(facets) or not len(facets)) and not (
            name == "exterior" and len(places.unique()) == len(mesh.facets)
        ):
            found[name] = places[places >= 0]
    return found


def warn_of_cracks(mesh: Mesh, path: str | os.PathLike[str]) -> None:
    """Warn of exterior facets at the same place, whose cells are not joined because each has points of its own."""
    corners, facets = mesh.facets.unique(return_inverse=True)
    distinct, places = numpy.unique(mesh.points[corners].numpy() + 0.0, axis=0, return_inverse=True)
    if len(distinct) == len(corners):
        return
    rows = torch.from_numpy(places.reshape(-1))[facets].sort(1).values
    doubled = int((rows.unique(dim=0, return_counts=True)[1] > 1).sum())
    if doubled:
        pairs = "1 pair of facets lies" if doubled == 1 else f"{doubled} pairs of facets lie"
        warnings.warn(
            f"{os.fspath(path)}: {pairs} upon each other: the cells on both sides "
            "have points of their own there, so that nothing passes between them. If this crack is not meant, merge "
            "the points: places, numbers = mesh.points.unique(dim=0, return_inverse=True); "
            "Mesh(places, numbers[mesh.cells])",
            stacklevel=3,
        )


def _points(content: meshio.Mesh, path: Any) -> numpy.ndarray[Any, Any]:
    points = numpy.asarray(content.points, dtype=numpy.float64)
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise InputError(f"{path}: points have 2 or 3 coordinates, here they are of shape {points.shape}")
    bad = (~numpy.isfinite(points)).any(1).sum()
    if bad:
        raise InputError(f"{path}: {bad} of {len(points)} points have coordinates that are NaN or infinite")
    return points


def _check_kinds(kinds: set[str], path: Any) -> None:
    other = sorted(kinds - DIMENSIONS.keys())
    curved = [kind for kind in other if kind.rstrip("0123456789") in DIMENSIONS]
    if curved:
        raise InputError(
            f"{path}: holds cells of higher order ({', '.join(curved)}); straight triangles and tetrahedra are "
            "supported: save the mesh with order 1 (Gmsh: Mesh.ElementOrder = 1)"
        )
    if other:
        raise InputError(
            f"{path}: holds {', '.join(other)}; only triangles and tetrahedra are supported: cut the others up (Gmsh: "
            "without Recombine; meshes of boxes: Mesh.box)"
        )
    if not kinds & {"triangle", "tetra"}:
        raise InputError(
            f"{path}: holds {', '.join(sorted(kinds)) or 'no cells'}, and neither triangles nor tetrahedra"
        )


def _columns(points: numpy.ndarray[Any, Any], d: int, path: Any) -> list[int]:
    """Which coordinates are those of the mesh: in the plane those that are not constant."""
    width = points.shape[1]
    if width == d:
        return list(range(d))
    if width < d:
        raise InputError(f"{path}: holds tetrahedra whose points have {width} coordinates")
    extents = points.max(0) - points.min(0)
    flat = int(extents.argmin())
    if not extents[flat] <= 1e-12 * extents.max():
        raise InputError(
            f"{path}: holds a surface of triangles in space, which encloses a domain but does not fill it: mark the "
            "cells of a grid inside it by grid.voxelize(path), or fill it with tetrahedra (Gmsh). A plane mesh lies in "
            "a plane of constant x, y or z; turn it there"
        )
    return [axis for axis in range(3) if axis != flat]


def _add_tagged(parts: Parts, content: Any, blocks: list[tuple[str, Any]], d: int) -> None:
    """Groups given by tags or as sets, of whole blocks of cells."""
    starts = numpy.cumsum([0, *(len(rows) if DIMENSIONS[kind] == d else 0 for kind, rows in blocks)])
    names = {
        (int(value[1]), int(value[0])): name for name, value in content.field_data.items() if numpy.shape(value) == (2,)
    }
    key = next((key for key in _TAGS if key in content.cell_data), None)
    tags = content.cell_data[key] if key else [numpy.zeros(len(rows), dtype=int) for _, rows in blocks]
    found: dict[tuple[int, str], list[Tensor]] = {}
    for index, (kind, rows) in enumerate(blocks):
        dimension = DIMENSIONS[kind]
        if dimension not in (d, d - 1) or not len(rows):
            continue
        members = rows if dimension < d else starts[index] + numpy.arange(len(rows))
        values = numpy.asarray(tags[index]).reshape(len(rows)).astype(numpy.int64)
        chosen = {names.get((dimension, tag), str(tag)): values == tag for tag in numpy.unique(values).tolist() if tag}
        for name, sets in content.cell_sets.items():
            if not name.startswith("gmsh:") and sets[index] is not None and len(sets[index]):
                mask = chosen.setdefault(name, numpy.zeros(len(rows), dtype=bool))
                mask[numpy.asarray(sets[index], dtype=numpy.int64)] = True
        for name, mask in chosen.items():
            found.setdefault((dimension, name), []).append(torch.tensor(members[mask]))
    for (dimension, name), pieces in found.items():
        (parts.regions if dimension == d else parts.boundaries)[name] = torch.cat(pieces)
    inner = [numpy.asarray(t).reshape(-1) for (kind, _), t in zip(blocks, tags, strict=True) if DIMENSIONS[kind] == d]
    _merge_doubles(parts, torch.tensor(numpy.concatenate(inner).astype(numpy.int64)))


def _merge_doubles(parts: Parts, tags: Tensor) -> None:
    """Make one of cells that stand in the file once for each of their groups, which is how Gmsh 2 says it."""
    keys = row_keys(parts.cells.sort(1).values, len(parts.points))
    distinct, inverse = keys.unique(return_inverse=True)
    pairs = torch.stack((inverse, tags), 1)
    if len(distinct) == len(keys) or len(pairs.unique(dim=0)) < len(pairs):
        return
    first = torch.full_like(distinct, len(keys)).scatter_reduce(0, inverse, torch.arange(len(keys)), "amin")
    kept, order = first.sort()
    numbers = order.argsort()[inverse]
    parts.cells = parts.cells[kept]
    parts.regions = {name: numbers[cells].unique() for name, cells in parts.regions.items()}


def _add_bits(parts: Parts, content: Any, d: int) -> None:
    """Groups in the way of scikit-fem."""
    for key, values in content.cell_data.items():
        if key.startswith((_BOUNDARY, _REGION)):
            kinds = [block.type for block in content.cells]
            data = [numpy.asarray(v).reshape(-1) for v, k in zip(values, kinds, strict=True) if DIMENSIONS[k] == d]
            bits = torch.tensor(numpy.concatenate(data).astype(numpy.int64))
            if len(bits) != len(parts.cells):
                continue
            if key.startswith(_REGION):
                parts.regions[key.removeprefix(_REGION)] = bits.nonzero().flatten()
                continue
            rows = [parts.cells[(bits >> i) & 1 == 1][:, facet] for i, facet in enumerate(map(list, _BIT_FACETS[d]))]
            parts.boundaries[key.removeprefix(_BOUNDARY)] = torch.cat(rows)


def _bits(mesh: Mesh) -> dict[str, Any]:
    owned = mesh.cells[mesh.facet_cells]
    result = {}
    for name, part in mesh.boundaries.items():
        if name == "exterior":
            continue
        opposite = (owned[part][:, :, None] != mesh.facets[part][:, None, :]).all(2).long().argmax(1)
        # Bit i of the facet that lacks vertex v, in scikit-fem's order.
        bit = torch.tensor([1, 2, 0] if mesh.dimension == 2 else [3, 2, 1, 0], device=mesh.device)[opposite]
        values = torch.zeros(len(mesh.cells), dtype=torch.int64, device=mesh.device)
        result[_BOUNDARY + name] = values.index_add(0, mesh.facet_cells[part], 1 << bit).cpu().numpy()
    for name, part in mesh.regions.items():
        values = torch.zeros(len(mesh.cells), dtype=torch.int64, device=mesh.device)
        values[part] = 1
        result[_REGION + name] = values.cpu().numpy()
    return result


def _physical_groups(mesh: Mesh, kind: str) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """Blocks of cells, their tags, and the names of these, as Gmsh 2 has them: one element for each of its groups.

    The cells come first and in their order, each with the first of its groups, so that reading keeps their numbers.
    """
    cells, tags, names = [], [], {}
    groups = [(mesh.dimension, kind, mesh.cells, name, part) for name, part in mesh.regions.items()]
    sides = {name: part for name, part in mesh.boundaries.items() if name != "exterior"}
    groups += [(mesh.dimension - 1, _FACET_OF[kind], mesh.facets, name, part) for name, part in sides.items()]
    main = torch.zeros(len(mesh.cells), dtype=torch.int64, device=mesh.device)
    for tag, (dimension, element, rows, name, part) in enumerate(groups, 1):
        if name in names:
            raise InputError(
                f"the name {name!r} of both a region and a boundary cannot be kept in a .msh file; write .vtu instead"
            )
        names[name] = numpy.array([tag, dimension])
        if dimension == mesh.dimension:
            free = main[part] == 0
            main[part[free]] = tag
            part = part[~free]
        cells.append((element, rows[part].cpu().numpy()))
        tags.append(numpy.full(len(part), tag))
    filled = [index for index, values in enumerate(tags) if len(values)]
    return (
        [(kind, mesh.cells.cpu().numpy()), *(cells[index] for index in filled)],
        [main.cpu().numpy(), *(tags[index] for index in filled)],
        names,
    )


def _split_fields(mesh: Mesh, fields: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    at_points: dict[str, Any] = {}
    in_cells: dict[str, Any] = {}
    if not isinstance(fields, Mapping):
        raise InputError(f"fields is a dict, name -> values, got {type(fields).__name__}")
    for name, field_values in fields.items():
        values = tensor_of(field_values, f"the field {name!r}").detach().cpu()
        if values.is_complex():
            raise InputError(f"the field {name!r} is of {values.dtype}; real numbers can be written")
        values = values.to(torch.int64) if values.dtype == torch.bool else values
        if values.ndim not in (1, 2) or values.shape[0] not in (len(mesh.points), len(mesh.cells)):
            raise InputError(
                f"the field {name!r} has shape {tuple(values.shape)}; expected ({len(mesh.points)},) at the points or "
                f"({len(mesh.cells)},) in the cells of the mesh, of vectors with their components last"
            )
        if values.ndim == 2 and values.shape[1] == 2:  # of plane vectors some formats want the third component
            values = torch.cat((values, torch.zeros_like(values[:, :1])), 1)
        (at_points if values.shape[0] == len(mesh.points) else in_cells)[name] = values.numpy()
    return at_points, in_cells
