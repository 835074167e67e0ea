"""How well the cells of a mesh are shaped: angles, radius ratios, lengths of edges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import degrees

import torch
from torch import Tensor

from .mesh_simplices import LOCAL_FACETS, counted, dot, normal_of, signed_volumes

_CHUNK = 2**15  # cells at a time, whose intermediate values fit a cache


@dataclass(frozen=True)
class MeshQuality:
    """Extremes of the shape of cells. `print` gives a report.

    Attributes:
        cells: their number.
        dimension: 2 or 3.
        smallest_angle, largest_angle: of a triangle between its edges, of a tetrahedron between its faces (dihedral);
            degrees. A regular triangle has 60, a regular tetrahedron 70.53.
        smallest_radius_ratio, mean_radius_ratio: d times the radius of the inscribed circle or sphere over that of the
            circumscribed one; dimensionless, 1 for regular cells and 0 for flat ones.
        worst_cell: index of the cell with the smallest radius ratio.
        shortest_edge, longest_edge: in the unit of length of the problem.
        smallest_volume, largest_volume: areas or volumes of cells.
    """

    cells: int
    dimension: int
    smallest_angle: float
    largest_angle: float
    smallest_radius_ratio: float
    mean_radius_ratio: float
    worst_cell: int
    shortest_edge: float
    longest_edge: float
    smallest_volume: float
    largest_volume: float

    def __str__(self) -> str:
        solid = self.dimension == 3
        return (
            f"{counted(self.cells, self.dimension)}\n"
            f"{'dihedral angles' if solid else 'angles'} from {self.smallest_angle:.1f} to {self.largest_angle:.1f} "
            f"degrees\n"
            f"radius ratio at least {self.smallest_radius_ratio:.3g} (cell {self.worst_cell}), "
            f"{self.mean_radius_ratio:.3g} on average (1 is regular)\n"
            f"edges from {self.shortest_edge:.4g} to {self.longest_edge:.4g}\n"
            f"{'volumes' if solid else 'areas'} from {self.smallest_volume:.4g} to {self.largest_volume:.4g}"
        )


def measure(points: Tensor, cells: Tensor) -> MeshQuality:
    """The quality of cells `(m, d + 1)` of points `(n, d)`."""
    points = points.detach()
    rows = []
    for part in cells.split(_CHUNK):
        measures = (angles(points, part), edge_lengths(points, part), signed_volumes(points, part))
        rows.append([extreme for values in measures for extreme in (values.min(), values.max())])
    least, most = torch.stack([torch.stack(row) for row in rows]).unflatten(1, (3, 2)).unbind(2)
    (smallest, shortest, thinnest), (largest, longest, thickest) = least.amin(0).tolist(), most.amax(0).tolist()
    ratios = torch.cat([radius_ratios(points, part) for part in cells.split(_CHUNK)])
    return MeshQuality(
        cells=len(cells),
        dimension=points.shape[1],
        smallest_angle=degrees(smallest),
        largest_angle=degrees(largest),
        smallest_radius_ratio=float(ratios.min()),
        mean_radius_ratio=float(ratios.mean()),
        worst_cell=int(ratios.argmin()),
        shortest_edge=shortest,
        longest_edge=longest,
        smallest_volume=thinnest,
        largest_volume=thickest,
    )


def edge_lengths(points: Tensor, cells: Tensor) -> Tensor:
    """`(m, 3)` or `(m, 6)` lengths, of the edges 01, 02, 12 or 01, 02, 03, 12, 13, 23."""
    edges = [a - b for a, b in combinations(points[cells.T], 2)]
    return torch.stack([dot(edge, edge) for edge in edges], 1).sqrt()


def angles(points: Tensor, cells: Tensor) -> Tensor:
    """`(m, 3)` or `(m, 6)` angles inside each cell between its facets 01, 02, ..., facet i opposite vertex i; radians.

    In a triangle they are the angles at the vertices, in a tetrahedron the dihedral ones at the edges: with outward
    normals n, cos(angle) = -n_i . n_j.
    """
    normals = [(n, dot(n, n).sqrt()) for n in _facet_normals(points, cells)]
    cosines = [-dot(n, k) / (n_length * k_length) for (n, n_length), (k, k_length) in combinations(normals, 2)]
    return torch.acos(torch.stack(cosines, 1).clamp(-1, 1))


def radius_ratios(points: Tensor, cells: Tensor) -> Tensor:
    """`(m,)` d r / R of the inscribed and circumscribed radii: 1 for a regular cell, 0 for a flat one.

    r = d V / (sum of the facets). R = a b c / (4 V) in the plane. In space, with the edges a, b, c from one vertex,
    R = |a^2 (b x c) + b^2 (c x a) + c^2 (a x b)| / (12 V). (Liu and Joe, "Relationship between tetrahedron shape
    measures", BIT 1994.)
    """
    squares = signed_volumes(points, cells).square()
    surfaces = torch.stack([dot(n, n).sqrt() for n in _facet_normals(points, cells)]).sum(0)
    if points.shape[1] == 2:
        return 16 * squares / (surfaces * edge_lengths(points, cells).prod(1))
    corners = points[cells.T]
    a, b, c = (corner - corners[0] for corner in corners[1:])
    centre = sum(dot(p, p)[:, None] * torch.linalg.cross(q, r) for p, q, r in ((a, b, c), (b, c, a), (c, a, b)))
    return 108 * squares / (surfaces * dot(centre, centre).sqrt())


def _facet_normals(points: Tensor, cells: Tensor) -> list[Tensor]:
    """One tensor `(m, d)` a facet of the cells: outward, and as long as the facet is large."""
    corners = points[cells.T]
    return [normal_of(*(corners[i] for i in facet)) for facet in LOCAL_FACETS[points.shape[1]]]
