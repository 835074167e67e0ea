"""Constraints that are singular at the constant mode: what they ask of the means of fields."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy
import torch
from torch import Tensor

from ..balance import drifted, require_balanced
from ..differentiation import detached, outside_transforms
from .modes import Modes
from .tables import Symbol, Tables

Share = tuple[Tensor, Tensor]
"""Of a product its mean, and its size, `(*batch)`."""


class ConstantMode:
    """The part of the constraints' right sides, at the constant mode, that their operator cannot reach.

    Of row d the right side is the sum of driven[d][j] times unknown j, of products[d][r] times product r, and of a
    source. With the projection P onto what cannot be reached, P times its constant mode must be 0.

    Args:
        projection: P, see `Tables.left_null`.
        tables: those of the system, in its complex dtype.
        sources: of the constraints.
        modes: the modes kept.
        names: of the fields that the constraints determine.

    Attributes:
        by_products: whether products have a share in it.
        products: the places of those that have.
    """

    @outside_transforms()
    def __init__(
        self, projection: Tensor, tables: Tables, sources: Sequence[Symbol], modes: Modes, names: tuple[str, ...]
    ) -> None:
        self.modes = modes
        self.names = names
        self._driven, self._sources = tables.driven, sources
        self._dtype = torch.complex128 if modes.grid.dtype == torch.float64 else torch.complex64
        projection = detached(projection).to(self._dtype)
        self._of_unknowns = self._projected(projection, tables.driven)
        self._of_products = self._projected(projection, tables.products)
        self._of_sources = self._projected(projection, [[source] for source in sources])[..., 0]
        self._by_unknowns = bool((self._of_unknowns != 0).any())
        self.by_products = bool((self._of_products != 0).any())
        counted = (self._of_products != 0).flatten(0, -2).any(0)
        self.products = [place for place, one in enumerate(counted.tolist()) if one]
        self._product_sizes = self._of_constants(tables.products).abs().sum(-2)[..., self.products]
        self._of_products = self._of_products[..., self.products]
        self._homogeneous = not self.by_products and not bool((self._of_sources != 0).any())
        # For a quick look on the CPU: what is to vanish, and by how much each unknown enters.
        numbers = [part for row in tables.driven for part in row if part is not None]
        self._quick = self._homogeneous and self._of_unknowns.ndim == 2 and all(p.numel() == 1 for p in numbers)
        if self._quick:
            self._matrix: Any = self._of_unknowns.T.cpu().numpy()
            columns = zip(*tables.driven, strict=True)
            self._weights = numpy.array(
                [sum(float(detached(p).abs()) for p in col if p is not None) for col in columns]
            )
        self._rounding = torch.finfo(modes.grid.dtype).eps ** 0.5
        self._several = len(tables.driven[0]) > 1
        self._zero: Any = (..., *[0] * modes.dimension)
        self._real: Any = numpy.float64 if modes.grid.dtype == torch.float64 else numpy.float32

    @property
    def trivial(self) -> bool:
        """Whether nothing is asked of any field."""
        return self._homogeneous and not self._by_unknowns

    def _of_constants(self, table: Sequence[Sequence[Symbol]]) -> Tensor:
        """The constant mode of a table, `(*batch, rows, columns)`."""
        zero = torch.zeros((), dtype=self._dtype, device=self.modes.grid.device)
        entries = [[zero if part is None else self.modes.mean(detached(part)) for part in row] for row in table]
        rows = [torch.stack(torch.broadcast_tensors(*row), dim=-1) if row else zero.new_zeros(0) for row in entries]
        return torch.stack(torch.broadcast_tensors(*rows), dim=-2)

    def _projected(self, projection: Tensor, table: Sequence[Sequence[Symbol]]) -> Tensor:
        """The projection times the constant mode of a table, `(*batch, rows, columns)`."""
        found = projection @ self._of_constants(table)
        scale = torch.linalg.matrix_norm(found, keepdim=True)
        return torch.where(found.abs() <= 1e-12 * scale, 0.0, found)

    @outside_transforms()
    def may_move(self, tables: Tables, sources: Sequence[Symbol]) -> bool:
        """Whether the right-hand side can bring what must vanish away from 0 by more than rounding.

        Args:
            tables: those of the system, in its complex dtype.
            sources: of the unknowns.
        """
        eps = 100 * torch.finfo(self._dtype).eps
        means = []
        for source in (None if source is None else detached(source) for source in sources):
            rounding = source is None or bool((self.modes.mean(source).abs() <= eps * self._norm(source)).all())
            means.append([None if rounding else source])
        for table in (tables.linear, tables.outputs, means):
            rates = self._of_constants(table)
            found, size = self._of_unknowns @ rates, self._of_unknowns.abs() @ rates.abs()
            if bool((found.abs() > eps * size).any()):
                return True
        return not self._homogeneous

    @outside_transforms()
    def _part_and_size(self, channels: Sequence[Tensor], products: Sequence[Share]) -> tuple[Tensor, Tensor]:
        """The size of what cannot be reached, and the sum of those of all terms, `(*batch)`; at most sqrt(2) below the
        root mean square, since of conjugate coefficients one is counted."""
        channels = [detached(c) for c in channels]
        part = self._of_sources
        if self._by_unknowns:
            part = part + _times(self._of_unknowns, [self.modes.mean(c) for c in channels])
        size = torch.zeros((), dtype=channels[0].real.dtype, device=channels[0].device)
        for row, source in zip(self._driven, self._sources, strict=True):
            for factor, values in zip(row, channels, strict=True):
                if factor is not None and factor.numel() == 1:
                    size = size + detached(factor).abs().flatten()[0] * self._norm(values)
                elif factor is not None:
                    size = size + self._norm(detached(factor) * values)
            if source is not None:
                size = size + self._norm(detached(source))
        if self.by_products:
            part = part + _times(self._of_products, [mean for mean, _ in products])
            sizes = torch.stack(torch.broadcast_tensors(*(norm for _, norm in products)), dim=-1)
            size = size + (self._product_sizes * sizes).sum(-1)
        return torch.linalg.vector_norm(part, dim=-1), size

    @outside_transforms()
    def shares(self, products: Sequence[Tensor]) -> list[Share]:
        """Of the coefficients of all products."""
        chosen = [detached(products[place]) for place in self.products]
        return [(self.modes.mean(c), self._norm(c)) for c in chosen]

    def shares_of_pairs(self, pairs: Tensor, inputs: Sequence[Tensor]) -> list[Share]:
        """The same of products of two, which by Parseval's theorem need no transforms.

        Args:
            pairs: `(product, input, input)`, the numbers before products of two inputs, of every product that counts.
            inputs: coefficients of the inputs.
        """
        if not len(pairs):
            return []
        values = torch.stack(torch.broadcast_tensors(*inputs), dim=-1 - self.modes.dimension)
        real = torch.view_as_real(values).flatten(-1 - self.modes.dimension)
        means = (real * self._real_weights) @ real.mT
        sizes = means.diagonal(dim1=-2, dim2=-1).sqrt()
        sizes = sizes.unsqueeze(-1) * sizes.unsqueeze(-2)
        means, sizes = ((p * m.unsqueeze(-3)).sum((-2, -1)) for p, m in ((pairs, means), (pairs.abs(), sizes)))
        return list(zip(means.to(self._dtype).unbind(-1), sizes.unbind(-1), strict=True))

    @cached_property
    def _real_weights(self) -> Tensor:
        """Of real and imaginary parts."""
        return self.modes.weights.expand(self.modes.kept).flatten().repeat_interleave(2)

    def _norm(self, c: Tensor) -> Tensor:
        return torch.linalg.vector_norm(torch.view_as_real(c).flatten(-self.modes.dimension - 1), dim=-1)

    def unsolvable(self, channels: Sequence[Tensor], products: Sequence[Share]) -> Tensor:
        """Whether the constraints have no solution in the course of a run, `(*batch)`.

        Args:
            channels: coefficients of the unknowns.
            products: of those that count.
        """
        return drifted(*self._part_and_size(channels, products))

    def is_plainly_met(self, c: Tensor) -> bool:
        """Whether a quick look is enough to see that no row is `unsolvable`, on the CPU.

        Args:
            c: `(*rows, [channel,] *kept)`.
        """
        if not self._quick:
            return False
        values = c.numpy()
        zero = values[self._zero]
        if not self._several:
            if not zero.any():
                return True
            zero = zero[..., None]
        part = abs(zero @ self._matrix).sum(-1)
        if not part.any():
            return True
        real = values.reshape(*zero.shape, -1).view(self._real)
        size = numpy.sqrt(numpy.einsum("...i,...i->...", real, real))
        return bool((part <= self._rounding * (size @ self._weights)).all())

    def require(self, channels: Sequence[Tensor], products: Sequence[Share]) -> None:
        """Refuse coefficients from which the constraints have no solution at the beginning of a run.

        Raises:
            InputError: in that case.
        """
        require_balanced(*self._part_and_size(channels, products), self.names)

    def settled(self, c: Tensor) -> Tensor:
        """Coefficients without means that are rounding, `(*rows, [channel,] *kept)`: where all else decays they would
        stay, and exact zeros need no second look."""
        mean, size = self.modes.mean(detached(c)), self._norm(detached(c))
        rounding = mean.abs() <= 100 * torch.finfo(size.dtype).eps * size
        if self._several:
            rounding = rounding & (self._of_unknowns != 0).flatten(0, -2).any(0)
        first = torch.zeros(self.modes.kept, dtype=torch.bool, device=c.device)
        first.view(-1)[0] = True
        return torch.where(rounding.reshape(*rounding.shape, *[1] * self.modes.dimension) & first, 0.0, c)


def _times(matrix: Tensor, parts: Sequence[Tensor]) -> Tensor:
    return (matrix * torch.stack(torch.broadcast_tensors(*parts), dim=-1).unsqueeze(-2)).sum(-1)
