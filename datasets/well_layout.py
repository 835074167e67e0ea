"""Files in the HDF5 layout of The Well, ours and those of others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from sciml.boundary import AXES, Boundary, Dirichlet, Neumann, Periodic, SidesByAxis
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.well import DTYPES, make_condition, tensor_of

from .columns import Array, ArrayColumn, Column, HDF5Files, Part
from .description import Description, Field
from .spacing import grid_at

_ORDERS = ("t0_fields", "t1_fields", "t2_fields")
_GROUPS = ("dimensions", "boundary_conditions", "scalars", *_ORDERS)


def is_well(file: h5py.File) -> bool:
    """Whether a file has the groups of the layout."""
    return "dimensions" in file and "t0_fields" in file


def read_layout(path: Path, files: HDF5Files) -> tuple[Description, Part]:
    """What a file says of itself, and its samples, of which no value is read yet.

    Raises:
        InputError: a group, an attribute or an axis is missing or does not fit the others; it says which.
    """
    file = files.file(path)
    try:
        return _read(path, file, files)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, OSError) as error:
        raise InputError(f"{path} does not have the layout of The Well: {error}") from error


def _read(path: Path, file: h5py.File, files: HDF5Files) -> tuple[Description, Part]:
    missing = [name for name in _GROUPS if name not in file]
    if missing:
        raise InputError(f"it has no group {missing[0]!r}; the layout of The Well has {', '.join(_GROUPS)}")
    kind = _text(file.attrs.get("grid_type", "cartesian"))
    if kind != "cartesian":
        raise InputError(f"its grid is {kind}; uniform cartesian ones can be read")
    samples = int(file.attrs["n_trajectories"])
    own = json.loads(file["sciml/description"].asstr()[()]) if "sciml/description" in file else {}
    names = _texts(file["dimensions"].attrs["spatial_dims"])
    if not 1 <= len(names) <= len(AXES):
        raise InputError(f"it has {len(names)} axes of space; one to three are needed")
    shape = tuple(int(file["dimensions"][name].shape[-1]) for name in names)
    notes: list[str] = list(own.get("notes", ()))
    grid = read_grid(own["grid"], file) if own else _infer_grid(file, names, notes)
    if grid.shape != shape:
        raise InputError(f"its coordinates have {shape} places and its grid {grid.shape}")
    times = _read_times(file)
    fields: dict[str, Field] = {}
    columns: dict[str, Column] = {}
    units = own.get("units", {})
    for order, group in enumerate(_ORDERS):
        for name in _texts(file[group].attrs["field_names"]):
            dataset = file[group][name]
            sample, time = (bool(dataset.attrs[f"{what}_varying"]) for what in ("sample", "time"))
            fields[name] = Field(sample, time, (len(shape),) * order, units.get(name, ""))
            columns[name] = _column(path, file, files, f"{group}/{name}", fields[name], shape)
            _check_shape(name, columns[name], fields[name], samples, len(times), shape)
    if own:
        fields, columns = ({name: table[name] for name in own["fields"]} for table in (fields, columns))  # type: ignore[assignment]
    constants, scalars = _read_scalars(file, samples, notes)
    steady = own["steady"] if own else not any(field.time_varying for field in fields.values())
    description = Description(
        own.get("name", _text(file.attrs["dataset_name"])),
        grid,
        fields,
        None if steady else times,
        Equation.from_json(own["equation"]) if own.get("equation") else None,
        constants,
        tuple(own.get("inputs", ())),
        tuple(own.get("outputs", ())),
        own.get("points", "cells"),
        tuple(notes),
    )
    return description, Part(str(path), samples, columns, scalars)


def read_grid(described: Mapping[str, Any], file: h5py.File) -> Grid:
    """The inverse of `describe_grid`."""
    cpu = torch.device("cpu")

    def tensor(item: Any) -> Any:
        return tensor_of(file, item, cpu) if isinstance(item, Mapping) else item

    by_unknown: dict[str, SidesByAxis] = {
        unknown: {
            axis: (make_condition(pair[0], tensor), make_condition(pair[1], tensor)) for axis, pair in sides.items()
        }
        for unknown, sides in described["boundary"].items()
    }
    walls = {unknown: make_condition(words, tensor) for unknown, words in described["walls"].items()}
    return Grid(
        tuple(described["shape"]),
        tuple(described["lower"]),
        tuple(described["upper"]),
        by_unknown.get("", by_unknown),
        tensor(described["solid"]),
        walls.get("", walls),
        dtype=DTYPES[described["dtype"]],
    )


def _infer_grid(file: h5py.File, names: list[str], notes: list[str]) -> Grid:
    coordinates = []
    for name in names:
        values = np.asarray(file["dimensions"][name][()], np.float64)
        if values.ndim == 2 and (values == values[:1]).all():
            values = values[0]
        coordinates.append(torch.from_numpy(values))
    sides: dict[str, Any] = {}
    for axis, name in zip(AXES, names, strict=False):
        sides[axis] = _infer_sides(file["boundary_conditions"], name, notes)
    grid, _ = grid_at(coordinates, sides)
    return grid


def _infer_sides(group: h5py.Group, name: str, notes: list[str]) -> Boundary | tuple[Any, Any]:
    """Conditions along one axis; what the layout leaves open is taken as Neumann(0), and said."""
    pair: list[Any] = [None, None]
    for entry in group.values():
        if name not in _texts(entry.attrs["associated_dims"]) or len(_texts(entry.attrs["associated_dims"])) > 1:
            continue
        kind, mask = _text(entry.attrs["bc_type"]).upper(), np.asarray(entry["mask"][()], bool)
        if kind == "PERIODIC":
            return Periodic()
        values = np.asarray(entry["values"][()]).reshape(-1) if "values" in entry else np.empty(0)
        held = kind == "WALL" and len(_texts(entry.attrs["associated_fields"])) == 1 and len(values) > 0
        for side, here in enumerate((mask.reshape(-1)[0], mask.reshape(-1)[-1])):
            if here and (pair[side] is None or held):
                pair[side] = Dirichlet(float(values[-side])) if held else kind
    for side, found in enumerate(pair):
        if not isinstance(found, Dirichlet):
            end = f"the {('lower', 'upper')[side]} end of axis {name}"
            said = f"only {found!r} at" if isinstance(found, str) else "nothing of"
            notes.append(f"the file says {said} {end}; taken as a zero outward derivative")
            pair[side] = Neumann(0.0)
    return pair[0], pair[1]


def _read_times(file: h5py.File) -> Tensor:
    times = np.asarray(file["dimensions/time"][()], np.float64)
    if times.ndim == 2:
        if not (times == times[:1]).all():
            raise InputError("its trajectories have different times; the same times for all are needed")
        times = times[0]
    return torch.from_numpy(times.reshape(-1).copy())


def _column(path: Path, file: h5py.File, files: HDF5Files, place: str, field: Field, shape: tuple[int, ...]) -> Column:
    dataset = file[place]
    roles: list[Any] = [
        name for name, there in (("sample", field.sample_varying), ("time", field.time_varying)) if there
    ]
    leading, space = len(roles), list(AXES[: len(shape)])
    trailing = ["component", "component2"][: len(field.components)]
    along = [bool(x) for x in np.asarray(dataset.attrs["dim_varying"]).reshape(-1)]
    if all(along):
        if dataset.ndim != leading + len(shape) + len(trailing):
            raise InputError(
                f"field {place!r} has shape {dataset.shape}; its attributes ask for the axes "
                f"{', '.join([*roles, *space, *trailing])}"
            )
        return files.column(path, place, [*roles, *space, *trailing])
    present = [axis for axis, there in zip(space, along, strict=True) if there]
    values: Array = np.asarray(dataset[()])
    if values.ndim == leading + len(present) + len(trailing):  # axes along which nothing changes are left out
        for number, there in enumerate(along):
            if not there:
                values = np.expand_dims(values, leading + number)
    end = values.ndim - len(trailing)
    whole = np.broadcast_to(values, (*values.shape[:leading], *shape, *values.shape[end:]))
    return ArrayColumn(lambda: whole, [*roles, *space, *trailing])


def _check_shape(name: str, column: Column, field: Field, samples: int, times: int, shape: tuple[int, ...]) -> None:
    expected = (*((samples,) * field.sample_varying), *((times,) * field.time_varying), *field.components, *shape)
    if column.shape != expected:
        raise InputError(
            f"field {name!r} has shape {column.shape} (samples, time, components, space), expected {expected}"
        )


def _read_scalars(file: h5py.File, samples: int, notes: list[str]) -> tuple[dict[str, float], dict[str, Tensor]]:
    constants: dict[str, float] = {}
    varying: dict[str, Tensor] = {}
    for name in _texts(file["scalars"].attrs["field_names"]):
        dataset = file["scalars"][name]
        values = np.asarray(dataset[()], np.float64)
        if bool(dataset.attrs["time_varying"]):
            notes.append(f"the scalar {name!r}, which changes in time, is left out")
        elif bool(dataset.attrs["sample_varying"]):
            if values.size != samples:
                raise InputError(f"scalar {name!r} has shape {values.shape}, expected one number for {samples} samples")
            varying[name] = torch.from_numpy(values.reshape(-1).copy())
        elif values.size == 1:
            constants[name] = float(values.reshape(-1)[0])
        else:
            notes.append(f"the scalar {name!r} of shape {values.shape} is left out")
    for name in _texts(file.attrs.get("simulation_parameters", ())):
        number = np.asarray(file.attrs.get(name, np.nan))
        if name not in constants and name not in varying and number.size == 1 and number.dtype.kind in "fiu":
            constants[name] = float(number.reshape(-1)[0])
    return constants, varying


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _texts(values: Any) -> list[str]:
    return [_text(value) for value in np.asarray(values).reshape(-1)]
