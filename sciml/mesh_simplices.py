"""Triangles and tetrahedra as rows of indices: volumes, facets, edges, and what makes a set of them a mesh."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from .errors import InputError

# Facet i of a cell lies opposite its vertex i; in this order its normal points outward if the cell is positive.
LOCAL_FACETS = {2: ((1, 2), (2, 0), (0, 1)), 3: ((1, 2, 3), (0, 3, 2), (0, 1, 3), (0, 2, 1))}
FACET_NAMES = {2: "edges", 3: "triangles"}
CELL_NAMES = {2: "triangles", 3: "tetrahedra"}
_ONE_CELL = {2: "triangle", 3: "tetrahedron"}


def counted(cells: int, dimension: int) -> str:
    """`1 triangle`, `6 tetrahedra`."""
    return f"{cells} {_ONE_CELL[dimension] if cells == 1 else CELL_NAMES[dimension]}"


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products along the last axis, of two or three components; torch sums so short an axis slowly."""
    total = a[..., 0] * b[..., 0]
    for axis in range(1, a.shape[-1]):
        total = total + a[..., axis] * b[..., axis]
    return total


def signed_volumes(points: Tensor, cells: Tensor) -> Tensor:
    """Area of each triangle or volume of each tetrahedron, `(m,)`; negative where its vertices run the wrong way."""
    corners = points[cells.T]
    edges = corners[1:] - corners[0]
    if points.shape[1] == 2:
        (a, b), (c, d) = edges[0].unbind(1), edges[1].unbind(1)
        return (a * d - b * c) / 2
    return dot(edges[0], torch.linalg.cross(edges[1], edges[2])) / 6


def normal_of(*corners: Tensor) -> Tensor:
    """`(k, d)` normals to edges or triangles as long as these are large; `corners` are d tensors `(k, d)`."""
    if len(corners) == 2:
        along, up = (corners[1] - corners[0]).unbind(1)
        return torch.stack((up, -along), 1)
    return torch.linalg.cross(corners[1] - corners[0], corners[2] - corners[0]) / 2


def facet_vectors(points: Tensor, facets: Tensor) -> Tensor:
    """`normal_of` facets `(f, d)`; outward for facets in the order of a mesh."""
    return normal_of(*points[facets.T])


def row_keys(rows: Tensor, count: int) -> Tensor:
    """One integer a row of sorted indices below `count`; equal rows have equal keys, and keys order as rows do.

    Keys of one call are comparable with each other only: where count^width does not fit 64 bits, the leading columns
    are replaced by their rank among those given.
    """
    key, bound = rows[:, 0], count
    for column in rows[:, 1:].unbind(1):
        if bound > 2**62 // count:
            values, key = torch.unique(key, return_inverse=True)
            bound = len(values)
        key = key * count + column
        bound *= count
    return key


def facets_of(cells: Tensor) -> Tensor:
    """`(m (d + 1), d)` facets of all cells, cell by cell; facet i of a cell is the one opposite its vertex i."""
    d = cells.shape[1] - 1
    return cells[:, torch.tensor(LOCAL_FACETS[d], device=cells.device)].reshape(-1, d)


