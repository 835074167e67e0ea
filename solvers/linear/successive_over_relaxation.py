"""What SOR and SSOR share: the splitting A = L + D + U, in the natural order of the unknowns or colour after colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sciml.linear_operator import LinearOperator

from .colouring import colouring
from .inverse import Entries
from .settings import check_number, check_word
from .triangular import Triangle, triangle

Ordering = Literal["natural", "multicolour"]


@dataclass(frozen=True)
class Splitting:
    """The matrix of all rows of an operator's batch, its unknowns in the order in which they are relaxed.

    Attributes:
        entries: the matrix in that order.
        diagonal: D, `(size,)`.
        order: index of each unknown in the operator's own order; None if it is the same.
        bounds: where the colours begin and end; None in natural order.
    """

    entries: Entries
    diagonal: Tensor
    order: Tensor | None
    bounds: tuple[int, ...] | None

    @staticmethod
    def of(operator: LinearOperator, ordering: Ordering) -> Splitting:
        """The splitting of an operator."""
        entries = Entries.of(operator)
        order = bounds = None
        if ordering == "multicolour":
            colours, order = torch.sort(colouring(operator, entries), stable=True)
            counts = torch.bincount(colours)
            bounds = (0, *counts.cumsum(0).tolist())
            place = torch.empty_like(order)
            place[order] = torch.arange(entries.size, device=order.device)
            entries = Entries.from_places(place[entries.rows], place[entries.columns], entries.values, entries.size)
        return Splitting(entries, entries.diagonal(), order, bounds)

    def lower(self, relaxation: float) -> Triangle:
        """D / relaxation + L."""
        return self._triangle(self.entries.rows >= self.entries.columns, relaxation, upper=False)

    def upper(self, relaxation: float) -> Triangle:
        """D / relaxation + U."""
        return self._triangle(self.entries.rows <= self.entries.columns, relaxation, upper=True)

    def _triangle(self, kept: Tensor, relaxation: float, upper: bool) -> Triangle:
        part = self.entries.select(kept)
        on = part.rows == part.columns
        relaxed = part.with_values(torch.where(on, part.values / relaxation, part.values))
        return triangle(relaxed, upper=upper, bounds=self.bounds)

    def in_own_order(self, solve: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A solve in the order of relaxation as one in the operator's own order."""
        order = self.order
        if order is None:
            return solve

        def reordered(b: Tensor) -> Tensor:
            x = torch.empty_like(b)
            x[order] = solve(b[order])
            return x

        return reordered


def check_relaxation(relaxation: float, ordering: str, method: str) -> None:
    """Refuse settings out of range."""
    check_number(relaxation, f"{method}: relaxation", 0.0, 2.0)
    check_word(ordering, f"{method}: ordering", get_args(Ordering))
