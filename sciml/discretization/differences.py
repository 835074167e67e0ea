"""Difference formulas of any order on point values, with polynomial closures of fourth order at walls."""

from __future__ import annotations

import itertools
from collections import defaultdict
from fractions import Fraction
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from ..errors import InputError
from ..grid import Grid
from .builder import StencilBuilder
from .inputs import Number
from .walls import Right, Slab, Wall, has_zero
from .weights import central_weights, derivative_weights

_CELLS = 4
_NODES = tuple(Fraction(2 * i + 1, 2) for i in range(_CELLS))


def varies(value: Number, axis: int, dimension: int) -> bool:
    """Whether the value has more than one entry along an axis."""
    return isinstance(value, Tensor) and value.shape[axis - dimension] > 1


def differentiate(value: Number, grid: Grid, axis: int, order: int, accuracy: int, name: str) -> Number:
    """The derivative of a coefficient along an axis: central inside, one-sided of the same accuracy at walls.

    Raises:
        InputError: if the axis has too few cells for it.
    """
    if not varies(value, axis, grid.dimension) or not isinstance(value, Tensor):
        return 0.0
    dim, n = axis - grid.dimension, grid.shape[axis]
    central = central_weights(order, accuracy)
    scale = grid.spacing[axis] ** -order
    if grid.periodic[axis]:
        return torch.stack([value.roll(-o, dims=dim) * (w * scale) for o, w in central]).sum(0)
    reach, width = central[-1][0], order + accuracy
    if n < width:
        raise InputError(f"{name}: its derivative needs at least {width} cells along {grid.axes[axis]}, there are {n}")
    interior = n - 2 * reach
    inside = [value.narrow(dim, reach + o, interior) * (w * scale) for o, w in central]
    lower: list[Tensor] = []
    upper: list[Tensor] = []
    for row in range(reach):
        weights = derivative_weights(tuple(range(width)), order, at=row)
        sign = (-1) ** order
        near = [value.narrow(dim, j, 1) * (w * scale) for j, w in enumerate(weights)]
        far = [value.narrow(dim, n - 1 - j, 1) * (sign * w * scale) for j, w in enumerate(weights)]
        lower.append(torch.stack(near).sum(0))
        upper.insert(0, torch.stack(far).sum(0))
    return torch.cat([*lower, torch.stack(inside).sum(0), *upper], dim=dim)


def difference(
    builder: StencilBuilder, factor: Number, derivative: tuple[int, ...], accuracy: int, shift: tuple[int, ...] = ()
) -> None:
    """Add factor(i) (D^derivative u)(i + shift) on periodic axes: products of central differences."""
    grid = builder.grid
    shift = shift or builder.centre
    axes = [central_weights(order, accuracy) for order in derivative]
    scale = prod(h**-order for h, order in zip(grid.spacing, derivative, strict=True))
    for choice in itertools.product(*axes):
        offset = tuple(s + o for s, (o, _) in zip(shift, choice, strict=True))
        builder.add(offset, factor * (scale * prod(w for _, w in choice)))


def flux_difference(
    builder: StencilBuilder, outer: Number, inner: Tensor, axis: int, derivative: tuple[int, ...], accuracy: int
) -> None:
    """Add outer d/dx_axis(inner D^derivative u) on periodic axes: one central difference of another, conservative."""
    dim = axis - builder.grid.dimension
    for distance, weight in central_weights(1, accuracy):
        factor = outer * inner.roll(-distance, dims=dim) * (weight / builder.grid.spacing[axis])
        difference(builder, factor, derivative, accuracy, builder.along(axis, distance))


