"""Conditions on the named boundaries of a mesh: who holds which facet, and what with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..boundary import Dirichlet, Neumann, Periodic, SideCondition, suggestion
from ..errors import InputError
from ..given import Number, check_value
from ..mesh import EXTERIOR, Mesh
from .geometry import Geometry
from .values import REST, sample

Kind = Literal["dirichlet", "neumann", "robin"]


@dataclass(frozen=True, eq=False)
class Part:
    """A condition with the facets it holds on.

    Attributes:
        name: of the boundary.
        kind: which condition.
        facets: `(k,)`, places in `mesh.facets`.
        coefficient: of a Robin condition, a float or `(*batch, k)`.
        value: of a Dirichlet condition a float or `(*batch, n)`, used at the points of the facets; else a float or
            `(*batch, d, k)`, by vertex of each facet.
    """

    name: str
    kind: Kind
    facets: Tensor
    coefficient: Number
    value: Number


@dataclass(frozen=True, eq=False)
class Conditions:
    """All conditions on one unknown.

    Attributes:
        parts: in the order they were given.
        held: bool `(n,)`, where a Dirichlet condition gives the value.
        lift: `(*batch, n)`, that value, 0 elsewhere; of a point on two parts that of the one named first.
    """

    parts: tuple[Part, ...]
    held: Tensor
    lift: Tensor

    def tensors(self) -> list[Tensor]:
        """The tensors given, with their batch axes first and one more axis."""
        found = [part.coefficient for part in self.parts]
        found += [
            part.value[..., 0, :] if isinstance(part.value, Tensor) and part.kind != "dirichlet" else part.value
            for part in self.parts
        ]
        return [value for value in found if isinstance(value, Tensor)]


def split_by_unknown(boundary: Any, mesh: Mesh, unknowns: tuple[str, ...]) -> dict[str, Any]:
    """Unknown -> what is given for it.

    Raises:
        InputError: if nothing is given, for one of several unknowns, or for names that are neither boundaries nor
            unknowns.
    """
    if boundary is None:
        raise InputError(
            "boundary: a mesh has no conditions of its own; give one for all its boundary, Dirichlet(0.0), or a dict "
            f"by name ({', '.join(mesh.boundaries)}, {REST})"
        )
    if not isinstance(boundary, Mapping):
        return dict.fromkeys(unknowns, boundary)
    places = {*mesh.boundaries, REST}
    if set(boundary) <= places or not set(boundary) & set(unknowns):
        return dict.fromkeys(unknowns, boundary)
    for name in boundary:
        if name not in unknowns:
            raise InputError(
                f"boundary: {name!r} is not an unknown{suggestion(str(name), unknowns)} (a dict is either by boundary "
                "or by unknown)"
            )
    missing = [name for name in unknowns if name not in boundary]
    if missing:
        raise InputError(f"boundary: nothing is said about the unknown {', '.join(missing)}")
    return dict(boundary)


def read_conditions(boundary: Any, mesh: Mesh, what: str = "boundary") -> dict[str, tuple[SideCondition, Tensor]]:
    """Name -> condition and facets, every facet held once.

    Raises:
        InputError: for something that is not a condition, names that the mesh does not have, facets given twice, or
            facets that nothing is said about: how many, and where.
    """
    if isinstance(boundary, Mapping):
        given = dict(boundary)
    else:
        given = {EXTERIOR: boundary}
    times = torch.zeros(len(mesh.facets), dtype=torch.int64, device=mesh.device)
    result: dict[str, tuple[SideCondition, Tensor]] = {}
    for name, condition in given.items():
        where = f"{what}[{name!r}]" if isinstance(boundary, Mapping) else what
        if isinstance(condition, Periodic):
            raise InputError(f"{where}: Periodic() belongs to the axes of a grid; a mesh has none")
        if name == REST and REST in mesh.boundaries:
            raise InputError(
                f"{where}: the mesh has a boundary called {REST!r}, a word that here stands for what is left; call it "
                f"by another name, mesh.with_boundaries({{'other': mesh.boundary({REST!r})}}), and say that one instead"
            )
        if not isinstance(condition, SideCondition):
            raise InputError(f"{where}: expected Dirichlet, Neumann or Robin, got {condition!r}")
        facets = torch.zeros(0, dtype=torch.int64, device=mesh.device) if name == REST else mesh.boundary(name)
        times[facets] += 1
        result[name] = (condition, facets)
    if REST in result:
        left = torch.nonzero(times == 0).squeeze(-1)
        times[left] += 1
        result[REST] = (result[REST][0], left)
    twice = torch.nonzero(times > 1).squeeze(-1)
    if len(twice):
        inside = torch.zeros_like(times, dtype=torch.bool)
        inside[twice] = True
        names = [name for name, (_, facets) in result.items() if bool(inside[facets].any())]
        raise InputError(
            f"{what}: {len(twice)} facets belong to more than one of {', '.join(names)} ({_extent(mesh, twice)}); "
            "each facet takes one condition"
        )
    free = torch.nonzero(times == 0).squeeze(-1)
    if len(free):
        others = [name for name in mesh.boundaries if name not in given]
        raise InputError(
            f"{what}: nothing is said about {len(free)} of {len(mesh.facets)} facets ({_extent(mesh, free)}); give "
            f"a condition for {', '.join(others)}, or for {REST!r}, which stands for what is left"
        )
    return result


def resolve(conditions: dict[str, tuple[SideCondition, Tensor]], mesh: Mesh, geometry: Geometry) -> Conditions:
    """The conditions with their values.

    Raises:
        InputError: for values of a wrong type, shape, dtype or device, or not finite.
    """
    parts = tuple(_part(name, condition, facets, mesh, geometry) for name, (condition, facets) in conditions.items())
    held = torch.zeros(len(mesh.points), dtype=torch.bool, device=mesh.device)
    lift = torch.zeros(len(mesh.points), dtype=mesh.dtype, device=mesh.device)
    for part in reversed(parts):
        if part.kind == "dirichlet":
            own = torch.zeros_like(held)
            own[geometry.facets[:, part.facets].reshape(-1)] = True
            held, lift = held | own, torch.where(own, part.value, lift)
    return Conditions(parts, held, lift)


def _part(name: str, condition: SideCondition, facets: Tensor, mesh: Mesh, geometry: Geometry) -> Part:
    where = f"boundary {name!r}"
    if isinstance(condition, Dirichlet):
        value = _at_points(condition.value, facets, mesh, geometry, f"{where}, Dirichlet value")
        return Part(name, "dirichlet", facets, 0.0, value)
    if isinstance(condition, Neumann):
        value = _at_vertices(condition.flux, facets, mesh, geometry, f"{where}, Neumann flux")
        return Part(name, "neumann", facets, 0.0, value)
    coefficient = _at_vertices(condition.coefficient, facets, mesh, geometry, f"{where}, Robin coefficient")
    value = _at_vertices(condition.value, facets, mesh, geometry, f"{where}, Robin value")
    mean = coefficient.mean(-2) if isinstance(coefficient, Tensor) else coefficient
    return Part(name, "robin", facets, mean, value)


def _at_points(value: Any, facets: Tensor, mesh: Mesh, geometry: Geometry, name: str) -> Number:
    """A float or `(*batch, n)`; a function is asked at the points of the facets only."""
    if callable(value) and not isinstance(value, Tensor):
        points = geometry.facets[:, facets].unique()
        sampled = sample(value, tuple(c.contiguous() for c in mesh.points[points].unbind(1)), mesh, name)
        if not isinstance(sampled, Tensor):
            return sampled
        sampled = sampled.expand(*sampled.shape[:-1], len(points))
        return sampled.new_zeros(*sampled.shape[:-1], len(mesh.points)).index_copy(-1, points, sampled)
    number = _constant(value, mesh, name)
    if isinstance(number, Tensor) and number.shape[-1] not in (1, len(mesh.points)):
        raise InputError(
            f"{name} has shape {tuple(number.shape)}, expected (*batch, {len(mesh.points)}), one value a point of the "
            "mesh, of which those on the boundary are used"
        )
    return number


def _at_vertices(value: Any, facets: Tensor, mesh: Mesh, geometry: Geometry, name: str) -> Number:
    """A float or `(*batch, 1 or d, k)`; a function is asked at the points of the facets."""
    if callable(value) and not isinstance(value, Tensor):
        number = _at_points(value, facets, mesh, geometry, name)
        return number[..., geometry.facets[:, facets]] if isinstance(number, Tensor) else number
    number = _constant(value, mesh, name)
    if not isinstance(number, Tensor):
        return number
    if number.shape[-1] == len(facets) or number.shape[-1] == 1:
        return number.unsqueeze(-2)
    if number.shape[-1] == len(mesh.points):
        return number[..., geometry.facets[:, facets]]
    raise InputError(
        f"{name} has shape {tuple(number.shape)}, expected (*batch, {len(facets)}), one value a facet of this "
        f"boundary, or (*batch, {len(mesh.points)}), one value a point of the mesh"
    )


def _constant(value: Any, mesh: Mesh, name: str) -> Number:
    number = check_value(value, mesh, name, wanted="a number, a tensor or a function of the coordinates")
    return number.reshape(1) if isinstance(number, Tensor) and number.ndim == 0 else number


def _extent(mesh: Mesh, facets: Tensor) -> str:
    """Where facets lie, for messages."""
    corners = mesh.points.detach()[mesh.facets[facets]].flatten(0, 1)
    low, high = corners.amin(0).tolist(), corners.amax(0).tolist()
    return ", ".join(f"{a} from {p:.4g} to {q:.4g}" for a, p, q in zip("xyz", low, high, strict=False))
