"""Coefficient fields of a spectral discretization, on the grid where products are formed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from math import pi
from typing import Any

import torch
from torch import Tensor

from ..discretization.inputs import resolve_field
from ..equations import Equation
from ..errors import InputError
from ..evolving import Time
from ..given import Number, call, check_value, require_names
from ..grid import Grid
from .modes import Modes
from .plan import given_factor


def split_by_time(given: Mapping[str, Any], equation: Equation, dimension: int) -> frozenset[str]:
    """The names of the fields that are functions of the coordinates and t.

    Raises:
        InputError: for a name too many or missing.
    """
    require_names(given, equation.coefficients)
    return frozenset(
        name for name, value in given.items() if takes(value, dimension + 1) and not takes(value, dimension)
    )


def takes(value: Any, count: int) -> bool:
    """Whether it is a function that can be called with that many arguments."""
    if isinstance(value, Tensor) or not callable(value):
        return False
    try:
        inspect.signature(value).bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True


class GivenFields:
    """The values of given fields, of their derivatives, of coordinates and parameters by name.

    Args:
        given: as the caller gave them; functions that take t too depend on time.
        varying: the names of those.
        resolved: the others on the grid of the problem.
        parameters: floats or tensors `(*batch, 1, ..., 1)`.
        modes: the modes kept.
        equation: the equation.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        varying: frozenset[str],
        resolved: Mapping[str, Number],
        parameters: Mapping[str, Number],
        modes: Modes,
        equation: Equation,
    ) -> None:
        self.given = given
        self.varying = varying
        self.resolved = resolved
        self.parameters = parameters
        self.modes = modes
        self.equation = equation
        self._steady: dict[str, Number] = {}

    def values(self, names: set[str], t: Time | None) -> dict[str, Number]:
        """The value of every name on the finer grid; t None where nothing may depend on time."""
        found: dict[str, Number] = {}
        fields: dict[str, Number] = {}
        for name in names:
            if name == "t":
                found[name] = self.time(t)
            elif name in self.parameters:
                found[name] = self.parameters[name]
            elif name in self.equation.coordinates:
                found[name] = self.coordinates[self.equation.coordinates.index(name)]
            else:
                found[name] = self._field(name, t, fields)
        return found

    def time(self, t: Time | None) -> Number:
        """t, of rows with their own times as `(*batch, 1, ..., 1)`."""
        if isinstance(t, Tensor):
            return t.reshape(*t.shape, *[1] * self.modes.dimension)
        if t is None:
            raise InputError("a part that depends on time was taken for one that does not")
        return float(t)

    @cached_property
    def coordinates(self) -> tuple[Tensor, ...]:
        """Of the finer grid, one tensor of its shape an axis."""
        grid = self.modes.grid
        if self.modes.fine == grid.shape:
            return grid.coordinates
        return self._fine_grid.coordinates

    @cached_property
    def _fine_grid(self) -> Grid:
        grid = self.modes.grid
        if self.modes.fine == grid.shape:
            return grid
        return Grid(self.modes.fine, grid.lower, grid.upper, dict(grid.sides()), device=grid.device, dtype=grid.dtype)

    def _field(self, name: str, t: Time | None, fields: dict[str, Number]) -> Number:
        if name in self._steady:
            return self._steady[name]
        field, order, in_time = given_factor(name, self.equation.coordinates[: self.modes.dimension], self.equation)
        if in_time:
            raise InputError(f"'{name}', the rate of a given field, is not formed: give it as a field of its own")
        if field in self.varying:
            if field not in fields:
                fields[field] = self._at(field, t)
            return self._differentiated(fields[field], order)
        value = self._differentiated(self._on_fine(field), order)
        self._steady[name] = value
        return value

    def _at(self, field: str, t: Time | None) -> Number:
        function: Callable[..., Any] = self.given[field]
        clock = torch.as_tensor(self.time(t), dtype=self._fine_grid.dtype, device=self._fine_grid.device)
        value = call(function, (*self.coordinates, clock), f"field {field!r}")
        wanted = "a number or a tensor"
        return check_value(value, self._fine_grid, f"field {field!r}", from_function=True, wanted=wanted)

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
