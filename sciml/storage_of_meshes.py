"""What an HDF5 file holds of a system on a mesh."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import h5py
import sympy
import torch
from torch import Tensor

from .elements import MeshSystem, NonlinearMeshSystem, discretize_nonlinear_on_mesh, discretize_on_mesh
from .elements.evolving import MeshEvolution, discretize_evolving_on_mesh
from .elements.moving import Sampled
from .elements.values import At, ByCell, Values, sample
from .elements.weak_form import WeakForm
from .equations import Equation
from .errors import InputError
from .evolving import Prepare
from .mesh import Mesh
from .scheme import FiniteElement
from .tables_in_time import AtTimes, Lookup, at_places, over_times
from .time_functions import depends_on_time
from .well import (
    Arrays,
    Category,
    make_condition,
    restore,
    restore_in_time,
    restore_parameters,
    store,
    store_in_time,
    tensor_of,
    texts,
    write_boundary,
    write_frame,
)

AnyMeshSystem = MeshSystem | NonlinearMeshSystem | MeshEvolution

_PLACES: tuple[At, ...] = ("points", "cells", "facets")
_PLAIN_NAME = re.compile(r"\w[\w .+:-]*")


def describe(
    file: h5py.File,
    system: AnyMeshSystem,
    batch: tuple[int, ...],
    rows: int,
    fields: Category,
    scalars: Category,
    arrays: Arrays,
    times: Tensor | None = None,
) -> dict[str, Any]:
    """Write a system on a mesh; returns what the description says of it.

    Functions of the time are kept by their values at `times`.
    """
    mesh, forms = system.domain, _forms_of(system)
    _write_layout(file, system, forms, rows, times)
    values = system.values if isinstance(system, MeshEvolution) else system.forms[0].values

    def field(name: str, value: Any) -> Any:
        if times is not None and depends_on_time(value, mesh.dimension, f"field {name!r}"):
            return _describe_moving(name, value, mesh, batch, fields, arrays, times)
        return _describe_field(name, value, values, batch, fields, scalars, arrays)

    return {
        "linear": isinstance(system, MeshSystem),
        "evolving": isinstance(system, MeshEvolution),
        "mesh": _write_mesh(file.create_group("mesh"), mesh),
        "scheme": asdict(system.scheme),
        "fields": {n: field(n, v) for n, v in system.fields.items()},
        "parameters": {n: store(v, n, batch, (1,), fields, scalars) for n, v in system.parameters.items()},
        "boundary": {
            unknown: {
                name: _describe_condition(condition, forms[unknown], name, arrays, f"boundary/{unknown}/{place}", times)
                for place, (name, condition) in enumerate(conditions.items())
            }
            for unknown, conditions in _boundary_of(system).items()
        },
    }


def rebuild(
    file: h5py.File,
    description: Mapping[str, Any],
    equation: Equation,
    device: torch.device,
    prepare: Prepare,
    times: Tensor | None = None,
) -> AnyMeshSystem:
    """The inverse of `describe`."""
    mesh = _read_mesh(file, description["mesh"], device)
    moving: list[AtTimes] = []

    def number(item: Any) -> Any:
        return tensor_of(file, item, device) if isinstance(item, Mapping) else item

    def in_time(lookup: Lookup, slopes: Lookup | None = None, name: str = "a boundary value") -> AtTimes:
        moving.append(AtTimes(lookup, torch.as_tensor(times), mesh.dimension, name, slopes))
        return moving[-1]

    def value(item: Any) -> Any:
        if isinstance(item, Mapping) and "in_time" in item:
            places = mesh.points[number(item["points"])].unbind(1)
            found = [at_places(number(item[w]), places, "a boundary value") for w in ("in_time", "slopes") if w in item]
            return in_time(found[0], found[1] if len(found) > 1 else None)
        return _OnPart(number(item["function"])) if isinstance(item, Mapping) and "function" in item else number(item)

    boundary: Any = {
        unknown: {name: make_condition(words, value) for name, words in conditions.items()}
        for unknown, conditions in description["boundary"].items()
    }
    if len(boundary) == 1:
        (boundary,) = boundary.values()
    fields: dict[str, Any] = {}
    for name, item in description["fields"].items():
        if isinstance(item, Mapping) and "own" in item:
            fields[name] = in_time(_of_moving(item, file, mesh, name), name=f"field {name!r}")
        else:
            fields[name] = _read_field(item, file, mesh, name)
    parameters = restore_parameters(description["parameters"], file, device, 1)
    scheme = FiniteElement(**description["scheme"])
    if description.get("evolving", False):
        system = discretize_evolving_on_mesh(equation, mesh, fields, parameters, boundary, scheme, prepare)
        for function in moving:
            function.strict = True
        return system
    discretize = discretize_on_mesh if description["linear"] else discretize_nonlinear_on_mesh
    return discretize(equation, mesh, fields, parameters, boundary, scheme)


def _forms_of(system: AnyMeshSystem) -> dict[str, WeakForm]:
    """The weak form of every unknown's row, with its conditions."""
    if not isinstance(system, MeshEvolution):
        return {form.own: form for form in system.forms}
    rows = (*system.rows, *(() if system.constraints is None else system.constraints.rows))
    return {row.own: row.form for row in rows}


