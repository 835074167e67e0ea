"""The closed faces of a grid: sides of the box, and faces between fluid and solid cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..grid import Grid
from ..kernels.stencil import broadcast
from .inputs import Number


@dataclass(frozen=True, eq=False)
class Slab:
    """The cells of one row across an axis."""

    axis: int
    row: int
    dimension: int

    def take(self, field: Number) -> Number:
        """The field there, with length 1 along the axis."""
        dim = self.axis - self.dimension
        if isinstance(field, Tensor) and field.shape[dim] > 1:
            return field.narrow(dim, self.row, 1)
        return field

    def put(self, target: Tensor, amount: Number) -> Tensor:
        """`target` with `amount` added there: in place, unless it has to grow to hold the amount."""
        dim = self.axis - self.dimension
        if isinstance(amount, Tensor):
            inside = amount.ndim == target.ndim and all(map(_fits, amount.shape, target.shape))
            shape = target.shape if inside else broadcast(target.shape, amount.shape)
            if shape != target.shape:
                target = target.expand(shape).clone(memory_format=torch.contiguous_format)
        elif not amount:
            return target
        target.narrow(dim, self.row, 1).add_(amount)
        return target

    def mark(self, mask: Tensor) -> Tensor:
        """`mask` with True there, in place."""
        mask.select(self.axis, self.row).fill_(True)
        return mask


@dataclass(frozen=True, eq=False)
class Scattered:
    """The cells of a bool mask of the grid's shape."""

    mask: Tensor

    def take(self, field: Number) -> Number:
        """The field where the mask is True, and 1 elsewhere, where what is made of it is not used."""
        return torch.where(self.mask, field, 1.0) if isinstance(field, Tensor) else field

    def put(self, target: Tensor, amount: Number) -> Tensor:
        """A new tensor: `target` with `amount` added where the mask is True."""
        if not isinstance(amount, Tensor) and not amount:
            return target
        return torch.where(self.mask, target + amount, target)

    def mark(self, mask: Tensor) -> Tensor:
        """A new mask with True there too."""
        return mask | self.mask


@dataclass(frozen=True, eq=False)
class Everywhere:
    """All cells."""

    def take(self, field: Number) -> Number:
        """The field itself."""
        return field

    def put(self, target: Tensor, amount: Number) -> Tensor:
        """A new tensor: `target` with `amount` added."""
        return target + amount

    def mark(self, mask: Tensor) -> Tensor:
        """A mask that is True in every cell."""
        return torch.ones_like(mask)


def _fits(length: int, available: int) -> bool:
    return length in (1, available)


Place = Slab | Scattered | Everywhere
Right = list[tuple[Place, Number]]
"""What boundary values contribute to the right side, and where."""
Kind = Literal["dirichlet", "neumann", "robin"]


