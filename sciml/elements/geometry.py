"""Gradients of the P1 basis functions and measures of cells and facets, by closed formulas."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from math import factorial

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..differentiation import is_wrapped, kept, outside_transforms
from ..kernels import simplices
from ..mesh import Mesh


@dataclass(frozen=True, eq=False)
class Geometry:
    """What element matrices need of a mesh with n points, m cells and f facets in d dimensions.

    Attributes:
        cells: `(d + 1, m)`.
        gradients: `(d + 1, d, m)`, the gradients of the basis functions, 1 over the unit of length.
        volumes: `(m,)`.
        facets: `(d, f)`, the points of the exterior facets.
        facet_cells: `(f,)`.
        areas: `(f,)`.
        normals: `(d, f)`, outward and of length 1.
    """

    cells: Tensor
    gradients: Tensor
    volumes: Tensor
    facets: Tensor
    facet_cells: Tensor
    areas: Tensor
    normals: Tensor

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return self.gradients.shape[1]

    @cached_property
    def edge_products(self) -> Tensor:
        """`(pairs, m)`, volume times the product of the gradients of the two vertices of each pair: the element
        matrices of -laplacian(u) off the diagonal."""
        plain = not is_wrapped(self.gradients) and forward_ad.unpack_dual(self.gradients).tangent is None
        with outside_transforms() if plain else nullcontext():
            pairs = combinations(self.gradients.unbind(0), 2)
            return torch.stack([_dot(a.unbind(0), b.unbind(0)) * self.volumes for a, b in pairs])

    @kept
    def local_facet_vertices(self) -> Tensor:
        """`(d, f)`, which vertex of its cell each point of a facet is."""
        own = self.cells[:, self.facet_cells]
        return (own.unsqueeze(0) == self.facets.unsqueeze(1)).int().argmax(1)

    def on_cells(self, nodal: Tensor) -> Tensor:
        """Values at points `(*batch, n)` -> their mean in each cell `(*batch, m)`."""
        return self._mean(nodal, self.cells)

    def on_facets(self, nodal: Tensor) -> Tensor:
        """Values at points `(*batch, n)` -> their mean on each facet `(*batch, f)`."""
        return self._mean(nodal, self.facets)

    def gradient(self, nodal: Tensor) -> Tensor:
        """The gradient of the P1 function with values `(*batch, n)` at points, `(*batch, d, m)`."""
        total = nodal[..., None, self.cells[0]] * self.gradients[0]
        for vertex in range(1, len(self.cells)):
            total = total + nodal[..., None, self.cells[vertex]] * self.gradients[vertex]
        return total

    def _mean(self, nodal: Tensor, corners: Tensor) -> Tensor:
        if nodal.shape[-1] == 1:
            return nodal
        return sum((nodal[..., corner] for corner in corners[1:]), start=nodal[..., corners[0]]) / len(corners)


def geometry_of(mesh: Mesh) -> Geometry:
    """The geometry of a mesh: kept as long as the mesh, or made afresh where its points carry gradients."""
    if mesh.points.requires_grad or forward_ad.unpack_dual(mesh.points).tangent is not None:
        return make_geometry(mesh)
    with torch.no_grad():
        return mesh.remember(make_geometry)


def make_geometry(mesh: Mesh) -> Geometry:
    """The geometry of a mesh, differentiable with respect to its points."""
    inside = simplices.gradients(mesh.points, mesh.cells) or _gradients(mesh.points, mesh.cells)
    facets = mesh.facets.mT.contiguous()
    return Geometry(*inside, facets, mesh.facet_cells, mesh.facet_areas, mesh.facet_normals.mT)


def _gradients(points: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cells `(d + 1, m)`, gradients and volumes from points `(n, d)` and cells `(m, d + 1)`."""
    cells = cells.mT.contiguous()
    axes = [axis.contiguous() for axis in points.unbind(1)]
    corners = [[axis.index_select(0, corner) for axis in axes] for corner in cells]
    edges = [[end - start for end, start in zip(corner, corners[0], strict=True)] for corner in corners[1:]]
    if len(axes) == 2:
        (a, b), (c, e) = edges
        factor = a * e - b * c
        normals = [[e, -c], [-b, a]]
    else:
        normals = [_cross(edges[k - 2], edges[k - 1]) for k in range(3)]
        factor = _dot(edges[0], normals[0])
    inverse = factor.reciprocal()
    others = [[component * inverse for component in normal] for normal in normals]
    first = [-sum(components[1:], start=components[0]) for components in zip(*others, strict=True)]
    gradients = torch.stack([*first, *chain.from_iterable(others)]).unflatten(0, (len(cells), len(axes)))
    return cells, gradients, factor / factorial(len(axes))


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    products = [x * y for x, y in zip(a, b, strict=True)]
    return sum(products[1:], start=products[0])


def _cross(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    return [a[k - 2] * b[k - 1] - a[k - 1] * b[k - 2] for k in range(3)]
