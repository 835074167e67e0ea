"""What an HDF5 file holds of a system on a grid, linear or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from .boundary import Dirichlet, Periodic, Sides, StatedByAxis, Unstated
from .discretization import GridEvolution, NonlinearSystem, System, discretize, discretize_nonlinear
from .discretization.conditions import Moving
from .discretization.inputs import resolve_on_side, resolve_on_walls
from .equations import Equation
from .errors import InputError
from .evolving import Prepare
from .grid import Grid
from .scheme import FiniteDifference, FiniteVolume, Spectral
from .spectral import SpectralSystem
from .tables_in_time import AtTimes, Lookup, anywhere, over_times
from .time_functions import depends_on_time
from .well import (
    DTYPES,
    Arrays,
    Category,
    dtype_name,
    make_condition,
    numpy_of,
    restore,
    restore_in_time,
    restore_parameters,
    store,
    store_in_time,
    tensor_of,
    write_boundary,
    write_frame,
)

GridSystem = System | NonlinearSystem | GridEvolution | SpectralSystem

_SCHEMES = {kind.__name__: kind for kind in (FiniteDifference, FiniteVolume, Spectral)}
_SIDES = ("lower", "upper")


def describe(
    file: h5py.File,
    system: GridSystem,
    batch: tuple[int, ...],
    rows: int,
    fields: Category,
    scalars: Category,
    arrays: Arrays,
    times: Tensor | None = None,
) -> dict[str, Any]:
    """Write a system on a grid; returns what the description says of it.

    Functions of the time are kept by their values at `times`.
    """
    grid = system.domain
    boundary = _boundary_of(system)
    _write_layout(file, system, boundary, rows, times)

    def field(name: str, value: Any) -> Any:
        if times is None or isinstance(value, Tensor) or not callable(value):
            return store(value, name, batch, grid.shape, fields, scalars)
        return _describe_moving(name, value, system, batch, fields, arrays, times)

    return {
        "linear": isinstance(system, System),
        "evolving": not isinstance(system, System | NonlinearSystem),
        "grid": {"shape": grid.shape, "lower": grid.lower, "upper": grid.upper, "dtype": dtype_name(grid.dtype)},
        "scheme": {"kind": type(system.scheme).__name__, **asdict(system.scheme)},
        "fields": {n: field(n, v) for n, v in system.fields.items()},
        "parameters": {n: store(v, n, batch, grid.shape, fields, scalars) for n, v in system.parameters.items()},
        "boundary": {
            unknown: {
                axis: [
                    describe_side(c, grid, k, side, arrays, f"{unknown}/{axis}", times) for side, c in enumerate(pair)
                ]
                for k, (axis, pair) in enumerate(sides.items())
            }
            for unknown, sides in boundary.items()
        },
        "walls": _describe_walls(grid, arrays, times),
        "solid": None if grid.solid is None else arrays.put("solid", grid.solid),
    }


def rebuild(
    file: h5py.File,
    description: Mapping[str, Any],
    equation: Equation,
    device: torch.device,
    prepare: Prepare,
    times: Tensor | None = None,
) -> GridSystem:
    """The inverse of `describe`."""
    frame = description["grid"]
    dimension = len(frame["shape"])
    moving: list[AtTimes] = []

    def tensor(item: Any) -> Any:
        return tensor_of(file, item, device) if isinstance(item, Mapping) else item

    def in_time(lookup: Lookup, name: str) -> AtTimes:
        moving.append(AtTimes(lookup, torch.as_tensor(times), dimension, name))
        return moving[-1]

    def value(item: Any) -> Any:
        if isinstance(item, Mapping) and "in_time" in item:
            return in_time(anywhere(tensor(item["in_time"])), "a boundary value")
        return tensor(item)

    sides = {
        unknown: {axis: tuple(make_condition(words, value) for words in pair) for axis, pair in by_axis.items()}
        for unknown, by_axis in description["boundary"].items()
    }
    grid = Grid(
        tuple(frame["shape"]),
        tuple(frame["lower"]),
        tuple(frame["upper"]),
        sides,
        tensor(description["solid"]),
        device=device,
        dtype=DTYPES[frame["dtype"]],
    )
    grid = replace(grid, walls=_read_walls(description["walls"], tensor, grid, in_time))
    fields: dict[str, Any] = {}
    for name, item in description["fields"].items():
        if isinstance(item, Mapping) and "own" in item:
            tables = [restore_in_time(item, file, device), *([tensor(item["fine"])] if "fine" in item else [])]
            fields[name] = in_time(_by_shape(tables, dimension, f"field {name!r}"), f"field {name!r}")
        else:
            fields[name] = restore(item, file, device)
    parameters = restore_parameters(description["parameters"], file, device, grid.dimension)
    scheme = _scheme(description["scheme"])
    system: GridSystem
    if isinstance(scheme, Spectral):
        system = SpectralSystem(equation, grid, fields, parameters, scheme)
    elif description.get("evolving", False):
        system = GridEvolution(equation, grid, fields, parameters, None, scheme, prepare)
    elif description.get("linear", True):  # format 1 had no other
        system = discretize(equation, grid, fields=fields, parameters=parameters, scheme=scheme)
    else:
        system = discretize_nonlinear(equation, grid, fields=fields, parameters=parameters, scheme=scheme)
    for function in moving:
        function.strict = True
    return system


def _boundary_of(system: GridSystem) -> dict[str, StatedByAxis]:
    if isinstance(system, SpectralSystem):
        return {unknown: dict.fromkeys(system.domain.axes, (Periodic(), Periodic())) for unknown in system.unknowns}
    boundary: dict[str, StatedByAxis] = system.boundary
    return boundary


def _describe_moving(
    name: str,
    value: Any,
    system: GridSystem,
    batch: tuple[int, ...],
    fields: Category,
    arrays: Arrays,
    times: Tensor,
) -> dict[str, Any]:
    grid = system.domain

    def table(places: tuple[Tensor, ...]) -> Tensor:
        shape = places[0].shape
        found = over_times(Moving(f"field {name!r}", value, places).at, times)
        return found.expand(*found.shape[: found.ndim - len(shape)], *shape)

    described = store_in_time(table(grid.coordinates), name, batch, grid.dimension, fields)
    if isinstance(system, SpectralSystem) and system.modes.fine != grid.shape:
        described["fine"] = arrays.put(f"functions/{name}/fine", table(system.given.coordinates))
    return described


def _by_shape(tables: list[Tensor], dimension: int, name: str) -> Lookup:
    """Of values `(time, ..., *space)` on several grids those on the grid that is asked for."""

    def lookup(coordinates: tuple[Tensor, ...]) -> Tensor:
        shape = torch.broadcast_shapes(*(c.shape for c in coordinates))
        for table in tables:
            if table.shape[table.ndim - dimension :] == shape:
                return table
        raise InputError(f"{name} was read from a file, which has its values on the grid of the solution only")

    return lookup


def _write_layout(
    file: h5py.File, system: GridSystem, boundary: Mapping[str, Mapping[str, Sides]], rows: int, times: Tensor | None
) -> None:
    places = system.domain.axis_coordinates
    group = write_frame(file, str(system.equation), system.parameters, "cartesian", rows, places, times)
    write_boundaries(group, system.domain, boundary)


def write_boundaries(group: h5py.Group, grid: Grid, boundary: Mapping[str, Mapping[str, Sides]]) -> None:
    """The entries of `boundary_conditions`: where the sides of a grid are, and its solid cells.

    Args:
        boundary: by unknown; with "" for all of them, no values are written. Of a side for which nothing is stated
            there is no entry.
    """
    for axis, n, periodic in zip(grid.axes, grid.shape, grid.periodic, strict=True):
        ends = np.zeros((2, n), dtype=bool)
        ends[0, 0] = ends[1, -1] = True
        if periodic:
            write_boundary(group, f"{axis}_periodic", (axis,), "PERIODIC", ends[0] | ends[1], {})
            continue
        for side, name in enumerate(_SIDES):
            if all(isinstance(sides[axis][side], Unstated) for sides in boundary.values()):
                continue
            held = {}
            for unknown, sides in boundary.items():
                condition = sides[axis][side]
                if unknown and isinstance(condition, Dirichlet) and isinstance(condition.value, int | float):
                    held[unknown] = float(condition.value)
            write_boundary(group, f"{axis}_{name}", (axis,), "WALL", ends[side], held)
    if grid.solid is not None:
        write_boundary(group, "walls", grid.axes, "WALL", numpy_of(grid.solid), {})


def describe_side(
    condition: Any, grid: Grid, axis: int, side: int, arrays: Arrays, name: str, times: Tensor | None
) -> dict[str, Any]:
    """What the description says of the condition on one side; `make_condition` is the inverse."""
    described: dict[str, Any] = {"kind": type(condition).__name__}
    if not isinstance(condition, Periodic):
        for word, value in vars(condition).items():
            where = f"boundary/{name}_{_SIDES[side]}/{word}"
            if times is not None and depends_on_time(value, grid.dimension, where):
                centres = tuple(c.select(axis, -1 if side else 0) for c in grid.face_coordinates(axis))
                table = over_times(Moving(where, value, centres).at, times)
                described[word] = {"in_time": arrays.put(where, table)}
                continue
            resolved = resolve_on_side(value, grid, axis, side, where)
            if isinstance(resolved, Tensor):
                resolved = resolved.squeeze(axis - grid.dimension)
            described[word] = arrays.keep(where, resolved)
    return described


def _describe_walls(grid: Grid, arrays: Arrays, times: Tensor | None) -> Any:
    walls = grid.walls if isinstance(grid.walls, Mapping) else {"": grid.walls}
    described = {}
    for unknown, condition in walls.items():
        words: dict[str, Any] = {"kind": type(condition).__name__}
        for word, value in vars(condition).items():
            where = f"walls/{unknown or 'all'}/{word}"
            moves = times is not None and depends_on_time(value, grid.dimension, where)

            if callable(value) and not isinstance(value, Tensor):
                tables = [
                    [
                        arrays.keep(
                            f"{where}_{axis}_{name}", _on_faces(value, grid, k, side, where, times if moves else None)
                        )
                        for side, name in enumerate(_SIDES)
                    ]
                    for k, axis in enumerate(grid.axes)
                ]
                words[word] = {"in_time": tables} if moves else tables
            else:
                words[word] = arrays.keep(where, value)
        described[unknown] = words
    return described


def _on_faces(value: Any, grid: Grid, axis: int, side: int, name: str, times: Tensor | None) -> Any:
    """A function on the faces at one side of every cell, at all times where it depends on them."""
    if times is None:
        return resolve_on_walls(value, grid, axis, side, name)
    faces = tuple(c.narrow(axis, side, grid.shape[axis]) for c in grid.face_coordinates(axis))
    return over_times(Moving(name, value, faces).at, times)


class _OnFaces:
    """A function of the coordinates of face centres: it looks up what another one gave there when it was saved."""

    def __init__(
        self, values: list[list[float | Tensor]], places: tuple[Tensor, ...], spacing: tuple[float, ...]
    ) -> None:
        self._values, self._places, self._spacing = values, places, spacing

    def __call__(self, *coordinates: Tensor) -> float | Tensor:
        shifts = [
            float((c.flatten()[0] - p[0]) / h) for c, p, h in zip(coordinates, self._places, self._spacing, strict=True)
        ]
        axis = max(range(len(shifts)), key=lambda k: abs(shifts[k]))
        return self._values[axis][int(shifts[axis] > 0)]


def _read_walls(
    described: Mapping[str, Any], tensor: Callable[[Any], Any], grid: Grid, in_time: Callable[[Lookup, str], AtTimes]
) -> Any:
    def value(item: Any) -> Any:
        moves = isinstance(item, Mapping) and "in_time" in item
        tables = item["in_time"] if moves else item
        if not isinstance(tables, list):
            return tensor(item)
        places = tuple(p.reshape(-1) for p in grid.axis_coordinates)
        faces = _OnFaces([[tensor(face) for face in pair] for pair in tables], places, grid.spacing)
        return in_time(lambda coordinates: torch.as_tensor(faces(*coordinates)), "a value on walls") if moves else faces

    walls = {unknown: make_condition(words, value) for unknown, words in described.items()}
    return walls.get("", walls)


def _scheme(described: Mapping[str, Any]) -> FiniteDifference | FiniteVolume | Spectral:
    scheme: FiniteDifference | FiniteVolume | Spectral = _SCHEMES[described["kind"]](
        **{word: item for word, item in described.items() if word != "kind"}
    )
    return scheme
