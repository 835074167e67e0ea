"""Solutions as HDF5 files in the layout of The Well.

The layout (https://github.com/PolymathicAI/the_well, docs/data_format.md): groups `dimensions`,
`boundary_conditions`, `scalars`, `t0_fields`, `t1_fields` and `t2_fields` with their attributes. A steady solution is
one time step; the batch, flattened, is the axis of trajectories. Every unknown and every coefficient that varies in
space is a dataset of `t0_fields`; parameters and uniform coefficients are `scalars`. The numbers keep their dtype.

What The Well has no place for stands in the group `sciml`: the dataset `description`, one JSON text with the equation,
the grid, the scheme, the method, notes and versions, and arrays beside it (status codes, solid cells, values of
boundary conditions, statistics, history). Nothing is pickled. What guards the file against damage: `sciml.container`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from torch import Tensor

from . import container
from .boundary import Dirichlet, Neumann, Periodic, Robin
from .discretization import System, discretize
from .discretization.inputs import resolve_on_side, resolve_on_walls
from .equations import Equation
from .errors import InputError
from .grid import Grid
from .scheme import FiniteDifference, FiniteVolume

if TYPE_CHECKING:
    from .solution import Solution

KIND = "solution"
FORMAT = 1

_DTYPES = {"float64": torch.float64, "float32": torch.float32}
_CONDITIONS = {kind.__name__: kind for kind in (Dirichlet, Neumann, Robin)}
_SCHEMES = {kind.__name__: kind for kind in (FiniteDifference, FiniteVolume)}
_SIDES = ("lower", "upper")


def save(solution: Solution, path: str | os.PathLike[str]) -> None:
    """Write a solution to `path` (.h5 or .hdf5), whole or not at all. The file is made in memory first.

    Raises:
        InputError: the solution has no domain, or `path` cannot become a file.
        OSError: the disk is full or not writable; what stood at `path` is unharmed.
    """
    system = solution.system
    if system is None:
        raise InputError("this solution belongs to a bare operator: without equation and domain it cannot be stored")
    if not isinstance(system, System):
        raise InputError("solutions on meshes are not stored by this version: keep the tensors of `solution.fields`")
    container.write(path, KIND, FORMAT, lambda file: _fill(file, solution, system))


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """The arguments from which the solution in a file is made again, its tensors on `device`, bit for bit as saved.

    Raises:
        InputError: the file is missing, cut short, damaged, of a newer version or of another kind.
    """
    place = torch.empty(0, device=device).device  # torch's own complaint about a device, before the file is to blame
    with container.read(path, KIND, FORMAT) as file:
        return _rebuild(file, place)


def _fill(file: h5py.File, solution: Solution, system: System) -> None:
    grid, batch = system.domain, tuple(solution.codes.shape)
    own = file.create_group("sciml")
    arrays = _Arrays(own)
    _write_frame(file, system, solution.codes.numel())
    fields, scalars = _Category(file, "t0_fields"), _Category(file, "scalars")
    for name in ("t1_fields", "t2_fields"):
        _Category(file, name)
    for name, value in solution.fields.items():
        rows = _numpy(value.reshape(-1, 1, *grid.shape))
        fields.add(name, rows, sample_varying=True, time_varying=True, dim_varying=[True] * grid.dimension)
    description = {
        "equation": system.equation.to_json(),
        "grid": {"shape": grid.shape, "lower": grid.lower, "upper": grid.upper, "dtype": _name(grid.dtype)},
        "scheme": {"kind": type(system.scheme).__name__, **asdict(system.scheme)},
        "batch": batch,
        "fields": {n: _store(v, n, batch, grid, fields, scalars) for n, v in system.fields.items()},
        "parameters": {n: _store(v, n, batch, grid, fields, scalars) for n, v in system.parameters.items()},
        "boundary": {
            unknown: {
                axis: [_describe_side(c, grid, k, side, arrays, f"{unknown}/{axis}") for side, c in enumerate(pair)]
                for k, (axis, pair) in enumerate(sides.items())
            }
            for unknown, sides in system.boundary.items()
        },
        "walls": _describe_walls(grid, arrays),
        "solid": None if grid.solid is None else arrays.put("solid", grid.solid),
        "codes": arrays.put("codes", solution.codes),
        "statistics": {name: arrays.keep(f"statistics/{name}", item) for name, item in solution.statistics.items()},
        "history": {name: arrays.put(f"history/{name}", item) for name, item in solution.history.items()},
        "method": solution.method,
        "notes": solution.notes,
        "versions": solution.versions,
    }
    own["description"] = json.dumps(description, indent=1)


def _write_frame(file: h5py.File, system: System, rows: int) -> None:
    """Everything of The Well's layout but the fields and scalars."""
    grid = system.domain
    uniform = {name: value for name, value in system.parameters.items() if not isinstance(value, Tensor)}
    file.attrs["dataset_name"] = str(system.equation)
    file.attrs["grid_type"] = "cartesian"
    file.attrs["n_spatial_dims"] = grid.dimension
    file.attrs["n_trajectories"] = rows
    file.attrs["simulation_parameters"] = _texts(uniform)
    for name, value in uniform.items():
        file.attrs[name] = value
    dimensions = file.create_group("dimensions")
    dimensions.attrs["spatial_dims"] = _texts(grid.axes)
    dimensions["time"] = np.zeros(1)
    dimensions["time"].attrs["sample_varying"] = False
    for axis, places in zip(grid.axes, grid.axis_coordinates, strict=True):
        dimensions[axis] = _numpy(places)
        dimensions[axis].attrs["sample_varying"] = dimensions[axis].attrs["time_varying"] = False

    boundaries = file.create_group("boundary_conditions")

    def describe(name: str, axes: tuple[str, ...], kind: str, mask: Any, held: dict[str, float]) -> None:
        group = boundaries.create_group(name)
        group.attrs["associated_dims"] = _texts(axes)
        group.attrs["associated_fields"] = _texts(held)
        group.attrs["bc_type"] = kind
        group.attrs["sample_varying"] = group.attrs["time_varying"] = False
        group["mask"] = mask
        if len(held) == 1:
            group["values"] = np.full(int(mask.sum()), next(iter(held.values())))

    for axis, n, periodic in zip(grid.axes, grid.shape, grid.periodic, strict=True):
        ends = np.zeros((2, n), dtype=bool)
        ends[0, 0] = ends[1, -1] = True
        if periodic:
            describe(f"{axis}_periodic", (axis,), "PERIODIC", ends.any(0), {})
            continue
        for side, name in enumerate(_SIDES):
            held = {}
            for unknown, sides in system.boundary.items():
                condition = sides[axis][side]
                if isinstance(condition, Dirichlet) and isinstance(condition.value, int | float):
                    held[unknown] = float(condition.value)
            describe(f"{axis}_{name}", (axis,), "WALL", ends[side], held)
    if grid.solid is not None:
        describe("walls", grid.axes, "WALL", _numpy(grid.solid), {})