def difference_up_to_walls(
    builder: StencilBuilder,
    right: Right,
    factor: Number,
    axis: int,
    order: int,
    walls: list[tuple[Wall, WallPolynomial]],
) -> None:
    """Add factor d^order u/dx_axis^order by fourth-order differences whose ghosts come from the walls' polynomials.

    A row at a wall gets the ghosts' weights on the four nearest cells added to its own, and their share of the boundary
    datum goes to the right side.
    """
    grid, n = builder.grid, builder.grid.shape[axis]
    scale = grid.spacing[axis] ** -order
    base = {o: w * scale for o, w in central_weights(order, 4)}
    corrections: dict[int, dict[int, Number]] = defaultdict(dict)
    for wall, polynomial in walls:
        inward = -1 if wall.side else 1
        for depth in range(max(base)):
            slab = Slab(axis, n - 1 - depth if wall.side else depth, grid.dimension)
            for offset, weight in base.items():
                ghost = -(depth + offset * inward)
                if ghost <= 0:
                    continue
                shares, datum = polynomial.ghost(ghost)
                for cell, share in enumerate(shares):
                    rows = corrections[(cell - depth) * inward]
                    rows[slab.row] = rows.get(slab.row, 0.0) + share * weight
                right.append((slab, -(slab.take(factor) * (datum * weight))))
    for offset in sorted(base.keys() | corrections.keys()):
        constant = base.get(offset, 0.0)
        profile: Number = constant
        if offset in corrections:
            shape = [n if k == axis else 1 for k in range(grid.dimension)]
            profile = torch.full(shape, constant, dtype=grid.dtype, device=grid.device)
            for row, amount in corrections[offset].items():
                profile = Slab(axis, row, grid.dimension).put(profile, amount)
        builder.add(builder.along(axis, offset), factor * profile)


def extrapolated(value: Number, wall: Wall, grid: Grid) -> Number:
    """A coefficient on a side of the box, to fourth order from the four nearest cells."""
    if not varies(value, wall.axis, grid.dimension):
        return value
    weights = derivative_weights(_NODES, 0)
    return sum(cells.take(value) * weight for cells, weight in zip(nearest_cells(wall, grid), weights, strict=True))


def nearest_cells(wall: Wall, grid: Grid) -> list[Slab]:
    """The four rows of cells nearest to a side of the box, nearest first."""
    n = grid.shape[wall.axis]
    return [Slab(wall.axis, n - 1 - k if wall.side else k, grid.dimension) for k in range(_CELLS)]


class WallPolynomial:
    """The quartic through the four cells nearest to a wall that meets the wall's condition on the face.

    With xi the distance from the face in spacings, it is p(xi) = I(xi) + c omega(xi), I the interpolant of the four
    cells and omega the monic polynomial that vanishes at them; a du/dn + alpha u = v on the face gives c. Any linear
    functional of p is then sum_l w_l u_l + d v.
    """

    def __init__(self, wall: Wall, a: Number) -> None:
        self._wall = wall
        dirichlet = wall.kind == "dirichlet"
        self._slope: Number = 0.0 if dirichlet else a / wall.spacing
        self._value: Number = 1.0 if dirichlet else wall.coefficient

    def ghost(self, distance: int) -> tuple[list[Number], Number]:
        """Weights on the cells, and datum, of the ghost at `distance` = 1, 2, ... beyond the face."""
        return self._functional(*_at(Fraction(1 - 2 * distance, 2), 0))

    def face_value(self) -> tuple[list[Number], Number]:
        """Weights and datum of u on the face."""
        return self._functional(*_at(Fraction(0), 0))

    def normal_derivative(self) -> tuple[list[Number], Number]:
        """Weights and datum of du/dn on the face."""
        weights, datum = self._functional(*_at(Fraction(0), 1))
        return [-w / self._wall.spacing for w in weights], -datum / self._wall.spacing

    def _functional(self, shares: tuple[float, ...], omega: float) -> tuple[list[Number], Number]:
        (values, omega_value), (inward, omega_inward) = _at(Fraction(0), 0), _at(Fraction(0), 1)
        divisor = omega_value * self._value - omega_inward * self._slope
        if has_zero(divisor):
            raise InputError(f"{self._wall.name}: the coefficients of the condition leave u on the face undetermined")
        ratio = omega / divisor
        weights: list[Number] = [
            share - ratio * (value * self._value - slope * self._slope)
            for share, value, slope in zip(shares, values, inward, strict=True)
        ]
        return weights, ratio * self._wall.value


@lru_cache(maxsize=64)
def _at(place: Fraction, order: int) -> tuple[tuple[float, ...], float]:
    """Derivative of `order` at a place of the four Lagrange polynomials of the cells, and of omega."""
    if order == 0:
        omega = prod((place - node for node in _NODES), start=Fraction(1))
    else:
        omega = sum(
            (prod((place - other for other in _NODES if other != node), start=Fraction(1)) for node in _NODES),
            start=Fraction(0),
        )
    return derivative_weights(_NODES, order, at=place), float(omega)
