"""Files in the HDF5 layout of The Well, ours and those of others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from sciml.boundary import AXES, SidesByAxis
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.well import DTYPES, make_condition, tensor_of

from .columns import Column, HDF5Files, Part, RepeatedColumn, Role
from .description import Description, Field, Points

Place = Callable[[Sequence[Tensor], h5py.File], tuple[Grid, Points, list[str]]]
_OWN = "sciml/description"
_ORDERS = ("t0_fields", "t1_fields", "t2_fields")
_GROUPS = ("dimensions", "boundary_conditions", "scalars", *_ORDERS)


def is_well(file: h5py.File) -> bool:
    """Whether a file has the groups of the layout."""
    return "dimensions" in file and "t0_fields" in file


def read_layout(path: Path, files: HDF5Files, place: Place | None = None) -> tuple[Description, Part]:
    """What a file says of itself, and its samples, of which no value is read yet.

    Args:
        path: of the file.
        files: which keeps it open.
        place: makes the domain, what values stand at, and notes, of the coordinates along each axis and the open file;
            asked of a file that does not describe itself as ours do.

    Raises:
        InputError: a group, an attribute or an axis is missing or does not fit the others; it says which.
    """
    file = files.file(path)
    try:
        return _read(path, file, files, place)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, OSError, RecursionError) as error:
        raise InputError(f"{path} does not have the layout of The Well: {error}") from error


def describes_itself(file: h5py.File) -> bool:
    """Whether a file bears a description of ours."""
    return _OWN in file


def _read(path: Path, file: h5py.File, files: HDF5Files, place: Place | None) -> tuple[Description, Part]:
    missing = [name for name in _GROUPS if name not in file]
    if missing:
        raise InputError(f"it has no group {missing[0]!r}; the layout of The Well has {', '.join(_GROUPS)}")
    kind = text(file.attrs.get("grid_type", "cartesian"))
    if kind != "cartesian":
        raise InputError(f"its grid is {kind}; uniform cartesian ones can be read")
    samples = int(file.attrs["n_trajectories"])
    own = json.loads(file[_OWN].asstr()[()]) if describes_itself(file) else {}
    names = texts(file["dimensions"].attrs["spatial_dims"])
    if not 1 <= len(names) <= len(AXES):
        raise InputError(f"it has {len(names)} axes of space; one to three are needed")
    shape = tuple(int(file["dimensions"][name].shape[-1]) for name in names)
    notes: list[str] = list(own.get("notes", ()))
    if own:
        grid, points = read_grid(own["grid"], file), own["points"]
    elif place is not None:
        grid, points, more = place([_coordinates(file, name) for name in names], file)
        notes += more
    else:
        raise InputError(f"it has no {_OWN!r}, which a dataset of ours has")
    times = _read_times(file)
    fields: dict[str, Field] = {}
    columns: dict[str, Column] = {}
    units = own.get("units", {})
    for order, group in enumerate(_ORDERS):
        for name in texts(file[group].attrs["field_names"]):
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
        own.get("name", text(file.attrs["dataset_name"])),
        grid,
        fields,
        None if steady else times,
        Equation.from_json(own["equation"]) if own.get("equation") else None,
        constants,
        tuple(own.get("inputs", ())),
        tuple(own.get("outputs", ())),
        points,
        tuple(notes),
    )
    if description.places.shape != shape:
        raise InputError(f"its coordinates have {shape} places and its grid {description.places.shape}")
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


def _coordinates(file: h5py.File, name: str) -> Tensor:
    values = np.asarray(file["dimensions"][name][()], np.float64)
    if values.ndim == 2 and (values == values[:1]).all():
        values = values[0]
    return torch.from_numpy(values)


def _read_times(file: h5py.File) -> Tensor:
    times = np.asarray(file["dimensions/time"][()], np.float64)
    if times.ndim == 2:
        if not (times == times[:1]).all():
            raise InputError("its trajectories have different times; the same times for all are needed")
        times = times[0]
    return torch.from_numpy(times.reshape(-1).copy())


def _column(path: Path, file: h5py.File, files: HDF5Files, place: str, field: Field, shape: tuple[int, ...]) -> Column:
    dataset = file[place]
    leading: list[Role] = [
        name for name, there in (("sample", field.sample_varying), ("time", field.time_varying)) if there
    ]
    trailing: list[Role] = ["component", "component2"][: len(field.components)]  # type: ignore[assignment]
    along = [bool(x) for x in np.asarray(dataset.attrs["dim_varying"]).reshape(-1)]
    axes = AXES[: len(shape)]
    missing = [number for number, there in enumerate(along) if not there]
    # Axes along which nothing changes are left out, have length 1, or repeat their values.
    if dataset.ndim == len(leading) + len(shape) + len(trailing):
        lengths = dataset.shape[len(leading) : len(leading) + len(shape)]
        missing = [number for number in missing if lengths[number] == 1]
        space: list[Role] = [0 if number in missing else axis for number, axis in enumerate(axes)]
    else:
        space = [axis for number, axis in enumerate(axes) if number not in missing]
    roles = [*leading, *space, *trailing]
    if len(along) != len(shape) or dataset.ndim != len(roles):
        raise InputError(
            f"field {place!r} has shape {dataset.shape}; its attributes ask for the axes "
            f"{', '.join(str(role) for role in roles)}"
        )
    column = files.column(path, place, roles)
    return RepeatedColumn(column, missing, shape) if missing else column


def _check_shape(name: str, column: Column, field: Field, samples: int, times: int, shape: tuple[int, ...]) -> None:
    expected = (*((samples,) * field.sample_varying), *((times,) * field.time_varying), *field.components, *shape)
    if column.shape != expected:
        raise InputError(
            f"field {name!r} has shape {column.shape} (samples, time, components, space), expected {expected}"
        )


def _read_scalars(file: h5py.File, samples: int, notes: list[str]) -> tuple[dict[str, float], dict[str, Tensor]]:
    constants: dict[str, float] = {}
    varying: dict[str, Tensor] = {}
    for name in texts(file["scalars"].attrs["field_names"]):
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
    for name in texts(file.attrs.get("simulation_parameters", ())):
        number = np.asarray(file.attrs.get(name, np.nan))
        if name not in constants and name not in varying and number.size == 1 and number.dtype.kind in "fiu":
            constants[name] = float(number.reshape(-1)[0])
    return constants, varying


def text(value: Any) -> str:
    """A text of HDF5, which may come as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def texts(values: Any) -> list[str]:
    """A list of them."""
    return [text(value) for value in np.asarray(values).reshape(-1)]
