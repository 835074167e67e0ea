"""The boundary conditions of every unknown on a grid, and those of them whose values change in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..boundary import (
    Boundary,
    Neumann,
    Periodic,
    Robin,
    SideCondition,
    SidesByAxis,
    Stated,
    StatedByAxis,
    Unstated,
    override,
    split_by_unknown,
    suggestion,
)
from ..errors import InputError
from ..evolving import Time
from ..grid import Grid
from ..time_functions import clock, depends_on_time, time_derivative, value_at


@dataclass(frozen=True, eq=False)
class Conditions:
    """Conditions by unknown.

    Attributes:
        sides: unknown -> axis -> (lower, upper).
        walls: unknown -> the condition between fluid and solid cells; empty without solid cells.
    """

    sides: dict[str, StatedByAxis]
    walls: dict[str, SideCondition]


def read_conditions(grid: Grid, unknowns: Sequence[str], boundary: Boundary | None) -> Conditions:
    """The grid's conditions with those of a call put in their place.

    Raises:
        InputError: for names that are neither axes nor unknowns, or a change of what is periodic.
    """
    on_grid = split_by_unknown(grid.boundary, grid.axes) or {}
    in_call = None if boundary is None else split_by_unknown(boundary, grid.axes)
    for name in [*on_grid, *(in_call or {})]:
        if name not in unknowns:
            raise InputError(f"boundary: {name!r} is neither an axis nor an unknown{suggestion(name, unknowns)}")
    for name in grid.walls if isinstance(grid.walls, Mapping) else ():
        if name not in unknowns:
            raise InputError(f"walls: {name!r} is not an unknown{suggestion(name, unknowns)}")
    result = {}
    for unknown in unknowns:
        own = boundary if in_call is None else in_call.get(unknown)
        where = "boundary" if in_call is None else f"boundary[{unknown!r}]"
        sides = grid.sides(unknown)
        result[unknown] = _stated(sides if own is None else override(sides, own, where), unknown)
    walls = {} if grid.solid is None else {unknown: _wall_condition(grid, unknown) for unknown in unknowns}
    return Conditions(result, walls)


def _stated(sides: SidesByAxis, unknown: str) -> StatedByAxis:
    """The same, where something is stated on all sides."""
    found: StatedByAxis = {}
    for axis, (lower, upper) in sides.items():
        if isinstance(lower, Unstated) or isinstance(upper, Unstated):
            raise InputError(
                f"boundary: the grid does not state what holds for {unknown!r} at "
                f"{axis}_{'lower' if isinstance(lower, Unstated) else 'upper'}; give it by boundary=..., or, where the "
                "grid is that of a dataset whose values stand on the boundary, solve on the dataset's `domain`, whose "
                "unknowns stand between them"
            )
        found[axis] = (lower, upper)
    return found


def rates_of(unknowns: Sequence[str]) -> dict[str, str]:
    """Each unknown that is the rate of another by the name of that: {"u_t": "u"} for an equation of second order."""
    found: dict[str, str] = {}
    for before, name in pairwise(unknowns):
        if name == before + ("t" if before in found else "_t"):
            found[name] = before
    return found


def read_evolving_conditions(
    grid: Grid, unknowns: tuple[str, ...], constrained: tuple[str, ...], boundary: Boundary | None
) -> Conditions:
    """The same for an evolving equation: a rate u_t that is given none inherits those of u, differentiated in time.

    Raises:
        InputError: as `read_conditions`.
    """
    rates = rates_of(unknowns)
    tables = [table for table in (grid.boundary, boundary, grid.walls) if isinstance(table, Mapping)]
    named = {name for table in tables for name in table}
    asked = tuple(name for name in (*unknowns, *constrained) if name not in rates or name in named)
    known = read_conditions(grid, asked, boundary)
    sides: dict[str, StatedByAxis] = {}
    walls: dict[str, SideCondition] = {}
    for name in (*unknowns, *constrained):
        own = name in known.sides
        there = known.sides[name] if own else sides[rates[name]]
        sides[name] = there if own else {axis: (_rate(a, grid), _rate(b, grid)) for axis, (a, b) in there.items()}
        if known.walls:
            walls[name] = known.walls[name] if own else _rate(walls[rates[name]], grid)
    return Conditions(sides, walls)


def _rate(condition: Stated, grid: Grid) -> Any:
    """The condition on u_t that follows from one on u."""
    if isinstance(condition, Periodic):
        return condition
    value: Any = condition.flux if isinstance(condition, Neumann) else condition.value
    changed: Any = 0.0
    if depends_on_time(value, grid.dimension, "a boundary value"):
        changed = time_derivative(value, "a boundary value")
    if isinstance(condition, Robin):
        return replace(condition, value=changed)
    return type(condition)(changed)


@dataclass(frozen=True, eq=False)
class Moving:
    """A field, or a value on a wall, that is a function of the coordinates and of time.

    Args:
        name: for messages.
        function: of the coordinates and t.
        places: the coordinates it is called with.
        axis: where the result gets an axis of length 1, counted from the end; None for nowhere.
    """

    name: str
    function: Callable[..., Any]
    places: tuple[Tensor, ...]
    axis: int | None = None
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.places[0].shape))

    def at(self, t: Time) -> Tensor:
        """The value at a time, `(*batch, *space)` or what broadcasts to it.

        Raises:
            InputError: for a value of another shape, dtype or device, or with rows that the times do not have.
        """
        place, count = self.places[0], len(self.shape)
        now = clock(t, count, place.device)
        value = value_at(self.function, self.places, now)
        if not isinstance(value, Tensor):
            value = torch.as_tensor(value, dtype=place.dtype, device=place.device)
        if value.dtype != place.dtype or value.device != place.device:
            raise InputError(
                f"{self.name} is of {value.dtype} on {value.device} at t = {t}, the grid of {place.dtype} on "
                f"{place.device}; the function must return that of its coordinates"
            )
        value = value.reshape((1,) * (count - value.ndim) + tuple(value.shape))
        lengths = value.shape[value.ndim - count :]
        if any(length not in (1, n) for length, n in zip(lengths, self.shape, strict=True)):
            raise InputError(
                f"{self.name} has shape {tuple(value.shape)} at t = {t}, expected one that broadcasts to "
                f"(*batch, *{self.shape})"
            )
        if now.ndim and not _broadcasts_to(value.shape[: value.ndim - count], now.shape[: now.ndim - count]):
            raise InputError(
                f"{self.name} has shape {tuple(value.shape)} where rows have times of their own, which come in the "
                f"shape {tuple(now.shape)}: the function must compute row by row, or take control='joint'"
            )
        return value if self.axis is None else value.unsqueeze(self.axis)


def _broadcasts_to(shape: Sequence[int], rows: Sequence[int]) -> bool:
    return len(shape) <= len(rows) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(rows), strict=False))


def _wall_condition(grid: Grid, unknown: str) -> SideCondition:
    if not isinstance(grid.walls, Mapping):
        return grid.walls
    if unknown not in grid.walls:
        raise InputError(f"the grid's walls are given for {', '.join(grid.walls)}, and not for the unknown {unknown!r}")
    return grid.walls[unknown]


MovingValues = dict[tuple[str, int, int, bool], Moving]
"""By unknown, axis, side and whether it stands on the walls of solid cells."""


def split_moving(conditions: Conditions, grid: Grid) -> tuple[Conditions, MovingValues]:
    """The conditions with zeros of the right shape in place of values that change in time, and these values.

    Raises:
        InputError: for Robin coefficients that change in time.
    """
    found: MovingValues = {}

    def still(condition: Any, unknown: str, axis: int, side: int, solid: bool) -> Any:
        if isinstance(condition, Periodic):
            return condition
        what = "walls" if solid else f"{grid.axes[axis]}_{('lower', 'upper')[side]}"
        where = f"boundary {what}, {type(condition).__name__} value"
        value: Any = condition.flux if isinstance(condition, Neumann) else condition.value
        if isinstance(condition, Robin) and depends_on_time(condition.coefficient, grid.dimension, where):
            raise InputError(
                f"boundary {what}: the coefficient of Robin(coefficient, value) depends on time, and so would the "
                "operator; in this version only the value may"
            )
        if not depends_on_time(value, grid.dimension, where):
            return condition
        faces = grid.face_coordinates(axis)
        if solid:
            moving = Moving(where, value, tuple(c.narrow(axis, side, grid.shape[axis]) for c in faces))
        else:
            chosen = tuple(c.select(axis, -1 if side else 0) for c in faces)
            moving = Moving(where, value, chosen, axis - grid.dimension)
        found[unknown, axis, side, solid] = moving
        zero = torch.zeros_like(moving.at(0.0).detach())
        zero = zero if solid else zero.squeeze(axis - grid.dimension)
        return replace(condition, flux=zero) if isinstance(condition, Neumann) else replace(condition, value=zero)

    sides = {
        unknown: {
            name: (still(lower, unknown, axis, 0, False), still(upper, unknown, axis, 1, False))
            for axis, (name, (lower, upper)) in enumerate(by_axis.items())
        }
        for unknown, by_axis in conditions.sides.items()
    }
    walls = {}
    for unknown, condition in conditions.walls.items():
        for axis in range(grid.dimension):
            for side in (0, 1):
                walls[unknown] = still(condition, unknown, axis, side, True)
    return Conditions(sides, walls), found
