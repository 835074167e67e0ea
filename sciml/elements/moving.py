"""Conditions on the boundaries of a mesh whose values change in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..boundary import Dirichlet, Neumann, Robin, SideCondition
from ..errors import InputError
from ..given import Number
from ..mesh import Mesh
from ..time_functions import depends_on_time, time_derivative, value_at
from .boundary import Conditions, Part, resolve
from .geometry import Geometry
from .values import read_sample

Placed = Mapping[str, tuple[SideCondition, Tensor]]
"""Boundary name -> condition and facets."""


@dataclass(frozen=True, eq=False)
class Sampled:
    """A function of the coordinates and the time at some points of a mesh.

    Attributes:
        name: for messages.
        function: of the coordinates and t.
        points: `(k,)`.
        mesh: whose they are.
        coordinates: of the points, one tensor `(k,)` an axis.
    """

    name: str
    function: Callable[..., Any]
    points: Tensor
    mesh: Mesh
    coordinates: tuple[Tensor, ...]

    def at(self, t: Tensor) -> Tensor:
        """`(*batch, k)`."""
        found = value_at(self.function, self.coordinates, t)
        value = read_sample(found, len(self.points), self.mesh, self.name, finite=False)
        if not isinstance(value, Tensor):
            value = torch.full((1,), value, dtype=self.mesh.dtype, device=self.mesh.device)
        return value.expand(*value.shape[:-1], len(self.points))

    def derivative(self) -> Sampled:
        """The same of the derivative in time."""
        function = time_derivative(self.function, self.name)
        return Sampled(f"the time derivative of {self.name}", function, self.points, self.mesh, self.coordinates)


@dataclass(frozen=True, eq=False)
class Flux:
    """A Neumann or Robin condition that is evaluated at every time.

    Attributes:
        part: the condition, with 0 in place of what is a function of the time.
        coefficient, value: these functions; None where `part` says it.
        place: `(d, k)`, of each vertex of each facet its place among the points of the functions.
    """

    part: Part
    coefficient: Sampled | None
    value: Sampled | None
    place: Tensor

    def coefficient_at(self, t: Tensor) -> Number:
        """A float or `(*batch, k)`, by facet."""
        if self.coefficient is None:
            return self.part.coefficient
        return self.coefficient.at(t)[..., self.place].mean(-2)

    def value_at(self, t: Tensor) -> Number:
        """A float or `(*batch, d or 1, k)`, by vertex of each facet."""
        return self.part.value if self.value is None else self.value.at(t)[..., self.place]


@dataclass(frozen=True, eq=False)
class MovingConditions:
    """All conditions on one unknown.

    Attributes:
        still: those that do not change, with 0 in place of Dirichlet values that do.
        lifts: Dirichlet values that change, each with the points where it holds.
        fluxes: the Neumann and Robin conditions that change.
    """

    still: Conditions
    lifts: tuple[Sampled, ...]
    fluxes: tuple[Flux, ...]

    def lift(self, t: Tensor) -> Tensor:
        """`(*batch, n)`, the value at held points, 0 elsewhere."""
        return self._put(self.still.lift, self.lifts, t)

    def lift_rate(self, t: Tensor) -> Tensor | None:
        """Its derivative in time; None where it is 0."""
        return self._put(torch.zeros_like(self.still.lift), self._rates, t) if self.lifts else None

    @cached_property
    def _rates(self) -> tuple[Sampled, ...]:
        return tuple(lift.derivative() for lift in self.lifts)

    def _put(self, total: Tensor, lifts: tuple[Sampled, ...], t: Tensor) -> Tensor:
        for lift in lifts:
            value = lift.at(t)
            if total.ndim > 1 or value.ndim > 1:
                batch = torch.broadcast_shapes(total.shape[:-1], value.shape[:-1])
                total, value = total.expand(*batch, total.shape[-1]), value.expand(*batch, value.shape[-1])
            total = total.index_copy(-1, lift.points, value)
        return total

    def sampled(self) -> list[Sampled]:
        """Every function of the time."""
        fluxes = [found for flux in self.fluxes for found in (flux.coefficient, flux.value) if found is not None]
        return [*self.lifts, *fluxes]


def resolve_moving(given: Placed, mesh: Mesh, geometry: Geometry, *, all_fluxes: bool) -> MovingConditions:
    """The conditions with their values, and functions of the time.

    Args:
        given: the conditions on an unknown.
        mesh, geometry: where they hold.
        all_fluxes: whether the factor before a flux changes in time, so that none of the fluxes stays what it is.

    Raises:
        InputError: for values of a wrong type, shape, dtype or device, or not finite.
    """
    still: dict[str, tuple[SideCondition, Tensor]] = {}
    lifts: list[Sampled] = []
    fluxes: list[Flux] = []
    taken = torch.zeros(len(mesh.points), dtype=torch.bool, device=mesh.device)
    for name, (condition, facets) in given.items():
        if not len(facets):  # "rest" where nothing is left
            still[name] = (Neumann(0.0), facets)
            continue
        corners = geometry.facets[:, facets]
        points, place = corners.unique(return_inverse=True)
        where = f"boundary {name!r}, "
        if isinstance(condition, Dirichlet):
            still[name] = (condition, facets)
            if depends_on_time(condition.value, mesh.dimension, f"{where}Dirichlet value"):
                still[name] = (Dirichlet(0.0), facets)
                free = points[~taken[points]]
                if len(free):
                    lifts.append(_sampled(condition.value, free, mesh, f"{where}Dirichlet value"))
            taken[points] = True
            continue
        coefficient, value, fixed = _functions(condition, points, mesh, where)
        if coefficient is None and value is None and not all_fluxes:
            still[name] = (condition, facets)
            continue
        still[name] = (Neumann(0.0), facets)
        part = resolve({name: (fixed, facets)}, mesh, geometry).parts[0]
        fluxes.append(Flux(part, coefficient, value, place))
    return MovingConditions(resolve(still, mesh, geometry), tuple(lifts), tuple(fluxes))


def rate_condition(condition: SideCondition, mesh: Mesh, name: str) -> SideCondition:
    """The condition on the rate of an unknown that follows from one on the unknown.

    Raises:
        InputError: for a Robin condition whose coefficient changes in time.
    """
    if isinstance(condition, Neumann):
        return Neumann(_rate(condition.flux, mesh, f"{name}, Neumann flux"))
    value = _rate(condition.value, mesh, f"{name}, {type(condition).__name__} value")
    if isinstance(condition, Dirichlet):
        return Dirichlet(value)
    if depends_on_time(condition.coefficient, mesh.dimension, f"{name}, Robin coefficient"):
        raise InputError(
            f"{name}: the coefficient of Robin(coefficient, value) changes in time, and in this version says nothing "
            "of the rate of the unknown: give a condition for that too, in a dict by unknown"
        )
    return Robin(condition.coefficient, value)


def _rate(value: Any, mesh: Mesh, name: str) -> Any:
    return time_derivative(value, name) if depends_on_time(value, mesh.dimension, name) else 0.0


def _functions(
    condition: Neumann | Robin, points: Tensor, mesh: Mesh, where: str
) -> tuple[Sampled | None, Sampled | None, SideCondition]:
    """The coefficient and the value where they are functions of the time, and the condition with 0 there."""
    if isinstance(condition, Neumann):
        name = f"{where}Neumann flux"
        if not depends_on_time(condition.flux, mesh.dimension, name):
            return None, None, condition
        return None, _sampled(condition.flux, points, mesh, name), Neumann(0.0)
    found: list[Sampled | None] = []
    kept: list[Any] = []
    for word in ("coefficient", "value"):
        given, name = getattr(condition, word), f"{where}Robin {word}"
        moves = depends_on_time(given, mesh.dimension, name)
        found.append(_sampled(given, points, mesh, name) if moves else None)
        kept.append(0.0 if moves else given)
    return found[0], found[1], Robin(*kept)


def _sampled(function: Any, points: Tensor, mesh: Mesh, name: str) -> Sampled:
    return Sampled(name, function, points, mesh, tuple(c.contiguous() for c in mesh.points[points].unbind(1)))