def pair_facets(facets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """An order of facets in which equal ones follow each other, and for each but the first whether it equals the last.

    The order is the lexicographic one of their sorted vertices.
    """
    keys, order = row_keys(facets.sort(1).values, count).sort()
    return order, keys[1:] == keys[:-1]


def alone(order: Tensor, same: Tensor) -> Tensor:
    """Those of the facets of `pair_facets` that have no equal."""
    edge = torch.zeros(1, dtype=torch.bool, device=order.device)
    return order[~torch.cat((edge, same)) & ~torch.cat((same, edge))]


def exterior_facets(cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The facets that belong to one cell only: `(f, d)` vertices with the normal outward, and `(f,)` their cells.

    They are in the lexicographic order of their sorted vertices, which depends neither on the order of the cells nor
    on that of the vertices in them.

    Args:
        cells: `(m, d + 1)`, positively oriented.
        count: number of points.

    Raises:
        InputError: three or more cells share a facet, or two that lie on the same side of it.
    """
    d = cells.shape[1] - 1
    facets = facets_of(cells)
    order, same = pair_facets(facets, count)
    crowded = (same[1:] & same[:-1]).nonzero().flatten()
    if len(crowded):
        raise InputError(
            f"Mesh: {FACET_NAMES[d]} belong to three cells or more ({len(crowded)} cells too many), the first has the "
            f"points {facets[order[crowded[0]]].tolist()}; in a mesh every inner facet lies between two cells"
        )
    odd = torch.zeros_like(facets[:, 0], dtype=torch.bool)  # whether sorting the vertices turns the facet over
    for i, j in combinations(range(d), 2):
        odd ^= facets[:, i] > facets[:, j]
    folded = same & (odd[order[1:]] == odd[order[:-1]])
    if bool(folded.any()):
        pairs = torch.stack((order[:-1], order[1:]), 1)[folded] // (d + 1)
        number = "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
        raise InputError(
            f"Mesh: cells overlap ({number}), the first two are {pairs[0].tolist()}: they lie on the same "
            "side of a facet that they share, so that one of them is inverted; untangle the mesh"
        )
    lone = alone(order, same)
    return facets[lone], lone // (d + 1)


def find_rows(rows: Tensor, among: Tensor, count: int) -> Tensor:
    """For each row of vertices its place in `among`, whatever the order of its vertices; -1 where it is not there.

    Args:
        rows: `(k, w)` indices below `count`.
        among: `(f, w)` distinct rows.
        count: number of points.
    """
    if not len(among):
        return torch.full((len(rows),), -1, dtype=torch.int64, device=rows.device)
    keys = row_keys(torch.cat((among, rows)).sort(1).values, count)
    known, order = keys[: len(among)].sort()
    wanted = keys[len(among) :]
    place = torch.searchsorted(known, wanted).clamp(max=len(among) - 1)
    return torch.where(known[place] == wanted, order[place], -1)


def edges_of(cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The distinct edges, `(e, 2)` with the smaller point first, and which of them each cell has.

    The second tensor is `(m, 3)` or `(m, 6)`, the edges of a cell in the order 01, 02, 12 or 01, 02, 03, 12, 13, 23.
    """
    pairs = torch.tensor(list(combinations(range(cells.shape[1]), 2)), device=cells.device)
    ends = cells[:, pairs].reshape(-1, 2).sort(1).values
    keys, inverse = torch.unique(row_keys(ends, count), return_inverse=True)
    return torch.stack((keys // count, keys % count), 1), inverse.reshape(len(cells), -1)


def check_points(points: Tensor, cells: Tensor) -> None:
    """Refuse coordinates that are not finite, indices that name no point, and points that no cell uses."""
    bad = (~points.isfinite().all(1)).nonzero().flatten()
    if len(bad):
        raise InputError(f"Mesh: {_listed(bad, 'point', 'have')} coordinates that are NaN or infinite")
    outside = ((cells < 0) | (cells >= len(points))).any(1).nonzero().flatten()
    if len(outside):
        raise InputError(
            f"Mesh: {_listed(outside, 'cell', 'name')} points that do not exist, the first "
            f"{cells[outside[0]].tolist()}; there are {len(points)} points, numbered from 0 to {len(points) - 1}"
        )
    used = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    used[cells.reshape(-1)] = True
    idle = (~used).nonzero().flatten()
    if len(idle):
        raise InputError(
            f"Mesh: {_listed(idle, 'point', 'belong')} to no cell, so that no equation would say what an unknown there "
            "is; drop them and renumber the cells (Mesh.read does)"
        )


def check_distinct(cells: Tensor, count: int) -> None:
    """Refuse cells with the same vertices as another."""
    keys, places = row_keys(cells.sort(1).values, count).sort(stable=True)
    twice = places[1:][keys[1:] == keys[:-1]].sort().values
    if len(twice):
        raise InputError(f"Mesh: {_listed(twice, 'cell', 'repeat')} another one; give each cell once")


def oriented(points: Tensor, cells: Tensor) -> Tensor:
    """The cells with two vertices swapped wherever the volume is negative.

    A cell counts as degenerate when its volume is lost in the rounding of its coordinates: d! times the volume is at
    most 8 eps x h^(d - 1), where h is its longest edge from the first vertex and x its largest coordinate.

    Raises:
        InputError: cells are degenerate; how many, and the first of them.
    """
    d = points.shape[1]
    corners = points[cells.T]
    edges = corners[1:] - corners[0]
    longest = dot(edges, edges).amax(0).sqrt()
    reach = torch.maximum(points.abs().amax(1)[cells.T].amax(0), longest)
    volumes = signed_volumes(points, cells)
    rounding = 8 * torch.finfo(points.dtype).eps * reach * longest ** (d - 1)
    flat = ((2 if d == 2 else 6) * volumes.abs() <= rounding).nonzero().flatten()
    if len(flat):
        raise InputError(
            f"Mesh: {_listed(flat, 'cell', 'are')} degenerate (no {'area' if d == 2 else 'volume'} within the rounding "
            f"of {str(points.dtype).removeprefix('torch.')}), the first has the points {cells[flat[0]].tolist()}; "
            "remove them, or merge the points that coincide"
        )
    swapped = cells.clone()
    swapped[:, -2:] = cells[:, -2:].flip(1)
    return torch.where((volumes < 0)[:, None], swapped, cells)


def _listed(indices: Tensor, noun: str, verb: str) -> str:
    """`3 cells (4, 7, 9) repeat` for the beginning of a message."""
    shown = ", ".join(str(index) for index in indices[:5].tolist())
    if len(indices) == 1:
        return f"1 {noun} ({shown}) {({'have': 'has', 'are': 'is'}).get(verb, verb + 's')}"
    return f"{len(indices)} {noun}s ({shown}{', ...' if len(indices) > 5 else ''}) {verb}"
