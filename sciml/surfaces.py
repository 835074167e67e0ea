"""Surfaces of triangles in space: reading them, whether they are closed, and the volume they enclose."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import nan
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .mesh import Mesh


@dataclass(frozen=True)
class SurfaceCheck:
    """What `surface_check` finds. Points at the same place count as one point.

    Args:
        triangles: number of triangles, the degenerate ones left out.
        degenerate: number of triangles two of whose corners coincide; they bound nothing.
        edges: number of edges.
        open_edges: edges of a single triangle: the rims of holes, and gaps where points should coincide and do not.
        flipped_edges: edges of two triangles that run along them in the same direction, one of them seen from behind.
        non_manifold_edges: edges of three triangles or more.
        even: whether every edge has an even number of triangles. Then a line in general position crosses the surface an
            even number of times, and "inside" means something whatever the triangles' directions.
        closed: whether along every edge as many triangles run one way as the other (this implies `even`). Two boxes
            that touch along an edge are closed, though that edge is not manifold.
        repeated: triangles that have the corners of another one and its direction. Where they are not removed, a
            surface closed twice over contains nothing.
        volume: enclosed volume, in the cube of the points' unit of length; negative where the surface is inside out,
            nan where it is not closed.
    """

    triangles: int
    degenerate: int
    edges: int
    open_edges: int
    flipped_edges: int
    non_manifold_edges: int
    even: bool
    closed: bool
    volume: float
    repeated: int = 0


def surface_check(points: Any, triangles: Any) -> SurfaceCheck:
    """Whether a surface is closed and its triangles agree on what is outside.

    Args:
        points: `(n, 3)`, a tensor or anything that becomes one, in a unit of length.
        triangles: `(m, 3)` integers, the points at the corners, anticlockwise as seen from outside.

    Raises:
        InputError: for shapes, numbers or indices that make no surface.
    """
    places, corners = read_surface_pair((points, triangles), "surface_check")
    with torch.no_grad():
        return examine(places, corners, *merge_points(places, corners))


def surface_volume(points: Any, triangles: Any) -> Tensor:
    """The volume inside a closed surface, by the divergence theorem; differentiable with respect to the points.

    The volume is the sum of det(a, b, c)/6 over the triangles, of corners a, b, c. Of a surface that is not closed
    (`surface_check` tells) the sum depends on the origin, here the first point, and means nothing.

    Args:
        points: `(n, 3)`, a tensor or anything that becomes one, in a unit of length.
        triangles: `(m, 3)` integers, the points at the corners, anticlockwise as seen from outside.

    Returns:
        A tensor of shape `()` in the cube of the unit of length, negative where the surface is inside out.

    Raises:
        InputError: for shapes, numbers or indices that make no surface.
    """
    places, corners = read_surface_pair((points, triangles), "surface_volume")
    return _volume(places, corners)


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges of a surface, each by the numbers of its ends, `first < second`; all of shape `(edges,)`."""

    first: Tensor
    second: Tensor
    count: Tensor  # triangles at the edge
    net: Tensor  # those that run from first to second, less those that run back


def read_surface_pair(surface: Any, where: str) -> tuple[Tensor, Tensor]:
    """Points `(n, 3)` in float64 and triangles `(m, 3)` in int64 on the points' device.

    Raises:
        InputError: for shapes, numbers or indices that make no surface; `where` begins the message.
    """
    if not isinstance(surface, tuple | list) or len(surface) != 2:
        raise InputError(
            f"{where}: a surface is the path of a file, a mesh of tetrahedra or a pair (points, triangles), "
            f"got {type(surface).__name__}"
        )
    try:
        points, triangles = (torch.as_tensor(part) for part in surface)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{where}: points and triangles are arrays of numbers: {error}") from error
    if points.ndim != 2 or points.shape[1] != 3 or points.is_complex() or points.dtype == torch.bool:
        raise InputError(f"{where}: points are numbers of shape (n, 3), got {points.dtype} {tuple(points.shape)}")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.dtype == torch.bool:
        raise InputError(f"{where}: triangles are integers of shape (m, 3), got shape {tuple(triangles.shape)}")
    if triangles.is_floating_point() or triangles.is_complex():
        raise InputError(f"{where}: triangles are numbers of points, integers, got {triangles.dtype}")
    if not len(triangles):
        raise InputError(f"{where}: the surface has no triangles")
    triangles = triangles.to(points.device, torch.int64)
    low, high = (int(bound) for bound in triangles.aminmax())
    if low < 0 or high >= len(points):
        wrong = low if low < 0 else high
        raise InputError(f"{where}: a triangle names point {wrong}; there are {len(points)}, counted from 0")
    points = points.to(torch.float64)
    bad = ~torch.isfinite(points).all(-1)
    if bool(bad[triangles].any()):
        raise InputError(f"{where}: the coordinates of {int(bad.sum())} points are NaN or infinite")
    return points, triangles


