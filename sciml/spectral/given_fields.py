"""Coefficient fields of a spectral discretization, on the grid where products are formed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from math import pi
from typing import Any

import torch
from torch import Tensor

from ..discretization.conditions import Moving
from ..discretization.inputs import resolve_field
from ..equations import Equation
from ..errors import InputError
from ..evolving import Time
from ..given import Number, require_names
from ..grid import Grid
from ..time_functions import depends_on_time
from .modes import Modes
from .plan import given_factor


def split_by_time(given: Mapping[str, Any], equation: Equation, dimension: int) -> frozenset[str]:
    """The names of the fields that are functions of the coordinates and t.

    Raises:
        InputError: for a name too many or missing, or a function of t that takes too few coordinates.
    """
    require_names(given, equation.coefficients)
    return frozenset(name for name, value in given.items() if depends_on_time(value, dimension, f"field {name!r}"))


class GivenFields:
    """The values of given fields, of their derivatives, of coordinates and parameters by name.

    What does not depend on time is formed at once, so that it is formed with the derivatives that the data carry.

    Args:
        given: as the caller gave them; functions that take t too depend on time.
        varying: the names of those.
        resolved: the others on the grid of the problem.
        parameters: floats or tensors `(*batch, 1, ..., 1)`.
        modes: the modes kept.
        equation: the equation.
        wanted: the names whose values will be asked for.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        varying: frozenset[str],
        resolved: Mapping[str, Number],
        parameters: Mapping[str, Number],
        modes: Modes,
        equation: Equation,
        wanted: Iterable[str],
    ) -> None:
        self.given = given
        self.resolved = resolved
        self.parameters = parameters
        self.modes = modes
        self.equation = equation
        self.moving = {name: Moving(f"field {name!r}", given[name], self.coordinates) for name in sorted(varying)}
        self._steady: dict[str, Number] = {}
        for name in sorted(set(wanted) - {"t", *parameters, *equation.coordinates}):
            field, order = self._factor(name)
            if field not in varying:
                self._steady[name] = self._differentiated(self._on_fine(field), order)

    def samples(self) -> dict[str, Number]:
        """What the functions of time give at t = 0, for its shape; without those that have no value there."""
        found: dict[str, Number] = {}
        for name, moving in self.moving.items():
            try:
                with torch.no_grad():
                    found[name] = moving.at(0.0)
            except InputError:
                raise
            except (ArithmeticError, ValueError):
                continue
        return found

    def values(self, names: set[str], t: Time | None) -> dict[str, Number]:
        """The value of every name on the finer grid; t None where nothing may depend on time."""
        found: dict[str, Number] = {}
        fields: dict[str, Tensor] = {}
        for name in names:
            if name == "t":
                found[name] = self._number(t)
            elif name in self.parameters:
                found[name] = self.parameters[name]
            elif name in self.equation.coordinates:
                found[name] = self.coordinates[self.equation.coordinates.index(name)]
            elif name in self._steady:
                found[name] = self._steady[name]
            else:
                field, order = self._factor(name)
                if field not in fields:
                    fields[field] = self.moving[field].at(_known(t))
                found[name] = self._differentiated(fields[field], order)
        return found

    def _number(self, t: Time | None) -> Number:
        """t, of rows with their own times as `(*batch, 1, ..., 1)`."""
        t = _known(t)
        if isinstance(t, Tensor):
            return t.reshape(*t.shape, *[1] * self.modes.dimension)
        return float(t)

    @cached_property
    def coordinates(self) -> tuple[Tensor, ...]:
        """Of the finer grid, one tensor of its shape an axis."""
        return self._fine_grid.coordinates

    @cached_property
    def _fine_grid(self) -> Grid:
        grid = self.modes.grid
        if self.modes.fine == grid.shape:
            return grid
        return Grid(self.modes.fine, grid.lower, grid.upper, dict(grid.sides()), device=grid.device, dtype=grid.dtype)

    def _factor(self, name: str) -> tuple[str, tuple[int, ...]]:
        """The field, and how often it is differentiated along each axis."""
        field, order, in_time = given_factor(name, self.equation.coordinates[: self.modes.dimension], self.equation)
        if in_time:
            raise InputError(f"'{name}', the rate of a given field, is not formed: give it as a field of its own")
        return field, order

    def _on_fine(self, field: str) -> Number:
        value = self.given[field]
        if self.modes.fine == self.modes.shape:
            return self.resolved[field]
        if not isinstance(value, Tensor) and callable(value):
            return resolve_field(value, self._fine_grid, f"field {field!r}")
        value = self.resolved[field]
        if isinstance(value, Tensor):
            for axis, length in enumerate(self.modes.fine):
                value = _resampled(value, axis - self.modes.dimension, length)
        return value

    def _differentiated(self, value: Number, order: tuple[int, ...]) -> Number:
        if not any(order):
            return value
        if not isinstance(value, Tensor):
            return 0.0
        for axis, count in enumerate(order):
            length = self.modes.grid.upper[axis] - self.modes.grid.lower[axis]
            value = _derivative(value, axis - self.modes.dimension, length, count) if count else value
        return value


def _known(t: Time | None) -> Time:
    if t is None:
        raise InputError("a part that depends on time was taken for one that does not")
    return t


def _resampled(values: Tensor, dim: int, length: int) -> Tensor:
    """Trigonometric interpolation along one axis onto more points; a broadcast axis stays as it is."""
    count = values.shape[dim]
    if count in (1, length):
        return values
    c = torch.fft.fft(values, dim=dim, norm="forward")
    half = (count - 1) // 2
    parts = [c.narrow(dim, 0, half + 1)]
    size = list(c.shape)
    if count % 2 == 0:
        middle = c.narrow(dim, count // 2, 1) / 2
        size[dim] = length - count - 1
        parts += [middle, c.new_zeros(size), middle]
    else:
        size[dim] = length - count
        parts.append(c.new_zeros(size))
    parts.append(c.narrow(dim, count - half, half))
    return torch.fft.ifft(torch.cat(parts, dim=dim), dim=dim, norm="forward").real.to(values.dtype)


def _derivative(values: Tensor, dim: int, length: float, count: int) -> Tensor:
    """A derivative along one axis through the whole Fourier series."""
    points = values.shape[dim]
    if points == 1:
        return torch.zeros_like(values)
    numbers = torch.fft.fftfreq(points, 1 / points, dtype=values.dtype, device=values.device)
    if count % 2:
        numbers = torch.where(2 * numbers.abs() == points, 0.0, numbers)
    symbol = (2j * pi / length * numbers) ** count
    shape = [1] * values.ndim
    shape[dim] = points
    return torch.fft.ifft(torch.fft.fft(values, dim=dim) * symbol.reshape(shape), dim=dim).real