class _Category:
    """One of The Well's groups of datasets with its list of names."""

    def __init__(self, file: h5py.File, name: str) -> None:
        self._group = file.create_group(name)
        self._names: list[str] = []
        self._group.attrs["field_names"] = _texts(())

    def add(self, name: str, values: np.ndarray[Any, Any], **attributes: Any) -> str:
        """Store an array; returns its place in the file."""
        self._group[name] = values
        self._group[name].attrs.update(attributes)
        self._names.append(name)
        self._group.attrs["field_names"] = _texts(self._names)
        return str(self._group[name].name)


class _Arrays:
    """Arrays of the group `sciml`, referred to from the description by their place."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group

    def put(self, name: str, values: Tensor) -> dict[str, str]:
        """Store a tensor; returns what the description says of it."""
        self._group[name] = _numpy(values)
        return {"dataset": f"{self._group.name}/{name}"}

    def keep(self, name: str, item: Any) -> Any:
        """Store a tensor, or return what JSON can hold itself."""
        return self.put(name, item) if isinstance(item, Tensor) else item


def _store(
    value: float | Tensor, name: str, batch: tuple[int, ...], grid: Grid, fields: _Category, scalars: _Category
) -> Any:
    """Store a coefficient or parameter where The Well has it; returns what the description says of it."""
    if not isinstance(value, Tensor):
        scalars.add(name, np.full(1, value), sample_varying=False, time_varying=False)
        return value
    leading = value.shape[: value.dim() - grid.dimension]
    varies_by_row = math.prod(leading) > 1
    uniform = math.prod(value.shape[value.dim() - grid.dimension :]) == 1
    space = (1,) * grid.dimension if uniform else grid.shape
    whole = value.expand(*batch, *space) if varies_by_row else value.reshape(value.shape[len(leading) :]).expand(space)
    flat = _numpy(whole.reshape([*([-1] if varies_by_row else []), *(() if uniform else space)]))
    if uniform:
        place = scalars.add(name, flat.reshape(-1), sample_varying=varies_by_row, time_varying=False)
    else:
        place = fields.add(
            name, flat, sample_varying=varies_by_row, time_varying=False, dim_varying=[True] * grid.dimension
        )
    return {"dataset": place, "shape": list(value.shape), "whole": list(whole.shape)}


def _restore(item: Any, file: h5py.File, device: torch.device) -> float | Tensor:
    """The inverse of `_store`: axes along which the value was repeated are cut down again."""
    if not isinstance(item, Mapping):
        return float(item)
    shape: list[int] = item["shape"]
    whole = _tensor(file, item, device).reshape(item["whole"])
    whole = whole[(0,) * max(0, whole.dim() - len(shape))]
    for axis in range(-1, -1 - min(len(shape), whole.dim()), -1):
        whole = whole.narrow(axis, 0, shape[axis])
    return whole.reshape(shape).contiguous()


def _describe_side(condition: Any, grid: Grid, axis: int, side: int, arrays: _Arrays, name: str) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": type(condition).__name__}
    if not isinstance(condition, Periodic):
        for word, value in vars(condition).items():
            where = f"boundary/{name}_{_SIDES[side]}/{word}"
            resolved = resolve_on_side(value, grid, axis, side, where)
            if isinstance(resolved, Tensor):
                resolved = resolved.squeeze(axis - grid.dimension)
            described[word] = arrays.keep(where, resolved)
    return described


def _describe_walls(grid: Grid, arrays: _Arrays) -> Any:
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


def _rebuild(file: h5py.File, device: torch.device) -> dict[str, Any]:
    description = json.loads(file["sciml/description"].asstr()[()])

    def tensor(item: Any) -> Any:
        return _tensor(file, item, device) if isinstance(item, Mapping) else item

    frame, batch = description["grid"], tuple(description["batch"])
    dtype, shape = _DTYPES[frame["dtype"]], tuple(frame["shape"])
    sides = {
        unknown: {axis: tuple(_condition(words, tensor) for words in pair) for axis, pair in by_axis.items()}
        for unknown, by_axis in description["boundary"].items()
    }
    corners = tuple(frame["lower"]), tuple(frame["upper"])
    grid = Grid(shape, *corners, sides, tensor(description["solid"]), device=device, dtype=dtype)
    grid = replace(grid, walls=_read_walls(description["walls"], tensor, grid))
    equation = Equation.from_json(description["equation"])
    system = discretize(
        equation,
        grid,
        fields={name: _restore(item, file, device) for name, item in description["fields"].items()},
        parameters={
            name: value.reshape(value.shape[: value.dim() - grid.dimension]) if isinstance(value, Tensor) else value
            for name, item in description["parameters"].items()
            for value in [_restore(item, file, device)]
        },
        scheme=_scheme(description["scheme"]),
    )
    values = [
        _tensor(file, {"dataset": f"t0_fields/{name}"}, device).reshape(*batch, *shape) for name in system.unknowns
    ]
    return {
        "value": values[0] if len(values) == 1 else torch.stack(values, len(batch)),
        "codes": tensor(description["codes"]),
        "statistics": {name: tensor(item) for name, item in description["statistics"].items()},
        "history": {name: tensor(item) for name, item in description["history"].items()},
        "method": description["method"],
        "notes": tuple(description["notes"]),
        "versions": dict(description["versions"]),
        "system": system,
    }


def _condition(described: Mapping[str, Any], tensor: Callable[[Any], Any]) -> Any:
    words = {word: tensor(item) for word, item in described.items() if word != "kind"}
    return Periodic() if described["kind"] == "Periodic" else _CONDITIONS[described["kind"]](**words)


def _read_walls(described: Mapping[str, Any], tensor: Callable[[Any], Any], grid: Grid) -> Any:
    def value(item: Any) -> Any:
        if not isinstance(item, list):
            return tensor(item)
        places = tuple(p.reshape(-1) for p in grid.axis_coordinates)
        return _OnFaces([[tensor(face) for face in pair] for pair in item], places, grid.spacing)

    walls = {unknown: _condition(words, value) for unknown, words in described.items()}
    return walls.get("", walls)


def _scheme(described: Mapping[str, Any]) -> FiniteDifference | FiniteVolume:
    scheme: FiniteDifference | FiniteVolume = _SCHEMES[described["kind"]](
        **{word: item for word, item in described.items() if word != "kind"}
    )
    return scheme


def _numpy(values: Tensor) -> np.ndarray[Any, Any]:
    return values.detach().cpu().contiguous().numpy()


def _tensor(file: h5py.File, item: Mapping[str, Any], device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(file[item["dataset"]][()])).to(device)


def _texts(words: Iterable[str]) -> np.ndarray[Any, Any]:
    return np.array(list(words), dtype=h5py.string_dtype())


def _name(dtype: torch.dtype) -> str:
    return next(name for name, known in _DTYPES.items() if known == dtype)