def read_surface_of(surface: str | os.PathLike[str] | tuple[Any, Any] | Mesh, where: str) -> tuple[Tensor, Tensor]:
    """`read_surface_pair`, of a file if a path is given, or around the tetrahedra of a mesh."""
    if isinstance(surface, Mesh):
        if surface.dimension != 3:
            raise InputError(f"{where}: a mesh of triangles in the plane has no surface in space")
        return read_surface_pair((surface.points.detach(), surface.facets), where)
    if not isinstance(surface, str | os.PathLike):
        return read_surface_pair(surface, where)
    from .mesh_files import read_surface  # brings meshio

    return read_surface_pair(read_surface(surface), f"{where}: {os.fspath(surface)}")


def merge_points(points: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """Points in lexicographic order, those at the same place merged, and the triangles that are not degenerate.

    A smaller number then is a smaller x, or the same x and a smaller y, and so on, whichever surface a point is of.
    """
    places, inverse = _sorted_rows(points[triangles].reshape(-1, 3) + 0.0)  # which makes -0 into 0
    corners = inverse.reshape(-1, 3)
    a, b, c = corners.unbind(-1)
    return places, corners[(a != b) & (b != c) & (c != a)]


def _sorted_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """`torch.unique(rows, dim=0, return_inverse=True)`, four times as fast for millions of rows."""
    order = torch.arange(len(rows), device=rows.device)
    for column in rows.flip(1).unbind(1):
        order = order[column[order].argsort(stable=True)]
    ordered = rows[order]
    new = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    inverse = torch.empty_like(order)
    inverse[order] = new.cumsum(0) - 1
    return ordered[new], inverse


def edges_of(triangles: Tensor) -> Edges:
    """The edges of triangles of merged points, `(m, 3)`."""
    start, stop = triangles.reshape(-1), triangles.roll(-1, dims=1).reshape(-1)
    first, second = torch.minimum(start, stop), torch.maximum(start, stop)
    size = int(second.max()) + 1 if len(second) else 1
    keys, inverse, count = torch.unique(first * size + second, return_inverse=True, return_counts=True)
    net = torch.zeros_like(keys).index_add_(0, inverse, torch.sign(stop - start))
    return Edges(keys // size, keys % size, count, net)


def examine(points: Tensor, triangles: Tensor, merged: Tensor, corners: Tensor) -> SurfaceCheck:
    """`surface_check` of a surface that was read and whose points were merged."""
    edges = edges_of(corners)
    closed = not bool(edges.net.any())
    return SurfaceCheck(
        triangles=len(corners),
        degenerate=len(triangles) - len(corners),
        edges=len(edges.count),
        open_edges=int((edges.count == 1).sum()),
        flipped_edges=int(((edges.count == 2) & (edges.net != 0)).sum()),
        non_manifold_edges=int((edges.count > 2).sum()),
        even=not bool((edges.count % 2).any()),
        closed=closed,
        volume=float(_volume(merged, corners)) if closed else nan,
        repeated=_count_repeated(corners) if bool((edges.count > 2).any()) else 0,
    )


def _count_repeated(corners: Tensor) -> int:
    """How many triangles are there again, from whichever corner they are begun."""
    first = corners.argmin(1, keepdim=True)
    turn = (first + torch.arange(3, device=corners.device)) % 3
    return len(corners) - len(corners.gather(1, turn).unique(dim=0))


def _volume(points: Tensor, triangles: Tensor) -> Tensor:
    # Seen from a point of the surface, a small surface far from the origin loses no digits.
    corners = points[triangles]
    a, b, c = (corners - corners[:1, :1].detach()).unbind(1)
    return torch.linalg.vecdot(a, torch.linalg.cross(b, c)).sum() / 6