@dataclass(frozen=True, eq=False)
class Wall:
    """Closed faces on one side of the cells of `place`, with their condition on one unknown.

    Attributes:
        name: name of the boundary, as in `Grid.boundaries`.
        axis, side: the faces lie across `axis`, below (0) or above (1) their cells.
        coefficient, value: those of Robin's condition a du/dn + coefficient u = value; the value or flux of the others.
    """

    name: str
    axis: int
    side: int
    place: Place
    spacing: float
    kind: Kind
    coefficient: Number
    value: Number

    @property
    def outward(self) -> float:
        """Sign of the outward normal along the axis."""
        return 1.0 if self.side else -1.0

    def take(self, field: Number) -> Number:
        """The field in the cells at the wall."""
        return self.place.take(field)

    def flux(self, a: Number) -> tuple[Number, Number]:
        """(r, s) with a du/dn = r - s u, u being the value in the cell half a spacing inside and a its coefficient.

        The value on the face, u + h/2 du/dn, is eliminated from the condition; second order for every kind.
        """
        if self.kind == "neumann":
            return self.value, 0.0
        if self.kind == "dirichlet":
            s = 2.0 / self.spacing * a
            return s * self.value, s
        divisor = self._divisor(a)
        return 2.0 * a * self.value / divisor, 2.0 * a * self.coefficient / divisor

    def slope(self, a: Number) -> tuple[Number, Number]:
        """(r, s) with du/dn = r - s u."""
        if self.kind == "neumann":
            return self._over(a), 0.0
        if self.kind == "dirichlet":
            return 2.0 / self.spacing * self.value, 2.0 / self.spacing
        divisor = self._divisor(a)
        return 2.0 * self.value / divisor, 2.0 * self.coefficient / divisor

    def _over(self, a: Number) -> Number:
        """value / a, and exactly 0.0 for a value of 0.0, even where a is 0."""
        if isinstance(self.value, float) and self.value == 0.0:
            return 0.0
        if has_zero(a):
            raise InputError(f"{self.name}: a flux is given where the coefficient of du/dn is 0")
        return self.value / a

    def _divisor(self, a: Number) -> Number:
        divisor = 2.0 * a + self.spacing * self.coefficient
        if has_zero(divisor):
            raise InputError(
                f"{self.name}: Robin(coefficient) is -2 a/h somewhere, which leaves u on the face undetermined"
            )
        return divisor


def has_zero(value: Number) -> bool:
    """Whether a value to divide by is 0 somewhere."""
    return bool((value == 0.0).any()) if isinstance(value, Tensor) else value == 0.0


class Geometry:
    """Which faces of a grid are open, that is, have an unknown on either side."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._open: dict[int, tuple[Number, Number]] = {}
        self._open_faces: dict[int, Tensor] = {}

    def open(self, axis: int, side: int) -> Number:
        """1 where the face on a side of a cell is open, else 0; it broadcasts to the grid's shape (1.0: all open)."""
        if axis not in self._open:
            self._open[axis] = self._find_open(axis)
        return self._open[axis][side]

    def open_faces(self, axis: int) -> Tensor:
        """The same by face, with n + 1 places along the axis; for grids with solid cells."""
        if axis not in self._open_faces:
            below, above = self._beside_faces(self.fluid, axis)
            self._open_faces[axis] = (below & above).to(self.grid.dtype)
        return self._open_faces[axis]

    def touches_solid(self, axis: int, side: int) -> Tensor:
        """Bool by cell: fluid, with a solid neighbour on that side; for grids with solid cells."""
        neighbours = self._beside_faces(~self.fluid, axis)[side]
        return self.fluid & neighbours.narrow(axis, side, self.grid.shape[axis])

    @cached_property
    def fluid(self) -> Tensor:
        """Bool by cell."""
        grid = self.grid
        return ~grid.solid if grid.solid is not None else torch.ones(grid.shape, dtype=torch.bool, device=grid.device)

    def _find_open(self, axis: int) -> tuple[Number, Number]:
        grid, n = self.grid, self.grid.shape[axis]
        if grid.solid is not None:
            faces = self.open_faces(axis)
            return faces.narrow(axis, 0, n), faces.narrow(axis, 1, n)
        if grid.periodic[axis]:
            return 1.0, 1.0
        faces = torch.ones(n + 1, dtype=grid.dtype, device=grid.device)
        faces[0] = faces[n] = 0.0
        faces = faces.reshape([-1 if k == axis else 1 for k in range(grid.dimension)])
        return faces.narrow(axis, 0, n), faces.narrow(axis, 1, n)

    def _beside_faces(self, mask: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """A bool field below and above each of the n + 1 faces, False beyond the box."""
        n = self.grid.shape[axis]
        first, last = mask.narrow(axis, 0, 1), mask.narrow(axis, n - 1, 1)
        if not self.grid.periodic[axis]:
            first = last = torch.zeros_like(first)
        extended = torch.cat([last, mask, first], dim=axis)
        return extended.narrow(axis, 0, n + 1), extended.narrow(axis, 1, n + 1)