def _boundary_of(system: AnyMeshSystem) -> dict[str, Any]:
    """Conditions by unknown and name. Those that a rate inherits without the time are found again by themselves."""
    boundary: dict[str, Any] = system.boundary
    if not isinstance(system, MeshEvolution):
        return boundary
    dimension = system.domain.dimension
    return {
        unknown: conditions
        for unknown, conditions in boundary.items()
        if unknown not in system.inherited
        or any(depends_on_time(v, dimension, unknown) for c in conditions.values() for v in vars(c).values())
    }


def _write_layout(
    file: h5py.File, system: AnyMeshSystem, forms: Mapping[str, WeakForm], rows: int, times: Tensor | None
) -> None:
    mesh = system.domain
    group = write_frame(file, str(system.equation), system.parameters, "unstructured", rows, mesh.coordinates, times)
    several = len(forms) > 1
    for own, form in forms.items():
        for index, part in enumerate(form.conditions.parts):
            mask = torch.zeros(len(mesh.points), dtype=torch.bool)
            mask[mesh.facets[part.facets].reshape(-1).cpu()] = True
            moves = depends_on_time(getattr(system.boundary[own][part.name], "value", None), mesh.dimension, part.name)
            held = isinstance(part.value, float) and part.kind == "dirichlet" and not moves
            name = f"{own} on {_link(part.name, index)}" if several else _link(part.name, index)
            values = {own: float(part.value)} if held and isinstance(part.value, float) else {}
            write_boundary(group, name, mesh.axes, "WALL", mask.numpy(), values)


def _write_mesh(group: h5py.Group, mesh: Mesh) -> dict[str, Any]:
    group.attrs["axes"] = texts(mesh.axes)
    arrays = Arrays(group)
    arrays.put("facets", mesh.facets)  # for other readers; ours finds them again
    named = {
        kind: {name: arrays.put(f"{kind}/{_link(name, index)}", part) for index, (name, part) in enumerate(parts)}
        for kind, parts in (("boundaries", mesh.boundaries.items()), ("regions", mesh.regions.items()))
    }
    return {"points": arrays.put("points", mesh.points), "cells": arrays.put("cells", mesh.cells), **named}


def _read_mesh(file: h5py.File, described: Mapping[str, Any], device: torch.device) -> Mesh:
    def tensor(item: Any) -> Tensor:
        return tensor_of(file, item, device)

    named = {kind: {n: tensor(item) for n, item in described[kind].items()} for kind in ("boundaries", "regions")}
    return Mesh(tensor(described["points"]), tensor(described["cells"]), **named)


def _link(name: str, index: int) -> str:
    """A name as HDF5 can have it: '/' and some others mean something there."""
    return name if _PLAIN_NAME.fullmatch(name) else f"({index})"


def _describe_moving(
    name: str, value: Any, mesh: Mesh, batch: tuple[int, ...], fields: Category, arrays: Arrays, times: Tensor
) -> dict[str, Any]:
    """A function of the coordinates and the time by its values at points, cells and facets, where it has some."""

    def table(places: Tensor) -> Tensor:
        coordinates = tuple(axis.contiguous() for axis in places.unbind(1))

        def at(t: Tensor) -> Tensor:
            found = sample(value, (*coordinates, t), mesh, f"field {name!r}")
            if not isinstance(found, Tensor):
                return torch.full((len(places),), found, dtype=mesh.dtype, device=mesh.device)
            return found.expand(*found.shape[:-1], len(places))

        return over_times(at, times.to(mesh.device, mesh.dtype))

    described = store_in_time(table(mesh.points.detach()), name, batch, 1, fields, location="points")
    for place in ("cells", "facets"):
        described[place] = arrays.put(f"functions/{name}/{place}", table(_places(mesh, place)))
    return described


def _of_moving(item: Mapping[str, Any], file: h5py.File, mesh: Mesh, name: str) -> Lookup:
    """The inverse of `_describe_moving`."""
    tables = {"points": restore_in_time(item, file, mesh.device)}
    for place in ("cells", "facets"):
        tables[place] = tensor_of(file, item[place], mesh.device)
    few = at_places(tables["points"], tuple(mesh.points.detach().unbind(1)), f"field {name!r}")
    size = float((mesh.points.amax(0) - mesh.points.amin(0)).norm())

    def lookup(coordinates: tuple[Tensor, ...]) -> Tensor:
        asked = torch.stack(torch.broadcast_tensors(*coordinates), -1).detach()
        for place, table in tables.items():
            known = _places(mesh, place)
            if known.shape == asked.shape and float((known - asked).abs().max()) <= 1e-5 * size:
                return table
        return few(coordinates)

    return lookup


