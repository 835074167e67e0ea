"""Element matrices of P1 finite elements summed into the entries of matrices and vectors on the points of a mesh.

With the gradients g_a of the basis functions constant in a cell K, int_K g_a . D g_b = |K| g_a . D g_b,
int_K phi_a = |K| / (d + 1) and int_K phi_a phi_b = |K| (1 + [a = b]) / ((d + 1) (d + 2)); on a facet F,
int_F phi_a phi_b = |F| (1 + [a = b]) / (d (d + 1)). Coefficients are taken at the centres of cells and facets, which
keeps the order of the method (Ciarlet, The Finite Element Method for Elliptic Problems, 1978, theorem 4.1.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from ..given import Number
from .geometry import Geometry
from .pattern import Pattern
from .quadrature import PointRule

Vector = Mapping[int, Number]
"""Axis -> component at the cells, absent ones being 0."""


class MatrixSum:
    """The sum of terms of a bilinear form a(v, u), v being the test function of the row, under construction.

    Args:
        pattern, geometry: of the mesh.
    """

    def __init__(self, pattern: Pattern, geometry: Geometry) -> None:
        self.pattern = pattern
        self.geometry = geometry
        self._closed: Tensor | None = None  # (*batch, pairs, m): symmetric, with rows that sum to 0
        self._even: Tensor | None = None  # (*batch, m): a multiple of the ones, and twice that on the diagonal
        self._shared: Tensor | None = None  # (*batch, pairs, m): symmetric, off the diagonal
        self._columns: Tensor | None = None  # (*batch, d + 1, m): every column, which sums to 0
        self._general: list[list[Tensor]] = []  # d + 1 times d + 1 of (*batch, m)
        self._points: list[Tensor] = []  # (*batch, (d + 1) * m): on the diagonal
        self._nodal: list[Tensor] = []  # (*batch, n): on the diagonal
        self._facets: list[tuple[Tensor, Tensor, Tensor]] = []  # facets; (*batch, pairs, k); (*batch, d, k)

    def add_isotropic(self, coefficient: Number) -> None:
        """int coefficient grad v . grad u."""
        products = self.geometry.edge_products
        self._closed = _plus(self._closed, _by_cell(coefficient) * products)

    def add_symmetric(self, tensor: Mapping[tuple[int, int], Number]) -> None:
        """int grad v . tensor grad u, for a tensor that equals its transpose."""
        g, pairs = self.geometry.gradients, self.pattern.pairs
        rows = torch.stack(_broadcast([self._product(tensor, g[a], g[b]) for a, b in pairs]), -2)
        self._closed = _plus(self._closed, rows)

    def add_tensor(self, tensor: Mapping[tuple[int, int], Number]) -> None:
        """int grad v . tensor grad u."""
        g = self.geometry.gradients
        self._add_general([[self._product(tensor, a, b) for b in g] for a in g])

    def add_advection(self, velocity: Vector) -> None:
        """int v velocity . grad u."""
        weight = self.geometry.volumes / len(self.geometry.cells)
        slopes = [weight * self.along(velocity, vertex) for vertex in range(len(self.geometry.cells))]
        self._add_general([slopes] * len(slopes))

    def add_carried(self, velocity: Vector) -> None:
        """int -u velocity . grad v: what int v div(velocity u) is but for the boundary."""
        weight = self.geometry.volumes / len(self.geometry.cells)
        weighted = {axis: value * weight for axis, value in velocity.items()}
        others = _broadcast([-self.along(weighted, vertex) for vertex in range(1, len(self.geometry.cells))])
        self._columns = _plus(self._columns, torch.stack([-sum(others[1:], start=others[0]), *others], -2))

    def add_upwinding(self, velocity: Vector, time: Tensor, reaction: Number) -> None:
        """int time (velocity . grad v) (velocity . grad u + reaction u)."""
        vertices = range(len(self.geometry.cells))
        slopes = [self.along(velocity, vertex) for vertex in vertices]
        weight = time * self.geometry.volumes
        mean = reaction / len(self.geometry.cells)
        self._add_general([[weight * slopes[a] * (slopes[b] + mean) for b in vertices] for a in vertices])

    def add_reaction(self, coefficient: Number, *, lumped: bool = False) -> None:
        """int coefficient v u; lumped, with all of a row of the mass matrix on the diagonal."""
        vertices = len(self.geometry.cells)
        if lumped:
            share = coefficient * self.geometry.volumes / vertices
            self._points.append(share.unsqueeze(-2).expand(*share.shape[:-1], vertices, -1).flatten(-2))
        else:
            self._even = _plus(self._even, coefficient * self.geometry.volumes / (vertices * (vertices + 1)))

    def add_reaction_at_points(self, coefficient: Tensor, rule: PointRule) -> None:
        """int coefficient v u by a rule with values `(*batch, d + 1 or 1, m)` at its points."""
        weighted = coefficient * self.geometry.volumes
        if rule.lumped:
            self._points.append(rule.tested(weighted).flatten(-2))
            return
        between, own = rule.mass(weighted)
        self._shared = _plus(self._shared, between)
        self._points.append(own.flatten(-2))

    def add_on_diagonal(self, amount: Tensor) -> None:
        """Amounts by point, `(*batch, n)`."""
        self._nodal.append(amount)

    def add_advection_at_points(self, velocity: Mapping[int, Tensor], rule: PointRule) -> None:
        """int v velocity . grad u by a rule with components `(*batch, d + 1 or 1, m)` at its points."""
        tested = {axis: rule.tested(speed * self.geometry.volumes) for axis, speed in velocity.items()}
        vertices = range(len(self.geometry.cells))
        rows = ({axis: speed[..., a, :] for axis, speed in tested.items()} for a in vertices)
        self._add_general([[self.along(row, b) for b in vertices] for row in rows])

    def add_on_facets(self, facets: Tensor, coefficient: Number) -> None:
        """The integral of coefficient v u over exterior facets, `coefficient` being a float or `(*batch, k)`."""
        d = self.geometry.dimension
        if len(facets):
            amount = (coefficient * self.geometry.areas[facets] / (d * (d + 1))).unsqueeze(-2)
            batch = amount.shape[:-2]
            between = amount.expand(*batch, d * (d - 1) // 2, -1)
            self._facets.append((facets, between, 2.0 * amount.expand(*batch, d, -1)))

    def add_at_points_of_facets(self, coefficient: Tensor, rule: PointRule) -> None:
        """The integral of coefficient v u over all exterior facets, with values `(*batch, d, f)` at a rule's points."""
        between, own = rule.mass(coefficient * self.geometry.areas)
        self._facets.append((torch.arange(own.shape[-1], device=own.device), between, own))

    def along(self, velocity: Vector, vertex: int) -> Tensor:
        """`(*batch, m)`, velocity . gradient of the basis function of a local vertex."""
        gradient = self.geometry.gradients[vertex]
        products = [value * gradient[axis] for axis, value in velocity.items()]
        return sum(products[1:], start=products[0]) if products else torch.zeros_like(gradient[0])

    def entries(self, *, symmetric: bool) -> Tensor:
        """The sum, `(*batch, entries)` in the order of the pattern; `symmetric` promises that it is."""
        pattern = self.pattern
        if self._columns is None:
            above = below = self._summed_on_edges(self._closed)
        else:
            above, below = (
                self._summed_on_edges(_plus(self._closed, part)) for part in self._either_way(self._columns)
            )
        parts = list(self._nodal)
        if self._closed is not None or self._columns is not None:
            parts.append(-pattern.end_sum(torch.cat([above, below], -1)))
        if self._even is not None:
            even = self._even.unsqueeze(-2)
            shared = self._summed_on_edges(even.expand(*even.shape[:-2], len(pattern.pairs), -1))
            above, below = above + shared, below + shared
            vertices = len(pattern.cells)
            parts.append(pattern.point_sum(2.0 * even.expand(*even.shape[:-2], vertices, -1).flatten(-2)))
        if self._shared is not None:
            shared = self._summed_on_edges(self._shared)
            above, below = above + shared, below + shared
        if self._general:
            general, swapped = self._general, pattern.swapped
            ahead = torch.stack(_broadcast([general[a][b] for a, b in pattern.pairs]), -2)
            back = torch.stack(_broadcast([general[b][a] for a, b in pattern.pairs]), -2)
            above = above + self._summed_on_edges(torch.where(swapped, back, ahead))
            below = above if symmetric else below + self._summed_on_edges(torch.where(swapped, ahead, back))
            own = torch.stack(_broadcast([general[a][a] for a in range(len(general))]), -2)
            parts.append(pattern.point_sum(own.flatten(-2)))
        parts += [pattern.point_sum(points) for points in self._points]
        diagonal = sum(parts[1:], start=parts[0]) if parts else self.geometry.volumes.new_zeros(pattern.size)
        for facets, between, corners in self._facets:
            shared = between.new_zeros(*between.shape[:-2], pattern.edges)
            for edge, amount in zip(self._facet_edges(facets), between.unbind(-2), strict=True):
                shared = shared.index_add(-1, edge, amount)
            above, below = above + shared, below + shared
            own = corners.new_zeros(*corners.shape[:-2], pattern.size)
            for points, amount in zip(self.geometry.facets[:, facets], corners.unbind(-2), strict=True):
                own = own.index_add(-1, points, amount)
            diagonal = diagonal + own
        return pattern.gather(above, below, diagonal)

    def _either_way(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of each pair the row of the vertex with the smaller number, and that of the other: `(*batch, pairs, m)`."""
        first, second = (rows[..., [pair[k] for pair in self.pattern.pairs], :] for k in (0, 1))
        return torch.where(self.pattern.swapped, second, first), torch.where(self.pattern.swapped, first, second)

    def _summed_on_edges(self, values: Tensor | None) -> Tensor:
        if values is None:
            return self.geometry.volumes.new_zeros(self.pattern.edges)
        return self.pattern.edge_sum(values.flatten(-2))

    def _facet_edges(self, facets: Tensor) -> list[Tensor]:
        """The edges between the points of facets, `(k,)` each."""
        numbers = {frozenset(pair): place for place, pair in enumerate(self.pattern.pairs)}
        count = len(self.pattern.cells)
        table = torch.tensor(
            [[numbers.get(frozenset((a, b)), 0) for b in range(count)] for a in range(count)], device=facets.device
        )
        vertices = self.geometry.local_facet_vertices[:, facets]
        cells = self.geometry.facet_cells[facets]
        return [self.pattern.cell_edges[table[a, b], cells] for a, b in combinations(vertices, 2)]

    def _product(self, tensor: Mapping[tuple[int, int], Number], a: Tensor, b: Tensor) -> Tensor:
        zero = torch.zeros_like(self.geometry.volumes)
        return self.geometry.volumes * sum((value * a[k] * b[j] for (k, j), value in tensor.items()), start=zero)

    def _add_general(self, rows: list[list[Tensor]]) -> None:
        if self._general:
            pairs = zip(self._general, rows, strict=True)
            rows = [[a + b for a, b in zip(total, row, strict=True)] for total, row in pairs]
        self._general = rows


def load(pattern: Pattern, geometry: Geometry, source: Number, *, by_point: bool) -> Tensor:
    """`(*batch, n)`, the integral of source times each basis function.

    Args:
        pattern, geometry: of the mesh.
        source: a float, or by point `(*batch, n)`, integrated as its P1 interpolant, or by cell `(*batch, m)`.
        by_point: which of these.
    """
    vertices = len(geometry.cells)
    share = geometry.volumes / vertices
    if not isinstance(source, Tensor) or source.shape[-1] == 1 or not by_point:
        amount = source * share
        return pattern.point_sum(amount.unsqueeze(-2).expand(*amount.shape[:-1], vertices, -1).flatten(-2))
    corners = source[..., geometry.cells]
    weighted = (corners + corners.sum(-2, keepdim=True)) * (share / (vertices + 1))
    return pattern.point_sum(weighted.flatten(-2))


def load_on_facets(geometry: Geometry, facets: Tensor, value: Number, size: int) -> Tensor:
    """`(*batch, n)`, the integral over facets of value times each basis function; value by vertex `(*batch, d, k)`."""
    d = geometry.dimension
    share = geometry.areas[facets] / (d * (d + 1))
    if not isinstance(value, Tensor):
        value = torch.full_like(share, value).unsqueeze(0)
    corners = value.expand(*value.shape[:-2], d, len(facets))
    weighted = (corners + corners.sum(-2, keepdim=True)) * share
    total = weighted.new_zeros(*weighted.shape[:-2], size)
    return total.index_add(-1, geometry.facets[:, facets].reshape(-1), weighted.flatten(-2))


def _by_cell(value: Number) -> Number:
    """A coefficient that multiplies `(pairs, m)`."""
    return value.unsqueeze(-2) if isinstance(value, Tensor) else value


def _broadcast(parts: list[Tensor]) -> list[Tensor]:
    return list(torch.broadcast_tensors(*parts))


def _plus(total: Tensor | None, value: Tensor) -> Tensor:
    return value if total is None else total + value
