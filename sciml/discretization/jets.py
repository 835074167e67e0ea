"""Derivatives of an unknown in the cells as affine maps of its values, by the formulas of the linear scheme."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..stencil import StencilOperator
from .assembly import Assembly
from .builder import Offset, StencilBuilder
from .inputs import Number
from .problem import Piece
from .walls import Right

Side = Literal["central", "backward", "forward"]


@dataclass(frozen=True, eq=False)
class JetMap:
    """D^order of an unknown: `operator` applied to its values, plus what boundary values contribute.

    `operator` is None where the derivative is the boundary's share alone.
    """

    unknown: str
    order: tuple[int, ...]
    operator: StencilOperator | None
    datum: Number

    def apply(self, value: Tensor) -> Number:
        """The derivative in the cells."""
        return self.datum if self.operator is None else self.operator.apply(value) + self.datum

    def entries(self) -> Iterator[tuple[Offset, Tensor]]:
        """Offsets and coefficients of the linear part."""
        if self.operator is not None:
            yield from zip(self.operator.offsets, self.operator.coefficients, strict=True)


def jet_map(assembly: Assembly, unknown: str, order: tuple[int, ...], side: Side = "central") -> JetMap:
    """The derivative as the scheme takes it; one-sided of the first order for a first derivative.

    Raises:
        InputError: for mixed and higher derivatives at walls.
    """
    grid = assembly.problem.grid
    builder = StencilBuilder(grid)
    right: Right = []
    sign = -1.0 if side == "forward" else 1.0
    assembly.add(builder, right, unknown, Piece(sign, order), upwind=side != "central")
    operator = builder.coupling_block()
    datum: Number = 0.0
    if right:
        total = torch.zeros(grid.shape, dtype=grid.dtype, device=grid.device)
        for place, amount in right:
            total = place.put(total, -sign * amount)
        datum = total if grid.solid is None else torch.where(grid.solid, 0.0, total)
    return JetMap(unknown, order, operator.negated() if operator is not None and sign < 0 else operator, datum)
