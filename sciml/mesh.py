"""Triangle and tetrahedron meshes with named boundaries and regions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, TypeVar

import torch
from torch import Tensor

from .boundary import AXES
from .differentiation import outside_transforms
from .errors import InputError
from .mesh_input import check_dtype, check_share, read_cells, read_device, read_groups, read_points, select
from .mesh_quality import MeshQuality, measure
from .mesh_refinement import refine
from .mesh_shapes import box, delaunay, sides
from .mesh_simplices import (
    check_distinct,
    check_points,
    counted,
    exterior_facets,
    facet_vectors,
    find_rows,
    oriented,
    signed_volumes,
)

EXTERIOR = "exterior"
Made = TypeVar("Made")
Selection = Callable[..., Tensor] | Tensor | Sequence[int]


@dataclass(frozen=True, eq=False, repr=False)
class Mesh:
    """A mesh of triangles in the plane or of tetrahedra in space, with names for parts of its surface and its inside.

    All lengths are in the unit of length of the problem. Geometry (volumes, normals, centres) is computed when asked
    for, so that gradients reach `points`.

    Args:
        points: `(n, d)` coordinates, d = 2 or 3, float64 or float32; each belongs to some cell.
        cells: `(m, d + 1)` indices of points. Cells whose vertices run the wrong way are turned, so that afterwards
            every volume is positive.
        boundaries: name -> indices into `facets`. Parts may overlap; `exterior`, all facets, is always there.
        regions: name -> indices into `cells`. Parts may overlap, and need not cover the mesh.

    Attributes:
        facets: `(f, d)` int64, the exterior facets (edges or triangles of one cell only) with the normal outward: the
            inside is to the left of an edge, and a triangle runs counter-clockwise seen from outside. Their order
            depends on the numbers of the points alone: lexicographic by sorted vertices.
        facet_cells: `(f,)` int64, the cell each facet belongs to.

    Raises:
        InputError: for anything that is not such a mesh: how many points, cells or facets are wrong, and which first.
    """

    points: Tensor
    cells: Tensor
    boundaries: Mapping[str, Tensor] = field(default_factory=dict)
    regions: Mapping[str, Tensor] = field(default_factory=dict)
    facets: Tensor = field(init=False)
    facet_cells: Tensor = field(init=False)

    def __post_init__(self) -> None:
        points = read_points(self.points, "Mesh")
        cells = read_cells(self.cells, points)
        check_points(points, cells)
        cells = oriented(points.detach(), cells)
        check_distinct(cells, len(points))
        facets, owners = exterior_facets(cells, len(points))
        put = object.__setattr__
        put(self, "points", points)
        put(self, "cells", cells)
        put(self, "facets", facets)
        put(self, "facet_cells", owners)
        named = read_groups(self.boundaries, len(facets), "boundaries", points.device)
        everything = torch.arange(len(facets), device=points.device)
        if not torch.equal(named.get(EXTERIOR, everything), everything):
            raise InputError(
                f"Mesh: the boundary {EXTERIOR!r} is all {len(facets)} facets; give another name to a part"
            )
        put(self, "boundaries", {**named, EXTERIOR: everything})
        put(self, "regions", read_groups(self.regions, len(cells), "regions", points.device))

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Mesh:
        """A mesh from a file of any format that meshio reads: Gmsh 2 and 4, VTK, VTU, XDMF, MED, Abaqus, ...

        Physical groups and sets of facets become boundaries, those of cells regions; a group without a name is called
        by its number. Names written by scikit-fem are read. Points that no cell uses are dropped, and of a plane mesh
        in space the constant coordinate. Facets of groups that do not lie on the surface are left out with a warning;
        so is said where cells lie side by side and have no points in common.

        Raises:
            InputError: the file is missing, of no known format, damaged, or does not hold triangles in a plane or
                tetrahedra: surfaces in space are for `Grid.voxelize`; cells of higher order, quadrilaterals and
                hexahedra are not supported.
        """
        from .mesh_files import attach, read_parts, warn_of_cracks  # brings meshio's part of the work

        parts = read_parts(path)
        try:
            mesh = cls(parts.points, parts.cells, regions=parts.regions)
        except InputError as error:
            raise InputError(f"{os.fspath(path)}: {error}") from error
        warn_of_cracks(mesh, path)
        return mesh.with_boundaries(attach(mesh, parts.boundaries, path)).to(device)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the mesh with its names to a .msh (Gmsh), .vtk, .vtu or .xdmf file, as `sciml.mesh_files.write_fields`.

        Raises:
            InputError: the path cannot become a file, or a name cannot be kept in the format.
            OSError: the disk is full or not writable; what stood there before is unharmed.
        """
        from .mesh_files import write_fields

        write_fields(path, self, {})

    @classmethod
    def box(
        cls,
        shape: Sequence[int],
        lower: float | Sequence[float] = 0.0,
        upper: float | Sequence[float] = 1.0,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> Mesh:
        """A rectangle or box of equal small boxes, each cut into 2 triangles or 6 tetrahedra along the same diagonal.

        Its sides are the boundaries `x_lower`, `x_upper`, `y_lower`, ... Points are in the order of `torch.meshgrid`
        with `indexing="ij"`, so that values at the points can be seen as `values.reshape([n + 1 for n in shape])`.

        Args:
            shape: number of small boxes along each of two or three axes.
            lower: lower corner, one number an axis or one for all.
            upper: upper corner, as `lower`.
            device: where the mesh lives.
            dtype: torch.float64 or torch.float32.
        """
        check_dtype(dtype, "Mesh.box")
        mesh = cls(*box(shape, lower, upper, dtype))
        return mesh.with_boundaries(sides(shape, mesh.facets)).to(device)

    @classmethod
    def delaunay(
        cls, points: Any, *, inside: Callable[..., Tensor] | None = None, smallest_radius_ratio: float = 1e-4
    ) -> Mesh:
        """The Delaunay mesh of points, without slivers along its hull.

        Args:
            points: `(n, d)`. Points that end up in no cell (doubles) are dropped, so numbers can change.
            inside: predicate on the centres of cells, called with one tensor an axis; where it is false cells are taken
                out, which makes holes and notches: `lambda x, y: x**2 + y**2 > 0.25`.
            smallest_radius_ratio: cells on the hull below it (see `quality`) are taken off, as points on a straight
                side that are not quite on one line leave them.

        Raises:
            InputError: the points span no mesh, or flat cells remain inside.
        """
        check_share(smallest_radius_ratio, "Mesh.delaunay: smallest_radius_ratio")
        return cls(*delaunay(points, inside, smallest_radius_ratio))

    @property
    def dimension(self) -> int:
        """2 for triangles, 3 for tetrahedra."""
        return self.points.shape[1]

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes."""
        return AXES[: self.dimension]

    @property
    def device(self) -> torch.device:
        """Where the tensors of the mesh live."""
        return self.points.device

    @property
    def dtype(self) -> torch.dtype:
        """torch.float64 or torch.float32."""
        return self.points.dtype

    @property
    def coordinates(self) -> tuple[Tensor, ...]:
        """The points: one tensor `(n,)` an axis."""
        return self.points.unbind(1)

    @property
    def volumes(self) -> Tensor:
        """`(m,)` area of each triangle, or volume of each tetrahedron."""
        return signed_volumes(self.points, self.cells)

    @property
    def volume(self) -> Tensor:
        """Area or volume of the whole mesh, a tensor without axes."""
        return self.volumes.sum()

    @property
    def facet_areas(self) -> Tensor:
        """`(f,)` length of each exterior edge, or area of each exterior triangle."""
        return facet_vectors(self.points, self.facets).norm(dim=1)

    @property
    def facet_normals(self) -> Tensor:
        """`(f, d)` outward unit normals."""
        vectors = facet_vectors(self.points, self.facets)
        return vectors / vectors.square().sum(1, keepdim=True).sqrt()

    @property
    def facet_centres(self) -> Tensor:
        """`(f, d)` mean of the vertices of each exterior facet."""
        return self.points[self.facets].mean(1)

    @property
    def cell_centres(self) -> Tensor:
        """`(m, d)` mean of the vertices of each cell."""
        return self.points[self.cells].mean(1)

    def boundary(self, name: str) -> Tensor:
        """Indices into `facets` of a named part of the surface.

        Raises:
            InputError: there is no such part; lists those there are.
        """
        return _named(self.boundaries, name, "boundary", "with_boundaries")

    def region(self, name: str) -> Tensor:
        """Indices into `cells` of a named part of the inside.

        Raises:
            InputError: there is no such part; lists those there are.
        """
        return _named(self.regions, name, "region", "with_regions")

    def boundary_points(self, name: str = EXTERIOR) -> Tensor:
        """Indices, ascending, of the points on a named part of the surface."""
        return self.facets[self.boundary(name)].unique()

    def with_boundaries(self, boundaries: Mapping[str, Selection]) -> Mesh:
        """The same mesh with more named parts of its surface.

        A facet may belong to several parts; who gives conditions to parts that overlap has to say which one holds. A
        name that the mesh has already is given its new meaning.

        Args:
            boundaries: name -> predicate, called with one tensor of coordinates an axis, and true at every vertex and
                the centre of the facets wanted: `{"inlet": lambda x, y: x < 1e-6}`. Or a bool tensor `(f,)`, or
                indices into `facets`.

        Raises:
            InputError: a predicate selects nothing (says where the surface reaches), or does not return a bool tensor.
        """
        corners = self.points.detach()[self.facets]
        places = torch.cat((corners, corners.mean(1, keepdim=True)), 1)
        chosen = select(boundaries, places, "boundaries")
        if EXTERIOR in chosen:
            raise InputError(f"Mesh: the boundary {EXTERIOR!r} is always all facets; give another name to a part")
        read = read_groups(chosen, len(self.facets), "boundaries", self.device)
        return self._changed(boundaries={**self.boundaries, **read})

    def with_regions(self, regions: Mapping[str, Selection]) -> Mesh:
        """The same mesh with more named parts of its inside: as `with_boundaries`, by the centre of the cells."""
        places = self.cell_centres.detach()[:, None]
        chosen = select(regions, places, "regions")
        read = read_groups(chosen, len(self.cells), "regions", self.device)
        return self._changed(regions={**self.regions, **read})

    def refine(self, times: int = 1) -> Mesh:
        """Each triangle cut into 4, each tetrahedron into 8, as often as asked; names are kept.

        The points of this mesh keep their numbers, those in the middles of edges follow. The children of cell c are
        4c to 4c + 3 or 8c to 8c + 7. Curved surfaces stay the polygons or polyhedra that this mesh makes of them.
        """
        if isinstance(times, bool) or not isinstance(times, Integral) or times < 0:
            raise InputError(f"Mesh.refine: times is a whole number from 0 on, got {times!r}")
        mesh = self
        for _ in range(times):
            facets = {name: mesh.facets[part] for name, part in mesh.boundaries.items() if name != EXTERIOR}
            points, cells, parts = refine(mesh.points, mesh.cells, facets)
            count = 2**self.dimension
            children = torch.arange(count, device=self.device)
            regions = {name: (count * part[:, None] + children).flatten() for name, part in mesh.regions.items()}
            mesh = Mesh(points, cells, regions=regions)._with_facets(parts)
        return mesh

    def quality(self) -> MeshQuality:
        """Extremes of angles, radius ratios, edges and volumes; `print(mesh.quality())` is a report."""
        return measure(self.points, self.cells)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Mesh:
        """The same mesh on another device or with points of another dtype; in float32 thin cells can be refused."""
        device = self.device if device is None else read_device(device)
        moved = {name: _moved(getattr(self, name), device) for name in _PARTS}
        if dtype is None or dtype == self.dtype:
            return self._changed(**moved)
        check_dtype(dtype, "Mesh.to")
        return Mesh(moved["points"].to(dtype), moved["cells"], moved["boundaries"], moved["regions"])

    def remember(self, make: Callable[[Mesh], Made]) -> Made:
        """`make(mesh)`, computed once and kept as long as the mesh, or one with other names; not in copies and pickles.

        Args:
            make: a function of the points, cells and facets alone.
        """
        kept = vars(self).setdefault(_KEPT, {})
        if make not in kept:
            with torch.inference_mode(False), outside_transforms():  # or it could not be used elsewhere later
                kept[make] = make(self)
        return kept[make]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != _KEPT}

    def __repr__(self) -> str:
        cells = f"{len(self.points)} points, {counted(len(self.cells), self.dimension)}"
        parts = [f"boundaries {_sizes(self.boundaries)}"]
        parts += [f"regions {_sizes(self.regions)}"] if self.regions else []
        place = "" if self.device.type == "cpu" else f", device={str(self.device)!r}"
        return f"Mesh({cells}; {'; '.join(parts)}{place})"

    def _with_facets(self, parts: Mapping[str, Tensor]) -> Mesh:
        """The same mesh with parts of its surface given by the vertices of their facets, `(k, d)`."""
        found = {name: find_rows(rows, self.facets, len(self.points)) for name, rows in parts.items()}
        read = read_groups(found, len(self.facets), "boundaries", self.device)
        return self._changed(boundaries={**read, EXTERIOR: self.boundaries[EXTERIOR]})

    def _changed(self, **parts: Any) -> Mesh:
        """A copy with parts that are known to fit, without checking the mesh again."""
        copy = object.__new__(Mesh)
        for name in _PARTS:
            object.__setattr__(copy, name, parts.get(name, getattr(self, name)))
        if not parts.keys() - {"boundaries", "regions"}:
            vars(copy)[_KEPT] = vars(self).setdefault(_KEPT, {})
        return copy


_KEPT = "_kept"
_PARTS = ("points", "cells", "boundaries", "regions", "facets", "facet_cells")


def _named(groups: Mapping[str, Tensor], name: str, kind: str, method: str) -> Tensor:
    if not isinstance(name, str) or name not in groups:
        known = ", ".join(sorted(groups)) or "none at all"
        raise InputError(f"this mesh has no {kind} {name!r}, but {known}; Mesh.{method} names more")
    return groups[name]


def _moved(item: Any, device: torch.device) -> Any:
    if isinstance(item, Mapping):
        return {name: tensor.to(device) for name, tensor in item.items()}
    return item.to(device)


def _sizes(groups: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} ({len(indices)})" for name, indices in groups.items())
