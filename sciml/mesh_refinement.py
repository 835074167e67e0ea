"""Uniform refinement of triangle and tetrahedron meshes."""

from __future__ import annotations

import torch
from torch import Tensor

from .mesh_simplices import dot, edges_of, find_rows

# Numbers 0 to d are the vertices of the parent, the next ones the middles of its edges, in the order of `edges_of`:
# 01 02 12 -> 3 4 5, and 01 02 03 12 13 23 -> 4 5 6 7 8 9. Volumes keep their sign.
_TRIANGLES = ((0, 3, 4), (3, 1, 5), (4, 5, 2), (3, 5, 4))
_CORNERS = ((0, 4, 5, 6), (4, 1, 7, 8), (5, 7, 2, 9), (6, 8, 9, 3))
# The octahedron left in the middle is cut along one of its three diagonals into four; the middles around it follow.
_DIAGONALS = (((4, 9), (5, 6, 8, 7)), ((5, 8), (4, 7, 9, 6)), ((6, 7), (4, 5, 9, 8)))
_FACETS = {2: ((0, 2), (2, 1)), 3: ((0, 3, 4), (3, 1, 5), (4, 5, 2), (3, 5, 4))}
_OPPOSITE = ((0, 5), (1, 4), (2, 3))  # edges of a tetrahedron without a common vertex: 01-23, 02-13, 03-12


def refine(points: Tensor, cells: Tensor, boundaries: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Cut every triangle into 4, every tetrahedron into 8; the children of cell c are 4c to 4c + 3, or 8c to 8c + 7.

    The old points keep their numbers, and the middles of the edges follow. The inner octahedron of a tetrahedron is cut
    along the diagonal whose worst child has the best mean ratio: all four have the same volume, and their largest sum
    of squared edges is, up to a constant, |diagonal|^2 - min(|e|^2, |f|^2)/4, with e and f the edges whose middles the
    diagonal joins. On the Kuhn subdivision of a cube this is Bey's choice (Computing 55, 1995), which makes no new
    shapes.

    Args:
        boundaries: name -> vertices of facets, `(k, d)`; so are those returned, of their parts.
    """
    n, d = points.shape
    edges, cell_edges = edges_of(cells, n)
    middles = (points[edges[:, 0]] + points[edges[:, 1]]) / 2
    local = torch.cat((cells, n + cell_edges), 1)
    if d == 2:
        children = local[:, torch.tensor(_TRIANGLES, device=cells.device)]
    else:
        children = torch.cat((local[:, torch.tensor(_CORNERS, device=cells.device)], _inner(points, cells, local)), 1)
    parts = {name: _refine_facets(facets, edges, n) for name, facets in boundaries.items()}
    return torch.cat((points, middles)), children.reshape(-1, d + 1), parts


def _inner(points: Tensor, cells: Tensor, local: Tensor) -> Tensor:
    """`(m, 4, 4)` the tetrahedra around the best diagonal of the inner octahedron."""
    corners = points.detach()[cells]
    a, b, c, e = corners.unbind(1)
    squares = [dot(p - q, p - q) for p, q in ((a, b), (a, c), (a, e), (b, c), (b, e), (c, e))]
    ends = ((a + b, c + e), (a + c, b + e), (a + e, b + c))  # twice the middles of opposite edges
    costs = [
        dot(p - q, p - q) - torch.minimum(squares[i], squares[j])
        for (p, q), (i, j) in zip(ends, _OPPOSITE, strict=True)
    ]
    choice = torch.stack(costs, 1).argmin(1)
    cuts = torch.tensor(
        [[[p, q, ring[k], ring[(k + 1) % 4]] for k in range(4)] for (p, q), ring in _DIAGONALS], device=cells.device
    )
    return local.gather(1, cuts[choice].reshape(len(cells), 16)).reshape(len(cells), 4, 4)


def _refine_facets(facets: Tensor, edges: Tensor, n: int) -> Tensor:
    if facets.shape[1] == 2:
        middle = n + find_rows(facets, edges, n)
        local = torch.cat((facets, middle[:, None]), 1)
    else:
        pairs = facets[:, torch.tensor([[0, 1], [0, 2], [1, 2]], device=facets.device)].reshape(-1, 2)
        local = torch.cat((facets, n + find_rows(pairs, edges, n).reshape(-1, 3)), 1)
    parts = torch.tensor(_FACETS[facets.shape[1]], device=facets.device)
    return local[:, parts].reshape(-1, facets.shape[1])
