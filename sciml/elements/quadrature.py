"""The quadrature rule of terms that depend on the solution.

On a simplex of k vertices the point of vertex a has the barycentric coordinates (1 - s)/k + s [a = b]: for
s = 1/sqrt(k + 1) and equal weights 1/k the rule is exact for polynomials of degree 2 (Hammer and Stroud, Math. Tables
Aids Comput. 10 (1956) 137-139), so that int c u v of P1 functions is what the formulas of `assembly` give; for s = 1
the points are the vertices, and mass matrices lumped. All tensors have the vertices in the axis before the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor


@dataclass(frozen=True)
class PointRule:
    """A rule with one point a vertex.

    Args:
        vertices: of the simplex, k.
        lumped: whether the points are the vertices.
    """

    vertices: int
    lumped: bool = False

    @property
    def spread(self) -> float:
        """s, dimensionless."""
        return 1.0 if self.lumped else (self.vertices + 1) ** -0.5

    @property
    def share(self) -> float:
        """(1 - s)/k, the value of a basis function at the points of other vertices."""
        return (1.0 - self.spread) / self.vertices

    def at_points(self, corners: Tensor, mean: Tensor) -> Tensor:
        """A linear function at the points `(*batch, k, m)`, from its values at the vertices and their mean
        `(*batch, m)`."""
        return torch.lerp(mean.unsqueeze(-2), corners, self.spread)

    def tested(self, value: Tensor) -> Tensor:
        """The mean of value times each basis function, `(*batch, k, m)`, from values at the points."""
        value = self._spread_out(value)
        own = value * (self.spread / self.vertices)
        return own if self.lumped else own + value.sum(-2, keepdim=True) * (self.share / self.vertices)

    def mass(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The means of value times two basis functions: `(*batch, pairs, m)` of different ones, in the order of
        `combinations`, and `(*batch, k, m)` of each with itself."""
        value = self._spread_out(value)
        square = self.share**2 * value.sum(-2, keepdim=True) / self.vertices
        crossed = self.share * self.spread / self.vertices
        between = torch.stack([a + b for a, b in combinations(value.unbind(-2), 2)], -2)
        return square + crossed * between, square + (2.0 * crossed + self.spread**2 / self.vertices) * value

    def _spread_out(self, value: Tensor) -> Tensor:
        """With all vertices, where it is constant in each simplex."""
        return value.expand(*value.shape[:-2], self.vertices, value.shape[-1])
