"""Coefficients on a mesh: given by number, point, cell, region or function, and evaluated where they are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..boundary import check_tensor
from ..equations.evaluation import evaluate, names, shown
from ..errors import InputError
from ..given import Number, batch_shape, call, check_value
from ..mesh import Mesh
from ..time_functions import value_at
from .geometry import Geometry

if TYPE_CHECKING:
    import sympy

At = Literal["points", "cells", "facets"]

REST = "rest"


@dataclass(frozen=True, eq=False)
class ByCell:
    """A field given by cell, `(*batch, m)`, on a mesh that may have as many points as cells."""

    values: Tensor


@dataclass(frozen=True, eq=False)
class OfTime:
    """A field given as a function of the coordinates and the time."""

    function: Callable[..., Any]


class Values:
    """The values of expressions at the points, the cell centres and the facet centres of a mesh.

    Attributes:
        fields: each coefficient field as it was given: a float, a tensor `(*batch, n)`, `(*batch, m)` or `(*batch, 1)`,
            or a function of the coordinates.
        by_cell: names of the fields whose tensors are by cell.
        parameters: floats, or tensors `(*batch, 1)`.
    """

    def __init__(
        self,
        mesh: Mesh,
        geometry: Geometry,
        coordinates: tuple[str, ...],
        fields: Mapping[str, Any],
        parameters: Mapping[str, Number],
    ) -> None:
        self.mesh = mesh
        self.geometry = geometry
        self.coordinates = coordinates[: mesh.dimension]
        self.fields = {name: read_field(value, mesh, f"field {name!r}") for name, value in fields.items()}
        self.by_cell = frozenset(
            name
            for name, value in self.fields.items()
            if isinstance(value, Tensor)
            and value.shape[-1] == len(mesh.cells)
            and (len(mesh.cells) != len(mesh.points) or isinstance(fields[name], Mapping | ByCell))
        )
        self.parameters = dict(parameters)
        self._time: Tensor | None = None
        self._named: dict[tuple[str, At], Number | None] = {}
        self._found: dict[tuple[sympy.Expr, At], Number | None] = {}
        self._places: dict[At, tuple[Tensor, ...]] = {}

    def at(self, expression: sympy.Expr, place: At) -> Number:
        """The value of an expression, a float or a tensor `(*batch, count)`.

        Raises:
            InputError: if it has none there, or is not finite.
        """
        value = self.find(expression, place)
        if value is None:
            raise InputError(
                f"the coefficient {shown(expression)} has no values at the {place} of the mesh, for a field in it is "
                "given by cell or region: give it by point or as a function of the coordinates"
            )
        return value

    def find(self, expression: sympy.Expr, place: At) -> Number | None:
        """As `at`; None at points where a field is given by cell, so that it jumps there."""
        key = (expression, place)
        if key not in self._found:
            values = {name: self._value(name, place) for name in names(expression)}
            known = {name: value for name, value in values.items() if value is not None}
            self._found[key] = None if len(known) < len(values) else self._evaluate(expression, known)
        return self._found[key]

    def varies(self, name: str) -> bool:
        """Whether a name stands for something that depends on the time: t, a field, or the derivative of one."""
        if name in self.parameters or name in self.coordinates:
            return name == "t"
        field = name if name in self.fields else name.rpartition("_")[0]
        return name == "t" or isinstance(self.fields.get(field), OfTime)

    def at_time(self, number: Number, argument: Tensor) -> Values:
        """The values at a time, those that do not depend on it being shared.

        Args:
            number: the time in expressions, a float or `(*batch, 1)`.
            argument: the same for functions, a tensor.
        """
        values = copy(self)
        values.parameters = {**self.parameters, "t": number}
        values._time = argument
        values._named = {key: value for key, value in self._named.items() if not self.varies(key[0])}
        values._found = {}
        return values

    def given(self) -> dict[str, Any]:
        """The fields as they can be given again, to be read in the same way."""
        return {name: ByCell(value) if name in self.by_cell else value for name, value in self.fields.items()}

    def given_tensors(self) -> list[tuple[str, Tensor]]:
        """The tensors among fields and parameters, with their names."""
        return [(name, v) for name, v in {**self.fields, **self.parameters}.items() if isinstance(v, Tensor)]

    def tensors(self) -> list[tuple[str, Tensor]]:
        """All values found so far, with their names."""
        named = {name: value for (name, _), value in self._named.items()}
        return [(name, value) for name, value in {**named, **self.parameters}.items() if isinstance(value, Tensor)]

    def slope(self, expression: sympy.Expr, axis: int) -> Number:
        """The derivative of an expression along an axis in each cell, of its P1 interpolant."""
        value = self.at(expression, "points")
        return self._slope(value, axis)

    def _slope(self, value: Number, axis: int) -> Number:
        if not isinstance(value, Tensor) or value.shape[-1] == 1:
            return 0.0
        return self.geometry.gradient(value).select(-2, axis)

    def _evaluate(self, expression: sympy.Expr, values: dict[str, Number]) -> Number:
        value = evaluate(expression, values)
        if self._time is not None and any(map(self.varies, values)):
            return value if isinstance(value, Tensor) else float(value)
        if isinstance(value, Tensor):
            if not any(value is known for known in values.values()):
                check_tensor(value, f"the coefficient {shown(expression)}")
            return value
        if not isfinite(value):
            raise InputError(f"the coefficient {shown(expression)} is {value}; it must be finite")
        return float(value)

    def _value(self, name: str, place: At) -> Number | None:
        if name in self.parameters:
            return self.parameters[name]
        if (name, place) not in self._named:
            self._named[name, place] = self._field(name, place)
        return self._named[name, place]

    def _field(self, name: str, place: At) -> Number | None:
        mesh = self.mesh
        if name in self.coordinates:
            return self._coordinates(place)[self.coordinates.index(name)]
        if name not in self.fields:
            return self._derivative(name, place)
        value = self.fields[name]
        if isinstance(value, OfTime):
            if self._time is None:
                raise InputError(
                    f"field {name!r} is a function of the time, and this needs it at no time in particular"
                )
            places = self._coordinates(place)
            sampled = value_at(value.function, places, self._time)
            return read_sample(sampled, len(places[0]), mesh, f"field {name!r}", finite=False)
        if callable(value) and not isinstance(value, Tensor):
            return sample(value, self._coordinates(place), mesh, f"field {name!r}")
        if not isinstance(value, Tensor) or value.shape[-1] == 1:
            return float(value) if not isinstance(value, Tensor) else value
        if name not in self.by_cell:
            return self._from_points(value, place)
        if place == "points":
            return None
        return value if place == "cells" else value[..., mesh.facet_cells]

    def _derivative(self, name: str, place: At) -> Number | None:
        base, _, suffix = name.rpartition("_")
        if base not in self.fields or len(suffix) != 1 or suffix not in self.coordinates:
            raise InputError(
                f"the equation needs a value for {name!r}, which has none on a mesh: P1 elements have first "
                "derivatives of fields only; give it as a field of its own"
            )
        nodal = self._value(base, "points")
        if nodal is None:
            raise InputError(
                f"the equation needs {name!r}, a derivative of field {base!r}, which is given by cell or region: give "
                "it by point or as a function, or write the equation with div(...)"
            )
        slope = self._slope(nodal, self.coordinates.index(suffix))
        if not isinstance(slope, Tensor):
            return slope
        if place == "points":
            return None
        return slope if place == "cells" else slope[..., self.mesh.facet_cells]

    def _from_points(self, value: Tensor, place: At) -> Tensor:
        if place == "points":
            return value
        return self.geometry.on_cells(value) if place == "cells" else self.geometry.on_facets(value)

    def _coordinates(self, place: At) -> tuple[Tensor, ...]:
        if place not in self._places:
            axes = tuple(c.contiguous() for c in self.mesh.points.unbind(1))
            self._places[place] = tuple(self._from_points(axis, place) for axis in axes)
        return self._places[place]


def sample(function: Any, coordinates: tuple[Tensor, ...], mesh: Mesh, name: str) -> Number:
    """A function at places: a float, or a tensor `(*batch, count)` or `(*batch, 1)`.

    Raises:
        InputError: for a function that does not take the coordinates, or returns something else.
    """
    return read_sample(call(function, coordinates, name), len(coordinates[0]), mesh, name)


def read_sample(result: Any, count: int, mesh: Mesh, name: str, *, finite: bool = True) -> Number:
    """What a function returned for `count` places, as `sample` has it; with `finite` it must be.

    Raises:
        InputError: as there.
    """
    value = check_value(result, mesh, name, from_function=True, finite=finite)
    if not isinstance(value, Tensor):
        return value
    value = value.reshape(1) if value.ndim == 0 else value
    if value.shape[-1] not in (1, count):
        raise InputError(
            f"{name}: the function returned a tensor of shape {tuple(value.shape)} for {count} places, expected "
            f"(*batch, {count})"
        )
    return value


def read_field(value: Any, mesh: Mesh, name: str) -> Any:
    """A field as `Values.fields` holds it.

    Raises:
        InputError: for a wrong type, shape, dtype or device, values that are not finite, or regions that do not cover
            the mesh.
    """
    if isinstance(value, OfTime):
        return value
    if isinstance(value, Mapping):
        return _by_region(value, mesh, name)
    if isinstance(value, ByCell):
        value = value.values
    if callable(value) and not isinstance(value, Tensor):
        return value
    wanted = "a number, a tensor by point or by cell, a dict by region, or a function of the coordinates"
    number = check_value(value, mesh, name, wanted=wanted)
    if not isinstance(number, Tensor):
        return number
    number = number.reshape(1) if number.ndim == 0 else number
    points, cells = len(mesh.points), len(mesh.cells)
    if number.shape[-1] not in (1, points, cells):
        raise InputError(
            f"{name} has shape {tuple(number.shape)}, expected (*batch, {points}), one value a point, or "
            f"(*batch, {cells}), one value a cell"
        )
    return number


def _by_region(given: Mapping[str, Any], mesh: Mesh, name: str) -> Tensor:
    """`(*batch, m)` from one value a region."""
    covered = torch.zeros(len(mesh.cells), dtype=torch.int64, device=mesh.device)
    masks: dict[str, Tensor] = {}
    for region in given:
        if region != REST:
            masks[region] = torch.zeros_like(covered, dtype=torch.bool)
            masks[region][mesh.region(region)] = True
            covered += masks[region]
    if REST in given and REST in mesh.regions:
        raise InputError(
            f"{name}: the mesh has a region called {REST!r}, a word that here stands for what is left; call it by "
            f"another name, mesh.with_regions({{'other': mesh.region({REST!r})}}), and say that one instead"
        )
    if REST in given:
        masks[REST] = covered == 0
        covered += masks[REST]
    twice, missing = int((covered > 1).sum()), int((covered == 0).sum())
    if twice:
        raise InputError(
            f"{name}: {twice} cells lie in two of the regions {', '.join(given)}; give each cell one value"
        )
    if missing:
        others = ", ".join(sorted(set(mesh.regions) - set(given))) or "none other"
        raise InputError(
            f"{name}: {missing} of {len(mesh.cells)} cells lie in none of the regions {', '.join(given)}; the mesh has "
            f"{others}, and {REST!r} stands for what is left"
        )
    total = torch.zeros(len(mesh.cells), dtype=mesh.dtype, device=mesh.device)
    named = {region: (f"{name} in region {region!r}", given[region]) for region in masks}
    values = {region: check_value(value, mesh, where) for region, (where, value) in named.items()}
    batch_shape([(named[r][0], v.unsqueeze(-1)) for r, v in values.items() if isinstance(v, Tensor)], 1)
    for region, mask in masks.items():
        value = values[region]
        total = torch.where(mask, value.unsqueeze(-1) if isinstance(value, Tensor) else value, total)
    return total


def extremes(value: Number) -> tuple[float, float]:
    """The smallest and the largest value."""
    if not isinstance(value, Tensor):
        return value, value
    low, high = value.detach().aminmax()
    return float(low), float(high)
