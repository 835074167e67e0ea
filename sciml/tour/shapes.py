"""Shapes that the tour makes for itself: a part in the plane, and a closed surface in space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy
import torch
from torch import Tensor

from ..mesh import Mesh

# The link: centre along x and radius of its two ends and of its two bores, and the radius of the bush; metres.
ENDS = ((0.0, 0.030), (0.090, 0.018))
SHAFT, PIN = (0.0, 0.016), (0.090, 0.008)
BUSH = 0.021


def make_link(size: float) -> Mesh:
    """A flat link with two bores and a bush around one of them, in triangles of about `size` metres.

    Boundaries "shaft", "pin" and "rim", regions "bush" and "steel".
    """
    rim = _belt(*ENDS[0], *ENDS[1], size)
    rings = [_ring(*SHAFT, size), _ring(SHAFT[0], BUSH, size), _ring(*PIN, size)]
    lines = torch.cat([rim, *rings])
    points = _hexagonal(rim.amin(0).tolist(), rim.amax(0).tolist(), size)
    points = points[(torch.cdist(points, lines).amin(1) > 0.75 * size) & _left_of(rim, points)]

    mesh = Mesh.delaunay(torch.cat([lines, points[_in_metal(*points.T)]]), inside=_in_metal)
    mesh = mesh.with_regions({"bush": lambda x, y: x.hypot(y) < BUSH, "steel": lambda x, y: x.hypot(y) > BUSH})
    return _with_boundaries(mesh, {})


def thicken(flat: Mesh, thickness: float, layers: int) -> Mesh:
    """The link as a body: each triangle becomes a column of prisms, each of them 3 tetrahedra.

    Regions are kept; the boundaries are "shaft", "pin", "faces" below and above, and "rim".
    """
    count = len(flat.points)
    heights = torch.linspace(0, thickness, layers + 1, dtype=flat.dtype).repeat_interleave(count)
    points = torch.cat([flat.points.repeat(layers + 1, 1), heights[:, None]], 1)
    # The diagonal of a wall runs from the lower point of smaller number up, from whichever side it is seen.
    a, b, c = flat.cells.sort(1).values.unbind(1)
    prism = [(a, b, c, c + count), (a, b, b + count, c + count), (a, a + count, b + count, c + count)]
    cells = torch.cat([torch.stack(corners, 1) + layer * count for layer in range(layers) for corners in prism])
    copies = len(flat.cells) * torch.arange(3 * layers)[:, None]
    regions = {name: (part + copies).flatten() for name, part in flat.regions.items()}
    faces = {"faces": lambda x, y, z: (z < 1e-9) | (z > thickness - 1e-9)}
    return _with_boundaries(Mesh(points, cells, regions=regions), faces)


def _in_metal(x: Tensor, y: Tensor) -> Tensor:
    return ~(_in_bore(SHAFT, x, y) | _in_bore(PIN, x, y))


def _in_bore(bore: tuple[float, float], x: Tensor, y: Tensor) -> Tensor:
    return (x - bore[0]).hypot(y) <= bore[1] * (1 + 1e-9)


def _with_boundaries(mesh: Mesh, more: Mapping[str, Callable[..., Tensor]]) -> Mesh:
    """The mesh with its bores, other parts, and as "rim" what is left."""
    bores = {"shaft": lambda x, y, *z: _in_bore(SHAFT, x, y), "pin": lambda x, y, *z: _in_bore(PIN, x, y)}
    named = mesh.with_boundaries({**bores, **more})
    rest = torch.ones(len(mesh.facets), dtype=torch.bool)
    rest[torch.cat([named.boundary(name) for name in (*bores, *more)])] = False
    return named.with_boundaries({"rim": rest})


def make_rope(along: int, around: int) -> tuple[Tensor, Tensor]:
    """A rope of three strands tied into a trefoil knot: a closed surface of 2 `along` `around` triangles.

    The knot lies across the x axis and reaches about 0.75 along it, and 1.8 across.

    Returns:
        points `(n, 3)` and triangles `(m, 3)`, anticlockwise as seen from outside.
    """
    t = 2 * math.pi * torch.arange(along, dtype=torch.float64)[:, None] / along
    angle = 2 * math.pi * torch.arange(around, dtype=torch.float64) / around
    reach = 1 + 0.5 * torch.cos(3 * t)
    slope = -1.5 * torch.sin(3 * t)
    line = torch.stack([0.5 * torch.sin(3 * t), reach * torch.cos(2 * t), reach * torch.sin(2 * t)], -1)
    ahead = torch.stack(
        [
            1.5 * torch.cos(3 * t),
            slope * torch.cos(2 * t) - 2 * reach * torch.sin(2 * t),
            slope * torch.sin(2 * t) + 2 * reach * torch.cos(2 * t),
        ],
        -1,
    )
    ahead = torch.nn.functional.normalize(ahead, dim=-1)
    # Away from the axis of the torus that the knot winds around, and square to the rope.
    away = torch.stack([torch.sin(3 * t), torch.cos(3 * t) * torch.cos(2 * t), torch.cos(3 * t) * torch.sin(2 * t)], -1)
    away = torch.nn.functional.normalize(away - (away * ahead).sum(-1, keepdim=True) * ahead, dim=-1)
    beside = torch.linalg.cross(ahead, away)
    radius = 0.27 * (1 + 0.12 * torch.cos(3 * angle + 12 * t)).unsqueeze(-1)
    points = line + radius * (angle.cos()[:, None] * away + angle.sin()[:, None] * beside)
    corner = torch.arange(along * around).reshape(along, around)
    further, turned = corner.roll(-1, 0), corner.roll(-1, 1)
    opposite = further.roll(-1, 1)
    halves = [torch.stack(half, -1) for half in ((corner, opposite, further), (corner, turned, opposite))]
    return points.reshape(-1, 3), torch.cat([half.reshape(-1, 3) for half in halves])


def _ring(centre: float, radius: float, size: float) -> Tensor:
    count = round(2 * math.pi * radius / size)
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    return torch.stack([centre + radius * angle.cos(), radius * angle.sin()], -1)


def _belt(first: float, large: float, second: float, small: float, size: float) -> Tensor:
    """Points at equal distances on a belt around two discs, anticlockwise."""
    lean = math.acos((large - small) / (second - first))
    arcs = []
    for centre, radius, start, stop in ((first, large, lean, 2 * math.pi - lean), (second, small, -lean, lean)):
        angle = torch.linspace(start, stop, 1001, dtype=torch.float64)
        arcs.append(torch.stack([centre + radius * angle.cos(), radius * angle.sin()], -1))
    line = torch.cat([*arcs, arcs[0][:1]])
    length = torch.cat([torch.zeros(1, dtype=torch.float64), line.diff(dim=0).norm(dim=1).cumsum(0)])
    count = round(float(length[-1]) / size)
    places = torch.arange(count, dtype=torch.float64) * (length[-1] / count)
    return torch.from_numpy(numpy.stack([numpy.interp(places, length, side) for side in line.T], -1))


def _hexagonal(lower: list[float], upper: list[float], size: float) -> Tensor:
    """Corners of equilateral triangles over a box."""
    y = torch.arange(lower[1], upper[1], size * math.sqrt(0.75), dtype=torch.float64)
    x = torch.arange(lower[0], upper[0], size, dtype=torch.float64)
    shifted = x + 0.5 * size * (torch.arange(len(y)) % 2)[:, None]
    return torch.stack([shifted, y[:, None].expand_as(shifted)], -1).reshape(-1, 2)


def _left_of(polygon: Tensor, points: Tensor) -> Tensor:
    """Which points lie inside a convex polygon that runs anticlockwise."""
    side = polygon.roll(-1, 0) - polygon
    apart = points[:, None] - polygon
    return (side[:, 0] * apart[..., 1] - side[:, 1] * apart[..., 0] > 0).all(1)
