"""Collects the terms of one block of the system and makes a stencil operator of them."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from ..grid import Grid
from ..kernels.stencil import broadcast
from ..linear_operator import Kind
from ..stencil import StencilOperator
from .inputs import Number

Offset = tuple[int, ...]


class StencilBuilder:
    """The sum of coefficient(i) u(i + offset) under construction.

    Coefficients of one offset are added up where the sum is no larger than the larger of them, and kept apart
    otherwise: the diagonal of a constant-coefficient Laplacian is one vector an axis, never a full field.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.centre: Offset = (0,) * grid.dimension
        self._numbers: dict[Offset, float] = defaultdict(float)
        self._tensors: dict[Offset, list[Tensor]] = defaultdict(list)

    def along(self, axis: int, distance: int) -> Offset:
        """The offset of a neighbour on an axis."""
        return tuple(distance if k == axis else 0 for k in range(self.grid.dimension))

    def add(self, offset: Offset, coefficient: Number) -> None:
        """Add coefficient(i) u(i + offset)."""
        if not isinstance(coefficient, Tensor):
            self._numbers[offset] += coefficient
            return
        kept = []
        for term in self._tensors[offset]:
            shape = broadcast(term.shape, coefficient.shape)
            if shape in (term.shape, coefficient.shape):
                coefficient = coefficient + term
            else:
                kept.append(term)
        self._tensors[offset] = [*kept, coefficient]

    def scaled(self, factor: float) -> StencilBuilder:
        """The sum times a number."""
        result = StencilBuilder(self.grid)
        for offset, number in self._numbers.items():
            result._numbers[offset] = number * factor
        for offset, tensors in self._tensors.items():
            result._tensors[offset] = [tensor * factor for tensor in tensors]
        return result

    def diagonal_block(
        self, *, symmetric: bool, null_space: Tensor | None = None, kind: Kind = Kind.LINEAR
    ) -> StencilOperator:
        """The operator of an unknown on itself: the identity in solid cells."""
        terms = self._terms(in_solid=1.0)
        if not terms[self.centre]:
            terms[self.centre] = [self._constant(0.0)]
        return self._operator(terms, symmetric=symmetric, null_space=null_space, kind=kind)

    def coupling_block(self) -> StencilOperator | None:
        """The operator of another unknown: 0 in solid cells; None if there are no terms."""
        terms = self._terms(in_solid=0.0)
        return self._operator(terms) if any(terms.values()) else None

    def _terms(self, in_solid: float) -> dict[Offset, list[Tensor]]:
        terms = defaultdict(list, {offset: list(tensors) for offset, tensors in self._tensors.items()})
        for offset, number in self._numbers.items():
            if number:
                tensors = terms[offset]
                tensors.sort(key=lambda tensor: -tensor.numel())
                tensors.append(tensors.pop() + number if tensors else self._constant(number))
        if self.grid.solid is not None and terms[self.centre]:
            total = sum(terms[self.centre][1:], start=terms[self.centre][0])
            terms[self.centre] = [torch.where(self.grid.solid, in_solid, total)]
        return terms

    def _operator(
        self,
        terms: dict[Offset, list[Tensor]],
        *,
        symmetric: bool = False,
        null_space: Tensor | None = None,
        kind: Kind = Kind.LINEAR,
    ) -> StencilOperator:
        pairs = [(offset, tensor) for offset, tensors in terms.items() for tensor in tensors]
        offsets, coefficients = zip(*pairs, strict=True)
        grid = self.grid
        return StencilOperator(
            grid.shape, offsets, coefficients, grid.periodic, symmetric=symmetric, null_space=null_space, kind=kind
        )

    def _constant(self, number: float) -> Tensor:
        return torch.full((1,) * self.grid.dimension, number, dtype=self.grid.dtype, device=self.grid.device)
