"""What an HDF5 file holds of a system on a mesh."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import h5py
import sympy
import torch
from torch import Tensor

from .elements import MeshSystem, NonlinearMeshSystem, discretize_nonlinear_on_mesh, discretize_on_mesh
from .elements.values import At, ByCell, sample
from .equations import Equation
from .errors import InputError
from .mesh import Mesh
from .scheme import FiniteElement
from .well import (
    Arrays,
    Category,
    make_condition,
    restore,
    restore_parameters,
    store,
    tensor_of,
    texts,
    write_boundary,
    write_frame,
)

_PLACES: tuple[At, ...] = ("points", "cells", "facets")
_PLAIN_NAME = re.compile(r"\w[\w .+:-]*")


def describe(
    file: h5py.File,
    system: MeshSystem | NonlinearMeshSystem,
    batch: tuple[int, ...],
    rows: int,
    fields: Category,
    scalars: Category,
    arrays: Arrays,
) -> dict[str, Any]:
    """Write a system on a mesh; returns what the description says of it."""
    mesh = system.domain
    _write_layout(file, system, rows)
    return {
        "linear": isinstance(system, MeshSystem),
        "mesh": _write_mesh(file.create_group("mesh"), mesh),
        "scheme": asdict(system.scheme),
        "fields": {n: _describe_field(n, system, batch, fields, scalars, arrays) for n in system.fields},
        "parameters": {n: store(v, n, batch, (1,), fields, scalars) for n, v in system.parameters.items()},
        "boundary": {
            unknown: {
                name: _describe_condition(condition, system, number, name, arrays, f"boundary/{unknown}/{place}")
                for place, (name, condition) in enumerate(conditions.items())
            }
            for number, (unknown, conditions) in enumerate(system.boundary.items())
        },
    }


def rebuild(
    file: h5py.File, description: Mapping[str, Any], equation: Equation, device: torch.device
) -> MeshSystem | NonlinearMeshSystem:
    """The inverse of `describe`."""
    mesh = _read_mesh(file, description["mesh"], device)

    def number(item: Any) -> Any:
        return tensor_of(file, item, device) if isinstance(item, Mapping) else item

    def value(item: Any) -> Any:
        return _OnPart(number(item["function"])) if isinstance(item, Mapping) and "function" in item else number(item)

    boundary: Any = {
        unknown: {name: make_condition(words, value) for name, words in conditions.items()}
        for unknown, conditions in description["boundary"].items()
    }
    if len(boundary) == 1:
        (boundary,) = boundary.values()
    fields = {name: _read_field(item, file, mesh, name) for name, item in description["fields"].items()}
    parameters = restore_parameters(description["parameters"], file, device, 1)
    scheme = FiniteElement(**description["scheme"])
    discretize = discretize_on_mesh if description["linear"] else discretize_nonlinear_on_mesh
    return discretize(equation, mesh, fields, parameters, boundary, scheme)


def _write_layout(file: h5py.File, system: MeshSystem | NonlinearMeshSystem, rows: int) -> None:
    mesh = system.domain
    group = write_frame(file, system.equation, system.parameters, "unstructured", rows, mesh.coordinates)
    several = len(system.unknowns) > 1
    for form in system.forms:
        for index, part in enumerate(form.conditions.parts):
            mask = torch.zeros(len(mesh.points), dtype=torch.bool)
            mask[mesh.facets[part.facets].reshape(-1).cpu()] = True
            held = {form.own: float(part.value)} if part.kind == "dirichlet" and isinstance(part.value, float) else {}
            name = f"{form.own} on {_link(part.name, index)}" if several else _link(part.name, index)
            write_boundary(group, name, mesh.axes, "WALL", mask.numpy(), held)


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


def _describe_field(
    name: str,
    system: MeshSystem | NonlinearMeshSystem,
    batch: tuple[int, ...],
    fields: Category,
    scalars: Category,
    arrays: Arrays,
) -> Any:
    value, values = system.fields[name], system.forms[0].values
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
    condition: Any, system: MeshSystem | NonlinearMeshSystem, number: int, name: str, arrays: Arrays, where: str
) -> dict[str, Any]:
    mesh = system.domain
    (facets,) = (part.facets for part in system.forms[number].conditions.parts if part.name == name)
    described: dict[str, Any] = {"kind": type(condition).__name__}
    for word, value in vars(condition).items():
        if isinstance(value, Tensor):
            described[word] = arrays.put(f"{where}/{word}", value)
        elif callable(value):
            places = mesh.points[mesh.facets[facets].unique()]
            sampled = sample(value, tuple(axis.contiguous() for axis in places.unbind(1)), mesh, f"boundary {name!r}")
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
            known = self._known(place)
            if known.shape == asked.shape and float((known - asked).abs().max()) <= 1e-5 * size:
                return values
        raise InputError(
            f"field {self._name!r} was read from a file, which has its values at {' and '.join(self._values)} of the "
            "mesh only: give a function in its place"
        )

    def _known(self, place: str) -> Tensor:
        mesh: Mesh = self._mesh
        known: dict[str, Callable[[], Tensor]] = {
            "points": lambda: mesh.points,
            "cells": lambda: mesh.cell_centres,
            "facets": lambda: mesh.facet_centres,
        }
        return known[place]().detach()