def _places(mesh: Mesh, place: str) -> Tensor:
    known = {"points": mesh.points, "cells": mesh.cell_centres, "facets": mesh.facet_centres}
    return known[place].detach()


def _describe_field(
    name: str,
    value: Any,
    values: Values,
    batch: tuple[int, ...],
    fields: Category,
    scalars: Category,
    arrays: Arrays,
) -> Any:
    if isinstance(value, Tensor) or not callable(value):
        place = "cells" if name in values.by_cell else "points"
        shape = tuple(value.shape[-1:]) if isinstance(value, Tensor) else ()
        item = store(value, name, batch, shape, fields, scalars, location=place)
        return {**item, "location": place} if isinstance(item, Mapping) else item
    found: dict[str, Any] = {}
    for place in _PLACES:
        try:
            sampled = values.find(sympy.Symbol(name), place)
        except Exception:  # where the discretization does not ask, the function need not have values
            continue
        if place == "points" and isinstance(sampled, Tensor):
            found[place] = store(sampled, name, batch, tuple(sampled.shape[-1:]), fields, scalars, location=place)
        else:
            found[place] = arrays.keep(f"functions/{name}/{place}", sampled)
    return {"function": found}


def _read_field(item: Any, file: h5py.File, mesh: Mesh, name: str) -> Any:
    if isinstance(item, Mapping) and "function" in item:
        found: dict[str, float | Tensor] = {}
        for place, sampled in item["function"].items():
            if isinstance(sampled, Mapping) and "shape" not in sampled:
                found[place] = tensor_of(file, sampled, mesh.device)
            else:
                found[place] = restore(sampled, file, mesh.device)
        return _OnMesh(mesh, found, name)
    value = restore(item, file, mesh.device)
    return ByCell(value) if isinstance(value, Tensor) and item["location"] == "cells" else value


def _describe_condition(
    condition: Any, form: WeakForm, name: str, arrays: Arrays, where: str, times: Tensor | None
) -> dict[str, Any]:
    mesh = form.values.mesh
    (facets,) = (part.facets for part in form.conditions.parts if part.name == name)
    described: dict[str, Any] = {"kind": type(condition).__name__}
    for word, value in vars(condition).items():
        if isinstance(value, Tensor):
            described[word] = arrays.put(f"{where}/{word}", value)
        elif callable(value):
            points = mesh.facets[facets].unique()
            places = tuple(axis.contiguous() for axis in mesh.points[points].unbind(1))
            if times is not None and depends_on_time(value, mesh.dimension, f"boundary {name!r}"):
                moving = Sampled(f"boundary {name!r}", value, points, mesh, places)
                table = over_times(moving.at, times.to(mesh.device, mesh.dtype))
                described[word] = {
                    "in_time": arrays.put(f"{where}/{word}", table),
                    "points": arrays.put(f"{where}/{word} points", points),
                }
                if described["kind"] == "Dirichlet":  # the rate of held points is its derivative
                    slopes = over_times(moving.derivative().at, times.to(mesh.device, mesh.dtype))
                    described[word]["slopes"] = arrays.put(f"{where}/{word} slopes", slopes)
                continue
            sampled = sample(value, places, mesh, f"boundary {name!r}")
            described[word] = {"function": arrays.keep(f"{where}/{word}", sampled)}
        else:
            described[word] = float(value)
    return described


class _OnPart:
    """A function of the coordinates of the points of a boundary: what another one gave there when it was saved."""

    def __init__(self, values: float | Tensor) -> None:
        self._values = values

    def __call__(self, *coordinates: Tensor) -> float | Tensor:
        values = self._values
        if isinstance(values, Tensor) and values.shape[-1] not in (1, len(coordinates[0])):
            raise InputError(
                f"a condition that was read from a file has values at the {values.shape[-1]} points of its boundary "
                "only: give a function or a number in its place"
            )
        return values


class _OnMesh:
    """A function of coordinates: what another one gave at the points, cells and facets when it was saved."""

    def __init__(self, mesh: Mesh, values: Mapping[str, float | Tensor], name: str) -> None:
        self._mesh, self._values, self._name = mesh, values, name

    def __call__(self, *coordinates: Tensor) -> float | Tensor:
        asked = torch.stack(torch.broadcast_tensors(*coordinates), -1).detach()
        size = float((self._mesh.points.amax(0) - self._mesh.points.amin(0)).norm())
        for place, values in self._values.items():
            known = _places(self._mesh, place)
            if known.shape == asked.shape and float((known - asked).abs().max()) <= 1e-5 * size:
                return values
        raise InputError(
            f"field {self._name!r} was read from a file, which has its values at {' and '.join(self._values)} of the "
            "mesh only: give a function in its place"
        )
