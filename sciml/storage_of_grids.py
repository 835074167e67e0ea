"""What an HDF5 file holds of a system on a grid, linear or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from .boundary import Dirichlet, Periodic
from .discretization import NonlinearSystem, System, discretize, discretize_nonlinear
from .discretization.inputs import resolve_on_side, resolve_on_walls
from .equations import Equation
from .grid import Grid
from .scheme import FiniteDifference, FiniteVolume
from .well import (
    DTYPES,
    Arrays,
    Category,
    dtype_name,
    make_condition,
    numpy_of,
    restore,
    restore_parameters,
    store,
    tensor_of,
    write_boundary,
    write_frame,
)

_SCHEMES = {kind.__name__: kind for kind in (FiniteDifference, FiniteVolume)}
_SIDES = ("lower", "upper")


def describe(
    file: h5py.File,
    system: System | NonlinearSystem,
    batch: tuple[int, ...],
    rows: int,
    fields: Category,
    scalars: Category,
    arrays: Arrays,
) -> dict[str, Any]:
    """Write a system on a grid; returns what the description says of it."""
    grid = system.domain
    _write_layout(file, system, rows)
    return {
        "linear": isinstance(system, System),
        "grid": {"shape": grid.shape, "lower": grid.lower, "upper": grid.upper, "dtype": dtype_name(grid.dtype)},
        "scheme": {"kind": type(system.scheme).__name__, **asdict(system.scheme)},
        "fields": {n: store(v, n, batch, grid.shape, fields, scalars) for n, v in system.fields.items()},
        "parameters": {n: store(v, n, batch, grid.shape, fields, scalars) for n, v in system.parameters.items()},
        "boundary": {
            unknown: {
                axis: [_describe_side(c, grid, k, side, arrays, f"{unknown}/{axis}") for side, c in enumerate(pair)]
                for k, (axis, pair) in enumerate(sides.items())
            }
            for unknown, sides in system.boundary.items()
        },
        "walls": _describe_walls(grid, arrays),
        "solid": None if grid.solid is None else arrays.put("solid", grid.solid),
    }


def rebuild(
    file: h5py.File, description: Mapping[str, Any], equation: Equation, device: torch.device
) -> System | NonlinearSystem:
    """The inverse of `describe`."""

    def tensor(item: Any) -> Any:
        return tensor_of(file, item, device) if isinstance(item, Mapping) else item

    frame = description["grid"]
    sides = {
        unknown: {axis: tuple(make_condition(words, tensor) for words in pair) for axis, pair in by_axis.items()}
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
    grid = replace(grid, walls=_read_walls(description["walls"], tensor, grid))
    fields = {name: restore(item, file, device) for name, item in description["fields"].items()}
    parameters = restore_parameters(description["parameters"], file, device, grid.dimension)
    scheme = _scheme(description["scheme"])
    if description.get("linear", True):  # format 1 had no other
        return discretize(equation, grid, fields=fields, parameters=parameters, scheme=scheme)
    return discretize_nonlinear(equation, grid, fields=fields, parameters=parameters, scheme=scheme)


def _write_layout(file: h5py.File, system: System | NonlinearSystem, rows: int) -> None:
    grid = system.domain
    group = write_frame(file, system.equation, system.parameters, "cartesian", rows, grid.axis_coordinates)
    for axis, n, periodic in zip(grid.axes, grid.shape, grid.periodic, strict=True):
        ends = np.zeros((2, n), dtype=bool)
        ends[0, 0] = ends[1, -1] = True
        if periodic:
            write_boundary(group, f"{axis}_periodic", (axis,), "PERIODIC", ends[0] | ends[1], {})
            continue
        for side, name in enumerate(_SIDES):
            held = {}
            for unknown, sides in system.boundary.items():
                condition = sides[axis][side]
                if isinstance(condition, Dirichlet) and isinstance(condition.value, int | float):
                    held[unknown] = float(condition.value)
            write_boundary(group, f"{axis}_{name}", (axis,), "WALL", ends[side], held)
    if grid.solid is not None:
        write_boundary(group, "walls", grid.axes, "WALL", numpy_of(grid.solid), {})


def _describe_side(condition: Any, grid: Grid, axis: int, side: int, arrays: Arrays, name: str) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": type(condition).__name__}
    if not isinstance(condition, Periodic):
        for word, value in vars(condition).items():
            where = f"boundary/{name}_{_SIDES[side]}/{word}"
            resolved = resolve_on_side(value, grid, axis, side, where)
            if isinstance(resolved, Tensor):
                resolved = resolved.squeeze(axis - grid.dimension)
            described[word] = arrays.keep(where, resolved)
    return described


def _describe_walls(grid: Grid, arrays: Arrays) -> Any:
    walls = grid.walls if isinstance(grid.walls, Mapping) else {"": grid.walls}
    described = {}
    for unknown, condition in walls.items():
        words: dict[str, Any] = {"kind": type(condition).__name__}
        for word, value in vars(condition).items():
            where = f"walls/{unknown or 'all'}/{word}"
            if callable(value) and not isinstance(value, Tensor):
                words[word] = [
                    [
                        arrays.keep(f"{where}_{axis}_{name}", resolve_on_walls(value, grid, k, side, where))
                        for side, name in enumerate(_SIDES)
                    ]
                    for k, axis in enumerate(grid.axes)
                ]
            else:
                words[word] = arrays.keep(where, value)
        described[unknown] = words
    return described


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


def _read_walls(described: Mapping[str, Any], tensor: Callable[[Any], Any], grid: Grid) -> Any:
    def value(item: Any) -> Any:
        if not isinstance(item, list):
            return tensor(item)
        places = tuple(p.reshape(-1) for p in grid.axis_coordinates)
        return _OnFaces([[tensor(face) for face in pair] for pair in item], places, grid.spacing)

    walls = {unknown: make_condition(words, value) for unknown, words in described.items()}
    return walls.get("", walls)


def _scheme(described: Mapping[str, Any]) -> FiniteDifference | FiniteVolume:
    scheme: FiniteDifference | FiniteVolume = _SCHEMES[described["kind"]](
        **{word: item for word, item in described.items() if word != "kind"}
    )
    return scheme
